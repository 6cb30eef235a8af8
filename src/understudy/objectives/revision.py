"""Divergence over the dense part of a teacher's distribution, and relations within spans of text."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.errors import SignalError, UserError
from understudy.objectives.base import Objective, PerSample, Sum, nothing
from understudy.signals import Batch, Signals


class _Limits(nn.Module):
    """Where to clip each distribution: two numbers from the heads of teacher's and student's."""

    def __init__(self, seen: int, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2 * seen, width), nn.Linear(width, 2)
        with torch.no_grad():  # at first all but the rarest classes count
            self.out.weight.mul_(0.1)
            self.out.bias.copy_(torch.tensor([-3.0, 1.0]))

    def forward(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """[M, 1] each: the lower and the upper end on the scale of log ranks."""
        both = self.out(torch.tanh(self.hidden(torch.cat([p, q], -1)))).sigmoid()
        low = -0.2 + 0.7 * both[:, :1]
        return low, low + (1.2 - low) * both[:, 1:]


class _DACKL(PerSample):
    name = "dac_kl"
    coupling: ClassVar = "position"

    def __init__(self, seen: int, width: int, sharpness: float) -> None:
        super().__init__()
        if seen < 1 or width < 1 or sharpness <= 0:
            raise UserError("dac_kl: seen, width and sharpness are positive")
        self.seen, self.width, self.sharpness = seen, width, sharpness

    def build(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """The sub-network, from the size of the vocabulary."""
        self.limits = _Limits(min(self.seen, _classes(teacher)), self.width)

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        z_t, z_s = teacher.dense, student.dense
        shared = min(z_t.shape[-1], z_s.shape[-1])
        log_p, log_q = z_t[..., :shared].log_softmax(-1), z_s[..., :shared].log_softmax(-1)
        log_p, order = log_p.sort(dim=-1, descending=True, stable=True)
        log_q = log_q.gather(-1, order)
        k = self.limits.hidden.in_features // 2
        low, high = self.limits(log_p[:, :k].exp(), log_q[:, :k].detach().exp())
        rank = torch.arange(1, shared + 1, device=log_p.device, dtype=log_p.dtype)
        place = rank.log() / max(float(rank[-1].log()), 1e-6)
        inside = F.logsigmoid(self.sharpness * (place - low))
        inside = inside + F.logsigmoid(self.sharpness * (high - place))
        log_p, log_q = (log_p + inside).log_softmax(-1), (log_q + inside).log_softmax(-1)
        p = log_p.exp()
        return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)


def dac_kl(*, seen: int = 32, width: int = 32, sharpness: float = 20.0) -> _DACKL:
    r"""KL(p' || q') where p', q' are the two distributions within limits that a network learns.

    Classes are ranked by the teacher; class of rank r (1 the likeliest) of V stands at log r / log V
    and counts sigmoid(s (place - low)) sigmoid(s (high - place)), after which both are normalised.
    (low, high) = f(the teacher's `seen` largest probabilities, the student's of the same classes), a
    network of one hidden layer that learns by the same loss. nats.

    Source: Liu et al., arXiv 2407.10068, section 3.2 (limits as quantiles: 1 - V^(place - 1)).
    """
    return _DACKL(seen, width, sharpness)


class _SpanRelation(Objective):
    name = "span_relation"
    coupling: ClassVar = "sample"

    def __init__(self, kinds: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("kinds", kinds, persistent=False)

    def pairs(self, batch: Batch) -> Tensor:
        """[N, L - 1] whether the tokens that positions l and l + 1 predict stand in one span."""
        ids = batch.inputs["input_ids"]
        # what position l predicts is the token after it; after the last one none is known
        following = ids[:, 1:]
        kinds: Tensor | None = self.kinds  # pyright: ignore[reportAssignmentType]
        inside = torch.ones_like(following) if kinds is None else kinds.to(ids.device)[following]
        found = torch.zeros_like(ids[:, 1:], dtype=torch.bool)
        found[:, :-1] = (inside[:, :-1] == inside[:, 1:]) & (inside[:, :-1] > 0)
        mask = batch.mask
        if mask is None:
            return found
        mask = mask.unsqueeze(-1).expand(ids.shape) if mask.ndim == 1 else mask
        return found & mask[:, :-1] & mask[:, 1:]

    def count(self, batch: Batch) -> Tensor:
        """Pairs of neighbours within spans."""
        return self.pairs(batch).sum().float()

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Sum over the pairs."""
        pairs = self.pairs(batch)
        count = pairs.sum().float()
        if not bool(pairs.any()):
            return Sum(nothing(student), count)
        first = F.pad(pairs, (0, 1))
        second = F.pad(pairs, (1, 0))
        said, heard = _products(student, first, second), _products(teacher, first, second)
        shared = min(said.shape[-1], heard.shape[-1])
        values = (said[:, :shared] - heard[:, :shared]).square().sum(-1)
        if (weights := batch.weights) is not None:
            weights = weights.unsqueeze(-1).expand(first.shape) if weights.ndim == 1 else weights
            values = values * weights[first]
        return Sum(values.sum(), count)


def _products(said: Signals, first: Tensor, second: Tensor) -> Tensor:
    """[M, V] p_l * p_(l+1), class by class."""
    if said.logits is None:
        raise SignalError("this source gives no logits, and relations within spans need them")
    return said.rows(first).dense.softmax(-1) * said.rows(second).dense.softmax(-1)


def _classes(said: Signals) -> int:
    weight = getattr(said.logits, "weight", None)
    return weight.shape[0] if weight is not None else said.dense.shape[-1]


def span_relation(kinds: Tensor | None = None) -> _SpanRelation:
    r"""sum_v (p_l,v p_l+1,v - q_l,v q_l+1,v)^2, a mean over neighbours within spans; no unit.

    A span is a run of tokens of one kind above zero, by `kinds` [V]; without kinds a whole text is
    one. Logits [N, L, V] answer the token after each position.

    Source: Liu et al., arXiv 2407.10068, section 3.3: Hadamard products of neighbours' distributions.
    """
    return _SpanRelation(kinds)
