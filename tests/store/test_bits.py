"""Numbers come back from as few bits as they need."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.store.bits import pack_bits, unpack_bits, width_of


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 57), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_packed_numbers_come_back_from_any_place(width, count, seed):
    rng = np.random.default_rng(seed)
    numbers = [int(rng.integers(0, 2**width)) for _ in range(count)]
    packed = pack_bits(torch.tensor(numbers, dtype=torch.long), width)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-width * count // 8)
    # bit i of all is bit i of the numbers written one after another, in Python's own integers
    whole = sum(n << (width * i) for i, n in enumerate(numbers))
    assert packed.numpy().tobytes() == whole.to_bytes(len(packed), "little")
    order = torch.from_numpy(rng.permutation(count))
    assert unpack_bits(packed, width * order, width).tolist() == [numbers[i] for i in order]


def test_many_numbers_are_packed_in_parts_without_a_seam():
    width, count = 17, 2**20 + 5
    numbers = torch.arange(count) * 977 % 2**width
    packed = pack_bits(numbers, width)
    at = torch.tensor([0, 2**20 - 1, 2**20, 2**20 + 4])
    assert unpack_bits(packed, width * at, width).tolist() == numbers[at].tolist()


def test_widths():
    assert [width_of(n) for n in (0, 1, 2, 255, 256, 128255)] == [1, 1, 2, 8, 9, 17]
    with pytest.raises(ValueError, match="from 0 to 8 in 3 bits"):
        pack_bits(torch.tensor([0, 8]), 3)
    with pytest.raises(ValueError, match="1 to 57 bits"):
        pack_bits(torch.tensor([0]), 58)
