"""The step: backward, accumulation, clipping, mixed precision and the finite check, once."""

import math
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from understudy.errors import DeadTerm, NotFinite
from understudy.objectives import Term
from understudy.objectives.gather import processes
from understudy.signals import Batch
from understudy.training.budget import Budget
from understudy.training.distribution import (
    agreed,
    average_gradients,
    gradient_norm,
    is_sharded,
    rank,
)

PROBE_EVERY, PROBES = 25, 4
"""A term whose gradient is zero at this many probes in a row, so many updates apart, is dead. While
all terms are alive they are probed less often: four times as far apart, up to 16 times."""


class Stepper:
    """What training hands an algorithm. It owns the optimisers and the only division of a loss.

    The divisor of each term is its count over the whole batch: all microbatches, all processes;
    so accumulation, ragged batches and several processes give the gradients of one big batch.
    """

    def __init__(
        self, optimizers: dict[str, torch.optim.Optimizer], budget: Budget, device: torch.device
    ) -> None:
        self.optimizers, self.budget, self.device = optimizers, budget, device
        self.base = {
            name: [g.get("lr", budget.lr) for g in o.param_groups] for name, o in optimizers.items()
        }
        self.scaler = torch.amp.GradScaler(device.type, enabled=budget.precision == "fp16")
        self.number = 0
        self.zero_probes: dict[str, int] = defaultdict(int)
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.batch: Batch | None = None
        self.divisors: dict[int, Tensor] = {}
        self.last = True
        self.pending: list[tuple[list[str], Tensor, Batch | None]] = []
        self.scaled = False

    def optimizer(self, name: str = "student") -> torch.optim.Optimizer:
        """The optimiser of that name."""
        return self.optimizers[name]

    def begin(self, micro: Batch, divisors: dict[int, Tensor], *, last: bool) -> None:
        """Announce the next microbatch, and the counts of the whole batch."""
        self.batch, self.divisors, self.last = micro, divisors, last

    def end(self) -> None:
        """The batch is done: all its updates are made."""
        self.number += 1
        self.pending.clear()
        if self.scaled:
            self.scaler.update()
            self.scaled = False

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that models run in."""
        if self.budget.precision == "fp32":
            return nullcontext()
        dtype = torch.float16 if self.budget.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype)

    def __call__(
        self,
        loss: list[Term] | Tensor,
        optimizer: str = "student",
        *,
        apply: bool = True,
        retain_graph: bool = False,
    ) -> None:
        """Backward of the terms' weighted means, then the named optimiser's update.

        `apply=False` leaves the gradients (averaged over processes); within an accumulated batch
        only the last microbatch updates. That all terms and gradients are finite is looked at just
        before an update, where an accelerator has to be waited for anyway.
        """
        terms: list[Term | Tensor] = [loss] if isinstance(loss, Tensor) else list(loss)
        self._remember(terms)
        if self._probing():
            self._probe([t for t in terms if isinstance(t, Term)])
        value = sum((self._share(t) for t in terms), start=torch.zeros((), device=self.device))
        if not value.requires_grad:
            names = ", ".join(t.name for t in terms if isinstance(t, Term))
            raise DeadTerm(f"no gradient reaches the student from {names}; is it frozen?")
        # gradients are averaged over processes, and the divisor is already global
        value = value if processes() == 1 else value * processes()
        self.scaler.scale(value).backward(retain_graph=retain_graph)
        if apply and self.last:
            self._apply(optimizer)
        elif not apply:
            average_gradients(self._parameters(optimizer))

    def rates(self, done: int, total: int, epoch: float) -> float:
        """Set every optimiser's learning rate for the coming update; returns the factor."""
        factor = self.budget.rate(done, total, epoch)
        for name, o in self.optimizers.items():
            for group, base in zip(o.param_groups, self.base[name], strict=True):
                group["lr"] = base * factor
        return factor

    def logged(self) -> dict[str, float]:
        """Mean of each term since last asked, over all processes."""
        found = {n: float(t) / (float(c) or 1.0) for n, (t, c) in self._sums().items()}
        self.sums = {}
        return found

    def _sums(self) -> dict[str, tuple[Tensor, Tensor]]:
        if processes() == 1 or not self.sums:
            return self.sums
        both = torch.stack([torch.stack([t.float(), c.to(t)]) for t, c in self.sums.values()])
        dist.all_reduce(both)
        return {name: (row[0], row[1]) for name, row in zip(self.sums, both, strict=True)}

    def _share(self, term: Term | Tensor) -> Tensor:
        if isinstance(term, Tensor):
            return term
        name, weight, (total, count) = term.name, term.weight, term.sum
        divisor = self.divisors.get(id(term.objective))
        divisor = count if divisor is None else divisor
        old = self.sums.get(name)
        t, c = total.detach(), count.detach()
        self.sums[name] = (t, c) if old is None else (old[0] + t, old[1] + c)
        divisor = divisor.to(total.device)
        # class weights may sum to less than one; only where nothing counts is there no division
        return weight * total / torch.where(divisor > 0, divisor, 1.0)

    def _remember(self, terms: list[Term | Tensor]) -> None:
        """What has to be finite before anything is updated."""
        if not terms:
            return
        names = [t.name if isinstance(t, Term) else "loss" for t in terms]
        totals = [t.sum.total if isinstance(t, Term) else t for t in terms]
        said = torch.stack([t.detach().reshape(()).to(self.device).float() for t in totals])
        self.pending.append((names, said, self.batch))

    def _check_finite(self, norm: Tensor) -> bool:
        """Whether the gradient is; a term that is not stops the run, in all processes alike."""
        seen = torch.cat([*(said for _, said, _ in self.pending), norm.float().reshape(1)])
        good = bool(seen.isfinite().all())
        if not agreed([not good], self.device)[0]:
            return True
        bad = agreed((~seen.isfinite()).tolist(), self.device)
        for names, said, batch in self.pending:
            for name, value in zip(names, said.tolist(), strict=True):
                if bad.pop(0):
                    where = "" if math.isfinite(value) else self._samples(batch)
                    raise NotFinite(
                        f"{self._where()}: the term {name!r} is not finite{where}; "
                        "nothing was updated or saved; lower lr, or look at these samples"
                    )
        return False

    def _apply(self, name: str) -> None:
        optimizer = self.optimizers[name]
        parameters = self._parameters(name)
        average_gradients(parameters)
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
            self.scaled = True
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = gradient_norm(grads).to(self.device)
        if self._check_finite(norm):
            if self.budget.clip is not None:
                _scale(grads, self.budget.clip / (float(norm) + 1e-6))
        elif not self.scaler.is_enabled():  # which leaves such an update out, and scales less
            raise NotFinite(
                f"{self._where()}: the gradient is not finite{self._samples(self.batch)}; nothing "
                "was updated or saved; lower lr, or clip it"
            )
        self.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)

    def _parameters(self, optimizer: str) -> list[Tensor]:
        return [p for g in self.optimizers[optimizer].param_groups for p in g["params"]]

    def _probing(self) -> bool:
        probes, rest = divmod(self.number + 1, PROBE_EVERY)
        due = probes in (1, 4) or probes % 16 == 0 or any(self.zero_probes.values())
        return self.last and not rest and due

    def _probe(self, terms: list[Term]) -> None:
        """Whether each term moves anything, in any process."""
        asked = [t for t in terms if not t.objective.may_vanish and t.weight and self._counted(t)]
        alive = agreed([_moves(t) for t in asked], self.device) if asked else []
        for term, moves in zip(asked, alive, strict=True):
            self.zero_probes[term.name] = 0 if moves else self.zero_probes[term.name] + 1
            if self.zero_probes[term.name] >= PROBES:
                raise DeadTerm(
                    f"{self._where()}: the term {term.name!r} has had no gradient for "
                    f"{PROBES * PROBE_EVERY} updates; it teaches nothing. Remove it, change its "
                    "taps, or declare may_vanish=True on the objective"
                )

    def _counted(self, term: Term) -> bool:
        """Whether the batch has anything for the term; in all processes alike."""
        found = term.sum.count if processes() == 1 else self.divisors.get(id(term.objective), 1)
        return bool(found > 0)

    def _where(self) -> str:
        return f"update {self.number + 1}"

    def _samples(self, batch: Batch | None) -> str:
        if batch is None or batch.index is None or not len(batch):
            return ""
        ids = batch.index.flatten()[:8].tolist()
        more = " ..." if len(batch) > 8 else ""
        return f" on samples {', '.join(map(str, ids))}{more}"

    def state_dict(self) -> dict[str, Any]:
        """Loss scale, probes and running means (optimisers are saved beside)."""
        return {
            "number": self.number,
            "scaler": self.scaler.state_dict(),
            "probes": dict(self.zero_probes),
            "sums": {k: list(v) for k, v in self._sums().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back."""
        self.number = state["number"]
        self.scaler.load_state_dict(state["scaler"])
        self.zero_probes = defaultdict(int, state["probes"])
        mine = 1 if rank() == 0 else 0  # they were saved as sums over all processes
        self.sums = {k: (mine * v[0], mine * v[1]) for k, v in state["sums"].items()}


def _scale(grads: list[Tensor], factor: float) -> None:
    if factor >= 1:
        return
    for kind in ([g for g in grads if is_sharded(g)], [g for g in grads if not is_sharded(g)]):
        if kind:
            torch._foreach_mul_(kind, factor)


def _moves(term: Term) -> bool:
    """Whether a term has a gradient: at what the student said, which is near; else at any leaf.

    The logits first, then features from the last to the first, each by itself: an early one is
    reached only through the student's layers, at the cost of most of a backward pass.
    """
    total = term.sum.total
    if not total.requires_grad:
        return False
    near = [*term.said[:1], *reversed(term.said[1:])]
    return any(_nonzero(total, [place]) for place in near) or _nonzero(total, _leaves(total))


def _nonzero(total: Tensor, places: list[Tensor]) -> bool:
    if not places:
        return False
    grads = torch.autograd.grad(total, places, retain_graph=True, allow_unused=True)
    return any(g is not None and bool((g != 0).any()) for g in grads)


def _leaves(total: Tensor) -> list[Tensor]:
    """The leaves of the graph of `total`, but parameters of a sharded model.

    Those are there only during torch's own backward pass.
    """
    found: list[Tensor] = []
    stack, seen = [total.grad_fn], set[Any]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and variable.untyped_storage().size():
            found.append(variable)
        stack.extend(next_ for next_, _ in node.next_functions)
    return found


def global_counts(counts: dict[int, Tensor]) -> dict[int, Tensor]:
    """Counts added over all processes."""
    if processes() == 1 or not counts:
        return counts
    stacked = torch.stack([c.float() for c in counts.values()])
    dist.all_reduce(stacked)
    return dict(zip(counts, stacked.unbind(), strict=True))
