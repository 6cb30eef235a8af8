"""Teacher signals on disk, read by sample id through memory maps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from understudy.errors import CheckpointError
from understudy.files import files, signed
from understudy.signals import Batch, Signals, content_hashes
from understudy.store.fingerprints import as_rows
from understudy.store.layout import unpack

FORMAT, VERSION = "understudy-signals", 1
PLAN, SAMPLES, SHARDS, MANIFEST = "plan.json", "samples.safetensors", "shards", "manifest.json"
IN_MEMORY = 256 * 2**20


class SignalStore:
    """A finished store: `open` it, `check` that it fits, `read` samples.

    On disk: `manifest.json` (what is stored, of which teacher, data and view; size and sha256 of
    each file; its own sha256), `samples.safetensors` (ids and content hashes of the data) and
    `shards/00000.safetensors` ... (per row: id, epoch, hash of what the teacher saw, signals). Row
    r is sample r mod N (by id) of epoch r div N; a fixed view has one epoch, which serves all.
    """

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], *, in_memory: int = IN_MEMORY
    ) -> None:
        self.path, self.manifest = path, manifest
        self.entries: Mapping[str, Any] = manifest["signals"]
        self.shard_rows = int(manifest["shard_rows"])
        samples = mapped(path / SAMPLES)
        self._ids, self._contents = samples["ids"], samples["contents"]
        self._shards: dict[int, dict[str, Tensor]] = {}
        self._whole: dict[str, Tensor] = {}
        self._small = manifest["rows"] * manifest["bytes_per_sample"] <= in_memory
        self._shard_count = -(-manifest["rows"] // self.shard_rows)

    @classmethod
    def open(
        cls, path: str | Path, *, verify: bool = True, in_memory: int = IN_MEMORY
    ) -> "SignalStore":
        """The store at `path`; with `verify` the sha256 of every file is compared first.

        One of at most `in_memory` bytes is read whole when first used (one gather a batch); a
        larger one stays on disk, memory-mapped shard by shard.

        Raises:
            CheckpointError: absent, not finished, corrupt (names the file), or of a newer version.
        """
        path = Path(path)
        manifest = _manifest(path)
        for name, expected in manifest["files"].items():
            fault = fault_of(path / name, expected, deep=verify)
            if fault:
                raise CheckpointError(
                    f"the signals at {path} are corrupt: {name} {fault}; remove {_pair(name)} and "
                    "write them again with the same settings: only what is missing is computed"
                )
        return _kind(cls, manifest)(path, manifest, in_memory=in_memory)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._ids)

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"SignalStore({str(self.path)!r}: {len(self)} samples, {', '.join(self.entries)}, "
            f"{m['bytes_per_sample']} bytes each, view {m['view']})"
        )

    @property
    def epochs(self) -> int | None:
        """How many epochs of views are stored; None where one fixed view serves all."""
        return self.manifest["epochs"]

    @property
    def features(self) -> list[str]:
        """Names of the stored features."""
        return [n.removeprefix("feature/") for n in self.entries if n.startswith("feature/")]

    def check(
        self, *, teacher: str | None = None, data: str | None = None, view: str | None = None
    ) -> None:
        """Refuse a store of another teacher, other data or another view (fingerprints; None skips).

        Raises:
            CheckpointError: names what differs, both values, and what to do.
        """
        asked = {"teacher": teacher, "data": data, "view": view}
        advice = {
            "teacher": "use the teacher that wrote them, or write signals of this one",
            "data": "restore the data they were written for, or write signals for this data",
            "view": "use the same preprocessing and augmentation (and seed), or write signals "
            "under this view",
        }
        for what, now in asked.items():
            then = self.manifest[what]
            if now is not None and now != then:
                raise CheckpointError(
                    f"the signals at {self.path} are of another {what} ({_short(then)} there, "
                    f"{_short(now)} here); {advice[what]}"
                )

    def check_samples(self, ids: Tensor, contents: Tensor | list[bytes]) -> None:
        """Refuse data of which a sample is missing here or has other content (before any view)."""
        places = self._places(ids.cpu().long())
        self._same(ids, self._contents[places], _rows(contents), "content than")

    def rows(self, index: Tensor, epoch: int = 0) -> Tensor:
        """The rows [N] of samples `index` [N] in an epoch.

        Raises:
            CheckpointError: a sample or the epoch is not stored; names it.
        """
        if self.epochs is None:
            epoch = 0
        elif not 0 <= epoch < self.epochs:
            raise CheckpointError(
                f"the signals at {self.path} hold views of epochs 0 to {self.epochs - 1}, not of "
                f"epoch {epoch}; train that many epochs, or write with epochs={epoch + 1} or more"
            )
        return self._places(index.cpu().long()) + epoch * len(self)

    def read(
        self, index: Tensor, hashes: Tensor | list[bytes] | None = None, *, epoch: int = 0
    ) -> Signals:
        """What the teacher said about samples `index` [N], in that order, on the CPU.

        `hashes` ([N, 16] uint8 or a list of bytes; `signals.content_hashes` of the batch that the
        student sees) are compared with those of what the teacher saw.
        """
        rows = self.rows(index, epoch)
        if hashes is not None:
            self.compare(index, rows, hashes)
        return self.at(rows)

    def at(self, rows: Tensor) -> Signals:
        """The signals in rows [N] (as `rows` gives them)."""
        names = [n for e in self.entries for n in _names(e, self.entries[e])]
        return unpack({name: self._gather(name, rows) for name in names}, self.entries)

    def hashes(self, batch: Batch) -> Tensor | list[bytes]:
        """The hashes by which a batch's samples are compared with what the teacher saw."""
        return content_hashes(batch)

    def said(self, rows: Tensor, batch: Batch) -> Signals:
        """The signals in rows [N], laid out as the batch of these samples is, on its device."""
        return self.at(rows).to(device_of(batch.inputs))

    def compare(self, index: Tensor, rows: Tensor, hashes: Tensor | list[bytes]) -> None:
        """Refuse a batch that is not what the teacher saw, naming the first sample that differs."""
        seen = self._gather("seen", rows)
        self._same(index, seen, _rows(hashes), "content or view than")

    def _same(self, ids: Tensor, then: Tensor, now: Tensor, what: str) -> None:
        other = (then != now).any(-1)
        if bool(other.any()):
            raise CheckpointError(
                f"sample {int(ids[other.nonzero()[0, 0]])} has other {what} when the signals at "
                f"{self.path} were written ({int(other.sum())} of {len(other)} differ): data, "
                "preprocessing or augmentation changed; undo that, or write the signals again"
            )

    def _places(self, index: Tensor) -> Tensor:
        places = torch.searchsorted(self._ids, index).clamp_max(len(self._ids) - 1)
        missing = self._ids[places] != index
        if bool(missing.any()):
            raise CheckpointError(
                f"sample {int(index[missing.nonzero()[0, 0]])} is not among the {len(self)} whose "
                f"signals are at {self.path} (ids {int(self._ids[0])} to {int(self._ids[-1])}; "
                f"{int(missing.sum())} of {len(index)} are missing); write signals for this data"
            )
        return places

    def _gather(self, name: str, rows: Tensor) -> Tensor:
        if self._small:
            if name not in self._whole:
                parts = [self._shard(s)[name] for s in range(self._shard_count)]
                self._whole[name] = torch.cat(parts)
            return self._whole[name].index_select(0, rows)
        shards = rows.div(self.shard_rows, rounding_mode="floor")
        needed = shards.unique().tolist()
        if len(needed) == 1:
            return self._shard(needed[0])[name][rows - needed[0] * self.shard_rows]
        first = self._shard(needed[0])[name]
        found = first.new_empty(len(rows), *first.shape[1:])
        for shard in needed:
            here = (shards == shard).nonzero().flatten()
            found[here] = self._shard(shard)[name][rows[here] - shard * self.shard_rows]
        return found

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._shards:
            self._shards[number] = mapped(self.path / shard_name(number))
        return self._shards[number]


