"""Token sequences of different lengths: what a language model reads, and where it is scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.errors import DataError
from understudy.signals import IGNORE, Batch


class Texts:
    """Sequences of token ids, each with the tokens that a model is asked to predict.

    tokens: one sequence a sample, of at least two tokens. scored: as long, True where the token is
    predicted (the first never is); None scores all. bytes: UTF-8 bytes of each sample's scored
    text, for bits per byte. ids: the samples' numbers in the data that they come from.
    weights: as long as tokens, the loss weight of each scored token.

    A batch is right-padded to its longest sample: inputs `input_ids` and `attention_mask` [N, L],
    labels [N, L] the token after each position (`IGNORE` where it is not scored), mask [N, L].
    """

    def __init__(
        self,
        tokens: Sequence[Any],
        scored: Sequence[Any] | None = None,
        *,
        ids: Any = None,
        bytes: Sequence[int] | None = None,
        weights: Sequence[Any] | None = None,
        padding: int = 0,
        max_length: int | None = None,
        name: str = "data",
    ) -> None:
        self.name, self.padding = name, padding
        sizes = [len(t) for t in tokens]
        if not sizes:
            raise DataError(f"{name} is empty; it needs at least one text")
        self.ids = torch.arange(len(sizes)) if ids is None else torch.as_tensor(ids).long()
        short = next((i for i, n in enumerate(sizes) if n < 2), None)
        if short is not None:
            raise DataError(
                f"{name}: text {int(self.ids[short])} has {sizes[short]} token(s); it takes two to "
                "predict one; drop it"
            )
        if max_length is not None and max(sizes) > max_length + 1:
            worst = int(np.argmax(sizes))
            raise DataError(
                f"{name}: text {int(self.ids[worst])} has {sizes[worst] - 1} tokens, and the models "
                f"read {max_length}; cut or drop such texts (max_length)"
            )
        self.offsets = torch.zeros(len(sizes) + 1, dtype=torch.long)
        self.offsets[1:] = torch.as_tensor(sizes).cumsum(0)
        self.flat = _flat(tokens, torch.int32)
        self.scored = (
            torch.ones(len(self.flat), dtype=torch.bool)
            if scored is None
            else _flat(scored, torch.bool)
        )
        self.scored[self.offsets[:-1]] = False
        if len(self.scored) != len(self.flat):
            raise DataError(f"{name}: tokens and scored differ in length")
        counts = torch.zeros(len(sizes), dtype=torch.long)
        counts.index_add_(0, self._owner(), self.scored.long())
        if bool((counts == 0).any()):
            row = int((counts == 0).nonzero()[0])
            raise DataError(
                f"{name}: no token of text {int(self.ids[row])} is scored; nothing would be learned "
                "from it (is its answer empty, or cut off?)"
            )
        self.bytes = None if bytes is None else torch.as_tensor(bytes).long()
        self.weights = None if weights is None else _flat(weights, torch.float32)

    def _owner(self) -> Tensor:
        sizes = self.offsets.diff()
        return torch.arange(len(sizes)).repeat_interleave(sizes)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> Tensor:
        """All: a text is its own label."""
        return torch.ones(len(self), dtype=torch.bool)

    @property
    def lengths(self) -> Tensor:
        """[N] tokens that a model reads of each sample."""
        return self.offsets.diff() - 1

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id."""
        return int(self.flat.max()) + 1

    def tokens(self, row: int) -> Tensor:
        """The token ids [L + 1] of one sample."""
        return self.flat[self.offsets[row] : self.offsets[row + 1]].long()

    def prompt(self, row: int) -> Tensor:
        """The tokens before the first that is scored."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        first = int(self.scored[start:end].nonzero()[0])
        return self.flat[start : start + first].long()

    def answer(self, row: int) -> Tensor:
        """The tokens from the first that is scored on."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        first = int(self.scored[start:end].nonzero()[0])
        return self.flat[start + first : end].long()

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index`, padded on the right."""
        index = torch.as_tensor(index)
        starts, sizes = self.offsets[index], self.offsets.diff()[index]
        width = int(sizes.max())
        within = torch.arange(width)
        real = within < sizes[:, None]
        places = torch.where(real, starts[:, None] + within, 0)
        tokens = torch.where(real, self.flat[places].long(), self.padding)
        scored = self.scored[places] & real
        mask = scored[:, 1:]
        weights = None
        if self.weights is not None:
            weights = torch.where(mask, self.weights[places][:, 1:], 0.0)
        return Batch(
            inputs={"input_ids": tokens[:, :-1], "attention_mask": real[:, 1:].long()},
            labels=torch.where(mask, tokens[:, 1:], IGNORE),
            mask=mask,
            weights=weights,
            index=self.ids[index],
        )

    def subset(self, rows: Tensor, *, keep_labels: bool = True, name: str | None = None) -> "Texts":
        """The samples at `rows`, under their own numbers. A text cannot be without its label."""
        picked = [int(r) for r in torch.as_tensor(rows)]
        cut = [slice(int(self.offsets[r]), int(self.offsets[r + 1])) for r in picked]
        return Texts(
            [self.flat[c] for c in cut],
            [self.scored[c] for c in cut],
            ids=self.ids[torch.as_tensor(picked)],
            bytes=None if self.bytes is None else self.bytes[torch.as_tensor(picked)].tolist(),
            weights=None if self.weights is None else [self.weights[c] for c in cut],
            padding=self.padding,
            name=name or self.name,
        )


def _flat(rows: Sequence[Any], dtype: torch.dtype) -> Tensor:
    return torch.cat([torch.as_tensor(r).to(dtype).reshape(-1) for r in rows])
