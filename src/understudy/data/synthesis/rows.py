"""Rows of synthetic data: where they come from, what was dropped and why, and files of them."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy import files
from understudy.errors import DataError

Row = dict[str, Any]
"""Any fields, and two of provenance: `id`, and `made_by`, the ledger's keys of the answers in it."""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One row that a stage dropped: which, why, and on what evidence."""

    id: str
    reason: str
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """All that a stage dropped."""

    stage: str
    rows: tuple[Drop, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def reasons(self) -> dict[str, int]:
        """How many for which reason, the commonest first."""
        return dict(Counter(r.reason for r in self.rows).most_common())

    def __str__(self) -> str:
        told = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"{self.stage}: {len(self.rows)} dropped" + (f" ({told})" if told else "")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a stage asked of a teacher.

    requests: answers that were had; cached: of them, those that the ledger had already; failed:
    questions without a usable answer; complete: False where a budget ended it early
    """

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    complete: bool = True

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Spent") -> "Spent":
        costs = [c for c in (self.cost, other.cost) if c is not None]
        return Spent(
            requests=self.requests + other.requests,
            cached=self.cached + other.cached,
            failed=self.failed + other.failed,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=sum(costs) if costs else None,
            complete=self.complete and other.complete,
        )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a stage came to."""

    rows: list[Row]
    dropped: Dropped
    spent: Spent = field(default_factory=Spent)

    def __len__(self) -> int:
        return len(self.rows)


def identity(row: Mapping[str, Any]) -> str:
    """A row's `id`: 16 hexadecimal digits of the sha256 of its other fields."""
    own = {k: v for k, v in row.items() if k != "id"}
    text = json.dumps(own, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def numbered(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows with `id` and `made_by`; those that have them keep them."""
    found = []
    for row in rows:
        own = {"made_by": [], **row}
        found.append({"id": own.get("id") or identity(own), **own})
    return found


def text_of(row: Mapping[str, Any], name: str, stage: str) -> str:
    """A field as text.

    Raises:
        DataError: a row without it.
    """
    if row.get(name) is None:
        raise DataError(f"{stage}: row {row.get('id', '?')} has no {name!r}; it has {sorted(row)}")
    return str(row[name])


def partition(stage: str, rows: Sequence[Row], verdicts: Iterable[tuple[str, str] | None]) -> Kept:
    """Rows whose verdict is None are kept, the others dropped for (reason, evidence)."""
    kept, drops = [], []
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict is None:
            kept.append(row)
        else:
            reason, evidence = verdict
            drops.append(Drop(id=str(row["id"]), reason=reason, evidence=evidence[:500]))
    return Kept(rows=kept, dropped=Dropped(stage=stage, rows=tuple(drops)))


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a `.jsonl` or `.parquet` file, with their provenance.

    Raises:
        DataError: no such file, another kind, a line that is no JSON object.
    """
    p = Path(path)
    if not p.is_file():
        raise DataError(f"there is no file {p}")
    if p.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            found = pq.read_table(p).to_pylist()
        except Exception as e:
            raise DataError(f"{p} is no Parquet file ({str(e).splitlines()[0][:120]})") from None
        return numbered({k: v for k, v in r.items() if v is not None} for r in found)
    if p.suffix != ".jsonl":
        raise DataError(
            f"{p}: rows are read from .jsonl and .parquet, not {p.suffix or 'no suffix'}"
        )
    found = []
    for number, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as e:
            raise DataError(f"{p}, line {number} is no JSON ({e})") from None
        if not isinstance(row, dict):
            raise DataError(f"{p}, line {number} is {type(row).__name__}; a row is an object")
        found.append(row)
    return numbered(found)


def write_rows(path: str | Path, rows: Sequence[Row]) -> Path:
    """Rows as `.parquet` or `.jsonl`, whole or not at all; equal rows give equal bytes.

    `id` and `made_by` stand first, the other columns by name.
    """
    p = Path(path)
    names = sorted({k for r in rows for k in r} - {"id", "made_by"})
    columns = ["id", "made_by", *names]
    if p.suffix == ".jsonl":
        lines = [json.dumps({k: r[k] for k in columns if k in r}, ensure_ascii=False) for r in rows]
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    elif p.suffix == ".parquet":
        content = _parquet(rows, columns)
    else:
        raise DataError(f"{p}: rows are written as .parquet or .jsonl")
    files.write_bytes(p, content)
    return p


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = []
    for name in columns:
        values = [r.get(name) for r in rows]
        kind = pa.list_(pa.string()) if name == "made_by" else None
        try:
            arrays.append(pa.array(values, kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
            line = str(e).splitlines()[0][:120]
            raise DataError(f"column {name!r} holds values of different kinds ({line})") from None
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(columns)), buffer, compression="zstd")
    return buffer.getvalue()
