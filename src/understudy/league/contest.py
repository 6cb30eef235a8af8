"""A league: every method with the same teacher, data and budget, and the table it comes to."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import UserError
from understudy.evaluation import holm, rank_with_ties
from understudy.files import write_json
from understudy.league.entries import Entry
from understudy.league.lockstep import shareable
from understudy.league.robust import MOST, SEVERITY
from understudy.league.table import SIGNIFICANT, League, higher_is_better
from understudy.league.workers import Crew, Job
from understudy.league.workshop import Outcome, Pair, Unit, Workshop, admit
from understudy.running import Studio
from understudy.setting import Setting

TOGETHER = 12
"""Most students behind one teacher pass: all are in memory."""


class Contest(League):
    """Arms on one setting: refused before training, shared behind one teacher, ranked with ties.

    jobs:  processes; shard: (i, n), this call's part of the pairs (arm, seed)
    tune:  trials of each arm's own settings before it is judged, tuned and as it is
    """

    def __init__(
        self,
        studio: Studio,
        setting: Setting,
        entries: Sequence[Entry],
        *,
        seeds: Sequence[int] = (0,),
        folder: Path | None = None,
        title: str | None = None,
        command: str = "",
        jobs: int = 1,
        shard: tuple[int, int] = (0, 1),
        tune: int = 0,
        seconds: float | None = None,
        protocol: str = "validation",
    ) -> None:
        super().__init__(
            studio,
            setting,
            {e.name: e for e in entries},
            seeds=seeds,
            controls=False,
            folder=folder,
            title=title or f"league: {setting.name}",
            command=command,
            keep_going=True,
            seconds=seconds,
        )
        part, of = shard
        if not 0 <= part < of:
            raise UserError(f"shard is (i, n) with i from 0 to n - 1, not ({part}, {of})")
        if jobs < 1:
            raise UserError(f"jobs is at least 1, not {jobs}")
        if folder is None and (jobs > 1 or of > 1):
            raise UserError("several processes meet in a folder: give out= (--out)")
        if tune < 0 or (tune and folder is None):
            raise UserError("tuning keeps its trials in a folder: give out= (--out), and tune >= 0")
        self.entries = list(entries)
        self.jobs, self.shard, self.tuning, self.protocol = jobs, shard, tune, protocol
        self.outcomes: dict[Pair, Outcome] = {}
        self.tuned: dict[str, dict[str, Any]] = {}
        self._prepare()

    def _prepare(self) -> None:
        """The arms as they are now (tuning adds some)."""
        self.arms = {e.name: e for e in self.entries}
        self.roles = {e.name: e.role for e in self.entries}
        for name in self.arms:
            self.results.setdefault(name, [])
        self.shop = Workshop(
            self.studio, self.setting, self.entries, first=self.seeds[0], folder=self.folder
        )

    # --- playing ----------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        """Every pair of this shard; what is finished, here or elsewhere, is read.

        A pair that an exception in a program ended is played again, as that may have been mended.
        """
        until = None if self.seconds is None else self.began + self.seconds
        for arm, seed in self._pairs() if self.folder is not None else ():
            self.shop.retry(arm, seed)
        self._admit()
        if self.jobs == 1:
            if self.tuning:
                self._add_tuned(lambda units: [self.shop.do(u) for u in units])
            for unit in self._teachers() if self.folder is not None else ():
                self.shop.do(unit)
            for unit in self._units():
                if until is not None and self.outcomes and time.monotonic() > until:
                    break
                self._learn(self.shop.do(unit))
                self._write()
        else:
            self._crewed(until)
        self._collect()
        if not any(self.results.values()) and self.errors:
            raise UserError("; ".join(f"{n}: {e}" for n, e in self.errors.items()))
        self._write()
        return self.summary()

    def _crewed(self, until: float | None) -> None:
        if self.tuning:
            with self._crew() as crew:
                self._add_tuned(crew.run)
        with self._crew() as crew:
            crew.run(self._teachers())
            self._learn(crew.run(self._units(), until=until))

    def _crew(self) -> Crew:
        assert self.folder is not None
        job = Job(
            setting=self.setting,
            entries=tuple(self.entries),
            folder=self.folder,
            device=str(self.studio.device),
            first=self.seeds[0],
            save_seconds=self.studio.save_seconds,
        )
        return Crew(
            job, self.jobs, listeners=self.studio.listeners, interrupt=self.studio.interrupt
        )

    def _admit(self) -> None:
        for entry in self.entries:
            if all(self.shop.settled(entry.name, s) for s in self.seeds):
                continue
            reason = admit(self.studio, self.setting, entry, self.seeds[0])
            if reason is not None:
                self.errors[entry.name] = reason

    def _add_tuned(self, run: Callable[[list[Unit]], Any]) -> None:
        from understudy.league.tuning import TUNING_SEED, found, tunable

        able = [e for e in self.entries if e.name not in self.errors and tunable(e)]
        assert self.folder is not None
        units = [Unit(kind="tune", seed=TUNING_SEED, arms=(e.name,)) for e in able]
        for entry in able:
            write_json(self.folder / "tuned" / f"{entry.name}.ask.json", {"trials": self.tuning})
        if units:
            run(units)
        for entry in able:
            best = found(self.folder, entry.name, self.tuning)
            if best is None:
                continue
            name = f"{entry.name}-tuned"
            self.tuned[name] = best
            self.entries.append(Entry(
                name=name, spec=entry.spec, role=entry.role,
                options={**entry.options, **best["settings"]},
            ))  # fmt: skip
        self._prepare()

    def _pairs(self) -> list[Pair]:
        """This shard's pairs: neighbours, so that most of a seed stays on one machine."""
        pairs = [(a, s) for s in self.seeds for a in self.arms if a not in self.errors]
        part, of = self.shard
        return pairs[len(pairs) * part // of : len(pairs) * (part + 1) // of]

    def _teachers(self) -> list[Unit]:
        """One unit for every seed that something is left to do for."""
        if not self.setting.teachers:
            return []
        seeds = dict.fromkeys(s for a, s in self._pairs() if not self.shop.settled(a, s))
        return [Unit(kind="teachers", seed=s) for s in seeds]

    def _units(self) -> list[Unit]:
        pairs = self._pairs()
        seeds = list(dict.fromkeys(s for _, s in pairs))
        units: list[Unit] = []
        for seed in seeds:
            arms = [a for a, s in pairs if s == seed]
            stored = self.shop.stores(seed)
            joint = [] if stored else [a for a in arms if shareable(self.shop.recipe(a))]
            # enough units for all processes, and not more students at once than there is room for
            parts = max(-(-len(joint) // TOGETHER), -(-self.jobs // len(seeds)))
            size = max(1, -(-len(joint) // parts))
            units += [Unit(seed=seed, arms=(a,)) for a in arms if a not in joint]
            units += [
                Unit(seed=seed, arms=tuple(joint[i : i + size])) for i in range(0, len(joint), size)
            ]
        return units

    def _learn(self, found: dict[Pair, str | None]) -> None:
        """What units came to, in this process or another."""
        for (arm, seed), error in found.items():
            if (arm, seed) in self.shop.outcomes:
                self.outcomes[arm, seed] = self.shop.outcomes[arm, seed]
            elif error is not None:
                self.outcomes[arm, seed] = Outcome(error=error)

    def _collect(self) -> None:
        """Results of all shards and processes, in the order of the seeds."""
        for name in self.arms:
            for seed in self.seeds:
                if name not in self.errors and self.shop.settled(name, seed):
                    self.outcomes[name, seed] = self.shop.outcomes[name, seed]
        self._sort()

    def _sort(self) -> None:
        for name in self.arms:
            own = [(s, self.outcomes.get((name, s))) for s in self.seeds]
            self.results[name] = [
                o.result for _, o in own if o is not None and o.result is not None
            ]
            failed = [(s, o.error) for s, o in own if o is not None and o.error is not None]
            if failed:
                seed, error = failed[0]
                self.errors[name] = (
                    str(error) if not self.results[name] else f"seed {seed}: {error}"
                )

    # --- the table --------------------------------------------------------------------------------

    @property
    def missing(self) -> list[Pair]:
        """Pairs that no process has finished yet."""
        return [
            (a, s) for a in self.arms if a not in self.errors for s in self.seeds
            if (a, s) not in self.outcomes
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """The table's content, as plain JSON."""
        self._sort()
        found = super().summary()
        ranks = self._ranks(found["task"]["metric"])
        for arm in found["arms"]:
            name = arm["name"]
            more = [
                o.more for s in self.seeds
                if (o := self.outcomes.get((name, s))) is not None and o.result is not None
            ]  # fmt: skip
            if arm["role"] != "teacher":
                arm["rank"] = ranks.get(name)
            parts = [m["corrupted"] for m in more if m.get("corrupted")]
            if parts:
                arm["corrupted"] = {k: float(np.mean([p[k] for p in parts])) for k in parts[0]}
            for key in ("peak_mb", "extra_parameters"):
                arm[key] = next((m[key] for m in more if key in m), None)
            if name in self.tuned:
                arm["tuned"] = self.tuned[name]
        self._correct(found["comparisons"])
        found["protocol"] |= {"name": self.protocol, "note": self._note(found)}
        if self.missing:
            found["missing"] = [{"arm": a, "seed": s} for a, s in self.missing]
        return found

    def _ranks(self, measure: str) -> dict[str, int]:
        """Of the arms that have all seeds."""
        scores: dict[str, list[float]] = {}
        for name, results in self.results.items():
            values = [r.last.get(measure) for r in results]
            if len(values) == len(self.seeds) and all(
                v is not None and np.isfinite(v) for v in values
            ):
                scores[name] = [float(v) for v in values if v is not None]
        return rank_with_ties(scores, higher_is_better=higher_is_better(measure), alpha=SIGNIFICANT)

    def _correct(self, comparisons: list[dict[str, Any]]) -> None:
        """Holm's correction over the methods that stand against one control."""
        for control in {c["against"] for c in comparisons}:
            rows = [c for c in comparisons if c["against"] == control and c["p"] is not None]
            for row, p in zip(rows, holm([c["p"] for c in rows]), strict=True):
                row["p_alone"], row["p"] = row["p"], p
                if p >= SIGNIFICANT and row["verdict"] in ("better", "worse"):
                    row["verdict"] = "inside the noise"

    def _note(self, found: dict[str, Any]) -> str:
        """How ranks were made, what was shared, what is missing."""
        parts = [n for n in (found["protocol"]["note"], *found["task"]["notes"]) if n]
        if len(self.seeds) > 1:
            parts.append(
                "ranks: paired t tests over seeds of all pairs of methods, Holm-corrected together, "
                f"alpha {SIGNIFICANT}; p values against a control are Holm-corrected over the methods"
            )
        if self.setting.teachers:
            parts.append(
                "the teacher's time counts in each method's step, also where its pass was shared"
            )
        if any(a.get("corrupted") for a in found["arms"]):
            parts.append(
                f"corrupted: mean over corruptions at severity {SEVERITY}, at most {MOST} samples"
            )
        if self.tuned:
            parts.append(
                f"tuned: the best of {self.tuning} trials on the validation split of a seed that "
                "is not judged, the same number for each method"
            )
        if self.protocol == "published":
            parts.append(
                "published protocol: the full training split, judged at the last epoch; best is "
                "best on the test split, as published, and chooses nothing"
            )
        if self.missing:
            parts.append(
                f"{len(self.missing)} of {len(self.arms) * len(self.seeds)} runs are missing still"
            )
        return "; ".join(p.rstrip(".") for p in parts)
