"""Objectives on drawn text: what their gradients are in the mean, over texts, chunk by chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy import objectives as us
from understudy.errors import SignalError, UserError
from understudy.objectives import positions
from understudy.signals import IGNORE, Batch, Factored, Signals, Sparse
from understudy.signals.authors import STUDENT, TEACHER, authors, marked, numbers

V = 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def gradient(objective, logits: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    z = logits.clone().requires_grad_()
    objective(Signals(logits=z), Signals(logits=teacher), batch).mean.backward()
    assert z.grad is not None
    return z.grad


def mean_gradient(objective, z: Tensor, y: Tensor) -> Tensor:
    """E over y ~ q of the gradient at one position, every token weighed by its probability."""
    q = z.softmax(-1)
    each = []
    for token in range(V):
        batch = Batch(inputs=torch.zeros(1, 1), labels=torch.tensor([token]))
        each.append(q[token] * gradient(objective, z[None], y[None], batch)[0])
    return torch.stack(each).sum(0)


@pytest.mark.parametrize(
    ("estimator", "form", "kind"),
    [("k1", "advantage", "reverse"), ("k2", "loss", "reverse"), ("k3", "loss", "forward")],
)
def test_the_mean_gradient_is_that_of_a_divergence(estimator: str, form: str, kind: str) -> None:
    z, y = drawn(V), drawn(V, seed=1)
    found = mean_gradient(us.sampled_kl(estimator, form, limit=None), z, y)
    q, p = z.softmax(-1).numpy(), y.softmax(-1).numpy()
    ratio = np.log(q) - np.log(p)
    expected = q * (ratio - (q * ratio).sum()) if kind == "reverse" else q - p
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_values_are_estimates_of_the_divergence() -> None:
    z, y = drawn(V), drawn(V, seed=1)
    q, p = z.softmax(-1).numpy(), y.softmax(-1).numpy()
    exact = (q * np.log(q / p)).sum()
    for estimator in ("k1", "k3"):
        mean = 0.0
        for token in range(V):
            batch = Batch(inputs=torch.zeros(1, 1), labels=torch.tensor([token]))
            objective = us.sampled_kl(estimator, limit=None)
            value = objective(Signals(logits=z[None]), Signals(logits=y[None]), batch).mean
            mean += q[token] * value.item()
        assert mean == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("estimator", "form"), [("k1", "loss"), ("k2", "advantage"), ("k3", "advantage")]
)
def test_what_means_nothing_is_refused(estimator: str, form: str) -> None:
    with pytest.raises(UserError, match="use"):
        us.sampled_kl(estimator, form)


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(UserError, match="k1"):
        us.sampled_kl("k4")
    with pytest.raises(UserError, match="advantage"):
        us.sampled_kl("k1", "advantages")
    with pytest.raises(UserError, match="discount"):
        us.sampled_kl("k2", discount=0.5)
    for wrong in ({"alpha": 1.0}, {"clip": 0.0}):
        with pytest.raises(UserError):
            us.sequence_reverse_kl(**wrong)
    for wrong in ({"start": 1.0}, {"beta": 1.0}, {"form": "ce"}):
        with pytest.raises(UserError):
            us.taid(**wrong)
    with pytest.raises(UserError, match="mu"):
        us.akl(mu=0)
    with pytest.raises(UserError, match="direction"):
        us.adaptive_skew("both")
    with pytest.raises(UserError, match="authors"):
        us.written_by(us.lm_kd(), 9)


# --- texts: positions that do not count stand between those that do -------------------------------


def world(seed: int = 0) -> tuple[Tensor, Tensor, Batch]:
    """Texts of 5, 3 and 4 counted positions among 6."""
    z, y = drawn(3, 6, V, seed=seed), drawn(3, 6, V, seed=seed + 10)
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(V, (3, 6), generator=g)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0]]).bool()
    labels = labels.where(mask, IGNORE)
    index = marked(torch.arange(3), STUDENT)
    return z, y, Batch(inputs=torch.zeros(3, 6), labels=labels, mask=mask, index=index)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def by_hand(z, y, batch: Batch, credit) -> np.ndarray:
    """sum_t credit_t (onehot - q): the policy gradient by credits of each text's tokens, a mean."""
    found = np.zeros(z.shape)
    for n in range(len(z)):
        places = batch.mask[n].nonzero().flatten().tolist()
        q = [softmax(z[n, t].numpy()) for t in places]
        p = [softmax(y[n, t].numpy()) for t in places]
        labels = [int(batch.labels[n, t]) for t in places]
        for place, c in zip(places, credit(q, p, labels), strict=True):
            found[n, place] += c
    return found / int(batch.mask.sum())


