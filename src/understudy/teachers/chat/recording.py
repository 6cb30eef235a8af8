"""Answers on their way into the ledger: together in one transaction, acknowledged one by one."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from understudy.store.ledger import Answer, Asked, Failure, Ledger

TOGETHER_S = 0.006


class Recorder:
    """Writes for one event loop. What the disk did not take is kept and tried again first."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.unwritten: list[tuple[Asked, int, Answer]] = []
        self._answers: list[tuple[tuple[Asked, int, Answer], asyncio.Future[Answer]]] = []
        self._failures: list[tuple[Asked, int, Failure]] = []
        self._worker = ThreadPoolExecutor(1, "understudy-ledger")
        self._flusher: asyncio.Task[None] | None = None

    async def put(self, rows: Sequence[tuple[Asked, int, Answer]]) -> list[Answer]:
        """Returns when the answers are on the disk; they are written in one transaction."""
        waiting = [asyncio.get_running_loop().create_future() for _ in rows]
        self._answers += zip(rows, waiting, strict=True)
        self._start()
        if len(waiting) == 1:
            return [await waiting[0]]
        return list(await asyncio.gather(*waiting))

    def fail(self, rows: Sequence[tuple[Asked, int, Failure]]) -> None:
        """Failures are written with the next answers; nobody waits for them."""
        self._failures += rows
        self._start()

    async def flush(self) -> None:
        """Returns when all is written that was given before."""
        while self._flusher is not None:
            await asyncio.shield(self._flusher)

    def retry(self) -> None:
        """Writes what could not be written before, from any thread, while nothing is under way."""
        if self.unwritten:
            self.ledger.put_many(self.unwritten)
            self.unwritten = []

    def _start(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._answers or self._failures:
                await asyncio.sleep(TOGETHER_S)  # others come meanwhile
                answers, self._answers = self._answers, []
                failures, self._failures = self._failures, []
                rows = [row for row, _ in answers]
                try:
                    kept = await loop.run_in_executor(self._worker, self._write, rows, failures)
                except Exception as error:
                    self.unwritten += rows
                    for _, waiting in answers:
                        _settle(waiting, error)
                    continue
                for (_, waiting), answer in zip(answers, kept, strict=True):
                    _settle(waiting, answer)
        finally:
            self._flusher = None

    def _write(self, rows: list[Any], failures: list[Any]) -> list[Answer]:
        kept = self.ledger.put_many(rows) if rows else []
        if failures:
            self.ledger.fail_many(failures)
        return kept

    def close(self) -> None:
        """Ends the writing thread."""
        self._worker.shutdown(wait=False)


def _settle(waiting: "asyncio.Future[Answer]", outcome: Answer | Exception) -> None:
    if waiting.done():
        return
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)
