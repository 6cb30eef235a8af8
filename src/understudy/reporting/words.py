"""Numbers and verdicts as people read them."""

import math
from collections.abc import Mapping
from typing import Any

from understudy.evaluation import Interval
from understudy.reporting import summary as s

PERCENT = frozenset(
    {
        "accuracy",
        "subset_accuracy",
        "top5",
        "f1",
        "micro_f1",
        "balanced_accuracy",
        "agreement",
        "ece",
        "acceptance",
        "exact_match",
    }
)
"""Measures that lie in [0, 1] and are read in percent."""

_NAMES = {
    "ece": "ECE",
    "nll": "NLL",
    "kl": "KL",
    "mse": "MSE",
    "mae": "MAE",
    "r2": "R²",
    "auroc": "AUROC",
    "mcc": "MCC",
    "ccc": "CCC",
    "f1": "F1",
    "micro_f1": "micro F1",
    "teacher_mse": "MSE to teacher",
    "teacher_r2": "R² of teacher",
    "top5": "top-5",
    "bits_per_byte": "bits per byte",
    "exact_match": "exact match",
}
_SHORT = {
    "balanced_accuracy": "bal. acc.",
    "average_precision": "avg. prec.",
    "subset_accuracy": "subset acc.",
    "teacher_mse": "T. MSE",
    "teacher_r2": "T. R²",
    "agreement": "agree",
    "bits_per_byte": "bits",
    "acceptance": "accept",
}
_ASCII = {
    "±": "+/-",
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "²": "2",
    "→": "->",
    "≤": "<=",
    "·": "*",
    "\u202f": " ",
    "\u00a0": " ",
}


def safe(text: str) -> str:
    """The text without control characters, which could take over a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def plain(text: str) -> str:
    """The text in ASCII, without control characters."""
    text = safe(text)
    for found, put in _ASCII.items():
        text = text.replace(found, put)
    return text.encode("ascii", "replace").decode()


def name(measure: str, *, short: bool = False) -> str:
    """A measure's name as the field writes it."""
    if short and measure in _SHORT:
        return _SHORT[measure]
    return _NAMES.get(measure, measure.replace("_", " "))


def unit(measure: str) -> str:
    """% or nats, where the measure has one."""
    if measure in PERCENT:
        return "%"
    if measure == "bits_per_byte":
        return "a byte"
    return "nats" if measure in ("kl", "nll") else ""


def value(x: float | None, measure: str) -> str:
    """One value, without its unit."""
    if x is None:
        return "-"
    if not math.isfinite(x):
        return "not finite"
    if measure in PERCENT:
        digits = 1 if measure in ("agreement", "acceptance", "exact_match") else 2
        return f"{100 * x:.{digits}f}"
    return significant(x, 4 if measure in ("perplexity", "bits_per_byte") else 3)


def significant(x: float, digits: int = 3) -> str:
    """`digits` significant digits, without an exponent where it stays short."""
    if not math.isfinite(x):
        return "not finite"
    if x == 0:
        return "0"
    size = math.floor(math.log10(abs(x)))
    if -5 < size < 6:
        return f"{x:.{max(0, digits - 1 - size)}f}"
    return f"{x:.{digits - 1}e}"


def with_interval(found: Interval | None, measure: str) -> str:
    """`96.42 ± 0.31`; one seed: the value alone."""
    if found is None:
        return "-"
    if found.half_width is None or not math.isfinite(found.mean):
        return value(found.mean, measure)
    if measure in PERCENT:
        return f"{100 * found.mean:.2f} ± {100 * found.half_width:.2f}"
    size = math.floor(math.log10(found.half_width)) if found.half_width > 0 else -3
    places = min(max(1 - size, 0), 6)
    return f"{found.mean:.{places}f} ± {found.half_width:.{places}f}"


def count(n: float | None) -> str:
    """1234 -> 1.23k, 4.4e6 -> 4.40M."""
    if n is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.6k would be written 1000k
        if abs(n) >= size * 0.9995:
            return significant(n / size) + letter
    return f"{n:.0f}"


