"""Answers written by their schema, by a model of random weights that would else write noise."""

import json

import numpy as np
import pytest
import torch
from tokenizers import decoders

from tiny_causal import tiny, tokenizer
from understudy.teachers.chat import ChatError, ChatSampling, user
from understudy.teachers.chat.local import LocalChat
from understudy.teachers.chat.requests import Request

LABELS = ["good", "goodness", "bad", "so-so"]
LIST = {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 40}}
SCHEMAS = {
    "enum": {"enum": LABELS},
    "integer": {"type": "integer", "minimum": 17, "maximum": 4321},
    "object": {
        "type": "object",
        "properties": {
            "who": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 5},
                    "known": {"type": "boolean"},
                },
                "required": ["name", "known"],
                "additionalProperties": False,
            },
            "score": {"enum": [1, 0.5, None]},
        },
        "required": ["who", "score"],
        "additionalProperties": False,
    },
    "array": {**LIST, "minItems": 2, "maxItems": 4},
}


def fits(name, value):
    """The schemas of above, in Python."""
    if name == "enum":
        return value in LABELS
    if name == "integer":
        return type(value) is int and 17 <= value <= 4321
    if name == "array":
        return 2 <= len(value) <= 4 and all(type(v) is int and -5 <= v <= 40 for v in value)
    who = value["who"]
    return (
        list(value) == ["who", "score"]
        and list(who) == ["name", "known"]
        and 1 <= len(who["name"]) <= 5
        and type(who["known"]) is bool
        and value["score"] in (1, 0.5, None)
    )


def local(seed=0, extra=0, words=None, **options):
    words = words or tokenizer()
    model = tiny(
        "llama", seed=seed, vocab_size=len(words) + extra, max_position_embeddings=512
    ).double()
    return LocalChat(model, words, **options)


def ask(text="hello", schema=None, n=1, **sampling):
    sampling = ChatSampling(**{"max_tokens": 200, "seed": 0, **sampling})
    return Request(messages=user(text), n=n, sampling=sampling, schema=schema)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_takes_the_form_of_every_schema_in_one_batch(seed):
    chat = local(seed, extra=10)  # as models have it whose vocabulary is rounded up
    asked = [
        ask(text, schema, n=6, seed=seed, temperature=1.0, top_p=top_p)
        for schema in SCHEMAS.values()
        for text, top_p in (("hello", 1.0), ("two plus two", 0.8))
    ]
    said = iter(chat.answers(asked))
    for name in SCHEMAS:
        found = [r for _ in range(2) for r in next(said)]
        assert all(r.parsed == json.loads(r.text) and fits(name, r.parsed) for r in found)
        assert {r.finish for r in found} == {"stop"}
        assert len({r.text for r in found}) > 1


def test_rows_without_schema_are_as_they_are_alone_among_their_kind():
    def answers(schema):
        other = ask("two plus two", schema, n=4, max_tokens=30)
        free = [ask(f"hello {i}", n=2, max_tokens=30, logprobs=3, top_p=0.9) for i in range(3)]
        said = local().answers([free[0], other, *free[1:]])
        return [said[0], *said[2:]]

    assert answers(SCHEMAS["array"]) == answers(None)


def test_a_row_by_a_schema_does_not_depend_on_its_neighbours():
    asked = [ask(name, schema, logprobs=2) for name, schema in SCHEMAS.items()]
    together = local().answers(asked)
    assert together == [local(batch_size=1).answers([a])[0] for a in asked]


