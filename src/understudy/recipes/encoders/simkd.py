"""The student behind its teacher's own classifier."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from understudy.errors import MethodRefused
from understudy.objectives import simkd as matched
from understudy.recipes.encoders._parts import beside
from understudy.setting import Made, Recipe, Setting, Stage
from understudy.settings import digits
from understudy.students.reused import reused
from understudy.tasks.task import Task


def simkd(
    setting: Setting | None = None,
    *,
    layer: str = "stage.-1",
    factor: int = 2,
    simkd_weight: float = 1.0,
    ce_weight: float = 0.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Knowledge Distillation with the Reused Teacher Classifier.

    The student only learns to make the teacher's last feature map, through a small projector; what
    is deployed is the student without its last layer, the projector and the teacher's classifier.

    Source: arXiv 2203.14001
    Kind: method
    Equation (2): simkd_weight mean (t - P(s))^2 over elements of the last map; logits = W mean P(s)
        + b with the teacher's frozen (W, b)
    When: the teacher ends in a linear layer, and the student may be larger by the projector. No
        labels are needed.
    Cost: One teacher pass. The projector and the teacher's last layer stay in the deployed model
        and are counted in its size: on the built-in digits pair they are most of it.
    Defaults: the student's last stage, factor 2, weight 1, no cross-entropy and no KD.
    Deviations: the teacher's map is found by looking (the one whose average its head reads); a
        teacher without such a map (a class token) gives its penultimate feature as a map of one
        position. A student that is no built-in family is saved as weights to be loaded into a
        module that `understudy.students.reused.reused` makes.
    Result: accuracy 98.36 % on digits-all (5 seeds) with a student of 8.7 times the others' size;
        +15.32 points against the student alone, better; -0.08 points against plain KD, inside the
        noise. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    term = simkd_weight * matched("projector", "pooled", projected=True)
    objective = beside(
        setting, term, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    whole = Made(make=partial(_assembled, setting=setting, layer=layer, factor=factor))
    teacher = setting.teacher or "teacher"
    return Recipe(
        name="simkd",
        setting=setting,
        stages=(Stage(objective=objective, teacher=teacher),),
        cast={"student": whole},
    )


def _assembled(
    teachers: Mapping[str, Any],
    task: Task,
    build: Callable[..., nn.Module],
    *,
    setting: Setting,
    layer: str,
    factor: int,
) -> nn.Module:
    if not teachers:
        raise MethodRefused("simkd learns from a teacher, and the setting has none")
    name, teacher = next(iter(teachers.items()))
    model = teacher.modules().get("model")
    if model is None:
        raise MethodRefused(
            f"simkd reuses the classifier of {name!r}, and stored signals have none; use the live "
            "teacher"
        )
    return reused(
        build(setting.student, "backbone"),
        model,
        task.example(2),
        layer=layer,
        factor=factor,
        call=setting.call,
        teacher_call=setting.teacher_call or setting.call,
    )
