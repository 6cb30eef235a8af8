"""The figures of a report, as inline SVG that takes its ink from the page (light or dark)."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.evaluation import Reliability
from understudy.reporting import summary as s
from understudy.reporting import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]
"""arm -> seed -> [(x, y)]"""

# Drawn in these, then replaced by what the page's style says.
_INK, _FAINT = "#010203", "#040506"
_COLORS = ("#3b82c4", "#e0823d", "#3f9e6b", "#b65fa8", "#c9a227", "#5ba8b5", "#c4514f", "#8a7bc8")
_TEACHER = "#8b8f98"


def colors(summary: s.Summary) -> dict[str, str]:
    """A colour an arm: the teacher grey, the others from a palette readable on light and dark."""
    students = [a["name"] for a in s.arms(summary) if a.get("role") != "teacher"]
    chosen = s.shown(summary)
    # the chosen method is always the same blue
    students.sort(key=lambda name: chosen is None or name != chosen["name"])
    found = {a["name"]: _TEACHER for a in summary["arms"] if a.get("role") == "teacher"}
    return found | {n: _COLORS[i % len(_COLORS)] for i, n in enumerate(students)}


def curves(summary: s.Summary, panels: Sequence[tuple[str, str, Curves]], x_name: str) -> str:
    """Learning curves: a panel (title, measure, curves) each; a seed is thin, their mean thick."""
    paint = colors(summary)
    figure, axes = _figure(1, len(panels), 4.6 * len(panels), 3.1)
    for ax, (title, measure, found) in zip(axes, panels, strict=True):
        factor = 100 if measure in words.PERCENT else 1
        for k, (arm, by_seed) in enumerate(found.items()):
            # what is no arm of the table (a term, an assistant) has a colour of its own
            color, label = paint.get(arm, _COLORS[-1 - k % 5]), _title(summary, arm)
            for points in by_seed.values():
                x, y = np.asarray(points, dtype=float).T
                ax.plot(x, factor * y, color=color, lw=0.8, alpha=0.35)
            x, y = _average(by_seed)
            ax.plot(x, factor * y, color=color, lw=2, label=label)
        ax.set_title(title, loc="left")
        ax.set_xlabel(x_name)
        if measure == "loss" and (low := _lowest(found)) > 0 and _highest(found) > 20 * low:
            logarithmic(ax, "y")
    _legend(figure, axes)
    return _svg(figure, "curves")


def calibration(summary: s.Summary, found: Mapping[str, Reliability]) -> str:
    """Reliability diagram: accuracy against confidence by bin, the share of samples as area."""
    paint = colors(summary)
    figure, (ax,) = _figure(1, 1, 4.6, 3.6)
    ax.plot([0, 100], [0, 100], color=_FAINT, lw=1, ls=(0, (4, 3)))
    for arm, bins in found.items():
        share = (bins.count / bins.count.sum()).numpy()
        full = share > 0
        x, y = 100 * bins.confidence.numpy()[full], 100 * bins.accuracy.numpy()[full]
        label = f"{_title(summary, arm)} (ECE {100 * bins.ece:.1f} %)"
        ax.plot(x, y, color=paint.get(arm, _TEACHER), lw=1.3, alpha=0.8, label=label)
        ax.scatter(x, y, s=8 + 160 * share[full], color=paint.get(arm, _TEACHER), alpha=0.75, lw=0)
    ax.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence %", ylabel="right %")
    _legend(figure, [ax])
    return _svg(figure, "calibration")


def matrix(counts: np.ndarray, names: Sequence[str], student: str) -> str:
    """What the teacher says (rows) against what the student says (columns), counts."""
    k = len(counts)
    side = min(max(2.6, 0.42 * k + 1.2), 7.0)
    figure, (ax,) = _figure(1, 1, side, side * 0.92)
    off = counts.astype(float).copy()
    np.fill_diagonal(off, 0)
    shade = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    top = max(float(np.where(np.eye(k, dtype=bool), 0, shade).max()), 1e-9)
    rgba = np.zeros((k, k, 4))
    rgba[..., :3] = [x / 255 for x in (59, 130, 196)]
    rgba[..., 3] = 0.75 * shade / max(shade.max(), 1e-9)
    wrong = ~np.eye(k, dtype=bool)
    rgba[wrong, :3] = [x / 255 for x in (224, 130, 61)]
    rgba[wrong, 3] = 0.9 * shade[wrong] / top
    ax.imshow(rgba, interpolation="nearest")
    if k <= 16:
        for i, j in zip(*np.nonzero(counts), strict=True):
            ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=_INK)
    if k <= 40:
        ticks = range(k)
        turn = 90 if max(map(len, names)) > 3 else 0
        ax.set_xticks(ticks, [_short(n) for n in names], rotation=turn)
        ax.set_yticks(ticks, [_short(n) for n in names])
    ax.grid(False)
    ax.set(xlabel=f"{student} says", ylabel="teacher says")
    return _svg(figure, "matrix")


def class_losses(
    summary: s.Summary,
    names: Sequence[str],
    teacher: np.ndarray,
    students: Mapping[str, np.ndarray],
    most: int = 24,
) -> str:
    """Mean cross-entropy of each class, teacher and students; the largest gap on top."""
    chosen = s.shown(summary)
    main = (
        students[chosen["name"]]
        if chosen and chosen["name"] in students
        else (next(iter(students.values())))
    )
    gap = main - teacher
    order = [int(i) for i in np.argsort(-np.nan_to_num(gap, nan=-np.inf)) if np.isfinite(gap[i])]
    order = order[:most]
    paint = colors(summary)
    figure, (ax,) = _figure(1, 1, 5.2, 0.26 * len(order) + 1.2)
    y = np.arange(len(order))
    ax.hlines(y, teacher[order], main[order], color=_FAINT, lw=1)
    ax.scatter(teacher[order], y, color=_TEACHER, s=34, label="teacher", zorder=3, lw=0)
    for arm, losses in students.items():
        ax.scatter(
            losses[order],
            y,
            color=paint.get(arm, _TEACHER),
            s=34,
            zorder=3,
            lw=0,
            label=_title(summary, arm),
        )
    ax.set_yticks(y, [_short(names[i]) for i in order])
    ax.invert_yaxis()
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel("cross-entropy, nats")
    _legend(figure, [ax])
    return _svg(figure, "losses")


def follow(student: str, teacher_said: np.ndarray, student_said: np.ndarray, color: str) -> str:
    """Regression: the student's predictions against the teacher's."""
    figure, (ax,) = _figure(1, 1, 4.2, 3.8)
    ends = [
        float(min(teacher_said.min(), student_said.min())),
        float(max(teacher_said.max(), student_said.max())),
    ]
    ax.plot(ends, ends, color=_FAINT, lw=1, ls=(0, (4, 3)))
    ax.scatter(teacher_said, student_said, s=9, alpha=0.5, color=color, lw=0)
    ax.set(xlabel="teacher predicts", ylabel=f"{_short(student, 40)} predicts")
    return _svg(figure, "follow")


def cost_quality(summary: s.Summary) -> str | None:
    """Quality against parameters, latency and training time; None without two arms to compare."""
    metric, paint = summary["task"]["metric"], colors(summary)
    factor = 100 if metric in words.PERCENT else 1
    axes_of = [
        ("parameters", lambda a: s.cost(a, "parameters")),
        ("latency at batch 1, ms", lambda a: s.cost(a, "latency_ms", "1", "p50")),
        ("tokens written a second", lambda a: s.cost(a, "tokens_per_second", "1")),
        ("training time, s", lambda a: s.mean(a, "seconds", "run")),
    ]
    panels = []
    for label, get in axes_of:
        points = [
            (a, x, y)
            for a in s.arms(summary)
            if (x := get(a)) is not None
            and x > 0
            and (y := s.spread(a, metric)) is not None
            and math.isfinite(y.mean)
        ]
        if len(points) > 1:
            panels.append((label, points))
    if not panels:
        return None
    figure, axes = _figure(1, len(panels), 3.2 * len(panels), 3.0)
    for k, (ax, (label, points)) in enumerate(zip(axes, panels, strict=True)):
        for arm, x, y in points:
            half = None if y.half_width is None else factor * y.half_width
            ax.errorbar(
                x,
                factor * y.mean,
                yerr=half,
                fmt="o",
                ms=7,
                capsize=3,
                lw=1.4,
                color=paint.get(arm["name"], _TEACHER),
                label=_title(summary, arm["name"]),
            )
        most, least = max(p[1] for p in points), min(p[1] for p in points)
        if most < 12 * least:
            ax.set_xlim(left=0, right=1.15 * most)
            if most >= 1000:
                _plain_numbers(ax)
        else:
            logarithmic(ax, "x")
            ax.set_xlim(left=least / 2, right=most * 2)
        ax.set_xlabel(label)
        if k == 0:
            lower = "" if s.higher(summary) else " (lower is better)"
            ax.set_ylabel(f"{words.name(metric)} {words.unit(metric)}".strip() + lower)
    _legend(figure, axes)
    return _svg(figure, "cost")


def _title(summary: s.Summary, arm: str) -> str:
    found = s.arm_named(summary, arm)
    return _short(s.title(found) if found else arm, 32)


def _short(text: str, most: int = 18) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    # matplotlib leaves a label that starts with _ out of the legend
    if len(text) > most:  # names of classes often differ at their end alone
        text = f"{text[: most // 2]}…{text[len(text) - (most - 1 - most // 2) :]}"
    return f"\u200b{text}" if text.startswith("_") else text


def _average(by_seed: Mapping[int, Sequence[tuple[float, float]]]) -> tuple[Any, Any]:
    """Mean over the seeds where they were measured at the same places, interpolated elsewhere."""
    lines = [np.asarray(points, dtype=float).T for points in by_seed.values()]
    end = min(line[0].max() for line in lines)
    x = np.unique(np.concatenate([line[0] for line in lines]))
    x = x[(x <= end) & (x >= max(line[0].min() for line in lines))]
    return x, np.mean([np.interp(x, *line) for line in lines], axis=0)


def logarithmic(ax: "Axes", which: str) -> None:
    """A logarithmic axis with plain numbers; matplotlib's own would be written as mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda v, _: _round(v)))
    axis.set_minor_formatter(NullFormatter())


