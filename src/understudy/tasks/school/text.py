"""The four abilities as text: solve, write, explain and grade.

    solve: QUESTION                         rationale#answer
    write: SKILL LEVEL, NAME, NOUN          plan| QUESTION
    explain: QUESTION Answer: WRONG         rationale#answer?WRONG name of the mistake
    grade: QUESTION Answer: GIVEN           rationale#answer?GIVEN:4=4,2!1 wrong

A prompt ends in a new line. Explaining and grading solve first; a verdict follows from comparing
the two answers digit by digit, up to the first that differs (a missing one is `.`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from understudy.errors import unknown
from understudy.tasks.school.rows import Row, Split, rows

Ability = Literal["solve", "write", "explain", "grade"]
ABILITIES: tuple[Ability, ...] = ("solve", "write", "explain", "grade")
MIX: Mapping[Ability, float] = {"solve": 0.4, "write": 0.2, "explain": 0.2, "grade": 0.2}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt and its completion; `given` is the answer that is explained or graded."""

    ability: Ability
    prompt: str
    completion: str
    row: Row
    given: str | None = None


def prompt(ability: Ability, row: Row, given: str | None = None) -> str:
    """What a model is asked."""
    if ability == "write":
        return write_prompt(row.skill, row.level, row.name, row.noun)
    return question_prompt(ability, row.question, given)


def question_prompt(ability: Ability, question: str, given: str | None = None) -> str:
    """The prompt of solve, explain or grade for any question."""
    if ability not in ABILITIES:
        raise unknown("ability", str(ability), ABILITIES)
    return f"{ability}: {question}" + (f" Answer: {given}" if given is not None else "") + "\n"


def write_prompt(skill: str, level: int, name: str, noun: str) -> str:
    """The prompt that asks for a problem with this person and these things."""
    return f"write: {skill} {level}, {name}, {noun}\n"


def solution(row: Row) -> str:
    """Rationale and answer."""
    return f"{row.rationale}#{row.answer}"


def comparison(answer: str, given: str) -> str:
    """Digit by digit (a name at once), up to the first difference."""
    if not (answer.isdigit() and given.isdigit()):
        return f"{answer}{'=' if answer == given else '!'}{given}"
    seen = []
    for i in range(max(len(answer), len(given))):
        a, b = answer[i : i + 1] or ".", given[i : i + 1] or "."
        seen.append(f"{a}{'=' if a == b else '!'}{b}")
        if a != b:
            break
    return ",".join(seen)


def example(ability: Ability, row: Row, seed: int = 0) -> Example | None:
    """The example of a row; None where a row has no typical mistake to explain."""
    random = Random(f"{ability}:{seed}:{row.split}:{row.number}")
    if ability == "solve":
        return Example(
            ability=ability, prompt=prompt(ability, row), completion=solution(row), row=row
        )
    if ability == "write":
        return Example(
            ability=ability,
            prompt=prompt(ability, row),
            completion=f"{row.plan}| {row.question}",
            row=row,
        )
    if ability == "explain":
        if not row.errors:
            return None
        error = random.choice(row.errors)
        return Example(
            ability=ability, prompt=prompt(ability, row, error.answer), row=row,
            completion=f"{solution(row)}?{error.answer} {error.name}", given=error.answer,
        )  # fmt: skip
    if ability != "grade":
        raise unknown("ability", str(ability), ABILITIES)
    given = row.answer if random.random() < 0.5 else wrong(row, random)
    verdict = "right" if given == row.answer else "wrong"
    return Example(
        ability=ability, prompt=prompt(ability, row, given), row=row, given=given,
        completion=f"{solution(row)}?{given}:{comparison(row.answer, given)} {verdict}",
    )  # fmt: skip


def wrong(row: Row, random: Random) -> str:
    """A wrong answer: of a typical mistake, or a slip in one digit."""
    if row.errors and (random.random() < 0.5 or not row.answer.isdigit()):
        return random.choice(row.errors).answer
    while True:
        place = random.randrange(len(row.answer))
        digit = str((int(row.answer[place]) + random.choice((1, 2, 9, 8))) % 10)
        slip = row.answer[:place] + digit + row.answer[place + 1 :]
        if slip[0] != "0":
            return slip


def examples(
    count: int,
    seed: int = 0,
    *,
    split: Split = "train",
    mix: Mapping[Ability, float] = MIX,
    weights: Mapping[str, float] | None = None,
    start: int = 0,
    **selection: object,
) -> list[Example]:
    """One example a row, its ability drawn from `mix`; rows without one are solved instead."""
    for name in mix:
        if name not in ABILITIES:
            raise unknown("ability", str(name), ABILITIES)
    names, share = list(mix), list(mix.values())
    made = []
    for row in rows(count, seed, split=split, weights=weights, start=start, **selection):  # type: ignore[arg-type]
        random = Random(f"ability:{seed}:{split}:{row.number}")
        ability = random.choices(names, weights=share)[0]
        made.append(example(ability, row, seed) or example("solve", row, seed))
    return [e for e in made if e is not None]
