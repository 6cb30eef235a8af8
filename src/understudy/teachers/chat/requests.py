"""Requests to a model in this process on their way: asked, remembered, read by a schema."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from understudy.store.ledger import Answer, Asked, Frame
from understudy.teachers.chat.constrained import Guide
from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.talk import ChatError, ChatSampling, Conversation, Reply, Schema

DEFAULT = ChatSampling()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversation as it is asked, with settings of its own."""

    messages: Conversation
    n: int = 1
    sampling: ChatSampling = DEFAULT
    schema: Schema = None


def asked_of(endpoint: str, model: str, request: Request, form: Form | None) -> Asked:
    """A request as the ledger has it; `.key(i)` is the provenance of its sample i."""
    drawn = {f.name: getattr(request.sampling, f.name) for f in fields(request.sampling)}
    frame = Frame(endpoint, model, drawn, None if form is None else form.schema)
    return frame([m.dump() for m in request.messages])


@dataclass
class Job:
    """One request on its way: its prompt, what was answered, and which samples are not."""

    request: Request
    form: Form | None = None
    guide: Guide | None = None
    ids: list[int] = field(default_factory=list)
    asked: Asked | None = None
    missing: list[int] = field(default_factory=list)
    replies: dict[int, Reply] = field(default_factory=dict)
    error: ChatError | None = None

    def key(self, index: int) -> str:
        """The ledger's key of a sample."""
        assert self.asked is not None
        return self.asked.key(index)

    def answer(self) -> list[Reply] | ChatError:
        """What the asker gets."""
        if self.error is not None:
            return self.error
        return [replace(self.replies[i], key=self.key(i)) for i in range(self.request.n)]


REPAIR = "That is no answer of the form asked for: {wrong}\nAnswer again with the JSON alone."


def unread(name: str, error: ValueError) -> ChatError:
    """An answer that a schema cannot read, twice."""
    return ChatError(f"{name}: no answer of the schema: {error}", "schema")


def cut(name: str, reply: Reply, sampling: ChatSampling) -> ChatError:
    """An answer that ended before its schema was complete: it is no data, whatever it holds."""
    how = f"after {reply.completion_tokens} tokens"
    if reply.finish == "stop":
        how += ", by a stop string; leave that out"
    elif reply.completion_tokens >= sampling.max_tokens:
        how += f"; raise max_tokens ({sampling.max_tokens})"
    else:
        how += "; the model has no room for more, or none that fits"
    return ChatError(f"{name}: the answer was cut off before it was whole, {how}", "cut")


def answer_of(reply: Reply) -> Answer:
    """As the ledger keeps it."""
    return Answer(
        text=reply.text,
        finish=reply.finish,
        logprobs=reply.logprobs,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def recalled(answer: Answer) -> Reply:
    """As the ledger gives it; its schema has yet to read it."""
    told = answer.logprobs
    return Reply(
        text=answer.text,
        finish=answer.finish,
        logprobs=None if told is None else tuple((t, p, dict(tops)) for t, p, tops in told),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cached=True,
    )


class Together(ABC):
    """A teacher on this machine, which answers many requests at once: the rest of `ChatTeacher`."""

    name: str
    batch_size: int

    @abstractmethod
    def answers(
        self,
        requests: Sequence[Request],
        heard: Callable[[int, int, int], None] | None = None,
    ) -> list[list[Reply] | ChatError]:
        """Answers to requests of different settings, in their order.

        heard: where it can be done, is given (request, sample index, token id) as it is drawn
        """

    def at_a_time(self, n: int) -> int:
        """Conversations that `replies` answers together, `n` times each."""
        return max(1, self.batch_size // max(n, 1))

    def reply(
        self,
        messages: Conversation,
        n: int = 1,
        sampling: ChatSampling = DEFAULT,
        schema: Schema = None,
    ) -> list[Reply]:
        """`n` answers, sample index 0 to n - 1."""
        said = self.answers([Request(messages=messages, n=n, sampling=sampling, schema=schema)])[0]
        if isinstance(said, ChatError):
            raise said
        return said

    def replies(
        self,
        conversations: Sequence[Conversation],
        n: int = 1,
        sampling: ChatSampling = DEFAULT,
        schema: Schema = None,
    ) -> Iterator[tuple[int, list[Reply] | ChatError]]:
        """Answers as batches of them are done, in the order asked."""
        step = self.at_a_time(n)
        for start in range(0, len(conversations), step):
            part = [
                Request(messages=m, n=n, sampling=sampling, schema=schema)
                for m in conversations[start : start + step]
            ]
            yield from enumerate(self.answers(part), start)
