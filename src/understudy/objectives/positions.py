"""Values of single positions of a text, in chunks where logits are large, and of sequences of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from understudy.errors import SignalError
from understudy.objectives.base import Objective, active
from understudy.signals import Batch, Factored, Signals, Sparse

CHUNK_BYTES = 32 * 2**20
"""Single-precision logits of one model that are held at once."""

Values = Callable[..., tuple[Tensor, ...]]
"""(log q [n, V], log p [n, V], labels [n], more [n] ...) -> tensors [n]."""


def per_position(
    values: Values, student: Signals, teacher: Signals, labels: Tensor, *more: Tensor
) -> tuple[Tensor, ...]:
    """`values` at packed positions, of log-probabilities over the classes that both models have.

    Dense logits [n, V] are taken at once. Of factored ones no more than a chunk is held: it is made
    again in the backward pass. Gradients reach hidden states, head and bias of the student.
    """
    if isinstance(teacher.logits, Sparse):
        raise SignalError(
            "this objective reads the teacher's log-probability of any token, and a sparse signal "
            "has some of them; use the live teacher, or a store of all"
        )

    def at(z: Tensor, rows: slice) -> tuple[Tensor, ...]:
        y = teacher.rows(rows).dense.detach()
        shared = min(z.shape[-1], y.shape[-1])  # families pad their vocabularies
        log_q = z[..., :shared].log_softmax(-1)
        log_p = y[..., :shared].log_softmax(-1).to(log_q.device)
        return values(log_q, log_p, labels[rows], *(m[rows] for m in more))

    said = student.logits
    if not isinstance(said, Factored):
        return at(student.dense, slice(None))
    count, rows = len(labels), max(1, CHUNK_BYTES // (4 * len(said.weight)))

    def chunk(hidden: Tensor, weight: Tensor, bias: Tensor | None, part: slice) -> Any:
        own = Factored(
            hidden=hidden, weight=weight, bias=bias, scale=said.scale, softcap=said.softcap
        )
        return at(Signals(logits=own).dense, part)

    if count <= rows:
        return chunk(said.hidden, said.weight, said.bias, slice(None))
    found: Sequence[tuple[Tensor, ...]] = [
        checkpoint(chunk, said.hidden[part], said.weight, said.bias, part, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
        for start in range(0, count, rows)
        for part in (slice(start, start + rows),)
    ]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


class Rows:
    """Where packed positions stand in their texts: [N, L], and which of them count."""

    def __init__(self, objective: Objective, batch: Batch, student: Signals) -> None:
        said = student.logits
        shape = said.hidden.shape[:-1] if isinstance(said, Factored) else student.dense.shape[:-1]
        rows = active(objective, batch)
        rows = rows.view(*rows.shape, *[1] * (len(shape) - rows.ndim)).expand(shape)
        self.mask = rows[:, None] if rows.ndim == 1 else rows.flatten(0, -2)
        self.mask = self.mask.to(said.hidden.device if isinstance(said, Factored) else said.device)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    def spread(self, values: Tensor) -> Tensor:
        """[N, L] of values [n] at the positions that count, zero elsewhere."""
        found = torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device)
        found[self.mask] = values
        return found

    def pick(self, grid: Tensor) -> Tensor:
        """[n] of the positions that count."""
        return grid[self.mask]

    def to_go(self, values: Tensor, discount: float) -> Tensor:
        """[n] of sum_{k >= 0} discount^k v_{t+k} over the rest of the text."""
        if not discount:
            return values
        grid, tail = self.spread(values), torch.zeros(len(self.mask), device=values.device)
        found = torch.zeros_like(grid)
        tail = tail.to(values.dtype)
        for t in range(grid.shape[1] - 1, -1, -1):
            here = self.mask[:, t]
            tail = torch.where(here, grid[:, t] + discount * tail, tail)
            found[:, t] = tail
        return self.pick(found)

    def later(self, values: Tensor, *, mean: bool) -> Tensor:
        """[n] of the sum (or mean) of the values after each position; zero after the last."""
        grid, ones = self.spread(values), self.mask.to(values.dtype)
        after = grid.flip(1).cumsum(1).flip(1) - grid
        if mean:
            after = after / (ones.flip(1).cumsum(1).flip(1) - ones).clamp_min(1)
        return self.pick(after)

    def means(self, values: Tensor) -> Tensor:
        """[N] means over each text; zero where nothing counts."""
        return self.spread(values).sum(1) / self.mask.sum(1).clamp_min(1)

    def each(self, values: Tensor) -> Tensor:
        """[n] of a value [N] of each text."""
        return self.pick(values[:, None].expand(self.mask.shape))
