"""What a labelling would cost, from a few answers that are asked for and kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.data.labelling.answers import Failure
from understudy.data.labelling.asking import Asking, Spent, ask
from understudy.errors import UserError
from understudy.evaluation import interval
from understudy.teachers.chat import ChatTeacher

TRIED = 20
"""Answers that an estimate is made from."""

Prices = tuple[float, float]
"""Of a million tokens: read, written."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A sum with its 95 % interval; None where it cannot be told."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be asked: rendered prompts, and tokens and money of all texts.

    shown: the first prompts word for word, as (role, content) pairs
    """

    texts: int
    answers: int
    tried: int
    shown: tuple[tuple[tuple[str, str], ...], ...]
    prompt_tokens: Estimate | None
    completion_tokens: Estimate | None
    money: Estimate | None
    spent: Spent
    failures: tuple[Failure, ...] = ()


def check_prices(budget: float | None, prices: Prices | None) -> None:
    """Refuse a limit in money that nothing could keep.

    Raises:
        UserError: a budget without prices, or numbers that are no amounts of money.
    """
    good = prices is None or (len(prices) == 2 and all(math.isfinite(p) and p >= 0 for p in prices))
    if not good:
        raise UserError("--prices takes what a million tokens cost, read and written: 0.15,0.60")
    if budget is None:
        return
    if not math.isfinite(budget) or budget <= 0:
        raise UserError(f"--budget is an amount of money above 0, not {budget:g}")
    if prices is None:
        raise UserError(
            "--budget is a limit in money, which needs prices to be kept: give --prices IN,OUT "
            "(of a million tokens read and written)"
        )


def plan(
    teacher: ChatTeacher,
    texts: Mapping[int, str],
    asking: Asking,
    prices: Prices | None = None,
    *,
    tried: int = TRIED,
    show: int = 3,
) -> Plan:
    """Ask for `tried` texts and estimate all of them.

    The texts tried lie evenly over those given, so that long ones have their share. The estimate of
    a sum over N texts is N times the mean of those tried, its interval N times the t interval of
    that mean, times sqrt(1 - n / N), which all texts leave nothing of. A ledger keeps the answers.
    """
    numbers = list(texts)
    few = min(tried, len(numbers))
    picked = [numbers[round(i * (len(numbers) - 1) / max(few - 1, 1))] for i in range(few)]
    read, written, money = [], [], []
    whole, failures = Spent(), []
    for number in picked:
        found = ask(teacher, {number: texts[number]}, asking)
        failures += found.failures.values()
        spent = found.spent
        if found.budget_spent:
            break
        if not spent.answers:
            continue
        read.append(float(spent.prompt_tokens))
        written.append(float(spent.completion_tokens))
        if prices is not None:
            money.append((prices[0] * read[-1] + prices[1] * written[-1]) / 1e6)
        elif spent.priced:
            money.append(spent.cost)
        for name in ("requests", "answers", "again", "prompt_tokens", "completion_tokens"):
            setattr(whole, name, getattr(whole, name) + getattr(spent, name))
        whole.cost, whole.paid = whole.cost + spent.cost, whole.paid + spent.paid
        whole.priced &= spent.priced
    shown = tuple(
        tuple((m.role, m.content) for m in asking.conversation(texts[n])) for n in picked[:show]
    )
    complete = len(money) == len(read) and bool(read)
    return Plan(
        texts=len(numbers),
        answers=asking.count * len(numbers),
        tried=len(read),
        shown=shown,
        prompt_tokens=_whole(read, len(numbers)),
        completion_tokens=_whole(written, len(numbers)),
        money=_whole(money, len(numbers)) if complete else None,
        spent=whole,
        failures=tuple(failures),
    )


def _whole(values: Sequence[float], count: int) -> Estimate | None:
    """The sum over `count` texts from a few of them."""
    if not values:
        return None
    found = interval(values)
    value = found.mean * count
    if found.half_width is None:
        return Estimate(value=value, low=None, high=None)
    half = found.half_width * count * math.sqrt(max(0.0, 1 - len(values) / count))
    return Estimate(value=value, low=max(0.0, value - half), high=value + half)
