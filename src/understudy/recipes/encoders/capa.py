"""CAPA: whose mistakes are alike, and what that says of weak supervision."""

from dataclasses import replace
from typing import Any

import torch

from understudy import evaluation
from understudy.recipes.encoders._studies import judged, said, teacher_model
from understudy.recipes.encoders.kd_levels import rank_correlation
from understudy.recipes.encoders.weak_to_strong import w2s_arms
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.settings import digits


def capa(
    setting: Setting | None = None,
    *,
    weak: tuple[ModelSpec, ...] = (
        "cnn:width=4,depth=3",
        "mlp:width=16,depth=1",
        "cnn:width=3,depth=3",
    ),
    weak_share: float = 0.25,
) -> Recipe:
    """Great Models Think Alike and this Undermines AI Oversight.

    Agreement of two classifiers beyond what their accuracies make likely: between teacher, distilled
    and lone student; and between weak supervisors and a strong student, against the student's gain.

    Source: arXiv 2502.04313
    Kind: measurement
    Equation (2 to 4, 11 to 13): kappa_p = (c_obs - c_exp) / (1 - c_exp), c_obs = mean sum_k p1_k p2_k, c_exp
        = a1 a2 + (1 - a1)(1 - a2) / (K - 1)
    When: judging or supervising models by models: like mistakes go unseen, unlike ones complement.
    Cost: three students; a weak model, a strong student and its ceiling for each weak architecture.
    Defaults: three weak architectures; the strong model is the teacher's.
    Deviations: classifiers of digits in place of language models. With three weak supervisors the
        correlation of gain with dissimilarity is a direction, not a result.
    Result: gain by dissimilarity 0.333 ± 0.764, taught likeness 0.159 ± 0.0171, capa teacher-kd
        0.192 ± 0.0328, capa teacher-alone 0.0324 ± 0.0196, capa kd-alone 0.0566 ± 0.0259 (3
        seeds). See docs/results/studies.md.
    """
    setting = setting or digits()

    def study(studio: Any, seed: int) -> dict[str, Any]:
        source = judged(studio.task(setting, seed))
        name = setting.teacher or "teacher"
        models = {
            "teacher": next(iter(studio.teacher(setting, name, seed).modules().values())),
        }
        arms = {
            "kd": Stage(
                objective=0.1 * setting.supervised() + 0.9 * setting.softened(), teacher=name
            ),
            "alone": Stage(objective=setting.supervised(), teacher=None, data="labelled"),
        }
        for arm, stage in arms.items():
            recipe = Recipe(name=f"capa-{arm}", setting=setting, stages=(stage,))
            models[arm] = studio.play(recipe, seed).model
        logits = {k: said(setting, m, source)[0] for k, m in models.items()}
        labels = said(setting, models["teacher"], source)[1]
        matrix = {
            f"{a}-{b}": evaluation.capa(logits[a], logits[b], labels)
            for i, a in enumerate(logits)
            for b in list(logits)[i + 1 :]
        }
        gains, likeness = [], []
        own = replace(
            setting,
            teachers={},
            student=teacher_model(setting),
            budget=replace(setting.budget, labelled_share=None),
        )
        for k, spec in enumerate(weak):
            played = w2s_arms(
                own,
                studio,
                seed,
                weak=spec,
                weak_share=weak_share,
                pretrain=False,
                name=f"capa-w2s-{k}",
            )
            w, s, top = (
                said(own, played[arm].model, source)[0] for arm in ("weak", "naive", "ceiling")
            )
            likeness.append(evaluation.capa(w, top, labels))
            right = [(z.argmax(1) == labels).double().mean().item() for z in (w, s)]
            gains.append(right[1] - right[0])
        dissimilar = -torch.tensor(likeness, dtype=torch.float64)
        return {
            "figure": {
                "taught_likeness": matrix["teacher-kd"] - matrix["teacher-alone"],
                **{f"capa_{k}": v for k, v in matrix.items()},
                "gain_by_dissimilarity": rank_correlation(
                    dissimilar, torch.tensor(gains, dtype=torch.float64)
                ),
            },
            "weak_strong_capa": likeness,
            "gain": gains,
        }

    return Recipe(name="capa", setting=setting, kind="measurement", study=study)
