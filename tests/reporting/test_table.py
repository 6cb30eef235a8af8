"""Tables of a really trained run, of a league, of regression and of one seed."""

import copy
import csv
import io
import json
import math
import statistics

import pytest

from understudy.errors import CheckpointError
from understudy.reporting import (
    notes,
    read_summary,
    records,
    render,
    table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)


def accuracies(summary: dict, arm: str) -> list[float]:
    found = next(a for a in summary["arms"] if a["name"] == arm)
    return [r["last"]["accuracy"] for r in found["runs"]]


def test_means_and_intervals_are_those_of_the_seeds(summary: dict) -> None:
    found = accuracies(summary, "kd")
    half = 4.302652729911275 * statistics.stdev(found) / math.sqrt(3)  # t(0.975, 2 degrees)
    text = render(summary, 140, ascii=False)
    assert f"{100 * statistics.mean(found):.2f} ± {100 * half:.2f}" in text
    row = next(r for r in records(summary) if r["arm"] == "kd")
    assert row["accuracy_last"] == pytest.approx(statistics.mean(found))
    assert row["accuracy_last_interval"] == pytest.approx(half, rel=1e-6)


def test_arms_stand_in_order_and_verdicts_beneath(summary: dict) -> None:
    summary["arms"].reverse()
    lines = render(summary, 120).splitlines()
    places = [i for n in ("teacher ", "student alone ", "plain KD ")
              for i, line in enumerate(lines) if line.startswith(n)]  # fmt: skip
    assert places[:3] == sorted(places[:3])
    verdict = summary["comparisons"][0]["verdict"]
    assert any("plain KD against student alone" in line for line in lines)
    assert verdict in " ".join(lines)
    assert "Test split, 497 samples; 3 seeds" in " ".join(lines)


def test_a_gain_inside_the_noise_is_shown_as_such(summary: dict) -> None:
    summary["comparisons"][0] |= {
        "difference": 0.002, "interval": 0.004, "p": 0.31, "verdict": "inside the noise",
    }  # fmt: skip
    assert notes(summary)[0] == (
        "plain KD against student alone: +0.20 ± 0.40 points accuracy (p = 0.31): inside the noise"
    )
    summary["comparisons"][0]["interval"] = [-0.002, 0.006]
    assert "+0.20 [-0.20, +0.60] points" in notes(summary)[0]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("ascii", [True, False])
def test_no_line_is_wider_than_the_terminal(summary: dict, width: int, ascii: bool) -> None:
    text = render(summary, width, ascii=ascii)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() == ascii
    for arm in ("teacher", "student alone", "plain KD"):
        assert arm in text
    assert ("Left out for width" in text) == (width < 130)
    assert "accuracy" in text


def test_output_that_is_no_terminal_is_ascii_without_escape_codes(summary: dict) -> None:
    summary["arms"][1]["title"] = "[bold]ümlaut[/bold] \x1b[31m"
    text = render(summary, 120)
    assert text.isascii()
    assert "\x1b" not in text
    assert "[bold]?mlaut[/bold]" in text
    assert "\x1b" not in render(summary, 120, ascii=False)


def test_the_table_is_a_rich_table(summary: dict) -> None:
    from rich.table import Table

    found = table(summary, width=120)
    assert isinstance(found, Table)
    assert found.row_count == 3


def test_one_seed_says_no_interval(summary: dict) -> None:
    for arm in summary["arms"]:
        arm["runs"] = arm["runs"][:1]
    summary["comparisons"][0] |= {"p": None, "verdict": "one seed: no interval"}
    text = render(summary, 120)
    assert f"{100 * accuracies(summary, 'kd')[0]:.2f} (no interval)" in text
    assert "+/-" not in text
    assert next(r for r in records(summary) if r["arm"] == "kd")["accuracy_last_interval"] is None


def league(summary: dict) -> dict:
    """The run as a league: real figures, ranked, with one method that failed."""
    found = copy.deepcopy(summary)
    for arm, rank in zip(found["arms"], (None, 1, 1), strict=True):
        arm |= {"rank": rank, "step_ms": arm["runs"][0]["step_ms"], "peak_mb": None,
                "extra_parameters": 0, "error": None, "tuned": None}  # fmt: skip
    found["arms"].append({
        "name": "fitnets", "role": "method", "runs": [], "cost": None, "rank": None,
        "error": "the teacher has no stage 3",
    })  # fmt: skip
    return found


