"""One kind of problem: its numbers by level, its sentences, its program, its typical mistakes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from understudy.errors import DataError
from understudy.tasks.school.program import Value, evaluate
from understudy.tasks.school.words import NAMES, NOUNS, UNITS

Slots = dict[str, int | str]
Ranges = Mapping[str, Sequence[int]]

LEVELS = (1, 2, 3)


def _same(free: Slots) -> Slots | None:
    return free


def _always(slots: Slots) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A typical wrong procedure: the program that it amounts to, and a fault in its columns."""

    name: str
    program: str
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A composition of operations within a skill.

    program:   format string over the slots (numbers a, b, ...; names A, B; noun n; units u, v)
    levels:    of each difficulty, the numbers that are drawn
    templates: sentences; `held` are kept for the split `template`
    make:      what is drawn -> what is shown (a division is drawn as quotient and divisor)
    back:      what is shown -> what was drawn, None where it could not have been
    derive:    what is shown -> the same with what follows from it and the program needs
    where:     a condition on what is shown
    plan:      programs, joined by `;`, whose working precedes a written problem
    novel:     the whole composition is kept for the split `composition`
    """

    skill: str
    name: str
    program: str
    levels: Mapping[int, Ranges]
    templates: tuple[str, ...]
    held: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    make: Callable[[Slots], Slots | None] = _same
    back: Callable[[Slots], Slots | None] = _same
    derive: Callable[[Slots], Slots | None] = _same
    where: Callable[[Slots], bool] = _always
    plan: str = ""
    novel: bool = False

    def draw(self, level: int, random: Random) -> Slots | None:
        """Slots of a problem of this level; None where the draw broke a condition."""
        free: Slots = {k: random.choice(v) for k, v in self.levels[level].items()}
        if "{u}" in self.templates[0]:
            free["u"], free["v"] = random.choice(list(UNITS))
        made = self.make(free)
        slots = None if made is None else self.derive(made)
        if slots is None or self.level(slots) != level:
            return None
        first, second = random.sample(NAMES, 2)
        return {**slots, "A": first, "B": second, "n": random.choice(NOUNS)}

    def level(self, shown: Slots) -> int | None:
        """The difficulty of these numbers (with what follows from them); None where the world would not draw them."""
        free = self.back(dict(shown))
        if free is None or not self.where(shown) or self.answer(shown) is None:
            return None
        for level, ranges in self.levels.items():
            if all(k in free and free[k] in r for k, r in ranges.items()):
                return level
        return None

    def gold(self, slots: Slots) -> str:
        """The program with its numbers."""
        return self.program.format(**slots)

    def answer(self, slots: Slots) -> Value | None:
        """What the program is worth; None where it has no positive answer."""
        try:
            value = evaluate(self.program.format(**{"A": "A", "B": "B", **slots}))
        except DataError:
            return None
        return value if isinstance(value, str) or value > 0 else None


_PATTERN = {
    "A": "|".join(NAMES),
    "B": "|".join(NAMES),
    "n": "|".join(NOUNS),
    "u": "|".join(sorted({u for u, _ in UNITS})),
    "v": "|".join(sorted({v for _, v in UNITS})),
}


def pattern(template: str) -> re.Pattern[str]:
    """A template as an expression that reads its slots back."""
    seen: set[str] = set()

    def group(part: str) -> str:
        if not part.startswith("{"):
            return re.escape(part)
        slot = part[1:-1]
        if slot in seen:
            return f"(?P={slot})"
        seen.add(slot)
        return f"(?P<{slot}>{_PATTERN.get(slot, '[1-9][0-9]*')})"

    return re.compile("".join(group(p) for p in re.split(r"(\{\w+\})", template)))


def read(match: re.Match[str]) -> Slots | None:
    """The slots that a pattern found; None where two people share a name."""
    slots: Slots = {k: int(v) if v.isdigit() else v for k, v in match.groupdict().items()}
    return None if "A" in slots and slots["A"] == slots.get("B") else slots
