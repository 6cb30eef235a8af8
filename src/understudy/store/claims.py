"""Who asks what just now: so that processes on one ledger share the work instead of doubling it."""

import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

_AT_ONCE = 500


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
        alive: dict[str, bool] = {me: False}  # one's own claim may be taken again
        wanted = {bytes.fromhex(k): k for k in keys}
        every = list(wanted)
        with self._writing("claim requests in") as writer:
            for start in range(0, len(every), _AT_ONCE):
                part = every[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                answered = f"SELECT key FROM answers WHERE key IN ({marks})"
                for (key,) in writer.execute(answered, part):
                    del wanted[key]
            raw = list(wanted)
            for start in range(0, len(raw), _AT_ONCE):
                part = raw[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                for key, holder in writer.execute(
                    f"SELECT key, owner FROM claims WHERE key IN ({marks}) AND until > {now!r}",
                    part,
                ).fetchall():
                    if holder not in alive:
                        alive[holder] = _runs(holder)
                    if alive[holder]:
                        del wanted[key]
            writer.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?,?,?)",
                [(key, me, now + seconds) for key in wanted],
            )
        return set(wanted.values())

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
    return _owner(os.getpid())


@lru_cache(1)
def _owner(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


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
