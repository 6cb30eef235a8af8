"""Trains the shipped base of the setting `school-basic`: a small model that can calculate, not read.

    python benchmarks/school_base.py --out runs/school-base

It reads bare arithmetic (`7*19-88` and its working, column by column), as a student that comes
pretrained knows something before a teacher has it. Interrupted, the same command goes on.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import understudy as us
from understudy.settings import BASIC, BASIC_LEVELS
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.tasks.school import LENGTH, STUDENTS, complete, encode, exact_match, rows, tokenizer
from understudy.tasks.school.corpus import EOS_ID
from understudy.tasks.school.muon import Muon
from understudy.tasks.school.tokens import SIZE

COUNT, JUDGED, STEPS = 40_000, 400, 3000


def bare(split: str, count: int, seed: int) -> tuple[us.data.Texts, list[tuple[str, str]]]:
    """Programs of the world's problems, to be worked out."""
    made = rows(count, seed, split=split, skills=BASIC, difficulty=BASIC_LEVELS)  # type: ignore[arg-type]
    pairs = [(f"solve: {r.program}\n", f"{r.rationale}#{r.answer}") for r in made]
    asked, said = encode([p for p, _ in pairs]), encode([c for _, c in pairs])
    source = us.data.Texts(
        [[*p, *c, EOS_ID] for p, c in zip(asked, said, strict=True)],
        [[False] * len(p) + [True] * (len(c) + 1) for p, c in zip(asked, said, strict=True)],
        max_length=LENGTH,
        name=f"bare arithmetic, {split}",
    )
    return source, [(p, r.answer) for (p, _), r in zip(pairs, made, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/school-base"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    test, answers = bare("test", JUDGED, 30)
    task = language_task(
        "bare arithmetic",
        train=bare("train", COUNT, 10)[0],
        validate=bare("validate", 100, 20)[0],
        test=test,
        vocabulary=SIZE,
        length=LENGTH,
        tokenizer=tokenizer(),
    )
    setting = us.Setting(
        name="school-base",
        kind="language",
        call=CausalLM(),
        task=task,
        student=STUDENTS["middle"],
        budget=us.Budget(
            steps=given.steps, batch_size=32, optimizer=Muon(lr=0.015, adam_lr=3e-3),
            lr=0.015, schedule="linear", warmup=0.03, validate_steps=500,
        ),
    )  # fmt: skip
    stage = us.Stage(objective=setting.supervised(), teacher=None)
    recipe = us.Recipe(name="base", setting=replace(setting), stages=(stage,))
    begun = time.perf_counter()
    model = us.Studio(given.out / "checkpoints").play(recipe, 0).model
    model.half().float().eval()  # measured as shipped
    said = complete(model, [p for p, _ in answers])
    right = sum(exact_match(s, a) for s, (_, a) in zip(said, answers, strict=True)) / len(answers)
    folder = given.out / "base"
    inner = model.half()
    inner.config.eos_token_id = inner.generation_config.eos_token_id = EOS_ID
    inner.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    story = {
        "command": "python benchmarks/school_base.py --out runs/school-base",
        "parameters": sum(p.numel() for p in inner.parameters()),
        "skills": BASIC,
        "levels": BASIC_LEVELS,
        "texts": COUNT,
        "updates": given.steps,
        "batch": 32,
        "seconds": round(time.perf_counter() - begun),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "measured": {"bare problems, exact match": round(right, 4)},
        "measured_on": f"{JUDGED} held-out bare problems, greedy",
    }
    (folder / "made_by.json").write_text(json.dumps(story, indent=1) + "\n")
    print(f"{100 * right:.1f} % of {JUDGED} held-out bare problems; {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
