"""Several recipes on one setting, side by side: what `distill` and `compare` stand on."""

import contextlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.data import Texts
from understudy.errors import UserError
from understudy.evaluation import (
    flops,
    generation_speed,
    latency,
    metric,
    paired_test,
    parameters,
)
from understudy.files import write_json, write_tensors, write_text
from understudy.league.writing import WRITTEN, written
from understudy.recipes.controls import alone, kd
from understudy.running import FINAL, Play, Result, Studio, measures, teaching
from understudy.setting import Recipe, Setting, Trained, described
from understudy.signals import Factored, Signals, as_call
from understudy.tasks.task import Task
from understudy.training.distribution import is_sharded
from understudy.training.predict import predict

RecipeFunction = Callable[[Setting], Recipe]
SIGNIFICANT = 0.05


class League:
    """Arms (recipes) on one setting, several seeds, the same teacher and data for all.

    `play` trains what is missing and returns the summary; `summary.json`, `events.jsonl` and
    `predictions.safetensors` in the folder are written again after every finished arm.
    """

    def __init__(
        self,
        studio: Studio,
        setting: Setting,
        methods: Mapping[str, RecipeFunction],
        *,
        seeds: Sequence[int] = (0,),
        controls: bool = True,
        folder: Path | None = None,
        chosen: str | None = None,
        title: str | None = None,
        command: str = "",
        keep_going: bool = False,
        seconds: float | None = None,
    ) -> None:
        self.studio, self.setting, self.folder = studio, setting, folder
        self.seeds, self.chosen, self.command = tuple(seeds), chosen, command
        self.title = title or setting.name
        self.keep_going, self.seconds = keep_going, seconds
        self.arms: dict[str, RecipeFunction] = {}
        if controls:
            self.arms["alone"] = alone
            if setting.teachers:
                self.arms["kd"] = kd
        self.arms |= methods
        self.roles = {n: "method" if n in methods else "control" for n in self.arms}
        if controls and chosen not in (None, "kd") and "kd" in self.arms:
            self.roles["kd"] = "control"
        self.results: dict[str, list[Result]] = {n: [] for n in self.arms}
        self.teachers: list[Result] = []
        self.errors: dict[str, str] = {}
        self.costs: dict[str, dict[str, Any]] = {}
        self.judged: dict[str, dict[str, float]] = {}
        self.began = time.monotonic()

    def play(self) -> dict[str, Any]:
        """Every arm with every seed; what is finished is read."""
        first = self.seeds[0]
        order = [(arm, seed) for seed in self.seeds for arm in self._order(seed == first)]
        longest = 0.0
        for arm, seed in order:
            if arm in self.errors:
                continue
            spent = time.monotonic() - self.began
            started = (arm, seed) == order[0]
            if self.seconds is not None and not started and spent + longest > self.seconds:
                break  # the budget is spent; what exists is whole
            begun = time.monotonic()
            try:
                self.results[arm].append(self.studio.play(self.arms[arm](self.setting), seed))
            except UserError as e:
                if not self.keep_going or arm in ("alone", "kd"):
                    raise
                self.errors[arm] = str(e)
            longest = max(longest, time.monotonic() - begun)
            self._write()
        return self.summary()

    def _order(self, first: bool) -> list[str]:
        names = list(self.arms)
        if self.chosen in names and self.seconds is not None:
            # under a budget of time the user's own pair comes first
            names.remove(self.chosen)
            names.insert(0, self.chosen)
        return names

    def _write(self) -> None:
        if self.folder is None:
            return
        write_json(self.folder / "summary.json", self.summary())
        self._merge_events()

    def summary(self) -> dict[str, Any]:
        """The table's content, as plain JSON."""
        task = self.studio.task(self.setting, self.seeds[0])
        arms = [self._teacher_arm(task)] if self.setting.teachers else []
        for name in self.arms:
            role = "method" if name == self.chosen else self.roles[name]
            runs = [r.row() for r in self.results[name]]
            if not runs and name not in self.errors:
                continue
            arm: dict[str, Any] = {"name": name, "role": role, "title": _title(name), "runs": runs}
            if name in self.errors:
                arm["error"] = self.errors[name]
            if self.results[name]:
                arm["cost"] = self._cost(self.results[name][0].model, task, name)
            arms.append(arm)
        budget = self.setting.budget
        return {
            "version": 1,
            "title": self.title,
            "method": self.chosen,
            "command": self.command,
            "task": {
                "name": task.name,
                "kind": task.kind,
                "classes": task.classes,
                "metric": task.metric,
                "higher_is_better": higher_is_better(task.metric),
                "labels": list(task.labels) if task.labels else None,
                "train": len(task.train),
                "labelled": int(task.train.labelled.sum()),
                "validate": len(task.validate),
                "test": len(task.test) if task.test is not None else None,
                "notes": list(task.extras.get("notes", ())),
            },
            "split": "test" if task.test is not None else "validate",
            "protocol": {
                "epochs": budget.epochs if budget.times == 1 else budget.times * budget.epochs,
                "steps": None if budget.steps is None else budget.updates(lambda _: 0),
                "batch_size": budget.batch_size,
                "lr": budget.lr,
                "seeds": len(self.seeds),
                "note": "seed k uses split k" if not isinstance(self.setting.task, Task) else "",
            },
            "arms": arms,
            "comparisons": self._comparisons(task),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": str(self.studio.device),
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - self.began, 1),
        }

    def _trained(self, name: str, seed: int) -> bool:
        """Whether a teacher is ready, here or (of other processes) on disk."""
        folder = self.studio.folder
        done = folder is not None and (folder / name / f"seed-{seed}" / FINAL).exists()
        return done or (name, seed) in self.studio.results

    def _teacher_arm(self, task: Task) -> dict[str, Any]:
        name = self.setting.teacher
        assert name is not None
        spec = self.setting.teachers[name]
        rows = []
        for seed in self.seeds:
            if isinstance(spec, Trained) and self._trained(name, seed):
                rows.append(self.studio.play(teaching(self.setting, name), seed).row())
            elif not isinstance(spec, Trained) and seed == self.seeds[0]:
                found = self._teacher_measures(task, name, seed)
                if found is not None:
                    rows.append(
                        {
                            "seed": seed,
                            "last": found,
                            "best": found,
                            "best_epoch": None,
                            "seconds": 0.0,
                            "teacher_seconds": 0.0,
                            "steps": 0,
                        }
                    )
        arm: dict[str, Any] = {"name": name, "role": "teacher", "title": "teacher", "runs": rows}
        if rows:
            ready = self.studio.teacher(self.setting, name, self.seeds[0], shard=True)
            modules = list(ready.modules().values())
            if modules:
                arm["cost"] = self._cost(modules[0], task, name, teacher=True)
        return arm

    def _teacher_measures(self, task: Task, name: str, seed: int) -> dict[str, float] | None:
        """Of a teacher that was not trained here; None where nobody can say."""
        part = "test" if task.test is not None else "validate"
        if task.judge is None:
            heard = self.studio.heard(self.setting, seed, part)
            return (
                None if heard is None else measures(task, heard, _labels(getattr(task, part)), None)
            )
        if name not in self.judged:
            teacher = self.studio.teacher(self.setting, name, seed, shard=True)
            models = list(teacher.modules().values())
            if len(models) != 1:
                return None
            call = as_call(self.setting.teacher_call or self.setting.call)
            self.judged[name] = task.judge.measures(models[0], task, part, call, None)
        return self.judged[name]

    def _cost(
        self, model: nn.Module, task: Task, name: str, *, teacher: bool = False
    ) -> dict[str, Any]:
        """Parameters, FLOPs and latency; measured once for models of one structure."""
        key = f"{teacher}{[(n, tuple(p.shape)) for n, p in model.named_parameters()]}"
        if key not in self.costs:
            call = as_call((self.setting.teacher_call if teacher else None) or self.setting.call)
            device = self.studio.device

            def prepare(size: int) -> Callable[[], Any]:
                index = torch.arange(size) % len(task.validate)
                batch = task.validate.batch(index).to(device)
                return lambda: call(model, batch)

            model.eval().to(device)
            count = parameters(model)
            one = task.validate.batch(torch.arange(1)).to(device)
            found: dict[str, Any] = {"parameters": count.count, "bytes": count.bytes}
            if any(is_sharded(p) for p in model.parameters()):
                return found  # processes would time it differently often, and wait for each other
            try:
                found["flops"] = flops(model, lambda m: _whole(call(m, one)))
            except Exception:  # a counter that does not know an operation is no reason to stop
                found["flops"] = None
            if isinstance(task.validate, Texts):
                if found["flops"] is not None:  # of one token, as language models are counted
                    found["flops"] /= int(task.validate.lengths[0])
                found |= _speeds(model, task.validate)
            else:
                rows = latency(prepare, (1, 256), quick=True)
                found["latency_ms"] = {
                    str(r.batch_size): {"p50": r.p50, "p95": r.p95} for r in rows
                }
            found["threads"] = torch.get_num_threads()
            self.costs[key] = found
        return self.costs[key]

    def _comparisons(self, task: Task) -> list[dict[str, Any]]:
        names = (
            [self.chosen] if self.chosen else [n for n, r in self.roles.items() if r == "method"]
        )
        found = []
        for name in names:
            for control in ("alone", "kd"):
                if (
                    name == control
                    or not self.results.get(control)
                    or not self.results.get(name or "")
                ):
                    continue
                found.append(_compared(task, name or "", control, self.results))
        return found

    def _merge_events(self) -> None:
        assert self.folder is not None
        parts = []
        root = self.studio.folder
        if root is None:
            return
        for path in sorted(root.glob("*/seed-*/events.jsonl")):
            parts.append(path.read_text())
        write_text(self.folder / "events.jsonl", "".join(parts))

    def write_predictions(self) -> dict[int, Tensor]:
        """`predictions.safetensors` for the first seed; returns inputs on which models differ."""
        seed = self.seeds[0]
        task = self.studio.task(self.setting, seed)
        part = "test" if task.test is not None else "validate"
        if task.judge is not None:
            self._write_texts(task, part, seed)  # logits of all positions are too many to keep
            return {}
        source = getattr(task, part)
        found: dict[str, Tensor] = {"index": _index(source)}
        labels = _labels(source)
        if labels is not None:
            found["labels"] = labels
        heard = self.studio.heard(self.setting, seed, part)
        if heard is not None:
            found["teacher"] = heard
        for name, results in self.results.items():
            if results:
                said, _ = predict(results[0].model, source, call=as_call(self.setting.call))
                found[f"student/{name}"] = said
        if self.folder is not None:
            write_tensors(
                self.folder / "predictions.safetensors",
                {k: v.contiguous() for k, v in found.items()},
            )
        shown = self.chosen or next((n for n in reversed(self.results) if self.results[n]), None)
        if heard is None or shown is None or task.kind != "single":
            return {}
        differ = (heard.argmax(-1) != found[f"student/{shown}"].argmax(-1)).nonzero().flatten()[:24]
        if not len(differ):
            return {}
        batch = source.batch(differ)
        texts = task.extras.get("texts", {}).get(part)
        if texts is not None:
            return {int(batch.index[i]): texts[int(row)] for i, row in enumerate(differ)}  # pyright: ignore
        if not isinstance(batch.inputs, Tensor) or batch.index is None:
            return {}
        return {int(i): x for i, x in zip(batch.index, batch.inputs, strict=True)}

    def _write_texts(self, task: Task, part: str, seed: int) -> None:
        """`written.json`: how the teacher and each arm go on with a few texts."""
        if self.folder is None:
            return
        models: dict[str, nn.Module] = {}
        if (name := self.setting.teacher) is not None:
            teachers = list(self.studio.teacher(self.setting, name, seed).modules().values())
            models |= {name: teachers[0]} if len(teachers) == 1 else {}
        models |= {arm: results[0].model for arm, results in self.results.items() if results}
        found = written(task, part, models)
        if found:
            write_json(self.folder / WRITTEN, {"texts": found})


