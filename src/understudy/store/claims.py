"""Who asks what just now: so that processes on one ledger share the work instead of doubling it."""

import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path


class Claims:
    """The part of a ledger that says which keys are being asked for, and by which process.

    A claim of a process that is gone, or past its time, is free for anyone.
    """

    path: Path

    def _writing(self, what: str) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def claim(self, keys: Sequence[str], seconds: float) -> set[str]:
        """Takes keys for `seconds`; gives those that this process has now and that no one answered."""
        now, me = time.time(), owner()
        mine: set[str] = set()
        alive: dict[str, bool] = {me: False}  # one's own claim may be taken again
        with self._writing("claim requests in") as writer:
            for key in keys:
                raw = bytes.fromhex(key)
                if writer.execute("SELECT 1 FROM answers WHERE key = ?", [raw]).fetchone():
                    continue
                held = writer.execute(
                    "SELECT owner, until FROM claims WHERE key = ?", [raw]
                ).fetchone()
                if held is not None and held[1] > now:
                    if held[0] not in alive:
                        alive[held[0]] = _runs(held[0])
                    if alive[held[0]]:
                        continue
                writer.execute(
                    "INSERT OR REPLACE INTO claims VALUES (?,?,?)", (raw, me, now + seconds)
                )
                mine.add(key)
        return mine

    def release(self, keys: Sequence[str]) -> None:
        """Gives claims up, of this process alone."""
        me = owner()
        with self._writing("release requests in") as writer:
            writer.executemany(
                "DELETE FROM claims WHERE key = ? AND owner = ?",
                [(bytes.fromhex(k), me) for k in keys],
            )


def owner() -> str:
    """This process: its machine, number and start, as a number is given again some day."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _runs(name: str) -> bool:
    """Whether a process is there; one of another machine counts as there until its time is up."""
    host, pid, started = name.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process began, where the system says so (field 22 of Linux's stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    fields = text.rpartition(")")[2].split()
    return "0" if fields[0] == "Z" else fields[19]
