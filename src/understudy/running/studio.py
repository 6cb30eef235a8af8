"""Where recipes are played: tasks, teachers and results shared between them."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import check_labels
from understudy.errors import MethodRefused, unknown
from understudy.objectives import Needs
from understudy.objectives.gather import processes
from understudy.running.play import Play
from understudy.running.result import Result
from understudy.running.teaching import teaching
from understudy.setting import Made, ModelSpec, Recipe, Setting, Trained, described
from understudy.students import families, input_sizes, load_model
from understudy.tasks.task import Task
from understudy.teachers import Frozen, Teacher
from understudy.training.distribution import Strategy, distribute
from understudy.training.interrupt import Interrupt
from understudy.training.predict import collect
from understudy.training.randomness import preserved, seeded


class Studio:
    """Where recipes are played: one folder, one device, teachers and tasks shared between them.

    What a finished play came to lies in `folder/NAME/seed-K/final` and is read, not repeated;
    an unfinished one continues from its last checkpoint.
    """

    def __init__(
        self,
        folder: str | Path | None,
        *,
        device: torch.device | str = "cpu",
        listeners: Sequence[Callable[[str, dict[str, Any]], None]] = (),
        interrupt: Interrupt | None = None,
        strategy: Strategy = "ddp",
        save_seconds: float | None = 60.0,
        keep_models: bool = True,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.device = torch.device(device)
        self.listeners, self.interrupt = listeners, interrupt
        self.strategy: Strategy = strategy
        self.save_seconds = save_seconds
        self._tasks: dict[Any, Task] = {}
        self._teachers: dict[Any, Any] = {}
        self._heard: dict[Any, Tensor] = {}
        self.results: dict[tuple[str, int], Result] = {}

    def task(self, setting: Setting, seed: int) -> Task:
        """The setting's task as this seed splits it, checked once."""
        key = (setting.task if isinstance(setting.task, Task) else _identity(setting.task), seed)
        key = (id(setting.task), 0) if isinstance(setting.task, Task) else key
        if key not in self._tasks:
            task = setting.task_for(seed)
            for part in ("train", "teach", "validate", "test"):
                source = getattr(task, part)
                if source is not None:
                    check_labels(source, task.kind, task.classes, name=part)
            self._tasks[key] = task
        return self._tasks[key]

    def build(
        self, spec: ModelSpec, setting: Setting, task: Task, seed: int, name: str
    ) -> nn.Module:
        """A model of the cast, its weights drawn from (seed, name) and from nothing else."""
        if isinstance(spec, Made):
            teachers = {n: self.teacher(setting, n, seed) for n in setting.teachers}
            ready = partial(self._part, setting, task, seed, name)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seeded(seed, "init", name))
                return spec.make(teachers, task, ready)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(seed, "init", name))
            if isinstance(spec, nn.Module):
                return copy.deepcopy(spec)
            return load_model(spec, **{**sizes_for(spec, task), **setting.size})

    def _part(
        self,
        setting: Setting,
        task: Task,
        seed: int,
        name: str,
        spec: ModelSpec,
        part: str,
        **sizes: Any,
    ) -> nn.Module:
        own = replace(setting, size={**setting.size, **sizes})
        return self.build(spec, own, task, seed, f"{name}/{part}")

    def teacher(self, setting: Setting, name: str, seed: int, *, shard: bool = False) -> Any:
        """The setting's teacher `name`: ready to teach, trained first where it has to be.

        shard: in a run that is sharded over processes, a language model that was loaded for it is
        sharded as well. All processes must then call it equally often.
        """
        if name not in setting.teachers:
            if not setting.teachers:
                raise MethodRefused("this method learns from a teacher, and the setting has none")
            raise unknown("teacher", name, setting.teachers)
        spec = setting.teachers[name]
        shard = (
            shard
            and setting.kind == "language"
            and self.strategy == "fully_shard"
            and processes() > 1
        )
        key = (name, seed, shard, id(spec) if isinstance(spec, nn.Module) else _identity(spec))
        if key in self._teachers:
            return self._teachers[key]
        call = setting.teacher_call or setting.call
        if isinstance(spec, Trained):
            ready = Frozen(
                self.play(teaching(setting, name), seed).model.to(self.device), call=call
            )
        elif not isinstance(spec, str | Path | nn.Module) and isinstance(spec, Teacher):
            ready = spec
        else:
            task = self.task(setting, seed)
            model = (
                spec if isinstance(spec, nn.Module) else self.build(spec, setting, task, seed, name)
            )
            if shard and not isinstance(spec, nn.Module):  # a user's own module stays as it is
                model = distribute(model.requires_grad_(False).to(self.device), self.strategy)
            ready = Frozen(model.to(self.device), call=call)
        self._teachers[key] = ready
        return ready

    def heard(self, setting: Setting, seed: int, part: str) -> Tensor | None:
        """The first teacher's logits on a part of the task; None without a teacher or its data."""
        name = setting.teacher
        task = self.task(setting, seed)
        source = getattr(task, part)
        if name is None or source is None or task.judge is not None:
            return None
        key = (name, seed, part, id(task))
        if key not in self._heard:
            teacher = self.teacher(setting, name, seed)
            if not teacher.modules():
                teacher = getattr(teacher, "parts", {}).get(part)
                if teacher is None:
                    return None  # a store that knows the training samples only
            teacher = copy.copy(teacher)
            teacher.prepare(Needs(), source.batch(torch.arange(1)).to(self.device))
            said, _ = collect(lambda b: teacher.signals(b.to(self.device)), source)
            self._heard[key] = said
        said = self._heard[key]
        # a teacher of another task has nothing to compare with
        return said if said.shape[-1] == task.classes else None

    def play(self, recipe: Recipe, seed: int = 0) -> Result:
        """Train the recipe with this seed, or continue it, or read what it came to.

        The caller's random state is left as found, so that what comes next does not depend on
        whether this was trained or read.
        """
        play, key = Play(self, recipe, seed), (recipe.name, seed)
        known = self.results.get(key)
        if known is None or self.folder is None or known.fingerprint != play.fingerprint:
            with preserved():
                self.results[key] = play.run()
        return self.results[key]

    def tell(self, kind: str, fields: dict[str, Any]) -> None:
        """Pass an event on to all listeners."""
        for listener in self.listeners:
            listener(kind, fields)


def sizes_for(spec: ModelSpec, task: Task) -> dict[str, Any]:
    """What the task dictates to a model: the classes, and a family's input sizes."""
    sizes: dict[str, Any] = {"classes": task.classes}
    if not isinstance(spec, str) or spec.partition(":")[0] not in families():
        return sizes | ({"task": "causal-lm"} if task.kind == "language" else {})
    inputs = task.example(1).inputs
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()
    own = {k: v for k, v in task.model.items() if k in families()[spec.partition(":")[0]].inputs}
    if task.kind == "language":  # a family's own default need not be enough
        own |= {"length": task.model["length"]}
    missing = set(families()[spec.partition(":")[0]].inputs) - set(own)
    return sizes | (input_sizes(spec, shape) if missing else {}) | own


def _identity(thing: Any) -> str:
    return (
        json.dumps(described(thing), sort_keys=True, default=str)
        if not callable(thing)
        else (f"{getattr(thing, '__qualname__', thing)!s}-{id(thing)}")
    )
