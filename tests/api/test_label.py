"""From texts without labels to a student: rounds, sheets, soft targets, budgets, resuming."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import understudy as us
from label_worlds import LABELS, Tfidf, docstrings
from understudy.errors import UserError

QUICK: dict[str, Any] = {"first": 60, "steps": 60, "validate_steps": 30}


@pytest.fixture(scope="module")
def teacher() -> Tfidf:
    return Tfidf()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return docstrings(300)[0]


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, teacher: Tfidf, texts: list[str]
) -> tuple[Any, Path]:
    """A whole run with a sheet that nobody has filled in yet."""
    out = tmp_path_factory.mktemp("labels") / "run"
    return us.label(texts, LABELS, teacher, out=out, gold=40, every=True, **QUICK), out


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_student_follows_its_teacher(done: Any, teacher: Tfidf) -> None:
    run, _ = done
    what = run.summary["label"]
    assert [r["asked"] for r in what["rounds"]] == [60, 120, 195]
    assert what["rounds"][-1]["test"] > 0.4
    assert what["rounds"][0]["gain"] is None
    assert what["spent"]["texts"] == 300
    assert set(run.classify(["Return the event loop.", "A MIME part."])) <= set(LABELS)
    assert run.classify([]) == []
    sizes = what["texts"]
    assert sizes == {"learn": 195, "validate": 45, "test": 60}


def test_the_folder_holds_a_student_that_loads(done: Any, texts: list[str]) -> None:
    run, out = done
    student = us.load(out)
    batch = {k: torch.zeros(1, 4).long() + 5 for k in ("input_ids", "attention_mask")}
    assert torch.equal(student(**batch), run.student.eval()(**batch))
    config = json.loads((out / "student" / "config.json").read_text())
    assert config["labels"] == list(LABELS)
    rows = read(out / "labelled.csv")
    assert [r["text"] for r in rows] == texts
    assert {r["part"] for r in rows} == {"learn", "validate", "test"}
    assert all(len(r["requests"]) == 16 for r in rows)
    assert read(out / "failures.csv") == []


def test_what_the_report_says(done: Any) -> None:
    run, out = done
    page = (out / "report.html").read_text()
    for part in ("Learning curve", "Agreement", "Classes", "Student first", "<svg", "gold.csv"):
        assert part in page
    assert "<script" not in page
    table = run.table()
    for part in ("learning curve", "agreement", "cascade", "all to the teacher", "Nobody"):
        assert part in table
    steps = run.summary["label"]["cascade"]
    assert steps[0]["asked"] == 0
    assert steps[-1]["accuracy"] == 1  # judged by the teacher itself


def test_a_filled_sheet_says_how_far_all_agree(done: Any, teacher: Tfidf, texts: list[str]) -> None:
    _, out = done
    sheet = read(out / "gold.csv")
    assert len(sheet) == 40
    assert {r["label"] for r in sheet} == {""}
    test = {r["number"] for r in read(out / "labelled.csv") if r["part"] == "test"}
    assert {r["number"] for r in sheet} <= test
    truth = dict(zip(texts, docstrings(300)[1], strict=True))
    with (out / "gold.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["number", "text", "label"])
        writer.writeheader()
        writer.writerows({**r, "label": truth[r["text"]]} for r in sheet)
    seen: list[str] = []
    again = us.label(
        texts, LABELS, teacher, out=out, gold=40, every=True, resume=True,
        callbacks=[lambda kind, _: seen.append(kind)], **QUICK,
    )  # fmt: skip
    assert "update" not in seen  # nothing is trained again
    what = again.summary["label"]
    assert what["judged_by"] == "people"
    found = what["agreement"]["teacher and people"]
    said = {r["text"]: r["label"] for r in read(out / "labelled.csv")}
    right = sum(said[r["text"]] == truth[r["text"]] for r in sheet)
    assert found["count"] == 40
    assert found["accuracy"] == right / 40
    assert found["accuracy_interval"][0] < found["accuracy"] < found["accuracy_interval"][1]
    assert what["cascade"][-1]["accuracy"] == pytest.approx(right / 40)
    assert sum(c["judged"] for c in what["classes"]) == 40
    assert "40 lines are filled in" in (out / "report.html").read_text()


def test_its_folder_is_one_like_others(done: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from understudy.cli import main

    _, out = done
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert "Student first" in (out / "report.html").read_text()
    assert main(["export", str(out)]) == 0
    assert (out / "export" / "student.onnx").is_file()
    capsys.readouterr()


def test_rounds_stop_when_nothing_is_gained(teacher: Tfidf, texts: list[str]) -> None:
    run = us.label(texts, LABELS, teacher, **QUICK)
    what = run.summary["label"]
    last = what["rounds"][-1]
    assert "within its interval" in what["stopped"]
    assert last["gain"] < last["gain_half_width"]
    assert what["spent"]["texts"] == 105 + last["asked"] < 300


@pytest.mark.parametrize(("soft", "way"), [(True, "logprobs"), ("votes", "votes")])
def test_soft_targets_are_learned(
    teacher: Tfidf, texts: list[str], soft: Any, way: str, tmp_path: Path
) -> None:
    run = us.label(texts[:150], LABELS, teacher, soft=soft, out=tmp_path / "run", **QUICK)
    what = run.summary["label"]
    assert (what["way"], what["answers_a_text"]) == (way, 5 if way == "votes" else 1)
    rows = read(tmp_path / "run" / "labelled.csv")
    shares = torch.tensor([[float(r[k]) for k in LABELS] for r in rows])
    assert torch.allclose(shares.sum(1), torch.ones(len(rows)), atol=1e-4)
    assert float(shares.max(1).values.min()) < 0.9
    hard = us.label(texts[:150], LABELS, teacher, **QUICK)
    weights = [r.student.state_dict()["head.weight"] for r in (run, hard)]
    assert not torch.equal(*weights)


def test_without_logprobs_votes_stand_in(texts: list[str]) -> None:
    run = us.label(texts[:120], LABELS, Tfidf(logprobs=False), soft=True, **QUICK)
    assert run.summary["label"]["way"] == "votes"


def test_a_spent_budget_is_a_partial_result(texts: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = us.label(texts, LABELS, Tfidf(limit=150), out=out, **QUICK)
    what = run.summary["label"]
    assert what["budget_spent"]
    assert len(read(out / "labelled.csv")) == 150
    assert "a larger one goes on" in what["stopped"]
    assert us.load(out) is not None


def test_failures_are_listed_and_no_data(texts: list[str], tmp_path: Path) -> None:
    bad = ["BABBLE <script>alert(1)</script> of no kind", "REFUSE this one"]
    run = us.label(
        [*texts[:150], *bad], LABELS, Tfidf(refuse="REFUSE", babble="BABBLE"), every=True,
        out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    failed = read(tmp_path / "run" / "failures.csv")
    assert [(r["number"], r["kind"]) for r in failed] == [("150", "answer"), ("151", "server")]
    assert {r["text"] for r in read(tmp_path / "run" / "labelled.csv")}.isdisjoint(bad)
    assert "<script" not in (tmp_path / "run" / "report.html").read_text()
    assert run.summary["label"]["failures"]["server"]["count"] == 1


def test_peoples_own_labels_judge_and_teach_nothing(
    teacher: Tfidf, texts: list[str], tmp_path: Path
) -> None:
    held, truth = docstrings(40, "test")
    path = tmp_path / "people.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(held, truth, strict=True))
    run = us.label(texts[:150], LABELS, teacher, gold=path, out=tmp_path / "run", **QUICK)
    assert run.summary["label"]["agreement"]["student and people"]["count"] == 40
    parts = {r["text"]: r["part"] for r in read(tmp_path / "run" / "labelled.csv")}
    assert {parts[t] for t in held} == {"test"}


def test_any_encoder_is_a_student(teacher: Tfidf, texts: list[str], tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from understudy.tasks import Vocabulary

    words = Vocabulary.build(texts)
    folder = tmp_path / "encoder"
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words.tokenizer, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    ).save_pretrained(folder)
    run = us.label(
        texts[:120], LABELS, teacher, student=folder, out=tmp_path / "run", first=200, steps=4
    )
    assert us.load(tmp_path / "run").config.id2label[1] == "email"  # pyright: ignore
    assert run.classify(texts[:1])[0] in LABELS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["one"]}, "at least two"),
        ({"teacher": None}, "who answers"),
        ({"teacher": None, "endpoint": "zero-shott"}, "did you mean zero-shot"),
        ({"teacher": None, "endpoint": "http://localhost:1/v1"}, "which model"),
        ({"budget": 5.0}, "needs prices"),
        ({"budget": 5.0, "prices": (1.0, 1.0)}, "own spending limit"),
        (
            {"teacher": None, "endpoint": "zero-shot", "budget": 1.0, "prices": (1.0, 1.0)},
            "nothing",
        ),
        ({"gold": 10}, "out="),
        ({"gold": 0}, "number of texts from 1"),
        ({"gold": "none.csv"}, "no file none.csv"),
        ({"votes": 1}, "at least 2"),
        ({"soft": "both"}, "logprobs or votes"),
        ({"soft": "logprobs", "votes": 3}, "leave --votes out"),
        ({"texts": []}, "no text"),
        ({"texts": ["a", "b", "c"]}, "too few"),
        ({"texts": "none.csv"}, "no file none.csv"),
        ({"least": 2.0}, "from 0 to 1"),
        ({"epoch": 3}, "did you mean"),
        ({"student": "text:widht=3"}, "width"),
    ],
)
def test_bad_input_is_one_line(
    teacher: Tfidf, texts: list[str], changes: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"texts": texts[:80], "labels": LABELS, "teacher": teacher, **changes}
    with pytest.raises(UserError, match=said) as error:
        us.label(given.pop("texts"), given.pop("labels"), given.pop("teacher"), **given)
    assert "\n" not in str(error.value)
