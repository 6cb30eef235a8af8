"""Batches in order, from a cursor on: what training reads and a resume continues."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.data.sampling import Order
from understudy.data.sources import Source
from understudy.data.views import ViewFunction
from understudy.errors import DataError
from understudy.signals import Batch, as_batch


class Loader(Protocol):
    """Epochs of batches; `batches(epoch, start)` continues within one."""

    exact: bool

    def steps(self, epoch: int) -> int:
        """Batches in this epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from number `start` on."""
        ...

    def example(self) -> Batch:
        """One batch for a dry run, without moving any cursor."""
        ...


def loader_state(loader: Any) -> dict[str, Any]:
    """What a loader would lose in a restart beyond its cursor; most have nothing."""
    state: Callable[[], dict[str, Any]] | None = getattr(loader, "state_dict", None)
    return {} if state is None else state()


class Indexed:
    """Batches of a `Source` in an `Order`, seen through a view. Its resume is exact at any batch.

    In a run of several processes each takes every world-th sample of the global batch.
    """

    exact = True

    def __init__(
        self,
        source: Source,
        order: Order,
        *,
        view: ViewFunction | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source, self.order, self.view = source, order, view
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self._cached: tuple[int, list[Tensor]] = (-1, [])

    def steps(self, epoch: int) -> int:
        """Batches in this epoch."""
        return len(self._order(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from number `start` on."""
        for index in self._order(epoch)[start:]:
            yield self._batch(index[self.rank :: self.world], epoch)

    def example(self) -> Batch:
        """The first batch of the first epoch."""
        return self._batch(self._order(0)[0][self.rank :: self.world], 0)

    def _order(self, epoch: int) -> list[Tensor]:
        if self._cached[0] != epoch:
            self._cached = (epoch, self.order.batches(epoch))
        return self._cached[1]

    def _batch(self, index: Tensor, epoch: int) -> Batch:
        batch = self.source.batch(index).to(self.device)
        if self.view is not None:
            batch = self.view(batch, seed=self.order.seed, epoch=epoch)
        return replace(batch, epoch=float(epoch))


class Opaque:
    """A user's `DataLoader` (or any iterable of batches), read as it comes.

    Its order depends on the global random state, which is seeded by (seed, epoch) before each
    pass; a resume replays the pass up to the cursor. That is exact where the iterable draws from
    torch's, NumPy's or Python's global generators alone, which cannot be known from outside.
    """

    exact = False

    def __init__(
        self,
        batches: Any,
        *,
        seed: int = 0,
        labels: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not hasattr(batches, "__len__"):
            raise DataError(
                "training data without a length: give a Dataset or a DataLoader, or wrap the "
                "iterable in one with __len__"
            )
        if len(batches) == 0:
            raise DataError("the training loader yields no batch")
        self.loader, self.seed, self.labels = batches, seed, labels
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Samples, where the data set says; else batches."""
        dataset: Any = getattr(self.loader, "dataset", None)
        return len(dataset) if hasattr(dataset, "__len__") else len(self.loader)

    @property
    def labelled(self) -> Tensor:
        """Which samples of the first batch have a label."""
        return self.example().labelled

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch; those before `start` are drawn and left out."""
        with _seeded(self.seed, epoch):
            iterator = iter(self.loader)
        number = 0
        while True:
            with _seeded(self.seed, epoch, number + 1):
                raw = next(iterator, None)
            if raw is None:
                return
            if number >= start:
                batch = as_batch(raw, labels=self.labels).to(self.device)
                yield replace(batch, epoch=float(epoch))
            number += 1

    def example(self) -> Batch:
        """The first batch, drawn aside."""
        return next(self.batches(0))


class _seeded:  # noqa: N801
    """Random state seeded by the parts inside the block, and left as found after it."""

    def __init__(self, *parts: int) -> None:
        self.seed = hash(parts) & 0x7FFFFFFF

    def __enter__(self) -> None:
        import random

        import numpy as np

        self.state = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        import random

        import numpy as np

        random.setstate(self.state[0])
        np.random.set_state(self.state[1])
        torch.set_rng_state(self.state[2])
