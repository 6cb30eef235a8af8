"""Files that are written whole or not at all, and the few primitives all writing goes through.

The lowest module after `errors`: stores, checkpoints, events and reports all write through it.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from understudy.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock, so leftovers are never swept there
    fcntl = None

LOCK_WAIT_S = 600.0
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class Files:
    """The primitives through which everything is written; a test replaces them one by one."""

    def make_folder(self, path: Path) -> None:
        """Makes one folder; an error where it exists."""
        path.mkdir()

    def write(self, path: Path, content: bytes) -> None:
        """Writes a new file; an error where it exists."""
        with path.open("xb") as file:
            file.write(content)

    def write_tensors(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Writes a safetensors file."""
        save_file(tensors, path)

    def same_mode(self, path: Path, model: Path) -> None:
        """Gives `path` the access mode of `model` (safetensors writes for the owner alone)."""
        path.chmod(model.stat().st_mode & 0o777)

    def digest(self, path: Path) -> dict[str, Any]:
        """The `size` and `sha256` of a file, read back."""
        with path.open("rb") as file:
            hashed = hashlib.file_digest(file, "sha256")
            return {"size": file.tell(), "sha256": hashed.hexdigest()}

    def sync(self, path: Path) -> None:
        """Flushes a file, or a folder's list of names, to the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file or folder another name, at one moment."""
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        """Removes a file or a folder with all it holds."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


files = Files()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[bool]:
    """Holds the folder's lock, which dies with its process; False where there are no locks."""
    if fcntl is None:
        yield False
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        held = _take_lock(handle, root)
        try:
            yield held
        finally:
            if held:
                # Said aloud: a process forked meanwhile has a copy of the handle and would keep it.
                fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _take_lock(handle: int, root: Path) -> bool:
    assert fcntl is not None
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return False  # a file system without locks
        if time.monotonic() > until:
            raise CheckpointError(
                f"another process has been saving in {root} for {LOCK_WAIT_S:.0f} s: "
                "give each run a folder of its own"
            )
        time.sleep(0.02)


def failure(what: str, where: Path, error: Exception, kept: str = "") -> CheckpointError:
    """The one line for a failed write; safetensors hides the errno in its text."""
    code = getattr(error, "errno", None)
    found = _OS_ERROR.search(str(error))
    if code is None and found:
        code = int(found[1])
    reason, advice = {
        errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
        errno.EDQUOT: ("the disk quota is used up", "free some space or choose another folder"),
        errno.EFBIG: ("the file is larger than allowed here", "raise the limit (ulimit -f)"),
        errno.EACCES: ("the folder is not writable", "choose another folder"),
        errno.EPERM: ("the folder is not writable", "choose another folder"),
        errno.EROFS: ("the file system is read-only", "choose another folder"),
    }.get(code or 0, (os.strerror(code) if code else str(error), ""))
    parts = (f"{what} in {where}: {reason}", kept, advice)
    return CheckpointError("; ".join(part for part in parts if part))


def write_text(path: Path, text: str) -> None:
    """Writes a small text file (UTF-8) so that it is there whole, old or new, at every moment."""
    _whole(Path(path), lambda temporary: files.write(temporary, text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole, old or new, at every moment."""
    _whole(Path(path), lambda temporary: files.write(temporary, content))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file so that it is there whole, old or new, at every moment."""
    _whole(Path(path), lambda temporary: files.write_tensors(temporary, tensors))


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside, flush, rename; leftovers of killed writes to this path are swept."""
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent) as alone:
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.tmp-*") if alone else ():
                with contextlib.suppress(OSError):
                    files.remove(leftover)
            try:
                write(temporary)
                files.sync(temporary)
                files.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    files.remove(temporary)
                raise
            files.sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise failure(f"cannot write {path.name}", path.parent, error) from error


def signed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest and its own sha256 in the one form in which it is ever written."""
    body = json.dumps(manifest, indent=1, allow_nan=False)
    whole = {**manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return json.dumps(whole, indent=1, allow_nan=False).encode() + b"\n"


def write_json(path: Path, obj: Any) -> None:
    """Writes `plain(obj)` as indented JSON, atomically as `write_text` does."""
    write_text(path, json.dumps(plain(obj), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def plain(obj: Any, where: str = "value") -> Any:
    """`obj` in strict JSON for people and other programs (for exact state there is the codec).

    Paths become text, numpy numbers and one-element tensors become numbers, tuples become lists.
    JSON has no NaN and infinity: they become the texts "NaN", "Infinity" and "-Infinity" (as in
    the JSON form of protocol buffers), which `float` reads back.

    Raises:
        CheckpointError: anything else; names where it stands.
    """
    if isinstance(obj, (np.generic, Tensor)) and (isinstance(obj, np.generic) or obj.ndim == 0):
        obj = obj.item()
    if obj is None or isinstance(obj, (bool, int)):
        return obj
    if isinstance(obj, str):
        return obj.encode("utf-8", "backslashreplace").decode()
    if isinstance(obj, float):
        if obj != obj:
            return "NaN"
        return obj if abs(obj) != float("inf") else "Infinity" if obj > 0 else "-Infinity"
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, (torch.dtype, torch.device)):
        return str(obj).removeprefix("torch.")
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"cannot write {where} as JSON: key {key!r} is no text")
        return {str(key): plain(item, f"{where}.{key}") for key, item in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(obj)]
    raise CheckpointError(
        f"cannot write {where} as JSON: a {type(obj).__qualname__}; use numbers, text, lists, dicts"
    )
