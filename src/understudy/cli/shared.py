"""What commands share: options, the run folder, tables and bars."""

import os
import sys
from pathlib import Path
from typing import Any

from understudy.errors import UserError


def prices_of(text: str | None) -> tuple[float, float] | None:
    """`0.15,0.60` as numbers."""
    if text is None:
        return None
    try:
        read, written = (float(p) for p in text.split(","))
    except ValueError:
        raise UserError(
            f"--prices takes what a million tokens cost, read and written: 0.15,0.60, not {text!r}"
        ) from None
    return read, written


def options_of(extra: list[str], given: Any) -> dict[str, Any]:
    """`--name value`, `--name=value` and `--set name=value` as a mapping."""
    found: dict[str, Any] = {}
    for pair in getattr(given, "set", []):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes field=value, not {pair!r}")
        found[name.strip()] = value
    items = list(extra)
    if items and given.command not in ("distill", "compare", "run", "label"):
        raise UserError(f"unknown argument {items[0]!r}; see understudy {given.command} --help")
    while items:
        item = items.pop(0)
        if not item.startswith("--"):
            raise UserError(f"unexpected argument {item!r}; see understudy {given.command} --help")
        name, equals, value = item[2:].partition("=")
        if not equals:
            value = items.pop(0) if items and not items[0].startswith("--") else "true"
        found[name.replace("-", "_")] = value
    return found


def set_threads(given: Any) -> None:
    """As `--threads` says."""
    if given.threads is not None:
        if given.threads < 1:
            raise UserError(f"--threads is at least 1, not {given.threads}")
        import torch

        torch.set_num_threads(given.threads)


def seeds_of(given: Any, default: int) -> int:
    """As `--seeds` says."""
    seeds = default if given.seeds is None else given.seeds
    if seeds < 1:
        raise UserError(f"--seeds is at least 1, not {seeds}")
    return seeds


def run_folder(given: Any, name: str) -> Path:
    """The run folder: as named, or `runs/NAME`, numbered; --resume, --overwrite mean the last."""
    given.place = given.out
    if given.out is None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("several processes need one run folder: give --out")
        base = Path("runs") / "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name)
        number, path, last = 1, base, base
        while path.exists():
            number += 1
            last, path = path, base.with_name(f"{base.name}-{number}")
        given.place = last if number > 1 and (given.resume or given.overwrite) else path
    return Path(given.place)


def show_run(run: Any) -> int:
    """The table of a run and where its folder is, once for all processes."""
    from understudy.training.distribution import rank

    if rank() != 0:
        return 0
    if run.summary.get("figures"):
        from understudy.reporting.study import figures_table

        show_text(figures_table(run.summary["figures"]))
    if run.summary.get("arms"):
        show_text(run.table())
    if run.folder is not None:
        pages = (("report", "report.html"), ("plots", "study.png"))
        where = "".join(f"   {n}: {run.folder / f}" for n, f in pages if (run.folder / f).is_file())
        show(f"\nrun folder: {run.folder}{where}")
    return 0


def show(thing: Any) -> None:
    """Print a line, or a table of rich."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(thing, str)).print(
        thing, markup=False
    ) if isinstance(thing, str) else Console(highlight=False).print(thing)


def show_text(text: str) -> None:
    """Print text as it is, with a line end."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


class Bars:
    """Bars while models train: one for the arm in hand, described by its last validation."""

    def __init__(self, given: Any) -> None:
        self.quiet = given.quiet
        self.bar: Any = None

    def __enter__(self) -> "Bars":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        if not self.quiet and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self.bar.start()
        self.tasks: dict[Any, Any] = {}
        self.updated = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        """An event of a run."""
        if self.quiet:
            return
        if self.bar is None:
            if kind == "validate" and fields.get("last"):
                self._line(fields)
            return
        key = (fields["arm"], fields["seed"], fields["stage"])
        if key not in self.tasks:
            for old in self.tasks.values():
                self.bar.remove_task(old)
            name = (
                fields["arm"]
                if fields["arm"] == fields["stage"]
                else f"{fields['arm']} {fields['stage']}"
            )
            self.tasks = {
                key: self.bar.add_task(f"{name}, seed {fields['seed']}", note="", total=None)
            }
        if kind == "update":
            self.bar.update(self.tasks[key], completed=fields["step"], total=fields["total"])
        elif kind == "validate":
            shown = [f"{k} {v:.3f}" for k, v in fields["measures"].items() if k != "score"]
            self.bar.update(self.tasks[key], note=" ".join(shown))

    def _line(self, fields: dict[str, Any]) -> None:
        shown = " ".join(f"{k} {v:.4f}" for k, v in fields["measures"].items() if k != "score")
        print(f"{fields['arm']} seed {fields['seed']} {fields['stage']}: {shown}", file=sys.stderr)

    def count(self, done: int, total: int) -> None:
        """Progress of a job that is counted in samples."""
        if self.bar is None:
            return
        if "count" not in self.tasks:
            self.tasks["count"] = self.bar.add_task("samples", note="", total=total)
        self.bar.update(self.tasks["count"], completed=done, total=total)
