"""EchoAtt: layers that attend alike share one attention."""

from functools import partial
from typing import Any

import torch
from torch import nn

from understudy.errors import MethodRefused, UserError
from understudy.objectives import layer_mse
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Made, Recipe, Setting, Stage
from understudy.students.echo import attention_similarity, echo_of, similar_groups


def echo_att(
    setting: Setting | None = None,
    *,
    followers: int = 0,
    skip: int = 1,
    threshold: float = 0.0,
    calibration: int = 32,
    hidden_weight: float = 1.0,
    kd_weight: float = 1.0,
    ce_weight: float = 1.0,
    distil_share: float = 0.75,
    temperature: float = 1.0,
) -> Recipe:
    """EchoAtt: Attend, Copy, then Adjust for More Efficient Large Language Models.

    The student is its teacher, in which inner layers that attend alike on a few texts share the
    attention weights of their first one; it is distilled, then trained on.

    Source: arXiv 2409.14595
    Kind: method
    Equation (section 3): cosine of attention matrices between layers; stage 1: hidden_weight MSE of
        hidden states + kd_weight KL + ce_weight CE; stage 2: CE
    When: a model is to lose attention's cost and a few of its parameters, and keep all else.
    Cost: a Llama teacher with its weights; one teacher pass in stage 1. Attention is eager.
    Defaults: half of the inner layers follow (`followers` another number), the first and last stay
        themselves; all weights 1, three quarters of the budget in stage 1: these are ours.
    Deviations: known from the abstract and summaries; the weights of the terms and the length of the
        stages were not at hand. Hidden states are those after the last two layers. Groups are joined by
        similarity, not by a fixed k. The setting's student is not used: its size is the teacher's
        less the queries and keys of the followers.
    Result: exact match 89.6 % on school-reader (3 seeds) with a student of 4.6 times the others'
        size; +12.64 points against the student alone, better; +10.69 points against plain KD,
        better. See docs/results/school-reader.md.
    """
    setting = speaking(setting, "echo_att")
    if followers < 0 or skip < 0 or calibration < 1 or not 0 < distil_share <= 1:
        raise UserError("echo_att: followers, skip >= 0, calibration >= 1, distil_share in (0, 1]")
    make = partial(
        _shared, name=setting.teacher or "teacher", followers=followers, skip=skip, threshold=threshold,
        calibration=calibration,
    )  # fmt: skip
    objective = (
        ce_weight * setting.supervised()
        + kd_weight * setting.softened(temperature)
        + hidden_weight * layer_mse("model.layers.-2", "model.layers.-1")
    )
    stages = [Stage(objective=objective, share=distil_share)]
    if distil_share < 1:
        stages.append(
            Stage(
                name="train", objective=setting.supervised(), teacher=None, share=1 - distil_share
            )
        )
    return Recipe(
        name="echo_att",
        setting=setting,
        stages=tuple(stages),
        cast={"student": Made(make=make)},
    )


def _shared(
    teachers: Any,
    task: Any,
    build: Any,
    *,
    name: str,
    followers: int,
    skip: int,
    threshold: float,
    calibration: int,
) -> nn.Module:
    models = teachers[name].modules()
    if len(models) != 1:
        raise MethodRefused(
            "echo_att makes its student from one live teacher; a store or an ensemble has no weights"
        )
    (model,) = models.values()
    rows = torch.arange(min(calibration, len(task.train)))
    batch = task.train.batch(rows).to(next(model.parameters()).device)
    similarity = attention_similarity(model, batch)
    inner = max(len(similarity) - 2 * skip, 0)
    groups = similar_groups(similarity, followers or inner // 2, skip=skip, threshold=threshold)
    if not groups:
        raise MethodRefused(
            f"echo_att finds no two of the {inner} inner layers of its teacher to share attention; "
            "take a deeper teacher, a smaller skip or a lower threshold"
        )
    return echo_of(model, groups)
