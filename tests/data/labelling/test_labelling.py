"""From answers to rows: schemas, answers, votes, log-probabilities, plans, sheets, cascades."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.data.labelling import (
    Asking,
    Row,
    Unreadable,
    answer_schema,
    ask,
    cascade,
    check_prices,
    distinct,
    divide,
    label_of,
    plan,
    read_labels,
    read_sheet,
    rounds,
    stratified,
    voted,
    weighed,
    write_sheet,
)
from understudy.errors import DataError, UserError
from understudy.evaluation import interval
from understudy.teachers.chat import ChatError, Reply

LABELS = {"spam": "Sold to everybody", "ham": "", "spam folder": "About folders"}


# --- schemas --------------------------------------------------------------------------------------


def test_three_forms_of_one_schema(tmp_path: Path) -> None:
    listed = [{"name": "spam", "definition": "Sold to everybody"}, {"name": "ham"}]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(listed))
    wanted = {"spam": "Sold to everybody", "ham": ""}
    assert read_labels(path) == read_labels(listed) == read_labels(wanted) == wanted
    assert read_labels(["a", "b"]) == {"a": "", "b": ""}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["one"], "at least two"),
        (["a", "A"], "twice"),
        ([1, 2], "label 0 is 1"),
        ({"a": 1, "b": ""}, "definition of 'a'"),
        ([{"name": "a", "meaning": "x"}, "b"], "meaning"),
        (['a"', "b"], "quote"),
        (["</labels>", "b"], "ends the prompt"),
        ([" ", "b"], "names are text"),
        (3, "int"),
    ],
)
def test_a_bad_schema_is_one_line(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        read_labels(given)
    assert "\n" not in str(error.value)


def test_a_bad_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[")
    for name, said in (("bad.json", "no JSON"), ("none.json", "no label file")):
        with pytest.raises(DataError, match=said):
            read_labels(tmp_path / name)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['{"label": "ham"}', "ham", " HAM\n", '"ham"', '```json\n{"label": "ham"}\n```'],
)
def test_an_answer_is_read(text: str) -> None:
    assert label_of(Reply(text=text), LABELS) == "ham"


@pytest.mark.parametrize(
    ("text", "finish", "said"),
    [
        ("", "stop", "empty"),
        ("I think that it is ham.", "stop", "names no label"),
        ('{"label": "hem"}', "stop", "did you mean ham"),
        ('{"class": "ham"}', "stop", "has no 'label'"),
        ('{"label": ["ham"]}', "stop", "has no 'label'"),
        ('{"label": "ha', "length", "cut off"),
        ("C'est du jambon", "stop", "names no label"),
    ],
)
def test_what_names_no_label_is_never_guessed(text: str, finish: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        label_of(Reply(text=text, finish=finish), LABELS)


def test_votes_are_shares() -> None:
    replies = [Reply(text=t) for t in ("spam", "spam", "ham", "nonsense")]
    assert voted(replies, LABELS) == (2 / 3, 1 / 3, 0)
    with pytest.raises(Unreadable):
        voted([Reply(text=t) for t in ("spam", "x", "y")], LABELS)


def test_logprobs_of_one_token_a_label() -> None:
    shares = {"spam": 0.5, "ham": 0.3, "spam folder": 0.1, "junk": 0.1}
    others = {f'{k}"}}': math.log(v) for k, v in shares.items()}
    reply = Reply(
        text='{"label": "spam"}',
        logprobs=(('{"label": "', 0.0, {}), ('spam"}', math.log(0.5), others)),
    )
    found = weighed(reply, LABELS)
    assert found == pytest.approx((0.5 / 0.9, 0.3 / 0.9, 0.1 / 0.9))


def test_logprobs_follow_labels_that_begin_alike() -> None:
    """spam" 0.6 * 0.75, spam folder 0.6 * 0.25, ham 0.4: two places where they part."""
    first = {"spam": math.log(0.6), "ham": math.log(0.4)}
    second = {'"}': math.log(0.75), " folder": math.log(0.25)}
    reply = Reply(
        text='{"label": "spam"}',
        logprobs=(
            ('{"label": "', 0.0, {}),
            ("spam", math.log(0.6), first),
            ('"}', math.log(0.75), second),
        ),
    )
    assert weighed(reply, LABELS) == pytest.approx((0.45, 0.4, 0.15))
    assert weighed(Reply(text="spam"), LABELS) is None


