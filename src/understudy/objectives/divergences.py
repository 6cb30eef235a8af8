"""Divergences between two categorical distributions, each defined once, by its terms over classes.

Dense, chunked and sparse losses (`vocabulary.py`) are derived from these definitions. A divergence
is the sum over classes of `terms(log_p, log_q)`; `slope` is the derivative of each term by its own
log q, from which the gradient at the student's logits z, q = softmax(z / T), follows for all alike:

    dD/dz_k = (slope_k - q_k sum_j slope_j) / T

`pull` is both once more, value and T times that gradient, in few passes over a `Block` that it may
overwrite: what a step of training pays for. Tests hold it to `terms` and `slope`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from understudy.errors import UserError, unknown


@dataclass
class Block:
    """Log-probabilities and probabilities of some positions, [n, K] each, and as much to spare.

    All may be overwritten. Log-probabilities are finite: a class that is excluded has the least
    number that there is.
    """

    log_p: Tensor
    log_q: Tensor
    p: Tensor
    q: Tensor
    spare: Tensor


class Divergence(Protocol):
    """D(p, q) = sum_k terms_k, in nats unless its class says otherwise; p teaches, q learns.

    What may be added: `pull(block) -> (values [n, 1], gradient [n, K])`, faster than what follows
    from the two methods; `merges`, that terms(cp, cq) = c terms(p, q), so that merging classes
    gives a lower bound, and the same where p / q is the same; `linear`, that slope = -p, so that
    an unbiased estimate of p gives one of the gradient.
    """

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """[..., K] summands of log-probabilities [..., K]; zero where both are zero."""
        ...

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """[..., K] derivative of each summand by its log q."""
        ...


def pull(kind: Divergence, block: Block) -> tuple[Tensor, Tensor]:
    """(values [n, 1], gradient [n, K] at z / T) of a block, which is used up."""
    own = getattr(kind, "pull", None)
    if own is not None:
        return own(block)
    values = _sum(kind.terms(block.log_p, block.log_q))
    slope = kind.slope(block.log_p, block.log_q)
    return values, slope.sub_(block.q.mul_(_sum(slope)))


def _sum(terms: Tensor) -> Tensor:
    return terms.sum(-1, keepdim=True)


def _centred(slope: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_j slope_j, slope - q sum_j slope_j), in place."""
    inner = _sum(slope)
    return inner, slope.addcmul_(q, inner, value=-1)


def _mixed(a: Tensor, b: Tensor, share: float, out: Tensor) -> Tensor:
    """share a + (1 - share) b, kept above zero so that its logarithm is finite."""
    torch.lerp(b, a, share, out=out)
    return out.clamp_min_(torch.finfo(out.dtype).tiny)


def _product(p: Tensor, log_ratio: Tensor) -> Tensor:
    """p times a logarithm, zero where p is (a logit of -inf)."""
    return torch.where(p > 0, p * log_ratio, 0.0)


def _mixture(log_a: Tensor, log_b: Tensor, a: float) -> Tensor:
    """log(a exp(log_a) + (1 - a) exp(log_b)), a in (0, 1)."""
    return torch.logaddexp(log_a + math.log(a), log_b + math.log1p(-a))


