"""A chat endpoint on loopback: rate, our own CPU, and the ledger at size.

    python benchmarks/chat_throughput.py --out docs/results/chat_throughput.json

(a) 2,000 requests that the server answers after 50 ms, 64 at once, every answer in the ledger: the
rate over the ideal one (64 / 50 ms), and this process's CPU a request. The server runs in a process
of its own. In turns with it: the same without a ledger, the `openai` client alone on its default
transport and over aiohttp, and aiohttp alone; so the CPU splits into theirs and ours.
(b) A ledger of 1,000,000 rows: one lookup. (c) A finished job of 100,000 rows, run again in a new
process: to its last answer.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from paired import table, write
from understudy.store import Answer, Frame, Ledger
from understudy.teachers.chat import ChatEndpoint, ChatSampling, user

SAMPLING = ChatSampling(temperature=0.7, max_tokens=64, seed=1)
DRAWN = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 64, "stop": (), "seed": 1, "logprobs": None}  # fmt: skip
TEXT = "An answer of about thirty words, as a teacher writes them to a question. " * 2
MODEL = "bench"


def question(i: int) -> str:
    return f"Question {i}: " + "what is said here is about as long as a short question is. " * 3


def serve(port: Any, delay: float) -> None:
    """Answers every request after `delay` seconds, with as little work as can be."""
    body = json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL,
         "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT},
                      "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 60, "completion_tokens": 30, "total_tokens": 90}}
    ).encode()  # fmt: skip
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    answer = f"{head}{len(body)}\r\n\r\n".encode() + body

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.read = transport, b""

        def data_received(self, data: bytes) -> None:
            self.read += data
            end = self.read.find(b"\r\n\r\n")
            if end < 0:
                return
            lowered = self.read[:end].lower()
            size = int(lowered[lowered.index(b"content-length:") + 15 :].split(b"\r\n")[0])
            if len(self.read) >= end + 4 + size:
                self.read = b""
                loop.call_later(delay, self.transport.write, answer)

    async def main() -> None:
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())


def timed(function: Any) -> tuple[float, float]:
    """(seconds of the clock, CPU seconds of this process, all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def ours(url: str, args: argparse.Namespace, folder: Path | None) -> tuple[float, float]:
    ledger = None if folder is None else folder / f"{time.monotonic_ns()}.sqlite"
    with ChatEndpoint(url, MODEL, ledger=ledger, concurrency=args.concurrency) as teacher:
        warm = [user(f"warm {i}") for i in range(args.concurrency)]
        list(teacher.replies(warm, 1, SAMPLING))
        asked = [user(question(i)) for i in range(args.requests)]
        count = 0

        def work() -> None:
            nonlocal count
            count = sum(isinstance(said, list) for _, said in teacher.replies(asked, 1, SAMPLING))

        found = timed(work)
        assert count == args.requests
    return found


def theirs(url: str, args: argparse.Namespace, how: str) -> tuple[float, float]:
    """The `openai` client, or aiohttp, and nothing else: the same requests, the same bound."""
    import aiohttp
    import httpx2
    import openai

    from understudy.teachers.chat.wire import Carrier, straight

    async def main() -> tuple[float, float]:
        gate = asyncio.Semaphore(args.concurrency)
        carrier = Carrier(url, authorised=False)
        own = {"http_client": straight(carrier)} if how != "openai" else {}
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, **own)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def one(i: int) -> None:
            async with gate:
                body = {"model": MODEL, "messages": [{"role": "user", "content": question(i)}],
                        "max_tokens": 64, "temperature": 0.7, "top_p": 1.0, "seed": 1}  # fmt: skip
                if how == "openai":
                    await client.chat.completions.create(**body)
                elif how == "openai over aiohttp":
                    json.loads(
                        (
                            await client.post(
                                "/chat/completions", content=json.dumps(body).encode(),
                                cast_to=httpx2.Response,
                                options={"headers": {"Content-Type": "application/json"}},
                            )
                        ).content
                    )  # fmt: skip
                else:
                    content = json.dumps(body).encode()
                    async with session.post(f"{url}/chat/completions", data=content) as response:
                        json.loads(await response.read())

        async def all_of(count: int) -> None:
            await asyncio.gather(*[one(i) for i in range(count)])

        await all_of(args.concurrency)
        wall, cpu = time.perf_counter(), time.process_time()
        await all_of(args.requests)
        found = time.perf_counter() - wall, time.process_time() - cpu
        await session.close()
        await carrier.close()
        await client.close()
        return found

    return asyncio.run(main())


