"""Duplicates: the same after normalisation, or nearly the same by MinHash."""

import re
import unicodedata
from collections.abc import Sequence

from understudy.data.synthesis.rows import Kept, Row, partition, text_of
from understudy.errors import DataError, UserError


def words(text: str) -> list[str]:
    """Words and numbers of a text, case and marks put aside (NFKC)."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def shingles(text: str, size: int) -> set[str]:
    """Runs of `size` words; the whole of a shorter text."""
    found = words(text)
    if len(found) <= size:
        return {" ".join(found)}
    return {" ".join(found[i : i + size]) for i in range(len(found) - size + 1)}


def jaccard(a: set[str], b: set[str]) -> float:
    """|a n b| / |a u b|."""
    return len(a & b) / len(a | b) if a or b else 1.0


def exact(rows: Sequence[Row], fields: Sequence[str] = ("question",)) -> Kept:
    """The first of all rows whose fields are the same words."""
    seen: dict[tuple[str, ...], str] = {}
    found: list[tuple[str, str] | None] = []
    for row in rows:
        key = tuple(" ".join(words(text_of(row, f, "deduplicate"))) for f in fields)
        found.append(("a duplicate", seen[key]) if key in seen else None)
        seen.setdefault(key, str(row["id"]))
    return partition("deduplicate", rows, found)


def near(
    rows: Sequence[Row],
    field: str = "question",
    *,
    threshold: float = 0.8,
    shingle: int = 3,
    permutations: int = 128,
    seed: int = 1,
) -> Kept:
    """The first of all rows whose texts share about `threshold` of their runs of words.

    MinHash with locality-sensitive hashing finds the candidates (Broder 1997); the Jaccard
    similarity of the runs themselves decides, so that no row is dropped by chance.
    """
    if not 0 < threshold <= 1 or shingle < 1:
        raise UserError(
            "deduplicate: threshold lies in (0, 1], and a shingle has at least one word"
        )
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise DataError("near duplicates need datasketch: pip install understudy[chat]") from None

    # a candidate too many costs a moment, one too few a duplicate
    index = MinHashLSH(threshold=0.8 * threshold, num_perm=permutations, weights=(0.1, 0.9))
    runs: list[set[str]] = []
    found: list[tuple[str, str] | None] = []
    for place, row in enumerate(rows):
        own = shingles(text_of(row, field, "deduplicate"), shingle)
        runs.append(own)
        hashed = MinHash(num_perm=permutations, seed=seed)
        hashed.update_batch([s.encode() for s in sorted(own)])
        alike = [
            (jaccard(own, runs[other]), -other)
            for other in (int(str(q)) for q in index.query(hashed))
        ]
        best = max(alike, default=(0.0, 0))
        if best[0] >= threshold:
            found.append(("a near duplicate", f"{rows[-best[1]]['id']} ({best[0]:.2f})"))
        else:
            index.insert(str(place), hashed)
            found.append(None)
    return partition("deduplicate", rows, found)
