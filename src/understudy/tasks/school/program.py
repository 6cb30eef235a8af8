"""Gold programs: small arithmetic expressions, what they are worth, and how one works them out.

A program is written like Python: whole numbers, `+ - *`, `/` (exact), `//` and `%` (quotient and
remainder), `ceil(a/b)`, and `more(Mia=46,Noor=14)` or `less(...)`, whose value is a name.
"""

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from understudy.errors import DataError
from understudy.tasks.school import columns

Value = int | str
Say = Callable[[str], None] | None


def evaluate(program: str, *, fault: str | None = None) -> Value:
    """What a program is worth: a whole number or a name.

    fault: `carry` leaves out every carry, `borrow` takes in each column the smaller digit from the
    larger: two typical mistakes. A division that does not come out even, a negative number or
    anything else than the operations above is a `DataError`.
    """
    return _walk(_tree(program), fault, None)


def rationale(program: str) -> str:
    """Every step of a program in columns, joined by `;`; its end is the answer's."""
    steps: list[str] = []
    _walk(_tree(program), None, steps.append)
    return ";".join(steps)


def numbers(program: str) -> list[int]:
    """The numbers that stand in a program, in order."""
    return [
        n.value
        for n in ast.walk(_tree(program))
        if isinstance(n, ast.Constant) and isinstance(n.value, int)
    ]


@lru_cache(maxsize=4096)
def _tree(program: str) -> ast.expr:
    try:
        return ast.parse(program, mode="eval").body
    except SyntaxError:
        raise DataError(f"not a program: {program!r}") from None


def _walk(node: Any, fault: str | None, say: Say) -> Value:
    match node:
        case ast.Constant(value=int(n)) if not isinstance(n, bool):
            return n
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _walk(left, fault, say), _walk(right, fault, say)
            if isinstance(a, str) or isinstance(b, str):
                raise DataError("a name is no number")
            return _step(type(op).__name__, a, b, fault, say)
        case ast.Call(func=ast.Name(id="ceil"), args=[ast.BinOp(left=x, op=ast.Div(), right=y)]):
            a, b = _walk(x, fault, say), _walk(y, fault, say)
            if isinstance(a, str) or isinstance(b, str) or b == 0:
                raise DataError("ceil takes two numbers, the second not 0")
            if say is not None:
                say(columns.divide(a, b)[0])
                if a % b:
                    say(columns.add(a // b, 1)[0])
            return -(-a // b)
        case ast.Call(func=ast.Name(id="more" | "less" as wish), keywords=[first, second]):
            return _who(wish, first, second, fault, say)
    raise DataError(f"a program has no {ast.unparse(node)!r}")


def _step(op: str, a: int, b: int, fault: str | None, say: Say) -> int:
    if op == "Add":
        value, work = a + b, columns.add
        value = columns.add_without_carry(a, b) if fault == "carry" else value
    elif op == "Sub":
        if b > a:
            raise DataError(f"{a}-{b} is below 0")
        value, work = a - b, columns.subtract
        value = columns.subtract_without_borrow(a, b) if fault == "borrow" else value
    elif op == "Mult":
        value, work = a * b, columns.multiply
        short = min(a, b) < 10 and not columns.power_of_ten(b)
        value = columns.multiply_without_carry(a, b) if fault == "carry" and short else value
    elif op in ("Div", "FloorDiv", "Mod"):
        if b == 0 or (op == "Div" and a % b):
            raise DataError(f"{a}/{b} does not come out even")
        value, work = a % b if op == "Mod" else a // b, columns.divide
    else:
        raise DataError(f"a program has no {op}")
    if say is not None:
        say(work(a, b)[0])
    return value


def _who(wish: str, first: Any, second: Any, fault: str | None, say: Say) -> str:
    a, b = _walk(first.value, fault, say), _walk(second.value, fault, say)
    if isinstance(a, str) or isinstance(b, str) or a == b:
        raise DataError("who has more is asked of two different numbers")
    name = first.arg if (a > b) == (wish == "more") else second.arg
    if say is not None:
        say(f" {first.arg} {a}, {second.arg} {b}:{columns.order(a, b)}, {wish} {name}")
    return name
