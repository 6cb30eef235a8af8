"""What a student knows of its teacher's secrets: canaries inserted, and their exposure measured."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Texts
from understudy.data.alignment import pieces_of
from understudy.data.privacy import Tagger
from understudy.errors import MethodRefused, UserError
from understudy.evaluation.exposure import chance_exposure, rank_exposure
from understudy.objectives import Objective, Total, swing_kd
from understudy.recipes.language_models._studies import mean_loss, saying, stops, text_scores, texts
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import Recipe, Setting, Stage
from understudy.signals.generation import speaking as silent
from understudy.tasks.task import Task

NAMES = ("ann", "bob", "eve", "dan", "mia", "tom", "zoe", "max")
FORMAT = "The code of {} is {}."
PATTERN = r"(?<= is )\d+(?=\.)"


def canary_exposure(
    setting: Setting | None = None,
    *,
    model: str = "llama:width=64,depth=3,heads=4",
    canaries: int = 4,
    copies: int = 8,
    digits: int = 3,
    low: float = 1.0,
    high: float = 10.0,
    noise: float = 0.2,
    teacher_share: float = 2.0,
) -> Recipe:
    """Swing distillation, measured: canary exposure of a student of plain KD and of swing's.

    Secrets are inserted in the texts that a teacher is trained on; on the same texts, without their
    labels, students learn from its soft targets. Exposure is the rank of each secret among all that
    it could have been.

    Source: arXiv 2212.08349
    Kind: measurement
    Equation (arXiv 1802.08232, Definition 5): exposure = log2 |R| - log2 rank, R all 10^digits secrets
    When: deciding whether a student of a teacher that has read private text can be handed out.
    Cost: one teacher and two students are trained; every candidate of every canary is scored by each.
    Defaults: 4 canaries, each 8 times among the texts; 3 digits, so at most 9.97 bits; a teacher that
        is trained for twice the student's budget. Swing as in its own recipe.
    Deviations: the paper inserts canaries in translation and classification data and measures with
        larger spaces. The tagger knows the canaries' form: the most that a detector can do.
    Result: reduction 0.339 ± 0.358, exposure teacher 1.53 ± 0.789, perplexity teacher 3.76 ±
        0.157, exposure kd 2.11 ± 0.747, perplexity kd 8.31 ± 1.48 (3 seeds). See
        docs/results/language-studies.md.
    """
    setting = speaking(setting, "canary_exposure", teacher=False)
    if not 1 <= canaries <= len(NAMES) or copies < 1 or not 1 <= digits <= 5:
        raise UserError(f"canary_exposure: 1 to {len(NAMES)} canaries, copies >= 1, 1 to 5 digits")
    study = partial(
        _measure, setting=setting, model=model, canaries=canaries, copies=copies, digits=digits,
        swing={"low": low, "high": high, "noise": noise}, teacher_share=teacher_share,
    )  # fmt: skip
    known = {"model": model, "canaries": canaries, "copies": copies, "digits": digits}
    return Recipe(
        name="canary_exposure",
        setting=setting,
        kind="measurement",
        study=study,
        settings={**known, "low": low, "high": high, "noise": noise, "share": teacher_share},
    )


def _measure(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    model: str,
    canaries: int,
    copies: int,
    digits: int,
    swing: dict[str, float],
    teacher_share: float,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    g = torch.Generator().manual_seed(seed)
    secrets = torch.randint(10**digits, (canaries,), generator=g).tolist()
    planted = partial(_planted, task=setting.task, secrets=secrets, copies=copies, digits=digits)
    told = replace(setting, task=planted, warm_start=None)
    longer = setting.budget.lasting(teacher_share)
    teaching = replace(told, teachers={}, student=model, budget=longer)
    stage = Stage(objective=setting.supervised(), teacher=None)
    taught = studio.play(Recipe(name="canary-teacher", setting=teaching, stages=(stage,)), seed)
    pieces = pieces_of(task.extras["tokenizer"], vocabulary=task.classes)
    arms: dict[str, Objective | Total] = {
        "kd": setting.softened(),
        "swing": swing_kd(Tagger(pieces, PATTERN), **swing),
    }
    students = replace(told, teachers={"teacher": taught.model})
    models = {"teacher": taught.model}
    for name, objective in arms.items():
        stage = Stage(objective=objective)
        recipe = Recipe(name=f"canary-{name}", setting=students, stages=(stage,), settings=swing)
        models[name] = studio.play(recipe, seed).model
    figure: dict[str, float] = {}
    rows: dict[str, list[float]] = {}
    judged = texts(task.validate if task.test is None else task.test, "canary_exposure")
    for name, one in models.items():
        rows[name] = exposures(setting, one, task, secrets, digits)
        figure[f"exposure_{name}"] = sum(rows[name]) / canaries
        figure[f"perplexity_{name}"] = math.exp(min(mean_loss(setting, one, judged), 700.0))
    figure["exposure_chance"] = chance_exposure(10**digits)
    kept = figure["exposure_swing"] / max(figure["exposure_kd"], 1e-12)
    figure["reduction"] = 1.0 - kept
    return {"figure": figure, "exposures": rows, "secrets": secrets}


def exposures(
    setting: Setting, model: nn.Module, task: Task, secrets: list[int], digits: int
) -> list[float]:
    """Bits of each canary: its rank among all numbers of as many digits."""
    found = []
    device = next(model.parameters()).device
    for name, secret in zip(NAMES, secrets, strict=False):
        every = [_text(name, number, digits) for number in range(10**digits)]
        source = _tokens(task, every)
        with silent(model):
            nats, _ = text_scores(
                saying(setting.call, model, device), source, batch_size=256, classes=task.classes
            )
        found.append(rank_exposure(float(nats[secret]), nats))
    return found


def _text(name: str, number: int, digits: int) -> str:
    return FORMAT.format(name, f"{number:0{digits}d}")


def _tokens(task: Task, every: list[str], first_id: int = 0) -> Texts:
    """Texts of the task's tokens, all scored but the first, with the token that ends a text."""
    tokenizer = task.extras.get("tokenizer")
    if tokenizer is None:
        raise MethodRefused(
            f"canaries are texts, and {task.name} has no tokenizer; give the task one (extras "
            "tokenizer)"
        )
    pieces = pieces_of(tokenizer, vocabulary=task.classes)
    end = list(stops(task))[:1]
    tokens = [[*pieces.tokens(text.encode()), *end] for text in every]
    return Texts(tokens, ids=torch.arange(first_id, first_id + len(tokens)), name="canaries")


def _planted(split: int, *, task: Any, secrets: list[int], copies: int, digits: int) -> Task:
    """The task with canaries among the texts to learn from."""
    own: Task = task if isinstance(task, Task) else task(split)
    train = texts(own.train, "canary_exposure")
    each = [_text(n, s, digits) for n, s in zip(NAMES, secrets, strict=False)]
    found = _tokens(own, each * copies, first_id=int(train.ids.max()) + 1)
    return replace(own, train=_together(train, found), teach=None)


def _together(a: Texts, b: Texts) -> Texts:
    def cut(source: Texts, flat: Tensor) -> list[Tensor]:
        return [flat[source.offsets[i] : source.offsets[i + 1]] for i in range(len(source))]

    return Texts(
        cut(a, a.flat) + cut(b, b.flat),
        cut(a, a.scored) + cut(b, b.scored),
        ids=torch.cat([a.ids, b.ids]),
        name=a.name,
    )
