"""Divergences over a vocabulary: definitions against NumPy, slopes against finite differences,
and the chunked path against the dense one."""

import numpy as np
import pytest
import torch
from vocabulary_cases import REFERENCE, softmax

from understudy.objectives import chunks
from understudy.objectives.divergences import KINDS, divergence
from understudy.objectives.vocabulary import VocabularyDivergence, chunked_divergence
from understudy.signals import Batch, Factored, Signals, Sparse

N, V, D, T = 7, 23, 5, 1.7


def pair(softcap=None, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    student = Factored(
        hidden=draw(N, D).requires_grad_(), weight=draw(V, D).requires_grad_(),
        bias=draw(V).requires_grad_(), scale=0.7, softcap=softcap,
    )  # fmt: skip
    return student, Factored(hidden=draw(N, 2 * D), weight=draw(V, 2 * D))


def test_every_kind_has_a_reference():
    assert set(REFERENCE) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_dense_value_is_the_definition(name):
    student, teacher = pair()
    objective = VocabularyDivergence(name, temperature=T)
    said = Signals(logits=student.dense().detach().requires_grad_())
    found = objective(said, Signals(logits=teacher.dense()), Batch(inputs=torch.zeros(N, 1)))
    p = softmax(teacher.dense().detach().numpy() / T)
    q = softmax(student.dense().detach().numpy() / T)
    assert found.count == N
    np.testing.assert_allclose(found.total.item(), T**2 * REFERENCE[name](p, q).sum(), rtol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_zero_where_student_is_teacher(name):
    z = torch.randn(4, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_p = z.log_softmax(-1)
    assert divergence(name).terms(log_p, log_p).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("name", KINDS)
def test_chunked_gradients_are_those_of_autograd(name, softcap, monkeypatch):
    # chunks of three, the last of one; blocks of two and one
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 8 * V * 3)
    monkeypatch.setitem(chunks.BLOCK_BYTES, "cpu", 8 * V * 2)
    student, teacher = pair(softcap)
    weights = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    kind = divergence(name)
    log_p = (teacher.dense() / T).log_softmax(-1)
    log_q = (student.dense() / T).log_softmax(-1)
    expected = (kind.terms(log_p, log_q).sum(-1) * weights).sum()
    found = chunked_divergence(student, teacher, kind, temperature=T, weights=weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = (student.hidden, student.weight, student.bias)
    for a, b in zip(
        torch.autograd.grad(expected, leaves), torch.autograd.grad(3 * found, leaves), strict=True
    ):
        torch.testing.assert_close(b, 3 * a, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_masked_positions_are_inert_in_the_chunked_path(name):
    student, teacher = pair()
    mask = torch.tensor([True, False, True, True, False, True, True])
    hidden = student.hidden.detach().clone()
    hidden[~mask] = float("nan")
    hidden.requires_grad_()
    broken = Factored(hidden=hidden, weight=student.weight, bias=student.bias, scale=0.7)
    objective = VocabularyDivergence(name, temperature=T)
    batch = Batch(inputs=torch.zeros(N, 1), mask=mask)
    found = objective(Signals(logits=broken), Signals(logits=teacher), batch)
    whole = objective(Signals(logits=student), Signals(logits=teacher), batch)
    torch.testing.assert_close(found.total, whole.total)
    (grad,) = torch.autograd.grad(found.total, hidden)
    assert grad[~mask].abs().max() == 0
    assert torch.isfinite(grad).all()
    none = Batch(inputs=torch.zeros(N, 1), mask=torch.zeros(N, dtype=torch.bool))
    empty = objective(Signals(logits=student), Signals(logits=teacher), none)
    assert empty.total == 0
    assert torch.autograd.grad(empty.total, student.hidden)[0].abs().max() == 0


def test_a_frozen_head_gets_no_gradient_and_a_padded_teacher_is_cut():
    student, teacher = pair()
    frozen = Factored(hidden=student.hidden, weight=student.weight.detach(), scale=0.7)
    padded = Factored(
        hidden=teacher.hidden, weight=torch.cat([teacher.weight, torch.full((4, 2 * D), 9.0)])
    )
    kind = divergence("kl")
    a = chunked_divergence(frozen, teacher, kind)
    b = chunked_divergence(frozen, padded, kind)
    torch.testing.assert_close(a, b)
    assert frozen.weight.grad is None
    a.backward()
    assert student.hidden.grad is not None


def test_sparse_teacher_with_all_classes_is_the_dense_one():
    student, teacher = pair()
    values, ids = teacher.dense().log_softmax(-1).topk(V, dim=-1)
    sparse = Sparse(ids=ids, values=values, size=V, tail="renormalise")
    kind = divergence("jsd")
    torch.testing.assert_close(
        chunked_divergence(student, sparse, kind),
        chunked_divergence(student, teacher, kind),
        rtol=1e-5,
        atol=1e-6,
    )


def test_bfloat16_extremes_stay_finite():
    hidden = (1e4 * torch.randn(4, D, generator=torch.Generator().manual_seed(3))).bfloat16()
    hidden.requires_grad_()
    weight = torch.randn(V, D, generator=torch.Generator().manual_seed(4)).bfloat16()
    teacher = Factored(hidden=-hidden.detach(), weight=weight)
    for name in KINDS:
        student = Factored(hidden=hidden, weight=weight)
        value = chunked_divergence(student, teacher, divergence(name))
        assert torch.isfinite(value), name
        assert torch.isfinite(torch.autograd.grad(value, hidden)[0]).all(), name
