"""New answers, other words or new questions: what a budget of requests is best spent on."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from understudy.data.synthesis import (
    Row,
    Spent,
    by_answer,
    exact,
    final_answer,
    generate,
    prompts,
)
from understudy.errors import MethodRefused, UserError
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    problems,
    procedure,
    spoken,
)
from understudy.setting import Recipe, Setting
from understudy.teachers.chat import ChatSampling, ChatTeacher, Conversation

STRATEGIES = ("answers", "rephrased", "questions")


def cost_balance(
    setting: Setting | None = None,
    *,
    teacher: ChatTeacher | str = "",
    seeds: int = 100,
    low: float = 1.0,
    high: float = 12.0,
    threshold: float = 4.0,
    temperature: float = 1.0,
    verify: bool = False,
    with_seed: bool = False,
) -> Recipe:
    """Balancing Cost and Effectiveness of Synthetic Data Generation Strategies for LLMs.

    A budget of B requests is spent on more answers to the S questions there are, on the same
    questions in other words, or on new questions; which is best depends on B / S.

    Source: arXiv 2409.19759
    Kind: procedure
    Equation (the rule of the abstract): answers where B / S is low, questions where it is high
    When: some questions, a teacher that is paid by the request, and a student to be tuned.
    Cost: B requests; this study three strategies at two budgets, so 3 (low + high) S of them.
    Defaults: S = 100, B / S = 1 and 12. A request is what is counted: an answer costs one, a
        rephrased or a new question with its answer two. A student reads the teacher's rows alone;
        `with_seed` adds the S questions' own solutions, of which alone `exact_match_seed` is.
        `gain` is what the recommended strategy gains over the mean of the three, a strategy drawn
        at random, with the same requests: the mean over both budgets.
    Deviations: where low ends is a setting, `threshold` (4), the paper giving the ratio task by
        task. New questions are asked for by the skill and level of one there is (published: by the
        question itself). `verify` drops answers that are known to be wrong (of new questions none
        is known). The student (published: Llama-2 7B and others) is that of
        `school-reader`, pretrained on other skills.
    Result: gain 0.153 ± 0.0214, exact match seed 0.217 ± 0.0402, exact match answers low 0.231 ±
        0.0206, rows answers low 99.7 ± 0.577, exact match rephrased low 0.0875 ± 0.037 (3 seeds).
        See docs/results/talking-teachers.md.
    """
    setting = basics(setting, "cost_balance")
    if seeds < 1 or not 0 < low <= high:
        raise UserError("cost_balance: give at least one seed question, and 0 < low <= high")
    return procedure(
        "cost_balance",
        setting,
        _study,
        teacher=teacher,
        seeds=seeds,
        low=low,
        high=high,
        threshold=threshold,
        temperature=temperature,
        verify=verify,
        with_seed=with_seed,
    )


def recommended(budget: float, seeds: int, threshold: float = 4.0) -> str:
    """What to spend a budget of requests on: `answers` where B / S is low, else `questions`."""
    if seeds < 1 or budget < 0:
        raise UserError("a budget is at least 0, for at least one seed question")
    return "answers" if budget / seeds <= threshold else "questions"


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teacher: Any,
    seeds: int,
    low: float,
    high: float,
    threshold: float,
    temperature: float,
    verify: bool,
    with_seed: bool,
) -> dict[str, Any]:
    room = Classroom(studio=studio, setting=setting, seed=seed, name="cost_balance")
    known = problems(room.task, count=seeds)
    test = problems(room.task, "test")
    talker = spoken(teacher, studio)
    gold = [(r["prompt"], r["solution"]) for r in known]
    figure = {"exact_match_seed": room.exact_match(room.learned("seed", gold), test)}
    spent, gains = Spent(), []
    for name, ratio in (("low", low), ("high", high)):
        budget = max(2, round(ratio * len(known)))
        found: dict[str, float] = {}
        for strategy in STRATEGIES:
            made, cost = spend(
                talker, known, strategy, budget, temperature=temperature, seed=seed, verify=verify
            )
            spent += cost
            pairs = [*(gold if with_seed else ()), *((r["prompt"], r["reply"]) for r in made)]
            model = room.learned(f"{strategy}-{name}", pairs)
            found[strategy] = room.exact_match(model, test)
            figure[f"exact_match_{strategy}_{name}"] = found[strategy]
            figure[f"rows_{strategy}_{name}"] = float(len(made))
        best = found[recommended(budget, len(known), threshold)]
        figure[f"exact_match_recommended_{name}"] = best
        figure[f"exact_match_drawn_{name}"] = sum(found.values()) / len(found)
        figure[f"regret_{name}"] = max(found.values()) - best
        gains.append(best - figure[f"exact_match_drawn_{name}"])
    figure |= {"requests": float(spent.requests), "tokens": float(spent.tokens)}
    return {"figure": {"gain": sum(gains) / len(gains), **figure}}


def spend(
    teacher: ChatTeacher,
    known: Sequence[Row],
    strategy: str,
    budget: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    verify: bool = False,
) -> tuple[list[Row], Spent]:
    """Rows that a strategy makes of at most `budget` requests, and what they cost.

    Raises:
        UserError: another strategy.
        MethodRefused: new questions for problems of no skill that is known.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"a strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}")
    sampling = ChatSampling(temperature=temperature, seed=seed)
    count = budget if strategy == "answers" else budget // 2
    asked = [{**known[i % len(known)], "turn": i // len(known), "number": i} for i in range(count)]
    spent = Spent()
    if strategy != "answers":
        ask = _rephrase if strategy == "rephrased" else partial(_new, seed=seed)
        made = _turns(teacher, asked, ask, sampling, _question)
        asked, spent = made
        if strategy == "questions":
            asked = [{k: v for k, v in r.items() if k != "answer"} for r in asked]
    rows, cost = _turns(teacher, asked, _solve, sampling, _reply)
    if verify and strategy != "questions":
        rows = by_answer(rows).rows
    return exact(rows, ("question", "reply")).rows, spent + cost


def _turns(
    teacher: ChatTeacher,
    rows: Sequence[Row],
    prompt: Callable[[Row], Conversation],
    sampling: ChatSampling,
    read: Any,
) -> tuple[list[Row], Spent]:
    """Asks the same question once for each time that it stands there: each answer drawn anew."""
    found: list[Row] = []
    spent = Spent()
    turns: dict[int, list[Row]] = {}
    for row in rows:
        turns.setdefault(row["turn"], []).append(row)
    for turn, part in sorted(turns.items()):
        seed = 1000 * (sampling.seed or 0) + turn
        drawn = ChatSampling(temperature=sampling.temperature, seed=seed)
        said = generate(teacher, part, prompt, read, sampling=drawn)
        found += said.rows
        spent += said.spent
    return found, spent


def _solve(row: Row) -> Conversation:
    return prompts.solve(row["question"])


def _reply(row: Row, text: str) -> dict[str, str] | None:
    return {"reply": text.strip()} if final_answer(text) is not None else None


def _rephrase(row: Row) -> Conversation:
    return prompts.rephrase(row["question"])


def _question(row: Row, text: str) -> dict[str, str] | None:
    """A new question, with the prompt that a student reads it in."""
    said = " ".join(text.split())
    if not said or row["question"] not in row["prompt"]:
        return None
    return {"question": said, "prompt": row["prompt"].replace(row["question"], said)}


def _new(row: Row, *, seed: int) -> Conversation:
    from understudy.tasks.school.rows import parse
    from understudy.tasks.school.words import NAMES, NOUNS

    problem = parse(row["question"])
    if problem is None:
        raise MethodRefused(
            f"cost_balance: {row['question'][:80]!r} is of no skill that is known, so that no new "
            "question of its kind can be asked for; use the setting school"
        )
    random = Random(f"new:{seed}:{row['number']}")
    name, noun = random.choice(NAMES), random.choice(NOUNS)
    return prompts.write(problem.skill, problem.level, name, noun)
