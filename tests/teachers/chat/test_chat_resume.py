"""Killed at any point and run again: nothing that was recorded is asked for a second time."""

import multiprocessing
import os
import random
import signal

import pytest

from faults.server import Answer, Status, endpoint
from understudy.store import Ledger
from understudy.teachers.chat import ChatEndpoint, ChatSampling, in_order, user

COUNT = 120
PRELOAD = [
    "understudy.teachers.chat",
    "pyarrow.parquet",
    "openai.resources.chat",
    "aiohttp",
    "pytest",
]


def conversations():
    return [user(f"Which label has text {i}?") for i in range(COUNT)]


def label(url, ledger, out, n):
    """The job: labels of all texts, in a Parquet file that is there whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    with ChatEndpoint(url, "toy", ledger=ledger, concurrency=8, backoff=0.01) as teacher:
        said = in_order(teacher, conversations(), n, ChatSampling(seed=3))
    rows = [
        {"id": i, "label": r.text, "key": r.key, "tokens": r.prompt_tokens + r.completion_tokens}
        for i, replies in enumerate(said)
        for r in replies
    ]
    parquet.write_table(pa.Table.from_pylist(rows), f"{out}.tmp")
    os.replace(f"{out}.tmp", out)


def said(request):
    return request["messages"][0]["content"]


def started(*arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)  # imported once, and not by each that is killed
    process = context.Process(target=label, args=arguments)
    process.start()
    return process


@pytest.mark.parametrize("n", [1, 3])
def test_killed_again_and_again_it_repeats_nothing(tmp_path, n):
    """SIGKILL at seeded points, also amid faults; the end is byte-identical to an unbroken run's."""
    drawn = random.Random(n)
    whole, out, path = tmp_path / "whole.parquet", tmp_path / "out.parquet", tmp_path / "l.sqlite"
    child, kill_at = [None], [None]

    def script(request, number):
        if child[0] is not None and number == kill_at[0]:
            os.kill(child[0].pid, signal.SIGKILL)
        if number % 17 == 5:
            return Status(500)
        return Answer(delay=drawn.uniform(0, 0.01))

    with endpoint(script) as server:
        process = started(server.url, str(tmp_path / "other.sqlite"), str(whole), n)
        process.join()
        assert process.exitcode == 0
        unbroken = len(server.requests)

        kills = 0
        while not out.exists():
            recorded = set()
            if path.exists():
                with Ledger(path) as ledger:
                    recorded = {row["messages"][0]["content"] for row in ledger.rows()}
                    assert ledger.failures() == []
            before = len(server.requests)
            kill_at[0] = before + drawn.randrange(1, 50) if kills < 4 else None
            child[0] = started(server.url, str(path), str(out), n)
            child[0].join()
            asked = [said(r) for r in server.requests[before:]]
            assert recorded.isdisjoint(asked)
            if child[0].exitcode == 0:
                break
            assert child[0].exitcode == -signal.SIGKILL
            kills += 1
        assert kills >= 3
        before = len(server.requests)
        again = started(server.url, str(path), str(tmp_path / "again.parquet"), n)
        again.join()
        assert len(server.requests) == before
    # a kill costs at most what was under way then: sent, and not yet on the disk
    assert before - unbroken <= unbroken + kills * (4 * 8 + 32)
    assert out.read_bytes() == whole.read_bytes() == (tmp_path / "again.parquet").read_bytes()
    with Ledger(path) as ledger:
        assert len(ledger) == COUNT * n


def test_interrupted_it_keeps_what_was_under_way(tmp_path):
    """Ctrl-C: nothing more is sent, what is under way is waited for and recorded."""
    with endpoint(delay=0.05) as server:
        teacher = ChatEndpoint(server.url, "toy", ledger=tmp_path / "l", concurrency=8)
        found = []

        def read():
            for place, _ in teacher.replies(conversations()):
                found.append(place)
                if len(found) == 20:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), teacher:
            read()
        assert 20 <= len(server.requests) <= 50
        with Ledger(tmp_path / "l") as ledger:
            assert len(ledger) == server.answered == len(server.requests)


def full(url, ledger, out):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    from understudy.errors import LedgerError

    with Ledger(ledger) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        try:
            with ChatEndpoint(url, "toy", ledger=store, concurrency=2) as teacher:
                in_order(teacher, conversations())
        except LedgerError as error:
            os.write(out, str(error).encode())
            os._exit(3)
    os._exit(0)


def test_a_full_disk_stops_at_once_and_goes_on_later(tmp_path):
    """Answers that cannot be recorded are not bought: only those under way are lost with the process."""
    reader, writer = os.pipe()
    with endpoint(lambda r, n: Answer("long " * 1000, delay=0.002)) as server:
        child = os.fork()
        if not child:
            full(server.url, tmp_path / "l", writer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        line = os.read(reader, 1000).decode()
        assert "disk" in line
        assert "\n" not in line
        with Ledger(tmp_path / "l") as ledger:
            kept = len(ledger)
        assert 5 < kept < COUNT / 2
        assert len(server.requests) <= kept + 4 * 2 + 32 + 2  # what is on its way at most
        with ChatEndpoint(server.url, "toy", ledger=tmp_path / "l") as teacher:
            in_order(teacher, conversations())
            assert teacher.sent == COUNT - kept


def test_what_the_disk_did_not_take_is_written_first_next_time(tmp_path):
    """In the same process the answer that was paid for is still there."""
    with (
        endpoint() as server,
        Ledger(tmp_path / "l") as ledger,
        ChatEndpoint(server.url, "toy", ledger=ledger) as teacher,
    ):
        teacher.reply(user("first"))
        writer = ledger._open()[0]
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ValueError, match="the disk is full"):
            teacher.reply(user("big " * 20_000))
        writer.execute("PRAGMA max_page_count = 1000000")
        assert len(ledger) == 1
        before = len(server.requests)
        teacher.reply(user("next"))
        assert teacher.reply(user("big " * 20_000))[0].cached
        assert len(server.requests) == before + 1
