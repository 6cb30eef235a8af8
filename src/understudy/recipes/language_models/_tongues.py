"""Settings whose teacher reads the same texts in tokens of its own."""

from dataclasses import replace
from functools import partial
from typing import Any

from understudy.data import Texts
from understudy.data.alignment import Aligner, Pieces, byte_pieces, pieces_of, translated
from understudy.errors import MethodRefused
from understudy.recipes.language_models._worlds import vocabulary_of
from understudy.setting import Setting, Trained
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.tasks.task import Task
from understudy.teachers.retokenizing import Retokenizing
from understudy.training.budget import Budget


def in_bytes(setting: Setting, *, model: str, budget: Budget) -> Setting:
    """The setting with a teacher that reads single bytes, trained here on the same texts."""
    pieces = byte_pieces()
    aligner = aligning(setting, pieces, end=len(pieces) - 1)
    task = partial(_translated, task=setting.task, aligner=aligner)
    teacher = Trained(model=model, budget=budget, task=task)
    return replace(
        setting,
        name=f"{setting.name}-bytes",
        teachers={"teacher": teacher},
        teacher_call=Retokenizing(aligner, setting.call or CausalLM()),
    )


def aligning(setting: Setting, teacher: Pieces, *, end: int | None = None) -> Aligner:
    """The setting's tokens read as a teacher's; `end` is what ends a text for the teacher."""
    tokenizer, vocabulary = vocabulary_of(setting)
    if tokenizer is None:
        raise MethodRefused(
            f"{setting.name} has no tokenizer: its tokens cannot be read as text; give the task one "
            "(extras tokenizer)"
        )
    stop = getattr(tokenizer, "eos_token_id", None)
    specials = {int(stop): end} if end is not None and isinstance(stop, int) else {}
    student = pieces_of(tokenizer, vocabulary=vocabulary)
    return Aligner(student=student, teacher=teacher, specials=specials)


def following(setting: Setting) -> Setting:
    """The setting, its translated teachers trained on the texts that it has by now."""

    def followed(spec: Any) -> Any:
        own = spec.task if isinstance(spec, Trained) else None
        if isinstance(own, partial) and own.func is _translated:
            return replace(spec, task=partial(own, task=setting.task))
        return spec

    return replace(setting, teachers={n: followed(s) for n, s in setting.teachers.items()})


def aligner_of(setting: Setting) -> Aligner | None:
    """How the setting's teacher reads the student's tokens; None: as they are."""
    call = setting.teacher_call
    return call.aligner if isinstance(call, Retokenizing) else None


def _translated(split: int, *, task: Any, aligner: Aligner) -> Task:
    """The task in the teacher's tokens."""
    own: Task = task if isinstance(task, Task) else task(split)
    parts: dict[str, Texts | None] = {}
    for part in ("train", "validate", "test", "teach"):
        source = getattr(own, part)
        parts[part] = translated(source, aligner) if isinstance(source, Texts) else None
    train, validate = parts["train"], parts["validate"]
    if train is None or validate is None:
        raise MethodRefused(f"{own.name} holds no texts that could be read in other tokens")
    longest = max(int(p.lengths.max()) for p in parts.values() if p is not None)
    return language_task(
        f"{own.name}-{aligner.teacher.name}",
        train=train,
        validate=validate,
        test=parts["test"],
        teach=parts["teach"],
        vocabulary=len(aligner.teacher),
        length=longest,
    )
