"""The budget: its schedules against closed forms, its optimisers, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from understudy.errors import UserError
from understudy.training.budget import Budget


def test_times_is_exact_within_an_epoch() -> None:
    lengths = [5, 7, 6]
    assert Budget(epochs=3).updates(lengths.__getitem__) == 18
    assert Budget(epochs=1).lasting(0.6).updates(lengths.__getitem__) == 3
    assert Budget(epochs=2).lasting(0.5).lasting(0.5).updates(lengths.__getitem__) == 3
    assert Budget(epochs=1, times=3.0).updates(lengths.__getitem__) == 15
    assert Budget(steps=10).lasting(0.25).updates(lengths.__getitem__) == 2
    assert Budget(epochs=1).lasting(0.001).updates(lengths.__getitem__) == 1
    with pytest.raises(UserError, match="times"):
        Budget(times=0.0)


def rates(budget: Budget, total: int, steps: int = 10) -> list[float]:
    """The factor of every update, `steps` of them an epoch."""
    return [budget.rate(k, total, k / steps) for k in range(total)]


def test_constant() -> None:
    assert rates(Budget(schedule="constant"), 7) == [1.0] * 7


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final: float) -> None:
    found = rates(Budget(schedule="cosine", final=final), 40)
    wanted = [final + (1 - final) * math.cos(math.pi * k / 80) ** 2 for k in range(40)]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found[0] == 1.0


def test_linear() -> None:
    found = rates(Budget(schedule="linear", final=0.2), 8)
    assert found == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])


def test_step_falls_at_its_milestones() -> None:
    found = rates(Budget(schedule="step", milestones=(1, 3), gamma=0.1), 40)
    assert found == pytest.approx([1.0] * 10 + [0.1] * 20 + [0.01] * 10)


def test_warmup_rises_in_equal_steps_and_the_schedule_begins_after_it() -> None:
    found = rates(Budget(schedule="linear", warmup=0.2), 20)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == pytest.approx([1 - k / 16 for k in range(16)])
    cosine = rates(Budget(schedule="cosine", warmup=0.5), 20)
    assert cosine[10:] == pytest.approx([math.cos(math.pi * k / 20) ** 2 for k in range(10)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"steps": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"accumulate": 0},
        {"accumulate": 65},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"clip": 0.0},
        {"patience": 0},
        {"validate_every": 0},
        {"save_every": 0},
        {"precision": "fp64"},
        {"schedule": "exponential"},
        {"optimizer": "lion"},
        {"keep": 0},
        {"weight_decay": -1.0},
        {"labelled_share": 1.0},
        {"momentum": 1.0},
        {"final": 1.5},
    ],
)
def test_refused(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(UserError) as caught:
        Budget(**wrong)
    message = str(caught.value)
    assert name in message
    assert str(value) in message
    assert "\n" not in message


def groups() -> list[dict[str, Any]]:
    return [
        {"params": list(nn.Linear(2, 2).parameters())},
        {"params": [nn.Parameter(torch.ones(1))]},
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_by_name(name: str, kind: type) -> None:
    budget = Budget(optimizer=name, lr=0.3, momentum=0.7, weight_decay=0.01, nesterov=True)
    found = budget.make_optimizer(groups())
    assert type(found) is kind
    assert len(found.param_groups) == 2
    for group in found.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
        if name == "sgd":
            assert (group["momentum"], group["nesterov"]) == (0.7, True)


def test_an_optimizer_of_ones_own() -> None:
    found = Budget(optimizer=lambda g: torch.optim.RMSprop(g, lr=0.5)).make_optimizer(groups())
    assert isinstance(found, torch.optim.RMSprop)
    assert found.param_groups[1]["lr"] == 0.5
