"""Leagues: fair, shared, resumable, in parts; a method that fails is a row."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from worlds import small

import understudy as us
from understudy.errors import UserError
from understudy.league import Contest, entries
from understudy.league.workshop import claim
from understudy.recipes import recipe
from understudy.running import Studio
from understudy.setting import Recipe

HERE = Path(__file__).parent


class Counting(Studio):
    """A studio that notes what is trained."""

    def __init__(self, folder, **kw) -> None:
        self.trained = []
        super().__init__(folder, listeners=[self._note], **kw)

    def _note(self, kind, fields) -> None:
        if kind == "update" and fields["step"] == 1 and fields["number"] == 0:
            self.trained.append((fields["arm"], fields["seed"]))


def contest(folder, methods=("dkd",), *, setting=None, seeds=2, **kw) -> Contest:
    setting = setting or small()
    studio = Counting(None if folder is None else folder / "checkpoints", save_seconds=None)
    arms = entries(methods, setting)
    return Contest(studio, setting, arms, seeds=range(seeds), folder=folder, **kw)


def arm(summary, name):
    return next(a for a in summary["arms"] if a["name"] == name)


def broken(student, teacher, batch):
    raise RuntimeError("a bug of mine")


def overflows(student, teacher, batch):
    return student.dense.sum() * float("inf")


def wants_head(student, teacher, batch):
    return (student.dense - teacher.dense).square().mean()


wants_head.needs = us.objectives.Needs(student=("stage.9",))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One league of everything, with its folder."""
    folder = tmp_path_factory.mktemp("league")
    methods = {
        "dkd": "dkd",
        "fitnets": "fitnets",
        "broken": broken,
        "inf": overflows,
        "tap": wants_head,
    }
    league = contest(folder, methods)
    return league, league.play(), folder


def test_controls_are_always_in_and_ranks_have_ties(played) -> None:
    _, summary, _ = played
    assert [a["name"] for a in summary["arms"]][:3] == ["teacher", "alone", "kd"]
    ranked = {a["name"]: a["rank"] for a in summary["arms"] if a["role"] != "teacher"}
    assert ranked["kd"] is not None
    assert min(r for r in ranked.values() if r is not None) == 1
    for name in ("alone", "kd", "dkd", "fitnets"):
        assert len(arm(summary, name)["runs"]) == 2
    assert "Holm" in summary["protocol"]["note"]


def test_each_failure_is_a_row_that_says_why(played) -> None:
    league, summary, _ = played
    assert "a bug of mine" in arm(summary, "broken")["error"]
    assert "RuntimeError" in arm(summary, "broken")["error"]
    assert "not finite" in arm(summary, "inf")["error"]
    # refused before training, with what there is
    assert "stage.9" in arm(summary, "tap")["error"]
    assert ("tap", 0) not in league.studio.trained
    assert all(arm(summary, n)["rank"] is None for n in ("broken", "inf", "tap"))


def test_columns(played) -> None:
    _, summary, _ = played
    for name in ("alone", "kd", "dkd", "fitnets"):
        row = arm(summary, name)
        assert 0 <= row["corrupted"]["accuracy"] <= 1
        assert row["peak_mb"] > 0
        assert row["runs"][0]["step_ms"] > 0
    assert arm(summary, "kd")["extra_parameters"] == 0
    assert arm(summary, "fitnets")["extra_parameters"] > 0  # its regressor
    assert arm(summary, "kd")["peak_mb"] > arm(summary, "alone")["peak_mb"] / 2


def test_the_teacher_was_heard_once_a_seed(played) -> None:
    league, _, folder = played
    stores = sorted(p.name for p in (folder / "signals").iterdir() if p.is_dir())
    assert len(stores) == 2
    assert league.studio.trained.count(("kd", 0)) == 1


