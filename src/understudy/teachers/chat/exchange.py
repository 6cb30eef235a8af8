"""One conversation on its way: through the limiter and the budget, over the wire, into the ledger."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from understudy.errors import LedgerError
from understudy.store.ledger import Answer, Asked, Failure, Ledger
from understudy.teachers.chat import choices
from understudy.teachers.chat.choices import Choice, Malformed, Manner, Said, Turns
from understudy.teachers.chat.limiter import Gate, Limiter, Outcome
from understudy.teachers.chat.recording import Recorder
from understudy.teachers.chat.refusals import (
    AGAIN,
    BUSY,
    EndpointError,
    error_of,
    near_models,
    no_quota,
    refusal,
)
from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.spending import Prices, Reserved, Spending, price
from understudy.teachers.chat.talk import ChatError, ChatSampling
from understudy.teachers.chat.wire import Heard, Lost, Wire

log = logging.getLogger("understudy.chat")
MOST_OVERLOADS = 50
_BUDGET_POLL_S = 0.01


class Stopped(Exception):
    """A conversation that was not sent, as its job has ended."""


@dataclass(eq=False)
class Job:
    """One call of `replies`: what its conversations share, and who of them has nothing under way."""

    n: int
    sampling: ChatSampling
    form: Form | None
    stopped: bool = False
    idle: set[asyncio.Task[Any]] = field(default_factory=set)

    def stop(self) -> None:
        """Sends no more; what is under way still comes. On the event loop."""
        self.stopped = True
        for task in list(self.idle):
            task.cancel()


@dataclass(eq=False)
class Item:
    """One conversation, and which of its samples are had already."""

    place: int
    asked: Asked
    turns: Turns
    keys: list[str]
    had: dict[int, Answer]
    fresh: set[int] = field(default_factory=set)

    @property
    def missing(self) -> list[int]:
        """Sample indices without an answer."""
        return [i for i in range(len(self.keys)) if i not in self.had]


@dataclass(kw_only=True)
class Cost:
    """What all requests for an answer came to."""

    prompt: int = 0
    completion: int = 0
    money: float | None = None
    seconds: float = 0.0
    attempts: int = 0

    def add(self, prompt: int, completion: int, money: float | None) -> None:
        """One response more."""
        self.prompt += prompt
        self.completion += completion
        if money is not None:
            self.money = (self.money or 0.0) + money

    def part(self, at: int, parts: int, prices: Prices | None) -> "Cost":
        """The share of one of `parts` answers: the prompt, and what else was paid, are the first's."""
        if parts == 1:
            return replace(self)
        prompt, completion = self.prompt, choices.shares(self.completion, parts)[at]
        money = None
        if self.money is not None:
            whole = price(prices, self.prompt, self.completion) or 0.0
            rest = self.money - whole if at == 0 else 0.0
            money = rest + (price(prices, prompt if at == 0 else 0, completion) or 0.0)
        return Cost(
            prompt=prompt if at == 0 else 0, completion=completion, money=money,
            seconds=self.seconds, attempts=self.attempts if at == 0 else 0,
        )  # fmt: skip


