"""The school world: the same from the same seed, right in every number, and divided cleanly."""

import re

import pytest

from understudy.errors import DataError, UnknownName
from understudy.tasks.school import (
    SKILLS,
    SPLITS,
    evaluate,
    examples,
    parse,
    rationale,
    rows,
    stream,
    wrong_steps,
)
from understudy.tasks.school.rows import SHAPES
from understudy.tasks.school.shape import pattern, read


def independent(program):
    """The value of a program by Python's own arithmetic."""

    def ceil(x):
        return -int(-x // 1)

    def more(**said):
        return max(said, key=said.__getitem__)

    def less(**said):
        return min(said, key=said.__getitem__)

    value = eval(program, {"__builtins__": {}}, {"ceil": ceil, "more": more, "less": less})
    return value if isinstance(value, str) else str(int(value))


def test_same_seed_same_rows_whatever_the_count():
    assert rows(40, 3) == rows(60, 3)[:40] == [*rows(25, 3), *rows(15, 3, start=25)]
    assert rows(40, 3) != rows(40, 4)
    endless = stream(3)
    assert [next(endless) for _ in range(30)] == rows(30, 3)
    assert examples(30, 3) == examples(30, 3)


def test_there_are_twelve_skills_of_three_levels_and_several_sentences_each():
    assert len(SKILLS) >= 12
    made = rows(4000, 0)
    assert {(r.skill, r.level) for r in made} == {(s, k) for s in SKILLS for k in (1, 2, 3)}
    for skill in SKILLS:
        assert len({(r.shape, r.template) for r in made if r.skill == skill}) >= 3, skill
        assert any(s.held for s in SHAPES if s.skill == skill), skill
        assert any(s.novel for s in SHAPES if s.skill == skill), skill


@pytest.mark.parametrize("split", SPLITS)
def test_programs_evaluate_to_the_answers(split):
    for row in rows(400, 1, split=split):
        assert independent(row.program) == row.answer, row
        assert str(evaluate(row.program)) == row.answer
        if row.answer.isdigit():
            assert int(row.answer) > 0


@pytest.mark.parametrize("split", SPLITS)
def test_rationales_are_true_and_end_in_the_answer(split):
    for row in rows(300, 2, split=split):
        assert wrong_steps(row.rationale) == [], row
        last = re.split(r"[= ;]", row.rationale)[-1]
        quotient, _, left = last.partition("r")
        assert row.answer in (last, quotient, left), row
        # every equation of plain sums and products, by Python
        for text, value in re.findall(
            r"(?<![\d*+\-/])(\d+(?:[+*-]\d+)+)=(\d+)(?=[b,;]|$)", row.rationale
        ):
            assert eval(text) == int(value), (row, text)


def test_steps_worked_by_hand():
    assert rationale("347+285") == "347+285:7+5=12,4+8+1=13,3+2+1=6=632"
    assert rationale("512-347") == "512-347:12-7=5b,11-4-1=6b,5-3-1=1=165"
    assert rationale("397//5") == "397/5=39:7*5=35r4,47:9*5=45r2=79r2"
    assert rationale("34*6+5") == "34*6:4*6=24,3*6+2=20=204;204+5:4+5=9,0,2=209"
    assert rationale("more(Mia=46,Noor=42)") == " Mia 46, Noor 42:4=4,6>2, more Mia"
    assert evaluate("347+285", fault="carry") == 522
    assert evaluate("512-347", fault="borrow") == 235
    assert evaluate("27*4", fault="carry") == 88
    assert evaluate("ceil(397/5)") == 80


@pytest.mark.parametrize(
    "program", ["2-5", "7/2", "7/0", "2**3", "open(1)", "a+1", "1+", "True", "-3"]
)
def test_what_is_no_program_is_refused(program):
    with pytest.raises(DataError):
        evaluate(program)


def test_typical_mistakes_are_wrong_and_tell_each_other_apart():
    made = rows(1500, 5)
    for row in made:
        answers = [e.answer for e in row.errors]
        assert row.answer not in answers
        assert len(set(answers)) == len(answers)
        assert len({e.name for e in row.errors}) == len(row.errors)
    assert sum(bool(r.errors) for r in made) > 0.9 * len(made)
    assert len({e.name for r in made for e in r.errors}) >= 20
    [row] = [r for r in made if r.question == made[0].question][:1]
    assert parse(row.question).errors == row.errors


@pytest.mark.parametrize("split", SPLITS)
def test_questions_read_back_as_they_were_made(split):
    for row in rows(300, 6, split=split):
        read = parse(row.question)
        assert (read.skill, read.level, read.shape) == (row.skill, row.level, row.shape)
        assert (read.program, read.answer, read.rationale) == (
            row.program,
            row.answer,
            row.rationale,
        )


def test_splits_are_disjoint():
    def key(row):
        return (
            row.skill,
            *sorted(re.findall(r"\d+", row.question)),
            *re.findall(
                r"[a-z]*metres|grams|cents|seconds|minutes|days|months|hours|weeks",
                row.question if row.skill == "convert" else "",
            ),
        )

    made = {s: rows(1500, 7, split=s) for s in SPLITS}
    seen = {key(r) for r in made["train"]}
    for split in ("validate", "test", "template", "composition"):
        assert not seen & {key(r) for r in made[split]}, split
    shapes = {s.name: s for s in SHAPES}
    known = {(r.skill, r.shape) for r in made["train"]}
    sentences = {(r.skill, r.shape, r.template) for r in made["train"]}
    assert not {(r.skill, r.shape) for r in made["composition"]} & known
    assert {(r.skill, r.shape) for r in made["template"]} <= known
    assert not {(r.skill, r.shape, r.template) for r in made["template"]} & sentences
    assert len(shapes) >= 25


def test_no_sentence_belongs_to_two_kinds_of_problem():
    for row in rows(500, 8):
        found = set()
        for shape in SHAPES:
            for sentence in (*shape.templates, *shape.held):
                match = pattern(sentence).fullmatch(row.question)
                slots = None if match is None else read(match)
                slots = None if slots is None else shape.derive(slots)
                if slots is not None and shape.level(slots) is not None:
                    found.add((shape.skill, shape.name, str(evaluate(shape.gold(slots)))))
        assert found == {(row.skill, row.shape, row.answer)}


def test_what_is_no_problem_is_not_read():
    question = rows(1, 0, skills=["subtract"], difficulty=2)[0].question
    a, b = re.findall(r"\d+", question)
    assert parse(question.replace(a, "1").replace(b, "99")) is None  # below 0
    assert parse(question + " And then?") is None
    assert (
        parse("Mia has 4 apples and Mia has 5 apples. How many apples do they have together?")
        is None
    )
    assert parse("") is None


def test_unknown_names_are_errors():
    with pytest.raises(UnknownName, match="divide"):
        rows(1, skills=["divid"])
    with pytest.raises(UnknownName):
        rows(1, split="exam")
    with pytest.raises(DataError, match="difficulty"):
        rows(1, difficulty=4)
    assert {r.level for r in rows(20, difficulty=2)} == {2}
    assert {r.skill for r in rows(20, skills=["rate", "add"])} <= {"rate", "add"}
