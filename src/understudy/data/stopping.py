"""Where texts end."""

from typing import Any

from understudy.data.texts import Texts


def stop_tokens(texts: Any) -> tuple[int, ...]:
    """The token that ends every completion of a text source, where there is one such token."""
    if not isinstance(texts, Texts):
        return ()
    last = texts.flat[texts.offsets[1:] - 1].unique()
    ends = texts.scored[texts.offsets[1:] - 1]
    return (int(last[0]),) if len(last) == 1 and bool(ends.all()) else ()
