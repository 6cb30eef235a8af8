"""What a distillation came to, and how to get it back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.api.intake import kind_of, source_of
from understudy.data import Source, Texts
from understudy.errors import CheckpointError, UserError
from understudy.evaluation import default_metric
from understudy.objectives import Needs
from understudy.running import measures
from understudy.settings import model_folder
from understudy.signals import Call, CausalLM, Signals, as_batch, as_call
from understudy.students import load_model, load_student, read_config
from understudy.tasks.language import language_task
from understudy.tasks.task import Kind, Task
from understudy.teachers import as_teacher
from understudy.training.predict import collect, predict


class Run:
    """What a distillation came to. `folder` holds all of it, where one was named."""

    def __init__(
        self, summary: dict[str, Any], student: nn.Module, folder: Path | None, call: Call | None
    ) -> None:
        self.summary, self.student, self.folder = summary, student, folder
        self._call = as_call(call)

    def predict(self, inputs: Any) -> Tensor:
        """The student's logits for inputs: a batch, a tensor, or a whole source."""
        source = inputs if isinstance(inputs, Source) else None
        if source is None:
            batch = as_batch(inputs)
            device = next((p.device for p in self.student.parameters()), torch.device("cpu"))
            modes = [(m, m.training) for m in self.student.modules()]
            self.student.eval()
            try:
                with torch.no_grad():
                    said = self._call(self.student, batch.to(device))
            finally:
                for module, mode in modes:
                    module.training = mode
            return (said if isinstance(said, Signals) else Signals(logits=said)).dense
        return predict(self.student, source, call=self._call)[0]

    def table(self, width: int | None = None) -> str:
        """Teacher, student alone, plain KD, this: quality, fidelity, cost."""
        from understudy.reporting import render

        return render(self.summary, width=width)

    def report(self) -> Path:
        """Write `report.html` in the run folder; returns its path."""
        from understudy.reporting import report

        if self.folder is None:
            raise UserError("this run has no folder to write a report in; give out='runs/mine'")
        return report(self.folder)

    def __repr__(self) -> str:
        return f"Run({self.summary['title']!r}, folder={str(self.folder) if self.folder else None})"


def evaluate(
    model: nn.Module | str | Path,
    data: Any,
    *,
    teacher: Any = None,
    call: Call | None = None,
    kind: Kind | None = None,
    metric: str | None = None,
) -> dict[str, float]:
    """Quality, calibration and (with a teacher) fidelity of a model on data, by name.

    Texts (`understudy.data.Texts`) are judged token by token: perplexity, bits a byte, agreement.
    """
    source = source_of(data, "data")
    module = load(model) if isinstance(model, str | Path) else model
    if isinstance(source, Texts):
        return _judged(module, source, teacher, call)
    said, labels = predict(module, source, call=as_call(call))
    heard = None if teacher is None else _heard(as_teacher(teacher, call=call), source)
    kind = kind or kind_of(labels)
    chosen = metric or default_metric(kind).name
    task = Task(
        name="data", kind=kind, classes=said.shape[-1], train=source, validate=source, metric=chosen
    )
    return measures(task, said, labels, heard)


def _judged(module: nn.Module, texts: Texts, teacher: Any, call: Call | None) -> dict[str, float]:
    call = call or CausalLM()
    task = language_task(
        "data", train=texts, validate=texts, vocabulary=texts.vocabulary,
        length=int(texts.lengths.max()),
    )  # fmt: skip
    assert task.judge is not None
    heard = None if teacher is None else as_teacher(teacher, call=call)
    return task.judge.measures(module, task, "validate", as_call(call), heard)


def _heard(teacher: Any, source: Source) -> Tensor:
    teacher.prepare(Needs(), source.batch(torch.arange(1)))
    return collect(teacher.signals, source)[0]


def load(
    path: str | Path, *, factory: nn.Module | str | Callable[..., nn.Module] | None = None
) -> nn.Module:
    """The student of a run folder (or of its `student/`), ready to predict.

    factory: what makes the module, where it is of your own code: `file.py:function`, a function,
             or a module that takes the weights. A run folder names no code that loading would run.
    """
    folder = Path(model_folder(str(path)))
    if not folder.is_dir():
        raise CheckpointError(f"{path} is no run folder: it has no student/")
    config = read_config(folder)
    if "recipe" in config:
        raise CheckpointError(f"{path} has no student yet: finish the run with --resume")
    if isinstance(factory, nn.Module):
        return load_student(folder, into=factory).eval()
    return load_model(folder, factory=factory).eval()
