"""What an update of a model breaks: negative flips and their kin, for classes and for text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Shares of N instances.

    negative: old right, new wrong (NFR); positive: old wrong, new right; inconsistent: new wrong and
    unlike old, whatever old said (NFR_mc); trust: of what old had right, the share that new has
    right (1 where it had nothing).
    """

    negative: float
    positive: float
    inconsistent: float
    trust: float

    def measures(self) -> dict[str, float]:
        """By name."""
        return {
            "negative_flips": self.negative,
            "positive_flips": self.positive,
            "inconsistent_flips": self.inconsistent,
            "backward_trust": self.trust,
        }


def flips(old: Tensor, new: Tensor, truth: Tensor) -> Flips:
    """Flips between two models' answers [N] of any kind that can be equal, and the right ones.

    Source: Yan et al., arXiv 2011.09161 (NFR); Srivastava et al. 2020 (trust); Echterhoff et al.,
    MUSCLE, arXiv 2407.09435, section 3.2 (inconsistent).
    """
    if not len(truth) or old.shape != truth.shape or new.shape != truth.shape or old.ndim != 1:
        raise DataError(
            f"flips compare answers [N] with the right ones, at least one: {list(old.shape)}, "
            f"{list(new.shape)} and {list(truth.shape)}"
        )
    was, now = old == truth, new == truth
    return Flips(
        negative=float((was & ~now).double().mean()),
        positive=float((~was & now).double().mean()),
        inconsistent=float((~now & (old != new)).double().mean()),
        trust=float(now[was].double().mean()) if bool(was.any()) else 1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Of a similarity to the truth: shares of instances that fell or rose, and by how much.

    regression, gain: the mean fall (rise) of those that fell (rose), in units of the similarity.
    """

    negative: float
    positive: float
    regression: float
    gain: float

    def measures(self) -> dict[str, float]:
        """By name."""
        return {
            "fallen": self.negative,
            "risen": self.positive,
            "mean_fall": self.regression,
            "mean_rise": self.gain,
        }


def shifts(old: Tensor, new: Tensor) -> Shifts:
    """From similarities [N] of both models' outputs to the truth: D = S(new) - S(old).

    Source: MUSCLE, arXiv 2407.09435, section 3.2: PFR, NFR, M_g and M_r of continuous metrics.
    """
    if not len(old) or old.shape != new.shape or old.ndim != 1:
        raise DataError(f"shifts compare scores [N]: {list(old.shape)} and {list(new.shape)}")
    d = new.double() - old.double()
    if not bool(torch.isfinite(d).all()):
        raise DataError("shifts: a score is not finite")
    fell, rose = d < 0, d > 0
    return Shifts(
        negative=float(fell.double().mean()),
        positive=float(rose.double().mean()),
        regression=float(-d[fell].mean()) if bool(fell.any()) else 0.0,
        gain=float(d[rose].mean()) if bool(rose.any()) else 0.0,
    )
