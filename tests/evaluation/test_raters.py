"""Agreement of raters against values worked out by hand and by other libraries."""

import numpy as np
import pytest

from understudy.errors import DataError
from understudy.evaluation.raters import (
    agree,
    cohen_kappa,
    krippendorff_alpha,
    wilson_interval,
)


def drawn(n: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    a = rng.integers(0, classes, n)
    return a, np.where(rng.uniform(size=n) < 0.6, a, rng.integers(0, classes, n))


def test_kappa_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import cohen_kappa_score

    a, b = drawn()
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_kappa_of_cohens_table() -> None:
    """Two raters, 50 items: yes/yes 20, yes/no 5, no/yes 10, no/no 15: 0.7 observed, 0.5 by chance."""
    a = [1] * 25 + [0] * 25
    b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)


def test_alpha_from_the_matrix_of_coincidences() -> None:
    """alpha = 1 - (n - 1) sum o_ck / sum n_c n_k over c != k, written out."""
    a, b = drawn()
    o = np.zeros((4, 4))
    for x, y in zip(a, b, strict=True):
        o[x, y] += 1
        o[y, x] += 1
    n_c, n = o.sum(1), o.sum()
    off = ~np.eye(4, dtype=bool)
    expected = np.outer(n_c, n_c)[off].sum() / (n - 1)
    assert krippendorff_alpha(a, b) == pytest.approx(1 - o[off].sum() / expected, abs=1e-12)


def test_alpha_of_krippendorffs_binary_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", A: ten items, alpha 0.095."""
    a = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    b = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(a, b) == pytest.approx(0.095, abs=5e-4)


def test_limits() -> None:
    assert cohen_kappa([1, 1], [1, 1]) == 1
    assert krippendorff_alpha([2, 2], [2, 2]) == 1
    assert cohen_kappa([0, 1], [0, 1]) == 1
    assert cohen_kappa([0, 0, 1, 1], [0, 1, 0, 1]) == 0


def test_wilson() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    low, high = wilson_interval(20, 20)
    assert (round(low, 4), high) == (0.8389, 1.0)


def test_all_together_holds_its_values() -> None:
    a, b = drawn()
    found = agree(a, b)
    assert found.accuracy == (a == b).mean()
    assert found.kappa_interval[0] < found.kappa < found.kappa_interval[1]
    assert found.alpha_interval[0] < found.alpha < found.alpha_interval[1]
    assert found == agree(a, b)


@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2])])
def test_bad_input(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(DataError, match="raters"):
        cohen_kappa(*pair)
    with pytest.raises(DataError, match="share"):
        wilson_interval(3, 2)
