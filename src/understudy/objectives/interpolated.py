"""A target between the student and the teacher that moves to the teacher: TAID."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.base import Sum
from understudy.objectives.gather import processes
from understudy.objectives.vocabulary import VocabularyDivergence
from understudy.signals import Batch, Signals


@dataclass
class Interpolated:
    """D(p_t, q), p_t = softmax((1 - t) log q + t log p), its student's part a constant.

    D is KL(p_t || q), or the cross-entropy -sum p_t log q, which has the same gradient q - p_t.
    """

    t: float = 1.0
    entropy: bool = False

    def target(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """log p_t, without a gradient."""
        if self.t >= 1:
            return log_p
        mixed = (1 - self.t) * log_q.detach()
        return (mixed + self.t * log_p if self.t > 0 else mixed).log_softmax(-1)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """p_t (log p_t - log q), or -p_t log q."""
        target = self.target(log_p, log_q)
        p = target.exp()
        ratio = -log_q if self.entropy else target - log_q
        return torch.where(p > 0, p * ratio, 0.0)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-p_t."""
        return -self.target(log_p, log_q).exp()


class TAID(VocabularyDivergence):
    r"""D(p_t, q), p_t = softmax((1 - t) z_q + t z_p) with z_q constant; t rises from `start` to 1.

    After each update, with J its value: delta = (J_before - J) / J_before, m = beta m + (1 - beta)
    delta, and t becomes min(1, max(linear, t + alpha sigmoid(m) (1 - t))), where `linear` rises from
    start to 1 over the stage. Nats. t, m and J are buffers.

    Source: Shing et al., TAID, arXiv 2501.16937, Eq. 3 and Algorithm 1; `form`: the paper's
    divergence is KL, the authors' code computes (and adapts t by) the `cross_entropy`.
    """

    name = "taid"
    together: ClassVar = None  # its own forward pass counts
    t: Tensor
    momentum: Tensor
    before: Tensor
    sums: Tensor
    progress: Tensor

    def __init__(
        self,
        *,
        start: float = 0.4,
        alpha: float = 5e-4,
        beta: float = 0.99,
        adaptive: bool = True,
        form: str = "cross_entropy",
    ) -> None:
        if not 0 <= start < 1:
            raise UserError(f"t starts in [0, 1), not at {start}")
        if not 0 <= beta < 1:
            raise UserError(f"the momentum beta lies in [0, 1), not {beta}")
        if form not in ("kl", "cross_entropy"):
            raise UserError(f"the form is kl or cross_entropy, not {form!r}")
        super().__init__(Interpolated(start, form == "cross_entropy"))
        self.start, self.alpha, self.beta = start, alpha, beta
        self.adaptive, self.form = adaptive, form
        for name, value in (("t", start), ("momentum", 0.0), ("before", float("nan"))):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("progress", torch.tensor(0.0, dtype=torch.float64))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over active positions; what an update comes to is kept while training."""
        assert isinstance(self.kind, Interpolated)
        self.kind.t = float(self.t)
        found = super().forward(student, teacher, batch)
        if self.training:
            with torch.no_grad():
                self.sums += torch.stack([found.total.detach(), found.count]).to(self.sums)
                self.progress.fill_(batch.progress)
        return found

    @torch.no_grad()
    def after_step(self) -> None:
        """Move t."""
        if processes() > 1:
            dist.all_reduce(self.sums)
        total, count = self.sums.tolist()
        self.sums.zero_()
        if not count:
            return
        value, before = total / count, float(self.before)
        self.before.fill_(value)
        linear = self.start + (1 - self.start) * float(self.progress)
        if before != before:  # the first update: there is nothing to compare with
            return
        moved = linear
        if self.adaptive:
            change = (before - value) / (before + 1e-15)
            self.momentum.mul_(self.beta).add_((1 - self.beta) * change)
            rise = self.alpha * float(self.momentum.sigmoid()) * (1 - float(self.t))
            moved = max(linear, float(self.t) + rise)
        self.t.fill_(min(1.0, moved))


def taid(
    *,
    start: float = 0.4,
    alpha: float = 5e-4,
    beta: float = 0.99,
    adaptive: bool = True,
    form: str = "cross_entropy",
) -> TAID:
    """A target that moves from the student to the teacher; see `TAID`."""
    return TAID(start=start, alpha=alpha, beta=beta, adaptive=adaptive, form=form)
