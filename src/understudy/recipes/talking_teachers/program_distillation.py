"""Program distillation: programs of a large model that are worth the answer, learned by a small one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from understudy.data.arithmetic import interpret
from understudy.data.synthesis import (
    Nearest,
    Row,
    at_random,
    by_program,
    exact,
    generate,
    kept_as,
    prompts,
    sandboxed,
)
from understudy.data.synthesis.answers import same
from understudy.errors import DataError, UserError
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    cost,
    problems,
    procedure,
    spoken,
)
from understudy.setting import Recipe, Setting
from understudy.teachers.chat import ChatSampling, ChatTeacher


def program_distillation(
    setting: Setting | None = None,
    *,
    teacher: ChatTeacher | str = "",
    questions: int = 1800,
    programs: int = 1,
    temperature: float = 1.8,
    shots: int = 0,
    sandbox: bool = False,
) -> Recipe:
    """Leveraging Training Data in Few-Shot Prompting for Numerical Reasoning (program distillation).

    A large model writes programs for problems whose answers are known; those that are worth the
    answer annotate the problems. A small model is tuned on them, and what it writes is run; or the
    problems most like a new one are shown to the large model (dynamic program prompting).

    Source: arXiv 2305.18170
    Kind: procedure
    Equation (sections 2.1 to 2.3): keep (q, z) where run(z) = a; distillation: -sum log p(z | q);
        prompting: z ~ LLM(. | the k problems nearest by the cosine of sentence embeddings, q)
    When: many problems with answers and none with reasoning; arithmetic that a small model is not
        to do by itself.
    Cost: `programs` requests a problem; with `shots` two more for each problem that is judged.
    Defaults: a program a problem, the first that is right, is published; here all different ones.
        k = 8 where `shots` is 8 as published, the nearest last; 0 leaves prompting out, since the
        school teacher, the default, reads no examples (`shots=8` is for a chat model). Arithmetic
        is interpreted; `sandbox` runs any Python in a shut-in process.
    Deviations: programs of one expression (published: Python functions); TF-IDF finds what is alike
        (published: sentence-T5, SimCSE or ada-002 embeddings; `Nearest` takes any). The temperature
        is 1.8, where the school teacher errs in a sixth of its programs. The student (published:
        CodeGen) is that of `school-reader`, pretrained on other skills.
    Result: gain 0.101 ± 0.0373, exact match 0.949 ± 0.0337, exact match control 0.847 ± 0.0158,
        rows 1.5e+03 ± 6.66, teacher right 0.835 ± 0.00401 (3 seeds). See
        docs/results/talking-teachers.md.
    """
    setting = basics(setting, "program_distillation")
    if questions < 1 or programs < 1 or shots < 0:
        raise UserError("program_distillation: give at least one question and one program")
    return procedure(
        "program_distillation",
        setting,
        _study,
        teacher=teacher,
        questions=questions,
        programs=programs,
        temperature=temperature,
        shots=shots,
        sandbox=sandbox,
    )


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teacher: Any,
    questions: int,
    programs: int,
    temperature: float,
    shots: int,
    sandbox: bool,
) -> dict[str, Any]:
    room = Classroom(
        studio=studio, setting=setting, seed=seed, name="program_distillation",
    )  # fmt: skip
    worth = sandboxed if sandbox else interpret
    talker = spoken(teacher, studio)
    asked = problems(room.task, count=questions)
    said = generate(
        talker, asked, lambda r: prompts.program(r["question"]), kept_as("program"), n=programs,
        sampling=ChatSampling(temperature=temperature, seed=seed),
    )  # fmt: skip
    right = by_program(said.rows, worth=worth)
    kept = exact(right.rows, ("question", "program")).rows
    arms = {"student": kept, "control": at_random(said.rows, len(kept), seed)}
    test = problems(room.task, "test")
    found = {}
    for name, rows in arms.items():
        model = room.learned(name, [(r["prompt"], r["program"]) for r in rows])
        written = room.says(model, [r["prompt"] for r in test])
        found[name] = solved(written, test, worth)
    figure = {
        "gain": found["student"] - found["control"],
        "exact_match": found["student"],
        "exact_match_control": found["control"],
        "rows": float(len(kept)),
        "teacher_right": len(right.rows) / len(said.rows),
        **cost(said.spent),
    }
    if shots:
        figure |= _prompted(talker, kept, test, shots, seed, worth)
    return {"figure": figure, "dropped": {**said.dropped.reasons, **right.dropped.reasons}}


def _prompted(
    talker: ChatTeacher,
    known: Sequence[Row],
    test: Sequence[Row],
    shots: int,
    seed: int,
    worth: Any,
) -> dict[str, float]:
    """The teacher's own accuracy with the nearest annotated problems, and with drawn ones, shown."""
    near = Nearest(known)
    drawn = at_random(known, shots, seed)
    shown = {
        "dynamic": {r["id"]: near.like(r["question"], shots) for r in test},
        "fixed": {r["id"]: drawn for r in test},
    }
    found = {}
    for name, examples in shown.items():
        said = generate(
            talker, test, partial(dynamic, examples=examples), kept_as("program"),
            sampling=ChatSampling(temperature=0.0, seed=seed),
        )  # fmt: skip
        by_row = {r["from"]: r["program"] for r in said.rows}
        found[f"exact_match_{name}"] = solved([by_row.get(r["id"]) for r in test], test, worth)
    gain = found["exact_match_dynamic"] - found["exact_match_fixed"]
    return {**found, "gain_of_examples": gain}


def dynamic(row: Row, *, examples: Any) -> Any:
    """The prompt for a problem, with its examples and their programs before it."""
    return prompts.program(
        row["question"], [(e["question"], e["program"]) for e in examples[row["id"]]]
    )


def value_of(program: str | None, worth: Any) -> str | None:
    """What a program is worth; None where there is none, or it fails."""
    if not program:
        return None
    try:
        value = worth(program)
    except DataError:
        return None
    return None if value is None else str(value)


def solved(programs: Sequence[str | None], test: Sequence[Row], worth: Any) -> float:
    """The share of problems whose program is worth their answer."""
    values = [value_of(p, worth) for p in programs]
    hits = [v is not None and same(v, r["answer"]) for v, r in zip(values, test, strict=True)]
    return sum(hits) / len(hits)
