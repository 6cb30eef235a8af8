"""Texts that a model has written: from prompts to batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.errors import DataError
from understudy.signals import IGNORE, Batch
from understudy.signals.authors import marked


@dataclass(frozen=True, kw_only=True)
class Written:
    """A prompt with what somebody wrote after it: tokens [n], of which `prompt` are the prompt's."""

    tokens: Tensor
    prompt: int
    sample: int
    author: int


def prompts_of(
    batch: Batch, *, prompt_tokens: int, context: int | None = None, cut: bool = False
) -> list[Tensor]:
    """The prompt of each text of a batch: its tokens before the first that is scored.

    A text that is scored from its second token on has no prompt of its own; its first
    `prompt_tokens` tokens serve (or all but one of a shorter text). A prompt that fills the
    `context` (tokens that the models read) is refused, or loses tokens at its beginning with `cut`,
    so that at least one token can be written.

    Raises:
        DataError: a prompt too long, or nothing scored.
    """
    assert batch.mask is not None
    ids, real = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    found = []
    for row in range(len(ids)):
        scored = batch.mask[row].nonzero()
        name = "" if batch.index is None else f" {int(batch.index[row])}"
        if not len(scored):
            raise DataError(f"no token of text{name} is scored: there is nothing to write")
        size, length = int(scored[0]) + 1, int(real[row].sum())
        if size == 1:
            size = max(1, min(prompt_tokens, length))
        prompt = ids[row, :size].cpu()
        if context is not None and size > context:
            if not cut:
                raise DataError(
                    f"the prompt of text{name} has {size} tokens, and a model here reads "
                    f"{context}; drop such texts, or let prompts lose their beginning (cut=True)"
                )
            prompt = prompt[-context:]
        found.append(prompt)
    return found


def batch_of(
    texts: Sequence[Written], *, like: Batch, padding: int = 0, device: torch.device | None = None
) -> Batch:
    """Written texts as a batch: scored from the first written token to the last, padded right."""
    sizes = [len(t.tokens) for t in texts]
    tokens = torch.full((len(texts), max(sizes)), padding, dtype=torch.long)
    real = torch.zeros(len(texts), max(sizes), dtype=torch.bool)
    scored = torch.zeros_like(real)
    for row, (text, size) in enumerate(zip(texts, sizes, strict=True)):
        tokens[row, :size] = text.tokens
        real[row, :size] = True
        scored[row, text.prompt : size] = True
    mask = scored[:, 1:]
    index = [marked(torch.tensor(t.sample), t.author) for t in texts]
    made = replace(
        like,
        inputs={
            "input_ids": tokens[:, :-1].where(real[:, 1:], padding),
            "attention_mask": real[:, 1:].long(),
        },
        labels=torch.where(mask, tokens[:, 1:], IGNORE),
        mask=mask,
        weights=None,
        index=torch.stack(index),
    )
    return made if device is None else made.to(device)


def beside(first: Batch, second: Batch, *, padding: int = 0) -> Batch:
    """Two batches of texts as one, padded to the longer."""
    width = max(b.inputs["input_ids"].shape[1] for b in (first, second))

    def wide(t: Tensor, fill: int) -> Tensor:
        return torch.nn.functional.pad(t, (0, width - t.shape[1]), value=fill)

    fills = {"input_ids": padding, "attention_mask": 0}
    inputs = {
        k: torch.cat([wide(b.inputs[k], fill) for b in (first, second)])
        for k, fill in fills.items()
    }
    labels = torch.cat([wide(_given(b.labels), IGNORE) for b in (first, second)])
    mask = torch.cat([wide(_given(b.mask), 0) for b in (first, second)])
    index = torch.cat([_given(b.index) for b in (first, second)])
    weights = None
    if first.weights is not None or second.weights is not None:
        parts = [b.mask.float() if b.weights is None else b.weights for b in (first, second)]  # pyright: ignore[reportOptionalMemberAccess]
        weights = torch.cat([wide(w, 0) for w in parts])
    return replace(first, inputs=inputs, labels=labels, mask=mask, index=index, weights=weights)


def _given(t: Tensor | None) -> Tensor:
    if t is None:
        raise DataError("texts come with labels, a mask and sample numbers")
    return t
