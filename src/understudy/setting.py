"""Setting (the pair, the data, the budget) and Recipe (a setting with a method)."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, Self

from torch import Tensor, nn

from understudy.algorithms import Algorithm, Plain
from understudy.data import Loader, Source, ViewFunction
from understudy.errors import UserError, unknown
from understudy.objectives import (
    Objective,
    Total,
    bce,
    binary_kd,
    ce,
    kd,
    lm_ce,
    lm_kd,
    match_outputs,
    mse,
)
from understudy.signals import Call
from understudy.tasks.task import Kind, Task
from understudy.teachers import Teacher
from understudy.training.budget import Budget


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model whose form depends on its teachers or on the task: a class of students, a ladder.

    `make(teachers, task, build)` gives the module; teachers are ready, by name, and `build(spec,
    name, **sizes)` makes a part of it as the setting would. Parts of its own draw from torch's
    random state, which is seeded by (seed, name).
    """

    make: Callable[..., nn.Module]


ModelSpec = str | Path | nn.Module | Made | Callable[..., nn.Module]
"""A family's name with sizes, a folder, weights with a factory, a hub name, a module or factory."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that is trained on the labels (`Task.teach`) before it teaches.

    task: what it is trained for, where that is not the student's task
    """

    model: ModelSpec
    budget: Budget
    label_smoothing: float = 0.0
    task: Task | Callable[[int], Task] | None = None


