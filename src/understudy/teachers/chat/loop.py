"""The one event loop, in a thread of its own, on which all endpoints of a process send."""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

_lock = threading.Lock()
_made: tuple[int, asyncio.AbstractEventLoop] | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The loop of this process, started where it is not running: a fork does not inherit it."""
    global _made
    with _lock:
        if _made is None or _made[0] != os.getpid():
            new = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(new,), name="understudy-chat", daemon=True).start()
            _made = (os.getpid(), new)
            atexit.register(_stop, new, os.getpid())
        return _made[1]


def run(work: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Starts a coroutine on the loop."""
    return asyncio.run_coroutine_threadsafe(work, loop())


def _run(new: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(new)
    new.run_forever()


def _stop(old: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() == pid and old.is_running():
        old.call_soon_threadsafe(old.stop)
