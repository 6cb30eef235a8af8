"""Running a teacher once over data, and keeping what it says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives import Needs
from understudy.signals import Batch, Signals, content_hashes
from understudy.store import SignalStore, SignalWriter, describe, identify
from understudy.store.layout import dtype_named, pack
from understudy.store.writer import SHARD_ROWS
from understudy.teachers.base import Teacher, fingerprint_of
from understudy.teachers.convert import as_teacher


def write_signals(
    teacher: Any,
    source: Any,
    path: str | PathLike[str],
    *,
    view: Callable[..., Batch] | None = None,
    seed: int = 0,
    epochs: int | None = None,
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    top_k: int | None = None,
    tail: Literal["uniform", "renormalise"] = "uniform",
    taps: Sequence[str] = (),
    others: Sequence[str] = (),
    batch_size: int = 256,
    shard: tuple[int, int] = (0, 1),
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> SignalStore | None:
    """Write what a teacher says about every sample of a source; goes on where it was stopped.

    Args:
        teacher: a `Teacher`, a module, or a list of such (see `as_teacher`).
        source: a `data.Source`: `len(source)`, `source.batch(index)`.
        path: the store's folder.
        view: `view(batch, seed=, epoch=)`, as the loader calls it; None shows samples as they are.
        seed: seed of the view; the student must train with the same.
        epochs: store the views of epochs 0 ... epochs - 1, each; None for a view that never
            changes (that is tried on the first samples).
        dtype: of logits and features. fp16 and bf16 halve the bytes.
        top_k: keep only the k largest log-probabilities, with `tail` saying what the rest is.
        taps: features to store too; others: names in `Signals.others` to store too.
        batch_size: samples a forward pass. Other sizes may change last bits: matrix libraries sum
            in another order.
        shard: (i, n): this process writes shards i, i + n, ...; n processes share one folder.
        shard_rows: rows a shard, the most that a kill can lose.
        progress: called with (rows done, rows in all) after each batch.

    Returns:
        The store, or None while shards of other workers are missing.

    Raises:
        CheckpointError: other signals are at `path`, or the disk is full or not writable.
        UserError: a view that changes without `epochs`, a bad dtype, k or shard.
    """
    part, of = shard
    if not (of >= 1 and 0 <= part < of):
        raise UserError(f"shard is (i, n) with 0 <= i < n, not {shard}")
    if batch_size < 1 or shard_rows < 1 or (epochs is not None and epochs < 1):
        raise UserError("batch_size, shard_rows and epochs are at least 1")
    number_type, teacher = dtype_named(dtype), as_teacher(teacher)
    first = source.batch(torch.arange(min(2, len(source))))
    if epochs is None and view is not None and _changes(view, first, seed):
        raise UserError(
            "this view shows a sample otherwise in each epoch, so one signal cannot serve them "
            "all: give epochs=N to store the views of N epochs, or a fixed view"
        )
    ids, contents = identify(source)
    settings = {
        "dtype": dtype,
        "top_k": top_k,
        "tail": tail if top_k is not None else None,
        "taps": list(taps),
        "others": list(others),
    }
    writer = SignalWriter.create(
        Path(path),
        teacher=fingerprint_of(teacher),
        view=view_words(view, seed, epochs),
        ids=ids,
        contents=contents,
        epochs=epochs,
        settings=settings,
        shard_rows=shard_rows,
    )
    missing = writer.missing(part, of)
    if missing:
        example = _seen(on_device_of(first, teacher), view, seed, 0)
        teacher.prepare(Needs(teacher=tuple(taps), logits=False), example)
    total = writer.plan["rows"]
    done = total - sum(len(writer.shard_range(s)) for s in missing) if of == 1 else 0
    for number in missing:
        packed, entries, rows = [], {}, []
        for n, epoch, batch in _batches(writer, number, source, view, seed, batch_size, len(ids)):
            said = _said(teacher, batch)
            assert batch.index is not None
            tensors, entries = pack(
                said,
                batch.index,
                dtype=number_type,
                top_k=top_k,
                tail=tail,
                taps=taps,
                others=others,
            )
            packed.append(tensors)
            rows.append((batch.index.cpu(), torch.full((n,), epoch), content_hashes(batch)))
            done += n
            if progress is not None:
                progress(done, total)
        writer.write(
            number,
            {name: torch.cat([p[name] for p in packed]) for name in packed[0]},
            entries,
            ids=torch.cat([r[0] for r in rows]),
            epochs=torch.cat([r[1] for r in rows]),
            seen=[h for r in rows for h in r[2]],
        )
    return writer.finish()


def view_words(view: Any, seed: int = 0, epochs: int | None = None) -> str:
    """A view as a store describes it: its settings, and its seed where epochs are told apart."""
    words = describe(view)
    return words if epochs is None else f"{words} seed {seed}"


def _batches(
    writer: SignalWriter,
    shard: int,
    source: Any,
    view: Callable[..., Batch] | None,
    seed: int,
    size: int,
    samples: int,
) -> Any:
    """(rows, epoch, batch) of one shard; batches never cross shards or epochs.

    So a shard's bytes do not depend on what was written before it, in this process or another.
    """
    rows = torch.tensor(writer.shard_range(shard))
    for epoch in (rows // samples).unique().tolist():
        mine = rows[rows // samples == epoch] % samples
        for part in mine.split(size):
            index = writer.order[part]
            batch = source.batch(index)
            if batch.index is None:
                batch = replace(batch, index=index)
            yield len(part), epoch, _seen(batch, view, seed, epoch)


def _seen(batch: Batch, view: Callable[..., Batch] | None, seed: int, epoch: int) -> Batch:
    return batch if view is None else view(batch, seed=seed, epoch=epoch)


@torch.no_grad()
def _said(teacher: Teacher, batch: Batch) -> Signals:
    return teacher.signals(on_device_of(batch, teacher))


def on_device_of(batch: Batch, teacher: Teacher) -> Batch:
    """The batch on the teacher's device."""
    for module in teacher.modules().values():
        for tensor in module.parameters():
            return batch.to(tensor.device)
    return batch


def _changes(view: Callable[..., Batch], batch: Batch, seed: int) -> bool:
    """Whether a view shows the same samples otherwise in another epoch or under another seed."""
    shown = [view(batch, seed=seed + s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    hashes: list[Tensor | list[bytes]] = [content_hashes(b) for b in shown]
    return any(h != hashes[0] for h in hashes)
