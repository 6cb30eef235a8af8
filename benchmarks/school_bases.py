"""Trains the shipped bases: small models that know something before a teacher has them.

    python benchmarks/school_bases.py calculator --out runs/school-calculator
    python benchmarks/school_bases.py reader --out runs/school-reader

The calculator has learned bare arithmetic (`7*19-88` and its working, column by column) and has seen
no sentence. The reader has also read the stories of the same four skills (their numbers, never what
is to be done with them), and has solved, programmed and written problems of the other eight. So a
teacher of the four has left to teach what they mean. Interrupted, the same command goes on.
"""

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import understudy as us
from understudy.settings import BASIC, BASIC_LEVELS
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.tasks.school import (
    LENGTH,
    SKILLS,
    STUDENTS,
    Row,
    complete,
    encode,
    exact_match,
    question_prompt,
    rows,
    solution,
    tokenizer,
    write_prompt,
)  # fmt: skip
from understudy.tasks.school.corpus import EOS_ID
from understudy.tasks.school.muon import Muon
from understudy.tasks.school.tokens import SIZE

COUNT, JUDGED = 40_000, 400
OTHER = tuple(s for s in SKILLS if s not in BASIC)

Pair = tuple[str, str]


def drawn(split: str, count: int, seed: int, skills: tuple[str, ...]) -> list[Row]:
    return rows(count, seed, split=split, skills=skills, difficulty=BASIC_LEVELS)  # type: ignore[arg-type]


def worked(row: Row) -> Pair:
    """Bare arithmetic."""
    return f"solve: {row.program}\n", solution(row)


def solved(row: Row) -> Pair:
    return question_prompt("solve", row.question), solution(row)


def numbers(row: Row) -> Pair:
    """A story's numbers, in the order in which they stand."""
    return f"read: {row.question}\n", ", ".join(re.findall(r"\d+", row.question))


def programmed(row: Row) -> Pair:
    return f"program: {row.question}\n", row.program


def written(row: Row) -> Pair:
    return write_prompt(row.skill, row.level, row.name, row.noun), row.question


def bare(split: str, count: int, seed: int) -> list[Pair]:
    return [worked(r) for r in drawn(split, count, seed, BASIC)]


def reading(split: str, count: int, seed: int) -> list[Pair]:
    """Of twenty, eight of the four skills, their meaning left out, and twelve of the other eight."""
    own, other = drawn(split, count, seed, BASIC), drawn(split, count, seed + 1, OTHER)
    ways: list[tuple[list[Row], Callable[[Row], Pair]]] = [
        *[(own, numbers)] * 5, *[(own, worked)] * 3,
        *[(other, solved)] * 5, *[(other, programmed)] * 4, *[(other, written)] * 3,
    ]  # fmt: skip
    return [way(made[i]) for i, (made, way) in enumerate(ways[i % len(ways)] for i in range(count))]


@dataclass(frozen=True, kw_only=True)
class Base:
    """How a base is made: its texts, the weight of their prompts in the loss, updates, measures."""

    texts: Callable[[str, int, int], list[Pair]]
    prompt_weight: float
    steps: int
    measures: dict[str, Callable[[], list[tuple[str, str]]]]


def asked(skills: tuple[str, ...], way: Callable[[Row], Pair], seed: int) -> list[tuple[str, str]]:
    """Prompts, and the answers that are right."""
    return [(way(r)[0], r.answer) for r in drawn("test", JUDGED, seed, skills)]


BARE = {"bare problems, exact match": lambda: asked(BASIC, worked, 30)}
BASES = {
    "calculator": Base(texts=bare, prompt_weight=0.0, steps=3000, measures=BARE),
    "reader": Base(
        texts=reading,
        prompt_weight=0.3,
        steps=5000,
        measures={
            **BARE,
            "stories of the other eight skills, exact match": lambda: asked(OTHER, solved, 31),
            "stories of the four skills, exact match": lambda: asked(BASIC, solved, 32),
        },
    ),
}


def source(base: Base, part: str, count: int, seed: int) -> us.data.Texts:
    pairs = base.texts(part, count, seed)
    prompts, said = encode([p for p, _ in pairs]), encode([c for _, c in pairs])
    read = base.prompt_weight > 0
    return us.data.Texts(
        [[*p, *c, EOS_ID] for p, c in zip(prompts, said, strict=True)],
        [[read] * len(p) + [True] * (len(c) + 1) for p, c in zip(prompts, said, strict=True)],
        weights=[
            [base.prompt_weight] * len(p) + [1.0] * (len(c) + 1)
            for p, c in zip(prompts, said, strict=True)
        ]
        if read
        else None,
        max_length=LENGTH,
        name=f"{part} of a base",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", choices=list(BASES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base = BASES[given.base]
    steps = given.steps or base.steps
    task = language_task(
        given.base,
        train=source(base, "train", COUNT, 10),
        validate=source(base, "validate", 100, 20),
        test=source(base, "test", JUDGED, 30),
        vocabulary=SIZE,
        length=LENGTH,
        tokenizer=tokenizer(),
    )
    setting = us.Setting(
        name=f"school-{given.base}",
        kind="language",
        call=CausalLM(),
        task=task,
        student=STUDENTS["middle"],
        budget=us.Budget(
            steps=steps, batch_size=32, optimizer=Muon(lr=0.015, adam_lr=3e-3),
            lr=0.015, schedule="linear", warmup=0.03, validate_steps=500,
        ),
    )  # fmt: skip
    stage = us.Stage(objective=setting.supervised(), teacher=None)
    recipe = us.Recipe(name="base", setting=replace(setting), stages=(stage,))
    begun = time.perf_counter()
    model = us.Studio(given.out / "checkpoints").play(recipe, 0).model
    model.half().float().eval()  # measured as shipped
    measured = {}
    for name, draw in base.measures.items():
        questions = draw()
        said = complete(model, [q for q, _ in questions])
        right = sum(exact_match(s, a) for s, (_, a) in zip(said, questions, strict=True))
        measured[name] = round(right / len(questions), 4)
        print(f"{name}: {100 * measured[name]:.1f} % of {len(questions)} held-out")
    folder = given.out / given.base
    inner = model.half()
    inner.config.eos_token_id = inner.generation_config.eos_token_id = EOS_ID
    inner.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    story = {
        "command": f"python benchmarks/school_bases.py {given.base} --out runs/school-{given.base}",
        "parameters": sum(p.numel() for p in inner.parameters()),
        "skills": BASIC,
        "levels": BASIC_LEVELS,
        "texts": COUNT,
        "updates": steps,
        "batch": 32,
        "seconds": round(time.perf_counter() - begun),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "measured": measured,
        "measured_on": f"{JUDGED} held-out problems each, greedy",
    }
    (folder / "made_by.json").write_text(json.dumps(story, indent=1) + "\n")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
