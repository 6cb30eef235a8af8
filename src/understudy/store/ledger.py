"""Answered requests on disk: paid for once, never lost, never asked twice.

One SQLite file in WAL mode, JSON values. An answer is written before it is given out, and flushed to
the disk, so that a process killed at any point has lost none. Many processes may use one file.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.errors import LedgerError, UserError
from understudy.store.claims import Claims

APPLICATION = 0x756E6472  # "undr": what says that a SQLite file is a ledger
VERSION = 1
WAIT_S = 60.0
_AT_ONCE = 500

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY NOT NULL, request INTEGER NOT NULL, sample INTEGER NOT NULL,
    answer TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cost REAL, seconds REAL NOT NULL, attempts INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, request INTEGER NOT NULL, sample INTEGER NOT NULL,
    kind TEXT NOT NULL, message TEXT NOT NULL, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost REAL, seconds REAL NOT NULL, attempts INTEGER NOT NULL,
    at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS claims (
    key BLOB PRIMARY KEY NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
"""

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Asked:
    """All that changes an answer, and nothing else: what keys are made of.

    endpoint: base URL in its one form, or `local:` and a fingerprint of the weights
    messages: `{"role": ..., "content": ...}` in their order, the system prompt among them
    schema:   JSON schema that the answer has to fit; the order of its properties counts, as it is
              the order in which they are written
    sampling: every setting of how the answer is drawn, the seed included

    The key of sample i is the sha256 of `{"request": {these five}, "sample": i}` as JSON without
    spaces. Timeouts, attempts, concurrency, API keys, budgets and prices are no part of it.
    """

    __slots__ = ("body", "endpoint", "model")

    def __init__(self, endpoint: str, model: str, body: str) -> None:
        self.endpoint, self.model, self.body = endpoint, model, body

    def key(self, sample: int = 0) -> str:
        """Of one sample, in hexadecimal."""
        return hashlib.sha256(f'{{"request":{self.body},"sample":{sample}}}'.encode()).hexdigest()

    def hash(self) -> bytes:
        """Of the request, whichever the sample."""
        return hashlib.sha256(self.body.encode()).digest()


class Frame:
    """What all requests of a job have in common; `frame(messages)` is one of them.

    Raises:
        LedgerError: a setting that JSON has no form for (not a number, infinity, an object).
    """

    def __init__(
        self, endpoint: str, model: str, sampling: Mapping[str, Any], schema: Any = None
    ) -> None:
        self.endpoint, self.model = endpoint, model
        named = {name: _number(sampling[name]) for name in sorted(sampling)}
        try:
            parts = [_encode(p) for p in (endpoint, model, named, schema)]
        except (TypeError, ValueError) as error:
            raise LedgerError(f"the request has no form as JSON: {error}") from None
        names = ("endpoint", "model", "sampling", "schema")
        self._before = "".join(f'"{n}":{p},' for n, p in zip(names, parts, strict=True))

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> Asked:
        """One request."""
        said = _encode([{"role": m["role"], "content": m["content"]} for m in messages])
        return Asked(self.endpoint, self.model, f'{{{self._before}"messages":{said}}}')


