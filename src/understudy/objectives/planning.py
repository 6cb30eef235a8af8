"""One walk over a head for all terms of a loss that read the same factored logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from understudy.errors import SignalError
from understudy.objectives import chunks
from understudy.objectives.base import Objective, Sum, active
from understudy.signals import Batch, Factored, Signals

if TYPE_CHECKING:
    from understudy.objectives.vocabulary import Vocabulary


def one_pass(
    terms: list[tuple[float, Vocabulary]], student: Signals, teacher: Signals, batch: Batch
) -> list[Sum] | None:
    """The sums of several vocabulary terms; None where they have to be taken one by one.

    They share a walk where the student's logits are factored and all terms count the same
    positions. The weights tell in which proportion the gradients are summed on the way; a term
    whose gradient is asked for in another proportion (alone, by a probe) has it made anew, so that
    each sum is as exact as by itself.
    """
    if not isinstance(student.logits, Factored) or not _alike(terms, batch):
        return None
    labelled = next((o for _, o in terms if o.needs.labels), terms[0][1])
    found = packed(labelled, student, teacher.detach(), batch)
    if found is None or not isinstance(found[0].logits, Factored):
        return None
    student, teacher, batch, count, share = found
    if any(o.needs.logits for _, o in terms):
        teacher = chunks.trimmed(teacher, len(found[0].logits.weight))
    parts = [
        replace(part, factor=part.factor * share, share=weight)
        for weight, part in ((w, o.part(found[0].logits, teacher, batch)) for w, o in terms)
    ]
    return [Sum(total, count) for total in chunks.totals(found[0].logits, parts).unbind()]


def _alike(terms: list[tuple[float, Vocabulary]], batch: Batch) -> bool:
    """Whether all terms count the same positions."""
    first, *others = [active(objective, batch) for _, objective in terms]
    return all(rows.shape == first.shape and torch.equal(rows, first) for rows in others)


def packed(
    objective: Objective, student: Signals, teacher: Signals, batch: Batch
) -> tuple[Signals, Signals, Batch, Tensor, float] | None:
    """(student, teacher, batch, count, share) at the active positions, all with one dimension.

    The batch keeps labels and weights. Without a mask positions all count alike, and their mean is
    the sample's value: share = 1 / positions. None where nothing counts.
    """
    rows = active(objective, batch)
    count = rows.sum().float()
    if not bool(rows.any()):
        return None
    if student.logits is None:
        raise SignalError("the student gives no logits, and the objective needs them")
    shown = student.logits.hidden if isinstance(student.logits, Factored) else student.dense
    shape = shown.shape[:-1]
    if shape[: rows.ndim] != rows.shape:
        raise SignalError(
            f"the student's logits stand at {list(shape)}, the mask or labels at {list(rows.shape)}"
        )
    share = shape[rows.ndim :].numel()
    if rows.shape != shape:
        rows = rows.view(*rows.shape, *[1] * (len(shape) - rows.ndim)).expand(shape)
    rows = rows.to(shown.device)

    def spread(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        return t.view(*t.shape, *[1] * (rows.ndim - t.ndim)).expand(shape)[rows]

    batch = replace(batch, labels=spread(batch.labels) if objective.needs.labels else None,
                    weights=spread(batch.weights), index=spread(batch.index), mask=None)  # fmt: skip
    return student.rows(rows), teacher.rows(rows), batch, count, 1 / share
