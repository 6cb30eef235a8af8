"""A small robust model teaches a few layers of a large one."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import View
from understudy.errors import MethodRefused
from understudy.evaluation import CORRUPTIONS, corrupted
from understudy.objectives import certain_kd
from understudy.recipes.encoders._studies import all_labels, head, judged
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits
from understudy.signals import Batch, as_call
from understudy.signals.stages import automatic_taps


class PartlyTuned(nn.Module):
    """A model of which the last stage and the head learn; the rest stays, statistics included."""

    def __init__(self, model: nn.Module, example: Batch, call: Any = None) -> None:
        super().__init__()
        self.model = model
        taps = automatic_taps(model, lambda m: as_call(call)(m, example))
        stages = [k for k in taps if k.startswith("stage.")]
        last = taps[max(stages, key=lambda k: int(k.split(".")[1]))] if stages else ""
        own = {id(m) for m in head(model).modules()}
        for name, module in model.named_modules():
            if last and (name == last or name.startswith(f"{last}.")):
                own.add(id(module))
        self.tuned = [n for n, m in model.named_modules() if id(m) in own]
        for name, module in model.named_modules():
            for p in module.parameters(recurse=False):
                p.requires_grad_(name in self.tuned)
        model.eval()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As the model's."""
        return self.model(*inputs, **named)

    def train(self, mode: bool = True) -> "PartlyTuned":
        """Only what is tuned goes into training mode."""
        self.training = mode
        for name, module in self.model.named_modules():
            module.training = mode and name in self.tuned
        return self


class Switch(nn.Module):
    """Of several branches the surest one speaks, sample by sample (least entropy)."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        said = torch.stack([branch(x) for branch in self.branches])  # [B, N, K]
        p = said.softmax(-1)
        unsure = -(p * said.log_softmax(-1)).sum(-1)
        return said[unsure.argmin(0), torch.arange(said.shape[1], device=said.device)]


def robustify(
    setting: Setting | None = None,
    *,
    noise: float = 0.6,
    crop: int = 1,
    erase: int = 3,
    temperature: float = 4.0,
    ce_weight: float = 1.0,
    kd_weight: float = 1.0,
    severity: int = 3,
) -> Recipe:
    """Efficiently Robustify Pre-trained Models.

    A small model is made robust by augmentation, which is cheap, and teaches the last layers of a
    large one on augmented data; a clean branch is kept, and the surer of the two speaks.

    Source: arXiv 2309.07499
    Kind: procedure
    Equation (section 4): robust branch: CE + (1 - u) T^2 KL(p_small || p_large) on augmented samples, u
        the small model's uncertainty; clean branch: the same on clean ones; prediction by
        the branch that is less uncertain
    When: a large model fails under corruptions and may not be trained as a whole.
    Cost: a small model trained with augmentation; two copies of the large model's last stage tuned.
    Defaults: augmentation by shifts, noise and an erased square; T = 4, weights 1.
    Deviations: digits and CNNs in place of ImageNet and CLIP. Uncertainty is the entropy of one
        prediction where the paper samples dropout masks; the choice is between the original, the
        clean and the robust branch. The corruptions that judge (brightness, contrast and blur among
        them) are not all among the augmentations. The large model is the setting's teacher, the
        small one its student.
    Result: robust gain 0.0537 ± 0.0094, clean original 0.994 ± 0.00529, mean original 0.747 ±
        0.0466, clean small 0.925 ± 0.0133, mean small 0.724 ± 0.0424 (3 seeds). See
        docs/results/studies.md.
    """
    setting = setting or digits()
    view = View(crop=crop, noise=noise, erase=erase)
    free = replace(setting.budget, labelled_share=None)

    def study(studio: Any, seed: int) -> dict[str, Any]:
        task = studio.task(setting, seed)
        name = setting.teacher
        if name is None:
            raise MethodRefused("robustify tunes a large model, and the setting has none")
        modules = studio.teacher(setting, name, seed).modules()
        if not modules:
            raise MethodRefused("robustify tunes the large model's layers; a store has none")
        large = next(iter(modules.values()))
        alone = replace(setting, teachers={}, budget=free)
        seen = Stage(objective=setting.supervised(), teacher=None, source=all_labels, view=view)
        small = studio.play(Recipe(name="robustify-small", setting=alone, stages=(seen,)), seed)
        part = PartlyTuned(_copy(large), task.example(2), setting.call)
        own = replace(setting, student=part, teachers={"small": small.model}, budget=free)
        objective = ce_weight * setting.supervised() + kd_weight * certain_kd(temperature)
        branches = {
            "robust": Stage(objective=objective, teacher="small", source=all_labels, view=view),
            "clean": Stage(objective=objective, teacher="small", source=all_labels),
            "untaught": seen,
        }
        played = {
            k: studio.play(Recipe(name=f"robustify-{k}", setting=own, stages=(s,)), seed).model
            for k, s in branches.items()
        }
        models = {
            "original": large,
            "small": small.model,
            "untaught": played["untaught"],
            "robust": played["robust"],
            "switched": Switch(large, played["clean"], played["robust"]).eval(),
        }
        rows = {k: under_corruption(m, judged(task), severity, seed) for k, m in models.items()}
        figure = {f"{kind}_{k}": row[kind] for k, row in rows.items() for kind in ("clean", "mean")}
        gain = rows["switched"]["mean"] - rows["original"]["mean"]
        return {"figure": {"robust_gain": gain, **figure}, "rows": rows}

    return Recipe(name="robustify", setting=setting, kind="procedure", study=study)


@torch.no_grad()
def under_corruption(model: nn.Module, source: Any, severity: int, seed: int) -> dict[str, float]:
    """Accuracy on clean images, under each corruption, and the mean of the latter."""
    batch = source.batch(torch.arange(len(source)))
    x, y = batch.inputs, batch.labels
    model.eval()

    def right(inputs: Tensor) -> float:
        return (model(inputs).argmax(-1) == y).double().mean().item()

    row = {k: right(corrupted(x, k, severity, seed)) for k in CORRUPTIONS}
    return {"clean": right(x), **row, "mean": sum(row.values()) / len(row)}


def _copy(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)
