"""Several students behind one pass of the teacher, or behind what it said once."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from understudy.algorithms import Plain
from understudy.data import Loader
from understudy.errors import MethodRefused
from understudy.objectives import Needs, total
from understudy.running import Play, Result
from understudy.setting import Recipe, Stage
from understudy.signals import Batch, Signals
from understudy.teachers import Stored, Teacher
from understudy.training.interrupt import Interrupted
from understudy.training.randomness import RandomState, preserved

KEPT = 2
"""Batches that are kept: one student may be an update ahead of another."""


class SharedLoader:
    """A loader whose batches are made once for all that ask for the same one.

    Whoever asks for another than the last few has it made anew: the same, and paid for again.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self.exact = loader, loader.exact
        self.kept: deque[tuple[tuple[int, int], Batch, float]] = deque(maxlen=KEPT)
        self.iterator: Iterator[Batch] | None = None
        self.cursor = (-1, -1)
        self.made = 0

    def steps(self, epoch: int) -> int:
        """Batches in this epoch."""
        return self.loader.steps(epoch)

    def example(self) -> Batch:
        """The loader's."""
        return self.loader.example()

    def batch(self, epoch: int, number: int) -> tuple[Batch | None, float]:
        """The batch, and what making it took where another has paid for it."""
        for key, batch, seconds in self.kept:
            if key == (epoch, number):
                return batch, seconds
        began = time.perf_counter()
        if self.iterator is None or self.cursor != (epoch, number):
            self.iterator = iter(self.loader.batches(epoch, number))
        batch = next(self.iterator, None)
        self.cursor = (epoch, number + 1)
        if batch is not None:
            self.made += 1
            self.kept.append(((epoch, number), batch, time.perf_counter() - began))
        return batch, 0.0


@dataclass
class _Pass:
    """What the teacher said about one batch: to be given to whoever has the same inputs."""

    inputs: Any
    epoch: int
    said: Signals
    versions: list[int]
    seconds: float


class SharedTeacher:
    """A teacher whose pass over a batch serves all that show it the same inputs.

    Inputs are compared by content, so that a student with another batch gets its own pass, and what
    a student's objective has written into is not given to the next.
    """

    def __init__(self, teacher: Teacher, passes: int = KEPT) -> None:
        self.teacher = teacher
        self.kept: deque[_Pass] = deque(maxlen=passes)
        self.needs = Needs(logits=False)
        self.made = 0

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Ask for all that any of the students reads."""
        if needs.graph:
            raise MethodRefused("a teacher with a graph serves one student: play it alone")
        old = self.needs
        wanted = Needs(
            teacher=tuple(dict.fromkeys((*old.teacher, *needs.teacher))),
            logits=old.logits or needs.logits,
            head=old.head or needs.head,
        )
        self.teacher.prepare(wanted, example)
        if wanted != old:
            self.kept.clear()
        self.needs = wanted  # a request that was refused is forgotten

    def signals(self, batch: Batch) -> tuple[Signals, float]:
        """What it says, and what the pass took where another student has paid for it."""
        for one in self.kept:
            if (
                one.epoch == int(batch.epoch)
                and _versions(one.said) == one.versions
                and _same(one.inputs, batch.inputs)
            ):
                return one.said, one.seconds
        began = time.perf_counter()
        said = self.teacher.signals(batch)
        if isinstance(said.logits, Tensor) and said.logits.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        self.made += 1
        self.kept.append(_Pass(batch.inputs, int(batch.epoch), said, _versions(said), seconds))
        return said, 0.0


class Handle:
    """One play's access to what is shared; `owed` is the time that others spent on its behalf."""

    def __init__(self, group: "Lockstep") -> None:
        self.group, self.owed = group, 0.0
        self._loader: SharedLoader | None = None
        self._teacher: SharedTeacher | None = None
        self.spared = 0.0

    # what a play asks for
    def loader(self, loader: Loader) -> Loader:
        """The shared one; the first play's serves all (see `shareable`)."""
        self._loader = self.group.loader = self.group.loader or SharedLoader(loader)
        return _Batches(self, self._loader)

    def teacher(self, stage: Stage, teacher: Teacher) -> Teacher:
        """The shared one."""
        if self.group.teacher is None:
            self.group.teacher = SharedTeacher(teacher, KEPT * max(1, self.group.accumulate))
        self._teacher = self.group.teacher
        return _Voice(self)

    def take(self) -> float:
        """The time owed, once."""
        owed, self.owed = self.owed, 0.0
        return owed


class _Batches:
    """`Loader` of one play."""

    def __init__(self, handle: Handle, shared: SharedLoader) -> None:
        self.handle, self.shared, self.exact = handle, shared, shared.exact
        self.steps, self.example = shared.steps, shared.example

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from number `start` on."""
        number = start
        while True:
            batch, spared = self.shared.batch(epoch, number)
            if batch is None:
                return
            self.handle.owed += spared
            yield batch
            number += 1


class _Voice:
    """`Teacher` of one play."""

    def __init__(self, handle: Handle) -> None:
        assert handle._teacher is not None
        self.handle, self.shared = handle, handle._teacher
        self.spared = 0.0

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Ask for more."""
        self.shared.prepare(needs, example)

    def signals(self, batch: Batch) -> Signals:
        """What the teacher says."""
        said, self.spared = self.shared.signals(batch)
        self.handle.owed += self.spared
        return said

    def modules(self) -> Any:
        """The teacher's."""
        return self.shared.teacher.modules()


