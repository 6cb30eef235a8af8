"""The student where it is sure, the teacher where it is not: accuracy against cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.errors import DataError

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Step:
    """One threshold of a cascade.

    asked:    share of texts that go to the teacher
    accuracy: of the two together
    money:    of a thousand texts; None where no price is known
    """

    threshold: float
    asked: float
    accuracy: float
    money: float | None


def cascade(
    confidence: Values,
    student_right: Values,
    teacher_right: Values,
    *,
    money: float | None = None,
    steps: int = 21,
) -> list[Step]:
    """From the student alone to the teacher alone, by the share of texts that are passed on.

    The least confident go first: with threshold t the teacher answers where confidence < t. Texts
    of equal confidence go together, so that a threshold does what it says. money: what the teacher
    costs a text.
    """
    sure = np.asarray(confidence, dtype=float)
    own, other = (np.asarray(x, dtype=float) for x in (student_right, teacher_right))
    if not len(sure) or not len(sure) == len(own) == len(other):
        raise DataError("a cascade needs a confidence and two verdicts for each of some texts")
    order = np.sort(sure)
    places = np.linspace(0, len(sure), steps).round().astype(int)
    thresholds = [float(order[p]) if p < len(sure) else float("inf") for p in places]
    found = []
    for t in sorted(set(thresholds)):
        asked = sure < t
        found.append(
            Step(
                threshold=t,
                asked=float(asked.mean()),
                accuracy=float(np.where(asked, other, own).mean()),
                money=None if money is None else 1000 * money * float(asked.mean()),
            )
        )
    return found
