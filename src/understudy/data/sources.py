"""Where samples come from: arrays in memory, or any map-style data set, by index."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from understudy.errors import DataError
from understudy.signals import IGNORE, Batch, as_batch
from understudy.store import data_fingerprint, identify


@runtime_checkable
class Source(Protocol):
    """Samples by index. `batch(index)` gives those samples as a `Batch` that carries the index."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """The samples `index` [N] int64."""
        ...

    @property
    def labelled(self) -> Tensor:
        """Bool [len]: which samples carry a label."""
        ...


class Arrays:
    """Samples held as arrays: inputs [N, ...] (or a mapping of such), labels [N, ...] or None.

    `ids` are the samples' numbers in the data set they come from (0 ... N-1 unless given); they
    key stored signals, so a subset keeps those of its parent.
    """

    def __init__(
        self,
        inputs: Any,
        labels: Any = None,
        *,
        ids: Any = None,
        check: bool = True,
        name: str = "data",
    ) -> None:
        self.inputs = _tensors(inputs)
        first = next(iter(self.inputs.values())) if isinstance(self.inputs, dict) else self.inputs
        self.labels = (
            None
            if labels is None
            else torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels)
        )
        if self.labels is not None and self.labels.dtype == torch.int32:
            self.labels = self.labels.long()
        if self.labels is not None and self.labels.dtype == torch.float64:
            self.labels = self.labels.float()
        self.ids = torch.arange(len(first)) if ids is None else torch.as_tensor(ids).long()
        self.name = name
        if check:
            self._check(first)

    def _check(self, first: Tensor) -> None:
        if len(first) == 0:
            raise DataError(f"{self.name} is empty; it needs at least one sample")
        if self.labels is not None and len(self.labels) != len(first):
            raise DataError(
                f"{self.name} has {len(first)} inputs and {len(self.labels)} labels; give one each"
            )
        tensors = self.inputs if isinstance(self.inputs, dict) else {"inputs": self.inputs}
        for key, t in tensors.items():
            if len(t) != len(first):
                raise DataError(f"{self.name}: {key} has {len(t)} rows, others {len(first)}")
            if t.dtype.is_floating_point:
                bad = ~torch.isfinite(t.flatten(1) if t.ndim > 1 else t[:, None]).all(-1)
                if bool(bad.any()):
                    row = int(bad.nonzero()[0])
                    raise DataError(
                        f"{self.name}: {key} of sample {int(self.ids[row])} is not finite "
                        f"({int(bad.sum())} such samples); clean or drop them"
                    )

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Tensor) -> Batch:
        """Samples at positions `index`, as one gather."""
        if isinstance(self.inputs, dict):
            inputs: Any = {k: v[index] for k, v in self.inputs.items()}
        else:
            inputs = self.inputs[index]
        labels = None if self.labels is None else self.labels[index]
        return Batch(inputs=inputs, labels=labels, index=self.ids[index])

    @property
    def labelled(self) -> Tensor:
        """Which samples have a label."""
        if self.labels is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return Batch(inputs=self.labels, labels=self.labels).labelled

    def subset(
        self, rows: Tensor, *, keep_labels: bool = True, name: str | None = None
    ) -> "Arrays":
        """The samples at `rows`; with `keep_labels=False` they become unlabelled transfer data."""
        inputs = (
            {k: v[rows] for k, v in self.inputs.items()}
            if isinstance(self.inputs, dict)
            else self.inputs[rows]
        )
        labels = self.labels[rows] if self.labels is not None and keep_labels else None
        return Arrays(inputs, labels, ids=self.ids[rows], name=name or self.name)

    def to(self, device: torch.device | str) -> "Arrays":
        """All arrays on a device, so that no batch is copied."""
        inputs = (
            {k: v.to(device) for k, v in self.inputs.items()}
            if isinstance(self.inputs, dict)
            else self.inputs.to(device)
        )
        labels = None if self.labels is None else self.labels.to(device)
        return Arrays(inputs, labels, ids=self.ids.to(device), check=False, name=self.name)


class Mapped:
    """Any map-style data set (`__len__`, `__getitem__`), collated by torch or `collate`."""

    def __init__(
        self,
        dataset: Any,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        labels: str | None = None,
        name: str = "data",
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"{name} is empty; it needs at least one sample")
        self.dataset, self.name, self.label_key = dataset, name, labels
        self.collate = collate or torch.utils.data.default_collate
        self._labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index`, fetched one by one and collated."""
        from dataclasses import replace

        if hasattr(self.dataset, "__getitems__"):
            samples = self.dataset.__getitems__(index.tolist())
        else:
            samples = [self.dataset[int(i)] for i in index]
        return replace(as_batch(self.collate(samples), labels=self.label_key), index=index)

    @property
    def labelled(self) -> Tensor:
        """Which samples have a label; read once, by fetching every sample where it must."""
        if self._labelled is None:
            parts = [self.batch(i).labelled for i in torch.arange(len(self)).split(256)]
            self._labelled = torch.cat(parts)
        return self._labelled


