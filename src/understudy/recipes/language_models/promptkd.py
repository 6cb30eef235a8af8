"""PromptKD: a teacher that tunes a soft prompt until the student can follow."""

from functools import partial

from understudy.algorithms import Algorithm
from understudy.algorithms.prompting import Prompting
from understudy.data.on_policy import OnPolicy
from understudy.objectives import lm_kd
from understudy.recipes.language_models._worlds import speaking, vocabulary_of, words
from understudy.setting import Recipe, Setting, Stage


def promptkd(
    setting: Setting | None = None,
    *,
    prompt: int = 7,
    text: str = "Suppose you are a student.",
    stay: float = 1.0,
    start: float = 0.5,
    kind: str = "reverse_kl",
    prompt_rate: float = 1.0,
    temperature: float = 1.0,
    max_new: int | None = None,
) -> Recipe:
    """PromptKD: Distilling Student-Friendly Knowledge for Generative Language Models via Prompt Tuning.

    On texts that the student writes, a few soft tokens before the frozen teacher are tuned towards
    the student, then the student is tuned towards the teacher behind them.

    Source: arXiv 2402.12842
    Kind: method
    Equation (3 to 5): prompt: KL(p_prompted || q) + (1 - t/T) stay KL(p_prompted || p); student:
        KL(q || p_prompted); all on y drawn from q, in turn at every update
    When: the teacher is white-box, far larger than the student, and texts are generated anyway.
    Cost: generation; two teacher passes with a graph to the prompt's 7 d numbers, one without.
    Defaults: 7 prompt tokens that start as "Suppose you are a student.", reverse KL for all three,
        the prompt at the student's rate, sampling at temperature 1. The student is first trained on
        the labels (published: fine-tuned before), here for half of the budget (`start`).
    Deviations: the directions of the KLs and the weight 1 - t/T are those of the authors' public
        code, which was read; the equations' numbers were not checked. Without a tokenizer the prompt
        starts from tokens that are drawn. The data's own completions are learned from before, not
        beside, as in that code.
    Result: exact match 72.8 % on school-reader (3 seeds); -4.17 points against the student alone,
        inside the noise; -6.11 points against plain KD, inside the noise. See
        docs/results/school-reader.md.
    """
    setting = speaking(setting, "promptkd")
    algorithm = partial(
        _prompting, setting=setting, count=prompt, text=text, stay=stay, kind=kind, rate=prompt_rate
    )
    before = Stage(name="start", objective=setting.supervised(), teacher=None, share=start)
    tuned = Stage(
        share=1.0 - start,
        objective=lm_kd(kind).named("promptkd"),
        algorithm=algorithm,
        loader=OnPolicy(temperature=temperature, max_new=max_new),
    )
    stages = (before, tuned) if start else (tuned,)
    return Recipe(name="promptkd", setting=setting, stages=stages)


def _prompting(
    *, setting: Setting, count: int, text: str, stay: float, kind: str, rate: float
) -> Algorithm:
    tokenizer, vocabulary = vocabulary_of(setting)
    tokens = words(tokenizer, text, count, vocabulary, seed=0)
    return Prompting(tokens, stay=stay, kind=kind, stay_kind=kind, rate=rate)
