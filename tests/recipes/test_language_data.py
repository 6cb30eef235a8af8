"""MiniPLM, DDK and pre-training distillation on a small world: what they choose, resume, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from progressions import progressions
from small_worlds import differing, weights
from understudy.errors import MethodRefused, UserError
from understudy.recipes import recipes
from understudy.recipes.language_models.ddk import domains_of
from understudy.recipes.language_models.miniplm import _scoring as scoring
from understudy.recipes.language_models.miniplm import chosen, miniplm
from understudy.running import Studio
from understudy.settings import digits
from understudy.training.interrupt import Interrupt, Interrupted

FORMS = {
    "miniplm": {"reference": "llama:width=8,depth=1,heads=1", "mix": 0.1},
    "ddk": {},
    "pretrain_kd": {},
    "pretrain_kd online": {"logits": "online"},
}


def made(form: str):
    return recipes()[form.split()[0]](progressions(steps=10), **FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_resumes_exactly(form: str, tmp_path: Path) -> None:
    seen: list[str] = []
    name = made(form).name

    def count(kind: str, fields: dict) -> None:
        if kind == "update" and fields["arm"] == name:
            seen.append(kind)

    Studio(tmp_path / "whole", listeners=[count]).play(made(form))
    whole, interrupt = len(seen), Interrupt()

    def stop(kind: str, fields: dict) -> None:
        interrupt.wanted |= len(seen) == whole + whole // 2 + 1

    with pytest.raises(Interrupted):
        Studio(tmp_path / "cut", interrupt=interrupt, listeners=[count, stop]).play(made(form))
    Studio(tmp_path / "cut", listeners=[count]).play(made(form))
    assert len(seen) == 2 * whole
    assert differing(weights(tmp_path / "cut", name), weights(tmp_path / "whole", name)) == []


@pytest.mark.parametrize(
    "name",
    [
        "miniplm",
        "ddk",
        "pretrain_kd",
        "capacity_gap",
        "compatibility_reward",
        "teacher_hacking",
        "knowledge_capacity",
    ],
)
def test_refuses_other_kinds(name: str) -> None:
    with pytest.raises(MethodRefused):
        recipes()[name](digits())


# --- MiniPLM --------------------------------------------------------------------------------------


def test_the_best_are_kept_and_others_mixed_in() -> None:
    scores = torch.tensor([0.1, 0.9, -0.3, 0.5, 0.2, -1.0, 0.0, 0.4])
    assert chosen(scores, keep=0.5, mix=0.0, seed=0).tolist() == [1, 3, 4, 7]
    mixed = chosen(scores, keep=0.5, mix=0.25, seed=0).tolist()
    assert len(mixed) == 6
    assert {1, 3, 4, 7} < set(mixed)


class Alternating(nn.Module):
    """Says at every position the token before it: right where two tokens take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(6.0))

    def forward(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        before = torch.cat((input_ids[:, :1], input_ids[:, :-1]), 1)
        return self.sure * one_hot(before, 32).float()


def test_scores_prefer_what_the_teacher_knows(tmp_path: Path) -> None:
    """A teacher that knows one kind of text: all of that kind are chosen, and none of the others."""
    setting = replace(progressions(), teachers={"teacher": Alternating()})
    recipe = scoring(setting, "llama:width=8,depth=1,heads=1", data=0.1, share=0.25)
    found = Studio(tmp_path).play(recipe).extras
    kinds = torch.tensor(setting.task.extras["domains"]["train"])[found["rows"]]
    share = float((kinds == 0).float().mean())
    best = chosen(found["scores"], keep=share, mix=0.0, seed=0)
    assert set(kinds[best].tolist()) == {0}
    assert found["figure"]["likelier_to_the_teacher"] == pytest.approx(share)


def test_several_students_share_the_scores(tmp_path: Path) -> None:
    arms: list[str] = []

    def note(kind: str, fields: dict) -> None:
        if kind == "update":
            arms.append(fields["arm"])

    studio = Studio(tmp_path, listeners=[note])
    small = {"reference": "llama:width=8,depth=1,heads=1"}
    studio.play(miniplm(progressions(steps=10), **small))
    before = arms.count("miniplm-reference")
    other = replace(progressions(steps=10), student="llama:width=24,depth=1,heads=2")
    studio.play(replace(miniplm(other, **small), name="miniplm-wide"))
    assert before > 0
    assert arms.count("miniplm-reference") == before


def test_shares_are_checked() -> None:
    with pytest.raises(UserError, match="keep"):
        miniplm(progressions(), keep=0.0)


# --- DDK ------------------------------------------------------------------------------------------


def test_a_task_without_domains_is_refused() -> None:
    setting = progressions()
    bare = replace(setting, task=replace(setting.task, extras={}))
    with pytest.raises(MethodRefused, match="domain"):
        Studio(None).play(recipes()["ddk"](bare))


def test_domains_of_a_part_are_found_by_the_samples_numbers() -> None:
    task = progressions().task
    rows = torch.tensor([5, 3, 10])
    few = replace(task, train=task.train.subset(rows))
    assert domains_of(few, "train").tolist() == [2, 0, 1]
    flat = replace(few, extras={"domains": [n % 3 for n in range(96)]})
    assert domains_of(flat, "train").tolist() == [2, 0, 1]
    asked = replace(few, extras={"domains": lambda texts: [len(texts)] * len(texts)})
    assert domains_of(asked, "train").tolist() == [3, 3, 3]


# --- pre-training distillation --------------------------------------------------------------------


def test_weights_follow_the_schedule() -> None:
    stage = recipes()["pretrain_kd"](progressions(), alpha=0.8, warmup=0.2, decay=0.2).stages[0]
    (_, plain, _), (_, kd, _) = stage.objective
    for progress, alpha in {0.0: 0.0, 0.1: 0.4, 0.5: 0.8, 0.9: 0.4, 1.0: 0.0}.items():
        assert kd(progress) == pytest.approx(alpha)
        assert plain(progress) == pytest.approx(1 - alpha)
    assert stage.budget["schedule"](0.1) == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"schedule": "saw"}, {"alpha": 1.5}, {"loss": "l1"}])
def test_design_space_has_bounds(wrong: dict) -> None:
    with pytest.raises(UserError):
        recipes()["pretrain_kd"](progressions(), **wrong)


def test_online_logits_need_a_teacher_to_be_trained() -> None:
    from understudy.students import load_model

    model = load_model("llama:width=8,depth=1,heads=1,vocabulary=32,length=32", classes=32)
    ready = replace(progressions(), teachers={"teacher": model})
    with pytest.raises(MethodRefused, match="offline"):
        recipes()["pretrain_kd"](ready, logits="online")
