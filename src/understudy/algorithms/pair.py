"""A student and what it learns from: one dry run fixes taps, shapes and connectors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import MethodRefused, SignalError
from understudy.objectives import Needs, Objective, Sum, Term, Total, total
from understudy.objectives.base import nothing
from understudy.signals import Batch, Call, Signals, Taps, as_call, observe, preserved
from understudy.teachers import Teacher


class Pair:
    """A student, a teacher (or none) and an objective between them.

    Making one runs both models once on the example, without gradients, in evaluation mode: tap
    paths are checked, connectors built. Mode, buffers and random state of both are left as found.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objective: Objective | Total | Callable[..., Any],
        example: Batch,
        *,
        call: Call | None = None,
        name: str = "student",
    ) -> None:
        self.student, self.teacher, self.name = student, teacher, name
        self.objective = total(objective)
        self.call = as_call(call)
        needs = self.taken(self.objective.needs)
        if teacher is None and (needs.teacher or _reads_teacher(self.objective)):
            raise MethodRefused(
                f"the objective {' + '.join(self.objective.names)} learns from a teacher, and "
                "there is none here"
            )
        self.taps = Taps(student, needs.student, example, self.call)
        if teacher is not None:
            teacher.prepare(needs, example)
        with preserved(student), torch.no_grad():
            student.eval()
            said = self.student_signals(example)
            heard = self.teacher_signals(example)
        if teacher is not None and needs.logits and _reads_teacher(self.objective):
            _same_classes(said, heard)
        device = next((p.device for p in student.parameters()), torch.device("cpu"))
        with torch.random.fork_rng(devices=[]):
            self.objective.build(said, heard, example)
        self.objective.to(device)

    def taken(self, needs: Needs) -> Needs:
        """What is recorded for what the objective reads; other where some of that is derived."""
        return needs

    def student_signals(self, batch: Batch) -> Signals:
        """What the student says, with the features that the objective reads."""
        return observe(self.student, batch, self.taps, self.call)

    def teacher_signals(self, batch: Batch) -> Signals:
        """What the teacher says; nothing where there is none."""
        if self.teacher is None or not _reads_teacher(self.objective):
            return Signals()
        return self.teacher.signals(batch)

    @torch.no_grad()
    def spoken(self, batch: Batch) -> Signals:
        """What the student says now, for others to learn from."""
        return self.student_signals(batch)

    def terms(self, batch: Batch) -> list[Term]:
        """Every term of the objective on this batch."""
        heard = self.teacher_signals(batch)
        said = self.student_signals(batch)
        terms = self.objective(said, heard, batch)
        if isinstance(self.student, nn.parallel.DistributedDataParallel) or _sharded(self.student):
            # they wait for the gradient of what the model returns; where no term reads it, it is 0
            total, count = terms[0].sum
            terms[0] = replace(terms[0], sum=Sum(total + nothing(said), count))
        return terms


def _reads_teacher(objective: Total) -> bool:
    """Whether any term reads a teacher (supervised ones do not)."""
    return any(o.needs.logits or o.needs.teacher for _, _, o in objective)


def _sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was applied (it changes the class)."""
    return hasattr(type(model), "set_requires_gradient_sync")


def _same_classes(student: Signals, teacher: Signals) -> None:
    if not isinstance(student.logits, Tensor) or not isinstance(teacher.logits, Tensor):
        return  # over a vocabulary: an objective says itself what it can compare
    try:
        a, b = student.dense.shape, teacher.dense.shape
    except SignalError:
        return
    if a[-1] != b[-1] or a[1:] != b[1:]:
        raise SignalError(
            f"the teacher's logits have {b[-1]} classes and the student's {a[-1]} "
            f"(shapes {list(b)} and {list(a)}); give the student the teacher's number of classes, "
            "or use an objective on features alone"
        )
