"""Objective: a pure function of what student and teacher say, returning a sum and a count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from understudy.errors import SignalError
from understudy.objectives.gather import gathered, processes, sizes_of
from understudy.signals import IGNORE, Batch, Signals

Weight = float | Callable[[float], float]
"""A term's weight: a number, or a function of the stage's progress (0 to 1), such as `ramp()`."""


class Sum(NamedTuple):
    """A total and the number of things it sums over; one place, `mean`, divides."""

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def mean(self) -> Tensor:
        """Total / count; zero (with a gradient of zero) where nothing counts."""
        return self.total / torch.where(self.count > 0, self.count, 1)


@dataclass(frozen=True, kw_only=True)
class Reads:
    """How a term reads a distribution of which a source may list a part only.

    name: of the divergence. temperature: at which it is read. tails: the tail rules (`Sparse.tail`)
    of which it can be had.
    """

    name: str
    temperature: float = 1.0
    tails: tuple[str, ...] = ("uniform", "renormalise")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective reads; only this is recorded, and a source that lacks it is refused first.

    student, teacher: names of taps. logits: whether the teacher's logits are read. labels: whether
    it teaches nothing without labels. graph: whether gradients run through the teacher's forward
    pass (never into its parameters). head: whether the teacher's last linear layer is read, from
    `teacher.others["head"] = (weight [K, d], bias [K] or None)`, both detached. reads: how terms
    read the teacher's distribution where they can do with a part of it.
    """

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    logits: bool = True
    labels: bool = False
    graph: bool = False
    head: bool = False
    reads: tuple[Reads, ...] = ()


