"""Dense, chunked and sparse give one value and one gradient: that of the equation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabulary_cases import REFERENCE, SET, SETTINGS, heads, leaves, logits, slope, softmax

from understudy.errors import SignalError
from understudy.objectives import chunks, lm_kd
from understudy.objectives.divergences import KINDS, Block, divergence, pull
from understudy.signals import Batch, Factored, Signals, Sparse

ROWS = [(name, {}, REFERENCE[name]) for name in KINDS]
ROWS += [(name, SETTINGS[name], SET[name]) for name in SETTINGS]
every = pytest.mark.parametrize(
    ("name", "set_", "reference"), ROWS, ids=[n + "".join(map(str, s)) for n, s, _ in ROWS]
)


def forms(said: Factored, tau: float):
    """A teacher's logits in every form in which all of them are there."""
    z = said.dense()
    values, ids = (z / tau).log_softmax(-1).topk(z.shape[-1], -1)
    kw = {"ids": ids, "values": values, "size": z.shape[-1], "temperature": tau}
    return {
        "factored": said,
        "dense": z,
        **{tail: Sparse(tail=tail, **kw) for tail in ("uniform", "renormalise", "bucket")},
    }


@every
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    t=st.sampled_from([0.7, 1.0, 2.5]),
    softcap=st.sampled_from([None, 2.0]),
    bias=st.booleans(),
    weighted=st.booleans(),
    rows=st.integers(1, 4),
)
def test_all_paths_are_the_equation(name, set_, reference, seed, t, softcap, bias, weighted, rows):
    n, v = 3, 6
    student, teacher = heads(n, v, 4, softcap=softcap, bias=bias, seed=seed)
    weights = np.linspace(0.5, 2, n) if weighted else np.ones(n)
    p = softmax(logits(teacher) / t)

    def loss(z):
        return t**2 * (weights * reference(p, softmax(z / t))).sum()

    z = logits(student)
    value, at_z = loss(z), slope(loss, z)
    cap = 1 if softcap is None else 1 - (z / softcap) ** 2
    back = 0.7 * cap * at_z  # scale
    expected = [back @ student.weight.detach().numpy(), back.T @ student.hidden.detach().numpy()]
    expected += [back.sum(0)] if bias else []
    batch = Batch(inputs=torch.zeros(n, 1), weights=torch.from_numpy(weights) if weighted else None)
    before = dict(chunks.CHUNK_BYTES), dict(chunks.BLOCK_BYTES)
    try:
        chunks.CHUNK_BYTES["cpu"] = 8 * v * rows
        chunks.BLOCK_BYTES["cpu"] = 8 * v * (1 + rows // 2)
        for path in (student, student.dense()):
            for form, said in forms(teacher, t).items():
                found = lm_kd(name, temperature=t, **set_)(
                    Signals(logits=path), Signals(logits=said), batch
                )
                # the values of sparse logits are taken as they are: of single precision or better
                np.testing.assert_allclose(found.total.item(), value, rtol=1e-9, atol=1e-11)
                grads = torch.autograd.grad(found.total, leaves(student), retain_graph=True)
                for a, b in zip(grads, expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8, err_msg=form)
    finally:
        chunks.CHUNK_BYTES.update(before[0])
        chunks.BLOCK_BYTES.update(before[1])


@every
def test_pull_is_terms_and_slope(name, set_, reference):
    g = torch.Generator().manual_seed(5)
    log_p, log_q = (
        (3 * torch.randn(4, 9, generator=g, dtype=torch.float64)).log_softmax(-1) for _ in "pq"
    )
    kind = divergence(name, **set_)
    inner = kind.slope(log_p, log_q)
    expected = inner - log_q.exp() * inner.sum(-1, keepdim=True)
    values = kind.terms(log_p, log_q).sum(-1, keepdim=True)
    block = Block(log_p, log_q, log_p.exp(), log_q.exp(), torch.empty_like(log_p))
    found = pull(kind, block)
    torch.testing.assert_close(found[0], values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[1], expected, rtol=1e-12, atol=1e-14)


@every
def test_a_kind_of_a_user_needs_terms_and_slope_only(name, set_, reference):
    """Without `pull` and what else is declared, the same through both paths."""
    known = divergence(name, **set_)

    class Own:
        terms = staticmethod(known.terms)
        slope = staticmethod(known.slope)

    student, teacher = heads()
    batch = Batch(inputs=torch.zeros(7, 1))
    said = Signals(logits=teacher)
    a = lm_kd(Own(), temperature=2)(Signals(logits=student), said, batch)
    b = lm_kd(name, temperature=2, **set_)(Signals(logits=student.dense()), said, batch)
    torch.testing.assert_close(a.total, b.total, rtol=1e-11, atol=1e-12)
    grads = [torch.autograd.grad(x.total, leaves(student)) for x in (a, b)]
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_equal_teaches_nothing(name, set_, reference, dtype):
    student, _ = heads(dtype=dtype, softcap=5.0)
    teacher = Factored(
        hidden=student.hidden.detach(), weight=student.weight.detach(),
        bias=student.bias.detach(), scale=0.7, softcap=5.0,
    )  # fmt: skip
    batch = Batch(inputs=torch.zeros(7, 1))
    for path in (student, student.dense()):
        found = lm_kd(name, temperature=1.5, **set_)(
            Signals(logits=path), Signals(logits=teacher), batch
        )
        # dense logits of half precision are rounded once more than chunked ones
        close = 1e-5 if dtype is torch.float32 else 2e-2
        assert abs(found.total.item()) < close
        slopes = torch.autograd.grad(found.total, leaves(student))
        assert max(g.abs().max().item() for g in slopes) < (1e-5 if dtype is torch.float32 else 0.2)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extremes_of_half_precision_stay_finite(name, set_, reference, dtype):
    g = torch.Generator().manual_seed(3)
    hidden = (100 * torch.randn(4, 5, generator=g)).to(dtype).requires_grad_()
    weight = (60 * torch.randn(11, 5, generator=g)).to(dtype).requires_grad_()
    teacher = Factored(hidden=-hidden.detach(), weight=weight.detach())
    student = Factored(hidden=hidden, weight=weight)
    assert student.dense().abs().max() > 1e4
    found = lm_kd(name, **set_)(
        Signals(logits=student), Signals(logits=teacher), Batch(inputs=torch.zeros(4, 1))
    )
    assert torch.isfinite(found.total)
    by = (found.total / 1e4, [hidden, weight])  # what a loss scale would do
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(*by))


