"""Every fault of a server, and what the client makes of it."""

import json
import logging
import time

import pytest

from faults.server import (
    Answer,
    Drip,
    Endpoint,
    Hang,
    Killed,
    Raw,
    Reset,
    Status,
    Truncated,
    endpoint,
    toy,
)
from understudy.store import Ledger
from understudy.teachers.chat import ChatEndpoint, ChatError, in_order, user

HELLO = user("hello there")
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}},
    "required": ["label"],
}


def client(server: Endpoint, **settings) -> ChatEndpoint:
    return ChatEndpoint(server.url, "toy", **{"backoff": 0.01, "timeout": 5.0, **settings})


FAULTS = {
    "500": Status(500),
    "502": Status(502),
    "503": Status(503),
    "408": Status(408),
    "429": Status(429),
    "429 with a time to wait": Status(429, headers={"Retry-After": "0.05"}),
    "529": Status(529),
    "connection reset": Reset(),
    "truncated body": Truncated(),
    "malformed JSON": Raw(),
    "no chat completion": Raw(b'{"object": "list"}'),
    "no choice": Raw(b'{"choices": []}'),
    "an empty body": Raw(b""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_is_tried_again(name, tmp_path):
    """Once at the very first request, and once at a later one of an endpoint that has answered."""
    with endpoint([FAULTS[name], Answer(), FAULTS[name], Answer()]) as server:
        with client(server, ledger=tmp_path / "l") as teacher:
            assert teacher.reply(HELLO)[0].text == toy(server.requests[0], 0)
            teacher.reply(user("next"))
        assert len(server.requests) == 4
    with Ledger(tmp_path / "l") as ledger:
        assert len(ledger) == 2
        assert ledger.failures() == []
        assert {row["attempts"] for row in ledger.rows()} == {2}


@pytest.mark.parametrize("fault", [Hang(), Drip(0.02)], ids=["hang", "slow drip"])
def test_an_answer_that_takes_too_long_is_let_go(fault):
    """The time is one for the whole answer: a server that goes on dripping does not stretch it."""
    began = time.perf_counter()
    with endpoint([fault, Answer()]) as server, client(server, timeout=0.25) as teacher:
        teacher.reply(HELLO)
        assert len(server.requests) == 2
    assert time.perf_counter() - began < 2
    with endpoint(lambda r, n: fault) as server, client(server, timeout=0.1, attempts=2) as teacher:
        with pytest.raises(ChatError, match=r"no answer within 0\.1 s") as error:
            teacher.reply(HELLO)
        assert error.value.kind == "timeout"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Status(500), "server"), (Reset(), "broken"), (Truncated(), "broken"), (Raw(), "malformed")],
    ids=["500", "reset", "truncated", "malformed"],
)
def test_attempts_are_bounded(fault, kind, tmp_path):
    def script(request, number):
        return fault if "hello" in request["messages"][0]["content"] else None

    with endpoint(script) as server, client(server, ledger=tmp_path / "l", attempts=3) as teacher:
        teacher.reply(user("first"))
        with pytest.raises(ChatError, match="3 attempts") as error:
            teacher.reply(HELLO)
        assert len(server.requests) == 4
    assert error.value.kind == kind
    with Ledger(tmp_path / "l") as ledger:
        (failure,) = ledger.failures()
        assert (failure.kind, failure.attempts) == (kind, 3)
        assert len(ledger) == 1


def test_a_refusal_is_not_tried_again():
    with endpoint([Status(400, "context length exceeded")]) as server, client(server) as teacher:
        with pytest.raises(ChatError, match="context length exceeded") as error:
            teacher.reply(HELLO)
        assert error.value.kind == "refused"
        assert len(server.requests) == 1


def test_overload_takes_the_number_at_once_down():
    """A server for four at a time: all is answered, and the limit ends near what it takes."""

    def script(request, number):
        return Status(429) if server.at_once > 4 else Answer(delay=0.01)

    with endpoint(script) as server, client(server, concurrency=32, backoff=0.02) as teacher:
        said = in_order(teacher, [user(f"q {i}") for i in range(80)])
        assert all(isinstance(s, list) for s in said)
        assert teacher.limit < 12


def test_a_time_to_wait_is_kept():
    times = []

    def script(request, number):
        times.append(time.perf_counter())
        return Status(429, headers={"Retry-After": "0.4"}) if number == 0 else None

    with endpoint(script) as server, client(server) as teacher:
        teacher.reply(HELLO)
    assert 0.4 <= times[1] - times[0] < 1.0


