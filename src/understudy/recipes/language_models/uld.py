"""ULD: a teacher whose tokens are not the student's."""

import torch
from torch import Tensor

from understudy.data.alignment import shared_ids
from understudy.errors import unknown
from understudy.objectives import gold, projected_kl
from understudy.objectives import uld as sorted_l1
from understudy.recipes.language_models._tongues import aligner_of, following, in_bytes
from understudy.recipes.language_models._worlds import speaking, vocabulary_of
from understudy.setting import Recipe, Setting, Stage
from understudy.training.budget import Budget


def uld(
    setting: Setting | None = None,
    *,
    loss: str = "uld",
    uld_weight: float = 1.5,
    ce_weight: float = 1.0,
    merged: bool = True,
    matched: float | None = None,
    unmatched: float | None = None,
) -> Recipe:
    """Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs.

    Teacher and student read the same bytes, each in its own tokens; where groups of tokens cover the
    same bytes, their sorted probabilities are compared.

    Source: arXiv 2402.12030
    Kind: method
    Equation (5, 6): CE + uld_weight sum_i |p_(i) - q_(i)|, sorted, the smaller vocabulary filled up
        with zeros
    When: the teacher's tokenizer is another one than the student's.
    Cost: one teacher pass in its own tokens; the texts are read by both tokenizers once.
    Defaults: weight 1.5 beside CE. `loss` gold: KL over the tokens of both vocabularies and the sorted
        distance over the others, weights by share (`matched`, `unmatched`), as in trl's GOLDTrainer;
        projection: KL over shared tokens and one class of all others, where both have one token.
    Deviations: positions are matched by the bytes they cover, not by their number (the paper cuts both
        answers to the shorter one and compares position by position); a group of several tokens is
        compared at its first, times the probability of those that follow (`merged`). Equations'
        numbers are from memory; the loss was checked against trl's code. The default
        teacher reads single bytes and is trained within the recipe. A setting's own teacher has
        other tokens where its teacher_call is a Retokenizing; otherwise each token is a group.
    Result: exact match 75.8 % on school-reader (3 seeds); -1.11 points against the student alone,
        inside the noise; -3.06 points against plain KD, inside the noise. See
        docs/results/school-reader.md.
    """
    if setting is None:
        setting = in_bytes(
            speaking(None, "uld"),
            model="llama:width=96,depth=4,heads=4",
            budget=Budget(epochs=1, batch_size=32, lr=4e-3, warmup=0.05, clip=1.0),
        )
    setting = following(speaking(setting, "uld"))
    if loss not in ("uld", "gold", "projection"):
        raise unknown("loss across tokenizers", loss, ("uld", "gold", "projection"))
    if loss == "uld":
        term = sorted_l1(merged=merged)
    elif loss == "gold":
        term = gold(_shared(setting), matched=matched, unmatched=unmatched)
    else:
        term = projected_kl(_shared(setting))
    objective = ce_weight * setting.supervised() + uld_weight * term
    return Recipe(name="uld", setting=setting, stages=(Stage(objective=objective),))


def _shared(setting: Setting) -> Tensor:
    """The tokens that both know; all where they have one tokenizer."""
    aligner = aligner_of(setting)
    if aligner is None:
        every = torch.arange(vocabulary_of(setting)[1])
        return torch.stack([every, every], 1)
    return shared_ids(aligner.student, aligner.teacher, aligner.specials)