def _kind(cls: type[SignalStore], manifest: Mapping[str, Any]) -> type[SignalStore]:
    """The class that reads what a manifest describes: rows of tokens have one of their own."""
    if manifest["settings"].get("form") != "tokens":
        return cls
    from understudy.store.tokens import TokenStore

    return TokenStore


def device_of(inputs: Any) -> torch.device:
    """Where a batch lies."""
    while not isinstance(inputs, Tensor):
        values = inputs.values() if isinstance(inputs, Mapping) else inputs
        inputs = next((v for v in values if isinstance(v, Tensor)), torch.empty(0))
    return inputs.device


def shard_name(number: int) -> str:
    """The file of a shard: `shards/00007.safetensors`."""
    return f"{SHARDS}/{number:05d}.safetensors"


def _names(entry: str, described: Mapping[str, Any]) -> list[str]:
    return ["logits.ids", "logits.values"] if described["form"] == "sparse" else [entry]


def _rows(hashes: Tensor | list[bytes]) -> Tensor:
    return hashes if isinstance(hashes, Tensor) else as_rows(hashes)


def _short(fingerprint: str) -> str:
    is_hash = len(fingerprint) == 64 and set(fingerprint) <= set("0123456789abcdef")
    return fingerprint[:12] if is_hash else fingerprint


def _pair(name: str) -> str:
    return name.replace(".safetensors", ".*") if name.startswith(SHARDS) else name


def mapped(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, as views of its memory map."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        message = f"{path} cannot be read ({error}); write the signals again"
        raise CheckpointError(message) from error


def fault_of(path: Path, expected: Mapping[str, Any], *, deep: bool) -> str | None:
    """What is wrong with a file (`deep` compares its bytes), or None."""
    try:
        size = path.stat().st_size
        if size != expected["size"]:
            return f"has {size} bytes, {expected['size']} were written"
        if deep and files.digest(path) != expected:
            return "has another sha256 than when it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _manifest(path: Path) -> dict[str, Any]:
    try:
        raw = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        begun = (path / PLAN).is_file()
        raise CheckpointError(
            f"the signals at {path} are not finished; run the same write again, it goes on where "
            "it stopped"
            if begun
            else f"no signals at {path} (there is no {MANIFEST})"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path / MANIFEST} cannot be read ({error.strerror})") from error
    try:
        manifest = json.loads(raw)
        if manifest["format"] == FORMAT and manifest["version"] > VERSION:
            raise CheckpointError(
                f"the signals at {path} have format version {manifest['version']}; this "
                f"understudy reads {VERSION}: update it"
            )
        manifest.pop("sha256")
        if manifest["format"] == FORMAT and signed(manifest) == raw:
            return manifest
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise CheckpointError(
        f"the signals at {path} are corrupt: {MANIFEST}; remove that file and write them again "
        "with the same settings: finished shards are kept"
    )
