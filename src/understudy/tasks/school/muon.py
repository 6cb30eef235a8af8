"""Muon for the matrices inside a model, Adam for the rest: one optimiser, one state."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the quintic iteration; they bring singular values near 1, not to it."""


class MuonAdam(torch.optim.Optimizer):
    """Muon on 2-d parameters whose first size is not `vocabulary`, Adam on all others.

    Muon: m = mu m + g;  u = orthogonalise(g + mu m);  p -= lr sqrt(max(1, rows / columns)) u.
    Orthogonalise: five steps of X = a X + (b A + c A A) X with A = X X^T, from X = u / |u|;
    matrices of one shape go through it together.

    lr, momentum: of Muon; adam_lr, betas: of Adam, without weight decay either. Source: Jordan et
    al., "Muon: an optimizer for hidden layers in neural networks" (2024); arXiv 2502.16982.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        vocabulary: int,
        lr: float = 0.02,
        momentum: float = 0.95,
        adam_lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        parameters = [p for g in groups for p in g["params"]]
        inner = [p for p in parameters if p.ndim == 2 and p.shape[0] != vocabulary]
        chosen = {id(p) for p in inner}
        outer = [p for p in parameters if id(p) not in chosen]
        own: list[dict[str, Any]] = []
        if inner:
            own.append({"params": inner, "muon": True, "lr": lr, "momentum": momentum})
        if outer:
            own.append({"params": outer, "muon": False, "lr": adam_lr, "betas": betas, "eps": eps})
        super().__init__(own, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            live = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                self._muon(live, group)
            else:
                self._adam(live, group)

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in parameters:
            alike[p.shape].append(p)
        for shape, same in alike.items():
            updates = []
            for p in same:
                assert p.grad is not None
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                updates.append(p.grad.add(m, alpha=group["momentum"]))
            whole = orthogonalise(torch.stack(updates))
            scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(same, whole, strict=True):
                p.add_(u, alpha=-scale)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if "step" not in state:
                state["step"] = 0
                state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            mean = state["mean"].lerp_(p.grad, 1 - first)
            square = state["square"].lerp_(p.grad.square(), 1 - second)
            unbiased = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
            p.addcdiv_(mean, unbiased, value=-group["lr"] / (1 - first ** state["step"]))


@dataclass(frozen=True, kw_only=True)
class Muon:
    """`Budget.optimizer` of this world: `MuonAdam` over groups of parameters."""

    lr: float = 0.015
    adam_lr: float = 3e-3

    def __call__(self, groups: list[dict[str, Any]]) -> MuonAdam:
        """An optimiser of these groups."""
        from understudy.tasks.school.tokens import SIZE

        return MuonAdam(groups, vocabulary=SIZE, lr=self.lr, adam_lr=self.adam_lr)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """[N, r, c] -> nearly U V^T of each matrix's singular value decomposition."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = _A * x + (_B * a + _C * (a @ a)) @ x
    return x if wide else x.mT
