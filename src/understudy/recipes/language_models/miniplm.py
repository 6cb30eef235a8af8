"""MiniPLM: a student is pre-trained on the texts by which its teacher differs from a small model."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from understudy.data import Source, Texts
from understudy.errors import DataError, UserError
from understudy.recipes.language_models._studies import (
    by_perplexity,
    hearing,
    saying,
    taught,
    text_scores,
    texts,
    without_teachers,
)
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.signals.generation import speaking as still
from understudy.training.randomness import seeded


def miniplm(
    setting: Setting | None = None,
    *,
    keep: float = 0.5,
    mix: float = 0.0,
    reference: ModelSpec = "llama:width=32,depth=2,heads=2",
    reference_data: float = 0.05,
    reference_share: float = 0.25,
) -> Recipe:
    """MiniPLM: Knowledge Distillation for Pre-Training Language Models.

    Texts are scored once by how much likelier the teacher finds them than a small reference model;
    students of any kind are pre-trained on the upper part, with nothing but the plain loss.

    Source: arXiv 2410.17215
    Kind: method
    Equation (section 2): r(x) = log p(x) - log p_ref(x), a token; D' = top-K of r in D, K = keep |D|;
        then -1/|x| sum log q(x_t | x_<t) on D'
    When: several students are pre-trained, or the student reads other tokens than the teacher.
    Cost: the teacher and the reference read the corpus once, for all students; nothing in training.
    Defaults: half of the corpus kept, no random texts beside it; the reference sees 5 % of the corpus,
        which is then not chosen from, as 5 of 105 billion tokens are there.
    Deviations: `mix` adds texts drawn at random from those left out, against a corpus that gets
        narrow. The reference is a Llama of 2 layers of width 32 in place of one of 104M, trained for
        a quarter of the budget. The public README prints log p / log p_ref; its code subtracts mean
        losses, as the paper does and this does. All models read the same tokens here.
    Result: exact match 72.1 % on school-reader (3 seeds); -4.86 points against the student alone,
        inside the noise; -6.81 points against plain KD, inside the noise. See
        docs/results/school-reader.md.
    """
    setting = speaking(setting, "miniplm")
    for name, value in {"keep": keep, "reference_data": reference_data}.items():
        if not 0 < value <= 1:
            raise UserError(f"miniplm: {name} is a share in (0, 1], not {value}")
    if not 0 <= mix <= 1:
        raise UserError(f"miniplm: mix is a share in [0, 1], not {mix}")
    scores = _scoring(setting, reference, data=reference_data, share=reference_share)
    stage = Stage(
        objective=setting.supervised(),
        teacher=None,
        source=partial(_refined, scores=scores, keep=keep, mix=mix),
    )
    return Recipe(name="miniplm", setting=setting, stages=(stage,))


def _scoring(setting: Setting, reference: ModelSpec, *, data: float, share: float) -> Recipe:
    """The recipe whose study gives `rows` [M] and their `scores` [M]: the same for every student."""
    own = by_perplexity(replace(setting, student=reference, warm_start=None, method="miniplm"))

    def study(studio: Any, seed: int) -> dict[str, Any]:
        small = studio.play(_reference(own, data, share), seed).model
        source = texts(studio.task(own, seed).train, "miniplm")
        rows = _split(len(source), data, seed)[1]
        chosen = source.subset(rows)
        hear = hearing(studio, own, taught(own, "miniplm"), seed, chosen.batch(torch.arange(1)))
        heard, tokens = text_scores(hear, chosen)
        with still(small):
            said, _ = text_scores(saying(own.call, small.to(studio.device), studio.device), chosen)
        scores = (said - heard) / tokens
        return {
            "figure": {
                "mean_difference": float(scores.mean()),
                "likelier_to_the_teacher": float((scores > 0).double().mean()),
            },
            "rows": rows,
            "scores": scores,
        }

    return Recipe(
        name="miniplm-scores",
        setting=own,
        kind="measurement",
        study=study,
        settings={"data": data, "share": share},
    )


def chosen(scores: Tensor, *, keep: float, mix: float, seed: int) -> Tensor:
    """Places of the `keep` share of highest scores, and of a share `mix` drawn from the others."""
    count = max(1, int(keep * len(scores)))
    order = scores.argsort(descending=True, stable=True)
    best, rest = order[:count], order[count:]
    g = torch.Generator().manual_seed(seeded(seed, "miniplm mix") % 2**31)
    extra = rest[torch.randperm(len(rest), generator=g)[: round(mix * len(scores))]]
    return torch.cat((best, extra)).sort().values


def _reference(own: Setting, data: float, share: float) -> Recipe:
    stage = Stage(
        name="reference",
        objective=own.supervised(),
        learners=("reference",),
        teacher=None,
        source=partial(_reference_data, data=data),
        share=share,
    )
    return Recipe(
        name="miniplm-reference",
        setting=without_teachers(own),
        stages=(stage,),
        judged="reference",
    )


def _reference_data(play: Any, *, data: float) -> Texts:
    source = texts(play.task.train, "miniplm")
    return source.subset(_split(len(source), data, play.seed)[0])


def _split(count: int, data: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the reference's part, and of the rest."""
    g = torch.Generator().manual_seed(seeded(seed, "miniplm reference") % 2**31)
    order = torch.randperm(count, generator=g)
    part = max(1, round(data * count))
    if part >= count:
        raise DataError(f"miniplm: {count} texts leave none to choose from; lower reference_data")
    return order[:part].sort().values, order[part:].sort().values


def _refined(play: Any, *, scores: Recipe, keep: float, mix: float) -> Source:
    found = play.studio.play(scores, play.seed).extras
    rows = found["rows"][chosen(found["scores"], keep=keep, mix=mix, seed=play.seed)]
    return texts(play.task.train, "miniplm").subset(rows)
