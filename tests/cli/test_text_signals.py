"""`understudy signals write` of texts: from a folder, by shards, from an endpoint; and learning from it."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from served_worlds import serving
from understudy.store import SignalStore
from understudy.students import load_model

WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "plus",
    "is",
]
KEY = "UNDERSTUDY_TEST_KEY"
MINE = """
import understudy as us
from understudy.setting import Recipe, Setting, Stage


def reverse(setting: Setting | None = None) -> Recipe:
    assert setting is not None
    return Recipe(
        name="reverse", setting=setting, stages=(Stage(objective=us.lm_kd("reverse_kl")),)
    )
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a tiny model and its tokenizer, and texts of sums, prompt and completion."""
    root = tmp_path_factory.mktemp("world")
    ids = {w: i for i, w in enumerate(["<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(root / "m")
    torch.manual_seed(0)
    spec = "llama:width=16,depth=1,heads=2"
    load_model(spec, classes=len(ids), vocabulary=len(ids), length=24).save_pretrained(root / "m")
    rows = [
        {"prompt": f"{WORDS[a]} plus {WORDS[b]} is", "completion": f" {WORDS[a + b]}"}
        for a in range(7)
        for b in range(3)
    ]
    (root / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def written(cli, world, out, *more):
    return cli(
        "signals", "write", "--teacher", world / "m", "--data", world / "sums.jsonl", "--out", out,
        "--device", "cpu", *more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "more"),
    [("top-k", ["--k", "5"]), ("sampled", ["--draws", "20"]), ("hidden", [])],
)
def test_signals_are_written_in_shards_and_learned_from(cli, world, tmp_path, mode, more):
    out = tmp_path / "s"
    code, said, err = written(cli, world, out, "--mode", mode, *more, "--shard", "1/2")
    assert (code, err) == (0, "")
    assert "shard 1/2 written" in said
    code, said, err = written(cli, world, out, "--mode", mode, *more, "--shard", "0/2")
    assert (code, err) == (0, "")
    assert "missing" not in said
    assert said.count("bytes a token") == 3
    store = SignalStore.open(out)
    assert store.entries["logits"]["form"] == mode
    assert SignalStore.open(out / "validate").settings["tokenizer"] == store.settings["tokenizer"]
    code, said, err = cli(
        "distill", "--teacher", out, "--student", "llama:width=16,depth=1,heads=2",
        "--data", world / "sums.jsonl", "--epochs", "2", "--device", "cpu", "--out", tmp_path / "r",
        "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert "perplexity" in said


def test_what_does_not_fit_is_one_line(cli, refused, world, tmp_path):
    out = tmp_path / "s"
    assert written(cli, world, out, "--mode", "sampled")[0] == 0
    sums = world / "sums.jsonl"
    again = ("signals", "write", "--teacher", world / "m", "--data", sums, "--out", out)
    assert "signals with another mode" in refused(*again)
    assert "another draws" in refused(*again, "--mode", "sampled", "--draws", "9")
    assert "k, draws and batch_size are at least 1" in refused(*again[:-1], "x", "--k", "0")
    assert "holds stored signals already" in refused(
        "signals", "write", "--teacher", out, "--data", sums, "--out", "x"
    )
    Path("mine.py").write_text(MINE)
    assert "cannot be estimated without bias from sampled classes" in refused(
        "distill", "--teacher", out, "--student", "llama:width=16,depth=1", "--data", sums,
        "--method", "mine.py:reverse", "--out", "r",
    )  # fmt: skip
    (world / "other.jsonl").write_text(sums.read_text().replace("plus", "nine"))
    assert "other content" in refused(
        "distill", "--teacher", out, "--student", "llama:width=16,depth=1", "--data",
        world / "other.jsonl", "--out", "r",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "X"], "needs --teacher"),
        (["--teacher", "M"], "needs --data"),
        (["--teacher", "M", "--data", "X", "--engine", "openai"], "needs --base-url"),
        (["--teacher", "M", "--data", "X", "--base-url", "http://x"], "is for --engine openai"),
        (
            ["--teacher", "M", "--data", "X", "--engine", "openai", "--base-url", "http://x"],
            "give --tokenizer DIR",
        ),
        (["--teacher", "M", "--data", "X", "--taps", "lm_head"], "--taps is for labelled samples"),
        (["--teacher", "M", "--data", "X", "--load-in-4bit"], "needs a GPU"),
        (["--teacher", "digits", "--mode", "hidden"], "is for texts"),
    ],
)
def test_bad_arguments_are_refused(refused, world, arguments, says):
    named = {"M": str(world / "m"), "X": str(world / "sums.jsonl")}
    given = [named.get(a, a) for a in arguments]
    assert says in refused("signals", "write", "--out", "s", *given)


def test_an_endpoint_lists_what_the_folder_says(cli, refused, world, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(KEY, "sk-hidden")
    from understudy.students.causal import load_causal

    with serving(key="sk-hidden", model=load_causal(str(world / "m"))) as (url, served):
        far = ("signals", "write", "--engine", "openai", "--teacher", "sums", "--base-url", url,
               "--data", world / "sums.jsonl", "--tokenizer", world / "m", "--k", "4")  # fmt: skip
        assert "HTTP 401: invalid key" in refused(*far, "--out", "no")
        assert "UNSET_KEY holds no key" in refused(*far, "--key-env", "UNSET_KEY", "--out", "no")
        code, said, err = cli(*far, "--key-env", KEY, "--out", tmp_path / "far")
    assert (code, err) == (0, "")
    assert "tokens, " in said
    assert "bytes a token (top-k)" in said
    written(cli, world, tmp_path / "near", "--k", "4")
    near, there = (SignalStore.open(tmp_path / n) for n in ("near", "far"))
    assert there.manifest["data"] == near.manifest["data"]
    assert there.settings["tokenizer"] == near.settings["tokenizer"]
    one, other = (s.at(torch.arange(len(s))).logits for s in (near, there))
    assert torch.equal(one.ids, other.ids)
    assert (one.values.float() - other.values.float()).abs().max() < 2e-3
    assert not any(b"sk-hidden" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert len(served.asked) > len(near)
