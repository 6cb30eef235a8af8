"""The school teacher as a chat model: it reads the prompts, and its answers are its own."""

import pytest

from understudy.data.synthesis import prompts
from understudy.errors import DataError, UserError
from understudy.students import load_model
from understudy.tasks.school import (
    SKILLS,
    answer_of,
    check_explanation,
    check_grade,
    check_written,
    complete,
    evaluate,
    parse,
    question_prompt,
    rows,
    same_problem,
    school_chat,
    solves,
    teacher,
)
from understudy.tasks.school.operations import program_of
from understudy.tasks.school.rows import plan_of
from understudy.teachers.chat import ChatError, ChatSampling, in_order, user

GREEDY = ChatSampling(temperature=0)
HELD = rows(20, 21, split="test")


@pytest.fixture(scope="module")
def chat():
    return school_chat()


def share(chat, conversations, passes, sampling=GREEDY, n=1):
    said = in_order(chat, conversations, n, sampling)
    good = [bool(passes(row, r.text)) for row, rs in zip(HELD, said, strict=True) for r in rs]
    return sum(good) / len(good)


def test_it_says_what_the_model_says(chat):
    alone = complete(teacher(), [question_prompt("solve", r.question) for r in HELD])
    said = in_order(chat, [prompts.solve(r.question) for r in HELD], 1, GREEDY)
    assert [s[0].text for s in said] == alone


def test_it_solves_and_writes_programs(chat):
    assert share(chat, [prompts.solve(r.question) for r in HELD], lambda r, t: solves(t, r.question)) > 0.85  # fmt: skip

    def worth(row, text):
        try:
            return str(evaluate(text)) == row.answer
        except DataError:
            return False

    asked = [prompts.program(r.question, [("Two and two?", "2+2")]) for r in HELD]
    assert share(chat, asked, worth) > 0.85
    assert share(chat, asked, worth, ChatSampling(temperature=1.0, seed=1)) > 0.75


def test_it_writes_and_rephrases(chat):
    asked = [prompts.write(r.skill, r.level, r.name, r.noun) for r in HELD]
    assert share(chat, asked, lambda r, t: check_written(t, skill=r.skill, level=r.level)) > 0.7
    asked = [prompts.rephrase(r.question) for r in HELD]
    assert share(chat, asked, lambda r, t: same_problem(t, r.question)) > 0.7
    assert share(chat, asked, lambda r, t: t != r.question) > 0.85
    hot = ChatSampling(temperature=0.8, seed=0)
    assert len({r.text for r in chat.reply(asked[0], 6, hot)}) > 2


def test_it_explains_and_grades(chat):
    wrong = [r.errors[0].answer if r.errors else None for r in HELD]
    asked = [prompts.mistake(r.question, w or "1") for r, w in zip(HELD, wrong, strict=True)]

    def explained(row, text):
        return not row.errors or check_explanation(text, row.question, row.errors[0].answer)

    assert share(chat, asked, explained) > 0.7
    asked = [prompts.grade(r.question, r.answer) for r in HELD]
    assert share(chat, asked, lambda r, t: check_grade(t, r.question, r.answer)) > 0.8


def test_a_known_answer_chooses_among_drafts(chat):
    hot = ChatSampling(temperature=2.5, seed=0)
    free = share(chat, [prompts.solve(r.question) for r in HELD], lambda r, t: answer_of(t) == r.answer, hot)  # fmt: skip
    known = [prompts.explained(r.question, r.answer) for r in HELD]
    led = share(chat, known, lambda r, t: answer_of(t) == r.answer, hot)
    assert led > free
    (said,) = chat.reply(known[0], 1, hot)
    assert said.completion_tokens > len(said.text) / 2  # all drafts are counted
    impossible = chat.reply(prompts.explained(HELD[0].question, "123456"), 1, GREEDY)[0]
    assert answer_of(impossible.text) != "123456"  # nothing is made up


def test_an_answer_does_not_depend_on_what_else_is_asked(chat):
    asked = [
        prompts.solve(HELD[0].question), prompts.write("add", 2, "Mia", "toys"),
        prompts.explained(HELD[1].question, HELD[1].answer), prompts.program(HELD[2].question),
        prompts.rephrase(HELD[3].question),
    ]  # fmt: skip
    sampling = ChatSampling(temperature=0.9, top_p=0.95, seed=4)
    together = in_order(chat, asked, 2, sampling)
    for conversation, said in zip(asked, together, strict=True):
        assert chat.reply(conversation, 2, sampling) == said
    assert len({r.key for said in together for r in said}) == 10


