"""Generalised KD: any divergence, on the student's own texts in part or in whole."""

from understudy.data.on_policy import OnPolicy
from understudy.errors import UserError
from understudy.objectives import lm_kd
from understudy.objectives.vocabulary import VocabularyDivergence
from understudy.recipes.language_models._on_policy import started
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting


def gkd(
    setting: Setting | None = None,
    *,
    lmbda: float = 0.5,
    beta: float = 0.5,
    temperature: float = 1.0,
    sampling_temperature: float = 1.0,
    start: float = 0.5,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes.

    A share of the batches holds completions that the student has just written; on them and on the
    data alike it follows the teacher token by token, and nothing runs through the drawing.

    Source: arXiv 2306.13649
    Kind: method
    Equation (1 and Algorithm 1): (1 - lmbda) E_data D + lmbda E_{y ~ q} D, D = T^2 JSD(beta) of
        the softened distributions; beta 0 is KL(p || q), beta 1 KL(q || p)
    When: the teacher is white-box and the student makes mistakes of its own.
    Cost: writing in a share lmbda of the updates, and one teacher pass in each.
    Defaults: lmbda 0.5, beta 0.5, both temperatures 1; the paper tries lmbda 0, 0.5, 1 and beta 0,
        0.1, 0.5, 0.9, 1, of which none is best for all tasks. Half of the budget (`start`) on the
        labels first: published students were fine-tuned before.
    Deviations: none from the equation. In TRL's trainer the loss is never given the temperature of
        its configuration, and a whole batch of a fused variant was scored with a CE mixed in; here
        `temperature` softens both sides and `sampling_temperature` the drawing. As there, the full
        KLs stand at beta 0 and 1, where the JSD itself is 0.
    Result: exact match 60.3 % on school-basic (3 seeds); -2.92 points against the student alone,
        inside the noise; -4.44 points against plain KD, inside the noise. See
        docs/results/school-basic.md.
    """
    setting = speaking(setting, "gkd")
    loader = OnPolicy(
        lmbda=lmbda,
        temperature=sampling_temperature,
        max_new=max_new,
        prompt_tokens=prompt_tokens,
    )
    objective = between(beta, temperature).named("gkd")
    return Recipe(
        name="gkd", setting=setting, stages=started(setting, objective, loader, start=start)
    )


def between(beta: float, temperature: float = 1.0) -> VocabularyDivergence:
    """JSD(beta), with the KL that it tends to (divided by its vanishing factor) at both ends."""
    if not 0 <= beta <= 1:
        raise UserError(f"beta lies in [0, 1], not {beta}")
    if beta in (0, 1):
        return lm_kd("reverse_kl" if beta else "kl", temperature=temperature)
    return lm_kd("jsd", beta=beta, temperature=temperature)
