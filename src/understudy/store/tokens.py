"""Teacher signals for texts: a row for every scored token, found by sample."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.errors import CheckpointError, DataError, SignalError
from understudy.files import files, write_tensors
from understudy.signals import IGNORE, Batch, Factored, Signals
from understudy.store.fingerprints import as_rows, describe
from understudy.store.ragged import PACKED, PER_ROW, Piece, as_sparse, gathered, laid_out, ranges
from understudy.store.signals import IN_MEMORY, SignalStore, device_of, mapped
from understudy.store.writer import SignalWriter

HEAD = "head.safetensors"


def text_hashes(batch: Batch) -> Tensor:
    """[N, 16] uint8 (BLAKE2b) of each sample's tokens and of the tokens it is scored on.

    Padding does not enter, so a sample has one hash in whatever batch it stands.
    """
    inputs = batch.inputs
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs or batch.labels is None:
        raise SignalError("signals of texts are kept by their input_ids, attention_mask and labels")
    read = inputs["attention_mask"].bool().cpu()
    ids = inputs["input_ids"].cpu().int().numpy()
    labels = batch.labels if batch.mask is None else torch.where(batch.mask, batch.labels, IGNORE)
    answers, real = labels.cpu().int().numpy(), read.numpy()
    found = []
    for row in range(len(ids)):
        digest = hashlib.blake2b(np.ascontiguousarray(ids[row][real[row]]).data, digest_size=16)
        digest.update(np.ascontiguousarray(answers[row][real[row]]).data)
        found.append(digest.digest())
    return as_rows(found)


def identify_texts(source: Any, *, chunk: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """(ids [N], hashes [N, 16], scored tokens [N]) of all samples of a source of texts."""
    ids, hashes, scored = [], [], []
    for index in torch.arange(len(source)).split(chunk):
        batch = source.batch(index)
        if batch.mask is None:
            raise DataError("texts without a mask: which tokens are scored is not known")
        ids.append((index if batch.index is None else batch.index).cpu().long())
        hashes.append(text_hashes(batch))
        scored.append(batch.mask.sum(-1).cpu())
    whole = torch.cat(ids) if ids else torch.empty(0, dtype=torch.long)
    ordered = whole.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise DataError(
            f"sample id {int(twice[0])} occurs more than once in the texts ({len(twice)} repeats); "
            "signals are kept by id, so give every text its own"
        )
    return whole, torch.cat(hashes), torch.cat(scored)


def tokenizer_fingerprint(tokenizer: Any) -> str | None:
    """sha256 of how text becomes ids; None for none. A text is taken as the fingerprint itself.

    Of a fast tokenizer its whole definition (vocabulary, merges, normaliser, special tokens) less
    truncation and padding, which change no id; of another its vocabulary.
    """
    if tokenizer is None or isinstance(tokenizer, str):
        return tokenizer
    inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if callable(getattr(inner, "to_str", None)):
        said = json.loads(inner.to_str())
        said.pop("truncation", None)
        said.pop("padding", None)
    elif callable(getattr(tokenizer, "get_vocab", None)):
        said = sorted(tokenizer.get_vocab().items())
    else:
        said = describe(tokenizer)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class TokenWriter(SignalWriter):
    """A store of token signals that is being written; as `SignalWriter`, with ragged shards."""

    @property
    def beside(self) -> tuple[str, ...]:
        """The head, where hidden states are stored."""
        return (HEAD,) if self.plan["settings"]["mode"] == "hidden" else ()

    def write_head(self, head: Factored) -> None:
        """Keep the head that makes logits of the hidden states; once, by whoever comes first."""
        tensors = {"weight": head.weight.detach().cpu().contiguous()}
        if head.bias is not None:
            tensors["bias"] = head.bias.detach().cpu().contiguous()
        target = self.path / HEAD
        if target.is_file():
            there = mapped(target)
            if there.keys() == tensors.keys() and all(
                torch.equal(there[n], t) for n, t in tensors.items()
            ):
                return
        write_tensors(target, {n: t.clone() for n, t in tensors.items()})
        files.same_mode(target, self.path / "plan.json")

    def _length(self, name: str, whole: Mapping[str, Tensor], rows: int) -> int | None:
        if name in PER_ROW:
            return rows
        if name in PACKED:
            return None
        if name == "drawn.weights":
            return int(whole["drawn.fields"].sum())
        return int(whole["tokens"].sum())

    def _size(self, whole: Mapping[str, Tensor]) -> dict[str, int]:
        nbytes = sum(t.numel() * t.element_size() for t in whole.values())
        return {"bytes": nbytes, "tokens": int(whole["tokens"].sum())}

    def _sizes(self, described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        nbytes, tokens = (sum(d[k] for d in described) for k in ("bytes", "tokens"))
        return {
            "bytes": nbytes,
            "tokens": tokens,
            "bytes_per_token": round(nbytes / max(tokens, 1), 2),
            "bytes_per_sample": -(-nbytes // self.plan["rows"]),
        }


class TokenStore(SignalStore):
    """A finished store of token signals: `said(rows, batch)` lays them out as a padded batch.

    Every sample has as many rows as scored positions. Its settings (in the manifest) are the mode,
    the vocabulary's size, the tokenizer's fingerprint, temperature, k, tail rule, draws, seed.
    """

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], *, in_memory: int = IN_MEMORY
    ) -> None:
        super().__init__(path, manifest, in_memory=in_memory)
        self.entry: Mapping[str, Any] = self.entries["logits"]
        self._pieces: dict[int, Piece] = {}
        self._heads: dict[torch.device, Factored] = {}

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"TokenStore({str(self.path)!r}: {len(self)} texts, {m['tokens']} tokens, "
            f"{self.entry['form']}, {m['bytes_per_token']} bytes a token)"
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it was written."""
        return self.manifest["settings"]

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a store that was written for the ids of another tokenizer."""
        now, then = tokenizer_fingerprint(tokenizer), self.settings["tokenizer"]
        if now is not None and then is not None and now != then:
            raise CheckpointError(
                f"the signals at {self.path} are of another tokenizer ({then[:12]} there, "
                f"{now[:12]} here); use the one that they were written with, or write signals of "
                "these tokens"
            )

    def hashes(self, batch: Batch) -> Tensor:
        """As `text_hashes`: of a sample's own tokens, not of the padding around it."""
        return text_hashes(batch)

    def at(self, rows: Tensor) -> Signals:
        """The signals of the scored positions of samples `rows`, one after another: [M, ...]."""
        said = self._read(rows)
        if "hidden" not in said:
            return Signals(logits=as_sparse(said, self.entry))
        head = self._head(torch.device("cpu"))
        return Signals(logits=_states(said["hidden"], head))

    def said(self, rows: Tensor, batch: Batch) -> Signals:
        """The signals of samples `rows`, laid out [N, L, ...] as their batch; on its device."""
        if batch.mask is None:
            raise SignalError("signals of texts are laid out by the mask, and the batch has none")
        device = device_of(batch.inputs)
        said = laid_out(self._read(rows), batch.mask.cpu(), self.entry)
        if "hidden" not in said:
            return Signals(logits=as_sparse(said, self.entry)).to(device)
        return Signals(logits=_states(said["hidden"].to(device), self._head(device)))

    def _read(self, rows: Tensor) -> dict[str, Tensor]:
        if self._small:
            return self._piece(None).read(rows)
        shards = rows.div(self.shard_rows, rounding_mode="floor")
        needed = shards.unique().tolist()
        if len(needed) == 1:
            return self._piece(needed[0]).read(rows - needed[0] * self.shard_rows)
        counts = torch.zeros(len(rows), dtype=torch.long)
        for shard in needed:
            here = shards == shard
            counts[here] = self._piece(shard).tokens[rows[here] - shard * self.shard_rows]
        starts, parts = counts.cumsum(0) - counts, []
        for shard in needed:
            here = (shards == shard).nonzero().flatten()
            said = self._piece(shard).read(rows[here] - shard * self.shard_rows)
            parts.append((ranges(starts[here], counts[here]), said))
        return gathered(parts, int(counts.sum()))

    def _piece(self, shard: int | None) -> Piece:
        """One shard, or all of a small store."""
        key = -1 if shard is None else shard
        if key not in self._pieces:
            numbers = range(self._shard_count) if shard is None else [shard]
            self._pieces[key] = Piece([self._shard(s) for s in numbers], self.entry)
        return self._pieces[key]

    def _head(self, device: torch.device) -> Factored:
        if device not in self._heads:
            kept = {n: t.to(device) for n, t in mapped(self.path / HEAD).items()}
            self._heads[device] = Factored(
                hidden=torch.empty(0), weight=kept["weight"], bias=kept.get("bias"),
                scale=self.entry["scale"], softcap=self.entry["softcap"],
            )  # fmt: skip
        return self._heads[device]


def _states(hidden: Tensor, head: Factored) -> Factored:
    """The head's logits of these states, in its precision."""
    return Factored(
        hidden=hidden.to(head.weight.dtype), weight=head.weight, bias=head.bias, scale=head.scale,
        softcap=head.softcap,
    )  # fmt: skip