def _plain_numbers(ax: "Axes") -> None:
    """2M instead of 2 and a factor beside the axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _round(v)))


def _round(v: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if v >= size:
            return f"{v / size:g}{letter}"
    return f"{v:g}"


def _lowest(found: Curves) -> float:
    return min((y for by in found.values() for p in by.values() for _, y in p), default=0)


def _highest(found: Curves) -> float:
    return max((y for by in found.values() for p in by.values() for _, y in p), default=0)


def _figure(rows: int, columns: int, width: float, height: float) -> tuple["Figure", list["Axes"]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "font.size": 9,
        "xtick.color": _FAINT,
        "ytick.color": _FAINT,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _FAINT,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.titlesize": 9.5,
        "axes.titleweight": "medium",
        "axes.linewidth": 0.8,
        "text.parse_math": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
        for ax in axes:  # ticks and labels read the style when they are made
            ax.xaxis.get_major_ticks()
            ax.yaxis.get_major_ticks()
    return figure, axes


def _legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside upper left",
            frameon=False,
            ncols=min(len(found), 4 if figure.get_figwidth() > 6 else 2),
            fontsize=8.5,
            labelcolor=_INK,
        )


def _svg(figure: "Figure", name: str) -> str:
    from matplotlib import rc_context

    out = io.StringIO()
    # text stays text (small, selectable, in the page's font) and is never read as mathematics
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}):
        for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
            text.set_parse_math(False)  # type: ignore[attr-defined]
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(
        r"<svg ([^>]*?)width=\"([\d.]+)pt\"([^>]*?)>",
        rf'<svg role="img" aria-label="{name}" \1width="\2pt"\3>',
        svg,
        count=1,
    )
    return svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
