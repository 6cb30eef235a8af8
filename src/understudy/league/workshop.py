"""Playing a league's units of work: teachers, arms behind what they share, trials; each once."""

import contextlib
import hashlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from understudy.data import Opaque
from understudy.errors import CheckpointError, MethodRefused, UserError
from understudy.files import write_json
from understudy.league.entries import Entry
from understudy.league.footprint import footprint
from understudy.league.lockstep import FromStore, Live, Lockstep, is_plain, shareable
from understudy.league.robust import Corrupted
from understudy.objectives import Needs, total
from understudy.running import Play, Result, Studio
from understudy.setting import Recipe, Setting, Trained
from understudy.signals import as_call
from understudy.tasks.task import Task
from understudy.teachers import Stored, write_signals
from understudy.training.interrupt import Interrupt
from understudy.training.randomness import preserved

STORE_BYTES = 2 * 2**30
"""Features that would take more than this for one seed are not stored: such methods run live."""

Pair = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one process does at a time: the teachers of a seed, or arms of a seed together."""

    seed: int
    arms: tuple[str, ...] = ()
    kind: str = "arms"


@dataclass(kw_only=True)
class Outcome:
    """What a pair (arm, seed) came to: a result, or why there is none."""

    result: Result | None = None
    error: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


class Workshop:
    """One process's part of a league. All that is finished lies in the folder, if there is one."""

    def __init__(
        self,
        studio: Studio,
        setting: Setting,
        entries: Sequence[Entry],
        *,
        first: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.studio, self.setting, self.folder = studio, setting, folder
        self.entries = {e.name: e for e in entries}
        self.first = first
        self.outcomes: dict[Pair, Outcome] = {}
        self._corrupted: dict[int, Corrupted] = {}
        self._stores: dict[int, FromStore | None] = {}

    # --- what there is to do ----------------------------------------------------------------------

    def do(self, unit: Unit) -> dict[Pair, str | None]:
        """Play a unit; what each pair failed with, or None."""
        if unit.kind == "teachers":
            self.teachers(unit.seed)
            return {}
        if unit.kind == "tune":
            from understudy.league.tuning import tune

            for arm in unit.arms:
                with self._claimed([f"tune-{arm}"]):
                    tune(self, self.entries[arm], unit.seed)
            return {}
        with self._claimed([f"arm-{arm}-{unit.seed}" for arm in unit.arms]):
            self._play([a for a in unit.arms if not self.settled(a, unit.seed)], unit.seed)
        return {(a, unit.seed): self.outcomes[a, unit.seed].error for a in unit.arms}

    def recipe(self, arm: str) -> Recipe:
        """The arm on this league's setting."""
        return self.entries[arm](self.setting)

    def settled(self, arm: str, seed: int) -> bool:
        """Whether the pair's result or failure is here or in the folder; it is read then."""
        if (arm, seed) in self.outcomes:
            return True
        play = Play(self.studio, self.recipe(arm), seed)
        more = self._read(play, "more.json")
        if play.finished and more is not None:
            result = self.studio.play(play.recipe, seed)
            self.outcomes[arm, seed] = Outcome(result=result, more=more)
            return True
        failed = self._read(play, "failed.json")
        if failed is not None:
            self.outcomes[arm, seed] = Outcome(error=str(failed["error"]))
        return failed is not None

    def teachers(self, seed: int) -> None:
        """All teachers of a seed made ready, and what the first says stored where that serves."""
        for name, spec in self.setting.teachers.items():
            if isinstance(spec, Trained):
                with self._claimed([f"teacher-{name}-{seed}"]):
                    self.studio.teacher(self.setting, name, seed)
        self.store(seed)

    # --- playing ----------------------------------------------------------------------------------

    def _play(self, arms: Sequence[str], seed: int) -> None:
        if not arms:
            return
        self.teachers(seed)
        plays: dict[str, Play] = {}
        for arm in arms:
            try:
                plays[arm] = Play(self.studio, self.recipe(arm), seed)
            except Exception as e:
                self._failed(arm, seed, None, e)
        together: list[str] = []
        for arm, play in plays.items():
            stored = self.store(seed) if self._served(play.recipe, seed) else None
            if stored is None and shareable(play.recipe):
                together.append(arm)
            else:
                behind = Live() if stored is None else FromStore(stored.stored, stored.seconds)
                self._run([arm], [play], Lockstep([play], behind=behind))
        if together:
            group = [plays[a] for a in together]
            accumulate = self.setting.budget.accumulate
            self._run(together, group, Lockstep(group, accumulate=accumulate))

    def _run(self, arms: Sequence[str], plays: Sequence[Play], group: Lockstep) -> None:
        for arm, play, found in zip(arms, plays, group.run(), strict=True):
            if isinstance(found, Exception):
                self._failed(arm, play.seed, play, found)
                continue
            self.studio.results[arm, play.seed] = found
            more = self._measured(arm, found)
            self._write(play, "more.json", more)
            self.outcomes[arm, play.seed] = Outcome(result=found, more=more)

    def _failed(self, arm: str, seed: int, play: Play | None, error: Exception) -> None:
        """Keep why; what is wrong with the folder or the machine is no method's failure."""
        if isinstance(error, CheckpointError | KeyboardInterrupt):
            raise error
        self.outcomes[arm, seed] = Outcome(error=said(error))
        if play is not None and not isinstance(error, MemoryError | OSError):
            # what we refuse is refused again; a mistake in a program may have been mended
            again = not isinstance(error, UserError)
            self._write(play, "failed.json", {"error": said(error), "again": again})

    def retry(self, arm: str, seed: int) -> None:
        """Forget that the pair failed by a mistake in a program, so that it is played again."""
        play = Play(self.studio, self.recipe(arm), seed)
        failed = self._read(play, "failed.json")
        if failed is not None and failed.get("again", True):
            assert play.folder is not None
            (play.folder / "failed.json").unlink()

    def _measured(self, arm: str, result: Result) -> dict[str, Any]:
        """What the table shows beside the play's own measures."""
        found: dict[str, Any] = {}
        task = self.studio.task(self.setting, result.seed)
        key = id(task)
        with preserved():
            if key not in self._corrupted:
                self._corrupted[key] = Corrupted(task)
            model = result.model.to(self.studio.device)
            found["corrupted"] = self._corrupted[key].measure(model, as_call(self.setting.call))
        if result.seed == self.first:
            # what cannot be measured is left out: it is no reason to lose a result
            with contextlib.suppress(Exception):
                found |= footprint(self.studio, self.recipe(arm), result.seed)
        return found

    # --- the store --------------------------------------------------------------------------------

    def store(self, seed: int) -> FromStore | None:
        """What the teacher says about the training data, written once; None where that cannot be.

        It can where every epoch shows the same view, and there is a folder to write in.
        """
        if seed not in self._stores:
            self._stores[seed] = self._stored(seed) if self.stores(seed) else None
        return self._stores[seed]

    def stores(self, seed: int) -> bool:
        """Whether the signals of this seed can be stored."""
        task, name = self.studio.task(self.setting, seed), self.setting.teacher
        if self.folder is None or name is None or isinstance(task.train, Opaque):
            return False
        if task.judge is not None:
            return False  # logits of every position of a text would fill the disk
        view = task.view
        if view is not None and not getattr(view, "fixed", False):
            return False
        wanted = [a for a in self.entries if self._may_read(a)]
        return bool(wanted)

    def _may_read(self, arm: str) -> bool:
        try:
            stages = self.recipe(arm).stages
        except Exception:
            return False
        return any(is_plain(s) and s.teacher == self.setting.teacher for s in stages)

    def _served(self, recipe: Recipe, seed: int) -> bool:
        return self.store(seed) is not None and any(
            is_plain(s) and s.teacher == self.setting.teacher for s in recipe.stages
        )

    def _stored(self, seed: int) -> FromStore | None:
        assert self.folder is not None
        assert self.setting.teacher is not None
        task = self.studio.task(self.setting, seed)
        with self._claimed([f"teacher-{self.setting.teacher}-{seed}"]):
            teacher = self.studio.teacher(self.setting, self.setting.teacher, seed)
        if not teacher.modules():
            return None  # it is a store already
        taps = self._affordable(teacher, task)
        mark = hashlib.sha256(",".join(taps).encode()).hexdigest()[:8]
        path = self.folder / "signals" / f"seed-{seed}-{mark}"
        note = path.with_suffix(".json")
        with self._claimed([f"signals-{seed}"]):
            known = _json(note)
            if known is None:
                write_signals(teacher, task.train, path, view=task.view, taps=taps)
                known = {"seconds_per_sample": self._pass_seconds(teacher, task)}
                write_json(note, known)
        stored = Stored(path, teacher=teacher, data=task.train, view=task.view)
        return FromStore(stored, float(known["seconds_per_sample"]))

    def _pass_seconds(self, teacher: Any, task: Task) -> float:
        """What a live pass takes for one sample, in batches of the budget's size: median of five."""
        size = min(self.setting.budget.batch_size, len(task.train))
        batch = task.train.batch(torch.arange(size)).to(self.studio.device)
        if task.view is not None:
            batch = task.view(batch, seed=0, epoch=0)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            teacher.signals(batch)
            if self.studio.device.type == "cuda":
                torch.cuda.synchronize(self.studio.device)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:]) / size

    def _affordable(self, teacher: Any, task: Task) -> tuple[str, ...]:
        """The taps that arms read of the teacher, the smallest first, as far as they fit."""
        wanted: dict[str, None] = {}
        for arm in self.entries:
            if self._may_read(arm):
                for stage in self.recipe(arm).stages:
                    if is_plain(stage):
                        wanted |= dict.fromkeys(total(stage.objective).needs.teacher)
        sizes: dict[str, int] = {}
        one = task.train.batch(torch.arange(1)).to(self.studio.device)
        if task.view is not None:
            one = task.view(one, seed=0, epoch=0)
        for tap in wanted:
            try:
                teacher.prepare(Needs(teacher=(tap,)), one)
                feature = teacher.signals(one).features[tap]
            except UserError:
                continue  # the arm that asks for it is refused by itself
            sizes[tap] = feature.numel() * 4 * len(task.train)
        kept, room = [], STORE_BYTES
        for tap in sorted(sizes, key=lambda t: (sizes[t], t)):
            room -= sizes[tap]
            if room >= 0:
                kept.append(tap)
        return tuple(sorted(kept))

    # --- files ------------------------------------------------------------------------------------

    def _read(self, play: Play, name: str) -> dict[str, Any] | None:
        """A note beside a play's checkpoints, where it is of this very play."""
        found = None if play.folder is None else _json(play.folder / name)
        return found if found and found.get("fingerprint") == play.fingerprint else None

    def _write(self, play: Play, name: str, content: Mapping[str, Any]) -> None:
        if play.folder is not None:
            write_json(play.folder / name, {**content, "fingerprint": play.fingerprint})

    @contextlib.contextmanager
    def _claimed(self, names: Sequence[str]) -> Iterator[None]:
        """Hold these names among all processes of the folder; they go with the process."""
        if self.folder is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            for name in sorted(names):  # one order, so that two never wait for one another
                stack.enter_context(claim(self.folder / "locks" / name, self.studio.interrupt))
            yield


