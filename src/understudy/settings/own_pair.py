"""A user's own teachers, student and data as a setting."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from understudy.errors import DataError, UserError
from understudy.setting import Setting, TeacherSpec, Trained
from understudy.tasks.task import Task
from understudy.training.budget import Budget


def own(
    *,
    teacher: str | Sequence[str] | None,
    student: str,
    data: str,
    new_head: bool = False,
    **options: Any,
) -> Setting:
    """A user's pair and data, named on the command line.

    A teacher that is a family or a factory without weights is trained on the labels first; several
    are named `teacher`, `teacher_2`, ...; the folder of stored signals is one as well. A run folder
    stands for its student. What a model's folder says of its preprocessing (tokenizer, mean and
    deviation, size) and of its classes' names is followed, and what a store's folder says of how
    its data was read. `new_head` gives a Hugging Face student a head for the data's classes.
    Causal language models (or kind "language") make it a task of texts, with the options of
    `own_language`.
    """
    from understudy.settings.own_language import is_language, own_language
    from understudy.students import load_model
    from understudy.tasks import load

    specs = [teacher] if isinstance(teacher, str) else list(teacher or ())
    specs, student = [model_folder(s) for s in specs], model_folder(student)
    given = {k: v for k, v in options.items() if v is not None and v is not False}
    if is_language(
        given.pop("kind", None) if given.get("kind") == "language" else given.get("kind"),
        [*specs, student], target=given.get("target"), new_head=new_head,
    ):  # fmt: skip
        for spec in filter(is_store, specs):  # texts are read as they were when it was written
            given = {k: v for k, v in _reading(spec).items() if k in LANGUAGE} | given
        _only_language(given)
        return own_language(
            teachers=specs, student=student, data=data, is_store=is_store, teacher_of=_teacher,
            **given,
        )  # fmt: skip
    _no_language(given)
    found: dict[str, Any] = {}
    for spec in (student, *reversed(specs)):  # the first teacher has the last word
        found |= _preprocessing(spec, given)
    named = [n for n in map(_labels, specs or ([] if new_head else [student])) if n is not None]
    if named:
        found["labels"] = named[0]
    given = found | given
    if isinstance(given.get("normalise"), list):
        given["normalise"] = tuple(given["normalise"])
    _one_tokenizer(student, specs)
    read = {k: _tokenizer(v) if k == "tokenizer" else v for k, v in given.items()}
    task = load(data, **read)
    teachers = {
        "teacher" if n == 0 else f"teacher_{n + 1}": _teacher(spec, task)
        for n, spec in enumerate(specs)
    }
    if task.classes == 0:
        task = replace(task, classes=_classes_of(next(iter(teachers.values()), None), task))
    plain = {k: v for k, v in given.items() if isinstance(v, str | int | float | list | tuple)}
    return Setting(
        name=Path(data).stem or "data",
        task=task,
        teachers=teachers,
        student=partial(load_model, student, new_head=True) if new_head else student,
        kind=task.kind,
        class_weights=task.class_weights,
        method="kd" if teachers else "alone",
        origin={"data": str(data), **plain},
    )


LANGUAGE = ("tokenizer", "columns", "chat", "text", "max_length", "pack", "adapters")
"""Options of a pair of language models."""


def _only_language(given: dict[str, Any]) -> None:
    odd = sorted(given.keys() - set(LANGUAGE))
    if odd:
        flag = odd[0].replace("_", "-")
        raise UserError(
            f"--{flag} is not for language models; --kind single, multi or regression reads the "
            "data as labelled samples"
        )


def _no_language(given: dict[str, Any]) -> None:
    odd = sorted(given.keys() & (set(LANGUAGE) - {"text", "tokenizer", "max_length"}))
    if odd:
        flag = {"adapters": "lora"}.get(odd[0], odd[0])
        raise UserError(f"--{flag} is for causal language models, and none is given here")


def model_folder(spec: str) -> str:
    """The spec, where it is a run's folder its student's."""
    student = Path(spec).expanduser() / "student"
    ready = any((student / n).is_file() for n in ("config.json", "adapter_config.json"))
    return str(student) if ready else spec


def is_store(spec: str) -> bool:
    """Whether it is the folder of stored signals."""
    folder = Path(spec).expanduser()
    return (folder / "manifest.json").is_file() and (folder / "samples.safetensors").is_file()


def _teacher(spec: str, task: Task) -> TeacherSpec:
    """A teacher as named: stored signals, one that has to be trained first, or a model."""
    from understudy.students import families

    if is_store(spec):
        from understudy.teachers import Stored

        parts = {p: Stored(path) for p in PARTS if is_store(str(path := Path(spec) / p))}
        return Stored(
            spec,
            data=task.train,
            view=task.view,
            tokenizer=task.extras.get("tokenizer"),
            parts=parts,
        )
    fresh = spec.partition(":")[0] in families() or (".py:" in spec and "@" not in spec)
    if not fresh:
        return spec
    if not bool(task.train.labelled.any()):
        raise DataError(f"the teacher {spec} has no weights, and the data no labels to train it")
    return Trained(model=spec, budget=Budget())


READING = "reading.json"
"""In a store's folder: how its data was read, so that a student reads it alike."""
PARTS = ("validate", "test")
"""Folders in a store's: what the teacher says of the samples that a student is judged on."""


