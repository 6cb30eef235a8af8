"""Recipes run by name, on their own setting; and what a run would cost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from understudy.api.distilling import distill
from understudy.api.folders import open_run, split_options
from understudy.api.run import Run
from understudy.files import write_json
from understudy.league import Method, method_of, planned
from understudy.running import Studio
from understudy.setting import (
    Recipe,
    Setting,
    Trained,
    described,
)
from understudy.training.distribution import join, pick_device
from understudy.training.fit import Listener
from understudy.training.interrupt import Interrupt


def play(
    function: Callable[..., Recipe],
    *,
    name: str,
    out: str | Path | None = None,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    callbacks: Sequence[Listener] = (),
    command: str = "",
    smoke: bool = False,
    **options: Any,
) -> Run:
    """Run a recipe on its own setting; a measurement or study gives its figures."""
    setting = function().setting
    if smoke:
        setting = shortened(setting)
    setting, own = split_options(setting, function, options)
    recipe = function(setting, **own)
    if recipe.study is None:
        return distill(
            setting=setting,
            method=_named(name, lambda s: function(s, **own)),
            out=out,
            seeds=seeds,
            controls=False,
            resume=resume,
            overwrite=overwrite,
            device=device,
            callbacks=callbacks,
            command=command,
        )
    join()
    where = pick_device(device)
    config = {"method": name, "recipe": described(recipe), "seeds": seeds, "command": command}
    folder = open_run(out, config, resume=resume, overwrite=overwrite)
    with Interrupt() as interrupt:
        studio = Studio(
            None if folder is None else folder / "checkpoints",
            device=where,
            listeners=callbacks,
            interrupt=interrupt if folder is not None else None,
        )
        found = [studio.play(recipe, seed) for seed in range(seeds)]
    figures = [{"seed": r.seed, **r.last} for r in found]
    summary = {"version": 1, "title": name, "method": name, "arms": [], "figures": figures}
    if folder is not None:
        from understudy.reporting import write_study

        write_json(folder / "summary.json", summary)
        write_study(folder, name, [r.extras for r in found])
    return Run(summary, nn.Identity(), folder, None)


def shortened(setting: Setting, updates: int = 8) -> Setting:
    """The setting with a budget of a few updates, its teachers' too."""
    short = {"steps": updates, "validate_every": 10**6, "validate_steps": None}
    teachers = {
        n: replace(s, budget=replace(s.budget, **short)) if isinstance(s, Trained) else s
        for n, s in setting.teachers.items()
    }
    return replace(setting, budget=replace(setting.budget, **short), teachers=teachers)


def _named(name: str, function: Callable[..., Recipe]) -> Callable[..., Recipe]:
    def recipe(setting: Setting | None = None) -> Recipe:
        return function(setting)

    recipe.__name__ = name
    return recipe


def plan(
    setting: Setting,
    method: Method,
    *,
    seeds: int = 1,
    controls: bool = True,
    device: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Time, memory, disk and money of every stage, from a few timed updates; trains nothing."""
    from understudy.recipes.controls import alone, kd

    name, function = method_of(method)
    setting, own = split_options(setting, function, options)
    arms: dict[str, Any] = {"alone": alone} if controls else {}
    if controls and setting.teachers:
        arms["kd"] = kd
    arms[name] = lambda s: function(s, **own)
    return planned(Studio(None, device=pick_device(device)), setting, arms, seeds)