def test_an_endpoint_that_only_refuses_is_given_up_in_time(caplog, tmp_path):
    """It does not stall for ever: it waits for its patience, says so, and keeps what it has."""

    def script(request, number):
        return Status(429, "slow down") if number >= 10 else None

    asked = [user(f"q {i}") for i in range(60)]
    with endpoint(script) as server:
        began = time.perf_counter()
        with client(server, ledger=tmp_path / "l", patience=1.0) as teacher:
            found = []
            with (
                caplog.at_level(logging.WARNING, "understudy.chat"),
                pytest.raises(ChatError, match="no answer for 1 s") as error,
            ):
                found.extend(teacher.replies(asked))
        assert time.perf_counter() - began < 4
        assert error.value.kind == "unavailable"
        assert "HTTP 429" in str(error.value)
        assert "requests in a row failed" in caplog.text
        with Ledger(tmp_path / "l") as ledger:
            assert len(ledger) == 10
        sent = len(server.requests)
    assert sent < 60
    with endpoint(script) as server, client(server, patience=1.0) as teacher:
        teacher.reply(HELLO)  # a new call begins with new patience


def test_a_wait_beyond_patience_is_not_begun():
    fault = Status(429, headers={"Retry-After": "3600"})
    with endpoint(lambda r, n: fault) as server, client(server, patience=2.0) as teacher:
        with pytest.raises(ChatError, match="asks to wait 3600 s"):
            teacher.reply(HELLO)
        assert len(server.requests) == 1


def test_an_empty_account_is_not_waited_for():
    fault = Status(429, "You exceeded your quota", error={"code": "insufficient_quota"})
    with endpoint(lambda r, n: fault) as server, client(server) as teacher:
        with pytest.raises(ChatError, match="no credit left") as error:
            list(teacher.replies([HELLO] * 5))
        assert error.value.kind == "quota"
        assert len(server.requests) == 1


def test_a_server_that_is_killed_midway(tmp_path):
    """What was answered is kept; with the server back, only the rest is asked for."""
    asked = [user(f"q {i}") for i in range(30)]
    found = []
    with (
        endpoint(lambda r, n: Killed() if n == 12 else None) as server,
        client(server, ledger=tmp_path / "l", attempts=2, patience=0.5) as teacher,
        pytest.raises(ChatError, match="no answer for") as error,
    ):
        found.extend(teacher.replies(asked))
    assert error.value.kind == "unavailable"
    failed = [said for _, said in found if isinstance(said, ChatError)]
    assert {said.kind for said in failed} <= {"unreachable", "broken"}
    with Ledger(tmp_path / "l") as ledger:
        kept = len(ledger)
        texts = {row["messages"][0]["content"] for row in ledger.rows()}
    assert kept == len(found) - len(failed) == server.answered
    with endpoint(port=server.port) as back, client(back, ledger=tmp_path / "l") as teacher:
        in_order(teacher, asked)
        again = {r["messages"][0]["content"] for r in back.requests}
        assert len(back.requests) == len(again) == 30 - kept
        assert not again & texts


def test_wrong_keys_models_and_addresses_are_said_once():
    asked = [user(f"q {i}") for i in range(20)]
    cases = [
        (Status(401, "Incorrect API key"), "key", "asks for a key"),
        (Status(403, "forbidden"), "key", "forbidden"),
        (Status(404, "The model `toi` does not exist"), "model", "did you mean toy"),
        (Status(404, "Not Found"), "address", "most addresses end in /v1"),
        (Status(405), "address", "no /chat/completions"),
        (Status(402, "pay"), "quota", "no credit left"),
        (Raw(b"<html>Welcome</html>"), "malformed", "is it an OpenAI-compatible address"),
    ]
    for fault, kind, said in cases:
        with (
            endpoint(lambda r, n, fault=fault: fault) as server,
            ChatEndpoint(server.url, "toi", concurrency=2, backoff=0.01, attempts=2) as teacher,
        ):
            with pytest.raises(ChatError, match=said) as error:
                list(teacher.replies(asked))
            assert error.value.kind == kind
            assert "\n" not in str(error.value)
            assert len(server.requests) <= (4 if kind != "malformed" else 40)


def test_nobody_at_the_address():
    with endpoint() as server:
        gone = server.url
    with ChatEndpoint(gone, "toy", attempts=2, backoff=0.01) as teacher:
        with pytest.raises(ChatError, match="cannot reach") as error:
            list(teacher.replies([user(f"q {i}") for i in range(20)]))
        assert error.value.kind == "unreachable"
    with (
        ChatEndpoint("http://nowhere.invalid/v1", "toy", attempts=1) as teacher,
        pytest.raises(ChatError, match="cannot reach"),
    ):
        teacher.reply(HELLO)


def test_one_forbidden_conversation_does_not_stop_the_others():
    def script(request, number):
        return Status(403, "moderated") if "bad" in request["messages"][0]["content"] else None

    with endpoint(script) as server, client(server, concurrency=1) as teacher:
        good, bad, better = in_order(teacher, [HELLO, user("bad"), user("better")])
        assert isinstance(good, list)
        assert isinstance(better, list)
        assert bad.kind == "refused"


