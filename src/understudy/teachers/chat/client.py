"""Any OpenAI-compatible endpoint as a teacher: nothing is asked twice, lost, or over the budget."""

import asyncio
import hashlib
import json
import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import LedgerError, UserError
from understudy.store.ledger import Answer, Frame, Ledger
from understudy.teachers.chat import loop
from understudy.teachers.chat.address import address, key, key_name
from understudy.teachers.chat.exchange import Asking, Item, Job, Stopped
from understudy.teachers.chat.limiter import Limiter, Unavailable
from understudy.teachers.chat.refusals import EndpointError
from understudy.teachers.chat.schema import Form
from understudy.teachers.chat.spending import Prices, Spending
from understudy.teachers.chat.talk import (
    BudgetSpent,
    ChatError,
    ChatSampling,
    Conversation,
    Reply,
    Schema,
)
from understudy.teachers.chat.wire import Wire

log = logging.getLogger("understudy.chat")
DEFAULT = ChatSampling()
CHUNK = 50
CLAIM_S = 600.0
_ELSEWHERE_S = 0.1

Outcome = tuple[int, "list[Reply] | ChatError"]


class ChatEndpoint:
    """A model behind `base_url`/chat/completions.

    base_url:    such as http://localhost:8000/v1
    model:       its name there
    key_env:     NAME of the environment variable that holds the key; None where none is asked for.
                 The key is read when the first request is sent, and goes to `base_url` alone
    ledger:      where answers are kept and looked up first; None keeps none
    spending:    the budget; None for no bound
    concurrency: requests under way at once, at best; overload takes it down (see `Limiter`)
    attempts:    times a request is sent over broken connections, timeouts and server errors
    timeout:     seconds for one whole answer
    prices:      of a million tokens, (in, out); a budget of money needs them
    patience:    seconds without any answer after which an endpoint that fails is given up
    backoff:     seconds before a second attempt; doubles, with jitter drawn from `seed`

    An answer is recorded before it is given out. Stopped, interrupted or killed at any point, the
    same call on the same ledger asks for nothing that was recorded. Several processes may share
    one ledger: what one of them is asking for, the others wait for.

    Raises:
        UserError: an address, name, price or number that cannot be; a ledger that cannot be opened.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_env: str | None = None,
        ledger: Ledger | str | Path | None = None,
        spending: Spending | None = None,
        concurrency: int = 16,
        attempts: int = 4,
        timeout: float = 60.0,
        prices: Prices | None = None,
        patience: float = 300.0,
        backoff: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.base_url, self.key_env = address(base_url), key_name(key_env)
        if not isinstance(model, str) or not model.strip():
            raise UserError("the model is the name that the endpoint knows it by")
        self.model = model
        for name, value, least in (("concurrency", concurrency, 1), ("attempts", attempts, 1)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name} is a whole number of at least {least}, not {value!r}")
        for name, value in (("timeout", timeout), ("patience", patience)):
            if not 0 < value < float("inf"):
                raise UserError(f"{name} is a number of seconds above 0, not {value!r}")
        if not 0 <= backoff < float("inf"):
            raise UserError(f"backoff is a number of seconds, not {backoff!r}")
        self.prices = _prices(prices)
        self.spending = spending or Spending()
        if "money" in self.spending.limits and self.prices is None:
            raise UserError(
                "a budget of money needs prices: give those of a million tokens, in and out "
                "(prices=(0.15, 0.60), --prices 0.15,0.60)"
            )
        self.concurrency, self.attempts, self.timeout = concurrency, attempts, timeout
        self.patience, self.backoff, self.seed = patience, backoff, seed
        owned = isinstance(ledger, str | Path)
        self.ledger: Ledger | None = Ledger(ledger) if isinstance(ledger, str | Path) else ledger
        self._owned = owned
        self._lock = threading.Lock()
        self._asking: tuple[int, Asking] | None = None

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.base_url!r}, {self.model!r}, ledger={self.ledger!r})"

    def __enter__(self) -> "ChatEndpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sent(self) -> int:
        """Requests sent by this endpoint so far, every attempt counted."""
        return 0 if self._asking is None else self._asking[1].sent

    @property
    def limit(self) -> float:
        """How many requests the endpoint is given at once just now."""
        return float(self.concurrency) if self._asking is None else self._asking[1].limiter.limit

    def fingerprint(self) -> str:
        """Of address and model."""
        text = json.dumps([self.base_url, self.model])
        return f"endpoint:{hashlib.sha256(text.encode()).hexdigest()}"

    def close(self) -> None:
        """Closes connections, and the ledger where it was given as a path."""
        with self._lock:
            if self._asking is not None and self._asking[0] == os.getpid():
                loop.run(self._asking[1].close()).result()
            self._asking = None
            if self._owned and self.ledger is not None:
                self.ledger.close()

    def reply(
        self,
        messages: Conversation,
        n: int = 1,
        sampling: ChatSampling = DEFAULT,
        schema: Schema = None,
    ) -> list[Reply]:
        """`n` answers to one conversation.

        Raises:
            ChatError: no usable answer; `kind` says why. BudgetSpent: it was not asked.
        """
        (found,) = [said for _, said in self.replies([messages], n, sampling, schema)]
        if isinstance(found, ChatError):
            raise found
        return found

    def replies(
        self,
        conversations: Sequence[Conversation],
        n: int = 1,
        sampling: ChatSampling = DEFAULT,
        schema: Schema = None,
    ) -> Iterator[Outcome]:
        """Answers as they come, each with its place; those that the ledger has come without delay.

        A conversation that gets no usable answer comes as its `ChatError`, and the others go on.
        With a seed, sample i is drawn with seed + i where samples are asked for one by one.

        Raises:
            BudgetSpent: once all that was under way, and all that the ledger has, has come.
            ChatError: likewise, where no conversation can be answered (`kind`: key, quota, model,
                address, unreachable, malformed, unavailable).
            LedgerError: an answer could not be recorded; it is kept and written first next time.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"n is a whole number of at least 1, not {n!r}")
        form = None if schema is None else Form(schema)
        job = Job(n=n, sampling=sampling, form=form)
        frame = Frame(
            self.base_url, self.model, _drawn(sampling), None if form is None else form.schema
        )
        return self._run(job, self._looked_up(conversations, frame, job))

    def _looked_up(
        self, conversations: Sequence[Conversation], frame: Frame, job: Job
    ) -> Iterator[Outcome | Item]:
        """Each conversation as its answers, where the ledger has all of them, or as work."""
        for start in range(0, len(conversations), CHUNK):
            items = []
            for place in range(start, min(start + CHUNK, len(conversations))):
                turns = [m.dump() for m in conversations[place]]
                if not turns:
                    raise UserError(f"conversation {place} has no message")
                asked = frame(turns)
                keys = [asked.key(i) for i in range(job.n)]
                items.append(Item(place, asked, turns, keys, {}))
            self._look(items)
            for item in items:
                yield item if item.missing else self._outcome(item, job)

    def _look(self, items: Sequence[Item]) -> None:
        if self.ledger is None:
            return
        known = self.ledger.get_many([item.keys[i] for item in items for i in item.missing])
        for item in items:
            item.had |= {i: known[item.keys[i]] for i in item.missing if item.keys[i] in known}

    def _outcome(self, item: Item, job: Job) -> Outcome:
        replies = []
        for index, name in enumerate(item.keys):
            answer = item.had[index]
            try:
                parsed = None if job.form is None else job.form.read(answer.text)
            except ValueError as error:
                return item.place, ChatError(
                    f"the answer {name[:12]} of the ledger does not fit the schema: {error}",
                    "schema",
                )
            replies.append(_reply(answer, name, parsed, index not in item.fresh))
        return item.place, replies

    def _run(self, job: Job, todo: Iterator[Outcome | Item]) -> Iterator[Outcome]:
        """Keeps enough on the event loop, and gives out what comes back."""
        window = 4 * self.concurrency + 32
        low = 3 * self.concurrency  # of which some are being recorded, and hold no place
        inbox: queue.SimpleQueue[tuple[Item, Any]] = queue.SimpleQueue()
        elsewhere: deque[Item] = deque()
        under_way, wrong, done = 0, None, False
        asking: Asking | None = None
        try:
            while True:
                if not done and (wrong is not None or under_way <= low):
                    ready: list[Outcome] = []
                    work: list[Item] = []
                    while under_way + len(work) < window or wrong is not None:
                        entry = next(todo, None)
                        if entry is None:
                            done = True
                            break
                        if not isinstance(entry, Item):
                            ready.append(entry)
                            if len(ready) >= CHUNK:
                                break
                        elif wrong is None:
                            work.append(entry)
                            if len(work) >= self.concurrency:
                                break
                    if work:
                        asking = asking or self._begin()
                        work, others = self._claimed(work)
                        elsewhere += others
                        under_way += len(work)
                        self._start(asking, work, job, inbox)
                    yield from ready
                    if not done and under_way <= low:
                        continue
                if not under_way:
                    if not done:
                        continue
                    if wrong is not None or not elsewhere:
                        break
                    time.sleep(_ELSEWHERE_S)
                    items = [elsewhere.popleft() for _ in range(min(window, len(elsewhere)))]
                    work, others = self._claimed(items)
                    elsewhere += others
                    under_way += len(work)
                    if work:
                        asking = asking or self._begin()
                        self._start(asking, work, job, inbox)
                    continue
                came = [inbox.get()]
                while not inbox.empty():
                    came.append(inbox.get())
                under_way -= len(came)
                for item, error in came:
                    if error is None:
                        yield self._outcome(item, job)
                    elif isinstance(error, ChatError) and not _of_all(error):
                        yield item.place, error
                    elif not isinstance(error, Stopped) and (
                        wrong is None or isinstance(wrong, BudgetSpent)
                    ):
                        wrong = error
        finally:
            if asking is not None:
                self._end(asking, job, inbox, under_way)
        if wrong is not None:
            raise wrong

    def _start(
        self, asking: Asking, work: list[Item], job: Job, inbox: "queue.SimpleQueue[Any]"
    ) -> None:
        async def one(item: Item) -> None:
            error: BaseException | None = None
            try:
                if job.stopped:
                    raise Stopped
                await asking.serve(item, job)
            except asyncio.CancelledError:
                error = Stopped()
            except BaseException as caught:
                error = caught.with_traceback(None)
            if error is not None:
                if not isinstance(error, ChatError) or _of_all(error):
                    job.stop()
                await self._unclaimed(asking, item)
            inbox.put((item, error))

        def start() -> None:
            for item in work:
                task = asyncio.ensure_future(one(item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        tasks: set[asyncio.Task[None]] = set()
        loop.loop().call_soon_threadsafe(start)

    def _claimed(self, work: list[Item]) -> tuple[list[Item], list[Item]]:
        """(what this process asks for now, what another one is asking for)."""
        if self.ledger is None:
            return work, []
        wanted = [item.keys[i] for item in work for i in item.missing]
        mine = self.ledger.claim(wanted, CLAIM_S + self.attempts * self.timeout)
        mixed = [item for item in work if any(item.keys[i] not in mine for i in item.missing)]
        if not mixed:
            return work, []
        self._look(mixed)  # answered since, or under way elsewhere
        now, later, given_up = [], [], []
        for item in work:
            free = [item.keys[i] in mine for i in item.missing]
            if all(free):
                now.append(item)
            else:
                later.append(item)
                given_up += [item.keys[i] for i, f in zip(item.missing, free, strict=True) if f]
        if given_up:
            self.ledger.release(given_up)
        return now, later

    async def _unclaimed(self, asking: Asking, item: Item) -> None:
        if self.ledger is not None and item.missing:
            keys = [item.keys[i] for i in item.missing]
            try:
                await asyncio.get_running_loop().run_in_executor(None, self.ledger.release, keys)
            except LedgerError as error:
                log.warning("%s", error)

    def _begin(self) -> Asking:
        """The part on the event loop, made with the key when the first request is sent."""
        with self._lock:
            if self._asking is None or self._asking[0] != os.getpid():
                secret = key(self.key_env)
                limiter = Limiter(
                    self.concurrency, patience=self.patience, backoff=self.backoff, seed=self.seed
                )
                asking = Asking(
                    Wire(self.base_url, secret, self.timeout), self.model, key=secret,
                    key_env=self.key_env, ledger=self.ledger, spending=self.spending,
                    prices=self.prices, limiter=limiter, attempts=self.attempts,
                )  # fmt: skip
                self._asking = (os.getpid(), asking)
                weakref.finalize(self, loop.let_go, os.getpid(), asking).atexit = False
            asking = self._asking[1]
        if asking.recorder is not None:
            asking.recorder.retry()
        asking.limiter.renew()
        return asking

    def _end(
        self, asking: Asking, job: Job, inbox: "queue.SimpleQueue[Any]", under_way: int
    ) -> None:
        """Waits for what is under way, whose answers are recorded though nobody reads them here."""
        if under_way:
            loop.loop().call_soon_threadsafe(job.stop)
            for _ in range(under_way):
                inbox.get()
        if asking.recorder is not None:
            loop.run(asking.recorder.flush()).result()


def _of_all(error: ChatError) -> bool:
    """Whether an error is the endpoint's or the budget's, not one conversation's."""
    return isinstance(error, BudgetSpent | EndpointError | Unavailable)


def _drawn(sampling: ChatSampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature, "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens, "stop": sampling.stop, "seed": sampling.seed,
        "logprobs": sampling.logprobs,
    }  # fmt: skip


def _prices(prices: Any) -> Prices | None:
    if prices is None:
        return None
    try:
        found = tuple(float(p) for p in prices)
    except (TypeError, ValueError):
        found = ()
    if len(found) != 2 or not all(0 <= p < float("inf") for p in found):
        raise UserError(f"prices are two numbers, of a million tokens in and out, not {prices!r}")
    return found[0], found[1]


def _reply(answer: Answer, name: str, parsed: Any, cached: bool) -> Reply:
    told = answer.logprobs
    return Reply(
        text=answer.text,
        finish=answer.finish,
        parsed=parsed,
        logprobs=None if told is None else tuple((t, p, tops) for t, p, tops in told),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost=answer.cost,
        cached=cached,
        key=name,
    )
