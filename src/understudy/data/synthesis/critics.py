"""A critic: a classifier that learns from a few judged rows which ones to trust."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from understudy.data.synthesis.rows import Row, text_of
from understudy.errors import DataError, UserError

Features = Callable[[Sequence[Row]], np.ndarray]


class Critic:
    """Logistic regression on what a row shows of itself, trained on rows that were judged.

    features: rows to numbers [N, D], learned from all rows (`Familiarity`); they see no judgement
    recall: the threshold keeps this share of the accepted ones among the judged rows, by scores that
    are predicted for rows left out (5 folds): 0.5 is the paper's high filter, 0.8 its medium one
    (arXiv 2110.07178)
    """

    def __init__(self, features: Features, *, recall: float = 0.5, strength: float = 1.0) -> None:
        if not 0 < recall <= 1 or strength <= 0:
            raise UserError("critic: recall lies in (0, 1], and strength is above 0")
        self.features, self.recall, self.strength = features, recall, strength
        self.threshold = 0.5
        self.area: float | None = None

    def fit(self, rows: Sequence[Row], accepted: Sequence[bool]) -> "Critic":
        """Learns from judged rows, and sets `threshold` and `area` (under the ROC curve).

        Raises:
            DataError: fewer than 10 rows, or all of one verdict: there is nothing to tell apart.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        truth = np.asarray(accepted, dtype=bool)
        least = int(min(truth.sum(), (~truth).sum()))
        if len(rows) < 10 or least < 2:
            raise DataError(
                f"critic: {len(rows)} judged rows, {int(truth.sum())} accepted; judge more, at least "
                "10 with two of either kind"
            )
        shown = self.features(rows)
        self.model = make_pipeline(
            StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000)
        )
        folds = StratifiedKFold(min(5, least), shuffle=True, random_state=0)
        left_out = np.asarray(
            cross_val_predict(self.model, shown, truth, cv=folds, method="predict_proba")
        )
        scores = left_out[:, 1]
        self.area = float(roc_auc_score(truth, scores))
        self.threshold = at_recall(scores, truth, self.recall)
        self.model.fit(shown, truth)
        return self

    def __call__(self, rows: Sequence[Row]) -> list[float]:
        """The chance that each row would be accepted."""
        return [float(p) for p in self.model.predict_proba(self.features(rows))[:, 1]]


def at_recall(scores: np.ndarray, truth: np.ndarray, recall: float) -> float:
    """The largest threshold at which at least `recall` of the true rows score as much or more."""
    good = np.sort(scores[truth])[::-1]
    return float(good[max(0, math.ceil(recall * len(good)) - 1)])


class Familiarity:
    """How a text made for a head stands among all texts made: what a critic sees of it.

    Of the text's pairs of words (numbers as one word): mean and least log-probability, given the
    first word and smoothed, among all rows; the share of pairs that occur once; of words that do;
    its length and how that differs from the mean; how much of the head occurs in it, part by part;
    the least log-probability of a pair among the rows whose head has the same first part.
    """

    def __init__(
        self, rows: Sequence[Row], *, text: str = "text", head: Sequence[str] = ()
    ) -> None:
        if not rows:
            raise DataError("critic: there are no rows to learn from")
        self.text, self.head = text, tuple(head)
        self.pairs: Counter[tuple[str, str, str]] = Counter()
        self.firsts: Counter[tuple[str, str]] = Counter()
        self.words: Counter[str] = Counter()
        lengths = []
        for row in rows:
            said = self._words(row)
            lengths.append(len(said))
            self.words.update(said)
            for scope in self._scopes(row):
                for a, b in pairwise(said):
                    self.pairs[scope, a, b] += 1
                    self.firsts[scope, a] += 1
        self.mean = sum(lengths) / len(lengths)

    def _words(self, row: Row) -> list[str]:
        said = re.findall(r"\d+|\w+|[^\w\s]", text_of(row, self.text, "critic"))
        named = {str(row[h]) for h in self.head if h in row}
        return ["^", *("0" if w.isdigit() else "_" if w in named else w for w in said), "$"]

    def _scopes(self, row: Row) -> list[str]:
        return ["", f"={row[self.head[0]]}"] if self.head else [""]

    def __call__(self, rows: Sequence[Row]) -> np.ndarray:
        """[N, D] numbers of the rows."""
        return np.array([self._row(r) for r in rows], dtype=np.float64)

    def _row(self, row: Row) -> list[float]:
        said = self._words(row)
        pairs = list(pairwise(said))
        shown: list[float] = []
        for scope in self._scopes(row):
            told = [
                math.log((self.pairs[scope, a, b] + 0.1) / (self.firsts[scope, a] + 0.1 * len(self.words)))
                for a, b in pairs
            ]  # fmt: skip
            shown += [sum(told) / len(told), min(told), sorted(told)[len(told) // 10]]
            shown.append(sum(self.pairs[scope, a, b] <= 2 for a, b in pairs) / len(pairs))
        shown.append(sum(self.words[w] <= 2 for w in said) / len(said))
        shown += [len(said), abs(len(said) - self.mean)]
        text = str(row[self.text])
        shown += [float(str(row.get(h, "")) in text) for h in self.head]
        return shown
