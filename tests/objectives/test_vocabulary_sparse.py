"""Sparse teachers: each tail rule against its equation, bounds, samples without bias, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from vocabulary_cases import REFERENCE, heads, leaves, logits, slope, softmax

from understudy.errors import SignalError
from understudy.objectives import chunks, lm_kd
from understudy.objectives.divergences import KINDS
from understudy.signals import Batch, Signals, Sparse

N, V, K = 5, 12, 3
BATCH = Batch(inputs=torch.zeros(N, 1))
MERGES = sorted(KINDS)
ALONE = ["kl", "jsd", "skew_kl", "skew_reverse_kl", "tv", "alpha_beta"]
"""Finite where the teacher's probability is zero."""


def pair(seed=0, **kw):
    return heads(N, V, 4, seed=seed, **kw)


def top(teacher, tail, *, k=K, temperature=1.0):
    values, ids = (teacher.dense() / temperature).log_softmax(-1).topk(k, -1)
    return Sparse(ids=ids, values=values, size=V, tail=tail, temperature=temperature)


def spread(p, tail, k=K):
    """What a tail rule makes of probabilities [n, V]: [n, V], in NumPy."""
    keep = np.argsort(-p, -1)[:, :k]
    full = np.zeros_like(p)
    for row, best in enumerate(keep):
        missing = 1 - p[row, best].sum()
        full[row] = missing / (len(p[row]) - k) if tail == "uniform" else 0
        full[row, best] = p[row, best]
    return full / full.sum(-1, keepdims=True)


def merged(p, ids):
    """Listed classes and the sum of all others, [n, k + 1]."""
    mine = np.take_along_axis(p, ids, -1)
    return np.concatenate([mine, 1 - mine.sum(-1, keepdims=True)], -1)


