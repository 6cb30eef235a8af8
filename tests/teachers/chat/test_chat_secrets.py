"""The key goes to one address; it is in no file, log, report, repr or traceback."""

import contextlib
import logging
import traceback

import pytest

from faults.server import Answer, Hang, Raw, Reset, Status, endpoint
from understudy.cli import main
from understudy.errors import UserError
from understudy.store import Ledger
from understudy.teachers.chat import ChatEndpoint, ChatError, Spending, in_order, user

CANARY = "sk-canary-7f3a9b1c5d2e4f60718293a4b5c6d7e8"
HELLO = user("hello")


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    return "CANARY_KEY"


def test_no_key_is_said_before_anything_is_sent(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with endpoint() as server:
        for value in (None, "", "  "):
            if value is not None:
                monkeypatch.setenv("NO_SUCH_KEY", value)
            with (
                ChatEndpoint(server.url, "toy", key_env="NO_SUCH_KEY") as teacher,
                pytest.raises(UserError, match="variable NO_SUCH_KEY holds no key"),
            ):
                teacher.reply(HELLO)
        assert server.requests == []
        with ChatEndpoint(server.url, "toy", ledger=tmp_path / "l") as teacher:
            teacher.reply(HELLO)
        again = ChatEndpoint(server.url, "toy", ledger=tmp_path / "l", key_env="NO_SUCH_KEY")
        assert again.reply(HELLO)[0].cached  # what is in the ledger needs no key


def test_a_wrong_key_names_the_variable(key):
    fault = Status(401, f"Incorrect API key provided: {CANARY}")
    with (
        endpoint(lambda r, n: fault) as server,
        ChatEndpoint(server.url, "toy", key_env=key) as teacher,
        pytest.raises(ChatError, match="check what CANARY_KEY holds") as error,
    ):
        teacher.reply(HELLO)
    assert error.value.kind == "key"
    assert CANARY not in str(error.value)
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    "planted",
    [CANARY, f"Bearer {CANARY}", "hf_abcdefghijklmnopqrstuvwx", "abcdef0123456789abcdef0123456789",
     "AKIAIOSFODNN7EXAMPLE", "gsk_AbCdEf0123456789", "two words", "", "A=B"],
)  # fmt: skip
def test_a_key_in_place_of_a_name_is_refused_and_not_repeated(planted):
    with pytest.raises(UserError, match="NAME of an environment variable") as error:
        ChatEndpoint("http://127.0.0.1:9/v1", "toy", key_env=planted)
    said = "".join(traceback.format_exception(error.value))
    assert not planted or planted not in said


@pytest.mark.parametrize(
    "url",
    [f"http://user:{CANARY}@127.0.0.1/v1", f"http://{CANARY}@127.0.0.1/v1",
     f"http://127.0.0.1/v1?api_key={CANARY}", f"http://127.0.0.1/v1#{CANARY}",
     f"http://127.0.0.1/{CANARY}/v1", f"user:{CANARY}@host"],
)  # fmt: skip
def test_a_key_planted_in_the_address_is_refused_and_not_repeated(url):
    with pytest.raises(UserError) as error:
        ChatEndpoint(url, "toy")
    assert CANARY not in "".join(traceback.format_exception(error.value))


def test_names_of_variables_that_are_names(monkeypatch):
    monkeypatch.setenv("my_own_name1", "x")
    for name in ("OPENAI_API_KEY", "KEY", "HF_TOKEN_2", "my_own_name1", None):
        ChatEndpoint("http://127.0.0.1:9/v1", "toy", key_env=name)


def test_the_key_does_not_follow_a_redirect(key):
    with endpoint() as other:
        moved = Status(307, headers={"Location": f"{other.url}/chat/completions"})
        with (
            endpoint(lambda r, n: moved) as server,
            ChatEndpoint(server.url, "toy", key_env=key) as teacher,
        ):
            with pytest.raises(ChatError, match="redirects are not followed") as error:
                teacher.reply(HELLO)
            assert error.value.kind == "address"
        assert other.paths == []


def test_no_other_key_of_the_environment_is_sent(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: {CANARY}")
    with endpoint() as server, ChatEndpoint(server.url, "toy") as teacher:
        for text in ("first", "second"):
            teacher.reply(user(text))
        sent = server.headers
    assert CANARY not in str(sent)
    for headers in sent:
        assert set(headers) <= {
            "host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"
        }  # fmt: skip


def test_proxies_of_the_environment_do_not_see_this_machine(monkeypatch, key):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with endpoint() as server, ChatEndpoint(server.url, "toy", key_env=key) as teacher:
        assert teacher.reply(HELLO)


def test_the_canary_is_nowhere(key, tmp_path, caplog, capfd):
    """Answers and errors that repeat it, every failure, all logs at their loudest, all files."""
    fates = [
        Answer(f"your key is {CANARY}"),
        Status(400, f"bad key {CANARY}"),
        Status(500, CANARY),
        Answer(CANARY, finish="length"),
        Raw(CANARY.encode()),
        Reset(),
        Answer("", extra={"refusal": f"not with {CANARY}"}),
        Status(429, CANARY, {"Retry-After": "0"}),
        Hang(),
        Answer(f'{{"no": "{CANARY}"}}'),
        Answer(f'{{"yes": "{CANARY}"}}'),
    ]
    said = []
    with caplog.at_level(logging.DEBUG), endpoint(fates) as server:
        teacher = ChatEndpoint(
            server.url, "toy", key_env=key, ledger=tmp_path / "l.sqlite", attempts=1, timeout=0.5,
            backoff=0.0, concurrency=1, spending=Spending(requests=100),
        )  # fmt: skip
        with teacher:
            for i in range(len(fates)):
                schema = {"type": "object", "required": ["yes"]} if i >= 9 else None
                try:
                    said.append(repr(teacher.reply(user(f"q {i}"), schema=schema)))
                except ChatError as error:
                    said += traceback.format_exception(error)
                    said.append(repr(error) + repr(vars(error)))
            said += [repr(teacher), str(teacher), repr(vars(teacher)), repr(teacher.spending)]
            said += [repr(in_order(teacher, [user("last")]))]
            asking = teacher._asking[1]
            said += [repr(asking), repr(asking.wire), repr(asking.limiter)]
        assert all(h["authorization"].endswith(CANARY) for h in server.headers)
        assert len(server.requests) >= len(fates)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert any("[key]" in row["text"] for row in ledger.rows())
        assert len(ledger.failures()) >= 6
        ledger.export(tmp_path / "all.jsonl")
        ledger.export(tmp_path / "all.parquet")
        said += [repr(ledger.stats()), repr(ledger.failures())]
    for action in ("stats", "failures"):
        main(["ledger", str(tmp_path / "l.sqlite"), action])
    out = capfd.readouterr()
    said += [caplog.text, out.out, out.err, *(repr(r.__dict__) for r in caplog.records)]
    for text in said:
        assert CANARY not in text
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 3
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    from pyarrow import parquet

    assert CANARY not in str(parquet.read_table(tmp_path / "all.parquet").to_pylist())


def test_an_unhandled_error_shows_no_key(key):
    """Not even one that nobody foresaw, with the values of all variables beside it."""
    with endpoint() as server, ChatEndpoint(server.url, "toy", key_env=key) as teacher:
        teacher.reply(HELLO)
        asking = teacher._asking[1]
        asking.wire._carrier.send = lambda *a: 1 / 0
        with contextlib.suppress(ZeroDivisionError):
            teacher.reply(user("again"))
            raise AssertionError
        try:
            teacher.reply(user("again"))
        except ZeroDivisionError as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            assert CANARY not in "".join(shown.format())
