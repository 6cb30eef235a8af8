"""Judge: how a task whose answers are no single class measures a student."""

from typing import TYPE_CHECKING, Protocol

from torch import nn

from understudy.signals import Call
from understudy.teachers import Teacher

if TYPE_CHECKING:
    from understudy.tasks.task import Task


class Judge(Protocol):
    """Measures of a model on a part of its task; carried by tasks of kind `language`.

    Numbers are in natural units (nats, shares of 1); the headline metric is among them.
    """

    def validate(self, model: nn.Module, task: "Task", call: Call) -> dict[str, float]:
        """What steers (the task's metric at least), on the validation data; cheap."""
        ...

    def measures(
        self, model: nn.Module, task: "Task", part: str, call: Call, teacher: Teacher | None
    ) -> dict[str, float]:
        """All that a table shows, on `task.PART`; with a teacher how near the student is to it."""
        ...
