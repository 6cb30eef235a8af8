"""Problems of the school world, any number of them from a seed, and the way back from a text."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal
from zlib import crc32

from understudy.errors import DataError, unknown
from understudy.tasks.school.program import Value, evaluate, rationale
from understudy.tasks.school.shape import LEVELS, Shape, Slots, pattern, read
from understudy.tasks.school.skills_basic import ADD, COMPARE, DIVIDE, MULTIPLY, SUBTRACT
from understudy.tasks.school.skills_parts import FRACTION, PERCENT, RATE, SEQUENCE
from understudy.tasks.school.skills_steps import BRACKETS, CONVERT, TWO_STEP

SHAPES: tuple[Shape, ...] = (
    *ADD, *SUBTRACT, *MULTIPLY, *DIVIDE, *TWO_STEP, *COMPARE,
    *CONVERT, *PERCENT, *FRACTION, *SEQUENCE, *BRACKETS, *RATE,
)  # fmt: skip

SKILLS: tuple[str, ...] = tuple(dict.fromkeys(s.skill for s in SHAPES))

Split = Literal["train", "validate", "test", "template", "composition"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test", "template", "composition")
"""Numbers are divided by skill into train, validate and test; the last two splits are out of
distribution: test numbers in sentences, or in compositions of operations, that training never
has."""

_BUCKETS: Mapping[str, range] = {
    "train": range(0, 16),
    "validate": range(16, 17),
    "test": range(17, 20),
    "template": range(17, 20),
    "composition": range(17, 20),
}


@dataclass(frozen=True, kw_only=True)
class Error:
    """A typical wrong procedure on one problem: its name and what it ends in."""

    name: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One problem.

    shape, template: which composition and which sentence of it. program: evaluates to `answer`.
    rationale: the steps, column by column. plan: the numbers of the problem, with the working that
    makes them fit. errors: typical wrong procedures, all of whose answers differ.
    """

    number: int
    split: str
    skill: str
    level: int
    shape: str
    template: int
    question: str
    program: str
    rationale: str
    answer: str
    plan: str
    name: str
    noun: str
    errors: tuple[Error, ...]


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a question was read as, by the world's own rules."""

    skill: str
    level: int
    shape: str
    template: int
    program: str
    rationale: str
    answer: str
    slots: Mapping[str, int | str]
    errors: tuple[Error, ...]


def rows(
    count: int,
    seed: int = 0,
    *,
    split: Split = "train",
    skills: Sequence[str] | None = None,
    difficulty: int | Sequence[int] | None = None,
    weights: Mapping[str, float] | None = None,
    start: int = 0,
) -> list[Row]:
    """`count` problems; number i is the same whatever the count.

    skills, difficulty: only these. weights: how much oftener than 1 a skill is drawn. start: the
    first number. Unknown names are `UnknownName`; a selection that holds nothing, `DataError`.
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    for name in (*(skills or ()), *(weights or ())):
        if name not in SKILLS:
            raise unknown("skill", name, SKILLS)
    levels = LEVELS if difficulty is None else _levels(difficulty)
    wanted = [s for s in SKILLS if skills is None or s in skills]
    choice = {
        s: found for s in wanted if (found := {n: c for n in levels if (c := _cases(s, n, split))})
    }
    if count and not choice:
        raise DataError(f"school: split {split!r} has no problem of {wanted} at levels {levels}")
    share = [(weights or {}).get(s, 1.0) for s in choice]
    return [
        _draw(i, seed, split, choice, share, Random(f"school:{seed}:{split}:{i}"))
        for i in range(start, start + count)
    ]


def skills_with(
    split: Split,
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
) -> list[str]:
    """The skills, of those given, that have problems in a split."""
    chosen = [s for s in SKILLS if skills is None or s in skills]
    return [s for s in chosen if any(_cases(s, n, split) for n in difficulty or LEVELS)]


def parse(question: str) -> Parsed | None:
    """Reads a question back; None where it is no problem of this world or cannot be solved."""
    question = question.strip()
    for shape in SHAPES:
        for number, expression in enumerate(_patterns(shape)):
            match = expression.fullmatch(question)
            found = None if match is None else read(match)
            slots = None if found is None else shape.derive(found)
            level = None if slots is None else shape.level(slots)
            if slots is None or level is None:
                continue
            program = shape.gold(slots)
            answer = str(evaluate(program))
            return Parsed(
                skill=shape.skill, level=level, shape=shape.name, template=number,
                program=program, rationale=rationale(program), answer=answer, slots=slots,
                errors=_errors(shape, slots, answer),
            )  # fmt: skip
    return None


def plan_of(problem: Parsed) -> str:
    """The plan of a question that was read back, as `Row.plan` of the row that it was made from."""
    shape = next(s for s in SHAPES if (s.skill, s.name) == (problem.skill, problem.shape))
    slots = dict(problem.slots)
    sentence = (*shape.templates, *shape.held)[problem.template]
    return _plan(shape, {**(shape.back(dict(slots)) or {}), **slots}, sentence)


def bucket(skill: str, slots: Mapping[str, int | str], shown: Sequence[str]) -> int:
    """To which twentieth of a skill's numbers a problem belongs, whatever their order."""
    values = sorted(str(slots[k]) for k in shown if k not in "ABn")
    return crc32(f"{skill}:{':'.join(values)}".encode()) % 20