def test_a_method_that_was_mended_is_played_again(tmp_path) -> None:
    setting = small()

    def flawed(student, teacher, batch):
        # passes the trial before training, fails in it
        if mistakes and student.dense.requires_grad and len(batch) > 1 and torch.is_grad_enabled():
            mistakes[0] -= 1
            if mistakes[0] < 0:
                raise RuntimeError("a bug of mine")
        return (student.dense - teacher.dense).square().mean()

    mistakes = [3]
    first = contest(tmp_path, {"mine": flawed}, setting=setting, seeds=1)
    assert "a bug of mine" in arm(first.play(), "mine")["error"]
    assert ("mine", 0) in first.studio.trained
    mistakes.clear()
    second = contest(tmp_path, {"mine": flawed}, setting=setting, seeds=1)
    found = second.play()
    assert arm(found, "mine").get("error") is None
    assert len(arm(found, "mine")["runs"]) == 1
    assert ("kd", 0) not in second.studio.trained


def test_nothing_is_repeated(played) -> None:
    _league, summary, folder = played
    methods = {
        "dkd": "dkd",
        "fitnets": "fitnets",
        "broken": broken,
        "inf": overflows,
        "tap": wants_head,
    }
    again = contest(folder, methods)
    found = again.play()
    assert again.studio.trained == []
    assert [a["runs"] for a in found["arms"]] == [a["runs"] for a in summary["arms"]]
    assert arm(found, "inf")["error"] == arm(summary, "inf")["error"]
    # one method more trains that method alone
    more = contest(folder, {**methods, "at": "at"})
    more.play()
    assert set(more.studio.trained) == {("at", 0), ("at", 1)}


def test_shards_meet_in_one_folder(tmp_path) -> None:
    whole = contest(None, seeds=2).play()
    first = contest(tmp_path, shard=(0, 2))
    half = first.play()
    assert half["missing"]
    assert "missing" in half["protocol"]["note"]
    second = contest(tmp_path, shard=(1, 2))
    found = second.play()
    assert "missing" not in found
    assert not set(first.studio.trained) & set(second.studio.trained)
    for name in ("alone", "kd", "dkd"):
        ours, theirs = arm(found, name)["runs"], arm(whole, name)["runs"]
        for a, b in zip(ours, theirs, strict=True):
            # stored signals were heard in other batches: last bits may differ
            assert a["last"]["nll"] == pytest.approx(b["last"]["nll"], rel=1e-2)
    with pytest.raises(UserError, match="folder"):
        contest(None, shard=(0, 2))


def test_views_that_change_are_shared_in_lockstep(tmp_path) -> None:
    setting = small(augment=True)
    league = contest(tmp_path, ["dkd", "at", "dot"], setting=setting, seeds=1)
    league.play()
    assert not (tmp_path / "signals").exists()
    shared = [u.arms for u in league._units()]
    assert ("kd", "dkd", "at") in shared
    apart = Studio(None).play(recipe("dkd")(setting), 0)
    for name, value in apart.model.state_dict().items():
        assert torch.equal(value, league.results["dkd"][0].model.state_dict()[name])


def test_without_labels_the_student_alone_is_a_row(tmp_path) -> None:
    from understudy.data import Arrays

    setting = small(labelled_share=None)
    task = setting.task_for(0)
    bare = Arrays(task.train.inputs, None, name="train")
    own = replace(setting, task=replace(task, train=bare))
    summary = contest(None, [us.kd()], setting=own, seeds=1).play()
    assert "label" in arm(summary, "alone")["error"]
    assert len(arm(summary, "kd-2")["runs"]) == 1  # the teacher's output alone


def test_a_measurement_is_refused(tmp_path) -> None:
    def figures(setting=None) -> Recipe:
        return Recipe(name="f", setting=setting, study=lambda studio, seed: {}, kind="measurement")

    summary = contest(None, {"figures": figures}, seeds=1).play()
    assert "understudy run" in arm(summary, "figures")["error"]


