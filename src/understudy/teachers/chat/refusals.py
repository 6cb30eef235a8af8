"""What an endpoint means by refusing: one error, one line, and what to do about it."""

import json
from typing import Any
from urllib.parse import urlsplit

from understudy.errors import nearest
from understudy.teachers.chat.talk import ChatError
from understudy.teachers.chat.wire import Heard

BUSY = (429, 503, 529)
AGAIN = (408, 409, 425, 500, 502, 503, 504)
"""Statuses after which the same request may be answered; of BUSY, 503 counts as an attempt too."""


class EndpointError(ChatError):
    """The endpoint as a whole cannot be used as asked; no other conversation would fare better."""


def error_of(body: bytes) -> tuple[str, str, str]:
    """(message, code, parameter) of an error's body, in whichever form it comes."""
    try:
        said = json.loads(body)
    except ValueError:
        text = body[:200].decode(errors="replace")
        return " ".join(text.split()), "", ""
    error = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or said.get("detail") or ""
        code = error.get("code") or error.get("type") or ""
        return _line(message), str(code), str(error.get("param") or "")
    return _line(error), "", ""


def _line(message: Any) -> str:
    text = message if isinstance(message, str) else json.dumps(message)
    return " ".join(text.split())[:300]


def no_quota(heard: Heard) -> bool:
    """Whether a 429 says that the account is empty, which no waiting helps."""
    message, code, _ = error_of(heard.body)
    return "insufficient_quota" in code or "insufficient_quota" in message


def refusal(
    heard: Heard, base_url: str, model: str, key_env: str | None, answered: bool
) -> ChatError:
    """The error of a status that is no answer; `answered`: the endpoint has answered before."""
    message, code, _ = error_of(heard.body)
    said = f": {message}" if message else ""
    status = heard.status
    if status == 401 or (status == 403 and not answered):
        if key_env is None:
            hint = "name the variable that holds one (key_env, --key-env)"
        else:
            hint = f"check what {key_env} holds, and that it is of this endpoint"
        taken = "asks for a key" if key_env is None else "does not take the key"
        return EndpointError(f"{base_url} {taken} (HTTP {status}){said}; {hint}", "key")
    if status == 402 or (status == 429 and no_quota(heard)):
        return EndpointError(f"{base_url}: the account has no credit left{said}", "quota")
    if 300 <= status < 400:
        host = urlsplit(heard.location or "").hostname or "another address"
        return EndpointError(
            f"{base_url} points to {host} (HTTP {status}); redirects are not followed, as the key "
            "belongs to one address: give that one if it is meant",
            "address",
        )
    if status in (404, 405) and not answered:
        if "model" in f"{message} {code}".lower():
            return EndpointError(f"{base_url} has no model {model!r}{said}", "model")
        return EndpointError(
            f"{base_url} has no /chat/completions (HTTP {status}){said}; most addresses end in /v1",
            "address",
        )
    if status in BUSY:
        return ChatError(f"{base_url} is overloaded (HTTP {status}){said}", "overloaded")
    if status >= 500:
        return ChatError(f"{base_url} failed (HTTP {status}){said}", "server")
    if code == "cut":  # as `understudy serve` says of an answer that ended before its schema
        return ChatError(f"{base_url}{said}", "cut")
    return ChatError(f"{base_url} refused the request (HTTP {status}){said}", "refused")


def near_models(heard: Heard, model: str) -> str:
    """`; did you mean ...` from the endpoint's own list."""
    try:
        listed = json.loads(heard.body)["data"]
        return nearest(model, [str(m["id"]) for m in listed])
    except (ValueError, KeyError, TypeError):
        return ""
