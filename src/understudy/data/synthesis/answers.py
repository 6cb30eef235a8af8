"""Final answers as they are compared: numbers by value, everything else by its words."""

import re
from fractions import Fraction

_NUMBER = re.compile(r"[-+]?(\d[\d,]*(\.\d+)?|\.\d+)(/\d+)?")
_MARKED = re.compile(r"(?:#+|-->|the answer is:?)\s*([^#\n?]*)", re.IGNORECASE)


def final_answer(text: str) -> str | None:
    """What stands after the last `#`, `-->` or "the answer is"; None where nothing does."""
    found = _MARKED.findall(text)
    said = found[-1].strip().rstrip(".").strip() if found else ""
    return said or None


def normal(answer: object) -> str:
    """An answer in one spelling: 1,250.0 and 1250 are `1250`, 2/4 is `1/2`, words are small."""
    text = " ".join(str(answer).strip().strip("$€£%").rstrip(".").split())
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text.casefold()
    top, _, bottom = text.replace(",", "").partition("/")
    if bottom and int(bottom) == 0:
        return text
    return str(Fraction(top) / int(bottom or 1))


def same(one: object, other: object) -> bool:
    """Whether two answers say the same."""
    return normal(one) == normal(other)
