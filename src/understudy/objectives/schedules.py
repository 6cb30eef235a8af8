"""Weights (and learning rates) that change over a stage: functions of its progress, 0 to 1."""

import math
from dataclasses import dataclass

from understudy.errors import UserError


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` over the first `until` of the stage, then constant.

    shape `linear`; `cosine` (half a cosine); `sigmoid` = exp(-5 (1 - p)^2), the ramp-up of
    Laine & Aila, arXiv 1610.02242, and of mean teacher.
    """

    start: float = 0.0
    end: float = 1.0
    until: float = 1.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "cosine", "sigmoid"):
            raise UserError(f"a ramp is linear, cosine or sigmoid, not {self.shape!r}")
        if not 0 < self.until <= 1:
            raise UserError(f"a ramp ends within the stage: until in (0, 1], not {self.until}")

    def __call__(self, progress: float) -> float:
        """The weight at this progress."""
        p = min(max(progress / self.until, 0.0), 1.0)
        if self.shape == "cosine":
            p = 0.5 - 0.5 * math.cos(math.pi * p)
        elif self.shape == "sigmoid":
            p = math.exp(-5 * (1 - p) ** 2)
        return self.start + (self.end - self.start) * p


def ramp(
    end: float = 1.0, *, start: float = 0.0, until: float = 1.0, shape: str = "linear"
) -> Ramp:
    """A weight that goes from `start` to `end` within the first `until` of the stage."""
    return Ramp(start=start, end=end, until=until, shape=shape)


@dataclass(frozen=True)
class WSD:
    """Warm-up, stable, decay: rises linearly to `peak`, stays, falls by half a cosine to `end`.

    warmup and decay are shares of the stage (MiniCPM, arXiv 2404.06395, section 4).
    """

    peak: float = 1.0
    warmup: float = 0.1
    decay: float = 0.1
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if not (self.warmup >= 0 and self.decay >= 0 and self.warmup + self.decay <= 1):
            raise UserError(
                "warmup and decay are shares of a stage that sum to at most 1, not "
                f"{self.warmup} and {self.decay}"
            )

    def __call__(self, progress: float) -> float:
        """The value at this progress."""
        p = min(max(progress, 0.0), 1.0)
        if p < self.warmup:
            return self.start + (self.peak - self.start) * p / self.warmup
        left = 1.0 - p
        if left < self.decay:
            fall = 0.5 - 0.5 * math.cos(math.pi * left / self.decay)
            return self.end + (self.peak - self.end) * fall
        return self.peak
