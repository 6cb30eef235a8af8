"""Compatibility-adjusted reward: which teacher's answers a student will gain most from."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Texts
from understudy.errors import DataError, UserError
from understudy.evaluation import metric
from understudy.evaluation.quality import spearman
from understudy.recipes.language_models._studies import (
    answering,
    by_perplexity,
    mean_loss,
    module_of,
    picked,
    texts,
    without_teachers,
    written,
)
from understudy.recipes.language_models._worlds import speaking
from understudy.running.teaching import teaching
from understudy.setting import ModelSpec, Recipe, Setting, Stage, Trained
from understudy.settings import school_basic
from understudy.tasks.task import Task
from understudy.training.randomness import seeded

Generators = tuple[tuple[ModelSpec | None, float], ...]
Reward = Callable[[Task, Texts, Texts], Tensor]
"""(task, texts as they are, the same prompts with a generator's answers) -> [N] rewards."""

GENERATORS: Generators = ((None, 0.125), (None, 0.25), (None, 0.5), (None, 2.0))
"""(model, how many times the student's budget it is trained); None: the student itself."""


def compatibility_reward(
    setting: Setting | None = None,
    *,
    generators: Generators = GENERATORS,
    own_teacher: bool = True,
    beta: float = 3.0,
    base_share: float = 0.05,
    prompts: int | None = 1024,
    temperature: float = 0.0,
    reward: Reward | None = None,
) -> Recipe:
    """Stronger Models are NOT Stronger Teachers for Instruction Tuning (CAR).

    Several teachers answer the same prompts; their answers' reward, discounted by the loss that the
    student has on them before it is tuned, is set against how well students tuned on each do.

    Source: arXiv 2411.07133
    Kind: measurement
    Equation (section 5): CAR(D, theta) = r(D) / (1 + beta L(D, theta)): r the mean reward of the answers
        in D, L the base student's mean loss on them
    When: answers to learn from can be had from several models, and tuning on all costs too much.
    Cost: each teacher writes answers; CAR itself needs one pass of the student over them. To check it,
        one student is tuned on each.
    Defaults: beta = 3; greedy answers, as the paper's.
    Deviations: a check by program stands in for the reward model: `reward`, or the task's own
        (extras["reward"]), or else the share of answers' tokens that are as in the data. Generators
        are the student after four lengths of training, and the setting's teacher (`generators`: other
        models, trained here); the base student has had a twentieth of the budget on the data, as an
        untrained one finds all answers alike. Correlations are over few generators, five by default.
        The world by itself is school-reader, whose student learns within minutes.
    Result: spearman car 0.9 ± 0, spearman reward 0.9 ± 0, spearman loss -0.633 ± 0.551, spearman
        strength 0.967 ± 0.0577, best by car is best 0 ± 0 (3 seeds). See
        docs/results/language-studies.md.
    """
    setting = school_basic(base="reader") if setting is None else setting
    setting = speaking(setting, "compatibility_reward", teacher=False)
    if len(generators) + (own_teacher and bool(setting.teachers)) < 3:
        raise UserError("compatibility_reward ranks teachers: give at least three generators")
    study = partial(
        _compare,
        setting=setting,
        generators=tuple(generators),
        own_teacher=own_teacher,
        beta=beta,
        base_share=base_share,
        prompts=prompts,
        temperature=temperature,
        reward=reward,
    )
    return Recipe(
        name="compatibility_reward",
        setting=setting,
        kind="measurement",
        study=study,
        settings={"beta": beta, "prompts": prompts},
    )


def adjusted(reward: float, loss: float, beta: float) -> float:
    """CAR = r / (1 + beta L)."""
    return reward / (1 + beta * loss)


def agreement(task: Task, source: Texts, answers: Texts) -> Tensor:
    """[N] share of the data's answer whose tokens the generator has written in their place."""
    found = []
    for i in range(len(source)):
        true, said = source.answer(i), answers.answer(i)
        n = min(len(true), len(said))
        found.append(float((true[:n] == said[:n]).sum()) / len(true))
    return torch.tensor(found, dtype=torch.float64)


def _compare(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    generators: Generators,
    own_teacher: bool,
    beta: float,
    base_share: float,
    prompts: int | None,
    temperature: float,
    reward: Reward | None,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    asked = picked(
        texts(task.train, "compatibility_reward"), prompts, seeded(seed, "asked") % 2**31
    )
    judge = reward or task.extras.get("reward") or agreement
    bare, plain = without_teachers(setting), by_perplexity(setting)
    base = studio.play(
        Recipe(
            name="compatibility_reward-base",
            setting=without_teachers(plain),
            stages=(Stage(objective=setting.supervised(), teacher=None, share=base_share),),
        ),
        seed,
    ).model
    better = metric(task.metric).higher_is_better
    rows: list[dict[str, float]] = []
    for name, model, strength in _writers(studio, plain, generators, own_teacher, seed):
        sampling = answering(task, asked, temperature=temperature)
        answers = written(model, asked, sampling, seed=seeded(seed, "answers", name), name=name)
        r = float(judge(task, asked, answers).mean())
        loss = mean_loss(setting, base, answers)
        tuned = studio.play(_tuned(bare, base, answers, name), seed).last[task.metric]
        rows.append(
            {
                "car": adjusted(r, loss, beta),
                "performance": tuned if better else -tuned,
                "reward": r,
                "loss": loss,
                "strength": strength,
            }
        )
    columns = {k: [row[k] for row in rows] for k in rows[0]}
    done = columns["performance"]
    return {
        "figure": {
            "spearman_car": ranked(columns["car"], done),
            "spearman_reward": ranked(columns["reward"], done),
            "spearman_loss": ranked([-v for v in columns["loss"]], done),
            "spearman_strength": ranked(columns["strength"], done),
            "best_by_car_is_best": float(
                columns["car"].index(max(columns["car"])) == done.index(max(done))
            ),
        },
        **columns,
    }


def _writers(
    studio: Any, setting: Setting, generators: Generators, own_teacher: bool, seed: int
) -> list[tuple[str, nn.Module, float]]:
    """(name, model, -perplexity on the judged texts: its strength) of each generator."""
    found: list[tuple[str, nn.Module, float]] = []
    for k, (spec, share) in enumerate(generators):
        name = f"generator-{k}"
        model = setting.student if spec is None else spec
        own = replace(
            setting, teachers={name: Trained(model=model, budget=setting.budget.lasting(share))}
        )
        played = studio.play(teaching(own, name), seed)
        found.append((name, played.model, -played.last["perplexity"]))
    if own_teacher and setting.teacher is not None:
        model = module_of(studio, setting, setting.teacher, seed, "compatibility_reward")
        task = studio.task(setting, seed)
        judged = texts(task.test or task.validate, "compatibility_reward")
        loss = mean_loss(setting, model, judged)
        found.append(("teacher", model, -float(torch.tensor(loss).exp())))
    return found


def _tuned(bare: Setting, base: nn.Module, answers: Texts, name: str) -> Recipe:
    stage = Stage(
        name="tune",
        objective=bare.supervised(),
        teacher=None,
        source=lambda play: answers,
    )
    return Recipe(
        name=f"compatibility_reward-{name}", setting=replace(bare, student=base), stages=(stage,)
    )


def ranked(a: list[float], b: list[float]) -> float:
    """Spearman's correlation; 0 where one side has no order."""
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    if bool((x == x[0]).all()):
        return 0.0
    try:
        return spearman(x[:, None], y[:, None])
    except DataError:
        return 0.0
