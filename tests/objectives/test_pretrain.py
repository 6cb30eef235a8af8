"""Pre-training distillation's loss against float64 NumPy, and its schedules."""

import math

import numpy as np
import pytest
import torch

from understudy.errors import UserError
from understudy.objectives.pretrain import PretrainKD, truncated
from understudy.objectives.schedules import WSD
from understudy.signals import Batch, Signals
from understudy.training.budget import Budget

RNG = np.random.default_rng(0)
Z_S, Z_T = 2 * RNG.standard_normal((2, 3, 9)), 3 * RNG.standard_normal((2, 3, 9))
MASK = np.array([[True, True, False], [True, False, True]])


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cut(z, p, k):
    """Top-p of one position's logits, then at most the top k of it."""
    order = np.argsort(-z)
    mass, kept = 0.0, []
    for i in order:
        if mass >= p or len(kept) == k:
            break
        kept.append(i)
        mass += softmax(z)[i]
    out = np.full_like(z, -np.inf)
    out[kept] = z[kept]
    return out


def expected(loss, adaptive, tau, p, k):
    total = 0.0
    for n, t in np.argwhere(MASK):
        z = cut(Z_T[n, t], p, k)
        own = tau * Z_T[n, t].std(ddof=1) if adaptive == "normkd" else tau
        target, q = softmax(z / own), softmax(Z_S[n, t])
        weight = (softmax(z)[z > -np.inf] ** (1 / tau)).sum() if adaptive == "wttm" else 1.0
        some = target > 0
        value = {
            "kld": (target[some] * np.log(target[some] / q[some])).sum(),
            "nll": -(target * np.log(q)).sum(),
            "mse": ((target - q) ** 2).sum(),
        }[loss]
        total += weight * value
    return total


def said(z_s=Z_S, z_t=Z_T):
    batch = Batch(inputs=torch.zeros(2, 3), mask=torch.from_numpy(MASK))
    student = Signals(logits=torch.from_numpy(z_s).requires_grad_())
    return student, Signals(logits=torch.from_numpy(z_t)), batch


@pytest.mark.parametrize("loss", ["kld", "nll", "mse"])
@pytest.mark.parametrize("adaptive", ["fixed", "normkd", "wttm"])
@pytest.mark.parametrize(("p", "k"), [(0.9, 3), (1.0, 0), (0.6, 9)])
def test_values_are_those_of_the_equation(loss, adaptive, p, k):
    objective = PretrainKD(loss, temperature=1.7, adaptive=adaptive, top_p=p, top_k=k)
    student, teacher, batch = said()
    found = objective(student, teacher, batch)
    assert float(found.count) == MASK.sum()
    assert float(found.total) == pytest.approx(expected(loss, adaptive, 1.7, p, k or 99))


@pytest.mark.parametrize("loss", ["kld", "nll", "mse"])
def test_gradient(loss):
    objective = PretrainKD(loss, temperature=2.0, top_p=0.9, top_k=4)
    student, teacher, batch = said()

    def value(z):
        return objective(Signals(logits=z), teacher, batch).total

    assert torch.autograd.gradcheck(value, (student.logits,))


def test_nll_and_kld_pull_alike():
    grads = []
    for loss in ("kld", "nll"):
        student, teacher, batch = said()
        PretrainKD(loss)(student, teacher, batch).total.backward()
        grads.append(student.logits.grad)
    assert torch.allclose(*grads)


def test_an_equal_student_of_whole_logits_has_nothing_to_learn():
    student, teacher, batch = said(z_s=Z_T)
    whole = PretrainKD("kld", temperature=1.0, top_p=1.0, top_k=0)
    assert float(whole(student, teacher, batch).total) == pytest.approx(0.0, abs=1e-12)


def test_padded_vocabularies_share_what_they_have():
    wide = np.concatenate((Z_T, np.full((2, 3, 2), 50.0)), -1)
    student, teacher, batch = said(z_t=wide)
    found = PretrainKD("kld", temperature=1.7, top_p=0.9, top_k=3)(student, teacher, batch)
    assert float(found.total) == pytest.approx(expected("kld", "fixed", 1.7, 0.9, 3))


def test_extreme_half_precision_stays_finite():
    z = torch.tensor([[6e4, -6e4, 0.0, 1.0]], dtype=torch.float16)
    s = (-z).clone().requires_grad_()
    found = PretrainKD()(Signals(logits=s), Signals(logits=z), Batch(inputs=z))
    found.total.backward()
    assert bool(torch.isfinite(found.total))
    assert bool(torch.isfinite(s.grad).all())


def test_top_p_keeps_what_crosses_it():
    z = torch.tensor([0.5, 0.3, 0.2]).log()
    assert (truncated(z, top_p=0.5, top_k=0) > -torch.inf).tolist() == [True, False, False]
    assert (truncated(z, top_p=0.6, top_k=0) > -torch.inf).tolist() == [True, True, False]
    assert (truncated(z, top_p=1.0, top_k=2) > -torch.inf).tolist() == [True, True, False]


@pytest.mark.parametrize("wrong", [{"loss": "l1"}, {"adaptive": "cosine"}, {"top_p": 0.0}])
def test_refuses(wrong):
    with pytest.raises(UserError):
        PretrainKD(**wrong)


def test_wsd_is_what_it_says():
    w = WSD(peak=0.8, warmup=0.2, decay=0.4)
    assert [w(p) for p in (0.0, 0.1, 0.2, 0.5, 0.6)] == pytest.approx([0, 0.4, 0.8, 0.8, 0.8])
    assert w(0.8) == pytest.approx(0.4)
    assert w(0.9) == pytest.approx(0.8 * (0.5 - 0.5 * math.cos(math.pi / 4)))
    assert w(1.0) == pytest.approx(0.0)
    with pytest.raises(UserError):
        WSD(warmup=0.7, decay=0.4)


def test_a_learning_rate_may_follow_it():
    budget = Budget(schedule=WSD(warmup=0.5, decay=0.0))
    assert [budget.rate(n, 3, 0.0) for n in range(3)] == pytest.approx([0.5, 1.0, 1.0])
