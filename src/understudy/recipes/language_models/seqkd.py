"""Sequence-level KD: the student learns the teacher's own texts."""

from understudy.data.rewritten import TeacherTexts
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting, Stage


def seqkd(
    setting: Setting | None = None,
    *,
    beams: int = 5,
    temperature: float = 1.0,
    copies: int = 1,
    max_new: int | None = None,
    prompt_tokens: int = 8,
) -> Recipe:
    """Sequence-Level Knowledge Distillation.

    The teacher completes every training prompt once, by beam search; the student is trained on
    these texts as if they were the data. It needs no more of the teacher than its texts.

    Source: arXiv 1606.07947
    Kind: method
    Equation (4 and 5): -log q(y' | x), y' the teacher's beam search result, in place of
        -sum_y p(y | x) log q(y | x)
    When: only the teacher's texts are to be had, or a teacher's pass at every update costs too much.
    Cost: the teacher writes each completion once; after that nothing.
    Defaults: 5 beams, one text for each prompt; `beams=0` draws at `temperature`, `copies` times.
    Deviations: the beam's score is the plain total log-probability. The paper's interpolation
        (the candidate nearest to the reference, Eq. 6) is not here. Texts without a prompt are
        completed from their first `prompt_tokens` tokens.
    Result: exact match 65.4 % on school-basic (3 seeds); +2.22 points against the student alone,
        inside the noise; +0.69 points against plain KD, inside the noise. See
        docs/results/school-basic.md.
    """
    setting = speaking(setting, "seqkd")
    texts = TeacherTexts(
        beams=beams,
        temperature=temperature,
        copies=copies,
        max_new=max_new,
        prompt_tokens=prompt_tokens,
    )
    stage = Stage(objective=setting.supervised(), teacher=None, source=texts)
    return Recipe(name="seqkd", setting=setting, stages=(stage,))
