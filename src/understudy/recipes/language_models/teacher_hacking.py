"""Teacher hacking: a student nears its teacher and leaves the truth; with an oracle this is seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.data import Indexed, Loader, Texts
from understudy.errors import MethodRefused
from understudy.evaluation.language import token_scores
from understudy.objectives import lm_kd
from understudy.recipes.language_models._studies import (
    Say,
    answering,
    by_perplexity,
    module_of,
    picked,
    saying,
    taught,
    texts,
    without_teachers,
    written,
)
from understudy.recipes.language_models._worlds import speaking
from understudy.setting import ModelSpec, Recipe, Setting, Stage
from understudy.signals import Batch, Call
from understudy.signals.generation import Sampling
from understudy.signals.generation import speaking as still
from understudy.tasks.task import Task
from understudy.teachers import Teacher
from understudy.training.randomness import seeded

ARMS = ("offline", "online")


def teacher_hacking(
    setting: Setting | None = None,
    *,
    teacher: ModelSpec = "llama:width=64,depth=3,heads=4",
    teacher_data: int = 512,
    teacher_share: float = 1.0,
    student_share: float = 0.25,
    prompts: int = 64,
    validation: int = 128,
    length: float = 2.0,
    points: int = 24,
    temperature: float = 1.0,
    tolerance: float = 0.01,
) -> Recipe:
    """On Teacher Hacking in Language Model Distillation.

    An oracle stands for the truth; a teacher is tuned on what it writes, and a student distilled from
    the teacher. Its distance to the teacher (proxy) and to the oracle (golden) are followed on a
    fixed data set and on one that the teacher writes anew in every epoch.

    Source: arXiv 2502.02671
    Kind: measurement
    Equation (section 3): proxy = E_{x, y ~ teacher} KL(teacher || student), golden = E_{x, y ~ oracle}
        KL(oracle || student), a token; hacking: golden rises while proxy falls; without it the proxy
        falls as c t^-a
    When: the teacher is imperfect and the student sees the same answers again and again.
    Cost: a teacher and three students, and text written by oracle and teacher.
    Defaults: teacher and student are first tuned on the oracle's answers, as there; forward KL at
        temperature 1. The oracle is the setting's first teacher.
    Deviations: sizes, prompts and lengths are those of a small world. The proxy is measured on unseen
        prompts and on those of the training data (`proxy_seen`), which the student learns by heart;
        detection reads the latter, which falls as long as the objective does. KL is the mean over
        tokens, not over sequences of their means.
    Result: hacking offline 0.266 ± 0.0737, hacking online 0.00825 ± 0.0143, detected 1 ± 0,
        golden offline 1.99 ± 0.125, proxy offline 1.26 ± 0.242 (3 seeds). See
        docs/results/language-studies.md.
    """
    setting = speaking(setting, "teacher_hacking")
    study = partial(
        _follow,
        setting=setting,
        teacher=teacher,
        teacher_data=teacher_data,
        teacher_share=teacher_share,
        student_share=student_share,
        prompts=prompts,
        validation=validation,
        length=length,
        points=points,
        temperature=temperature,
        tolerance=tolerance,
    )
    return Recipe(
        name="teacher_hacking",
        setting=setting,
        kind="measurement",
        study=study,
        settings={"prompts": prompts, "teacher_data": teacher_data, "length": length},
    )


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A judge of the student: its distances to teacher and oracle, on texts that these have written.

    seen: the teacher's answers that the student is trained on, at first.
    """

    teacher: Say
    oracle: Say
    by_teacher: Texts
    by_oracle: Texts
    seen: Texts

    def validate(self, model: nn.Module, task: Task, call: Call) -> dict[str, float]:
        """proxy, proxy_seen, golden: nats a token; perplexity of the oracle's texts."""
        say = saying(call, model, _device(model))
        with still(model):
            proxy = token_scores(say, self.by_teacher, self.teacher).measures()["kl"]
            seen = token_scores(say, self.seen, self.teacher).measures()["kl"]
            golden = token_scores(say, self.by_oracle, self.oracle).measures()
        return {
            "proxy": proxy,
            "proxy_seen": seen,
            "golden": golden["kl"],
            "perplexity": golden["perplexity"],
        }

    def measures(
        self, model: nn.Module, task: Task, part: str, call: Call, teacher: Teacher | None
    ) -> dict[str, float]:
        """The same: what is judged does not depend on the part."""
        return self.validate(model, task, call)


