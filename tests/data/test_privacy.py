"""Which tokens are private, and what swing's targets say of them."""

import pytest
import torch

from understudy.data import Texts
from understudy.data.alignment import Pieces
from understudy.data.privacy import PATTERN, Tagger
from understudy.errors import SignalError, UserError
from understudy.objectives import swing_kd
from understudy.signals import Batch, Signals

WORDS = (b"", b"call ", b"555", b"-01", b"234", b" now", b"ann@x.org")
PIECES = Pieces(pieces=WORDS, encode=lambda text: [])


def test_a_token_that_a_match_runs_over_is_private() -> None:
    tagger = Tagger(PIECES)
    assert tagger.tags([1, 2, 3, 4, 5, 1, 6]) == [
        False, True, True, True, False, False, True,
    ]  # fmt: skip
    assert tagger.tags([1, 2, 5]) == [False, False, False]
    assert Tagger(PIECES, "now").tags([5, 2, 5]) == [True, False, True]
    with pytest.raises(UserError, match="cannot be read"):
        Tagger(PIECES, "(")
    assert PATTERN in tagger.fingerprint()


def test_tags_stand_where_the_token_is_predicted() -> None:
    texts = Texts([[1, 2, 3, 4, 5], [1, 6]])
    found = Tagger(PIECES)(texts.batch(torch.arange(2)))
    assert found.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_private_targets_are_flatter_and_the_student_keeps_its_temperature() -> None:
    z = torch.tensor([[[4.0, 0.0, 0.0], [4.0, 0.0, 0.0]]], dtype=torch.float64)
    batch = Batch(inputs={}, mask=torch.ones(1, 2, dtype=torch.bool))
    objective = swing_kd(lambda b: torch.tensor([[0.0, 1.0]]), high=100.0, noise=0.0)
    student = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    objective(Signals(logits=student), Signals(logits=z), batch).total.backward()
    assert student.grad is not None
    # pulled towards the teacher's choice where nothing is private, hardly at all where all is
    assert float(student.grad[0, 0, 0]) < -0.6
    assert abs(float(student.grad[0, 1, 0])) < 0.01


def test_noise_is_drawn_in_training_alone() -> None:
    z = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(inputs={}, mask=torch.ones(1, 4, dtype=torch.bool))
    objective = swing_kd(high=1.0, noise=2.0)
    said = Signals(logits=z), Signals(logits=z)
    torch.manual_seed(0)
    first, second = (float(objective(*said, batch).total) for _ in range(2))
    assert first != second
    assert first > 0
    objective.eval()
    assert float(objective(*said, batch).total) == pytest.approx(0, abs=1e-5)
    plain = swing_kd(lambda b: torch.zeros(2, 2))
    with pytest.raises(SignalError, match="how private"):
        plain(*said, batch)
