"""Divergences that look at the teacher's likeliest classes: AKL, and its best class alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.vocabulary import VocabularyDivergence


@dataclass(frozen=True)
class HeadTail:
    """g_h / (g_h + g_t) KL(p || q) + g_t / (g_h + g_t) KL(q || p), the gaps g constant.

    g_h is sum |p - q| over the head, the teacher's likeliest classes whose probabilities sum to at
    most mu (the likeliest always belongs), g_t that over the others; 1/2 each where both are zero.

    Source: Wu et al., arXiv 2404.02657, and the authors' code.
    """

    mu: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.mu <= 1:
            raise UserError(f"the head's share mu lies in (0, 1], not {self.mu}")

    def share(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """[..., 1] weight of the forward KL."""
        with torch.no_grad():
            p, q = log_p.exp(), log_q.exp()
            ordered, places = p.sort(dim=-1, descending=True, stable=True)
            outside = ordered.cumsum(-1) > self.mu
            outside[..., 0] = False
            gap = (p - q).abs().gather(-1, places)
            whole = gap.sum(-1, keepdim=True)
            head = gap.masked_fill(outside, 0.0).sum(-1, keepdim=True)
            return torch.where(whole > 0, head / whole, 0.5)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Both KLs' summands, weighed."""
        w, ratio = self.share(log_p, log_q), log_p - log_q
        p, q = log_p.exp(), log_q.exp()
        left = torch.where(p > 0, p * ratio, 0.0)
        return w * left - (1 - w) * torch.where(q > 0, q * ratio, 0.0)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-w p + (1 - w) q (log q - log p + 1)."""
        w, q = self.share(log_p, log_q), log_q.exp()
        right = torch.where(q > 0, q * (log_q - log_p + 1), 0.0)
        return (1 - w) * right - w * log_p.exp()


@dataclass(frozen=True)
class BestToken:
    """-log q of the class that the teacher finds likeliest, nats.

    Source: Lin et al., ImitKD, arXiv 2009.07253, Eq. 5.
    """

    def _best(self, log_p: Tensor) -> Tensor:
        best = log_p.detach().argmax(-1, keepdim=True)
        return torch.zeros_like(log_p).scatter_(-1, best, 1.0)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-log q at the best class."""
        best = self._best(log_p)
        return torch.where(best > 0, -log_q, 0.0)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-1 at the best class."""
        return -self._best(log_p)


class AKL(VocabularyDivergence):
    """`HeadTail` over a vocabulary, nats per position."""

    name = "akl"

    def __init__(self, *, mu: float = 0.5) -> None:
        super().__init__(HeadTail(mu))
        self.mu = mu


def akl(*, mu: float = 0.5) -> AKL:
    """Adaptive KL: forward for the head's share of the gap, reverse for the tail's; see `HeadTail`."""
    return AKL(mu=mu)
