"""How the shipped teacher is made: one training, resumable at any update."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.algorithms import Algorithm, Scene
from understudy.data import Indexed
from understudy.objectives.base import Total
from understudy.objectives.vocabulary import lm_ce
from understudy.signals.language import CausalLM
from understudy.students.families.llama import llama
from understudy.tasks.school.corpus import LENGTH, ByLength, corpus
from understudy.tasks.school.muon import MuonAdam
from understudy.tasks.school.text import MIX, Ability
from understudy.tasks.school.tokens import SIZE
from understudy.training import checkpoint
from understudy.training.budget import Budget
from understudy.training.fit import Fit


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that a training depends on.

    count: examples of the corpus; steps: updates of about `tokens` tokens; mix, weights: how often
    abilities and skills are drawn; prompt_weight: of a prompt's tokens in the loss.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    count: int = 160_000
    seed: int = 0
    steps: int = 5000
    tokens: int = 4000
    lr: float = 0.02
    adam_lr: float = 4e-3
    warmup: float = 0.02
    prompt_weight: float = 0.3
    mix: Mapping[Ability, float] = field(default_factory=lambda: dict(MIX))
    weights: Mapping[str, float] = field(default_factory=lambda: {"divide": 1.5, "fraction": 1.2})


def new_model(study: Study) -> nn.Module:
    """A fresh model, from the study's seed."""
    torch.manual_seed(study.seed)
    return llama(
        classes=SIZE, vocabulary=SIZE, length=LENGTH,
        width=study.width, depth=study.depth, heads=study.heads,
    )  # fmt: skip


def train(
    study: Study,
    folder: Path,
    *,
    save_every: int = 250,
    stop_after: int | None = None,
    listen: Callable[[str, dict[str, Any]], None] | None = None,
    start: nn.Module | None = None,
) -> nn.Module:
    """Trains from the last checkpoint in `folder`, or from the beginning; returns the model.

    stop_after: leave after that many updates in all (a later call continues). start: a model to
    go on from instead of a fresh one.
    """
    data: Any = corpus(
        study.count,
        study.seed,
        mix=study.mix,
        weights=study.weights,
        prompt_weight=study.prompt_weight,
    )
    order: Any = ByLength(lengths=data.lengths, tokens=study.tokens, seed=study.seed)
    loader = Indexed(data, order)
    model = start if start is not None else new_model(study)
    scene = Scene(
        learners={"student": model}, teacher=None, objective=Total([(1.0, lm_ce())]),
        example=data.batch(torch.arange(2)), call=CausalLM(), seed=study.seed,
    )  # fmt: skip
    budget = Budget(
        steps=study.steps,
        optimizer=lambda groups: MuonAdam(
            groups, vocabulary=SIZE, lr=study.lr, adam_lr=study.adam_lr
        ),
        schedule="linear",
        warmup=study.warmup,
        save_every=save_every,
        batch_size=64,
    )

    def save(fit: Fit) -> None:
        number = fit.step.number
        checkpoint.save(
            folder,
            f"step-{number:06d}",
            fit.state_dict(),
            meta={"study": json.dumps(asdict(study))},
        )
        checkpoint.prune(folder, 2)
        if listen is not None:
            terms = {n: float(t / c) for n, (t, c) in fit.step.sums.items()}
            listen("save", {"step": number, "seconds": fit.seconds, "terms": terms})

    fit = Fit(Algorithm(), scene, loader, budget, save=save, save_seconds=None)
    found = checkpoint.latest(folder) if folder.exists() else None
    if found is not None:
        fit.load_state_dict(checkpoint.load(found)[0])
    if fit.step.number == 0 or not fit.finished:
        for _ in fit.updates():
            if stop_after is not None and fit.step.number >= stop_after:
                break
        if fit.finished:
            save(fit)
    return model


STAGES: Mapping[str, Study] = {
    "first": Study(count=130_000, steps=2800, tokens=3000),
    # it could not write yet, nor keep two names apart
    "second": Study(
        count=64_000, seed=1, steps=1400, tokens=3000, lr=0.015, adam_lr=3e-3, prompt_weight=0.6,
        mix={"solve": 0.25, "write": 0.4, "explain": 0.25, "grade": 0.1},
        weights={"compare": 3.0, "divide": 1.8, "add": 1.3, "multiply": 1.2},
    ),
    # it took one mistake for another, and the larger term of a falling sequence for the smaller
    "third": Study(
        count=34_000, seed=2, steps=750, tokens=3000, lr=0.012, adam_lr=2.5e-3,
        mix={"solve": 0.2, "write": 0.15, "explain": 0.55, "grade": 0.1},
        weights={
            "sequence": 3.0, "fraction": 1.8, "two_step": 1.5, "compare": 1.5, "percent": 1.3
        },
    ),
    "fourth": Study(
        count=56_000, seed=3, steps=1200, tokens=3000, lr=0.015, adam_lr=3e-3,
        mix={"solve": 0.25, "write": 0.2, "explain": 0.45, "grade": 0.1},
        weights={
            "sequence": 4.0, "two_step": 3.0, "multiply": 1.5, "brackets": 1.5, "percent": 1.3,
            "convert": 1.3, "compare": 1.5,
        },
    ),
    "fifth": Study(
        count=28_000, seed=4, steps=600, tokens=3000, lr=0.01, adam_lr=2e-3,
        mix={"solve": 0.35, "write": 0.2, "explain": 0.35, "grade": 0.1},
        weights={
            "sequence": 8.0, "two_step": 4.0, "multiply": 1.5, "divide": 1.5, "compare": 1.5
        },
    ),
}  # fmt: skip
"""How the shipped teacher was trained: one stage after another, each from the last one's model."""