def test_a_league_has_ranks_with_ties_and_failures(summary: dict) -> None:
    found = league(summary)
    lines = render(found, 120).splitlines()
    rows = {line.split()[1]: line for line in lines if line.split()[1:]}
    assert "1=" in rows["student"]
    assert "1=" in rows["plain"]
    assert "failed" in rows["fitnets"]
    assert "fitnets failed: the teacher has no stage 3" in " ".join(lines)
    # among equals the better mean stands first, failures last
    names = [r["arm"] for r in records(found)]
    better = sorted(("alone", "kd"), key=lambda a: -statistics.mean(accuracies(found, a)))
    assert names == ["teacher", *better, "fitnets"]
    assert "step" in lines[0]
    assert records(found)[1]["step_ms"] > 0


def test_a_student_of_another_size_is_told(summary: dict) -> None:
    found = league(summary)
    assert "parameters" not in " ".join(notes(found))
    control = next(a for a in found["arms"] if a["name"] == "alone")
    mine = next(a for a in found["arms"] if a["name"] == "kd")
    mine["cost"] = {**mine["cost"], "parameters": 4 * control["cost"]["parameters"]}
    (line,) = (x for x in notes(found) if "parameters" in x)
    assert line.startswith("plain KD makes a student of its own")
    assert line.endswith("4.0 times the controls'")


def test_a_league_shows_the_corrupted_metric(summary: dict) -> None:
    found = league(summary)
    found["arms"][1]["corrupted"] = {"accuracy": 0.5}
    text = render(found, 150)
    assert "corrupted" in text
    assert "50.00" in text


def test_regression_has_its_own_columns(summary: dict) -> None:
    summary["task"] |= {"kind": "regression", "metric": "mse", "higher_is_better": False}
    for arm in summary["arms"]:
        for run in arm["runs"]:
            nll = run["last"]["nll"]
            run["last"] = {"mse": nll, "teacher_mse": nll / 2}
            run["best"] = None
    head = "\n".join(render(summary, 120).splitlines()[:2])
    assert "MSE" in head
    assert "T. MSE" in head
    for absent in ("ECE", "agree", "%", "best"):
        assert absent not in head


def test_csv_json_and_markdown_hold_the_same_numbers(summary: dict) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    held = json.loads(to_json(summary))
    names = ["teacher", "alone", "kd"]
    assert [r["arm"] for r in rows] == [r["arm"] for r in held["rows"]] == names
    for row, other in zip(rows, held["rows"], strict=True):
        assert float(row["nll_last"]) == other["nll_last"]
    lines = to_markdown(summary).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[4].count("|")


def test_text_cannot_break_out_of_markdown_and_latex(summary: dict) -> None:
    summary["arms"][2]["title"] = "a|b <script> $x$ 50%_\n\\input{/etc/passwd}"
    lines = to_markdown(summary).splitlines()
    assert lines[4].count("|") - lines[4].count("\\|") == lines[1].count("|")
    assert "<script>" not in to_markdown(summary)
    tex = to_latex(summary)
    assert r"\$x\$ 50\%\_ \textbackslash{}input\{/etc/passwd\}" in tex
    body = [line for line in tex.splitlines() if line.endswith(r" \\")]
    assert len({line.count("&") for line in body}) == 1
    assert all(line.startswith("%") or "passwd" not in line or r"\textback" in line
               for line in tex.splitlines())  # fmt: skip


def test_values_that_are_not_finite_are_said_so(summary: dict) -> None:
    summary["arms"][2]["runs"][0]["last"]["accuracy"] = "NaN"
    assert "not finite" in render(summary, 120)
    assert json.loads(to_json(summary))["rows"][2]["accuracy_last"] is None


def test_a_folder_without_a_summary_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"no summary\.json"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"version": 9, "arms": []}')
    with pytest.raises(CheckpointError, match="version 9"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_summary(tmp_path)
