"""Emulated fine-tuning: a large base that writes as if it had been tuned like a small one."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from understudy.errors import UserError
from understudy.evaluation.speculative import speculate
from understudy.recipes.language_models._studies import answering, texts, without_teachers
from understudy.recipes.language_models._worlds import pre_training, speaking
from understudy.setting import ModelSpec, Recipe, Setting, Stage, Trained
from understudy.signals import as_call
from understudy.students.emulated import up_scaled


def emulated_fine_tuning(
    setting: Setting | None = None,
    *,
    large: str = "",
    beta: float = 1.0,
    more: tuple[float, ...] = (),
    base_share: float = 1.0,
    tuned_share: float = 1.0,
    draft: int = 4,
    prompts: int = 16,
) -> Recipe:
    """An Emulator for Fine-Tuning Large Language Models using Small Language Models.

    While writing, the difference that fine-tuning has made to a small model is added to what a large
    base says: scored on the task beside the small model, the large base and the large model tuned
    itself; and with the small one as a draft.

    Source: arXiv 2310.12962
    Kind: procedure
    Equation (4): log p = log p_large + beta (log p_small_tuned - log p_small), normalised; speculative
        sampling: the small tuned model drafts, the emulated one verifies
    When: the large model cannot be tuned, or the tuning is to be turned up, down or mixed.
    Cost: three models read every token; speculative sampling calls the large one less often.
    Defaults: beta 1 (up-scaling); `more` scores other values too; drafts of 4 tokens; greedy answers.
    Deviations: base models are trained here on all tokens of the world's texts (as pre-training),
        tuned ones go on with completions; the large is the setting's teacher's size where it is
        trained here, else the one that `large` names. The paper verifies drafts in
        blocks with the same rule; ours is Leviathan et al.'s, exact in distribution.
    Result: perplexity emulated 3.8 ± 0.262, perplexity large base 5.69 ± 1.4, perplexity large
        tuned 3.21 ± 0.287, draft acceptance 0.908 ± 0.0372, perplexity small base 6.58 ± 1.05 (3
        seeds). See docs/results/language-studies.md.
    """
    setting = speaking(setting, "emulated_fine_tuning", teacher=False)
    if prompts < 1:
        raise UserError("emulated_fine_tuning: at least one prompt is spoken to")
    study = partial(
        _emulate, setting=setting, large=_large(setting, large), betas=(beta, *more),
        shares=(base_share, tuned_share), draft=draft, prompts=prompts,
    )  # fmt: skip
    known = {"large": large, "beta": beta, "more": more, "draft": draft, "prompts": prompts}
    return Recipe(
        name="emulated_fine_tuning",
        setting=setting,
        kind="procedure",
        study=study,
        settings={**known, "base_share": base_share, "tuned_share": tuned_share},
    )


def _large(setting: Setting, named: str) -> ModelSpec:
    if named:
        return named
    spec = setting.teachers.get(setting.teacher or "")
    return spec.model if isinstance(spec, Trained) else "llama:width=96,depth=4,heads=4"


def _emulate(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    large: ModelSpec,
    betas: tuple[float, ...],
    shares: tuple[float, float],
    draft: int,
    prompts: int,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    read = partial(pre_training, task=setting.task)
    models: dict[str, nn.Module] = {}
    for size, spec in (("small", setting.student), ("large", large)):
        own = without_teachers(setting, spec)
        base = _trained(studio, seed, f"eft-{size}-base", replace(own, task=read), shares[0])
        tuned = replace(own, student=base)
        models[f"{size}_base"] = base
        models[f"{size}_tuned"] = _trained(studio, seed, f"eft-{size}-tuned", tuned, shares[1])
    for beta in betas:
        name = "emulated" if beta == betas[0] else f"emulated_{beta:g}"
        parts = (models["large_base"], models["small_tuned"], models["small_base"])
        models[name] = up_scaled(*parts, beta)
    figure: dict[str, float] = {}
    part = "validate" if task.test is None else "test"
    for name, model in models.items():
        found = task.judge.measures(model, task, part, as_call(setting.call), None)
        figure |= {f"{k}_{name}": v for k, v in found.items() if isinstance(v, int | float)}
    figure |= _drafted(models, task, getattr(task, part), draft, prompts, seed)
    return {"figure": figure}


def _drafted(
    models: dict[str, nn.Module], task: Any, source: Any, draft: int, prompts: int, seed: int
) -> dict[str, float]:
    """How the emulated model speaks with the small tuned one as its draft."""
    judged = texts(source, "emulated_fine_tuning")
    asked = [judged.prompt(i) for i in range(min(prompts, len(judged)))]
    sampling = answering(task, judged, temperature=1.0)
    g = torch.Generator().manual_seed(seed)
    found = speculate(
        models["emulated"],
        models["small_tuned"],
        asked,
        sampling=sampling,
        draft=draft,
        generator=g,
    )
    return {"draft_acceptance": found.acceptance, "tokens_a_pass": found.tokens_a_pass}


def _trained(studio: Any, seed: int, name: str, setting: Setting, share: float) -> nn.Module:
    stage = Stage(objective=setting.supervised(), teacher=None, share=share)
    return studio.play(Recipe(name=name, setting=setting, stages=(stage,)), seed).model
