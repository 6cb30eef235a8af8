"""How closely a student follows its teacher, against the data it is distilled on."""

from dataclasses import replace
from functools import partial
from typing import Any

from understudy.data import View
from understudy.recipes.encoders._studies import first_rows, teacher_model
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def fidelity(
    setting: Setting | None = None,
    *,
    samples: tuple[int, ...] = (50, 200, 997),
    temperature: float = 4.0,
    crop: int = 1,
    noise: float = 0.3,
) -> Recipe:
    """Does Knowledge Distillation Really Work?.

    Distils, without labels, on ever more samples and under augmentation, into the student and into
    a network of the teacher's own form, and measures how far each still is from the teacher.

    Source: arXiv 2106.05945
    Kind: measurement
    Equation (3, 4): agreement = 1/n sum 1[argmax s_i = argmax t_i]; predictive KL = 1/n sum
        KL(p_t(x_i) || p_s(x_i)), on held-out data
    When: the student has to stand in for this teacher, not only to be right: is it capacity, data or
        optimisation that keeps it away?
    Cost: a student for each number of samples, and three more.
    Defaults: KD at T = 4 alone; views: shifts by a pixel, Gaussian noise of 0.3.
    Deviations: digits in place of CIFAR-100; every arm makes the same number of updates. Of the
        paper's augmentations shifts and noise are here (mixup, synthetic images are not).
    Result: agreement gain 0.132 ± 0.0251, agreement n50 0.852 ± 0.028, kl n50 0.427 ± 0.0578,
        agreement n200 0.962 ± 0.002, kl n200 0.112 ± 0.00521 (3 seeds). See
        docs/results/studies.md.
    """
    setting = setting or digits()

    def arm(name: str, n: int, view: View | None = None, model: Any = None) -> Recipe:
        stage = Stage(
            objective=setting.softened(temperature),
            source=partial(first_rows, n=n),
            view=view,
            budget={"labelled_share": None},
        )
        own = setting if model is None else replace(setting, student=model)
        return Recipe(name=f"fidelity-{name}", setting=own, stages=(stage,))

    def study(studio: Any, seed: int) -> dict[str, Any]:
        whole = len(studio.task(setting, seed).train)
        numbers = sorted({min(n, whole) for n in samples})
        arms = {f"n{n}": arm(f"n{n}", n) for n in numbers}
        arms["shift"] = arm("shift", whole, View(crop=crop))
        arms["noise"] = arm("noise", whole, View(noise=noise))
        arms["self"] = arm("self", whole, model=teacher_model(setting))
        rows = {name: studio.play(a, seed).last for name, a in arms.items()}
        few, many = rows[f"n{numbers[0]}"], rows[f"n{numbers[-1]}"]
        figure = {f"{m}_{name}": row[m] for name, row in rows.items() for m in ("agreement", "kl")}
        return {
            "figure": {"agreement_gain": many["agreement"] - few["agreement"], **figure},
            "samples": numbers,
            "agreement": [rows[f"n{n}"]["agreement"] for n in numbers],
            "kl": [rows[f"n{n}"]["kl"] for n in numbers],
            "accuracy": [rows[f"n{n}"]["accuracy"] for n in numbers],
            "rows": {name: dict(row) for name, row in rows.items()},
        }

    return Recipe(name="fidelity", setting=setting, kind="measurement", study=study)
