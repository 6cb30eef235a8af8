"""Quality against scikit-learn, scipy and NumPy."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
import torch

from understudy import evaluation as ev
from understudy.errors import DataError, UnknownName, UserError

rng = np.random.default_rng(0)
Z = rng.normal(size=(60, 7))
Y = rng.integers(0, 6, 60)  # class 6 never occurs as a label
ZM = rng.normal(size=(40, 5))
YM = rng.integers(0, 2, (40, 5))
P, T = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
T[:10] = np.round(T[:10])
P[:10] = np.round(P[:10])  # ties


def t(x):
    return torch.from_numpy(np.asarray(x))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ovr(score, y, p):
    return np.mean(
        [score(y == k, p[:, k]) for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    )


def top5(z, y):
    return np.mean([y[i] in np.argsort(-z[i])[:5] for i in range(len(y))])


SINGLE = {
    "accuracy": lambda: sk.accuracy_score(Y, Z.argmax(1)),
    "top5": lambda: top5(Z, Y),
    "f1": lambda: sk.f1_score(Y, Z.argmax(1), average="macro"),
    "micro_f1": lambda: sk.f1_score(Y, Z.argmax(1), average="micro"),
    "balanced_accuracy": lambda: np.mean([(Z.argmax(1) == k)[k == Y].mean() for k in np.unique(Y)]),
    "auroc": lambda: ovr(sk.roc_auc_score, Y, softmax(Z)),
    "average_precision": lambda: ovr(sk.average_precision_score, Y, softmax(Z)),
    "mcc": lambda: sk.matthews_corrcoef(Y, Z.argmax(1)),
}
MULTI = {
    "accuracy": lambda: 1 - sk.hamming_loss(YM, ZM > 0),
    "subset_accuracy": lambda: sk.accuracy_score(YM, ZM > 0),
    "f1": lambda: sk.f1_score(YM, ZM > 0, average="macro"),
    "micro_f1": lambda: sk.f1_score(YM, ZM > 0, average="micro"),
    "auroc": lambda: sk.roc_auc_score(YM, ZM, average="macro"),
    "average_precision": lambda: sk.average_precision_score(YM, ZM, average="macro"),
}


def concordance(p, y):
    return 2 * np.cov(p, y, bias=True)[0, 1] / (p.var() + y.var() + (p.mean() - y.mean()) ** 2)


def columns(f):
    return np.mean([f(P[:, j], T[:, j]) for j in range(P.shape[1])])


REGRESSION = {
    "mse": lambda: sk.mean_squared_error(T, P),
    "mae": lambda: sk.mean_absolute_error(T, P),
    "r2": lambda: sk.r2_score(T, P),
    "pearson": lambda: columns(lambda p, y: scipy.stats.pearsonr(p, y)[0]),
    "spearman": lambda: columns(lambda p, y: scipy.stats.spearmanr(p, y)[0]),
    "ccc": lambda: columns(concordance),
}
CASES = {"single": (Z, Y, SINGLE), "multi": (ZM, YM, MULTI), "regression": (P, T, REGRESSION)}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, _, table) in CASES.items() for name in table]
)
def test_every_metric_against_its_reference(kind, name):
    outputs, labels, reference = CASES[kind]
    got = ev.metric(name)(t(outputs), t(labels), kind)
    assert got == pytest.approx(reference[name](), abs=1e-12)


def test_the_table_above_leaves_no_metric_and_kind_out():
    have = {(kind, name) for kind, (_, _, table) in CASES.items() for name in table}
    # what is measured on texts is a judge's, see test_language.py
    listed = {(kind, m.name) for m in ev.METRICS.values() for kind in m.kinds}
    assert have == {(kind, name) for kind, name in listed if kind != "language"}
    for name, m in ev.METRICS.items():
        assert m.name == name
        assert m.better(1.0, 0.0) is (name not in ("mse", "mae", "perplexity", "bits_per_byte"))


@pytest.mark.parametrize("name", list(SINGLE))
def test_ignored_rows_are_inert_even_where_they_are_nan(name):
    z = np.concatenate([Z, np.full((3, 7), np.nan)])
    y = np.concatenate([Y, np.full(3, -100)])
    assert ev.metric(name)(t(z), t(y)) == ev.metric(name)(t(Z), t(Y))


@pytest.mark.parametrize("name", list(MULTI))
def test_ignored_entries_of_a_multi_label_row_are_inert(name):
    extra = rng.normal(size=(4, 5))
    extra[0, 0] = np.nan
    z, y = np.concatenate([ZM, extra]), np.concatenate([YM, np.full((4, 5), -100)])
    assert ev.metric(name)(t(z), t(y), "multi") == ev.metric(name)(t(ZM), t(YM), "multi")


def test_part_of_a_row_ignored():
    y = YM.copy()
    y[0, :] = -100
    y[1, 2:] = -100
    keep = y != -100
    assert ev.accuracy(t(ZM), t(y), "multi") == pytest.approx(((ZM > 0) == y)[keep].mean())
    right = [((ZM[i] > 0) == y[i])[keep[i]].all() for i in range(1, len(y))]
    assert ev.subset_accuracy(t(ZM), t(y)) == pytest.approx(np.mean(right))


def test_one_logit_is_two_classes():
    z, y = rng.normal(size=30), rng.integers(0, 2, 30)
    assert ev.accuracy(t(z), t(y)) == pytest.approx(((z > 0) == y).mean())
    assert ev.auroc(t(z), t(y)) == pytest.approx(sk.roc_auc_score(y, z))
    assert ev.auroc(t(np.stack([0 * z, z], 1)), t(y)) == pytest.approx(sk.roc_auc_score(y, z))


def test_sequences_and_half_precision():
    z, y = t(Z).reshape(6, 10, 7), t(Y).reshape(6, 10)
    assert ev.accuracy(z, y) == ev.accuracy(t(Z), t(Y))
    assert ev.accuracy(t(Z).bfloat16(), t(Y)) == pytest.approx(
        (t(Z).bfloat16().float().numpy().argmax(1) == Y).mean()
    )


def test_equal_logits_are_no_top5_success():
    z, y = torch.zeros(10, 10), torch.arange(10)
    assert ev.top5(z, y) == 0.5
    assert ev.top_k(z, y, 1) == ev.accuracy(z, y) == 0.1
    with pytest.raises(UserError, match="needs more than 5"):
        ev.top5(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long))


def test_degenerate_predictions():
    constant = torch.zeros(6, 3).index_fill(1, torch.tensor([1]), 1.0)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    assert ev.mcc(constant, y) == 0.0
    assert ev.f1(constant, y) == pytest.approx(sk.f1_score(y, [1] * 6, average="macro"))
    never = torch.cat([constant, torch.full((6, 1), -9.0)], 1)  # a class that nobody names
    assert ev.f1(never, y) == ev.f1(constant, y)
    assert ev.pearson(torch.full((4,), 0.1), torch.arange(4.0)) == 0.0
    assert ev.spearman(torch.full((4,), 0.1), torch.arange(4.0)) == 0.0
    none = ev.f1(torch.full((3, 2), -1.0), torch.zeros(3, 2), "multi")
    assert none == 0.0 == ev.micro_f1(torch.full((3, 2), -1.0), torch.zeros(3, 2), "multi")


def test_a_column_and_a_vector_are_never_broadcast():
    p = torch.tensor([[1.0], [2.0], [3.0]])
    assert ev.mse(p, torch.tensor([1.0, 2.0, 5.0])) == pytest.approx(4 / 3)
    with pytest.raises(DataError, match="do not match"):
        ev.mse(torch.zeros(3, 2), torch.zeros(3))


def test_minus_100_is_a_number_in_regression():
    assert ev.mae(torch.tensor([0.0, 0.0]), torch.tensor([-100.0, 0.0])) == 50.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ev.accuracy(t(Z), t(np.full(60, -100))), "all 60 labels"),
        (lambda: ev.accuracy(t(ZM), t(np.full((40, 5), -100)), "multi"), "all 200 labels"),
        (lambda: ev.accuracy(torch.zeros(0, 3), torch.zeros(0).long()), "nothing to measure"),
        (lambda: ev.mse(torch.zeros(0), torch.zeros(0)), "no rows"),
        (lambda: ev.accuracy(t(np.where(np.arange(60)[:, None] == 17, np.nan, Z)), t(Y)), "row 17"),
        (lambda: ev.mse(torch.tensor([0.0, float("nan")]), torch.zeros(2)), "predictions .* row 1"),
        (lambda: ev.mse(torch.zeros(2), torch.tensor([0.0, float("nan")])), "labels .* row 1"),
        (lambda: ev.accuracy(torch.tensor([[1.0, 0.0], [torch.inf, 0.0]]), t([0, 0])), "row 1"),
        (lambda: ev.accuracy(torch.full((2, 2), -torch.inf), t([0, 0])), "every class. in row 0"),
        (lambda: ev.accuracy(torch.zeros(3, 2), t([0, 2, 1])), "label 2 in row 1 is out of range"),
        (lambda: ev.accuracy(torch.zeros(3, 2), t([0, -1, 1])), "label -1 in row 1"),
        (lambda: ev.accuracy(torch.zeros(2, 2), torch.tensor([0.5, 1.0])), "whole numbers"),
        (lambda: ev.accuracy(torch.zeros(3, 2), t([0, 1])), r"must be \(3,\)"),
        (lambda: ev.accuracy(torch.zeros(3, 1), t([0, 1, 0])), "1 class"),
        (
            lambda: ev.f1(torch.zeros(2, 2), torch.tensor([[0, 1], [1, 3]]), "multi"),
            "row 1, column 1",
        ),
        (lambda: ev.auroc(torch.randn(4, 2), t([1, 1, 1, 1])), "both positives and negatives"),
        (lambda: ev.r2(torch.zeros(3), torch.ones(3)), "r2 is undefined"),
        (lambda: ev.ccc(torch.zeros(1), torch.ones(1)), "ccc is undefined"),
    ],
)
def test_bad_input_is_refused_by_row(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_rows_are_named_as_the_user_numbers_them():
    z = torch.zeros(4, 2)
    z[3, 0] = torch.nan
    with pytest.raises(DataError, match="row 3"):
        ev.accuracy(z, torch.tensor([-100, 0, 1, 1]))


def test_names():
    with pytest.raises(UnknownName, match="accuracy"):
        ev.metric("acuracy")
    with pytest.raises(UnknownName, match="multi"):
        ev.accuracy(t(Z), t(Y), "mutli")
    with pytest.raises(UserError, match="'mse' is not defined for 'single'"):
        ev.metric("mse")(t(Z), t(Y), "single")
    assert [ev.default_metric(k).name for k in ev.KINDS] == ["accuracy", "f1", "mse"]
    with pytest.raises(UnknownName):
        ev.default_metric("ordinal")
