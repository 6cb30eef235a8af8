"""Rows as token ids: what is scored, what is refused."""

from typing import Any

import pytest
import torch

from tiny_causal import CHATML, MARKED, chats, tokenizer
from understudy.data import Texts, texts_of
from understudy.errors import DataError, UserError

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n</think>\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The last turn is shown otherwise than it is once another follows."""


def said(texts: Texts, row: int, reads: Any) -> str:
    begin, end = texts.offsets[row], texts.offsets[row + 1]
    return reads.decode(texts.flat[begin:end][texts.scored[begin:end]])


def whole(texts: Texts, row: int, reads: Any) -> str:
    return reads.decode(texts.tokens(row))


@pytest.mark.parametrize("begins", [False, True])
def test_all_of_a_plain_text_and_its_end_are_scored(begins: bool) -> None:
    reads = tokenizer(begins=begins)
    texts = texts_of([{"text": "hello world"}, {"text": "fünf"}], reads)
    assert whole(texts, 0, reads) == ("<s>" if begins else "") + "hello world</s>"
    assert said(texts, 0, reads) == ("hello world</s>" if begins else " world</s>")
    assert texts.bytes is not None
    # without a first token that stands for the beginning, the first of the text is not predicted
    first = 0 if begins else len("hello")
    assert texts.bytes.tolist() == [len("hello world") - first, len("fünf".encode()) - (not begins)]


def test_the_beginning_of_text_stands_once() -> None:
    reads = tokenizer(begins=True)
    texts = texts_of([{"text": "<s>hello"}, {"text": "hello"}], reads)
    assert torch.equal(texts.tokens(0), texts.tokens(1))
    reads.chat_template = "{{ bos_token }}" + CHATML
    row = texts_of(chats(1), reads)
    assert int((row.tokens(0) == reads.bos_token_id).sum()) == 1


def test_the_completion_and_its_end_are_scored() -> None:
    reads = tokenizer()
    texts = texts_of([{"prompt": "two plus two is", "completion": " four"}], reads)
    assert whole(texts, 0, reads) == "two plus two is four</s>"
    assert said(texts, 0, reads) == " four</s>"
    assert reads.decode(texts.prompt(0)) == "two plus two is"
    assert texts.bytes is not None
    assert int(texts.bytes[0]) == len(" four")


def test_a_prompt_reads_as_it_does_alone() -> None:
    """`hel` + `lo` is one token in `hello`, and two as a prompt that is continued."""
    reads = tokenizer()
    assert len(reads("hello")["input_ids"]) == 1
    texts = texts_of([{"prompt": "hel", "completion": "lo"}], reads)
    assert texts.prompt(0).tolist() == reads("hel")["input_ids"]
    assert said(texts, 0, reads) == "lo</s>"


@pytest.mark.parametrize(
    "row", [{"question": "how?", "answer": "so"}, {"instruction": "how?", "response": "so"}]
)
def test_other_names_of_columns(row: dict[str, str]) -> None:
    reads = tokenizer()
    assert said(texts_of([row], reads), 0, reads) == "so</s>"
    named = dict(zip(("prompt", "completion"), row, strict=True))
    assert said(texts_of([{**row, "text": "no"}], reads, columns=named), 0, reads) == "so</s>"


@pytest.mark.parametrize("template", [CHATML, MARKED, "{{ bos_token }}" + CHATML, THINKING])
def test_every_turn_of_the_assistant_is_scored_and_nothing_else(template: str) -> None:
    reads = tokenizer(template)
    texts = texts_of(chats(3), reads)
    last = "<think>\n</think>\nyes" if template == THINKING else "yes"
    for row in range(3):
        told = f"It is {2 * (row + 1)}."
        assert said(texts, row, reads) == f"{told}<|im_end|>{last}<|im_end|>"
        rendered = reads.apply_chat_template(chats(3)[row]["messages"], tokenize=False)
        assert whole(texts, row, reads) == rendered
    assert texts.bytes is not None
    assert int(texts.bytes[0]) == len("It is 2." + last)


def test_marks_and_prefixes_agree() -> None:
    a = texts_of(chats(4), tokenizer(CHATML))
    b = texts_of(chats(4), tokenizer(MARKED))
    assert torch.equal(a.flat, b.flat)
    assert torch.equal(a.scored, b.scored)


def test_prompt_and_completion_as_a_conversation() -> None:
    reads = tokenizer()
    rows = [{"prompt": "hello", "completion": "fine"}]
    texts = texts_of(rows, reads, chat=True)
    assert whole(texts, 0, reads).startswith("<|im_start|>user\nhello<|im_end|>")
    assert said(texts, 0, reads) == "fine<|im_end|>"
    turns = chats(1)[0]["messages"]
    split = texts_of([{"prompt": turns[:3], "completion": turns[3:]}], reads)
    assert said(split, 0, reads) == "yes<|im_end|>"  # what the prompt says is not scored


def test_a_token_of_the_header_that_carries_the_answer_is_scored() -> None:
    """`: two`: the space of the header belongs to the answer's first token."""
    reads = tokenizer(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "two"}]}
    ]
    assert reads.decode(reads(" two")["input_ids"][:1]) == " two"
    assert said(texts_of(rows, reads), 0, reads) == " two</s>"


