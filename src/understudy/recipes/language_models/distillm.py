"""DistiLLM: skew divergences, and texts of the student's own as they help."""

from understudy.data import Source
from understudy.data.on_policy import OnPolicy
from understudy.data.replay import Replay
from understudy.errors import unknown
from understudy.objectives import lm_kd
from understudy.recipes.language_models._on_policy import started, with_corpus
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting

_KINDS = {"srkl": "skew_reverse_kl", "skl": "skew_kl"}


def distillm(
    setting: Setting | None = None,
    *,
    loss: str = "srkl",
    alpha: float = 0.1,
    phi: float = 0.0,
    capacity: int = 1000,
    tolerance: float = 0.1,
    against: str = "previous",
    corpus: Source | None = None,
    corpus_weight: float = 1.0,
    start: float = 0.0,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """DistiLLM: Towards Streamlined Distillation for Large Language Models.

    A divergence from a mixture of both models, whose gradient is bounded; and the student's own
    texts only in the share that held-out loss asks for, most of them out of a replay buffer.

    Source: arXiv 2402.03898
    Kind: method
    Equation (4, 5 and Algorithm 1): KL(q || a q + (1 - a) p) (`srkl`), or KL(p || a p + (1 - a) q)
        (`skl`); own texts with probability phi, written anew in a share 1 - t / T of these
    When: writing at each update costs too much; also where the student was not fine-tuned before.
    Cost: writing in at most phi (1 - t / T) of the updates once the buffer is full; a validation
        pass per epoch; a teacher pass.
    Defaults: srkl with a = 0.1, phi from 0 by 0.1 whenever the validation loss has risen by 0.1 nats
        a token, 1000 texts kept. Where that loss only falls, phi stays where it began.
    Deviations: the corpus's loss (OpenWebText there) only where a `corpus` is given. Algorithm 1
        compares with the loss before; the authors' code with that at the last rise
        (`against="raised"`), and writes every own batch anew until the buffer is full, as here.
        Their forward skew is a cross-entropy, with the same gradient.
    Result: exact match 36.2 % on school-basic (3 seeds); -26.94 points against the student alone,
        inside the noise; -28.47 points against plain KD, inside the noise. See
        docs/results/school-basic.md.
    """
    setting = speaking(setting, "distillm")
    if loss not in _KINDS:
        raise unknown("loss of distillm", loss, _KINDS)
    objective = lm_kd(_KINDS[loss], alpha=alpha).named("distillm")
    whole, more = with_corpus(objective, corpus, corpus_weight)
    loader = OnPolicy(
        lmbda=phi,
        replay=Replay(capacity=capacity, tolerance=tolerance, against=against),
        max_new=max_new,
        prompt_tokens=prompt_tokens,
        **more,
    )
    return Recipe(
        name="distillm", setting=setting, stages=started(setting, whole, loader, start=start)
    )
