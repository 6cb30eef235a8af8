"""MUSCLE: an update that does not unlearn what its old version had right."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Texts
from understudy.errors import UserError
from understudy.evaluation.compatibility import flips, shifts
from understudy.objectives import compatible_kd
from understudy.recipes.language_models._studies import (
    saying,
    texts,
    without_teachers,
)
from understudy.recipes.language_models._worlds import pre_training, speaking
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.signals.generation import speaking as silent
from understudy.students.lora import LoRA
from understudy.teachers import Frozen
from understudy.teachers.versions import Versions


def muscle(
    setting: Setting | None = None,
    *,
    old: str = "",
    new: str = "",
    old_share: float = 0.5,
    rank: int = 8,
    alpha: float = 16.0,
    temperature: float = 1.0,
    mask: str = "student",
    ce_weight: float = 0.0,
) -> Recipe:
    """MUSCLE: A Model Update Strategy for Compatible LLM Evolution.

    Two versions of a base model get adapters for the task; a compatibility adapter starts as the new
    one and is tuned towards the old version where it is wrong, else towards the new one. Negative
    flips are counted before and after.

    Source: arXiv 2407.09435
    Kind: procedure
    Equation (1): m KL(p_old || q) + (1 - m) KL(p_new || q), m = [argmax q != label], token by token;
        negative flips: [old right] and [new wrong]
    When: a model in use is replaced, and its users rely on what it had right.
    Cost: two base models, two adapters, one more adapter with a pass of both versions a step.
    Defaults: the update is one of data: the old base has read half of the texts; LoRA on all linear
        layers, alpha / r = 2 as published (r 128 there); no cross-entropy beside (published: for
        large gaps). An instance is a text, right where every scored token is the likeliest, which
        is when greedy decoding writes it; its similarity to the truth the share of tokens right.
    Deviations: the base models are the setting's student (`old`, `new` name others), trained here.
        T is not given in the paper: 1.
    Result: negative flips saved 0.161 ± 0.128, exact old 0 ± 0, token accuracy old 0.594 ±
        0.0236, exact new 0.00694 ± 0.00867, token accuracy new 0.701 ± 0.0501 (3 seeds). See
        docs/results/language-studies.md.
    """
    setting = speaking(setting, "muscle", teacher=False)
    if not 0 < old_share <= 1:
        raise UserError(
            f"muscle: the old base reads a share in (0, 1] of the texts, not {old_share}"
        )
    study = partial(
        _update,
        setting=setting,
        specs={"old": old or setting.student, "new": new or setting.student},
        shares={"old": old_share, "new": 1.0},
        lora=LoRA(r=rank, alpha=alpha),
        temperature=temperature,
        mask=mask,
        ce_weight=ce_weight,
    )
    known = {"old": old, "new": new, "old_share": old_share, "rank": rank, "alpha": alpha}
    return Recipe(
        name="muscle",
        setting=setting,
        kind="procedure",
        study=study,
        settings={**known, "temperature": temperature, "mask": mask, "ce_weight": ce_weight},
    )


def _update(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    specs: dict[str, ModelSpec],
    shares: dict[str, float],
    lora: LoRA,
    temperature: float,
    mask: Any,
    ce_weight: float,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    models: dict[str, nn.Module] = {}
    for name, spec in specs.items():
        own = without_teachers(setting, spec)
        read = partial(pre_training, task=setting.task, share=shares[name])
        base = _trained(studio, seed, f"muscle-base-{name}", replace(own, task=read))
        adapted = replace(own, student=partial(_adapted, base=base, lora=lora))
        models[name] = _trained(studio, seed, f"muscle-{name}", adapted)
    both = Versions(
        Frozen(models["old"], call=setting.call), Frozen(models["new"], call=setting.call)
    )
    term = compatible_kd(temperature=temperature, mask=mask)
    objective = ce_weight * setting.supervised() + term if ce_weight else 1.0 * term
    compatible = replace(
        setting, teachers={"versions": both}, teacher_call=None, student=models["new"]
    )
    stage = Stage(objective=objective, teacher="versions")
    recipe = Recipe(name="muscle-compatible", setting=compatible, stages=(stage,))
    models["compatible"] = studio.play(recipe, seed).model
    judged = texts(task.validate if task.test is None else task.test, "muscle")
    return {"figure": _figure({k: _answers(setting, m, judged) for k, m in models.items()})}


def _trained(studio: Any, seed: int, name: str, setting: Setting) -> nn.Module:
    stage = Stage(objective=setting.supervised(), teacher=None)
    return studio.play(Recipe(name=name, setting=setting, stages=(stage,)), seed).model


def _adapted(*, base: nn.Module, lora: LoRA) -> nn.Module:
    return lora.put(copy.deepcopy(base))


@torch.no_grad()
def _answers(setting: Setting, model: nn.Module, source: Texts) -> dict[str, Tensor]:
    """Likeliest and right tokens [M] of all texts, and of each text whether, and how far, it is right."""
    device = next(model.parameters()).device
    say = saying(setting.call, model, device)
    said, truth, owner = [], [], []
    with silent(model):
        for index in torch.arange(len(source)).split(64):
            batch = source.batch(index)
            assert batch.mask is not None
            assert batch.labels is not None
            said.append(say(batch).rows(batch.mask).dense.argmax(-1).cpu())
            truth.append(batch.labels[batch.mask])
            owner.append(index[batch.mask.nonzero()[:, 0]])
    tokens, right, rows = torch.cat(said), torch.cat(truth), torch.cat(owner)
    same = (tokens == right).double()
    hits = torch.zeros(len(source), dtype=torch.float64).index_add(0, rows, same)
    counts = torch.zeros(len(source), dtype=torch.float64).index_add(0, rows, torch.ones_like(same))
    share = hits / counts
    return {"tokens": tokens, "truth": right, "share": share, "text": (share == 1).long()}


def _figure(said: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Flips of the new version and of the compatible one against the old."""
    found: dict[str, float] = {}
    for name, one in said.items():
        found[f"exact_{name}"] = float(one["text"].double().mean())
        found[f"token_accuracy_{name}"] = float((one["tokens"] == one["truth"]).double().mean())
    old = said["old"]
    for name in ("new", "compatible"):
        one = said[name]
        per_token = flips(old["tokens"], one["tokens"], one["truth"])
        found |= {f"token_{k}_{name}": v for k, v in per_token.measures().items()}
        per_text = flips(old["text"], one["text"], torch.ones_like(one["text"]))
        found[f"text_negative_flips_{name}"] = per_text.negative
        found |= {
            f"{k}_{name}": v for k, v in shifts(old["share"], one["share"]).measures().items()
        }
    before, after = (found[f"token_negative_flips_{n}"] for n in ("new", "compatible"))
    found["negative_flips_saved"] = 1 - after / before if before else 0.0
    return found
