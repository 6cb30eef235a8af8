"""What a model wrote is checked by the world's rules: gold passes, corrupted does not."""

from random import Random

import pytest

from understudy.tasks.school import (
    ABILITIES,
    SPLITS,
    answer_of,
    asked,
    check_explanation,
    check_grade,
    check_written,
    exact_match,
    examples,
    mistake_of,
    passes,
    question_of,
    rows,
    same_problem,
    solves,
    verdict_of,
    wrong_steps,
)
from understudy.tasks.school.text import comparison


@pytest.mark.parametrize("split", SPLITS)
def test_gold_passes(split):
    made = examples(250, 11, split=split)
    assert {e.ability for e in made} == set(ABILITIES)
    for e in made:
        assert passes(e, e.completion), e


def test_as_many_of_each_skill_are_asked():
    made = asked("explain", 26, split="test")
    assert len(made) == 26
    counts = [sum(e.row.skill == s for e in made) for s in {e.row.skill for e in made}]
    assert len(counts) == 12
    assert set(counts) == {2, 3}


def test_a_digit_changed_in_an_answer_is_refused():
    for row in rows(200, 12):
        other = (
            row.answer[:-1] + str((int(row.answer[-1]) + 1) % 10)
            if row.answer.isdigit()
            else "Nobody"
        )
        assert solves(f"{row.rationale}#{row.answer}", row.question)
        assert not solves(f"{row.rationale}#{other}", row.question)
        assert not solves(row.rationale, row.question)
    assert not solves("#5", "What is love?")


def test_answers_are_read_as_they_stand():
    assert answer_of("1+1=2#2") == "2"
    assert answer_of("1+1=2#2?3 wrong") == "2"
    assert answer_of("... # Mia\nmore") == "Mia"
    assert answer_of("no answer") is None
    assert answer_of("#") is None
    assert exact_match("1+1=2#2", "2")
    assert not exact_match("1+1=2#22", "2")


def test_written_problems():
    for row in rows(200, 13):
        text = f"{row.plan}| {row.question}"
        asked = {"skill": row.skill, "level": row.level, "name": row.name, "noun": row.noun}
        assert check_written(text, **asked)
        assert question_of(text) == row.question
        assert "level" in check_written(text, level=row.level % 3 + 1).reason
        assert "skill" in check_written(text, skill="rate" if row.skill != "rate" else "add").reason
        assert not check_written(text[:-3], **asked)
        if row.noun in row.question and "coins falls" not in row.question:  # coins are its price
            assert "about" in check_written(text, noun="elephants").reason
        if row.name in row.question:
            assert "occur" in check_written(text, name="Zarathustra").reason


def test_explanations():
    seen = set()
    for e in [e for e in examples(1500, 14) if e.ability == "explain"]:
        right = mistake_of(e.completion)
        seen.add(right)
        assert check_explanation(e.completion, e.row.question, e.given)
        assert not check_explanation(
            e.completion.replace(right, "was tired"), e.row.question, e.given
        )
        assert not check_explanation(e.completion, e.row.question, e.row.answer)
    assert len(seen) >= 15


def test_grades():
    verdicts = []
    for e in [e for e in examples(1200, 15) if e.ability == "grade"]:
        truth = "right" if e.given == e.row.answer else "wrong"
        verdicts.append(verdict_of(e.completion))
        assert verdicts[-1] == truth
        flipped = e.completion.replace(truth, "wrong" if truth == "right" else "right")
        assert not check_grade(flipped, e.row.question, e.given)
        assert not check_grade(e.completion + "?", e.row.question, e.given)
    assert 0.4 < verdicts.count("right") / len(verdicts) < 0.6


def test_comparison_stops_at_the_first_difference():
    assert comparison("842", "841") == "8=8,4=4,2!1"
    assert comparison("84", "842") == "8=8,4=4,.!2"
    assert comparison("12", "12") == "1=1,2=2"
    assert comparison("Mia", "Noor") == "Mia!Noor"


def test_false_steps_are_found():
    assert wrong_steps("347+285:7+5=13,4+8+1=13,3+2+1=6=632") == ["7+5=13"]
    assert wrong_steps("347+285:7+5=12,4+8+1=13,3+2+1=6=642") == [
        "347+285:7+5=12,4+8+1=13,3+2+1=6=642"
    ]
    assert wrong_steps("39/5=39:7*5=35r3=7r3") == ["39:7*5=35r3", "39/5=39:7*5=35r3=7r3"]
    random, found, changed = Random(0), 0, 0
    for row in rows(300, 16):
        digits = [i for i, c in enumerate(row.rationale) if c.isdigit()]
        place = random.choice(digits)
        digit = str((int(row.rationale[place]) + 1) % 10)
        text = row.rationale[:place] + digit + row.rationale[place + 1 :]
        changed += row.skill != "compare"
        found += row.skill != "compare" and bool(wrong_steps(text))
    assert found > 0.8 * changed


def test_the_same_problem_in_other_words():
    a, b = rows(2, 0, skills=["add"], difficulty=1)
    assert same_problem(a.question, a.question)
    assert not same_problem(a.question, b.question)
    assert same_problem(
        "Mia has 14 apples. Ben gives Mia 8 more. How many apples does Mia have now?",
        "Kim finds 14 coins and then 8 more. How many coins is that in all?",
    )
