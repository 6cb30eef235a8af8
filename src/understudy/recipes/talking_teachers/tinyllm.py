"""TinyLLM: rationales of several teachers, each that ends at the known answer, and the answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from understudy.data.synthesis import (
    Kept,
    Nearest,
    Row,
    Spent,
    at_random,
    by_answer,
    generate,
    prompts,
)
from understudy.errors import UserError
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    cost,
    problems,
    procedure,
    right,
    spoken,
)
from understudy.setting import Recipe, Setting
from understudy.teachers.chat import ChatSampling, ChatTeacher, Conversation, Message


def tinyllm(
    setting: Setting | None = None,
    *,
    teachers: tuple[ChatTeacher | str, ...] = (),
    alphas: tuple[float, ...] = (1.0, 1.0),
    questions: int = 900,
    temperature: float = 2.0,
    shots: int = 0,
    second: float = 3.0,
) -> Recipe:
    """TinyLLM: Learning a Small Student from Multiple Large Language Models.

    Several teachers explain each question in steps that are made to end at the known answer, shown
    examples of the same kind; the student learns the answer, and every teacher's rationale, as
    tasks of their own.

    Source: arXiv 2402.04616
    Kind: procedure
    Equation (12): L = L_answer + sum_k alpha_k L_rationale_k, each a mean cross-entropy over the
        tokens of its own texts
    When: several teachers of different make, questions with answers.
    Cost: a request a question and a teacher.
    Defaults: the teachers are the shipped one and a student of the setting that is trained first,
        once, on the problems' own solutions, `second` times as long as others; alpha = 1 each. The figure sets the
        student against one whose rationales are neither forced nor checked (same loss and counts),
        and against one of the first teacher alone, as many rationales.
    Deviations: the three means hold over the data, by weights on tokens, and not in each batch. A
        task is told to the student by its prompt (`Answer:` for the answer alone; published:
        prefixes). Rationales that do not end at the answer all the same are dropped. In-context
        examples are the nearest questions that have a rationale (published: written for the same
        label by the teacher); `shots` is 0 because the school teachers read none. The school
        student needs its steps: `exact_match` is of its rationales, `direct` of its answers alone,
        which is what the paper judges.
    Result: gain 0.0486 ± 0.0293, gain over one teacher -0.0153 ± 0.0922, gain direct 0.00556 ±
        0.0229, exact match 0.408 ± 0.0583, direct student 0.0917 ± 0.0144 (3 seeds). See
        docs/results/talking-teachers.md.
    """
    setting = basics(setting, "tinyllm")
    count = len(teachers) or 2
    if len(alphas) != count:
        raise UserError(f"tinyllm: {count} teachers need {count} alphas, not {len(alphas)}")
    if questions < 1 or min(alphas) <= 0 or second <= 0:
        raise UserError("tinyllm: give at least one question, and alphas and second above 0")
    return procedure(
        "tinyllm",
        setting,
        _study,
        teachers=teachers,
        alphas=alphas,
        questions=questions,
        temperature=temperature,
        shots=shots,
        second=second,
    )


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teachers: tuple[Any, ...],
    alphas: tuple[float, ...],
    questions: int,
    temperature: float,
    shots: int,
    second: float,
) -> dict[str, Any]:
    room = Classroom(studio=studio, setting=setting, seed=seed, name="tinyllm")
    test = problems(room.task, "test")
    talkers = (
        [spoken(t, studio) for t in teachers] if teachers else [spoken(None), _second(room, second)]
    )
    asked = problems(room.task, count=questions)
    sampling = ChatSampling(temperature=temperature, seed=seed)
    forced = [_forced(t, asked, sampling, shots) for t in talkers]
    loose = [
        generate(t, asked, lambda r: prompts.solve(r["question"]), sampling=sampling)
        for t in talkers
    ]
    kept = [by_answer(f.rows).rows for f in forced]
    total = sum(map(len, kept))
    alone = generate(
        talkers[0], asked, explained, n=len(talkers),
        sampling=ChatSampling(temperature=temperature, seed=seed + 1),
    )  # fmt: skip
    arms = {
        "student": kept,
        "control": [at_random(r.rows, len(k), seed) for r, k in zip(loose, kept, strict=True)],
        "alone": [at_random(by_answer(alone.rows).rows, total, seed)],
    }
    figure: dict[str, float] = {}
    for name, rationales in arms.items():
        shares = alphas if len(rationales) > 1 else (sum(alphas),)
        pairs, weights = mixed(room, asked, rationales, shares)
        model = room.learned(name, pairs, weights=weights)
        figure[f"exact_match_{name}"] = room.exact_match(model, test)
        said = room.says(model, [direct(r["prompt"]) for r in test])
        figure[f"direct_{name}"] = right([f"# {s}" for s in said], test)
    spent = sum((f.spent for f in forced), Spent())
    return {
        "figure": {
            "gain": figure["exact_match_student"] - figure["exact_match_control"],
            "exact_match": figure["exact_match_student"],
            "gain_over_one_teacher": figure["exact_match_student"] - figure["exact_match_alone"],
            "gain_direct": figure["direct_student"] - figure["direct_control"],
            **{k: v for k, v in figure.items() if k != "exact_match_student"},
            **{f"kept_{k}": len(rows) / len(asked) for k, rows in enumerate(kept)},
            "rows": float(total),
            **cost(spent),
        }
    }


def _second(room: Classroom, steps: float) -> ChatTeacher:
    """A student that was trained for longer on the problems' own solutions, as a teacher."""
    from understudy.tasks.school.talking import school_chat

    first = replace(room, seed=0)
    pairs = [(r["prompt"], r["solution"]) for r in problems(first.task)]
    return school_chat(first.learned("second", pairs, times=steps), name="second")


