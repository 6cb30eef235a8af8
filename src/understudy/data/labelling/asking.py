"""Asking for labels: as one answer, as votes, or with the log-probabilities of the answer."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from understudy.data.labelling.answers import Failure, Row, Unreadable, voted, weighed
from understudy.data.labelling.schema import answer_schema
from understudy.data.synthesis import prompts
from understudy.errors import UserError
from understudy.teachers.chat import (
    BudgetSpent,
    ChatError,
    ChatSampling,
    ChatTeacher,
    Conversation,
    Reply,
)

Way = Literal["one", "votes", "logprobs"]
FATAL = ("budget", "key", "quota", "address", "model")
"""Kinds of errors that asking in another way would not change."""
TOP = 20
"""How many of the likeliest tokens an answer lists: as many as endpoints give."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a label is asked for.

    way:   one: the likeliest answer; votes: `votes` answers drawn at temperature 1; logprobs: the
           likeliest answer with the log-probabilities of its tokens
    """

    labels: Mapping[str, str]
    way: Way = "one"
    votes: int = 5
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if self.way == "votes" and self.votes < 2:
            raise UserError(f"votes are at least 2 answers a text, not {self.votes}")

    @property
    def count(self) -> int:
        """Answers a text."""
        return self.votes if self.way == "votes" else 1

    @property
    def sampling(self) -> ChatSampling:
        """How an answer is drawn."""
        return ChatSampling(
            temperature=1.0 if self.way == "votes" else 0.0,
            max_tokens=self.max_tokens,
            logprobs=TOP if self.way == "logprobs" else None,
        )

    def conversation(self, text: str) -> Conversation:
        """What is sent."""
        return prompts.classify(text, self.labels)


@dataclass
class Spent:
    """What requests came to; `answers` from the ledger cost nothing now and count in `again`."""

    requests: int = 0
    answers: int = 0
    again: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    priced: bool = True
    paid: float = 0.0

    def add(self, replies: Sequence[Reply]) -> None:
        """The answers to one text."""
        self.requests += 1
        for reply in replies:
            self.answers += 1
            self.again += reply.cached
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens
            self.priced &= reply.cost is not None
            self.cost += reply.cost or 0.0
            self.paid += 0.0 if reply.cached else reply.cost or 0.0

    def json(self) -> dict[str, float | int | None]:
        """As it stands in a summary; money is None where no prices are known."""
        money = self.cost if self.priced and self.answers else None
        return {
            "texts": self.requests,
            "answers": self.answers,
            "from_ledger": self.again,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "money": money,
            "money_now": None if money is None else self.paid,
        }


@dataclass
class Labelled:
    """Rows in the order of their numbers, failures apart, and what they cost."""

    rows: dict[int, Row] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    budget_spent: bool = False

    def of(self, numbers: Sequence[int]) -> list[Row]:
        """The rows of these texts that have one."""
        return [self.rows[n] for n in numbers if n in self.rows]


def ask(
    teacher: ChatTeacher,
    texts: Mapping[int, str],
    asking: Asking,
    into: Labelled | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Labelled:
    """Labels for texts by number; what is in `into` already is not asked again.

    An answer that names no label, and a request that failed, are failures and never rows. Once the
    budget is spent, what was answered is returned and `budget_spent` says so. The result is the
    same whatever the order in which answers come.
    """
    found = Labelled() if into is None else into
    open_ = [n for n in texts if n not in found.rows and n not in found.failures]
    if not open_:
        return found
    conversations, numbers = [], []
    for n in open_:
        try:
            conversations.append(asking.conversation(texts[n]))
            numbers.append(n)
        except UserError as error:
            found.failures[n] = Failure(number=n, text=texts[n], kind="text", reason=str(error))
    schema = answer_schema(asking.labels)
    done = 0
    try:
        for index, said in teacher.replies(conversations, asking.count, asking.sampling, schema):
            n = numbers[index]
            _keep(found, n, texts[n], said, asking)
            done += 1
            if progress is not None:
                progress(done, len(numbers))
    except BudgetSpent:
        found.budget_spent = True
    found.rows = dict(sorted(found.rows.items()))
    found.failures = dict(sorted(found.failures.items()))
    return found


def _keep(
    found: Labelled, n: int, text: str, said: "list[Reply] | ChatError", asking: Asking
) -> None:
    if isinstance(said, ChatError):
        if isinstance(said, BudgetSpent):
            found.budget_spent = True
            return
        found.failures[n] = Failure(number=n, text=text, kind=said.kind, reason=str(said))
        return
    found.spent.add(said)
    try:
        soft = None
        if asking.way == "logprobs":
            soft = weighed(said[0], asking.labels)
        if soft is None:
            soft = voted(said, asking.labels)
    except Unreadable as error:
        found.failures[n] = Failure(number=n, text=text, kind="answer", reason=str(error))
        return
    names = list(asking.labels)
    # of labels with equally many votes one by the text's own hash: no label is favoured
    most = [i for i, p in enumerate(soft) if p == max(soft)]
    digest = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")
    label = names[most[digest % len(most)]]
    keys = tuple(reply.key for reply in said if reply.key)
    found.rows[n] = Row(number=n, text=text, label=label, soft=soft, keys=keys)


def soft_way(teacher: ChatTeacher, text: str, labels: Mapping[str, str]) -> Way:
    """How soft targets can be had: log-probabilities where the teacher gives them, else votes."""
    asking = Asking(labels=labels, way="logprobs")
    try:
        (said,) = teacher.reply(
            asking.conversation(text), 1, asking.sampling, answer_schema(labels)
        )
        return "logprobs" if weighed(said, labels) is not None else "votes"
    except Unreadable:
        return "votes"
    except ChatError as error:
        if error.kind in FATAL:
            raise
        return "votes"
