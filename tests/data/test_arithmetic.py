"""Arithmetic that is interpreted: the same as Python's where Python is exact, and never more."""

from fractions import Fraction
from random import Random

import pytest

from understudy.data.arithmetic import interpret
from understudy.errors import DataError
from understudy.tasks.school.program import evaluate
from understudy.tasks.school.rows import rows


def test_gold_programs_of_the_school() -> None:
    for row in rows(600, 3):
        assert str(interpret(row.program)) == row.answer
        assert interpret(row.program) == evaluate(row.program)


def test_against_python() -> None:
    random = Random(0)

    def expression(depth: int) -> str:
        if depth == 0:
            return f"Fraction({random.randint(1, 99)})"
        op = random.choice(["+", "-", "*", "/", "//", "%"])
        return f"({expression(depth - 1)}{op}{expression(depth - 1)})"

    for _ in range(300):
        text = expression(random.randint(1, 4))
        try:
            expected = eval(text, {"Fraction": Fraction})
        except ZeroDivisionError:
            with pytest.raises(DataError, match="zero"):
                interpret(text.replace("Fraction", ""))
            continue
        assert interpret(text.replace("Fraction", "")) == expected


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("1/3*3", 1), ("0.1+0.2", Fraction(3, 10)), ("2**10", 1024), ("2**-1", Fraction(1, 2)),
        ("ceil(7/2)", 4), ("floor(-7/2)", -4), ("round(5/2)", 2), ("max(3, 9, 4)", 9),
        ("sum([1, 2, 3])", 6), ("abs(-4)", 4), ("more(Mia=46, Noor=14)", "Mia"),
        ("less(Mia=46, Noor=7*2)", "Noor"), ("a = 3\nb = a*4\nb - 1", 11),
        ("x = 5\nanswer = x * 2", 10), ("answer = 4\nrest = 9", 4),
    ],
)  # fmt: skip
def test_values(program: str, value: object) -> None:
    assert interpret(program) == value


@pytest.mark.parametrize(
    "program",
    [
        "", "1+", "__import__('os')", "open('a')", "(1).__class__", "[1][0]", "lambda: 1",
        "x", "for i in [1]: pass", "import os", "1 if 1 else 2", "'a'*3", "True", "f(1)",
        "more(Mia=1, Noor=1)", "1/0", "5 % 0", "0**-1", "2**5000", "9**9**9", "1.5**4000",
        "+".join(["1"] * 3000), "(" * 300 + "1" + ")" * 300, "-" * 100 + "1", "max()", "1@2",
    ],
)  # fmt: skip
def test_nothing_else(program: str) -> None:
    with pytest.raises(DataError):
        interpret(program)