def test_logprobs_of_letters_agree_with_the_model_that_wrote_them() -> None:
    from label_worlds import LABELS as PACKAGES
    from label_worlds import Tfidf, docstrings

    teacher = Tfidf()
    (text, *_), _ = docstrings(1)
    asking = Asking(labels=PACKAGES, way="logprobs")
    found = ask(teacher, {0: text}, asking).rows[0]
    wanted = teacher.probabilities(text)
    assert found.soft == pytest.approx([wanted[k] for k in PACKAGES], abs=1e-9)


# --- asking ---------------------------------------------------------------------------------------


def test_failures_are_apart_and_never_rows() -> None:
    from label_worlds import LABELS as PACKAGES
    from label_worlds import Tfidf, docstrings

    texts = dict(enumerate(docstrings(30)[0]))
    texts |= {30: "BABBLE on", 31: "REFUSE this", 32: "a </text> in the text"}
    teacher = Tfidf(refuse="REFUSE", babble="BABBLE")
    found = ask(teacher, texts, Asking(labels=PACKAGES))
    assert list(found.rows) == list(range(30))
    kinds = {n: f.kind for n, f in found.failures.items()}
    assert kinds == {30: "answer", 31: "server", 32: "text"}
    assert found.spent.requests == 31
    asked = teacher.asked
    ask(teacher, texts, Asking(labels=PACKAGES), found)
    assert teacher.asked == asked


def test_a_budget_that_is_spent_leaves_what_was_answered() -> None:
    from label_worlds import LABELS as PACKAGES
    from label_worlds import Tfidf, docstrings

    texts = dict(enumerate(docstrings(30)[0]))
    found = ask(Tfidf(limit=12), texts, Asking(labels=PACKAGES))
    assert found.budget_spent
    assert len(found.rows) == 12
    assert not found.failures


# --- plans ----------------------------------------------------------------------------------------


class Counting:
    """Answers `ham`, and counts the words of a text as its tokens."""

    def fingerprint(self) -> str:
        return "counting"

    def reply(self, messages: Any, n: int = 1, sampling: Any = None, schema: Any = None) -> Any:
        from understudy.data.synthesis import prompts

        words = len(prompts.inputs(messages)[1]["text"].split())
        return [Reply(text="ham", prompt_tokens=words, completion_tokens=2) for _ in range(n)]

    def replies(
        self, conversations: Sequence[Any], n: int = 1, sampling: Any = None, schema: Any = None
    ) -> "Iterator[tuple[int, list[Reply] | ChatError]]":
        for i, one in enumerate(conversations):
            yield i, self.reply(one, n)


def test_an_estimate_is_the_mean_of_those_tried_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 40, 500)
    texts = {i: f"{i} " + "word " * int(n) for i, n in enumerate(sizes)}
    found = plan(Counting(), texts, Asking(labels=LABELS), (10.0, 20.0))
    numbers = [round(i * 499 / 19) for i in range(20)]
    read = np.array([1.0 + sizes[n] for n in numbers])
    money = (10 * read + 20 * 2) / 1e6
    assert found.prompt_tokens is not None
    assert found.money is not None
    assert found.prompt_tokens.value == pytest.approx(500 * read.mean())
    half = 500 * (interval(money).half_width or 0) * math.sqrt(1 - 20 / 500)
    assert found.money.value == pytest.approx(500 * money.mean())
    assert found.money.high == pytest.approx(500 * money.mean() + half)
    assert found.prompt_tokens.low is not None
    assert found.prompt_tokens.high is not None
    assert found.prompt_tokens.low < (sizes + 1).sum() < found.prompt_tokens.high
    assert len(found.shown) == 3
    assert found.shown[0] == tuple(
        (m.role, m.content) for m in Asking(labels=LABELS).conversation(texts[0])
    )


def test_no_money_without_prices() -> None:
    found = plan(Counting(), {i: f"text {i}" for i in range(5)}, Asking(labels=LABELS))
    assert found.money is None
    assert found.prompt_tokens is not None
    # all of them were asked: there is nothing left to be unsure of
    assert found.prompt_tokens.low == found.prompt_tokens.value == found.prompt_tokens.high


