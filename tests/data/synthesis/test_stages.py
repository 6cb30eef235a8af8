"""Stages over rows, against plain Python that does the same by brute force."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest

from understudy.data.synthesis import (
    Nearest,
    Row,
    at_random,
    balance,
    by_answer,
    by_consistency,
    by_critic,
    by_judge,
    by_length,
    by_program,
    by_round_trip,
    decontaminate,
    exact,
    final_answer,
    generate,
    identity,
    keep_if,
    near,
    normal,
    numbered,
    prompts,
    read_rows,
    same,
    sandboxed,
    split,
    write_rows,
)
from understudy.data.synthesis.critics import Critic, Familiarity, at_recall
from understudy.data.synthesis.deduplicating import jaccard, shingles
from understudy.errors import DataError, UserError
from understudy.teachers.chat import BudgetSpent, ChatError, ChatSampling, Conversation, Reply


class Scripted:
    """A teacher that answers by a function of the prompt and the draw; it counts what it is asked."""

    def __init__(self, answer, spent_after: int | None = None) -> None:
        self.answer, self.spent_after, self.asked = answer, spent_after, 0

    def fingerprint(self) -> str:
        return "scripted"

    def reply(self, messages: Conversation, n: int = 1, sampling=None, schema=None) -> list[Reply]:
        said = [self.answer(prompts.inputs(messages)[1], draw) for draw in range(n)]
        if any(isinstance(s, ChatError) for s in said):
            raise next(s for s in said if isinstance(s, ChatError))
        self.asked += n
        key = str(abs(hash(messages)) % 10**6)
        return [
            Reply(text=s, key=f"{key}:{i}", prompt_tokens=3, completion_tokens=len(s), cost=0.5)
            if isinstance(s, str) else s
            for i, s in enumerate(said)
        ]  # fmt: skip

    def replies(
        self, conversations: Sequence[Conversation], n: int = 1, sampling=None, schema=None
    ) -> Iterator[tuple[int, list[Reply] | ChatError]]:
        order = list(range(len(conversations)))
        Random(0).shuffle(order)  # answers come as they come
        for count, index in enumerate(order):
            if self.spent_after is not None and count >= self.spent_after:
                raise BudgetSpent("no more")
            try:
                yield index, self.reply(conversations[index], n)
            except ChatError as error:
                yield index, error


def questions(count: int = 5) -> list[Row]:
    return numbered(
        {"question": f"What is {i} and {i}?", "answer": str(2 * i)} for i in range(count)
    )


def ask(row: Row) -> Conversation:
    return prompts.solve(row["question"])


# --- generate -------------------------------------------------------------------------------------


def test_generate_in_order_with_provenance() -> None:
    said = generate(Scripted(lambda g, d: f"{g['question']} {d}"), questions(), ask, n=2)
    assert [r["reply"] for r in said.rows] == [
        f"What is {i} and {i}? {d}" for i in range(5) for d in range(2)
    ]
    assert len({r["id"] for r in said.rows}) == 10
    assert [r["from"] for r in said.rows[::2]] == [q["id"] for q in questions()]
    assert all(len(r["made_by"]) == 1 for r in said.rows)
    again = generate(Scripted(lambda g, d: "x"), said.rows[:1], ask)
    assert len(again.rows[0]["made_by"]) == 2
    spent = said.spent
    assert (spent.requests, spent.prompt_tokens, spent.cost) == (10, 30, 5.0)
    assert spent.completion_tokens == sum(len(r["reply"]) for r in said.rows)


def test_what_is_of_no_use_is_dropped_under_its_reason() -> None:
    def answer(given, draw):
        number = int(given["question"].split()[2])
        if number == 0:
            return ChatError("no", "refused")
        if number == 1:
            return Reply(text="half a", finish="length", key="k")
        return "  " if number == 2 else "fine"

    said = generate(Scripted(answer), questions(), ask)
    assert [r["question"] for r in said.rows] == ["What is 3 and 3?", "What is 4 and 4?"]
    assert said.dropped.reasons == {"no answer: refused": 1, "cut off": 1, "unreadable": 1}
    assert said.spent.failed == 1
    assert str(said.dropped).startswith("generate: 3 dropped (1 ")


def test_a_spent_budget_leaves_what_was_answered() -> None:
    said = generate(Scripted(lambda g, d: "x", spent_after=2), questions(), ask)
    assert (len(said.rows), said.spent.complete) == (2, False)
    assert said.dropped.reasons == {"not asked: the budget is spent": 3}


# --- verify ---------------------------------------------------------------------------------------


def test_answers_are_compared_by_value() -> None:
    assert [normal(a) for a in (" 1,250.0", "$1250", "2/4", "0.50", "Mia.", "-3")] == [
        "1250", "1250", "1/2", "1/2", "mia", "-3",
    ]  # fmt: skip
    assert same("1,000", 1000)
    assert not same("1/0", 1)
    assert [final_answer(t) for t in ("a#4", "so --> 5 END", "The answer is 6.", "7", "1#2#3")] == [
        "4", "5 END", "6", None, "3",
    ]  # fmt: skip


def test_by_answer() -> None:
    rows = [{**r, "reply": f"so #{8 - 2 * i}"} for i, r in enumerate(questions())]
    rows[4]["reply"] = "I do not know"
    found = by_answer(rows)
    assert [r["answer"] for r in found.rows] == ["4"]
    assert found.dropped.reasons == {"wrong answer": 3, "no answer": 1}
    assert found.dropped.rows[0].evidence == "8, not 0"


def test_by_program_interpreted_and_sandboxed() -> None:
    programs = ["0+0", "1*3", "import os\nos.fork()", "3+", "2**3"]
    rows = [{**r, "program": p} for r, p in zip(questions(), programs, strict=True)]
    for worth in ({}, {"worth": sandboxed}):
        found = by_program(rows, **worth)
        assert [(r["answer"], r["value"]) for r in found.rows] == [("0", "0"), ("8", "8")]
        assert found.dropped.reasons == {"the program fails": 2, "wrong value": 1}
    assert len(by_program(rows, truth=None)) == 3


def test_by_critic_and_by_judge() -> None:
    rows = questions()
    found = by_critic(rows, lambda rs: [i / 4 for i in range(len(rs))], threshold=0.5)
    assert [(r["answer"], r["score"]) for r in found.rows] == [("4", 0.5), ("6", 0.75), ("8", 1.0)]
    with pytest.raises(UserError, match="1 scores for 5 rows"):
        by_critic(rows, lambda rs: [1.0])
    judge = Scripted(lambda g, d: "right" if int(g["given"]) < 4 else "it is wrong")
    judged = by_judge(
        judge, rows, lambda r: prompts.grade(r["question"], r["answer"]),
        accept=lambda t: t.endswith("right"),
    )  # fmt: skip
    assert [r["answer"] for r in judged.rows] == ["0", "2"]
    assert all(len(r["made_by"]) == 1 for r in judged.rows)
    assert judged.spent.requests == 5


def test_by_consistency_is_the_majority() -> None:
    random = Random(1)
    rows = numbered(
        {"question": f"q{q}", "reply": f"#{random.choice('1122345')}" if random.random() < 0.9 else "?", "n": n}
        for q in range(40) for n in range(5)
    )  # fmt: skip
    found = by_consistency(rows, least=0.4)
    expected = []
    for q in range(40):
        own = [r for r in rows if r["question"] == f"q{q}"]
        votes = Counter(r["reply"] for r in own if r["reply"] != "?")
        top = max(votes.values())
        winner = next(r["reply"] for r in own if votes.get(r["reply"]) == top)
        expected += [r["id"] for r in own if r["reply"] == winner and top >= 2]
    assert [r["id"] for r in found.rows] == expected
    assert set(found.dropped.reasons) <= {"outvoted", "no majority", "no answer"}
    assert len(found) + len(found.dropped) == len(rows)


def test_by_round_trip() -> None:
    back = Scripted(lambda g, d: "9 #4" if " 2 " in g["question"] else "#1")
    found = by_round_trip(
        back, questions(), ask, agree=lambda row, text: final_answer(text) == row["answer"]
    )
    assert [r["answer"] for r in found.rows] == ["4"]
    assert found.dropped.reasons == {"the way back leads elsewhere": 4}


# --- filter, deduplicate, decontaminate -------------------------------------------------------------


def test_filters() -> None:
    rows = numbered({"question": " ".join("a" * n)} for n in range(1, 7))
    found = by_length(rows, "question", least=2, most=4)
    assert [len(r["question"].split()) for r in found.rows] == [2, 3, 4]
    assert found.dropped.reasons == {"too long": 2, "too short": 1}
    assert len(keep_if(rows, lambda r: len(r["question"]) > 3, "short")) == 4
    with pytest.raises(DataError, match="has no 'reply'"):
        by_length(rows, "reply")


def test_exact_duplicates() -> None:
    rows = numbered(
        {"question": q, "n": i}
        for i, q in enumerate(
            ["Who has 3?", "who  has 3", "Who has 4?", "WHO HAS 3!", "ﬁne", "fine"]
        )
    )
    found = exact(rows)
    assert [r["n"] for r in found.rows] == [0, 2, 4]
    assert [d.evidence for d in found.dropped.rows] == [rows[0]["id"]] * 2 + [rows[4]["id"]]
    twice = [rows[0], rows[0]]
    assert len(exact(twice)) == 1


def test_near_duplicates_are_those_of_all_pairs() -> None:
    random = Random(2)
    vocabulary = [f"w{i}" for i in range(60)]
    texts: list[str] = []
    for _ in range(30):
        text = [random.choice(vocabulary) for _ in range(30)]
        texts.append(" ".join(text))
        for changes in (1, 3, 12):
            other = list(text)
            for place in random.sample(range(30), changes):
                other[place] = random.choice(vocabulary)
            texts.append(" ".join(other))
    rows = numbered({"question": t, "n": i} for i, t in enumerate(texts))
    found = near(rows, threshold=0.7)
    kept: list[int] = []
    for i, text in enumerate(texts):
        words = text.split()
        own = {tuple(words[j : j + 3]) for j in range(28)}
        alike = []
        for k in kept:
            other = texts[k].split()
            runs = {tuple(other[j : j + 3]) for j in range(28)}
            alike.append(len(own & runs) / len(own | runs))
        if max(alike, default=0) < 0.7:
            kept.append(i)
    assert [r["n"] for r in found.rows] == kept
    assert 30 < len(kept) < 120
    for one, other in combinations(found.rows, 2):
        assert jaccard(shingles(one["question"], 3), shingles(other["question"], 3)) < 0.7


def test_decontamination_shows_what_matched() -> None:
    test = "Ada has seven red marbles and gives four of them to Leo before lunch on a rainy day"
    short = "Ben buys two packs of nine plums today"
    tiny = "What is two?"
    rows = numbered(
        {"question": q}
        for q in (
            "Say: ada HAS seven, red marbles and gives four of them to Leo before lunch, twice!",
            "Ada has seven red marbles and gives five of them to Leo before lunch on a rainy day",
            "Today Ben buys two packs of nine plums today and eats one",
            "what is two",
            "What is two and two?",
        )
    )
    found = decontaminate(rows, [test, short, tiny])
    assert [r["question"][:8] for r in found.rows] == ["Ada has ", "What is "]
    evidence = [d.evidence for d in found.dropped.rows]
    words = "ada has seven red marbles and gives four of them to leo before lunch"
    assert evidence == [
        f"test 0: {words!r}",
        "test 1: 'ben buys two packs of nine plums today'",
        "test 2: 'what is two'",
    ]
    eight = decontaminate(rows, [test, short, tiny], longest=8)
    assert [r["question"] for r in eight.rows] == ["What is two and two?"]
    with pytest.raises(DataError, match="no test texts"):
        decontaminate(rows, [])


def test_a_manner_of_speaking_is_no_evidence() -> None:
    ending = "how many of them does she have in all after the long day"
    tests = [f"{name} gets {n}; {ending}" for name, n in (("Mia", 4), ("Zoe", 7), ("Eva", 9))]
    rows = numbered({"question": f"Kim gets 5; {ending}"} for _ in range(1))
    assert len(decontaminate(rows, tests, longest=10)) == 0
    assert len(decontaminate(rows, tests, longest=10, common=2)) == 1


# --- balance, split, retrieve, critic -----------------------------------------------------------------


def test_balance() -> None:
    rows = numbered({"question": str(i), "kind": "abbcccc"[i % 7]} for i in range(70))
    found = balance(rows, "kind", seed=3)
    assert Counter(r["kind"] for r in found.rows) == {"a": 10, "b": 10, "c": 10}
    assert found.rows == balance(rows, "kind", seed=3).rows
    assert found.rows != balance(rows, "kind", seed=4).rows
    assert len(balance(rows, lambda r: r["kind"], most=15)) == 40
    assert len(at_random(rows, 9, 1)) == 9


def test_split_keeps_groups_whole_and_rows_where_they_are() -> None:
    rows = numbered({"question": f"q{i // 3}", "n": i} for i in range(900))
    parts = split(rows, {"train": 0.8, "validation": 0.1, "test": 0.1})
    assert sum(map(len, parts.values())) == 900
    assert len(parts["train"]) == pytest.approx(720, abs=60)
    groups = [{r["question"] for r in p} for p in parts.values()]
    assert all(not a & b for a, b in combinations(groups, 2))
    fewer = split(rows[::2], {"train": 0.8, "validation": 0.1, "test": 0.1})
    kept = {r["n"] for r in parts["train"]}
    assert {r["n"] for r in fewer["train"]} <= kept
    with pytest.raises(UserError, match=r"these to 0\.9"):
        split(rows, {"train": 0.9})


def test_nearest_examples_by_cosine() -> None:
    rows = numbered({"question": q} for q in ("red blue", "red", "green", "blue blue"))
    vectors = {"red blue": [1, 1], "red": [1, 0], "green": [-1, 0], "blue blue": [0, 2], "red?": [3, 1]}  # fmt: skip
    near_ones = Nearest(rows, lambda texts: np.array([vectors[t] for t in texts]))
    assert [r["question"] for r in near_ones.like("red?", 3)] == ["blue blue", "red blue", "red"]
    assert [r["question"] for r in near_ones.like("red", 1)] == ["red blue"]
    assert [r["question"] for r in near_ones.like("red", 1, itself=True)] == ["red"]
    words = Nearest(questions(30))
    assert words.like("What is 7 and 7?", 1, itself=True)[0]["answer"] == "14"


def test_critic_learns_from_a_few_and_keeps_its_recall() -> None:
    random = Random(4)
    rows, truth = [], []
    for i in range(400):
        good = random.random() < 0.6
        words = ["Kim", "has", str(random.randint(2, 99)), "plums", "and", "eats", "two", "now"]
        if not good:
            random.shuffle(words)
        rows.append({"text": " ".join(words), "skill": "subtract", "n": i})
        truth.append(good)
    rows = numbered(rows)
    critic = Critic(Familiarity(rows, head=("skill",)), recall=0.8)
    critic.fit(rows[:100], truth[:100])
    assert critic.area is not None
    assert critic.area > 0.9
    kept = by_critic(rows[100:], critic, threshold=critic.threshold).rows
    good = [t for r, t in zip(rows, truth, strict=True) if r["n"] in {k["n"] for k in kept}]
    assert sum(good) / len(good) > 0.9
    assert len(kept) > 0.6 * sum(truth[100:])
    with pytest.raises(DataError, match="judge more"):
        critic.fit(rows[:50], [True] * 50)


def test_threshold_at_recall() -> None:
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 1], bool)
    for recall, threshold in ((0.25, 0.9), (0.5, 0.7), (0.51, 0.6), (1.0, 0.5)):
        assert at_recall(scores, truth, recall) == threshold


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_there_and_back_in_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    said = generate(Scripted(lambda g, d: "ü #1\n"), questions(), ask)
    one = write_rows(tmp_path / f"a{suffix}", said.rows)
    other = write_rows(tmp_path / f"b{suffix}", [dict(reversed(r.items())) for r in said.rows])
    assert one.read_bytes() == other.read_bytes()
    back = read_rows(one)
    assert back == said.rows
    assert list(back[0])[:2] == ["id", "made_by"]
    empty = write_rows(tmp_path / f"c{suffix}", [])
    assert read_rows(empty) == []


def test_ids_are_of_the_content() -> None:
    row = {"question": "q", "n": 1}
    assert numbered([row])[0]["id"] == identity({"made_by": [], "n": 1, "question": "q"})
    assert identity({**row, "id": "x"}) == identity(row)
    assert identity({**row, "n": 2}) != identity(row)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": 1}\n[1]\n')
    (tmp_path / "b.parquet").write_text("x")
    for name, match in (
        ("a.jsonl", "line 2 is list"), ("b.parquet", "no Parquet file"), ("c.jsonl", "no file"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=match):
            read_rows(tmp_path / name)
    with pytest.raises(DataError, match="written as"):
        write_rows(tmp_path / "a.csv", [])
    mixed = numbered([{"a": 1}, {"a": "x"}])
    with pytest.raises(DataError, match="column 'a'"):
        write_rows(tmp_path / "a.parquet", mixed)
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0]) == {"question": 1}


def test_sampling_reaches_the_teacher() -> None:
    heard = []

    class Listening(Scripted):
        def replies(self, conversations, n=1, sampling=None, schema=None):
            heard.append((n, sampling))
            return super().replies(conversations, n)

    drawn = ChatSampling(temperature=0.3, seed=5)
    generate(Listening(lambda g, d: "x"), questions(1), ask, n=3, sampling=drawn)
    assert heard == [(3, drawn)]