@pytest.mark.parametrize("discount", [0.0, 0.6, 1.0])
def test_advantages_look_ahead_as_far_as_the_discount(discount: float) -> None:
    z, y, batch = world()

    def credit(q, p, labels):
        d = [np.log(a[k] / b[k]) for a, b, k in zip(q, p, labels, strict=True)]
        for t, k in enumerate(labels):
            to_go = sum(discount ** (s - t) * d[s] for s in range(t, len(d)) if discount or s == t)
            yield to_go * (np.eye(V)[k] - q[t])

    found = gradient(us.sampled_kl(discount=discount), z, y, batch)
    np.testing.assert_allclose(found.numpy(), by_hand(z, y, batch, credit), atol=1e-12)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("normalised", [True, False])
def test_minillm_gradient_is_that_of_the_paper(normalised: bool, clip: float | None) -> None:
    """Eq. 3 to 6: exact at each step, importance-weighted, the rest by the mean of what follows."""
    z, y, batch = world(seed=3)
    alpha = 0.2

    def credit(q, p, labels):
        r = [np.log(b[k] / a[k]) for a, b, k in zip(q, p, labels, strict=True)]
        for t, k in enumerate(labels):
            w = q[t][k] / (alpha * p[t][k] + (1 - alpha) * q[t][k])
            ratio = np.log(q[t] / p[t])
            single = q[t] * (ratio - (q[t] * ratio).sum())
            later = r[t + 1 :]
            reward = sum(later) / (len(later) if normalised else 1) if later else 0.0
            kept = 1.0
            if clip is not None:
                far = (reward > 0 and w > 1 + clip) or (reward < 0 and w < 1 - clip)
                kept = 0.0 if far else 1.0
            yield w * single - kept * w * reward * (np.eye(V)[k] - q[t])

    objective = us.sequence_reverse_kl(alpha, normalised=normalised, clip=clip)
    found = gradient(objective, z, y, batch)
    np.testing.assert_allclose(found.numpy(), by_hand(z, y, batch, credit), atol=1e-12)


MAKERS = {
    "k1": us.sampled_kl,
    "k1 ahead": lambda: us.sampled_kl(discount=0.7),
    "k2": lambda: us.sampled_kl("k2"),
    "k3": lambda: us.sampled_kl("k3"),
    "minillm": us.sequence_reverse_kl,
    "taid": us.taid,
    "akl": us.akl,
    "skew": lambda: us.adaptive_skew(adaptive=False),
    "skew reverse": lambda: us.adaptive_skew("reverse"),
    "written by": lambda: us.written_by(us.akl(), STUDENT),
}
every = pytest.mark.parametrize("name", MAKERS)


