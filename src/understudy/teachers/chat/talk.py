"""What is said to a teacher one can only talk to, and what comes back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from understudy.errors import UserError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")

Schema = Any
"""What an answer has to look like: a pydantic model's class, or a JSON schema as a mapping."""

Logprobs = Sequence[tuple[str, float, Mapping[str, float]]]
"""For each token written: its text, its log-probability (nats), and the likeliest in its place."""


class ChatError(UserError):
    """A request that got no usable answer; `kind` says why, and the ledger keeps it apart."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


class BudgetSpent(ChatError):
    """The budget does not cover another request; what was answered before stays."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "budget")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(
                f"the role of a message is one of {', '.join(ROLES)}, not {self.role!r}"
            )
        if not isinstance(self.content, str):
            raise UserError(f"the content of a message is text, not {type(self.content).__name__}")

    def dump(self) -> dict[str, str]:
        """As the endpoint reads it."""
        return {"role": self.role, "content": self.content}


Conversation = Sequence[Message]


def user(content: str, system: str | None = None) -> tuple[Message, ...]:
    """A conversation of one question, with a system prompt before it where one is given."""
    before = () if system is None else (Message(role="system", content=system),)
    return (*before, Message(role="user", content=content))


@dataclass(frozen=True, kw_only=True)
class ChatSampling:
    """How an answer is drawn; temperature 0 takes the likeliest. All of it is part of the key.

    logprobs: how many of the likeliest tokens to list at each place; None for no log-probabilities
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        good = {
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "max_tokens": self.max_tokens >= 1,
            "logprobs": self.logprobs is None or 0 <= self.logprobs <= 20,
        }
        for name, fine in good.items():
            if not fine:
                raise UserError(f"chat sampling: {name} cannot be {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer.

    finish: `stop`, or `length` where it was cut off
    parsed: the answer as the schema reads it; None where no schema was given
    cost:   in the prices' currency; None where no prices are known
    cached: whether the ledger had it (then it cost nothing now)
    key:    the ledger's key: the provenance of every row that is made of this answer
    """

    text: str
    finish: str = "stop"
    parsed: Any = None
    logprobs: Logprobs | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    cached: bool = False
    key: str = ""

    def again(self) -> "Reply":
        """The same answer as the ledger gives it."""
        return replace(self, cached=True)


@runtime_checkable
class ChatTeacher(Protocol):
    """One interface for a model behind an endpoint and for one in this process."""

    def reply(
        self,
        messages: Conversation,
        n: int = 1,
        sampling: ChatSampling = ...,
        schema: Schema = None,
    ) -> list[Reply]:
        """`n` answers, each with its own sample index in the key.

        Raises:
            ChatError: where there is no usable answer.
        """
        ...

    def replies(
        self,
        conversations: Sequence[Conversation],
        n: int = 1,
        sampling: ChatSampling = ...,
        schema: Schema = None,
    ) -> Iterator[tuple[int, "list[Reply] | ChatError"]]:
        """Answers to many conversations as they come, each with its place in `conversations`.

        A conversation that fails comes as its error, and the others go on. `BudgetSpent` is raised
        once everything that was under way has come.
        """
        ...

    def fingerprint(self) -> str:
        """Of what answers: endpoint and model, or a local model's weights and tokenizer."""
        ...


def in_order(
    teacher: ChatTeacher,
    conversations: Sequence[Conversation],
    n: int = 1,
    sampling: ChatSampling | None = None,
    schema: Schema = None,
) -> "list[list[Reply] | ChatError]":
    """All answers of `replies`, in the order asked."""
    found: dict[int, list[Reply] | ChatError] = {}
    for index, said in teacher.replies(conversations, n, sampling or ChatSampling(), schema):
        found[index] = said
    return [found[i] for i in range(len(conversations))]
