"""How good a model is on labels: one number from logits (or predictions) and labels.

Kinds of label: `single` (one class a row: logits [..., K] or one logit [N], labels [...]), `multi`
(several labels a row: logits and 0/1 labels [..., L], decided at logit 0), `regression` (numbers,
[N] or [N, D]; scores are means over the D columns). Labels equal to `IGNORE_INDEX` (-100) are left
out, except in regression, where -100 is a number. All sums run in float64. Every function raises
`DataError` where nothing is left, shapes disagree or a value is not finite (naming the row).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.errors import DataError, UserError, unknown

from ._rows import IGNORE_INDEX, KINDS, check_kind, multi, numbers, single

__all__ = [
    "IGNORE_INDEX", "KINDS", "METRICS", "Metric", "accuracy", "auroc", "average_precision",
    "balanced_accuracy", "ccc", "default_metric", "f1", "mae", "mcc", "metric", "micro_f1", "mse",
    "pearson", "r2", "spearman", "subset_accuracy", "top5", "top_k",
]  # fmt: skip


def accuracy(logits: Tensor, labels: Tensor, kind: str = "single") -> float:
    """Share of right decisions, in [0, 1].

    single: mean of [argmax_k z_ik = y_i] (the first of equal logits wins); multi: mean over the
    entries of [(z_il > 0) = y_il], which is one minus the Hamming loss.
    """
    check_kind(kind, ("single", "multi"))
    if kind == "multi":
        z, y, keep = multi(logits, labels)
        return ((z > 0) == y)[keep].double().mean().item()
    z, y = single(logits, labels, double=False)
    return (z.argmax(1) == y).double().mean().item()


def subset_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Multi-label: share of rows in which all (not ignored) labels are right, in [0, 1]."""
    z, y, keep = multi(logits, labels)
    right = (((z > 0) == y) | ~keep).all(1)
    return right[keep.any(1)].double().mean().item()


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows whose label is among the k largest logits, in [0, 1]. Needs K > k classes.

    Equal logits count in the order of their class, as argmax does, so a model that says the same
    of all classes does not score 1.
    """
    z, y = single(logits, labels, double=False)
    if not 1 <= k < z.shape[1]:
        raise UserError(
            f"top-{k} accuracy says nothing about {z.shape[1]} classes; it needs more than {k}"
        )
    own = z.gather(1, y[:, None])
    earlier = torch.arange(z.shape[1], device=z.device) < y[:, None]
    rank = ((z > own) | ((z == own) & earlier)).sum(1)
    return (rank < k).double().mean().item()


def top5(logits: Tensor, labels: Tensor) -> float:
    """`top_k` with k = 5."""
    return top_k(logits, labels, 5)


def _confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts [K, K], row: label, column: prediction (float64)."""
    z, y = single(logits, labels, double=False)
    k = z.shape[1]
    return torch.bincount(y * k + z.argmax(1), minlength=k * k).reshape(k, k).double()


