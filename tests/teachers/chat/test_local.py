"""A local model spoken to as an endpoint: one answer whatever else is asked."""

import numpy as np
import pytest
import torch
from tokenizers import decoders

from tiny_causal import tiny, tokenizer
from understudy.errors import UserError
from understudy.signals.generation import Sampling, generate
from understudy.store.ledger import Ledger
from understudy.teachers.chat import ChatError, ChatSampling, Message, in_order, user
from understudy.teachers.chat.local import LocalChat, plain_prompt
from understudy.teachers.chat.requests import Request

ASKED = [
    user(t) for t in ("hello", "how are you?", "two plus two", "a much longer question than them")
]


def local(template=True, seed=0, **options):
    words = tokenizer() if template else tokenizer(None)
    model = tiny("llama", seed=seed, vocab_size=len(words), max_position_embeddings=96)
    # in double precision rounding does not depend on the batch either
    return LocalChat(model.double(), words, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_answer_does_not_depend_on_its_neighbours(batch_size):
    sampling = ChatSampling(temperature=1.0, top_p=0.9, max_tokens=10, seed=3)
    alone = [local().reply(c, 2, sampling) for c in ASKED]
    together = in_order(local(batch_size=batch_size), ASKED[::-1], 2, sampling)[::-1]
    assert [[r.text for r in rs] for rs in alone] == [[r.text for r in rs] for rs in together]
    assert alone[0][0].text != alone[0][1].text


def test_seed_and_index_make_the_answer_and_the_number_asked_does_not():
    chat, sampling = local(), ChatSampling(max_tokens=8, seed=1)
    one = chat.reply(ASKED[0], 1, sampling)
    assert chat.reply(ASKED[0], 3, sampling)[0] == one[0]
    other = chat.reply(ASKED[0], 1, ChatSampling(max_tokens=8, seed=2))
    assert other[0].text != one[0].text
    assert len({r.text for r in chat.reply(ASKED[0], 5, sampling)}) == 5


def test_the_likeliest_tokens_are_those_of_plain_generation():
    chat = local()
    prompt = torch.tensor(chat.prompt(ASKED[1]))
    ids = generate(chat.model, [prompt], Sampling(max_new=9, temperature=0, stop=chat.stops))[0]
    (said,) = chat.reply(ASKED[1], 1, ChatSampling(temperature=0, max_tokens=9))
    assert said.text == chat.names.text([i for i in ids.tolist() if i not in chat.stops])
    assert said.completion_tokens == len(ids)
    assert said.prompt_tokens == len(prompt)


def test_draws_follow_the_distribution_and_top_p_leaves_out_the_rest():
    chat = local()
    with torch.no_grad():
        logits = chat.model(torch.tensor([chat.prompt(ASKED[0])])).logits[0, -1].numpy()
    p = np.exp((logits - logits.max()) / 0.5)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), 0.6)) + 1]
    want = {int(i): p[i] / p[kept].sum() for i in kept}
    sampling = ChatSampling(temperature=0.5, top_p=0.6, max_tokens=1, seed=0)
    request = Request(messages=ASKED[0], n=2000, sampling=sampling)
    heard: list[int] = []
    chat.batch_size = 2000
    chat.answers([request], lambda _place, _index, token: heard.append(token))
    assert set(heard) <= set(want)
    assert len(heard) == 2000
    share = np.array([heard.count(i) / 2000 for i in want])
    assert np.abs(share - np.array(list(want.values()))).max() < 4 * np.sqrt(0.25 / 2000)


def test_log_probabilities_are_the_models_before_temperature():
    chat = local()
    sampling = ChatSampling(temperature=2.0, top_p=0.5, max_tokens=5, logprobs=3, seed=5)
    (said,) = chat.reply(ASKED[2], 1, sampling)
    heard: list[int] = []
    chat.answers([Request(messages=ASKED[2], sampling=sampling)], lambda *a: heard.append(a[2]))
    prompt = chat.prompt(ASKED[2])
    with torch.no_grad():
        logits = chat.model(torch.tensor([[*prompt, *heard]])).logits[0].double().numpy()
    assert said.logprobs is not None
    for place, (text, value, tops) in enumerate(said.logprobs):
        row = logits[len(prompt) - 1 + place]
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert value == pytest.approx(log_p[heard[place]], abs=1e-5)
        assert max(tops.values()) == pytest.approx(log_p.max(), abs=1e-5)
        assert text == chat.names.one(heard[place])


def test_a_stop_string_is_cut_and_ends_the_text():
    chat = local()
    (whole,) = chat.reply(ASKED[0], 1, ChatSampling(temperature=0, max_tokens=20))
    assert whole.finish == "length"
    mark = whole.text[4:6]
    (cut,) = chat.reply(ASKED[0], 1, ChatSampling(temperature=0, max_tokens=20, stop=(mark,)))
    assert cut.text == whole.text[: whole.text.index(mark)]
    assert cut.finish == "stop"
    assert cut.completion_tokens < whole.completion_tokens


def test_a_long_conversation_is_an_error_of_its_own():
    chat = local()
    said = in_order(chat, [ASKED[0], user("x" * 200), ASKED[1]], 1, ChatSampling(max_tokens=4))
    assert isinstance(said[1], ChatError)
    assert said[1].kind == "context"
    assert [isinstance(s, list) for s in said] == [True, False, True]
    with pytest.raises(ChatError, match="96"):
        chat.reply(user("x" * 200))


