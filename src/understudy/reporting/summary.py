"""What a run folder says: its summary, checked, and the numbers of an arm over its seeds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import CheckpointError
from understudy.evaluation import Interval, interval

Summary = Mapping[str, Any]
Arm = Mapping[str, Any]

_ORDER = {"teacher": 0, "control": 1, "method": 2}
_TITLES = {"alone": "student alone", "kd": "plain KD", "teacher": "teacher"}


def read_summary(folder: Path) -> dict[str, Any]:
    """`summary.json` of a run folder.

    Raises:
        CheckpointError: there is none, it is no JSON, or it is of a version not known here.
    """
    path = Path(folder) / "summary.json"
    found = read_json(path)
    if found is None:
        raise CheckpointError(
            f"{folder} has no summary.json; it is no finished run folder (finish it with --resume)"
        )
    if not isinstance(found, dict) or "arms" not in found:
        raise CheckpointError(f"{path} is not the summary of a run: it has no arms")
    if found.get("version", 1) != 1:
        raise CheckpointError(
            f"{path} has version {found['version']}, this release reads version 1; upgrade it"
        )
    return found


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def arms(summary: Summary) -> list[Arm]:
    """Teacher, controls, methods; a league's in the order of their ranks, failures last."""
    rows = list(summary["arms"])
    if is_league(summary):
        rank = {id(a): math.inf if a.get("rank") is None else a["rank"] for a in rows}
        sign = -1 if higher(summary) else 1

        def place(arm: Arm) -> tuple[Any, ...]:
            value = mean(arm, summary["task"]["metric"])
            return (
                arm.get("role") != "teacher",
                bool(arm.get("error")),
                rank[id(arm)],
                math.inf if value is None else sign * value,
            )

        return sorted(rows, key=place)
    return sorted(rows, key=lambda a: _ORDER.get(a.get("role", "method"), 2))


def is_league(summary: Summary) -> bool:
    """Whether this is a league table of methods (it has ranks or failures)."""
    return any(a.get("rank") is not None or a.get("error") for a in summary["arms"])


def higher(summary: Summary) -> bool:
    """Whether more of the headline metric is better."""
    return bool(summary["task"].get("higher_is_better", True))


def title(arm: Arm) -> str:
    """What the arm is called where people read it."""
    return str(arm.get("title") or _TITLES.get(arm["name"]) or arm["name"])


def arm_named(summary: Summary, name: str) -> Arm | None:
    """The arm of that name."""
    return next((a for a in summary["arms"] if a["name"] == name), None)


def shown(summary: Summary) -> Arm | None:
    """The student that the run is about: the chosen method's, else plain KD, else any."""
    for name in (summary.get("method"), "kd", "alone"):
        if name and (found := arm_named(summary, name)) is not None:
            return found
    return next((a for a in summary["arms"] if a.get("role") != "teacher"), None)


def runs(arm: Arm) -> Sequence[Mapping[str, Any]]:
    """One entry a seed."""
    return arm.get("runs") or []


def seeds(summary: Summary) -> int:
    """The most seeds that an arm has."""
    return max((len(runs(a)) for a in summary["arms"]), default=0)


def number(value: Any) -> float | None:
    """A JSON value as a number (also "NaN" and "Infinity"), None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def values(arm: Arm, measure: str, which: str = "last") -> list[float]:
    """A measure of every seed that has it; `which`: last, best, or run (seconds, step_ms, ...)."""
    rows: Iterable[Any] = runs(arm)
    if which != "run":
        rows = [r.get(which) or {} for r in rows]
    return [v for r in rows if (v := number(r.get(measure))) is not None]


def spread(arm: Arm, measure: str, which: str = "last") -> Interval | None:
    """Mean and 95 % t interval over the seeds; None without values. Not finite: a mean of NaN."""
    found = values(arm, measure, which)
    if not found:
        return None
    if not all(map(math.isfinite, found)):
        return Interval(mean=math.nan, half_width=None, count=len(found), level=0.95)
    return interval(found)


def mean(arm: Arm, measure: str, which: str = "last") -> float | None:
    """Mean over the seeds; None without values."""
    found = spread(arm, measure, which)
    return None if found is None else found.mean


def cost(arm: Arm, *keys: str) -> float | None:
    """A figure of the arm's cost by its path (`"latency_ms", "1", "p50"`)."""
    at: Any = arm.get("cost") or {}
    for key in keys:
        at = at.get(key) if isinstance(at, Mapping) else None
    return number(at)


def teacher_share(arm: Arm) -> float | None:
    """The teacher's share of the training time, in [0, 1]; None where it was not measured."""
    total, teacher = values(arm, "seconds", "run"), values(arm, "teacher_seconds", "run")
    if arm.get("role") == "teacher" or not teacher or len(total) != len(teacher) or not sum(total):
        return None
    return sum(teacher) / sum(total)


def tokens_per_second(arm: Arm) -> float | None:
    """Tokens that training went through in a second, the teacher's passes in it; mean over seeds."""
    tokens, seconds = values(arm, "tokens", "run"), values(arm, "seconds", "run")
    if not tokens or len(tokens) != len(seconds) or not sum(seconds):
        return None
    return sum(tokens) / sum(seconds)


def measures(summary: Summary) -> list[str]:
    """Names of all measures of any arm: the headline metric, the task's others, then the known."""
    known = ["agreement", "acceptance", "kl", "teacher_mse", "teacher_r2", "ece", "nll"]
    found = {
        k
        for a in summary["arms"]
        for r in runs(a)
        for w in ("last", "best")
        for k in r.get(w) or {}
        if number((r.get(w) or {}).get(k)) is not None
    }
    headline = summary["task"]["metric"]
    others = sorted(found - set(known) - {headline, "epoch", "step"})
    return [headline, *others, *[k for k in known if k in found and k != headline]]