ANSWERS = {
    "empty": (Answer(""), "empty", "the answer is empty"),
    "blank": (Answer(" \n"), "empty", "the answer is empty"),
    "nothing before the bound": (Answer("", finish="length"), "cut", "raise max_tokens"),
    "filtered": (Answer("x", finish="content_filter"), "filtered", "filtered"),
    "refused": (Answer("", extra={"refusal": "I cannot"}), "refusal", "I cannot"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_none(name, tmp_path):
    fate, kind, said = ANSWERS[name]
    with endpoint([fate]) as server, client(server, ledger=tmp_path / "l") as teacher:
        with pytest.raises(ChatError, match=said) as error:
            teacher.reply(HELLO)
        assert error.value.kind == kind
        assert len(server.requests) == 1
        assert teacher.reply(HELLO)[0].text  # a failure is no data: it is asked again
    with Ledger(tmp_path / "l") as ledger:
        assert [f.kind for f in ledger.failures()] == [kind]
        assert len(ledger) == 1


def test_an_answer_that_was_cut_off_says_so():
    with endpoint([Answer("half a", finish="length")]) as server, client(server) as teacher:
        assert teacher.reply(HELLO)[0].finish == "length"


def test_good_samples_are_kept_where_another_is_none(tmp_path):
    with endpoint([Answer(["a", "", "c"])]) as server:
        with client(server, ledger=tmp_path / "l") as teacher:
            with pytest.raises(ChatError, match="empty"):
                teacher.reply(HELLO, 3)
            assert [r.cached for r in teacher.reply(HELLO, 3)] == [True, False, True]
        assert [r.get("n", 1) for r in server.requests] == [3, 1]


def test_an_answer_of_the_wrong_form_is_repaired_once(tmp_path):
    """The second question has the first answer's error, and the answer costs both."""
    fates = [Answer('{"label": "great"}'), Answer('```json\n{"label": "good"}\n```')]
    with endpoint(fates) as server:
        with client(server, ledger=tmp_path / "l", prices=(1, 1)) as teacher:
            (reply,) = teacher.reply(HELLO, schema=SCHEMA)
            (again,) = teacher.reply(HELLO, schema=SCHEMA)
        first, second = server.requests
    assert reply.parsed == {"label": "good"} == again.parsed
    assert again.cached
    assert first["response_format"]["json_schema"]["schema"]["properties"] == SCHEMA["properties"]
    assert second["messages"][:1] == first["messages"]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert '"great"' in second["messages"][-1]["content"]
    usage = [sum(len(m["content"].split()) for m in r["messages"]) for r in (first, second)]
    assert reply.prompt_tokens == sum(usage)
    assert reply.cost == pytest.approx((reply.prompt_tokens + reply.completion_tokens) / 1e6)


def test_the_repair_has_an_end(tmp_path):
    with (
        endpoint(lambda r, n: Answer("I think it is good")) as server,
        client(server, ledger=tmp_path / "l") as teacher,
    ):
        with pytest.raises(ChatError, match="no JSON in it: 'I think it is good'") as error:
            teacher.reply(HELLO, schema=SCHEMA)
        assert error.value.kind == "schema"
        assert len(server.requests) == 2
    with Ledger(tmp_path / "l") as ledger:
        (failure,) = ledger.failures()
        assert failure.text == "I think it is good"
        assert failure.completion_tokens == 10
        assert len(ledger) == 0


def test_a_form_that_was_cut_off_is_not_repaired():
    fate = Answer('{"label": "go', finish="length")
    with endpoint(lambda r, n: fate) as server, client(server) as teacher:
        with pytest.raises(ChatError, match="cut off before it was whole") as error:
            teacher.reply(HELLO, schema=SCHEMA)
        assert error.value.kind == "cut"
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_schema_that_the_endpoint_cannot_serve_is_said_in_words(status):
    def script(request, number):
        if "response_format" in request:
            return Status(status, "response_format is not supported")
        return Answer('Sure: {"label": "bad"} is it.')

    with endpoint(script) as server, client(server) as teacher:
        for question in ("one", "two"):
            assert teacher.reply(user(question), schema=SCHEMA)[0].parsed == {"label": "bad"}
        assert len(server.requests) == 3  # found out once
        last = server.requests[-1]["messages"][-1]["content"]
        assert last.startswith("two\n\n")
        assert json.loads(last.rpartition("\n")[2]) == SCHEMA


def test_a_refusal_for_another_reason_does_not_change_the_manner():
    def script(request, number):
        return Status(400, "too long") if "long" in request["messages"][0]["content"] else Answer(
            '{"label": "bad"}'
        )  # fmt: skip

    with endpoint(script) as server, client(server) as teacher:
        with pytest.raises(ChatError, match="too long"):
            teacher.reply(user("long"), schema=SCHEMA)
        teacher.reply(user("short"), schema=SCHEMA)
        assert "response_format" in server.requests[-1]


def test_a_proxy_before_a_real_server(tmp_path):
    """Faults before an endpoint of its own, as other tests use it."""
    with endpoint() as real, endpoint([Reset(), Status(500)], upstream=real.url) as proxy:
        with client(proxy) as teacher:
            assert teacher.reply(HELLO)[0].text == toy(real.requests[0], 0)
        assert (len(real.requests), len(proxy.requests)) == (1, 3)
