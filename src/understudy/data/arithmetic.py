"""Programs that are arithmetic, interpreted step by step and never executed."""

import ast
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from understudy.errors import DataError

Number = int | Fraction
Value = int | Fraction | str

LENGTH, DEPTH, BITS = 4000, 60, 4096
"""Most characters of a program, most levels of brackets, most binary digits of a number."""


def interpret(program: str) -> Value:
    """What a program of arithmetic is worth, exactly: a whole number, a fraction, or a name.

    Read are numbers, `+ - * / // % **`, unary minus, brackets; `abs`, `ceil`, `floor`, `max`,
    `min`, `round` (halves to even), `sum` of a list; `more(Mia=46, Noor=14)` and `less(...)`, whose
    value is a name; and lines of `name = expression`, the last line, or the variable `answer`,
    being the result. Numbers are rational: `1/3*3` is 1.

    Raises:
        DataError: anything else, a division by zero, two equal numbers where more or less is asked,
            or a program beyond `LENGTH`, `DEPTH` or `BITS`.
    """
    if len(program) > LENGTH:
        raise DataError(f"a program of {len(program)} characters; at most {LENGTH} are interpreted")
    try:
        body = ast.parse(program.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise DataError(f"not a program: {program[:80]!r}") from None
    if not body:
        raise DataError("an empty program")
    known: dict[str, Value] = {}
    for line in body[:-1]:
        _assign(line, known)
    last = body[-1]
    if isinstance(last, ast.Expr):
        return _value(last.value, known, 0)
    name = _assign(last, known)
    return known.get("answer", known[name])


def _assign(line: ast.stmt, known: dict[str, Value]) -> str:
    match line:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            known[name] = _value(value, known, 0)
            return name
    raise DataError(f"a line that is no assignment: {ast.unparse(line)[:80]!r}")


def _value(node: ast.expr, known: Mapping[str, Value], depth: int) -> Value:
    if depth > DEPTH:
        raise DataError(f"brackets more than {DEPTH} deep")
    inside = depth + 1
    match node:
        case ast.Constant(value=int(n)) if not isinstance(n, bool):
            return _bounded(n)
        case ast.Constant(value=float()):
            return _exact(Fraction(ast.unparse(node)))  # 0.1 is a tenth
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
            n = _number(inner, known, inside)
            return -n if isinstance(sign, ast.USub) else n
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _number(left, known, inside), _number(right, known, inside)
            return _step(type(op).__name__, a, b)
        case ast.Call(func=ast.Name(id="more" | "less" as wish), args=[], keywords=[one, other]):
            a, b = (_number(k.value, known, inside) for k in (one, other))
            if a == b or one.arg is None or other.arg is None:
                raise DataError("who has more is asked of two different numbers")
            return one.arg if (a > b) == (wish == "more") else other.arg
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            items = arguments
            if len(items) == 1 and isinstance(items[0], ast.List | ast.Tuple):
                items = items[0].elts
            given = [_number(a, known, inside) for a in items]
            least, most, function = _FUNCTIONS[name]
            if not least <= len(given) <= most:
                raise DataError(f"{name} does not take {len(given)} numbers")
            return _exact(function(*given))
    raise DataError(f"no arithmetic: {ast.unparse(node)[:80]!r}")


def _number(node: ast.expr, known: Mapping[str, Value], depth: int) -> Number:
    value = _value(node, known, depth)
    if isinstance(value, str):
        raise DataError(f"{value!r} is no number")
    return value


def _step(op: str, a: Number, b: Number) -> Number:
    if op in ("Div", "FloorDiv", "Mod") and b == 0:
        raise DataError("a division by zero")
    if op == "Pow":
        if not isinstance(b, int) or abs(b) > BITS or (a == 0 and b < 0):
            raise DataError(f"the power {b} is not interpreted")
        if isinstance(a, int) and abs(a).bit_length() * abs(b) > BITS:
            raise DataError(f"a number of more than {BITS} binary digits")
        if isinstance(a, Fraction) and _size(a) * abs(b) > BITS:
            raise DataError(f"a number of more than {BITS} binary digits")
        return _exact(Fraction(a) ** b)
    if op not in _STEPS:
        raise DataError(f"no arithmetic: {op}")
    return _exact(_STEPS[op](Fraction(a), Fraction(b)))


_STEPS: Mapping[str, Callable[[Fraction, Fraction], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mult": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "FloorDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
}
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, abs),
    "ceil": (1, 1, lambda a: -(-a // 1)),
    "floor": (1, 1, lambda a: a // 1),
    "round": (1, 1, round),
    "int": (1, 1, int),
    "max": (1, 64, max),
    "min": (1, 64, min),
    "sum": (0, 64, lambda *a: sum(a)),
}


def _size(n: Fraction) -> int:
    return max(abs(n.numerator).bit_length(), n.denominator.bit_length())


def _exact(n: Any) -> Number:
    """A whole number where it is one."""
    n = Fraction(n)
    return _bounded(n.numerator) if n.denominator == 1 else _bounded(n)


def _bounded(n: Any) -> Any:
    if _size(Fraction(n)) > BITS:
        raise DataError(f"a number of more than {BITS} binary digits")
    return n
