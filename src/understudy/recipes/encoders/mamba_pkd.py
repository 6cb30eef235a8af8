"""Mamba PKD: Mamba students of growing size, added up until they match the teacher."""

from dataclasses import replace
from typing import Any

import torch

from understudy.evaluation import evaluate
from understudy.evaluation.cost import flops
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def mamba_pkd(
    setting: Setting | None = None,
    *,
    widths: tuple[int, ...] = (4, 8, 12, 16, 24, 32),
    depth: int = 2,
    patch: int = 2,
    state: int = 8,
    temperature: float = 4.0,
    hard_share: float = 0.1,
    margin: float = 0.01,
) -> Recipe:
    """Mamba base PKD for efficient knowledge compression.

    The teacher is distilled into a row of Mamba students of growing size; each is a weak learner,
    and they are added to a committee until it reaches the teacher's accuracy.

    Source: arXiv 2503.01727
    Kind: procedure
    Equation (sec. 3): L = alpha L_hard + (1 - alpha) L_soft for each student; the committee speaks
        with the mean of its members' softened outputs
    When: a model that answers with as much computation as a request is worth: any prefix of the
        committee can be used.
    Cost: every student is trained by KD for the setting's budget; inference of a prefix costs the sum
        of its members.
    Defaults: six students of widths 4 to 32 with 2 selective-state-space blocks; alpha = 0.1, T = 4;
        growth ends within 0.01 of the teacher's accuracy on the validation split.
    Deviations: digits in place of MNIST and CIFAR-10, six students in place of seven; students are
        trained by themselves and averaged with equal weights. Where growth ends is chosen on the
        validation split; figures are those of the test split. FLOPs count matrix products and
        convolutions, not the scan itself.
    Result: teacher 0.994 ± 0.00529, committee 0.973 ± 0.011, members 6 ± 0, flops share 1.01 ± 0,
        weakest 0.427 ± 0.143 (3 seeds). See docs/results/studies.md.
    """
    setting = setting or digits()

    def study(studio: Any, seed: int) -> dict[str, Any]:
        task = studio.task(setting, seed)
        heard = {p: studio.heard(setting, seed, p) for p in ("validate", "test")}
        part = "test" if task.test is not None else "validate"
        members: list[Any] = []
        rows: list[dict[str, float]] = []
        said: dict[str, list[torch.Tensor]] = {"validate": [], part: []}
        sources = {"validate": task.validate, part: getattr(task, part)}
        example = task.example(1)
        teacher = studio.teacher(setting, setting.teacher or "teacher", seed)
        (model,) = teacher.modules().values()
        whole = flops(model, lambda m: m(example.inputs))
        goals = {p: _accuracy(heard[p], s, task) for p, s in sources.items()}
        for number, width in enumerate(widths, 1):
            result = studio.play(
                _member(setting, width, depth, patch, state, temperature, hard_share), seed
            )
            members.append(result.model)
            for p, source in sources.items():
                said[p].append(_probabilities(result.model, source))
            row = {"members": float(number), "width": float(width)}
            row["flops_share"] = (
                sum(flops(m, lambda net: net(example.inputs)) for m in members) / whole
            )
            for p, source in sources.items():
                row[f"alone_{p}"] = _accuracy(said[p][-1].log(), source, task)
                row[f"committee_{p}"] = _accuracy(torch.stack(said[p]).mean(0).log(), source, task)
            rows.append(row)
            if row["committee_validate"] >= goals["validate"] - margin:
                break
        last = rows[-1]
        figure = {
            "teacher": goals[part],
            "committee": last[f"committee_{part}"],
            "members": last["members"],
            "flops_share": last["flops_share"],
            "weakest": rows[0][f"alone_{part}"],
            "weakest_flops_share": rows[0]["flops_share"],
        }
        return {"figure": figure, "rows": rows}

    return Recipe(name="mamba_pkd", setting=setting, kind="procedure", study=study)


def _member(
    setting: Setting,
    width: int,
    depth: int,
    patch: int,
    state: int,
    temperature: float,
    hard_share: float,
) -> Recipe:
    spec = f"mamba:patch={patch},width={width},depth={depth},state={state}"
    soft = (1 - hard_share) * setting.softened(temperature)
    stage = Stage(objective=hard_share * setting.supervised() + soft)
    own = replace(setting, student=spec)
    return Recipe(name=f"mamba_pkd-{width}", setting=own, stages=(stage,))


def _probabilities(model: torch.nn.Module, source: Any) -> torch.Tensor:
    from understudy.training.predict import predict

    return predict(model, source)[0].softmax(-1)


def _accuracy(logits: torch.Tensor, source: Any, task: Any) -> float:
    labels = source.batch(torch.arange(len(source))).labels
    return evaluate(logits, labels, kind=task.kind, metrics=("accuracy",))["accuracy"]
