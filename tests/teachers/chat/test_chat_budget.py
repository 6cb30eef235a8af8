"""Budgets, the limit on what is under way, and the breaker: with a clock of the test's own."""

import asyncio
import random
import time

import pytest

from faults.server import Answer, Hang, Status, endpoint, toy
from understudy.errors import UserError
from understudy.store import Ledger
from understudy.teachers.chat import (
    BudgetSpent,
    ChatEndpoint,
    ChatSampling,
    Spending,
    in_order,
    user,
)
from understudy.teachers.chat.limiter import Gate, Limiter, Unavailable

SHORT = ChatSampling(max_tokens=20)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("name", ["money", "tokens", "requests", "seconds"])
def test_a_budget_of_nothing_is_said_at_once(name):
    with pytest.raises(UserError, match=f"a budget of 0 {name} buys no answer"):
        Spending(**{name: 0})
    for wrong in (-1, float("nan"), float("inf"), "5"):
        with pytest.raises(UserError, match=f"a budget of {name} is a positive number"):
            Spending(**{name: wrong})


def test_money_needs_prices():
    with pytest.raises(UserError, match="a budget of money needs prices"):
        ChatEndpoint("http://127.0.0.1:9/v1", "toy", spending=Spending(money=5.0))


def test_what_is_reserved_and_what_is_settled():
    spending = Spending(tokens=100, money=1.0)
    first = spending.reserve(60, 0.5)
    assert spending.reserve(60, 0.1) is None  # those under way may give some back
    assert spending.reserve(10, 0.6) is None
    spending.settle(first, 10, 0.25)
    second = spending.reserve(60, 0.5)
    spending.settle(second, None)  # its fate is not known: it counts in full
    assert spending.spent["tokens"] == 70
    assert spending.spent["money"] == 0.75
    with pytest.raises(BudgetSpent, match="the budget of 100 tokens is spent"):
        spending.reserve(31)
    assert spending.reserve(30, 0.25) is not None


def test_seconds_run_from_the_first_request():
    clock = Clock()
    spending = Spending(seconds=10, clock=clock)
    clock.now = 100.0
    spending.reserve(1)
    clock.now = 109.0
    spending.reserve(1)
    clock.now = 110.5
    with pytest.raises(BudgetSpent, match="the budget of 10 seconds is over"):
        spending.reserve(1)


def taken(server):
    """What the server itself counts."""
    return sum(
        sum(len(m["content"].split()) for m in r["messages"]) + len(toy(r, 0).split())
        for r in server.requests
    )


@pytest.mark.parametrize("kind", ["tokens", "money", "requests"])
def test_a_budget_is_never_exceeded_and_what_exists_is_whole(kind, tmp_path):
    """64 at once would overshoot by far if it were counted afterwards."""
    bound = {"tokens": 400, "money": 400 * 2e-6, "requests": 50}[kind]
    asked = [user(f"question {i}") for i in range(150)]
    with endpoint(delay=0.005) as server:
        spending = Spending(**{kind: bound})
        settings = {"ledger": tmp_path / "l", "concurrency": 64, "prices": (2.0, 2.0)}
        found = []
        with ChatEndpoint(server.url, "toy", spending=spending, **settings) as teacher:
            with pytest.raises(BudgetSpent, match=f"of {bound:g} {kind} is spent"):
                found.extend(teacher.replies(asked, 1, SHORT))
            used = {"tokens": taken(server), "money": taken(server) * 2e-6,
                    "requests": len(server.requests)}[kind]  # fmt: skip
            assert 0.7 * bound < used <= bound
            assert spending.spent[kind] == pytest.approx(used)
            assert len(found) == server.answered == len(server.requests)
        with Ledger(tmp_path / "l") as ledger:
            assert len(ledger) == len(found)
            assert ledger.failures() == []
        first = {r["messages"][0]["content"] for r in server.requests}
        with ChatEndpoint(server.url, "toy", **settings) as teacher:
            in_order(teacher, asked, sampling=SHORT)
        assert len(server.requests) == 150
        assert first.isdisjoint(r["messages"][0]["content"] for r in server.requests[len(first) :])


def test_a_budget_that_covers_no_request_sends_none():
    with (
        endpoint() as server,
        ChatEndpoint(server.url, "toy", spending=Spending(tokens=100)) as teacher,
    ):
        with pytest.raises(BudgetSpent, match="does not cover one request"):
            teacher.reply(user("hi"))
        assert server.requests == []


def test_what_the_ledger_has_comes_though_the_budget_is_spent(tmp_path):
    asked = [user(f"q {i}") for i in range(20)]
    with endpoint() as server:
        with ChatEndpoint(server.url, "toy", ledger=tmp_path / "l") as teacher:
            in_order(teacher, asked[10:], sampling=SHORT)
        found = []
        with (
            ChatEndpoint(
                server.url, "toy", ledger=tmp_path / "l", spending=Spending(requests=3)
            ) as teacher,
            pytest.raises(BudgetSpent),
        ):
            found.extend(teacher.replies(asked, 1, SHORT))
        assert {place for place, _ in found} >= set(range(10, 20))
        assert len(found) == 13


def test_requests_of_unknown_fate_count_in_full():
    spending = Spending(tokens=10_000)
    with (
        endpoint([Hang(), Status(500), Answer(usage=False), Answer()]) as server,
        ChatEndpoint(server.url, "toy", spending=spending, timeout=0.2, backoff=0.0) as teacher,
    ):
        teacher.reply(user("hi"), sampling=SHORT)
        unknown = spending.spent["tokens"]
        assert unknown > 2 * 20  # the one that hung, and the one without a count
        teacher.reply(user("ho"), sampling=SHORT)
        assert spending.spent["tokens"] == unknown + 1 + 2
        assert spending.spent["requests"] == 4


