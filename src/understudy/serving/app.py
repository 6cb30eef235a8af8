"""The routes of the server: /v1/models, /v1/chat/completions, /v1/completions, /health."""

import asyncio
import hmac
import ipaddress
import json
from collections.abc import AsyncIterator
from typing import Any

from understudy.errors import UserError
from understudy.serving.batching import Batcher
from understudy.serving.completions import completions, only_local
from understudy.serving.streaming import streamed
from understudy.serving.wire import Bad, as_bad, chat, chat_choice, chat_usage, head, texts
from understudy.teachers.chat import ChatTeacher

LONGEST_BODY = 16 * 2**20


def make_app(
    teacher: ChatTeacher,
    *,
    name: str,
    key: str | None = None,
    wait: float = 0.004,
    most: int = 64,
    queued: int = 1024,
    hosts: tuple[str, ...] | None = None,
) -> Any:
    """A FastAPI application that answers for `teacher` as the model `name`.

    key:   what a request has to bear; None for none
    hosts: names by which the server may be called (a page in a browser that was led here by
           another name is refused); None for any
    wait, most, queued: as `Batcher`

    Its `state.batcher` is closed when the application stops.
    """
    try:
        from fastapi import Depends, FastAPI, Request
        from fastapi.responses import JSONResponse, StreamingResponse
        from starlette.exceptions import HTTPException
    except ImportError:
        raise UserError("serving needs FastAPI: pip install understudy[chat]") from None
    from contextlib import asynccontextmanager

    batcher = Batcher(teacher, wait=wait, most=most, queued=queued)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    model = {"id": name, "object": "model", "created": 0, "owned_by": "understudy"}
    mark = teacher.fingerprint()[-16:]

    def failed(error: BaseException) -> JSONResponse:
        bad = as_bad(error)
        more = {"Retry-After": "1"} if bad.status in (429, 503) else {}
        if bad.status == 401:
            more["WWW-Authenticate"] = "Bearer"
        return JSONResponse(bad.dump(), status_code=bad.status, headers=more)

    def admitted(request: Request) -> None:
        if hosts is not None and _host(request.headers.get("host", "")) not in hosts:
            raise Bad("this server is not called by that name", status=403, kind="forbidden")
        if key is None or request.url.path == "/health":
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not same:
            raise Bad(
                "no key, or a wrong one: Authorization: Bearer KEY", status=401,
                kind="authentication_error", code="invalid_api_key",
            )  # fmt: skip

    app = FastAPI(lifespan=life, openapi_url=None, dependencies=[Depends(admitted)])
    app.state.batcher = batcher

    @app.exception_handler(UserError)
    async def _refused(_request: Request, error: Any) -> Any:
        return failed(error)

    @app.exception_handler(Exception)
    async def _broken(_request: Request, error: Any) -> Any:
        return failed(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Any) -> Any:
        said = f"{request.method} {request.url.path}: {error.detail}"
        return failed(Bad(said, status=error.status_code))

    @app.get("/health")
    async def _health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def _models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{which:path}")
    async def _model(which: str) -> Any:
        if which != name:
            return failed(Bad(f"the model {which!r} does not exist", status=404))
        return model

    @app.post("/v1/chat/completions")
    async def _chat(request: Request) -> Any:
        asked = chat(await _body(request), name)
        if asked.stream:
            chunks = streamed(batcher, asked, name)
            first = await anext(chunks)  # what is refused is refused before the stream begins
            return StreamingResponse(_after(first, chunks), media_type="text/event-stream")
        replies = await _gone(request, asyncio.wrap_future(batcher.chat(asked.request)))
        return {
            **head("chat.completion", name, "chatcmpl"),
            "choices": [chat_choice(i, r) for i, r in enumerate(replies)],
            "usage": chat_usage(replies),
            "system_fingerprint": mark,
        }

    @app.post("/v1/completions")
    async def _texts(request: Request) -> Any:
        body = await _body(request)
        vocabulary = int(only_local(batcher).model.get_input_embeddings().num_embeddings)  # type: ignore[operator,union-attr]
        asked = texts(body, name, vocabulary)
        return await completions(batcher, asked, name)

    return app


async def _gone(request: Any, answer: "asyncio.Future[Any]") -> Any:
    """The answer; where nobody waits for it any more it is taken out of the queue."""
    while True:
        done, _ = await asyncio.wait({answer}, timeout=1.0)
        if done:
            return answer.result()
        if await request.is_disconnected():
            answer.cancel()
            raise Bad("the client went away", status=499)


async def _after(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for chunk in rest:
        yield chunk


async def _body(request: Any) -> Any:
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size > LONGEST_BODY:
            raise Bad(f"a request has at most {LONGEST_BODY >> 20} MiB", status=413)
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise Bad("the body of a request is JSON, and this is none") from None


def _host(said: str) -> str:
    """The name in a Host header, without its port."""
    if said.startswith("["):
        return said[1:].partition("]")[0]
    return said.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
