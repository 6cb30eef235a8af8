"""Resume, plan, budget, trackers, signals, export, report, methods, run, and Ctrl-C."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from understudy.cli import main
from understudy.cli import training as command_line

from .conftest import arm, summary


@pytest.fixture
def digits(data, taught):
    return ("distill", "--teacher", taught, "--student", "cnn:width=4", "--data", data / "images",
            "--quiet")  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    return load_file(Path(folder) / "student" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_ctrl_c_saves_and_resume_alone_goes_on(cli, digits, monkeypatch):
    assert cli(*digits, "--steps", 8, "--lr", 0.01, "--out", "whole")[0] == 0

    class Stops(command_line.Bars):
        def __call__(self, kind, fields):
            if kind == "update" and fields["step"] == 2:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(command_line, "Bars", Stops)
        code, _, err = cli(*digits, "--steps", 8, "--lr", 0.01, "--out", "cut")
    assert code == 130
    assert err == (
        "understudy: stopped after saving; go on with: understudy distill --out cut --resume\n"
    )
    assert not Path("cut/summary.json").exists()
    assert cli("distill", "--out", "cut", "--resume", "--quiet")[0] == 0
    assert same(weights("whole"), weights("cut"))
    assert json.loads(Path("cut/config.json").read_text())["command"].endswith("--out cut")
    # and once more with another seed
    assert cli("distill", "--out", "cut", "--resume", "--seeds", 2, "--quiet")[0] == 0
    assert len(summary("cut")["arms"][-1]["runs"]) == 2
    assert summary("cut")["command"].endswith("--out cut --seeds 2")
    assert summary("cut")["arms"][-1]["runs"][0]["last"] == arm("whole", "kd")


def test_default_folders_are_numbered(cli, digits):
    for expected in ("runs/images-kd", "runs/images-kd-2"):
        assert cli(*digits, "--steps", 1)[0] == 0
        assert (Path(expected) / "summary.json").exists()
    written = Path("runs/images-kd-2/report.html").stat().st_mtime_ns
    assert cli(*digits, "--steps", 1, "--overwrite")[0] == 0
    assert not Path("runs/images-kd-3").exists()
    assert Path("runs/images-kd-2/report.html").stat().st_mtime_ns > written


def test_resume_starts_a_run_that_is_not_there(cli, digits):
    assert cli(*digits, "--steps", 1, "--out", "run", "--resume")[0] == 0
    assert arm("run", "kd")


def test_plan_trains_and_writes_nothing(cli, digits):
    code, out, _ = cli(*digits, "--plan", "--controls", "--seeds", 3)
    assert code == 0
    assert "nothing was trained" in out
    assert "alone" in out
    assert not Path("runs").exists()


def test_a_budget_of_time_is_spent_on_controls_and_seeds(cli, digits):
    began = time.monotonic()
    assert cli(*digits, "--steps", 1, "--budget", "0.01s", "--out", "run")[0] == 0
    spent = time.monotonic() - began
    assert [a["name"] for a in summary("run")["arms"]] == ["teacher", "kd"]  # the pair comes first
    assert cli(*digits, "--steps", 1, "--budget", "1h", "--out", "more")[0] == 0
    assert {a["name"]: len(a["runs"]) for a in summary("more")["arms"]}["alone"] == 5
    assert spent < 60


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_is_told(cli, digits, name, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, _, err = cli(*digits, "--epochs", 2, "--track", name, "--out", "run")
    assert code == 0, err
    assert any(Path("run/track").rglob("*"))
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator("run/track/tensorboard")
        events.Reload()
        assert "kd/seed-0/accuracy" in events.Tags()["scalars"]
        assert [e.step for e in events.Scalars("kd/seed-0/accuracy")] == [4, 8]


def test_training_from_stored_signals_is_as_from_the_live_teacher(
    cli, refused, digits, data, taught
):
    run = ("--student", "cnn:width=4", "--data", data / "images", "--steps", 6, "--quiet")
    assert cli("distill", "--teacher", taught, *run, "--out", "live")[0] == 0
    code, out, err = cli("signals", "write", "--teacher", taught, "--data", data / "images",
                         "--out", "store", "--quiet")  # fmt: skip
    assert code == 0, err
    assert "240 samples in store" in out
    code, _, err = cli("distill", "--teacher", "store", *run, "--controls", "--out", "stored")
    assert code == 0, err
    live, stored = weights("live"), weights("stored")
    assert all(torch.allclose(live[k], stored[k], atol=1e-5) for k in live)
    assert arm("stored", "kd") == pytest.approx(arm("live", "kd"), abs=1e-4)
    assert arm("stored", "teacher")["accuracy"] == arm("live", "teacher")["accuracy"]
    # other data, another preprocessing, another teacher
    err = refused(
        "distill", "--teacher", "store", *run[:2], "--data", data / "digits.npz", "--quiet"
    )
    assert "store" in err
    other = ("signals", "write", "--teacher", "store", "--data", data / "images", "--out", "again")
    assert "stored signals already" in refused(*other)
    fixed = ("signals", "write", "--teacher", "live", "--data", data / "images", "--out", "store")
    assert "other" in refused(*fixed)


def test_stored_signals_of_data_without_labels(cli, data, taught):
    given = ("--data", data / "unlabelled.npz", "--quiet")
    assert cli("signals", "write", "--teacher", taught, *given, "--out", "store")[0] == 0
    code, _, err = cli("distill", "--teacher", "store", "--student", "cnn:width=4", *given,
                       "--steps", 2, "--out", "run")  # fmt: skip
    assert code == 0, err
    assert set(arm("run", "kd")) == {"agreement", "kl"}


def test_a_feature_that_was_not_stored_is_refused(cli, refused, data, taught):
    given = ("--data", data / "images", "--quiet")
    assert cli("signals", "write", "--teacher", taught, *given, "--out", "store")[0] == 0
    err = refused("distill", "--teacher", "store", "--student", "cnn:width=4", *given, "--method",
                  "fitnets", "--out", "run")  # fmt: skip
    assert "does not have it" in err


def test_shards_by_several_workers(cli, refused, data, taught):
    write = ("signals", "write", "--teacher", taught, "--data", data / "images", "--out", "store")
    assert "--shard" in refused(*write, "--shard", "2/2")
    assert cli(*write, "--shard", "0/1", "--dtype", "fp16", "--top-k", 3)[0] == 0
    assert Path("store/manifest.json").exists()


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_export_is_loaded_back_and_measured(cli, taught, form, tmp_path):
    out = tmp_path / "exported" / ("m.onnx" if form == "onnx" else "m.pt2")
    code, said, err = cli("export", taught, "--format", form, "--out", out, "--max-drop", 0.001)
    assert code == 0, err
    assert out.is_file()
    assert "p95" in said or "latency" in said


def test_export_in_8_bits_may_drop_too_much(cli, taught, tmp_path):
    out = tmp_path / "m.onnx"
    code, _, err = cli("export", taught, "--int8", "--out", out, "--max-drop", 1)
    assert code == 0, err
    code, _, err = cli("export", taught, "--int8", "--out", out, "--max-drop", -1)
    assert code == 1
    assert "--max-drop" in err


def test_export_of_a_text_student_and_of_ones_own_code(cli, data, refused):
    Path("mine.py").write_text(
        "from torch import nn\n"
        "def make(classes=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    assert cli("distill", "--student", "mine.py:make", "--data", data / "images", "--steps", 2,
               "--quiet", "--out", "own")[0] == 0  # fmt: skip
    assert "factory" in refused("export", "own")
    assert cli("export", "own", "--factory", "mine.py:make")[0] == 0
    assert Path("own/export/student.onnx").is_file()
    assert cli("distill", "--student", "text:width=4,depth=0", "--data", data / "text.csv",
               "--steps", 2, "--quiet", "--out", "words")[0] == 0  # fmt: skip
    code, _, err = cli("export", "words")
    assert code == 0, err


def test_a_report_again(cli, taught):
    path = taught / "report.html"
    path.unlink()
    code, out, _ = cli("report", taught)
    assert code == 0
    assert str(path) in out
    assert "<html" in path.read_text()


def test_methods(cli):
    code, out, _ = cli("methods", "--json")
    cards = {c["name"]: c for c in json.loads(out)}
    assert code == 0
    assert {
        "kd",
        "fitnets",
        "rkd",
        "at",
        "dkd",
        "takd",
        "dot",
        "dml",
        "mean_teacher",
        "ensemble",
    } <= (set(cards))
    assert all({"name", "title", "source", "kind", "wing", "recipe", "summary"} <= set(c)
               for c in cards.values())  # fmt: skip
    assert cards["kd"]["title"] == "Distilling the Knowledge in a Neural Network"
    assert "1503.02531" in cli("methods", "kd")[1]
    assert json.loads(cli("methods", "kd", "--json")[1])["name"] == "kd"
    assert "fitnets" in cli("methods", "--wing", "encoders")[1]


def test_a_recipe_of_ones_own(cli, refused):
    Path("mine.py").write_text(
        "from understudy import Recipe, Setting, Stage, ce, kd\n"
        "from understudy.settings import digits\n\n"
        "def mine(setting: Setting | None = None, *, weight: float = 0.5) -> Recipe:\n"
        '    """Mine."""\n'
        "    setting = setting or digits()\n"
        "    stage = Stage(objective=ce() + weight * kd(temperature=2.0))\n"
        "    return Recipe(name='mine', setting=setting, stages=(stage,))\n\n"
        "def my_loss(student, teacher, batch):\n"
        "    return (student.dense - teacher.dense).square().mean(-1)\n"
    )
    code, _, err = cli("run", "mine.py", "--smoke", "--set", "weight=0.1", "--set",
                         "student=cnn:width=4", "--quiet", "--out", "run")  # fmt: skip
    assert code == 0, err
    recipe = json.loads(Path("run/config.json").read_text())["recipe"]
    assert recipe["stages"][0]["objective"][1]["weight"] == 0.1
    assert recipe["setting"]["student"] == "cnn:width=4"
    assert cli("run", "--out", "run", "--resume", "--quiet", "mine.py")[0] == 0
    assert cli("distill", "--method", "mine.py:my_loss", "--student", "cnn:width=4",
               "--no-controls", "--steps", 2, "--set", "teachers.teacher.steps=2", "--seeds", 1, "--quiet", "--out",
               "loss")[0] == 0  # fmt: skip
    assert "my_los" in refused("run", "mine.py:my_los")
    assert "weight" in refused("run", "mine.py", "--set", "wieght=1", "--out", "no")
    Path("empty.py").write_text("x = 1\n")
    assert "no recipe" in refused("run", "empty.py")


def test_run_by_name(cli):
    code, _, err = cli("run", "fitnets", "--smoke", "--seeds", 2, "--quiet")
    assert code == 0, err
    assert len(summary("runs/fitnets-smoke")["arms"][-1]["runs"]) == 2


def test_help_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["distill"], ["compare"], ["run"], ["methods"], ["signals", "write"],
                    ["export"], ["report"]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= 80
    assert main([]) == 0
    assert "distill" in capsys.readouterr().out


def test_nothing_heavy_is_imported_before_it_is_needed():
    program = (
        "import sys, understudy, understudy.cli; understudy.cli.new_parser(); "
        "print([m for m in ('torch', 'numpy', 'rich', 'transformers') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