def test_endpoints_share_a_budget():
    spending = Spending(requests=4)
    with (
        endpoint() as server,
        ChatEndpoint(server.url, "a", spending=spending) as one,
        ChatEndpoint(server.url, "b", spending=spending) as two,
    ):
        for i in range(2):
            one.reply(user(str(i)))
            two.reply(user(str(i)))
        with pytest.raises(BudgetSpent):
            two.reply(user("more"))


def limiter(most=16, **settings):
    clock = Clock()
    return Limiter(most, clock=clock, **settings), clock


def test_down_by_a_quarter_and_up_by_one():
    it, clock = limiter(16)
    sent = [it.sent() for _ in range(16)]
    assert it.wait() == float("inf")
    clock.now = 1.0
    for at in sent[:5]:
        it.done(at, "overloaded", "HTTP 429", 0.0)
    assert it.limit == 12.0  # once for all that were sent before
    at = it.sent()
    clock.now = 2.0
    it.done(at, "overloaded", "HTTP 429", 0.0)
    assert it.limit == 9.0
    for at in sent[5:]:
        it.done(at, "answered")
    for k in range(2, 6):
        for _ in range(25 if k > 2 else 14):
            it.done(it.sent(), "answered")
        assert it.limit == 9.0 + k - 1
    for _ in range(400):
        it.done(it.sent(), "answered")
    assert it.limit == 16.0
    assert it.active == 0


def test_the_limit_never_falls_below_one():
    it, clock = limiter(3)
    for _ in range(9):
        clock.now += 1
        it.done(it.sent(), "overloaded", "", 0.0)
    assert it.limit == 1.0
    assert it.wait() == 0.0


def test_the_time_that_is_asked_for_is_kept():
    it, clock = limiter(patience=100)
    it.done(it.sent(), "overloaded", "HTTP 429", 30.0)
    assert it.wait() == 30.0
    clock.now = 29.5
    assert it.wait() == 0.5
    clock.now = 30.0
    assert it.wait() == 0.0


def test_the_breaker_opens_tries_and_closes():
    it, clock = limiter(8, patience=1000)
    told = []
    it.told = told.append
    for _ in range(10):
        assert it.wait() == 0.0
        it.done(it.sent(), "failed", "HTTP 500")
    waits = []
    for _ in range(7):
        waits.append(it.wait())
        clock.now += waits[-1] + 1e-9
        assert it.wait() == 0.0
        at = it.sent()
        assert it.wait() == float("inf")  # one tries, no more
        it.done(at, "failed", "HTTP 500")
    for wait, cool in zip(waits, [1, 2, 4, 8, 16, 30, 30], strict=True):
        assert cool / 2 <= wait <= cool
    clock.now += 60
    it.done(it.sent(), "answered")
    assert len(told) == 2
    assert [it.wait() for _ in range(3)] == [0.0] * 3
    assert it.limit == 8.0


def test_patience_has_an_end_and_an_answer_renews_it():
    it, clock = limiter(4, patience=50)
    for _ in range(4):
        it.done(it.sent(), "failed", "reset")
        clock.now += 12.4
    it.done(it.sent(), "answered")
    clock.now += 1000
    it.done(it.sent(), "failed", "reset")
    clock.now += 49
    assert it.wait() == 0.0
    clock.now += 1.5
    with pytest.raises(Unavailable, match=r"no answer for 5\d s in 1 requests \(reset\)"):
        it.wait()
    it.renew()
    assert it.wait() == 0.0


def test_jitter_is_the_seeds():
    def pauses(seed):
        return [limiter(seed=seed)[0].pause(k) for k in (1, 2, 3)] + [
            Limiter(1, seed=seed).pause(20)
        ]

    assert pauses(1) == pauses(1) != pauses(2)
    drawn = random.Random(1).random()
    assert pauses(1)[0] == 0.5 * (0.5 + drawn / 2)
    assert all(p <= 30.0 for p in pauses(3))


def test_places_are_given_in_order_and_to_retries_first():
    async def scene():
        gate = Gate(Limiter(1))
        at = await gate.enter()
        came = []

        async def one(name, again):
            held = await gate.enter(again)
            came.append(name)
            gate.leave(held, "answered")

        tasks = [
            asyncio.create_task(one("first", False)),
            asyncio.create_task(one("second", False)),
        ]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(one("retry", True)))
        tasks.append(asyncio.create_task(one("cancelled", False)))
        await asyncio.sleep(0)
        tasks.pop().cancel()
        gate.leave(at, "answered")
        await asyncio.gather(*tasks)
        assert gate.limiter.active == 0
        return came

    assert asyncio.run(scene()) == ["retry", "first", "second"]


def test_those_who_wait_are_told_at_the_end_of_patience():
    async def scene():
        gate = Gate(Limiter(2, patience=0.1))
        gate.leave(await gate.enter(), "overloaded", "HTTP 429", 0.05)
        gate.leave(await gate.enter(), "overloaded", "HTTP 429", 0.08)
        waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    began = time.perf_counter()
    assert [type(e) for e in asyncio.run(scene())] == [Unavailable] * 3
    assert time.perf_counter() - began < 1
