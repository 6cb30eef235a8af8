"""Learning from a teacher that reads the same text in other tokens.

Such a teacher says what it says at the student's positions (`teachers.Retokenizing`): its logits of
the first token of each group of tokens that cover the same bytes, how many tokens of its own the
group has, and the log-probability of those after the first, which it read. A teacher of the
student's own tokens, with logits of the same positions, is the case of groups of one token.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from understudy.errors import SignalError, UserError
from understudy.objectives.base import Needs, Objective, Sum, active, nothing
from understudy.signals import Batch, Signals

OWN = "own_tokens"
"""The features of a teacher with tokens of its own: OWN.logits, .group, .count and .later."""


@dataclass(frozen=True)
class Said:
    """G groups: both sides' log-probabilities of a group's first token, [G, V] each.

    mine, other [G]: log-probabilities of the group's later tokens, each given those before it.
    single [G]: whether both sides have one token there. weights [G] or None.
    """

    student: Tensor
    teacher: Tensor
    mine: Tensor
    other: Tensor
    single: Tensor
    weights: Tensor | None


class _CrossTokenizer(Objective):
    coupling: ClassVar = "sample"
    needs = Needs()

    def values(self, said: Said) -> Tensor:
        """[G] a value for each group."""
        raise NotImplementedError

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Sum over the groups, counted by the student's scored tokens."""
        rows = active(self, batch)
        count = rows.sum().float()
        if not bool(rows.any()):
            return Sum(nothing(student), count)
        said = (
            _grouped(student, teacher, batch, rows)
            if f"{OWN}.logits" in teacher.features
            else _alike(student, teacher, batch, rows)
        )
        if said is None:
            return Sum(nothing(student), count)
        values = self.values(said)
        if said.weights is not None:
            values = values * said.weights
        return Sum(values.sum(), count)


def _alike(student: Signals, teacher: Signals, batch: Batch, rows: Tensor) -> Said:
    """Both read the same tokens: each is a group."""
    if teacher.logits is None:
        raise SignalError(
            "this teacher gives neither logits nor, in tokens of its own, the student's positions "
            "(teachers.Retokenizing)"
        )
    log_q = student.rows(rows).dense.log_softmax(-1).flatten(0, -2)
    log_p = teacher.rows(rows).dense.log_softmax(-1).flatten(0, -2)
    none = log_q.new_zeros(len(log_q))
    weights = batch.weights
    if weights is not None:
        weights = weights[rows]
    return Said(log_q, log_p, none, none, none == 0, weights)


def _grouped(student: Signals, teacher: Signals, batch: Batch, rows: Tensor) -> Said | None:
    """The groups that a teacher with tokens of its own has found."""
    group = teacher.features[f"{OWN}.group"]
    if rows.ndim == 1:
        rows = rows.unsqueeze(-1).expand(group.shape)
    if rows.shape != group.shape:
        raise SignalError(
            f"the teacher speaks at positions {list(group.shape)}, and the student is scored at "
            f"{list(rows.shape)}: they have not read the same batch"
        )
    inside = group >= 0
    if bool((inside & ~rows).any()):
        raise SignalError("the teacher speaks of tokens that are not scored in this batch")
    if not bool(inside.any()):
        return None
    labels = batch.labels
    if labels is None:
        raise SignalError("tokens are merged by their labels, and the batch has none")
    log_q = student.rows(inside).dense.log_softmax(-1)
    number, sizes = torch.unique_consecutive(group[inside], return_counts=True)
    owner = torch.arange(len(number), device=group.device).repeat_interleave(sizes)
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    told = log_q.gather(-1, labels[inside].unsqueeze(-1)).squeeze(-1)
    told = torch.where(first, torch.zeros_like(told), told)
    mine = torch.zeros(len(number), dtype=told.dtype, device=told.device).index_add(0, owner, told)
    here = teacher.features[f"{OWN}.count"] > 0
    if int(here.sum()) != len(number):
        raise SignalError("the teacher's groups are torn: a position that begins one is missing")
    log_p = teacher.features[f"{OWN}.logits"][here].log_softmax(-1)
    weights = batch.weights
    if weights is not None:
        weights = weights.unsqueeze(-1).expand(rows.shape) if weights.ndim == 1 else weights
        weights = weights[inside][first]
    return Said(
        student=log_q[first],
        teacher=log_p.to(log_q.dtype),
        mine=mine,
        other=teacher.features[f"{OWN}.later"][here].to(log_q.dtype),
        single=(sizes == 1) & (teacher.features[f"{OWN}.count"][here] == 1),
        weights=weights,
    )


def sorted_distance(p: Tensor, q: Tensor) -> Tensor:
    """[...] sum_i |p_(i) - q_(i)| of values in descending order, the shorter filled up with zeros."""
    p, q = p.sort(-1, descending=True).values, q.sort(-1, descending=True).values
    width = max(p.shape[-1], q.shape[-1])
    pad = torch.nn.functional.pad
    return (pad(p, (0, width - p.shape[-1])) - pad(q, (0, width - q.shape[-1]))).abs().sum(-1)


