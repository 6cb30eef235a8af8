"""Arithmetic written out column by column, units first: the rationale of one step.

Each function takes whole numbers from 0 and returns (text, result), the text beginning with the
operands restated: `347+285:7+5=12,4+8+1=13,3+2+1=6=632`. A step of one column is `7+5=12`.
"""

Step = tuple[str, int]


def add(a: int, b: int) -> Step:
    """`a+b`; a carry stands as a last summand."""
    if a < 10 and b < 10:
        return f"{a}+{b}={a + b}", a + b
    columns, carry = [], 0
    for pair in _columns(a, b):
        terms = [d for d in pair if d is not None] + ([carry] if carry else [])
        total, written = sum(terms), "+".join(map(str, terms))
        columns.append(f"{written}={total}" if len(terms) > 1 else written)
        carry = total // 10
    return f"{a}+{b}:{','.join(columns)}={a + b}", a + b


def subtract(a: int, b: int) -> Step:
    """`a-b` for a >= b; a column that borrows ends in `b`, and the next one takes 1 away."""
    if a < 20 and b < 10 and a - b < 10:
        return f"{a}-{b}={a - b}", a - b
    columns, borrow = [], 0
    for top, bottom in _columns(a, b):
        top, away = top or 0, (bottom or 0) + borrow
        lend = top < away
        start = top + 10 * lend
        terms = [start] + ([] if bottom is None else [bottom]) + ([1] if borrow else [])
        written = "-".join(map(str, terms))
        columns.append((f"{written}={start - away}" if len(terms) > 1 else written) + "b" * lend)
        borrow = int(lend)
    return f"{a}-{b}:{','.join(columns)}={a - b}", a - b


def multiply(a: int, b: int) -> Step:
    """`a*b` where a factor has one digit or is a power of ten; any other at once."""
    if a < 10 <= b:
        text, result = multiply(b, a)
        return f"{a}*{b}={text}", result
    if a < 10 or b >= 10:
        return f"{a}*{b}={a * b}", a * b
    columns, carry = [], 0
    for digit in reversed(str(a)):
        total = int(digit) * b + carry
        columns.append(f"{digit}*{b}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return f"{a}*{b}:{','.join(columns)}={a * b}", a * b


def divide(a: int, b: int) -> Step:
    """`a/b` by long division with remainders, ending in `=79r2`; returns the quotient."""
    if power_of_ten(b) and a % b == 0:
        return f"{a}/{b}={a // b}r0", a // b
    if b >= 10 and a % 10 == 0 and b % 10 == 0:
        text, result = divide(a // 10, b // 10)
        return f"{a}/{b}={text}", result
    columns, left, started = [], 0, False
    for i, digit in enumerate(str(a)):
        left = 10 * left + int(digit)
        if left < b and not started and i < len(str(a)) - 1:
            continue
        started = True
        columns.append(f"{left}:{left // b}*{b}={left // b * b}r{left % b}")
        left %= b
    return f"{a}/{b}={','.join(columns)}={a // b}r{a % b}", a // b


def order(a: int, b: int) -> str:
    """How `a` and `b` compare, from the first digit on up to the one that decides."""
    x, y = str(a), str(b)
    if len(x) != len(y):
        return f"{len(x)}d{'<' if a < b else '>'}{len(y)}d"
    seen = []
    for p, q in zip(x, y, strict=True):
        seen.append(f"{p}{'=' if p == q else '<' if p < q else '>'}{q}")
        if p != q:
            break
    return ",".join(seen)


def add_without_carry(a: int, b: int) -> int:
    """The last digit of each column alone."""
    digits = [((x or 0) + (y or 0)) % 10 for x, y in _columns(a, b)]
    return int("".join(map(str, reversed(digits))))


def subtract_without_borrow(a: int, b: int) -> int:
    """In each column the smaller digit from the larger."""
    digits = [abs((x or 0) - (y or 0)) for x, y in _columns(a, b)]
    return int("".join(map(str, reversed(digits))))


def multiply_without_carry(a: int, b: int) -> int:
    """The last digit of each column's product alone, the first column's whole."""
    if a < 10:
        a, b = b, a
    if a < 10:
        return a * b
    first, *rest = str(a)
    return int(str(int(first) * b) + "".join(str(int(d) * b % 10) for d in rest))


def power_of_ten(n: int) -> bool:
    """10, 100, 1000, ..."""
    return n >= 10 and set(str(n)[1:]) == {"0"} and str(n)[0] == "1"


def _columns(a: int, b: int) -> list[tuple[int | None, int | None]]:
    x, y = str(a)[::-1], str(b)[::-1]
    return [
        (int(x[i]) if i < len(x) else None, int(y[i]) if i < len(y) else None)
        for i in range(max(len(x), len(y)))
    ]