class Joined:
    """Several sources one after another; where one has no labels, its samples are `IGNORE`d."""

    def __init__(self, *sources: Source) -> None:
        self.sources = sources
        self.edges = np.cumsum([0, *[len(s) for s in sources]])

    def __len__(self) -> int:
        return int(self.edges[-1])

    @property
    def labelled(self) -> Tensor:
        """Which samples have a label."""
        return torch.cat([s.labelled for s in self.sources])

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index`, in its order."""
        which = torch.bucketize(index, torch.as_tensor(self.edges[1:]), right=True)
        parts, places = [], []
        for k, source in enumerate(self.sources):
            place = (which == k).nonzero().flatten()
            if len(place):
                parts.append(source.batch(index[place] - int(self.edges[k])))
                places.append(place)
        like = next((p.labels for p in parts if p.labels is not None), None)
        order = torch.cat(places).argsort()
        joined = joined_batches([_with_labels(p, like) for p in parts])
        return joined.rows(order)


class Subset:
    """Some samples of a source, under their own numbers."""

    def __init__(self, source: Source, rows: Tensor) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index` of the subset."""
        return self.source.batch(self.rows[index])

    @property
    def labelled(self) -> Tensor:
        """Which samples have a label."""
        return self.source.labelled[self.rows]


def as_source(data: Any, *, name: str = "data", labels: str | None = None) -> Source:
    """A user's data as a `Source`: (inputs, labels), a tensor, a torch data set, or a `Source`.

    A `DataLoader` is not one: it has its own order, and is read as it comes (`training.loader`).
    """
    if isinstance(data, Arrays | Mapped | Joined):
        return data
    if isinstance(data, Tensor | np.ndarray):
        return Arrays(data, name=name)
    if isinstance(data, torch.utils.data.TensorDataset) and len(data.tensors) <= 2:
        tensors: list[Tensor] = list(data.tensors)
        inputs, *rest = tensors
        return Arrays(inputs, rest[0] if rest else None, name=name)
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(d, "shape") for d in data):
        return Arrays(data[0], data[1], name=name)
    if isinstance(data, Mapping) and all(isinstance(v, Tensor | np.ndarray) for v in data.values()):
        batch = as_batch({k: torch.as_tensor(v) for k, v in data.items()}, labels=labels)
        return Arrays(batch.inputs, batch.labels, name=name)
    if (
        hasattr(data, "__len__")
        and hasattr(data, "__getitem__")
        and not isinstance(data, str | Mapping)
    ):
        return Mapped(data, labels=labels, name=name)
    if isinstance(data, Source):
        return data
    raise DataError(
        f"{name} of type {type(data).__name__} cannot be read by index; give (inputs, labels), a "
        "torch Dataset with a length, or a DataLoader"
    )


def fingerprint(source: Source) -> str:
    """sha256 over all samples' ids and contents (inputs, not labels), in any order."""
    return data_fingerprint(*identify(source))


def check_labels(source: Source, kind: str, classes: int, *, name: str = "train") -> None:
    """Refuse labels out of range or of another form than the task's, naming the first."""
    labels = getattr(source, "labels", None)
    if kind == "language" and hasattr(source, "flat"):
        labels = source.flat  # pyright: ignore[reportAttributeAccessIssue]
    if labels is None:
        if not hasattr(source, "batch"):
            return
        labels = torch.cat(
            [
                b.labels
                for i in torch.arange(len(source)).split(256)
                if (b := source.batch(i)).labels is not None
            ]
            or [torch.empty(0, dtype=torch.long)]
        )
    if kind == "language":
        bad = ((labels < 0) & (labels != IGNORE)) | (labels >= classes)
        if bool(bad.any()):
            raise DataError(
                f"{name}: token {int(labels[bad][0])} is outside the vocabulary of {classes}; the "
                "text was made with another tokenizer than the models'"
            )
    elif kind == "single":
        if labels.dtype.is_floating_point or labels.ndim > 1:
            raise DataError(
                f"{name}: labels {str(labels.dtype).removeprefix('torch.')} "
                f"{tuple(labels.shape)} are no class ids; for real or multi-label targets say so "
                "(kind='regression' or 'multi')"
            )
        bad = ((labels < 0) & (labels != IGNORE)) | (labels >= classes)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise DataError(
                f"{name}: label {int(labels[row])} of sample {row} is out of range; "
                f"the models have {classes} classes (0 to {classes - 1})"
            )
    elif kind == "multi" and (labels.ndim != 2 or labels.shape[1] != classes):
        raise DataError(
            f"{name}: multi-label targets are [N, {classes}] of 0 and 1, not {tuple(labels.shape)}"
        )


def _tensors(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {k: _tensors(v) for k, v in inputs.items()}
    t = inputs if isinstance(inputs, Tensor) else torch.as_tensor(np.asarray(inputs))
    return t.float() if t.dtype == torch.float64 else t


def _with_labels(batch: Batch, like: Tensor | None) -> Batch:
    from dataclasses import replace

    if batch.labels is not None or like is None:
        return batch
    fill = float("nan") if like.dtype.is_floating_point else IGNORE
    shape = (len(batch), *like.shape[1:])
    return replace(batch, labels=torch.full(shape, fill, dtype=like.dtype, device=like.device))


def joined_batches(parts: Sequence[Batch]) -> Batch:
    """Batches one after another as one."""

    def cat(values: Sequence[Any]) -> Any:
        if values[0] is None:
            return None
        if isinstance(values[0], Mapping):
            return {k: cat([v[k] for v in values]) for k in values[0]}
        if isinstance(values[0], tuple | list):
            return type(values[0])(cat(list(v)) for v in zip(*values, strict=True))
        return torch.cat(list(values))

    fields = ("inputs", "labels", "index", "mask", "weights")
    return Batch(**{f: cat([getattr(p, f) for p in parts]) for f in fields})