@pytest.mark.parametrize("name", KINDS)
def test_padded_columns_of_either_side_are_left_out(name):
    student, teacher = heads(vocabulary=23)
    junk = torch.full((3, 10), 9.0, dtype=torch.float64)
    padded = replace(teacher, weight=torch.cat([teacher.weight, junk]))
    wide = replace(
        student,
        weight=torch.cat([student.weight.detach(), 7 * torch.ones(2, 5)]).requires_grad_(),
        bias=torch.cat([student.bias.detach(), torch.ones(2)]).requires_grad_(),
    )
    batch = Batch(inputs=torch.zeros(7, 1))
    objective = lm_kd(name, temperature=1.5)
    plain = objective(Signals(logits=student), Signals(logits=teacher), batch).total
    (expected,) = torch.autograd.grad(plain, student.weight)
    z = padded.dense()
    top = z.log_softmax(-1).topk(26, -1)
    forms = [padded, z, Sparse(ids=top.indices, values=top.values, size=26, tail="uniform")]
    for mine, several in ((student, forms), (wide, [teacher, teacher.dense()])):
        for theirs in several:
            for said in (mine, mine.dense()):
                found = objective(Signals(logits=said), Signals(logits=theirs), batch).total
                torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-10)
                (grad,) = torch.autograd.grad(found, mine.weight)
                torch.testing.assert_close(grad[:23], expected, rtol=1e-8, atol=1e-9)
                assert not grad[23:].any()


def test_vocabularies_that_differ_by_more_than_padding_are_refused():
    student, _ = heads(vocabulary=23)
    _, other = heads(vocabulary=40)
    for mine in (student, student.dense()):
        with pytest.raises(SignalError, match=r"23 classes and the teacher's 40.*tokenisers"):
            lm_kd()(Signals(logits=mine), Signals(logits=other), Batch(inputs=torch.zeros(7, 1)))
    fewer = Factored(hidden=other.hidden[:5], weight=other.weight[:23])
    with pytest.raises(SignalError, match="teacher speaks of 5 positions, the student of 7"):
        lm_kd()(Signals(logits=student), Signals(logits=fewer), Batch(inputs=torch.zeros(7, 1)))


@pytest.mark.parametrize("name", KINDS)
def test_sequences_with_a_mask_are_their_packed_positions(name):
    student, teacher = heads(n=12)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    weights = torch.rand(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hidden = student.hidden.detach().view(3, 4, 5).clone()
    hidden[~mask] = float("nan")
    hidden.requires_grad_()
    shown = replace(student, hidden=hidden)
    said = replace(teacher, hidden=teacher.hidden.view(3, 4, 10))
    batch = Batch(inputs=torch.zeros(3, 4), mask=mask, weights=weights)
    objective = lm_kd(name, temperature=1.5)
    found = objective(Signals(logits=shown), Signals(logits=said), batch)
    keep = mask.flatten()
    flat = replace(student, hidden=student.hidden[keep])
    packed = objective(
        Signals(logits=flat),
        Signals(logits=replace(teacher, hidden=teacher.hidden[keep])),
        Batch(inputs=torch.zeros(int(keep.sum()), 1), weights=weights[mask]),
    )
    assert found.count == packed.count == keep.sum()
    torch.testing.assert_close(found.total, packed.total)
    (a,) = torch.autograd.grad(found.total, hidden)
    (b,) = torch.autograd.grad(packed.total, student.hidden)
    assert not a[~mask].any()
    torch.testing.assert_close(a.view(12, 5), b)
    # without a mask a sample's value is the mean over its positions
    whole = objective(
        Signals(logits=replace(student, hidden=student.hidden.view(3, 4, 5))),
        Signals(logits=said),
        Batch(inputs=torch.zeros(3, 4)),
    )
    every_ = objective(
        Signals(logits=student), Signals(logits=teacher), Batch(inputs=torch.zeros(12, 1))
    )
    assert whole.count == 3
    torch.testing.assert_close(whole.total, every_.total / 4)
