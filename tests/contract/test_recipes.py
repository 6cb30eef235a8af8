"""Every recipe: its card, a short run that learns, and an exact resume. A new one needs no listing.

Each is played on a small variant of its own default setting: some 64 samples, two updates an epoch,
a teacher trained for a moment (once for all recipes that share it).
"""

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from small_worlds import differing, small, timeless, weights
from understudy.objectives import Total, total
from understudy.recipes import recipes
from understudy.recipes.card import card
from understudy.recipes.controls import alone
from understudy.running import Play, Result, Studio, teaching
from understudy.setting import Recipe, Trained
from understudy.training.interrupt import Interrupt, Interrupted

MAY_RISE: dict[str, str] = {
    "mean_teacher": "starts at zero, the average being the student itself",
    "tf_kd": "a regulariser towards near uniform answers, which an untrained student gives",
    "dml": "starts near zero, two untrained students saying nothing yet",
    "multi_granularity span_relation": "spans of texts that the student has just written, other ones "
    "in each epoch",
    "wav2small match": "outputs that concordance spreads, at ten times its weight, first overshoot",
}
"""Recipes, or one term of a recipe, whose own terms need not fall from their start, and why. They
must still end lower than in the same run where their weight is zero."""
WRITTEN = ("minillm", "ddk")
"""Recipes whose own term is taken on texts that the student has drawn itself, or that were drawn by
what it predicts worst: those of two students differ, and their ends cannot be compared."""
OPPOSED: dict[str, str] = {
    "bd_kd": "its teacher learns at the same time, and leaves its start faster than the student",
}
"""Recipes whose terms have no side to fall to (adversaries, teachers that learn as well), and why:
only their effect on the weights is checked."""

SHORT: dict[str, dict[str, Any]] = {
    "label_schema": {"amounts": (32,)},
    "trueteacher": {"writer_epochs": 1},
    # A teacher of 40 updates is never sure; still above chance, so that some samples are left out.
    "noisy_student": {"confidence": 0.12},
    # Fewer attacked samples and fewer students: these, not the training, are what takes time.
    "defensive_distillation": {"attacked": 8, "steps": 8, "searches": 2, "epsilon": (0.2, 0.4)},
    "mamba_pkd": {"widths": (4, 8), "depth": 1},
    "capacity_gap": {
        "ladder": tuple(f"llama:width={w},depth=1,heads=2" for w in (8, 16, 24)),
        "teacher_share": 1.0,
    },
    "compatibility_reward": {
        "generators": tuple((f"llama:width={w},depth=1,heads=2", 1.0) for w in (8, 24)),
        "prompts": 16,
    },
    "teacher_hacking": {
        "teacher": "llama:width=24,depth=1,heads=2",
        "prompts": 8,
        "teacher_data": 16,
        "validation": 8,
        "points": 3,
        "length": 0.1,
    },
    "knowledge_capacity": {
        "sizes": ("llama:width=16,depth=1,heads=2",),
        "exposures": (2, 8),
        "people": 32,
        "name_parts": 8,
    },
    # On problems this easy the teacher's best text is the data's own.
    "seqkd": {"beams": 0, "temperature": 2.0},
    # Short texts: writing them, not the training, is what takes time.
    "promptkd": {"max_new": 12},
    "multi_granularity": {"max_new": 12},
    # All numbers of two digits in place of a thousand; fewer texts drafted.
    "canary_exposure": {"canaries": 2, "digits": 2, "model": "llama:width=16,depth=1,heads=2"},
    "emulated_fine_tuning": {"prompts": 1, "large": "llama:width=32,depth=2,heads=2"},
    # Few questions: what a teacher of 0.87M parameters writes is what takes time.
    "fine_tune_cot": {"questions": 8, "rationales": 2},
    "program_distillation": {"questions": 10},
    "mammoth": {"questions": 6},
    "symbolic_kd": {"heads": 40, "judged": 24},
    "cost_balance": {"seeds": 2, "high": 2.0},
    "tinyllm": {"questions": 4, "second": 1.0},
}
"""Arguments for the short run of recipes whose defaults suit no teacher, or no time, as short."""

SOURCE = r"arXiv (\d{4}\.\d{4,5}|[a-z-]+/\d{7})|10\.\d{4,}/\S+|openreview \S+"
"""An arXiv id or a DOI; OpenReview's id for papers that have neither."""
NAMES = [*recipes(), "alone"]


def function(name: str) -> Callable[..., Recipe]:
    return alone if name == "alone" else recipes()[name]


# --- cards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes())
def test_card(name: str) -> None:
    found = card(function(name))
    assert found.missing == []
    assert found.name == name
    assert found.title
    assert found.summary
    assert re.search(SOURCE, found.source), found.source
    assert found.kind in ("method", "procedure", "measurement")
    module = function(name).__module__
    folder = module.split(".")[-2]
    assert found.wing == folder.replace("_", "-")
    assert found.recipe == f"{module}:{name}"


# --- runs -----------------------------------------------------------------------------------------


def fresh(name: str) -> Recipe:
    """The recipe on its small world, all of it new objects."""
    make = function(name)
    return make(small(make().setting), **SHORT.get(name, {}))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe, Path], Path]:
    """Puts the trained teachers of a recipe's setting into a folder; each is trained once."""
    cache = tmp_path_factory.mktemp("teachers")

    def lend(recipe: Recipe, folder: Path) -> Path:
        for name, spec in recipe.setting.teachers.items():
            if isinstance(spec, Trained):
                teacher = teaching(recipe.setting, name)
                home = cache / Play(Studio(None), teacher, 0).fingerprint
                if not home.exists():
                    Studio(home).play(teacher)
                shutil.copytree(home, folder, dirs_exist_ok=True)
        return folder

    return lend


