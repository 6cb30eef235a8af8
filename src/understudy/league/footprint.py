"""What an arm costs beyond its time: the memory that one update holds, and what it adds."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from understudy.running import Play, Studio
from understudy.setting import Recipe
from understudy.training.fit import Fit
from understudy.training.randomness import preserved


def footprint(studio: Studio, recipe: Recipe, seed: int) -> dict[str, float]:
    """`peak_mb` and `extra_parameters` of a recipe: the largest of its stages.

    peak_mb: MiB of tensors at the peak of the third update: models, optimiser, objective's parts,
    activations, gradients and temporaries; not what libraries and allocators keep beside them.
    extra_parameters: learned scalars beside the student's own (connectors, assistants, peers).
    The teacher speaks live. Nothing that is trained here is kept.
    """
    aside = Studio(None, device=studio.device)
    aside._tasks, aside._teachers = studio._tasks, studio._teachers
    short = {"steps": 4, "validate_every": 10**9, "validate_steps": None, "patience": None}
    stages = tuple(replace(s, share=1.0, budget={**s.budget, **short}) for s in recipe.stages)
    peak, learned = 0.0, set[nn.Parameter]()
    with preserved():
        play = Play(aside, replace(recipe, stages=stages), seed)
        play.cast()
        for stage in stages:
            if stage.before is not None:
                stage.before(play.models)
            fit = play.begin(stage)
            play.fit, play._teacher_before = fit, 0.0
            updates = fit.updates()
            next(updates)
            next(updates)
            held = Held([*_state(fit), *_state_of(play)])
            with held:
                next(updates)
            updates.close()
            peak = max(peak, held.peak / 2**20)
            groups = [g for o in fit.step.optimizers.values() for g in o.param_groups]
            learned |= {p for g in groups for p in g["params"]}
            play.stage += 1
    extra = learned - set(play.models[recipe.judged].parameters())
    return {"peak_mb": peak, "extra_parameters": float(sum(p.numel() for p in extra))}


class Held(TorchDispatchMode):
    """Bytes of the tensors that are alive, and their peak, while operations run within it."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        for tensor in before:
            self._add(tensor)
        self.now = self.peak = sum(size for _, size in self.live.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and look at what is alive after it."""
        out = func(*args, **(kwargs or {}))
        for key in [k for k, (ref, _) in self.live.items() if ref.expired()]:
            self.now -= self.live.pop(key)[1]
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.now += self._add(leaf)
        self.peak = max(self.peak, self.now)
        return out

    def _add(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        ref = StorageWeakRef(storage)
        if ref.cdata in self.live:
            return 0
        self.live[ref.cdata] = (ref, storage.nbytes())
        return storage.nbytes()


def _state(fit: Fit) -> list[Tensor]:
    """What a stage holds between updates."""
    found: list[Tensor] = []
    for module in fit.algorithm.modules().values():
        found += _tensors(module)
    for optimizer in fit.step.optimizers.values():
        found += [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return found


def _state_of(play: Play) -> list[Tensor]:
    teacher = getattr(play, "_timer", None)
    return [] if teacher is None else [t for m in teacher.modules().values() for t in _tensors(m)]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
