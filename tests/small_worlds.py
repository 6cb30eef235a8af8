"""Settings cut down to what a smoke run needs, and exact comparisons of what came out."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy.data import Subset
from understudy.setting import Setting, Trained
from understudy.tasks.language import LanguageJudge
from understudy.tasks.task import Task
from understudy.training import checkpoint, events


def small(
    setting: Setting, *, samples: int = 64, epochs: int = 8, teacher_steps: int = 40, **budget: Any
) -> Setting:
    """A setting with few samples in batches of 32, and teachers trained for a moment."""
    teachers = {
        name: replace(
            spec, budget=replace(spec.budget, steps=teacher_steps, batch_size=32, validate_every=8)
        )
        if isinstance(spec, Trained)
        else spec
        for name, spec in setting.teachers.items()
    }
    if setting.name.startswith("school"):  # made by rule: as few as are asked for
        setting = replace(setting, task=partial(setting.task, count=256, judged=24))
    size = 32
    if setting.kind == "language":  # a text is many positions
        samples, size = samples // 4, 8
    short = {"epochs": epochs, "steps": None, "batch_size": size, "schedule": "constant", **budget}
    return replace(
        setting,
        task=partial(small_task, task=setting.task, samples=samples),
        teachers=teachers,
        budget=replace(setting.budget, **short),
    )


def small_task(split: int, *, task: Any, samples: int) -> Task:
    """A task with few samples in each part; a quarter of its training data has labels."""
    whole: Task = task if isinstance(task, Task) else task(split)
    if whole.kind == "language":  # what models write is judged in the tests of their worlds
        whole = replace(whole, metric="perplexity", judge=LanguageJudge())
        whole = replace(whole, validate=few(whole.validate, 12), test=few(whole.test, 12))
    return replace(
        whole,
        train=few(whole.train, samples, labelled=samples // 4),
        validate=few(whole.validate, 48),
        test=few(whole.test, 48),
        teach=few(whole.teach, 256),
    )


def few(source: Any, count: int, labelled: int | None = None) -> Any:
    """About `count` samples from all over a source, `labelled` of them with labels."""
    if source is None or len(source) <= count:
        return source
    known = source.labelled
    if labelled is None or bool(known.all()) or not bool(known.any()):
        rows = _spread(torch.arange(len(source)), count)
    else:
        parts = ((known, labelled), (~known, count - labelled))
        rows = torch.cat([_spread(which.nonzero().flatten(), n) for which, n in parts])
    return source.subset(rows) if hasattr(source, "subset") else Subset(source, rows)


def _spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]


def weights(folder: Path, name: str, seed: int = 0) -> dict[str, Any]:
    """All models of a finished play, and the weights that were best on validation."""
    state, _ = checkpoint.load(Path(folder) / name / f"seed-{seed}" / "final")
    return {**state.get("models", {}), "best": state.get("best_state", {})}


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of tensors that are not bit-equal."""
    assert a.keys() == b.keys()
    assert all(a[m].keys() == b[m].keys() for m in a)
    return [f"{m}.{k}" for m in a for k in a[m] if not torch.equal(a[m][k], b[m][k])]


def timeless(log: Path) -> list[dict[str, Any]]:
    """The events of a log without the time."""
    return [{k: v for k, v in e.items() if k != "time"} for e in events.read(log)]
