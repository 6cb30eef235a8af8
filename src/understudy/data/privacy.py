"""Which tokens of a text are likely to be private, by patterns over what they spell."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.data.alignment import Pieces
from understudy.errors import UserError
from understudy.signals import IGNORE, Batch

PATTERN = r"[\w.+-]+@[\w-]+\.\w+|\d(?:[ -]?\d){5,}"
"""E-mail addresses, and numbers of six or more digits (cards, telephones, accounts)."""


class Tagger:
    """1 for a token that a match of the pattern runs over, 0 for any other.

    The pattern is matched against the bytes of a whole text, one character a byte.
    """

    def __init__(self, pieces: Pieces, pattern: str = PATTERN) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(f"the pattern {pattern!r} cannot be read: {error}") from None
        self.pieces = pieces

    def fingerprint(self) -> str:
        """Vocabulary and pattern."""
        return f"{self.pieces.fingerprint()} {self.pattern.pattern}"

    def tags(self, ids: Sequence[int]) -> list[bool]:
        """Of each token of a text whether it is private."""
        pieces = [self.pieces.pieces[i] for i in ids]
        text = b"".join(pieces).decode("latin-1")
        found = [m.span() for m in self.pattern.finditer(text) if m.end() > m.start()]
        tags, at = [], 0
        for piece in pieces:
            end = at + len(piece)
            tags.append(any(a < end and at < b for a, b in found))
            at = end
        return tags

    def __call__(self, batch: Batch) -> Tensor:
        """[N, L] of each position's label."""
        ids, labels = batch.inputs["input_ids"].cpu(), batch.labels
        seen = batch.inputs["attention_mask"].cpu().bool()
        found = torch.zeros(ids.shape)
        for n in range(len(ids)):
            text = ids[n][seen[n]].tolist()
            last = IGNORE if labels is None else int(labels[n, len(text) - 1])
            tags = self.tags([*text, *([] if last == IGNORE else [last])])
            found[n, : len(tags) - 1] = torch.tensor(tags[1:], dtype=found.dtype)
        return found.to(batch.inputs["input_ids"].device)
