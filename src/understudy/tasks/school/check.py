"""What a model wrote, checked by the world's own rules; no model judges here.

Everything takes text as a model gave it. A text that is not of the expected form is wrong, never
an error.
"""

import re
from dataclasses import dataclass

from understudy.tasks.school.program import numbers
from understudy.tasks.school.rows import Parsed, parse
from understudy.tasks.school.words import NAMES, NOUNS


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Whether a text passes, why not, and what it was read as."""

    valid: bool
    reason: str = ""
    problem: Parsed | None = None

    def __bool__(self) -> bool:
        return self.valid


def answer_of(text: str) -> str | None:
    """The answer after the first `#` (up to a `?`, or the line's end); None where there is none."""
    found = re.search(r"#\s*([^#?\n]*)", text)
    return (found[1].strip() or None) if found else None


def exact_match(text: str, answer: str) -> bool:
    """Whether the answer of a solution is this one."""
    return answer_of(text) == answer.strip()


def solves(text: str, question: str) -> Checked:
    """Whether a solution ends in the right answer to a question of this world."""
    problem = parse(question)
    if problem is None:
        return Checked(valid=False, reason="the question is no problem of this world")
    said = answer_of(text)
    if said is None:
        return Checked(valid=False, reason="no answer after #", problem=problem)
    if said != problem.answer:
        return Checked(valid=False, reason=f"{said}, not {problem.answer}", problem=problem)
    return Checked(valid=True, problem=problem)


def question_of(text: str) -> str:
    """The question of a written problem: what stands after the plan and its `|`."""
    return text.rpartition("|")[2].strip()


def check_written(
    text: str,
    *,
    skill: str | None = None,
    level: int | None = None,
    name: str | None = None,
    noun: str | None = None,
) -> Checked:
    """Whether a written problem is one of this world, solvable, and what was asked for.

    name and noun are looked for where the sentence has people or things at all.
    """
    problem = parse(question_of(text))
    if problem is None:
        return Checked(valid=False, reason="no problem of this world, or it cannot be solved")
    if skill is not None and problem.skill != skill:
        return Checked(valid=False, reason=f"skill {problem.skill}, not {skill}", problem=problem)
    if level is not None and problem.level != level:
        return Checked(valid=False, reason=f"level {problem.level}, not {level}", problem=problem)
    people = [problem.slots[k] for k in ("A", "B") if k in problem.slots]
    if name is not None and people and name not in people:
        return Checked(valid=False, reason=f"{name} does not occur", problem=problem)
    if noun is not None and problem.slots.get("n", noun) != noun:
        return Checked(valid=False, reason=f"not about {noun}", problem=problem)
    return Checked(valid=True, problem=problem)


def mistake_of(text: str) -> str | None:
    """The mistake that an explanation names: what follows `?` and the given answer."""
    found = re.search(r"\?\s*\w+\s+([^\n]+)$", text.strip())
    return found[1].strip() if found else None


def check_explanation(text: str, question: str, given: str) -> Checked:
    """Whether an explanation names the procedure that leads from the question to `given`."""
    problem = parse(question)
    if problem is None:
        return Checked(valid=False, reason="the question is no problem of this world")
    right = {e.answer: e.name for e in problem.errors}.get(given.strip())
    if right is None:
        reason = f"no typical mistake leads to {given}"
        return Checked(valid=False, reason=reason, problem=problem)
    said = mistake_of(text)
    if said != right:
        return Checked(valid=False, reason=f"{said!r}, not {right!r}", problem=problem)
    return Checked(valid=True, problem=problem)


def verdict_of(text: str) -> str | None:
    """`right` or `wrong`: the last word of a grade; None where it is neither."""
    word = text.strip().rpartition(" ")[2]
    return word if word in ("right", "wrong") else None


def check_grade(text: str, question: str, given: str) -> Checked:
    """Whether the verdict on an answer is the true one."""
    problem = parse(question)
    if problem is None:
        return Checked(valid=False, reason="the question is no problem of this world")
    truth = "right" if given.strip() == problem.answer else "wrong"
    said = verdict_of(text)
    if said != truth:
        return Checked(valid=False, reason=f"{said}, and it is {truth}", problem=problem)
    return Checked(valid=True, problem=problem)


_EQUATION = re.compile(r"(?<![\d*+\-/])(\d+(?:[+*\-]\d+)+)=(\d+)(?!\d*[*/+\-])")
_DIGIT = re.compile(r"(\d+):(\d+)\*(\d+)=(\d+)r(\d+)")
_WHOLE = re.compile(r"(\d+)([+\-*/])(\d+)(?::|=(?=\d+[*/:])).*=(\d+)(?:r(\d+))?")


def wrong_steps(rationale: str) -> list[str]:
    """The equations of a rationale that are not true, as they stand there; [] where all are.

    Looks at every column (`4+8+1=13`, `12-7=5b`), every digit of a division (`39:7*5=35r4`) and
    every step as a whole (`347+285:...=632`).
    """
    wrong = []
    for step in re.split(r"[;#]", rationale):
        for found in _EQUATION.finditer(step):
            if _value(found[1]) != int(found[2]):
                wrong.append(found[0])
        for found in _DIGIT.finditer(step):
            n, q, b, product, left = (int(x) for x in found.groups())
            if q * b != product or product + left != n or left >= b:
                wrong.append(found[0])
        whole = _WHOLE.fullmatch(step.strip())
        if whole is not None:
            a, op, b, result, left = whole.groups()
            if op == "/":
                good = int(b) > 0 and divmod(int(a), int(b)) == (int(result), int(left or 0))
            else:
                good = _value(a + op + b) == int(result)
            if not good:
                wrong.append(step.strip())
    return wrong


def _value(expression: str) -> int:
    """Sums of products of whole numbers, by hand: nothing that a model wrote is evaluated."""
    total = 0
    for sign, term in re.findall(r"([+\-]?)(\d+(?:\*\d+)*)", expression):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


def mentions(question: str) -> dict[str, list[str]]:
    """People, things and numbers that occur in a text; for statistics of what is written."""
    words = re.findall(r"[A-Za-z]+|\d+", question)
    return {
        "names": [w for w in words if w in NAMES],
        "nouns": [w for w in words if w in NOUNS],
        "numbers": [w for w in words if w.isdigit()],
    }


def same_problem(one: str, other: str) -> bool:
    """Whether two questions ask for the same working: one skill, one set of numbers."""
    a, b = parse(one), parse(other)
    return (
        a is not None
        and b is not None
        and (a.skill, a.shape) == (b.skill, b.shape)
        and numbers(a.program) == numbers(b.program)
    )
