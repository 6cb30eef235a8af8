"""A user's language models and texts as a setting; students that learn adapters alone."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from understudy.data.own_template import OwnTemplate
from understudy.errors import DataError, UserError
from understudy.setting import Made, ModelSpec, Setting, TeacherSpec, Trained
from understudy.signals import CausalLM
from understudy.students.causal import (
    FAMILIES,
    Sizes,
    difference,
    is_causal_lm,
    load_causal,
    load_tokenizer,
    sizes_of,
)
from understudy.students.lora import LoRA
from understudy.tasks.own_texts import load_texts
from understudy.tasks.task import Task
from understudy.tasks.words import tokenizer_of
from understudy.training.budget import Budget

__all__ = ["is_language", "lora", "own_language"]

FRESH = Budget(epochs=3, batch_size=32, lr=1e-3, weight_decay=0.1, warmup=0.05, clip=1.0)
"""Of a model without weights; of one with weights, and of adapters:"""
TUNED = Budget(epochs=3, batch_size=16, lr=2e-5, warmup=0.05, clip=1.0)
ADAPTED = Budget(epochs=3, batch_size=16, lr=2e-4, warmup=0.05, clip=1.0)


def lora(
    model: ModelSpec,
    *,
    r: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = (),
    dropout: float = 0.0,
    merge: bool = False,
) -> Made:
    """A student that learns low-rank adapters alone: `student=us.lora("path/to/model", r=16)`.

    All other weights stay as they are. It is saved as the folder of adapters that `peft` loads, or
    with `merge` as the whole model. targets: ends of layer names (default: all linear layers but
    the head). See `students.LoRA`.
    """
    settings = LoRA(r=r, alpha=alpha, targets=tuple(targets), dropout=dropout, merge=merge)
    return Made(make=partial(_adapted, model, settings))


def _adapted(
    model: ModelSpec, settings: LoRA, teachers: Mapping[str, Any], task: Task, build: Any
) -> nn.Module:
    return settings.put(build(model, "base"))


def is_language(kind: str | None, specs: Sequence[str], *, target: Any, new_head: bool) -> bool:
    """Whether a pair on a user's data is one of language models that predict text.

    Said by `kind`; otherwise by the models, where no column of labels and no head is asked for.
    """
    if kind is not None:
        return kind == "language"
    if target is not None or new_head:
        return False
    return any(is_causal_lm(s) for s in specs)


def own_language(
    *,
    teachers: Sequence[str],
    student: str,
    data: str,
    tokenizer: str | None = None,
    columns: Mapping[str, str] | None = None,
    chat: bool = False,
    text: str | None = None,
    max_length: int | None = None,
    pack: int | None = None,
    adapters: LoRA | None = None,
    is_store: Any = None,
    teacher_of: Any = None,
) -> Setting:
    """A user's pair of language models and texts.

    The student's tokenizer reads the data, or the teacher's where the student is a family's name.
    Tokenizers that differ are refused; chat templates may differ, and each model then reads its
    own. `max_length` cuts texts. `teacher_of(spec, task)` makes a teacher of another form (stored
    signals).
    """
    stored = [s for s in teachers if is_store is not None and is_store(s)]
    models = [s for s in (student, *teachers) if s not in stored and s != "none"]
    for spec in models:
        if not is_causal_lm(spec):
            raise UserError(
                f"{spec} is no causal language model, which --kind language is for; give a folder "
                f"or hub name of one, or a family ({', '.join(FAMILIES)}:width=64)"
            )
    found = {s: load_tokenizer(s) for s in models}
    reads, names = _reader(tokenizer, found, student)
    known = {s: sizes_of(s) for s in models}
    task = load_texts(
        data,
        tokenizer=reads,
        columns={**({"text": text} if text else {}), **(columns or {})},
        chat=chat,
        max_length=max_length,
        truncate=max_length is not None,
        context=_least([k.context for k in known.values()]),
        vocabulary=_vocabulary(known, reads),
        templates=names,
    )
    made: dict[str, TeacherSpec] = {}
    for n, spec in enumerate(teachers):
        name = "teacher" if n == 0 else f"teacher_{n + 1}"
        made[name] = teacher_of(spec, task) if spec in stored else _teacher(spec)
    trained = student.partition(":")[0] not in FAMILIES
    learns: ModelSpec = partial(load_causal, student, dtype="float32") if trained else student
    if adapters is not None:
        learns = Made(make=partial(_adapted, learns, adapters))
    return Setting(
        name=Path(data).stem or "data",
        task=task,
        kind="language",
        teachers=made,
        student=learns,
        call=CausalLM(pack=pack),
        teacher_call=_teacher_call(task, teachers, pack),
        budget=ADAPTED if adapters is not None else TUNED if trained else FRESH,
        method="kd" if made else "alone",
        origin=_origin(data, tokenizer or _named(found, reads), columns, chat, text, max_length),
    )


def _teacher(spec: str) -> TeacherSpec:
    """As it is; a family's name is trained on the data first."""
    if spec.partition(":")[0] in FAMILIES:
        return Trained(model=spec, budget=FRESH)
    return partial(load_causal, spec)


