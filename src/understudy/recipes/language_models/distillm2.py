"""DistiLLM-2: another divergence for the teacher's texts than for the student's."""

from dataclasses import dataclass

from understudy.data.on_policy import OnPolicy
from understudy.errors import unknown
from understudy.objectives import adaptive_skew, written_by
from understudy.recipes.language_models._on_policy import started
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting
from understudy.signals.authors import STUDENT, TEACHER


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Half the weight of one side at a point of the stage.

    `code`: (2 - b, b), b from 1 to 1.5 over the first half. `paper`: (1 - b, b), b the progress
    from `least` on. `even`: (1, 1).
    """

    form: str
    student: bool
    least: float = 0.1

    def __call__(self, progress: float) -> float:
        """The weight at a progress of 0 to 1."""
        if self.form == "paper":
            b = min(1.0, max(self.least, progress))
            return 0.5 * (b if self.student else 1 - b)
        b = 1.0 if self.form == "even" else 1 + 0.5 * min(1.0, 2 * progress)
        return 0.5 * (b if self.student else 2 - b)


_FORMS = ("code", "paper", "even")


def distillm2(
    setting: Setting | None = None,
    *,
    alpha: float = 0.1,
    adaptive: bool = True,
    balance: str = "code",
    constant: bool = True,
    temperature: float = 0.8,
    start: float = 0.5,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs.

    Both models answer every prompt. The teacher's answers are made likelier by a skew KL, those of
    the student less likely, where the teacher finds them so, by a skew reverse KL.

    Source: arXiv 2503.07067
    Kind: method
    Equation (2, 5 and Algorithm 1): 1/2 [(2 - b) SKL(a_t) on y_t ~ p + b SRKL(a_s) on y_s ~ q], a of
        each text by the gap of p and q on it
    When: both models can write much at once, as with a server, and a student that can answer.
    Cost: both write all prompts at the start of an epoch; batches of twice the size.
    Defaults: a = 0.1 and less where the two agree, b from 1 to 1.5 over the first half, texts
        drawn at 0.8, anew in every epoch; half of the budget on the labels first (`start`).
    Deviations: the paper has weights (1 - b, b) with b rising to 1 (`balance="paper"`), the authors'
        code those above, there off by default as the adaptive a is (`balance="even"`,
        `adaptive=False`), which a bare except disables when it is on. `constant`: as in that code,
        the student's part of the reverse mixture has no gradient. Means are over tokens, not first
        over each text.
    Result: exact match 75.6 % on school-reader (3 seeds); -1.39 points against the student alone,
        inside the noise; -3.33 points against plain KD, inside the noise. See
        docs/results/school-reader.md.
    """
    setting = speaking(setting, "distillm2")
    if balance not in _FORMS:
        raise unknown("balance of distillm2", balance, _FORMS)
    theirs = adaptive_skew("forward", alpha=alpha, adaptive=adaptive)
    own = adaptive_skew("reverse", alpha=alpha, adaptive=adaptive, constant=constant)
    objective = Balance(form=balance, student=False) * written_by(theirs, TEACHER)
    objective = objective + Balance(form=balance, student=True) * written_by(own, STUDENT)
    loader = OnPolicy(
        writer="pair",
        refresh="epoch",
        temperature=temperature,
        max_new=max_new,
        prompt_tokens=prompt_tokens,
    )
    return Recipe(
        name="distillm2", setting=setting, stages=started(setting, objective, loader, start=start)
    )
