"""How the recipes of labels, and `understudy label`, make a student of labelled texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.objectives import kd
from understudy.running import Result
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.students import load_model
from understudy.tasks.task import Task
from understudy.teachers.told import Told
from understudy.training.budget import Budget
from understudy.training.predict import predict

WORDS = "text:width=64,depth=0"
"""The student that needs no download: a bag of embeddings of the texts' own words."""

SMALL = Budget(steps=400, batch_size=32, lr=1e-2, weight_decay=1e-4, validate_steps=50)
ENCODER = Budget(epochs=4, batch_size=16, lr=5e-5, weight_decay=0.01, warmup=0.1, schedule="linear")


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """What learns: the model, the tokenizer it reads with (None: the texts' words), its budget."""

    model: ModelSpec
    tokenizer: Any = None
    budget: Budget = SMALL


def student_spec(name: str | Path = WORDS) -> StudentSpec:
    """A family of ours (`text:width=64,depth=2`), or the folder or hub name of an encoder.

    An encoder of Hugging Face gets a new head for the labels and is tuned whole.
    """
    from understudy.students.families import families

    if str(name).partition(":")[0] in families():
        return StudentSpec(model=str(name))
    model = partial(load_model, str(name), new_head=True, task="text-classification")
    return StudentSpec(model=model, tokenizer=str(name), budget=ENCODER)


def taught(
    studio: Any,
    seed: int,
    name: str,
    setting: Setting,
    task: Task,
    soft: Tensor | None = None,
) -> Result:
    """The setting's student trained on a task's labels; its weights are those best on validation.

    soft: probabilities [N, K] of the training samples in their order, matched in place of the labels
    (the forward KL divergence to them, whose gradient is that of the cross-entropy).
    """
    own = replace(setting, task=task, teachers={}, kind=task.kind)
    stage = Stage(name=name, objective=own.supervised(), teacher=None)
    if soft is not None:
        told: Any = Told(task.train.ids, soft)  # pyright: ignore[reportAttributeAccessIssue]
        own = replace(own, teachers={"told": told})
        stage = Stage(name=name, objective=1.0 * kd(temperature=1.0), teacher="told")
    result = studio.play(Recipe(name=name, setting=own, stages=(stage,)), seed)
    result.model.load_state_dict(result.best_state)
    return result


def said(model: torch.nn.Module, source: Any, call: Any = None) -> Tensor:
    """Probabilities [N, K] of a student over a source."""
    kept = {} if call is None else {"call": call}
    return predict(model, source, **kept)[0].softmax(-1)


def right(probabilities: Tensor, labels: Sequence[int] | Tensor) -> Tensor:
    """Which answers [N] are right, as 0 or 1."""
    return (probabilities.argmax(-1) == torch.as_tensor(labels)).double()