@dataclass(frozen=True)
class ForwardKL:
    """KL(p || q) = sum p (log p - log q)."""

    merges: ClassVar = True
    linear: ClassVar = True

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """p (log p - log q)."""
        return _product(log_p.exp(), log_p - log_q)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-p."""
        return -log_p.exp()

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """The gradient is q - p."""
        terms = block.log_p.sub_(block.log_q).mul_(block.p)
        return _sum(terms), block.q.sub_(block.p)


@dataclass(frozen=True)
class ReverseKL:
    """KL(q || p) = sum q (log q - log p)."""

    merges: ClassVar = True

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q (log q - log p)."""
        return _product(log_q.exp(), log_q - log_p)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q (log q - log p + 1)."""
        return _product(log_q.exp(), log_q - log_p + 1)

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """The gradient is q (log q - log p - D)."""
        return _centred(block.log_q.sub_(block.log_p).mul_(block.q), block.q)


@dataclass(frozen=True)
class GeneralisedJSD:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

    Source: Agarwal et al., GKD, arXiv 2306.13649, Eq. 1. Divided by beta it tends to KL(p || q) as
    beta -> 0, divided by 1 - beta to KL(q || p) as beta -> 1; itself it tends to zero at both ends,
    which are refused here (public code puts the full KLs there).
    """

    merges: ClassVar = True

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise UserError(
                f"beta of the JSD lies in (0, 1), not {self.beta}; use kl or reverse_kl"
            )

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """beta p (log p - log m) + (1 - beta) q (log q - log m)."""
        log_m = _mixture(log_p, log_q, self.beta)
        b = self.beta
        left = _product(log_p.exp(), log_p - log_m)
        return b * left + (1 - b) * _product(log_q.exp(), log_q - log_m)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """(1 - beta) q (log q - log m)."""
        log_m = _mixture(log_p, log_q, self.beta)
        return (1 - self.beta) * _product(log_q.exp(), log_q - log_m)

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """The gradient is (1 - beta) q (log q - log m - KL(q || m))."""
        b = self.beta
        log_m = _mixed(block.p, block.q, b, block.spare).log_()
        left = _sum(block.log_p.sub_(log_m).mul_(block.p))
        right, gradient = _centred(block.log_q.sub_(log_m).mul_(block.q), block.q)
        return b * left + (1 - b) * right, gradient.mul_(1 - b)


