"""Per cent, fractions, sequences, rates."""

from math import gcd

from understudy.tasks.school.shape import Mistake, Shape, Slots
from understudy.tasks.school.skills_basic import ONE, STOPPED, THREE


def _percent(slots: Slots) -> Slots:
    p = int(slots["p"])
    d = {50: 2, 25: 4, 75: 4}.get(p, 10)
    return {**slots, "d": d, "k": p * d // 100}


def _hundred(slots: Slots) -> Slots:
    return {**slots, "b": int(slots["m"]) * int(_percent(slots)["d"])}


def _parts(slots: Slots) -> Slots | None:
    d, b = int(_percent(slots)["d"]), int(slots["b"])
    return {**slots, "m": b // d} if b % d == 0 else None


_SHARES = (20, 30, 40, 60, 70, 75, 80, 90)
_OF = (
    "What is {p}% of {b}?",
    "{A} has {b} {n}. {p}% of them are red. How many {n} are red?",
    "{A} gives {p}% of {b} {n} to {B}. How many {n} does {B} get?",
)
_OF_HELD = ("In a shop with {b} {n}, {p}% are sold. How many {n} are sold?",)

PERCENT = (
    Shape(
        skill="percent", name="part", program="{b}/{d}", derive=_percent, plan="{m}*{d}",
        levels={1: {"p": (10, 25, 50), "m": range(2, 50)}}, make=_hundred, back=_parts,
        templates=_OF, held=_OF_HELD,
        mistakes=(
            Mistake(name="took away the number of per cent", program="{b}-{p}"),
            Mistake(name="gave the rest", program="{b}-{b}/{d}"),
        ),
    ),
    Shape(
        skill="percent", name="parts", program="{b}/{d}*{k}", derive=_percent, plan="{m}*{d}",
        levels={2: {"p": _SHARES, "m": range(2, 50)}, 3: {"p": _SHARES, "m": range(50, 120)}},
        make=_hundred, back=_parts, templates=_OF, held=_OF_HELD,
        mistakes=(
            Mistake(name=STOPPED, program="{b}/{d}"),
            Mistake(name="took away the number of per cent", program="{b}-{p}"),
            Mistake(name="gave the rest", program="{b}-{b}/{d}*{k}"),
        ),
    ),
    Shape(
        skill="percent", name="off", program="{b}-{b}/{d}", derive=_percent, plan="{m}*{d}",
        levels={3: {"p": (10, 25, 50), "m": range(2, 100)}}, make=_hundred, back=_parts,
        templates=(
            "A price of {b} coins falls by {p}%. What is the new price?",
            "{A} has {b} {n} and loses {p}% of them. How many {n} are left?",
        ),
        mistakes=(
            Mistake(name="took away the number of per cent", program="{b}-{p}"),
            Mistake(name=STOPPED, program="{b}/{d}"),
            Mistake(name="added instead of subtracting", program="{b}+{b}/{d}"),
        ),
    ),
    Shape(
        skill="percent", name="rise", program="{b}+{b}/{d}", derive=_percent, plan="{m}*{d}", novel=True,
        levels={3: {"p": (10, 25, 50), "m": range(2, 100)}}, make=_hundred, back=_parts,
        templates=("A price of {b} coins goes up by {p}%. What is the new price?",),
        mistakes=(Mistake(name=STOPPED, program="{b}/{d}"),),
    ),
)  # fmt: skip


def _divisible(slots: Slots) -> Slots:
    return {**slots, "c": int(slots["q"]) * int(slots["b"])}


def _quotient(slots: Slots) -> Slots | None:
    b, c = int(slots["b"]), int(slots["c"])
    return {**slots, "q": c // b} if c % b == 0 else None


def _proper(slots: Slots) -> bool:
    a, b = int(slots["a"]), int(slots["b"])
    return a < b and gcd(a, b) == 1


_FRACTION_OF = (
    "What is {a}/{b} of {c}?",
    "{A} gives {a}/{b} of {c} {n} to {B}. How many {n} does {B} get?",
    "{a}/{b} of {c} {n} are blue. How many {n} are blue?",
)
_FRACTION_HELD = ("{A} uses up {a}/{b} of {c} {n}. How many {n} does {A} use?",)

FRACTION = (
    Shape(
        skill="fraction", name="unit", program="{c}/{b}", plan="{q}*{b}",
        levels={1: {"a": (1,), "b": ONE, "q": range(2, 20)}}, make=_divisible, back=_quotient,
        where=_proper, templates=_FRACTION_OF, held=_FRACTION_HELD,
        mistakes=(
            Mistake(name="took away the lower number", program="{c}-{b}"),
            Mistake(name="gave the rest", program="{c}-{c}/{b}"),
        ),
    ),
    Shape(
        skill="fraction", name="several", program="{c}/{b}*{a}", plan="{q}*{b}",
        levels={2: {"a": ONE, "b": ONE, "q": range(2, 13)}, 3: {"a": ONE, "b": ONE, "q": range(13, 80)}},
        make=_divisible, back=_quotient, where=_proper, templates=_FRACTION_OF, held=_FRACTION_HELD,
        mistakes=(
            Mistake(name=STOPPED, program="{c}/{b}"),
            Mistake(name="took away the lower number", program="{c}-{b}"),
            Mistake(name="gave the rest", program="{c}-{c}/{b}*{a}"),
        ),
    ),
    Shape(
        skill="fraction", name="rest", program="{c}-{c}/{b}", plan="{q}*{b}",
        levels={3: {"a": (1,), "b": ONE, "q": range(2, 80)}}, make=_divisible, back=_quotient, where=_proper,
        templates=("{A} eats {a}/{b} of {c} {n}. How many {n} are left?",),
        mistakes=(
            Mistake(name=STOPPED, program="{c}/{b}"),
            Mistake(name="took away the lower number", program="{c}-{b}"),
        ),
    ),
    Shape(
        skill="fraction", name="plus", program="{c}/{b}+{d}", plan="{q}*{b}", novel=True,
        levels={3: {"a": (1,), "b": ONE, "q": range(2, 80), "d": range(2, 100)}},
        make=_divisible, back=_quotient, where=_proper,
        templates=("{A} gets {a}/{b} of {c} {n} and finds {d} more. How many {n} does {A} have?",),
        mistakes=(Mistake(name=STOPPED, program="{c}/{b}"),),
    ),
)  # fmt: skip


def _terms(slots: Slots, sign: int = 1) -> Slots:
    a, s = int(slots["a"]), sign * int(slots["s"])
    return {**slots, "b": a + s, "c": a + 2 * s, "d": a + 3 * s}


def _powers(slots: Slots) -> Slots:
    a, s = int(slots["a"]), int(slots["s"])
    return {**slots, "b": a * s, "c": a * s * s, "d": a * s**3}


def _steps(slots: Slots) -> Slots | None:
    a, b, c, d = (int(slots[k]) for k in "abcd")
    return {**slots, "s": b - a} if b - a == c - b == d - c else None


def _falls(slots: Slots) -> Slots | None:
    a, b, c, d = (int(slots[k]) for k in "abcd")
    return {**slots, "s": a - b} if a - b == b - c == c - d else None


def _ratio(slots: Slots) -> Slots | None:
    a, b, c, d = (int(slots[k]) for k in "abcd")
    return {**slots, "s": b // a} if b * b == a * c and c * c == b * d and b % a == 0 else None


_NEXT = (
    "Which number comes next: {a}, {b}, {c}, {d}?",
    "{A} writes {a}, {b}, {c}, {d}. What does {A} write next?",
    "The steps are all equal: {a}, {b}, {c}, {d}. What follows?",
)
_NEXT_HELD = ("Continue the row {a}, {b}, {c}, {d}. Which number is it?",)
_SAME = Mistake(name="took one step too many", program="{d}+({d}-{c})*2")

SEQUENCE = (
    Shape(
        skill="sequence", name="rising", program="{d}+({d}-{c})", plan="{a}+{s};{b}+{s};{c}+{s}",
        levels={1: {"a": range(1, 40), "s": ONE}, 2: {"a": range(1, 100), "s": range(11, 40)},
                3: {"a": THREE, "s": range(11, 100)}},
        make=_terms, back=_steps, templates=_NEXT, held=_NEXT_HELD,
        mistakes=(
            _SAME,
            Mistake(name="gave the step", program="{d}-{c}"),
            Mistake(name="went the wrong way", program="{d}-({d}-{c})"),
        ),
    ),
    Shape(
        skill="sequence", name="falling", program="{d}-({c}-{d})", plan="{a}-{s};{b}-{s};{c}-{s}",
        levels={2: {"a": range(50, 100), "s": ONE}, 3: {"a": THREE, "s": range(11, 100)}},
        make=lambda s: _terms(s, -1), back=_falls,
        where=lambda s: int(s["d"]) > 0, templates=_NEXT, held=_NEXT_HELD,
        mistakes=(
            Mistake(name="went the wrong way", program="{d}+({c}-{d})"),
            Mistake(name="gave the step", program="{c}-{d}"),
        ),
    ),
    Shape(
        skill="sequence", name="growing", program="{d}*({b}/{a})", plan="{a}*{s};{b}*{s};{c}*{s}",
        levels={3: {"a": ONE, "s": (2, 3, 4)}}, make=_powers, back=_ratio,
        templates=("Each number is the same times the one before: {a}, {b}, {c}, {d}. What follows?",),
        mistakes=(
            Mistake(name="added instead of multiplying", program="{d}+({d}-{c})"),
            Mistake(name="gave the step", program="{b}/{a}"),
        ),
    ),
    Shape(
        skill="sequence", name="second", program="{d}+({d}-{c})*2", plan="{a}+{s};{b}+{s};{c}+{s}", novel=True,
        levels={2: {"a": range(1, 40), "s": ONE}, 3: {"a": range(1, 100), "s": range(11, 40)}},
        make=_terms, back=_steps, templates=("Which number comes after the next: {a}, {b}, {c}, {d}?",),
        mistakes=(Mistake(name="took one step too few", program="{d}+({d}-{c})"),),
    ),
)  # fmt: skip


RATE = (
    Shape(
        skill="rate", name="amount", program="{a}*{b}",
        levels={1: {"a": ONE, "b": ONE}, 2: {"a": range(11, 100), "b": ONE}, 3: {"a": range(101, 1000), "b": ONE}},
        templates=(
            "{A} makes {a} {n} an hour. How many {n} does {A} make in {b} hours?",
            "A machine packs {a} {n} a minute. How many {n} does it pack in {b} minutes?",
        ),
        held=("Every day {A} sells {a} {n}. How many {n} does {A} sell in {b} days?",),
        mistakes=(
            Mistake(name="forgot to carry", program="{a}*{b}", fault="carry"),
            Mistake(name="added instead of multiplying", program="{a}+{b}"),
        ),
    ),
    Shape(
        skill="rate", name="each", program="{c}/{b}", plan="{q}*{b}",
        levels={1: {"q": ONE, "b": ONE}, 2: {"q": range(11, 80), "b": ONE}},
        make=_divisible, back=_quotient,
        templates=(
            "{A} makes {c} {n} in {b} hours. How many {n} does {A} make an hour?",
            "A machine packs {c} {n} in {b} minutes. How many {n} does it pack a minute?",
        ),
        mistakes=(
            Mistake(name="multiplied instead of dividing", program="{c}*{b}"),
            Mistake(name="subtracted instead of dividing", program="{c}-{b}"),
        ),
    ),
    Shape(
        skill="rate", name="scaled", program="{c}/{b}*{d}", plan="{q}*{b}",
        levels={2: {"q": ONE, "b": ONE, "d": ONE}, 3: {"q": range(11, 80), "b": ONE, "d": ONE}},
        make=_divisible, back=_quotient, where=lambda s: s["b"] != s["d"],
        templates=(
            "{A} makes {c} {n} in {b} hours. How many {n} does {A} make in {d} hours?",
            "{b} boxes hold {c} {n}. How many {n} do {d} boxes hold?",
        ),
        held=("If {b} bags weigh as much as {c} {n}, how many {n} do {d} bags weigh?",),
        mistakes=(
            Mistake(name=STOPPED, program="{c}/{b}"),
            Mistake(name="left out the first step", program="{c}*{d}"),
        ),
    ),
    Shape(
        skill="rate", name="remaining", program="{c}-{a}*{b}", novel=True,
        levels={
            1: {"c": range(82, 100), "a": ONE, "b": ONE},
            2: {"c": THREE, "a": range(11, 100), "b": ONE},
        },
        templates=("{A} has {c} {n} and sells {a} an hour. How many {n} are left after {b} hours?",),
        mistakes=(Mistake(name=STOPPED, program="{a}*{b}"),),
    ),
)  # fmt: skip
