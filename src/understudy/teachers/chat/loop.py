"""The one event loop, in a thread of its own, on which all endpoints of a process send."""

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

EXIT_S = 2.0

opened: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""What has a coroutine `close()` that is to run before the process ends."""

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


def let_go(pid: int, thing: Any) -> None:
    """Closes a thing whose owner is gone, without waiting for it."""
    if _made is not None and os.getpid() == pid == _made[0] and _made[1].is_running():
        asyncio.run_coroutine_threadsafe(thing.close(), _made[1])


def _stop(old: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() != pid or not old.is_running():
        return

    async def close() -> None:
        await asyncio.gather(*[thing.close() for thing in list(opened)], return_exceptions=True)

    with contextlib.suppress(Exception):
        asyncio.run_coroutine_threadsafe(close(), old).result(EXIT_S)
    old.call_soon_threadsafe(old.stop)
