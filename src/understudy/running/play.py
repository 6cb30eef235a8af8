"""One recipe with one seed: stages trained, saved, continued, and the student judged."""

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from understudy.algorithms import Plain, Scene
from understudy.data import Arrays, Indexed, Loader, Opaque, Order, Source, Subset
from understudy.errors import CheckpointError, MethodRefused, UserError, unknown
from understudy.evaluation import fidelity, metric
from understudy.objectives import Needs, total
from understudy.objectives.gather import processes
from understudy.running.result import Result, measures
from understudy.setting import Recipe, Stage, described
from understudy.signals import Batch, Signals, as_call
from understudy.teachers import Ensemble, Frozen, Teacher
from understudy.training import checkpoint
from understudy.training.budget import Budget
from understudy.training.distribution import (
    barrier,
    capture_random,
    full_state,
    rank,
    restore_random,
)
from understudy.training.events import EventLog
from understudy.training.fit import Fit
from understudy.training.predict import predict
from understudy.training.randomness import preserved, seed_all, seeded

if TYPE_CHECKING:
    from understudy.running.studio import Studio

FINAL = "final"


class Timed:
    """A teacher whose time is counted."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.seconds = teacher, 0.0

    def prepare(self, needs: Needs, example: Batch) -> None:
        """As the teacher's."""
        self.teacher.prepare(needs, example)

    def signals(self, batch: Batch) -> Signals:
        """As the teacher's."""
        began = time.perf_counter()
        said = self.teacher.signals(batch)
        if isinstance(said.logits, Tensor) and said.logits.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - began
        # a pass that another student paid for counts here as well
        self.seconds += getattr(self.teacher, "spared", 0.0)
        return said

    def modules(self) -> Mapping[str, nn.Module]:
        """As the teacher's."""
        return self.teacher.modules()


class Behind(Protocol):
    """What several plays share: the batches and what the teacher says about them."""

    def loader(self, loader: Loader) -> Loader:
        """The play's batches, from where all take them."""
        ...

    def teacher(self, stage: Stage, teacher: Teacher) -> Teacher:
        """What serves this stage in the teacher's place, or the teacher."""
        ...


