"""Softmax regression representation learning."""

from understudy.objectives import srrl as regression
from understudy.recipes.encoders._parts import beside
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def srrl(
    setting: Setting | None = None,
    *,
    layer: str = "penultimate",
    srrl_weight: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Knowledge Distillation via Softmax Regression Representation Learning.

    The student's feature is judged by the teacher's own classifier: what it makes of it should be
    the teacher's logits.

    Source: openreview ZzwDy_wiWv (ICLR 2021)
    Kind: method
    Equation (3, 4): ce_weight CE + srrl_weight (||r(s) - t||^2 + ||W r(s) + b - z_t||^2), (W, b)
        the teacher's head
    When: the teacher ends in a linear layer on a pooled feature.
    Cost: One teacher pass; a linear map with batch normalisation.
    Defaults: penultimate layer, weight 1, L2 form of both terms.
    Deviations: means over elements, as in the common code.
    Result: accuracy 96.88 % on digits-all (5 seeds); +13.84 points against the student alone,
        better; -1.56 points against plain KD, inside the noise. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    term = srrl_weight * regression(layer)
    objective = beside(
        setting, term, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    return Recipe(name="srrl", setting=setting, stages=(Stage(objective=objective),))
