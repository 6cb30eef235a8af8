"""`report.html`: one self-contained file about a run, from what its folder holds."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.errors import CheckpointError
from understudy.evaluation import agreement_matrix, losses_per_class, reliability
from understudy.files import write_text
from understudy.reporting import figures, words
from understudy.reporting import summary as s
from understudy.reporting.columns import columns
from understudy.reporting.curves import learning_curves
from understudy.reporting.examples import differences, read_examples
from understudy.reporting.table import notes
from understudy.training import events as log


def report(run_folder: Path | str, examples: Mapping[int, Any] | None = None) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    Shown is what the folder holds: without predictions, events or a second arm the parts that need
    them are left out. `examples`: inputs by sample id (image tensors, texts, vectors), for the
    samples on which student and teacher differ; default, what `save_examples` kept in the folder.
    The file loads nothing from outside and runs no script; all text in it is escaped.

    Raises:
        CheckpointError: no finished run, or a file in it that cannot be read.
    """
    folder = Path(run_folder)
    summary = s.read_summary(folder)
    if "label" in summary:
        from understudy.reporting.labels import write_label_report

        return write_label_report(folder)
    inputs = read_examples(folder) if examples is None else examples
    path = folder / "report.html"
    write_text(
        path,
        html(
            summary,
            _events(folder),
            _predictions(folder),
            inputs,
            s.read_json(folder / "config.json"),
            (s.read_json(folder / "written.json") or {}).get("texts", []),
        ),
    )
    return path


def html(
    summary: s.Summary,
    events: list[dict[str, Any]],
    said: Mapping[str, Tensor],
    inputs: Mapping[int, Any],
    config: Any = None,
    written: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page itself. `said`: the tensors of predictions.safetensors; `written`: of written.json."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    chosen = s.shown(summary)
    student = (
        chosen["name"]
        if chosen and f"student/{chosen['name']}" in said
        else next((k.removeprefix("student/") for k in said if k.startswith("student/")), None)
    )
    names = class_names(summary, said)
    parts = _figures(summary, events, said, student, names)
    differ = []
    if student and "teacher" in said and summary["task"].get("kind", "single") == "single":
        differ = differences(said, student, names, inputs)
    source = (resources("understudy.reporting") / "report.html.jinja").read_text(encoding="utf-8")
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    arm = s.arm_named(summary, student) if student else None
    kept = columns(summary)
    return page.render(
        title=str(summary.get("title") or "a run"),
        headline=words.headline(summary),
        columns=[(" ".join(filter(None, c.header)), c.header, c.align) for c in kept],
        rows=[
            {
                "cells": [c.text(a) for c in kept],
                "role": a.get("role", ""),
                "shown": chosen is not None and a["name"] == chosen["name"],
                "color": figures.colors(summary).get(a["name"], ""),
            }
            for a in s.arms(summary)
        ],
        notes=notes(summary),
        figures={k: Markup(v) for k, v in parts.items() if v},
        differences=differ,
        differ_count=_differ_count(said, student),
        confused=_confused(said, student, names) if "matrix" in parts and len(names) > 16 else [],
        student=s.title(arm) if arm else student or "student",
        written=[
            {
                "prompt": w["prompt"],
                "data": w["data"],
                "said": [(_named(summary, arm), text) for arm, text in w["said"].items()],
            }
            for w in written
        ],
        config=None if config is None else json.dumps(config, indent=2, ensure_ascii=False),
        versions=dict(summary.get("versions") or {}),
        command=str(summary.get("command") or ""),
        task=dict(summary["task"]),
        seconds=words.duration(s.number(summary.get("seconds"))),
    )


def class_names(summary: s.Summary, said: Mapping[str, Tensor]) -> list[str]:
    """The labels' names, or the numbers of the classes."""
    labels = summary["task"].get("labels")
    if labels:
        return [str(name) for name in labels]
    logits = next((v for k, v in said.items() if k not in ("labels", "index")), None)
    wide = logits.shape[-1] if logits is not None and logits.ndim > 1 else 2
    return [str(k) for k in range(max(wide, int(summary["task"].get("classes") or 0)))]


def _figures(
    summary: s.Summary,
    events: list[dict[str, Any]],
    said: Mapping[str, Tensor],
    student: str | None,
    names: list[str],
) -> dict[str, str | None]:
    kind = summary["task"].get("kind", "single")
    found: dict[str, str | None] = {
        "curves": learning_curves(summary, events),
        "cost": figures.cost_quality(summary),
    }
    teacher, labels = said.get("teacher"), said.get("labels")
    students = {k.removeprefix("student/"): v for k, v in said.items() if k.startswith("student/")}
    if kind in ("single", "multi") and labels is not None and bool((labels != -100).any()):
        everyone = ({} if teacher is None else {_teacher(summary): teacher}) | students
        if everyone:
            found["calibration"] = figures.calibration(
                summary, {arm: reliability(z, labels, kind) for arm, z in everyone.items()}
            )
    if teacher is None or student is None:
        return found
    own = students[student]
    arm = s.arm_named(summary, student)
    title = s.title(arm) if arm else student
    if kind == "single" and own.ndim == 2:
        if own.shape[1] <= 200:
            found["matrix"] = figures.matrix(agreement_matrix(own, teacher).numpy(), names, title)
        if labels is not None and bool((labels != -100).any()):
            losses = {k: losses_per_class(v, teacher, labels) for k, v in students.items()}
            found["losses"] = figures.class_losses(
                summary,
                names,
                losses[student].teacher.numpy(),
                {k: v.student.numpy() for k, v in losses.items()},
            )
    elif kind == "regression":
        flat = [x.double().reshape(-1).numpy() for x in (teacher, own)]
        keep = np.linspace(0, len(flat[0]) - 1, min(len(flat[0]), 1500)).astype(int)
        paint = figures.colors(summary).get(student, "#3b82c4")
        found["follow"] = figures.follow(title, flat[0][keep], flat[1][keep], paint)
    return found


def _teacher(summary: s.Summary) -> str:
    return next((a["name"] for a in summary["arms"] if a.get("role") == "teacher"), "teacher")


def _named(summary: s.Summary, name: str) -> str:
    arm = s.arm_named(summary, name)
    return s.title(arm) if arm else name


def _differ_count(said: Mapping[str, Tensor], student: str | None) -> tuple[int, int]:
    own, teacher = said.get(f"student/{student}"), said.get("teacher")
    if own is None or teacher is None or own.ndim != 2:
        return 0, 0
    return int((own.argmax(1) != teacher.argmax(1)).sum()), len(own)


def _confused(
    said: Mapping[str, Tensor], student: str | None, names: list[str], most: int = 8
) -> list[tuple[int, str, str]]:
    """The pairs (count, what the teacher says, what the student says) that occur most often."""
    counts = agreement_matrix(said[f"student/{student}"], said["teacher"]).fill_diagonal_(0)
    order = counts.flatten().argsort(descending=True, stable=True)[:most].tolist()
    places = [divmod(at, len(counts)) for at in order]
    return [(int(counts[i, j]), names[i], names[j]) for i, j in places if counts[i, j] > 0]


def _events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return log.read(path) if path.exists() else []


def _predictions(folder: Path) -> dict[str, Tensor]:
    path = folder / "predictions.safetensors"
    if not path.exists():
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); remove it for a report without predictions"
        ) from error
    sizes = {len(t) for t in held.values()}
    if len(sizes) > 1:
        raise CheckpointError(
            f"{path}: its tensors speak of {sorted(sizes)} samples, not of the same"
        )
    return {
        k: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for k, t in held.items()
    }
