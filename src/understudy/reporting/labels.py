"""What a labelling came to: tables for the terminal, and `report.html` in the run folder."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from understudy.files import write_text
from understudy.reporting import figures
from understudy.reporting import summary as s

What = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, head, rows."""


def label_tables(what: What, width: int | None = None) -> str:
    """Everything that the report shows, as text."""
    parts = [headline(what)]
    for title, head, rows in _tables(what):
        if not rows:
            continue
        widths = [max(len(r[c]) for r in (head, *rows)) for c in range(len(head))]

        def line(cells: Sequence[str], widths: list[int] = widths) -> str:
            first = cells[0].ljust(widths[0])
            rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
            return "  ".join([first, *rest]).rstrip()

        body = [*map(line, rows)]
        if any(head):
            body = [line(head), "-" * len(line(head)), *body]
        parts.append("\n".join([title, *body]))
    parts.append("\n".join(notes(what)))
    return "\n\n".join(p for p in parts if p) + "\n"


def headline(what: What) -> str:
    """One sentence: how good the student is, on how many labels, at which cost."""
    last = what["rounds"][-1]
    who = what["agreement"].get("student and people")
    by = "people" if who else "the teacher"
    found = who or what["agreement"]["student and teacher"]
    text = (
        f"The student gives {by}'s label to {_share(found['accuracy'])} of {found['count']} texts it "
        f"has not seen ({_between(found['accuracy_interval'])}), learned from {last['rows']} labels"
    )
    teacher = what["agreement"].get("teacher and people")
    if teacher:
        text += f"; the teacher itself to {_share(teacher['accuracy'])}"
    money = what["spent"]["money"]
    return text + (f". All labels cost {_money(money)}." if money is not None else ".")


def notes(what: What) -> list[str]:
    """What was decided on the way, and what a reader has to know."""
    lines = [f"Why it stopped: {what['stopped']}."]
    if what["judged_by"] == "teacher":
        lines.append(
            "Nobody's own labels are known: all scores say how well the teacher is followed, not how "
            "often either is right."
        )
    sheet = what.get("sheet")
    if sheet:
        lines.append(
            f"{sheet['path']}: {sheet['filled']} lines are filled in; fill in column label and run "
            "again with --resume."
        )
    for kind, failed in what["failures"].items():
        lines.append(
            f"{failed['count']} texts have no label ({kind}; the first: {failed['first']}); they "
            "are listed in failures.csv and were not learned from."
        )
    return [*lines, *(f"{n[0].upper()}{n[1:]}." for n in what["notes"])]


def write_label_report(folder: Path) -> Path:
    """`report.html` from the folder's summary: one file, no script, nothing from outside."""
    found = s.read_summary(folder)
    path = Path(folder) / "report.html"
    write_text(path, label_html(found, s.read_json(Path(folder) / "config.json")))
    return path


