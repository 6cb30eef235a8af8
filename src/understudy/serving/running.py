"""Starting and stopping the server."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from understudy.errors import UserError
from understudy.serving.app import is_loopback, make_app
from understudy.teachers.chat import ChatTeacher

_LOCAL = ("localhost", "127.0.0.1", "::1")


def key_from(key_env: str | None) -> str | None:
    """The key in an environment variable; None where none is named.

    Raises:
        UserError: an empty one.
    """
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise UserError(f"the environment variable {key_env} holds no key; set it, or name another")
    return key


def serve(
    teacher: ChatTeacher,
    *,
    name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    key_env: str | None = None,
    open_to_all: bool = False,
    ready: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Answer for `teacher` until interrupted (Ctrl-C or SIGTERM); what has begun is answered first.

    host:        this machine alone unless another is named, which needs a key or `open_to_all`
    port:        0 takes a free one
    ready:       is given the base URL once the server listens
    options:     of `make_app`
    """
    key = key_from(key_env)
    if not is_loopback(host) and key is None and not open_to_all:
        raise UserError(
            f"--host {host} lets other machines in: name the variable that holds a key "
            "(--key-env NAME), or say --open to let in whoever comes"
        )
    with _listening(host, port) as sock:
        server = _server(teacher, name, host, sock, key, options)
        if ready is not None:
            ready(_url(host, sock))
        server.run(sockets=[sock])


@contextmanager
def background(
    teacher: ChatTeacher,
    *,
    name: str = "local",
    key: str | None = None,
    **options: Any,
) -> Iterator[str]:
    """The base URL of a server that runs in a thread of this process, on a free port."""
    with _listening("127.0.0.1", 0) as sock:
        server = _server(teacher, name, "127.0.0.1", sock, key, options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise UserError("the server did not start")
            time.sleep(0.005)
        try:
            yield _url("127.0.0.1", sock)
        finally:
            server.should_exit = True
            thread.join(20)


def _server(
    teacher: ChatTeacher, name: str, host: str, sock: Any, key: str | None, options: dict[str, Any]
) -> Any:
    try:
        import uvicorn
    except ImportError:
        raise UserError("serving needs uvicorn: pip install understudy[chat]") from None
    hosts = (*_LOCAL, host) if is_loopback(host) else None
    app = make_app(teacher, name=name, key=key, hosts=hosts, **options)
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=10, lifespan="on",
        )
    )  # fmt: skip


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port} cannot be served on: {why}") from None
    try:
        yield sock
    finally:
        sock.close()


def _url(host: str, sock: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{sock.getsockname()[1]}/v1"
