"""Sampling by domain: DDK's factors against NumPy, batches and their resume."""

import numpy as np
import pytest
import torch

from progressions import sequences
from understudy.data import Indexed, Order
from understudy.data.domains import DomainSampling, discrepancy
from understudy.errors import DataError


def loader(**settings):
    source, kinds = sequences(30, 0)
    plain = Indexed(source, Order(size=30, batch_size=8, seed=5))
    ratios = iter([torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 1.0, 1.0])] * 9)
    given = {"every": 3, "ratios": lambda: next(ratios)} | settings
    return DomainSampling(plain, torch.tensor(kinds), given.pop("ratios"), **given), kinds


def test_factors_are_those_of_the_equations():
    first, then = np.array([1.1, 2.0, 3.5]), np.array([1.5, 1.2, 3.0])
    r0 = np.exp(first) / np.exp(first).sum()
    psi = r0 * np.exp(then)
    r1 = 0.5 * psi / psi.sum() + 0.5 / 3
    a = discrepancy(torch.from_numpy(first), smoothing=None)
    assert a.numpy() == pytest.approx(r0)
    assert discrepancy(torch.from_numpy(then), a).numpy() == pytest.approx(r1)
    assert float(discrepancy(torch.tensor([1e4, 0.0])).min()) == pytest.approx(0.25)


def test_batches_follow_the_factors_and_change_at_intervals():
    many = torch.arange(3).repeat(400)
    source, _ = sequences(1200, 0)
    plain = Indexed(source, Order(size=1200, batch_size=400, seed=1))
    found = DomainSampling(plain, many, lambda: torch.tensor([0.0, 1.0, 2.0]), every=2)
    kinds = torch.cat([b.inputs["input_ids"][:, 0] - 24 for b in found.batches(0)])
    assert len(found.history) == 2
    share = torch.bincount(kinds[:800], minlength=3) / 800
    assert share.tolist() == pytest.approx(found.history[0], abs=0.05)


def test_a_domain_is_read_through_before_it_is_read_again():
    found, kinds = loader(ratios=lambda: torch.tensor([0.0, 0.0, 60.0]), smoothing=1.0)
    rows = torch.cat([b.index for e in range(5) for b in found.batches(e)])
    assert {kinds[int(i)] for i in rows} == {2}
    for turn in rows[: len(rows) // 10 * 10].split(10):
        assert len(set(turn.tolist())) == 10


def test_resume_draws_the_same():
    whole, _ = loader()
    rows = [b.index.tolist() for e in range(3) for b in whole.batches(e)]
    first, _ = loader()
    begun = first.batches(0)
    told = [next(begun).index.tolist() for _ in range(3)]
    # what is drawn next begins an interval: its factors are computed by whoever draws it
    second, _ = loader(ratios=iter([torch.tensor([3.0, 1.0, 1.0]), *whole_rest()]).__next__)
    second.load_state_dict(first.state_dict())
    told += [b.index.tolist() for b in second.batches(0, 3)]
    told += [b.index.tolist() for e in (1, 2) for b in second.batches(e)]
    assert told == rows


def whole_rest():
    return [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 1.0, 1.0])] * 9


def test_refuses_domains_that_do_not_fit():
    source, kinds = sequences(30, 0)
    plain = Indexed(source, Order(size=30, batch_size=8))
    with pytest.raises(DataError, match="one each"):
        DomainSampling(plain, torch.tensor(kinds[:-1]), lambda: torch.ones(3), every=1)
    with pytest.raises(DataError, match="without a sample"):
        DomainSampling(plain, 2 * torch.tensor(kinds), lambda: torch.ones(3), every=1)