def throughput(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, args.delay), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    things = {
        "with ledger": lambda: ours(url, args, folder),
        "without ledger": lambda: ours(url, args, None),
        "openai": lambda: theirs(url, args, "openai"),
        "openai over aiohttp": lambda: theirs(url, args, "openai over aiohttp"),
        "aiohttp": lambda: theirs(url, args, "aiohttp"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in things}
    try:
        for turn in range(args.turns):
            names = list(things)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                gc.collect()  # what another one left behind is not swept on this one's time
                found[name].append(things[name]())
    finally:
        server.terminate()
        server.join()
    ideal = args.requests / args.concurrency * args.delay
    return {
        name: {
            "rate_of_ideal": ideal / median(w for w, _ in seen),
            "best_rate_of_ideal": ideal / min(w for w, _ in seen),
            "cpu_ms": 1000 * median(c for _, c in seen) / args.requests,
            "least_cpu_ms": 1000 * min(c for _, c in seen) / args.requests,
        }
        for name, seen in found.items()
    }


def filled(path: Path, rows: int, url: str) -> list[str]:
    """A ledger of `rows` answers; gives its keys."""
    frame = Frame(url, MODEL, DRAWN)
    keys = []
    with Ledger(path) as ledger:
        for start in range(0, rows, 10_000):
            asked = [
                frame([{"role": "user", "content": question(i)}])
                for i in range(start, min(start + 10_000, rows))
            ]
            ledger.put_many(
                [(a, 0, Answer(text=TEXT, prompt_tokens=60, completion_tokens=30)) for a in asked]
            )
            keys += [a.key(0) for a in asked]
    return keys


def lookups(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    path = folder / "big.sqlite"
    keys = filled(path, args.rows, "http://127.0.0.1:9/v1")
    drawn = random.Random(0).sample(keys, min(2000, len(keys)))
    times = []
    with Ledger(path) as ledger:
        for key in drawn:
            began = time.perf_counter()
            assert ledger.get(key) is not None
            times.append(time.perf_counter() - began)
    return {
        "rows": args.rows,
        "median_ms": 1000 * median(times),
        "p99_ms": 1000 * quantiles(times, n=100)[98],
        "bytes_a_row": path.stat().st_size / args.rows,
    }


def again(path: Path, url: str, rows: int) -> None:
    """The job that is run again, in a process of its own; what it asks for would fail."""
    asked = [user(question(i)) for i in range(rows)]
    began = time.perf_counter()
    with ChatEndpoint(url, MODEL, ledger=path, concurrency=64) as teacher:
        seen = [False] * rows
        for place, said in teacher.replies(asked, 1, SAMPLING):
            assert isinstance(said, list)
            assert said[0].cached
            seen[place] = True
        assert all(seen)
        assert teacher.sent == 0
    print(time.perf_counter() - began)


def restart(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    path, url = folder / "job.sqlite", "http://127.0.0.1:9/v1"
    filled(path, args.job, url)
    command = [sys.executable, __file__, "--again", str(path), url, str(args.job)]
    times, walls = [], []
    for _ in range(args.turns):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - began)
        times.append(float(done.stdout))
    return {"rows": args.job, "seconds": median(times), "with_imports": median(walls)}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the server takes")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the ledger that is read")
    parser.add_argument("--job", type=int, default=100_000, help="rows of the job run again")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=("throughput", "lookup", "restart"))
    parser.add_argument("--quick", action="store_true", help="a small part of everything")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.again:
        again(Path(args.again[0]), args.again[1], int(args.again[2]))
        return {}
    if args.quick:
        args.requests, args.rows, args.job, args.turns = 100, 10_000, 2000, 1
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.only in (None, "throughput"):
            found["throughput"] = throughput(args, folder)
            rows = [
                [n, *(f"{v[k]:.3f}" for k in ("rate_of_ideal", "cpu_ms", "least_cpu_ms"))]
                for n, v in found["throughput"].items()
            ]
            head = ["", "rate / ideal", "CPU ms a request", "least of the turns"]
            print(table(head, rows))
        if args.only in (None, "lookup"):
            found["lookup"] = lookups(args, folder)
            print("lookup:", {k: round(v, 4) for k, v in found["lookup"].items()})
        if args.only in (None, "restart"):
            found["restart"] = restart(args, folder)
            print("restart:", {k: round(v, 3) for k, v in found["restart"].items()})
    write(args.out, found)
    return found


if __name__ == "__main__":
    main()