@every
def test_factored_logits_give_the_same_chunk_by_chunk(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden states and head: values, and gradients to both, as with dense logits."""
    _, y, batch = world()
    hidden, weight, bias = drawn(3, 6, 4), drawn(V, 4, seed=2), drawn(V, seed=3)

    def slopes(factored: bool) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
        said = Factored(hidden=leaves[0], weight=leaves[1], bias=leaves[2])
        student = Signals(logits=said if factored else said.dense())
        found = MAKERS[name]()(student, Signals(logits=y), batch)
        found.mean.backward()
        return [found.mean.detach(), *(leaf.grad for leaf in leaves)]

    expected = slopes(False)
    monkeypatch.setattr(positions, "CHUNK_BYTES", 4 * V * 5)  # five positions at a time
    for a, b in zip(slopes(True), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@every
def test_what_a_mask_over_positions_hides_is_inert(name: str) -> None:
    z, y, batch = world()
    spoiled = z.clone()
    spoiled[~batch.mask] = float("nan")
    kept, hidden = (gradient(MAKERS[name](), logits, y, batch) for logits in (z, spoiled))
    assert not hidden[~batch.mask].any()
    torch.testing.assert_close(hidden, kept)


@every
def test_extreme_logits_in_half_precision_stay_finite(name: str) -> None:
    _, _, batch = world()
    row = torch.tensor([1e4, -1e4, 6e4, 0.0, -6e4, 1.0, 3e4])
    for dtype in (torch.float16, torch.bfloat16):
        z = row.to(dtype).expand(3, 6, V).clone()
        y = row.flip(0).to(dtype).expand(3, 6, V).clone()
        assert torch.isfinite(gradient(MAKERS[name](), z, y, batch)).all()


@every
def test_texts_may_come_in_parts(name: str) -> None:
    z, y, batch = world()
    objective = MAKERS[name]()
    whole = objective(Signals(logits=z), Signals(logits=y), batch)
    parts = [
        objective(
            Signals(logits=z[i : i + 1]), Signals(logits=y[i : i + 1]), batch.rows(slice(i, i + 1))
        )
        for i in range(3)
    ]
    torch.testing.assert_close(torch.stack([p.total for p in parts]).sum(), whole.total)
    torch.testing.assert_close(torch.stack([p.count for p in parts]).sum(), whole.count)


def test_padded_vocabularies_are_compared_where_both_speak() -> None:
    z, y, batch = world()
    wide = torch.cat([y, drawn(3, 6, 3, seed=9)], -1)
    for name in ("k1", "minillm", "skew"):
        mine = MAKERS[name]()(Signals(logits=z), Signals(logits=y), batch)
        theirs = MAKERS[name]()(Signals(logits=z), Signals(logits=wide), batch)
        torch.testing.assert_close(mine.total, theirs.total)


def test_a_sparse_teacher_is_refused() -> None:
    z, _, batch = world()
    few = Sparse(ids=torch.zeros(3, 6, 1).long(), values=torch.zeros(3, 6, 1), size=V)
    with pytest.raises(SignalError, match="live teacher"):
        us.sampled_kl()(Signals(logits=z), Signals(logits=few), batch)


# --- authors --------------------------------------------------------------------------------------


def test_authors_stand_in_the_sample_number() -> None:
    ids = torch.tensor([0, 1, 77])
    for who in (STUDENT, TEACHER):
        assert authors(marked(ids, who)).tolist() == [who] * 3
        assert numbers(marked(ids, who)).tolist() == ids.tolist()
        assert bool((marked(ids, who) < 0).all())
    assert authors(ids).tolist() == [0, 0, 0]
    assert numbers(ids).tolist() == ids.tolist()


def test_an_objective_on_one_authors_texts_sees_these_alone() -> None:
    z, y, batch = world()
    index = torch.cat([marked(torch.arange(2), TEACHER), torch.tensor([5])])
    batch = replace(batch, index=index)
    plain = us.lm_kd("reverse_kl")
    said, heard = Signals(logits=z), Signals(logits=y)
    for who, rows in ((TEACHER, slice(0, 2)), (STUDENT, None), (0, slice(2, 3))):
        objective = us.written_by(us.lm_kd("reverse_kl"), who)
        found = objective(said, heard, batch)
        assert found.count == objective.count(batch)
        if rows is None:
            assert (float(found.total), float(found.count)) == (0, 0)
        else:
            expected = plain(said.rows(rows), heard.rows(rows), batch.rows(rows))
            torch.testing.assert_close(found.total, expected.total)
            assert found.count == expected.count


# --- what adapts ----------------------------------------------------------------------------------


def test_taid_moves_as_its_algorithm_says() -> None:
    """Algorithm 1, in plain numbers beside it."""
    objective = us.taid(start=0.2, alpha=0.3, beta=0.9, form="kl").train()
    z, y, batch = world()
    t, momentum, before = 0.2, 0.0, None
    for step in range(6):
        assert float(objective.t) == pytest.approx(t, rel=1e-12)
        z = z + 0.3 * drawn(3, 6, V, seed=100 + step)
        batch = replace(batch, progress=step / 20)
        found = objective(Signals(logits=z), Signals(logits=y), batch)
        objective.after_step()
        value = found.mean.item()
        if before is not None:
            momentum = 0.9 * momentum + 0.1 * (before - value) / before
            rise = 0.3 / (1 + np.exp(-momentum)) * (1 - t)
            t = min(1.0, max(0.2 + 0.8 * step / 20, t + rise))
        before = value
    assert t > 0.5


def test_taid_ends_at_the_teacher() -> None:
    z, y, batch = world()
    objective = us.taid(form="kl")
    objective.t.fill_(1.0)
    found = objective(Signals(logits=z), Signals(logits=y), batch)
    expected = us.lm_kd()(Signals(logits=z), Signals(logits=y), batch)
    torch.testing.assert_close(found.total, expected.total)


def test_evaluation_does_not_move_taid() -> None:
    z, y, batch = world()
    objective = us.taid().eval()
    objective(Signals(logits=z), Signals(logits=y), replace(batch, progress=0.9))
    objective.after_step()
    assert float(objective.t) == pytest.approx(0.4)


def test_the_share_of_a_skew_kl_follows_the_gap() -> None:
    """The first update measures the mean gap; then texts on which both agree have a small share."""
    z, y, batch = world()
    batch = replace(batch, labels=y.argmax(-1).where(batch.mask, IGNORE))
    objective = us.adaptive_skew(alpha=0.1).train()
    objective(Signals(logits=z), Signals(logits=y), batch)
    assert bool(objective.anchor.isnan())
    objective.after_step()
    gaps = []
    for n in range(3):
        rows = batch.mask[n]
        labels = batch.labels[n][rows][:, None]
        said = [x[n][rows].log_softmax(-1).gather(-1, labels).mean().exp() for x in (y, z)]
        gaps.append(float(said[0] - said[1]))
    assert float(objective.anchor) == pytest.approx(np.mean(gaps), rel=1e-9)
    fixed = us.adaptive_skew(alpha=0.1, adaptive=False)
    adapted = objective(Signals(logits=z), Signals(logits=y), batch).total
    same = fixed(Signals(logits=z), Signals(logits=y), batch).total
    assert adapted != same
