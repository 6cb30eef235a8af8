"""The ledger: what its keys cover, what it keeps, and what it refuses."""

import json
import multiprocessing
import os
import sqlite3
import time

import pytest

from understudy.cli import main
from understudy.errors import LedgerError, UserError
from understudy.store import Answer, Failure, Frame, Ledger

SAMPLING = {"temperature": 0.5, "top_p": 1.0, "max_tokens": 64, "stop": ("x",), "seed": 1,
            "logprobs": None}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def asked(endpoint="http://here/v1", model="m", sampling=SAMPLING, schema=SCHEMA, messages=SAID):
    return Frame(endpoint, model, sampling, schema)(messages)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "answers.sqlite") as made:
        yield made


MUTATIONS = {
    "endpoint": {"endpoint": "http://there/v1"},
    "model": {"model": "m2"},
    "system prompt": {"messages": [{"role": "system", "content": "Be long."}, SAID[1]]},
    "no system prompt": {"messages": SAID[1:]},
    "question": {"messages": [SAID[0], {"role": "user", "content": "Why? "}]},
    "role": {"messages": [{"role": "user", "content": "Be brief."}, SAID[1]]},
    "order": {"messages": SAID[::-1]},
    "split": {"messages": [*SAID, {"role": "assistant", "content": ""}]},
    "no schema": {"schema": None},
    "schema": {"schema": {**SCHEMA, "required": ["a"]}},
    "order of properties": {
        "schema": {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}
    },
    "temperature": {"sampling": {**SAMPLING, "temperature": 0.6}},
    "top_p": {"sampling": {**SAMPLING, "top_p": 0.9}},
    "max_tokens": {"sampling": {**SAMPLING, "max_tokens": 65}},
    "stop": {"sampling": {**SAMPLING, "stop": ()}},
    "seed": {"sampling": {**SAMPLING, "seed": 2}},
    "no seed": {"sampling": {**SAMPLING, "seed": None}},
    "logprobs": {"sampling": {**SAMPLING, "logprobs": 0}},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_key_changes_with_all_that_changes_the_answer(name):
    assert asked(**MUTATIONS[name]).key(0) != asked().key(0)


def test_keys_are_all_different_and_samples_have_their_own():
    keys = {asked(**m).key(i) for m in ({}, *MUTATIONS.values()) for i in (0, 1, 10)}
    assert len(keys) == 3 * (1 + len(MUTATIONS))


def test_the_key_is_the_sha256_of_the_request_as_json():
    """Written out here by hand, so that a ledger of today is read by the versions to come."""
    import hashlib

    text = (
        '{"request":{"endpoint":"http://here/v1","model":"m","sampling":{"logprobs":null,'
        '"max_tokens":64,"seed":1,"stop":["x"],"temperature":0.5,"top_p":1},"schema":null,'
        '"messages":[{"role":"user","content":"na\\u00efve \\"q\\""}]},"sample":2}'
    )
    made = asked(schema=None, messages=[{"role": "user", "content": 'naïve "q"'}])
    assert made.key(2) == hashlib.sha256(text.encode()).hexdigest()


def test_one_setting_has_one_form():
    """1 and 1.0, a tuple and a list, the order in which settings are given, further fields."""
    same = asked(sampling={**dict(reversed(SAMPLING.items())), "stop": ["x"], "top_p": 1})
    assert same.key(0) == asked().key(0)
    more = [{**SAID[0], "name": "x"}, SAID[1]]
    assert asked(messages=more).key(0) == asked().key(0)


def test_a_setting_that_is_no_json_is_refused():
    with pytest.raises(LedgerError, match="no form as JSON"):
        asked(sampling={**SAMPLING, "temperature": float("nan")})


def test_answers_come_back_as_they_were(ledger, tmp_path):
    told = [["a", -0.25, {"a": -0.25, "b": -1.5}]]
    answer = Answer(
        text="é \ud800 \x00 \u2028", finish="length", logprobs=told, prompt_tokens=3,
        completion_tokens=4, cost=0.125, seconds=0.5, attempts=2, at=17.25,
    )  # fmt: skip
    assert ledger.put(asked(), answer, 3) == answer
    ledger.close()
    with Ledger(tmp_path / "answers.sqlite") as again:
        assert again.get(asked().key(3)) == answer
        assert again.get(asked().key(2)) is None
        assert len(again) == 1


def test_the_first_answer_of_a_key_holds(ledger):
    first = ledger.put(asked(), Answer(text="first", at=1.0))
    assert ledger.put(asked(), Answer(text="second", at=2.0)) == first
    assert ledger.get(asked().key(0)) == first


def test_a_batch_is_whole_or_not_at_all(ledger):
    rows = [(asked(), 0, Answer(text="good")), (asked(), 1, Answer(text="bad", logprobs={1, 2}))]
    with pytest.raises(TypeError):
        ledger.put_many(rows)
    assert len(ledger) == 0
    ledger.put_many(rows[:1])
    assert len(ledger) == 1


def test_failures_never_become_answers(ledger, tmp_path):
    bad = Failure(kind="schema", message="no JSON", text="hm", completion_tokens=7, cost=0.5)
    ledger.fail(asked(), bad)
    ledger.fail(asked(), bad)
    ledger.put(asked(), Answer(text="good"), 1)
    assert ledger.get(asked().key(0)) is None
    assert len(ledger) == 1
    assert [r["text"] for r in ledger.rows()] == ["good"]
    assert ledger.export(tmp_path / "all.jsonl") == 1
    found = ledger.failures()
    assert [(f.kind, f.text, f.key, f.model) for f in found] == [
        ("schema", "hm", asked().key(0), "m")
    ] * 2
    assert len(ledger.failures(1)) == 1


def test_many_keys_are_looked_up_at_once(ledger):
    frame = Frame("http://here", "m", SAMPLING)
    all_of = [frame([{"role": "user", "content": str(i)}]) for i in range(1700)]
    ledger.put_many([(a, 0, Answer(text=str(i))) for i, a in enumerate(all_of)])
    found = ledger.get_many([a.key(0) for a in all_of] + ["00" * 32])
    assert [found[a.key(0)].text for a in all_of] == [str(i) for i in range(1700)]
    assert len(found) == 1700


def test_stats(ledger):
    for i, at in enumerate((100.0, 101.0, 103.0, 1000.0)):
        answer = Answer(text="", prompt_tokens=10, completion_tokens=i, cost=0.25, seconds=i, at=at)
        ledger.put(asked(), answer, i)
    ledger.put(asked(model="free"), Answer(text="", prompt_tokens=5, at=7.0))
    ledger.fail(asked(), Failure(kind="cut", message="", completion_tokens=100, cost=1.0, at=5.0))
    ledger.fail(asked(model="never"), Failure(kind="key", message="", at=5.0))
    free, paid, never = ledger.stats()
    assert (free["model"], paid["model"], never["model"]) == ("free", "m", "never")
    assert paid["answers"] == 4
    assert paid["prompt_tokens"] == 40
    assert paid["completion_tokens"] == 0 + 1 + 2 + 3 + 100
    assert paid["cost"] == 4 * 0.25 + 1.0
    assert paid["failures"] == {"cut": 1}
    assert (paid["first"], paid["last"]) == (100.0, 1000.0)
    assert paid["active"] == 3.0  # the long pause is no work
    assert paid["per_minute"] == 60 * 4 / 3
    assert paid["seconds"] == 2.0
    assert free["cost"] is None
    assert (never["answers"], never["failures"]) == (0, {"key": 1})


def test_export_holds_every_answer_with_its_request(ledger, tmp_path):
    from pyarrow import parquet

    for i in range(3):
        ledger.put(asked(), Answer(text=f"t{i}\ud800", at=float(i)), i)
    for name in ("all.jsonl", "all.parquet"):
        assert ledger.export(tmp_path / "new" / name) == 3
    lines = (tmp_path / "new" / "all.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["key"] for r in rows] == sorted(asked().key(i) for i in range(3))
    assert rows[0]["messages"] == SAID
    assert rows[0]["schema"] == SCHEMA
    assert rows[0]["sampling"]["temperature"] == 0.5
    columns = parquet.read_table(tmp_path / "new" / "all.parquet").to_pylist()
    assert [(r["key"], r["sample"], r["at"]) for r in columns] == [
        (r["key"], r["sample"], r["at"]) for r in rows
    ]
    assert json.loads(columns[0]["messages"]) == SAID
    assert sorted(os.listdir(tmp_path / "new")) == ["all.jsonl", "all.parquet"]
    with pytest.raises(UserError, match=r"jsonl or \.parquet"):
        ledger.export(tmp_path / "all.csv")
    with pytest.raises(LedgerError, match="cannot write"):
        ledger.export(tmp_path / "answers.sqlite" / "x.jsonl")


def test_prune(ledger):
    now = time.time()
    ledger.put(asked(), Answer(text="old", at=now - 100), 0)
    ledger.put(asked(), Answer(text="new", at=now), 1)
    ledger.put(asked(model="other"), Answer(text="old too", at=now - 100))
    ledger.fail(asked(), Failure(kind="cut", message="", at=now))
    with pytest.raises(UserError, match="say what to prune"):
        ledger.prune()
    assert ledger.prune(older_than=50, model="m")["answers"] == 1
    assert ledger.get(asked().key(1)).text == "new"
    assert ledger.get(asked(model="other").key(0)).text == "old too"
    assert ledger.prune(failures=True)["failures"] == 1
    assert len(ledger) == 2
    assert ledger.prune(older_than=50)["answers"] == 1
    assert [s["model"] for s in ledger.stats()] == ["m"]


def write_many(path, worker, count):
    with Ledger(path) as ledger:
        for i in range(count):
            ledger.put(asked(), Answer(text=f"{worker}"), i)
            ledger.put(asked(model=f"m{worker}"), Answer(text=f"{i}"), i)


def test_many_processes_write_one_ledger(tmp_path):
    """They all begin with a file that is not there, and agree on who was first."""
    path = tmp_path / "shared.sqlite"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, w, 25)) for w in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0] * 4
    with Ledger(path) as ledger:
        assert len(ledger) == 25 * 5
        for w in range(4):
            assert ledger.get(asked(model=f"m{w}").key(24)).text == "24"