def test_two_do_not_do_the_same(tmp_path) -> None:
    with claim(tmp_path / "x"):
        code = (
            "import fcntl, sys\n"
            f"f = open({str(tmp_path / 'x')!r}, 'w')\n"
            "try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError: sys.exit(7)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_processes_give_the_same_and_a_dead_one_is_a_row(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\n"
        "def my_loss(student, teacher, batch):\n"
        "    return (student.dense - teacher.dense).square().mean(-1)\n"
        "def dies(student, teacher, batch):\n"
        "    os._exit(9)\n"
    )
    methods = [f"{path}:dies", f"{path}:my_loss"]
    setting = small(augment=True)
    two = contest(tmp_path / "two", methods, setting=setting, seeds=1, jobs=2)
    # kd begins in one process with the method that ends it, and is given another
    assert ("kd", "dies") in [u.arms for u in two._units()]
    found = two.play()
    assert "exit code 9" in arm(found, "dies")["error"]
    assert len(arm(found, "alone")["runs"]) == 1
    one = contest(None, methods[1:], setting=setting, seeds=1).play()
    for name in ("alone", "kd", "my_loss"):
        assert arm(found, name)["runs"][0]["last"] == arm(one, name)["runs"][0]["last"]


def test_killed_and_resumed_repeats_nothing(tmp_path) -> None:
    """SIGKILL in the middle: what was finished is read, the rest is trained, results are the same."""
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_contest import contest\n"
        "contest(Path(sys.argv[1]), ['dkd'], seeds=2).play()\n"
    )
    folder = tmp_path / "league"
    process = subprocess.Popen([sys.executable, str(script), str(folder)])
    try:
        until = time.monotonic() + 200
        while not (folder / "checkpoints/dkd/seed-0/final").exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    done = {
        (p.parent.parent.name, int(p.parent.name.removeprefix("seed-")))
        for p in folder.glob("checkpoints/*/*/final")
    }
    assert ("dkd", 0) in done
    assert len(done) < 6
    again = contest(folder, ["dkd"], seeds=2)
    found = again.play()
    assert not done & set(again.studio.trained)
    assert "missing" not in found
    fresh = contest(tmp_path / "fresh", ["dkd"], seeds=2).play()
    for name in ("alone", "kd", "dkd"):
        for a, b in zip(arm(found, name)["runs"], arm(fresh, name)["runs"], strict=True):
            assert a["last"] == b["last"]


def test_from_python_and_its_files(tmp_path) -> None:
    run = us.compare(
        small(), {"mine": us.ce() + us.kd(temperature=2.0)}, seeds=2, out=tmp_path / "out"
    )
    assert "mine" in run.table(width=200)
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"league.json", "league.csv", "league.tex", "report.html", "summary.json"} <= files
    rows = list(csv.DictReader((tmp_path / "out/league.csv").open()))
    assert {r["arm"] for r in rows} == {"teacher", "alone", "kd", "mine"}
    mine = next(r for r in rows if r["arm"] == "mine")
    assert float(mine["corrupted_accuracy"]) <= 1
    assert float(mine["peak_mb"]) > 0
    assert mine["extra_parameters"] == "0.0"
    said = json.loads((tmp_path / "out/league.json").read_text())
    assert said["metric"] == "accuracy"
    assert "toprule" in (tmp_path / "out/league.tex").read_text()
    assert "<svg" in (tmp_path / "out/report.html").read_text()
    assert run.predict(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("method", ["fitnets", "teacher_class"])
def test_stages_of_one_epoch_together_last_as_long_as_plain_kd(method) -> None:
    setting = small(epochs=1, batch_size=32)
    studio = Studio(None)
    steps = {name: studio.play(recipe(name)(setting), 0).steps for name in ("kd", method)}
    assert steps["kd"] > 20
    assert abs(steps[method] - steps["kd"]) <= 1  # each stage has whole updates
