"""Built-in settings: a pair, its data and a budget, by name."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from understudy.errors import DataError, UserError, unknown
from understudy.evaluation import metric
from understudy.setting import Setting, TeacherSpec, Trained
from understudy.tasks.task import Task
from understudy.training.budget import Budget


def _digits(split: int, **options: Any) -> Any:
    from understudy.tasks.digits import digits as task

    return task(split=split, **options)


def digits(*, labels: int | str = 5) -> Setting:
    """Real handwritten digits: a CNN of 93,000 parameters teaches one of at least 10x fewer.

    The teacher has seen all 997 training labels; the student has 5 a class and the other images
    without labels. Seed k uses split k.

    The default method, DOT, is the one of ten systems with the highest validation accuracy over
    splits 0 to 4 (98.67 %; an ensemble of three teachers 98.13 %, plain KD 97.80 %). On test it
    lies inside the noise of plain KD; see docs/results/digits.md.
    """
    return Setting(
        name="digits" if labels == 5 else f"digits-{labels}",
        origin={"task": "digits" if labels == 5 else "digits-full"},
        method="dot",
        task=partial(_digits, labels=labels),
        teachers={
            "teacher": Trained(
                model="cnn:width=32,depth=3",
                budget=Budget(epochs=16, batch_size=64, lr=3e-3, weight_decay=1e-4, patience=None),
            )
        },
        student="cnn:width=8,depth=3",
        budget=Budget(
            epochs=16,
            batch_size=64,
            lr=5e-3,
            weight_decay=1e-4,
            labelled_share=0.25 if labels != "all" else None,
        ),
    )


def digits_full() -> Setting:
    """The same pair where the student has all labels too: what is left for a teacher to give?"""
    return digits(labels="all")


def digits_deep() -> Setting:
    """Digits with a teacher that is deeper than its student, not wider: for what needs equal widths."""
    return _digits_by("digits-deep", model="cnn:width=8,depth=3,units=3")


def digits_vit() -> Setting:
    """Digits with a vision transformer of patch tokens as the teacher of the small CNN."""
    return _digits_by(
        "digits-vit",
        model="vit:patch=2,width=64,depth=4,heads=4,pool=mean",
        budget=Budget(epochs=20, batch_size=64, lr=2e-3, weight_decay=1e-4),
    )


def _digits_by(name: str, **teacher: Any) -> Setting:
    setting = digits()
    spec = setting.teachers["teacher"]
    assert isinstance(spec, Trained)
    return replace(setting, name=name, teachers={"teacher": replace(spec, **teacher)})


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
    `language_pairs.own_language`.
    """
    from understudy.language_pairs import is_language, own_language
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


def cifar100_small(*, data_dir: str | None = None) -> Setting:
    """A tenth of CIFAR-100's training images, a short schedule, a small pair: hours, not days.

    A ResNet-8 of 84,000 parameters (10 epochs) teaches one of 7,600 (6 epochs) on 4,500 images;
    1,000 choose and 4,000 of the test images judge. Nothing in it is comparable with the published
    tables (`benchmarks/cifar100` is).
    """
    if data_dir is None:
        raise UserError("cifar100-small reads files: give --data-dir, the folder that holds them")
    from understudy.tasks import task

    sgd: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "warmup": 0.05}
    made = task("cifar100", data_dir=data_dir, subset=0.1)
    return Setting(
        name="cifar100-small",
        task=replace(made, validate=_first(made.validate, 1000), test=_first(made.test, 4000)),
        teachers={"teacher": Trained(model="resnet8", budget=Budget(epochs=10, **sgd))},
        student="resnet8:width=4",
        budget=Budget(epochs=6, validate_every=2, **sgd),
        origin={"task": "cifar100-small", "data_dir": data_dir},
    )


def _stdlib_lm(split: int, **options: Any) -> Any:
    from understudy.tasks.stdlib_lm import stdlib_lm as task

    return task(split=split, **options)


STDLIB_STUDENTS = {
    "small": "llama:width=64,depth=3,heads=4",
    "middle": "llama:width=128,depth=3,heads=4,hidden=448",
    "large": "llama:width=160,depth=4,heads=5",
}
"""Students of `stdlib-lm`: 0.2, 0.8 and 1.4 million parameters."""


