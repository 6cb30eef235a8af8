"""Documents, edits and summarisers of TrueTeacher; what both recipes of labels refuse."""

from random import Random
from typing import Any

import pytest
import torch

from label_worlds import LABELS
from understudy.errors import DataError, MethodRefused, UserError
from understudy.recipes.talking_teachers import _documents as docs
from understudy.recipes.talking_teachers._definitions import definitions
from understudy.recipes.talking_teachers._summarisers import Writer, joined, tokens
from understudy.recipes.talking_teachers.label_schema import _surest, label_schema, texts_task
from understudy.recipes.talking_teachers.trueteacher import judge, trueteacher
from understudy.running import Studio
from understudy.settings import digits
from understudy.teachers.chat import ChatError, Reply


def document(*sentences: str) -> docs.Document:
    return docs.Document(module="json/decoder", line="Decode a text.", sentences=sentences)


def test_parts_share_no_module_and_the_test_is_one_for_all() -> None:
    first, second = docs.parts(0), docs.parts(1)
    modules = {k: {d.module for d in v} for k, v in first.items()}
    assert sum(map(len, modules.values())) == len(set().union(*modules.values()))
    assert first["test"] == second["test"]
    assert first["label"] != second["label"]
    assert min(map(len, first.values())) > 20


def test_edits_change_the_sense_and_say_how() -> None:
    one = document(
        "The parser reads 4 bytes at once from my_file.",
        "It does not keep them when other_file is open.",
    )
    other = document("Messages are sent to the server by mail.")
    found = {p.made: p for p in docs.edits(one, [other], Random(0)) if not p.consistent}
    assert set(found) == {"number", "name", "negation", "other"}
    said = {k: p.statement for k, p in found.items()}
    assert "4" not in said["number"]
    assert said["name"] in (
        "The parser reads 4 bytes at once from other_file.",
        "It does not keep them when my_file is open.",
    )
    assert said["negation"] == "It does keep them when other_file is open."
    assert said["other"] == other.sentences[0]
    yes = [p.statement for p in docs.edits(one, [other], Random(0)) if p.consistent]
    assert sorted(yes) == sorted(one.sentences)


def test_words_have_one_id_in_every_text() -> None:
    words = docs.Words()
    (a, b), (c,) = (
        words(t, max_length=9)["input_ids"] for t in (["Read my file", "FILE my"], ["x"])
    )
    assert a[1:] == b[::-1]
    assert min(*a, *c) >= 3
    (pair,) = words(["a b c d e f"], ["g h"], max_length=6)["input_ids"]
    assert pair == [*words.ids("a b c"), 2, *words.ids("g h")]


def test_balanced_is_half_and_half() -> None:
    made = docs.summaries_task(0).extras["pairs"]
    for rows in made.values():
        assert sum(p.consistent for p in rows) * 2 == len(rows)


def test_a_trained_writer_writes_better_than_an_untrained_one() -> None:
    own = docs.parts(0)["summarise"][:60]
    torch.manual_seed(0)
    writer = Writer(hidden=8)
    first = writer.learn(own, epochs=1, generator=torch.Generator().manual_seed(0))
    later = writer.learn(own, epochs=2, generator=torch.Generator().manual_seed(0))
    assert later < first
    text = writer.write(own[0])
    assert text == writer.write(own[0])
    assert text.endswith(".")
    copier = Writer(common=0)
    copier.learn(own, epochs=1, generator=torch.Generator().manual_seed(0))
    known = {w.lower() for w in tokens(own[1].text)}
    assert {w.lower() for w in tokens(copier.write(own[1]))} <= known | {"."}
    assert joined(["A", "file", ",", "read", "."]) == "A file, read."


class Strict:
    """Says yes where every word of the summary stands in the document; fails on `broken`."""

    def replies(
        self, conversations: Any, n: int = 1, sampling: Any = None, schema: Any = None
    ) -> Any:
        from understudy.data.synthesis import prompts

        for i, one in reversed(list(enumerate(conversations))):
            task, given = prompts.inputs(one)
            assert task == "consistent"
            if given["summary"] == "broken":
                yield i, ChatError("no answer", "server")
                continue
            yes = set(given["summary"].split()) <= set(given["document"].split())
            odd = given["summary"] == "odd"
            text = "maybe" if odd else "Yes" if yes else "no"
            yield i, [Reply(text=text, prompt_tokens=5, completion_tokens=1)]


def test_a_judge_that_fails_gives_no_row() -> None:
    from understudy.data.labelling import Spent

    pairs = [("a b c", s, "w") for s in ("a b", "broken", "odd", "a d")]
    spent, failures = Spent(), []
    found = judge(Strict(), pairs, spent, failures)  # pyright: ignore[reportArgumentType]
    assert [(j.summary, j.consistent) for j in found] == [("a b", True), ("a d", False)]
    assert [(f.number, f.kind) for f in failures] == [(1, "server"), (2, "answer")]
    assert (spent.requests, spent.prompt_tokens) == (3, 15)


def test_the_surest_rows_keep_the_shares_of_the_labels() -> None:
    soft = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.8, 0.2], [0.4, 0.6]])
    assert _surest(soft, soft.argmax(1), 3).tolist() == [0, 2, 4]


def test_every_text_keeps_its_number() -> None:
    task = texts_task(0, data="stdlib-text", data_dir="")
    texts = task.extras["text_of"]
    assert {k: len(v) for k, v in texts.items()} == {
        "train": len(task.train), "validate": len(task.validate), "test": len(task.test or ()),
    }  # fmt: skip
    assert task.extras["texts"]["test"][3] == list(texts["test"].values())[3]
    assert list(definitions(tuple(LABELS))) == list(LABELS)
    assert definitions(("card_arrival", "age"))["card_arrival"] == "card arrival"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MethodRefused, match="in \\(0, 1\\)"):
        label_schema(keep=1.5)
    with pytest.raises(DataError, match="no task of texts"):
        texts_task(0, data="digits", data_dir="")
    with pytest.raises(UserError, match="did you mean zero-shot"):
        Studio(None).play(label_schema(endpoint="zero-short"))
    with pytest.raises(MethodRefused, match="has none; take its own setting"):
        Studio(None).play(trueteacher(digits()))
