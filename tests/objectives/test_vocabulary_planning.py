"""Cross-entropy without logits, and several terms in one walk over the head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from vocabulary_cases import REFERENCE, heads, leaves, logits, slope, softmax

from understudy.errors import DataError, UserError
from understudy.objectives import Total, chunks, lm_ce, lm_kd
from understudy.objectives.vocabulary import VocabularyDivergence
from understudy.signals import IGNORE, Batch, Factored, Signals, Sparse

N, V = 12, 17
MASK = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0]).bool().view(3, 4)


def example(**kw):
    """(student, teacher, batch) of three sequences of four tokens."""
    student, teacher = heads(N, V, 4, **kw)
    labels = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(7))
    labels[~MASK] = IGNORE
    weights = torch.rand(3, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    batch = Batch(
        inputs=torch.zeros(3, 4), labels=labels, mask=MASK, weights=weights,
        index=torch.tensor([10, 11, 12]),
    )  # fmt: skip
    return (
        Signals(logits=replace(student, hidden=student.hidden.view(3, 4, -1))),
        Signals(logits=replace(teacher, hidden=teacher.hidden.view(3, 4, -1))),
        batch,
        student,
    )


def grads(total, student):
    return torch.autograd.grad(total, leaves(student), retain_graph=True)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("a", [0.0, 0.2])
def test_cross_entropy_is_the_equation(a, softcap, monkeypatch):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 8 * V * 3)
    monkeypatch.setitem(chunks.BLOCK_BYTES, "cpu", 8 * V * 2)
    student, _, batch, bare = example(softcap=softcap)
    keep = MASK.flatten().numpy()
    y, w = batch.labels.flatten().numpy()[keep], batch.weights.flatten().numpy()[keep]

    def loss(z):
        log_q = np.log(softmax(z[keep]))
        goal = (1 - a) * np.eye(V)[y] + a / V
        return -(w[:, None] * goal * log_q).sum()

    z = logits(bare)
    cap = 1 if softcap is None else 1 - (z / softcap) ** 2
    at_z = 0.7 * cap * slope(loss, z)
    objective = lm_ce(label_smoothing=a)
    for said in (student, Signals(logits=student.logits.dense())):
        found = objective(said, Signals(), batch)
        assert found.count == objective.count(batch) == keep.sum()
        assert found.total.item() == pytest.approx(loss(z), rel=1e-10)
        expected = (at_z @ bare.weight.detach().numpy(), at_z.T @ bare.hidden.detach().numpy())
        for x, y_ in zip(grads(found.total, bare), expected, strict=False):
            np.testing.assert_allclose(x, y_, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrong", [V, 10**9, -1])
def test_a_label_outside_the_vocabulary_is_refused_before_it_indexes(wrong):
    student, _, batch, _ = example()
    labels = batch.labels.clone()
    labels[2, 1] = wrong
    for said in (student, Signals(logits=student.logits.dense())):
        with pytest.raises(DataError, match=rf"label {wrong} \(sample 12\) lies outside .* 17"):
            lm_ce()(said, Signals(), replace(batch, labels=labels))
    with pytest.raises(UserError, match="label_smoothing"):
        lm_ce(label_smoothing=1.0)


def test_all_masked_is_zero_with_a_gradient_of_zero():
    student, teacher, batch, bare = example()
    none = replace(batch, mask=torch.zeros_like(MASK))
    for term in (lm_ce() + lm_kd())(student, teacher, none):
        assert term.sum.total == term.sum.count == term.sum.mean == 0
        (grad,) = torch.autograd.grad(term.sum.total, bare.hidden, retain_graph=True)
        assert not grad.any()


LOSSES = {
    "ce + kl": lambda: lm_ce() + 0.9 * lm_kd(temperature=2.0),
    "at one temperature": lambda: 0.3 * lm_ce(label_smoothing=0.1) + 2 * lm_kd("jsd", beta=0.2),
    "three": lambda: lm_ce() + 0.5 * lm_kd("reverse_kl") + 0.1 * lm_kd("skew_kl", temperature=1.5),
    "a weight of zero": lambda: lm_ce() + 0.0 * lm_kd(),
    "a ramp": lambda: Total([(lambda progress: 1 - progress, lm_ce()), (0.5, lm_kd("tv"))]),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("form", ["factored", "dense", "sparse", "wide", "softcap"])
def test_terms_in_one_walk_are_the_terms_by_themselves(name, form, monkeypatch):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 8 * V * 3)
    monkeypatch.setitem(chunks.BLOCK_BYTES, "cpu", 8 * V * 2)
    student, teacher, batch, bare = example(softcap=2.0 if form == "softcap" else None)
    if form == "dense":
        teacher = Signals(logits=teacher.logits.dense())
    if form == "sparse":
        values, ids = teacher.logits.dense().log_softmax(-1).topk(5, -1)
        teacher = Signals(logits=Sparse(ids=ids, values=values, size=V, tail="uniform"))
    if form == "wide":
        more = torch.ones(3, 8, dtype=torch.float64)
        wide = torch.cat([teacher.logits.weight, more])
        teacher = Signals(logits=replace(teacher.logits, weight=wide))
    loss = LOSSES[name]()
    batch = replace(batch, progress=0.25)
    terms = loss(student, teacher, batch)
    alone = [o(student, teacher, batch) for _, _, o in loss]
    for term, single in zip(terms, alone, strict=True):
        assert term.sum.count == single.count
        torch.testing.assert_close(term.sum.total, single.total, rtol=1e-12, atol=1e-13)
    expected = grads(sum(t.weight * s.mean for t, s in zip(terms, alone, strict=True)), bare)
    for _ in range(2):  # asked twice, the gradients are made again
        for a, b in zip(grads(sum(t.value for t in terms), bare), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    # alone, and in another proportion than that of the loss
    for term, single in zip(terms, alone, strict=True):
        for a, b in zip(grads(term.sum.total, bare), grads(single.total, bare), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    other = grads(terms[0].sum.total - 3 * terms[1].sum.total, bare)
    for a, b in zip(other, grads(alone[0].total - 3 * alone[1].total, bare), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def products(monkeypatch):
    """Names of the calls that make logits, as they are made."""
    made = []
    real = chunks.Head.logits
    monkeypatch.setattr(
        chunks.Head,
        "logits",
        lambda self, hidden, work, name: (
            made.append("student" if name == "z" else "teacher"),
            real(self, hidden, work, name),
        )[1],
    )
    return made


def test_student_and_teacher_speak_once_for_all_terms(monkeypatch):
    made = products(monkeypatch)
    student, teacher, batch, _ = example()
    loss = lm_ce() + 0.9 * lm_kd(temperature=2.0) + 0.1 * lm_kd("jsd")
    value = sum(t.value for t in loss(student, teacher, batch))
    assert made == ["student", "teacher"]
    value.backward()
    assert made == ["student", "teacher"]  # gradients were made on the way
    more = torch.ones(3, 8, dtype=torch.float64)
    wide = replace(teacher.logits, weight=torch.cat([teacher.logits.weight, more]))
    made.clear()
    loss(student, Signals(logits=wide), batch)
    assert made == ["student", "teacher"]


def test_terms_that_count_other_positions_are_taken_one_by_one(monkeypatch):
    made = products(monkeypatch)
    student, teacher, batch, bare = example()
    labels = batch.labels.clone()
    labels[0, 0] = IGNORE
    batch = replace(batch, labels=labels)
    loss = lm_ce() + 0.9 * lm_kd()
    terms = loss(student, teacher, batch)
    assert made == ["student", "student", "teacher"]
    assert [t.sum.count.item() for t in terms] == [8, 9]
    alone = [o(student, teacher, batch) for _, _, o in loss]
    expected = grads(alone[0].mean + 0.9 * alone[1].mean, bare)
    for a, b in zip(grads(sum(t.value for t in terms), bare), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_an_objective_with_a_forward_pass_of_its_own_is_taken_by_itself(monkeypatch):
    made = products(monkeypatch)

    class Halved(VocabularyDivergence):
        def forward(self, student, teacher, batch):
            found = super().forward(student, teacher, batch)
            return found._replace(total=found.total / 2)

    student, teacher, batch, _ = example()
    terms = (lm_ce() + lm_kd() + Halved().named("half"))(student, teacher, batch)
    assert made == ["student", "teacher"] * 2
    torch.testing.assert_close(terms[2].sum.total, terms[1].sum.total / 2)


def test_a_frozen_head_gets_no_gradient_and_costs_none(monkeypatch):
    student, teacher, batch, bare = example(bias=False)
    frozen = replace(student.logits, weight=bare.weight.detach())
    sizes = []
    real = torch.zeros_like
    monkeypatch.setattr(
        torch, "zeros_like", lambda t, **kw: (sizes.append(tuple(t.shape)), real(t, **kw))[1]
    )
    terms = (lm_ce() + lm_kd())(Signals(logits=frozen), teacher, batch)
    assert (V, 4) not in sizes
    value = sum(t.value for t in terms)
    (a,) = torch.autograd.grad(value, bare.hidden)
    whole = sum(t.value for t in (lm_ce() + lm_kd())(student, teacher, batch))
    torch.testing.assert_close(a, torch.autograd.grad(whole, bare.hidden)[0])
    assert (V, 4) in sizes


def test_under_autocast_the_products_are_those_of_half_precision():
    student, teacher, batch, bare = example(dtype=torch.float32)
    batch = replace(batch, weights=None)
    with torch.autocast("cpu", torch.bfloat16):
        found = lm_kd()(student, teacher, batch)
    plain = lm_kd()(student, teacher, batch)
    assert found.total.dtype == torch.float32
    assert found.total.item() == pytest.approx(plain.total.item(), rel=0.02)
    for a, b in zip(grads(found.total, bare), grads(plain.total, bare), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)


# What public implementations got wrong; each of these gives another number than ours.


def reference(student, teacher, batch, *, t=1.0):
    """KL over the scored positions, in NumPy."""
    keep = MASK.flatten().numpy()
    p = softmax(logits(teacher)[keep] / t)
    q = softmax(logits(student)[keep] / t)
    return REFERENCE["kl"](p, q)


def test_known_mistakes_are_other_numbers():
    student, teacher, batch, bare = example(softcap=2.0)
    batch = replace(batch, weights=None)
    flat = replace(teacher.logits, hidden=teacher.logits.hidden.flatten(0, 1))
    right = reference(bare, flat, batch)
    found = lm_kd()(student, teacher, batch)
    assert found.mean.item() == pytest.approx(right.mean(), rel=1e-9)

    def wrong(**changed):
        return reference(replace(bare, **changed), flat, batch).mean()

    keep = MASK.flatten().numpy()
    shifted = softmax(np.roll(logits(flat), -1, 0)[keep])
    q = softmax(logits(bare)[keep])
    p = softmax(logits(flat)[keep])
    everything = REFERENCE["kl"](softmax(logits(flat)), softmax(logits(bare)))
    ce = -np.log(q[np.arange(len(q)), batch.labels.flatten().numpy()[keep]])
    mistakes = {
        "teacher and student a position apart": REFERENCE["kl"](shifted, q).mean(),
        "scale left out": wrong(scale=1.0),
        "soft-cap left out": wrong(softcap=None),
        "half cross-entropy mixed in": (0.5 * ce + 0.5 * right).mean(),
        "masked positions counted": everything.mean(),
        "mean over all positions": right.sum() / N,
        "mean over classes too": right.mean() / V,
    }
    for name, value in mistakes.items():
        assert abs(value - right.mean()) > 0.001 * right.mean(), name
        assert abs(found.mean.item() - value) > 0.001 * right.mean(), name

    def ask(kind, **kw):
        return lm_kd(kind, **kw)(student, teacher, batch).mean.item()

    # beta weighs the teacher in the mixture and in the sum; the other convention is another loss
    m = 0.2 * p + 0.8 * q
    equation = (0.2 * REFERENCE["kl"](p, m) + 0.8 * REFERENCE["kl"](q, m)).mean()
    assert ask("jsd", beta=0.2) == pytest.approx(equation, rel=1e-9)
    assert abs(ask("jsd", beta=0.8) - equation) > 0.02 * equation
    # and at its ends it tends to zero, not to a KL: divided by beta it does
    assert ask("jsd", beta=1e-6) / 1e-6 == pytest.approx(right.mean(), rel=1e-3)
    for beta in (0.0, 1.0):
        with pytest.raises(UserError, match="use kl or reverse_kl"):
            lm_kd("jsd", beta=beta)
    # T^2 once, and only where asked for
    hot = reference(bare, flat, batch, t=3.0).mean()
    assert ask("kl", temperature=3.0) == pytest.approx(9 * hot, rel=1e-9)
    assert ask("kl", temperature=3.0, scaled=False) == pytest.approx(hot, rel=1e-9)


def test_top_k_reverse_kl_does_not_reward_mass_off_the_list():
    """With a renormalised list on both sides, mass that the student moves off it costs nothing."""
    z_t = torch.tensor([[3.0, 2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    values, ids = z_t.log_softmax(-1).topk(2, -1)
    batch = Batch(inputs=torch.zeros(1, 1))

    def ask(tail, z):
        said = Sparse(ids=ids, values=values, size=5, tail=tail)
        return lm_kd("reverse_kl")(Signals(logits=z), Signals(logits=said), batch).total

    off = z_t + torch.tensor([[0.0, 0, 6, 6, 6]])  # the same on the list, and mass off it
    for tail in ("bucket", "uniform"):
        assert ask(tail, z_t) == pytest.approx(0, abs=1e-9)
        assert ask(tail, off) > 1
        z = off.clone().requires_grad_()
        ask(tail, z).backward()
        assert bool((z.grad[0, 2:] > 0).all())  # a step takes it back


def test_a_teacher_may_exclude_a_class_on_either_path():
    student, teacher, batch, bare = example()
    z = teacher.logits.dense()
    z[..., 3] = -torch.inf
    said = Signals(logits=z)
    dense = Signals(logits=student.logits.dense())
    for kind in ("kl", "jsd", "skew_kl", "skew_reverse_kl", "tv", "alpha_beta"):
        a, b = lm_kd(kind)(student, said, batch), lm_kd(kind)(dense, said, batch)
        torch.testing.assert_close(a.total, b.total, rtol=1e-11, atol=0)
        for x, y in zip(grads(a.total, bare), grads(b.total, bare), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_a_teacher_of_another_width_and_precision():
    student, _ = heads(N, V, 4, dtype=torch.float32)
    g = torch.Generator().manual_seed(1)
    teacher = Factored(
        hidden=torch.randn(N, 9, generator=g).bfloat16(),
        weight=torch.randn(V, 9, generator=g).bfloat16(),
    )
    batch = Batch(inputs=torch.zeros(N, 1))
    a = lm_kd("jsd")(Signals(logits=student), Signals(logits=teacher), batch).total
    b = lm_kd("jsd")(
        Signals(logits=student.dense()), Signals(logits=teacher.dense().float()), batch
    ).total
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
