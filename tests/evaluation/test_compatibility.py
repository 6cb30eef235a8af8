"""What an update breaks."""

import pytest
import torch

from understudy.errors import DataError
from understudy.evaluation.compatibility import flips, shifts


def test_flips_counted_one_by_one() -> None:
    truth = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0])
    old = torch.tensor([0, 0, 0, 1, 1, 1, 2, 0])
    new = torch.tensor([0, 1, 2, 0, 1, 2, 1, 0])
    found = flips(old, new, truth)
    assert found.negative == 2 / 8
    assert found.positive == 1 / 8
    assert found.inconsistent == 4 / 8
    assert found.trust == 2 / 4
    assert set(found.measures().values()) == {0.25, 0.125, 0.5}


def test_nothing_flips_between_equals_and_nothing_is_kept_of_nothing() -> None:
    said = torch.tensor([1, 0, 2])
    same = flips(said, said, torch.zeros(3, dtype=torch.long))
    assert (same.negative, same.positive, same.inconsistent, same.trust) == (0, 0, 0, 1)
    assert flips(said + 5, said, torch.zeros(3, dtype=torch.long)).trust == 1


def test_flips_of_accuracy_add_up() -> None:
    g = torch.Generator().manual_seed(0)
    old, new, truth = torch.randint(3, (3, 200), generator=g)
    found = flips(old, new, truth)
    gain = float((new == truth).double().mean() - (old == truth).double().mean())
    assert found.positive - found.negative == pytest.approx(gain)


def test_shifts_of_a_similarity() -> None:
    found = shifts(torch.tensor([0.5, 0.5, 0.5, 1.0]), torch.tensor([0.75, 0.0, 0.25, 1.0]))
    assert (found.negative, found.positive) == (0.5, 0.25)
    assert (found.regression, found.gain) == (0.375, 0.25)
    still = shifts(torch.ones(2), torch.ones(2))
    assert set(still.measures().values()) == {0.0}


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="flips compare"):
        flips(torch.zeros(2), torch.zeros(3), torch.zeros(3))
    with pytest.raises(DataError, match="at least one"):
        flips(torch.zeros(0), torch.zeros(0), torch.zeros(0))
    with pytest.raises(DataError, match="not finite"):
        shifts(torch.tensor([float("nan")]), torch.zeros(1))
