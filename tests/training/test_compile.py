"""A compiled stage trains the same student, up to rounding."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from small_worlds import small
from understudy.recipes import recipes
from understudy.running import Studio
from understudy.settings import digits


def test_compiled_student_is_the_same_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tapped features of FitNets, and no compiled function left in the result.

    Graphs are captured and differentiated as ever; generating C++ for them takes a minute.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    setting = small(digits(), samples=32, epochs=2, teacher_steps=4)
    found = {}
    for on in (False, True):
        own = replace(setting, budget=replace(setting.budget, compile=on))
        result = Studio(None).play(recipes()["fitnets"](own), 0)
        assert not any("forward" in vars(m) for m in result.model.modules())
        found[on] = result.model.state_dict()
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-4, atol=1e-5)
