"""From a teacher's answers to a label: read strictly, weighed by votes or log-probabilities."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.errors import UserError, nearest
from understudy.teachers.chat import Logprobs, Reply

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Unreadable(UserError):
    """An answer that names none of the labels."""


def label_of(reply: Reply, labels: Mapping[str, str], name: str = "label") -> str:
    """The label that an answer names: a JSON object with it, or the label alone.

    Letter case and white space around it do not matter; anything else is refused, never guessed.

    Raises:
        Unreadable: empty, cut off, or naming no label or another one.
    """
    known = {label.casefold(): label for label in labels}
    said = reply.parsed if isinstance(reply.parsed, Mapping) else None
    if said is None and reply.parsed is not None:
        said = {name: getattr(reply.parsed, name, None)}
    text = reply.text.strip()
    if said is None:
        if not text:
            raise Unreadable("the answer is empty")
        if fenced := _FENCE.match(text):
            text = fenced[1].strip()
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            found = text
        said = found if isinstance(found, Mapping) else {name: found}
    value = said.get(name)
    if isinstance(value, str) and " ".join(value.split()).casefold() in known:
        return known[" ".join(value.split()).casefold()]
    if reply.finish == "length":
        raise Unreadable(f"the answer was cut off: {_short(text)}")
    if not isinstance(value, str):
        raise Unreadable(f"the answer has no {name!r}: {_short(text)}")
    raise Unreadable(f"the answer names no label, {_short(value)}{nearest(value, labels, 1)}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One text with what its teacher said.

    number:  of the text in the data
    label:   the likeliest; soft: the probability of each label, in the schema's order
    keys:    of the requests in the ledger that made it
    """

    number: int
    text: str
    label: str
    soft: tuple[float, ...]
    keys: tuple[str, ...] = ()

    @property
    def confidence(self) -> float:
        """Of the likeliest label."""
        return max(self.soft)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One text that has no usable answer; never data."""

    number: int
    text: str
    kind: str
    reason: str


def voted(replies: Sequence[Reply], labels: Mapping[str, str]) -> tuple[float, ...]:
    """p(k) = votes for k / votes; answers that cannot be read have none.

    Raises:
        Unreadable: where fewer than half of the answers can be read.
    """
    said, problems = [], []
    for reply in replies:
        try:
            said.append(label_of(reply, labels))
        except Unreadable as error:
            problems.append(str(error))
    if 2 * len(said) < len(replies) or not said:
        raise Unreadable(problems[0] if problems else "there is no answer")
    return tuple(said.count(label) / len(said) for label in labels)


def weighed(reply: Reply, labels: Mapping[str, str]) -> tuple[float, ...] | None:
    """p(k) from the log-probabilities of the tokens that spell the label; None without them.

    Tokens are followed along the label that was written. At each, the listed alternatives carry the
    mass of the labels that go on with them (shared alike where several do), until only one label is
    left; what fits no label is left out and the rest divided by its sum.

    Raises:
        Unreadable: the answer names no label.
    """
    written = label_of(reply, labels)
    if not reply.logprobs:
        return None
    found = _placed(reply.logprobs, written)
    if found is None:
        return None
    tokens, offset, end = found
    mass, so_far = 1.0, ""
    weights = dict.fromkeys(labels, 0.0)
    for token, logprob, others in tokens:
        head, piece = token[:offset], token[offset:]
        offset = 0
        choices = {token: logprob, **others}
        for other, value in choices.items():
            if other == token or not other.startswith(head):
                continue
            on = _going_on(labels, so_far + other[len(head) :], end)
            for label in on:
                weights[label] += mass * math.exp(value) / len(on)
        mass *= math.exp(logprob)
        so_far += piece
        left = _going_on(labels, so_far, end)
        if len(left) <= 1:
            break
    weights[written] += mass
    whole = sum(weights.values())
    return tuple(w / whole for w in weights.values())


def _placed(logprobs: Logprobs, label: str) -> tuple[Logprobs, int, str] | None:
    """The tokens from the one in which the label begins, how far in, and what ends a label."""
    text = "".join(token for token, _, _ in logprobs)
    quoted = text.find(f'"{label}"')
    start = quoted + 1 if quoted >= 0 else text.casefold().find(label.casefold())
    if start < 0:
        return None
    passed = 0
    for n, (token, _, _) in enumerate(logprobs):
        if passed + len(token) > start:
            return logprobs[n:], start - passed, '"' if quoted >= 0 else ""
        passed += len(token)
    return None


def _going_on(labels: Mapping[str, str], prefix: str, end: str) -> list[str]:
    """Labels that begin so, or that are there whole with their end mark and what follows."""
    low = prefix.casefold()
    if not low.strip():
        return []
    return [
        label
        for label in labels
        if (whole := label.casefold() + end).startswith(low) or (end and low.startswith(whole))
    ]


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")