class Live:
    """A play on its own: its own batches, the teacher live."""

    def loader(self, loader: Loader) -> Loader:
        """As it is."""
        return loader

    def teacher(self, stage: Stage, teacher: Teacher) -> Teacher:
        """As it is."""
        return teacher

    def take(self) -> float:
        """Nobody spent any time on its behalf."""
        return 0.0


class Lockstep:
    """Plays of one seed that learn from the same batches by the plain algorithm.

    They take turns update by update, so that a batch's view is made once and the teacher runs over
    it once. Each play keeps its own random state, checkpoints and result: all are bit-equal to
    those of separate runs. A play that fails leaves the others running.
    """

    def __init__(self, plays: Sequence[Play], *, accumulate: int = 1, behind: Any = None) -> None:
        self.plays, self.accumulate, self.behind = list(plays), accumulate, behind
        self.loader: SharedLoader | None = None
        self.teacher: SharedTeacher | None = None
        self.failures: dict[int, Exception] = {}

    def run(self) -> list[Result | Exception]:
        """Every play's result, or what it failed with, in their order."""
        stopped: Interrupted | None = None
        with preserved():
            turns = [_Turn(k, play, self) for k, play in enumerate(self.plays)]
            while turns:
                # those that are behind (resumed from an earlier update) catch up first
                least = min(turn.number for turn in turns)
                for turn in [t for t in turns if t.number == least]:
                    try:
                        done = turn.go()
                    except Interrupted as e:  # the others save as well
                        stopped, done = e, True
                    except Exception as e:  # a method's own failure is its own
                        self.failures[turn.place], done = e, True
                    if done:
                        turns.remove(turn)
        if stopped is not None:
            raise stopped
        found: list[Result | Exception] = []
        for k, play in enumerate(self.plays):
            failure = self.failures.get(k)
            assert failure is not None or play.result is not None
            found.append(failure or play.result)  # pyright: ignore[reportArgumentType]
        return found


class _Turn:
    """A play between its turns."""

    def __init__(self, place: int, play: Play, group: Lockstep) -> None:
        self.place, self.play = place, play
        self.handle = Handle(group) if group.behind is None else group.behind
        play.behind = self.handle
        self.updates = play.updates()
        self.random: RandomState | None = None

    @property
    def number(self) -> int:
        """Updates made."""
        return -1 if self.play.fit is None else self.play.fit.step.number

    def go(self) -> bool:
        """One update; whether that was the end."""
        if self.random is not None:
            self.random.restore()
        try:
            next(self.updates)
        except StopIteration:
            return True
        finally:
            if self.play.fit is not None:
                self.play.fit.seconds += self.handle.take()
        self.random = RandomState.capture()
        return False


class FromStore:
    """A play's teacher taken from a store, where the store has what the stage reads.

    seconds: what the live pass took for one sample when the store was written; it counts in the
    play's time, so that methods that read and methods that do not compare.
    """

    def __init__(self, stored: Stored, seconds: float = 0.0) -> None:
        self.stored, self.seconds, self.spared, self.owed = stored, seconds, 0.0, 0.0
        self.used = False

    def loader(self, loader: Loader) -> Loader:
        """As it is."""
        return loader

    def teacher(self, stage: Stage, teacher: Teacher) -> Teacher:
        """The store, or the live teacher where the stage reads more than was stored."""
        self.used = serves(self.stored, stage)
        return self if self.used else teacher

    def take(self) -> float:
        """The time owed, once."""
        owed, self.owed = self.owed, 0.0
        return owed

    # as a teacher
    def prepare(self, needs: Needs, example: Batch) -> None:
        """Refuse what was not stored."""
        self.stored.prepare(needs, example)

    def signals(self, batch: Batch) -> Signals:
        """What the teacher said."""
        self.spared = self.seconds * len(batch)
        self.owed += self.spared
        return self.stored.signals(batch)

    def modules(self) -> Any:
        """None."""
        return self.stored.modules()


def serves(stored: Stored, stage: Stage) -> bool:
    """Whether a store has what a stage reads of its teacher."""
    if not is_plain(stage):
        return False
    try:
        stored.gives.refuse(total(stage.objective).needs, "")
    except MethodRefused:
        return False
    return True


def is_plain(stage: Stage) -> bool:
    """Whether the stage shows its teacher the task's own training samples, in the task's view."""
    return (
        stage.algorithm is Plain
        and stage.source is None
        and stage.loader is None
        and stage.view is None
        and stage.data == "train"
        and isinstance(stage.teacher, str)
    )


def shareable(recipe: Recipe) -> bool:
    """Whether the recipe can learn in lockstep: one plain stage of the setting's own budget."""
    if len(recipe.stages) != 1 or recipe.study is not None:
        return False
    stage = recipe.stages[0]
    return (
        is_plain(stage)
        and stage.teacher == recipe.setting.teacher
        and len(stage.learners) == 1
        and stage.share == 1.0
        and not stage.budget
        and not total(stage.objective).needs.graph
    )


def _versions(said: Signals) -> list[int]:
    found: list[int] = []
    replace(said, others=_flat(said.others)).map(lambda t: (found.append(t._version), t)[1])
    return found


def _flat(others: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in others.items():
        parts = value if isinstance(value, tuple | list) else (value,)
        flat |= {f"{key}.{i}": v for i, v in enumerate(parts) if isinstance(v, Tensor)}
    return flat


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        return (
            alike
            and a.stride() == b.stride()
            and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return False
