"""Losses over a large vocabulary: dense, chunked and sparse from one definition of each.

Logits are read in whatever form they come. Dense logits of the student give the dense path, whose
gradients are autograd's; factored ones (hidden states and head) the chunk loop of `chunks.py`; a
sparse teacher that of `sparse.py`, with either. All give the same values and gradients.
"""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.errors import DataError, SignalError, UserError
from understudy.objectives import chunks
from understudy.objectives.base import Needs, Objective, Reads, Sum, active, nothing
from understudy.objectives.divergences import Divergence, divergence
from understudy.objectives.logits import checked_temperature
from understudy.objectives.planning import one_pass, packed
from understudy.objectives.sparse import listed, sparse_divergence, tails_for
from understudy.signals import Batch, Factored, Signals, Sparse


def logits_divergence(
    student: Tensor, teacher: Tensor, kind: Divergence, temperature: float = 1.0
) -> Tensor:
    """[...] divergence of logits [..., V]; gradients by autograd. The reference of all paths."""
    log_p = F.log_softmax(teacher / temperature, -1)
    log_q = F.log_softmax(student / temperature, -1)
    return kind.terms(log_p, log_q).sum(-1)


def target(
    student: Factored, teacher: Factored | Tensor | Sparse, kind: Divergence, temperature: float
) -> chunks.Target:
    """What the chunk loop pulls a student's factored logits towards."""
    n, vocabulary = student.hidden.shape[0], student.weight.shape[0]
    said = teacher.hidden if isinstance(teacher, Factored) else _first(teacher)
    if len(said) != n:
        raise SignalError(f"the teacher speaks of {len(said)} positions, the student of {n}")
    columns = chunks.common(vocabulary, chunks.classes(teacher))
    if isinstance(teacher, Sparse):
        dtype = torch.promote_types(student.hidden.dtype, torch.float32)
        source = listed(teacher, kind, temperature, columns, dtype)
        return chunks.Some(kind, source, temperature, columns)
    return chunks.Logits(kind, chunks.cut(teacher, columns), temperature, columns)


