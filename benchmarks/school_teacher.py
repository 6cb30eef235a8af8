"""Trains the shipped teacher of the school world, measures it, and writes it to OUT/teacher.

    python benchmarks/school_teacher.py --out runs/school-teacher

Interrupted, the same command goes on where it stood; `--measure` measures the shipped one alone.
With glibc, larger MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ (2**30) spare system time.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from understudy.tasks.school import report, teacher
from understudy.tasks.school.ship import ship
from understudy.tasks.school.study import STAGES, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/school-teacher"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=480, help="held-out rows an ability")
    parser.add_argument("--measure", action="store_true", help="measure the shipped teacher alone")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.measure:
        show(report(teacher(), given.count))
        return 0

    spent: dict[str, float] = {}

    def listen(stage: str, fields: dict[str, Any]) -> None:
        spent[stage] = fields["seconds"]
        terms = ", ".join(f"{k} {v:.4f}" for k, v in fields["terms"].items())
        print(f"{time.strftime('%X')} {stage} {fields['step']}: {terms}", flush=True)

    model = None
    for name, study in STAGES.items():
        model = train(
            study, given.out / name, start=model, listen=lambda _, f, name=name: listen(name, f)
        )
    assert model is not None
    model.half().float().eval()  # measured as shipped
    measured = report(model, given.count)
    show(measured)
    ship(
        model, given.out / "teacher", STAGES, measured,
        count=given.count, seconds=sum(spent.values()),
    )  # fmt: skip
    return 0


def show(measured: dict[str, dict[str, float]]) -> None:
    for ability, shares in measured.items():
        print(ability, *(f"{skill} {100 * share:.1f}" for skill, share in shares.items()))


if __name__ == "__main__":
    sys.exit(main())