def stdlib_lm(*, size: str = "middle") -> Setting:
    """The standard library's own source: a shipped Llama of 2.9M parameters teaches a smaller one.

    The student, of 0.2M (`small`), 0.8M (`middle`) or 1.4M (`large`) parameters, reads 1M tokens
    once. Seed k uses split k: other modules to learn from, to choose on and to judge on, all
    unknown to the teacher but those to learn from.
    """
    from understudy.signals import CausalLM
    from understudy.tasks.stdlib_lm import teacher

    if size not in STDLIB_STUDENTS:
        raise unknown("size of the student of stdlib-lm", size, STDLIB_STUDENTS)
    return Setting(
        name="stdlib-lm" if size == "middle" else f"stdlib-lm-{size}",
        kind="language",
        call=CausalLM(),
        task=_stdlib_lm,
        teachers={"teacher": teacher},
        student=STDLIB_STUDENTS[size],
        budget=Budget(
            epochs=1,
            batch_size=16,
            lr=4e-3,
            weight_decay=0.1,
            warmup=0.05,
            clip=1.0,
            validate_steps=128,
        ),
        origin={"task": "stdlib-lm" if size == "middle" else f"stdlib-lm-{size}"},
    )


def stdlib_lm_teacher() -> Setting:
    """How the shipped teacher of `stdlib-lm` was trained: all modules that are not held back."""
    from understudy.signals import CausalLM

    return Setting(
        name="stdlib-lm-teacher",
        kind="language",
        call=CausalLM(),
        task=partial(_stdlib_lm, tokens="all"),
        student="llama:width=192,depth=6,heads=6",
        method="alone",
        budget=Budget(steps=2200, batch_size=8, lr=2e-3, weight_decay=0.1, warmup=0.03, clip=1.0),
        origin={"task": "stdlib-lm-teacher"},
    )


def _school(split: int, **options: Any) -> Any:
    from understudy.tasks.school import school as task

    return task(split=split, **options)


SHORT = 3200
"""Problems of `school-short`, which a league of many methods on two cores can read; a fifth of the
others are judged."""


def school(*, size: str = "small", count: int = 20_000) -> Setting:
    """Arithmetic word problems, solved in writing: a Llama of 0.87M parameters, shipped, teaches.

    The student, of 80k (`small`), 184k (`middle`) or 492k (`large`) parameters, reads `count`
    problems with their solutions once and is judged by the answers that it writes to new ones. Seed
    k draws other problems, to learn from and to be judged on.
    """
    from understudy.signals import CausalLM
    from understudy.tasks.school import STUDENTS, teacher

    if size not in STUDENTS:
        raise unknown("size of the student of school", size, STUDENTS)
    name = "school" if size == "small" else f"school-{size}"
    name += "-short" if count == SHORT else ""
    return Setting(
        name=name,
        kind="language",
        call=CausalLM(),
        task=partial(_school, count=count, judged=48 if count == SHORT else 240),
        teachers={"teacher": teacher},
        student=STUDENTS[size],
        budget=Budget(epochs=1, batch_size=32, lr=5e-3, weight_decay=0.01, warmup=0.05, clip=1.0),
        origin={"task": name},
    )


BASIC, BASIC_LEVELS = ("add", "subtract", "multiply", "compare"), (1, 2)
"""Skills and levels of `school-basic`: what a small student gets right within a short budget."""


def school_basic(*, base: str = "calculator", count: int = 2000, steps: int = 400) -> Setting:
    """Four skills of the school for a pretrained student: what is left to learn is their meaning.

    The student, of 0.18M parameters, is shipped (`benchmarks/school_bases.py` trains it): the
    `calculator` knows bare arithmetic and no words, the `reader` has also solved problems of the
    other eight skills. It reads `count` problems with their solutions, `steps` batches of 32 in
    all. Seed k draws other problems, to learn from and to be judged on.
    """
    from understudy.signals import CausalLM
    from understudy.tasks.school import BASES, teacher
    from understudy.tasks.school.muon import Muon

    if base not in BASES:
        raise unknown("base of the student of school", base, BASES)
    name = "school-basic" if base == "calculator" else f"school-{base}"
    return Setting(
        name=name,
        kind="language",
        call=CausalLM(),
        task=partial(_school, count=count, skills=BASIC, difficulty=BASIC_LEVELS),
        teachers={"teacher": teacher},
        student=str(BASES[base]),
        budget=Budget(
            steps=steps, batch_size=32, optimizer=Muon(), lr=0.015, schedule="linear",
            warmup=0.03, validate_steps=200,
        ),
        origin={"task": name},
    )  # fmt: skip


def _first(source: Any, count: int) -> Any:
    import torch

    return source.subset(torch.arange(min(count, len(source))))


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
