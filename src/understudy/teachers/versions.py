"""Two versions of a model as one teacher: what the new one says, and what the old one said."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from understudy.errors import MethodRefused
from understudy.objectives import Needs
from understudy.signals import Batch, Signals
from understudy.teachers.base import Gives, Teacher, combined, fingerprint_of

OLD = "old"


class Versions:
    """The new model's signals, with the old one's logits as the feature `old` [N, ..., K]."""

    gives = Gives(head=False, graph=False, features=(OLD,))

    def __init__(self, old: Teacher, new: Teacher) -> None:
        self.old, self.new = old, new

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Both are prepared to give logits."""
        self.gives.refuse(needs, "a teacher of two versions")
        plain = replace(needs, teacher=())
        self.old.prepare(replace(plain, logits=True), example)
        self.new.prepare(plain, example)

    def signals(self, batch: Batch) -> Signals:
        """What both say."""
        said, was = self.new.signals(batch), self.old.signals(batch).dense
        if said.dense.shape != was.shape:
            raise MethodRefused(
                f"the old version says {list(was.shape)} and the new one {list(said.dense.shape)}: "
                "an update keeps its classes, or its tokens"
            )
        return replace(said, features={**said.features, OLD: was})

    def modules(self) -> Mapping[str, nn.Module]:
        """Those of both."""
        found = {f"{OLD}.{k}": m for k, m in self.old.modules().items()}
        return {**found, **{f"new.{k}": m for k, m in self.new.modules().items()}}

    def fingerprint(self) -> str:
        """Hash of both."""
        return combined("Versions", [fingerprint_of(self.old), fingerprint_of(self.new)])