@dataclass
class Played:
    """A recipe played to its end, and what happened."""

    name: str
    recipe: Recipe
    folder: Path
    result: Result
    updates: int
    lend: Callable[[Recipe, Path], Path]

    @property
    def own(self) -> dict[tuple[str, str], int]:
        """The stage and name of every term that is not the supervised one, -1 if it is maximised."""
        given = self.recipe.setting.supervised().name
        return {
            (stage.name, name): -1 if isinstance(weight, int | float) and weight < 0 else 1
            for stage in self.recipe.stages
            for name, weight, objective in total(stage.objective)
            if objective.name != given
        }


def counting(count: list[str]) -> Callable[[str, dict[str, Any]], None]:
    return lambda kind, fields: count.append(fields["arm"]) if kind == "update" else None


@pytest.fixture(scope="module", params=NAMES)
def played(request: Any, taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The recipe, uninterrupted."""
    recipe = fresh(request.param)
    folder = taught(recipe, tmp_path_factory.mktemp(request.param))
    arms: list[str] = []
    result = Studio(folder, listeners=[counting(arms)]).play(recipe)
    return Played(request.param, recipe, folder, result, len(arms), taught)


def term(result: Result, stage: str, name: str, sign: int = 1) -> list[float]:
    """A term's mean in each epoch of a stage, negative where it is maximised.

    Every epoch shows the same samples. An algorithm that uses an objective at two places of an
    update says which before its name; their sum counts.
    """
    found = []
    for row in (h["terms"] for h in result.history if h["stage"] == stage):
        here = [row[name]] if name in row else [v for k, v in row.items() if _at(k, name)]
        found += [sign * sum(here)] if here else []
    return found


def _at(found: str, name: str) -> bool:
    """Whether a term is this one at a place: acquire_kd and retain_kd are kd."""
    return found.split("_", 1)[0] in ("acquire", "retain") and found.endswith(f"_{name}")


def left_out(recipe: Recipe) -> Recipe:
    """The recipe with its own terms at weight zero (so that they are still measured)."""
    given = recipe.setting.supervised().name

    def zeroed(objective: Any) -> Total:
        terms = [(w if o.name == given else 0.0, o) for _, w, o in total(objective)]
        return Total(terms)

    stages = tuple(replace(s, objective=zeroed(s.objective)) for s in recipe.stages)
    return replace(recipe, name=f"{recipe.name}-without", stages=stages)


def test_learns(played: Played) -> None:
    """A method's own terms fall (where it has none, the labels' does); a study has its figure."""
    assert played.recipe.name == played.name
    if played.recipe.study is not None:
        figure = played.result.extras["figure"]
        numbers = [v for v in figure.values() if isinstance(v, int | float)]
        assert numbers
        assert all(math.isfinite(v) for v in numbers)
        return
    assert all(math.isfinite(v) for v in played.result.last.values())
    if played.name in MAY_RISE or played.name in OPPOSED:
        return
    given = played.recipe.setting.supervised().name
    every = played.own or {(s.name, given): 1 for s in played.recipe.stages}
    courses = {(s, n): term(played.result, s, n, sign) for (s, n), sign in every.items()}
    assert any(courses.values())
    for which, course in courses.items():
        if len(course) > 1 and f"{played.name} {which[1]}" not in MAY_RISE:
            assert course[-1] < course[0], (which, course)


def test_its_own_terms_matter(played: Played) -> None:
    """At weight zero, the weights end elsewhere and what is special to the method ends higher."""
    if played.recipe.study is not None:
        return
    if not played.own:
        if played.name == "alone":
            return
        other: Recipe = replace(alone(played.recipe.setting), name=f"{played.name}-alone")
    else:
        other = left_out(fresh(played.name))
    result = Studio(played.folder).play(other)
    mine, theirs = weights(played.folder, played.name), weights(played.folder, other.name)
    judged = played.recipe.judged
    assert differing({"m": mine[judged]}, {"m": theirs[other.judged]})
    if played.name in OPPOSED or played.name in WRITTEN:
        return
    special = {k: sign for k, sign in played.own.items() if k[1] != "kd"} or played.own
    ends = {k: (term(played.result, *k, v), term(result, *k, v)) for k, v in special.items()}
    lower = [which for which, (course, control) in ends.items() if course[-1:] < control[-1:]]
    assert lower or not played.own, ends


def test_resumes_exactly(played: Played, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch and continued by new objects, it ends the same."""
    folder = played.lend(fresh(played.name), tmp_path)
    interrupt, arms = Interrupt(), []

    def stop(kind: str, fields: dict[str, Any]) -> None:
        interrupt.wanted |= len(arms) == played.updates // 2 + 1

    first = Studio(folder, interrupt=interrupt, listeners=[counting(arms), stop])
    if played.updates:
        with pytest.raises(Interrupted):
            first.play(fresh(played.name))
    again: list[str] = []
    result = Studio(folder, listeners=[counting(again)]).play(fresh(played.name))
    assert len(arms) + len(again) == played.updates
    if played.recipe.study is not None:
        assert repr(result.extras) == repr(played.result.extras)
    else:
        assert differing(weights(folder, played.name), weights(played.folder, played.name)) == []
        assert repr(result.history) == repr(played.result.history)
        assert (result.last, result.best) == (played.result.last, played.result.best)
    for log in sorted(played.folder.rglob("events.jsonl")):
        mine = folder / log.relative_to(played.folder)
        if mine.exists():
            assert timeless(mine) == timeless(log)


def test_a_finished_play_is_read(played: Played) -> None:
    """A second play trains nothing and says the same."""
    arms: list[str] = []
    result = Studio(played.folder, listeners=[counting(arms)]).play(fresh(played.name))
    assert arms == []
    assert repr(result.row()) == repr(played.result.row())