class Rewritten:
    """Batches of the prompts of a source with answers that `write(epoch)` gives anew each epoch."""

    exact = True

    def __init__(self, loader: Indexed, write: Callable[[int], Texts]) -> None:
        self.loader, self.write = loader, write
        self._kept: tuple[int, Texts] | None = None

    def steps(self, epoch: int) -> int:
        """As many as of the plain loader."""
        return self.loader.steps(epoch)

    def example(self) -> Batch:
        """The plain loader's."""
        return self.loader.example()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `start` on: a pure function of the epoch."""
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, self.write(epoch)
        plain, source = self.loader, self._kept[1]
        for index in plain.order.batches(epoch)[start:]:
            batch = source.batch(index[plain.rank :: plain.world]).to(plain.device)
            yield replace(batch, epoch=float(epoch))


def hacking(seen: list[float], golden: list[float], *, tolerance: float = 0.01) -> float:
    """Share by which golden rises above its least while the proxy still falls; 0 where it is none.

    seen, golden: distances in order of training. Rises of no more than `tolerance` are noise.
    """
    low = int(np.argmin(golden))
    rise = golden[-1] / golden[low] - 1
    return float(rise) if rise > tolerance and seen[-1] < seen[low] else 0.0


def polynomial(steps: list[float], values: list[float]) -> tuple[float, float, float]:
    """(a, R squared, deviation) of values = c t^-a by least squares in logs.

    The line is fitted to the first half; deviation: the mean of log value over the second half less
    what the line says there. Where convergence goes on as it began it is near 0.
    """
    t, v = np.log(np.asarray(steps, float)), np.log(np.maximum(np.asarray(values, float), 1e-12))
    half = max(2, len(t) // 2)
    slope, at = np.polyfit(t[:half], v[:half], 1)
    whole = np.polyval(np.polyfit(t, v, 1), t)
    spread = ((v - v.mean()) ** 2).sum()
    fit = 1 - ((v - whole) ** 2).sum() / spread if spread > 0 else 1.0
    rest = v[half:] - (slope * t[half:] + at)
    return float(-slope), float(fit), float(rest.mean()) if len(rest) else 0.0


def _follow(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teacher: ModelSpec,
    teacher_data: int,
    teacher_share: float,
    student_share: float,
    prompts: int,
    validation: int,
    length: float,
    points: int,
    temperature: float,
    tolerance: float,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    train, held = texts(task.train, "teacher_hacking"), texts(task.validate, "teacher_hacking")
    oracle = module_of(studio, setting, taught(setting, "teacher_hacking"), seed, "teacher_hacking")
    tuning = picked(train, teacher_data, seeded(seed, "tuning") % 2**31)
    asked = picked(train, prompts, seeded(seed, "prompts") % 2**31)
    unseen = picked(held, validation, seeded(seed, "unseen") % 2**31)
    sampling = answering(task, train, temperature=temperature)
    by = partial(_by, sampling=sampling, seed=seed)
    first = by(oracle, tuning, "oracle on tuning")
    bare = without_teachers(by_perplexity(setting))

    def tuned(name: str, model: ModelSpec, share: float) -> nn.Module:
        stage = Stage(
            name="tune",
            objective=setting.supervised(),
            teacher=None,
            learners=(name,),
            source=lambda play: first,
            share=share,
        )
        recipe = Recipe(
            name=f"teacher_hacking-{name}",
            setting=replace(bare, student=model),
            stages=(stage,),
            judged=name,
        )
        return studio.play(recipe, seed).model

    taught_model = tuned("teacher", teacher, teacher_share)
    start = tuned("student", setting.student, student_share)
    fixed = by(taught_model, asked, "teacher, once")
    device = studio.device
    chain = Chain(
        teacher=_quiet(setting, taught_model.to(device)),
        oracle=_quiet(setting, oracle.to(device)),
        by_teacher=by(taught_model, unseen, "teacher on unseen"),
        by_oracle=by(oracle, unseen, "oracle on unseen"),
        seen=fixed,
    )
    batch = min(setting.budget.batch_size, len(fixed))
    a_pass = -(-len(fixed) // batch)
    updates = setting.budget.updates(lambda _: -(-len(train) // batch))
    epochs = max(points, round(length * updates / a_pass))
    arms = {}
    for arm in ARMS:
        own = replace(
            setting,
            task=replace(task, name=f"{task.name}-{arm}", train=fixed, test=None, judge=chain,
                         metric="perplexity", metrics=()),
            student=start,
            teachers={"teacher": taught_model},
            warm_start=None,
            budget=replace(setting.budget, epochs=epochs, steps=None, batch_size=batch,
                           validate_every=max(1, epochs // points), schedule="constant"),
        )  # fmt: skip
        stage = Stage(
            objective=lm_kd(temperature=1.0),
            loader=None
            if arm == "offline"
            else partial(_online, model=taught_model, prompts=asked, by=by),
        )
        recipe = Recipe(name=f"teacher_hacking-{arm}", setting=own, stages=(stage,))
        arms[arm] = studio.play(recipe, seed).history
    return _told(arms, tolerance)


def _told(arms: dict[str, list[dict[str, Any]]], tolerance: float) -> dict[str, Any]:
    epochs = [float(h["epoch"]) for h in arms["offline"]]
    curves = {
        f"{kind}_{arm}": [h[kind] for h in rows]
        for arm, rows in arms.items()
        for kind in ("proxy", "proxy_seen", "golden")
    }
    figure: dict[str, float] = {}
    for arm in arms:
        seen, golden = curves[f"proxy_seen_{arm}"], curves[f"golden_{arm}"]
        a, fit, off = polynomial(epochs, curves[f"proxy_{arm}"])
        figure |= {
            f"hacking_{arm}": hacking(seen, golden, tolerance=tolerance),
            f"golden_{arm}": golden[-1],
            f"proxy_{arm}": curves[f"proxy_{arm}"][-1],
            f"power_{arm}": a,
            f"power_fit_{arm}": fit,
            f"deviation_{arm}": off,
        }
    figure["detected"] = float(figure["hacking_offline"] > 0)
    return {"figure": figure, "epoch": epochs, **curves}


def _online(play: Any, loader: Loader, *, model: nn.Module, prompts: Texts, by: Any) -> Rewritten:
    if not isinstance(loader, Indexed):
        raise MethodRefused("teacher_hacking needs prompts that are read by index")
    return Rewritten(loader, lambda epoch: by(model, prompts, f"teacher, epoch {epoch}"))


def _by(model: nn.Module, source: Texts, what: str, *, sampling: Sampling, seed: int) -> Texts:
    return written(model, source, sampling, seed=seeded(seed, what), name=what)


def _quiet(setting: Setting, model: nn.Module) -> Say:
    say = saying(setting.call, model, _device(model))

    def said(batch: Batch) -> Any:
        with still(model):
            return say(batch)

    return said


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
