"""Synthetic knowledge: what is drawn, where it stands, and how many bits a loss leaves of it."""

import math

import numpy as np
import pytest
import torch

from understudy.data.biographies import BioD
from understudy.errors import UserError

BIO = BioD(names=20, name_parts=8, attributes=3, chunks=2, diversity=4, length=2, tokens=5)


def test_values_come_from_each_attributes_own_strings():
    names, values = BIO.drawn(0)
    assert len({tuple(n) for n in names.tolist()}) == 20
    assert int(names.min()) >= 1
    assert int(names.max()) <= 8
    for a in range(3):
        strings = {tuple(v) for v in values[:, a].reshape(-1, 2).tolist()}
        assert len(strings) <= 4
        assert all(12 <= t < BIO.vocabulary for s in strings for t in s)
    again = BIO.drawn(0)[1]
    assert torch.equal(values, again)
    assert not torch.equal(values, BIO.drawn(1)[1])


def test_places_are_those_of_the_texts():
    texts, places = BIO.texts(0, orders=2), BIO.places()
    batch = texts.batch(torch.arange(len(texts)))
    assert batch.labels.shape == (40, BIO.width - 1)
    names, values = BIO.drawn(0)
    assert torch.equal(batch.labels[:20, places["name"]], names)
    written = batch.labels[:, places["value"]]
    assert int(written.min()) >= 12
    rest = ~(places["name"] | places["value"])
    assert int(batch.labels[:, rest].min()) >= 9
    assert int(batch.labels[:, rest].max()) < 12
    # a person's values are the same in every order
    row = batch.labels[25]
    for a in range(3):
        at = int((row == 9 + a).nonzero()[0])
        assert row[at + 1 : at + 5].tolist() == values[5, a].tolist()
    assert int(places["first"].sum()) == 3 * 2


def test_bits_of_the_set():
    by_hand = 20 * math.log2(64 / 20) + 20 * 3 * 2 * 2 + 3 * 4 * math.log2(25 / 4)
    assert BIO.bits == pytest.approx(by_hand)


def test_bound_is_that_of_the_theorem():
    p1, p2, p3 = 3.2, 0.3, 0.2
    found = BIO.bound(p1, p2, p3)
    names = 20 * np.log2((64 - 20) / np.exp(p1))
    values = 20 * 3 * np.log2(4**2 / np.exp(p2))
    strings = 3 * 4 * np.log2((25 - 4) / (4 * np.exp(p3)))
    assert found["bits"] == pytest.approx(names + values + strings)
    assert found["values"] == pytest.approx(values)


def test_who_knows_nothing_holds_nothing():
    uniform = math.log(BIO.vocabulary)
    assert BIO.bound(2 * uniform, 4 * uniform, 2 * uniform)["bits"] == 0.0


@pytest.mark.parametrize("wrong", [{"names": 64}, {"diversity": 25}])
def test_refuses_sets_that_do_not_exist(wrong):
    with pytest.raises(UserError):
        BioD(**({"names": 20, "name_parts": 8, "diversity": 4, "length": 2, "tokens": 5} | wrong))
