"""How far raters agree who name one class each: accuracy, Cohen's kappa, Krippendorff's alpha."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from understudy.errors import DataError
from understudy.evaluation.statistics import bootstrap_interval

__all__ = ["Agreement", "agree", "cohen_kappa", "krippendorff_alpha", "wilson_interval"]

Ratings = Sequence[int] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two raters on `count` items: each measure with its interval at `level`."""

    count: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    kappa: float
    kappa_interval: tuple[float, float]
    alpha: float
    alpha_interval: tuple[float, float]
    level: float = 0.95


def wilson_interval(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, right / count.

    With p = right / n and z the normal quantile at (1 + level) / 2:
    (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Wilson 1927.
    """
    if count < 1 or not 0 <= right <= count:
        raise DataError(f"a share needs 0 to n right answers of n >= 1, not {right} of {count}")
    from statistics import NormalDist

    z, p = NormalDist().inv_cdf((1 + level) / 2), right / count
    middle = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def cohen_kappa(a: Ratings, b: Ratings) -> float:
    """kappa = (p_o - p_e) / (1 - p_e), p_e = sum_k p_a(k) p_b(k). Cohen 1960.

    0: as often as by chance; 1: always. Both raters naming one and the same class throughout leaves
    nothing to chance, and the measure undefined: 1 is given then, for they always agree.
    """
    x, y = _pair(a, b)
    classes = np.union1d(x, y)
    observed = float((x == y).mean())
    expected = float(sum((x == k).mean() * (y == k).mean() for k in classes))
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(a: Ratings, b: Ratings) -> float:
    """alpha = 1 - D_o / D_e for two raters, nominal classes, nothing missing.

    D_o is the share of items on which they differ; D_e that of all ordered pairs among the 2n
    ratings: 1 - sum_k n_k (n_k - 1) / (2n (2n - 1)). Krippendorff 2004, 11.3. One class throughout: 1.
    """
    x, y = _pair(a, b)
    both = np.concatenate([x, y])
    counts = np.unique(both, return_counts=True)[1].astype(float)
    total = float(len(both))
    expected = 1 - float((counts * (counts - 1)).sum()) / (total * (total - 1))
    return 1.0 if expected == 0 else 1 - float((x != y).mean()) / expected


def agree(a: Ratings, b: Ratings, *, level: float = 0.95, seed: int = 0) -> Agreement:
    """All measures: accuracy with Wilson's interval, the others with a bootstrap over items."""
    x, y = _pair(a, b)
    right = int((x == y).sum())

    def bootstrapped(measure: Callable[[Ratings, Ratings], float]) -> tuple[float, float]:
        def of(rows: np.ndarray) -> float:
            index = rows.astype(int)
            return measure(x[index], y[index])

        return bootstrap_interval(np.arange(len(x)), of, level, 1000, seed)

    return Agreement(
        count=len(x),
        accuracy=right / len(x),
        accuracy_interval=wilson_interval(right, len(x), level),
        kappa=cohen_kappa(x, y),
        kappa_interval=bootstrapped(cohen_kappa),
        alpha=krippendorff_alpha(x, y),
        alpha_interval=bootstrapped(krippendorff_alpha),
        level=level,
    )


def _pair(a: Ratings, b: Ratings) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(
            f"two raters name a class for each of the same items, not {x.shape} {y.shape}"
        )
    return x, y