def check(name, tail, loss, student, teacher, temperature=1.0):
    """Value and gradient of both paths against a NumPy loss of the student's logits."""
    z = logits(student)
    at_z = 0.7 * slope(loss, z)
    expected = [at_z @ student.weight.detach().numpy(), at_z.T @ student.hidden.detach().numpy()]
    for said in (student, student.dense()):
        found = lm_kd(name, temperature=temperature, scaled=False)(
            Signals(logits=said), Signals(logits=teacher), BATCH
        ).total
        np.testing.assert_allclose(found.item(), loss(z), rtol=1e-9, err_msg=tail)
        grads = torch.autograd.grad(found, leaves(student), retain_graph=True)
        for a, b in zip(grads, [*expected, at_z.sum(0)], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("t", [1.0, 1.8])
@pytest.mark.parametrize("name", KINDS)
def test_a_uniform_tail_is_the_distribution_that_it_says(name, t):
    student, teacher = pair()
    p = spread(softmax(logits(teacher)), "uniform") ** (1 / t)
    p /= p.sum(-1, keepdims=True)
    check(
        name, "uniform", lambda z: REFERENCE[name](p, softmax(z / t)).sum(), student,
        top(teacher, "uniform"), t,
    )  # fmt: skip


@pytest.mark.parametrize("t", [1.0, 1.8])
@pytest.mark.parametrize("name", ALONE)
def test_a_renormalised_teacher_excludes_the_rest(name, t):
    student, teacher = pair()
    p = spread(softmax(logits(teacher) / t), "renormalise")
    check(
        name, "renormalise", lambda z: REFERENCE[name](p, softmax(z / t)).sum(), student,
        top(teacher, "renormalise"), t,
    )  # fmt: skip


@pytest.mark.parametrize("name", MERGES)
def test_a_bucket_is_one_more_class_and_a_lower_bound(name):
    student, teacher = pair()
    sparse = top(teacher, "bucket")
    ids = sparse.ids.numpy()
    p = merged(softmax(logits(teacher)), ids)

    def loss(z):
        return REFERENCE[name](p, merged(softmax(z), ids)).sum()

    check(name, "bucket", loss, student, sparse)
    z = logits(student)
    assert loss(z) < REFERENCE[name](softmax(logits(teacher)), softmax(z)).sum()
    # the more is listed, the nearer it comes
    found = [
        lm_kd(name)(Signals(logits=student), Signals(logits=top(teacher, "bucket", k=k)), BATCH)
        for k in range(1, V + 1)
    ]
    values = [f.total.item() for f in found]
    assert min(np.diff(values)) > -1e-9


def test_a_bucket_at_its_own_temperature():
    student, teacher = pair()
    sparse = top(teacher, "bucket", temperature=2.0)
    ids = sparse.ids.numpy()
    p = merged(softmax(logits(teacher) / 2), ids)
    check("jsd", "bucket",
          lambda z: REFERENCE["jsd"](p, merged(softmax(z / 2), ids)).sum(), student, sparse, 2.0)  # fmt: skip


def test_nothing_of_the_size_of_the_vocabulary_is_made_for_a_listed_teacher(monkeypatch):
    student, teacher = pair()
    made = []
    get = chunks.Work.get
    monkeypatch.setattr(
        chunks.Work, "get", lambda self, name, *a: (made.append(name), get(self, name, *a))[1]
    )
    for name, tail in [("kl", "uniform"), ("kl", "renormalise")] + [(n, "bucket") for n in KINDS]:
        made.clear()
        lm_kd(name)(Signals(logits=student), Signals(logits=top(teacher, tail)), BATCH)
        assert set(made) <= {"z", "log_q", "q"}, (name, tail)


def test_places_where_nothing_is_listed_say_nothing():
    student, teacher = pair()
    for name in KINDS:
        for tail in ("uniform", "bucket", "renormalise"):
            if tail == "renormalise" and name not in ALONE:
                continue
            plain = top(teacher, tail)
            filled = replace(
                plain,
                ids=torch.cat([plain.ids, torch.zeros(N, 2, dtype=torch.long)], -1),
                values=torch.cat([plain.values, torch.full((N, 2), -torch.inf)], -1),
            )
            for said in (student, student.dense()):
                a, b = (
                    lm_kd(name)(Signals(logits=said), Signals(logits=t), BATCH).total
                    for t in (plain, filled)
                )
                torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
                grads = [torch.autograd.grad(x, leaves(student), retain_graph=True) for x in (a, b)]
                for x, y in zip(*grads, strict=True):
                    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
            if tail != "bucket":
                torch.testing.assert_close(plain.dense(), filled.dense())


def test_samples_estimate_forward_kl_without_bias():
    """Over all that can be drawn, the mean is the cross-entropy, and its gradient that of KL."""
    student, teacher = heads(1, 4, 3)
    p = softmax(logits(teacher))[0]
    batch = Batch(inputs=torch.zeros(1, 1))
    value, grads = 0.0, 0.0
    for a in range(4):  # two draws: 16 outcomes, each with its probability
        for b in range(4):
            counts = torch.zeros(4, dtype=torch.uint8)
            counts[a] += 1
            counts[b] += 1
            drawn = Sparse.sampled(
                ids=torch.arange(4).unsqueeze(0), counts=counts.unsqueeze(0), size=4
            )
            for said in (student, student.dense()):
                found = lm_kd("kl")(Signals(logits=said), Signals(logits=drawn), batch).total
                value += p[a] * p[b] * found.item() / 2
                grads = grads + p[a] * p[b] * torch.autograd.grad(found, student.hidden)[0] / 2
    q = softmax(logits(student))[0]
    assert value == pytest.approx(-(p * np.log(q)).sum(), rel=1e-6)
    whole = lm_kd("kl")(Signals(logits=student), Signals(logits=teacher), batch).total
    torch.testing.assert_close(
        grads, torch.autograd.grad(whole, student.hidden)[0], rtol=1e-6, atol=1e-8
    )


def test_samples_are_their_counts():
    student, _ = heads(2, 9, 3)
    ids = torch.tensor([[4, 7, 0], [2, 0, 0]])
    counts = torch.tensor([[3, 1, 0], [5, 0, 0]])
    drawn = Sparse.sampled(ids=ids, counts=counts, size=9)
    log_q = np.log(softmax(logits(student)))
    expected = -(0.75 * log_q[0, 4] + 0.25 * log_q[0, 7] + log_q[1, 2])
    batch = Batch(inputs=torch.zeros(2, 1))
    for said in (student, student.dense()):
        found = lm_kd()(Signals(logits=said), Signals(logits=drawn), batch).total
        assert found.item() == pytest.approx(expected, rel=1e-9)
    rows = Signals(logits=drawn).rows(torch.tensor([False, True])).logits
    assert isinstance(rows, Sparse)
    assert rows.counts is not None
    assert rows.counts.tolist() == [[5, 0, 0]]


def test_what_a_tail_cannot_give_is_refused_in_one_line():
    student, teacher = pair()

    def ask(name, sparse, **kw):
        for said in (student, student.dense()):
            with pytest.raises(SignalError) as e:
                lm_kd(name, **kw)(Signals(logits=said), Signals(logits=sparse), BATCH)
            assert "\n" not in str(e.value)
        return str(e.value)

    drawn = Sparse.sampled(ids=torch.zeros(N, 2).long(), counts=torch.ones(N, 2), size=V)
    for name in sorted(set(KINDS) - {"kl"}):
        assert "without bias from sampled" in ask(name, drawn)
    for name in ("reverse_kl", "symmetric", "jeffreys"):
        assert "infinite where the teacher's probability is zero" in ask(
            name, top(teacher, "renormalise")
        )
    assert "taken at temperature 1" in ask("kl", drawn, temperature=2)
    assert "taken at temperature 2" in ask("kl", top(teacher, "bucket", temperature=2.0))
    assert "bounds nothing" in ask("alpha_beta", top(teacher, "bucket"), alpha=0.6, beta=0.9)
    assert "the class 12 of 12" in ask(
        "kl", replace(top(teacher, "bucket"), ids=torch.full((N, K), V))
    )
    assert "the class -1 of 12" in ask(
        "kl", replace(top(teacher, "bucket"), ids=torch.full((N, K), -1))
    )
    for sparse in (drawn, top(teacher, "bucket")):
        with pytest.raises(SignalError, match="say nothing about single classes"):
            sparse.dense()


def test_a_temperature_that_it_was_taken_at_comes_back_as_logits():
    _, teacher = pair()
    z = teacher.dense()
    all_ = top(teacher, "renormalise", k=V, temperature=2.0)
    torch.testing.assert_close(all_.dense().softmax(-1), z.softmax(-1))


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_values_are_a_distribution_again(name):
    """Stored log-probabilities are rounded: what is listed may sum to more than one."""
    student, teacher = pair()
    for tail in ("uniform", "bucket"):
        sparse = top(replace(teacher, hidden=20 * teacher.hidden), tail)
        said = replace(sparse, values=sparse.values.to(torch.bfloat16).float() * 0.99)
        for mine in (student, student.dense()):
            found = lm_kd(name)(Signals(logits=mine), Signals(logits=said), BATCH).total
            assert torch.isfinite(found)
            assert found > -1e-6
            assert all(
                torch.isfinite(g).all()
                for g in torch.autograd.grad(found, leaves(student), retain_graph=True)
            )
