"""Where a signal comes from: anything that says something about a batch."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from understudy.errors import MethodRefused, nearest
from understudy.objectives import Needs, Reads
from understudy.signals import Batch, Signals
from understudy.store import teacher_fingerprint


@runtime_checkable
class Teacher(Protocol):
    """A source of signals that the student learns from; its parameters are never trained by it."""

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Resolve what an objective needs (taps, head, graph), or refuse it before training.

        Called once, before the first `signals`; raises `MethodRefused` naming what this source
        cannot give and the alternatives.
        """
        ...

    def signals(self, batch: Batch) -> Signals:
        """What it says about the batch: detached, unless `needs.graph` was asked for."""
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """The models it holds in memory (to be moved to a device); a store has none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Gives:
    """What a source can give, for refusing an objective before training.

    logits: whether it gives any; k: how many classes of a distribution it lists (None = all);
    features: names of taps it can record (None = any); graph: whether gradients can run through
    it; head: whether its own layers can be applied to the student's features. tail: what is said of
    the classes that are not listed (`Sparse.tail`; None where all are); temperature: at which the
    listed ones were taken.
    """

    logits: bool = True
    k: int | None = None
    features: tuple[str, ...] | None = None
    graph: bool = True
    head: bool = True
    tail: str | None = None
    temperature: float = 1.0

    def refuse(self, needs: Needs, source: str) -> None:
        """Raise `MethodRefused` where `needs` asks for more, with the alternatives."""
        live = "use the live teacher"
        if needs.logits and not self.logits:
            raise MethodRefused(f"the objective reads logits, and {source} gives none; {live}")
        if needs.graph and not self.graph:
            raise MethodRefused(
                f"the objective takes gradients through the teacher, and {source} has none; {live}"
            )
        if needs.head and not self.head:
            raise MethodRefused(
                f"the objective reads the teacher's last linear layer, and {source} does not have "
                f"it; {live}"
            )
        for reads in needs.reads if self.tail is not None else ():
            self._refuse_part(reads, source, live)
        for tap in needs.teacher if self.features is not None else ():
            if tap not in (self.features or ()):
                raise MethodRefused(
                    f"the objective reads the teacher's {tap!r}, and {source} does not have it"
                    f"{nearest(tap, self.features or ()) or ' (it has logits alone)'}; write the "
                    f"signals with taps=[{tap!r}], or {live}"
                )

    def _refuse_part(self, reads: Reads, source: str, live: str) -> None:
        if self.tail not in reads.tails:
            why = {
                "sampled": "cannot be estimated without bias from sampled classes, forward KL can",
                "bucket": "says nothing of merged classes",
                "renormalise": "is infinite where the teacher's probability is zero",
            }.get(str(self.tail), "cannot be had of a part of the classes")
            raise MethodRefused(
                f"{reads.name} {why}, and {source} has the tail rule {self.tail!r}; write the "
                f"signals in mode hidden, or with the tail {' or '.join(reads.tails)}, or {live}"
            )
        if reads.temperature != self.temperature and self.tail != "renormalise":
            raise MethodRefused(
                f"{reads.name} reads the teacher at temperature {reads.temperature:g}, and {source} "
                f"lists a part of its classes at {self.temperature:g}, which does not say the other; "
                f"train at {self.temperature:g}, write the signals at {reads.temperature:g} or in "
                f"mode hidden, or {live}"
            )


def fingerprint_of(teacher: Teacher) -> str:
    """A teacher's fingerprint: its own `fingerprint()`, or a hash of its kind and its modules."""
    own = getattr(teacher, "fingerprint", None)
    if callable(own):
        return str(own())
    parts = (f"{k}={teacher_fingerprint(m)}" for k, m in sorted(teacher.modules().items()))
    return combined(type(teacher).__qualname__, parts)


def combined(kind: str, parts: Iterable[str]) -> str:
    """sha256 of a kind and the fingerprints (or words) of its parts, in order."""
    return hashlib.sha256("\n".join([kind, *parts]).encode()).hexdigest()
