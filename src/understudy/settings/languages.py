"""Settings of language models: the standard library's source, and the school."""

from functools import partial
from typing import Any

from understudy.errors import unknown
from understudy.setting import Setting
from understudy.training.budget import Budget


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
