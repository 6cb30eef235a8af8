"""A teacher for tests of labelling: a TF-IDF classifier behind the words of a chat model.

It is a real model with real errors: it learned from a few texts, reads the prompt that any chat model
would get, and writes its answer token by token from its own probabilities.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from understudy.data.synthesis import prompts
from understudy.tasks.stdlib import PACKAGES, stdlib_text
from understudy.teachers.chat import BudgetSpent, ChatError, ChatSampling, Conversation, Reply

LABELS = {
    "asyncio": "Coroutines, event loops, tasks, transports",
    "email": "Mail messages, headers, MIME parts",
    "http": "Requests, responses, cookies, servers of the web",
    "importlib": "Finding and loading modules",
    "logging": "Loggers, handlers, formatters of log records",
    "multiprocessing": "Processes, pools, queues, shared memory",
    "unittest": "Test cases, assertions, mocks",
    "xml": "Elements, documents, parsers, trees",
}
assert tuple(LABELS) == PACKAGES
DEFAULT = ChatSampling()


def docstrings(count: int, part: str = "train") -> tuple[list[str], list[str]]:
    """Texts and their packages."""
    task = stdlib_text(labels="all")
    source: Any = {"train": task.train, "test": task.test}[part]
    texts = task.extras["texts"][part][:count]
    return texts, [PACKAGES[i] for i in source.labels[:count].tolist()]


class Tfidf:
    """Naive Bayes over TF-IDF of 40 texts a class, as a `ChatTeacher`.

    limit: answers before the budget is spent. refuse: a request whose text holds this fails.
    babble: a text that holds this is answered in no format.
    """

    def __init__(
        self, limit: int | None = None, refuse: str = "", babble: str = "", logprobs: bool = True
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.naive_bayes import MultinomialNB
        from sklearn.pipeline import make_pipeline

        texts, labels = docstrings(400, "test")
        self.model = make_pipeline(TfidfVectorizer(), MultinomialNB(alpha=0.1)).fit(texts, labels)
        self.limit, self.refuse, self.babble, self.logprobs = limit, refuse, babble, logprobs
        self.asked = 0

    def fingerprint(self) -> str:
        """Of the training data and the kind of model."""
        return "tfidf-400"

    def probabilities(self, text: str) -> dict[str, float]:
        """p(label | text)."""
        (found,) = self.model.predict_proba([text])
        return {str(k): float(p) for k, p in zip(self.model.classes_, found, strict=True)}

    def reply(
        self, messages: Conversation, n: int = 1, sampling: ChatSampling = DEFAULT,
        schema: Any = None,
    ) -> list[Reply]:  # fmt: skip
        """`n` answers."""
        if self.limit is not None and self.asked + n > self.limit:
            raise BudgetSpent("the budget is spent")
        task, given = prompts.inputs(messages)
        assert task == "classify"
        assert set(schema["properties"]["label"]["enum"]) == set(LABELS)
        text = given["text"]
        if self.refuse and self.refuse in text:
            raise ChatError("the server failed", "server")
        self.asked += n
        shares = self.probabilities(text)
        names = list(shares)
        said = []
        for sample in range(n):
            digest = hashlib.sha256(f"{sample} {text}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
            label = max(shares, key=lambda k: shares[k])
            if sampling.temperature:
                label = names[rng.choice(len(names), p=list(shares.values()))]
            answer = json.dumps({"label": label})
            if self.babble and self.babble in text:
                answer = "I would say that this is hard to tell."
            reply = Reply(
                text=answer,
                prompt_tokens=len(messages[-1].content) // 4,
                completion_tokens=len(answer) // 4,
                key=hashlib.sha256(f"{sample} {messages[-1].content}".encode()).hexdigest()[:16],
            )
            if sampling.logprobs and self.logprobs:
                reply = replace(reply, logprobs=self._tokens(label, shares))
            said.append(reply)
        return said

    def _tokens(self, label: str, shares: dict[str, float]) -> Any:
        """Tokens of one letter each for the label: `{"label": "` then letters, then `"}`."""
        tokens: list[Any] = [('{"label": "', 0.0, {'{"label": "': 0.0})]
        ends = {f'{k}"': p for k, p in shares.items()}
        so_far = ""
        for letter in f'{label}"':
            fits = {k: p for k, p in ends.items() if k.startswith(so_far)}
            whole = sum(fits.values())
            following: dict[str, float] = {}
            for k, p in fits.items():
                following[k[len(so_far)]] = following.get(k[len(so_far)], 0.0) + p / whole
            logs = {k: math.log(max(p, 1e-30)) for k, p in following.items()}
            tokens.append((letter, logs[letter], logs))
            so_far += letter
        return [*tokens, ("}", 0.0, {"}": 0.0})]

    def replies(
        self, conversations: Sequence[Conversation], n: int = 1,
        sampling: ChatSampling = DEFAULT, schema: Any = None,
    ) -> "Iterator[tuple[int, list[Reply] | ChatError]]":  # fmt: skip
        """Last first: callers must not count on an order."""
        spent = False
        for index in reversed(range(len(conversations))):
            try:
                yield index, self.reply(conversations[index], n, sampling, schema)
            except BudgetSpent:
                spent = True
            except ChatError as error:
                yield index, error
        if spent:
            raise BudgetSpent("the budget is spent")