def planned(
    studio: Studio,
    setting: Setting,
    arms: Mapping[str, RecipeFunction],
    seeds: int,
    *,
    updates: int = 6,
) -> list[dict[str, Any]]:
    """What each arm would cost, from a few timed updates; nothing is trained.

    Teachers that would have to be trained are timed as such and stand in untrained.
    """
    from understudy.evaluation import peak_memory

    ready = {n: s.model if isinstance(s, Trained) else s for n, s in setting.teachers.items()}
    jobs = {n: teaching(setting, n) for n, s in setting.teachers.items() if isinstance(s, Trained)}
    jobs |= {n: f(replace(setting, teachers=ready)) for n, f in arms.items()}
    rows = []
    for name, recipe in jobs.items():
        if not recipe.stages:
            rows.append({"arm": name, "note": "a study; not timed"})
            continue
        task = studio.task(setting, 0)
        brief = {"steps": updates, "validate_every": 10**9, "validate_steps": None}
        for stage in recipe.stages:
            short = replace(
                stage,
                share=1.0,
                carry="last",
                budget={**stage.budget, **brief},
            )
            probe = Play(
                Studio(None, device=studio.device),
                replace(recipe, stages=(short,), judged=stage.learners[0]),
                0,
            )
            if isinstance(stage.teacher, str) and stage.teacher not in ready:
                stand_in = replace(short, teacher=next(iter(ready), None))
                probe.recipe = replace(probe.recipe, stages=(stand_in,))
            with peak_memory(studio.device) as memory:
                result = probe.run()
            full = Play(studio, recipe, 0)
            full.task = task
            budget = full._budget(stage)
            steps = budget.updates(full._loader(stage, budget).steps)
            size = sum(p.numel() * p.element_size() for p in result.model.parameters())
            per = result.seconds / max(result.steps, 1)
            rows.append(
                {
                    "arm": name,
                    "stage": stage.name,
                    "updates": steps * seeds,
                    "seconds": per * steps * seeds,
                    "step_ms": 1e3 * per,
                    "teacher_share": result.teacher_seconds / max(result.seconds, 1e-9),
                    "memory_mb": memory.peak / 2**20,
                    "disk_mb": seeds * 2 * size / 2**20,
                    "money": 0.0,
                }
            )
    return rows


