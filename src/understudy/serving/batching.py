"""Requests that come within a few milliseconds, answered together by one thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from understudy.teachers.chat import ChatError, ChatTeacher, Reply
from understudy.teachers.chat.drawing import Ask, Told, Written, listed
from understudy.teachers.chat.local import LocalChat
from understudy.teachers.chat.requests import Request

Heard = Callable[[int, int], None]
"""(sample index, token id) of a token as it is drawn."""


class Busy(ChatError):
    """More is waiting than will be answered soon."""

    def __init__(self) -> None:
        super().__init__("the server has more to answer than it takes; ask again", "busy")


@dataclass
class _Job:
    what: "Request | list[Ask] | _Score"
    rows: int
    heard: Heard | None = None
    done: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class _Score:
    """How likely the tokens of a text are."""

    texts: tuple[tuple[int, ...], ...]
    k: int


class Batcher:
    """One thread that answers for everyone, as many requests at a time as have come.

    wait: seconds that the first of them waits for others; most: answers at a time; queued: requests
    that may wait, beyond which they are refused with `Busy`
    """

    def __init__(
        self, teacher: ChatTeacher, *, wait: float = 0.004, most: int = 64, queued: int = 1024
    ) -> None:
        self.teacher, self.wait, self.most = teacher, wait, most
        self._jobs: queue.Queue[_Job | None] = queue.Queue(queued)
        self._closed = False
        self.batches = 0
        self._thread = threading.Thread(target=self._run, name="understudy-serving", daemon=True)
        self._thread.start()

    @property
    def local(self) -> LocalChat | None:
        """The language model behind the teacher, where there is one here."""
        found = getattr(self.teacher, "local", self.teacher)
        return found if isinstance(found, LocalChat) else None

    def chat(self, request: Request, heard: Heard | None = None) -> "Future[list[Reply]]":
        """The answers to one conversation; a `ChatError` where there are none."""
        return self._put(_Job(request, max(1, request.n), heard))

    def texts(self, asks: Sequence[Ask]) -> "Future[list[Written]]":
        """Continuations of token ids."""
        return self._put(_Job(list(asks), len(asks)))

    def scores(self, texts: Sequence[Sequence[int]], k: int) -> "Future[list[list[Told | None]]]":
        """Log-probabilities of texts as they stand."""
        return self._put(_Job(_Score(tuple(tuple(t) for t in texts), k), len(texts)))

    def close(self) -> None:
        """Answer what has begun, refuse the rest, and end the thread."""
        self._closed = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                _fail(job, ChatError("the server is stopping", "stopping"))
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> "Future[Any]":
        if self._closed:
            raise ChatError("the server is stopping", "stopping")
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Busy from None
        return job.done

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, rows = [first], first.rows
            until = time.monotonic() + self.wait
            stop = False
            while rows < self.most and not stop:
                left = until - time.monotonic()
                try:
                    job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stop = True
                else:
                    jobs.append(job)
                    rows += job.rows
            # who went away before the answer was begun gets none
            jobs = [j for j in jobs if j.done.set_running_or_notify_cancel()]
            self.batches += 1
            for kind in (Request, list, _Score):
                part = [j for j in jobs if isinstance(j.what, kind)]
                if part:
                    self._answer(kind, part)
            if stop:
                return

    def _answer(self, kind: type, jobs: list[_Job]) -> None:
        try:
            if kind is Request:
                self._chats(jobs)
            elif kind is list:
                self._texts(jobs)
            else:
                self._scores(jobs)
        except BaseException as error:  # whoever waits has to hear of it
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)

    def _chats(self, jobs: list[_Job]) -> None:
        requests: list[Any] = [j.what for j in jobs]
        if hasattr(self.teacher, "answers"):
            listens = any(j.heard for j in jobs)

            def heard(place: int, index: int, token: int) -> None:
                listener = jobs[place].heard
                if listener is not None:
                    listener(index, token)

            answers = self.teacher.answers(requests, heard if listens else None)  # type: ignore[attr-defined]
            for job, said in zip(jobs, answers, strict=True):
                _tell(job, said)
            return
        groups: dict[str, list[_Job]] = {}
        for job, request in zip(jobs, requests, strict=True):
            same = repr((request.n, request.sampling, request.schema))
            groups.setdefault(same, []).append(job)
        for group in groups.values():
            one: Any = group[0].what
            asked = [j.what.messages for j in group]  # type: ignore[union-attr]
            for place, said in self.teacher.replies(asked, one.n, one.sampling, one.schema):
                _tell(group[place], said)

    def _texts(self, jobs: list[_Job]) -> None:
        assert self.local is not None
        asks = [a for j in jobs for a in j.what]  # type: ignore[union-attr]
        said = iter(self.local.written(asks))
        for job in jobs:
            job.done.set_result([next(said) for _ in range(job.rows)])

    def _scores(self, jobs: list[_Job]) -> None:
        assert self.local is not None
        for job in jobs:
            assert isinstance(job.what, _Score)
            job.done.set_result(listed(self.local.model, job.what.texts, job.what.k))


def _tell(job: _Job, said: Any) -> None:
    if isinstance(said, BaseException):
        job.done.set_exception(said)
    else:
        job.done.set_result(said)


def _fail(job: _Job, error: BaseException) -> None:
    if job.done.set_running_or_notify_cancel():
        job.done.set_exception(error)
