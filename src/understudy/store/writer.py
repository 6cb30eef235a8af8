"""Writing signals, shard by shard: what is finished stays finished, whatever happens next."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from understudy.errors import CheckpointError, SignalError
from understudy.files import failure, files, signed, write_tensors, write_text
from understudy.store.fingerprints import as_rows, data_fingerprint
from understudy.store.layout import bytes_per_sample
from understudy.store.signals import (
    FORMAT,
    MANIFEST,
    PLAN,
    SAMPLES,
    VERSION,
    SignalStore,
    fault_of,
    mapped,
    shard_name,
)

SHARD_ROWS = 4096


class SignalWriter:
    """A store that is being written, by one process or several in one folder.

    A shard is a safetensors file, renamed into place when it is on the disk, and then a small JSON
    file with its size and sha256: a shard that has both is finished and never written again. The
    manifest comes last, from whoever finds all shards finished. Rows stand in the order of the ids;
    `order` [N] holds the positions, in the data as it was given, of sample 0, 1, ...
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], order: Tensor) -> None:
        self.path, self.plan, self.order = path, plan, order

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        teacher: str,
        view: str,
        ids: Tensor,
        contents: Tensor,
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        shard_rows: int = SHARD_ROWS,
    ) -> Self:
        """Begin a store, or go on with one that was begun with the same arguments.

        Args:
            path: the store's folder; made if absent.
            teacher: the teacher's fingerprint (`teacher_fingerprint`).
            view: what the samples look like to it, in words (`describe`).
            ids: [N] int64, all different. contents: [N, 16] uint8, hashes before any view.
            epochs: number of epochs whose views are stored; None for one fixed view.
            settings: all else that changes what is stored (dtype, k, taps); compared on resume.
            shard_rows: rows a shard.

        Raises:
            CheckpointError: another store or other files are there, or the folder is not writable.
        """
        path = Path(path)
        order = ids.argsort()
        ids, contents = ids[order].long(), contents[order]
        if len(ids) == 0:
            raise SignalError("there is no sample to write signals for")
        rows = len(ids) * (epochs or 1)
        plan = {
            "format": FORMAT,
            "version": VERSION,
            "teacher": teacher,
            "data": data_fingerprint(ids, contents),
            "view": view,
            "epochs": epochs,
            "samples": len(ids),
            "rows": rows,
            "shard_rows": shard_rows,
            "settings": dict(settings or {}),
        }
        plan = json.loads(json.dumps(plan))
        try:
            if (path / PLAN).is_file():
                _same_plan(path, json.loads((path / PLAN).read_text()), plan)
            elif path.is_dir() and any(
                p.name not in (SAMPLES, PLAN) and ".tmp-" not in p.name for p in path.iterdir()
            ):
                raise CheckpointError(
                    f"{path} holds other files and no signals; choose another folder"
                )
        except OSError as error:
            raise failure("cannot write signals", path, error) from error
        except json.JSONDecodeError as error:
            raise CheckpointError(
                f"{path / PLAN} is corrupt; remove the folder and write the signals again"
            ) from error
        writer = cls(path, plan, order)
        if not _sound_samples(path, ids, contents):
            write_tensors(path / SAMPLES, {"ids": ids, "contents": contents})
        if not (path / PLAN).is_file():
            write_text(path / PLAN, json.dumps(plan, indent=1) + "\n")
        _share_mode(path / SAMPLES, path / PLAN)
        return writer

    @property
    def beside(self) -> tuple[str, ...]:
        """Files that the store has besides samples and shards."""
        return ()

    def shard_count(self) -> int:
        """How many shards the whole store has."""
        return -(-self.plan["rows"] // self.plan["shard_rows"])

    def shard_range(self, shard: int) -> range:
        """The rows of one shard; row r is sample r mod N of epoch r div N."""
        size = self.plan["shard_rows"]
        return range(shard * size, min((shard + 1) * size, self.plan["rows"]))

    def finished(self, shard: int) -> bool:
        """Whether a shard is there, whole (by size; its bytes are compared when it is opened).

        Raises:
            CheckpointError: it was finished and has since been cut or lengthened.
        """
        described = self._described(shard)
        if described is None:
            return False
        fault = fault_of(self.path / shard_name(shard), described["file"], deep=False)
        if fault == "is missing":
            return False
        if fault:
            raise CheckpointError(
                f"the signals at {self.path} are corrupt: {shard_name(shard)} {fault}; remove it "
                "and write again: only what is missing is computed"
            )
        return True

    def missing(self, part: int = 0, of: int = 1) -> list[int]:
        """The shards that worker `part` of `of` has still to write."""
        return [s for s in range(part, self.shard_count(), of) if not self.finished(s)]

    def write(
        self,
        shard: int,
        tensors: Mapping[str, Tensor],
        entries: Mapping[str, Any],
        *,
        ids: Tensor,
        epochs: Tensor,
        seen: Tensor | list[bytes],
    ) -> None:
        """Write one shard: tensors and entries from `layout.pack`, and per row id, epoch and hash.

        Raises:
            CheckpointError: disk full or not writable; nothing already written is lost.
        """
        rows = self.shard_range(shard)
        hashes = as_rows(seen) if isinstance(seen, list) else seen
        whole = {"ids": ids.long(), "epochs": epochs.int(), "seen": hashes, **tensors}
        for name, value in whole.items():
            wanted = self._length(name, whole, len(rows))
            if wanted is not None and len(value) != wanted:
                raise SignalError(f"{name} of shard {shard} has {len(value)} rows, not {wanted}")
        target = self.path / shard_name(shard)
        write_tensors(target, {k: v.contiguous() for k, v in whole.items()})
        _share_mode(target, self.path / PLAN)
        described = {
            "file": files.digest(target),
            "signals": entries,
            **self._size(whole),
        }
        write_text(target.with_suffix(".json"), json.dumps(described, indent=1) + "\n")

    def finish(self) -> SignalStore | None:
        """The finished store, its manifest written; None while shards are missing."""
        if any(not self.finished(s) for s in range(self.shard_count())):
            return None
        described = [self._described(s) or {} for s in range(self.shard_count())]
        first = described[0]
        for shard, other in enumerate(described):
            if other["signals"] != first["signals"]:
                raise SignalError(
                    f"shards 0 and {shard} of {self.path} have signals of other shapes "
                    f"({first['signals']} and {other['signals']}); samples must agree in shape"
                )
        manifest = {
            **self.plan,
            "signals": first["signals"],
            **self._sizes(described),
            "files": {
                **{name: files.digest(self.path / name) for name in (SAMPLES, *self.beside)},
                **{shard_name(s): d["file"] for s, d in enumerate(described)},
            },
        }
        target, content = self.path / MANIFEST, signed(manifest)
        if not target.is_file() or target.read_bytes() != content:
            write_text(target, content.decode())
        return SignalStore.open(self.path)

    def _length(self, name: str, whole: Mapping[str, Tensor], rows: int) -> int | None:
        """How long a tensor of a shard of so many rows has to be; None where that is open."""
        return rows

    def _size(self, whole: Mapping[str, Tensor]) -> dict[str, int]:
        """What is said of a shard's size beside it."""
        return {"bytes_per_sample": bytes_per_sample(whole)}

    def _sizes(self, described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the manifest says of all shards' sizes."""
        return {"bytes_per_sample": described[0]["bytes_per_sample"]}

    def _described(self, shard: int) -> dict[str, Any] | None:
        """What the JSON beside a shard says; None where it is absent or torn."""
        try:
            return json.loads((self.path / shard_name(shard)).with_suffix(".json").read_text())
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        except OSError as error:
            raise failure("cannot read signals", self.path, error) from error


def _sound_samples(path: Path, ids: Tensor, contents: Tensor) -> bool:
    """Whether the samples file is there and as it must be."""
    try:
        found = mapped(path / SAMPLES)
    except CheckpointError:
        return False
    return torch.equal(found["ids"], ids) and torch.equal(found["contents"], contents)


def _same_plan(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    flat_then = {**then, **then.get("settings", {})}
    flat_now = {**now, **now["settings"]}
    for key in (
        "format",
        "version",
        "teacher",
        "data",
        "view",
        "epochs",
        *now["settings"],
        "shard_rows",
        "samples",
    ):
        if flat_then.get(key) != flat_now[key]:
            raise CheckpointError(
                f"{path} holds signals with another {key} ({str(flat_then.get(key))[:40]} there, "
                f"{str(flat_now[key])[:40]} here); choose another folder, or remove it to start "
                "again"
            )


def _share_mode(path: Path, model: Path) -> None:
    try:
        files.same_mode(path, model)
    except OSError as error:
        raise failure(f"cannot write {path.name}", path.parent, error) from error
