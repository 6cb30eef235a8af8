"""What a language model's student is asked to match, token by token."""

import torch.nn.functional as F
from torch import Tensor

from understudy.objectives.base import PerSample
from understudy.objectives.divergences import Divergence
from understudy.objectives.vocabulary import VocabularyDivergence
from understudy.signals import Batch, Signals
from understudy.objectives.base import Needs


class _TokenCE(PerSample):
    name = "ce"
    coupling = "position"
    needs = Needs(logits=False, labels=True)
    counts = "labelled"

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return F.cross_entropy(student.dense, batch.labels, reduction="none")


def lm_ce() -> _TokenCE:
    """-log q(label) of every scored token, nats."""
    return _TokenCE()


def lm_kd(
    kind: str | Divergence = "kl", *, temperature: float = 1.0, scaled: bool = True, **settings: float
) -> VocabularyDivergence:
    """T^2 D(teacher, student) over the vocabulary at every scored token, nats; by name of D."""
    return VocabularyDivergence(kind, temperature=temperature, scaled=scaled, **settings)
