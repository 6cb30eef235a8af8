"""Rows from a teacher's answers, each with the keys of the requests that made it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from understudy.data.synthesis.rows import Drop, Dropped, Kept, Row, Spent, identity, numbered
from understudy.errors import UserError
from understudy.teachers.chat import (
    BudgetSpent,
    ChatError,
    ChatSampling,
    ChatTeacher,
    Conversation,
    Reply,
)

Prompt = Callable[[Row], Conversation]
Read = Callable[[Row, str], Mapping[str, Any] | None]
"""What an answer to a row's question says: new fields, or None where it is of no use."""


def kept_as(field: str) -> Read:
    """The whole answer as one field; an empty one is of no use."""

    def read(row: Row, text: str) -> Mapping[str, Any] | None:
        return {field: text.strip()} if text.strip() else None

    return read


def generate(
    teacher: ChatTeacher,
    rows: Iterable[Mapping[str, Any]],
    prompt: Prompt,
    read: Read | None = None,
    *,
    n: int = 1,
    sampling: ChatSampling | None = None,
    stage: str = "generate",
) -> Kept:
    """Asks about every row and makes a row of each answer, in the order of the rows.

    A new row has the old one's fields, those of `read` (`reply` without one), a new `id`, and in
    `made_by` the old keys and the answer's. A question without a usable answer, an answer that was
    cut off and one that `read` makes nothing of are dropped under their own reasons. When the
    budget is spent, what was answered comes back, and `spent.complete` is False.

    n: answers a row, each drawn by itself
    """
    if n < 1:
        raise UserError(f"{stage}: n is at least 1, not {n}")
    read = read or kept_as("reply")
    asked = numbered(rows)
    heard: dict[int, list[Reply] | ChatError] = {}
    complete = True
    try:
        for index, said in teacher.replies(
            [prompt(r) for r in asked], n, sampling or ChatSampling()
        ):
            heard[index] = said
    except BudgetSpent:
        complete = False
    made: list[Row] = []
    drops: list[Drop] = []
    answers: list[Reply] = []
    failed = 0
    for index, row in enumerate(asked):
        said = heard.get(index)
        if said is None:
            drops.append(Drop(id=str(row["id"]), reason="not asked: the budget is spent"))
            continue
        if isinstance(said, ChatError):
            failed += 1
            drops.append(Drop(id=str(row["id"]), reason=f"no answer: {said.kind}", evidence=str(said)[:500]))  # fmt: skip
            continue
        answers += said
        for number, reply in enumerate(said):
            found = None if reply.finish == "length" else read(row, reply.text)
            if found is None:
                reason = "cut off" if reply.finish == "length" else "unreadable"
                drops.append(Drop(id=str(row["id"]), reason=reason, evidence=reply.text[:500]))
                continue
            made.append(child(row, found, [reply.key], number))
    spent = _spent(answers, failed, complete)
    return Kept(rows=made, dropped=Dropped(stage=stage, rows=tuple(drops)), spent=spent)


def child(row: Row, found: Mapping[str, Any], keys: Sequence[str], number: int = 0) -> Row:
    """A row made of another by answers: its `from` is the other's id."""
    own = {k: v for k, v in row.items() if k != "id"}
    keys = [*row.get("made_by", []), *(k for k in keys if k)]
    new: Row = {**own, **found, "made_by": keys, "from": row["id"], "draw": number}
    return {"id": identity(new), **new}


def _spent(answers: Sequence[Reply], failed: int, complete: bool) -> Spent:
    costs = [a.cost for a in answers if a.cost is not None]
    return Spent(
        requests=len(answers),
        cached=sum(a.cached for a in answers),
        failed=failed,
        prompt_tokens=sum(a.prompt_tokens for a in answers),
        completion_tokens=sum(a.completion_tokens for a in answers),
        cost=sum(costs) if costs else None,
        complete=complete,
    )
