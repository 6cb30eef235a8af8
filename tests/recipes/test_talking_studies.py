"""What is each talking system's own: the losses, budgets, decoding and prompts, by hand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch

from understudy.data.arithmetic import interpret
from understudy.data.synthesis import final_answer, numbered, prompts
from understudy.errors import DataError, MethodRefused, UserError
from understudy.objectives.vocabulary import lm_ce
from understudy.recipes import recipe
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    problems,
    right,
    spoken,
    texts_from,
)
from understudy.recipes.talking_teachers.cost_balance import recommended, spend
from understudy.recipes.talking_teachers.mammoth import asks, decoded, with_trigger
from understudy.recipes.talking_teachers.program_distillation import _prompted
from understudy.recipes.talking_teachers.symbolic_kd import heads_of, valid
from understudy.recipes.talking_teachers.tinyllm import _forced, direct, mixed
from understudy.running import Studio
from understudy.settings import digits
from understudy.signals import Batch, Signals
from understudy.tasks.school.rows import parse
from understudy.tasks.school.tokens import decode
from understudy.teachers.chat import ChatSampling, Conversation, Reply

TALKING = ("cost_balance", "fine_tune_cot", "mammoth", "program_distillation", "symbolic_kd", "tinyllm")  # fmt: skip


class Knowing:
    """A teacher that parses the problem by rule; it keeps what it was asked."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.wrong, self.heard = wrong, []

    def fingerprint(self) -> str:
        return "knowing"

    def _say(self, messages: Conversation, draw: int, seed: int | None) -> str:
        task, given = prompts.inputs(messages)
        if task == "write":
            return f"{given['name']} has {draw + len(self.heard)} {given['noun']}."
        problem = parse(given["question"])
        if problem is None:
            return "I see 1 and 2; 3 # 3"
        if task == "program":
            if "examples" in given:  # it follows the last example's operation
                sign = next(c for c in given["examples"].splitlines()[-1] if c in "+-*<>l")
                numbers = re.findall(r"\d+", given["question"])
                return sign.join(numbers[:2])
            return problem.program
        if task == "rephrase":
            return f"Well: {given['question']}"
        slip = Random(f"{given['question']}{draw}{seed}").random() < self.wrong
        return f"{problem.rationale}#{0 if slip else problem.answer}"

    def reply(self, messages, n=1, sampling=None, schema=None) -> list[Reply]:
        self.heard += [(messages, n, sampling)]
        seed = None if sampling is None else sampling.seed
        return [Reply(text=self._say(messages, i, seed), prompt_tokens=1) for i in range(n)]

    def replies(self, conversations: Sequence[Conversation], n=1, sampling=None, schema=None) -> Iterator:  # fmt: skip
        for i, c in enumerate(conversations):
            yield i, self.reply(c, n, sampling)


@pytest.fixture(scope="module")
def room() -> Classroom:
    setting = basics(None, "test")
    assert callable(setting.task)
    setting = replace(setting, task=partial(setting.task, count=24, judged=12))
    return Classroom(studio=Studio(None), setting=setting, seed=0, name="test")


# --- rows and texts -------------------------------------------------------------------------------


def test_problems_are_the_tasks_texts(room: Classroom) -> None:
    for part in ("train", "test"):
        for row in problems(room.task, part):
            known = parse(row["question"])
            assert known is not None
            assert row["answer"] == known.answer
            assert row["solution"] == f"{known.rationale}#{known.answer}".strip()
            assert row["prompt"] == f"solve: {row['question']}\n"
    shown = {r["question"] for r in problems(room.task)}
    assert not shown & {r["question"] for r in problems(room.task, "test")}


def test_texts_score_what_is_said(room: Classroom) -> None:
    made = texts_from(
        room.task, [("ab\n", "c#1"), ("a\n", "12"), ("x " * 300, "1")], [1.0, 0.5, 1.0]
    )
    assert len(made) == 2
    assert [decode(made.answer(i).tolist()) for i in range(2)] == ["c#1", "12"]
    assert made.weights is not None
    batch = made.batch(torch.tensor([1]))
    assert batch.weights is not None
    assert batch.weights[batch.mask].tolist() == [0.5] * 3  # type: ignore[index]
    with pytest.raises(DataError, match="no row was kept"):
        texts_from(room.task, [])


def test_right_counts_answers_by_value() -> None:
    rows = [{"answer": "1250"}, {"answer": "Mia"}, {"answer": "3"}, {"answer": "4"}]
    assert right(["#1,250.0", "so #mia", "3", None], rows) == 0.5


# --- TinyLLM ------------------------------------------------------------------------------------------


def test_weights_make_the_published_loss(room: Classroom) -> None:
    """The weighted sum over the data is a constant times L_answer + sum_k alpha_k L_rationale_k."""
    asked = problems(room.task, count=6)
    first = [{**r, "reply": f"{r['question'][:30]}#{r['answer']}"} for r in asked[:5]]
    second = [{**r, "reply": f"#{r['answer']}"} for r in asked[1:3]]
    alphas = (0.7, 2.5)
    pairs, weights = mixed(room, asked, [first, second], alphas)
    made = texts_from(room.task, pairs, weights)
    g = torch.Generator().manual_seed(0)
    table = torch.randn(512, 512, generator=g)
    batch: Batch = made.batch(torch.arange(len(made)))
    logits = table[batch.inputs["input_ids"]]  # type: ignore[index]
    log_q = logits.double().log_softmax(-1)
    assert batch.mask is not None
    assert batch.labels is not None
    nats = -log_q.gather(-1, batch.labels.clamp_min(0)[..., None])[..., 0] * batch.mask
    part = [slice(0, 6), slice(6, 11), slice(11, 13)]
    means = [float(nats[p].sum() / batch.mask[p].sum()) for p in part]
    published = means[0] + sum(a * m for a, m in zip(alphas, means[1:], strict=True))
    told = lm_ce()(Signals(logits=logits), Signals(), batch)
    constant = float(batch.mask.sum()) / (1 + sum(alphas))
    assert float(told.total) == pytest.approx(published * constant, rel=1e-5)


