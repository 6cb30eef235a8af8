"""Objectives on the texts of one author, and DistiLLM-2's pair of them."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.base import Needs, Objective, Sum, active, nothing
from understudy.objectives.gather import processes
from understudy.objectives.planning import packed
from understudy.objectives.policy import token_log_probabilities
from understudy.objectives.positions import Rows, per_position
from understudy.signals import Batch, Signals
from understudy.signals.authors import DATA, NAMES, authors


class WrittenBy(Objective):
    """An objective on those texts of a batch that certain authors have written.

    Who wrote a text stands in its sample number (`signals.authors`); one without is the data's.
    """

    def __init__(self, objective: Objective, by: tuple[int, ...]) -> None:
        super().__init__()
        if not by or any(author not in range(len(NAMES)) for author in by):
            raise UserError(f"authors are 0 to {len(NAMES) - 1} ({', '.join(NAMES)}), not {by}")
        self.inner, self.by = objective, by
        self.name, self.of = objective.name, type(objective).__name__
        self.needs, self.counts = objective.needs, objective.counts
        self.coupling = objective.coupling  # pyright: ignore[reportAttributeAccessIssue]
        self.may_vanish = objective.may_vanish

    def build(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """As the objective's."""
        self.inner.build(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The objective's sum over these texts."""
        return self.inner(student, teacher, self._theirs(batch))

    def count(self, batch: Batch) -> Tensor:
        """As the objective's."""
        return self.inner.count(self._theirs(batch))

    def after_step(self) -> None:
        """As the objective's."""
        self.inner.after_step()

    def _theirs(self, batch: Batch) -> Batch:
        if batch.index is None:
            rows = torch.full((len(batch),), DATA in self.by)
        else:
            rows = torch.isin(authors(batch.index), torch.tensor(self.by).to(batch.index))
        if batch.mask is None:
            return replace(batch, mask=rows)
        return replace(
            batch,
            mask=batch.mask & rows.to(batch.mask.device).view(-1, *[1] * (batch.mask.ndim - 1)),
        )


def written_by(objective: Objective, *by: int) -> WrittenBy:
    """An objective on the texts of these authors alone (`understudy.signals.authors`)."""
    return WrittenBy(objective, by)


class AdaptiveSkew(Objective):
    r"""Skew KL towards a mixture whose share alpha depends on how far apart the two are on a text.

    forward: KL(p || alpha p + (1 - alpha) q), for texts of the teacher; otherwise
    KL(q || alpha q + (1 - alpha) p), for texts of the student. Nats a token.

    alpha_i = clip(1 - (1 - alpha) m / g_i, 0.01, alpha) with g = p(y) - q(y) of the text's mean
    token (exp of the mean log-probability), q(y) - p(y) in reverse, and m its mean over the first
    update, in which alpha is as given. A text on which the two agree has a small alpha.
    constant: whether q within the mixture of the reverse form is taken as a constant.

    Source: Ko et al., DistiLLM-2, arXiv 2503.07067, Eq. 2, 5 and Algorithm 1; m, the clip, the
    texts that g is taken on and `constant` as the authors' code has them.
    """

    name = "skew"
    coupling: ClassVar = "sample"
    needs = Needs(labels=True)
    counts = "labelled"
    anchor: Tensor
    sums: Tensor

    def __init__(
        self,
        direction: str = "forward",
        *,
        alpha: float = 0.1,
        adaptive: bool = True,
        constant: bool = True,
    ) -> None:
        super().__init__()
        if direction not in ("forward", "reverse"):
            raise UserError(f"the direction is forward or reverse, not {direction!r}")
        if not 0.01 <= alpha < 1:
            raise UserError(f"the skew alpha lies in [0.01, 1), not {alpha}")
        self.direction, self.alpha = direction, alpha
        self.adaptive, self.constant = adaptive, constant
        self.name = "skl" if direction == "forward" else "srkl"
        self.register_buffer("anchor", torch.tensor(float("nan"), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over the counted positions."""
        found = packed(self, student, teacher, batch)
        if found is None:
            return Sum(nothing(student), active(self, batch).sum().float())
        said, heard, small, count, share = found
        assert small.labels is not None
        alpha = torch.full_like(small.labels, self.alpha, dtype=torch.float64)
        if self.adaptive:
            alpha = self._shares(said, heard, small.labels, Rows(self, batch, student))
        read = self._forward if self.direction == "forward" else self._reverse
        (values,) = per_position(read, said, heard, small.labels, alpha)
        if small.weights is not None:
            values = values * small.weights
        return Sum(share * values.sum(), count)

    @torch.no_grad()
    def _shares(self, said: Signals, heard: Signals, labels: Tensor, rows: Rows) -> Tensor:
        """[n] alpha of each position's text."""
        mine, theirs = per_position(token_log_probabilities, said, heard, labels)
        gap = rows.means(theirs).exp() - rows.means(mine).exp()
        gap = gap if self.direction == "forward" else -gap
        real = rows.mask.any(1)
        if self.training and bool(self.anchor.isnan()):
            self.sums += torch.stack([gap[real].sum(), real.sum()]).to(self.sums)
        if bool(self.anchor.isnan()):
            return torch.full(labels.shape, self.alpha, dtype=mine.dtype, device=mine.device)
        ratio = self.anchor.to(gap) / (gap + 1e-5)
        return rows.each((1 - (1 - self.alpha) * ratio).clamp(0.01, self.alpha))

    @torch.no_grad()
    def after_step(self) -> None:
        """After the first update: the mean gap that all later ones are measured by."""
        if not self.adaptive or not bool(self.anchor.isnan()):
            return
        if processes() > 1:
            dist.all_reduce(self.sums)
        if float(self.sums[1]):
            self.anchor.copy_(self.sums[0] / self.sums[1])
        self.sums.zero_()

    def _forward(
        self, log_q: Tensor, log_p: Tensor, labels: Tensor, alpha: Tensor
    ) -> tuple[Tensor]:
        p, a = log_p.exp(), alpha.to(log_q)[:, None]
        mixed = torch.logaddexp(a.log() + log_p, torch.log1p(-a) + log_q)
        return (torch.where(p > 0, p * (log_p - mixed), 0.0).sum(-1),)

    def _reverse(
        self, log_q: Tensor, log_p: Tensor, labels: Tensor, alpha: Tensor
    ) -> tuple[Tensor]:
        q, a = log_q.exp(), alpha.to(log_q)[:, None]
        own = log_q.detach() if self.constant else log_q
        mixed = torch.logaddexp(a.log() + own, torch.log1p(-a) + log_p)
        return (torch.where(q > 0, q * (log_q - mixed), 0.0).sum(-1),)


def adaptive_skew(
    direction: str = "forward",
    *,
    alpha: float = 0.1,
    adaptive: bool = True,
    constant: bool = True,
) -> AdaptiveSkew:
    """DistiLLM-2's skew KL of one direction; see `AdaptiveSkew`."""
    return AdaptiveSkew(direction, alpha=alpha, adaptive=adaptive, constant=constant)
