"""Programs that a model wrote are run in a process that can do nothing but compute."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from understudy.errors import UserError

LAYERS = ("namespaces", "root", "landlock", "seccomp", "hook")
"""What can shut a process in; see `confined.py` for each."""

_INSIDE = Path(__file__).with_name("confined.py")
_REFUSED = 77


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use.

    seconds: of wall time; cpu: of processor time, whole ones; memory: bytes of address space;
    output: bytes of what it prints, of its errors, and of its value; file: bytes of one file;
    disk: bytes of all its files (where it has a file system of its own); files: open at once.
    Processes and threads: none.
    """

    seconds: float = 5.0
    cpu: int = 4
    memory: int = 2**28
    output: int = 2**16
    file: int = 2**20
    disk: int = 2**22
    files: int = 16

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise UserError(f"sandbox: {name} is above 0, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a program came to.

    value:   of its last expression, else of its function `solution`, else of its variable `answer`
    out:     what it printed, cut off at the limit
    error:   the exception, or why it was stopped; "" where it ended well
    timeout: whether it ran into the limit of wall time or of processor time
    killed:  whether it was ended from outside: time, output, or a signal
    held:    what shut it in
    """

    value: Any = None
    out: str = ""
    error: str = ""
    timeout: bool = False
    killed: bool = False
    seconds: float = 0.0
    held: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it ended without an error."""
        return not self.error


def run(
    program: str,
    limits: Limits | None = None,
    *,
    layers: tuple[str, ...] = LAYERS,
    strict: bool = True,
) -> Ran:
    """Runs a Python program in an isolated interpreter (`-I -S`) and gives back what it came to.

    The process has an empty environment, a temporary folder that is removed, no arguments, and no
    open files but its pipes. It may import a few modules of the standard library that compute.

    strict: nothing is run where the system can shut neither files (a root of its own, Landlock) nor
    system calls (seccomp): Python's own hooks are no barrier against a program that means harm.

    Raises:
        UserError: a system without these limits, or with `strict` where they cannot be set.
    """
    if os.name != "posix":
        raise UserError("programs are run on Linux or macOS only; interpret arithmetic instead")
    limits = limits or Limits()
    order = {
        "program": program, "layers": list(layers), "strict": strict, "cpu": limits.cpu,
        "memory": limits.memory, "file": limits.file, "disk": limits.disk, "files": limits.files,
    }  # fmt: skip
    began = time.monotonic()
    read, write = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="understudy-sandbox-") as folder:
            process = _start(folder, write)
            os.close(write)
            write = -1
            try:
                pipe = os.fdopen(read, "rb", buffering=0)
                read = -1
                with pipe:
                    told, why = _listen(process, pipe, json.dumps(order).encode(), limits, began)
            finally:
                _end(process)
    finally:
        for handle in (read, write):
            if handle >= 0:
                os.close(handle)
    return _result(process.returncode, told, why, time.monotonic() - began)


def _start(folder: str, write: int) -> subprocess.Popen[bytes]:
    # `pass_fds` keeps a descriptor's number; the script tells its value through number 3
    code = (
        f"import os,sys;os.dup2({write},3);"
        f"{write} != 3 and os.close({write});"
        "import runpy;runpy.run_path(sys.argv[1],run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(_INSIDE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={},
        pass_fds=(write,),
        start_new_session=True,
    )


def _listen(
    process: subprocess.Popen[bytes],
    pipe: IO[bytes],
    order: bytes,
    limits: Limits,
    began: float,
) -> tuple[dict[str, bytes], str]:
    """What comes through the pipes, up to their limits, and why listening ended early."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(order)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    found = {"out": b"", "err": b"", "value": b""}
    with selectors.DefaultSelector() as waiting:
        for name, stream in (("out", process.stdout), ("err", process.stderr), ("value", pipe)):
            os.set_blocking(stream.fileno(), False)
            waiting.register(stream, selectors.EVENT_READ, name)
        while waiting.get_map():
            left = limits.seconds - (time.monotonic() - began)
            if left <= 0:
                return found, "time"
            for key, _ in waiting.select(left):
                part = os.read(key.fd, 1 << 16)
                if not part:
                    waiting.unregister(key.fileobj)
                found[key.data] += part
                if len(found[key.data]) > limits.output:
                    found[key.data] = found[key.data][: limits.output]
                    return found, "output"
    try:
        process.wait(max(0.0, limits.seconds - (time.monotonic() - began)))
    except subprocess.TimeoutExpired:
        return found, "time"
    return found, ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever is left of it is killed, with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _result(code: int, told: dict[str, bytes], why: str, seconds: float) -> Ran:
    first, _, rest = told["value"].partition(b"\n")
    held = tuple(_parsed(first).get("held", ()))
    if code == _REFUSED and not rest and not why:
        raise UserError(
            "sandbox: this system lets a process be shut in by neither namespaces nor Landlock and "
            f"seccomp (it has {', '.join(held) or 'nothing'}), so the program was not run; "
            "interpret arithmetic instead, or pass strict=False for programs that you trust"
        )
    out = told["out"].decode("utf-8", "replace")
    common: dict[str, Any] = {"out": out, "seconds": seconds, "held": held}
    if why == "time":
        return Ran(error="stopped: it took too long", timeout=True, killed=True, **common)
    if why == "output":
        return Ran(error="stopped: it printed too much", killed=True, **common)
    said = _parsed(rest)
    if code < 0:
        slow = -code in (signal.SIGXCPU, signal.SIGKILL)  # the limit of processor time kills
        text = "it took too long" if slow else signal.Signals(-code).name
        return Ran(error=f"stopped: {text}", timeout=slow, killed=True, **common)
    if "error" in said:
        return Ran(error=str(said["error"]), **common)
    if "value" not in said:
        last = told["err"].decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Ran(error=last[:500] or f"it ended with {code} and told no value", **common)
    return Ran(value=said["value"], **common)


def _parsed(text: bytes) -> dict[str, Any]:
    """JSON as the process wrote it; what is none, or no object, says nothing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
