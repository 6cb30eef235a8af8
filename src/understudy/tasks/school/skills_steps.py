"""Two steps, conversion of units, brackets."""

from collections.abc import Mapping

from understudy.tasks.school.shape import Mistake, Ranges, Shape, Slots
from understudy.tasks.school.skills_basic import ONE, STOPPED, THREE, TWO
from understudy.tasks.school.words import UNITS

_SMALL = {"a": range(5, 21), "b": ONE, "c": ONE}

TWO_STEP = (
    Shape(
        skill="two_step", name="add_sub", program="{a}+{b}-{c}",
        levels={1: _SMALL, 2: {"a": range(21, 100), "b": TWO, "c": TWO},
                3: {"a": THREE, "b": range(10, 1000), "c": range(100, 1000)}},
        templates=(
            "{A} has {a} {n}, gets {b} more and then loses {c}. How many {n} does {A} have now?",
            "There are {a} {n} in a box. {A} puts in {b} and {B} takes out {c}. How many {n} are in the box?",
        ),
        held=("{A} owns {a} {n}, buys {b} and sells {c}. How many {n} does {A} own in the end?",),
        mistakes=(
            Mistake(name=STOPPED, program="{a}+{b}"),
            Mistake(name="left out the first step", program="{a}-{c}"),
            Mistake(name="added instead of subtracting", program="{a}+{b}+{c}"),
        ),
    ),
    Shape(
        skill="two_step", name="mul_add", program="{a}*{b}+{c}",
        levels={1: {"a": ONE, "b": ONE, "c": range(2, 21)}, 2: {"a": range(11, 100), "b": ONE, "c": TWO},
                3: {"a": range(101, 1000), "b": ONE, "c": range(10, 1000)}},
        templates=(
            "{A} buys {b} packs of {a} {n} and has {c} {n} at home. How many {n} is that in all?",
            "There are {a} {n} in each of {b} boxes and {c} {n} on the table. How many {n} are there?",
        ),
        held=("{b} bags hold {a} {n} each, and {A} holds {c} {n}. How many {n} is that together?",),
        mistakes=(
            Mistake(name=STOPPED, program="{a}*{b}"),
            Mistake(name="added instead of multiplying", program="{a}+{b}+{c}"),
            Mistake(name="subtracted instead of adding", program="{a}*{b}-{c}"),
        ),
    ),
    Shape(
        skill="two_step", name="mul_sub", program="{a}*{b}-{c}",
        levels={1: {"a": ONE, "b": ONE, "c": range(2, 21)}, 2: {"a": range(11, 100), "b": ONE, "c": TWO},
                3: {"a": range(101, 1000), "b": ONE, "c": range(10, 1000)}},
        templates=(
            "{A} buys {b} packs of {a} {n} and gives away {c}. How many {n} does {A} have left?",
            "There are {a} {n} in each of {b} boxes. {A} takes {c} away. How many {n} are left?",
        ),
        mistakes=(
            Mistake(name=STOPPED, program="{a}*{b}"),
            Mistake(name="added instead of multiplying", program="{a}+{b}-{c}"),
            Mistake(name="added instead of subtracting", program="{a}*{b}+{c}"),
        ),
    ),
    Shape(
        skill="two_step", name="add_mul", program="({a}+{b})*{c}",
        levels={1: {"a": ONE, "b": ONE, "c": ONE}, 2: {"a": TWO, "b": range(11, 100), "c": ONE},
                3: {"a": THREE, "b": THREE, "c": ONE}},
        templates=(
            "Each of {c} bags has {a} {n} from {A} and {b} {n} from {B}. How many {n} are in the bags?",
            "{A} packs {a} {n} and {b} more into each box. How many {n} are in {c} boxes?",
        ),
        mistakes=(
            Mistake(name=STOPPED, program="{a}+{b}"),
            Mistake(name="left out the first step", program="{a}*{c}"),
            Mistake(name="added instead of multiplying", program="{a}+{b}+{c}"),
        ),
    ),
    Shape(
        skill="two_step", name="sub_mul", program="({a}-{b})*{c}", novel=True,
        levels={1: {"a": range(5, 21), "b": ONE, "c": ONE}, 2: {"a": range(30, 100), "b": TWO, "c": ONE},
                3: {"a": range(300, 1000), "b": THREE, "c": ONE}},
        templates=("{A} takes {b} out of each box of {a} {n}. How many {n} are left in {c} boxes?",),
        mistakes=(
            Mistake(name=STOPPED, program="{a}-{b}"),
            Mistake(name="left out the first step", program="{a}*{c}"),
        ),
    ),
)  # fmt: skip


def _factor(slots: Slots) -> Slots | None:
    f = UNITS.get((str(slots.get("u")), str(slots.get("v"))))
    return None if f is None else {**slots, "f": f}


def _multiple(slots: Slots) -> Slots:
    return {**slots, "a": int(slots["q"]) * UNITS[str(slots["u"]), str(slots["v"])]}


