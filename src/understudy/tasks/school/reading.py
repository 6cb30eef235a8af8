"""Back from the world's token sequences: which skill a text is about, and whether an answer passes."""

from typing import Any

import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.errors import DataError
from understudy.tasks.school.check import (
    check_explanation,
    check_grade,
    check_written,
    solves,
)
from understudy.tasks.school.rows import SKILLS, parse
from understudy.tasks.school.tokens import decode


def skills_of(texts: Texts) -> Tensor:
    """[N] the place in `SKILLS` of the skill that each text's problem asks for."""
    found = []
    for row in range(len(texts)):
        ability, asked, _ = _asked(texts, row)
        skill = asked.rpartition(", ")[0].rpartition(", ")[0].rpartition(" ")[0]
        if ability != "write":
            problem = parse(asked)
            skill = "" if problem is None else problem.skill
        if skill not in SKILLS:
            raise DataError(
                f"text {int(texts.ids[row])} asks for no skill of this world: {asked!r}"
            )
        found.append(SKILLS.index(skill))
    return torch.tensor(found)


def rewards(task: Any, source: Texts, answers: Texts) -> Tensor:
    """[N] 1 where what was written after a prompt passes the check of its ability, else 0."""
    found = []
    for row in range(len(source)):
        ability, asked, given = _asked(source, row)
        said = decode(answers.tokens(row).tolist()).partition("\n")[2]
        if ability == "write":
            rest, _, noun = asked.rpartition(", ")
            rest, _, name = rest.rpartition(", ")
            skill, _, level = rest.rpartition(" ")
            good = check_written(said, skill=skill, level=int(level), name=name, noun=noun)
        elif ability == "explain":
            good = check_explanation(said, asked, given)
        elif ability == "grade":
            good = check_grade(said, asked, given)
        else:
            good = solves(said, asked)
        found.append(float(bool(good)))
    return torch.tensor(found, dtype=torch.float64)


def _asked(texts: Texts, row: int) -> tuple[str, str, str]:
    """(ability, question or what is to be written, given answer) of a text's prompt, its first line."""
    line = decode(texts.tokens(row).tolist()).partition("\n")[0]
    ability, _, rest = line.partition(": ")
    asked, _, given = rest.partition(" Answer: ")
    return ability, asked, given