def chunked_divergence(
    student: Factored,
    teacher: Factored | Tensor | Sparse,
    kind: Divergence,
    *,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """sum_n w_n D(p_n, q_n), 0-d; hidden states [n, d] of the positions that count."""
    part = chunks.Part(target=target(student, teacher, kind, temperature), weights=weights)
    return chunks.totals(student, [part])[0]


class Vocabulary(Objective):
    """A loss over a vocabulary, position by position.

    Positions that do not count are packed away first and cost nothing. Several such terms over the
    same factored logits share one walk over them (`planning.py`).
    """

    coupling: ClassVar = "position"
    together: ClassVar = staticmethod(one_pass)

    def __init_subclass__(cls, **kw: object) -> None:
        """One with a forward pass of its own is taken by itself, unless it says otherwise."""
        super().__init_subclass__(**kw)
        if "forward" in vars(cls) and "together" not in vars(cls):
            cls.together = None

    def part(self, student: Factored, teacher: Signals, batch: Batch) -> chunks.Part:
        """This term in the chunk loop over packed positions; the teacher as `said` has it."""
        raise NotImplementedError

    def values(self, student: Tensor, teacher: Signals, batch: Batch) -> Tensor:
        """[n] values of packed dense logits [n, V]."""
        raise NotImplementedError

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over active positions."""
        said = packed(self, student, teacher, batch)
        if said is None:
            return Sum(nothing(student), active(self, batch).sum().float())
        student, teacher, batch, count, share = said
        if isinstance(student.logits, Factored):
            total = chunks.totals(student.logits, [self.part(student.logits, teacher, batch)])[0]
        else:
            values = self.values(student.dense, teacher, batch)
            total = (values if batch.weights is None else values * batch.weights).sum()
        return Sum(total if share == 1 else total * share, count)


class VocabularyDivergence(Vocabulary):
    r"""T^2 D(softmax(z_t / T), softmax(z_s / T)) over a vocabulary, nats per position.

    z [n, V] of the active positions: dense, factored, or (the teacher's) sparse. Vocabularies of
    one family that are padded differently are compared where both have classes. `scaled=False`
    leaves out T^2.
    """

    name = "kd"

    def __init__(
        self,
        kind: str | Divergence = "kl",
        *,
        temperature: float = 1.0,
        scaled: bool = True,
        **settings: float,
    ) -> None:
        super().__init__()
        self.kind = divergence(kind, **settings)
        self.temperature = checked_temperature(temperature)
        self.scaled = scaled
        reads = Reads(
            name=type(self.kind).__name__, temperature=self.temperature, tails=tails_for(self.kind)
        )
        self.needs = replace(type(self).needs, reads=(reads,))

    @property
    def factor(self) -> float:
        """T^2, which keeps gradients of one size as T grows."""
        return self.temperature**2 if self.scaled else 1.0

    def part(self, student: Factored, teacher: Signals, batch: Batch) -> chunks.Part:
        """As `Vocabulary`."""
        if teacher.logits is None:
            raise SignalError("this source gives no logits, and the objective needs them")
        goal = target(student, teacher.logits, self.kind, self.temperature)
        return chunks.Part(target=goal, factor=self.factor, weights=batch.weights)

    def values(self, student: Tensor, teacher: Signals, batch: Batch) -> Tensor:
        """[n] nats, times T^2."""
        said = teacher.logits
        if isinstance(said, Sparse):
            z = student[..., : chunks.common(student.shape[-1], said.size)]
            return self.factor * sparse_divergence(z, said, self.kind, self.temperature)
        theirs = teacher.dense
        columns = chunks.common(student.shape[-1], theirs.shape[-1])
        mine, theirs = student[..., :columns], theirs[..., :columns]
        return self.factor * logits_divergence(mine, theirs, self.kind, self.temperature)


class VocabularyCE(Vocabulary):
    r"""Cross-entropy with the next tokens, -log softmax(z)_y, nats per labelled position.

    z dense [n, V] or factored; labels of `IGNORE` take no part. Label smoothing a: the target is
    (1 - a) onehot + a / V.
    """

    name = "ce"
    needs = Needs(logits=False, labels=True)
    counts = "labelled"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing lies in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def part(self, student: Factored, teacher: Signals, batch: Batch) -> chunks.Part:
        """As `Vocabulary`."""
        columns = len(student.weight)
        labels = checked_labels(batch, columns)
        return chunks.Part(
            target=chunks.Labels(labels, self.label_smoothing, columns), weights=batch.weights
        )

    def values(self, student: Tensor, teacher: Signals, batch: Batch) -> Tensor:
        """[n] nats."""
        labels = checked_labels(batch, student.shape[-1])
        return F.cross_entropy(
            student, labels, label_smoothing=self.label_smoothing, reduction="none"
        )


def checked_labels(batch: Batch, vocabulary: int) -> Tensor:
    """Labels [n] that all lie in the vocabulary.

    Raises:
        DataError: one does not; names it and its sample, before anything is indexed with it.
    """
    labels = batch.labels
    assert labels is not None
    if labels.is_floating_point():
        raise DataError(f"labels of tokens are class ids, not {labels.dtype}")
    wrong = (labels < 0) | (labels >= vocabulary)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        where = "" if batch.index is None else f" (sample {int(batch.index[place])})"
        raise DataError(
            f"the label {int(labels[place])}{where} lies outside the vocabulary of {vocabulary} "
            "tokens; the tokeniser is another one than the model's"
        )
    return labels


def _first(teacher: Tensor | Sparse) -> Tensor:
    return teacher if isinstance(teacher, Tensor) else teacher.ids


def lm_kd(
    kind: str | Divergence = "kl",
    *,
    temperature: float = 1.0,
    scaled: bool = True,
    **settings: float,
) -> VocabularyDivergence:
    """A divergence over a vocabulary by name (kl, reverse_kl, jsd, ...); settings are its own.

    `lm_kd("jsd", beta=0.3)`; see `VocabularyDivergence`, and `divergences` for the names.
    """
    return VocabularyDivergence(kind, temperature=temperature, scaled=scaled, **settings)


def lm_ce(*, label_smoothing: float = 0.0) -> VocabularyCE:
    """Cross-entropy with the next tokens, without dense logits; see `VocabularyCE`."""
    return VocabularyCE(label_smoothing=label_smoothing)