def test_a_fork_opens_its_own(ledger):
    ledger.put(asked(), Answer(text="before"))
    child = os.fork()
    if not child:
        try:
            ledger.put(asked(), Answer(text="child"), 1)
            os._exit(0 if ledger.get(asked().key(0)).text == "before" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.get(asked().key(1)).text == "child"


def claims_and_dies(path, keys):
    with Ledger(path) as ledger:
        assert ledger.claim(keys, 600) == set(keys)
        os._exit(9)


def test_claims_of_the_dead_are_free(ledger):
    """A living process holds what it asks for; one that was killed holds nothing."""
    keys = [asked().key(i) for i in range(3)]
    child = multiprocessing.get_context("fork").Process(
        target=claims_and_dies, args=(ledger.path, keys)
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    assert ledger.claim(keys, 600) == set(keys)
    reader, writer = os.pipe()
    other = os.fork()
    if not other:
        os.write(writer, b"0" if ledger.claim(keys, 600) else b"1")
        os._exit(0)
    assert os.read(reader, 1) == b"1"
    os.waitpid(other, 0)
    ledger.put(asked(), Answer(text=""), 0)
    assert ledger.claim(keys, 600) == set(keys[1:])  # what is answered is not asked for
    ledger.release(keys)


def test_files_that_are_no_ledger_are_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("these are notes " * 100)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    newer = tmp_path / "newer.sqlite"
    Ledger(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    before = {p: p.read_bytes() for p in (text, other)}
    for path, said in ((text, "no ledger"), (other, "something else"), (newer, "newer version"),
                       (tmp_path, "cannot be opened"), (text / "x", "cannot make the folder")):  # fmt: skip
        with pytest.raises(LedgerError, match=said) as error:
            Ledger(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
    assert {p: p.read_bytes() for p in (text, other)} == before
    with pytest.raises(LedgerError, match="there is no ledger"):
        Ledger(tmp_path / "absent.sqlite", make=False)
    assert not (tmp_path / "absent.sqlite").exists()


def test_a_ledger_that_another_holds_is_waited_for_and_then_named(tmp_path):
    path = tmp_path / "held.sqlite"
    with Ledger(path, wait=0.1) as ledger:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process held it"):
            ledger.put(asked(), Answer(text=""))
        assert ledger.get(asked().key(0)) is None  # readers never wait
        holder.execute("COMMIT")
        holder.close()
        ledger.put(asked(), Answer(text="now"))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """The bound on a file's size stands for a disk: writing beyond it fails in the same place."""
    path = tmp_path / "full.sqlite"
    child = os.fork()
    if not child:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Ledger(path) as ledger:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            kept = 0
            try:
                for i in range(1000):
                    ledger.put(asked(), Answer(text="a" * 5000), i)
                    kept += 1
            except LedgerError as error:
                (tmp_path / "said").write_text(f"{kept}\n{error}")
                os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    kept, line = (tmp_path / "said").read_text().split("\n")
    assert "disk" in line
    assert "what was recorded is whole" in line
    with Ledger(path) as ledger:
        assert len(ledger) == int(kept) > 10
        ledger.put(asked(), Answer(text="again"), 5000)


def test_a_full_database_says_that_the_disk_is_full(ledger):
    """SQLite's own word for a full disk, by a bound on pages."""
    writer = ledger._open()[0]
    writer.execute("PRAGMA max_page_count = 20")
    rows = [(asked(), i, Answer(text="a" * 5000)) for i in range(100)]
    with pytest.raises(LedgerError, match="the disk is full"):
        ledger.put_many(rows)
    assert len(ledger) == 0
    ledger.put_many(rows[:3])


def test_the_command(ledger, tmp_path, capsys):
    path = str(ledger.path)

    def said(*arguments):
        code = main(["ledger", path, *arguments])
        found = capsys.readouterr()
        return code, found.out, found.err

    assert said() == (0, "no answers yet\n", "")
    ledger.put(asked(model="a-model"), Answer(text="x", prompt_tokens=1234, cost=1.5))
    ledger.fail(asked(), Failure(kind="cut", message="cut off"))
    code, out, _ = said("stats")
    assert code == 0
    assert all(w in out for w in ("a-model", "here", "1,234", "1.5000", "failures: cut 1"))
    assert json.loads(said("--json")[1])[0]["model"] == "a-model"
    assert "cut off" in said("failures")[1]
    assert said("export", "--out", str(tmp_path / "a.jsonl"))[0] == 0
    assert json.loads((tmp_path / "a.jsonl").read_text())["text"] == "x"
    assert "1 failures" in said("prune", "--failures")[1]
    assert "0 answers" in said("prune", "--older-than", "1d")[1]
    assert "1 answers" in said("prune", "--model", "a-model")[1]
    for wrong in (["prune"], ["export"], ["stats", "--model", "x"], ["prune", "--older-than", "1"]):
        code, _, err = said(*wrong)
        assert code == 2
        assert len(err.splitlines()) == 1
    assert main(["ledger", str(tmp_path / "absent")]) == 2