def _counts(logits: Tensor, labels: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives, false negatives, each [K] (or [L])."""
    if kind == "multi":
        z, y, keep = multi(logits, labels)
        said = z > 0
        hit, extra, missed = said & y, said & ~y, ~said & y
        tp, fp, fn = ((m & keep).sum(0).double() for m in (hit, extra, missed))
        return tp, fp, fn
    c = _confusion(logits, labels)
    hit = c.diagonal()
    return hit, c.sum(0) - hit, c.sum(1) - hit


def f1(logits: Tensor, labels: Tensor, kind: str = "single") -> float:
    """Macro F1, in [0, 1]: mean over classes of 2 TP / (2 TP + FP + FN).

    single: over the classes that occur as label or as prediction; multi: over all L labels, where
    one that never occurs and is never said counts as 0. Both as in scikit-learn's
    `f1_score(average="macro")`.
    """
    check_kind(kind, ("single", "multi"))
    tp, fp, fn = _counts(logits, labels, kind)
    size = 2 * tp + fp + fn
    score = torch.where(size > 0, 2 * tp / size.clamp(min=1), torch.zeros_like(tp))
    return (score if kind == "multi" else score[size > 0]).mean().item()


def micro_f1(logits: Tensor, labels: Tensor, kind: str = "single") -> float:
    """2 ΣTP / (2 ΣTP + ΣFP + ΣFN), in [0, 1]; 0 where nothing is there to find and nothing is said.

    For single labels this is the accuracy.
    """
    check_kind(kind, ("single", "multi"))
    tp, fp, fn = (x.sum() for x in _counts(logits, labels, kind))
    return (2 * tp / (2 * tp + fp + fn).clamp(min=1)).item()


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean recall over the classes that occur as label, in [0, 1] (Brodersen et al. 2010)."""
    c = _confusion(logits, labels)
    size = c.sum(1)
    return (c.diagonal() / size.clamp(min=1))[size > 0].mean().item()


def mcc(logits: Tensor, labels: Tensor) -> float:
    """Matthews correlation in its K-class form R_K, in [-1, 1] (Gorodkin 2004).

    (c s - Σ_k p_k t_k) / sqrt((s² - Σ p_k²)(s² - Σ t_k²)), with s samples, c right, p_k said to
    be k, t_k that are k. 0 where one side is constant.
    """
    m = _confusion(logits, labels)
    s, c, t, p = m.sum(), m.trace(), m.sum(1), m.sum(0)
    scale = (s * s - (p * p).sum()) * (s * s - (t * t).sum())
    return ((c * s - (p * t).sum()) / scale.sqrt()).item() if scale > 0 else 0.0


def _columns(logits: Tensor, labels: Tensor, kind: str) -> list[tuple[Tensor, Tensor]]:
    """(is positive, score) of every class or label that has both positives and negatives."""
    if kind == "multi":
        z, y, keep = multi(logits, labels)
        pairs = [(y[keep[:, j], j], z[keep[:, j], j]) for j in range(z.shape[1])]
    else:
        z, y = single(logits, labels)
        if z.shape[1] == 2:
            # The log-odds rank as P(1) does, and do not saturate.
            pairs = [(y == 1, z[:, 1] - z[:, 0])]
        else:
            p = z.softmax(1)
            pairs = [(y == k, p[:, k]) for k in range(z.shape[1])]
    pairs = [(t, s) for t, s in pairs if t.any() and not t.all()]
    if not pairs:
        raise DataError(
            "no class has both positives and negatives among the labels; use accuracy or f1"
        )
    return pairs


def auroc(logits: Tensor, labels: Tensor, kind: str = "single") -> float:
    """Area under the ROC curve, in [0, 1]: P(a positive scores above a negative) + half the ties.

    Two classes: of class 1. K classes: one-vs-rest on softmax probabilities, mean over classes;
    multi: mean over labels. Classes without positives or without negatives are left out.
    """
    check_kind(kind, ("single", "multi"))
    from sklearn.metrics import roc_auc_score

    parts = [
        roc_auc_score(t.cpu().numpy(), s.cpu().numpy()) for t, s in _columns(logits, labels, kind)
    ]
    return float(sum(parts) / len(parts))


def average_precision(logits: Tensor, labels: Tensor, kind: str = "single") -> float:
    """Σ_n (R_n - R_{n-1}) P_n over thresholds, in [0, 1]; averaged over classes as `auroc`."""
    check_kind(kind, ("single", "multi"))
    from sklearn.metrics import average_precision_score as ap

    parts = [ap(t.cpu().numpy(), s.cpu().numpy()) for t, s in _columns(logits, labels, kind)]
    return float(sum(parts) / len(parts))


def mse(predictions: Tensor, labels: Tensor) -> float:
    """Mean of (p - y)², in squared units of the label."""
    p, y = numbers(predictions, labels)
    return (p - y).square().mean().item()


def mae(predictions: Tensor, labels: Tensor) -> float:
    """Mean of |p - y|, in units of the label."""
    p, y = numbers(predictions, labels)
    return (p - y).abs().mean().item()


def _varied(y: Tensor, name: str) -> None:
    if (constant := (y == y[:1]).all(0)).any():
        where = f" in column {int(constant.nonzero()[0])}" if y.shape[1] > 1 else ""
        raise DataError(f"{name} is undefined: all labels are the same{where}; use mse or mae")


def r2(predictions: Tensor, labels: Tensor) -> float:
    """1 - Σ(p - y)² / Σ(y - mean y)², at most 1, unbounded below; mean over columns."""
    p, y = numbers(predictions, labels)
    _varied(y, "r2")
    return (1 - (p - y).square().sum(0) / (y - y.mean(0)).square().sum(0)).mean().item()


def _correlation(p: Tensor, y: Tensor) -> float:
    constant = (p == p[:1]).all(0)
    a, b = p - p.mean(0), y - y.mean(0)
    r = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=torch.finfo(a.dtype).tiny)
    return torch.where(constant, torch.zeros_like(r), r).clamp(-1, 1).mean().item()


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """cov(p, y) / (sd p · sd y), in [-1, 1]; 0 for constant predictions; mean over columns."""
    p, y = numbers(predictions, labels)
    _varied(y, "pearson")
    return _correlation(p, y)


