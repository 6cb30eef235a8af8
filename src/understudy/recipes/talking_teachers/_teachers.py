"""Who answers: a model behind an endpoint, or a built-in expert."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.data.labelling import Prices, check_prices
from understudy.errors import UserError, nearest
from understudy.teachers.chat import ChatTeacher


def teacher_of(
    teacher: ChatTeacher | None,
    endpoint: str | None,
    model: str | None,
    *,
    key_env: str | None = None,
    budget: float | None = None,
    prices: Prices | None = None,
    ledger: str | Path | None = None,
    concurrency: int = 16,
) -> ChatTeacher:
    """The one given, an endpoint's model, or a built-in expert by name.

    Raises:
        UserError: nobody is named, or a limit in money that nothing could keep.
    """
    check_prices(budget, prices)
    if teacher is not None:
        if endpoint is not None:
            raise UserError(f"a teacher is given, and an endpoint ({endpoint}); give one")
        if budget is not None:
            raise UserError("a budget is for an endpoint; give the teacher its own spending limit")
        return teacher
    if not endpoint:
        raise UserError(
            "who answers? Give --endpoint URL and --model NAME, or --endpoint zero-shot (a built-in "
            "sentence encoder that needs no server)"
        )
    from understudy.teachers.experts import EXPERTS, expert

    if endpoint in EXPERTS:
        if budget is not None:
            raise UserError(f"{endpoint} runs here and costs nothing; leave --budget out")
        return expert(endpoint)
    if "://" not in endpoint:
        raise UserError(
            f"no endpoint {endpoint!r}{nearest(endpoint, EXPERTS)} (a URL, or one of these)"
        )
    if not model:
        raise UserError(f"which model of {endpoint}? Give --model NAME")
    from understudy.teachers.chat import ChatEndpoint, Spending

    return ChatEndpoint(
        endpoint,
        model,
        key_env=key_env or None,
        ledger=ledger,
        spending=None if budget is None else Spending(money=budget),
        prices=prices,
        concurrency=concurrency,
    )


@contextmanager
def answering(
    teacher: ChatTeacher | None, endpoint: str | None, model: str | None, **options: Any
) -> Iterator[ChatTeacher]:
    """`teacher_of`, closed at the end where it was opened here."""
    found = teacher_of(teacher, endpoint, model, **options)
    try:
        yield found
    finally:
        close = getattr(found, "close", None)
        if teacher is None and close is not None:
            close()