class _ULD(_CrossTokenizer):
    name = "uld"

    def __init__(self, merged: bool) -> None:
        super().__init__()
        self.merged = merged

    def values(self, said: Said) -> Tensor:
        q, p = said.student, said.teacher
        if self.merged:
            q, p = q + said.mine.unsqueeze(-1), p + said.other.unsqueeze(-1)
        return sorted_distance(p.exp(), q.exp())


def uld(*, merged: bool = True) -> _ULD:
    r"""sum_i |p_(i) - q_(i)| of both distributions sorted, at groups that cover the same bytes; 0 to 2.

    merged: a group of several tokens has P(first token) times the probability of those that follow,
    by the chain rule; False compares the first tokens alone. The sum is divided by scored tokens.

    Source: Boizard et al., arXiv 2402.12030, Eq. 5 (L1 form of the Wasserstein distance).
    """
    return _ULD(merged)


def _shared(pairs: Tensor) -> Tensor:
    pairs = torch.as_tensor(pairs).long()
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise UserError("shared ids are pairs [S, 2] of (student, teacher), at least one")
    if any(len(pairs[:, side].unique()) != len(pairs) for side in (0, 1)):
        raise UserError("shared ids: an id is paired twice")
    return pairs


def _inside(said: Said, pairs: Tensor) -> None:
    most = pairs.max(0).values
    if int(most[0]) >= said.student.shape[-1] or int(most[1]) >= said.teacher.shape[-1]:
        raise SignalError(
            f"shared ids go up to {most.tolist()}, and the vocabularies have "
            f"{said.student.shape[-1]} (student) and {said.teacher.shape[-1]} (teacher) tokens"
        )


class _Gold(_CrossTokenizer):
    name = "gold"

    def __init__(self, shared: Tensor, matched: float | None, unmatched: float | None) -> None:
        super().__init__()
        self.register_buffer("shared", _shared(shared), persistent=False)
        self.matched, self.unmatched = matched, unmatched

    def values(self, said: Said) -> Tensor:
        pairs: Tensor = self.shared  # pyright: ignore[reportAssignmentType]
        _inside(said, pairs)
        share = len(pairs) / said.student.shape[-1]
        w = share if self.matched is None else self.matched
        u = 1 - share if self.unmatched is None else self.unmatched
        log_q = said.student[:, pairs[:, 0]].log_softmax(-1)
        log_p = said.teacher[:, pairs[:, 1]].log_softmax(-1)
        p = log_p.exp()
        close = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)
        q_all = (said.student + said.mine.unsqueeze(-1)).exp()
        p_all = (said.teacher + said.other.unsqueeze(-1)).exp()
        far = sorted_distance(_without(p_all, pairs[:, 1]), _without(q_all, pairs[:, 0]))
        return w * close + u * far


def _without(p: Tensor, ids: Tensor) -> Tensor:
    kept = torch.ones(p.shape[-1], dtype=torch.bool, device=p.device)
    kept[ids] = False
    return p[:, kept]


def gold(shared: Tensor, *, matched: float | None = None, unmatched: float | None = None) -> _Gold:
    r"""matched KL(p_S || q_S) + unmatched sum_i |p_(i) - q_(i)|, at groups that cover the same bytes.

    S are the tokens of both vocabularies, by `shared` [S, 2] (student's id, teacher's id), on which
    both are normalised; the others are compared in sorted order, groups of several tokens by the
    chain rule. Weights None: the share of the student's vocabulary that is shared, and the rest.

    Source: GOLD (general on-policy logit distillation, Patiño et al. 2025), as in trl's GOLDTrainer
    with the hybrid loss and merge strategy "observed", and beta 0.
    """
    return _Gold(shared, matched, unmatched)


class _Projected(_CrossTokenizer):
    name = "projected_kl"

    def __init__(self, shared: Tensor, where: str) -> None:
        super().__init__()
        if where not in ("single", "first"):
            raise UserError(f"projected_kl compares single tokens or all first ones, not {where!r}")
        self.register_buffer("shared", _shared(shared), persistent=False)
        self.where = where

    def values(self, said: Said) -> Tensor:
        pairs: Tensor = self.shared  # pyright: ignore[reportAssignmentType]
        _inside(said, pairs)
        log_p = _projected(said.teacher, pairs[:, 1])
        log_q = _projected(said.student, pairs[:, 0])
        p = log_p.exp()
        values = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)
        return values if self.where == "first" else torch.where(said.single, values, 0.0)


def _projected(log_p: Tensor, ids: Tensor) -> Tensor:
    """[G, S + 1]: the shared tokens, and all others as one."""
    rest = torch.ones(log_p.shape[-1], dtype=torch.bool, device=log_p.device)
    rest[ids] = False
    if bool(rest.any()):
        other = log_p[:, rest].logsumexp(-1, keepdim=True)
    else:
        other = torch.full_like(log_p[:, :1], torch.finfo(log_p.dtype).min)
    return torch.cat([log_p[:, ids], other], -1)


def projected_kl(shared: Tensor, *, where: Literal["single", "first"] = "single") -> _Projected:
    r"""KL(p' || q') over the shared part of two vocabularies and one class of all the rest; nats.

    p'_s = p_s for s in S, p'_rest = 1 - sum_S p_s: merging classes gives a lower bound of any KL of
    distributions that refine both. where: at groups of one token on either side, whose contexts and
    texts agree, or at the first token of every group. `shared` as in `gold`.
    """
    return _Projected(shared, where)
