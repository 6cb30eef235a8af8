"""What a measurement found: `study.json` with everything, `study.png` with its curves."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from understudy.files import write_bytes, write_json
from understudy.reporting.figures import logarithmic

MOST = 40
"""Points that are joined to a curve; more are drawn as a cloud."""
CLOUD: dict[str, Any] = {"ls": "", "marker": ".", "ms": 2}


def write_study(folder: Path, name: str, found: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Writes what a study returned for each seed; returns the paths of the files.

    Lists of numbers of one length are drawn against the first of them (the study's own abscissa),
    a line a seed; tensors [N, 2] by name (projections) as points, coloured by `labels`, those of
    `classes` alone where the study names some.
    """
    path = folder / "study.json"
    write_json(path, {"study": name, "seeds": [_plain(f) for f in found]})
    picture = draw(name, found)
    if picture is None:
        return [path]
    image = folder / "study.png"
    write_bytes(image, picture)
    return [path, image]


def figures_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """A study's figures as text: mean and standard deviation over seeds, and each seed's own."""
    names = [k for k in figures[0] if k != "seed"]
    rows = [["figure", "mean +/- sd", *(f"seed {f.get('seed', i)}" for i, f in enumerate(figures))]]
    for name in names:
        values = [f.get(name) for f in figures]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        spread = f" +/- {stdev(numbers):.2g}" if len(numbers) > 1 else ""
        whole = f"{mean(numbers):.4g}{spread}" if len(numbers) == len(values) else "-"
        rows.append([_words(name), whole, *(_short(v) for v in values)])
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in columns)
        for columns in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def draw(name: str, found: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The plots as a PNG; None where there is nothing to draw."""
    curves = _curves(found[0])
    clouds = {
        f"{group} {key}": (value, found[0].get("labels"))
        for group, inner in found[0].items()
        if isinstance(inner, Mapping)
        for key, value in inner.items()
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == 2
    }
    panels = len(curves) - 1 if curves else 0
    if panels + len(clouds) == 0:
        return None
    from matplotlib.figure import Figure

    columns = min(4, panels + len(clouds))
    rows = math.ceil((panels + len(clouds)) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    x, *ys = curves or [""]
    for y in ys:
        ax = next(axes)
        for number, seed in enumerate(found):
            order = sorted(range(len(seed[x])), key=lambda i, s=seed: s[x][i])
            # many points are a cloud, few a curve
            style = {"ls": "-", "marker": "o", "ms": 3} if len(order) <= MOST else CLOUD
            xs, ys_ = [seed[x][i] for i in order], [seed[y][i] for i in order]
            ax.plot(xs, ys_, label=f"seed {seed.get('seed', number)}", **style)
        positive = [v for v in found[0][x] if v > 0]
        if len(positive) == len(found[0][x]) and max(positive) > 20 * min(positive):
            logarithmic(ax, "x")
        ax.set(xlabel=_words(x), title=_words(y))
    if ys and len(found) > 1:
        figure.axes[0].legend(fontsize="x-small")
    shown = found[0].get("classes")
    for title, (points, labels) in clouds.items():
        ax = next(axes)
        colour = labels if isinstance(labels, Tensor) and len(labels) == len(points) else None
        if colour is not None and shown is not None:
            kept = torch.isin(colour, torch.as_tensor(shown))
            points, colour = points[kept], colour[kept]
        ax.scatter(points[:, 0], points[:, 1], s=4, c=colour, cmap="tab10")
        ax.set(title=_words(title))
    for ax in axes:
        ax.set_axis_off()
    figure.suptitle(name)
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()


def _curves(study: Mapping[str, Any]) -> list[str]:
    """Names of the lists of numbers that are as long as the first one."""
    lists = [
        k
        for k, v in study.items()
        if isinstance(v, list | tuple)
        and len(v) > 1
        and all(isinstance(i, int | float) and not isinstance(i, bool) for i in v)
    ]
    return [k for k in lists if len(study[k]) == len(study[lists[0]])]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 4096 else f"tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, torch.dtype | Path):
        return str(value)
    return value