@contextlib.contextmanager
def claim(path: Path, interrupt: Interrupt | None = None) -> Iterator[None]:
    """Hold a name: another process that wants it waits. The lock dies with its process."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two processes may do the same work twice
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if interrupt is not None and interrupt.wanted:
                    Interrupt.stop()
                time.sleep(0.05)
            except OSError:
                break  # a file system without locks
        yield


def said(error: Exception) -> str:
    """An error as a row shows it: what a user error says, else its kind as well."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def admit(studio: Studio, setting: Setting, entry: Entry, seed: int) -> str | None:
    """Why a method cannot serve the pair, by a dry run of its stages; nothing is trained.

    Teachers that are trained first stand in untrained: the shapes are the same.
    """
    ready: dict[str, Any] = {
        n: s.model if isinstance(s, Trained) else s for n, s in setting.teachers.items()
    }
    aside = Studio(None, device=studio.device)
    aside._tasks = studio._tasks
    try:
        recipe = entry(replace(setting, teachers=ready))
        if recipe.study is not None or (recipe.kind != "method" and not recipe.stages):
            raise MethodRefused(
                f"{entry.name} is a {recipe.kind} that ends in figures of its own, not a student "
                f"to rank: run it by understudy run {entry.name}"
            )
        with preserved():
            play = Play(aside, recipe, seed)
            play.cast()
            for stage in recipe.stages:
                if stage.source is None:
                    play.begin(stage)
                play.stage += 1
    except CheckpointError:
        raise
    except Exception as e:
        return said(e)
    return None


def _json(path: Path) -> dict[str, Any] | None:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


__all__ = ["Outcome", "Pair", "Unit", "Workshop", "admit", "claim", "said"]
