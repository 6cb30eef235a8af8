"""What somebody said of each sample, as a teacher."""

import pytest
import torch

from understudy.errors import DataError, MethodRefused
from understudy.objectives import Needs
from understudy.signals import Batch
from understudy.teachers.told import Told


def batch(*ids: int) -> Batch:
    return Batch(inputs=torch.zeros(len(ids), 1), index=torch.tensor(ids))


def test_says_of_each_sample_what_was_told() -> None:
    shares = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    told = Told(torch.tensor([7, 3, 5]), shares)
    said = told.signals(batch(5, 7, 3, 7)).dense.softmax(-1)
    assert torch.allclose(said, shares[[2, 0, 1, 0]], atol=2e-4)
    assert bool(torch.isfinite(told.signals(batch(3)).dense).all())
    assert told.fingerprint() == Told(torch.tensor([3, 5, 7]), shares[[1, 2, 0]]).fingerprint()
    assert told.fingerprint() != Told(torch.tensor([3, 5, 8]), shares[[1, 2, 0]]).fingerprint()


def test_a_sample_that_nobody_spoke_of_is_named() -> None:
    told = Told(torch.tensor([1, 3]), torch.ones(2, 2))
    for odd in (0, 2, 4):
        with pytest.raises(DataError, match=f"sample {odd}"):
            told.signals(batch(1, odd))


def test_refuses_what_it_cannot_give_and_bad_shares() -> None:
    with pytest.raises(MethodRefused, match="told once"):
        Told(torch.tensor([1]), torch.ones(1, 2)).prepare(Needs(teacher=("x",)), batch(1))
    for bad in ([[0.0, 0.0]], [[-1.0, 2.0]], [[float("nan"), 1.0]]):
        with pytest.raises(DataError, match="sample 4"):
            Told(torch.tensor([4]), torch.tensor(bad))
    with pytest.raises(DataError, match=r"\[N, K\]"):
        Told(torch.tensor([1, 2]), torch.ones(1, 2))