def explained(row: Row) -> Conversation:
    """The prompt that is told the answer."""
    return prompts.explained(row["question"], row["answer"])


def _forced(talker: ChatTeacher, asked: Sequence[Row], sampling: ChatSampling, shots: int) -> Kept:
    """Rationales towards the known answer; with `shots`, after the nearest ones as turns before."""
    if not shots:
        return generate(talker, asked, explained, sampling=sampling)
    first = generate(talker, asked[: 4 * shots], explained, sampling=sampling)
    near = Nearest(by_answer(first.rows).rows)

    def after_examples(row: Row) -> Conversation:
        turns: list[Message] = []
        for example in near.like(row["question"], shots):
            turns += [*explained(example), Message(role="assistant", content=example["reply"])]
        return (*turns, *explained(row))

    rest = generate(talker, asked, after_examples, sampling=sampling)
    return Kept(rows=rest.rows, dropped=rest.dropped, spent=first.spent + rest.spent)


def direct(prompt: str) -> str:
    """The prompt that asks for the answer alone."""
    body = prompt.rstrip("\n")
    return f"{body} Answer:{prompt[len(body) :]}"


def mixed(
    room: Classroom,
    asked: Sequence[Row],
    rationales: Sequence[Sequence[Row]],
    alphas: Sequence[float],
) -> tuple[list[tuple[str, str]], list[float]]:
    """The texts of all tasks, and the weight of each text's tokens.

    A task's weight is alpha over the number of its tokens, times the same constant for all, so that
    the sum over the data is L_answer + sum_k alpha_k L_rationale_k times that constant; with it,
    weights are 1 on the mean.
    """
    tasks = [[(direct(r["prompt"]), r["answer"]) for r in asked]]
    tasks += [[(r["prompt"], r["reply"]) for r in rows] for rows in rationales]
    sizes = [room.tokens([said for _, said in pairs]) for pairs in tasks]
    constant = sum(sizes) / (1 + sum(alphas))
    pairs, weights = [], []
    for part, size, alpha in zip(tasks, sizes, (1.0, *alphas), strict=True):
        pairs += part
        weights += [alpha * constant / max(size, 1)] * len(part)
    return pairs, weights
