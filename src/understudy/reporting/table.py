"""The table of a run or a league: for the terminal, and as CSV, LaTeX, JSON and Markdown."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from understudy.reporting import summary as s
from understudy.reporting import words
from understudy.reporting.columns import Column, columns

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["notes", "records", "render", "table", "to_csv", "to_json", "to_latex", "to_markdown"]

_GAP = 2


def table(summary: s.Summary, *, width: int | None = None, ascii: bool | None = None) -> "Table":
    """One row an arm, as a rich table with the verdicts and conditions as its caption.

    Columns are left out, the least telling first, until it fits `width` (default: the terminal's,
    120 where there is none); the caption names them. `ascii` default: unless standard output is a
    terminal in UTF-8.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    ascii = _ascii_needed() if ascii is None else ascii
    clean = words.plain if ascii else words.safe
    width = _terminal_width() if width is None else width
    rows = s.arms(summary)
    kept, left_out = _fit(columns(summary), rows, width, clean)
    lines = notes(summary)
    if left_out:
        lines.append(f"Left out for width: {', '.join(left_out)}.")
    rule = (
        box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
        if ascii
        else box.SIMPLE_HEAD
    )
    found = Table(
        box=rule, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False,
        caption=Text(clean("\n".join(lines)), justify="left"), caption_justify="left",
        caption_style="",
    )  # fmt: skip
    for column in kept:
        found.add_column(
            Text(clean("\n".join(column.header))), justify=column.align, no_wrap=True,
            overflow="ellipsis" if not ascii else "crop",
        )  # fmt: skip
    best = s.shown(summary)
    for arm in rows:
        bold = "bold" if best is not None and arm["name"] == best["name"] else ""
        style = "dim" if arm.get("error") else bold
        found.add_row(*[Text(clean(c.text(arm)), style=style) for c in kept])
    return found


def render(
    summary: s.Summary, width: int | None = None, *, ascii: bool | None = None, color: bool = False
) -> str:
    """The table as text, lines no longer than `width`; without escape codes unless `color`."""
    from rich.console import Console

    width = _terminal_width() if width is None else width
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None,
        markup=False, highlight=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    console.print(table(summary, width=width, ascii=ascii))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def notes(summary: s.Summary) -> list[str]:
    """What stands beneath the table: verdicts, other sizes, failures, ties, conditions."""
    lines = [*words.verdicts(summary), *words.sizes(summary), *words.failures(summary)]
    if s.is_league(summary):
        lines.append("Methods that share a rank (=) cannot be told apart at these seeds.")
    return lines + words.conditions(summary)


def records(summary: s.Summary) -> list[dict[str, Any]]:
    """One flat record an arm, with plain numbers: shares in [0, 1], seconds, ms, bytes."""
    found = []
    for arm in s.arms(summary):
        row: dict[str, Any] = {
            "arm": arm["name"], "title": s.title(arm), "role": arm.get("role"),
            "seeds": len(s.runs(arm)),
        }  # fmt: skip
        if s.is_league(summary):
            row |= {"rank": arm.get("rank"), "error": arm.get("error")}
        for measure in s.measures(summary):
            for which in ("last", "best"):
                spread = s.spread(arm, measure, which)
                row[f"{measure}_{which}"] = None if spread is None else _finite(spread.mean)
                row[f"{measure}_{which}_interval"] = None if spread is None else spread.half_width
        row |= {key: s.cost(arm, key) for key in ("parameters", "flops", "bytes")}
        for batch in ("1", "32", "256"):
            if any(s.cost(a, "latency_ms", batch, "p50") is not None for a in summary["arms"]):
                row |= {
                    f"latency_{batch}_{q}_ms": s.cost(arm, "latency_ms", batch, q)
                    for q in ("p50", "p95")
                }
        if summary["task"].get("kind") == "language":
            row |= {
                "tokens_per_second": s.tokens_per_second(arm),
                "written_per_second_1": s.cost(arm, "tokens_per_second", "1"),
                "written_per_second_16": s.cost(arm, "tokens_per_second", "16"),
            }
        row |= {
            "seconds": s.mean(arm, "seconds", "run"), "teacher_share": s.teacher_share(arm),
            "step_ms": _step(arm), "peak_mb": s.number(arm.get("peak_mb")),
            "extra_parameters": s.number(arm.get("extra_parameters")),
        }  # fmt: skip
        row |= {f"corrupted_{k}": s.number(v) for k, v in (arm.get("corrupted") or {}).items()}
        found.append(row)
    return found


def to_csv(summary: s.Summary) -> str:
    """The records with a header line; an absent value is empty."""
    rows = records(summary)
    names = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_json(summary: s.Summary) -> str:
    """The records with the metric, the split and the comparisons."""
    whole = {
        "title": summary.get("title"), "metric": summary["task"]["metric"],
        "split": summary.get("split"), "rows": records(summary),
        "comparisons": summary.get("comparisons") or [], "notes": notes(summary),
    }  # fmt: skip
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(summary: s.Summary) -> str:
    """A GitHub table and the lines beneath it."""
    kept = columns(summary)
    lines = [
        _bar([" ".join(filter(None, c.header)) for c in kept]),
        _bar(["---" if c.align == "left" else "---:" for c in kept], escape=False),
        *[_bar([c.text(arm) for c in kept]) for arm in s.arms(summary)],
        "",
        *[f"- {markdown(line)}" for line in notes(summary)],
    ]
    return "\n".join(lines) + "\n"


def to_latex(summary: s.Summary) -> str:
    r"""A booktabs `tabular` (`\usepackage{booktabs}`), with the lines beneath as comments."""
    kept = columns(summary)
    heads = [" & ".join(_latex(c.header[i]) for c in kept) + r" \\" for i in range(2)]
    body = [" & ".join(_latex(c.text(arm)) for c in kept) + r" \\" for arm in s.arms(summary)]
    return "\n".join([
        *[f"% {words.plain(' '.join(line.split()))}" for line in notes(summary)],
        rf"\begin{{tabular}}{{{''.join(c.align[0] for c in kept)}}}",
        r"\toprule", *heads, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _bar(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(markdown(c) if escape else c for c in cells) + " |"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
               "±": r"$\pm$", "²": "$^2$", "×": r"$\times$", "−": "$-$"}  # fmt: skip
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(c, c) for c in " ".join(text.split()))


def _step(arm: s.Arm) -> float | None:
    own = s.number(arm.get("step_ms"))
    return s.mean(arm, "step_ms", "run") if own is None else own


def _finite(x: float) -> float | None:
    return x if x == x and abs(x) != float("inf") else None


def _fit(
    found: list[Column], rows: Sequence[s.Arm], width: int, clean: Any
) -> tuple[list[Column], list[str]]:
    from rich.cells import cell_len

    def wide(column: Column) -> int:
        texts = [*column.header, *[column.text(arm) for arm in rows]]
        return max(cell_len(clean(t)) for t in texts)

    kept, left_out = list(found), []
    while sum(wide(c) + _GAP for c in kept) > width:
        last = max(kept, key=lambda c: c.rank)
        if last.rank == 0:
            break
        kept.remove(last)
        left_out.append(clean(" ".join(filter(None, last.header))))
    return kept, left_out


def _ascii_needed() -> bool:
    stream = sys.stdout
    utf = "utf" in (getattr(stream, "encoding", None) or "").lower()
    return not (utf and stream.isatty())


def _terminal_width() -> int:
    return shutil.get_terminal_size((120, 40)).columns
