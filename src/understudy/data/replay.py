"""Texts that were written earlier, to be learned from again."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.data.written import Written
from understudy.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How much of what was written is read again. Source: DistiLLM, arXiv 2402.03898, Algorithm 1.

    capacity: texts kept, the oldest dropped first; until it is full, all on-policy batches are
    written anew (as in the authors' code). fresh: share of the on-policy batches that is written
    anew after that, `decreasing` for 1 - t / T. adaptive: whether the share of on-policy batches
    rises by `rise` (to 1 at most) whenever the loss on the validation texts, taken at the start of
    each epoch, exceeds the one before by `tolerance` nats a token. Against: `previous`, the last
    one, as Algorithm 1 has it; `raised`, that at the last rise, as the authors' code has it.
    """

    capacity: int = 1000
    fresh: float | str = "decreasing"
    adaptive: bool = True
    rise: float = 0.1
    tolerance: float = 0.1
    against: str = "previous"

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise UserError(f"a replay buffer holds at least one text, not {self.capacity}")
        if isinstance(self.fresh, str):
            if self.fresh != "decreasing":
                raise UserError(f"fresh is a share or 'decreasing', not {self.fresh!r}")
        elif not 0 <= self.fresh <= 1:
            raise UserError(f"the share written anew lies in [0, 1], not {self.fresh}")
        if self.against not in ("previous", "raised"):
            raise UserError(f"against is 'previous' or 'raised', not {self.against!r}")

    def anew(self, progress: float) -> float:
        """Share of the on-policy batches that is written anew."""
        return 1 - progress if isinstance(self.fresh, str) else self.fresh


class Buffer:
    """The last `capacity` texts; the oldest goes first."""

    def __init__(self, capacity: int) -> None:
        self.texts: deque[Written] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def full(self) -> bool:
        """Whether a new text drives out an old one."""
        return len(self.texts) == self.texts.maxlen

    def add(self, texts: Sequence[Written]) -> None:
        """Keep these, the last ones longest."""
        self.texts.extend(texts)

    def draw(self, count: int, generator: torch.Generator) -> list[Written]:
        """`count` different texts (all, where there are fewer), each as likely."""
        order = torch.randperm(len(self.texts), generator=generator)[:count]
        return [self.texts[int(i)] for i in order]

    def state_dict(self) -> dict[str, Any]:
        """All texts, as few tensors."""
        return packed(list(self.texts))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back."""
        self.texts.clear()
        self.texts.extend(unpacked(state))


def packed(texts: Sequence[Written]) -> dict[str, Tensor]:
    """Texts as tensors: their tokens one after another, and a row of numbers each."""
    rows = [[len(t.tokens), t.prompt, t.sample, t.author] for t in texts]
    tokens = [t.tokens for t in texts] or [torch.zeros(0, dtype=torch.long)]
    return {
        "tokens": torch.cat(tokens),
        "rows": torch.tensor(rows, dtype=torch.long).reshape(-1, 4),
    }


def unpacked(state: dict[str, Any]) -> list[Written]:
    """The inverse of `packed`."""
    rows = state["rows"].tolist()
    parts = state["tokens"].split([r[0] for r in rows]) if rows else []
    return [
        Written(tokens=part.clone(), prompt=prompt, sample=sample, author=author)
        for part, (_, prompt, sample, author) in zip(parts, rows, strict=True)
    ]
