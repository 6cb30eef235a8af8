"""Contrastive representation distillation."""

from understudy.objectives import crd as contrast
from understudy.recipes.encoders._parts import beside
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def crd(
    setting: Setting | None = None,
    *,
    layer: str = "penultimate",
    crd_weight: float = 0.8,
    width: int = 128,
    contrast_temperature: float = 0.07,
    queue: int = 1024,
    form: str = "code",
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Contrastive Representation Distillation.

    The student's feature of a sample is drawn to the teacher's of the same sample and away from
    those of others.

    Source: arXiv 1910.10699
    Kind: method
    Equation (17 to 19): ce_weight CE + crd_weight (-log h(t_i, s_i) - sum_j log(1 - h(t_j, s_i))
        and its mirror)
    When: features are at hand and the batch or a queue gives enough negatives.
    Cost: One teacher pass; two linear maps to 128, and the queue.
    Defaults: penultimate layer, width 128, tau = 0.07, weight 0.8.
    Deviations: negatives are the batch's and a queue's (1024) instead of 16384 from a memory of
        the whole data set, so that no special data loader is needed. Form "code" keeps the
        constant of the published code, "paper" is Eq. 17 to 19.
    Result: accuracy 94.40 % on digits-all (5 seeds); +11.36 points against the student alone,
        better; -4.04 points against plain KD, inside the noise. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    term = crd_weight * contrast(
        layer, width=width, temperature=contrast_temperature, queue=queue, form=form
    )
    objective = beside(
        setting, term, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    return Recipe(name="crd", setting=setting, stages=(Stage(objective=objective),))
