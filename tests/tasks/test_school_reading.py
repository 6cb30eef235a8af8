"""What a text of the school world is about, and whether an answer passes, read off its tokens."""

import pytest
import torch

from understudy.data import Texts
from understudy.errors import DataError
from understudy.tasks.school import SKILLS, encode, examples, texts
from understudy.tasks.school.reading import rewards, skills_of

MADE = examples(60, 3)


@pytest.mark.parametrize("prompt_weight", [0.0, 0.5])
def test_skills_are_read_back(prompt_weight: float) -> None:
    found = skills_of(texts(MADE, prompt_weight=prompt_weight))
    assert [SKILLS[i] for i in found.tolist()] == [e.row.skill for e in MADE]


def test_right_answers_pass_and_others_do_not() -> None:
    source = texts(MADE)
    assert rewards(None, source, source).tolist() == [1.0] * 60
    rows = torch.arange(60).roll(1)
    swapped = [torch.cat((source.prompt(i), source.answer(int(rows[i])))) for i in range(60)]
    assert float(rewards(None, source, Texts(swapped)).mean()) < 0.2


def test_a_text_of_another_world_is_refused() -> None:
    other = Texts([encode(["solve: How are you?\nfine"])[0]])
    with pytest.raises(DataError, match="no skill"):
        skills_of(other)
