"""Adapters: what learns, what is saved, what comes back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import understudy as us
from tiny_causal import chats, save_pair, tiny, write_lines
from understudy.errors import CheckpointError, UserError
from understudy.recipes import recipes
from understudy.running import Studio
from understudy.setting import Setting
from understudy.settings import own
from understudy.signals import CausalLM, Factored
from understudy.students import LoRA, load_model, load_student, save_student
from understudy.tasks.language import language_task

IDS = torch.arange(12).view(2, 6)


def world(**settings: Any) -> Setting:
    """A teacher, and a student that learns adapters."""
    g = torch.Generator().manual_seed(0)

    def texts(count: int) -> us.data.Texts:
        return us.data.Texts([torch.randint(0, 40, (9,), generator=g) for _ in range(count)])

    task = language_task("toy", train=texts(64), validate=texts(16), vocabulary=40, length=64)
    return Setting(
        name="toy",
        task=task,
        kind="language",
        call=CausalLM(),
        teachers={"teacher": tiny("llama", seed=1, hidden_size=24, num_attention_heads=2)},
        student=us.lora(tiny("llama"), r=4, **settings),
        budget=us.Budget(epochs=4, batch_size=16, lr=1e-2),
    )


def test_only_adapters_learn_and_the_loss_falls() -> None:
    before = tiny("llama").state_dict()
    result = Studio(None).play(recipes()["kd"](world()), 0)
    losses = [h["terms"]["kd"] for h in result.history]
    assert losses[-1] < 0.9 * losses[0]
    base = result.model.unload().state_dict()  # type: ignore
    assert base.keys() == before.keys()
    assert all(torch.equal(base[k], before[k]) for k in before)


def test_the_head_is_frozen_and_calls_stay_factored() -> None:
    model = LoRA(r=2).put(tiny("llama"))
    said = CausalLM()(model, us.Batch(inputs={"input_ids": IDS, "attention_mask": IDS * 0 + 1}))
    assert isinstance(said, Factored)
    assert not said.weight.requires_grad
    assert said.hidden.requires_grad
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learns
    assert all("lora_" in n for n in learns)


def test_resume_is_exact(tmp_path: Path) -> None:
    """Stopped in the middle and continued with fresh objects: the same bits."""
    recipe = recipes()["kd"]

    def play(folder: Path, **budget: Any) -> dict[str, torch.Tensor]:
        setting = world(dropout=0.1).but(**budget)
        return Studio(folder, save_seconds=None).play(recipe(setting), 0).model.state_dict()

    whole = play(tmp_path / "a")
    from understudy.running import Play

    stopped = Play(
        Studio(tmp_path / "b", save_seconds=None), recipe(world(dropout=0.1).but(save_every=3)), 0
    )
    updates = stopped.updates()
    for _ in range(8):
        next(updates)
    updates.close()
    kept = list((tmp_path / "b" / "kd" / "seed-0").glob("step-*"))
    assert kept
    again = play(tmp_path / "b", save_every=3)
    assert all(torch.equal(again[k], whole[k]) for k in whole)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_saved_and_loaded_the_same_logits(tmp_path: Path, family: str) -> None:
    from peft import PeftModel

    model: Any = LoRA(r=2, dropout=0.1).put(tiny(family))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    wanted = model(IDS).logits
    assert not torch.allclose(wanted, tiny(family)(IDS).logits)
    folder = save_student(model, tmp_path / "adapter", extra={"task": "toy"})
    assert set(load_file(folder / "adapter_model.safetensors"))
    for back in (load_student(folder), load_model(folder)):
        assert torch.equal(back(IDS).logits, wanted)
    by_peft: Any = PeftModel.from_pretrained(tiny(family), str(folder))  # type: ignore
    assert torch.equal(by_peft.eval()(IDS).logits, wanted)
    model.merge_when_saved = True
    whole = save_student(model, tmp_path / "whole")
    assert not (whole / "adapter_config.json").exists()
    # the sum of two products, in another order
    added = load_model(whole, task="causal-lm")(IDS).logits
    torch.testing.assert_close(added, wanted, rtol=1e-3, atol=1e-3)
    assert torch.equal(model(IDS).logits, wanted)  # saving changes nothing


def test_a_pair_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters name the folder of the model that they belong to; a student of them can teach."""
    save_pair(tmp_path)
    write_lines(tmp_path / "chats.jsonl", chats(12))
    monkeypatch.chdir(tmp_path)
    setting = own(teacher="teacher", student="student", data="chats.jsonl", adapters=LoRA(r=2))
    run = us.distill(setting=setting, steps=2, batch_size=4, lr=0.1, out="run")
    assert not (tmp_path / "run" / "student" / "base").exists()
    back = us.load("run")
    torch.testing.assert_close(back(IDS).logits, run.student(IDS).logits, rtol=0, atol=0)
    assert not torch.allclose(back(IDS).logits, load_model("student", task="causal-lm")(IDS).logits)
    again = own(teacher="run", student="llama:width=16,depth=1,heads=2", data="chats.jsonl")
    assert again.task_for(0).classes == 296
    assert us.distill(setting=again, steps=1, batch_size=4).summary["arms"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no linear layer 'q_prj'; did you mean q_proj"):
        LoRA(targets=("q_prj",)).put(tiny("llama"))
    with pytest.raises(UserError, match="has adapters already"):
        LoRA().put(LoRA().put(tiny("llama")))
    with pytest.raises(UserError, match="is no model of transformers"):
        LoRA().put(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="r is at least 1"):
        LoRA(r=0)
    with pytest.raises(UserError, match="no setting of --lora 'rang'"):
        LoRA.parse("rang=3")
    with pytest.raises(UserError, match="takes name=value"):
        LoRA.parse("8")
    with pytest.raises(UserError, match="r takes a number"):
        LoRA.parse("r=big")
    assert LoRA.parse("r=4,alpha=8,targets=q_proj+v_proj") == LoRA(
        r=4, alpha=8.0, targets=("q_proj", "v_proj")
    )
    folder = save_student(LoRA(r=2).put(tiny("llama")), tmp_path / "adapter")
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="adapters cannot be loaded"):
        load_model(folder)
