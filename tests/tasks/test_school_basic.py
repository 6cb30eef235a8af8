"""The setting of a pretrained student: what it knows, and what it has yet to learn."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

import understudy as us
from understudy.settings import BASIC, BASIC_LEVELS
from understudy.students import load_model
from understudy.tasks import school


def test_the_base_calculates_and_cannot_read():
    base = load_model(school.BASES["calculator"]).float().eval()
    made = school.rows(60, 77, split="test", skills=BASIC, difficulty=BASIC_LEVELS)
    told = json.loads((school.BASES["calculator"] / "made_by.json").read_text())
    assert sum(p.numel() for p in base.parameters()) == told["parameters"]

    def share(prompts):
        said = school.complete(base, prompts)
        right = [school.exact_match(s, r.answer) for s, r in zip(said, made, strict=True)]
        return sum(right) / len(right)

    bare = share([f"solve: {r.program}\n" for r in made])
    known = told["measured"]["bare problems, exact match"]
    assert abs(bare - known) < 4 * (known * (1 - known) / len(made)) ** 0.5 + 0.02
    assert share([school.question_prompt("solve", r.question) for r in made]) < 0.3 < bare


def test_the_setting_holds_its_skills_and_levels_alone():
    setting = us.settings.setting("school-basic", count=40)
    task = setting.task_for(3)
    words = school.tokenizer()
    for source in (task.train, task.test):
        asked = [words.decode(source.prompt(i).tolist()) for i in range(20)]
        found = [school.parse(a.strip().removeprefix("solve: ")) for a in asked]
        assert all(f is not None for f in found)
        assert {f.skill for f in found} <= set(BASIC)
        assert {f.level for f in found} <= set(BASIC_LEVELS)


def test_what_a_student_says_is_judged_by_skill():
    setting = us.settings.setting("school-basic", count=40, steps=2)
    found = us.compare(setting, ["kd"], seeds=1).summary
    teacher = next(a for a in found["arms"] if a["role"] == "teacher")["runs"][0]["last"]
    assert {k for k in teacher if k.startswith("solve_")} == {f"solve_{s}" for s in BASIC}
    assert teacher["exact_match"] > 0.9


def test_a_student_kept_in_half_precision_learns_in_single():
    setting = us.settings.setting("school-basic", count=40, steps=2)
    stage = us.Stage(objective=setting.supervised(), teacher=None)
    student = us.Studio(None).play(us.Recipe(name="s", setting=setting, stages=(stage,)), 0).model
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert all(p.isfinite().all() for p in student.parameters())


def test_the_reader_solves_the_other_skills_and_was_never_told_what_these_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    base = load_model(school.BASES["reader"]).float().eval()
    told = json.loads((school.BASES["reader"] / "made_by.json").read_text())
    for name, skills in {
        "stories of the other eight skills, exact match": sorted({*school.SKILLS} - {*BASIC}),
        "stories of the four skills, exact match": BASIC,
    }.items():
        made = school.rows(60, 78, split="test", skills=skills, difficulty=BASIC_LEVELS)
        said = school.complete(base, [school.question_prompt("solve", r.question) for r in made])
        right = sum(school.exact_match(s, r.answer) for s, r in zip(said, made, strict=True)) / 60
        known = told["measured"][name]
        assert abs(right - known) < 4 * (known * (1 - known) / 60) ** 0.5 + 0.02

    texts = importlib.import_module("school_bases").reading("train", 400, 5)
    kinds = {"solve": 0, "read": 0, "program": 0, "write": 0}
    for asked, said in texts:
        way, _, rest = asked.strip().partition(": ")
        kinds[way] += 1
        found = school.parse(rest if way != "write" else said)
        if way == "read":
            assert found is not None
            assert found.skill in BASIC
            assert said == ", ".join(re.findall(r"\d+", rest))
        elif found is not None:
            assert found.skill not in BASIC
        else:  # bare arithmetic: no story, and its working
            assert way == "solve"
            assert said.endswith(f"#{school.evaluate(rest)}") or "more(" in rest
    assert kinds == {"solve": 160, "read": 100, "program": 80, "write": 60}