def allowed(names, texts, written):
    """Tokens that make a beginning of one of `texts` a longer one, by trying each."""
    texts = [json.dumps(t) for t in texts]
    return [
        i
        for i in range(len(names.tokenizer))
        if i not in names.special
        and (one := names.text([i]))
        and any(t.startswith(written + one) for t in texts)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_likeliest_of_what_is_allowed(seed):
    chat = local(seed)
    (said,) = chat.answers([ask("which?", {"enum": LABELS}, temperature=0)])[0]
    ids, written = chat.prompt(user("which?")), ""
    while written not in [json.dumps(t) for t in LABELS]:
        may = allowed(chat.names, LABELS, written)
        with torch.no_grad():
            logits = chat.model(torch.tensor([ids])).logits[0, -1]
        ids.append(max(may, key=lambda i: float(logits[i])))
        written += chat.names.text(ids[-1:])
    assert said.text == written
    assert said.completion_tokens == len(ids) - said.prompt_tokens


def test_draws_follow_the_distribution_given_what_is_allowed_and_are_told_without():
    chat = local(seed=3)
    schema = {"enum": [3, 5, 6, 8]}
    may = [chat.tokenizer.convert_tokens_to_ids(str(d)) for d in schema["enum"]]
    with torch.no_grad():
        logits = chat.model(torch.tensor([chat.prompt(user("hello"))])).logits[0, -1].numpy()
    own = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    p = np.exp((logits[may] - logits[may].max()) / 2.0)
    p /= p.sum()
    order = np.argsort(-p)  # the cut to top-p is of what the mask has left
    p[order[int(np.searchsorted(np.cumsum(p[order]), 0.6)) + 1 :]] = 0.0
    assert 1 < (p > 0).sum() < 4
    p /= p.sum()
    chat.batch_size = 2000
    heard: list[int] = []
    request = ask("hello", schema, n=2000, max_tokens=2, temperature=2.0, top_p=0.6, logprobs=1)
    said = chat.answers([request], lambda _p, _i, token: heard.append(token))[0]
    assert isinstance(said, list)
    share = np.array([sum(r.parsed == d for r in said) / 2000 for d in schema["enum"]])
    assert ((share > 0) == (p > 0)).all()
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / 2000)
    for reply in said[:50]:
        _, value, tops = reply.logprobs[0]
        assert value == pytest.approx(own[may[schema["enum"].index(reply.parsed)]], abs=1e-5)
        assert max(tops.values()) == pytest.approx(own.max(), abs=1e-5)


def test_what_is_cut_is_an_error_and_never_data(tmp_path):
    chat = local(ledger=tmp_path / "ledger.sqlite")
    nested = {"type": "array", "items": {"type": "array", "items": {"enum": [1]}, "minItems": 1}, "minItems": 9}  # fmt: skip
    digits = {"type": "integer", "minimum": 10**8, "maximum": 10**9 - 1}
    free, lists, number, stopped = chat.answers(
        [
            ask("hello", max_tokens=12),
            ask("hello", nested, max_tokens=12),
            ask("hello", {"type": "integer"}, max_tokens=1),
            ask("hello", digits, stop=tuple("0123456789")),
        ]
    )
    assert isinstance(free, list)
    for said in (lists, number, stopped):  # though `[1]` and a digit can be read in them
        assert isinstance(said, ChatError)
        assert said.kind == "cut"
    assert "raise max_tokens (12)" in str(lists)
    assert "stop string" in str(stopped)
    (long,) = chat.answers([ask("x" * 460, nested)])
    assert isinstance(long, ChatError)
    assert (long.kind, "no room" in str(long)) == ("cut", True)
    assert len(chat.ledger) == 1
    # as many tokens as it takes are enough: nothing can follow the last mark
    (whole,) = chat.answers([ask("hello", {"const": [1]}, temperature=0, max_tokens=200)])[0]
    (same,) = chat.answers(
        [ask("hello", {"const": [1]}, temperature=0, max_tokens=whole.completion_tokens)]
    )[0]
    assert (same.text, same.finish) == (whole.text, "stop")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 2}, "minItems"),
        ({"enum": []}, "no answer fits"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "incompatible"),
        ({"$ref": "#"}, "no answer fits"),
        ({"$ref": "#/$defs/none"}, "not there"),
        ({"type": "string", "pattern": "("}, "regular expression"),
    ],
)
def test_a_schema_that_nothing_fits_is_told_in_a_line_and_the_others_go_on(schema, words):
    bad, good = local().answers([ask("hello", schema), ask("hello", SCHEMAS["integer"])])
    assert isinstance(bad, ChatError)
    assert (bad.kind, "\n" in str(bad)) == ("request", False)
    assert words in str(bad)
    assert isinstance(good, list)


