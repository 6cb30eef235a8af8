"""Filters that need no truth: a test of one's own, and lengths."""

from collections.abc import Callable, Sequence

from understudy.data.synthesis.rows import Kept, Row, partition, text_of
from understudy.errors import UserError


def keep_if(rows: Sequence[Row], test: Callable[[Row], bool], reason: str = "filtered") -> Kept:
    """Rows for which the test holds."""
    return partition("filter", rows, (None if test(r) else (reason, "") for r in rows))


def by_length(rows: Sequence[Row], field: str, *, least: int = 1, most: int | None = None) -> Kept:
    """Rows whose field has from `least` to `most` words."""
    if least < 0 or (most is not None and most < least):
        raise UserError(f"filter: no length is at least {least} and at most {most}")

    def verdict(row: Row) -> tuple[str, str] | None:
        words = len(text_of(row, field, "filter").split())
        if words < least:
            return "too short", f"{words} words"
        if most is not None and words > most:
            return "too long", f"{words} words"
        return None

    return partition("filter", rows, map(verdict, rows))