def _whole(slots: Slots) -> Slots | None:
    a, f = int(slots["a"]), int(slots["f"])
    return {**slots, "q": a // f} if a % f == 0 else None


_WRONG_FACTOR = Mistake(name="took ten for the factor", program="{a}*10")
_ODD = (7, 12, 24, 60)
_TENS = (10, 100, 1000)

CONVERT = (
    Shape(
        skill="convert", name="down", program="{a}*{f}", derive=_factor,
        levels={1: {"a": range(2, 100), "f": _TENS}, 2: {"a": ONE, "f": _ODD}},
        make=lambda s: _factor(s), back=lambda s: s,
        templates=(
            "How many {v} are {a} {u}?",
            "{A} needs {a} {u}. How many {v} is that?",
            "Write {a} {u} in {v}.",
        ),
        held=("Turn {a} {u} into {v}.",),
        mistakes=(_WRONG_FACTOR, Mistake(name="added instead of multiplying", program="{a}+{f}")),
    ),
    Shape(
        skill="convert", name="up", program="{a}/{f}", derive=_factor, plan="{q}*{f}",
        levels={2: {"q": range(2, 100), "f": _TENS}, 3: {"q": range(2, 10), "f": (7, 60)}},
        make=_multiple, back=_whole,
        templates=("How many {u} are {a} {v}?", "{A} measures {a} {v}. How many {u} is that?"),
        held=("Turn {a} {v} into {u}.",),
        mistakes=(
            Mistake(name="multiplied instead of dividing", program="{a}*{f}"),
            Mistake(name="subtracted instead of dividing", program="{a}-{f}"),
        ),
    ),
    Shape(
        skill="convert", name="mixed", program="{a}*{f}+{b}", derive=_factor,
        levels={3: {"a": ONE, "b": range(2, 12), "f": (*_ODD, *_TENS)}},
        where=lambda s: int(s["b"]) < int(s["f"]),
        templates=(
            "How many {v} are {a} {u} and {b} {v}?",
            "{A} needs {a} {u} and {b} {v}. How many {v} is that?",
        ),
        mistakes=(
            Mistake(name=STOPPED, program="{a}*{f}"),
            Mistake(name="took ten for the factor", program="{a}*10+{b}"),
            Mistake(name="left out the first step", program="{a}+{b}"),
        ),
    ),
    Shape(
        skill="convert", name="short", program="{a}*{f}-{b}", derive=_factor, novel=True,
        levels={3: {"a": ONE, "b": range(2, 12), "f": (*_ODD, *_TENS)}},
        where=lambda s: int(s["b"]) < int(s["f"]),
        templates=("{A} needs {b} {v} less than {a} {u}. How many {v} is that?",),
        mistakes=(Mistake(name=STOPPED, program="{a}*{f}"),),
    ),
)  # fmt: skip


def _asked(expression: str) -> tuple[str, ...]:
    return (
        f"What is {expression}?",
        f"Work out {expression}.",
        f"{{A}} computes {expression}. What is it?",
    )


def _held(expression: str) -> tuple[str, ...]:
    return (f"Find the value of {expression}.",)


def _bracket(
    name: str,
    program: str,
    levels: Mapping[int, Ranges],
    mistakes: tuple[Mistake, ...],
    novel: bool = False,
) -> Shape:
    return Shape(
        skill="brackets", name=name, program=program, levels=levels, templates=_asked(program),
        held=() if novel else _held(program), mistakes=mistakes, novel=novel,
    )  # fmt: skip


_IGNORED = "ignored the brackets"
_FROM_LEFT = "worked from left to right"
_THREE_SIZES = {
    1: {"a": ONE, "b": ONE, "c": ONE},
    2: {"a": range(11, 100), "b": range(11, 100), "c": ONE},
    3: {"a": THREE, "b": THREE, "c": ONE},
}
_PRODUCT_LAST = {
    1: {"a": ONE, "b": ONE, "c": ONE},
    2: {"a": range(10, 100), "b": range(11, 100), "c": ONE},
    3: {"a": THREE, "b": range(101, 1000), "c": ONE},
}

BRACKETS = (
    _bracket("sum_first", "({a}+{b})*{c}", _THREE_SIZES,
             (Mistake(name=_IGNORED, program="{a}+{b}*{c}"), Mistake(name=STOPPED, program="{a}+{b}"))),
    _bracket("product_first", "{a}+{b}*{c}", _PRODUCT_LAST,
             (Mistake(name=_FROM_LEFT, program="({a}+{b})*{c}"), Mistake(name=STOPPED, program="{b}*{c}"))),
    _bracket("inner_sum", "{a}-({b}+{c})",
             {1: {"a": range(10, 21), "b": ONE, "c": ONE}, 2: {"a": range(30, 100), "b": TWO, "c": TWO},
              3: {"a": THREE, "b": TWO, "c": range(50, 500)}},
             (Mistake(name=_IGNORED, program="{a}-{b}+{c}"), Mistake(name=STOPPED, program="{b}+{c}"))),
    _bracket("difference_first", "({a}-{b})*{c}",
             {1: {"a": ONE, "b": ONE, "c": ONE}, 2: {"a": range(11, 100), "b": TWO, "c": ONE},
              3: {"a": THREE, "b": THREE, "c": ONE}},
             (Mistake(name=STOPPED, program="{a}-{b}"), Mistake(name=_IGNORED, program="{a}-{b}*{c}"))),
    _bracket("inner_difference", "{a}-({b}-{c})",
             {1: {"a": range(10, 21), "b": ONE, "c": ONE}, 2: {"a": range(30, 100), "b": TWO, "c": TWO},
              3: {"a": THREE, "b": range(50, 500), "c": TWO}},
             (Mistake(name=_IGNORED, program="{a}-{b}-{c}"), Mistake(name=STOPPED, program="{b}-{c}")),
             novel=True),
    _bracket("both", "({a}+{b})*({c}-{d})",
             {1: {"a": ONE, "b": ONE, "c": ONE, "d": ONE}, 2: {"a": TWO, "b": TWO, "c": ONE, "d": ONE},
              3: {"a": THREE, "b": THREE, "c": ONE, "d": ONE}},
             (Mistake(name=STOPPED, program="{a}+{b}"),), novel=True),
)  # fmt: skip
