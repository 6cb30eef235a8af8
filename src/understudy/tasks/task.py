"""A task: data, metric and what the models must fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.data import Source, ViewFunction
from understudy.signals import Batch, Call, default_call
from understudy.tasks.judge import Judge

Kind = Literal["single", "multi", "regression", "language"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be learned, and how it is judged.

    train:     what the student learns from; samples without a label (`IGNORE`) are transfer data
    validate:  steers (early stopping, best epoch, tuning); test: judges, and steers nothing
    teach:     what a teacher built for the task may learn from (all labels); default `train`
    model:     keyword arguments that every model family needs to fit (classes, in_channels, ...)
    metric:    name of the headline metric (`evaluation.METRICS`)
    judge:     measures models where logits and labels of single samples do not (kind `language`)
    """

    name: str
    kind: Kind = "single"
    classes: int
    train: Source
    validate: Source
    test: Source | None = None
    teach: Source | None = None
    metric: str = "accuracy"
    metrics: tuple[str, ...] = ()
    view: ViewFunction | None = None
    labels: tuple[str, ...] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    call: Call = default_call
    class_weights: Tensor | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    judge: Judge | None = None

    def example(self, size: int = 2) -> Batch:
        """The first samples of the validation data."""
        return self.validate.batch(torch.arange(min(size, len(self.validate))))