class Play:
    """One recipe with one seed."""

    def __init__(self, studio: "Studio", recipe: Recipe, seed: int) -> None:
        self.studio, self.recipe, self.seed = studio, recipe, seed
        self.setting = recipe.setting
        self.folder = (
            None if studio.folder is None else studio.folder / recipe.name / f"seed-{seed}"
        )
        self.description = _telling(described(recipe)) | {"seed": seed}
        self.fingerprint = hashlib.sha256(
            json.dumps(self.description, sort_keys=True, default=str).encode()
        ).hexdigest()[:16]
        self.stage = 0
        self.teacher_seconds = 0.0
        self.writing_seconds = 0.0
        self.steps = 0
        self.tokens = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.log: EventLog | None = None
        self.behind: Behind | None = None
        self.fit: Fit | None = None
        self.result: Result | None = None

    def run(self) -> Result:
        """To the end, from wherever it stands."""
        for _ in self.updates():
            pass
        assert self.result is not None
        return self.result

    def updates(self) -> Iterator[None]:
        """To the end, standing still after every update; `result` is what it came to."""
        try:
            if self.recipe.study is not None:
                self.result = self._study()
            else:
                yield from self._stages()
        finally:
            if self.log is not None:
                self.log.close()

    @property
    def finished(self) -> bool:
        """Whether its result lies in the folder already."""
        return self.folder is not None and (self.folder / FINAL).exists()

    def _study(self) -> Result:
        """What the study finds. What it trains is played, and so resumes, by itself."""
        assert self.recipe.study is not None
        state = self._found()
        if state is None:
            began = time.perf_counter()
            seed_all(seeded(self.seed, "study"))
            found = self.recipe.study(self.studio, self.seed)
            state = {"finished": True, "study": found, "seconds": time.perf_counter() - began}
            self._finish(state)
        found = dict(state["study"])
        numbers = {k: float(v) for k, v in found.get("figure", {}).items() if _number(v)}
        return Result(
            name=self.recipe.name,
            seed=self.seed,
            last=numbers,
            best=numbers,
            best_epoch=None,
            validate={},
            seconds=state["seconds"],
            teacher_seconds=0.0,
            steps=0,
            model=nn.Module(),
            best_state={},
            extras=found,
            fingerprint=self.fingerprint,
        )

    def cast(self) -> None:
        """The task and the models, made ready; refused where the setting cannot serve."""
        self.task = self.studio.task(self.setting, self.seed)
        for stage in self.recipe.stages:
            self._admit(stage)
        self.models = {
            name: _learnable(
                self.studio.build(
                    self.recipe.cast.get(name, self.setting.student),
                    self.setting,
                    self.task,
                    self.seed,
                    name,
                )
            )
            for stage in self.recipe.stages
            for name in stage.learners
        }
        if self.setting.warm_start is not None:
            from understudy.students import put_state, read_state

            path = Path(self.setting.warm_start)
            path = path / "model.safetensors" if path.is_dir() else path
            if not path.is_file():
                raise UserError(f"{path}: there are no such weights to start from")
            put_state(self.models[self.recipe.judged], read_state(path), str(path))

    def _stages(self) -> Iterator[None]:
        self.cast()
        state = self._found()
        if state is not None and state.get("finished"):
            self.result = self._restored(state)
            return
        if self.folder is not None and rank() == 0:
            self.log = EventLog(self.folder / "events.jsonl")
        # samples differ between processes, and so must what is drawn for them
        seed_all(seeded(self.seed, "train", *([rank()] if rank() else [])))
        if state is not None:
            self._load(state)
        elif self.log is not None:
            self.log.truncate_to(-1, events=0)
        fit_state = None if state is None else state["fit"]
        while self.stage < len(self.recipe.stages):
            yield from self._train(self.recipe.stages[self.stage], fit_state)
            fit_state = None
            self.stage += 1
            if self.stage < len(self.recipe.stages):
                self._save(None)
        self.result = self._judge()

    def rehearse(self) -> None:
        """All up to the first update of every stage, so that what cannot work is refused here.

        Nothing is trained, written or kept; the task's data stands in for data made on the way.
        """
        if self.recipe.study is not None:
            return
        with preserved():
            self.cast()
            for stage in self.recipe.stages:
                self.begin(replace(stage, source=None))

    def _admit(self, stage: Stage) -> None:
        """Refuse what this setting cannot serve, before anything is trained."""
        labelled = self.task.teach if stage.data == "teach" and self.task.teach else self.task.train
        terms = list(total(stage.objective))
        supervised = [n for n, _, o in terms if o.needs.labels]
        # beside a term on the teacher, one on labels is idle where there are none; alone it is not
        if (
            stage.source is None
            and len(supervised) == len(terms)
            and not bool(labelled.labelled.any())
        ):
            raise MethodRefused(
                f"{self.recipe.name} needs labels ({', '.join(supervised)}), and "
                f"{labelled_name(stage)} has none; methods on the teacher's output alone, such as "
                "--method kd, do without"
            )
        for name in _names(stage.teacher):
            known = {*self.setting.teachers, *(n for s in self.recipe.stages for n in s.learners)}
            if name not in known:
                if not self.setting.teachers:
                    raise MethodRefused(
                        f"{self.recipe.name} learns from a teacher, and the setting has none"
                    )
                raise unknown("teacher", name, known)

    def _budget(self, stage: Stage) -> Budget:
        budget = replace(self.setting.budget, **dict(stage.budget))
        return budget if stage.share == 1.0 else budget.lasting(stage.share)

    def _loader(self, stage: Stage, budget: Budget) -> Loader:
        task = self.task
        if isinstance(task.train, Opaque):
            if stage.source is not None:
                raise MethodRefused(
                    f"{self.recipe.name} chooses among the samples; give data that is read by index"
                )
            return task.train
        full: Source = task.train
        source: Source = (task.teach or full) if stage.data == "teach" else full
        repeat = 1
        if stage.source is not None:
            source = stage.source(self)
        labelled = source.labelled
        share = budget.labelled_share if stage.data == "train" else None
        if stage.source is not None and (share is None or bool(labelled.all())):
            steps = self._order(full, full.labelled, budget, budget.labelled_share).batches(0)
            repeat = max(1, round(len(steps) * budget.batch_size / len(source)))
        if stage.data == "labelled" and not bool(labelled.all()):
            rows = labelled.nonzero().flatten()
            source = source.subset(rows) if isinstance(source, Arrays) else Subset(source, rows)
            steps = self._order(full, full.labelled, budget, budget.labelled_share).batches(0)
            repeat = max(1, round(len(steps) * min(budget.batch_size, len(rows)) / len(rows)))
            labelled = torch.ones(len(rows), dtype=torch.bool)
            budget = replace(budget, batch_size=min(budget.batch_size, len(rows)))
        if share is not None and bool(labelled.all()):
            share = None
        order = self._order(source, labelled, budget, share, repeat)
        view = stage.view or task.view
        loader: Loader = Indexed(
            source, order, view=view, rank=rank(), world=processes(), device=self.studio.device
        )
        return loader if stage.loader is None else stage.loader(self, loader)

    def _order(
        self, source: Source, labelled: Tensor, budget: Budget, share: float | None, repeat: int = 1
    ) -> Order:
        return Order(
            size=len(source),
            batch_size=budget.batch_size,
            seed=seeded(self.seed, "order") % 2**31,
            drop_last=budget.drop_last,
            labelled_share=share,
            labelled=labelled if share is not None else None,
            repeat=repeat,
        )

    def _teacher(self, stage: Stage) -> Timed | None:
        names = _names(stage.teacher)
        if not names:
            return None
        found: list[Teacher] = [
            Frozen(self.models[n].to(self.studio.device), call=self.setting.call)
            if n in self.models
            else self.studio.teacher(self.setting, n, self.seed, shard=self._in_step())
            for n in names
        ]
        one = found[0] if len(found) == 1 else Ensemble(found, weights=stage.weights)
        if self.behind is not None and not any(n in self.models for n in names):
            one = self.behind.teacher(stage, one)
        return Timed(one)

    def _in_step(self) -> bool:
        """Whether all processes call the teacher equally often: with every batch, once."""
        return all(
            s.algorithm is Plain and s.loader is None and s.source is None
            for s in self.recipe.stages
        )

    def begin(self, stage: Stage) -> Fit:
        """The stage's loop, before its first update: taps are checked, connectors built."""
        budget = self._budget(stage)
        loader = self._loader(stage, budget)
        if self.behind is not None:
            loader = self.behind.loader(loader)
        teacher = self._teacher(stage)
        scene = Scene(
            learners={n: self.models[n] for n in stage.learners},
            teacher=teacher,
            objective=copy.deepcopy(total(stage.objective)),
            example=loader.example(),
            call=as_call(self.setting.call),
            seed=seeded(self.seed, "algorithm") % 2**31,
            extras={"loader": loader},
        )
        self._timer = teacher
        return Fit(
            stage.algorithm(),
            scene,
            loader,
            budget,
            validate=self._validate,
            save=self._save,
            save_seconds=self.studio.save_seconds if self.folder is not None else None,
            listeners=[self._listen],
            interrupt=self.studio.interrupt,
            device=self.studio.device,
            strategy=self.studio.strategy,
        )

    def _train(self, stage: Stage, state: dict[str, Any] | None) -> Iterator[None]:
        if stage.before is not None and state is None:
            stage.before(self.models)
        sharding = self.studio.strategy == "fully_shard" and processes() > 1
        copies = {n: copy.deepcopy(self.models[n]) for n in stage.learners if sharding}
        fit = self.fit = self.begin(stage)
        self._teacher_before = self.teacher_seconds
        if state is not None:
            fit.load_state_dict(state)
        yield from fit.updates()
        self.steps += fit.step.number
        self.tokens += fit.tokens
        self.seconds += fit.seconds
        self.teacher_seconds = self._spent()
        self._timer = None
        self.writing_seconds += getattr(fit.loader, "seconds", 0.0)
        self.history += [{"stage": stage.name, **h} for h in fit.history]
        judged, first = fit.algorithm.judged(), stage.learners[0]
        averaged = judged is not self.models[first]
        for name, model in copies.items():
            # between stages models are whole
            model.load_state_dict(full_state(self.models[name]))
            self.models[name] = model.to(self.studio.device)
        if stage.carry == "best" and fit.best is not None:
            self.models[first].load_state_dict(fit.best["model"])
        elif averaged:
            self.models[first].load_state_dict(full_state(judged))
        self.best = fit.best

    def _validate(self, model: nn.Module) -> dict[str, float]:
        """The headline metric on the validation split; agreement where it has no labels."""
        task = self.task
        if task.judge is not None:
            found = task.judge.validate(model, task, as_call(self.setting.call))
            value = found[task.metric]
            return {**found, "score": value if metric(task.metric).higher_is_better else -value}
        said, labels = predict(model, task.validate, call=as_call(self.setting.call))
        if labels is not None and bool(task.validate.labelled.any()):
            chosen = metric(task.metric)
            value = chosen(said, labels, task.kind)
            return {task.metric: value, "score": value if chosen.higher_is_better else -value}
        heard = self.studio.heard(self.setting, self.seed, "validate")
        if heard is None:
            return {"score": 0.0}
        if task.kind == "regression":
            value = fidelity.teacher_mse(said, heard)
            return {"teacher_mse": value, "score": -value}
        value = fidelity.agreement(said, heard, kind=task.kind)
        return {"agreement": value, "score": value}

    def _listen(self, kind: str, fields: dict[str, Any]) -> None:
        stage = self.recipe.stages[self.stage]
        fields = {"arm": self.recipe.name, "seed": self.seed, "stage": stage.name, **fields}
        if self.log is not None and kind in ("epoch", "validate"):
            step = fields["step"] + self.steps
            rest = {k: v for k, v in fields.items() if k not in ("step", "epoch")}
            self.log.write(kind, step=step, epoch=fields["epoch"], **rest)
        self.studio.tell(kind, {**fields, "stages": len(self.recipe.stages), "number": self.stage})

    def _spent(self) -> float:
        timer = getattr(self, "_timer", None)
        return self._teacher_before + timer.seconds if timer is not None else self.teacher_seconds

    def _save(self, fit: Fit | None) -> None:
        if self.folder is None:
            return
        state = {
            "finished": False,
            "stage": self.stage,
            "models": {n: _cpu(m.state_dict()) for n, m in self.models.items()}
            if fit is None
            else {
                n: _cpu(m.state_dict())
                for n, m in self.models.items()
                if n not in self.recipe.stages[self.stage].learners
            },
            "fit": None if fit is None else fit.state_dict(),
            "random": capture_random(),
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "teacher_seconds": self._spent(),
            "writing_seconds": self.writing_seconds,
            "history": self.history,
            "best": self.best,
            "events": 0 if self.log is None else len(self.log),
        }
        if rank() == 0:
            if self.log is not None:
                self.log.sync()
            number = self.steps + (0 if fit is None else fit.step.number)
            name = f"step-{self.stage:02d}{number:08d}"
            if not (self.folder / name).exists():
                checkpoint.save(self.folder, name, state, meta=self._meta())
            checkpoint.prune(self.folder, self.setting.budget.keep)
        barrier()

    def _meta(self) -> dict[str, Any]:
        return {"recipe": self.recipe.name, "seed": self.seed, "fingerprint": self.fingerprint}

    def _found(self) -> dict[str, Any] | None:
        """The newest whole checkpoint, refused where it is another recipe's."""
        if self.folder is None or not self.folder.exists():
            return None
        path = self.folder / FINAL
        if not path.exists():
            path = checkpoint.latest(self.folder)
        if path is None:
            return None
        state, meta = checkpoint.load(path)
        if meta["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{path} is a checkpoint of another recipe (of {meta['recipe']!r} with other "
                "settings); give the settings it was started with, or another --out"
            )
        return state

    def _load(self, state: dict[str, Any]) -> None:
        self.stage, self.steps = state["stage"], state["steps"]
        self.tokens = state.get("tokens", 0)
        self.seconds, self.teacher_seconds = state["seconds"], state["teacher_seconds"]
        self.writing_seconds = state.get("writing_seconds", 0.0)
        self.history, self.best = state["history"], state["best"]
        for name, own in state["models"].items():
            self.models[name].load_state_dict(own)
        restore_random(state["random"])
        if self.log is not None:
            self.log.truncate_to(state["steps"], events=state["events"])

    def _judge(self) -> Result:
        """Measure last and best on the judged split, and keep both."""
        model = self.models[self.recipe.judged]
        last_state = _cpu(model.state_dict())
        best = self.best
        best_state = best["model"] if best is not None else last_state
        part = "test" if self.task.test is not None else "validate"
        last = self._measures(model, part)
        validate = self._measures(model, "validate")
        if best is None:
            best_measures, best_epoch = last, None
        elif all(torch.equal(v, last_state[k]) for k, v in best_state.items()):
            best_measures, best_epoch = last, best["epoch"]
        else:
            model.load_state_dict(best_state)
            best_measures, best_epoch = self._measures(model, part), best["epoch"]
            model.load_state_dict(last_state)
        result = Result(
            name=self.recipe.name,
            seed=self.seed,
            last=last,
            best=best_measures,
            best_epoch=best_epoch,
            validate=validate,
            seconds=self.seconds,
            teacher_seconds=self.teacher_seconds,
            writing_seconds=self.writing_seconds,
            steps=self.steps,
            tokens=self.tokens,
            model=model.eval(),
            best_state=best_state,
            history=self.history,
            fingerprint=self.fingerprint,
        )
        self._finish(
            {
                "finished": True,
                "models": {n: _cpu(m.state_dict()) for n, m in self.models.items()},
                "best_state": dict(best_state),
                "row": result.row(),
                "history": self.history,
            }
        )
        return result

    def _finish(self, state: dict[str, Any]) -> None:
        """Keep what it came to in place of the checkpoints on the way."""
        if self.folder is not None and rank() == 0:
            if self.log is not None:
                self.log.sync()
            checkpoint.save(self.folder, FINAL, state, meta=self._meta())
            for old in checkpoint.list_checkpoints(self.folder):
                if old.name != FINAL:
                    checkpoint.discard(old)
        barrier()

    def _restored(self, state: dict[str, Any]) -> Result:
        for name, own in state["models"].items():
            self.models[name].load_state_dict(own)
        row = {k: v for k, v in state["row"].items() if k != "step_ms"}
        return Result(
            name=self.recipe.name,
            model=self.models[self.recipe.judged].eval(),
            best_state=state["best_state"],
            history=state["history"],
            fingerprint=self.fingerprint,
            **row,
        )

    def _measures(self, model: nn.Module, part: str) -> dict[str, float]:
        task = self.task
        if task.judge is not None:
            name = self.setting.teacher if self._has_teacher() else None
            teacher = (
                None
                if name is None
                else self.studio.teacher(self.setting, name, self.seed, shard=self._in_step())
            )
            model = model.to(self.studio.device)
            return task.judge.measures(model, task, part, as_call(self.setting.call), teacher)
        source = getattr(task, part)
        said, labels = predict(
            model.to(self.studio.device), source, call=as_call(self.setting.call)
        )
        heard = self.studio.heard(self.setting, self.seed, part) if self._has_teacher() else None
        return measures(task, said, labels, heard)

    def _has_teacher(self) -> bool:
        return not any(s.data == "teach" for s in self.recipe.stages)


