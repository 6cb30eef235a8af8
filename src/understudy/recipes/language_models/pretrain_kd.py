"""Pre-training distillation, with its design space as settings."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from understudy.algorithms import Online
from understudy.errors import MethodRefused, UserError
from understudy.objectives.pretrain import PretrainKD
from understudy.objectives.schedules import WSD, Ramp
from understudy.recipes.language_models._studies import spec_of, taught
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting, Stage

SCHEDULES = ("wsd", "constant", "rising", "falling")


@dataclass(frozen=True)
class Rest:
    """One less a weight."""

    weight: float | WSD | Ramp

    def __call__(self, progress: float) -> float:
        """At this progress."""
        return 1 - (self.weight(progress) if callable(self.weight) else self.weight)


def pretrain_kd(
    setting: Setting | None = None,
    *,
    loss: str = "kld",
    top_p: float = 0.95,
    top_k: int = 50,
    temperature: float = 2.0,
    adaptive: str = "fixed",
    alpha: float = 0.9,
    schedule: str = "wsd",
    rate: Literal["wsd", "setting"] = "wsd",
    warmup: float = 0.1,
    decay: float = 0.1,
    logits: Literal["offline", "online"] = "offline",
) -> Recipe:
    """Pre-training Distillation for Large Language Models: A Design Space Exploration.

    From the first token on a student learns the corpus and the teacher's truncated, tempered
    distribution over it; how both are weighed against each other follows the learning rate.

    Source: arXiv 2410.16215
    Kind: method
    Equation (section 2): (1 - alpha) L_lm + alpha L_kd(P_student, F(z_teacher)),
        F(z) = softmax(truncate(z) / tau); truncate: top-p, then top-k; L_kd: KLD, NLL or MSE
    When: a student is pre-trained and a teacher of its tokenizer is there; logits can be stored, as
        no more than k of them are read.
    Cost: a teacher pass (or its store, at most 50 logits a token); dense logits of a batch.
    Defaults: the paper's best together: top-0.95-50, tau = 2, KLD, alpha up to 0.9 by warm-up,
        stable, decay, and so the learning rate. adaptive: normkd, wttm. schedule: constant, rising
        (0 to alpha) and falling (alpha to 0) linearly. logits="online": of a teacher that is being
        trained on the same batches itself.
    Deviations: shares of warm-up and decay are ours (a tenth each). tau softens the teacher alone, as
        the equation has it, so there is no tau^2, with NormKD too, which tempers both elsewhere. MSE
        is taken of probabilities, as truncated logits have none. Online logits are read in the same
        update, not kept on disk; equations of NormKD and WTTM are from their public code.
    Result: perplexity 64.04 on stdlib-lm (3 seeds); -74.4 against the student alone, inside the
        noise; -18.3 against plain KD, inside the noise. See docs/results/stdlib-lm.md.
    """
    setting = speaking(setting, "pretrain_kd")
    if schedule not in SCHEDULES:
        raise UserError(f"the weight's schedule is one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is a share in [0, 1], not {alpha}")
    weight = {
        "wsd": WSD(peak=alpha, warmup=warmup, decay=decay),
        "constant": float(alpha),
        "rising": Ramp(start=0.0, end=alpha),
        "falling": Ramp(start=alpha, end=0.0),
    }[schedule]
    matching = PretrainKD(
        loss, temperature=temperature, adaptive=adaptive, top_p=top_p, top_k=top_k
    )
    objective = Rest(weight) * setting.supervised() + weight * matching
    budget = {"schedule": WSD(warmup=warmup, decay=decay), "warmup": 0.0} if rate == "wsd" else {}
    if logits == "offline":
        stage = Stage(objective=objective, budget=budget)
        return Recipe(name="pretrain_kd", setting=setting, stages=(stage,))
    model = spec_of(setting, taught(setting, "pretrain_kd"))
    if model is None:
        raise MethodRefused(
            "online logits are those of a teacher that is being trained; give the setting a teacher "
            "to be trained (Trained(model=..., budget=...)), or logits=offline"
        )
    stage = Stage(
        objective=objective,
        algorithm=partial(Online, others=setting.supervised()),
        learners=("student", "training_teacher"),
        teacher=None,
        budget=budget,
    )
    return Recipe(
        name="pretrain_kd", setting=setting, stages=(stage,), cast={"training_teacher": model}
    )
