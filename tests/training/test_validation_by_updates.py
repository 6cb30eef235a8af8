"""`validate_steps`: validation within an epoch; it changes nothing, and a resume is exact."""

import pytest
import torch

import understudy as us
from understudy.data import Texts
from understudy.recipes.controls import alone, kd
from understudy.running import Play, Studio
from understudy.setting import Setting
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.training import events

SIZE = "llama:width=16,depth=1,heads=2"


def texts(count: int, seed: int) -> Texts:
    g = torch.Generator().manual_seed(seed)
    starts = torch.randint(1, 20, (count, 2), generator=g).tolist()
    return Texts([[a, b] + [(a + b * k) % 23 + 1 for k in range(10)] for a, b in starts])


def setting(**budget) -> Setting:
    task = language_task(
        "counting", train=texts(40, 1), validate=texts(12, 2), test=texts(12, 3),
        vocabulary=32, length=16,
    )  # fmt: skip
    return Setting(
        name="counting", task=task, kind="language", call=CausalLM(), student=SIZE,
        teachers={"teacher": SIZE},
        budget=us.Budget(epochs=2, batch_size=8, lr=1e-2, **budget),
    )  # fmt: skip


def test_places_of_validation(tmp_path):
    studio = Studio(tmp_path)
    studio.play(alone(setting(validate_steps=3)))
    log = [e for e in events.read(tmp_path / "alone" / "seed-0" / "events.jsonl")]
    found = [(e["step"], e["epoch"]) for e in log if e["kind"] == "validate"]
    # five updates an epoch; the last is always judged
    assert found == [(3, 0.6), (6, 1.2), (9, 1.8), (10, 2)]
    terms = [e["step"] for e in log if e["kind"] == "epoch"]
    assert terms == [3, 5, 6, 9, 10]


def test_training_is_the_same_however_often_it_is_judged():
    states = [
        Studio(None).play(alone(setting(validate_steps=n))).model.state_dict() for n in (None, 1, 4)
    ]
    for other in states[1:]:
        assert all(torch.equal(states[0][k], other[k]) for k in states[0])


@pytest.mark.parametrize("cut", [3, 4, 7])
def test_a_resume_within_an_epoch_is_exact(tmp_path, cut):
    budget = {"validate_steps": 3, "save_every": 1}
    whole = Studio(None).play(kd(setting(**budget)))
    play = Play(Studio(tmp_path), kd(setting(**budget)), 0)
    going = play.updates()
    for _ in range(cut):
        next(going)
    going.close()
    again = Studio(tmp_path).play(kd(setting(**budget)))
    for k, v in whole.model.state_dict().items():
        assert torch.equal(v, again.model.state_dict()[k])
    assert again.last == whole.last
    assert again.tokens == whole.tokens
    assert again.best_epoch == whole.best_epoch
    assert [h["epoch"] for h in again.history] == [h["epoch"] for h in whole.history]


def test_tokens_are_counted():
    result = Studio(None).play(alone(setting()))
    assert result.tokens == 2 * 40 * 11


def test_no_updates_between_is_refused():
    with pytest.raises(us.UserError, match="validate_steps"):
        us.Budget(validate_steps=0)
