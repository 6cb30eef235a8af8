"""A chat endpoint on loopback that fails as it is told: a real server, on an event loop of its own.

    with endpoint([Status(429), Answer("yes")]) as server:
        ChatEndpoint(server.url, "toy")

`script` says what happens to each request: a list (then answers), or a function of the request and
its number, from 0. `upstream` makes it a proxy: what is not a fault goes on to another server.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """A chat completion; `text` None: what the toy model says."""

    text: str | Sequence[str] | None = None
    finish: str = "stop"
    usage: bool = True
    delay: float = 0.0
    logprobs: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """A status with a JSON error and headers."""

    code: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Reads the request and says nothing."""


@dataclass(frozen=True)
class Drip:
    """A right answer, one byte every `pause` seconds."""

    pause: float = 0.05


@dataclass(frozen=True)
class Truncated:
    """Half of the body that was announced."""


@dataclass(frozen=True)
class Raw:
    """A body as it is, with status 200."""

    body: bytes = b'{"choices": [{"mess'


@dataclass(frozen=True)
class Reset:
    """The connection is reset."""


@dataclass(frozen=True)
class Killed:
    """The server is gone from here on."""


Script = Callable[[dict[str, Any], int], Any]


def toy(request: Mapping[str, Any], index: int) -> str:
    """A model whose words are a function of all that is asked."""
    drawn = {k: request.get(k) for k in ("model", "messages", "temperature", "seed", "top_p")}
    text = json.dumps([drawn, index], sort_keys=True)
    return f"word {hashlib.sha256(text.encode()).hexdigest()[:12]}"


class Endpoint:
    """What the server did: `requests` (their JSON), `headers`, the most it saw at once."""

    def __init__(
        self, script: Script | Sequence[Any], upstream: str | None, delay: float, port: int
    ) -> None:
        self.port = port
        self._script, self._upstream, self._delay = script, upstream, delay
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answered = 0
        self.at_once = self.most_at_once = 0
        self.models = ["toy"]
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._halt.set)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._halt = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._halt.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ", 2)
        self.paths.append(path)
        if method == "GET":
            listed = {"data": [{"id": m} for m in self.models]}
            await _send(writer, 200, json.dumps(listed).encode())
            return True
        request = json.loads(body)
        number = len(self.requests)
        self.requests.append(request)
        self.headers.append(headers)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._act(self._fate(request, number), request, body, headers, writer)
        finally:
            self.at_once -= 1

    def _fate(self, request: dict[str, Any], number: int) -> Any:
        if callable(self._script):
            return self._script(request, number) or Answer()
        return self._script[number] if number < len(self._script) else Answer()

    async def _act(
        self, fate: Any, request: Any, body: bytes, headers: Any, writer: asyncio.StreamWriter
    ) -> bool:
        if isinstance(fate, Hang):
            await asyncio.Event().wait()
        if isinstance(fate, Reset):
            writer.transport.abort()
            return False
        if isinstance(fate, Killed):
            self._halt.set()
            return False
        if isinstance(fate, Status):
            error = {"message": fate.message, **fate.error}
            await _send(writer, fate.code, json.dumps({"error": error}).encode(), fate.headers)
            return True
        if isinstance(fate, Raw):
            await _send(writer, 200, fate.body)
            return True
        if self._upstream is not None and fate == Answer():
            await self._forward(body, headers, writer)
            return True
        content = completion(request, fate if isinstance(fate, Answer) else Answer())
        if isinstance(fate, Truncated):
            writer.write(_head(200, len(content)) + content[: len(content) // 2])
            await writer.drain()
            return False
        if isinstance(fate, Drip):
            writer.write(_head(200, len(content)))
            for byte in content:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(fate.pause)
            return True
        if wait := fate.delay or self._delay:
            await asyncio.sleep(wait)
        self.answered += 1
        await _send(writer, 200, content)
        return True

    async def _forward(self, body: bytes, headers: Any, writer: asyncio.StreamWriter) -> None:
        to = urlsplit(self._upstream or "")
        far, out = await asyncio.open_connection(to.hostname, to.port)
        lines = [f"POST {to.path.rstrip('/')}/chat/completions HTTP/1.1", f"Host: {to.netloc}",
                 "Content-Type: application/json", f"Content-Length: {len(body)}",
                 "Connection: close"]  # fmt: skip
        if "authorization" in headers:
            lines.append(f"Authorization: {headers['authorization']}")
        out.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = await far.readuntil(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        size = next((int(v) for k, _, v in lines if k == b"content-length"), None)
        whole = await (far.read() if size is None else far.readexactly(size))
        status = int(head.split(b" ", 2)[1])
        writer.write(_head(status, len(whole)) + whole)
        await writer.drain()
        out.close()
        self.answered += 1


def completion(request: Mapping[str, Any], fate: Answer) -> bytes:
    """A response in the form of the endpoint."""
    n = request.get("n", 1)
    said = fate.text
    texts = [toy(request, i) for i in range(n)] if said is None else said
    texts = [texts] * n if isinstance(texts, str) else list(texts)
    prompt = sum(len(m["content"].split()) for m in request["messages"])
    choices = [
        {"index": i, "finish_reason": fate.finish, "logprobs": fate.logprobs,
         "message": {"role": "assistant", "content": text, **fate.extra}}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    usage = {"prompt_tokens": prompt, "completion_tokens": sum(len(t.split()) for t in texts)}
    body = {"id": "1", "object": "chat.completion", "created": 0, "choices": choices}
    return json.dumps({**body, **({"usage": usage} if fate.usage else {})}).encode()


def _head(code: int, size: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {code} Said", "Content-Type: application/json", f"Content-Length: {size}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def _send(
    writer: asyncio.StreamWriter, code: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    writer.write(_head(code, len(body), headers) + body)
    await writer.drain()


@contextmanager
def endpoint(
    script: Script | Sequence[Any] = (),
    *,
    upstream: str | None = None,
    delay: float = 0.0,
    port: int = 0,
):
    """A running server, stopped at the end; `delay` seconds to an answer."""
    server = Endpoint(script, upstream, delay, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
