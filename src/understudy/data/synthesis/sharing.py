"""Balance and split: which rows are taken, and into which part they go."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from random import Random

from understudy.data.synthesis.rows import Kept, Row, partition, text_of
from understudy.errors import UserError


def balance(
    rows: Sequence[Row],
    by: str | Callable[[Row], str],
    *,
    most: int | None = None,
    seed: int = 0,
) -> Kept:
    """At most as many rows of each value, drawn by the seed; without `most`, as of the rarest."""
    values = [text_of(r, by, "balance") if isinstance(by, str) else by(r) for r in rows]
    places: dict[str, list[int]] = defaultdict(list)
    for place, value in enumerate(values):
        places[value].append(place)
    limit = min(map(len, places.values()), default=0) if most is None else most
    if limit < 0:
        raise UserError(f"balance: most is at least 0, not {most}")
    chosen: set[int] = set()
    for value in sorted(places):
        random = Random(f"balance:{seed}:{value}")
        chosen.update(random.sample(places[value], min(limit, len(places[value]))))
    return partition(
        "balance",
        rows,
        (None if p in chosen else (f"enough of {values[p]}", "") for p in range(len(rows))),
    )


def split(
    rows: Sequence[Row],
    shares: Mapping[str, float],
    *,
    group: str = "question",
    seed: int = 0,
) -> dict[str, list[Row]]:
    """Rows in parts, by a hash of their group: a group is never divided, a row never moves.

    shares: of each part, in their order; they add up to 1. A row's part depends on its group and
    the seed alone, so that rows that are added later leave the others where they are.
    """
    if any(s < 0 for s in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise UserError(f"split: shares add up to 1, and these to {sum(shares.values()):g}")
    parts: dict[str, list[Row]] = {name: [] for name in shares}
    names, edges = list(shares), list(accumulate(shares.values()))
    for row in rows:
        text = f"{seed}:{row.get(group, row['id'])}"
        point = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        reached = [e for e in edges if point >= e]
        parts[names[min(len(reached), len(names) - 1)]].append(row)
    return parts


def at_random(rows: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """`count` rows drawn by the seed, in their order; all where there are no more."""
    if count >= len(rows):
        return list(rows)
    return [rows[i] for i in sorted(Random(f"rows:{seed}").sample(range(len(rows)), count))]
