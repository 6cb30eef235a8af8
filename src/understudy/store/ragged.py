"""How signals of tokens lie in a shard: what was said at each scored position, packed.

A shard has `tokens` [R], the scored positions of each of its samples, and one of

- top-k:   `top.ids`, the ids of all positions in ceil(log2 V) bits each, and `top.values` [T, k]
- sampled: `drawn.unique` [T], how many different ids were drawn at a position; `drawn.packed`, id
           and count - 1 of each in ceil(log2 V) + ceil(log2 n) bits; `drawn.fields` [R], how many
           of these a sample has; and `drawn.weights` (half precision) where they were drawn from a
           proposal: log p / q of each
- hidden:  `hidden` [T, d]; the head stands in a file of its own
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from understudy.errors import SignalError
from understudy.signals import Sparse
from understudy.store.bits import pack_bits, unpack_bits, width_of

MODES = ("top-k", "sampled", "hidden")
PER_ROW = ("ids", "epochs", "seen", "tokens", "drawn.fields")
PACKED = ("top.ids", "drawn.packed")


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ...: int64 [sum of counts]."""
    before = counts.cumsum(0) - counts
    return (starts - before).repeat_interleave(counts) + torch.arange(int(counts.sum()))


def joined(
    parts: Sequence[Mapping[str, Tensor]], settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, entries) of a shard from what was said of each of its samples, in order.

    A part has `ids` [t, k] and `values` [t, k] (top-k); `unique` [t], `ids` and `counts` [f] and
    perhaps `weights` [f] (sampled); or `hidden` [t, d].
    """
    mode, size = settings["mode"], settings["vocabulary"]
    together = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    entry: dict[str, Any] = {"form": mode, "size": size, "temperature": settings["temperature"]}
    if mode == "hidden":
        tensors = {"tokens": _lengths(parts, "hidden"), "hidden": together["hidden"]}
        entry |= {"width": together["hidden"].shape[-1], "dtype": settings["dtype"]}
        entry |= {"scale": settings["scale"], "softcap": settings["softcap"]}
    elif mode == "top-k":
        ids = together["ids"]
        entry |= {"k": ids.shape[-1], "tail": settings["tail"], "bits": width_of(size - 1)}
        tensors = {
            "tokens": _lengths(parts, "ids"),
            "top.ids": pack_bits(ids.reshape(-1), entry["bits"]),
            "top.values": together["values"],
        }
        entry["dtype"] = settings["dtype"]
    else:
        draws = settings["draws"]
        low = width_of(draws - 1)
        entry |= {"tail": "sampled", "draws": draws, "count_bits": low}
        entry["bits"] = width_of(size - 1) + low
        fields = (together["ids"].long() << low) | (together["counts"].long() - 1)
        tensors = {
            "tokens": _lengths(parts, "unique"),
            "drawn.fields": _lengths(parts, "ids"),
            "drawn.unique": together["unique"].to(torch.uint8 if draws < 256 else torch.int32),
            "drawn.packed": pack_bits(fields, entry["bits"]),
        }
        if "weights" in together:
            tensors["drawn.weights"] = together["weights"].half()
        entry["proposal"] = settings["proposal"]
    return tensors, {"logits": entry}


def _lengths(parts: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.tensor([len(p[name]) for p in parts], dtype=torch.int32)


class Piece:
    """Tensors of one shard, or of several that follow each other, and where each sample begins."""

    def __init__(self, shards: Sequence[Mapping[str, Tensor]], entry: Mapping[str, Any]) -> None:
        self.entry = entry
        one = len(shards) == 1
        self.tensors = {
            name: shards[0][name] if one else torch.cat([s[name] for s in shards])
            for name in shards[0]
        }
        self.tokens = self.tensors["tokens"].long()
        self.starts = self.tokens.cumsum(0) - self.tokens
        if entry["form"] == "sampled":
            self.fields = self.tensors["drawn.fields"].long()
            self.field_starts = self.fields.cumsum(0) - self.fields
        # every shard's packed bytes are filled up to a whole one
        self.bits = torch.cat(_bits(shards, entry)) if entry["form"] != "hidden" else None

    def read(self, rows: Tensor) -> dict[str, Tensor]:
        """What was said at the positions of samples `rows`, one after another.

        `ids` and `values` [M, k] (top-k), `ids`, `values` and `counts` [M, u] filled up with 0, -inf
        and 0 (sampled), or `hidden` [M, d].
        """
        tokens = self.tokens[rows]
        places = ranges(self.starts[rows], tokens)
        form = self.entry["form"]
        if form == "hidden":
            return {"hidden": self.tensors["hidden"][places]}
        assert self.bits is not None
        width = self.entry["bits"]
        if form == "top-k":
            k = self.entry["k"]
            at = width * ranges(torch.zeros_like(rows), tokens * k)
            at += self.bits[rows].repeat_interleave(tokens * k)
            ids = unpack_bits(self.tensors["top.ids"], at, width).view(-1, k)
            return {"ids": ids, "values": self.tensors["top.values"][places]}
        return self._drawn(rows, places, width)

    def _drawn(self, rows: Tensor, places: Tensor, width: int) -> dict[str, Tensor]:
        assert self.bits is not None
        fields = self.fields[rows]
        at = width * ranges(torch.zeros_like(rows), fields)
        at += self.bits[rows].repeat_interleave(fields)
        found = unpack_bits(self.tensors["drawn.packed"], at, width)
        unique = self.tensors["drawn.unique"][places].long()
        most = int(unique.max()) if len(unique) else 1
        low = self.entry["count_bits"]
        # place of each field in [M, most]
        where = ranges(torch.arange(len(places)) * most, unique)
        ids = torch.zeros(len(places) * most, dtype=torch.long)
        ids[where] = found >> low
        counts = torch.zeros(len(places) * most)
        counts[where] = (found & ((1 << low) - 1)).float() + 1
        values = (counts / self.entry["draws"]).log()
        if "drawn.weights" in self.tensors:
            weights = self.tensors["drawn.weights"][ranges(self.field_starts[rows], fields)]
            values[where] += weights.float()
        shaped = {"ids": ids, "values": values, "counts": counts}
        return {name: t.view(-1, most) for name, t in shaped.items()}


def _bits(shards: Sequence[Mapping[str, Tensor]], entry: Mapping[str, Any]) -> list[Tensor]:
    """Of each sample of each shard, the bit of the packed bytes of all where its fields begin."""
    found, base = [], 0
    for shard in shards:
        if entry["form"] == "top-k":
            fields, packed = shard["tokens"].long() * entry["k"], shard["top.ids"]
        else:
            fields, packed = shard["drawn.fields"].long(), shard["drawn.packed"]
        found.append(8 * base + entry["bits"] * (fields.cumsum(0) - fields))
        base += len(packed)
    return found


def gathered(parts: Sequence[tuple[Tensor, Mapping[str, Tensor]]], total: int) -> dict[str, Tensor]:
    """What several pieces say, as one: each with the places [m] among all where its rows belong."""
    if len(parts) == 1:
        return dict(parts[0][1])
    out: dict[str, Tensor] = {}
    fill = {"values": float("-inf")}
    for name, first in parts[0][1].items():
        width = max(said[name].shape[-1] for _, said in parts)
        out[name] = first.new_full((total, width), fill.get(name, 0))
        for places, said in parts:
            out[name][places, : said[name].shape[-1]] = said[name]
    return out


def as_sparse(said: Mapping[str, Tensor], entry: Mapping[str, Any]) -> Sparse:
    """Sparse logits at packed positions [M, k]."""
    return Sparse(
        ids=said["ids"], values=said["values"], size=entry["size"], tail=entry["tail"],
        temperature=entry["temperature"], counts=said.get("counts"),
    )  # fmt: skip


def laid_out(
    said: Mapping[str, Tensor], mask: Tensor, entry: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Packed positions [M, ...] as [N, L, ...]; what nobody reads is a distribution all the same."""
    out: dict[str, Tensor] = {}
    places = mask.reshape(-1).nonzero().flatten()
    shown = next(iter(said.values()))
    if len(places) != len(shown):
        raise SignalError(f"{len(shown)} positions were stored, and {len(places)} are scored here")
    for name, value in said.items():
        k = value.shape[-1]
        whole = value.new_zeros(mask.numel(), k)
        if name == "values" and entry["form"] == "top-k":
            whole.fill_(-float(torch.tensor(float(entry["size"])).log()))
        elif name == "values":
            whole[:, 1:] = float("-inf")
        elif name == "ids" and entry["form"] == "top-k":
            whole.copy_(torch.arange(k).expand_as(whole))
        elif name == "counts":
            whole[:, 0] = 1
        whole[places] = value
        out[name] = whole.view(*mask.shape, k)
    return out
