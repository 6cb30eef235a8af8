"""Three levels of a teacher's knowledge, each taught alone."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from understudy.objectives import kd, partial_kd
from understudy.recipes.encoders._studies import said
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits_full


def kd_levels(
    setting: Setting | None = None,
    *,
    temperature: float = 2.0,
    level_weight: float = 0.3,
    smoothing: float = 0.1,
    similarity_temperature: float = 0.3,
) -> Recipe:
    """Understanding and Improving Knowledge Distillation.

    Replaces the teacher's probabilities by targets that keep one level of what it knows: none but
    smoothness (universe), class relations (domain), the sample's difficulty (instance).

    Source: arXiv 2002.03532
    Kind: measurement
    Equation (section 3): (1 - w) CE(y) + w T^2 H(rho, q), rho: label smoothing; softmax(cos(w_y, w_k) /
        tau); p_t,y at y and (1 - p_t,y) / (K - 1) elsewhere; p_t. Rescaling of the gradient at y:
        omega = ((1 - w)(q_y - 1) + w T (q_y^T - p_y^T)) / (q_y - 1)
    When: KD helps and one wants to know by what: if label smoothing gives the same, no teacher is
        needed.
    Cost: five students.
    Defaults: w = 0.3, T = 2, smoothing 0.1, tau 0.3 (ours: the paper tunes them by data set).
    Deviations: digits in place of CIFAR-100, with a student of 1,300 weights, that has something to
        gain. Class similarity is that of the rows of the teacher's last layer.
    Result: gain smoothing 0.014 ± 0.00346, gain classes -0.00533 ± 0.00503, gain example -0.00267
        ± 0.00643, gain kd -0.00467 ± 0.00231, rescaling correlation 0.623 ± 0.105 (3 seeds). See
        docs/results/studies.md.
    """
    setting = setting or replace(
        digits_full(), name="digits-full-tiny", student="cnn:width=3,depth=3"
    )
    w, supervised = level_weight, setting.supervised

    arms = {
        "alone": (1.0 * supervised(), None),
        "smoothing": (1.0 * supervised(label_smoothing=smoothing), None),
        "classes": (
            (1 - w) * supervised()
            + w
            * partial_kd(
                "classes", temperature=temperature, similarity_temperature=similarity_temperature
            ),
            "teacher",
        ),
        "example": (
            (1 - w) * supervised() + w * partial_kd("example", temperature=temperature),
            "teacher",
        ),
        "kd": ((1 - w) * supervised() + w * kd(temperature), "teacher"),
    }

    def study(studio: Any, seed: int) -> dict[str, Any]:
        played = {}
        for name, (objective, teacher) in arms.items():
            teaches = (setting.teacher or "teacher") if teacher else None
            stage = Stage(objective=objective, teacher=teaches)
            recipe = Recipe(name=f"kd_levels-{name}", setting=setting, stages=(stage,))
            played[name] = studio.play(recipe, seed)
        accuracy = {name: r.last["accuracy"] for name, r in played.items()}
        task = studio.task(setting, seed)
        mine, labels = said(setting, played["alone"].model, task.train)
        model = next(iter(studio.teacher(setting, setting.teacher, seed).modules().values()))
        theirs, _ = said(setting, model, task.train)
        known = labels >= 0
        omega, sure = rescaling(mine[known], theirs[known], labels[known], w, temperature)
        figure = {f"gain_{n}": a - accuracy["alone"] for n, a in accuracy.items() if n != "alone"}
        return {
            "figure": {**figure, "rescaling_correlation": rank_correlation(omega, sure)},
            "accuracy": accuracy,
            "rescaling": omega.tolist(),
            "confidence": sure.tolist(),
        }

    return Recipe(name="kd_levels", setting=setting, kind="measurement", study=study)


def rescaling(
    student: Tensor, teacher: Tensor, labels: Tensor, weight: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """(omega [N], teacher's probability of the label [N]): KD's gradient at the label over CE's.

    Of logits [N, K]; the gradient of CE + KD with respect to the label's logit, as a multiple of
    that of CE alone.
    """
    at = labels[:, None]
    z_s, z_t = student.double(), teacher.double()
    q, q_soft = (z.softmax(-1).gather(1, at)[:, 0] for z in (z_s, z_s / temperature))
    p, p_soft = (z.softmax(-1).gather(1, at)[:, 0] for z in (z_t, z_t / temperature))
    plain = q - 1
    soft = (1 - weight) * plain + weight * temperature * (q_soft - p_soft)
    there = plain < -1e-9
    return (soft / plain)[there], p[there]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, with ranks averaged over ties."""
    from scipy.stats import spearmanr

    if len(a) < 2:
        return 0.0
    found = float(spearmanr(a.numpy(), b.numpy())[0])  # pyright: ignore
    return found if torch.isfinite(torch.tensor(found)) else 0.0
