"""Neuron selectivity transfer."""

from understudy.objectives import nst as selectivity
from understudy.recipes.encoders._parts import beside
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def nst(
    setting: Setting | None = None,
    *,
    layers: tuple[str, ...] = ("stage.0", "stage.1", "stage.2"),
    nst_weight: float = 50.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Like What You Like: Knowledge Distill via Neuron Selectivity Transfer.

    The distributions of where the channels of a layer respond are matched by maximum mean
    discrepancy.

    Source: arXiv 1707.01219
    Kind: method
    Equation (5, 7): ce_weight CE + nst_weight sum_layers MMD^2 with k(x, y) = (x . y)^2 over
        L2-normalised channel maps
    When: convolutional pairs of different widths.
    Cost: One teacher pass; channel-by-channel products, no parameters.
    Defaults: three stages, polynomial kernel (d = 2, c = 0), weight 50.
    Deviations: means over pairs of channels, as in the published code.
    Result: accuracy 82.28 % on digits-all (5 seeds); -0.76 points against the student alone,
        inside the noise; -16.16 points against plain KD, worse. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    term = nst_weight * selectivity(layers)
    objective = beside(
        setting, term, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    return Recipe(name="nst", setting=setting, stages=(Stage(objective=objective),))
