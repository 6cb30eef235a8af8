"""Settings: a pair, its data and a budget; built-in ones by name, and a user's own (`own`)."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from understudy.errors import UserError, unknown
from understudy.evaluation import metric
from understudy.setting import Setting, Trained
from understudy.settings.images import cifar100_small, digits, digits_deep, digits_full, digits_vit
from understudy.settings.languages import (
    BASIC,
    BASIC_LEVELS,
    SHORT,
    STDLIB_STUDENTS,
    school,
    school_basic,
    stdlib_lm,
    stdlib_lm_teacher,
)
from understudy.settings.own_pair import READING, is_store, model_folder, own
from understudy.tasks.task import Task
from understudy.training.budget import Budget

__all__ = [
    "BASIC", "BASIC_LEVELS", "READING", "SETTINGS", "STDLIB_STUDENTS", "cifar100_small", "digits",
    "digits_deep", "digits_full", "digits_vit", "for_task", "is_store", "model_folder", "own",
    "school", "school_basic", "setting", "stdlib_lm", "stdlib_lm_teacher", "with_metric",
]  # fmt: skip

SETTINGS: dict[str, Callable[..., Setting]] = {
    "digits": digits,
    "digits-full": digits_full,
    "digits-deep": digits_deep,
    "digits-vit": digits_vit,
    "cifar100-small": cifar100_small,
    "school": school,
    "school-short": partial(school, count=SHORT),
    "school-basic": school_basic,
    "school-reader": partial(school_basic, base="reader"),
    "school-middle": partial(school, size="middle"),
    "school-large": partial(school, size="large"),
    "stdlib-lm": stdlib_lm,
    "stdlib-lm-small": partial(stdlib_lm, size="small"),
    "stdlib-lm-large": partial(stdlib_lm, size="large"),
    "stdlib-lm-teacher": stdlib_lm_teacher,
}


def setting(name: str, *, data_dir: str | None = None, **options: Any) -> Setting:
    """The built-in setting of that name; `data_dir` for those that read files."""
    if name not in SETTINGS:
        raise unknown("setting", name, SETTINGS)
    function = SETTINGS[name]
    if "data_dir" in inspect.signature(function).parameters:
        options["data_dir"] = data_dir
    return function(**options)


def for_task(name: str, *, data_dir: str | None = None, **options: Any) -> Setting:
    """A built-in setting by name, or a built-in task with a pair that fits its kind of input."""
    if name in SETTINGS:
        return setting(name, data_dir=data_dir, **options)
    from understudy.tasks import needs_data, task, tasks

    if name not in tasks():
        raise unknown("setting or task", name, {*SETTINGS, *tasks()})
    if needs_data(name) and data_dir is None:
        raise UserError(f"the task {name} reads files: give --data-dir, the folder that holds them")
    made = task(name, data_dir=data_dir, **options)
    teacher, student = _pair_for(made)
    return Setting(
        name=name,
        task=made,
        teachers={"teacher": Trained(model=teacher, budget=Budget(epochs=30, lr=3e-3))},
        student=student,
        budget=Budget(epochs=30, lr=3e-3),
        kind=made.kind,
        class_weights=made.class_weights,
        origin={"task": name, "data_dir": data_dir, **options},
    )


def _pair_for(task: Any) -> tuple[str, str]:
    if "vocabulary" in task.model:
        return "text:width=128,depth=2", "text:width=32,depth=0"
    if task.model.get("image_size", 0) >= 16:
        return "resnet20", "resnet8:width=8"
    if "image_size" in task.model:
        return "cnn:width=32,depth=3", "cnn:width=8,depth=3"
    return "mlp:width=256,depth=2", "mlp:width=16,depth=1"


def with_metric(setting: Setting, name: str) -> Setting:
    """The setting judged by another headline metric."""
    chosen = metric(name)
    if setting.kind not in chosen.kinds:
        raise UserError(
            f"{name} is no metric for {setting.kind} tasks; it is for {', '.join(chosen.kinds)}"
        )
    if isinstance(setting.task, Task):
        return replace(setting, task=replace(setting.task, metric=name))
    made = setting.task
    return replace(setting, task=partial(_with_metric, made, name))


def _with_metric(made: Callable[[int], Task], name: str, split: int) -> Task:
    return replace(made(split), metric=name)
