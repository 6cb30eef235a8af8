"""What a measurement leaves: numbers of every seed, a picture, a table."""

import json
from pathlib import Path
from statistics import mean, stdev

import torch

from understudy.reporting.study import draw, figures_table, write_study

FOUND = [
    {"seed": k, "figure": {"gap": k}, "size": [1, 10, 100], "accuracy": [0.5 + k / 10, 0.6, 0.7]}
    for k in range(2)
]


def test_files(tmp_path: Path) -> None:
    paths = write_study(tmp_path, "gaps", FOUND)
    assert write_study(tmp_path, "gaps", FOUND) == paths  # a finished run, resumed
    assert [p.name for p in paths] == ["study.json", "study.png"]
    kept = json.loads(paths[0].read_text())
    assert kept["study"] == "gaps"
    assert [s["accuracy"][0] for s in kept["seeds"]] == [0.5, 0.6]
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_projection_of_some_classes_alone() -> None:
    points = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 5
    found = {"projection": {"all": points}, "labels": labels}
    whole = draw("p", [found])
    some = draw("p", [{**found, "classes": [0, 1]}])
    same = draw("p", [{"projection": {"all": points[labels < 2]}, "labels": labels[labels < 2]}])
    assert whole != some
    assert some == same


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert [p.name for p in write_study(tmp_path, "one", [{"figure": {"gap": 1.0}}])] == [
        "study.json"
    ]


def test_table() -> None:
    values = [0.25, 0.5, 1.0]
    text = figures_table([{"seed": k, "gain_kd": v, "note": "x"} for k, v in enumerate(values)])
    head, _, row, note = text.splitlines()
    assert head.split() == ["figure", "mean", "+/-", "sd", "seed", "0", "seed", "1", "seed", "2"]
    assert row.split() == [
        "gain", "kd", f"{mean(values):.4g}", "+/-", f"{stdev(values):.2g}", "0.25", "0.5", "1",
    ]  # fmt: skip
    assert note.split() == ["note", "-", "x", "x", "x"]
