"""Reverse KL of whole texts by policy gradient, as MiniLLM has it."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.base import Needs, Objective, Sum, active, nothing
from understudy.objectives.planning import packed
from understudy.objectives.policy import token_log_probabilities
from understudy.objectives.positions import Rows, per_position
from understudy.signals import Batch, Signals


def _read(log_q: Tensor, log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KL(q || p) over the vocabulary, log q(y), log p(y)."""
    q = log_q.exp()
    divergence = torch.where(q > 0, q * (log_q - log_p), 0.0).sum(-1)
    return divergence, *token_log_probabilities(log_q, log_p, labels)


class SequenceReverseKL(Objective):
    r"""KL(q || p) of texts y that were drawn from m = alpha p + (1 - alpha) q; nats a token.

    Gradient, with r_t = log p(y_t) - log q(y_t) and w_t = q(y_t) / m(y_t) (constants):

        sum_t w_t [ grad KL(q_t || p_t) - R_{t+1} grad log q(y_t) ]

    the first part exact over the vocabulary (single-step decomposition), R_{t+1} the mean of r over
    the tokens after t (length normalisation), or their sum. Value: sum_t w_t KL(q_t || p_t).
    clip: PPO's, on w: tokens that are already favoured by more than it give no long-term gradient.

    Source: Gu et al., MiniLLM, arXiv 2306.08543, Eq. 3 to 6. Eq. 6 divides by T - t - 1, which is
    zero for the last but one token; here by the number of the tokens that are summed, T - t.
    """

    name = "minillm"
    coupling: ClassVar = "sample"
    needs = Needs(labels=True)
    counts = "labelled"

    def __init__(
        self, alpha: float = 0.2, *, normalised: bool = True, clip: float | None = 0.2
    ) -> None:
        super().__init__()
        if not 0 <= alpha < 1:
            raise UserError(f"the teacher's share alpha lies in [0, 1), not {alpha}")
        if clip is not None and clip <= 0:
            raise UserError(f"clip is above 0, not {clip}")
        self.alpha, self.normalised, self.clip = alpha, normalised, clip

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over the counted positions."""
        found = packed(self, student, teacher, batch)
        if found is None:
            return Sum(nothing(student), active(self, batch).sum().float())
        said, heard, small, count, share = found
        assert small.labels is not None
        divergence, mine, theirs = per_position(_read, said, heard, small.labels)
        w = self._importance(mine.detach(), theirs)
        reward = Rows(self, batch, student).later(theirs - mine.detach(), mean=self.normalised)
        values = w * divergence - self._kept(w, reward) * reward * (mine - mine.detach())
        if small.weights is not None:
            values = values * small.weights
        return Sum(share * values.sum(), count)

    def _importance(self, mine: Tensor, theirs: Tensor) -> Tensor:
        if not self.alpha:
            return torch.ones_like(mine)
        mixed = torch.logaddexp(math.log(self.alpha) + theirs, math.log1p(-self.alpha) + mine)
        return (mine - mixed).exp()

    def _kept(self, w: Tensor, reward: Tensor) -> Tensor:
        if self.clip is None:
            return w
        far = ((reward > 0) & (w > 1 + self.clip)) | ((reward < 0) & (w < 1 - self.clip))
        return w.masked_fill(far, 0.0)


def sequence_reverse_kl(
    alpha: float = 0.2, *, normalised: bool = True, clip: float | None = 0.2
) -> SequenceReverseKL:
    """MiniLLM's objective on texts drawn with the teacher's share alpha; see the class."""
    return SequenceReverseKL(alpha, normalised=normalised, clip=clip)
