"""Documents of the standard library with a first line of their own, and edits that change a sense."""

import inspect
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from understudy.data import Arrays
from understudy.errors import DataError
from understudy.tasks import sources
from understudy.tasks.task import Task
from understudy.tasks.words import encode

BUCKETS = 8192
LONGEST = 6
"""Sentences of a document."""
# where a line begins with three quotes: a docstring, without parsing ten megabytes of source
_DOCSTRING = re.compile(r'^[ \t]+[rR]?"""(.*?)"""', re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[A-Za-z_][\w'-]*|\d+(?:\.\d+)?")
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b")
_NAME = re.compile(r"\b(?:[a-z]+_\w+|[A-Z]\w*[A-Z]\w*|[a-z]+\(\)|(?<=[a-z,] )[A-Z]\w+)")
_NOT = re.compile(r"\b(is|are|was|were|does|do|will|should|must|may|can|has|have) not\b")
_VERB = re.compile(r"\b(is|are|was|were|will|should|must|may|can)\b(?! not)")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A docstring without its first line: sentences of prose, and that line."""

    module: str
    line: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences, one after another."""
        return " ".join(self.sentences)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A document, a statement, whether it is known to be supported, and how it was made."""

    document: Document
    statement: str
    consistent: bool
    made: str


class Words:
    """Words by a hash of their letters: every word has an id, whoever saw it before.

    A tokenizer in the form of `tasks.words.Vocabulary`: 0 padding, 2 between two texts.
    """

    pad_token_id = 0

    def __len__(self) -> int:
        return BUCKETS + 3

    def ids(self, text: str) -> list[int]:
        """3 + crc32(word) mod buckets."""
        return [3 + zlib.crc32(w.lower().encode()) % BUCKETS for w in _WORD.findall(text)]

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int, **_: Any
    ) -> dict[str, list[list[int]]]:
        """Ids of each text; the first of a pair is cut so that the second stays whole."""
        if pairs is None:
            return {"input_ids": [self.ids(t)[:max_length] or [1] for t in texts]}
        found = []
        for a, b in zip(texts, pairs, strict=True):
            second = self.ids(b)[: max_length // 2] or [1]
            found.append([*self.ids(a)[: max_length - 1 - len(second)], 2, *second])
        return {"input_ids": found}


@cache
def documents() -> tuple[Document, ...]:
    """Every docstring with a first line and at least two sentences of prose below it."""
    found: dict[tuple[str, ...], Document] = {}
    for module in sources.modules():
        for match in _DOCSTRING.finditer(sources.text(module)):
            head, _, body = inspect.cleandoc(match[1]).partition("\n\n")
            line = " ".join(head.split())
            prose = tuple(_prose(body))
            if len(prose) >= 2 and 4 <= len(line.split()) <= 20 and "(" not in line[:20]:
                one = Document(module=module, line=line, sentences=prose[:LONGEST])
                found.setdefault(one.sentences, one)
    if len(found) < 100:
        raise DataError("the standard library's sources have too few docstrings with a body")
    return tuple(sorted(found.values(), key=lambda d: (d.module, d.sentences)))


def _prose(body: str) -> list[str]:
    found = []
    for block in re.split(r"\n\s*\n", body):
        if re.search(r"^\s*(>>>|\.\.\.|\||[-*=~]{3,}|@|:param)", block, re.MULTILINE):
            continue
        flat = re.sub(r"[`*]+", "", " ".join(block.split()))
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", flat):
            words = sentence.split()
            plain = sum(bool(re.fullmatch(r"[a-z]+[,.;:]?", w)) for w in words)
            prose = sentence.endswith(".") and sentence[:1].isupper() and plain >= 0.6 * len(words)
            if 6 <= len(words) <= 34 and prose and not re.search(r"[=<>{}|\\]", sentence):
                found.append(sentence)
    return found


def parts(split: int) -> dict[str, list[Document]]:
    """Documents by part, modules kept apart: those that judge are the same for every split.

    A fifth of the modules judges, by a hash of the file's name; of the others a tenth is validation
    and half of the rest teaches the summarisers, drawn by `split`.
    """
    found: dict[str, list[Document]] = {k: [] for k in ("test", "validate", "summarise", "label")}
    for one in documents():
        if zlib.crc32(f"{one.module}.py".encode()) % 10 < 2:
            found["test"].append(one)
            continue
        at = sources.chance(one.module, f"documents {split}")
        found["validate" if at < 0.1 else "summarise" if at < 0.5 else "label"].append(one)
    return found


def edits(document: Document, others: Sequence[Document], random: Random) -> list[Pair]:
    """A sentence of the document, and one more of its sentences in each way that can be changed.

    number and name: swapped for another (of the document where it has one); negation: put in or taken
    out; other: a sentence of another document of the same area.
    """
    pairs = [
        Pair(document=document, statement=s, consistent=True, made="sentence")
        for s in random.sample(document.sentences, min(2, len(document.sentences)))
    ]
    ways = {
        "number": lambda s: _swapped(s, document.text, _NUMBER, "23456789", random),
        "name": lambda s: _swapped(s, document.text, _NAME, (), random),
        "negation": lambda s: _negated(s, random),
    }
    for made, way in ways.items():
        changed = [c for s in document.sentences if (c := way(s)) is not None]
        if changed:
            said = random.choice(changed)
            pairs.append(Pair(document=document, statement=said, consistent=False, made=made))
    said = random.choice(random.choice(others).sentences)
    if said not in document.sentences:
        pairs.append(Pair(document=document, statement=said, consistent=False, made="other"))
    return pairs


def own_lines(documents: Sequence[Document], random: Random) -> list[Pair]:
    """The first line that a document's author wrote, and that of another one of the same area.

    Nobody's edits and no model's: sentences in words of their own, right by their origin.
    """
    by_area: dict[str, list[Document]] = {}
    for one in documents:
        by_area.setdefault(sources.area(one.module), []).append(one)
    pairs = []
    for one in documents:
        others = [d for d in by_area[sources.area(one.module)] if d.line != one.line]
        if others:
            pairs.append(Pair(document=one, statement=one.line, consistent=True, made="line"))
            line = random.choice(others).line
            pairs.append(Pair(document=one, statement=line, consistent=False, made="line"))
    return pairs


def _swapped(
    sentence: str, text: str, what: re.Pattern[str], else_: Sequence[str], random: Random
) -> str | None:
    """Without one number or name, and with another in its place; None where there is none."""
    found = list(what.finditer(sentence))
    if not found:
        return None
    hit = random.choice(found)
    near = sorted({m[0] for m in what.finditer(text)} - {hit[0]})
    choices = near or [c for c in else_ if c != hit[0]]
    if not choices:
        return None
    return sentence[: hit.start()] + random.choice(choices) + sentence[hit.end() :]


def _negated(sentence: str, random: Random) -> str | None:
    if hit := _NOT.search(sentence):
        return sentence[: hit.start()] + hit[1] + sentence[hit.end() :]
    found = list(_VERB.finditer(sentence))
    if not found:
        return None
    hit = random.choice(found)
    return f"{sentence[: hit.end()]} not{sentence[hit.end() :]}"


def balanced(pairs: Sequence[Any], random: Random, key: Any = None) -> list[Any]:
    """As many consistent ones as others, drawn at random, in a random order."""
    of = key or (lambda p: p.consistent)
    yes, no = [p for p in pairs if of(p)], [p for p in pairs if not of(p)]
    n = min(len(yes), len(no))
    found = random.sample(yes, n) + random.sample(no, n)
    random.shuffle(found)
    return found


def pair_inputs(pairs: Sequence[tuple[str, str]], max_length: int = 160) -> dict[str, Any]:
    """`input_ids` and `attention_mask` of (document, statement) pairs."""
    return encode(Words(), {"pairs": list(pairs)}, max_length)["pairs"]


def summaries_task(split: int, *, most: int = 400) -> Task:
    """Is a statement supported by its document? Train on edits, which no teacher has seen.

    All three parts are controlled edits: sentences of the document, and such with another number,
    another name, a negation, or of another document. Labels: inconsistent, consistent. `most`: of
    documents in the test part.
    """
    found = parts(split)
    made: dict[str, list[Pair]] = {}
    for name, own in (("train", "label"), ("validate", "validate"), ("test", "test")):
        random = Random(f"{name} {split if name != 'test' else 0}")
        rows = found[own]
        if name == "test" and len(rows) > most:
            rows = random.sample(rows, most)
        made[name] = balanced([p for d in rows for p in edits(d, rows, random)], random)
    data = {
        k: Arrays(
            pair_inputs([(p.document.text, p.statement) for p in v]),
            [int(p.consistent) for p in v],
            name=k,
        )
        for k, v in made.items()
    }
    return Task(
        name="stdlib-summaries",
        classes=2,
        train=data["train"],
        validate=data["validate"],
        test=data["test"],
        metric="auroc",
        labels=("inconsistent", "consistent"),
        model={"classes": 2, "vocabulary": len(Words()), "padding": 0, "length": 160},
        extras={
            "pairs": made,
            "documents": found,
            "lines": own_lines(found["test"][:most], Random(0)),
            "options": {"split": split, "most": most},
        },
    )
