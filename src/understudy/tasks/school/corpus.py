"""The world as token sequences: what a language model learns from and is measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.tasks.school.rows import Split
from understudy.tasks.school.text import MIX, Ability, Example, examples
from understudy.tasks.school.tokens import encode

EOS_ID, PAD_ID = 1, 0
LENGTH = 192
"""Tokens that every model of this world reads at least."""

_SEED = 10**7
"""Sample numbers that belong to one seed."""


def texts(
    made: Sequence[Example],
    *,
    prompt_weight: float = 0.0,
    seed: int = 0,
    name: str = "school",
) -> Texts:
    """Examples as `Texts`: each ends in `<eos>`, and its completion is scored.

    prompt_weight: the loss weight of a prompt's tokens; above 0 they are scored too, so that a
    model also learns how questions are put. seed: of the examples; no two share a number.
    """
    asked = encode([e.prompt for e in made])
    said = encode([e.completion for e in made])
    tokens = [p + c + [EOS_ID] for p, c in zip(asked, said, strict=True)]
    prompt = prompt_weight > 0
    return Texts(
        tokens,
        [[prompt] * len(p) + [True] * (len(c) + 1) for p, c in zip(asked, said, strict=True)],
        weights=[
            [prompt_weight] * len(p) + [1.0] * (len(c) + 1)
            for p, c in zip(asked, said, strict=True)
        ]
        if prompt
        else None,
        ids=[seed * _SEED + place for place in range(len(made))],
        bytes=[len((e.prompt if prompt else "") + e.completion) for e in made],
        padding=PAD_ID,
        max_length=LENGTH,
        name=name,
    )


def corpus(
    count: int,
    seed: int = 0,
    *,
    split: Split = "train",
    mix: Mapping[Ability, float] = MIX,
    weights: Mapping[str, float] | None = None,
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
    prompt_weight: float = 0.0,
) -> Texts:
    """`count` examples of a split as `Texts`; `skills`: only these."""
    made = examples(
        count, seed, split=split, mix=mix, weights=weights, skills=skills, difficulty=difficulty
    )
    return texts(made, prompt_weight=prompt_weight, seed=seed, name=f"school {split}")


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Batches of about as many tokens each, of texts of like length: little padding.

    lengths: [N] tokens of each text; tokens: at most so many in a batch, padding included. Which
    texts meet is drawn anew each epoch: a pure function of (seed, epoch).
    """

    lengths: Tensor
    tokens: int = 4000
    seed: int = 0
    pool: int = 4096

    def batches(self, epoch: int) -> list[Tensor]:
        """The index [n] of each batch of this epoch, in order."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        made: list[Tensor] = []
        for part in order.split(self.pool):
            part = part[self.lengths[part].argsort(stable=True)]
            start, sizes = 0, self.lengths[part].tolist()
            for end in range(1, len(part) + 1):
                full = end == len(part) or (end + 1 - start) * sizes[end] > self.tokens
                if full:
                    made.append(part[start:end])
                    start = end
        shuffled = torch.randperm(len(made), generator=generator).tolist()
        return [made[i] for i in shuffled]