def _compared(
    task: Task, name: str, control: str, results: Mapping[str, list[Result]]
) -> dict[str, Any]:
    better = higher_is_better(task.metric)
    mine = {r.seed: r.last.get(task.metric) for r in results[name]}
    theirs = {r.seed: r.last.get(task.metric) for r in results[control]}
    seeds = [s for s in mine if s in theirs and mine[s] is not None and theirs[s] is not None]
    found: dict[str, Any] = {"arm": name, "against": control, "seeds": len(seeds)}
    if not seeds:
        return found | {
            "difference": None,
            "interval": None,
            "p": None,
            "verdict": "no labels: not compared",
        }
    a, b = np.array([mine[s] for s in seeds], float), np.array([theirs[s] for s in seeds], float)
    test = paired_test(a, b)
    half = None
    if len(seeds) > 1:
        from understudy.evaluation import interval

        half = interval(a - b).half_width
    if test.p is None:
        verdict = "one seed: no interval"
    elif test.p < SIGNIFICANT:
        verdict = "better" if (test.difference > 0) == better else "worse"
    else:
        verdict = "inside the noise"
    return found | {
        "difference": test.difference,
        "interval": half,
        "p": test.p,
        "verdict": verdict,
    }


def _whole(said: Any) -> Any:
    """What a call gave, with the logits made where it gave the parts that they are made of."""
    return Signals(logits=said).dense if isinstance(said, Factored) else said


