"""MiniLLM: reverse KL of whole texts by policy gradient."""

from understudy.data import Source
from understudy.data.on_policy import OnPolicy
from understudy.data.writers import MixturePick
from understudy.objectives import sequence_reverse_kl
from understudy.recipes.language_models._on_policy import started, with_corpus
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting


def minillm(
    setting: Setting | None = None,
    *,
    teacher_share: float = 0.2,
    length_normalised: bool = True,
    clip: float = 0.2,
    corpus: Source | None = None,
    corpus_weight: float = 1.0,
    start: float = 0.5,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """MiniLLM: Knowledge Distillation of Large Language Models.

    The student is moved towards the modes of the teacher it can reach, by policy gradient on whole
    texts, with three means against its variance and its tricks.

    Source: arXiv 2306.08543
    Kind: method
    Equation (3 to 6): sum_t w_t [grad KL(q_t || p_t) - R_{t+1} grad log q(y_t)], y drawn token by
        token from m = a p + (1 - a) q, w_t = q(y_t) / m(y_t), R the mean log p / q of what follows;
        beside it -log q on texts of a corpus
    When: the student is much smaller than the teacher, and long texts matter.
    Cost: writing by both models in every update, and a teacher pass.
    Defaults: a = 0.2, clip 0.2, a corpus at weight 1 where there is one (`corpus`); half of the
        budget on the labels first (`start`), as published students were fine-tuned before.
    Deviations: Eq. 6 divides by T - t - 1, 0 at the last but one token; here by the number of tokens
        summed. In the authors' code rewards include the step itself, advantages are whitened and
        rewards clipped, the single-step part is not weighted by w, and a text serves 4 epochs of
        PPO; here it serves one update, where PPO's ratio is 1 and its clip acts on w alone.
    Result: exact match 71.9 % on school-reader (3 seeds); -5.00 points against the student alone,
        worse; -6.94 points against plain KD, inside the noise. See docs/results/school-reader.md.
    """
    setting = speaking(setting, "minillm")
    objective = sequence_reverse_kl(teacher_share, normalised=length_normalised, clip=clip or None)
    whole, more = with_corpus(objective, corpus, corpus_weight)
    loader = OnPolicy(
        writer=MixturePick(alpha=teacher_share),
        max_new=max_new,
        prompt_tokens=prompt_tokens,
        **more,
    )
    return Recipe(
        name="minillm", setting=setting, stages=started(setting, whole, loader, start=start)
    )
