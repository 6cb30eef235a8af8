"""Defensive distillation under two attacks."""

from dataclasses import replace
from typing import Any

import torch

from understudy.evaluation.attacks import carlini_wagner, fgsm
from understudy.objectives import soft_ce, tempered_ce
from understudy.recipes.encoders._studies import all_labels, judged, teacher_model
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.settings import digits_full


def defensive_distillation(
    setting: Setting | None = None,
    *,
    temperature: float = 20.0,
    longer: float = 2.0,
    epsilon: tuple[float, ...] = (0.1, 0.2, 0.4),
    attacked: int = 200,
    steps: int = 100,
    searches: int = 4,
    student: ModelSpec | None = None,
) -> Recipe:
    """Evaluating Adversarial Robustness: A Comparison Of FGSM, Carlini-Wagner Attacks, And The Role of Distillation as Defense Mechanism.

    Teacher and student are trained with their softmax at a high temperature and used at 1, where
    gradients vanish: FGSM fails then, Carlini-Wagner does not.

    Source: arXiv 2404.04245
    Kind: measurement
    Equation (section 3): teacher CE(y, softmax(z_t / T)); student -sum softmax(z_t / T) log softmax(z_s / T);
        FGSM x + eps sign grad; CW min ||d||^2 + c max(z_y - max z_k, 0)
    When: one is offered distillation as a defence: measure it against an attack on the logits.
    Cost: two trainings and a control; the attacks, of which CW takes hundreds of passes a sample.
    Defaults: T = 20, FGSM at 0.1, 0.2 and 0.4 of the pixels' standard deviation, CW with four searches
        of 100 steps on 200 test samples. Trainings at T take twice the budget: logits have to grow
        T times as large.
    Deviations: CNNs on digits in place of ResNet-101 and ResNeXt-50 on CIFAR-10. The attacks are those of
        the library foolbox (extra `attacks`).
    Result: fgsm gain 0.219 ± 0.0688, cw gain 0 ± 0, accuracy plain 0.987 ± 0.00462, fgsm 0.1
        plain 0.877 ± 0.0448, fgsm 0.2 plain 0.632 ± 0.0778 (3 seeds). See
        docs/results/studies.md.
    """
    setting = setting or digits_full()
    own = replace(setting, teachers={}, budget=replace(setting.budget, labelled_share=None))
    if student is not None:
        own = replace(own, student=student)
    defended = Recipe(
        name="defensive_distillation-defended",
        setting=own,
        stages=(
            Stage(
                name="teach",
                objective=tempered_ce(temperature=temperature),
                learners=("tempered",),
                teacher=None,
                source=all_labels,
                share=longer,
            ),
            Stage(
                objective=soft_ce(temperature=temperature),
                teacher="tempered",
                source=all_labels,
                share=longer,
            ),
        ),
        cast={"tempered": teacher_model(setting)},
    )
    plain = Recipe(
        name="defensive_distillation-plain",
        setting=own,
        stages=(Stage(objective=own.supervised(), teacher=None, source=all_labels),),
    )

    def study(studio: Any, seed: int) -> dict[str, Any]:
        source = judged(studio.task(own, seed))
        batch = source.batch(torch.arange(min(attacked, len(source))))
        assert batch.labels is not None
        x, labels = batch.inputs, batch.labels
        bounds = (x.min().item(), x.max().item())
        figure: dict[str, float] = {}
        curves: dict[str, list[float]] = {}
        for name, recipe in (("plain", plain), ("defended", defended)):
            result = studio.play(recipe, seed)
            figure[f"accuracy_{name}"] = result.last["accuracy"]
            curves[name] = [
                fgsm(result.model, x, labels, epsilon=e, bounds=bounds).accuracy for e in epsilon
            ]
            for e, right in zip(epsilon, curves[name], strict=True):
                figure[f"fgsm_{e:g}_{name}"] = right
            hit = carlini_wagner(
                result.model, x, labels, bounds=bounds, searches=searches, steps=steps
            )
            figure[f"cw_{name}"], figure[f"cw_distance_{name}"] = hit.accuracy, hit.distance
        gain = [b - a for a, b in zip(curves["plain"], curves["defended"], strict=True)]
        figure["fgsm_gain"] = sum(gain) / len(gain)
        figure["cw_gain"] = figure["cw_defended"] - figure["cw_plain"]
        return {"figure": figure, "epsilon": list(epsilon), "fgsm": curves}

    return Recipe(name="defensive_distillation", setting=own, kind="measurement", study=study)
