"""What a request says, read field by field; and what it is answered with, in OpenAI's form."""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.errors import UserError, nearest
from understudy.teachers.chat import ChatError, ChatSampling, Message, Reply
from understudy.teachers.chat.requests import Request

MOST_N = 128

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "min_p": (None, 0),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_k": (None, 0, -1),
    "web_search_options": (None,),
}
"""Fields that would change an answer and are not served: refused unless they ask for nothing."""

_KINDS = {
    "busy": (429, "rate_limit_error"),
    "stopping": (503, "server_error"),
    "context": (400, "invalid_request_error"),
    "request": (400, "invalid_request_error"),
    "schema": (422, "invalid_request_error"),
    "cut": (422, "invalid_request_error"),
}


class Bad(UserError):
    """A request that cannot be answered, as OpenAI says it."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400,
        kind: str = "invalid_request_error", code: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.param, self.status, self.kind, self.code = param, status, kind, code

    def dump(self) -> dict[str, Any]:
        """The body of the answer."""
        said = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": said}


def as_bad(error: BaseException) -> Bad:
    """An error of the teacher as the server says it; what is not ours is not told in detail."""
    if isinstance(error, Bad):
        return error
    if isinstance(error, ChatError):
        status, kind = _KINDS.get(error.kind, (500, "server_error"))
        code = "context_length_exceeded" if error.kind == "context" else error.kind
        return Bad(str(error), status=status, kind=kind, code=code)
    if isinstance(error, UserError):
        return Bad(str(error))
    return Bad("the server failed on this request", status=500, kind="server_error")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A chat request with what concerns the form of its answer."""

    request: Request
    stream: bool
    usage: bool


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A completions request.

    prompts: each as text or token ids; logprobs: how many of the likeliest, None for none;
    prompt_logprobs: likewise of the prompt's tokens, by id; ids: tokens go as `token_id:17`
    """

    prompts: tuple[str | tuple[int, ...], ...]
    n: int
    sampling: ChatSampling
    silent: bool
    logprobs: int | None
    echo: bool
    prompt_logprobs: int | None
    ids: bool
    with_ids: bool
    stops: tuple[int, ...]


class Body:
    """The fields of a request, each read as what it has to be."""

    def __init__(self, body: Any, known: str) -> None:
        if not isinstance(body, dict):
            raise Bad("the body of a request is a JSON object")
        self.body = body
        if not isinstance(body.get("model"), str):
            raise Bad("the field model names the model", "model")
        if body["model"] != known:
            raise Bad(
                f"the model {body['model']!r} does not exist{nearest(body['model'], [known])}",
                "model", status=404, code="model_not_found",
            )  # fmt: skip
        for name, neutral in _NEUTRAL.items():
            if name in body and body[name] not in neutral:
                raise Bad(f"{name} is not served here; leave it out", name)

    def whole(self, name: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Bad(f"{name} is a whole number from {low} to {high}, not {value!r}", name)
        return value

    def real(self, name: str, default: float, low: float, high: float) -> float:
        """A number."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:  # fmt: skip
            raise Bad(f"{name} is a number from {low:g} to {high:g}, not {value!r}", name)
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.body.get(name)
        if value is not None and not isinstance(value, bool):
            raise Bad(f"{name} is true or false, not {value!r}", name)
        return bool(value)

    def stop(self) -> tuple[str, ...]:
        """One stop string or several, none empty."""
        value = self.body.get("stop")
        found = [] if value is None else [value] if isinstance(value, str) else value
        good = isinstance(found, list) and len(found) <= 16
        if not good or not all(isinstance(s, str) and s for s in found):
            raise Bad("stop is a text, or a list of at most 16, none of them empty", "stop")
        return tuple(found)

    def seed(self) -> int:
        """The seed that was given; one of chance where none was, so that answers vary."""
        found = self.whole("seed", None, -(2**63), 2**63 - 1)
        return secrets.randbits(62) if found is None else found

    def sampling(self, *, most: int, logprobs: int | None) -> ChatSampling:
        """How an answer is drawn; `most` tokens where the request does not say."""
        temperature = self.real("temperature", 1.0, 0.0, 100.0)
        top_p = self.real("top_p", 1.0, 0.0, 1.0)
        if top_p == 0:  # the likeliest alone
            top_p = 1e-9
        return ChatSampling(
            temperature=temperature, top_p=top_p, max_tokens=most, stop=self.stop(),
            seed=self.seed(), logprobs=logprobs,
        )  # fmt: skip


def chat(body: Any, known: str) -> Asked:
    """A request of /v1/chat/completions."""
    b = Body(body, known)
    most = b.whole("max_completion_tokens", None, 1, 2**31) or b.whole("max_tokens", 512, 1, 2**31)
    logprobs = b.whole("top_logprobs", None, 0, 20)
    if b.flag("logprobs"):
        logprobs = logprobs or 0
    elif logprobs is not None:
        raise Bad("top_logprobs needs logprobs: true", "top_logprobs")
    options = b.body.get("stream_options") or {}
    stream = b.flag("stream")
    request = Request(
        messages=_messages(b.body.get("messages")),
        n=b.whole("n", 1, 1, MOST_N) or 1,
        sampling=b.sampling(most=most or 512, logprobs=logprobs),
        schema=_schema(b.body.get("response_format")),
    )
    usage = isinstance(options, dict) and options.get("include_usage") is True
    return Asked(request=request, stream=stream, usage=usage)


