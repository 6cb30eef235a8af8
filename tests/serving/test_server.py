"""The server, spoken to by OpenAI's own client, by ours, and by the teacher of token signals."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch

from tiny_causal import tiny, tokenizer
from understudy.data.endpoint import EndpointWriter
from understudy.errors import UserError
from understudy.serving import Batcher, Busy, background, serve
from understudy.signals import Batch
from understudy.signals.generation import Sampling
from understudy.teachers import Endpoint
from understudy.teachers.chat import ChatError, ChatSampling, Message, Reply, in_order, user
from understudy.teachers.chat.client import ChatEndpoint
from understudy.teachers.chat.local import LocalChat
from understudy.teachers.chat.requests import Request

HELLO = [{"role": "user", "content": "hello"}]


def local():
    words = tokenizer()
    model = tiny("llama", vocab_size=len(words), max_position_embeddings=96)
    return LocalChat(model.double(), words, name="tiny")


@pytest.fixture(scope="module")
def teacher():
    return local()


@pytest.fixture(scope="module")
def url(teacher):
    with background(teacher, name="tiny") as found:
        yield found


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


def test_models(client):
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_chat_is_the_teachers_answer(client, teacher):
    sampling = ChatSampling(temperature=0.8, top_p=0.9, max_tokens=9, seed=5, logprobs=2)
    want = teacher.reply(user("hello"), 3, sampling)
    said = client.chat.completions.create(
        model="tiny", messages=HELLO, n=3, temperature=0.8, top_p=0.9, max_tokens=9, seed=5,
        logprobs=True, top_logprobs=2,
    )  # fmt: skip
    assert [c.message.content for c in said.choices] == [r.text for r in want]
    assert [c.finish_reason for c in said.choices] == [r.finish for r in want]
    assert said.usage.prompt_tokens == want[0].prompt_tokens
    assert said.usage.completion_tokens == sum(r.completion_tokens for r in want)
    for choice, reply in zip(said.choices, want, strict=True):
        listed = choice.logprobs.content
        assert [(t.token, t.logprob) for t in listed] == [(t, p) for t, p, _ in reply.logprobs]
        assert [{x.token: x.logprob for x in t.top_logprobs} for t in listed] == [
            dict(tops) for _, _, tops in reply.logprobs
        ]


def test_without_a_seed_answers_vary_and_with_one_they_do_not(client):
    def said(**more):
        made = client.chat.completions.create(
            model="tiny", messages=HELLO, max_completion_tokens=12, **more
        )
        return made.choices[0].message.content

    assert len({said() for _ in range(4)}) > 1
    assert len({said(seed=8) for _ in range(3)}) == 1


def test_streams_say_the_same_in_pieces(client):
    for stop in (None, "is"):
        options = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "seed": 2, "n": 2, "stop": stop}  # fmt: skip
        whole = client.chat.completions.create(**options)
        texts, finish, pieces, used = ["", ""], [None, None], 0, None
        for chunk in client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        ):
            used = chunk.usage or used
            for c in chunk.choices:
                texts[c.index] += c.delta.content or ""
                pieces += bool(c.delta.content)
                finish[c.index] = c.finish_reason or finish[c.index]
        assert texts == [c.message.content for c in whole.choices]
        assert finish == [c.finish_reason for c in whole.choices]
        assert used.completion_tokens == whole.usage.completion_tokens
        assert pieces > 4


def test_our_client_reads_it(url, teacher, tmp_path):
    sampling = ChatSampling(temperature=0, max_tokens=8, logprobs=2)
    asked = [user(t) for t in ("hello", "how are you", "two plus two")]
    want = in_order(teacher, asked, 1, sampling)
    with ChatEndpoint(url, "tiny", ledger=tmp_path / "ledger.sqlite") as endpoint:
        said = in_order(endpoint, asked, 1, sampling)
        assert [s[0].text for s in said] == [w[0].text for w in want]
        assert [s[0].completion_tokens for s in said] == [w[0].completion_tokens for w in want]
        sent = endpoint.sent
        assert [s[0].cached for s in in_order(endpoint, asked, 1, sampling)] == [True] * 3
        assert endpoint.sent == sent
        with pytest.raises(ChatError, match="96"):
            endpoint.reply(user("x" * 300), 1, sampling)


def test_completions_of_text_and_of_token_ids(client, teacher):
    ids = teacher.read("hello world")
    one = client.completions.create(model="tiny", prompt="hello world", temperature=0, max_tokens=6)
    other = client.completions.create(model="tiny", prompt=ids, temperature=0, max_tokens=6)
    assert one.choices[0].text == other.choices[0].text
    several = client.completions.create(
        model="tiny", prompt=["hello world", "two"], n=2, temperature=0, max_tokens=6
    )
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == one.choices[0].text
    echoed = client.completions.create(
        model="tiny", prompt=ids, temperature=0, max_tokens=0, echo=True, logprobs=2
    )
    with torch.no_grad():
        log_p = teacher.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    want = [log_p[i, t].item() for i, t in enumerate(ids[1:])]
    told = echoed.choices[0].logprobs
    assert told.token_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx(want, abs=1e-5)
    assert echoed.choices[0].text == "hello world"
    assert "".join(told.tokens) == "hello world"
    assert all(2 <= len(t) <= 3 for t in told.top_logprobs[1:])


@pytest.mark.parametrize("form", ["prompt_logprobs", "echo"])
def test_signals_come_from_it(url, teacher, form):
    tokens = torch.tensor([[5, 9, 20, 7, 31]])
    read = torch.ones(1, 4, dtype=torch.bool)
    batch = Batch(
        inputs={"input_ids": tokens[:, :-1], "attention_mask": read.long()},
        labels=tokens[:, 1:],
        mask=read,
    )
    size = teacher.model.config.vocab_size
    said = Endpoint(url, "tiny", vocabulary=size, k=4, form=form).signals(batch).logits
    with torch.no_grad():
        log_p = teacher.model(tokens[:, :-1]).logits.float().log_softmax(-1)
    top = log_p.topk(4, -1)
    assert torch.equal(said.ids, top.indices)
    torch.testing.assert_close(said.values, top.values, atol=1e-5, rtol=0)


def test_texts_are_written_by_it(url, teacher):
    writer = EndpointWriter(base_url=url, model="tiny")
    prompts = [torch.tensor([5, 9, 20]), torch.tensor([7])]
    sampling = Sampling(max_new=6, temperature=1.0, stop=(40, 41))
    made = writer.write(prompts, sampling, seed=3)
    assert all(1 <= len(m) <= 6 for m in made)
    again = writer.write(prompts, sampling, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    every = Sampling(max_new=6, stop=tuple(range(len(teacher.tokenizer))))
    assert [len(m) for m in writer.write(prompts, every, seed=3)] == [1, 1]


def test_answers_have_the_form_that_is_asked_for(client):
    """Requests of several schemas and of none, put together in batches by the server."""
    schemas = [
        {"enum": ["yes", "no"]},
        {"type": "integer", "minimum": 1, "maximum": 99},
        {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
         "required": ["a", "b"], "additionalProperties": False},
    ]  # fmt: skip

    def said(schema, n=3, **more):
        if schema is not None:
            form = {"name": "answer", "schema": schema, "strict": True}
            more["response_format"] = {"type": "json_schema", "json_schema": form}
        options = {"seed": 4, "max_tokens": 60, **more}
        return client.chat.completions.create(model="tiny", messages=HELLO, n=n, **options)

    alone = said(None).choices
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(said, [None, *schemas, *schemas, None]))
    for free in (made[0], made[-1]):
        assert [c.message.content for c in free.choices] == [c.message.content for c in alone]
    choice, number, record = (
        [json.loads(c.message.content) for m in (made[1 + i], made[4 + i]) for c in m.choices]
        for i in range(3)
    )
    assert set(choice) <= {"yes", "no"}
    assert all(1 <= v <= 99 for v in number)
    assert all(
        set(v) == {"a", "b"} and v["a"] in (1, 2) and v["b"] in (True, False) for v in record
    )
    assert {c.finish_reason for m in made[1:-1] for c in m.choices} == {"stop"}
    (told,) = said(schemas[0], 1, logprobs=True, top_logprobs=2).choices
    assert "".join(t.token for t in told.logprobs.content) == told.message.content
    whole = "".join(
        c.choices[0].delta.content or "" for c in said(schemas[2], 1, stream=True) if c.choices
    )
    assert set(json.loads(whole)) == {"a", "b"}
    with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
        said(schemas[2], 1, max_tokens=5)
    with pytest.raises(openai.BadRequestError, match="no answer fits"):
        said({"enum": []}, 1)
    loose = {"response_format": {"type": "json_object"}}
    assert isinstance(json.loads(said(None, 1, **loose).choices[0].message.content), dict)


def test_our_client_hears_that_an_answer_was_cut(url):
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 6, "maxItems": 6}
    with ChatEndpoint(url, "tiny", attempts=1) as endpoint:
        with pytest.raises(ChatError, match="max_tokens") as error:
            endpoint.reply(user("hello"), 2, ChatSampling(max_tokens=5, seed=0), schema)
        assert (error.value.kind, endpoint.sent) == ("cut", 1)
        said = endpoint.reply(user("hello"), 2, ChatSampling(max_tokens=80, seed=0), schema)
        assert [len(r.parsed) for r in said] == [6, 6]
        assert endpoint.sent == 2


BAD = {
    "model": ({"model": "huge"}, 404, "does not exist"),
    "empty": ({"messages": []}, 400, "not empty"),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
    "image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "text"),
    "temperature": ({"temperature": -1}, 400, "temperature"),
    "nan": ({"temperature": float("nan")}, 400, "temperature"),
    "n": ({"n": 0}, 400, "n is"),
    "bool": ({"max_tokens": True}, 400, "max_tokens"),
    "stop": ({"stop": [""]}, 400, "stop"),
    "tools": ({"tools": [{"type": "function"}]}, 400, "tools"),
    "penalty": ({"frequency_penalty": 1}, 400, "frequency_penalty"),
    "top": ({"top_logprobs": 3}, 400, "logprobs"),
    "form": ({"response_format": {"type": "xml"}}, 400, "response_format"),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"if": {}}}}},
        400, "not checked",
    ),
    "context": ({"messages": [{"role": "user", "content": "x" * 500}]}, 400, "96"),
    "long stream": ({"messages": [{"role": "user", "content": "x" * 500}], "stream": True}, 400, "96"),
}  # fmt: skip


def post(url, path, body, **headers):
    place = url.removeprefix("http://").partition("/")[0]
    link = http.client.HTTPConnection(place, timeout=30)
    try:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        link.request("POST", f"/v1/{path}", sent, {"Content-Type": "application/json", **headers})
        answer = link.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        link.close()


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_requests_are_told_in_openais_form(url, name):
    changed, status, words = BAD[name]
    code, said = post(url, "chat/completions", {"model": "tiny", "messages": HELLO, **changed})
    assert (code, set(said["error"])) == (status, {"message", "type", "param", "code"})
    assert words in said["error"]["message"]


def test_bodies_that_are_no_request(url):
    for body in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        code, said = post(url, "chat/completions", body)
        assert code == 400
        assert said["error"]["type"] == "invalid_request_error"
    code, said = post(url, "chat/completions", b" " * (17 * 2**20))
    assert code == 413
    assert post(url, "nothing", {})[0] == 404
    for prompt in ("", [], [10**6], [-1], [1.5], None, [[]]):
        code, said = post(url, "completions", {"model": "tiny", "prompt": prompt})
        assert code == 400, prompt


def test_a_page_that_calls_the_server_by_another_name_is_refused(url):
    assert post(url, "chat/completions", {}, Host="evil.example:80")[0] == 403
    assert post(url, "chat/completions", {}, Host="localhost:1")[0] == 400


def test_a_key_is_asked_for_and_never_told(teacher, capfd):
    key = "canary-5b1f0e"
    with background(teacher, name="tiny", key=key) as url:
        for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {key}"},
                      {"Authorization": "Bearer \xe9"}):  # fmt: skip
            code, said = post(url, "chat/completions", {}, **wrong)
            assert code == 401
            assert key not in json.dumps(said)
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            assert client.models.list().data[0].id == "tiny"
    out, err = capfd.readouterr()
    assert key not in out + err


class Slow:
    """A teacher of the protocol alone: no model behind it, and it waits to be let go."""

    name = "slow"

    def __init__(self):
        self.go, self.asked = threading.Event(), []

    def fingerprint(self):
        return "slow"

    def replies(self, conversations, n=1, sampling=None, schema=None):
        self.go.wait(20)
        self.asked.append(len(conversations))
        for i, messages in enumerate(conversations):
            word = messages[-1].content
            if word == "fail":
                yield i, ChatError("no answer to that", "failed")
            elif word == "break":
                raise RuntimeError("secret detail")
            else:
                yield i, [Reply(text=f"{word} {k}", completion_tokens=1) for k in range(n)]


def test_any_teacher_is_served_and_requests_are_put_together():
    slow = Slow()
    with background(slow, name="slow", wait=0.05) as url, ThreadPoolExecutor(12) as pool:

        def ask(word):
            return post(url, "chat/completions", {"model": "slow", "messages": [{"role": "user", "content": word}], "seed": 1})  # fmt: skip

        first = pool.submit(ask, "first")
        others = [pool.submit(ask, f"word{i}") for i in range(9)]
        failing = pool.submit(ask, "fail")
        threading.Timer(0.3, slow.go.set).start()
        assert first.result()[1]["choices"][0]["message"]["content"] == "first 0"
        said = [o.result()[1]["choices"][0]["message"]["content"] for o in others]
        assert said == [f"word{i} 0" for i in range(9)]
        code, error = failing.result()
        assert (code, error["error"]["message"]) == (500, "no answer to that")
        assert len(slow.asked) <= 3  # eleven requests, few batches
        code, error = ask("break")
        assert code == 500
        assert "secret" not in json.dumps(error)
        assert ask("after")[0] == 200
        assert post(url, "completions", {"model": "slow", "prompt": "x"})[0] == 400


def test_more_than_it_takes_is_refused_at_once():
    slow = Slow()
    batcher = Batcher(slow, wait=0.0, most=1, queued=2)
    request = Request(messages=(Message(role="user", content="x"),))
    waiting = []

    def fill():
        for _ in range(5):
            waiting.append(batcher.chat(request))

    with pytest.raises(Busy):
        fill()
    waiting[-1].cancel()
    slow.go.set()
    assert waiting[0].result(20)[0].text == "x 0"
    batcher.close()
    assert waiting[-1].cancelled()
    with pytest.raises(ChatError, match="stopping"):
        batcher.chat(request)


def test_other_machines_are_let_in_only_when_said(teacher, monkeypatch):
    with pytest.raises(UserError, match="--key-env"):
        serve(teacher, name="tiny", host="0.0.0.0", port=0)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        serve(teacher, name="tiny", port=0, key_env="NO_SUCH_KEY")
    with pytest.raises(UserError, match="cannot be served"):
        serve(teacher, name="tiny", host="192.0.2.1", port=0, open_to_all=True)
