"""The benchmarks of speed run, and their figures have the form that the results are made from."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


def quick(name: str, tmp_path: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    path = tmp_path / "a" / "it.json"
    found = importlib.import_module(name).main(["--quick", "--out", str(path)])
    torch.set_num_threads(threads)
    written = json.loads(path.read_text())
    assert written.pop("machine")["torch"] == torch.__version__
    assert written == json.loads(json.dumps(found))
    return found


def test_loop_overhead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quick("loop_overhead", tmp_path)
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]
    assert found["ratio"]["pairs"] == found["noise"]["pairs"] == 2
    assert set(found["step_ms"]) == {"by hand", "ours", "by hand again"}
    assert min(found["step_ms"].values()) > 0
    assert found["largest_weight_difference"] < 1e-6
    head, _, ours, noise, last = capsys.readouterr().out.strip().split("\n")
    assert head.split()[-3] == "ratio" or "ratio" in head
    assert ours.startswith("ours / by hand")
    assert noise.startswith("by hand / by hand (A/A)")
    assert last.startswith("2 pairs of 4 steps")


def test_loops_that_end_differently_are_noticed(tmp_path: Path) -> None:
    training = importlib.import_module("loop_overhead").Training(2, 2, tmp_path)
    training.by_hand("by hand")
    training.ends["ours"] = {k: v + 1e-3 for k, v in training.ends["by hand"].items()}
    with pytest.raises(AssertionError, match="end differently"):
        training.same_weights()


def test_stored_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quick("stored_teacher", tmp_path)
    assert found["parameters"]["teacher"] > 10 * found["parameters"]["student"]
    assert found["bytes_a_sample"] > 40  # ten logits in single precision, and their keys
    assert found["ratio"]["median"] > 0
    out = capsys.readouterr().out
    assert "stored / live" in out
    assert "live / live (A/A)" in out


def test_startup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quick("startup", tmp_path)
    assert set(found["seconds"]) == {"python", "import", "help"}
    assert found["import_beyond_python"] == pytest.approx(
        found["seconds"]["import"] - found["seconds"]["python"]
    )
    assert "understudy --help" in capsys.readouterr().out


def test_ratios_are_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    paired = importlib.import_module("paired")
    times = {"a": [1.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}
    assert paired.ratios(times, "a", "b") == {"median": 2.0, "low": 1.5, "high": 2.5, "pairs": 3}
    order: list[str] = []
    things = {name: (lambda name=name: order.append(name) or 0.0) for name in "abc"}
    assert paired.in_turns(things, 3) == {name: [0.0] * 3 for name in "abc"}
    assert "".join(order) == "abcbcacab"
    assert "paired" in sys.modules


def test_encoder_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quick("encoder_step", tmp_path)
    assert set(found["methods"]) == {"kd", "fitnets", "crd", "reviewkd", "dkd"}
    for own in found["methods"].values():
        assert own["ratio"]["pairs"] == own["noise"]["pairs"] == 2
        assert min(own["step_ms"].values()) > 0
        assert own["weight_difference"] < 1e-4
    out = capsys.readouterr().out
    assert "reviewkd: ours / by hand" in out
    assert "reviewkd: A/A" in out


@pytest.mark.parametrize("name", ["kd", "fitnets", "crd", "reviewkd", "dkd"])
def test_a_step_by_hand_that_differs_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = importlib.import_module("encoder_step")
    other = {"kd": "dkd", "dkd": "kd"}.get(name)
    method = step.METHODS[name]
    if other is not None:
        method = step.Method(ours=method.ours, hand=step.METHODS[other].hand)
    else:  # the same connectors under another weight of the term
        hand = method.hand

        def heavier(s: int, t: int) -> torch.nn.Module:
            made = hand(s, t)
            made.weight *= 1.1  # pyright: ignore
            return made

        method = step.Method(ours=method.ours, hand=heavier)
    with pytest.raises(AssertionError, match="end differently"):
        step.check(name, method, tmp_path)


def test_token_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quick("token_store", tmp_path)
    assert found["parameters"]["teacher"] > 10 * found["parameters"]["student"]
    assert set(found["speed_over_fine_tuning"]) == {
        "sampled", "top-k", "hidden", "labels again", "live",
    }  # fmt: skip
    assert set(found["time_over_live"]) == {"sampled", "top-k", "hidden"}
    assert 0 < found["bytes_a_token"]["sampled"] < found["bytes_a_token"]["hidden"]
    assert 1 <= found["drawn_ids_a_token"] <= 50
    assert min(found["tokens_a_second"].values()) > 0
    assert found["peak_bytes"] == {}  # not when quick
    out = capsys.readouterr().out
    for said in ("labels again (A/A)", "live teacher", "store, hidden", "different ids in 50"):
        assert said in out