def texts(body: Any, known: str, vocabulary: int) -> Texts:
    """A request of /v1/completions."""
    b = Body(body, known)
    if b.flag("stream"):
        raise Bad("completions are not streamed here; chat completions are", "stream")
    echo = b.flag("echo")
    most = b.whole("max_tokens", 16, 0, 2**31)
    prompt_logprobs = b.whole("prompt_logprobs", None, 0, vocabulary)
    logprobs = b.whole("logprobs", None, 0, vocabulary)
    if most == 0 and not echo and prompt_logprobs is None:
        raise Bad("max_tokens 0 says nothing; it goes with echo", "max_tokens")
    stops = b.body.get("stop_token_ids") or []
    return Texts(
        prompts=_prompts(b.body.get("prompt"), vocabulary),
        n=b.whole("n", 1, 1, MOST_N) or 1,
        sampling=b.sampling(most=max(1, most or 0), logprobs=None),
        silent=most == 0,
        logprobs=logprobs,
        echo=echo,
        prompt_logprobs=prompt_logprobs,
        ids=b.flag("return_tokens_as_token_ids"),
        with_ids=b.flag("return_token_ids"),
        stops=_ids(stops, vocabulary, "stop_token_ids") if stops else (),
    )


def _messages(said: Any) -> tuple[Message, ...]:
    if not isinstance(said, list) or not said:
        raise Bad("messages is a list of role and content, and not empty", "messages")
    found = []
    for number, message in enumerate(said):
        at = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "developer":
            role = "system"
        if role not in ("system", "user", "assistant"):
            raise Bad(f"{at}: the role {role!r} is none of system, user, assistant", "messages")
        content = message.get("content")
        if isinstance(content, list):
            kinds = [p.get("type") if isinstance(p, dict) else None for p in content]
            if any(k != "text" for k in kinds) or any(
                not isinstance(p.get("text"), str) for p in content
            ):
                raise Bad(f"{at}: only parts of text are read", "messages")
            content = "".join(p["text"] for p in content)
        if not isinstance(content, str):
            raise Bad(f"{at}: content is a text", "messages")
        found.append(Message(role=role, content=content))
    return tuple(found)


def _schema(said: Any) -> Any:
    if said is None:
        return None
    kind = said.get("type") if isinstance(said, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        given = said.get("json_schema")
        schema = given.get("schema") if isinstance(given, dict) else None
        if not isinstance(schema, dict):
            raise Bad("response_format.json_schema.schema is a JSON schema", "response_format")
        return schema
    raise Bad("response_format is of type text, json_object or json_schema", "response_format")


def _prompts(said: Any, vocabulary: int) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(said, str):
        return (said,)
    if isinstance(said, list) and said:
        if all(isinstance(p, str) for p in said):
            return tuple(said)
        if all(isinstance(p, list) for p in said):
            return tuple(_ids(p, vocabulary, "prompt") for p in said)
        return (_ids(said, vocabulary, "prompt"),)
    raise Bad("prompt is a text, token ids, or a list of either", "prompt")


def _ids(said: Any, vocabulary: int, name: str) -> tuple[int, ...]:
    good = isinstance(said, list) and said
    if not good or any(isinstance(i, bool) or not isinstance(i, int) for i in said):
        raise Bad(f"{name} holds token ids, none of them empty", name)
    wrong = next((i for i in said if not 0 <= i < vocabulary), None)
    if wrong is not None:
        raise Bad(f"{name}: there is no token {wrong}; the vocabulary has {vocabulary}", name)
    return tuple(said)


def head(kind: str, model: str, prefix: str) -> dict[str, Any]:
    """The fields that begin every answer."""
    made = f"{prefix}-{secrets.token_hex(12)}"
    return {"id": made, "object": kind, "created": int(time.time()), "model": model}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Tokens that were read and written."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def chat_usage(replies: Sequence[Reply]) -> dict[str, int]:
    """Of a conversation: its prompt counts once."""
    return usage(max(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies))


def chat_choice(index: int, reply: Reply) -> dict[str, Any]:
    """One answer among `choices`."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": reply.text, "refusal": None},
        "logprobs": chat_logprobs(reply),
        "finish_reason": reply.finish,
    }


def chat_logprobs(reply: Reply) -> dict[str, Any] | None:
    """Log-probabilities as chat completions have them; None where there are none."""
    if reply.logprobs is None:
        return None
    content = [
        {**_token(text, value), "top_logprobs": [_token(t, v) for t, v in tops.items()]}
        for text, value, tops in reply.logprobs
    ]
    return {"content": content, "refusal": None}


def _token(text: str, value: float) -> dict[str, Any]:
    # JSON has no minus infinity; -9999 is what other servers write
    return {"token": text, "logprob": max(value, -9999.0), "bytes": list(text.encode())}
