"""Attention transfer: where the teacher looks."""

from understudy.objectives import at as attention
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def at(
    setting: Setting | None = None,
    *,
    student_layers: tuple[str, ...] = ("stage.0", "stage.1", "stage.2"),
    teacher_layers: tuple[str, ...] = ("stage.0", "stage.1", "stage.2"),
    power: float = 2.0,
    at_weight: float = 1000.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    temperature: float = 4.0,
) -> Recipe:
    """Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer.

    At several depths, the map of where a network's activation is large is made the same for
    student and teacher.

    Source: arXiv 1612.03928
    Kind: method
    Equation (2): ce_weight CE + at_weight / 2 sum_j || Q_s^j/||Q_s^j|| - Q_t^j/||Q_t^j|| ||,
        Q^j = vec(sum_c |A_c^j|^p)
    When: convolutional pairs with stages of like resolution; cheap, no parameters.
    Cost: one teacher pass and a sum over channels at each depth.
    Defaults: three stages, p = 2, weight 1000 on the mean squared form, as in the published tables.
    Deviations: every public implementation takes the mean of squared differences instead of the
        norm of Eq. 2, and the published weight belongs to it; `form="paper"` of the objective is
        Eq. 2 itself. Maps of other sizes are resized to the smaller.
    Result: accuracy 63.64 % on digits-all (5 seeds); -19.40 points against the student alone,
        worse; -34.80 points against plain KD, worse. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    objective = ce_weight * setting.supervised() + at_weight * attention(
        student=student_layers, teacher=teacher_layers, power=power
    )
    if kd_weight:
        objective = objective + kd_weight * setting.softened(temperature)
    return Recipe(name="at", setting=setting, stages=(Stage(objective=objective),))
