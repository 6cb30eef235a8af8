"""A causal language model in this process, spoken to as one behind an endpoint."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from understudy.errors import UserError
from understudy.signals.language import context_of
from understudy.store.fingerprints import teacher_fingerprint
from understudy.teachers.chat.drawing import Ask, Names, Written, key_of, write
from understudy.teachers.chat.talk import (
    ChatError,
    ChatSampling,
    Conversation,
    Message,
    Reply,
    Schema,
)

_TURN = {"system": "System", "user": "User", "assistant": "Assistant"}
_MARK = "\ue000"
DEFAULT = ChatSampling()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversation as it is asked, with settings of its own."""

    messages: Conversation
    n: int = 1
    sampling: ChatSampling = DEFAULT
    schema: Schema = None


def plain_prompt(messages: Conversation) -> str:
    """A conversation for a tokenizer without a chat template.

    One question of a user is the text itself, as rows of prompt and completion have it; anything
    longer is a line `User: ...` (`System: `, `Assistant: `) for each turn, with an empty line
    between them, and `Assistant:` at the end.
    """
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    turns = [f"{_TURN[m.role]}: {m.content}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"])


class LocalChat:
    """Any causal language model of `transformers`, with its tokenizer, as a `ChatTeacher`.

    The prompt is the tokenizer's chat template with the mark to answer; a tokenizer without one
    gets `plain_prompt`, and an answer then ends before the next turn too. An answer is a function
    of the conversation, the sampling (seed included) and the sample index: what else is asked at
    the same time changes nothing (see `drawing.write`). Log-probabilities are the model's own,
    before temperature and top-p; prompt and completion tokens are counted exactly, the one that
    ends an answer included. A schema is not enforced while writing: the answer is read by it, and
    asked for once more with the error where it does not fit.

    A conversation that leaves no room for an answer in the model's context is a `ChatError` of kind
    `context`, for that conversation alone.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str = "local",
        batch_size: int = 64,
        ledger: Any = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is at least 1, not {batch_size}")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.batch_size, self.ledger = batch_size, ledger
        self.names = Names(tokenizer)
        self.templated = bool(getattr(tokenizer, "chat_template", None))
        self.stops = end_tokens(model, tokenizer)
        pad = getattr(tokenizer, "pad_token_id", None)
        self.padding = 0 if pad is None else int(pad)
        self._print: str | None = None

    def fingerprint(self) -> str:
        """Of weights, tokenizer and chat template."""
        if self._print is None:
            self._print = _fingerprint(self.model, self.tokenizer)
        return self._print

    def prompt(self, messages: Conversation) -> list[int]:
        """The token ids that the model reads.

        Raises:
            ChatError: nothing was said, the template refuses the conversation, no room is left.
        """
        if not messages:
            raise ChatError("a conversation without a message", "request")
        if self.templated:
            try:
                text = self.tokenizer.apply_chat_template(
                    [m.dump() for m in messages], tokenize=False, add_generation_prompt=True
                )
            except Exception as error:
                line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                raise ChatError(
                    f"{self.name}: the chat template refuses this conversation: {line}", "request"
                ) from None
            ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            ids = self.read(plain_prompt(messages))
        return self.fits(ids)

    def read(self, text: str) -> list[int]:
        """A plain text as token ids to go on from: with what the tokenizer puts before it."""
        ids = list(self.tokenizer(text)["input_ids"])
        begin = getattr(self.tokenizer, "bos_token_id", None)
        if begin is not None and ids[:2] == [begin, begin]:
            ids = ids[1:]
        end = getattr(self.tokenizer, "eos_token_id", None)
        if len(ids) > 1 and ids[-1] == end:
            ids = ids[:-1]  # a tokenizer that ends every text by itself
        return ids

    def fits(self, ids: list[int]) -> list[int]:
        """The ids, where the model can read them and one more."""
        limit = context_of(self.model)
        if not ids:
            raise ChatError(f"{self.name}: an empty prompt; there is nothing to answer", "request")
        if limit is not None and len(ids) >= limit:
            raise ChatError(
                f"{self.name}: the conversation has {len(ids)} tokens and the model reads {limit}, "
                "answer included; shorten it",
                "context",
            )
        return ids

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
        step = max(1, self.batch_size // n)
        for start in range(0, len(conversations), step):
            part = [
                Request(messages=m, n=n, sampling=sampling, schema=schema)
                for m in conversations[start : start + step]
            ]
            yield from enumerate(self.answers(part), start)

    def answers(
        self,
        requests: Sequence[Request],
        heard: Callable[[int, int, int], None] | None = None,
    ) -> list[list[Reply] | ChatError]:
        """Answers to requests of different settings, written together.

        heard: is given (request, sample index, token id) of each token as it is drawn.
        """
        found: list[list[Reply] | ChatError] = []
        asks: list[Ask] = []
        owners: list[tuple[int, int]] = []
        for place, request in enumerate(requests):
            try:
                if request.n < 1:
                    raise ChatError(f"n is at least 1, not {request.n}", "request")
                ids = self.prompt(request.messages)
            except ChatError as error:
                found.append(error)
                continue
            found.append([])
            for index in range(request.n):
                key = key_of(request.messages, request.sampling, index)
                asks.append(Ask(prompt=ids, sampling=self._sampling(request.sampling), key=key))
                owners.append((place, index))
        hear = None if heard is None else lambda row, token: heard(*owners[row], token)
        for ask, (place, _), said in zip(asks, owners, self.written(asks, hear), strict=True):
            replies = found[place]
            assert isinstance(replies, list)
            replies.append(self.as_reply(said, len(ask.prompt)))
        for place, request in enumerate(requests):
            replies = found[place]
            if request.schema is not None and isinstance(replies, list):
                found[place] = self._parsed(request, replies)
        return found

    def written(
        self, asks: Sequence[Ask], heard: Callable[[int, int], None] | None = None
    ) -> list[Written]:
        """Continuations of prompts of token ids."""
        return write(
            self.model, asks, self.names, stops=self.stops, padding=self.padding,
            batch_size=self.batch_size, heard=heard,
        )  # fmt: skip

    def as_reply(self, said: Written, prompt_tokens: int) -> Reply:
        """What was written, with the text of its tokens."""
        one = self.names.one
        return Reply(
            text=said.text,
            finish=said.finish,
            logprobs=tuple((one(t), p, _named(one, tops)) for t, p, tops in said.told) or None,
            prompt_tokens=prompt_tokens,
            completion_tokens=said.count,
        )

    def _sampling(self, sampling: ChatSampling) -> ChatSampling:
        if self.templated or "\n\nUser:" in sampling.stop:
            return sampling
        return replace(sampling, stop=(*sampling.stop, "\n\nUser:"))

    def _parsed(self, request: Request, replies: list[Reply]) -> list[Reply] | ChatError:
        found = []
        for index, reply in enumerate(replies):
            value, wrong = parsed(reply.text, request.schema)
            if wrong:
                again = (
                    *request.messages,
                    Message(role="assistant", content=reply.text),
                    Message(role="user", content=_REPAIR.format(wrong=wrong)),
                )
                try:
                    ids = self.prompt(again)
                except ChatError as error:
                    return error
                key = key_of(again, request.sampling, index)
                ask = Ask(prompt=ids, sampling=self._sampling(request.sampling), key=key)
                second = self.as_reply(self.written([ask])[0], len(ids))
                value, wrong = parsed(second.text, request.schema)
                if wrong:
                    return ChatError(f"{self.name}: no answer of the schema: {wrong}", "schema")
                reply = replace(
                    second,
                    prompt_tokens=reply.prompt_tokens + second.prompt_tokens,
                    completion_tokens=reply.completion_tokens + second.completion_tokens,
                )
            found.append(replace(reply, parsed=value))
        return found


_REPAIR = "That is no answer of the form asked for: {wrong}\nAnswer again with the JSON alone."


def parsed(text: str, schema: Schema) -> tuple[Any, str]:
    """An answer as its schema reads it, and what is wrong with it ("" where nothing is)."""
    import json

    try:
        if isinstance(schema, type):
            return schema.model_validate_json(text), ""  # type: ignore[attr-defined]
        return json.loads(text), ""
    except ValueError as error:
        return None, " ".join(str(error).split())[:300]


def end_tokens(model: nn.Module, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer: of the tokenizer, the model's settings, and the chat template's turn."""
    found: set[int] = set()
    for holder in (
        tokenizer,
        getattr(model, "config", None),
        getattr(model, "generation_config", None),
    ):
        name = "eos_token_id"
        value = getattr(holder, name, None)
        found |= {
            int(v) for v in (value if isinstance(value, list | tuple) else [value]) if v is not None
        }
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        try:
            after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_MARK)[2]
        except Exception:  # a template with conditions of its own: its end is then in the settings
            after = ""
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1] if after else []
        found |= set(first) & set(tokenizer.all_special_ids)
    return tuple(sorted(found))


def _named(one: Callable[[int], str], tops: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The likeliest by their text; of several with one text the likeliest counts."""
    named: dict[str, float] = {}
    for token, value in tops:
        named.setdefault(one(token), value)
    return named


def _fingerprint(model: nn.Module, tokenizer: Any) -> str:
    digest = hashlib.sha256(teacher_fingerprint(model).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    digest.update(known.encode())
    digest.update(str(getattr(tokenizer, "chat_template", None)).encode())
    return f"local:{digest.hexdigest()}"
