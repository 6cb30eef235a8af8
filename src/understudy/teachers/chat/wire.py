"""One request over HTTP, and what came of it.

The `openai` client says how a request looks: its address, its headers, its authorisation. As all
chat requests of an endpoint differ in the body alone, it makes the first and the others are made
like it: making each anew takes it 0.4 ms of CPU, and 2 ms with its default transport. aiohttp
carries the bytes. Redirects are never followed, cookies never kept, proxies taken from the
environment but not for this machine.
"""

import asyncio
import math
import time
import urllib.request
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from understudy.errors import UserError
from understudy.teachers.chat import loop
from understudy.teachers.chat.address import loopback

_SENT = ("authorization", "content-type", "accept", "user-agent")
"""The only headers that leave: the client's others speak of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """An answer of the server: its status, its body, and how long it asks to wait."""

    status: int
    body: bytes
    retry_after: float | None = None
    location: str | None = None


class Lost(Exception):
    """A request without an answer; `taken`: the server may have worked on it."""

    def __init__(
        self, message: str, kind: Literal["timeout", "unreachable", "broken"], taken: bool
    ) -> None:
        super().__init__(message)
        self.kind, self.taken = kind, taken


class Wire:
    """A connection pool of one event loop to one address. The key goes there and nowhere else."""

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        try:
            import httpx2
            import openai

            self._carrier = Carrier(base_url, authorised=key is not None)
        except ImportError as error:
            raise UserError(
                f"an endpoint needs the package {error.name}: pip install 'understudy[chat]'"
            ) from None
        self.base_url, self.timeout = base_url, timeout
        self._openai, self._httpx2 = openai, httpx2
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", organization="", project="",
            max_retries=0, timeout=timeout, http_client=straight(self._carrier),
        )  # fmt: skip
        self._head: tuple[str, Mapping[str, str]] | None = None
        loop.opened.add(self)

    def __repr__(self) -> str:
        return f"Wire({self.base_url!r})"

    async def post(self, body: bytes) -> Heard:
        """Sends a chat request.

        Raises:
            Lost: no whole answer came within the time.
        """
        if self._head is not None:
            return await self._timed(self._carrier.send("POST", *self._head, body))
        first = self._client.post(
            "/chat/completions", content=body, cast_to=self._httpx2.Response,
            options={"headers": _JSON},
        )  # fmt: skip
        heard = await self._timed(self._by_client(first))
        self._head = self._carrier.last
        return heard

    async def models(self) -> Heard:
        """Asks which models there are."""
        asked = self._client.get("/models", cast_to=self._httpx2.Response)
        return await self._timed(self._by_client(asked))

    async def _by_client(self, request: Awaitable[Any]) -> Heard:
        try:
            response = await request
        except self._openai.APIStatusError as error:
            response = error.response
        return response.extensions["heard"]

    async def _timed(self, request: Awaitable[Heard]) -> Heard:
        try:
            async with asyncio.timeout(self.timeout):
                return await request
        except TimeoutError:
            raise Lost(f"no answer within {self.timeout:g} s", "timeout", True) from None

    async def close(self) -> None:
        """Closes all connections."""
        await self._carrier.close()


class Carrier:
    """Takes requests to one address and nowhere else; `last`: where and how the client's last one went."""

    def __init__(self, base_url: str, authorised: bool) -> None:
        import aiohttp

        self._aiohttp = aiohttp
        self._proxy = _proxy(base_url)
        self._sent = _SENT if authorised else _SENT[1:]
        self._session: Any = None
        self.last: tuple[str, Mapping[str, str]] | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Heard:
        """One request and its whole answer.

        Raises:
            Lost: the connection could not be made, or broke.
        """
        session = self._session or self._open()
        try:
            async with session.request(
                method, url, headers=headers, data=body or None, allow_redirects=False,
                proxy=self._proxy,
            ) as response:  # fmt: skip
                content = await response.read()
                status, said = response.status, response.headers
        except (self._aiohttp.ClientConnectorError, self._aiohttp.InvalidURL) as error:
            raise Lost(_said(error), "unreachable", False) from None
        except (self._aiohttp.ClientError, ConnectionError) as error:
            raise Lost(f"the connection broke: {_said(error)}", "broken", True) from None
        if status == 200:
            return Heard(status=status, body=content)
        return Heard(
            status=status,
            body=content,
            retry_after=_retry_after(said),
            location=said.get("location"),
        )

    async def take(self, request: Any) -> Heard:
        """A request that the client made, with no more of its headers than an endpoint needs."""
        headers = {name: request.headers[name] for name in self._sent if name in request.headers}
        if request.method == "POST":
            self.last = (str(request.url), headers)
        return await self.send(request.method, str(request.url), headers, request.content)

    def _open(self) -> Any:
        import httpx2

        aiohttp = self._aiohttp
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=httpx2.create_ssl_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
        )
        return self._session

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()


def straight(carrier: Carrier) -> Any:
    """What the `openai` client sends by: no redirects, no cookies, no hooks."""
    import httpx2

    class Straight(httpx2.AsyncClient):
        async def send(self, request: Any, **_: Any) -> Any:
            heard = await carrier.take(request)
            return httpx2.Response(
                heard.status, content=heard.body, request=request, extensions={"heard": heard}
            )

    return Straight(follow_redirects=False, trust_env=False)


_JSON = {"Content-Type": "application/json"}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms`, or `Retry-After` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _proxy(base_url: str) -> str | None:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if loopback(base_url) or urllib.request.proxy_bypass(host):
        return None
    known = urllib.request.getproxies()
    return known.get(parts.scheme) or known.get("all")


def _said(error: BaseException) -> str:
    reason = getattr(error, "os_error", None)
    named = getattr(reason, "strerror", None) or str(error) or type(error).__name__
    return f"{type(error).__name__}: {' '.join(named.split())[:160]}"
