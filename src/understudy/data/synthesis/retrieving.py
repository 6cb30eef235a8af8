"""Examples like a question, for a prompt that shows them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from understudy.data.synthesis.rows import Row, text_of
from understudy.errors import UserError

Embed = Callable[[Sequence[str]], Any]
"""Texts to rows of numbers [N, D]."""


def word_counts(texts: Sequence[str]) -> Embed:
    """TF-IDF over words and pairs of words, learned from these texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    counts.fit(texts)
    return lambda asked: counts.transform(asked).toarray()  # type: ignore[union-attr]


class Nearest:
    """The annotated rows most like a question, by the cosine of their embeddings.

    embed: None for TF-IDF; a sentence encoder's `encode` for meaning
    """

    def __init__(
        self, rows: Sequence[Row], embed: Embed | None = None, field: str = "question"
    ) -> None:
        if not rows:
            raise UserError("there are no rows to find examples among")
        self.rows, self.field = list(rows), field
        texts = [text_of(r, field, "retrieve") for r in rows]
        self.embed = embed or word_counts(texts)
        self.known = _unit(self.embed(texts))

    def like(self, question: str, k: int = 8, *, itself: bool = False) -> list[Row]:
        """The k nearest, the nearest last, where it stands next to the question in a prompt.

        itself: whether a row with the very question may be among them
        """
        near = self.known @ _unit(self.embed([question]))[0]
        order = np.argsort(-near, kind="stable")
        found = [self.rows[i] for i in order if itself or self.rows[i][self.field] != question]
        return found[:k][::-1]


def _unit(vectors: Any) -> np.ndarray:
    given = np.asarray(vectors, dtype=np.float64)
    return given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-12)
