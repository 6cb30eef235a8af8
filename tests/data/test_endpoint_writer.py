"""Texts from a server: a real one on the loopback interface, of the standard library."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from language_worlds import END, settings_of, toy_texts
from understudy.data.endpoint import EndpointWriter
from understudy.data.on_policy import OnPolicy
from understudy.errors import DataError, UserError
from understudy.objectives import lm_kd
from understudy.running import Studio
from understudy.setting import Recipe, Stage
from understudy.signals.authors import TEACHER, authors
from understudy.signals.generation import Sampling

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its base URL, and all that it was asked: path, headers, body."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "headers": dict(self.headers), **body})
            status, found = answer(body)
            sent = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def counting(body: dict[str, Any]) -> tuple[int, Any]:
    """Continues each prompt with its last token plus 1, 2, ...; ends after three."""
    choices = [
        {
            "index": i,
            "text": "",
            "token_ids": [(p[-1] + k) % 30 for k in (1, 2, 3)] + [END],
            "finish_reason": "stop",
            "stop_reason": END,
        }
        for i, p in enumerate(body["prompt"])
    ]
    return 200, {"choices": choices[::-1]}  # the order is the index's


SAMPLING = Sampling(max_new=5, temperature=0.7, top_p=0.9, stop=(END,))
PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4, 5]), torch.tensor([6])]


def test_prompts_go_as_ids_and_ids_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame")
    with server(counting) as (url, asked):
        writer = EndpointWriter(base_url=url, model="toy", key_env="TOY_KEY", batch_size=2)
        found = writer.write(PROMPTS, SAMPLING, seed=5)
        again = writer.write(PROMPTS, SAMPLING, seed=5)
    assert [t.tolist() for t in found] == [[4, 5, 6, END], [6, 7, 8, END], [7, 8, 9, END]]
    assert [t.tolist() for t in again] == [t.tolist() for t in found]
    assert [a["path"] for a in asked] == ["/v1/completions"] * 4
    assert [a["prompt"] for a in asked[:2]] == [[[1, 2, 3], [4, 5]], [[6]]]
    first = asked[0]
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("toy", 5, 0.7)
    assert (first["top_p"], first["stop_token_ids"]) == (0.9, [END])
    assert first["headers"]["Authorization"] == "Bearer sesame"
    assert asked[0]["seed"] != asked[1]["seed"]
    assert "sesame" not in repr(writer)


def test_ids_may_come_as_names_of_tokens_without_the_stop() -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        tokens = ["token_id:7", "token_id:8"]
        choice = {"index": 0, "logprobs": {"tokens": tokens}, "finish_reason": "stop"}
        return 200, {"choices": [{**choice, "index": i} for i in range(len(body["prompt"]))]}

    with server(answer) as (url, _):
        found = EndpointWriter(base_url=url, model="toy").write(PROMPTS[:2], SAMPLING, 0)
    assert [t.tolist() for t in found] == [[7, 8, END]] * 2


def test_text_alone_needs_a_tokenizer() -> None:
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [ord(c) - ord("a") for c in text]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"choices": [{"index": 0, "text": "bcd", "finish_reason": "length"}]}

    with server(answer) as (url, _):
        writer = EndpointWriter(base_url=url, model="toy", tokenizer=Letters())
        assert writer.write(PROMPTS[:1], SAMPLING, 0)[0].tolist() == [1, 2, 3]
        with pytest.raises(DataError, match="without token ids; give a tokenizer"):
            EndpointWriter(base_url=url, model="toy").write(PROMPTS[:1], SAMPLING, 0)


def test_a_server_that_is_busy_is_asked_again() -> None:
    fails = [503, 429]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return (fails.pop(), {"error": "busy"}) if fails else counting(body)

    with server(answer) as (url, asked):
        found = EndpointWriter(base_url=url, model="toy", wait=0.01).write(PROMPTS, SAMPLING, 0)
    assert len(found) == 3
    assert len(asked) == 3


def test_what_cannot_be_answered_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame")

    def said(answer: Answer, **settings: Any) -> str:
        with server(answer) as (url, _):
            writer = EndpointWriter(base_url=url, model="toy", wait=0.01, tries=2, **settings)
            with pytest.raises(DataError) as caught:
                writer.write(PROMPTS, SAMPLING, 0)
        assert "sesame" not in str(caught.value)
        return str(caught.value)

    wrong = said(lambda body: (401, {"error": "who are you?"}), key_env="TOY_KEY")
    assert "HTTP 401" in wrong
    assert "who are you?" in wrong
    assert "HTTP 500" in said(lambda body: (500, {}))
    assert "no JSON" in said(lambda body: (200, b"<html>"))
    few = said(lambda body: (200, {"choices": counting(body)[1]["choices"][:1]}))
    assert "1 completions for 3 prompts" in few
    empty = said(lambda body: (200, {"choices": [{"token_ids": []}] * 3}))
    assert "empty completion" in empty
    writer = EndpointWriter(base_url="http://127.0.0.1:9", model="toy", tries=1)
    with pytest.raises(DataError, match="did not answer"):
        writer.write(PROMPTS, SAMPLING, 0)
    monkeypatch.delenv("TOY_KEY")
    with pytest.raises(UserError, match="TOY_KEY holds no key"):
        EndpointWriter(base_url="http://127.0.0.1:9", model="toy", key_env="TOY_KEY").write(
            PROMPTS, SAMPLING, 0
        )


def test_a_student_learns_from_what_a_server_writes() -> None:
    """The last thing it was taught: texts that count on by one, marked as the teacher's."""
    setting = settings_of(epochs=2)
    with server(counting) as (url, asked):
        writer = EndpointWriter(base_url=url, model="toy")
        stage = Stage(objective=lm_kd("reverse_kl"), loader=OnPolicy(writer=writer))
        recipe = Recipe(name="served", setting=setting, stages=(stage,))
        result = Studio(None).play(recipe)
        prompts = [p for a in asked for p in a["prompt"]]
    train = toy_texts(48, 1)
    expected = {tuple(train.prompt(i).tolist()) for i in range(48)}
    assert {tuple(p) for p in prompts} == expected
    assert len(prompts) == 2 * 48
    assert result.writing_seconds > 0
    assert [h["terms"]["written"] for h in result.history] == [1, 1]
    assert authors(torch.tensor([-(3 * 8 + TEACHER)])).item() == TEACHER
