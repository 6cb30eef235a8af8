"""Teacher-Class Network: several small students, each learning a chunk of what the teacher knows."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from understudy.errors import MethodRefused
from understudy.objectives import mimic
from understudy.setting import Made, ModelSpec, Recipe, Setting, Stage
from understudy.settings import digits
from understudy.students.composite import ClassOfStudents, linear_head
from understudy.tasks.task import Task


def teacher_class(
    setting: Setting | None = None,
    *,
    students: int = 4,
    member: ModelSpec | None = None,
    finetune_share: float = 0.0,
    ce_weight: float = 0.1,
    kd_weight: float = 0.9,
    temperature: float = 4.0,
) -> Recipe:
    """Teacher-Class Network: A Neural Network Compression Mechanism.

    The teacher's dense representation is cut into chunks; each of several small networks learns
    one, and their outputs, joined, go through the teacher's last layer. They may run in parallel.

    Source: arXiv 2004.03281
    Kind: method
    Equation (2): sum_k ||chunk_k(d_t(x)) - f_k(x)||^2 / d, d_t the input of the teacher's last layer
    When: several small devices or cores instead of one; the representation serves other tasks too.
    Cost: one teacher pass; `students` networks are trained at once and run at inference.
    Defaults: four students, no labels, the teacher's head as it is. Without a setting each student
        is a CNN of width 4, so that the class has about the size of the digits student; with one
        each has the setting's student architecture and the class `students` times its parameters.
    Deviations: the mean-square variant (the paper's adversarial one is left out); `finetune_share`
        gives a share of the budget to tuning all of it by KD, the paper's combined fine-tuning.
    Result: accuracy 98.92 % on digits-all (5 seeds) with a student of 4.7 times the others' size;
        +15.88 points against the student alone, better; +0.48 points against plain KD, inside the
        noise. See docs/results/digits-all.md.
    """
    if setting is None:
        member = member or "cnn:width=4,depth=3"
    setting = setting or digits()
    whole = Made(make=partial(_assembled, students=students, member=member or setting.student))
    stages = (
        Stage(
            name="chunks",
            objective=mimic("representation", "penultimate"),
            share=1 - finetune_share,
        ),
    )
    if finetune_share:
        tuned = ce_weight * setting.supervised() + kd_weight * setting.softened(temperature)
        stages += (Stage(name="tune", objective=tuned, share=finetune_share),)
    return Recipe(name="teacher_class", setting=setting, stages=stages, cast={"student": whole})


def _assembled(
    teachers: Mapping[str, Any],
    task: Task,
    build: Callable[..., nn.Module],
    *,
    students: int,
    member: ModelSpec,
) -> nn.Module:
    model = next(iter(teachers.values())).modules().get("model") if teachers else None
    if model is None:
        raise MethodRefused(
            "teacher_class reads the teacher's features and its last layer; use a live teacher"
        )
    head = linear_head(model)
    width, left = divmod(head.in_features, students)
    if not width:
        raise MethodRefused(
            f"the teacher's representation has {head.in_features} values, too few for "
            f"{students} students"
        )
    head.requires_grad_(False)
    chunks = [width + (k < left) for k in range(students)]
    members = [build(member, f"member_{k}", classes=size) for k, size in enumerate(chunks)]
    return ClassOfStudents(members, head)