def size(n: float | None) -> str:
    """Bytes: 1.23 MB (powers of ten)."""
    text = count(n)
    return "-" if n is None else f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def duration(seconds: float | None) -> str:
    """12.3 s, 4.1 min, 2.3 h."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def milliseconds(ms: float | None) -> str:
    """Three digits, at most three decimals."""
    if ms is None:
        return "-"
    return f"{ms:.3f}" if ms < 0.1 else significant(ms)


def difference(comparison: Mapping[str, Any], metric: str) -> str:
    """`+1.20 ± 0.40 points`; the interval is a half width or a pair of bounds."""
    factor = 100 if metric in PERCENT else 1
    amount = s.number(comparison.get("difference"))
    if amount is None:
        return "-"
    amount *= factor
    written = (
        f"{amount:+.2f}" if factor == 100 else ("+" if amount > 0 else "") + significant(amount)
    )
    bounds = comparison.get("interval")
    if isinstance(bounds, list | tuple) and len(bounds) == 2:
        low, high = (factor * float(b) for b in bounds)
        near = (lambda x: f"{x:+.2f}") if factor == 100 else significant
        written += f" [{near(low)}, {near(high)}]"
    elif (half := s.number(bounds)) is not None:
        half *= factor
        written += f" ± {half:.2f}" if factor == 100 else f" ± {significant(half, 2)}"
    return f"{written} points" if factor == 100 else written


def verdicts(summary: s.Summary) -> list[str]:
    """One sentence a comparison."""
    metric = summary["task"]["metric"]
    lines = []
    for c in summary.get("comparisons") or []:
        arm, other = (s.arm_named(summary, c[k]) for k in ("arm", "against"))
        who = s.title(arm) if arm else str(c["arm"])
        whom = s.title(other) if other else str(c["against"])
        p = s.number(c.get("p"))
        chance = "" if p is None else f" (p = {p:.2g})" if p >= 1e-4 else " (p < 0.0001)"
        lines.append(
            f"{who} against {whom}: {difference(c, metric)} {name(metric)}{chance}: {c['verdict']}"
        )
    return lines


def failures(summary: s.Summary) -> list[str]:
    """One line an arm that failed, with its reason."""
    return [f"{s.title(a)} failed: {a['error']}" for a in s.arms(summary) if a.get("error")]


def other_sizes(summary: s.Summary) -> dict[str, float]:
    """How many times the control's parameters an arm's student has, where that is not about one."""
    control = s.arm_named(summary, "alone") or s.arm_named(summary, "kd")
    size = None if control is None else s.cost(control, "parameters")
    ratios = {
        a["name"]: (s.cost(a, "parameters") or size) / size
        for a in s.arms(summary)
        if size and a.get("role") != "teacher"
    }
    return {name: ratio for name, ratio in ratios.items() if not 0.95 <= ratio <= 1.05}


def sizes(summary: s.Summary) -> list[str]:
    """One line an arm whose student is of another size than the control's."""
    lines = []
    for name, ratio in other_sizes(summary).items():
        arm = s.arm_named(summary, name)
        assert arm is not None
        own = count(s.cost(arm, "parameters"))
        lines.append(
            f"{s.title(arm)} makes a student of its own, of {own} parameters, "
            f"{significant(ratio, 2)} times the controls'"
        )
    return lines


def conditions(summary: s.Summary) -> list[str]:
    """Split, seeds, protocol, machine: what the numbers hold for."""
    task = summary["task"]
    split = summary.get("split", "validate")
    amount = s.number(task.get(split))
    which = {"test": "Test split", "validate": "Validation split (there is no test split)"}
    head = which.get(split, f"Split {split}")
    what = "texts" if task.get("kind") == "language" else "samples"
    head += "" if amount is None else f", {amount:.0f} {what}"
    n = s.seeds(summary)
    head += f"; {n} seeds, mean ± 95 % t interval" if n > 1 else "; one seed: no interval"
    if n > 1 and any(len(s.runs(a)) == 1 for a in summary["arms"]):
        head += " (a value without ± is of one seed)"
    protocol = summary.get("protocol") or {}
    # a budget of updates overrides one of epochs
    length = "epochs" if protocol.get("steps") is None else "steps"
    named = {"epochs": "epoch" if protocol.get("epochs") == 1 else "epochs", "steps": "updates"}
    parts = [
        f"{protocol[key]} {named[key]}" if key in named else f"{word} {protocol[key]}"
        for key, word in ((length, ""), ("batch_size", "batch"), ("lr", "lr"))
        if protocol.get(key) is not None
    ]
    lines = [head + (f"; {', '.join(parts)}" if parts else "")]
    threads = {int(t) for a in summary["arms"] if (t := s.cost(a, "threads")) is not None}
    machine = str(summary.get("device") or "")
    if threads:
        machine += f"{', ' if machine else ''}{'/'.join(map(str, sorted(threads)))} thread"
        machine += "" if threads == {1} else "s"
    if machine:
        lines[0] += f"; {machine}"
    if task.get("kind") == "language":
        lines.append(_LANGUAGE)
    if protocol.get("note"):
        lines.append(str(protocol["note"]))
    return [f"{line.rstrip('.')}." for line in lines]


_LANGUAGE = (
    "accept: chance that the teacher takes a token that the student drafts (speculative sampling); "
    "writes: greedy, one text at a time; trains: with the teacher's passes"
)


def headline(summary: s.Summary) -> str:
    """The result in one sentence."""
    metric = summary["task"]["metric"]
    arm = s.shown(summary)
    if arm is None or (found := s.spread(arm, metric)) is None:
        return f"{summary.get('title', 'This run')}: no student has been measured."
    teacher = next((a for a in summary["arms"] if a.get("role") == "teacher"), None)
    symbol = " %" if metric in PERCENT else ""
    ratio = ""
    if teacher is not None:
        many, few = s.cost(teacher, "parameters"), s.cost(arm, "parameters")
        if many and few and many > few:
            ratio = f" with {significant(many / few, 2)}× fewer parameters"
    text = f"The student{ratio} reaches {with_interval(found, metric)}{symbol} {name(metric)}"
    if teacher is not None and (top := s.mean(teacher, metric)) is not None:
        text += f"; its teacher has {value(top, metric)}{symbol}"
    said = [
        f"{difference(c, metric)} against {s.title(other)} ({c['verdict']})"
        for c in summary.get("comparisons") or []
        if c["arm"] == arm["name"] and (other := s.arm_named(summary, c["against"])) is not None
    ]
    return f"{text}. {'; '.join(said).capitalize()}." if said else f"{text}."