def _number(value: Any) -> Any:
    """1 and 1.0 are one setting."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for one sample.

    logprobs: for each token its text, log-probability (nats) and the likeliest in its place
    cost:     in the prices' currency; None where no prices were known
    seconds:  from sending to the last byte, all attempts; attempts: how often it was sent
    at:       Unix time of writing
    """

    text: str
    finish: str = "stop"
    logprobs: Any = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A request without a usable answer, and what it cost all the same; never read as data."""

    kind: str
    message: str
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    at: float = 0.0
    key: str = ""
    model: str = ""


class Ledger(Claims):
    """The answers in one file, which is made where there is none.

    Raises:
        LedgerError: the file is something else, corrupt, of a newer version, or not writable; the
            disk is full; another process held it for longer than `wait` seconds.
    """

    def __init__(self, path: str | Path, *, wait: float = WAIT_S, make: bool = True) -> None:
        self.path = Path(path)
        self.wait, self.make = wait, make
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._made_in: int | None = None
        self._open()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; the next use opens it again."""
        with self._lock, self._read_lock:
            if self._made_in == os.getpid():
                self._writer.close()
                self._reader.close()
            self._made_in = None

    def get(self, key: str) -> Answer | None:
        """The answer of one key."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Answers by key, of those that are there."""
        wanted = [bytes.fromhex(k) for k in keys]
        found: dict[str, Answer] = {}
        with self._told("read"), self._read_lock:
            reader = self._open()[1]
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = reader.execute(f"{_ANSWER} WHERE key IN ({marks})", part)
                for key, *row in rows:
                    found[key.hex()] = _answer(row)
        return found

    def put(self, asked: Asked, answer: Answer, sample: int = 0) -> Answer:
        """Writes one answer; gives the one that holds (see `put_many`)."""
        return self.put_many([(asked, sample, answer)])[0]

    def put_many(self, rows: Sequence[tuple[Asked, int, Answer]]) -> list[Answer]:
        """Writes answers in one transaction; they are on the disk when it returns.

        A key that has an answer already keeps it, and that one is given back: whoever asks for a
        key reads one answer, for ever.
        """
        kept: list[Answer] = []
        keys: list[tuple[bytes]] = []
        now = time.time()
        with self._writing("record answers in") as writer:
            known = _requests(writer, [asked for asked, _, _ in rows])
            for asked, sample, answer in rows:
                answer = answer if answer.at else replace(answer, at=now)
                key = bytes.fromhex(asked.key(sample))
                said = {"text": answer.text, "finish": answer.finish}
                if answer.logprobs is not None:
                    said["logprobs"] = answer.logprobs
                values = (
                    key, known[asked.body], sample, _encode(said), answer.prompt_tokens,
                    answer.completion_tokens, answer.cost, answer.seconds, answer.attempts,
                    answer.at,
                )  # fmt: skip
                done = writer.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?)", values
                )
                if not done.rowcount:
                    _, *row = writer.execute(f"{_ANSWER} WHERE key = ?", [key]).fetchone()
                    answer = _answer(row)
                kept.append(answer)
                keys.append((key,))
            writer.executemany("DELETE FROM claims WHERE key = ?", keys)
        return kept

    def fail(self, asked: Asked, failure: Failure, sample: int = 0) -> None:
        """Writes a failure down, apart from the answers."""
        self.fail_many([(asked, sample, failure)])

    def fail_many(self, rows: Sequence[tuple[Asked, int, Failure]]) -> None:
        """Writes failures down, in one transaction."""
        now = time.time()
        with self._writing("record failures in") as writer:
            known = _requests(writer, [asked for asked, _, _ in rows])
            writer.executemany(
                "INSERT INTO failures (key, request, sample, kind, message, text, prompt_tokens, "
                "completion_tokens, cost, seconds, attempts, at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (
                        bytes.fromhex(asked.key(sample)), known[asked.body], sample, f.kind,
                        f.message, f.text, f.prompt_tokens, f.completion_tokens, f.cost, f.seconds,
                        f.attempts, f.at or now,
                    )
                    for asked, sample, f in rows
                ],
            )  # fmt: skip
            writer.executemany(
                "DELETE FROM claims WHERE key = ?",
                [(bytes.fromhex(asked.key(sample)),) for asked, sample, _ in rows],
            )

    def failures(self, limit: int | None = None) -> list[Failure]:
        """What failed, the latest first."""
        with self._told("read"), self._read_lock:
            rows = self._open()[1].execute(
                "SELECT kind, message, text, prompt_tokens, completion_tokens, cost, seconds, "
                "attempts, at, key, model FROM failures JOIN requests ON request = requests.id "
                "ORDER BY failures.id DESC LIMIT ?",
                [-1 if limit is None else limit],
            )
            names = [d[0] for d in rows.description]
            return [
                Failure(**{**dict(zip(names, r, strict=True)), "key": r[9].hex()}) for r in rows
            ]

    def __len__(self) -> int:
        with self._told("read"), self._read_lock:
            return self._open()[1].execute("SELECT count(*) FROM answers").fetchone()[0]

    def prune(
        self,
        *,
        older_than: float | None = None,
        model: str | None = None,
        failures: bool = False,
        now: float | None = None,
    ) -> dict[str, int]:
        """Forgets answers written more than `older_than` seconds ago and of `model`, where given.

        failures: forget failures instead of answers. Gives how many of each are gone, and the bytes
        that the file gave back.
        """
        if older_than is None and model is None and not failures:
            raise UserError("say what to prune: older than, a model, or failures")
        if older_than is not None and not older_than >= 0:
            raise UserError(f"older_than is a number of seconds, not {older_than!r}")
        conditions, values = ["1"], []
        if older_than is not None:
            conditions.append("at < ?")
            values.append((time.time() if now is None else now) - older_than)
        if model is not None:
            conditions.append("request IN (SELECT id FROM requests WHERE model = ?)")
            values.append(model)
        table = "failures" if failures else "answers"
        before = self.path.stat().st_size
        with self._writing("prune") as writer:
            gone = writer.execute(f"DELETE FROM {table} WHERE {' AND '.join(conditions)}", values)
            writer.execute(
                "DELETE FROM requests WHERE id NOT IN (SELECT request FROM answers UNION ALL "
                "SELECT request FROM failures)"
            )
        with self._told("prune"), self._lock, contextlib.suppress(sqlite3.OperationalError):
            writer.execute("VACUUM")  # a reader elsewhere may stand in its way: then the next time
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        freed = max(0, before - self.path.stat().st_size)
        return {"answers": 0, "failures": 0, table: gone.rowcount, "bytes": freed}

    def stats(self) -> list[dict[str, Any]]:
        """One row for each endpoint and model: answers, tokens, cost, rates, failures by kind."""
        from understudy.store.ledger_views import stats

        return stats(self)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every answer with its request, in the order of the keys."""
        from understudy.store.ledger_views import rows

        return rows(self)

    def export(self, path: str | Path) -> int:
        """Writes all answers to a .jsonl or .parquet file; gives how many."""
        from understudy.store.ledger_views import export

        return export(self, Path(path))

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for longer reading, and errors told in one line."""
        with self._told("read"), self._read_lock:
            yield self._open()[1]

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._told(what), self._lock:
            writer = self._open()[0]
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                raise

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """Connections of this process: one that crossed a fork would break the file."""
        if self._made_in != os.getpid():
            with self._told("open"), self._lock:
                if self._made_in is not None:
                    self._lock, self._read_lock = threading.RLock(), threading.RLock()
                self._writer = self._connect()
                self._reader = self._connect()
                self._made_in = os.getpid()
        return self._writer, self._reader

    def _connect(self) -> sqlite3.Connection:
        if not self.make and not self.path.is_file():
            raise LedgerError(f"there is no ledger {self.path}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"cannot make the folder of the ledger {self.path}: {error.strerror}"
            ) from None
        made = sqlite3.connect(
            self.path, timeout=self.wait, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(made)
        except BaseException:
            made.close()
            raise
        return made

    def _prepare(self, made: sqlite3.Connection) -> None:
        if made.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            made.execute("BEGIN IMMEDIATE")  # then look again: another process may be making it
            mark = made.execute("PRAGMA application_id").fetchone()[0]
            if (
                mark != APPLICATION
                and made.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            ):
                raise LedgerError(f"{self.path} is a database of something else, not a ledger")
            for statement in _TABLES.split(";"):
                made.execute(statement)
            made.execute(f"PRAGMA application_id = {APPLICATION}")
            made.execute(f"PRAGMA user_version = {VERSION}")
            made.execute("COMMIT")
        self._write_ahead(made)
        version = made.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LedgerError(
                f"{self.path} was written by a newer version ({version}, here {VERSION}); update"
            )
        made.execute("PRAGMA synchronous = FULL")  # on the disk, not only with the system

    def _write_ahead(self, made: sqlite3.Connection) -> None:
        """WAL, which the file keeps; to change to it one has to be alone for a moment."""
        until = time.monotonic() + self.wait
        while True:
            try:
                made.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(_line(what, self.path, error, self.wait)) from None


_ANSWER = (
    "SELECT key, answer, prompt_tokens, completion_tokens, cost, seconds, attempts, at FROM answers"
)


def _answer(row: Sequence[Any]) -> Answer:
    said = json.loads(row[0])
    return Answer(
        text=said["text"], finish=said["finish"], logprobs=said.get("logprobs"),
        prompt_tokens=row[1], completion_tokens=row[2], cost=row[3], seconds=row[4],
        attempts=row[5], at=row[6],
    )  # fmt: skip


def _requests(writer: sqlite3.Connection, asked: Iterable[Asked]) -> dict[str, int]:
    """Row numbers of requests by their body, made where they are new."""
    known: dict[str, int] = {}
    for one in asked:
        if one.body in known:
            continue
        hashed = one.hash()
        done = writer.execute(
            "INSERT OR IGNORE INTO requests (hash, endpoint, model, body) VALUES (?,?,?,?)",
            (hashed, one.endpoint, one.model, one.body),
        )
        if done.rowcount and done.lastrowid:
            known[one.body] = done.lastrowid
        else:
            row = writer.execute("SELECT id FROM requests WHERE hash = ?", [hashed]).fetchone()
            known[one.body] = row[0]
    return known


def _line(what: str, path: Path, error: sqlite3.Error, wait: float) -> str:
    """One line for what SQLite says."""
    name = getattr(error, "sqlite_errorname", "") or ""
    text = str(error)
    if name.startswith("SQLITE_FULL"):
        why = "the disk is full; free some space and run again: what was recorded is whole"
    elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        why = f"another process held it for {wait:.0f} s; wait for it, or stop it"
    elif name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        why = f"it is no ledger, or a damaged one ({text}); name another file"
    elif name.startswith("SQLITE_READONLY"):
        why = "it may not be written; choose another place"
    elif name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM")):
        why = "it cannot be opened there; choose another place"
    elif name.startswith("SQLITE_IOERR"):
        why = (
            "the disk did not take it (full, over a limit, or failing); what was recorded is whole"
        )
    else:
        why = text
    return f"cannot {what} the ledger {path}: {why}"
