"""Weak-to-strong generalisation: a strong student of a weak supervisor."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Arrays, Source, Subset
from understudy.errors import DataError, MethodRefused
from understudy.evaluation import performance_gap_recovered
from understudy.objectives import self_confidence, soft_ce
from understudy.recipes.encoders._studies import all_labels, head, teacher_model
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.settings import digits
from understudy.training.randomness import seeded


def weak_to_strong(
    setting: Setting | None = None,
    *,
    weak: ModelSpec = "cnn:width=4",
    strong: ModelSpec | None = None,
    weak_share: float = 0.25,
    pretrain: bool = True,
    confidence_weight: float = 0.5,
    warmup: float = 0.2,
) -> Recipe:
    """Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision.

    A small model, trained on half of the labels, labels the other half for a large pretrained one:
    how much of the gap to the large model's own ceiling does that recover?

    Source: arXiv 2312.09390
    Kind: measurement
    Equation (section 3; Appendix A.4, 1): PGR = (weak-to-strong - weak) / (ceiling - weak); auxiliary
        loss (1 - a) CE(f, f_w) + a CE(f, f hardened)
    When: supervision is weaker than the model that it supervises.
    Cost: one weak and three strong models (naive, with the confidence loss, the ceiling).
    Defaults: a = 0.5, warmed up over 20 %; soft weak labels; last epoch.
    Deviations: digits in place of NLP, chess and reward models; the strong model is pretrained here, to
        tell by how many quarter turns an image is rotated, and gets a new head. The weak one is
        small and trained for a quarter of the budget, so that it errs. With more than two classes
        the threshold becomes a level for each class. No bootstrapping through sizes.
    Result: pgr naive 0.0449 ± 0.00817, pgr confidence 0.411 ± 0.271, weak 0.753 ± 0.0197, naive
        0.763 ± 0.0168, ceiling 0.987 ± 0.00577 (3 seeds). See docs/results/studies.md.
    """
    setting = setting or digits()
    own = replace(
        setting,
        teachers={},
        student=strong or teacher_model(setting),
        budget=replace(setting.budget, labelled_share=None),
    )
    plan = partial(w2s_arms, own, weak=weak, weak_share=weak_share, pretrain=pretrain)

    def study(studio: Any, seed: int) -> dict[str, Any]:
        found = plan(studio, seed, aux=self_confidence(weight=confidence_weight, warmup=warmup))
        accuracy = {k: r.last["accuracy"] for k, r in found.items()}
        figure = {k: v for k, v in accuracy.items()}
        for arm in ("naive", "confidence"):
            gap = [accuracy[k] for k in ("weak", arm, "ceiling")]
            try:
                figure[f"pgr_{arm}"] = performance_gap_recovered(*gap)
            except DataError:
                figure[f"pgr_{arm}"] = float("nan")
        return {"figure": figure, "accuracy": accuracy}

    return Recipe(name="weak_to_strong", setting=own, kind="measurement", study=study)


def w2s_arms(
    setting: Setting,
    studio: Any,
    seed: int,
    *,
    weak: ModelSpec,
    weak_share: float,
    pretrain: bool,
    aux: Any = None,
    name: str = "weak_to_strong",
) -> dict[str, Any]:
    """The plays: weak, naive, ceiling, and confidence where `aux` is given."""
    image = studio.task(setting, seed).example().inputs
    turns = pretrain and isinstance(image, Tensor) and image.ndim == 4
    first = Recipe(
        name=f"{name}-weak",
        setting=setting,
        stages=(
            Stage(
                objective=setting.supervised(),
                learners=("weak",),
                teacher=None,
                source=partial(half, which=0),
                share=weak_share,
            ),
        ),
        cast={"weak": weak},
        judged="weak",
    )
    played = {"weak": studio.play(first, seed)}
    supervised = replace(setting, teachers={"weak": played["weak"].model})
    objectives = {"naive": soft_ce(), "ceiling": setting.supervised()}
    if aux is not None:
        objectives["confidence"] = aux
    for arm, objective in objectives.items():
        tune = Stage(
            objective=objective,
            teacher=None if arm == "ceiling" else "weak",
            source=partial(half, which=1),
            before=partial(new_head, seed=seed) if turns else None,
        )
        stages = (tune,)
        if turns:
            before = Stage(
                name="pretrain",
                objective=setting.supervised(),
                teacher=None,
                source=rotated,
                share=0.5,
            )
            stages = (before, tune)
        recipe = Recipe(name=f"{name}-{arm}", setting=supervised, stages=stages)
        played[arm] = studio.play(recipe, seed)
    return played


def half(play: Any, *, which: int) -> Source:
    """One half, by the seed, of the training samples with all their labels."""
    source = all_labels(play)
    g = torch.Generator().manual_seed(seeded(play.seed, "halves") % 2**31)
    order = torch.randperm(len(source), generator=g)
    middle = len(source) // 2
    return Subset(source, (order[:middle] if which == 0 else order[middle:]).sort().values)


def rotated(play: Any) -> Source:
    """Every training image at four quarter turns, whose number is the label."""
    source = play.task.train
    if play.task.classes < 4:
        raise MethodRefused("pretraining by rotation needs at least four outputs; pretrain=False")
    x = source.batch(torch.arange(len(source))).inputs
    turned = [torch.rot90(x, k, (2, 3)) for k in range(4)]
    return Arrays(torch.cat(turned), torch.arange(4).repeat_interleave(len(x)), name="rotations")


def new_head(models: Mapping[str, nn.Module], *, seed: int) -> None:
    """New weights for the student's last linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, "head") % 2**31)
        head(models["student"]).reset_parameters()