def test_examples_come_as_turns_before(room: Classroom) -> None:
    teacher, asked = Knowing(), problems(room.task, count=10)
    found = _forced(teacher, asked, ChatSampling(), 2)
    assert len(found) == 10
    last, _, _ = teacher.heard[-1]
    assert [m.role for m in last] == ["user", "assistant"] * 2 + ["user"]
    assert prompts.inputs(last)[1]["question"] == asked[-1]["question"]
    assert last[1].content.endswith(f"#{prompts.inputs(last[:1])[1]['answer']}")
    assert found.spent.requests == 8 + 10
    assert direct("solve: How?\n") == "solve: How? Answer:\n"


# --- MAmmoTH ------------------------------------------------------------------------------------------


def test_programs_first_and_chains_where_they_fail() -> None:
    test = [{"answer": a} for a in ("6", "7", "Mia", "9")]
    programs = ["2*3", "7+", "more(Mia=2,Noor=1)", "2*2"]
    chains = ["#5", "7 #7", "none", "#9"]
    found = decoded(chains, programs, test, interpret)
    assert found == {"chain": 0.5, "program": 0.5, "hybrid": 0.75, "fell_back": 0.25}
    assert with_trigger("solve: Q\n") == "solve: Q Let's write a program.\n"
    assert asks({"prompt": "solve: Q\n", "kind": "program"}) == with_trigger("solve: Q\n")
    assert asks({"prompt": "solve: Q\n"}) == "solve: Q\n"


# --- budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "rows"), [("answers", 10), ("rephrased", 5), ("questions", 5)]
)
def test_a_strategy_keeps_to_its_budget(room: Classroom, strategy: str, rows: int) -> None:
    teacher, known = Knowing(wrong=0.5), problems(room.task, count=4)
    made, spent = spend(teacher, known, strategy, 10)
    assert spent.requests == sum(n for _, n, _ in teacher.heard) == 10
    assert len(made) <= rows
    questions = {r["question"] for r in known}
    for row in made:
        assert (row["question"] in questions) == (strategy == "answers")
        assert row["prompt"] == f"solve: {row['question']}\n"
    if strategy == "answers":
        checked, _ = spend(teacher, known, strategy, 10, verify=True)
        assert checked == [r for r in made if final_answer(r["reply"]) == r["answer"]]
        drawn = {s.seed for _, _, s in teacher.heard}
        assert len(drawn) == 3  # the same question is asked anew: 4 + 4 + 2
    if strategy == "questions":
        assert all("answer" not in r for r in made)


def test_recommendation_by_ratio() -> None:
    assert [recommended(b, 10) for b in (5, 40, 41)] == ["answers", "answers", "questions"]
    assert recommended(20, 10, threshold=1.5) == "questions"
    with pytest.raises(UserError, match="one of answers"):
        spend(Knowing(), [], "luck", 1)


# --- programs and prompts ---------------------------------------------------------------------------------


def test_nearest_examples_help_a_teacher_that_reads_them() -> None:
    """Sums and differences, told apart by their words: the nearest examples show which it is."""
    plus = ["Kim has {} marbles. Nina gives Kim {} more. How many marbles does Kim have now?"]
    less = ["Kim wants {} marbles and has {}. How many more marbles does Kim need?"]
    known = []
    for i in range(20):
        text, sign = (plus[0], "+") if i % 2 else (less[0], "-")
        known.append(
            {"question": text.format(60 + i, 11 + i), "program": f"{60 + i}{sign}{11 + i}"}
        )
    test = []
    for i in range(8):
        text, sign = (plus[0], "+") if i % 2 else (less[0], "-")
        program = f"{70 + i}{sign}{25 + i}"
        test.append({"question": text.format(70 + i, 25 + i), "answer": str(interpret(program))})
    found = _prompted(Knowing(), numbered(known), numbered(test), 3, 0, interpret)
    assert found["exact_match_dynamic"] == 1.0
    assert found["exact_match_fixed"] == 0.5
    assert found["gain_of_examples"] == 0.5


# --- heads --------------------------------------------------------------------------------------------


def test_heads_ask_for_what_the_checkers_check(room: Classroom) -> None:
    rows = heads_of(room.task, "train", 30, 0)
    assert len({r["id"] for r in rows}) == 30
    assert rows == heads_of(room.task, "train", 30, 0)
    own = problems(room.task)
    known = parse(own[0]["question"])
    assert known is not None
    head = {"skill": known.skill, "level": known.level, "name": known.slots["A"], "noun": known.slots.get("n", "")}  # fmt: skip
    assert valid(head, own[0]["question"])
    assert not valid({**head, "level": 3}, own[0]["question"])
    assert not valid(head, "Kim has many.")


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TALKING)
def test_refused_where_nothing_is_said(name: str) -> None:
    with pytest.raises(MethodRefused, match="of kind single"):
        recipe(name)(digits())
    assert recipe(name)().kind == "procedure"


def test_teachers_by_name() -> None:
    with pytest.raises(UserError, match="URL#MODEL"):
        spoken("http://localhost:1/v1")
    with pytest.raises(UserError, match="not int"):
        spoken(3)  # type: ignore[arg-type]
    endpoint = spoken("http://localhost:1/v1#small#UNDERSTUDY_NO_SUCH_KEY")
    assert "small" in repr(vars(endpoint))
    teacher = Knowing()
    assert spoken(teacher) is teacher
