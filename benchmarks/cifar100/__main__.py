"""The published CIFAR-100 table, cell by cell.

    python -m benchmarks.cifar100 --data-dir DATA --pair resnet32x4-resnet8x4 --methods kd,dkd \
        --seeds 3 --device cuda --hours 0.4

240 epochs of batch 64, SGD (momentum 0.9, decay 5e-4) at 0.05, a tenth after 150, 180 and 210,
random crop (4 black pixels around) and flip, the full training split; last and best test epoch are
both kept, the best labelled as chosen on the test split, as the published protocol does. Teachers
are trained by the same protocol, once.

Everything lies on the device: images as bytes, crop and flip there, no Python for a single image.
A run stops at `--hours` (or Ctrl-C) and goes on where it stood when called again, so the table is
filled in pieces. `--render FILE` writes what the runs folder holds as Markdown beside the published
numbers; cells that were not run stay empty. `--epochs`, `--subset` shorten everything for a try,
and such runs have a folder of their own.
"""

import argparse
import json
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.cifar100.published import METHODS, PAIRS, PUBLISHED, TUNED
from understudy.recipes import recipe
from understudy.recipes.controls import alone
from understudy.running import Studio
from understudy.setting import Setting, Trained
from understudy.tasks.published import cifar100
from understudy.tasks.task import Task
from understudy.training.budget import Budget
from understudy.training.distribution import pick_device
from understudy.training.interrupt import Interrupt, Interrupted

EPOCHS, MILESTONES = 240, (150, 180, 210)


def setting(given: argparse.Namespace, pair: str) -> Setting:
    """The pair under the published protocol (its epochs scaled where `--epochs` says so)."""
    teacher, student = PAIRS[pair]
    budget = Budget(
        epochs=given.epochs,
        batch_size=64,
        optimizer="sgd",
        lr=0.05,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=tuple(round(m * given.epochs / EPOCHS) for m in MILESTONES),
        gamma=0.1,
        drop_last=False,
        validate_every=1,
        channels_last=given.device.type == "cuda",
        compile=given.compile,
        precision="bf16" if given.bf16 else "fp32",
    )
    return Setting(
        name=f"cifar100 {pair}",
        task=on_device(given.data_dir, given.subset, given.device),
        teachers={"teacher": Trained(model=teacher, budget=budget)},
        student=student,
        budget=budget,
    )


@cache
def on_device(data_dir: Path, subset: float, device: torch.device) -> Task:
    """The data, decoded once and laid on the device as bytes."""
    task = cifar100(data_dir=data_dir, protocol="published", subset=subset)
    parts = {
        name: part.to(device)
        for name in ("train", "teach", "validate", "test")
        if (part := getattr(task, name)) is not None
    }
    return replace(task, **parts)


def cell(given: argparse.Namespace, pair: str, method: str, seed: int, interrupt: Interrupt) -> Any:
    """Train one cell's seed, or continue it, or read it."""
    name = f"{pair}-{given.epochs}" + (f"-{given.subset:g}" if given.subset else "")
    studio = Studio(
        given.runs / name,
        device=given.device,
        interrupt=interrupt,
        save_seconds=120.0,
        listeners=[partial(progress, time.monotonic(), given)],
    )
    chosen = setting(given, pair)
    if method == "teacher":
        from understudy.running import teaching

        return studio.play(teaching(chosen, "teacher"), seed)
    # one teacher for all seeds, as the published tables have it
    teacher = studio.teacher(chosen, "teacher", 0)
    chosen = replace(chosen, teachers={"teacher": teacher.module})
    made = (
        alone(chosen)
        if method == "alone"
        else recipe(method)(chosen, **TUNED.get(method, {}).get(pair, {}))
    )
    return studio.play(made, seed)


def progress(began: float, given: argparse.Namespace, kind: str, fields: dict[str, Any]) -> None:
    """A line an epoch; asks for a stop when the hours are over."""
    if kind == "validate":
        print(
            f"{fields['arm']} seed {fields['seed']} epoch {fields['epoch']}"
            f" accuracy {100 * fields['measures']['accuracy']:.2f}"
            f" ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    if given.hours is not None and time.monotonic() - given.began > 3600 * given.hours:
        given.interrupt.wanted = True


def collected(runs: Path, pair: str, epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of all finished cells of a pair."""
    from understudy.training import checkpoint

    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((runs / f"{pair}-{epochs}").glob("*/seed-*/final")):
        state, _ = checkpoint.load(path)
        found.setdefault(path.parent.parent.name, []).append(state["row"])
    return found


def render(runs: Path, epochs: int = EPOCHS) -> str:
    """The table as Markdown: published and ours side by side."""
    lines = [
        "# CIFAR-100, published protocol",
        "",
        "Top-1 test accuracy in percent. *last*: last epoch; *best*: best epoch, chosen on the",
        "test split as some published numbers are; mean ± standard deviation over seeds. An empty",
        "cell was not run. Sources of the published column: `benchmarks/cifar100/published.py`.",
        "",
        "```",
        "python -m benchmarks.cifar100 --data-dir DATA --seeds 3 --render docs/results/cifar100.md",
        "```",
    ]
    for pair in PAIRS:
        rows = collected(runs, pair, epochs)
        lines += [
            "",
            f"## {pair.replace('-', ' → ')}",
            "",
            "| method | published | source | ours, last | ours, best | seeds | ms a step |",
            "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        ]
        for method in ("teacher", *METHODS):
            value, source = PUBLISHED[pair].get(method, (None, ""))
            own = rows.get(method, [])
            last = _spread([100 * r["last"]["accuracy"] for r in own])
            best = _spread([100 * r["best"]["accuracy"] for r in own])
            step = f"{mean(r['step_ms'] for r in own):.1f}" if own else ""
            shown = "" if value is None else f"{value:.2f}"
            lines.append(
                f"| {method} | {shown} | {source} | {last} | {best} | {len(own) or ''} | {step} |"
            )
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main(argv: list[str] | None = None) -> None:
    """Fill cells, or render what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder that holds cifar100/")
    parser.add_argument("--pair", choices=[*PAIRS, "all"], default="all")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--subset", type=float, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="run both networks compiled")
    parser.add_argument(
        "--hours", type=float, default=None, help="stop (to be continued) after this"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar100"))
    parser.add_argument("--render", type=Path, default=None)
    given = parser.parse_args(argv)
    given.device = pick_device(given.device)
    given.began = time.monotonic()
    if given.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with Interrupt() as interrupt:
            given.interrupt = interrupt
            if given.data_dir is not None:
                pairs = list(PAIRS) if given.pair == "all" else [given.pair]
                for seed in range(given.seeds):
                    for pair in pairs:
                        for method in ("teacher", *given.methods.split(",")):
                            if method == "teacher" and seed:
                                continue
                            row = cell(given, pair, method, seed, interrupt).row()
                            print(json.dumps({"pair": pair, "method": method, **row}), flush=True)
    except Interrupted:
        print("stopped after saving; the same command goes on from here")
    if given.render is not None:
        given.render.parent.mkdir(parents=True, exist_ok=True)
        given.render.write_text(render(given.runs, given.epochs))
        print(f"written: {given.render}")


if __name__ == "__main__":
    main()
