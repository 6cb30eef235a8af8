"""`understudy label` against a real server on loopback."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from label_worlds import LABELS, Tfidf, docstrings
from understudy.serving import background

QUICK = ("--first", "60", "--steps", "60", "--validate-steps", "30")
KEY = "canary-5d1c"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Tfidf]]:
    """The address of a server over a TF-IDF classifier, which asks for a key."""
    teacher = Tfidf()
    with background(teacher, name="tfidf", key=KEY) as url:
        yield url, teacher


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Texts and labels as files, the key in the environment."""
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(docstrings(200)[0]))
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    monkeypatch.setenv("LABEL_KEY", KEY)
    return ("label", "--labels", "labels.json", "--data", "texts.csv")


def asks(url: str) -> tuple[str, ...]:
    return ("--endpoint", url, "--model", "tfidf", "--key-env", "LABEL_KEY", "--out", "runs/a")


def test_a_plan_then_the_run_then_nothing_again(served: Any, data: Any, cli: Any) -> None:
    url, teacher = served
    before = teacher.asked
    code, out, _ = cli(*data, *asks(url), "--plan", "--prices", "1,4")
    assert code == 0
    assert teacher.asked - before == 20
    assert out.count("as it is sent") == 3
    assert "Task: classify" in out
    assert "200 answers; estimated from 20 texts" in out
    money = next(line for line in out.splitlines() if line.startswith("money"))
    assert " to " in money
    assert not Path("runs/a").exists()
    code, out, _ = cli(*data, *asks(url), "--prices", "1,4", "--every", *QUICK)
    assert code == 0
    assert "20 from the ledger" in out
    assert teacher.asked - before == 200
    spent = json.loads(Path("runs/a/summary.json").read_text())["label"]["spent"]
    tokens = spent["prompt_tokens"] * 1e-6 + spent["completion_tokens"] * 4e-6
    assert spent["money"] == pytest.approx(tokens)
    first = {p.name: p.read_bytes() for p in Path("runs/a").glob("*.csv")}
    code, out, _ = cli("label", "--resume", "--out", "runs/a", *data[1:])
    assert code == 0
    assert teacher.asked - before == 200
    assert {p.name: p.read_bytes() for p in Path("runs/a").glob("*.csv")} == first
    for path in Path().rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_budget_is_kept(served: Any, data: Any, cli: Any) -> None:
    url, _ = served
    code, out, _ = cli(*data, *asks(url), "--prices", "10,40", "--budget", "0.2", *QUICK)
    assert code == 0, out
    spent = json.loads(Path("runs/a/summary.json").read_text())["label"]["spent"]
    assert 0 < spent["money"] <= 0.2
    assert "the budget is spent" in out


def test_a_wrong_key_is_said_before_there_is_a_folder(
    served: Any, data: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_KEY", "canary-of-another-door")
    for extra in ((), ("--soft",), ("--plan",)):
        code, out, err = cli(*data, *asks(served[0]), *extra)
        assert code == 2
        assert "check what LABEL_KEY holds" in err
        assert len(err.splitlines()) == 1
        assert "canary" not in out + err
        assert not Path("runs/a").exists()


def test_wrong_input_is_one_line(data: Any, served: Any, refused: Any) -> None:
    url, _ = served
    for words, said in (
        (("--budget", "5", *asks(url)), "needs prices"),
        (("--prices", "1", *asks(url)), "0.15,0.60"),
        (asks("localhost"), "no endpoint 'localhost'"),
        (("--text", "txt", *asks(url)), "no column 'txt'"),
        (("--gold", "people.csv", *asks(url)), "people.csv"),
    ):
        assert said in refused(*data, *words)
    Path("labels.json").write_text('["one"]')
    assert "at least two" in refused(*data, *asks(url))
