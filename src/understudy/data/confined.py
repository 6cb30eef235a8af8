"""What runs inside a sandbox's process: shuts itself in, then executes the program. Stdlib only.

Never imported: `sandbox.run` starts it as a script, `python -I -S confined.py`, with the order as
JSON on standard input. What can be shut depends on the system; each thing that holds is listed, and
where the files or the kernel's other doors cannot be shut, nothing is executed.

- namespaces: users, network (there is none left), processes, mounts, shared memory
- root: an empty file system of bounded size is all that there is (needs namespaces)
- landlock: the kernel denies every file outside the folder (needs no privilege)
- seccomp: no process, thread, socket, signal, tracing or mounting, whatever the language does
- hook: Python's own audit events, for systems that have none of these; no barrier by itself
"""

import ast
import contextlib
import json
import os
import sys

try:
    import resource
except ImportError:  # not a POSIX system; `sandbox.run` refuses there
    resource = None

FILES = ("root", "landlock")
"""At least one of these has to hold, and `seccomp`."""

_USER, _MOUNT, _UTS, _IPC, _PID, _NET = (
    0x10000000, 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000,
)  # fmt: skip
_CALLS = {
    # name: number on x86_64, on aarch64
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "execve": (59, 221),
    "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "socket": (41, 198),
    "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "accept": (43, 202),
    "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "userfaultfd": (323, 282),
    "prlimit64": (302, 261), "setrlimit": (160, 164), "setpriority": (141, 140),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "memfd_create": (319, 279), "open_by_handle_at": (304, 265),
    "personality": (135, 92), "setpgid": (109, 154), "setsid": (112, 157),
}  # fmt: skip
_CLONE3 = 435
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}
_LANDLOCK = {"x86_64": 444, "aarch64": 444, "arm64": 444}
_MODULES = (
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "enum", "fractions",
    "functools", "heapq", "itertools", "math", "numbers", "operator", "random", "re", "statistics",
    "string", "time", "typing",
)  # fmt: skip
"""What a program may import; read before the door shuts."""
_FORBIDDEN = (
    "ctypes",
    "_ctypes",
    "socket",
    "_socket",
    "subprocess",
    "multiprocessing",
    "_posixsubprocess",
)


