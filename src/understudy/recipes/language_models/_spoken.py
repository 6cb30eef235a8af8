"""Batches in which the student has completed the prompts itself."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from understudy.data.rewriting import continued, prompts_of, stop_tokens
from understudy.signals import Batch
from understudy.signals.generation import Sampling, generate


@dataclass
class OwnWords:
    """Replaces the completions of a batch by what `model` draws; `max_new` 0 for the longest one.

    The model is looked up when a batch is drawn: it learns meanwhile.
    """

    model: nn.Module
    stop: tuple[int, ...]
    temperature: float = 1.0
    max_new: int = 0

    def sampling(self, batch: Batch) -> Sampling:
        """How tokens are drawn for this batch."""
        assert batch.mask is not None
        longest = self.max_new or int(batch.mask.sum(-1).max())
        return Sampling(max_new=longest, temperature=self.temperature, stop=self.stop)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch in the model's own words."""
        prompts = prompts_of(batch)
        told = generate(self.model, prompts, self.sampling(batch), generator=generator)
        return continued(batch, prompts, told)


def own_words(play: Any, *, temperature: float, max_new: int) -> OwnWords:
    """The play's student completes the prompts of its training texts."""
    name = play.recipe.stages[play.stage].learners[0]
    stop = stop_tokens(play.task.train)
    return OwnWords(play.models[name], stop, temperature=temperature, max_new=max_new)