def _preprocessing(spec: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the folder of a trained model, or of stored signals, says of its inputs."""
    import json

    folder = Path(spec).expanduser()
    found: dict[str, Any] = {}
    if not folder.is_dir():
        return found
    if is_store(spec):
        return _reading(spec)
    if (folder / "tokenizer_config.json").exists() or (folder / "tokenizer.json").exists():
        found["tokenizer"] = str(folder)
    if (path := folder / "preprocessor_config.json").exists():
        config = json.loads(path.read_text())
        if config.get("do_normalize", True) and "image_mean" in config:
            found["normalise"] = (config["image_mean"], config["image_std"])
        size = config.get("size")
        if "image_size" not in given and isinstance(size, dict):
            found["image_size"] = size.get("height") or size.get("shortest_edge")
    elif (path := folder / "config.json").exists():
        config = json.loads(path.read_text())
        own = config.get("understudy") or config.get("extra") or {}
        preprocess = own.get("preprocess") if isinstance(own, dict) else None
        if isinstance(preprocess, dict) and preprocess.get("mean") is not None:
            found["normalise"] = (preprocess["mean"], preprocess["std"])
    return found


def _reading(store: str) -> dict[str, Any]:
    """How the data of stored signals was read."""
    import json

    path = Path(store).expanduser() / READING
    return json.loads(path.read_text()) if path.is_file() else {}


def _labels(spec: str) -> list[str] | None:
    """Names of a model's outputs, where its folder gives more than numbers."""
    import json

    path = Path(spec).expanduser() / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text())
    if isinstance(config.get("labels"), list):
        return config["labels"]
    named = config.get("id2label")
    if not isinstance(named, dict) or all(v == f"LABEL_{k}" for k, v in named.items()):
        return None
    return [str(named[k]) for k in sorted(named, key=int)]


def _tokenizer(given: Any) -> Any:
    """A vocabulary of ours from the folder it was saved in; anything else as it is."""
    if isinstance(given, str) and (Path(given) / "tokenizer.json").is_file():
        from understudy.tasks.words import Vocabulary

        if Vocabulary.saved(given):
            return Vocabulary.load(given)
    return given


def _one_tokenizer(student: str, teachers: Sequence[str]) -> None:
    """Refuse a pair that would read the same text as different tokens."""
    texts = {
        spec: path.read_text()
        for spec in (student, *teachers)
        if (path := Path(spec).expanduser() / "tokenizer.json").is_file()
    }
    other = next(
        (t for t in teachers if t in texts and texts[t] != texts.get(student, texts[t])), None
    )
    if other is not None:
        raise DataError(
            f"the teacher {other} and the student {student} have different tokenizers, and the "
            "methods here compare them token by token: give a student with the teacher's "
            "tokenizer, or a family such as text:width=64"
        )


def _classes_of(teacher: TeacherSpec | None, task: Task) -> int:
    """Outputs of a teacher, for data that has no labels to count."""
    import torch

    from understudy.objectives import Needs
    from understudy.students import load_model
    from understudy.teachers import as_teacher

    if teacher is None:
        raise DataError("the data has no labels and there is no teacher: nothing can be learned")
    assert not isinstance(teacher, Trained)
    heard = as_teacher(load_model(teacher) if isinstance(teacher, str) else teacher)
    example = task.train.batch(torch.arange(1))
    heard.prepare(Needs(), example)
    return int(heard.signals(example).dense.shape[-1])
