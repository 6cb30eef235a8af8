"""Two tokenizations of one text, aligned by the bytes that they cover."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.errors import DataError
from understudy.signals import IGNORE, Batch

PROBES = (" a Bé 漢字\n\t1+2=3. ann  has", " a B\n1+2=3. ann  has")
"""Texts of which a tokenizer has to give one back byte by byte; the second is for those whose
alphabet is ASCII: what else there is, `Pieces.tokens` refuses text by text."""
KEPT = 100_000
"""Texts whose alignment is remembered."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A vocabulary as bytes: what each token id stands for, and how bytes become ids.

    pieces: the bytes of each id; a special token has none. encode: text -> ids, without special
    tokens around it. begin: the special token that a model wants before every text, if any.
    """

    pieces: tuple[bytes, ...]
    encode: Callable[[str], Sequence[int]]
    begin: int | None = None
    name: str = "tokenizer"

    def __len__(self) -> int:
        """Token ids there are."""
        return len(self.pieces)

    def fingerprint(self) -> str:
        """Hash of the vocabulary."""
        held = hashlib.sha256(repr((self.name, self.begin)).encode())
        for piece in self.pieces:
            held.update(len(piece).to_bytes(4, "big") + piece)
        return held.hexdigest()[:16]

    def tokens(self, text: bytes) -> list[int]:
        """The ids of a text (in UTF-8), whose pieces give the text again."""
        found = [int(i) for i in self.encode(text.decode())]
        if b"".join(self.pieces[i] for i in found) != text:
            raise DataError(
                f"{self.name} does not give back {text[:40]!r} byte by byte (it normalises text, or "
                "adds to it): tokens cannot be aligned by what they cover; use a tokenizer that "
                "keeps every byte"
            )
        return found

    @cached_property
    def kinds(self) -> Tensor:
        """[V] 1 for a piece of letters, 2 for one of digits, 0 for all others; a space may lead."""
        return torch.tensor([_kind(piece) for piece in self.pieces])


def pieces_of(tokenizer: Any, vocabulary: int | None = None) -> Pieces:
    """A tokenizer as `Pieces`: a Hugging Face one, or `Pieces` itself.

    Byte-level and byte-fallback vocabularies are read; one that loses bytes (WordPiece, lower case)
    is refused. Ids past its own, up to `vocabulary`, are padding and have no bytes.
    """
    if isinstance(tokenizer, Pieces):
        return tokenizer
    names = getattr(tokenizer, "convert_ids_to_tokens", None)
    if not callable(names):
        raise DataError(
            f"a {type(tokenizer).__name__} cannot be read as bytes; give a Hugging Face tokenizer, "
            "or Pieces(pieces=..., encode=...)"
        )
    size = len(tokenizer)
    spelled: Any = names(list(range(size)))
    special = set(getattr(tokenizer, "all_special_ids", ()))
    extra = {i for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items() if t.special}
    special |= extra
    padding = max(0, (vocabulary or size) - size)

    def encode(text: str) -> Sequence[int]:
        # a text that spells a special token is text all the same
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    name = type(tokenizer).__name__
    for probe, read in product(PROBES, (_byte_level, _byte_fallback)):
        pieces = tuple(b"" if i in special else read(t or "") for i, t in enumerate(spelled))
        made = Pieces(pieces=pieces + (b"",) * padding, encode=encode, name=name)
        try:
            made.tokens(probe.encode())
        except DataError:
            continue
        return made
    raise DataError(
        f"{name} does not give a text back byte by byte: its tokens cannot be aligned by what they "
        "cover; use a byte-level tokenizer, or Pieces(pieces=..., encode=...)"
    )


def byte_pieces(specials: int = 1) -> Pieces:
    """A vocabulary of single bytes, 0 to 255, and special tokens after them."""
    return Pieces(
        pieces=tuple(bytes([i]) for i in range(256)) + (b"",) * specials,
        encode=lambda text: list(text.encode()),
        name="bytes",
    )


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Of one text: runs of tokens on either side that cover the same bytes, as short as can be.

    theirs: the other tokenization's ids. mine, other: for each group its token positions
    [start, end) on both sides.
    """

    theirs: list[int]
    mine: list[tuple[int, int]]
    other: list[tuple[int, int]]


