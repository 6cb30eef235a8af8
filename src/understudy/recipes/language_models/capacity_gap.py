"""The law of capacity gap: which size of teacher makes the best student, from a ladder of runs."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from understudy.errors import UserError
from understudy.objectives import lm_kd
from understudy.recipes.language_models._studies import by_perplexity, parameters, without_teachers
from understudy.recipes.language_models._worlds import speaking
from understudy.running.teaching import teaching
from understudy.setting import ModelSpec, Recipe, Setting, Stage, Trained

LADDER = (
    "llama:width=48,depth=3,heads=3",
    "llama:width=72,depth=3,heads=3",
    "llama:width=96,depth=4,heads=4",
    "llama:width=144,depth=4,heads=4",
)


def capacity_gap(
    setting: Setting | None = None,
    *,
    ladder: tuple[str, ...] = LADDER,
    students: tuple[str, ...] = (),
    kd_weight: float = 1.0,
    temperature: float = 1.0,
    teacher_share: float = 2.0,
) -> Recipe:
    """Towards the Law of Capacity Gap in Distilling Language Models.

    The same student is distilled from teachers of growing size, each trained alike: its loss against
    the teacher's size, the best size by a fit, and the ratio of that size to the student's.

    Source: arXiv 2311.07052
    Kind: measurement
    Equation (section 3): student = argmin L_lm + L_kd, L_kd the KL to the teacher's distribution; best
        teacher N_T* by student; the law N_T* = k N_S, k about 2.5
    When: a teacher has to be chosen, or trained, for a student of given size.
    Cost: for each rung a teacher and a student, and one student alone.
    Defaults: four sizes from the student's own on; forward KL beside the language model's loss, T = 1;
        a teacher is trained for twice the student's budget. `students`: more sizes, for k by least
        squares through the origin.
    Deviations: the paper reads the best rung off the curve; here the vertex of a parabola in log size
        is taken where it opens upward inside the ladder, else the best rung (`fitted` says which).
        Students start anew, not from a pruned teacher, so that all rungs share one start. k is that
        of this ladder: sizes are thousands of parameters, not millions.
    Result: ratio 5.37 ± 2.01, gain of the best 0.134 ± 0.0979, gain of the largest 0.106 ± 0.065,
        best teacher 4.31e+05 ± 1.61e+05, fitted 1 ± 0 (3 seeds). See
        docs/results/language-studies.md.
    """
    setting = speaking(setting, "capacity_gap", teacher=False)
    if len(ladder) < 3:
        raise UserError(f"capacity_gap fits a curve: give at least three sizes, not {len(ladder)}")
    study = partial(
        _climb,
        setting=by_perplexity(setting),
        ladder=tuple(ladder),
        students=tuple(students) or (setting.student,),
        kd_weight=kd_weight,
        temperature=temperature,
        teacher_share=teacher_share,
    )
    return Recipe(
        name="capacity_gap",
        setting=setting,
        kind="measurement",
        study=study,
        settings={"ladder": ladder, "students": students, "teacher_share": teacher_share},
    )


def _climb(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    ladder: tuple[str, ...],
    students: tuple[ModelSpec, ...],
    kd_weight: float,
    temperature: float,
    teacher_share: float,
) -> dict[str, Any]:
    budget = setting.budget.lasting(teacher_share)
    rungs = [
        replace(
            setting,
            teachers={f"rung-{k}": Trained(model=spec, budget=budget)},
            warm_start=None,
        )
        for k, spec in enumerate(ladder)
    ]
    # a rung is trained once, whoever learns from it
    taught = [studio.play(teaching(r, f"rung-{k}"), seed) for k, r in enumerate(rungs)]
    sizes = [parameters(t.model) for t in taught]
    curves: list[dict[str, Any]] = []
    for i, student in enumerate(students):
        base = studio.play(_alone(setting, student, i), seed)
        losses = []
        for k, rung in enumerate(rungs):
            objective = setting.supervised() + kd_weight * lm_kd(temperature=temperature)
            recipe = Recipe(
                name=f"capacity_gap-{i}-{k}",
                setting=replace(rung, student=student),
                stages=(Stage(objective=objective, teacher=f"rung-{k}"),),
            )
            losses.append(float(np.log(studio.play(recipe, seed).last["perplexity"])))
        best, fitted = best_size(sizes, losses)
        own = parameters(base.model)
        curves.append(
            {
                "parameters": own,
                "alone": float(np.log(base.last["perplexity"])),
                "losses": losses,
                "best": best,
                "fitted": fitted,
                "ratio": best / own,
            }
        )
    first = curves[0]
    return {
        "figure": {
            "best_teacher": first["best"],
            "ratio": first["ratio"],
            "fitted": float(first["fitted"]),
            "gain_of_the_best": first["alone"] - min(first["losses"]),
            "gain_of_the_largest": first["alone"] - first["losses"][int(np.argmax(sizes))],
            "law": law([c["parameters"] for c in curves], [c["best"] for c in curves]),
        },
        "teacher_parameters": sizes,
        "student_nats": first["losses"],
        "teacher_nats": [float(np.log(t.last["perplexity"])) for t in taught],
        "gain": [first["alone"] - loss for loss in first["losses"]],
        "curves": curves,
    }


def _alone(setting: Setting, student: ModelSpec, number: int) -> Recipe:
    stage = Stage(name="alone", objective=setting.supervised(), teacher=None)
    return Recipe(
        name=f"capacity_gap-{number}-alone",
        setting=without_teachers(setting, student),
        stages=(stage,),
    )


def best_size(sizes: list[int], losses: list[float]) -> tuple[float, bool]:
    """(size of the least loss, whether it is a fit's): the vertex of a parabola in log size.

    The fit counts where it opens upward and its vertex lies between the least and the largest size;
    otherwise the size of the least loss is taken as it is.
    """
    x = np.log(np.asarray(sizes, float))
    a, b, _ = np.polyfit(x, np.asarray(losses, float), 2)
    if a > 0 and x.min() <= -b / (2 * a) <= x.max():
        return float(np.exp(-b / (2 * a))), True
    return float(sizes[int(np.argmin(losses))]), False


def law(students: list[int], teachers: list[float]) -> float:
    """k of N_T = k N_S by least squares."""
    s, t = np.asarray(students, float), np.asarray(teachers, float)
    return float((s * t).sum() / (s * s).sum())
