"""Programs that try to get out: nothing of this process, its files or its network is reached."""

import os
import socket
from pathlib import Path

import pytest

from understudy.data import sandbox
from understudy.data.sandbox import LAYERS, Limits, Ran
from understudy.errors import UserError

KERNEL = ("landlock", "seccomp")
"""What an ordinary user has where namespaces are not permitted: each alone has to hold."""


def run(program: str, layers: tuple[str, ...] = LAYERS, **limits: float) -> Ran:
    return sandbox.run(program, Limits(**limits), layers=layers)  # type: ignore[arg-type]


@pytest.fixture(params=[LAYERS, KERNEL], ids=["all", "kernel"])
def layers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


# --- what is asked for ----------------------------------------------------------------------------


def test_value_output_and_error() -> None:
    assert run("1 + 2").value == 3
    assert run("def solution():\n    return [1, 2.5, 'a', None]").value == [1, 2.5, "a", None]
    printed = run("answer = 7\nprint(5)")
    assert (printed.value, printed.out, printed.good) == (7, "5\n", True)
    assert run("from fractions import Fraction as F\nF(1, 2) + F(1, 2)").value == 1
    failed = run("1 / 0")
    assert (failed.good, failed.value, failed.killed) == (False, None, False)
    assert failed.error == "ZeroDivisionError: division by zero"
    assert run("x = ").error.startswith("SyntaxError")
    assert run("import sys\nsys.exit(3)").error == "SystemExit: 3"
    assert run("object()").error == "TypeError: a object is no value that can be told"


def test_same_twice() -> None:
    program = "import random\n[random.random() for _ in range(3)]"
    assert run(program).value == run(program).value


# --- ways out -------------------------------------------------------------------------------------


def test_files(layers: tuple[str, ...], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    for path in (secret, Path("/etc/passwd"), Path(__file__)):
        assert not run(f"open({str(path)!r}).read()", layers).good
        assert not run(f"import os\nos.read(os.open({str(path)!r}, 0), 10)", layers).good
    assert not run(f"import os\nos.listdir({str(tmp_path)!r})", layers).good
    assert not run(f"open({str(tmp_path / 'new')!r}, 'w').write('x')", layers).good
    assert not run(f"import os\nos.unlink({str(secret)!r})", layers).good
    assert not run(f"import os\nos.symlink({str(secret)!r}, 'a')\nopen('a').read()", layers).good
    assert not run("open('../../../../etc/passwd').read()", layers).good
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]
    assert secret.read_text() == "kept"


def test_its_own_folder_is_its_own(layers: tuple[str, ...]) -> None:
    assert run("open('a', 'w').write('b' * 9)\nopen('a').read()", layers).value == "b" * 9
    assert "File too large" in run("open('a', 'w').write('b' * 50000)", layers, file=1000).error
    assert not run(
        "open('a', 'w').write('#!/bin/sh')\nimport os\nos.execv('a', ['a'])", layers
    ).good


def test_environment(layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_CANARY", "do-not-tell")
    found = run("import os\ndict(os.environ)", layers)
    assert found.good
    assert set(found.value) <= {"LC_CTYPE"}
    assert not run("import os\nopen(f'/proc/{os.getppid()}/environ').read()", layers).good
    assert not run("open('/proc/self/environ').read()", layers).good


def test_processes_and_threads(layers: tuple[str, ...]) -> None:
    assert not run("import os\nos.fork()", layers).good
    assert not run("import os\nwhile True:\n    os.fork()", layers, seconds=3).good
    assert not run("import os\nos.system('true') == 0 and 1 or 1 / 0", layers).good
    assert not run("import os\nos.posix_spawn('/bin/true', ['true'], {})", layers).good
    assert not run("import _thread\n_thread.start_new_thread(print, ())", layers).good
    assert not run("import subprocess\nsubprocess.run(['true'])", layers).good


def test_signals(layers: tuple[str, ...]) -> None:
    for target in ("os.getppid()", str(os.getpid()), "-1", "1"):
        run(f"import os\nos.kill({target}, 9)", layers)  # this process goes on
    assert not run("import os\nos.kill(os.getppid(), 9)", layers).good
    assert not run("import os\nos.setsid()", layers).good


def test_network(layers: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)
        program = (
            "import _socket\ns = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)\n"
            f"s.connect(('127.0.0.1', {port}))"
        )
        assert not run(program, layers).good
        with pytest.raises(TimeoutError):
            server.accept()


def test_foreign_functions() -> None:
    assert not run("import ctypes\nctypes.CDLL(None).getpid()").good
    assert not run("import _ctypes").good
    hidden = "import sys\n[m for m in sys.modules if 'ctypes' in m or 'socket' in m]"
    assert run(hidden).value == []


def test_a_hook_that_is_got_around_leaves_the_kernel() -> None:
    """What Python's own hook refuses, the kernel refuses without it."""
    for program in ("open('/etc/passwd')", "import os\nos.fork()", "import os\nos.kill(1, 9)"):
        with_hook, without = run(program, ("hook", *KERNEL)), run(program, KERNEL)
        assert not with_hook.good
        assert "sandbox" in with_hook.error
        assert not without.good
        assert "sandbox" not in without.error


# --- bombs ----------------------------------------------------------------------------------------


def test_memory(layers: tuple[str, ...]) -> None:
    assert run("x = bytearray(10**10)", layers).error.startswith("MemoryError")
    grown = run("x = [0]\nwhile True:\n    x = x + x", layers, memory=2**27)
    assert not grown.good


def test_time() -> None:
    endless = run("while True:\n    pass", seconds=0.7)
    assert (endless.timeout, endless.killed) == (True, True)
    assert endless.seconds < 5
    stubborn = run("import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException:\n        pass", seconds=0.7)  # fmt: skip
    assert stubborn.timeout


def test_processor_time() -> None:
    assert run("while True:\n    pass", cpu=1, seconds=20).timeout


def test_output(layers: tuple[str, ...]) -> None:
    loud = run("while True:\n    print('a' * 1000)", layers, output=10_000)
    assert (loud.killed, len(loud.out)) == (True, 10_000)
    assert loud.error == "stopped: it printed too much"
    assert run("'a' * 10**6", layers, output=10_000).killed
    assert run("raise ValueError('a' * 10**6)", layers).error == "ValueError: " + "a" * 488


def test_disk() -> None:
    filled = run("for i in range(10**6):\n    open(str(i), 'w').write('b' * 10**5)", disk=10**6)
    assert not filled.good


def test_a_forged_value_is_only_a_value() -> None:
    forged = run('import os\nos.write(3, b\'{"value": "mine"}\')\nos._exit(0)')
    assert forged.value == "mine"
    assert run("import os\nos.write(3, b'[' * 50000)\nos._exit(0)").value is None


# --- systems that cannot --------------------------------------------------------------------------


def test_nothing_runs_where_nothing_is_shut(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"open({str(mark)!r}, 'w').write('x')"
    for kept in (("hook",), ("landlock",), ("seccomp",), ()):
        with pytest.raises(UserError, match="was not run"):
            sandbox.run(program, layers=kept)
    assert not mark.exists()
    assert sandbox.run("1 + 1", layers=("hook",), strict=False).value == 2
    assert not sandbox.run(program, layers=("hook",), strict=False).good


def test_limits_are_checked() -> None:
    with pytest.raises(UserError, match="memory is above 0"):
        Limits(memory=0)