def _reader(
    given: str | None, found: Mapping[str, Any], student: str
) -> tuple[Any, dict[str, Any]]:
    """The tokenizer that reads the data, and those of the teachers; refused where they differ."""
    own = {s: t for s, t in found.items() if t is not None}
    if given is not None:
        reads, name = tokenizer_of(given, ()), given
    elif own:
        name = student if student in own else next(iter(own))
        if not own[name].chat_template:  # a base model learns the template of who teaches it
            name = next((s for s, t in own.items() if t.chat_template), name)
        reads = own[name]
    else:
        raise DataError(
            "no model here has a tokenizer: give one, --tokenizer DIR (a folder with "
            "tokenizer.json, or a hub name)"
        )
    for spec, other in own.items():
        if other is reads:
            continue
        why = difference(reads, other)
        if why is not None:
            raise DataError(
                f"{name} and {spec} have different tokenizers ({why}), and the methods here compare "
                "models token by token: give a student with the teacher's tokenizer, a family such "
                "as llama:width=64, or a method across tokenizers (--method uld)"
            )
    own.pop(student, None)
    return reads, {s: t for s, t in own.items() if t is not reads and t.chat_template}


def _teacher_call(task: Task, teachers: Sequence[str], pack: int | None) -> Any:
    """None where all models read the same; otherwise how the one teacher reads its own template."""
    renderings = {s: t for s, t in task.extras["renderings"].items() if s in teachers}
    if not renderings:
        return None
    if len(teachers) > 1:
        raise DataError(
            f"{next(iter(renderings))} reads another chat template than the student, and there are "
            "several teachers; give one, or models of one template"
        )
    return OwnTemplate(next(iter(renderings.values())), CausalLM(pack=pack))


def _vocabulary(known: Mapping[str, Sizes], tokenizer: Any) -> int:
    """Tokens that all models know: the least of those that have weights, or the tokenizer's."""
    least = _least([k.vocabulary for k in known.values()])
    return len(tokenizer) if least is None else least


def _least(numbers: Sequence[int | None]) -> int | None:
    return min((n for n in numbers if n is not None), default=None)


def _named(found: Mapping[str, Any], reads: Any) -> str | None:
    return next((s for s, t in found.items() if t is reads), None)


def _origin(
    data: str, tokenizer: str | None, columns: Any, chat: bool, text: Any, length: Any
) -> dict[str, Any]:
    said = {
        "data": str(data),
        "kind": "language",
        "tokenizer": tokenizer,
        "columns": dict(columns) if columns else None,
        "chat": chat or None,
        "text": text,
        "max_length": length,
    }
    return {k: v for k, v in said.items() if v is not None}
