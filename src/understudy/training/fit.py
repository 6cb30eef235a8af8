"""The loop: one stage trained, validated, saved and continued."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from understudy.algorithms import Algorithm, Scene
from understudy.data import Loader, loader_state
from understudy.errors import UserError
from understudy.objectives.gather import processes
from understudy.signals.compiled import compiled
from understudy.training.budget import Budget
from understudy.training.distribution import (
    Strategy,
    capture_random,
    distribute,
    from_first,
    full_optimizer_state,
    full_state,
    highest,
    load_full_optimizer_state,
    load_full_state,
    restore_random,
    share,
    share_modules,
)
from understudy.training.interrupt import Interrupt
from understudy.training.randomness import RandomState
from understudy.training.step import Stepper, global_counts

Validate = Callable[[nn.Module], dict[str, float]]
Listener = Callable[[str, dict[str, Any]], None]
"""Called as `listener(kind, fields)`: update, epoch, validate, save; for progress and callbacks."""


class Fit:
    """Trains one stage. Its `state_dict` at any update continues it bit for bit.

    `validate(model)` returns measures, of which `score` (higher is better) steers best and
    patience. `save(fit)` is called when a checkpoint is due.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        scene: Scene,
        loader: Loader,
        budget: Budget,
        *,
        validate: Validate | None = None,
        save: Callable[["Fit"], None] | None = None,
        save_seconds: float | None = 60.0,
        listeners: Sequence[Listener] = (),
        interrupt: Interrupt | None = None,
        device: torch.device | str = "cpu",
        strategy: Strategy = "ddp",
    ) -> None:
        self.algorithm, self.loader, self.budget = algorithm, loader, budget
        self.validate, self.save, self.listeners = validate, save, listeners
        self.save_seconds, self.interrupt = save_seconds, interrupt
        self.device = torch.device(device)
        for learner in scene.learners.values():
            learner.to(self.device)
            if budget.channels_last:
                learner.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if strategy == "fully_shard" and budget.precision == "fp16" and processes() > 1:
            raise UserError("fully_shard works with fp32 and bf16, not fp16: choose one, or ddp")
        algorithm.prepare(scene)
        share_modules(algorithm.modules().values())
        for pair in algorithm.pairs_in_use():
            pair.student = distribute(pair.student, strategy)
        parameters = algorithm.parameters()
        optimizers = {
            name: algorithm.make_optimizer(name, groups, budget) or budget.make_optimizer(groups)
            for name, groups in parameters.items()
        }
        self.step = Stepper(optimizers, budget, self.device)
        self.epoch, self.batch_number = 0, 0
        self.seconds, self.tokens = 0.0, 0
        self.best: dict[str, Any] | None = None
        self.waited = 0
        self.history: list[dict[str, Any]] = []

    @cached_property
    def total(self) -> int:
        """Updates in this stage."""
        return self.budget.updates(self.loader.steps)

    @property
    def finished(self) -> bool:
        """Whether all updates are made, or patience has run out."""
        patience = self.budget.patience
        return self.step.number >= self.total or (patience is not None and self.waited >= patience)

    def run(self) -> None:
        """Train from where it stands to the end."""
        for _ in self.updates():
            pass

    def updates(self) -> Generator[None]:
        """Train from where it stands to the end, standing still after every update.

        So several can take turns; the time that others take is not counted here.
        """
        self._saved = time.monotonic()
        with ExitStack() as stack:
            if self.budget.compile:
                self._compile(stack)
            yield from self._updates()

    def _compile(self, stack: ExitStack) -> None:
        """Students and teachers compiled while they train, around the taps that are read."""
        done: set[int] = set()
        for pair in self.algorithm.pairs_in_use():
            teacher = pair.teacher
            heard = {} if teacher is None else teacher.modules()
            taps = getattr(teacher, "taps", None) or getattr(
                getattr(teacher, "teacher", None), "taps", None
            )
            read = [] if taps is None else list(taps.paths.values())
            models = [(pair.student, list(pair.taps.paths.values()))]
            models += [(m, read) for m in heard.values()] if len(heard) == 1 else []
            for model, paths in models:
                if id(model) not in done:
                    done.add(id(model))
                    stack.enter_context(compiled(model, paths, dynamic=False))

    def _updates(self) -> Generator[None]:
        while not self.finished:
            steps = self.loader.steps(self.epoch)
            self.algorithm.train_mode()
            began = time.perf_counter()
            for batch in self.loader.batches(self.epoch, self.batch_number):
                self._update(batch, steps)
                self.batch_number += 1
                if self.batch_number >= steps or self.step.number >= self.total:
                    break
                every = self.budget.save_every
                self.seconds += time.perf_counter() - began
                if self._judged_here():
                    self._report(self.epoch + self.batch_number / steps, due=True)
                    self.algorithm.train_mode()
                if self._due(every is not None and self.step.number % every == 0):
                    self._pause()
                yield
                began = time.perf_counter()
            self.seconds += time.perf_counter() - began
            self.epoch, self.batch_number = self.epoch + 1, 0
            planned = self.budget.validate_steps
            due = self.epoch % self.budget.validate_every == 0 if planned is None else False
            self._report(self.epoch, due=due or self._judged_here() or self.finished)
            if self._due(self.budget.save_every is not None and not self.finished):
                self._pause()
            yield

    def _due(self, planned: bool) -> bool:
        """Whether to save here: planned, after long enough, or as the user wants to stop."""
        late = self.save_seconds is not None and time.monotonic() - self._saved > self.save_seconds
        wanted = self.interrupt is not None and self.interrupt.wanted
        # clocks and signals differ between processes, which have to save together
        urgency = highest(2 if wanted else int(planned or late), self.device)
        self._stopping = urgency == 2
        return urgency > 0

    def _pause(self) -> None:
        """Save, and stop where that is wanted."""
        self._checkpoint()
        self._saved = time.monotonic()
        if self._stopping:
            Interrupt.stop()

    def _update(self, batch: Any, steps: int) -> None:
        number, total = self.step.number, self.total
        epoch = self.epoch + self.batch_number / steps
        batch = replace(batch, epoch=epoch, progress=number / max(total, 1))
        if self.budget.channels_last and getattr(batch.inputs, "ndim", 0) == 4:
            batch = replace(
                batch, inputs=batch.inputs.contiguous(memory_format=torch.channels_last)
            )
        factor = self.step.rates(number, total, epoch)
        # processes exchange in step: each makes as many microbatches, if need be empty ones
        parts = batch.split(self.budget.accumulate, empty=processes() > 1)
        divisors = global_counts(self.algorithm.counts(batch))
        if batch.mask is not None:
            self.tokens += int(batch.mask.sum())
        for i, micro in enumerate(parts):
            self.step.begin(micro, divisors, last=i == len(parts) - 1)
            with self.step.autocast():
                self.algorithm.update(micro, self.step)
        self.step.end()
        self.algorithm.after_step(self.step.number)
        if processes() > 1:
            # batch statistics are those that the first process sees, as in torch's wrapper
            share(b for pair in self.algorithm.pairs_in_use() for b in pair.student.buffers())
        if self.listeners:
            self._tell("update", step=self.step.number, total=total, epoch=epoch, rate=factor)

    def _judged_here(self) -> bool:
        """Whether validation is planned after this very update."""
        planned = self.budget.validate_steps
        return planned is not None and self.step.number % planned == 0

    def _report(self, epoch: float, *, due: bool) -> None:
        """What the terms came to since the last report and, where due, the validation."""
        terms = {**self.step.logged(), **getattr(self.loader, "logged", dict)()}
        self._tell("epoch", epoch=epoch, step=self.step.number, terms=terms)
        if self.validate is None or not due:
            return
        model = self.algorithm.judged()
        random = RandomState.capture()
        measures = from_first(self.validate(model))
        random.restore()
        self.history.append({"epoch": epoch, "terms": terms, **measures})
        self._tell("validate", epoch=epoch, step=self.step.number, measures=measures)
        score = measures["score"]
        improved = self.best is None or score > self.best["score"]
        if self.best is None or score >= self.best["score"]:
            # of equals the later one: a small validation split ties often, and more training helps
            state = {k: v.detach().cpu().clone() for k, v in full_state(model).items()}
            self.best = {"score": score, "epoch": epoch, "model": state}
        self.waited = 0 if improved else self.waited + 1

    def _checkpoint(self) -> None:
        if self.save is not None:
            self.save(self)
            self._tell("save", epoch=self.epoch, step=self.step.number)

    def _tell(self, kind: str, **fields: Any) -> None:
        for listener in self.listeners:
            listener(kind, fields)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "cursor": {"epoch": self.epoch, "batch": self.batch_number},
            "modules": {k: full_state(m) for k, m in self.algorithm.modules().items()},
            "algorithm": self.algorithm.state_dict(),
            "loader": loader_state(self.loader),
            "optimizers": {k: full_optimizer_state(o) for k, o in self.step.optimizers.items()},
            "step": self.step.state_dict(),
            "random": capture_random(),
            "seconds": self.seconds,
            "tokens": self.tokens,
            "best": self.best,
            "waited": self.waited,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same recipe."""
        modules = self.algorithm.modules()
        for name, own in state["modules"].items():
            load_full_state(modules[name], own)
        self.algorithm.load_state_dict(state["algorithm"])
        if state.get("loader"):
            self.loader.load_state_dict(state["loader"])  # pyright: ignore
        for name, own in state["optimizers"].items():
            load_full_optimizer_state(self.step.optimizers[name], own)
        self.step.load_state_dict(state["step"])
        self.epoch, self.batch_number = state["cursor"]["epoch"], state["cursor"]["batch"]
        self.seconds, self.best = state["seconds"], state["best"]
        self.tokens = state.get("tokens", 0)
        self.waited, self.history = state["waited"], state["history"]
        restore_random(state["random"])
