"""One request over HTTP, and what came of it. Requests and errors are the `openai` client's.

Its default transport takes 2 to 3 ms of CPU a request; here aiohttp carries the bytes. Redirects
are never followed, cookies never kept, proxies taken from the environment but not for this machine.
"""

import asyncio
import math
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from understudy.errors import UserError
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
            import aiohttp
            import httpx2
            import openai
        except ImportError as error:
            raise UserError(
                f"an endpoint needs the package {error.name}: pip install 'understudy[chat]'"
            ) from None
        self.base_url, self.timeout = base_url, timeout
        self._aiohttp, self._httpx2, self._openai = aiohttp, httpx2, openai
        self._transport = _transport(base_url, authorised=key is not None)
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", organization="", project="",
            max_retries=0, timeout=timeout, http_client=_client(self._transport),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Wire({self.base_url!r})"

    async def post(self, body: bytes) -> Heard:
        """Sends a chat request.

        Raises:
            Lost: no whole answer came within the time.
        """
        return await self._asked(
            self._client.post(
                "/chat/completions", content=body, cast_to=self._httpx2.Response,
                options={"headers": _JSON},
            )
        )  # fmt: skip

    async def models(self) -> Heard:
        """Asks which models there are."""
        return await self._asked(self._client.get("/models", cast_to=self._httpx2.Response))

    async def _asked(self, request: Any) -> Heard:
        openai = self._openai
        try:
            async with asyncio.timeout(self.timeout):
                response = await request
        except openai.APIStatusError as error:
            response = error.response
        except (TimeoutError, openai.APITimeoutError):
            raise Lost(f"no answer within {self.timeout:g} s", "timeout", True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            said = " ".join(str(cause or error).split())[:160]
            if isinstance(cause, self._httpx2.ConnectError):
                raise Lost(said, "unreachable", False) from None
            raise Lost(f"the connection broke: {said}", "broken", True) from None
        status, headers = response.status_code, response.headers
        return Heard(
            status=status,
            body=response.content,
            retry_after=_retry_after(headers) if status >= 400 else None,
            location=headers.get("location") if 300 <= status < 400 else None,
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.aclose()


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


def _transport(base_url: str, authorised: bool) -> Any:
    """What carries bytes: aiohttp in the form that the client wants."""
    import aiohttp
    import httpx2

    unreachable = (aiohttp.ClientConnectorError, aiohttp.InvalidURL)
    proxy = _proxy(base_url)
    sent = _SENT if authorised else _SENT[1:]

    class Transport(httpx2.AsyncBaseTransport):
        session: Any = None

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if self.session is None:
                self.session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, ssl=httpx2.create_ssl_context()),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(),
                )
            own = request.headers
            headers = {name: own[name] for name in sent if name in own}
            try:
                async with self.session.request(
                    request.method, str(request.url), headers=headers, data=request.content or None,
                    allow_redirects=False, proxy=proxy,
                ) as response:  # fmt: skip
                    content = await response.read()
                    kept = [(k, v) for k, v in response.raw_headers if k.lower() in _READ]
                    return httpx2.Response(
                        response.status, headers=kept, content=content, request=request
                    )
            except unreachable as error:
                raise httpx2.ConnectError(_said(error)) from None
            except (aiohttp.ClientError, ConnectionError) as error:
                raise httpx2.ReadError(_said(error)) from None

        async def aclose(self) -> None:
            if self.session is not None:
                await self.session.close()

    return Transport()


_READ = (b"content-type", b"retry-after", b"retry-after-ms", b"location")


def _said(error: BaseException) -> str:
    reason = getattr(error, "os_error", None)
    named = getattr(reason, "strerror", None) or str(error) or type(error).__name__
    return f"{type(error).__name__}: {named}"


def _client(transport: Any) -> Any:
    import httpx2

    class Straight(httpx2.AsyncClient):
        """Sends a request to its own address and nowhere else: no redirects, cookies, hooks."""

        async def send(self, request: Any, **_: Any) -> Any:
            return await transport.handle_async_request(request)

    return Straight(transport=transport, follow_redirects=False, trust_env=False)
