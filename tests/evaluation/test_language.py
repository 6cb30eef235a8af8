"""Token scores against NumPy: perplexity, bits a byte, KL, agreement, acceptance."""

import math

import numpy as np
import pytest
import torch

from understudy.data import Texts
from understudy.errors import UserError
from understudy.evaluation import metric
from understudy.evaluation.language import token_scores
from understudy.signals import Batch, Signals

V = 7
TEXTS = Texts(
    [[1, 2, 3, 4], [5, 6, 1], [2, 2, 4, 0, 3, 6]],
    [[False, True, True, True], [False, False, True], [False, True, False, True, True, True]],
    bytes=[5, 2, 9],
)


def logits_of(seed: int) -> torch.Tensor:
    """[text, position, V], the same for a text in whatever batch it comes."""
    return torch.randn(3, 5, V, generator=torch.Generator().manual_seed(seed)) * 2


def says(seed: int):
    def say(batch: Batch) -> Signals:
        assert batch.index is not None
        width = batch.inputs["input_ids"].shape[1]
        return Signals(logits=logits_of(seed)[batch.index, :width])

    return say


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_against_numpy(batch_size: int) -> None:
    found = token_scores(says(0), TEXTS, says(1), batch_size=batch_size).measures()
    q, p = (log_softmax(logits_of(s).double().numpy()) for s in (0, 1))
    places = [
        (0, 0, 2),
        (0, 1, 3),
        (0, 2, 4),
        (1, 1, 1),
        (2, 0, 2),
        (2, 2, 0),
        (2, 3, 3),
        (2, 4, 6),
    ]
    nats = -sum(q[n, at, token] for n, at, token in places)
    rows_p = np.stack([p[n, at] for n, at, _ in places])
    rows_q = np.stack([q[n, at] for n, at, _ in places])
    assert found["perplexity"] == pytest.approx(math.exp(nats / len(places)), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / 16, rel=1e-5)
    kl = (np.exp(rows_p) * (rows_p - rows_q)).sum(-1).mean()
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["agreement"] == np.mean(rows_p.argmax(-1) == rows_q.argmax(-1))
    overlap = np.minimum(np.exp(rows_p), np.exp(rows_q)).sum(-1).mean()
    assert found["acceptance"] == pytest.approx(overlap, rel=1e-5)


def test_a_model_agrees_with_itself() -> None:
    found = token_scores(says(0), TEXTS, says(0)).measures()
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert found["agreement"] == 1
    assert found["acceptance"] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("name", ["perplexity", "bits_per_byte", "exact_match"])
def test_not_from_logits_and_labels(name: str) -> None:
    with pytest.raises(UserError, match="judge"):
        metric(name)(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), "language")