def test_what_a_grammar_cannot_say_is_read_afterwards():
    few = {"type": "integer", "minimum": 0, "maximum": 2}
    schema = {"type": "array", "items": few, "minItems": 3, "maxItems": 3, "uniqueItems": True}
    chat, unlike, twice = local(), 0, 0
    for said in chat.answers([ask(f"hello {i}", schema, top_p=0.9) for i in range(30)]):
        if isinstance(said, ChatError):
            assert said.kind == "schema"
            twice += 1
        else:
            assert sorted(said[0].parsed) == [0, 1, 2]
            unlike += 1
    assert unlike
    assert twice
    # a look-ahead has no grammar at all: then as where there is none
    (said,) = chat.answers([ask("hello", {"type": "string", "pattern": "a(?=b)"})])
    assert isinstance(said, ChatError)
    assert said.kind == "schema"


def test_an_unknown_tokenizer_is_told_and_its_answers_are_read_afterwards(caplog):
    words = tokenizer()
    words.backend_tokenizer.decoder = decoders.Fuse()
    (said,) = local(words=words).answers([ask("hello", SCHEMAS["enum"], max_tokens=9)])
    assert isinstance(said, ChatError)
    assert said.kind == "schema"
    assert "decoder" in caplog.text


def test_bytes_that_are_no_byte_level_are_served_too():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {t: i for i, t in enumerate(["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "g", "o", "d", "go", "od", "▁go"])}  # fmt: skip
    made = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=[("g", "o"), ("o", "d"), ("▁", "go")],
            unk_token="<unk>", byte_fallback=True,
        )
    )  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    words = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    chat = local(words=words)
    for name, schema in SCHEMAS.items():
        said = chat.answers([ask("good", schema, n=4)])[0]
        assert isinstance(said, list)
        assert all(fits(name, r.parsed) for r in said)


class Biased(torch.nn.Module):
    """A model that likes some tokens more."""

    def __init__(self, inner, ids, more):
        super().__init__()
        self.inner, self.ids, self.more, self.config = inner, ids, more, inner.config

    def forward(self, **inputs):
        out = self.inner(**inputs)
        out.logits[..., self.ids] += self.more
        return out


def test_a_model_that_cannot_say_what_is_allowed_ends():
    chat = local()
    digits = [chat.tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]
    chat.model = Biased(chat.model, digits, -float("inf"))
    said, other = chat.answers([ask("hello", SCHEMAS["integer"]), ask("hello", SCHEMAS["enum"])])
    assert isinstance(said, ChatError)
    assert said.kind == "cut"
    assert fits("enum", other[0].parsed)
    (said,) = chat.answers([ask("hello", SCHEMAS["integer"])])
    assert isinstance(said, ChatError)


def test_a_stop_string_leaves_no_half_of_a_number():
    chat = local()
    chat.model = Biased(chat.model, [chat.tokenizer.convert_tokens_to_ids("2")], 1000.0)
    schema = {"enum": [1, 12]}
    whole, cut = chat.answers([ask("hello", schema), ask("hello", schema, stop=("2",))])
    assert whole[0].parsed == 12
    assert isinstance(cut, ChatError)
    assert cut.kind == "cut"


def test_white_space_ends():
    chat = local()
    spaces = [chat.tokenizer.convert_tokens_to_ids(t) for t in "ĠĊ"]
    chat.model = Biased(chat.model, spaces, 1000.0)
    (said,) = chat.answers([ask("hello", SCHEMAS["array"], temperature=0)])[0]
    assert fits("array", said.parsed)
    assert "\n" + 16 * " " in said.text