class Aligner:
    """Reads a student's tokens as text, and the text as a teacher's tokens.

    specials: the teacher's id for each special token of the student's; one that is not named is
    left out of what the teacher reads, and so is what is no UTF-8 (part of a character at the end
    of a cut text). Neither is in a group.
    """

    def __init__(
        self, *, student: Pieces, teacher: Pieces, specials: Mapping[int, int] | None = None
    ) -> None:
        self.student, self.teacher, self.specials = student, teacher, dict(specials or {})
        for own, other in self.specials.items():
            if student.pieces[own] or teacher.pieces[other]:
                raise DataError(
                    f"special tokens {own} and {other} are paired, and one of them stands for text"
                )
        self._known: dict[tuple[int, ...], Groups] = {}

    def fingerprint(self) -> str:
        """Hash of both vocabularies and the pairs."""
        pairs = sorted(self.specials.items())
        held = repr((self.student.fingerprint(), self.teacher.fingerprint(), pairs))
        return hashlib.sha256(held.encode()).hexdigest()[:16]

    def groups(self, ids: Sequence[int]) -> Groups:
        """The teacher's tokens of the same text, and what belongs together; kept for next time."""
        key = tuple(ids)
        if key not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[key] = self._grouped(key)
        return self._known[key]

    def _grouped(self, ids: tuple[int, ...]) -> Groups:
        begin = self.teacher.begin
        theirs: list[int] = [] if begin is None else [begin]
        mine: list[tuple[int, int]] = []
        other: list[tuple[int, int]] = []
        at = 0
        while at < len(ids):
            if not self._piece(ids[at]):
                if (known := self.specials.get(ids[at])) is not None:
                    mine.append((at, at + 1))
                    other.append((len(theirs), len(theirs) + 1))
                    theirs.append(known)
                at += 1
                continue
            end = at
            while end < len(ids) and self._piece(ids[end]):
                end += 1
            self._stretch(ids, at, end, theirs, mine, other)
            at = end
        return Groups(theirs=theirs, mine=mine, other=other)

    def _piece(self, token: int) -> bytes:
        if not 0 <= token < len(self.student.pieces):
            raise DataError(
                f"token {token} is outside the student's vocabulary of {len(self.student)}"
            )
        return self.student.pieces[token]

    def _stretch(
        self,
        ids: Sequence[int],
        start: int,
        end: int,
        theirs: list[int],
        mine: list[tuple[int, int]],
        other: list[tuple[int, int]],
    ) -> None:
        """Groups of a stretch without special tokens."""
        raw = b"".join(self._piece(i) for i in ids[start:end])
        base = len(theirs)
        its: list[tuple[int, int]] = []
        read = _readable(raw)
        for at, text in read:
            found = self.teacher.tokens(text)
            theirs += found
            its += _spans([len(self.teacher.pieces[i]) for i in found], at)
        starts = {a: n for n, (a, _) in enumerate(its)}
        ends = {b: n for n, (_, b) in enumerate(its)}
        opened: tuple[int, int] | None = None
        for n, (a, b) in enumerate(_spans([len(self._piece(i)) for i in ids[start:end]], 0)):
            if not any(at <= a and b <= at + len(text) for at, text in read):
                opened = None  # it holds bytes that were left out
                continue
            if opened is None and a in starts:
                opened = (n, starts[a])
            if opened is None or b not in ends:
                continue
            first, c = opened
            d = ends[b] + 1
            opened = None
            mine.append((start + first, start + n + 1))
            other.append((base + c, base + d))

    def aligned(self, batch: Batch) -> "Aligned":
        """A batch of texts as the teacher reads it, and where its answers belong."""
        ids, seen = batch.inputs["input_ids"].cpu(), batch.inputs["attention_mask"].cpu().bool()
        rows, places = [], []
        n_rows, width = ids.shape
        labels = None if batch.labels is None else batch.labels.cpu()
        mask = (seen if batch.mask is None else batch.mask.cpu()).bool()
        for n in range(n_rows):
            text = ids[n][seen[n]].tolist()
            # the last token is read by no model, but scored: it stands in the labels
            if labels is not None and text and int(labels[n, len(text) - 1]) != IGNORE:
                text.append(int(labels[n, len(text) - 1]))
            found = self.groups(text)
            rows.append(found.theirs)
            for (a, b), (c, d) in zip(found.mine, found.other, strict=True):
                # what is predicted at a position is the token after it: the first is never
                if a >= 1 and c >= 1 and bool(mask[n, a - 1 : b - 1].all()):
                    places.append((n, a - 1, b - 1, c - 1, d - 1))
        return Aligned.of(rows, places, width)


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """A teacher's view of a batch.

    ids, mask [N, M]: what it reads, padded on the right. group [N, L]: at each of the student's
    positions the number of the group that its label is in, -1 without one. first [N, L]: at the
    first position of a group the teacher's position that predicts the group's first token, else
    -1. count [N, L]: there, of how many tokens of the teacher's the group is. later [K, 4]: (row,
    first student position of the group, teacher's position, token id) of their other tokens.
    """

    ids: Tensor
    mask: Tensor
    group: Tensor
    first: Tensor
    count: Tensor
    later: Tensor

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int]], places: Sequence[tuple[int, ...]], width: int
    ) -> "Aligned":
        """From the teacher's tokens and (row, mine start, mine end, other start, other end)."""
        longest = max([1, *(len(r) for r in rows)])
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[n, : len(row)] = 1
        group = torch.full((len(rows), width), -1)
        first, count = group.clone(), torch.zeros_like(group)
        later: list[tuple[int, int, int, int]] = []
        for number, (n, a, b, c, d) in enumerate(places):
            group[n, a:b] = number
            first[n, a], count[n, a] = c, d - c
            later += [(n, a, t, int(ids[n, t + 1])) for t in range(c + 1, d)]
        rest = torch.tensor(later, dtype=torch.long).reshape(-1, 4)
        return cls(ids=ids, mask=mask, group=group, first=first, count=count, later=rest)


