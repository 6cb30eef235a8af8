"""Batches drawn domain by domain, as often as the student lags behind its teacher there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from understudy.data.loader import Indexed
from understudy.errors import DataError, UserError
from understudy.signals import Batch


def discrepancy(
    ratio: Tensor, before: Tensor | None = None, *, smoothing: float | None = 0.5
) -> Tensor:
    r"""Domain discrepancy factors r [N], which sum to 1 (DDK, arXiv 2407.16154, equations 1, 2).

    ratio [N]: perplexity of the student over that of the teacher, on each domain's validation data.

        r_0[i] = exp(ratio[i]) / sum_j exp(ratio[j])
        r_{t+1}[i] = a psi[i] / sum_j psi[j] + (1 - a) / N,  psi[i] = r_t[i] exp(ratio[i])

    before: r_t; None for the first. smoothing: a; None leaves out the smoothing (equation 1).
    """
    logits = ratio.double() if before is None else before.double().log() + ratio.double()
    share = logits.softmax(0)
    return share if smoothing is None else smoothing * share + (1 - smoothing) / len(share)


class DomainSampling:
    """A loader whose batches hold samples of each domain with probability r[domain].

    r is computed anew from `ratios()` (student's over teacher's perplexity by domain) before the
    first batch and after every `every` batches. A domain's samples are read in a random order, and
    in another one when they are used up. What was drawn is part of `state_dict`: a resume is exact.

    domains: [len(source)] the domain 0 ... N-1 of each sample.
    """

    exact = True

    def __init__(
        self,
        loader: Indexed,
        domains: Tensor,
        ratios: Callable[[], Tensor],
        *,
        every: int,
        smoothing: float = 0.5,
        smooth_first: bool = True,
    ) -> None:
        if every < 1:
            raise UserError(f"factors are computed every 1 or more updates, not every {every}")
        if not 0 <= smoothing <= 1:
            raise UserError(f"the smoothing coefficient lies in [0, 1], not {smoothing}")
        if len(domains) != len(loader.source):
            raise DataError(
                f"{len(domains)} domains for {len(loader.source)} samples; give one each"
            )
        self.loader, self.ratios, self.every = loader, ratios, every
        self.smoothing, self.smooth_first = smoothing, smooth_first
        self.members = [(domains == d).nonzero().flatten() for d in range(int(domains.max()) + 1)]
        if any(len(m) == 0 for m in self.members):
            raise DataError("a domain without a sample: number the domains 0 ... N-1")
        self.drawn = 0
        self.factors: Tensor | None = None
        self.used = torch.zeros(len(self.members), dtype=torch.long)
        self.history: list[list[float]] = []
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def steps(self, epoch: int) -> int:
        """As many as of the plain loader."""
        return self.loader.steps(epoch)

    def example(self) -> Batch:
        """The plain loader's."""
        return self.loader.example()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from where the state stands, each drawn when it is asked for."""
        for _ in range(start, self.steps(epoch)):
            if self.drawn % self.every == 0:
                self._update()
            index = self._draw()
            self.drawn += 1
            yield self._batch(index, epoch)

    def _update(self) -> None:
        first = self.factors is None
        smoothing = None if first and not self.smooth_first else self.smoothing
        self.factors = discrepancy(self.ratios(), self.factors, smoothing=smoothing)
        self.history.append(self.factors.tolist())

    def _draw(self) -> Tensor:
        assert self.factors is not None
        order = self.loader.order
        g = torch.Generator().manual_seed((order.seed * 1_000_003 + self.drawn) & (2**63 - 1))
        which = torch.multinomial(
            self.factors.float(), order.batch_size, replacement=True, generator=g
        )
        rows = torch.empty_like(which)
        for place, domain in enumerate(which.tolist()):
            rows[place] = self._next(domain)
        return rows

    def _next(self, domain: int) -> int:
        members, at = self.members[domain], int(self.used[domain])
        self.used[domain] += 1
        turn, place = divmod(at, len(members))
        if self._orders.get(domain, (-1, members))[0] != turn:
            seed = self.loader.order.seed * 7919 + domain * 104_729 + turn * 1_299_709
            g = torch.Generator().manual_seed(seed & (2**63 - 1))
            self._orders[domain] = turn, members[torch.randperm(len(members), generator=g)]
        return int(self._orders[domain][1][place])

    def _batch(self, index: Tensor, epoch: int) -> Batch:
        plain = self.loader
        batch = plain.source.batch(index[plain.rank :: plain.world]).to(plain.device)
        if plain.view is not None:
            batch = plain.view(batch, seed=plain.order.seed, epoch=epoch)
        return replace(batch, epoch=float(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Factors, and how far each domain was read."""
        return {
            "drawn": self.drawn,
            "factors": self.factors,
            "used": self.used.clone(),
            "history": [list(h) for h in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.drawn, self.factors = state["drawn"], state["factors"]
        self.used, self.history = state["used"].clone(), [list(h) for h in state["history"]]
