"""What a ledger shows of itself: sums, rows, and files for other programs."""

import contextlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import LedgerError, UserError
from understudy.files import failure, files

if TYPE_CHECKING:
    from understudy.store.ledger import Ledger

IDLE_S = 60.0
"""A longer pause between answers is no work: rates leave it out."""
_A_GROUP = 4096


def stats(ledger: "Ledger") -> list[dict[str, Any]]:
    """One row for each endpoint and model, ordered by name.

    endpoint, model; answers; prompt_tokens, completion_tokens, cost: of answers and failures
    together (cost None where no prices were known); seconds: the middle time of a request; first,
    last: Unix times; active: seconds between answers, pauses over a minute left out; per_minute:
    answers over active; failures: by kind.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with ledger.reading() as db:
        db.execute("BEGIN")  # one moment for all that is read
        try:
            for row in db.execute(_ANSWERS, [IDLE_S]):
                found[row[0], row[1]] = {
                    "endpoint": row[0], "model": row[1], "answers": row[2],
                    "prompt_tokens": row[3], "completion_tokens": row[4], "cost": row[5],
                    "first": row[6], "last": row[7], "active": row[8] or 0.0, "failures": {},
                }  # fmt: skip
            for endpoint, model, kind, count, prompt, completion, cost in db.execute(_FAILURES):
                row = found.setdefault(
                    (endpoint, model),
                    {"endpoint": endpoint, "model": model, "answers": 0, "prompt_tokens": 0,
                     "completion_tokens": 0, "cost": None, "first": None, "last": None,
                     "active": 0.0, "failures": {}},
                )  # fmt: skip
                row["failures"][kind] = count
                row["prompt_tokens"] += prompt
                row["completion_tokens"] += completion
                if cost is not None:
                    row["cost"] = (row["cost"] or 0.0) + cost
            for (endpoint, model), row in found.items():
                row["seconds"] = _median(db, endpoint, model, row["answers"])
                row["per_minute"] = 60 * row["answers"] / row["active"] if row["active"] else None
        finally:
            db.execute("ROLLBACK")
    return [found[name] for name in sorted(found)]


_ANSWERS = """
SELECT endpoint, model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost), min(at),
    max(at), sum(CASE WHEN pause < ? THEN pause END)
FROM (
    SELECT endpoint, model, prompt_tokens, completion_tokens, cost, at,
        at - lag(at) OVER (PARTITION BY endpoint, model ORDER BY at) AS pause
    FROM answers JOIN requests ON request = requests.id)
GROUP BY endpoint, model
"""
_FAILURES = """
SELECT endpoint, model, kind, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost)
FROM failures JOIN requests ON request = requests.id GROUP BY endpoint, model, kind ORDER BY kind
"""


def _median(db: Any, endpoint: str, model: str, count: int) -> float | None:
    if not count:
        return None
    row = db.execute(
        "SELECT seconds FROM answers JOIN requests ON request = requests.id "
        "WHERE endpoint = ? AND model = ? ORDER BY seconds LIMIT 1 OFFSET ?",
        [endpoint, model, count // 2],
    ).fetchone()
    return None if row is None else row[0]


def rows(ledger: "Ledger") -> Iterator[dict[str, Any]]:
    """Every answer with its request, in the order of the keys; those written meanwhile may miss."""
    last = b""
    while True:
        with ledger.reading() as db:
            part = db.execute(
                "SELECT key, sample, answer, prompt_tokens, completion_tokens, cost, seconds, "
                "attempts, at, body FROM answers JOIN requests ON request = requests.id "
                "WHERE key > ? ORDER BY key LIMIT ?",
                [last, _A_GROUP],
            ).fetchall()
        if not part:
            return
        for row in part:
            yield _row(row)
        last = part[-1][0]


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    body, said = json.loads(row[9]), json.loads(row[2])
    return {
        "key": row[0].hex(), "endpoint": body["endpoint"], "model": body["model"],
        "messages": body["messages"], "sampling": body["sampling"], "schema": body["schema"],
        "sample": row[1], "text": said["text"], "finish": said["finish"],
        "logprobs": said.get("logprobs"), "prompt_tokens": row[3], "completion_tokens": row[4],
        "cost": row[5], "seconds": row[6], "attempts": row[7], "at": row[8],
    }  # fmt: skip


_AS_TEXT = ("messages", "sampling", "schema", "logprobs")


def export(ledger: "Ledger", path: Path) -> int:
    """Writes all answers to `path`, whole or not at all; gives how many.

    .jsonl: one JSON object a line. .parquet: the same columns, with messages, sampling, schema and
    logprobs as JSON text.

    Raises:
        UserError: another kind of file. LedgerError: it cannot be written.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"a ledger is exported to .jsonl or .parquet, not to {path.name!r}")
    if path.exists() and path.samefile(ledger.path):
        raise UserError(f"{path} is the ledger itself; name another file")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write = _parquet if path.suffix == ".parquet" else _jsonl
        count = write(ledger, temporary)
        files.sync(temporary)
        files.rename(temporary, path)
        files.sync(path.parent)
    except OSError as error:
        raise LedgerError(str(failure(f"cannot write {path.name}", path.parent, error))) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return count


def _jsonl(ledger: "Ledger", path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows(ledger):
            text = json.dumps(row, ensure_ascii=False)
            file.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
            count += 1
    return count


def _parquet(ledger: "Ledger", path: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    kinds = {"sample": whole, "prompt_tokens": whole, "completion_tokens": whole, "attempts": whole,
             "cost": real, "seconds": real, "at": real}  # fmt: skip
    names = ("key", "endpoint", "model", "messages", "sampling", "schema", "sample", "text",
             "finish", "logprobs", "prompt_tokens", "completion_tokens", "cost", "seconds",
             "attempts", "at")  # fmt: skip
    schema = pa.schema([(n, kinds.get(n, text)) for n in names])
    count, found = 0, rows(ledger)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(found, _A_GROUP)):
            for row in part:
                for name in _AS_TEXT:
                    row[name] = None if row[name] is None else json.dumps(row[name])
                for name in ("text", "model"):
                    row[name] = row[name].encode("utf-8", "backslashreplace").decode()
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
            count += len(part)
    return count
