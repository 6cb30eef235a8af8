"""MAmmoTH: chains and programs of thought in one student, programs first."""

from collections.abc import Sequence
from typing import Any

from understudy.data.arithmetic import interpret
from understudy.data.synthesis import (
    Row,
    at_random,
    by_answer,
    by_program,
    exact,
    final_answer,
    generate,
    prompts,
    same,
    sandboxed,
)
from understudy.errors import UserError
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    cost,
    problems,
    procedure,
    spoken,
)
from understudy.recipes.talking_teachers.program_distillation import value_of
from understudy.setting import Recipe, Setting
from understudy.teachers.chat import ChatSampling, ChatTeacher

TRIGGER = "Let's write a program."
"""After a question, it asks for a program."""


def mammoth(
    setting: Setting | None = None,
    *,
    teacher: ChatTeacher | str = "",
    questions: int = 900,
    temperature: float = 1.8,
    sandbox: bool = False,
) -> Recipe:
    """MAmmoTH: Building Math Generalist Models through Hybrid Instruction Tuning.

    A teacher writes a chain of thought and a program of thought for each problem; chains are kept
    where they end in the answer, programs where they are worth it. The student learns both, and
    writes a program first; where that fails to run, it thinks in words.

    Source: arXiv 2309.05653
    Kind: procedure
    Equation (section 2.3): -sum log p(chain | q) - sum log p(program | q + trigger); at inference
        run(program), and the chain's answer where there is no value
    When: problems of which some are computed and others are not, and programs can be run.
    Cost: two requests a problem; at inference one answer, and a second where the program fails.
    Defaults: "Let's write a program." after the question asks for a program, as published. The
        figure has the hybrid student by hybrid decoding, by each way alone, a student of as many
        unfiltered rows, and one of as many right chains.
    Deviations: published chains come from existing data sets and programs from GPT-4 for them; here
        one teacher writes both. Arithmetic is interpreted (`sandbox` runs any Python in a shut-in
        process). Temperature 1.8, where the school teacher errs in a fifth of its solutions. The
        student (published: Llama-2, 7B to 70B) is that of `school-reader`, pretrained on others.
    Result: gain 0.0597 ± 0.0509, gain over chains alone 0.162 ± 0.0435, exact match 0.91 ±
        0.0293, exact match control 0.85 ± 0.022, exact match chains alone 0.747 ± 0.0237 (3
        seeds). See docs/results/talking-teachers.md.
    """
    setting = basics(setting, "mammoth")
    if questions < 1:
        raise UserError("mammoth: give at least one question")
    return procedure(
        "mammoth",
        setting,
        _study,
        teacher=teacher,
        questions=questions,
        temperature=temperature,
        sandbox=sandbox,
    )


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teacher: Any,
    questions: int,
    temperature: float,
    sandbox: bool,
) -> dict[str, Any]:
    room = Classroom(studio=studio, setting=setting, seed=seed, name="mammoth")
    worth = sandboxed if sandbox else interpret
    talker = spoken(teacher, studio)
    asked = problems(room.task, count=questions)
    sampling = ChatSampling(temperature=temperature, seed=seed)
    chains = generate(talker, asked, lambda r: prompts.solve(r["question"]), sampling=sampling)
    coded = generate(
        talker, asked, lambda r: prompts.program(r["question"]), as_program, sampling=sampling
    )
    right = by_answer(chains.rows)
    runs = by_program(coded.rows, program="reply", worth=worth)
    both = [*right.rows, *runs.rows]
    more = generate(
        talker, asked, lambda r: prompts.solve(r["question"]), n=2,
        sampling=ChatSampling(temperature=temperature, seed=seed + 1),
    )  # fmt: skip
    only = exact([*right.rows, *by_answer(more.rows).rows], ("question", "reply")).rows
    arms = {
        "student": both,
        "control": at_random([*chains.rows, *coded.rows], len(both), seed),
        "chains": at_random(only, len(both), seed),
    }
    test = problems(room.task, "test")
    figure: dict[str, float] = {}
    for name, rows in arms.items():
        model = room.learned(name, [(asks(r), r["reply"]) for r in rows])
        told = room.says(model, [r["prompt"] for r in test])
        code = room.says(model, [with_trigger(r["prompt"]) for r in test])
        figure |= {f"{k}_{name}": v for k, v in decoded(told, code, test, worth).items()}
    best = {name: figure[f"hybrid_{name}"] for name in ("student", "control")}
    return {
        "figure": {
            "gain": best["student"] - best["control"],
            "exact_match": best["student"],
            "exact_match_control": best["control"],
            "exact_match_chains_alone": figure["chain_chains"],
            "gain_over_chains_alone": best["student"] - figure["chain_chains"],
            "exact_match_by_chain": figure["chain_student"],
            "exact_match_by_program": figure["program_student"],
            "fell_back": figure["fell_back_student"],
            "rows": float(len(both)),
            **cost(chains.spent + coded.spent),
        },
        "dropped": {**right.dropped.reasons, **runs.dropped.reasons},
    }


def as_program(row: Row, text: str) -> dict[str, Any] | None:
    """A program, marked as one."""
    return {"reply": text.strip(), "kind": "program"} if text.strip() else None


def asks(row: Row) -> str:
    """The student's prompt for a row: with the trigger for a program."""
    return with_trigger(row["prompt"]) if row.get("kind") == "program" else row["prompt"]


def with_trigger(prompt: str) -> str:
    """The trigger at the end of a prompt, before its last line break."""
    body = prompt.rstrip("\n")
    return f"{body} {TRIGGER}{prompt[len(body) :]}"


def decoded(
    chains: Sequence[str], programs: Sequence[str], test: Sequence[Row], worth: Any
) -> dict[str, float]:
    """Accuracy by chain, by program, and by the program's value or, without one, the chain's answer."""
    counts = {"chain": 0, "program": 0, "hybrid": 0, "fell_back": 0}
    for chain, program, row in zip(chains, programs, test, strict=True):
        told, value = final_answer(chain), value_of(program, worth)
        counts["chain"] += told is not None and same(told, row["answer"])
        counts["program"] += value is not None and same(value, row["answer"])
        counts["fell_back"] += value is None
        final = told if value is None else value
        counts["hybrid"] += final is not None and same(final, row["answer"])
    return {k: v / len(test) for k, v in counts.items()}