class Objective(nn.Module):
    """What the student is asked to match.

    Subclasses give `forward(student, teacher, batch) -> Sum`. One that learns (a projector, a
    queue) makes its parts in `build`, from the shapes that a dry run on one batch has shown.
    """

    name: str = "objective"
    coupling: ClassVar[Literal["position", "sample", "batch"]] = "sample"
    """What a value depends on. `position` and `sample` are exact under accumulation and several
    processes; `batch` gathers across processes, and under accumulation sees one microbatch."""
    needs: Needs = Needs()
    counts: Literal["all", "labelled"] = "all"
    """What the sum is divided by: all unmasked positions, or those with a label."""
    together: ClassVar[Callable[..., "list[Sum] | None"] | None] = None
    """Computes several terms that have this in common at once: ([(weight, objective)], student,
    teacher, batch) -> their sums, or None where it cannot."""
    may_vanish: bool = False
    """Declares that its gradient may stay zero for long (a ramp-up, a margin already met)."""

    def build(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Make the parts that depend on shapes. Called once, before training."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The term over this batch."""
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor:
        """How many positions `forward` will count, known before it runs (0-d float)."""
        return active(self, batch).sum().float()

    def after_step(self) -> None:
        """Called after each optimiser step: momentum copies, adaptive temperatures."""

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The term over this batch, in the units its card names; the teacher is a constant."""
        if not self.needs.graph:
            teacher = teacher.detach()
        return super().__call__(student, teacher, batch)

    def __add__(self, other: "Objective | Total") -> "Total":
        return Total([(1.0, self)]) + other

    def __mul__(self, weight: Weight) -> "Total":
        return Total([(weight, self)])

    __rmul__ = __mul__

    def named(self, name: str) -> Self:
        """The same objective, logged under another name."""
        self.name = name
        return self


def active(objective: Objective, batch: Batch) -> Tensor:
    """bool: the positions that an objective counts in this batch."""
    if objective.counts == "labelled":
        labels = batch.labels
        if labels is not None and objective.coupling == "position" and batch.mask is None:
            # class ids of any shape: each position has its own label
            return labels != IGNORE if not labels.is_floating_point() else batch.labelled
        return batch.labelled
    if batch.mask is not None:
        return batch.mask
    device = batch.labels.device if batch.labels is not None else None
    return torch.ones(len(batch), dtype=torch.bool, device=device)


class PerSample(Objective):
    """An objective that has a value for each sample (or position): subclasses give `values`.

    Positions that do not count never reach `values`, so that NaN in them is inert.
    """

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """[M] values of the M active positions."""
        raise NotImplementedError

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum of `values` over the active positions."""
        rows = active(self, batch)
        some = next(iter(student.tensors()), None)
        device = some.device if some is not None else rows.device
        rows = rows.to(device)
        if not bool(rows.any()):
            return Sum(nothing(student), rows.sum().float())
        if not bool(rows.all()) or rows.ndim > 1:
            student, teacher = student.rows(rows), teacher.rows(rows)
            batch = _rows(batch, rows)
        values = self.values(student, teacher, batch)
        if values.ndim > 1:
            # positions without a mask, which all count alike: their mean is the sample's value
            values = values.flatten(1).mean(1)
        if batch.weights is not None:
            values = values * batch.weights
        return Sum(values.sum(), rows.sum().float())


class PerBatch(Objective):
    """An objective whose value couples the samples of a batch: subclasses give `value`.

    It sees the active samples of all processes. Its sum is value times samples, so that it weighs
    in a mean as a mean of as many samples; under accumulation it relates those of a microbatch.
    """

    coupling = "batch"
    least: int = 2
    """Fewest samples that it can relate; with fewer it is zero."""

    def value(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The scalar loss of the (whole) batch."""
        raise NotImplementedError

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """`value` times the number of active samples."""
        some = next(iter(student.tensors()), None)
        rows = active(self, batch)
        rows = rows if some is None else rows.to(some.device)
        count = rows.sum().float()
        here = Sum(nothing(student), count)
        if not bool(rows.all()) or rows.ndim > 1:
            student, teacher, batch = student.rows(rows), teacher.rows(rows), _rows(batch, rows)
        if processes() > 1:
            # the inputs stay where they are: only what is related travels
            batch = replace(batch, inputs=torch.arange(int(count), device=rows.device))
            sizes = sizes_of(int(count), rows.device)
            student, teacher = gathered(student, sizes), gathered(teacher, sizes)
            batch = gathered(batch, sizes)
            total = sum(sizes)
        else:
            total = int(count)
        if total < self.least:
            return here
        return Sum(self.value(student, teacher, batch) * count, count)


class Function(Objective):
    """A user's own function `(student, teacher, batch) -> Sum, [N] values or a scalar mean`."""

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        super().__init__()
        self.function = function
        self.name = name or getattr(function, "__name__", "function")
        self.needs = getattr(function, "needs", Needs())
        self.counts = getattr(function, "counts", "all")
        # a function that relates the samples of a batch says so: `my_loss.coupling = "batch"`
        self.coupling = getattr(function, "coupling", "sample")  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The function's result as a sum."""
        rows = active(self, batch)
        if not bool(rows.any()):
            return Sum(nothing(student), rows.sum().float())
        if not bool(rows.all()):
            student, teacher, batch = student.rows(rows), teacher.rows(rows), _rows(batch, rows)
        result = self.function(student, teacher, batch)
        if isinstance(result, Sum):
            return result
        count = rows.sum().float().to(result.device)
        return Sum(result.sum() if result.ndim else result * count, count)


@dataclass(frozen=True)
class Term:
    """One weighted term of a loss, as it came out on one batch, from what the student `said`."""

    name: str
    weight: float
    sum: Sum
    objective: Objective
    said: tuple[Tensor, ...] = ()

    @property
    def value(self) -> Tensor:
        """Weight * total / count."""
        return self.weight * self.sum.mean


class Total(nn.Module):
    """A weighted sum of objectives; each is logged by its name."""

    def __init__(self, terms: list[tuple[Weight, Objective]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms]
        self.objectives = nn.ModuleList([objective for _, objective in terms])
        self.names: list[str] = []
        bare = [objective.name for _, objective in terms]
        for i, name in enumerate(bare):
            same = bare[:i].count(name)
            self.names.append(f"{name}_{same + 1}" if same else name)

    def __iter__(self) -> Iterator[tuple[str, Weight, Objective]]:
        return zip(self.names, self.weights, self._all, strict=True)

    @property
    def _all(self) -> list[Objective]:
        return [o for o in self.objectives if isinstance(o, Objective)]

    @property
    def needs(self) -> Needs:
        """What all terms together read."""
        all_ = [objective.needs for objective in self._all]
        return Needs(
            student=tuple(dict.fromkeys(t for n in all_ for t in n.student)),
            teacher=tuple(dict.fromkeys(t for n in all_ for t in n.teacher)),
            logits=any(n.logits for n in all_),
            labels=any(n.labels for n in all_),
            graph=any(n.graph for n in all_),
            head=any(n.head for n in all_),
            reads=tuple(dict.fromkeys(r for n in all_ for r in n.reads)),
        )

    def build(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Build every term from the shapes of a dry run."""
        for name, _, objective in self:
            try:
                objective.build(student, teacher, batch)
            except SignalError:
                raise
            except (RuntimeError, ValueError) as e:
                raise SignalError(f"term {name!r} cannot be built on this pair: {e}") from e

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> list[Term]:
        """Every term on this batch, unweighted sums with their weights beside them."""
        said = tuple(student.tensors())
        weighted = [(at(w, batch.progress), objective) for _, w, objective in self]
        joint = _joint(weighted, student, teacher, batch)
        return [
            Term(name, w, joint.get(i) or objective(student, teacher, batch), objective, said)
            for i, (name, (w, objective)) in enumerate(zip(self.names, weighted, strict=True))
        ]

    def after_step(self) -> None:
        """Tell every term that a step was made."""
        for objective in self._all:
            objective.after_step()

    def __add__(self, other: "Objective | Total") -> "Total":
        other = total(other)
        return Total([(w, o) for t in (self, other) for _, w, o in t])

    def __mul__(self, factor: float) -> "Total":
        return Total([(_scaled(w, factor), o) for _, w, o in self])

    __rmul__ = __mul__


def total(objective: "Objective | Total | Callable[..., Any]") -> Total:
    """Anything that can be an objective, as a weighted sum of terms."""
    if isinstance(objective, Total):
        return objective
    if isinstance(objective, Objective):
        return Total([(1.0, objective)])
    if callable(objective):
        return Total([(1.0, Function(objective))])
    raise SignalError(
        f"{objective!r} is no objective; give us.kd(...), a sum of such, or a function"
    )


def at(weight: Weight, progress: float) -> float:
    """A weight at a point of the stage."""
    return float(weight(progress)) if callable(weight) else float(weight)


def _joint(
    terms: list[tuple[float, Objective]], student: Signals, teacher: Signals, batch: Batch
) -> dict[int, Sum]:
    """Sums, by number, of the terms that are computed together."""
    groups: dict[Any, list[int]] = {}
    for i, (_, objective) in enumerate(terms):
        if objective.together is not None:
            groups.setdefault(objective.together, []).append(i)
    found: dict[int, Sum] = {}
    for together, places in groups.items():
        if len(places) > 1:
            sums = together([terms[i] for i in places], student, teacher, batch)
            found.update(zip(places, sums or [], strict=False))
    return found


def nothing(student: Signals) -> Tensor:
    """Zero that depends on the student, with a gradient of zero even where it says NaN."""
    tensors = student.tensors()
    if not tensors:
        return torch.zeros(())
    zero = torch.zeros((), device=tensors[0].device)
    return sum((t.reshape(-1)[:0].sum() for t in tensors), start=zero)


def _rows(batch: Batch, rows: Tensor) -> Batch:
    """The per-position fields of a batch at `rows`; inputs only where rows are samples."""
    if rows.ndim == 1:
        return replace(batch.rows(rows), mask=None)

    def pick(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        if t.shape[: rows.ndim] == rows.shape:
            return t[rows]
        # a value per sample, repeated for each of its positions
        shape = (len(rows), *[1] * (rows.ndim - 1))
        return t.view(*shape, *t.shape[1:]).expand(*rows.shape, *t.shape[1:])[rows]

    return replace(
        batch,
        labels=pick(batch.labels),
        weights=pick(batch.weights),
        index=pick(batch.index),
        mask=None,
    )


def _scaled(weight: Weight, factor: float) -> Weight:
    if callable(weight):
        return lambda progress: factor * weight(progress)
    return factor * weight