def test_what_it_cannot_read_it_refuses_in_words(chat):
    for odd in (
        user("Who are you?"), prompts.classify("a", {"x": ""}), prompts.consistent("a", "b"),
        prompts.rephrase("Why is the sky blue?"), prompts.write("poetry", 1, "Mia", "toys"),
        prompts.write("add", "easy", "Mia", "toys"),
    ):  # fmt: skip
        (said,) = chat.reply(odd)
        assert said.text.startswith("I ")
        assert said.finish == "stop"
        assert said.completion_tokens == 0
    (said,) = chat.reply(user(HELD[0].question), 1, GREEDY)
    assert "#" in said.text  # a bare question of its world


def test_limits_stops_and_long_questions(chat):
    asked = prompts.solve(HELD[0].question)
    (whole,) = chat.reply(asked, 1, GREEDY)
    (cut,) = chat.reply(asked, 1, ChatSampling(temperature=0, max_tokens=3))
    assert whole.text.startswith(cut.text)
    assert (cut.finish, cut.completion_tokens) == ("length", 3)
    (stopped,) = chat.reply(asked, 1, ChatSampling(temperature=0, stop=("#",)))
    assert stopped.text == whole.text.partition("#")[0]
    written = prompts.write("add", 1, "Mia", "toys")
    (short,) = chat.reply(written, 1, ChatSampling(temperature=0, max_tokens=4))
    assert short.finish == "length"
    assert chat.reply(written, 1, GREEDY)[0].text.startswith(short.text)
    with pytest.raises(ChatError, match="192"):
        chat.reply(prompts.solve("apples " * 300))
    with pytest.raises(ChatError, match="no JSON"):
        chat.reply(asked, 1, GREEDY, {"type": "object"})


def test_log_probabilities_spell_the_answer(chat):
    sampling = ChatSampling(temperature=0, logprobs=2)
    for asked in (prompts.solve(HELD[0].question), prompts.write("add", 1, "Mia", "toys")):
        (said,) = chat.reply(asked, 1, sampling)
        assert said.logprobs is not None
        assert "".join(t for t, _, _ in said.logprobs).strip() == said.text
        assert all(p <= 0 and len(tops) == 2 for _, p, tops in said.logprobs)
    assert chat.reply(prompts.program(HELD[0].question), 1, sampling)[0].logprobs is None


def test_a_student_stands_behind_the_same_words(tmp_path):
    small = load_model("llama:width=16,depth=1,heads=1", classes=512, vocabulary=512, length=192)
    chat = school_chat(small, name="student")
    assert chat.fingerprint() != school_chat().fingerprint()
    (said,) = chat.reply(prompts.solve(HELD[0].question), 1, ChatSampling(max_tokens=5, seed=0))
    assert said.completion_tokens <= 5
    with pytest.raises(UserError, match="512"):
        school_chat(
            load_model("llama:width=16,depth=1,heads=1", classes=40, vocabulary=40, length=64)
        )


@pytest.mark.parametrize("split", ["train", "template", "composition"])
def test_programs_are_read_from_rationales(split):
    made = rows(300, 4, split=split)
    for row in made:
        program = program_of(f"{row.rationale}#{row.answer}")
        assert str(evaluate(program)) == row.answer
    same = [program_of(f"{r.rationale}#{r.answer}") == r.program for r in made]
    assert sum(same) / len(same) > 0.98  # 5+3=8;8*8 may be read two ways
    assert {r.skill for r in made} <= set(SKILLS)


def test_the_interpreter_does_the_arithmetic_and_nothing_is_made_up():
    assert program_of("347+285:7+5=12,4+8=12,3+2=5=522;522*2:2*2=4=1044#1044") == "(347+285)*2"
    for bad in ("", "#", "no numbers#3", "3+4=7", "5-9=4#4", "4/0=0r0#0", "3+4=7;#7"):
        with pytest.raises(DataError):
            program_of(bad)


@pytest.mark.parametrize("split", ["train", "template", "composition"])
def test_a_plan_is_found_again(split):
    for row in rows(200, 9, split=split):
        problem = parse(row.question)
        assert problem is not None
        assert plan_of(problem) == row.plan
