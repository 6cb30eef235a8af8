"""Canary exposure: the rank of a secret among all that it could have been."""

import math

import pytest
import torch

from understudy.errors import DataError
from understudy.evaluation.exposure import chance_exposure, rank_exposure


def test_it_is_the_logarithm_of_the_rank() -> None:
    scores = torch.tensor([5.0, 1.0, 3.0, 2.0, 9.0, 8.0, 7.0, 6.0])
    for canary, rank in ((1.0, 1), (2.0, 2), (5.0, 4), (9.0, 8)):
        assert rank_exposure(canary, scores) == pytest.approx(3 - math.log2(rank))


def test_a_model_that_tells_nothing_apart_exposes_nothing_much() -> None:
    assert rank_exposure(1.0, torch.ones(1024)) == pytest.approx(10 - math.log2(1 + 1023 / 2))


def test_a_sample_stands_for_the_space() -> None:
    """The share of likelier texts is what counts; what a sample can show is bounded by its size."""
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(2**16, generator=g, dtype=torch.float64)
    canary = float(scores.sort().values[2**16 // 64])
    whole = rank_exposure(canary, scores)
    sampled = rank_exposure(canary, scores[:4096], size=2**16)
    assert whole == pytest.approx(6, abs=0.01)
    assert sampled == pytest.approx(6, abs=0.2)
    assert rank_exposure(-1.0, scores[:4096], size=2**16) == pytest.approx(12)


def test_chance_is_the_mean_over_all_ranks() -> None:
    scores = torch.arange(16.0)
    mean = sum(rank_exposure(float(s), scores) for s in scores) / 16
    assert chance_exposure(16) == pytest.approx(mean)
    assert chance_exposure(10**5) == pytest.approx(1 / math.log(2), abs=1e-3)


def test_what_cannot_be_ranked_is_refused() -> None:
    for canary, scores, size in (
        (1.0, torch.tensor([]), None),
        (1.0, torch.tensor([float("inf")]), None),
        (float("nan"), torch.ones(3), None),
        (1.0, torch.ones(3), 2.0),
    ):
        with pytest.raises(DataError):
            rank_exposure(canary, scores, size=size)
