"""A teacher's soft prompt and the student, tuned towards each other in turn."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from understudy.algorithms.base import Algorithm, ParameterGroups, Scene, Step, groups
from understudy.algorithms.pair import Pair
from understudy.errors import MethodRefused
from understudy.objectives import Total, lm_kd, ramp
from understudy.signals import Batch, Signals
from understudy.teachers import Frozen
from understudy.teachers.prompted import Prompted


class Prompting(Algorithm):
    """Each update first tunes the prompt, then the student, on the same texts.

    The prompt: KL(prompted || student) + stay (1 - progress) KL(prompted || unprompted), by an
    optimiser of its own. The student: the scene's objective against the prompted teacher as it then
    is. tokens [P]: the prompt starts as their embeddings. kind, stay_kind: divergences from the
    prompted teacher, which learns, to the student and to its unprompted self.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        stay: float = 1.0,
        kind: str = "reverse_kl",
        stay_kind: str = "reverse_kl",
        rate: float = 1.0,
    ) -> None:
        self.tokens, self.rate = tokens, rate
        self.friendly = Total([(1.0, lm_kd(kind).named("friendly"))])
        self.staying = Total([(ramp(0.0, start=stay), lm_kd(stay_kind).named("stay"))])

    def prepare(self, scene: Scene) -> None:
        """The teacher behind its prompt; the student pairs with that."""
        scene.only("prompt tuning of the teacher")
        models = {} if scene.teacher is None else dict(scene.teacher.modules())
        if len(models) != 1:
            raise MethodRefused(
                "a soft prompt stands before one live language model; a store or an ensemble has "
                "no place for it"
            )
        (model,) = models.values()
        self.plain = Frozen(model, call=scene.call)
        self.teacher = Prompted.starting(model, self.tokens)
        self.pair = Pair(
            scene.student, self.teacher, scene.objective, scene.example, call=scene.call
        )

    def modules(self) -> dict[str, nn.Module]:
        """The prompt is saved too."""
        return {**super().modules(), "prompt": self.teacher.prompt}

    def parameters(self) -> dict[str, ParameterGroups]:
        """One optimiser for the student, one for the prompt."""
        return {**super().parameters(), "prompt": groups(self.teacher.prompt)}

    def make_optimizer(
        self, name: str, parameters: ParameterGroups, budget: Any
    ) -> torch.optim.Optimizer | None:
        """The prompt's learns at `rate` times the student's rate."""
        if name != "prompt" or self.rate == 1.0:
            return None
        return budget.make_optimizer([{**g, "lr": budget.lr * self.rate} for g in parameters])

    def objectives(self) -> Iterable[Total]:
        """The student's, and those on the prompt."""
        return [self.pair.objective, self.friendly, self.staying]

    def update(self, batch: Batch, step: Step) -> None:
        """The prompt, then the student."""
        spoken = self.pair.spoken(batch)
        prompted = self.teacher.speak(batch)
        usual: Signals = self.plain.signals(batch)
        terms = self.friendly(prompted, spoken, batch) + self.staying(prompted, usual, batch)
        step(terms, "prompt")
        step(self.pair.terms(batch))
