"""Addition, subtraction, multiplication, division, comparison, two steps."""

from understudy.tasks.school.shape import Mistake, Shape, Slots

ONE, TEEN, TWO, THREE = range(2, 10), range(2, 21), range(10, 100), range(100, 1000)

PLUS = Mistake(name="added instead of subtracting", program="{a}+{b}")
MINUS = Mistake(name="subtracted instead of adding", program="{a}-{b}")
CARRY = Mistake(name="forgot to carry", program="{a}+{b}", fault="carry")
BORROW = Mistake(name="took the smaller digit from the larger", program="{a}-{b}", fault="borrow")
STOPPED = "left out the last step"


def _quotient(slots: Slots) -> Slots | None:
    q, b, r = (int(slots.get(k, 0)) for k in "qbr")
    return {**slots, "a": q * b + r} if r < b else None


def _back(slots: Slots) -> Slots:
    a, b = int(slots["a"]), int(slots["b"])
    return {**slots, "q": a // b, "r": a % b}


def _rest(slots: Slots) -> bool:
    return int(slots["a"]) % int(slots["b"]) > 0


def _even(slots: Slots) -> bool:
    return int(slots["a"]) % int(slots["b"]) == 0


_QUOTIENTS = {
    1: {"q": range(2, 10), "b": ONE},
    2: {"q": range(11, 50), "b": ONE},
    3: {"q": range(50, 200), "b": ONE},
}
_WITH_REST = {level: {**ranges, "r": range(1, 9)} for level, ranges in _QUOTIENTS.items()}
_TIMES = Mistake(name="multiplied instead of dividing", program="{a}*{b}")
_AWAY = Mistake(name="subtracted instead of dividing", program="{a}-{b}")

_SUM = {
    1: {"a": range(2, 100), "b": ONE},
    2: {"a": TWO, "b": TWO},
    3: {"a": THREE, "b": range(10, 1000)},
}
_DIFFERENCE = {1: {"a": range(11, 100), "b": ONE}, 2: _SUM[2], 3: _SUM[3]}

ADD = (
    Shape(
        skill="add", name="sum", program="{a}+{b}", levels=_SUM,
        templates=(
            "{A} has {a} {n}. {B} gives {A} {b} more. How many {n} does {A} have now?",
            "{A} finds {a} {n} and then {b} more. How many {n} is that in all?",
            "There are {a} {n} in a box. {A} puts in {b} more. How many {n} are in the box?",
            "{A} has {a} {n} and {B} has {b} {n}. How many {n} do they have together?",
        ),
        held=("A bag with {a} {n} and a bag with {b} {n} are put together. How many {n} is that?",),
        mistakes=(CARRY, MINUS),
    ),
    Shape(
        skill="add", name="three", program="{a}+{b}+{c}", novel=True,
        levels={
            1: {"a": ONE, "b": ONE, "c": ONE},
            2: {"a": TWO, "b": TWO, "c": TWO},
            3: {"a": THREE, "b": THREE, "c": THREE},
        },
        templates=("{A} finds {a} {n}, then {b} more and then {c} more. How many {n} is that in all?",),
        mistakes=(Mistake(name=STOPPED, program="{a}+{b}"),),
    ),
)  # fmt: skip

SUBTRACT = (
    Shape(
        skill="subtract", name="left", program="{a}-{b}", levels=_DIFFERENCE,
        templates=(
            "{A} has {a} {n} and gives {b} to {B}. How many {n} does {A} have left?",
            "There are {a} {n} in a box. {A} takes out {b}. How many {n} are left in the box?",
            "{A} had {a} {n} and lost {b} of them. How many {n} are left?",
        ),
        held=("Of {a} {n} in a shop, {b} are sold. How many {n} are still there?",),
        mistakes=(BORROW, PLUS),
    ),
    Shape(
        skill="subtract", name="missing", program="{a}-{b}", levels=_DIFFERENCE,
        templates=(
            "{A} wants {a} {n} and has {b}. How many more {n} does {A} need?",
            "{A} and {B} have {a} {n} together. {A} has {b} of them. How many {n} does {B} have?",
        ),
        mistakes=(BORROW, PLUS),
    ),
    Shape(
        skill="subtract", name="twice", program="{a}-{b}-{c}", novel=True,
        levels={
            1: {"a": range(20, 100), "b": ONE, "c": ONE},
            2: {"a": range(40, 100), "b": range(10, 40), "c": range(10, 40)},
            3: {"a": THREE, "b": range(40, 500), "c": range(40, 500)},
        },
        templates=("{A} has {a} {n} and gives {b} to {B}. Then {A} loses {c}. How many {n} are left?",),
        mistakes=(Mistake(name=STOPPED, program="{a}-{b}"),),
    ),
)  # fmt: skip

_PRODUCT = {
    1: {"a": ONE, "b": ONE},
    2: {"a": range(11, 100), "b": ONE},
    3: {"a": range(101, 1000), "b": ONE},
}

MULTIPLY = (
    Shape(
        skill="multiply", name="groups", program="{a}*{b}", levels=_PRODUCT,
        templates=(
            "There are {a} {n} in each box. How many {n} are in {b} boxes?",
            "{A} buys {b} packs with {a} {n} in each. How many {n} does {A} buy?",
            "{b} friends bring {a} {n} each. How many {n} do they bring in all?",
        ),
        held=("A shelf holds {a} {n}. How many {n} do {b} shelves hold?",),
        mistakes=(
            Mistake(name="forgot to carry", program="{a}*{b}", fault="carry"),
            Mistake(name="added instead of multiplying", program="{a}+{b}"),
            Mistake(name="subtracted instead of multiplying", program="{a}-{b}"),
        ),
    ),
    Shape(
        skill="multiply", name="thrice", program="{a}*{b}*{c}", novel=True,
        levels={
            1: {"a": range(2, 4), "b": range(2, 4), "c": ONE},
            2: {"a": range(4, 10), "b": ONE, "c": ONE},
            3: {"a": range(11, 100), "b": ONE, "c": ONE},
        },
        templates=("There are {a} {n} in each bag and {b} bags in each box. How many {n} are in {c} boxes?",),
        mistakes=(Mistake(name=STOPPED, program="{a}*{b}"),),
    ),
)  # fmt: skip

DIVIDE = (
    Shape(
        skill="divide", name="share", program="{a}/{b}", levels=_QUOTIENTS, plan="{q}*{b}",
        make=_quotient, back=_back, where=_even,
        templates=(
            "{a} {n} are shared equally by {b} friends. How many {n} does each friend get?",
            "{A} puts {a} {n} into {b} boxes, the same in each. How many {n} are in each box?",
        ),
        held=("{b} children split {a} {n} evenly. How many {n} are there for each child?",),
        mistakes=(_TIMES, _AWAY),
    ),
    Shape(
        skill="divide", name="full", program="{a}//{b}", levels=_WITH_REST, plan="{q}*{b};{q}*{b}+{r}",
        make=_quotient, back=_back, where=_rest,
        templates=(
            "{A} packs {a} {n} into boxes of {b}. How many full boxes does {A} get?",
            "A bag holds {b} {n}. How many bags can {A} fill with {a} {n}?",
        ),
        mistakes=(Mistake(name="gave the remainder", program="{a}%{b}"), _TIMES, _AWAY),
    ),
    Shape(
        skill="divide", name="over", program="{a}%{b}", levels=_WITH_REST, plan="{q}*{b};{q}*{b}+{r}",
        make=_quotient, back=_back, where=_rest,
        templates=(
            "{A} packs {a} {n} into boxes of {b}. How many {n} are left over?",
            "{a} {n} are shared equally by {b} friends. How many {n} remain?",
        ),
        mistakes=(Mistake(name="gave the quotient", program="{a}//{b}"), _TIMES, _AWAY),
    ),
    Shape(
        skill="divide", name="needed", program="ceil({a}/{b})", levels=_WITH_REST, plan="{q}*{b};{q}*{b}+{r}",
        make=_quotient, back=_back, where=_rest,
        templates=(
            "A box holds {b} {n}. How many boxes does {A} need for {a} {n}?",
            "{A} carries {b} {n} at a time. How often must {A} walk to carry all {a} {n}?",
        ),
        mistakes=(
            Mistake(name="dropped the remainder", program="{a}//{b}"),
            Mistake(name="gave the remainder", program="{a}%{b}"), _TIMES, _AWAY,
        ),
    ),
    Shape(
        skill="divide", name="pooled", program="({a}+{c})/{b}", novel=True,
        levels={
            1: {"a": ONE, "c": ONE, "b": ONE},
            2: {"a": TWO, "c": TWO, "b": ONE},
            3: {"a": THREE, "c": THREE, "b": ONE},
        },
        templates=("{A} has {a} {n} and finds {c} more. {b} friends share them equally. How many {n} does each friend get?",),
        mistakes=(Mistake(name=STOPPED, program="{a}+{c}"),),
    ),
)  # fmt: skip

_WRONG_ONE = Mistake(name="took the wrong one of the two", program="less({A}={a},{B}={b})")
_MORE_LEVELS = {1: {"a": TWO, "b": TWO}, 2: {"a": THREE, "b": THREE}}


def _differ(slots: Slots) -> bool:
    return slots["a"] != slots["b"]


COMPARE = (
    Shape(
        skill="compare", name="more", program="more({A}={a},{B}={b})", levels=_MORE_LEVELS, where=_differ,
        templates=(
            "{A} has {a} {n} and {B} has {b} {n}. Who has more {n}?",
            "{A} counts {a} {n}. {B} counts {b} {n}. Who counts more {n}?",
        ),
        held=("With {a} {n} for {A} and {b} {n} for {B}, who owns more {n}?",),
        mistakes=(_WRONG_ONE,),
    ),
    Shape(
        skill="compare", name="less", program="less({A}={a},{B}={b})", levels=_MORE_LEVELS, where=_differ,
        templates=(
            "{A} has {a} {n} and {B} has {b} {n}. Who has fewer {n}?",
            "{A} counts {a} {n}. {B} counts {b} {n}. Who counts fewer {n}?",
        ),
        mistakes=(Mistake(name="took the wrong one of the two", program="more({A}={a},{B}={b})"),),
    ),
    Shape(
        skill="compare", name="gap", program="{a}-{b}",
        levels={1: _DIFFERENCE[1], 2: _DIFFERENCE[2], 3: _DIFFERENCE[3]},
        templates=(
            "{A} has {a} {n} and {B} has {b} {n}. How many more {n} does {A} have than {B}?",
            "{A} has {b} {n} and {B} has {a} {n}. How many fewer {n} does {A} have than {B}?",
        ),
        held=("{B} owns {b} {n} and {A} owns {a} {n}. By how many {n} is {A} ahead?",),
        mistakes=(BORROW, PLUS),
    ),
    Shape(
        skill="compare", name="total", program="more({A}={a}+{b},{B}={c})",
        levels={3: {"a": TWO, "b": TWO, "c": range(20, 200)}},
        templates=(
            "{A} has {a} {n} and gets {b} more. {B} has {c} {n}. Who has more {n} now?",
            "{A} finds {a} {n} and then {b} more. {B} finds {c} {n}. Who finds more {n}?",
        ),
        mistakes=(Mistake(name="took the wrong one of the two", program="less({A}={a}+{b},{B}={c})"),),
    ),
    Shape(
        skill="compare", name="rest", program="more({A}={a}-{b},{B}={c})", novel=True,
        levels={
            1: {"a": TWO, "b": ONE, "c": ONE},
            2: {"a": TWO, "b": ONE, "c": TWO},
            3: {"a": TWO, "b": TWO, "c": range(10, 90)},
        },
        templates=("{A} has {a} {n} and gives away {b}. {B} has {c} {n}. Who has more {n} now?",),
        mistakes=(Mistake(name="took the wrong one of the two", program="less({A}={a}-{b},{B}={c})"),),
    ),
)  # fmt: skip
