"""Language tasks: texts, and how a model that predicts them is judged."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from understudy.data import Texts
from understudy.errors import DataError, SignalError
from understudy.evaluation.language import token_scores
from understudy.objectives import Needs
from understudy.signals import Batch, Call, Signals
from understudy.signals.generation import speaking
from understudy.tasks.task import Task
from understudy.teachers import Teacher

Answers = Callable[[nn.Module, Task, str], dict[str, float]]
"""`answers(model, task, part)`: lets the model write, and measures what it wrote."""


@dataclass(frozen=True, kw_only=True)
class LanguageJudge:
    """Perplexity and bits a byte; with a teacher KL, agreement and acceptance; and `answers`.

    answers: measures of what the model writes by itself, such as exact match; they are part of
    validation where the headline metric is one of them.
    """

    answers: Answers | None = None
    batch_size: int = 32

    def validate(self, model: nn.Module, task: Task, call: Call) -> dict[str, float]:
        """The model's own measures on the validation texts."""
        with speaking(model):
            found = self._scores(model, task, "validate", call, None)
            if self.answers is not None and task.metric not in found:
                found |= self.answers(model, task, "validate")
        return found

    def measures(
        self, model: nn.Module, task: Task, part: str, call: Call, teacher: Teacher | None
    ) -> dict[str, float]:
        """All measures on a part; those against the teacher where it says the same vocabulary."""
        with speaking(model):
            found = self._scores(model, task, part, call, teacher)
            if self.answers is not None:
                found |= self.answers(model, task, part)
        return found

    def _scores(
        self, model: nn.Module, task: Task, part: str, call: Call, teacher: Teacher | None
    ) -> dict[str, float]:
        source = getattr(task, part)
        if not isinstance(source, Texts):
            raise DataError(f"{part} of {task.name} holds no texts, and language models read those")
        device = next(model.parameters()).device

        def say(batch: Batch) -> Signals:
            said = call(model, batch.to(device))
            return said if isinstance(said, Signals) else Signals(logits=said)

        hear = None
        if teacher is not None and teacher.modules():
            voice = copy.copy(teacher)
            example = source.batch(torch.arange(1)).to(device)
            try:
                voice.prepare(Needs(), example)
                if voice.signals(example).logits is None:
                    voice = None
            except SignalError:
                voice = None  # it reads other tokens: nothing to compare one by one
            if voice is not None:
                hear = lambda batch: voice.signals(batch.to(device))  # noqa: E731
        # batches hold as many tokens whatever the texts' length
        longest = int(source.lengths.max())
        size = max(1, min(self.batch_size * 4, 8192 // longest))
        return token_scores(say, source, hear, batch_size=size).measures()


def language_task(
    name: str,
    *,
    train: Texts,
    validate: Texts,
    test: Texts | None = None,
    vocabulary: int,
    length: int,
    tokenizer: Any = None,
    metric: str = "perplexity",
    metrics: tuple[str, ...] = (),
    answers: Answers | None = None,
    teach: Texts | None = None,
    extras: Mapping[str, Any] | None = None,
) -> Task:
    """A task of kind `language`: texts of one tokenizer, judged token by token and by `answers`.

    vocabulary: token ids there are; length: tokens that a model must be able to read.
    """
    return Task(
        name=name,
        kind="language",
        classes=vocabulary,
        train=train,
        validate=validate,
        test=test,
        teach=teach,
        metric=metric,
        metrics=metrics,
        model={"vocabulary": vocabulary, "length": length},
        judge=LanguageJudge(answers=answers),
        extras={"tokenizer": tokenizer, **(extras or {})},
    )
