"""Asking an OpenAI-compatible server, politely: again where it is busy, no further where it refuses."""

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from understudy.errors import DataError, UserError

_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT_S = 60.0


class Refused(DataError):
    """What a server will not answer however often it is asked; `code` is HTTP's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Server:
    """`base_url`, such as http://localhost:8000/v1, and how long to try.

    key_env: name of the environment variable that holds the key; None where none is asked for. The
    key goes to `base_url` alone: redirects are not followed.
    """

    base_url: str
    key_env: str | None = None
    timeout: float = 120.0
    tries: int = 5
    wait: float = 0.5

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"the base URL begins with http:// or https://, not {self.base_url!r}")
        self.headers()

    def headers(self) -> dict[str, str]:
        """Of a request, with the key; an error that names the variable where it is empty."""
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key_env is not None:
            key = os.environ.get(self.key_env, "").strip()
            if not key:
                raise UserError(
                    f"the environment variable {self.key_env} holds no key; set it, or name another"
                )
            found["Authorization"] = f"Bearer {key}"
        return found

    def post(self, route: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request as JSON.

        Raises:
            Refused: with the server's own words.
            DataError: no answer after all tries.
        """
        url = f"{self.base_url.rstrip('/')}/{route}"
        body, reason = json.dumps(request).encode(), ""
        opener = urllib.request.build_opener(_NoRedirects)
        for attempt in range(self.tries):
            wait = self.wait * 2**attempt
            try:
                sent = urllib.request.Request(url, body, self.headers(), method="POST")
                with opener.open(sent, timeout=self.timeout) as reply:
                    answer = json.loads(reply.read())
                if isinstance(answer, dict):
                    return answer
                reason = "the answer is no JSON object"
            except urllib.error.HTTPError as e:
                reason = f"HTTP {e.code}: {_words(e.read(4000))}"
                if e.code not in _AGAIN:
                    raise Refused(f"{url} refused: {reason}", e.code) from None
                said = e.headers.get("Retry-After", "")
                wait = float(said) if said.isdigit() else wait
            except (urllib.error.URLError, OSError) as e:
                reason = str(getattr(e, "reason", None) or e) or type(e).__name__
            except ValueError:
                reason = "the answer is no JSON"
            if attempt + 1 < self.tries:
                time.sleep(min(wait, _LONGEST_WAIT_S))
        raise DataError(f"{url} did not answer: {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _words(body: bytes) -> str:
    """What a server says of an error: the message in its JSON, or the beginning of its text."""
    text = body.decode(errors="replace")
    try:
        found: Any = json.loads(text)
        for key in ("error", "message", "detail"):
            found = found.get(key, found) if isinstance(found, dict) else found
        text = found if isinstance(found, str) else text
    except ValueError:
        pass
    return " ".join(text.split())[:300]
