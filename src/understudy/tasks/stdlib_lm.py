"""A language modelling task that every Python brings along: its standard library's own source."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from understudy.data import Texts
from understudy.errors import DataError
from understudy.tasks import sources
from understudy.tasks.bpe import load_bpe, token_bytes
from understudy.tasks.language import language_task
from understudy.tasks.task import Task

DOMAINS = (*sources.AREAS, sources.OTHER)
"""Areas of the library, as `extras["domains"]` numbers them."""

HELD = 0.15
"""Share of the modules that no model is trained on, the shipped teacher neither."""

TEACHER = Path(__file__).with_name("stdlib_lm_teacher")
"""The shipped teacher: weights in half precision, configuration, tokenizer, how it was made."""


def stdlib_lm(
    *,
    split: int = 0,
    length: int = 128,
    tokens: int | Literal["all"] = 2**20,
    judged: int = 20_000,
    tokenizer: Any = None,
) -> Task:
    """The source of the running Python's standard library, cut into texts of `length` tokens.

    Real code, no download: files are read, never imported. Modules are kept apart: 15 % of them,
    by a hash of their names, are held back; half of those choose and half judge, by `split`, at
    most `judged` tokens each. The student reads about `tokens` tokens of other modules, drawn by
    `split`; "all" of them is what the shipped teacher was trained on. Texts differ between
    versions of Python, and so do figures (`extras["notes"]` says which it was).

    tokenizer: a byte-level BPE; None for the shipped teacher's, of 1024 tokens. `extras["domains"]`
    numbers the area of each text, by part (`DOMAINS`); `extras["modules"]` names its module.
    """
    if length < 2:
        raise DataError(f"stdlib-lm: texts have at least 2 tokens, not {length}")
    chosen = load_bpe(TEACHER) if tokenizer is None else tokenizer
    parts = split_modules(split)
    limits = {"train": None if tokens == "all" else int(tokens), "validate": judged, "test": judged}
    texts: dict[str, Texts] = {}
    owners: dict[str, tuple[str, ...]] = {}
    for part, names in parts.items():
        texts[part], owners[part] = _texts(part, names, chosen, length, limits[part])
    return language_task(
        "stdlib-lm",
        train=texts["train"],
        validate=texts["validate"],
        test=texts["test"],
        vocabulary=len(chosen),
        length=length,
        tokenizer=chosen,
        extras={
            "modules": owners,
            "domains": {
                p: torch.tensor([DOMAINS.index(sources.area(m)) for m in o])
                for p, o in owners.items()
            },
            "domain_names": DOMAINS,
            "notes": (
                f"stdlib-lm: {len(sources.modules())} modules of Python {_version()}'s standard "
                "library",
            ),
            "options": {"split": split, "length": length, "tokens": tokens, "judged": judged},
        },
    )


def split_modules(split: int) -> dict[str, list[str]]:
    """Modules of each part, in the order in which they are read; none is in two parts."""
    order = sorted(sources.modules(), key=lambda m: sources.chance(m, f"split {split}"))
    held = [m for m in order if sources.chance(m, "held") < HELD]
    # of each area one half, so that both parts know all areas
    held.sort(key=lambda m: DOMAINS.index(sources.area(m)))
    return {
        "train": [m for m in order if sources.chance(m, "held") >= HELD],
        "validate": held[::2],
        "test": held[1::2],
    }


def teacher() -> nn.Module:
    """The shipped teacher, in evaluation mode: a Llama of 2.9M parameters."""
    from understudy.students import load_model

    return load_model(TEACHER)


def _texts(
    part: str, names: Sequence[str], tokenizer: Any, length: int, limit: int | None
) -> tuple[Texts, tuple[str, ...]]:
    """Whole modules one after another, each cut into texts, up to `limit` tokens.

    Neighbouring texts of a module share one token, so that every token but a module's first is
    predicted once. Judged parts take as many texts of each area, evenly spaced over modules that
    have four times as many.
    """
    rows: list[np.ndarray] = []
    owners: list[str] = []
    most = None if limit is None else max(1, limit // length)
    full = Counter[str]()
    for name in names:
        if part == "train" and most is not None and len(rows) >= most:
            break
        if part != "train" and most and full[sources.area(name)] > 4 * most // len(DOMAINS):
            continue
        ids = _tokens(name, tokenizer)
        cut = [ids[i : i + length + 1] for i in range(0, len(ids) - 1, length)]
        # a rest of a few tokens costs a row of padding and says little
        cut = [c for c in cut if len(c) > length // 4]
        rows += cut
        owners += [name] * len(cut)
        full[sources.area(name)] += len(cut)
    if not rows:
        raise DataError(f"stdlib-lm: no module of {part} gives a text of {length} tokens")
    if most is not None and len(rows) > most:
        kept = range(most) if part == "train" else _balanced(owners, most)
        rows, owners = [rows[i] for i in kept], [owners[i] for i in kept]
    sizes = token_bytes(tokenizer)
    counts = [int(sizes[r[1:]].sum()) for r in rows]
    return Texts(rows, bytes=counts, max_length=length, name=part), tuple(owners)


def _balanced(owners: Sequence[str], most: int) -> list[int]:
    """`most` texts: equally many of each area as far as it has them, evenly spaced in it."""
    areas = np.array([sources.area(m) for m in owners])
    left = {name: np.flatnonzero(areas == name) for name in DOMAINS if name in areas}
    kept: list[int] = []
    # the smallest area first: what it lacks is shared out among the others
    for done, name in enumerate(sorted(left, key=lambda a: (len(left[a]), a))):
        quota = min((most - len(kept)) // (len(left) - done), len(left[name]))
        places = np.linspace(0, len(left[name]) - 1, quota).round().astype(int)
        kept += [int(i) for i in left[name][places]]
    return sorted(kept)


def _tokens(module: str, tokenizer: Any) -> np.ndarray:
    """A module's tokens, the end marker last."""
    return _read(module, _Kept(tokenizer))


class _Kept:
    """A tokenizer as a key: equal to itself alone."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.tokenizer is self.tokenizer

    def __hash__(self) -> int:
        return id(self.tokenizer)


@cache
def _read(module: str, kept: _Kept) -> np.ndarray:
    core = kept.tokenizer.backend_tokenizer
    ids = core.encode(sources.text(module), add_special_tokens=False).ids
    return np.array([*ids, kept.tokenizer.eos_token_id], dtype=np.int32)


def _version() -> str:
    import platform

    return platform.python_version()
