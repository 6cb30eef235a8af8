"""Texts to be labelled: cleaned, without copies, divided."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Divided:
    """Numbers of the texts to learn from (in the order in which they are labelled), and to judge on.

    validate steers (when to stop, which epoch); test judges, and people's labels are drawn from it.
    """

    learn: tuple[int, ...]
    validate: tuple[int, ...]
    test: tuple[int, ...]


def distinct(texts: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """Texts by their number in the data, empty ones and copies left out, and notes that say so."""
    found: dict[int, str] = {}
    seen: set[str] = set()
    empty = copies = 0
    for n, text in enumerate(texts):
        plain = " ".join(str(text).split())
        if not plain:
            empty += 1
        elif plain in seen:
            copies += 1
        else:
            seen.add(plain)
            found[n] = str(text).strip()
    notes = []
    if empty:
        notes.append(f"{empty} empty texts were left out")
    if copies:
        notes.append(f"{copies} copies of other texts were left out")
    if not found:
        raise DataError("there is no text to label")
    return found, notes


def divide(
    numbers: Sequence[int], *, validate: float = 0.1, test: float = 0.2, at_least: int = 0,
    most: int = 500, seed: int = 0,
) -> Divided:  # fmt: skip
    """Shares for validation and test, at most `most` each, the test part at least `at_least`.

    Raises:
        DataError: where nothing would be left to learn from.
    """
    order = [numbers[i] for i in np.random.default_rng(seed).permutation(len(numbers))]
    judged = max(min(round(test * len(order)), most), at_least, 2)
    chosen = max(min(round(validate * len(order)), most), 2)
    if len(order) - judged - chosen < 2:
        raise DataError(
            f"{len(order)} texts are too few: {judged} judge and {chosen} choose; give more texts"
            + (f", or a smaller sheet than {at_least}" if at_least else "")
        )
    return Divided(
        test=tuple(order[:judged]),
        validate=tuple(order[judged : judged + chosen]),
        learn=tuple(order[judged + chosen :]),
    )


def rounds(count: int, first: int) -> list[int]:
    """Sizes of a labelling in rounds, each twice the one before: first, 2 first, ..., count."""
    sizes = []
    size = max(2, first)
    while size < count:
        sizes.append(size)
        size *= 2
    # a last round that adds next to nothing is joined to the one before
    if sizes and count < 1.25 * sizes[-1]:
        sizes.pop()
    return [*sizes, count]
