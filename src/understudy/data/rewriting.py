"""Batches of texts written anew before they are learned from: the completions change, not the
prompts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.errors import DataError
from understudy.signals import Batch

Rewrite = Callable[[Batch, torch.Generator], Batch]
"""(a batch of texts, where to draw from) -> the batch that is learned from in its place."""


@dataclass
class Rewriting:
    """A loader whose batches go through `rewrite`, one by one, each after the update before it.

    What a rewrite draws is seeded by (seed, epoch, batch number), so that a resume is exact.
    """

    loader: Any
    rewrite: Rewrite
    seed: int

    @property
    def exact(self) -> bool:
        """As the loader's."""
        return self.loader.exact

    def steps(self, epoch: int) -> int:
        """Batches in this epoch."""
        return self.loader.steps(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from number `start` on."""
        for number, batch in enumerate(self.loader.batches(epoch, start), start):
            device = batch.inputs["input_ids"].device
            g = torch.Generator(device=device)
            g.manual_seed(hash((self.seed, epoch, number)) & 0x7FFFFFFF)
            yield replace(self.rewrite(batch, g), epoch=batch.epoch)

    def example(self) -> Batch:
        """The loader's."""
        return self.loader.example()


def prompts_of(batch: Batch) -> list[Tensor]:
    """Of each text the tokens before the first that is scored."""
    mask, ids = batch.mask, batch.inputs["input_ids"]
    if mask is None or not bool(mask.any(-1).all()):
        raise DataError("a text without a scored token has no prompt to be continued from")
    # the label at a position is the token after it
    first = mask.int().argmax(-1)
    return [row[: int(n) + 1] for row, n in zip(ids, first, strict=True)]


def continued(batch: Batch, prompts: Sequence[Tensor], told: Sequence[Tensor]) -> Batch:
    """The batch with these completions (at least one token each), all of their tokens scored."""
    tokens = [torch.cat([p.cpu(), t.cpu()]) for p, t in zip(prompts, told, strict=True)]
    scored = [
        torch.arange(len(text)) >= len(prompt)
        for text, prompt in zip(tokens, prompts, strict=True)
    ]
    made = Texts(tokens, scored, ids=None if batch.index is None else batch.index.cpu())
    device = batch.inputs["input_ids"].device
    return made.batch(torch.arange(len(tokens))).to(device)


def stop_tokens(texts: Any) -> tuple[int, ...]:
    """The token that ends every completion of a text source, where there is one such token."""
    if not isinstance(texts, Texts):
        return ()
    last = texts.flat[texts.offsets[1:] - 1].unique()
    ends = texts.scored[texts.offsets[1:] - 1]
    return (int(last[0]),) if len(last) == 1 and bool(ends.all()) else ()
