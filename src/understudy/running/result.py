"""What a play came to, and the measures it is judged by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from understudy.evaluation import evaluate, fidelity
from understudy.signals import Batch
from understudy.tasks.task import Task


@dataclass
class Result:
    """What one trained seed of a recipe came to.

    last, best: measures on the judged split (test, else validation) of the last epoch's weights
    and of those best on validation. tokens: scored ones that it learned from, where the data counts
    them. model holds the last weights, `best_state` the others.
    writing_seconds is the time in which texts were written that are learned from (`data.on_policy`).
    Of a recipe with a study, `extras` is what the study returned, `last` and `best` its figure's
    numbers, and the model is empty.
    """

    name: str
    seed: int
    last: dict[str, float]
    best: dict[str, float]
    best_epoch: int | None
    validate: dict[str, float]
    seconds: float
    teacher_seconds: float
    steps: int
    model: nn.Module
    best_state: Mapping[str, Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    writing_seconds: float = 0.0
    tokens: int = 0

    def row(self) -> dict[str, Any]:
        """As it stands in `summary.json`."""
        keep = (
            "seed",
            "last",
            "best",
            "best_epoch",
            "validate",
            "seconds",
            "teacher_seconds",
            "writing_seconds",
            "steps",
        )
        row = {k: getattr(self, k) for k in keep}
        if self.tokens:
            row["tokens"] = self.tokens
        return {**row, "step_ms": 1e3 * self.seconds / max(self.steps, 1), **self.extras}


def measures(
    task: Task, said: Tensor, labels: Tensor | None, heard: Tensor | None
) -> dict[str, float]:
    """A table's row from predictions; without labels, only what compares with the teacher."""
    if labels is not None and bool(Batch(inputs=labels, labels=labels).labelled.any()):
        names = tuple(dict.fromkeys((task.metric, *task.metrics)))
        return evaluate(said, labels, heard, kind=task.kind, metrics=names)
    if heard is None:
        return {}
    if task.kind == "regression":
        return {"teacher_mse": fidelity.teacher_mse(said, heard)}
    return {
        "agreement": fidelity.agreement(said, heard, kind=task.kind),
        "kl": fidelity.kl(said, heard, kind=task.kind),
    }
