"""How many requests are under way at once: fewer where the endpoint is overloaded, more where not."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from understudy.teachers.chat.talk import ChatError

DOWN, UP_AFTER = 0.75, 25
STRIKES = 10
COOL_S, COOLEST_S = 1.0, 30.0

Outcome = Literal["answered", "overloaded", "failed", "unsent"]


class Unavailable(ChatError):
    """An endpoint that does not answer at all, after a patience that has an end."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "unavailable")


class Limiter:
    """Additive increase, multiplicative decrease, and a breaker.

    most:     requests at once at best; also where it starts
    patience: seconds without one answer, while requests fail, after which `wait` gives up

    An overload (429 and its kin) takes the limit times 0.75, once for all requests that were sent
    before it came, and stops new ones for as long as the endpoint asks (`Retry-After`) or a time
    that doubles. 25 answers without one raise the limit by 1. After 10 failures of any kind in a row
    the breaker opens: nothing is sent for a second, then one request tries; it closes with an
    answer and else opens for twice as long. All times are `clock`'s, all jitter is the seed's.
    """

    def __init__(
        self,
        most: int,
        *,
        patience: float = 300.0,
        backoff: float = 0.5,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.patience, self.backoff, self.clock = most, patience, backoff, clock
        self.limit = float(most)
        self.active = 0
        self.strikes = 0
        self.open = False
        self.reason = ""
        self.told: Callable[[str], None] = lambda _: None
        self._random = random.Random(seed)
        self._answered = 0
        self._row = 0
        self._cool = COOL_S
        self._down_at = -float("inf")
        self._until = -float("inf")  # no request before, and of that what the endpoint asked for
        self._asked = -float("inf")
        self._since: float | None = None

    def wait(self) -> float:
        """Seconds until a request may be sent: 0 for now, infinity until another has come back.

        Raises:
            Unavailable: nothing has been answered for `patience` seconds.
        """
        now = self.clock()
        if self._since is not None and (
            now - self._since >= self.patience or self._asked - self._since > self.patience
        ):
            waits = f", and asks to wait {self._asked - now:.0f} s" if self._asked > now else ""
            raise Unavailable(
                f"no answer for {now - self._since:.0f} s in {self.strikes} requests "
                f"({self.reason}{waits}); stopped: what was answered is kept, run it again later"
            )
        if now < self._until:
            return self._until - now
        room = 1 if self.open else max(1, int(self.limit))
        return 0.0 if self.active < room else float("inf")

    def renew(self) -> None:
        """A new job: its patience begins anew, where nothing is under way."""
        if not self.active:
            self._since = None

    def sent(self) -> float:
        """A request goes out; gives the moment, which `done` wants back."""
        self.active += 1
        return self.clock()

    def done(
        self, at: float, outcome: Outcome, reason: str = "", retry_after: float | None = None
    ) -> None:
        """A request that was sent at `at` has come to its end."""
        self.active -= 1
        now = self.clock()
        if outcome == "unsent":
            return
        if outcome == "answered":
            if self.open:
                self.told("the endpoint answers again")
            self.strikes = self._row = 0
            self.open, self._since, self._cool = False, None, COOL_S
            self._answered += 1
            if self._answered >= UP_AFTER and self.limit < self.most:
                self.limit, self._answered = min(self.limit + 1, float(self.most)), 0
            return
        self.strikes += 1
        self.reason = reason
        if self._since is None:
            self._since = at
        if outcome == "overloaded":
            self._answered = 0
            if at >= self._down_at:  # those sent before the last cut say nothing new
                self.limit = max(1.0, self.limit * DOWN)
                self._down_at = now
                self._row += 1
            if retry_after is not None:
                self._asked = max(self._asked, now + retry_after)
                self._until = max(self._until, self._asked)
            else:
                self._rest(now, min(self.backoff * 2 ** (self._row - 1), COOLEST_S))
        if self.strikes >= STRIKES and (now >= self._until or not self.open):
            if not self.open:
                self.told(
                    f"{self.strikes} requests in a row failed ({reason}); waiting, then trying "
                    f"one at a time for up to {self.patience:.0f} s"
                )
            self.open = True
            self._rest(now, self._cool)
            self._cool = min(2 * self._cool, COOLEST_S)

    def _rest(self, now: float, seconds: float) -> None:
        """Sends nothing for a while, which ends with the patience."""
        assert self._since is not None
        until = min(now + seconds * self._jitter(), self._since + self.patience)
        self._until = max(self._until, until)

    def pause(self, attempt: int) -> float:
        """Seconds before a failed request is sent again, after its `attempt`-th try."""
        return min(self.backoff * 2 ** (attempt - 1), COOLEST_S) * self._jitter()

    def _jitter(self) -> float:
        return 0.5 + self._random.random() / 2


class Gate:
    """Where requests of one event loop wait for the limiter, first come, first served."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self._waiting: deque[asyncio.Future[float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, again: bool = False) -> float:
        """Waits for a place; `again`: before those who were not sent yet."""
        if not self._waiting and self.limiter.wait() == 0.0:
            return self.limiter.sent()
        place: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(place)
        self._wake()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(place.result(), "unsent")
            raise

    def leave(
        self, at: float, outcome: Outcome, reason: str = "", retry_after: float | None = None
    ) -> None:
        """Gives the place up."""
        self.limiter.done(at, outcome, reason, retry_after)
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            try:
                wait = self.limiter.wait()
            except ChatError as error:
                while self._waiting:
                    place = self._waiting.popleft()
                    if not place.done():
                        place.set_exception(Unavailable(str(error)))
                return
            if wait == 0.0:
                self._waiting.popleft().set_result(self.limiter.sent())
                continue
            if wait != float("inf"):
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(wait, self._wake)
            return