def test_an_answer_ends_where_the_context_does():
    chat = local()
    question = user("x" * 60)
    (said,) = chat.reply(question, 1, ChatSampling(temperature=0, max_tokens=512))
    assert said.finish == "length"
    assert said.prompt_tokens + said.completion_tokens == 97  # the last one is never read


def test_the_template_and_the_plain_form():
    chat = local()
    text = chat.tokenizer.decode(chat.prompt(user("hi", "be kind")))
    assert text == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert chat.tokenizer.convert_ids_to_tokens(list(chat.stops)) == ["</s>", "<|im_end|>"]
    plain = local(template=False)
    assert plain.tokenizer.decode(plain.prompt(user("hi"))) == "hi"
    turns = (*user("hi", "be kind"), Message(role="assistant", content="ho"), *user("so?"))
    assert (
        plain_prompt(turns)
        == "System: be kind\n\nUser: hi\n\nAssistant: ho\n\nUser: so?\n\nAssistant:"
    )


class Scripted(torch.nn.Module):
    """Says what it is told, whatever it reads."""

    def __init__(self, scripts, words, marks):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scripts, self.words, self.marks = scripts, words, marks
        self.config = type("Config", (), {"max_position_embeddings": 4096, "eos_token_id": 1})()

    def forward(self, input_ids, attention_mask, past_key_values=None, **_):
        from types import SimpleNamespace

        cache = past_key_values or SimpleNamespace(rows=None, said=0, batch_select_indices=None)
        if cache.rows is None:
            texts = [self.words.decode(i) for i in input_ids]
            cache.rows = [
                next(s for mark, s in zip(self.marks, self.scripts, strict=True) if mark in t)
                for t in texts
            ]
            cache.batch_select_indices = lambda keep: setattr(
                cache, "rows", [cache.rows[i] for i in keep.tolist()]
            )
        logits = torch.zeros(*input_ids.shape, len(self.words))
        for row, script in enumerate(cache.rows):
            logits[row, -1, script[min(cache.said, len(script) - 1)]] = 50.0
        cache.said += 1
        return SimpleNamespace(logits=logits, past_key_values=cache)


def test_a_schema_reads_the_answer_with_one_repair_where_it_cannot_be_written_by():
    words = tokenizer()
    words.backend_tokenizer.decoder = decoders.Fuse()  # which does not say what bytes tokens are
    script = [words(t)["input_ids"] + [1] for t in ('{"label":"b"}', "oh", '{"label":"a"}', "no")]
    # a repair holds the first answer, whose mark is therefore looked for first
    marks = ["oh<|im_end|>", "good", "fine", "bad"]
    model = Scripted(script, words, marks)
    chat = LocalChat(model, words)
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["a", "b"]}},
        "required": ["label"],
    }
    sampling = ChatSampling(temperature=0, max_tokens=30)
    fine, good, bad = in_order(chat, [user("fine"), user("good"), user("bad")], 1, sampling, schema)
    assert isinstance(fine, list)
    assert isinstance(good, list)
    assert fine[0].parsed == {"label": "a"}
    assert good[0].parsed == {"label": "b"}
    assert good[0].completion_tokens == len(script[0]) + len(script[1])
    assert isinstance(bad, ChatError)
    assert bad.kind == "schema"


def test_the_ledger_has_what_was_answered(tmp_path, monkeypatch):
    path = tmp_path / "answers.sqlite"
    sampling = ChatSampling(max_tokens=6, seed=0, logprobs=2)
    first = in_order(local(ledger=path), ASKED, 2, sampling)
    chat = local(ledger=path)
    monkeypatch.setattr(chat.model, "forward", lambda **_: pytest.fail("the model was asked"))
    second = in_order(chat, ASKED, 2, sampling)
    for one, two in zip(first, second, strict=True):
        assert [r.again() for r in one] == two
    monkeypatch.undo()
    more = local(ledger=path).reply(ASKED[0], 3, sampling)
    assert [r.cached for r in more] == [True, True, False]
    assert len(Ledger(path)) == 9
    other = local(ledger=path, seed=1).reply(ASKED[0], 1, sampling)
    assert not other[0].cached


def test_keys_tell_apart_what_changes_an_answer():
    chat = local()
    base = ChatSampling(max_tokens=4, seed=0)
    keys = {chat.reply(ASKED[0], 2, base)[i].key for i in (0, 1)}
    for other in (
        ChatSampling(max_tokens=5, seed=0), ChatSampling(max_tokens=4, seed=1),
        ChatSampling(max_tokens=4, seed=0, top_p=0.5), ChatSampling(max_tokens=4, temperature=0),
    ):  # fmt: skip
        keys.add(chat.reply(ASKED[0], 1, other)[0].key)
    keys.add(chat.reply(ASKED[1], 1, base)[0].key)
    assert len(keys) == 7


def test_bad_requests():
    chat = local()
    with pytest.raises(ChatError, match="n is at least 1"):
        chat.reply(ASKED[0], 0)
    with pytest.raises(ChatError, match="without a message"):
        chat.reply(())
    with pytest.raises(ChatError, match="not checked"):
        chat.reply(ASKED[0], 1, schema={"type": "object", "patternProperties": {}})
    with pytest.raises(UserError, match="batch_size"):
        local(batch_size=0)
    chat.tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(ChatError, match="no system turns"):
        chat.reply(ASKED[0])