def _levels(difficulty: int | Sequence[int]) -> tuple[int, ...]:
    levels = (difficulty,) if isinstance(difficulty, int) else tuple(difficulty)
    for level in levels:
        if level not in LEVELS:
            raise DataError(f"school: difficulty is one of {LEVELS}, not {level!r}")
    return levels


@cache
def _cases(skill: str, level: int, split: str) -> tuple[tuple[Shape, tuple[int, ...]], ...]:
    """Shapes with the numbers of the templates that this split may use."""
    cases = []
    for shape in SHAPES:
        if shape.skill != skill or level not in shape.levels:
            continue
        known, held = len(shape.templates), len(shape.held)
        if shape.novel != (split == "composition"):
            continue
        usable = range(known, known + held) if split == "template" else range(known)
        if usable:
            cases.append((shape, tuple(usable)))
    return tuple(cases)


def _draw(
    number: int,
    seed: int,
    split: str,
    choice: Mapping[str, Mapping[int, Sequence[tuple[Shape, tuple[int, ...]]]]],
    share: Sequence[float],
    random: Random,
) -> Row:
    while True:
        skill = random.choices(list(choice), weights=share)[0]
        level = random.choice(list(choice[skill]))
        shape, templates = random.choice(choice[skill][level])
        template = random.choice(templates)
        sentence = (*shape.templates, *shape.held)[template]
        for _ in range(200):
            slots = shape.draw(level, random)
            if slots is None or bucket(skill, slots, _shown(sentence)) not in _BUCKETS[split]:
                continue
            program = shape.gold(slots)
            answer = str(evaluate(program))
            return Row(
                number=number, split=split, skill=skill, level=level, shape=shape.name,
                template=template, question=sentence.format(**slots), program=program,
                rationale=rationale(program), answer=answer, plan=_plan(shape, slots, sentence),
                name=str(slots["A"]), noun=str(slots["n"]), errors=_errors(shape, slots, answer),
            )  # fmt: skip


def _plan(shape: Shape, slots: Slots, sentence: str) -> str:
    shown = ",".join(str(slots[k]) for k in sorted(_shown(sentence)) if k not in "ABnuv")
    steps = [rationale(p.format(**slots)) for p in shape.plan.split(";") if p]
    # of `q*b` and `q*b+r` the second begins with the first
    steps = [
        s for i, s in enumerate(steps) if i + 1 == len(steps) or not steps[i + 1].startswith(s)
    ]
    return f"{shape.name}: " + ";".join([*steps, shown])


def _errors(shape: Shape, slots: Slots, answer: str) -> tuple[Error, ...]:
    found: dict[str, list[str]] = {}
    for mistake in shape.mistakes:
        try:
            wrong: Value = evaluate(mistake.program.format(**slots), fault=mistake.fault)
        except DataError:
            continue
        if wrong != 0 and str(wrong) != answer:
            found.setdefault(str(wrong), []).append(mistake.name)
    # a wrong answer that two procedures share tells neither
    return tuple(Error(name=n[0], answer=a) for a, n in found.items() if len(n) == 1)


@cache
def _shown(sentence: str) -> tuple[str, ...]:
    return tuple(sorted({part[0] for part in sentence.split("{")[1:]}))


@cache
def _patterns_of(sentences: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(pattern(s) for s in sentences)


def _patterns(shape: Shape) -> tuple[re.Pattern[str], ...]:
    return _patterns_of((*shape.templates, *shape.held))


def stream(seed: int = 0, **selection: object) -> Iterator[Row]:
    """Problems without end."""
    number = 0
    while True:
        yield from rows(256, seed, start=number, **selection)  # type: ignore[arg-type]
        number += 256