def main() -> None:
    """Reads the order, shuts the process in, executes, tells the value through descriptor 3."""
    order = json.loads(sys.stdin.buffer.read())
    tell = os.fdopen(3, "wb", buffering=0)
    for name in _MODULES:
        __import__(name)
    held = shut(order)
    tell.write(json.dumps({"held": held}).encode() + b"\n")
    if order["strict"] and ("seccomp" not in held or not set(held) & set(FILES)):
        os._exit(77)
    sys.modules["random"].seed(0)
    said = _execute(order["program"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        tell.write(json.dumps(said).encode())
        os._exit(0)


def _execute(program: str) -> dict:
    """The value of the last expression, else of `solution()`, else of `answer`; or the error."""
    space: dict = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        tree = ast.parse(program)
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = isinstance(last, ast.Expr) and _prints(last.value)
        body = tree.body[:-1] if last is not None and not printed else tree.body
        exec(compile(ast.Module(body, []), "<program>", "exec"), space)
        if last is not None and not printed:
            value = eval(compile(ast.Expression(last.value), "<program>", "eval"), space)
        elif callable(space.get("solution")):
            value = space["solution"]()
        else:
            value = space.get("answer")
        return {"value": _plain(value)}
    except BaseException as error:
        try:
            text = f"{type(error).__name__}: {error}"[:500]
        except BaseException:
            text = type(error).__name__[:500]
        return {"error": text}


def _prints(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def _plain(value):
    """A value as JSON tells it."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value).__name__ in ("Fraction", "Decimal"):
        return int(value) if value == int(value) else float(value)
    if type(value) in (list, tuple):
        return [_plain(v) for v in value]
    if type(value) is dict:
        return {str(k): _plain(v) for k, v in value.items()}
    raise TypeError(f"a {type(value).__name__} is no value that can be told")


# --- shutting in ----------------------------------------------------------------------------------


def shut(order: dict) -> list[str]:
    """Everything that can be shut, in the only order in which it can; the names of what holds."""
    wanted, held = set(order["layers"]), []
    libc = None
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
    if libc is not None and "namespaces" in wanted and _unshare(libc):
        held.append("namespaces")
        if "root" in wanted and _new_root(libc, order["disk"]):
            held.append("root")
    _limits(order)
    if libc is not None:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        _drop(libc)
        if "landlock" in wanted and _landlock(libc):
            held.append("landlock")
        if "seccomp" in wanted and _seccomp(libc):
            held.append("seccomp")
    for name in [m for m in sys.modules if m.partition(".")[0] in _FORBIDDEN]:
        del sys.modules[name]
    if "hook" in wanted:
        _hook(os.getcwd())
        held.append("hook")
    return held


def _unshare(libc) -> bool:
    """Own namespaces; goes on in a child, the first process of its world, which dies with this."""
    import ctypes
    import signal

    uid, gid = os.geteuid(), os.getegid()
    rest = _MOUNT | _UTS | _IPC | _PID | _NET
    if libc.unshare(ctypes.c_int(_USER | rest)) == 0:
        try:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{uid} {uid} 1"),
                ("gid_map", f"{gid} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError:
            pass  # without names for users what follows may fail; each is tried
    elif uid != 0 or libc.unshare(ctypes.c_int(rest)) != 0:
        return False
    child = os.fork()
    if child:
        os.close(3)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os._exit(os.WEXITSTATUS(status))
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    return True


def _new_root(libc, size: int) -> bool:
    """An empty file system in memory in place of everything."""
    here = os.getcwd().encode()
    libc.mount(None, b"/", None, (1 << 18) | (1 << 14), None)  # private, all of it
    options = f"size={size},nr_inodes=1024,mode=700".encode()
    if libc.mount(b"tmpfs", here, b"tmpfs", 2 | 4 | 8, options) != 0:  # no suid, device, exec
        return False
    if libc.chroot(here) != 0:
        return False
    os.chdir("/")
    return True


def _drop(libc) -> None:
    """Gives up every capability, so that a root of its own opens nothing."""
    import ctypes

    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())


def _limits(order: dict) -> None:
    cpu = order["cpu"]
    for name, soft, hard in (
        ("RLIMIT_CPU", cpu, cpu + 1),
        ("RLIMIT_AS", order["memory"], order["memory"]),
        ("RLIMIT_FSIZE", order["file"], order["file"]),
        ("RLIMIT_NOFILE", order["files"], order["files"]),
        ("RLIMIT_NPROC", 0, 0),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_MEMLOCK", 0, 0),
        ("RLIMIT_MSGQUEUE", 0, 0),
    ):
        kind = getattr(resource, name, None)
        if resource is not None and kind is not None:
            # a lower limit may hold already
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (soft, hard))


def _landlock(libc) -> bool:
    """The kernel denies all files but those under this folder. Also TCP, where it knows how to."""
    import ctypes

    create = _LANDLOCK.get(os.uname().machine)
    if create is None:
        return False
    version = libc.syscall(create, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = (ctypes.c_uint64 * 3)(files, network, scope)
    rules = libc.syscall(create, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if rules < 0:
        return False
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    under = files & ~1  # all but executing
    beneath = ctypes.create_string_buffer(
        under.to_bytes(8, sys.byteorder) + here.to_bytes(4, sys.byteorder, signed=True), 12
    )
    libc.syscall(create + 1, rules, 1, beneath, ctypes.c_uint32(0))
    os.close(here)
    done = libc.syscall(create + 2, rules, ctypes.c_uint32(0)) == 0
    os.close(rules)
    return done


def _seccomp(libc) -> bool:
    """A filter over system calls: those of `_CALLS` are refused, another architecture's kill."""
    import ctypes
    import errno

    machine = _MACHINES.get(os.uname().machine)
    if machine is None or sys.maxsize < 2**32:
        return False
    column, audit = machine
    refuse = 0x00050000 | errno.EPERM
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    lines = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, 0x80000000), (load, 0, 0, 0)]
    if column == 0:
        lines += [(above, 0, 1, 0x40000000), (give, 0, 0, refuse)]  # the x32 numbers
    # the C library asks for this one first and takes "unknown" as a reason to try the older one
    lines += [(equal, 0, 1, _CLONE3), (give, 0, 0, 0x00050000 | errno.ENOSYS)]
    for numbers in _CALLS.values():
        if numbers[column] is not None:
            lines += [(equal, 0, 1, numbers[column]), (give, 0, 0, refuse)]
    lines.append((give, 0, 0, 0x7FFF0000))
    packed = b"".join(
        code.to_bytes(2, sys.byteorder) + bytes((yes, no)) + value.to_bytes(4, sys.byteorder)
        for code, yes, no, value in lines
    )
    program = ctypes.create_string_buffer(packed, len(packed))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))

    whole = Filter(len(lines), ctypes.addressof(program))
    return libc.prctl(22, 2, ctypes.byref(whole), 0, 0) == 0  # PR_SET_SECCOMP, by filter


def _hook(folder: str) -> None:
    """Python's audit events: files outside the folder, sockets, processes, foreign functions."""
    refused = (
        "socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
        "os.kill", "os.startfile", "os.spawn", "pty.spawn", "signal.pthread_kill", "webbrowser.",
    )  # fmt: skip
    real, forbidden, message = os.path.realpath, _FORBIDDEN, "not permitted in the sandbox"
    folder = real(folder).rstrip("/") + "/"

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(refused):
            raise PermissionError(f"{event}: {message}")
        if event == "import" and str(arguments[0]).partition(".")[0] in forbidden:
            raise ImportError(f"{arguments[0]}: {message}")
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if not (real(path) + "/").startswith(folder):
                raise PermissionError(f"{path}: {message}")

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
