"""Tuning: the same number of trials for each method, on validation, before anything is judged."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import CheckpointError, UserError
from understudy.files import write_json
from understudy.league.entries import Entry, method_of
from understudy.league.table import higher_is_better
from understudy.running import Play, Result

if TYPE_CHECKING:
    from understudy.league.workshop import Workshop

TUNING_SEED = 10_000
"""Its split and its weights are those of no seed that is judged (these count from 0)."""
WEIGHTS = ("weight", "alpha", "beta", "gamma", "delta", "lambda", "eta", "mu")
"""A float setting whose name is one of these, or ends in one, scales a term."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where a setting is looked for, on a log scale."""

    low: float
    high: float
    default: float


def tunable(entry: Entry, kind: str = "single") -> dict[str, Range]:
    """The settings of a method's own that are tuned: weights x [0.1, 10], temperatures 1 to 20.

    Others (places, shares, numbers of steps) stay as published, and so does a weight of zero.
    """
    found: dict[str, Range] = {}
    for name, parameter in inspect.signature(method_of(entry.spec)[1]).parameters.items():
        value = entry.options.get(name, parameter.default)
        if value is None and name == "temperature":  # the setting's own (`Setting.softened`)
            value = 1.0 if kind == "language" else 4.0
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or isinstance(value, bool):
            continue
        if not isinstance(value, int | float) or value <= 0:
            continue
        last = name.rstrip("_").rsplit("_", 1)[-1]
        if last == "temperature":
            found[name] = Range(low=1.0, high=20.0, default=min(max(float(value), 1.0), 20.0))
        elif last in WEIGHTS and isinstance(value, float):
            found[name] = Range(low=0.1 * value, high=10.0 * value, default=value)
    return found


def tune(shop: "Workshop", entry: Entry, seed: int) -> None:
    """The trials of one method, the first with its defaults; each finished one is read.

    The sampler (TPE) is seeded and asked in order, so that a run that was stopped proposes the
    same again, and nothing that is finished is trained twice. Writes `tuned/NAME.json`.
    """
    assert shop.folder is not None
    asked = json.loads((shop.folder / "tuned" / f"{entry.name}.ask.json").read_text())
    trials = int(asked["trials"])
    if found(shop.folder, entry.name, trials) is not None:
        return
    optuna = _optuna()
    ranges = tunable(entry, shop.setting.kind)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    )
    study.enqueue_trial({n: r.default for n, r in ranges.items()})
    shop.teachers(seed)
    rows: list[dict[str, Any]] = []
    for number in range(trials):
        trial = study.ask()
        settings = {n: trial.suggest_float(n, r.low, r.high, log=True) for n, r in ranges.items()}
        score, error = _score(shop, entry, settings, number, seed)
        study.tell(trial, score if math.isfinite(score) else -1e30)
        rows.append({"settings": settings, "score": score, "error": error})
    good = [r for r in rows if r["error"] is None]
    if not good:
        return
    best = max(good, key=lambda r: r["score"])  # of equals the first: the default, if it is one
    content = {
        "trials": trials, "settings": best["settings"], "score": best["score"],
        "default_score": rows[0]["score"], "seed": seed, "rows": rows,
        "ranges": {n: [r.low, r.high] for n, r in ranges.items()},
    }  # fmt: skip
    write_json(shop.folder / "tuned" / f"{entry.name}.json", content)


def found(folder: Path, name: str, trials: int) -> dict[str, Any] | None:
    """What so many trials of a method came to, if they are all made."""
    try:
        known = json.loads((folder / "tuned" / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return known if known["trials"] == trials else None


def _score(
    shop: "Workshop", entry: Entry, settings: Mapping[str, float], number: int, seed: int
) -> tuple[float, str | None]:
    """The validation measure of the last epoch, higher is better; and why there is none."""
    changed = replace(entry, options={**entry.options, **settings})
    recipe = replace(changed(shop.setting), name=f"{entry.name}-trial-{number}")
    play = Play(shop.studio, recipe, seed)
    store = shop.store(seed) if any(s.teacher is not None for s in recipe.stages) else None
    if store is not None:
        from understudy.league.lockstep import FromStore

        play.behind = FromStore(store.stored)
    try:
        result = _played(play)
    except CheckpointError:
        raise
    except UserError as e:
        return -math.inf, str(e)
    task = shop.studio.task(shop.setting, seed)
    value = result.validate.get(task.metric)
    if value is None:
        value, better = result.validate.get("agreement", math.nan), True
    else:
        better = higher_is_better(task.metric)
    return (value if better else -value), None


def _played(play: Play) -> Result:
    from understudy.training.randomness import preserved

    with preserved():
        return play.run()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as e:
        raise UserError('tuning needs Optuna: pip install "understudy[scale]"') from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
