"""The school world as a task: texts to learn from, judged by what a model then writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from understudy.data import Texts
from understudy.errors import DataError, unknown
from understudy.tasks.language import language_task
from understudy.tasks.school.corpus import LENGTH, corpus, texts
from understudy.tasks.school.measure import asked, score
from understudy.tasks.school.reading import rewards, skills_of
from understudy.tasks.school.rows import skills_with
from understudy.tasks.school.text import ABILITIES, MIX, Ability
from understudy.tasks.school.tokens import SIZE, tokenizer
from understudy.tasks.task import Task

TEACHER = Path(__file__).with_name("teacher")
"""The shipped teacher: weights in half precision, configuration, tokenizer, how it was made."""

BASES = {name: Path(__file__).with_name("bases") / name for name in ("calculator", "reader")}
"""Pretrained students of 0.18M parameters: one has learned bare arithmetic and no words, the other
also to read, and to solve eight skills of the twelve."""

STUDENTS = {
    "small": "llama:width=48,depth=3,heads=3,hidden=64",
    "middle": "llama:width=64,depth=3,heads=4",
    "large": "llama:width=96,depth=4,heads=4",
}
"""Students of `school`: 0.08, 0.18 and 0.49 million parameters, 11, 5 and 2 times fewer than the
teacher."""

_PARTS = {"train": ("train", 1000), "validate": ("validate", 2000), "test": ("test", 3000)}
"""Of each part the split of the world, and the seed of the task's split 0."""


def school(
    *,
    split: int = 0,
    count: int = 20_000,
    abilities: Sequence[Ability] = ("solve",),
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
    judged: int = 240,
    prompt_weight: float = 0.0,
) -> Task:
    """Arithmetic word problems made by rule, 12 skills of three levels each; solved in writing.

    The student reads `count` examples of `abilities` (solve, write, explain, grade), of `skills`
    and levels of `difficulty` (None: all twelve, all three); their completions are scored, or their
    prompts too, with `prompt_weight`.
    Numbers are divided between training, validation and test by skill, so that no problem recurs;
    `split` draws other problems of all three.

    It is judged by what it writes, greedily: `exact_match`, the share of right answers (or of
    valid problems, explanations and grades) among `judged` examples of each ability; by skill and
    ability; and, of solving on the test part, on sentences and on compositions of operations that
    training never has (`exact_match_templates`, `exact_match_compositions`).
    """
    for ability in abilities:
        if ability not in ABILITIES:
            raise unknown("ability", str(ability), ABILITIES)
    if not abilities or count < 1 or judged < 1:
        raise DataError("school: give at least one ability, one example and one that is judged")
    mix: Mapping[Ability, float] = {a: MIX[a] for a in abilities}

    def part(name: str) -> Texts:
        place, seed = _PARTS[name][0], _PARTS[name][1] + split
        made = [
            e
            for a in abilities
            for e in asked(a, judged, seed, split=place, skills=skills, difficulty=difficulty)  # type: ignore[arg-type]
        ]
        return texts(made, seed=seed, name=f"school {name}")

    def answers(model: nn.Module, task: Task, part: str) -> dict[str, float]:
        place, seed = _PARTS[part]
        return said(
            model,
            abilities,
            judged,
            seed + split,
            place,
            more=part == "test",
            skills=skills,
            difficulty=difficulty,
        )

    return language_task(
        "school",
        train=corpus(
            count, _PARTS["train"][1] + split, mix=mix, prompt_weight=prompt_weight, skills=skills, difficulty=difficulty
        ),
        validate=part("validate"),
        test=part("test"),
        vocabulary=SIZE,
        length=LENGTH,
        tokenizer=tokenizer(),
        metric="exact_match",
        metrics=("perplexity",),
        answers=answers,
        extras={
            "domains": skills_of,
            "reward": rewards,
            "options": {
                "split": split, "count": count, "abilities": tuple(abilities), "judged": judged,
                "prompt_weight": prompt_weight,
                "skills": None if skills is None else tuple(skills),
                "difficulty": None if difficulty is None else tuple(difficulty),
            },
        },
    )  # fmt: skip


def said(
    model: nn.Module,
    abilities: Sequence[Ability],
    count: int,
    seed: int,
    split: Any = "test",
    *,
    more: bool = True,
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
) -> dict[str, float]:
    """Measures of what a model writes; with `more` by skill and out of distribution too."""
    scores = {
        a: score(model, a, count, seed, split=split, skills=skills, difficulty=difficulty)
        for a in abilities
    }
    found = {"exact_match": sum(s.share for s in scores.values()) / len(scores)}
    for ability, one in scores.items():
        if len(scores) > 1:
            found[f"exact_match_{ability}"] = one.share
        if more:
            found |= {f"{ability}_{skill}": share for skill, share in one.skills.items()}
    if more and "solve" in scores:
        for place in ("template", "composition"):
            if known := skills_with(place, skills, difficulty):
                other = score(
                    model, "solve", count, seed, split=place, skills=known, difficulty=difficulty
                )
                found[f"exact_match_{place}s"] = other.share
    return found


def teacher() -> nn.Module:
    """The shipped teacher, in evaluation mode: a Llama of 0.87M parameters with four abilities."""
    from understudy.students import load_model

    # half precision is how it is kept; processors compute in single precision
    return load_model(TEACHER).float().eval()


def made_by() -> dict[str, Any]:
    """How the shipped teacher was made and what it reaches: settings, command, measures."""
    return json.loads((TEACHER / "made_by.json").read_text())
