"""The shipped teacher of `stdlib-lm`: its tokenizer trained, its training run packed.

    python benchmarks/stdlib_lm_teacher.py tokenizer
    understudy distill --task stdlib-lm-teacher --seeds 1 --no-controls --out runs/stdlib-lm-teacher
    python benchmarks/stdlib_lm_teacher.py ship runs/stdlib-lm-teacher

`distill` is resumable (--resume). Shipped are half-precision weights that load as fp32, and
`made.json`, which says what made them and what they reach.
"""

import argparse
import json
import platform
import shutil
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from understudy.evaluation import token_scores
from understudy.signals import CausalLM, Signals
from understudy.tasks import sources
from understudy.tasks.bpe import train_bpe
from understudy.tasks.stdlib_lm import HELD, TEACHER, split_modules, stdlib_lm

VOCABULARY = 1024


def train_tokenizer(folder: Path) -> None:
    """On the modules that are not held back, in the order of their names."""
    names = sorted(split_modules(0)["train"])
    made = train_bpe((sources.text(name) for name in names), VOCABULARY)
    made.save_pretrained(folder)
    print(f"{len(made)} tokens of {len(names)} modules in {folder}")


def ship(run: Path, folder: Path) -> None:
    """Weights in half precision, the configuration, and where they come from."""
    student = run / "student"
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in load_file(student / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((student / "config.json").read_text())
    config.pop("understudy", None)
    # stored in half precision, computed in single
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if (student / "generation_config.json").is_file():
        shutil.copy(student / "generation_config.json", folder)
    summary = json.loads((run / "summary.json").read_text())
    row = next(a for a in summary["arms"] if a["name"] == "alone")["runs"][0]
    made = {
        "task": "stdlib-lm-teacher",
        "command": "understudy distill --task stdlib-lm-teacher --seeds 1 --no-controls",
        "seed": row["seed"],
        "updates": row["steps"],
        "tokens": row.get("tokens") or read(row["seed"], row["steps"]),
        "parameters": sum(v.numel() for v in state.values()),
        "held_back": HELD,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "measured": measured(folder),
    }
    (folder / "made.json").write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made, indent=2))
    print(f"{sum(p.stat().st_size for p in folder.iterdir()) / 2**20:.2f} MiB in {folder}")


def read(seed: int, updates: int) -> int:
    """Scored tokens in the first updates of a run, counted from its batches again."""
    from understudy.recipes.controls import alone
    from understudy.running import Play, Studio
    from understudy.settings import setting

    recipe = alone(setting("stdlib-lm-teacher"))
    play = Play(Studio(None), recipe, seed)
    play.cast()
    loader = play._loader(recipe.stages[0], recipe.setting.budget)
    left, found, epoch = updates, 0, 0
    while left:
        batches = list(islice(loader.batches(epoch), left))
        found += sum(int(b.mask.sum()) for b in batches if b.mask is not None)
        left, epoch = left - len(batches), epoch + 1
    return found


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Of the shipped weights, on the validation and test texts of split 0."""
    from understudy.students import load_model

    model, call, task = load_model(folder), CausalLM(), stdlib_lm()
    found = {}
    for part in ("validate", "test"):
        scores = token_scores(lambda b: Signals(logits=call(model, b)), getattr(task, part))
        found[part] = {k: round(v, 4) for k, v in scores.measures().items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tokenizer", "ship"))
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=TEACHER)
    given = parser.parse_args()
    if given.what == "tokenizer":
        train_tokenizer(given.out)
    else:
        ship(given.run, given.out)


if __name__ == "__main__":
    main()
