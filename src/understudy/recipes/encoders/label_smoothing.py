"""What label smoothing in the teacher does to the student."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Source, View
from understudy.evaluation import ece
from understudy.evaluation.templates import (
    cluster_spread,
    logit_information,
    template_projection,
)
from understudy.recipes.encoders._studies import (
    head,
    judged,
    penultimate,
    said,
    trained_teacher,
)
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits
from understudy.signals import as_call


def label_smoothing(
    setting: Setting | None = None,
    *,
    smoothing: tuple[float, ...] = (0.0, 0.1),
    temperature: float = 1.0,
    ce_weight: float = 0.1,
    kd_weight: float = 0.9,
    classes: tuple[int, int, int] = (0, 1, 2),
    views: int = 10,
    noise: float = 0.3,
) -> Recipe:
    """When Does Label Smoothing Help?.

    Teachers trained with and without label smoothing: their accuracy and calibration, how tight
    their classes lie about the templates, what their logits still tell of an input, and how good a
    student each of them makes.

    Source: arXiv 1906.02629
    Kind: measurement
    Equation (1, section 2): y_k (1 - a) + a / K; ||x - w_k||^2 of penultimate x and template w_k;
        I(X; Y) of two logits' difference under augmentation (section 4, Appendix A)
    When: choosing how a teacher is trained that is to be distilled.
    Cost: a teacher and a student for each amount of smoothing.
    Defaults: a = 0 and 0.1, students by KD at T = 1 (one temperature for all teachers).
    Deviations: digits and CNNs in place of CIFAR-10 and ResNets; the information is that of the
        difference of the first two `classes`' logits over inputs of these classes, with noise of
        0.3 standard deviations as augmentation.
    Result: teacher accuracy change 0 ± 0.004, teacher ece change 0.114 ± 0.0105, spread change
        0.0274 ± 0.0175, information change -0.102 ± 0.0654, student accuracy change -0.00133 ±
        0.00503 (3 seeds). See docs/results/studies.md.
    """
    setting = setting or digits()
    spec = trained_teacher(setting, "label_smoothing")
    names = {a: f"smoothed-{a:g}" for a in smoothing}
    teachers = {n: replace(spec, label_smoothing=a) for a, n in names.items()}
    own = replace(setting, teachers=teachers)

    def study(studio: Any, seed: int) -> dict[str, Any]:
        task = studio.task(own, seed)
        source, curve = judged(task), {k: [] for k in (*MEASURES, "student_accuracy")}
        projections = {}
        for name in names.values():
            model = next(iter(studio.teacher(own, name, seed).modules().values()))
            found, projections[name] = teacher_measures(
                own, model, source, classes, views=views, noise=noise, seed=seed
            )
            objective = ce_weight * own.supervised() + kd_weight * own.softened(temperature)
            stage = Stage(objective=objective, teacher=name)
            pupil = replace(own, teachers={name: teachers[name]})
            recipe = Recipe(name=f"label_smoothing-{name}", setting=pupil, stages=(stage,))
            found["student_accuracy"] = studio.play(recipe, seed).last["accuracy"]
            for key, value in found.items():
                curve[key].append(value)
        figure = {f"{k}_change": v[-1] - v[0] for k, v in curve.items()}
        last = next(iter(studio.teacher(own, [*names.values()][-1], seed).modules().values()))
        labels = said(own, last, source)[1]
        return {
            "figure": figure,
            "smoothing": list(smoothing),
            **curve,
            "projection": projections,
            "labels": labels,
            "classes": list(classes),
        }

    return Recipe(name="label_smoothing", setting=own, kind="measurement", study=study)


MEASURES = ("teacher_accuracy", "teacher_ece", "spread", "information")


@torch.no_grad()
def teacher_measures(
    setting: Setting,
    model: nn.Module,
    source: Source,
    classes: tuple[int, int, int],
    *,
    views: int,
    noise: float,
    seed: int,
) -> tuple[dict[str, float], Tensor]:
    """The four `MEASURES` of a trained teacher, and its test samples in the templates' plane."""
    logits, labels = said(setting, model, source)
    features = penultimate(setting, model, source)
    rows = ((labels == classes[0]) | (labels == classes[1])).nonzero().flatten()
    view, call = View(noise=noise), as_call(setting.call)
    model.eval()
    batch = source.batch(rows)
    spoken = [call(model, view(batch, seed=seed, epoch=k)) for k in range(views)]
    z = torch.stack([s if isinstance(s, Tensor) else s.dense for s in spoken], 1)  # pyright: ignore
    found = {
        "teacher_accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "teacher_ece": ece(logits, labels),
        "spread": cluster_spread(features, labels),
        "information": logit_information(z[..., classes[0]] - z[..., classes[1]]),
    }
    return found, template_projection(features, head(model).weight.detach(), classes).float()