@dataclass(frozen=True)
class SkewKL:
    """KL(p || alpha p + (1 - alpha) q). Source: Ko et al., DistiLLM, arXiv 2402.03898, Eq. 4."""

    merges: ClassVar = True

    alpha: float = 0.1

    def __post_init__(self) -> None:
        _share(self.alpha)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """p (log p - log m)."""
        return _product(log_p.exp(), log_p - _mixture(log_p, log_q, self.alpha))

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-(1 - alpha) p q / m."""
        log_m = _mixture(log_p, log_q, self.alpha)
        both = log_p + log_q
        return -(1 - self.alpha) * torch.where(both > -torch.inf, (both - log_m).exp(), 0.0)

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """The gradient is -(1 - alpha) (pq / m - q sum pq / m)."""
        m = _mixed(block.p, block.q, self.alpha, block.spare)
        terms = block.log_p.sub_(torch.log(m, out=block.log_q)).mul_(block.p)
        _, gradient = _centred(block.p.div_(m).mul_(block.q), block.q)
        return _sum(terms), gradient.mul_(self.alpha - 1)


@dataclass(frozen=True)
class SkewReverseKL:
    """KL(q || alpha q + (1 - alpha) p), the mixture learning too. Source: DistiLLM, Eq. 5."""

    merges: ClassVar = True

    alpha: float = 0.1

    def __post_init__(self) -> None:
        _share(self.alpha)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q (log q - log m)."""
        return _product(log_q.exp(), log_q - _mixture(log_q, log_p, self.alpha))

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q (log q - log m + 1 - alpha q / m)."""
        log_m = _mixture(log_q, log_p, self.alpha)
        inner = log_q - log_m
        return _product(log_q.exp(), inner + 1 - self.alpha * inner.exp())

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """With r = q / m: q (log r - alpha r) less its sum times q."""
        m = _mixed(block.q, block.p, self.alpha, block.spare)
        terms = block.log_q.sub_(torch.log(m, out=block.log_p)).mul_(block.q)
        values = _sum(terms)
        share = torch.div(block.q, m, out=block.p).mul_(block.q)
        return values, _centred(terms.sub_(share, alpha=self.alpha), block.q)[1]


@dataclass(frozen=True)
class TotalVariation:
    """1/2 sum |p - q|; no unit, 0 to 1."""

    merges: ClassVar = True

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """|p - q| / 2."""
        return 0.5 * (log_p.exp() - log_q.exp()).abs()

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """sign(q - p) q / 2."""
        q = log_q.exp()
        return 0.5 * torch.sign(q - log_p.exp()) * q

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """As the definition."""
        difference = torch.sub(block.q, block.p, out=block.log_p)
        sign = torch.sign(difference, out=block.log_q)
        values = 0.5 * _sum(difference.mul_(sign))
        return values, _centred(sign.mul_(block.q), block.q)[1].mul_(0.5)


@dataclass(frozen=True)
class AlphaBeta:
    """-1/(ab) sum (p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)), a, b and a + b not zero.

    Source: Cichocki, Cruces, Amari, Entropy 13 (2011), Eq. 9; used for distillation in ABKD, arXiv
    2505.04560. (1, b -> 0) tends to KL(p || q), (a -> 0, 1) to KL(q || p).
    """

    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not self.alpha or not self.beta or not self.alpha + self.beta:
            raise UserError(
                "the alpha-beta divergence needs alpha, beta and their sum apart from 0; at the "
                "limits use kl (1, 0) or reverse_kl (0, 1)"
            )

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The summands of the definition."""
        a, b = self.alpha, self.beta
        s = a + b
        cross = (a * log_p + b * log_q).exp()
        return -(cross - a / s * (s * log_p).exp() - b / s * (s * log_q).exp()) / (a * b)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-(p^a q^b - q^(a+b)) / a."""
        a, b = self.alpha, self.beta
        return -((a * log_p + b * log_q).exp() - ((a + b) * log_q).exp()) / a

    @property
    def merges(self) -> bool:
        """Only where p^a q^b is of the first degree."""
        return math.isclose(self.alpha + self.beta, 1.0)

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """With c = p^a q^b - q^(a+b): the value is -(sum c + a/s sum (q^s - p^s)) / (ab)."""
        a, b = self.alpha, self.beta
        s = a + b
        cross = torch.mul(block.log_p, a, out=block.spare).add_(block.log_q, alpha=b).exp_()
        powers = block.p if s == 1 else block.log_p.mul_(s).exp_()
        own = block.q if s == 1 else block.log_q.mul_(s).exp_()
        inner, gradient = _centred(cross.sub_(own), block.q)
        rest = 0.0 if s == 1 else a / s * _sum(own.sub_(powers))
        return -(inner + rest) / (a * b), gradient.mul_(-1 / a)


@dataclass(frozen=True)
class Symmetric:
    """weight KL(p || q) + (1 - weight) KL(q || p); 1/2 is half of Jeffreys' divergence."""

    merges: ClassVar = True

    weight: float = 0.5
    scale: float = 1.0

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Both KLs' summands."""
        ratio = log_p - log_q
        left = _product(log_p.exp(), ratio)
        right = _product(log_q.exp(), -ratio)
        return self.scale * (self.weight * left + (1 - self.weight) * right)

    def slope(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """-w p + (1 - w) q (log q - log p + 1)."""
        right = _product(log_q.exp(), log_q - log_p + 1)
        return self.scale * ((1 - self.weight) * right - self.weight * log_p.exp())

    def pull(self, block: Block) -> tuple[Tensor, Tensor]:
        """The gradient is w (q - p) + (1 - w) q (log q - log p - KL(q || p))."""
        w, s = self.weight, self.scale
        ratio = block.log_q.sub_(block.log_p)
        left = -_sum(torch.mul(ratio, block.p, out=block.log_p))
        right = _sum(torch.mul(ratio, block.q, out=block.spare))
        torch.add(s * (w - (1 - w) * right), ratio, alpha=s * (1 - w), out=ratio)
        gradient = ratio.mul_(block.q).sub_(block.p, alpha=s * w)
        return s * (w * left + (1 - w) * right), gradient


def jeffreys_divergence() -> Symmetric:
    """KL(p || q) + KL(q || p)."""
    return Symmetric(0.5, 2.0)


KINDS: dict[str, type | object] = {
    "kl": ForwardKL,
    "reverse_kl": ReverseKL,
    "jsd": GeneralisedJSD,
    "skew_kl": SkewKL,
    "skew_reverse_kl": SkewReverseKL,
    "tv": TotalVariation,
    "alpha_beta": AlphaBeta,
    "symmetric": Symmetric,
    "jeffreys": jeffreys_divergence,
}


def divergence(kind: str | Divergence, **settings: float) -> Divergence:
    """A divergence by name: kl, reverse_kl, jsd, skew_kl, skew_reverse_kl, tv, alpha_beta, ..."""
    if not isinstance(kind, str):
        return kind
    if kind not in KINDS:
        raise unknown("divergence", kind, KINDS)
    return KINDS[kind](**settings)  # pyright: ignore[reportCallIssue]


def _share(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"the skew alpha lies in (0, 1), not {alpha}")