def labelled_name(stage: Stage) -> str:
    """What the stage learns from, in words."""
    return "the teacher's data" if stage.data == "teach" else "the training data"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_BESIDE = ("save_every", "keep", "method", "origin")

_SINCE = {"validate_steps": None, "times": 1.0}
"""Fields with their defaults that older runs do not know."""


def _telling(description: Any) -> Any:
    """A description without what changes nothing in the result: how often it is saved, what the
    setting would do by default, how its data was named.
    """
    if isinstance(description, dict):
        told = {k: v for k, v in description.items() if k not in _BESIDE}
        for name, default in _SINCE.items():
            if name in told and told[name] == default:
                del told[name]
        return {k: _telling(v) for k, v in told.items()}
    return [_telling(v) for v in description] if isinstance(description, list) else description


def _names(teacher: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if teacher is None else (teacher,) if isinstance(teacher, str) else teacher


def _cpu(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: (v.full_tensor() if hasattr(v, "full_tensor") else v).detach().cpu()
        for k, v in state.items()
    }


def _learnable(model: nn.Module) -> nn.Module:
    """The model in single precision where it was kept in half: float16 weights cannot be updated.

    Its range ends at 65,504 and its steps near 1 are 0.001; bfloat16 has the range, and is left.
    """
    half = any(p.dtype == torch.float16 for p in model.parameters())
    return model.float() if half else model