class Asking:
    """The part of an endpoint that lives on the event loop."""

    def __init__(
        self,
        wire: Wire,
        model: str,
        *,
        key: str | None,
        key_env: str | None,
        ledger: Ledger | None,
        spending: Spending,
        prices: Prices | None,
        limiter: Limiter,
        attempts: int,
    ) -> None:
        self.wire, self.model, self.key_env = wire, model, key_env
        self._key = key
        self.recorder = None if ledger is None else Recorder(ledger)
        self.spending, self.prices, self.attempts = spending, prices, attempts
        self.limiter, self.gate = limiter, Gate(limiter)
        limiter.told = lambda line: log.warning("%s: %s", wire.base_url, line)
        self.manner = Manner()
        self.answered = False
        self.sent = 0
        self._under_way: dict[str, asyncio.Future[dict[int, Answer] | None]] = {}

    def __repr__(self) -> str:
        return f"Asking({self.wire.base_url!r}, {self.model!r})"

    async def serve(self, item: Item, job: Job) -> None:
        """Fills in what is missing of a conversation; the same one under way is waited for.

        Raises:
            ChatError: no usable answer. Stopped: it was not sent. LedgerError: it was not recorded.
        """
        body = item.asked.body
        while item.missing and (other := self._under_way.get(body)) is not None:
            found = await self._idle(job, asyncio.shield(other))
            for index in item.missing:
                if found and index in found:
                    item.had[index] = found[index]
        missing = item.missing
        if not missing:
            return
        mine = asyncio.get_running_loop().create_future()
        self._under_way[body] = mine
        try:
            item.fresh.update(missing)
            await self._fill(item, missing, job)
        finally:
            del self._under_way[body]
            mine.set_result(dict(item.had))

    async def _fill(self, item: Item, missing: list[int], job: Job) -> None:
        if len(missing) > 1 and not self.manner.single:
            await self._samples(item, missing, job)
            missing = item.missing
            if not missing:
                return
            self.manner = replace(self.manner, single=True)  # it gave fewer than it was asked for
        asked = [self._samples(item, [i], job) for i in missing]
        if len(asked) == 1:
            await asked[0]
            return
        # each is heard to its end: what one of them paid for is kept though another fails
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        wrong = [o for o in outcomes if isinstance(o, BaseException)]
        if wrong:
            raise min(wrong, key=_rank)

    async def _samples(self, item: Item, indices: list[int], job: Job) -> None:
        """One request for several samples; good ones are recorded though others are not."""
        cost = Cost()
        try:
            response = await self._exchange(item.turns, len(indices), indices[0], job, cost)
        except ChatError as error:
            self._failed(item, indices[0], error, cost)
            raise
        got = response.choices[: len(indices)]
        settled = [
            self._settled(item, index, choice, cost.part(at, len(got), self.prices), job)
            for at, (index, choice) in enumerate(zip(indices, got, strict=False))
        ]
        outcomes = (
            await asyncio.gather(*settled, return_exceptions=True)
            if len(settled) > 1
            else [await _caught(s) for s in settled]
        )
        good = [o for o in outcomes if isinstance(o, tuple)]
        for (_, index, _), answer in zip(good, await self._record(good), strict=True):
            item.had[index] = answer
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _settled(
        self, item: Item, index: int, choice: Choice, cost: Cost, job: Job
    ) -> tuple[Asked, int, Answer]:
        """One choice as it is recorded, repaired once where its form is wrong."""
        try:
            wrong = choices.usable(choice, job.form, job.sampling)
            if wrong and job.form is not None:
                turns = choices.repairing(item.turns, choice.text, wrong, job.form)
                again = await self._exchange(turns, 1, index, job, cost)
                choice = again.choices[0]
                wrong = choices.usable(choice, job.form, job.sampling)
                if wrong:
                    raise ChatError(f"no answer of the form asked for: {wrong}", "schema")
        except (ChatError, Stopped, asyncio.CancelledError) as error:
            known = error if isinstance(error, ChatError) else ChatError("stopped", "stopped")
            self._failed(item, index, known, cost, choice.text)
            raise
        answer = Answer(
            text=self.hidden(choice.text), finish=choice.finish, logprobs=choice.logprobs,
            prompt_tokens=cost.prompt, completion_tokens=cost.completion, cost=cost.money,
            seconds=round(cost.seconds, 4), attempts=cost.attempts, at=time.time(),
        )  # fmt: skip
        return item.asked, index, answer

    async def _record(self, rows: Sequence[tuple[Asked, int, Answer]]) -> list[Answer]:
        if not rows or self.recorder is None:
            return [answer for _, _, answer in rows]
        return await self.recorder.put(rows)

    def _failed(self, item: Item, index: int, error: ChatError, cost: Cost, text: str = "") -> None:
        if self.recorder is None or not cost.attempts:
            return
        failure = Failure(
            kind=error.kind, message=str(error)[:500], text=self.hidden(text)[:2000],
            prompt_tokens=cost.prompt, completion_tokens=cost.completion, cost=cost.money,
            seconds=round(cost.seconds, 4), attempts=cost.attempts, at=time.time(),
        )  # fmt: skip
        self.recorder.fail([(item.asked, index, failure)])

    async def _exchange(self, turns: Turns, n: int, first: int, job: Job, cost: Cost) -> Said:
        """A whole response, after as many attempts as are allowed; `cost` takes what it came to."""
        manner, tries, overloads = self.manner, 0, 0
        while True:
            body = choices.request(self.model, turns, n, job.sampling, job.form, manner, first)
            came = await self._sent(body, turns, n, job, cost, again=bool(tries or overloads))
            if isinstance(came, Said):
                self.answered, self.manner = True, self._learned(manner)
                return came
            if isinstance(came, Heard):
                if came.status in (400, 422):
                    message, code, parameter = error_of(came.body)
                    other = None
                    if code != "cut":  # it took the schema, and would take longer to fill it
                        other = manner.adapted(message, parameter, n=n, form=job.form)
                    if other is not None:
                        manner = other
                        continue
                if came.status in BUSY and came.status != 503 and not no_quota(came):
                    overloads += 1
                    if overloads < MOST_OVERLOADS:
                        continue
                    raise await self._refused(came)
                if came.status not in AGAIN:
                    raise await self._refused(came)
            tries += 1
            if tries >= self.attempts:
                raise await self._given_up(came, tries)
            await self._idle(job, asyncio.sleep(self.limiter.pause(tries)))

    async def _sent(
        self, body: bytes, turns: Turns, n: int, job: Job, cost: Cost, again: bool
    ) -> Said | Heard | Lost | Malformed:
        """One request, when limiter and budget let it: a response, a refusal, or how it was lost."""
        most = choices.most_tokens(turns, n, job.sampling, job.form)
        at = await self._idle(job, self.gate.enter(again))
        outcome: Outcome = "unsent"
        reason, pause = "", None
        try:
            if job.stopped:
                raise Stopped
            reserved = await self._reserve(most, n * job.sampling.max_tokens, job)
            outcome, came = "failed", Lost("ended", "broken", True)
            cost.attempts += 1
            self.sent += 1
            began = time.perf_counter()
            try:
                came = self._without_key(await self.wire.post(body))
                if came.status == 200:
                    came = choices.said(came.body)
            except (Lost, Malformed) as error:
                came = error
            finally:
                cost.seconds += time.perf_counter() - began
                self._settle(reserved, came, cost)
            if isinstance(came, Said):
                outcome = "answered"
            elif isinstance(came, Heard):
                reason = f"HTTP {came.status}"
                if came.status in BUSY and not no_quota(came):
                    outcome, pause = "overloaded", came.retry_after
                elif came.status < 500 and came.status not in AGAIN:
                    outcome = "unsent"  # refused, and heard: no sign of a load
            else:
                reason = str(came)
            return came
        finally:
            self.gate.leave(at, outcome, reason, pause)

    def _learned(self, manner: Manner) -> Manner:
        """A manner that worked, beside what others have found out meanwhile."""
        now = self.manner
        return Manner(
            single=manner.single or now.single,
            worded=manner.worded or now.worded,
            limit=manner.limit if manner.limit != "max_tokens" else now.limit,
            top_p=manner.top_p and now.top_p,
        )

    async def _reserve(self, most: int, completion: int, job: Job) -> Reserved:
        money = price(self.prices, most - completion, completion)
        while (reserved := self.spending.reserve(most, money)) is None:
            await self._idle(job, asyncio.sleep(_BUDGET_POLL_S))
        return reserved

    def _settle(
        self, reserved: Reserved, came: Said | Heard | Lost | Malformed, cost: Cost
    ) -> None:
        """Counts what a request took: nothing where it was refused, all it may where none knows."""
        if isinstance(came, Said) and came.prompt is not None:
            tokens = came.prompt, came.completion or 0
            money = price(self.prices, *tokens)
            cost.add(*tokens, money)
            self.spending.settle(reserved, sum(tokens), money)
        elif isinstance(came, Heard) or (isinstance(came, Lost) and not came.taken):
            self.spending.settle(reserved, 0)
        else:
            cost.add(0, 0, reserved.money if self.prices else None)
            self.spending.settle(reserved, None)

    async def _refused(self, heard: Heard) -> ChatError:
        error = refusal(heard, self.wire.base_url, self.model, self.key_env, self.answered)
        if error.kind == "model":
            try:
                listed = await self.wire.models()
            except Lost:
                listed = None
            near = "" if listed is None else near_models(listed, self.model)
            error = EndpointError(f"{error}{near}", "model")
        return type(error)(self.hidden(str(error)), error.kind)

    async def _given_up(self, came: Heard | Lost | Malformed, tries: int) -> ChatError:
        times = "" if tries == 1 else f" ({tries} attempts)"
        if isinstance(came, Heard):
            error = await self._refused(came)
            return type(error)(f"{error}{times}", error.kind)
        said = self.hidden(str(came))
        if isinstance(came, Malformed):
            line = f"{self.wire.base_url}: {said}{times}"
            if self.answered:
                return ChatError(line, "malformed")
            return EndpointError(f"{line}; is it an OpenAI-compatible address?", "malformed")
        if came.kind == "unreachable" and not self.answered:
            return EndpointError(
                f"cannot reach {self.wire.base_url}: {said}{times}; check the address, and that "
                "the server runs",
                "unreachable",
            )
        return ChatError(f"{self.wire.base_url}: {said}{times}", came.kind)

    async def _idle(self, job: Job, waiting: Any) -> Any:
        """Waits while nothing is under way: a job that stops ends it here."""
        task = asyncio.current_task()
        assert task is not None
        if job.stopped:
            if asyncio.iscoroutine(waiting):
                waiting.close()
            raise Stopped
        job.idle.add(task)
        try:
            return await waiting
        except asyncio.CancelledError:
            if job.stopped:
                raise Stopped from None
            raise
        finally:
            job.idle.discard(task)

    def hidden(self, text: str) -> str:
        """The text without the key, which some endpoints repeat."""
        return text.replace(self._key, "[key]") if self._key and self._key in text else text

    def _without_key(self, heard: Heard) -> Heard:
        """An answer before anything is made of it: errors and refusals repeat keys too."""
        key = (self._key or "").encode()
        if not key or key not in heard.body:
            return heard
        return replace(heard, body=heard.body.replace(key, b"[key]"))

    async def close(self) -> None:
        """Ends what is open; what the disk did not take before is offered once more."""
        if self.recorder is not None:
            await self.recorder.flush()
            with contextlib.suppress(LedgerError):
                self.recorder.retry()
            self.recorder.close()
        await self.wire.close()


async def _caught(work: Any) -> Any:
    try:
        return await work
    except Exception as error:
        return error


def _rank(error: BaseException) -> int:
    """Which of several errors says most."""
    if isinstance(error, EndpointError):
        return 0
    return 1 if isinstance(error, ChatError) else 2