def test_a_budget_needs_prices() -> None:
    check_prices(None, None)
    check_prices(5.0, (0.1, 0.2))
    for budget, prices, said in (
        (5.0, None, "needs prices"),
        (0.0, (1.0, 1.0), "above 0"),
        (-1.0, (1.0, 1.0), "above 0"),
        (math.nan, (1.0, 1.0), "above 0"),
        (None, (-1.0, 0.0), "million"),
    ):
        with pytest.raises(UserError, match=said):
            check_prices(budget, prices)


# --- sheets ---------------------------------------------------------------------------------------


def rows(counts: dict[str, int]) -> list[Row]:
    named = [k for k, n in counts.items() for _ in range(n)]
    return [
        Row(number=i, text=f'text, {i}\n"x"', label=k, soft=(1.0,)) for i, k in enumerate(named)
    ]


def test_a_sheet_is_stratified_by_the_teachers_labels() -> None:
    found = stratified(rows({"spam": 600, "ham": 390, "spam folder": 10}), 50)
    counts = {k: sum(r.label == k for r in found) for k in LABELS}
    assert counts == {"spam": 30, "ham": 19, "spam folder": 1}
    assert len(stratified(rows({"spam": 3, "ham": 2}), 50)) == 5
    assert [r.number for r in found] == sorted(r.number for r in found)


def test_a_sheet_is_filled_and_read(tmp_path: Path) -> None:
    made = rows({"spam": 2, "ham": 2})
    texts = {r.number: r.text for r in made}
    sheet = tmp_path / "gold.csv"
    write_sheet(sheet, made)
    assert read_sheet(sheet, LABELS, texts) == {}
    content = sheet.read_text()
    assert "spam" not in content
    assert "ham" not in content
    lines = content.replace('""x""",\n', '""x""",Ham \n', 1)
    sheet.write_text(lines)
    assert read_sheet(sheet, LABELS, texts) == {0: "ham"}
    sheet.write_text(lines.replace("Ham", "hem"))
    with pytest.raises(DataError, match=r"line 2: 'hem' is none of the 3 labels; did you mean ham"):
        read_sheet(sheet, LABELS, texts)
    sheet.write_text(lines.replace("text, 0", "another"))
    with pytest.raises(DataError, match="another one"):
        read_sheet(sheet, LABELS, texts)


# --- cascades, division ---------------------------------------------------------------------------


def test_a_cascade_goes_from_the_student_to_the_teacher() -> None:
    sure = [0.9, 0.2, 0.6, 0.4]
    steps = cascade(sure, [1, 0, 1, 0], [1, 1, 0, 1], money=0.5, steps=5)
    assert [s.asked for s in steps] == [0, 0.25, 0.5, 0.75, 1]
    assert [s.accuracy for s in steps] == [0.5, 0.75, 1.0, 0.75, 0.75]
    assert [s.money for s in steps] == [0, 125, 250, 375, 500]


def test_texts_of_one_confidence_go_together() -> None:
    steps = cascade([0.5, 0.5, 0.5], [0, 0, 1], [1, 1, 1])
    assert [(s.asked, s.accuracy) for s in steps] == [(0, pytest.approx(1 / 3)), (1, 1)]


def test_texts_are_cleaned_and_divided() -> None:
    found, notes = distinct(["a b", " a  b", "", "c"])
    assert found == {0: "a b", 3: "c"}
    assert len(notes) == 2
    parts = divide(range(1000), at_least=300, seed=1)
    assert len(parts.test) == 300
    assert len(parts.validate) == 100
    assert sorted((*parts.test, *parts.validate, *parts.learn)) == list(range(1000))
    assert parts == divide(range(1000), at_least=300, seed=1)
    with pytest.raises(DataError, match="too few"):
        divide(range(10), at_least=9)


def test_rounds_double() -> None:
    assert rounds(1000, 100) == [100, 200, 400, 800, 1000]
    assert rounds(850, 100) == [100, 200, 400, 850]
    assert rounds(50, 100) == [50]


def test_the_schema_of_an_answer() -> None:
    found = answer_schema(LABELS)
    assert found["properties"]["label"]["enum"] == list(LABELS)
    assert found["additionalProperties"] is False
