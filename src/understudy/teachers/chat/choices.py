"""What a chat request says, and what its answer holds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.talk import ChatError, ChatSampling

Turns = Sequence[Mapping[str, str]]
MANY_TOKENS = "max_completion_tokens"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How an endpoint wants to be asked; found out by what it refuses.

    single:  one answer a request
    worded:  the schema is said in words, as `response_format` is refused
    limit:   what the bound on tokens is called
    top_p:   whether 1, which changes nothing, may be said
    """

    single: bool = False
    worded: bool = False
    limit: str = "max_tokens"
    top_p: bool = True

    def adapted(
        self, message: str, parameter: str, *, n: int, form: Form | None
    ) -> "Manner | None":
        """Another manner after a refusal; None where there is none left to try."""
        about = f"{parameter} {message}".lower()
        if self.limit != MANY_TOKENS and MANY_TOKENS in about:
            return replace(self, limit=MANY_TOKENS)
        if self.top_p and "top_p" in about:
            return replace(self, top_p=False)
        schema = form is not None and not self.worded
        several = n > 1 and not self.single
        if several and (parameter == "n" or not schema or "'n'" in about or '"n"' in about):
            return replace(self, single=True)
        if schema:
            return replace(self, worded=True)
        return replace(self, single=True) if several else None


def request(
    model: str, messages: Turns, n: int, sampling: ChatSampling, form: Form | None,
    manner: Manner, first: int = 0,
) -> bytes:  # fmt: skip
    """The body of a request for samples `first` to `first + n - 1`, whose seeds follow each other."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        manner.limit: sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if manner.top_p or sampling.top_p != 1:
        body["top_p"] = sampling.top_p
    if n > 1 and not manner.single:
        body["n"] = n
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed + first
    if sampling.logprobs is not None:
        body["logprobs"] = True
        if sampling.logprobs:
            body["top_logprobs"] = sampling.logprobs
    if form is not None:
        if manner.worded:
            body["messages"] = worded(messages, form)
        else:
            body["response_format"] = form.response_format()
    return json.dumps(body).encode()


def worded(messages: Turns, form: Form) -> list[Mapping[str, str]]:
    """The conversation with the schema said at the end of its last turn."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}\n\n{form.words()}"}]


def most_tokens(messages: Turns, n: int, sampling: ChatSampling, form: Form | None) -> int:
    """An upper bound of what a request may take: no token is shorter than a byte of UTF-8.

    What the endpoint's template adds (marks of roles and turns) is reckoned with 16 tokens a
    message and 32 in all.
    """
    prompt = 32
    for message in messages:
        prompt += len(message["content"].encode("utf-8", "backslashreplace")) + 16
    if form is not None:
        prompt += 2 * len(form.words())
    return prompt + n * sampling.max_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One answer of a response."""

    text: str
    finish: str
    logprobs: list[Any] | None = None
    refused: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A response: its choices, and the tokens it counts (None where it does not say)."""

    choices: list[Choice]
    prompt: int | None
    completion: int | None


class Malformed(ValueError):
    """A response that is no chat completion."""


def said(content: bytes) -> Said:
    """A response, read.

    Raises:
        Malformed: it is no chat completion.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise Malformed("the answer is no JSON") from None
    try:
        listed = body["choices"]
        ordered = sorted(listed, key=lambda c: c.get("index") or 0)
        choices = [_choice(c) for c in ordered]
        if not choices:
            raise ValueError("no choice")
        usage = body.get("usage") or {}
        counts = [usage.get(n) for n in ("prompt_tokens", "completion_tokens")]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Malformed("the answer is no chat completion") from None
    prompt, completion = (c if isinstance(c, int) and c >= 0 else None for c in counts)
    return Said(choices=choices, prompt=prompt, completion=completion)


def _choice(choice: Any) -> Choice:
    message = choice["message"]
    text = message.get("content")
    if isinstance(text, list):  # parts, as some endpoints send them
        text = "".join(p.get("text", "") for p in text)
    if not isinstance(text, str | None):
        raise TypeError("content")
    told = choice.get("logprobs") or {}
    listed = told.get("content")
    return Choice(
        text=text or "",
        finish=str(choice.get("finish_reason") or "stop"),
        logprobs=[_token(t) for t in listed] if listed else None,
        refused=str(message.get("refusal") or ""),
    )


def _token(token: Any) -> list[Any]:
    tops = {t["token"]: _finite(t["logprob"]) for t in token.get("top_logprobs") or ()}
    return [token["token"], _finite(token["logprob"]), tops]


def _finite(value: float) -> float:
    """A log-probability; of what is not at all possible as endpoints write it, -9999."""
    value = float(value)
    return value if math.isfinite(value) else -9999.0


def usable(choice: Choice, form: Form | None, sampling: ChatSampling) -> str:
    """"" where a choice is an answer, and else what is wrong with its form, to be said once more.

    Raises:
        ChatError: it is none, and asking again in the same words would not help.
    """  # fmt: skip
    if choice.refused:
        raise ChatError(f"the model refused: {choice.refused[:200]}", "refusal")
    if choice.finish == "content_filter":
        raise ChatError("the endpoint filtered the answer out", "filtered")
    if form is None:
        if not choice.text.strip():
            if choice.finish == "length":
                raise ChatError(_cut(sampling, "before it began"), "cut")
            raise ChatError("the answer is empty", "empty")
        return ""
    try:
        form.read(choice.text)
    except ValueError as error:
        if choice.finish == "length":
            raise ChatError(_cut(sampling, "before it was whole"), "cut") from None
        return str(error)
    return ""


def _cut(sampling: ChatSampling, when: str) -> str:
    return f"the answer was cut off {when}; raise max_tokens ({sampling.max_tokens})"


def repairing(messages: Turns, text: str, wrong: str, form: Form) -> list[Mapping[str, str]]:
    """The one question after an answer of the wrong form: with its error, and no earlier ones."""
    again = (
        f"That answer does not fit the form asked for: {wrong}\n"
        "Answer again, in the form asked for and with nothing else."
    )
    kept = text if text.strip() else "(nothing)"
    return [
        *messages,
        {"role": "assistant", "content": kept[:4000]},
        {"role": "user", "content": again},
    ]


def shares(total: int, parts: int) -> list[int]:
    """A whole number in near equal parts."""
    return [total // parts + (i < total % parts) for i in range(parts)]
