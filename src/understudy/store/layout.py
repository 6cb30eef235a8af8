"""How signals lie on disk: one named tensor each, and an entry that says what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from understudy.errors import NotFinite, SignalError, UserError, nearest
from understudy.signals import Signals, Sparse, Tail

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype_named(name: str) -> torch.dtype:
    """`fp32`, `fp16` or `bf16`."""
    if name not in DTYPES:
        raise UserError(f"signals are stored as fp32, fp16 or bf16, not {name!r}")
    return DTYPES[name]


def pack(
    signals: Signals,
    ids: Tensor,
    *,
    dtype: torch.dtype,
    top_k: int | None,
    tail: Tail,
    taps: Sequence[str],
    others: Sequence[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, entry by name) of what is to be stored of one batch.

    Logits are `logits`, or `logits.ids` and `logits.values` (log-probabilities at temperature 1,
    nats, largest first) where only k are kept; features are `feature/<tap>`, others `other/<name>`.

    Raises:
        NotFinite: NaN or +infinity, or a number that the dtype cannot hold; names the sample.
    """
    tensors: dict[str, Tensor] = {}
    entries: dict[str, Any] = {}
    if signals.logits is not None:
        _pack_logits(signals, ids, dtype, top_k, tail, tensors, entries)
    elif top_k is not None:
        raise SignalError("top_k was asked for, and this teacher gives no logits")
    for kind, names, found in (
        ("feature", taps, signals.features),
        ("other", others, signals.others),
    ):
        for name in names:
            if not isinstance(value := found.get(name), Tensor):
                raise SignalError(f"the teacher gives no {kind} {name!r}{nearest(name, found)}")
            _dense(f"{kind}/{name}", value, ids, dtype, tensors, entries)
    if not tensors:
        raise SignalError("the teacher gives no logits and no taps were named: nothing to store")
    for name, value in tensors.items():
        if len(value) != len(ids):
            raise SignalError(
                f"{name} of the teacher has {len(value)} rows for a batch of {len(ids)} samples"
            )
    return tensors, entries


def unpack(tensors: Mapping[str, Tensor], entries: Mapping[str, Any]) -> Signals:
    """The signals that were packed."""
    logits: Tensor | Sparse | None = None
    features, others = {}, {}
    for name, entry in entries.items():
        kind, _, rest = name.partition("/")
        if entry["form"] == "sparse":
            logits = Sparse(
                ids=tensors["logits.ids"].long(),
                values=tensors["logits.values"],
                size=entry["size"],
                tail=entry["tail"],
            )
        elif name == "logits":
            logits = tensors[name]
        else:
            (features if kind == "feature" else others)[rest] = tensors[name]
    return Signals(logits=logits, features=features, others=others)


def bytes_per_sample(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of one row of all tensors."""
    return sum(t[:1].numel() * t.element_size() for t in tensors.values())


def _pack_logits(
    signals: Signals,
    ids: Tensor,
    dtype: torch.dtype,
    top_k: int | None,
    tail: Tail,
    tensors: dict[str, Tensor],
    entries: dict[str, Any],
) -> None:
    if top_k is None and not isinstance(signals.logits, Sparse):
        _dense("logits", signals.dense, ids, dtype, tensors, entries)
        return
    if isinstance(signals.logits, Sparse):
        said = signals.logits
        classes, values, size, tail = said.ids, said.values, said.size, said.tail
        if tail == "renormalise":
            values = values.float().log_softmax(-1)
        if top_k is not None and top_k < values.shape[-1]:
            values, places = values.topk(top_k, -1)
            classes = classes.gather(-1, places)
    else:
        size = signals.dense.shape[-1]
        if top_k is None or not 1 <= top_k <= size:
            raise UserError(f"top_k lies in 1 ... {size} (the teacher's classes), not {top_k}")
        _finite("logits", signals.dense, ids, signals.dense.dtype)
        values, classes = signals.dense.log_softmax(-1).topk(top_k, -1)
    values = values.detach().cpu().to(dtype).contiguous()
    _finite("logits", values, ids, dtype)
    id_dtype = torch.int16 if size <= 2**15 else torch.int32
    tensors["logits.ids"] = classes.detach().cpu().to(id_dtype).contiguous()
    tensors["logits.values"] = values
    entries["logits"] = {
        "form": "sparse",
        "k": values.shape[-1],
        "size": size,
        "tail": tail,
        "temperature": 1.0,
        "shape": list(values.shape[1:]),
        "dtype": _named(dtype),
        "ids": _named(id_dtype),
    }


def _dense(
    name: str,
    value: Tensor,
    ids: Tensor,
    dtype: torch.dtype,
    tensors: dict[str, Tensor],
    entries: dict[str, Any],
) -> None:
    # a copy: a view of a larger batch would be written, and kept in memory, whole
    value = value.detach().cpu()
    if value.dtype.is_floating_point:
        kept = value.to(dtype)
        _finite(name, kept, ids, dtype)
        value = kept
    tensors[name] = value.clone(memory_format=torch.contiguous_format)
    entries[name] = {
        "form": "dense",
        "shape": list(value.shape[1:]),
        "dtype": _named(value.dtype),
    }


def _finite(name: str, value: Tensor, ids: Tensor, dtype: torch.dtype) -> None:
    """Refuse what is not finite, save a logit of -infinity: a class with no probability."""
    good = torch.isfinite(value)
    if name == "logits":
        good |= (value == float("-inf")) & good.any(-1, keepdim=True)
    if not bool(good.all()):
        row = int((~good).flatten(1).any(-1).nonzero()[0])
        wide = "" if dtype is not torch.float16 else " (fp16 ends at 65504; bf16 and fp32 go on)"
        raise NotFinite(f"the teacher's {name} of sample {int(ids[row])} are not finite{wide}")


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