def label_html(summary: Mapping[str, Any], config: Any = None) -> str:
    """The page itself; all text in it is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    what = summary["label"]
    place = resources("understudy.reporting")
    style = re.search(
        r"<style>(.*?)</style>", (place / "report.html.jinja").read_text("utf-8"), re.DOTALL
    )
    assert style is not None
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((place / "labels.html.jinja").read_text("utf-8"))
    drawn = {"curve": _curve(what), "cascade": _cascade(what)}
    return page.render(
        style=Markup(style[1]),
        title=f"{len(what['labels'])} labels by {what['teacher']}",
        headline=headline(what),
        notes=notes(what),
        tables={t[0]: t for t in _tables(what)},
        about=_ABOUT,
        figures={k: Markup(v) for k, v in drawn.items() if v},
        labels=list(what["labels"].items()),
        config=None if config is None else json.dumps(config, indent=2, ensure_ascii=False),
        command=str(summary.get("command") or ""),
    )


_ABOUT = {
    "cost": "What was asked and what it came to; answers that the ledger had cost nothing now.",
    "learning curve": "Each round trains the student anew on all labels so far. Scores are against "
    "the teacher's labels; validation says when to stop, test says nothing on the way. A gain that "
    "lies within its interval cannot be told from none.",
    "agreement": "Share of texts with the same label (Wilson interval); Cohen's kappa and "
    "Krippendorff's alpha count what chance would give as nothing (bootstrap intervals).",
    "classes": "Of the judged texts; learned counts the rows of each label in training.",
    "cascade": "The student answers where its confidence reaches the threshold, the teacher below.",
}


def _tables(what: What) -> list[Table]:
    spent, rounds = what["spent"], what["rounds"]
    answers = f"{spent['answers']:,}"
    if spent["from_ledger"]:
        answers += f" ({spent['from_ledger']:,} from the ledger)"
    money = "no prices" if spent["money"] is None else _money(spent["money"])
    if spent["money"] is not None and spent["from_ledger"]:
        money += f" ({_money(spent['money_now'])} now)"
    cost = [
        ["texts asked about", f"{spent['texts']:,}"],
        ["answers", answers],
        ["tokens read", f"{spent['prompt_tokens']:,}"],
        ["tokens written", f"{spent['completion_tokens']:,}"],
        ["money", money],
        ["texts without a label", f"{sum(f['count'] for f in what['failures'].values()):,}"],
    ]
    curve = [
        [
            str(n + 1), str(r["rows"]), _interval(r["validate"], r["validate_interval"]),
            _interval(r["test"], r["test_interval"]),
            "" if r["gain"] is None else f"{100 * r['gain']:+.1f} ± {100 * r['gain_half_width']:.1f}",
            "" if r["money"] is None else _money(r["money"]),
        ]
        for n, r in enumerate(rounds)
    ]  # fmt: skip
    agreement = [
        [
            who, str(a["count"]), _interval(a["accuracy"], a["accuracy_interval"]),
            _plain(a["kappa"], a["kappa_interval"]), _plain(a["alpha"], a["alpha_interval"]),
        ]
        for who, a in what["agreement"].items()
    ]  # fmt: skip
    classes = [
        [
            c["label"], str(c["learned"]), str(c["judged"]), _share(c["precision"]),
            "-" if c["recall"] is None else _interval(c["recall"], c["recall_interval"]),
            _share(c["f1"]),
        ]
        for c in what["classes"]
    ]  # fmt: skip
    cascade = [
        [
            "all to the teacher" if float(step["threshold"]) > 1 else f"{float(step['threshold']):.3f}",
            _share(step["asked"]), _share(step["accuracy"]),
            "" if step["money"] is None else _money(step["money"]),
        ]
        for step in _some(what["cascade"])
    ]  # fmt: skip
    curve_head = ["round", "rows", "validation", "test", "gain", "money so far"]
    cascade_head = ["confidence from", "to the teacher", "right", "money of 1000"]
    if spent["money"] is None:
        curve, curve_head = [row[:-1] for row in curve], curve_head[:-1]
        cascade, cascade_head = [row[:-1] for row in cascade], cascade_head[:-1]
    return [
        ("cost", ["", ""], cost),
        ("learning curve", curve_head, curve),
        ("agreement", ["who", "texts", "same label", "kappa", "alpha"], agreement),
        ("classes", ["label", "learned", "judged", "precision", "recall", "F1"], classes),
        ("cascade", cascade_head, cascade),
    ]


def _some(steps: Sequence[Any], most: int = 11) -> list[Any]:
    """Evenly spaced ones, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _curve(what: What) -> str | None:
    rounds = what["rounds"]
    if len(rounds) < 2:
        return None
    figure, (ax,) = figures._figure(1, 1, 5.2, 3.4)
    x = [r["rows"] for r in rounds]
    for k, part in enumerate(("validate", "test")):
        y = [100 * r[part] for r in rounds]
        ends = [r[f"{part}_interval"] for r in rounds]
        low = [v - 100 * e[0] for v, e in zip(y, ends, strict=True)]
        high = [100 * e[1] - v for v, e in zip(y, ends, strict=True)]
        ax.errorbar(
            x, y, yerr=[low, high], marker="o", ms=5, lw=1.6, capsize=3,
            color=figures._COLORS[k], label="validation" if part == "validate" else part,
        )  # fmt: skip
    if max(x) > 8 * min(x):
        figures.logarithmic(ax, "x")
    ax.set(xlabel="labelled texts", ylabel="same label as the teacher %")
    figures._legend(figure, [ax])
    return figures._svg(figure, "curve")


def _cascade(what: What) -> str | None:
    steps = what["cascade"]
    if len(steps) < 2:
        return None
    priced = steps[-1]["money"] is not None
    figure, (ax,) = figures._figure(1, 1, 5.2, 3.4)
    x = [s["money"] if priced else 100 * s["asked"] for s in steps]
    y = [100 * s["accuracy"] for s in steps]
    ax.plot(x, y, color=figures._COLORS[0], lw=1.8, marker="o", ms=4)
    for place, name, align, away in (
        (0, "student alone", "left", (8, -5)), (-1, "teacher alone", "right", (0, 8)),
    ):  # fmt: skip
        ax.annotate(
            name, (x[place], y[place]), textcoords="offset points", xytext=away, ha=align,
            color=figures._INK, fontsize=8.5,
        )  # fmt: skip
    ax.margins(y=0.2)
    ax.set_xlabel("money of 1,000 texts" if priced else "texts that go to the teacher %")
    ax.set_ylabel(f"right by {'people' if what['judged_by'] == 'people' else 'the teacher'} %")
    return figures._svg(figure, "cascade")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _between(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _interval(value: float, ends: Sequence[float]) -> str:
    return f"{100 * value:.1f} % ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def _plain(value: float, ends: Sequence[float]) -> str:
    return f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def _money(value: float) -> str:
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def plan_text(plan: Any, kept: bool = True) -> str:
    """What a labelling would send and cost; `kept`: whether a ledger has the answers."""
    parts = []
    for number, turns in enumerate(plan.shown, 1):
        body = "\n".join(f"[{role}]\n{content}" for role, content in turns)
        parts.append(f"--- prompt {number} of {plan.texts}, as it is sent ---\n{body}")
    rows = [["", "estimate", "95 % interval"]]
    for name, e, form in (
        ("tokens read", plan.prompt_tokens, "{:,.0f}"),
        ("tokens written", plan.completion_tokens, "{:,.0f}"),
        ("money", plan.money, "{:.4g}"),
    ):
        if e is None:
            why = "no prices: give --prices IN,OUT" if name == "money" else "no answer came"
            rows.append([name, "-", why])
            continue
        between = "no interval" if e.low is None else f"{form} to {form}".format(e.low, e.high)
        rows.append([name, form.format(e.value), between])
    widths = [max(len(r[c]) for r in rows) for c in range(3)]
    lines = [
        "  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(
            zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    head = (
        f"plan: {plan.texts:,} texts, {plan.answers:,} answers; estimated from {plan.tried} texts"
        + (", whose answers are kept" if kept else "")
    )
    parts.append("\n".join([head, *lines]))
    for failure in plan.failures[:3]:
        parts.append(f"text {failure.number} got no label ({failure.kind}): {failure.reason}")
    return "\n\n".join(parts) + "\n"
