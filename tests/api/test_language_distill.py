"""`distill` and `compare` on a language task: the whole way, on a world cut small."""

import json
from dataclasses import replace

import pytest
import torch

import understudy as us
from understudy.setting import Setting, Trained
from understudy.settings import setting as named
from understudy.signals import CausalLM
from understudy.tasks.stdlib_lm import stdlib_lm
from understudy.training.budget import Budget

SMALL = "llama:width=16,depth=1,heads=2"


def world(split: int) -> object:
    return stdlib_lm(split=split, tokens=4_000, judged=1_200, length=32)


def small(**changes) -> Setting:
    budget = Budget(steps=8, batch_size=8, lr=1e-2, validate_steps=3)
    return replace(
        Setting(
            name="code",
            kind="language",
            call=CausalLM(),
            task=world,
            teachers={
                "teacher": Trained(
                    model="llama:width=32,depth=1,heads=2", budget=replace(budget, steps=12)
                )
            },
            student=SMALL,
            budget=budget,
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "code"
    return us.distill(setting=small(), method="kd", controls=True, out=out)


def arm(summary, name):
    return next(a for a in summary["arms"] if a["name"] == name)


def test_the_table_has_what_a_language_model_is_judged_by(run):
    summary = run.summary
    assert summary["task"]["kind"] == "language"
    assert summary["task"]["metric"] == "perplexity"
    assert summary["task"]["higher_is_better"] is False
    assert [a["name"] for a in summary["arms"]] == ["teacher", "alone", "kd"]
    for name in ("alone", "kd"):
        last = arm(summary, name)["runs"][0]["last"]
        assert {"perplexity", "bits_per_byte", "agreement", "acceptance", "kl"} <= set(last)
        assert 1 < last["perplexity"] < 1500
        assert 0 < last["acceptance"] <= 1
        cost = arm(summary, name)["cost"]
        assert cost["parameters"] > 0
        assert cost["tokens_per_second"]["1"] > 0
        assert arm(summary, name)["runs"][0]["tokens"] > 8 * 8 * 16
    teacher = arm(summary, "teacher")["runs"][0]["last"]
    assert "perplexity" in teacher
    text = run.table(width=200)
    for word in ("perplexity", "bits", "agree", "accept", "tokens/s", "params"):
        assert word in text, word
    assert "texts" in text


def test_validation_is_planned_by_updates(run):
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    steps = [e["step"] for e in events if e["kind"] == "validate" and e["arm"] == "kd"]
    assert steps == [3, 6, 8]


def test_the_report_has_no_broken_part(run):
    page = (run.folder / "report.html").read_text()
    assert "perplexity" in page
    assert "lower is better" in page
    assert "Learning curves" in page
    for broken in ("None", "nan", "undefined", "not finite"):
        visible = page.partition("<summary>Configuration")[0]
        assert f">{broken}<" not in visible, broken


def test_the_student_loads_as_a_causal_language_model(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run.folder / "student"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("def ", return_tensors="pt")["input_ids"]
    told = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert told.shape[1] == ids.shape[1] + 5
    ours = us.load(run.folder)
    for a, b in zip(ours.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    card = (folder / "README.md").read_text()
    assert "text-generation" in card
    assert "AutoModelForCausalLM" in card
    assert "AutoTokenizer" in card


def test_the_student_predicts_from_a_batch(run):
    batch = world(0).test.batch(torch.arange(2))
    assert run.predict(batch).shape == (*batch.inputs["input_ids"].shape, 1024)


def test_a_model_is_evaluated_on_texts(run):
    found = us.evaluate(run.folder, world(0).test, call=CausalLM())
    last = arm(run.summary, "kd")["runs"][0]["best"]
    assert found["perplexity"] == pytest.approx(last["perplexity"], rel=1e-5)


def test_an_export_is_refused_in_one_line(run):
    from understudy.api import export_run

    with pytest.raises(us.UserError, match="AutoModelForCausalLM"):
        export_run(run.folder)


def test_a_finished_run_is_read_not_trained_again(run):
    again = us.distill(setting=small(), method="kd", controls=True, out=run.folder, resume=True)
    for name in ("teacher", "alone", "kd"):
        one, other = (arm(s, name)["runs"][0] for s in (run.summary, again.summary))
        assert one["seconds"] == other["seconds"]
        assert one["tokens"] == other["tokens"]
        assert one["last"] == other["last"]


def test_a_league_is_played_once(tmp_path):
    """By two processes; then read by one."""
    options = {"seeds": 1, "out": tmp_path / "league"}
    first = us.compare(small(), ["kd"], jobs=2, **options)
    assert not any(a.get("error") for a in first.summary["arms"])
    assert not (tmp_path / "league" / "signals").exists()  # logits of all positions are not kept
    second = us.compare(small(), ["kd"], **options)
    for a, b in zip(first.summary["arms"], second.summary["arms"], strict=True):
        assert [r["seconds"] for r in a["runs"]] == [r["seconds"] for r in b["runs"]]
        assert [r["last"] for r in a["runs"]] == [r["last"] for r in b["runs"]]
    league = json.loads((tmp_path / "league" / "league.json").read_text())
    rows = [r for r in league["rows"] if r["role"] != "teacher"]
    assert all(r["tokens_per_second"] > 0 for r in rows)
    assert {r["rank"] for r in rows} <= {1, 2}


def test_a_lower_perplexity_ranks_first():
    """The same student with hardly any training stands last, though its figure is the highest."""

    def lazy(setting: Setting | None = None) -> us.Recipe:
        assert setting is not None
        stage = us.Stage(objective=us.lm_ce(), teacher=None, budget={"lr": 1e-9})
        return us.Recipe(name="lazy", setting=setting, stages=(stage,))

    found = us.compare(small(), {"lazy": lazy}, seeds=2).summary
    assert [a for a in found["arms"] if a.get("error")] == []
    rows = [a["name"] for a in us.reporting.summary.arms(found)]
    assert rows[0] == "teacher"
    assert rows[-1] == "lazy"
    worse = [c for c in found["comparisons"] if c["arm"] == "lazy"]
    assert len(worse) == 2
    assert all(c["difference"] > 0 and c["verdict"] != "better" for c in worse)


def test_plain_kd_is_on_labels_and_teacher():
    terms = {
        name: (weight, objective)
        for name, weight, objective in us.recipes.recipes()["kd"](small()).stages[0].objective
    }
    assert {n: w for n, (w, _) in terms.items()} == {"ce": 0.1, "kd": 0.9}
    assert terms["kd"][1].temperature == 1.0
    warm = us.recipes.recipes()["kd"](small(), temperature=2.0).stages[0].objective
    assert next(o for n, _, o in warm if n == "kd").temperature == 2.0


def test_built_in_settings_are_found():
    for name in ("stdlib-lm", "stdlib-lm-small", "stdlib-lm-large", "stdlib-lm-teacher"):
        made = named(name)
        assert made.kind == "language"
        assert made.name == name
        assert made.origin["task"] == name


def test_the_report_shows_what_they_write(run):
    found = json.loads((run.folder / "written.json").read_text())["texts"]
    assert len(found) == 4
    for text in found:
        assert set(text["said"]) == {"teacher", "alone", "kd"}
        assert text["prompt"]
    page = (run.folder / "report.html").read_text()
    assert "What they write" in page
    # text of models and data is escaped
    assert "<script" not in page
