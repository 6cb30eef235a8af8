"""On-policy distillation: reverse KL on the student's texts, exact or from the drawn tokens."""

from understudy.data.on_policy import OnPolicy
from understudy.errors import UserError
from understudy.objectives import lm_kd, sampled_kl
from understudy.recipes.language_models._on_policy import started
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting


def opd(
    setting: Setting | None = None,
    *,
    estimator: str = "exact",
    form: str | None = None,
    discount: float = 0.0,
    limit: float = 10.0,
    start: float = 0.5,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """On-Policy Distillation.

    The student writes, the teacher says of each token how likely it was, and the student's
    probabilities follow: reinforcement learning with a reward at every token.

    Source: arXiv 2306.13649; the form with advantages: Thinking Machines, "On-Policy Distillation"
        (2025); estimators: Schulman, "Approximating KL divergence" (2020)
    Kind: method
    Equation (k1): sum_t A_t grad log q(y_t), A_t = -(log q - log p)(y_t) + discount A_{t+1}; `exact`:
        KL(q || p) over the vocabulary at each position; k2, k3: see `objectives.policy`
    When: the student can already answer. k1, k2 and k3 read one number a token of the teacher.
    Cost: writing in every update, and a teacher pass.
    Defaults: `exact`, which has the same mean gradient as k1 and no variance from the token; k1 with
        discount 0 and ratios held within 10 nats is the cookbooks' form. Half of the budget on the
        labels first (`start`).
    Deviations: a text serves one update, so that importance ratios are 1. Combinations whose gradient
        is not that of a divergence are refused (k1 as a loss; k2 and k3 as rewards). k3 as a loss
        pulls along the forward KL.
    Result: exact match 58.5 % on school-basic (3 seeds); -4.72 points against the student alone,
        inside the noise; -6.25 points against plain KD, inside the noise. See
        docs/results/school-basic.md.
    """
    setting = speaking(setting, "opd")
    if estimator == "exact":
        if form not in (None, "loss") or discount:
            raise UserError("the exact reverse KL is a loss without a discount; or use k1")
        objective = lm_kd("reverse_kl").named("opd")
    else:
        objective = sampled_kl(estimator, form, discount=discount, limit=limit).named("opd")
    loader = OnPolicy(max_new=max_new, prompt_tokens=prompt_tokens)
    return Recipe(
        name="opd", setting=setting, stages=started(setting, objective, loader, start=start)
    )
