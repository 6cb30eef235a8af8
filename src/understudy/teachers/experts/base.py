"""What all experts share: they read a prompt, choose among answers, and say how sure they are."""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from understudy.errors import UserError
from understudy.teachers.chat.asking import inputs
from understudy.teachers.chat.drawing import key_of
from understudy.teachers.chat.requests import Request, Together, asked_of
from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.talk import ChatError, ChatSampling, Conversation, Reply, Schema


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The answers to one prompt: what stands before all of them, and the log-probability (nats) of
    each. tokens: how many the expert read.
    """

    answers: Mapping[str, float]
    before: str = ""
    tokens: int = 0


class Expert(Together):
    """A small model that answers one kind of prompt, behind the words of a chat model.

    It finds its inputs between the prompt's delimiters, chooses by its own probabilities (the
    likeliest at temperature 0; otherwise drawn, at the temperature and top-p asked for, from a seed
    that the conversation, the sampling seed and the sample index make), and lists them as
    log-probabilities where they are asked for. A prompt of another kind is refused in words.
    """

    task: str
    """The name in a prompt's first line."""
    needs: tuple[str, ...]
    """The inputs between its delimiters."""

    def __init__(self, *, name: str, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is at least 1, not {batch_size}")
        self.name, self.batch_size = name, batch_size

    @abstractmethod
    def choose(self, given: Sequence[tuple[Mapping[str, str], str]]) -> list[Choice]:
        """The choices for prompts, each as its inputs and its whole text."""

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """What the answers depend on, for the fingerprint."""

    def read(self, messages: Conversation) -> tuple[Mapping[str, str], str] | None:
        """The inputs of a prompt, and its text; None where it is of another kind."""
        task, given = inputs(messages)
        if task != self.task or not all(given.get(n, "").strip() for n in self.needs):
            return None
        return given, messages[-1].content

    def fingerprint(self) -> str:
        """Of weights and settings."""
        said = "\n".join([type(self).__name__, *self.parts()])
        return f"expert:{hashlib.sha256(said.encode()).hexdigest()}"

    def at_a_time(self, n: int) -> int:
        """All samples of a prompt come of one reading."""
        return 4 * self.batch_size

    def answers(
        self, requests: Sequence[Request], heard: Any = None
    ) -> list[list[Reply] | ChatError]:
        """Answers to requests of different settings together."""
        read: dict[int, tuple[Mapping[str, str], str]] = {}
        for place, request in enumerate(requests):
            given = self.read(request.messages)
            if given is not None:
                read[place] = given
        choices = dict(zip(read, self.choose(list(read.values())), strict=True)) if read else {}
        found: list[list[Reply] | ChatError] = []
        for place, request in enumerate(requests):
            try:
                found.append(self._said(request, choices.get(place)))
            except ChatError as error:
                found.append(error)
        return found

    def _said(self, request: Request, choice: Choice | None) -> list[Reply]:
        if request.n < 1:
            raise ChatError(f"n is at least 1, not {request.n}", "request")
        if choice is None:
            choice = Choice(answers={self.refusal: 0.0})
        form = None if request.schema is None else _form(request.schema)
        asked = asked_of(self.fingerprint(), self.name, request, form)
        return [
            self._one(request, choice, form, index, asked.key(index)) for index in range(request.n)
        ]

    @property
    def refusal(self) -> str:
        """What is said to a prompt that the expert cannot read."""
        return (
            f"I cannot answer this. I answer prompts of the task {self.task!r} alone, which give me "
            f"{' and '.join(self.needs)} between delimiters."
        )

    def _one(
        self, request: Request, choice: Choice, form: Form | None, index: int, key: str
    ) -> Reply:
        sampling = request.sampling
        answer = _drawn(choice.answers, sampling, key_of(request.messages, sampling, index))
        text = choice.before + answer
        parsed = None
        if form is not None:
            try:
                parsed = form.read(text)
            except ValueError as error:
                raise ChatError(f"{self.name}: {error}", "schema") from None
        logprobs = None
        if sampling.logprobs is not None:
            ordered = sorted(choice.answers.items(), key=lambda kv: -kv[1])[: sampling.logprobs]
            logprobs = [(choice.before, 0.0, {choice.before: 0.0})] if choice.before else []
            logprobs.append((answer, choice.answers[answer], dict(ordered)))
        return Reply(
            text=text,
            parsed=parsed,
            logprobs=None if logprobs is None else tuple(logprobs),
            prompt_tokens=choice.tokens,
            completion_tokens=1 + bool(choice.before),
            key=key,
        )


def _form(schema: Schema) -> Form:
    try:
        return Form(schema)
    except UserError as error:
        raise ChatError(str(error), "request") from None


def _drawn(answers: Mapping[str, float], sampling: ChatSampling, key: str) -> str:
    ordered = sorted(answers, key=lambda a: -answers[a])
    if sampling.temperature == 0 or len(ordered) == 1:
        return ordered[0]
    top = answers[ordered[0]]
    weights = [math.exp((answers[a] - top) / sampling.temperature) for a in ordered]
    whole, kept, passed = sum(weights), [], 0.0
    for weight in weights:
        if passed / whole < sampling.top_p:  # the answer that crosses the threshold is kept
            kept.append(weight)
        passed += weight
    at = Random(key).random() * sum(kept)
    for answer, weight in zip(ordered, kept, strict=False):
        at -= weight
        if at < 0:
            return answer
    return ordered[len(kept) - 1]
