"""The endpoint's client against a real server: answers, samples, the ledger, several at once."""

import dataclasses
import inspect
import multiprocessing
import threading

import pytest

from faults.server import Answer, Status, endpoint, toy
from understudy.errors import UserError
from understudy.store import Ledger
from understudy.teachers.chat import (
    ChatEndpoint,
    ChatError,
    ChatSampling,
    ChatTeacher,
    Message,
    Spending,
    in_order,
    user,
)

HELLO = user("hello there", system="Be brief.")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


def test_an_answer_as_it_is_and_as_the_ledger_has_it(path):
    told = {"content": [{"token": "word", "logprob": -0.5, "top_logprobs": [
        {"token": "word", "logprob": -0.5}, {"token": "no", "logprob": float("-inf")}]}]}  # fmt: skip
    drawn = ChatSampling(temperature=0.2, top_p=0.9, max_tokens=7, stop=("\n",), seed=5, logprobs=2)
    with endpoint([Answer("word é", logprobs=told)]) as server:
        with ChatEndpoint(server.url + "/", "toy", ledger=path, prices=(1.0, 2.0)) as teacher:
            assert isinstance(teacher, ChatTeacher)
            (first,) = teacher.reply(HELLO, sampling=drawn)
            (again,) = teacher.reply(HELLO, sampling=drawn)
            assert teacher.sent == 1
        (asked,) = server.requests
    assert asked == {
        "model": "toy",
        "messages": [{"role": "system", "content": "Be brief."},
                     {"role": "user", "content": "hello there"}],
        "max_tokens": 7, "temperature": 0.2, "top_p": 0.9, "stop": ["\n"], "seed": 5,
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    assert (first.text, first.finish, first.cached) == ("word é", "stop", False)
    assert (first.prompt_tokens, first.completion_tokens) == (4, 2)
    assert first.cost == pytest.approx((4 * 1.0 + 2 * 2.0) / 1e6)
    assert first.logprobs == (("word", -0.5, {"word": -0.5, "no": -9999.0}),)
    assert again == first.again()
    with Ledger(path) as ledger:
        assert ledger.get(first.key).text == "word é"


OTHERWISE = {
    "endpoint": {"path": "/v2"},
    "model": {"model": "toy2"},
    "system prompt": {"messages": user("hello there", system="Be long.")},
    "question": {"messages": user("hello here", system="Be brief.")},
    "role": {"messages": (Message(role="user", content="Be brief."), HELLO[1])},
    "schema": {"schema": {"type": "string"}},
    "sampling.temperature": {"sampling": ChatSampling(temperature=0.5)},
    "sampling.top_p": {"sampling": ChatSampling(top_p=0.5)},
    "sampling.max_tokens": {"sampling": ChatSampling(max_tokens=9)},
    "sampling.stop": {"sampling": ChatSampling(stop=("x",))},
    "sampling.seed": {"sampling": ChatSampling(seed=0)},
    "sampling.logprobs": {"sampling": ChatSampling(logprobs=1)},
    "sample": {"n": 2},
}


def test_all_that_changes_the_answer_is_asked_anew(path):
    fields = {f"sampling.{f.name}" for f in dataclasses.fields(ChatSampling)}
    assert fields == {k for k in OTHERWISE if k.startswith("sampling.")}
    with endpoint(lambda request, number: Answer('"text"')) as server:
        for number, change in enumerate([{}, *OTHERWISE.values()]):
            change = dict(change)
            url = server.url.replace("/v1", change.pop("path", "/v1"))
            given = {"messages": HELLO, **change}
            with ChatEndpoint(url, given.pop("model", "toy"), ledger=path) as teacher:
                for _ in range(2):
                    teacher.reply(**given)
                    assert len(server.requests) == number + 1, change


SAME = {
    "key_env": "TOY_KEY",
    "spending": Spending(tokens=10**6),
    "concurrency": 1,
    "attempts": 1,
    "timeout": 3.5,
    "prices": (1.0, 1.0),
    "patience": 1.0,
    "backoff": 0.25,
    "seed": 9,
}


def test_nothing_else_is(path, monkeypatch):
    """Every other setting of the endpoint, and the ways to write its address."""
    monkeypatch.setenv("TOY_KEY", "secret")
    parameters = set(inspect.signature(ChatEndpoint).parameters)
    assert parameters == {"base_url", "model", "ledger", *SAME}
    with endpoint() as server:
        with ChatEndpoint(server.url, "toy", ledger=path) as teacher:
            (first,) = teacher.reply(HELLO)
        for name, value in SAME.items():
            with ChatEndpoint(server.url, "toy", ledger=path, **{name: value}) as teacher:
                assert teacher.reply(HELLO) == [first.again()], name
        for url in (server.url + "/", server.url.replace("http", "HTTP"), f" {server.url}// "):
            with ChatEndpoint(url, "toy", ledger=path) as teacher:
                assert teacher.reply(HELLO) == [first.again()]
        assert len(server.requests) == 1


def test_samples_come_in_one_request_and_only_missing_ones_are_asked(path):
    with endpoint() as server, ChatEndpoint(server.url, "toy", ledger=path) as teacher:
        two = teacher.reply(HELLO, 2, ChatSampling(seed=10))
        five = teacher.reply(HELLO, 5, ChatSampling(seed=10))
        one = teacher.reply(HELLO, 1, ChatSampling(seed=10))
    assert [r.get("n", 1) for r in server.requests] == [2, 3]
    assert [r["seed"] for r in server.requests] == [10, 12]
    assert [r.cached for r in five] == [True, True, False, False, False]
    assert [r.text for r in five[:2]] == [r.text for r in two]
    assert one == [two[0].again()]
    assert len({r.key for r in five}) == 5
    assert sum(r.prompt_tokens for r in two) == 4  # the prompt was paid for once
    assert sum(r.completion_tokens for r in two) == 4


@pytest.mark.parametrize("refuses", ["says so", "gives one"])
def test_samples_come_one_by_one_where_the_endpoint_gives_one(path, refuses):
    def script(request, number):
        if request.get("n", 1) > 1:
            if refuses == "says so":
                return Status(400, "Only one completion", error={"param": "n"})
            return Answer([toy(request, 0)])
        return Answer()

    with endpoint(script) as server, ChatEndpoint(server.url, "toy", ledger=path) as teacher:
        replies = teacher.reply(HELLO, 3, ChatSampling(seed=4))
        assert len({r.text for r in replies}) == 3
        before = len(server.requests)
        teacher.reply(user("next"), 2, ChatSampling(seed=4))
        later = server.requests[before:]
    assert [r.get("n") for r in later] == [None, None]  # it was found out once
    assert sorted(r["seed"] for r in later) == [4, 5]


def test_many_conversations_come_with_their_places(path):
    asked = [user(f"question {i}") for i in range(300)]
    with (
        endpoint(delay=0.005) as server,
        ChatEndpoint(server.url, "toy", ledger=path, concurrency=20) as teacher,
    ):
        said = in_order(teacher, asked)
        assert [r[0].text for r in said] == [toy(r, 0) for r in sorted(
            server.requests, key=lambda r: int(r["messages"][0]["content"].split()[1]))]  # fmt: skip
        assert 10 < server.most_at_once <= 20
        assert in_order(teacher, asked) == [[r.again() for r in replies] for replies in said]
        assert len(server.requests) == 300


def test_one_conversation_asked_twice_at_once_is_asked_once(path):
    asked = [user(f"question {i % 5}") for i in range(50)]
    with endpoint(delay=0.02) as server:
        with ChatEndpoint(server.url, "toy", ledger=path) as teacher:
            said = in_order(teacher, asked)
            assert [s[0].text for s in said[:5]] == [s[0].text for s in said[45:]]
            assert sum(not s[0].cached for s in said) == 5
            results = []
            threads = [
                threading.Thread(target=lambda: results.append(teacher.reply(user("threads"))))
                for _ in range(6)
            ]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        assert len({r[0].text for r in results}) == 1
        assert len(server.requests) == 6


def test_without_a_ledger_nothing_is_kept():
    with endpoint() as server, ChatEndpoint(server.url, "toy") as teacher:
        assert teacher.reply(HELLO)[0].text == teacher.reply(HELLO)[0].text
        assert len(server.requests) == 2


def test_what_fails_comes_as_its_error_and_the_others_go_on(path):
    def script(request, number):
        return Status(400, "too long") if "bad" in request["messages"][0]["content"] else None

    asked = [user("good 1"), user("bad"), user("good 2")]
    with endpoint(script) as server, ChatEndpoint(server.url, "toy", ledger=path) as teacher:
        good, bad, better = in_order(teacher, asked)
        assert isinstance(bad, ChatError)
        assert bad.kind == "refused"
        assert "too long" in str(bad)
        assert good[0].text != better[0].text
        with pytest.raises(ChatError, match="too long"):
            teacher.reply(user("bad"))
        assert len(server.requests) == 4  # failures are asked again
    with Ledger(path) as ledger:
        assert len(ledger) == 2
        assert [f.kind for f in ledger.failures()] == ["refused", "refused"]


def test_a_reader_who_leaves_early_loses_nothing(path):
    asked = [user(f"q {i}") for i in range(100)]
    with endpoint(delay=0.01) as server:
        with ChatEndpoint(server.url, "toy", ledger=path, concurrency=4) as teacher:
            for _ in teacher.replies(asked):
                break
        answered = server.answered
        assert answered < 30
        with Ledger(path) as ledger:
            assert len(ledger) == answered
        with ChatEndpoint(server.url, "toy", ledger=path) as teacher:
            in_order(teacher, asked)
        assert server.answered == 100


def label(url, path, count, out):
    with ChatEndpoint(url, "toy", ledger=path, concurrency=4) as teacher:
        said = in_order(teacher, [user(f"q {i}") for i in range(count)])
    out.put(([r[0].text for r in said], sum(not r[0].cached for r in said)))


def test_two_processes_on_one_ledger_share_the_work(path):
    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()
    with endpoint(delay=0.02) as server:
        workers = [
            context.Process(target=label, args=(server.url, path, 120, out)) for _ in range(2)
        ]
        for w in workers:
            w.start()
        (first, mine), (second, yours) = out.get(), out.get()
        for w in workers:
            w.join()
        assert first == second
        assert mine + yours == 120 == len(server.requests)


def test_endpoints_want_other_names_for_some_settings():
    """Newer models refuse max_tokens, others top_p; what was found out is kept."""

    def script(request, number):
        if "max_tokens" in request:
            return Status(400, "Use 'max_completion_tokens' instead", error={"param": "max_tokens"})
        if "top_p" in request:
            return Status(400, "temperature and top_p cannot both be given")
        return None

    with endpoint(script) as server, ChatEndpoint(server.url, "toy") as teacher:
        teacher.reply(HELLO)
        teacher.reply(user("more"))
    assert len(server.requests) == 4
    assert server.requests[-1]["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": ""}, "the model is the name"),
        ({"concurrency": 0}, "concurrency is a whole number"),
        ({"attempts": 0}, "attempts is a whole number"),
        ({"timeout": 0}, "timeout is a number of seconds"),
        ({"patience": -1}, "patience is a number"),
        ({"prices": (1,)}, "prices are two numbers"),
        ({"prices": (1, -1)}, "prices are two numbers"),
        ({"base_url": "localhost:8000"}, "begins with http"),
        ({"base_url": "ftp://host/v1"}, "begins with http"),
        ({"base_url": "http://"}, "begins with http"),
        ({"base_url": "http://host:port/v1"}, "no address"),
        ({"base_url": None}, "is text"),
    ],
)
def test_settings_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said) as error:
        ChatEndpoint(**{"base_url": "http://127.0.0.1:9/v1", "model": "toy", **given})
    assert "\n" not in str(error.value)


def test_calls_that_cannot_be():
    teacher = ChatEndpoint("http://127.0.0.1:9/v1", "toy")
    with pytest.raises(UserError, match="n is a whole number"):
        teacher.reply(HELLO, 0)
    with pytest.raises(UserError, match="conversation 0 has no message"):
        teacher.reply([])
    with pytest.raises(UserError, match="a schema is"):
        teacher.replies([HELLO], schema="words")  # said before anything is read
    assert list(teacher.replies([])) == []


def test_fingerprints_name_address_and_model():
    prints = {
        ChatEndpoint(url, model).fingerprint()
        for url in ("http://a/v1", "http://A:80/v1/", "http://b/v1")
        for model in ("x", "y")
    }
    assert len(prints) == 4
