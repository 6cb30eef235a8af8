"""Built-in tasks by name."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy import errors
from understudy.tasks.digits import digits
from understudy.tasks.published import banking77, cifar100, mnist, sst2, trec
from understudy.tasks.school.world import school
from understudy.tasks.stdlib import stdlib_text
from understudy.tasks.stdlib_lm import stdlib_lm
from understudy.tasks.tables import breast_cancer, diabetes, wine
from understudy.tasks.task import Task


def digits_full(*, split: int = 0, seed: int = 0, augment: bool = False) -> Task:
    """`digits` with all 997 training labels for the student too."""
    return digits(split=split, labels="all", seed=seed, augment=augment)


_TASKS: dict[str, Callable[..., Task]] = {
    "digits": digits,
    "digits-full": digits_full,
    "wine": wine,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "stdlib-text": stdlib_text,
    "stdlib-lm": stdlib_lm,
    "school": school,
    "cifar100": cifar100,
    "mnist": mnist,
    "sst2": sst2,
    "trec": trec,
    "banking77": banking77,
}


def tasks() -> dict[str, Callable[..., Task]]:
    """Every built-in task by name: a function of keyword options, its docstring the card."""
    return dict(_TASKS)


def needs_data(name: str) -> bool:
    """Whether the task reads a folder that the user names (`data_dir`)."""
    return "data_dir" in inspect.signature(_find(name)).parameters


def task(name: str, *, data_dir: str | Path | None = None, **options: Any) -> Task:
    """The task of that name. `data_dir` is the folder that holds the published data sets.

    An unknown name or option raises `UnknownName` with the nearest; a published task without a
    `data_dir` a `DataError`.
    """
    make = _find(name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise errors.unknown(f"option of task {name!r}", option, known)
    if "data_dir" in known:
        if data_dir is None:
            raise errors.DataError(
                f"task {name!r} reads data that is not part of the package; name the folder that "
                f"holds {name}/ with --data-dir (data_dir=)"
            )
        options["data_dir"] = data_dir
    return make(**options)


def _find(name: str) -> Callable[..., Task]:
    if name not in _TASKS:
        raise errors.unknown("task", name, _TASKS)
    return _TASKS[name]