def row_of(**changes: Any) -> dict[str, Any]:
    turn = {"role": "assistant", "content": "fine", **changes}
    return {"messages": [{"role": "user", "content": "hello"}, turn]}


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "no rows": ([], {}, "data is empty"),
    "empty text": ([{"text": "a b"}, {"text": " \n"}], {}, "row 1: column 'text' is an empty text"),
    "no text": ([{"text": "a b"}, {"text": None}], {}, "row 1: column 'text' is empty"),
    "not a number": ([{"text": float("nan")}], {}, "row 0: column 'text' is empty"),
    "empty answer": ([{"prompt": "a", "completion": ""}], {}, "'completion' is an empty text"),
    "columns": ([{"a": "b"}], {}, "rows have a, and are read as text"),
    "named": ([{"texts": "b c"}], {"columns": {"text": "txt"}}, "no column 'txt'; did you mean texts"),
    "half": ([{"q": "b"}], {"columns": {"prompt": "q"}}, "which is the completion"),
    "role": ([row_of(role="robot")], {}, "message 1: role 'robot' is none of"),
    "parts": ([row_of(content=[{"type": "image"}])], {}, "content is no text"),
    "no assistant": ([{"messages": [{"role": "user", "content": "a"}]}], {}, "no assistant turn"),
    "no messages": ([{"messages": []}], {}, "row 0: messages is a list"),
    "long": ([{"text": "hello world " * 9}], {"max_length": 8}, "the models read 8; --max-length 8"),
    "cut away": (
        [{"prompt": "hello world " * 9, "completion": "fine"}],
        {"max_length": 8, "truncate": True},
        "row 0: cut to 8 tokens nothing is left to score",
    ),
    "unknown token": ([{"text": "a b"}, {"text": "a b"}], {"vocabulary": 2}, "outside the models' voc"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    rows, options, words = REFUSED[name]
    with pytest.raises(DataError, match=".*" + words.replace("(", r"\(")) as caught:
        texts_of(rows, tokenizer(), **options)
    assert "\n" not in str(caught.value)


def test_names_of_columns_are_checked() -> None:
    with pytest.raises(UserError, match="no column 'promt'; did you mean prompt"):
        texts_of([{"a": "b"}], tokenizer(), columns={"promt": "a"})


TEMPLATES = {
    "no chat template": None,
    "otherwise than as a part of the whole": (
        "{{ messages | length }}{% for m in messages %}{{ m.role }}{{ m.content }}</s>{% endfor %}"
    ),
    "the chat template refuses": "{{ raise_exception('system first') }}",
    "no token is scored": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}</s>{% else %}"
        "{% generation %}{% endgeneration %}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("words", TEMPLATES)
def test_templates_that_do_not_tell_what_is_scored(words: str) -> None:
    with pytest.raises(DataError, match="data, row 0.*" + words):
        texts_of(chats(2), tokenizer(TEMPLATES[words]))


def test_long_texts_are_cut_into_pieces_that_score_every_token_once() -> None:
    reads = tokenizer()
    row = {"text": "hello world, how are you? I am fine. " * 3}
    one = texts_of([row], reads)
    texts = texts_of([row], reads, max_length=10, truncate=True)
    assert int(texts.lengths.max()) == 10
    assert int(texts.scored.sum()) == int(one.scored.sum())
    again = torch.cat([texts.flat[:1], texts.flat[texts.scored]])
    assert torch.equal(again, one.flat)
    assert texts.bytes is not None
    assert one.bytes is not None
    assert abs(int(texts.bytes.sum()) - int(one.bytes.sum())) <= len(texts)


def test_long_answers_are_cut_at_their_end() -> None:
    reads = tokenizer()
    texts = texts_of(
        [{"prompt": "hello", "completion": " fine" * 20}], reads, max_length=8, truncate=True
    )
    assert int(texts.lengths[0]) == 8
    assert (" fine" * 20).startswith(said(texts, 0, reads))  # no end: it was not over


def test_rows_without_a_final_newline_and_with_one() -> None:
    reads = tokenizer()
    texts = texts_of([{"text": "hello\n"}, {"text": "hello"}], reads)
    assert [whole(texts, i, reads) for i in range(2)] == ["hello\n</s>", "hello</s>"]


def test_tables_hold_messages_as_json() -> None:
    import json

    rows = [{"messages": json.dumps(r["messages"])} for r in chats(2)]
    assert torch.equal(texts_of(rows, tokenizer()).flat, texts_of(chats(2), tokenizer()).flat)
    with pytest.raises(DataError, match="row 0: messages is text and no JSON"):
        texts_of([{"messages": "[{"}], tokenizer())