def _ranks(x: Tensor) -> Tensor:
    """Ranks down each column; equal values share the mean of their ranks."""
    out = torch.empty_like(x)
    for j in range(x.shape[1]):
        _, index, count = x[:, j].unique(sorted=True, return_inverse=True, return_counts=True)
        count = count.to(x.dtype)
        out[:, j] = (count.cumsum(0) - (count - 1) / 2)[index]
    return out


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """Pearson correlation of the ranks (ties share their mean rank), in [-1, 1]; as `pearson`."""
    p, y = numbers(predictions, labels)
    _varied(y, "spearman")
    return _correlation(_ranks(p), _ranks(y))


def ccc(predictions: Tensor, labels: Tensor) -> float:
    """Concordance, 2 s_py / (s_p² + s_y² + (mean p - mean y)²), in [-1, 1] (Lin 1989).

    Moments divide by N.
    """
    p, y = numbers(predictions, labels)
    _varied(y, "ccc")
    a, b = p - p.mean(0), y - y.mean(0)
    gap = (p.mean(0) - y.mean(0)).square()
    c = 2 * (a * b).mean(0) / (a.square().mean(0) + b.square().mean(0) + gap)
    return c.mean().item()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure by name; `metric(outputs, labels, kind)` gives its value."""

    name: str
    function: Callable[..., float]
    higher_is_better: bool = True
    kinds: tuple[str, ...]

    def __call__(self, outputs: Tensor, labels: Tensor, kind: str | None = None) -> float:
        """Value on outputs and labels of `kind` (default: the first it is defined for)."""
        kind = kind or self.kinds[0]
        if kind not in (*KINDS, *self.kinds):
            raise unknown("kind of label", kind, KINDS)
        if kind not in self.kinds:
            fit = ", ".join(m.name for m in METRICS.values() if kind in m.kinds)
            raise UserError(
                f"metric {self.name!r} is not defined for {kind!r} labels; there are {fit}"
            )
        if len(self.kinds) > 1:
            return self.function(outputs, labels, kind)
        return self.function(outputs, labels)

    def better(self, new: float, old: float) -> bool:
        """Whether `new` is strictly better than `old`."""
        return new > old if self.higher_is_better else new < old


def _table() -> dict[str, Metric]:
    one, both, number = ("single",), ("single", "multi"), ("regression",)
    rows: list[tuple[Callable[..., float], tuple[str, ...], bool]] = [
        (accuracy, both, True), (subset_accuracy, ("multi",), True), (top5, one, True),
        (f1, both, True), (micro_f1, both, True), (balanced_accuracy, one, True),
        (auroc, both, True), (average_precision, both, True), (mcc, one, True),
        (mse, number, False), (mae, number, False), (r2, number, True), (pearson, number, True),
        (spearman, number, True), (ccc, number, True),
    ]  # fmt: skip
    found = {
        f.__name__: Metric(name=f.__name__, function=f, higher_is_better=up, kinds=kinds)
        for f, kinds, up in rows
    }
    judged = {"perplexity": False, "bits_per_byte": False, "exact_match": True}
    for name, up in judged.items():
        found[name] = Metric(
            name=name, function=_by_judge, higher_is_better=up, kinds=("language",)
        )
    return found


def _by_judge(outputs: Tensor, labels: Tensor) -> float:
    raise UserError("this is measured on texts, by the task's judge, not from logits and labels")


METRICS: dict[str, Metric] = _table()


def metric(name: str) -> Metric:
    """The metric of that name; `UnknownName` offers the nearest."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def default_metric(kind: str) -> Metric:
    """What a task of this kind is judged by unless it says otherwise: accuracy, f1 or mse."""
    check_kind(kind)
    return METRICS[{"single": "accuracy", "multi": "f1", "regression": "mse"}[kind]]
