"""The operations of a written rationale as one program: its columns are dropped.

`347+285:7+5=12,4+8+1=13,3+2+1=6=632;632*2:...=1264#1264` is `(347+285)*2`. What is to be worked
out is the rationale's, with its errors of reading; how much it comes to, the interpreter's.
"""

import ast
import re
from dataclasses import dataclass

from understudy.errors import DataError
from understudy.tasks.school.check import answer_of
from understudy.tasks.school.program import evaluate

_STEP = re.compile(r"(\d+)([+\-*/])(\d+)[:=].*?(\d+)(?:r(\d+))?")
_WHO = re.compile(r" ?([A-Za-z]+) (\d+), ([A-Za-z]+) (\d+):.*, (more|less) [A-Za-z]+")


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What a step came to, and the expressions that are worth it: (value, expression)."""

    worth: tuple[tuple[str, str], ...]

    def of(self, value: str) -> str | None:
        return dict(reversed(self.worth)).get(value)


def program_of(text: str) -> str:
    """The program of a rationale with its answer.

    A number that an earlier step came to, and that no step has used since, stands for that step. A
    division with a remainder is `//`, `%` where the remainder goes on, `ceil` where one is added.

    Raises:
        DataError: a text that is no rationale, or whose operations have no value.
    """
    rationale, _, _ = text.partition("#")
    said = answer_of(text)
    if said is None:
        raise DataError(f"no answer after #: {text!r}")
    open_: list[_Result] = []
    for step in rationale.split(";"):
        open_.append(_read(step, open_))
    last = open_[-1]
    program = _tidy(last.of(said) or last.worth[0][1])
    evaluate(program)
    return program


def _read(step: str, open_: list[_Result]) -> _Result:
    who = _WHO.fullmatch(step)
    if who is not None:
        first, a, second, b, wish = who.groups()
        expressions = _operands(a, b, open_)
        call = f"{wish}({first}={expressions[0]},{second}={expressions[1]})"
        return _Result(worth=((first, call), (second, call)))
    found = _STEP.fullmatch(step.strip())
    if found is None:
        raise DataError(f"no step of a calculation: {step!r}")
    a, op, b, value, rest = found.groups()
    if op == "+" and b == "1" and open_:
        # one more than a quotient that leaves a remainder: so many are needed
        up = open_[-1].of(f"ceil {a}")
        if up is not None:
            open_.pop()
            return _Result(worth=((value, up),))
    one, other = _operands(a, b, open_)
    if op != "/":
        return _Result(worth=((value, f"({one}{op}{other})"),))
    if rest is None or int(rest) == 0:
        return _Result(worth=((value, f"({one}/{other})"),))
    return _Result(
        worth=(
            (value, f"({one}//{other})"),
            (rest, f"({one}%{other})"),
            (f"ceil {value}", f"ceil({one}/{other})"),
        )
    )


def _operands(a: str, b: str, open_: list[_Result]) -> tuple[str, str]:
    """Both numbers, each as the last open step that came to it; that step is then used up.

    Of two equal numbers and one such step, the first number is the step's.
    """
    found: dict[str, str] = {"a": a, "b": b}
    twice = a == b and sum(r.of(a) is not None for r in open_) == 1
    for side, value in (("a", a),) if twice else (("b", b), ("a", a)):
        for place in range(len(open_) - 1, -1, -1):
            known = open_[place].of(value)
            if known is not None:
                found[side] = known
                del open_[place]
                break
    return found["a"], found["b"]


def _tidy(program: str) -> str:
    """Without the brackets and spaces that it can do without."""
    try:
        tree = ast.parse(program, mode="eval")
    except SyntaxError:
        raise DataError(f"not a program: {program!r}") from None
    return ast.unparse(tree).replace(" ", "")
