"""A causal language model in this process, spoken to as one behind an endpoint."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import UserError
from understudy.signals.language import context_of
from understudy.store.fingerprints import teacher_fingerprint
from understudy.store.ledger import Failure, Ledger
from understudy.teachers.chat.constrained import Guide, Guides
from understudy.teachers.chat.drawing import Ask, Names, Written, key_of, write
from understudy.teachers.chat.requests import (
    REPAIR,
    Job,
    Request,
    Together,
    answer_of,
    asked_of,
    cut,
    recalled,
    unread,
)
from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.talk import (
    ChatError,
    ChatSampling,
    Conversation,
    Message,
    Reply,
)

_TURN = {"system": "System", "user": "User", "assistant": "Assistant"}
_MARK = "\ue000"


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


class LocalChat(Together):
    """Any causal language model of `transformers`, with its tokenizer, as a `ChatTeacher`.

    The prompt is the tokenizer's chat template with the mark to answer; a tokenizer without one
    gets `plain_prompt`, and an answer then ends before the next turn too. An answer is a function
    of the conversation, the sampling (seed included) and the sample index: what else is asked at
    the same time changes nothing (see `drawing.write`). Log-probabilities are the model's own,
    before schema, temperature and top-p; prompt and completion tokens are counted exactly, the one
    that ends an answer included.

    An answer of a schema is written by it: tokens that it forbids are never drawn (`constrained`).
    What a grammar cannot say (`uniqueItems`, a pydantic model's own checks) is read afterwards, and
    asked for once more with the error where it does not fit; so is everything where `llguidance` is
    not installed or does not know the tokenizer. An answer that ends before its schema is complete
    is a `ChatError` of kind `cut`, however much of it could be read.

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
        ledger: Ledger | str | Path | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is at least 1, not {batch_size}")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.batch_size = batch_size
        self.ledger = Ledger(ledger) if isinstance(ledger, str | Path) else ledger
        self.names = Names(tokenizer)
        self.templated = bool(getattr(tokenizer, "chat_template", None))
        self.stops = end_tokens(model, tokenizer)
        pad = getattr(tokenizer, "pad_token_id", None)
        self.padding = 0 if pad is None else int(pad)
        self.guides = Guides(tokenizer, self.stops)
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

    def answers(
        self,
        requests: Sequence[Request],
        heard: Callable[[int, int, int], None] | None = None,
    ) -> list[list[Reply] | ChatError]:
        """Answers to requests of different settings, written together.

        heard: is given (request, sample index, token id) of each token as it is drawn.
        """
        jobs = [self._job(r) for r in requests]
        self._recall(jobs)
        open_ = [(p, i) for p, j in enumerate(jobs) if j.error is None for i in j.missing]
        asks = [self._ask(jobs[p].request, jobs[p].ids, i, jobs[p].guide) for p, i in open_]
        hear = (
            None if heard is None else lambda row, token: heard(open_[row][0], open_[row][1], token)
        )
        for (place, index), ask, said in zip(open_, asks, self.written(asks, hear), strict=True):
            job, reply = jobs[place], self.as_reply(said, len(ask.prompt))
            job.replies[index] = reply
            if said.complete is False and job.error is None:
                job.error = cut(self.name, reply, job.request.sampling)
        self._read_by_schema(jobs)
        self._record(jobs)
        return [j.answer() for j in jobs]

    def _job(self, request: Request) -> Job:
        job = Job(request)
        try:
            if request.n < 1:
                raise ChatError(f"n is at least 1, not {request.n}", "request")
            job.form = None if request.schema is None else Form(request.schema)
            job.guide = None if job.form is None else self.guides.of(job.form.schema)
            job.ids = self.prompt(request.messages)
        except ChatError as error:
            job.error = error
        except UserError as error:  # a schema that cannot be checked, or that nothing fits
            job.error = ChatError(str(error), "request")
        # an answer written by its schema is another than one that is only read by it
        model = self.fingerprint() + ("" if job.guide is None else " by schema")
        job.asked = asked_of(model, self.name, request, job.form)
        job.missing = list(range(request.n))
        return job

    def _ask(self, request: Request, ids: list[int], index: int, guide: Guide | None) -> Ask:
        key = key_of(request.messages, request.sampling, index)
        return Ask(prompt=ids, sampling=self._sampling(request.sampling), key=key, guide=guide)

    def _recall(self, jobs: Sequence[Job]) -> None:
        """What the ledger has."""
        if self.ledger is None:
            return
        open_: dict[str, list[tuple[Job, int]]] = {}
        for job in jobs:
            for index in job.missing if job.error is None else ():
                open_.setdefault(job.key(index), []).append((job, index))
        for key, answer in self.ledger.get_many(open_).items():
            for job, index in open_[key]:  # one conversation may be asked twice in a batch
                job.replies[index] = recalled(answer)
                job.missing.remove(index)

    def _read_by_schema(self, jobs: Sequence[Job]) -> None:
        """Answers as their schema reads them; those that do not fit are asked for once more."""
        again: list[tuple[Job, int, Request, list[int]]] = []
        for job in jobs:
            if job.form is None or job.error is not None:
                continue
            for index, reply in sorted(job.replies.items()):
                try:
                    job.replies[index] = replace(reply, parsed=job.form.read(reply.text))
                except ValueError as error:
                    said = (
                        *job.request.messages,
                        Message(role="assistant", content=reply.text),
                        Message(role="user", content=REPAIR.format(wrong=error)),
                    )
                    try:
                        ids = self.prompt(said)
                    except ChatError:
                        job.error = unread(self.name, error)
                        break
                    again.append((job, index, replace(job.request, messages=said), ids))
        asks = [self._ask(request, ids, index, job.guide) for job, index, request, ids in again]
        for (job, index, _, ids), said in zip(again, self.written(asks), strict=True):
            first, second = job.replies[index], self.as_reply(said, len(ids))
            try:
                assert job.form is not None
                if said.complete is False:
                    job.error = job.error or cut(self.name, second, job.request.sampling)
                    continue
                value = job.form.read(second.text)
            except ValueError as error:
                job.error = job.error or unread(self.name, error)
                continue
            job.replies[index] = replace(
                second,
                parsed=value,
                prompt_tokens=first.prompt_tokens + second.prompt_tokens,
                completion_tokens=first.completion_tokens + second.completion_tokens,
            )

    def _record(self, jobs: Sequence[Job]) -> None:
        """Answers and failures into the ledger, before anyone has them."""
        if self.ledger is None:
            return
        rows, failures = [], []
        for job in jobs:
            assert job.asked is not None
            if job.error is not None:
                failure = Failure(kind=job.error.kind, message=str(job.error))
                failures.append((job.asked, 0, failure))
            else:
                rows += [(job.asked, i, answer_of(job.replies[i])) for i in job.missing]
        if rows:
            self.ledger.put_many(rows)
        if failures:
            self.ledger.fail_many(failures)

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
