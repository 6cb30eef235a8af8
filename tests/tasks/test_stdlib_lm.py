"""stdlib-lm: real code, cut by module, the same every time, nothing lost on the way."""

import sysconfig
from pathlib import Path

import pytest
import torch

from understudy.errors import DataError, UnknownName
from understudy.signals import IGNORE
from understudy.tasks import sources, task
from understudy.tasks.bpe import END, load_bpe, token_bytes, train_bpe
from understudy.tasks.stdlib_lm import TEACHER, split_modules, stdlib_lm


@pytest.fixture(scope="module")
def made():
    return stdlib_lm(tokens=20_000, judged=4_000)


def test_modules_are_the_standard_librarys():
    found = sources.modules()
    root = Path(sysconfig.get_paths()["stdlib"])
    assert {"json/decoder", "argparse", "asyncio/events"} <= set(found)
    assert list(found) == sorted(found)
    assert all(path.is_file() and path.is_relative_to(root) for path in found.values())
    assert not any("site-packages" in m or m.startswith("test/") for m in found)


def test_parts_share_no_module(made):
    for split in range(3):
        parts = split_modules(split)
        sets = {name: set(modules) for name, modules in parts.items()}
        assert sum(map(len, sets.values())) == len(sources.modules())
        assert set.union(*sets.values()) == set(sources.modules())
        assert 0.08 < len(sets["validate"] | sets["test"]) / len(sources.modules()) < 0.25
    owners = {part: set(names) for part, names in made.extras["modules"].items()}
    assert not owners["train"] & owners["validate"]
    assert not owners["train"] & owners["test"]
    assert not owners["validate"] & owners["test"]


def test_splits_are_repeated_and_what_is_held_back_stays_so():
    a, b = split_modules(0), split_modules(1)
    assert a["test"] != b["test"]
    assert a["train"] != b["train"]
    # the shipped teacher has read what any split trains on, and nothing that one judges on
    assert set(a["train"]) == set(b["train"])


def test_the_same_every_time(made):
    again = stdlib_lm(tokens=20_000, judged=4_000)
    for part in ("train", "validate", "test"):
        one, other = getattr(made, part), getattr(again, part)
        assert torch.equal(one.flat, other.flat)
        assert torch.equal(one.bytes, other.bytes)
    other = stdlib_lm(split=1, tokens=20_000, judged=4_000)
    assert not torch.equal(made.test.flat[:500], other.test.flat[:500])


def test_texts_are_the_source_again(made):
    """The texts of a module, put together, are its file, but for a rest too short for a text."""
    tokenizer, train = made.extras["tokenizer"], made.train
    owners = made.extras["modules"]["train"]
    name = owners[0]
    rows = [train.tokens(i) for i, owner in enumerate(owners) if owner == name]
    ids = [int(rows[0][0]), *[int(t) for row in rows for t in row[1:]]]
    whole = sources.text(name)
    told = tokenizer.decode([t for t in ids if t != tokenizer.eos_token_id])
    assert whole.startswith(told)
    assert len(whole) - len(told) < 4 * 33


def test_bytes_are_those_of_the_scored_tokens(made):
    tokenizer = made.extras["tokenizer"]
    for row in (0, 3, 11):
        ids = [int(t) for t in made.train.tokens(row)[1:]]
        inner = [t for t in ids if t != tokenizer.eos_token_id]
        assert int(made.train.bytes[row]) == len(tokenizer.decode(inner, errors="strict").encode())


def test_sizes_are_as_asked(made):
    assert int(made.train.lengths.max()) == 128
    assert abs(int(made.train.lengths.sum()) - 20_000) < 3_000
    for part in (made.validate, made.test):
        assert 2_500 < int(part.lengths.sum()) <= 4_000
    batch = made.train.batch(torch.arange(4))
    assert batch.inputs["input_ids"].shape == (4, int(made.train.lengths[:4].max()))
    # labels are the tokens one further on
    ids, labels = batch.inputs["input_ids"][0], batch.labels[0]
    real = labels[:-1] != IGNORE
    assert torch.equal(ids[1:][real], labels[:-1][real])
    assert made.model["vocabulary"] == made.classes == 1024
    assert int(made.train.flat.max()) < 1024


def test_every_text_has_a_domain(made):
    for part in ("train", "validate", "test"):
        domains = made.extras["domains"][part]
        assert len(domains) == len(getattr(made, part))
        assert made.extras["domain_names"][int(domains[0])] == sources.area(
            made.extras["modules"][part][0]
        )
    assert len(set(made.extras["domains"]["test"].tolist())) >= 4
    assert sources.area("asyncio/events") == "concurrency"
    assert sources.area("json/decoder") == "formats"


def test_any_text_can_be_read_and_written_back(tmp_path):
    trained = train_bpe(["def add(a, b):\n    return a + b\n"] * 20, 300)
    assert len(trained) <= 300
    trained.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path)
    sizes = token_bytes(loaded)
    for text in ("def f():\n\treturn 'äöü €' # 日本\n", "\x00 \n\n   x", END + "a"):
        ids = loaded(text)["input_ids"]
        assert loaded.decode(ids) == text
        assert ids == trained(text)["input_ids"]
        special = END if text.startswith(END) else ""
        assert sizes[ids].sum() == len(text.removeprefix(special).encode())


def test_training_a_tokenizer_is_deterministic():
    texts = [sources.text(m) for m in ("json/decoder", "heapq", "bisect")]
    one, other = (train_bpe(texts, 400).backend_tokenizer.to_str() for _ in range(2))
    assert one == other


def test_the_shipped_tokenizer_is_found():
    tokenizer = load_bpe(TEACHER)
    assert len(tokenizer) == 1024
    assert tokenizer.eos_token == END


def test_wrong_options_are_refused():
    with pytest.raises(UnknownName, match="judged"):
        task("stdlib-lm", judge=3)
    with pytest.raises(DataError, match="at least 2"):
        stdlib_lm(length=1)
