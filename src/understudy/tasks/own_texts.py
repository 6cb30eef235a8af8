"""A user's own texts as a task of kind `language`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.chat import Read, Reading, as_texts, read_rows
from understudy.data.templates import Sample
from understudy.errors import DataError
from understudy.tasks.language import language_task
from understudy.tasks.splits import cut
from understudy.tasks.task import Task
from understudy.tasks.words import tokenizer_of
from understudy.tasks.writings import Rows, read_writings

PARTS = ("train", "validate", "test")


def load_texts(
    path: str | Path | list[dict[str, Any]],
    *,
    tokenizer: Any,
    columns: Mapping[str, str] | None = None,
    chat: bool = False,
    max_length: int | None = None,
    truncate: bool = False,
    context: int | None = None,
    vocabulary: int | None = None,
    templates: Mapping[str, Any] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    metric: str | None = None,
) -> Task:
    """Texts from a file, a folder, the hub or rows, read by a tokenizer (its name, or itself).

    columns, chat: see `data.chat.Reading`. max_length: tokens that are read of one text (at most
    the models' `context`, which it is by default); `truncate` cuts longer ones, which are refused
    otherwise. vocabulary: tokens that the models know (default: the tokenizer's). templates: by
    name, tokenizers of other models that read the same conversations, each in its own chat
    template; `extras["renderings"][name]` has their `Texts` where those differ.

    Where there is no validation or test split, shares of the rows are kept apart, drawn by `seed`;
    samples are numbered over all parts. `extras["notes"]` says what was decided here.
    """
    if context is not None and max_length is not None and max_length > context:
        raise DataError(f"max_length {max_length} is more than the models read, {context} tokens")
    chosen = tokenizer_of(tokenizer, ())
    where = "data" if isinstance(path, list) else str(path)
    parts, notes = _divided(
        {"train": path} if isinstance(path, list) else read_writings(path),
        where, validation, test, seed,
    )  # fmt: skip
    if vocabulary is None:
        vocabulary = len(chosen)
    reading = Reading(
        columns=dict(columns or {}), chat=chat, max_length=max_length or context,
        truncate=truncate, vocabulary=vocabulary,
    )  # fmt: skip
    read = {k: read_rows(v, chosen, reading, _name(where, k, parts)) for k, v in parts.items()}
    ids: dict[str, np.ndarray] = {}
    for name, found in read.items():
        begin = sum(len(i) for i in ids.values())
        ids[name] = np.arange(begin, begin + len(found.samples))
    made = {k: as_texts(r.samples, chosen, ids=ids[k], name=k) for k, r in read.items()}
    renderings = {}
    for name, other in (templates or {}).items():
        found = _rendering(name, other, chosen, parts, read, reading, where)
        if found is not None:
            renderings[name] = as_texts(found, chosen, ids=np.concatenate(list(ids.values())))
    if cuts := sum(r.cut for r in read.values()):
        notes.append(f"{where}: {cuts} texts were cut to {reading.max_length} tokens")
    words = {
        "text": "every token",
        "completion": "the completion",
        "messages": "every turn of the assistant",
    }
    notes.append(f"{where}: {words[read['train'].form]} is scored")
    longest = max(int(t.lengths.max()) for t in made.values())
    return language_task(
        "data" if isinstance(path, list) else Path(str(path)).stem or str(path),
        train=made["train"],
        validate=made["validate"],
        test=made.get("test"),
        vocabulary=vocabulary,
        length=reading.max_length or longest,
        tokenizer=chosen,
        metric=metric or "perplexity",
        extras={"notes": tuple(notes), "path": where, "renderings": renderings},
    )


def _name(where: str, part: str, parts: Mapping[str, Any]) -> str:
    return f"{where} ({part})" if len(parts) > 1 else where


def _divided(
    parts: dict[str, Rows], where: str, validation: float, test: float, seed: int
) -> tuple[dict[str, Rows], list[str]]:
    """Rows by part; a part that is missing is cut off the training rows."""
    parts = {k: parts[k] for k in PARTS if k in parts}
    if "validate" in parts:
        return parts, []
    rows = parts["train"]
    wanted = {"validate": _count(validation, len(rows), "validation")}
    if wanted["validate"] == 0:
        raise DataError(f"{where} has no validation split, so validation= cannot be 0")
    if "test" not in parts and test:
        wanted["test"] = _count(test, len(rows), "test")
    rest = len(rows) - sum(wanted.values())
    if rest < 1:
        raise DataError(
            f"{where} has {len(rows)} texts, and {' and '.join(wanted)} need one each beside those "
            "to learn from; give more rows (in a .txt, texts are divided by blank lines)"
        )
    drawn = cut(len(rows), (rest, *wanted.values()), seed=seed)
    for name, part in zip(("train", *wanted), drawn, strict=True):
        parts[name] = [rows[i] for i in part]
    cuts = " and ".join(f"{n} texts for {k}" for k, n in wanted.items())
    note = f"{where}: {cuts} were cut off the {len(rows)} training texts (seed {seed})"
    return {k: parts[k] for k in PARTS if k in parts}, [note]


def _count(value: float, n: int, name: str) -> int:
    """A share below 1 as at least one row, or a number of rows."""
    if isinstance(value, bool) or value < 0 or (value >= 1 and value != int(value)):
        raise DataError(f"{name} is a share below 1 or a number of texts, not {value}")
    return int(value) if value >= 1 or value == 0 else max(1, round(value * n))


def _rendering(
    name: str,
    tokenizer: Any,
    first: Any,
    parts: Mapping[str, Rows],
    read: Mapping[str, Read],
    reading: Reading,
    where: str,
) -> list[Sample] | None:
    """The samples in another model's template, scored alike; None where that says the same."""
    talks = any(r.form == "messages" for r in read.values()) or reading.chat
    same = getattr(tokenizer, "chat_template", None) == getattr(first, "chat_template", None)
    if not talks or same or not getattr(tokenizer, "chat_template", None):
        return None
    own = Reading(columns=reading.columns, chat=reading.chat, vocabulary=reading.vocabulary)
    found: list[Sample] = []
    differs = False
    for part, rows in parts.items():
        at = _name(where, part, parts)
        others = read_rows(rows, tokenizer, own, f"{at}, as {name} reads it").samples
        # conversations are cut at their end and never divided, so samples are rows here
        for number, (mine, theirs) in enumerate(zip(read[part].samples, others, strict=True)):
            count = sum(mine.scored[1:])
            theirs = _first_scored(theirs, count)
            if _said(mine) != _said(theirs):
                raise DataError(
                    f"{at}, row {number}: in its own chat template {name} is scored on other tokens "
                    f"than the student ({_said_words(theirs, tokenizer)!r}, and "
                    f"{_said_words(mine, first)!r}); give both models one template"
                )
            differs |= mine.tokens != theirs.tokens
            found.append(theirs)
    return found if differs else None


def _first_scored(sample: Sample, count: int) -> Sample:
    """The sample up to its `count`-th scored token."""
    places = [i for i, s in enumerate(sample.scored) if s and i > 0]
    return sample.cut(places[count - 1]) if len(places) > count else sample


def _said(sample: Sample) -> list[int]:
    return [t for t, s in zip(sample.tokens[1:], sample.scored[1:], strict=True) if s]


def _said_words(sample: Sample, tokenizer: Any) -> str:
    text = tokenizer.decode(_said(sample))
    return text if len(text) <= 60 else text[:60] + "..."