def _speeds(model: nn.Module, texts: Texts) -> dict[str, Any]:
    """Tokens a second that a language model writes, by texts at once; nothing where it cannot."""
    prompts = [texts.tokens(row)[:16] for row in range(min(16, len(texts)))]
    prompts = [p for p in prompts if len(p) == len(prompts[0])]
    found = {}
    for size in dict.fromkeys((1, len(prompts))):
        with contextlib.suppress(UserError, TypeError, AttributeError):
            found[str(size)] = generation_speed(model, prompts[:size], new=32)
    return {"tokens_per_second": found} if found else {}


def higher_is_better(name: str) -> bool:
    """Of a headline metric; agreement with the teacher judges where there are no labels."""
    return name == "agreement" or metric(name).higher_is_better


def _labels(source: Any) -> Tensor | None:
    parts = [source.batch(i).labels for i in torch.arange(len(source)).split(512)]
    known = [p for p in parts if p is not None]
    return torch.cat(known) if known else None


def _index(source: Any) -> Tensor:
    parts = [source.batch(i).index for i in torch.arange(len(source)).split(512)]
    return (
        torch.cat([p for p in parts if p is not None])
        if parts[0] is not None
        else torch.arange(len(source))
    )


def _title(name: str) -> str:
    return {"alone": "student alone", "kd": "plain KD"}.get(name, name)


__all__ = ["League", "described", "planned"]