def shared_ids(
    student: Pieces, teacher: Pieces, specials: Mapping[int, int] | None = None
) -> Tensor:
    """[S, 2] (student's id, teacher's id) of tokens that stand for the same bytes, each used once."""
    known: dict[bytes, int] = {}
    for i, piece in enumerate(teacher.pieces):
        if piece:
            known.setdefault(piece, i)
    taken: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for i, piece in enumerate(student.pieces):
        other = known.get(piece) if piece else (specials or {}).get(i)
        if other is not None and other not in taken:
            taken.add(other)
            pairs.append((i, other))
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def translated(texts: Texts, aligner: Aligner, *, name: str | None = None) -> Texts:
    """The same texts in the teacher's tokens, for a teacher that is trained here.

    A token is scored where all of the student's tokens that it shares a group with are.
    """
    tokens, scored, keep = [], [], []
    for row in range(len(texts)):
        start, end = int(texts.offsets[row]), int(texts.offsets[row + 1])
        found = aligner.groups(texts.flat[start:end].tolist())
        own = texts.scored[start:end]
        flags = [False] * len(found.theirs)
        for (a, b), (c, d) in zip(found.mine, found.other, strict=True):
            flags[c:d] = [bool(own[a:b].all())] * (d - c)
        if flags:
            flags[0] = False
        if any(flags):
            tokens.append(found.theirs)
            scored.append(flags)
            keep.append(row)
    if not keep:
        raise DataError(f"{texts.name}: no scored token of it is a token of {aligner.teacher.name}")
    picked = torch.tensor(keep)
    return Texts(
        tokens,
        scored,
        ids=texts.ids[picked],
        bytes=None if texts.bytes is None else texts.bytes[picked].tolist(),
        name=name or texts.name,
    )


def _readable(raw: bytes) -> list[tuple[int, bytes]]:
    """The stretches of UTF-8 in it, with the places where they start."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(raw):
        try:
            raw[at:].decode()
            end, past = len(raw), len(raw)
        except UnicodeDecodeError as error:
            end, past = at + error.start, at + error.end
        if end > at:
            found.append((at, raw[at:end]))
        at = past
    return found


def _spans(sizes: Sequence[int], at: int) -> list[tuple[int, int]]:
    """The bytes [start, end) of pieces of these sizes, laid one after another from `at` on."""
    found: list[tuple[int, int]] = []
    for size in sizes:
        found.append((at, at + size))
        at += size
    return found


def _kind(piece: bytes) -> int:
    try:
        text = piece.decode().strip(" ")
    except UnicodeDecodeError:
        return 1  # part of a character beyond ASCII: of a letter, as a rule
    return 1 if text.isalpha() else 2 if text.isdigit() else 0


def _byte_level(token: str) -> bytes:
    """GPT-2's spelling: each byte a printable character."""
    table = _printable()
    return bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()


def _byte_fallback(token: str) -> bytes:
    """SentencePiece's spelling: a low line for a space, <0xNN> for a byte."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


@cache
def _printable() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in plain}
    others = [b for b in range(256) if b not in set(plain)]
    return table | {chr(256 + n): b for n, b in enumerate(others)}
