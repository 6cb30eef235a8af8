"""Compiled parts: the same numbers, around the taps, and nothing left behind."""

import pytest
import torch
from torch import nn

from understudy.signals import Batch, Taps, observe
from understudy.signals.compiled import compiled
from understudy.students import load_model


@pytest.mark.parametrize("tap", ["", "stage2", "penultimate"])
def test_same_values_and_features(tap: str) -> None:
    torch.manual_seed(0)
    model = load_model("cnn:width=4,depth=3", classes=5, in_channels=1).eval()
    batch = Batch(inputs=torch.randn(3, 1, 8, 8))
    taps = Taps(model, [tap] if tap else [], batch)
    plain = observe(model, batch, taps)
    with compiled(model, taps.paths.values(), backend="eager") as parts:
        found = observe(model, batch, taps)
        # a tapped module is never inside a compiled one
        inside = [m for p in parts for m in model.get_submodule(p).modules()]
        strictly = {id(m) for m in inside} - {id(model.get_submodule(p)) for p in parts}
        for path in taps.paths.values():
            assert id(model.get_submodule(path.partition(":")[0])) not in strictly
    assert parts if not tap else True
    torch.testing.assert_close(found.dense, plain.dense)
    if tap:
        torch.testing.assert_close(found.feature(tap), plain.feature(tap))
    assert not any("forward" in vars(m) for m in model.modules())


def test_single_layers_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with compiled(model, ["0"], backend="eager") as parts:
        assert parts == []
