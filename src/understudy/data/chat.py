"""Rows of text as a language model reads them: plain, prompt and completion, or conversations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.data.templates import (
    Messages,
    Sample,
    checked_messages,
    rendered,
    said_bytes,
)
from understudy.data.texts import Texts
from understudy.errors import DataError, UserError, nearest, unknown

Form = Literal["text", "completion", "messages"]
Row = Mapping[str, Any]
COLUMNS = ("text", "prompt", "completion", "messages", "tools")
_QUESTIONS = (("prompt", "completion"), ("question", "answer"), ("instruction", "response"))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows become token ids. The first model's tokenizer reads; others are compared with it.

    columns:    what the columns are called: {"prompt": "q", "completion": "a"}
    chat:       prompt and completion are turns of a conversation, in the chat template
    max_length: tokens that the models read of one text
    truncate:   cut longer ones: plain texts into pieces, in which every token is scored once;
                completions and conversations at their end
    vocabulary: tokens that the models know
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    chat: bool = False
    max_length: int | None = None
    truncate: bool = False
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                raise unknown("column", name, COLUMNS)
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"max_length is at least 1, not {self.max_length}")


@dataclass(frozen=True, kw_only=True)
class Read:
    """Rows as samples: `rows[i]` is the row that `samples[i]` comes from; `cut` of them were cut."""

    samples: list[Sample]
    rows: list[int]
    cut: int
    form: Form


def form_of(keys: Sequence[str], reading: Reading, where: str) -> tuple[Form, dict[str, str]]:
    """What rows with these columns are, and the name of each column that is read.

    messages before prompt and completion before text, where a row has several.
    """
    named = dict(reading.columns)
    for column in named.values():
        if column not in keys:
            raise DataError(f"{where} has no column {column!r}{nearest(column, keys)}")
    if "messages" in named or (not named and "messages" in keys):
        found = {"messages": "messages", **named}
        if "tools" in keys:
            found.setdefault("tools", "tools")
        return "messages", found
    if {"prompt", "completion"} & set(named):
        for one, other in (("prompt", "completion"), ("completion", "prompt")):
            if one not in named:
                if one not in keys:
                    raise DataError(
                        f"{where}: --columns names the {other}, and which is the {one}? There are "
                        f"{', '.join(keys)}"
                    )
                named[one] = one
        return "completion", named
    if not named:
        for prompt, completion in _QUESTIONS:
            if prompt in keys and completion in keys:
                return "completion", {"prompt": prompt, "completion": completion}
    if "text" in named or "text" in keys:
        return "text", {"text": "text", **named}
    raise DataError(
        f"{where}: rows have {', '.join(keys) or 'no columns'}, and are read as text, as prompt and "
        "completion, or as messages; name the columns: --columns prompt=...,completion=..."
    )


def read_rows(rows: Sequence[Row], tokenizer: Any, reading: Reading, where: str = "data") -> Read:
    """Every row as one sample (a long plain text as several), in order.

    Raises `DataError` naming the row: an empty text, one longer than `max_length`, a token that the
    models do not know, nothing to score.
    """
    if not len(rows):
        raise DataError(f"{where} is empty; it needs at least one row")
    form, columns = form_of(list(rows[0]), reading, where)
    samples: list[Sample] = []
    owners: list[int] = []
    cuts = 0
    for number, row in enumerate(rows):
        at = f"{where}, row {number}"
        sample = _sample(row, form, columns, tokenizer, reading, at)
        _known(sample, tokenizer, reading.vocabulary, at)
        parts, was_cut = _fitting(sample, form, reading, at)
        cuts += was_cut
        samples += parts
        owners += [number] * len(parts)
    return Read(samples=samples, rows=owners, cut=cuts, form=form)


def texts_of(rows: Sequence[Row], tokenizer: Any, *, name: str = "data", **options: Any) -> Texts:
    """Rows as `Texts`; options are fields of `Reading`.

    `{"text": ...}`: every token is scored; `{"prompt": ..., "completion": ...}`: the completion
    alone; `{"messages": [{"role": ..., "content": ...}, ...]}`: what the assistant says, in every
    turn. A text and a completion end with the tokenizer's end-of-text token, which is scored.
    """
    read = read_rows(rows, tokenizer, Reading(**options), name)
    return as_texts(read.samples, tokenizer, name=name)


def as_texts(
    samples: Sequence[Sample], tokenizer: Any, *, ids: Any = None, name: str = "data"
) -> Texts:
    """Samples as a source."""
    padding = getattr(tokenizer, "pad_token_id", None)
    return Texts(
        [s.tokens for s in samples],
        [s.scored for s in samples],
        ids=ids,
        bytes=[s.bytes for s in samples],
        padding=0 if padding is None else int(padding),
        name=name,
    )


def _sample(
    row: Row, form: Form, columns: dict[str, str], tokenizer: Any, reading: Reading, at: str
) -> Sample:
    if form == "messages":
        tools = row.get(columns["tools"]) if "tools" in columns else None
        messages = checked_messages(_unpacked(row.get(columns["messages"]), at), at)
        return rendered(messages, tokenizer, at, tools=_unpacked(tools, at) or None)
    if form == "text":
        return _plain(_string(row, columns["text"], at), tokenizer, at)
    prompt, completion = row.get(columns["prompt"]), row.get(columns["completion"])
    if isinstance(prompt, list | tuple):  # both sides of a conversation
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        both = checked_messages([*prompt, *(completion or ())], at)
        return rendered(both, tokenizer, at, first=len(prompt))
    asked = _string(row, columns["prompt"], at)
    said = _string(row, columns["completion"], at)
    if reading.chat:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return rendered(turns, tokenizer, at)
    return _completed(asked, said, tokenizer)


def _plain(text: str, tokenizer: Any, at: str) -> Sample:
    """A text with all of its tokens but the first scored, and its end."""
    told = _tokens(tokenizer, text, special=True)
    ids, places = _one_beginning(told[0], told[1], tokenizer)
    ids, places = _ended(ids, places, tokenizer)
    if len(ids) < 2:
        raise DataError(f"{at}: a text of {len(ids)} token; it takes two to predict one; drop it")
    scored = [False] + [True] * (len(ids) - 1)
    return Sample(tokens=ids, scored=scored, bytes=said_bytes(text, ids, places, scored, tokenizer))


def _completed(prompt: str, completion: str, tokenizer: Any) -> Sample:
    """A prompt as it is read alone, then the completion, scored, and its end.

    Both are read as one text where the prompt's tokens stay the same in it; otherwise (a token
    would span both) apart, as when the prompt is continued.
    """
    ids, _ = _one_beginning(*_tokens(tokenizer, prompt, special=True), tokenizer)
    end = getattr(tokenizer, "eos_token_id", None)
    if end is not None and len(ids) > 1 and ids[-1] == end:
        ids = ids[:-1]  # a tokenizer that ends every text by itself
    both, _ = _one_beginning(*_tokens(tokenizer, prompt + completion, special=True), tokenizer)
    if both[: len(ids)] == ids and len(both) > len(ids):
        said = both[len(ids) :]
    else:
        said = _tokens(tokenizer, completion, special=False)[0]
    if end is not None and said[-1:] != [end]:
        said = [*said, end]
    return Sample(
        tokens=[*ids, *said],
        scored=[False] * len(ids) + [True] * len(said),
        bytes=len(completion.encode()),
    )


def _tokens(tokenizer: Any, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
    if not getattr(tokenizer, "is_fast", False):
        ids = list(tokenizer(text, add_special_tokens=special)["input_ids"])
        return ids, [(0, len(text))] + [(0, 0)] * (len(ids) - 1)
    told = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    return list(told["input_ids"]), [tuple(p) for p in told["offset_mapping"]]


def _one_beginning(
    ids: list[int], places: list[tuple[int, int]], tokenizer: Any
) -> tuple[list[int], list[tuple[int, int]]]:
    """Without the second of two beginning-of-text tokens: one was written in the text itself."""
    begin = getattr(tokenizer, "bos_token_id", None)
    twice = begin is not None and ids[:2] == [begin, begin]
    return (ids[1:], places[1:]) if twice else (ids, places)


def _ended(
    ids: list[int], places: list[tuple[int, int]], tokenizer: Any
) -> tuple[list[int], list[tuple[int, int]]]:
    end = getattr(tokenizer, "eos_token_id", None)
    if end is None or ids[-1:] == [end]:
        return ids, places
    return [*ids, end], [*places, (0, 0)]


def _known(sample: Sample, tokenizer: Any, vocabulary: int | None, at: str) -> None:
    if vocabulary is None or max(sample.tokens) < vocabulary:
        return
    token = next(t for t in sample.tokens if t >= vocabulary)
    raise DataError(
        f"{at}: token {token} ({tokenizer.convert_ids_to_tokens(token)!r}) is outside the models' "
        f"vocabulary of {vocabulary}; the tokenizer knows more than the model: give the model's own"
    )


def _fitting(sample: Sample, form: Form, reading: Reading, at: str) -> tuple[list[Sample], bool]:
    """The sample, cut to what the models read; and whether it was."""
    length = reading.max_length
    reads = len(sample.tokens) - 1
    if length is None or reads <= length:
        return [sample], False
    if not reading.truncate:
        raise DataError(
            f"{at} has {reads} tokens, and the models read {length}; --max-length {length} cuts "
            "such texts, or drop it"
        )
    if form == "text":
        parts = [_piece(sample, i, length) for i in range(0, reads, length)]
        return parts, True
    cut = sample.cut(length)
    if not any(cut.scored[1:]):
        raise DataError(
            f"{at}: cut to {length} tokens nothing is left to score (what comes before the answer "
            "is longer); give a larger --max-length, or drop it"
        )
    return [cut], True


def _piece(sample: Sample, start: int, length: int) -> Sample:
    """Tokens from `start` on; the first is only read, since the piece before has scored it."""
    tokens = sample.tokens[start : start + length + 1]
    scored = [False, *sample.scored[start + 1 : start + length + 1]]
    share = sum(scored) / max(1, sum(sample.scored))
    return Sample(tokens=tokens, scored=scored, bytes=round(sample.bytes * share))


def _string(row: Row, column: str, at: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        what = "is empty" if value is None or value != value else f"is {type(value).__name__}"
        raise DataError(f"{at}: column {column!r} {what}, not text")
    if not value.strip():
        raise DataError(f"{at}: column {column!r} is an empty text; fill or drop it")
    return value


def _unpacked(value: Any, at: str) -> Messages | Any:
    """A list from what tables hold: JSON text, arrays."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise DataError(f"{at}: messages is text and no JSON") from None
    return value.tolist() if hasattr(value, "tolist") else value