TeacherSpec = ModelSpec | Trained | Teacher


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The pair, the data and the budget; what a method is added to.

    task:      a `Task`, or a function of a split's number (repeated splits: seed k uses split k)
    teachers:  named; a method that needs one takes the first
    student:   what learns
    budget:    the same for every method that is compared in this setting
    method:    the method that serves here where none is named
    origin:    how the data was named, so that a later command finds it again
    """

    name: str
    task: Task | Callable[[int], Task]
    student: ModelSpec
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    kind: Kind = "single"
    call: Call | None = None
    teacher_call: Call | None = None
    class_weights: Tensor | None = None
    warm_start: str | Path | None = None
    size: Mapping[str, Any] = field(default_factory=dict)
    method: str = "kd"
    origin: Mapping[str, Any] = field(default_factory=dict)

    def task_for(self, seed: int) -> Task:
        """The task as this seed splits it."""
        return self.task if isinstance(self.task, Task) else self.task(seed)

    @property
    def teacher(self) -> str | None:
        """The first teacher's name."""
        return next(iter(self.teachers), None)

    def supervised(self, *, label_smoothing: float = 0.0) -> Objective:
        """The objective on labels that fits the kind of task."""
        if self.kind == "multi":
            return bce(positive_weights=self.class_weights)
        if self.kind == "regression":
            return mse()
        if self.kind == "language":
            return lm_ce()
        return ce(label_smoothing=label_smoothing, class_weights=self.class_weights)

    def softened(self, temperature: float | None = None) -> Objective:
        """Matching the teacher's output, in the form that fits the kind of task.

        temperature: None for what is usual: 4 over classes, 1 over the tokens of a vocabulary
        """
        if temperature is None:
            temperature = 1.0 if self.kind == "language" else 4.0
        elif not isinstance(temperature, int | float):
            raise UserError(f"temperature takes a number, not {temperature!r}")
        if self.kind == "multi":
            return binary_kd(temperature)
        if self.kind == "regression":
            return match_outputs().named("kd")
        if self.kind == "language":
            return lm_kd(temperature=temperature)
        return kd(temperature)

    def but(self, **changes: Any) -> Self:
        """A variant; names of `Budget` fields change the budget, dots reach inside."""
        return override(self, changes)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One objective trained by one algorithm.

    learners:  names of the models that learn; the first is judged
    teacher:   name of the teacher (one of the setting's, or a model of an earlier stage), several
               for an ensemble, None without
    share:     of the setting's budget
    data:      train (all of it), labelled (only samples with labels, repeated to as many
               updates), teach (what a teacher may learn from)
    source:    data made on the way, in place of `data`: a function of the play (its task, models,
               studio, seed); it may read models of earlier stages only, so that a resume finds
               the same. An epoch is about as many updates as of the task's data
    loader:    what stands between the data and the updates (texts that the student writes, a
               choice among domains): a function of the play and the plain loader. It may read the
               models that learn: batches are drawn one by one, each after the update before it
    view:      in place of the task's view, for this stage alone
    budget:    overrides of the setting's budget
    carry:     which weights of the first learner go on: last, or best on validation
    """

    objective: Objective | Total | Callable[..., Any]
    name: str = "distil"
    algorithm: Callable[[], Algorithm] = Plain
    learners: tuple[str, ...] = ("student",)
    teacher: str | tuple[str, ...] | None = "teacher"
    weights: tuple[float, ...] | None = None
    share: float = 1.0
    data: Literal["train", "labelled", "teach"] = "train"
    source: Callable[[Any], Source] | None = None
    loader: Callable[[Any, Loader], Loader] | None = None
    view: ViewFunction | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    carry: Literal["last", "best"] = "last"
    before: Callable[[Mapping[str, nn.Module]], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A setting with a method: what is trained, in which stages.

    cast:   models that the method adds to the student (an assistant, a peer), by name
    study:  for a measurement or a procedure that is no sequence of stages: a function of a
            `running.Studio` and the seed that trains what it needs through it and returns its
            figures
    """

    name: str
    setting: Setting
    stages: tuple[Stage, ...] = ()
    cast: Mapping[str, ModelSpec] = field(default_factory=dict)
    judged: str = "student"
    kind: Literal["method", "procedure", "measurement"] = "method"
    study: Callable[[Any, int], dict[str, Any]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.stages and self.study is None:
            raise UserError(f"the recipe {self.name!r} has neither stages nor a study")


def override(thing: Any, changes: Mapping[str, Any]) -> Any:
    """A frozen dataclass with fields replaced; `a.b` reaches inside, types are checked.

    Names of `Budget` need no prefix. An unknown name is refused, with the nearest.
    """
    for path, value in changes.items():
        thing = _replaced(thing, path.split("."), value, path)
    return thing


def _replaced(thing: Any, parts: list[str], value: Any, path: str) -> Any:
    known = {f.name for f in fields(thing)} if is_dataclass(thing) else set[str]()
    but: Any = replace
    head = parts[0]
    if head not in known:
        inner = getattr(thing, "budget", None)
        if is_dataclass(inner) and head in {f.name for f in fields(inner)}:
            return but(thing, budget=_replaced(inner, parts, value, path))
        names = [*known, *(f.name for f in fields(inner))] if is_dataclass(inner) else list(known)
        raise unknown("setting", path, names)
    if len(parts) > 1:
        old = getattr(thing, head)
        if isinstance(old, Mapping):
            return but(thing, **{head: _placed(old, parts[1:], value, path)})
        return but(thing, **{head: _replaced(old, parts[1:], value, path)})
    return but(thing, **{head: coerced(value, getattr(thing, head), path)})


def _placed(old: Mapping[str, Any], parts: list[str], value: Any, path: str) -> dict[str, Any]:
    """A mapping with one item replaced, or changed inside where it is a dataclass."""
    if len(parts) == 1:
        return {**old, parts[0]: value}
    if parts[0] not in old:
        raise unknown("setting", path, [path.replace(parts[0], key) for key in old])
    return {**old, parts[0]: _replaced(old[parts[0]], parts[1:], value, path)}


def coerced(value: Any, default: Any, name: str) -> Any:
    """A value (text, from the command line) as the type of the default it replaces."""
    if not isinstance(value, str) or isinstance(default, str):
        if isinstance(default, bool) and not isinstance(value, bool):
            raise UserError(f"{name} is true or false, not {value!r}")
        return float(value) if isinstance(default, float) and isinstance(value, int) else value
    text = value.strip()
    if text.lower() in ("none", "null") and not isinstance(default, bool | int | float):
        return None
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        if isinstance(default, tuple):
            like = default[0] if default else ""
            items = [t for t in text.strip("()[]").split(",") if t.strip()]
            return tuple(coerced(t.strip(), like, name) for t in items)
    except (ValueError, KeyError):
        kind = type(default).__name__
        raise UserError(
            f"{name} takes {'true or false' if kind == 'bool' else kind}, not {value!r}"
        ) from None
    return _literal(text)


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def described(thing: Any) -> Any:
    """A recipe, setting or objective as plain JSON: what `config.json` holds and fingerprints."""
    if isinstance(thing, Total):
        return [{"term": n, "weight": described(w), **described(o)} for n, w, o in thing]
    if isinstance(thing, Objective):
        simple = {
            k: v
            for k, v in vars(thing).items()
            if not k.startswith("_")
            and k != "training"
            and (
                isinstance(v, str | int | float | tuple | None) or (k == "kind" and is_dataclass(v))
            )
        }
        return {"objective": type(thing).__name__, **{k: described(v) for k, v in simple.items()}}
    if isinstance(thing, Task):
        return {
            "name": thing.name,
            "kind": thing.kind,
            "classes": thing.classes,
            "metric": thing.metric,
            "train": len(thing.train),
            "options": described(thing.extras.get("options")),
        }
    if is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: described(getattr(thing, f.name)) for f in fields(thing)}
    if isinstance(thing, nn.Module):
        return f"{type(thing).__module__}.{type(thing).__qualname__}"
    if isinstance(thing, Mapping):
        return {str(k): described(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [described(v) for v in thing]
    if isinstance(thing, Tensor):
        return thing.tolist()
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, Path):
        return str(thing)
    if callable(getattr(thing, "fingerprint", None)) and not isinstance(thing, type):
        return f"{type(thing).__name__} {thing.fingerprint()}"
    if callable(thing):
        return _function(thing, ())
    return type(thing).__name__


def _function(thing: Callable[..., Any], around: tuple[Any, ...]) -> Any:
    """A function by its name and by the values it was made with: bound or enclosed."""
    inner = getattr(thing, "func", thing)
    name = getattr(inner, "__qualname__", type(inner).__name__)
    bound = dict(enumerate(getattr(thing, "args", ()))) | getattr(thing, "keywords", {})
    code, cells = getattr(inner, "__code__", None), getattr(inner, "__closure__", None) or ()
    for variable, cell in zip(code.co_freevars if code is not None else (), cells, strict=True):
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            bound[variable] = cell.cell_contents
    values = {
        str(k): _function(v, (*around, inner)) if isinstance(v, FunctionType) else described(v)
        for k, v in bound.items()
        if not any(v is outer for outer in (inner, *around))
    }
    return {"function": name, **values} if values else name
