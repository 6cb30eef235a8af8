"""A ledger of answers as tables for people."""

import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from understudy.errors import UserError
from understudy.store.ledger import Failure

_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def seconds_of(text: str) -> float:
    """`30d`, `12h`, `90min`, `45s` or `2w` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise UserError(f"a time is a number with s, min, h, d or w, such as 30d, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def ledger_table(stats: Sequence[dict[str, Any]], size: int) -> Any:
    """One row for each endpoint and model, and their sum: tokens of prompts and of answers, cost in
    the currency of the prices, answers a minute while it worked, the middle seconds of a request.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column("model", overflow="fold", min_width=14)
    for name in ("answers", "tok in", "tok out", "cost", "/min", "s", "failed", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in stats:
        where = urlsplit(row["endpoint"]).netloc or row["endpoint"][:24]
        table.add_row(Text(row["model"]).append(f"\n{where}", "dim"), *_cells(row))
    if len(stats) > 1:
        table.add_row("all", *_cells(_sum(stats)))
    kinds = {k: 0 for row in stats for k in row["failures"]}
    for row in stats:
        for kind, count in row["failures"].items():
            kinds[kind] += count
    said = ", ".join(f"{k} {n}" for k, n in sorted(kinds.items(), key=lambda x: -x[1]))
    table.caption = f"{size / 1e6:.1f} MB on disk" + (f"; failures: {said}" if said else "")
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    rate, each = row.get("per_minute"), row.get("seconds")
    return [
        _short(row["answers"]),
        _short(row["prompt_tokens"]),
        _short(row["completion_tokens"]),
        "" if row["cost"] is None else f"{row['cost']:,.{2 if row['cost'] >= 100 else 4}f}",
        "" if rate is None else _short(round(rate)),
        "" if each is None else f"{each:.2f}",
        _short(sum(row["failures"].values())),
        "" if row["last"] is None else time.strftime("%y-%m-%d", time.localtime(row["last"])),
    ]


def _short(count: int) -> str:
    """In full up to a hundred thousand, and then in thousands or millions."""
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e3:,.0f}k" if count < 1e6 else f"{count / 1e6:,.2f}M"


def _sum(stats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    costs = [row["cost"] for row in stats if row["cost"] is not None]
    lasts = [row["last"] for row in stats if row["last"] is not None]
    whole = {n: sum(row[n] for row in stats)
             for n in ("answers", "prompt_tokens", "completion_tokens")}  # fmt: skip
    return {
        **whole,
        "cost": sum(costs) if costs else None,
        "failures": {str(i): sum(row["failures"].values()) for i, row in enumerate(stats)},
        "last": max(lasts) if lasts else None,
    }


def failures_table(failures: Sequence[Failure]) -> Any:
    """One row a failure, the latest first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("when", "model", "kind"):
        table.add_column(name, no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("what was wrong", overflow="fold")
    for f in failures:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(f.at))
        table.add_row(when, f.model, f.kind, str(f.attempts), Text(f.message))
    return table
