"""Inter-channel correlation."""

from understudy.objectives import ickd as channels
from understudy.recipes.encoders._parts import beside
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def ickd(
    setting: Setting | None = None,
    *,
    layer: str = "stage.-1",
    ickd_weight: float = 2.5,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation.

    How the channels of a layer correlate (their diversity and homology) is matched.

    Source: arXiv 2202.03680
    Kind: method
    Equation (3, 4): ce_weight CE + ickd_weight / C ||G_s - G_t||^2, G the row-normalised F F^T of
        F [C, hw]
    When: convolutional pairs.
    Cost: One teacher pass; a 1x1 convolution with batch normalisation.
    Defaults: last stage, weight 2.5 (ICKD-C).
    Deviations: rows of G are normalised, as in the authors' code; the grid form for segmentation
        is not here.
    Result: accuracy 92.36 % on digits-all (5 seeds); +9.32 points against the student alone,
        better; -6.08 points against plain KD, worse. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    term = ickd_weight * channels(layer)
    objective = beside(
        setting, term, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    return Recipe(name="ickd", setting=setting, stages=(Stage(objective=objective),))
