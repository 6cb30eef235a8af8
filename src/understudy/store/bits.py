"""Small numbers in as many bits as they need, one after another."""

import numpy as np
import torch
from torch import Tensor

WIDEST = 57
"""Bits of a field at most: with the 7 that it may start late, eight bytes hold it."""
_AT_ONCE = 2**20


def width_of(largest: int) -> int:
    """Bits that every number from 0 to `largest` fits in; at least one."""
    return max(1, int(largest).bit_length())


def pack_bits(values: Tensor, width: int) -> Tensor:
    """[n] numbers from 0 to 2**width - 1 as uint8: number i has bits width * i on, low bits first.

    The last byte is filled up with zeros.
    """
    if not 1 <= width <= WIDEST:
        raise ValueError(f"fields have 1 to {WIDEST} bits, not {width}")
    numbers = values.detach().cpu().long().contiguous()
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < 2**width:
        raise ValueError(
            f"a number from {int(numbers.min())} to {int(numbers.max())} in {width} bits"
        )
    parts = [np.empty(0, dtype=np.uint8)]
    # a multiple of eight fields ends at a whole byte
    words = numbers.numpy().astype("<u8").view(np.uint8).reshape(-1, 8)
    for start in range(0, len(words), _AT_ONCE):
        bits = np.unpackbits(words[start : start + _AT_ONCE], axis=1, bitorder="little")
        parts.append(np.packbits(bits[:, :width].reshape(-1), bitorder="little"))
    return torch.from_numpy(np.concatenate(parts))


def unpack_bits(packed: Tensor, at: Tensor, width: int) -> Tensor:
    """The fields of `width` bits that begin at bits `at` [n] of `packed` (uint8), int64 [n]."""
    first, shift = at >> 3, at & 7
    last = len(packed) - 1
    found = torch.zeros_like(at)
    for byte in range((width + 14) // 8):
        found |= packed[(first + byte).clamp_max(last)].long() << (8 * byte)
    return (found >> shift) & ((1 << width) - 1)
