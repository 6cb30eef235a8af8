"""What may be spent on answers: reserved before a request is sent, settled when it has come back."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from understudy.errors import UserError
from understudy.teachers.chat.talk import BudgetSpent

Prices = tuple[float, float]
"""Of a million tokens, in and out."""


def price(prices: Prices | None, prompt: int, completion: int) -> float | None:
    """What tokens cost; None where no prices are known."""
    return None if prices is None else (prompt * prices[0] + completion * prices[1]) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Reserved:
    """What one request may take at most."""

    tokens: int
    money: float


class Spending:
    """A budget, which several endpoints may share; None means no bound.

    money:    in the currency of the prices, which the endpoint then has to know
    tokens:   of prompts and answers together
    requests: that are sent, each attempt counted
    seconds:  from the first request on; what is under way by then still comes

    A request is sent when the most it can take (an upper bound of the tokens of its prompt, and
    `max_tokens` for each answer) fits beside what is spent and what others under way may take; so
    the budget is never exceeded by an endpoint that keeps to `max_tokens`. A request whose fate is
    not known (timeout, broken connection) counts as if it had taken all of that. Answers of the
    ledger cost nothing. It counts this process alone: a job that is run again has its budget anew.

    Raises:
        UserError: a bound that is zero, negative or not a number.
    """

    def __init__(
        self,
        money: float | None = None,
        tokens: int | None = None,
        requests: int | None = None,
        seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits: dict[str, float] = {}
        for name, bound in (
            ("money", money), ("tokens", tokens), ("requests", requests), ("seconds", seconds),
        ):  # fmt: skip
            if bound is None:
                continue
            if not isinstance(bound, int | float) or not math.isfinite(bound) or bound < 0:
                raise UserError(f"a budget of {name} is a positive number, not {bound!r}")
            if bound == 0:
                raise UserError(
                    f"a budget of 0 {name} buys no answer; give more, or none for no bound"
                )
            self.limits[name] = bound
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._money = self._tokens = self._open_money = self._open_tokens = 0.0
        self._requests = self._open = 0

    def __repr__(self) -> str:
        return f"Spending({', '.join(f'{k}={v}' for k, v in self.limits.items())})"

    @property
    def spent(self) -> dict[str, float]:
        """What is gone so far, of each kind."""
        with self._lock:
            seconds = 0.0 if self._began is None else self._clock() - self._began
            return {
                "money": self._money, "tokens": self._tokens, "requests": self._requests,
                "seconds": seconds,
            }  # fmt: skip

    def reserve(self, tokens: int, money: float | None = None) -> Reserved | None:
        """Sets aside what one request may take; None where it has to wait for those under way.

        Raises:
            BudgetSpent: it does not fit, and nothing under way could give some back.
        """
        with self._lock:
            now = self._clock()
            began = now if self._began is None else self._began
            short = {
                "seconds": now - began if "seconds" in self.limits else None,
                "requests": self._requests + 1,
                "tokens": self._tokens + self._open_tokens + tokens,
                "money": self._money + self._open_money + (money or 0.0),
            }
            for name, bound in self.limits.items():
                taken = short[name]
                # sums of prices carry rounding: a budget of ten equal requests buys ten
                if taken is None or taken <= bound * (1 + 1e-9):
                    continue
                if self._open and name in ("tokens", "money"):
                    return None
                raise BudgetSpent(self._spent_line(name, bound, tokens, money))
            self._began = began
            self._requests += 1
            self._open += 1
            self._open_tokens += tokens
            self._open_money += money or 0.0
            return Reserved(tokens=tokens, money=money or 0.0)

    def settle(self, reserved: Reserved, tokens: int | None, money: float | None = None) -> None:
        """Gives back what a request did not take; `tokens` None: nobody knows, so it took all."""
        with self._lock:
            self._open -= 1
            self._open_tokens -= reserved.tokens
            self._open_money -= reserved.money
            if not self._open:
                self._open_tokens = self._open_money = 0.0  # no rounding is carried on
            self._tokens += reserved.tokens if tokens is None else tokens
            self._money += reserved.money if tokens is None else (money or 0.0)

    def _spent_line(self, name: str, bound: float, tokens: int, money: float | None) -> str:
        gone = {"money": self._money, "tokens": self._tokens, "requests": self._requests}.get(name)
        if name == "seconds":
            return f"the budget of {bound:g} seconds is over; what was answered is kept"
        need = {"money": f"{money or 0.0:.4g}", "tokens": str(tokens)}.get(name, "1")
        if not gone:
            return (
                f"the budget of {bound:g} {name} does not cover one request, which may take "
                f"{need}; raise it, or lower max_tokens"
            )
        return (
            f"the budget of {bound:g} {name} is spent ({gone:.4g} gone, the next request may take "
            f"{need}); what was answered is kept, and a run with the same ledger goes on from there"
        )
