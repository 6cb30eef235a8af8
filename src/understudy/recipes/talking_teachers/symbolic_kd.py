"""Symbolic knowledge distillation: a teacher's texts, a critic between, a small model that writes."""

from collections.abc import Sequence
from typing import Any

from understudy.data.synthesis import (
    Row,
    at_random,
    by_critic,
    exact,
    generate,
    kept_as,
    numbered,
    prompts,
)
from understudy.data.synthesis.critics import Critic, Familiarity
from understudy.errors import DataError, MethodRefused, UserError
from understudy.recipes.talking_teachers._school import (
    Classroom,
    basics,
    cost,
    problems,
    procedure,
    spoken,
)
from understudy.setting import Recipe, Setting
from understudy.tasks.task import Task
from understudy.teachers.chat import ChatSampling, ChatTeacher, Conversation

HEAD = ("skill", "level", "name", "noun")


def symbolic_kd(
    setting: Setting | None = None,
    *,
    teacher: ChatTeacher | str = "",
    heads: int = 2400,
    judged: int = 200,
    recall: float = 0.5,
    temperature: float = 1.3,
    writing: float = 1.0,
) -> Recipe:
    """Symbolic Knowledge Distillation: from General Language Models to Commonsense Models.

    A large model writes a text for each templated head; a critic, trained on a few texts that people
    accepted or rejected, keeps the likely good ones; a small model learns to write from them. Both
    the filtered corpus and the small model are what comes out.

    Source: arXiv 2110.07178
    Kind: procedure
    Equation (sections 2 to 5): corpus = {(h, t): t ~ LLM(h), critic(h, t) >= c}, c at a set recall of
        accepted texts; -sum log p(t | h) over it
    When: texts are wanted for which no rule decides what is good, and people can judge a few.
    Cost: a request a head, `judged` verdicts, one small classifier.
    Defaults: recall 0.5, the paper's high filter (0.8 its medium one). Heads are a skill, a level, a
        person and a thing; the text a problem (published: events and relations of ATOMIC, 10,000
        verdicts of people). The world's checkers stand in for the people, on `judged` texts only,
        and measure what is valid at the end. The figure sets the student against one of as many
        unfiltered texts.
    Deviations: the critic is a logistic regression on how usual a text is for its head (published:
        RoBERTa-large tuned on NLI); the teacher is told what to do in a prompt (published: few-shot
        templates), at temperature 1.3, where 65 % of the school teacher's problems are valid. The
        student (published: GPT2-XL) is that of `school-reader`, pretrained on other skills.
    Result: gain 0.276 ± 0.088, valid 0.692 ± 0.0944, valid control 0.415 ± 0.00636, distinct 1 ±
        0, distinct control 1 ± 0 (3 seeds). See docs/results/talking-teachers.md.
    """
    setting = basics(setting, "symbolic_kd")
    if heads < 1 or judged < 10:
        raise UserError("symbolic_kd: give at least one head, and 10 texts that are judged")
    return procedure(
        "symbolic_kd",
        setting,
        _study,
        teacher=teacher,
        heads=heads,
        judged=judged,
        recall=recall,
        temperature=temperature,
        writing=writing,
    )


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    teacher: Any,
    heads: int,
    judged: int,
    recall: float,
    temperature: float,
    writing: float,
) -> dict[str, Any]:
    from understudy.tasks.school.check import mentions

    room = Classroom(studio=studio, setting=setting, seed=seed, name="symbolic_kd")
    asked = heads_of(room.task, "train", heads, seed)
    said = generate(
        spoken(teacher, studio), asked, ask, kept_as("text"),
        sampling=ChatSampling(temperature=temperature, seed=seed),
    )  # fmt: skip
    corpus = exact(said.rows, ("text",)).rows
    sample = at_random(corpus, judged, seed)
    critic = Critic(Familiarity(corpus, text="text", head=HEAD), recall=recall)
    critic.fit(sample, [valid(r, r["text"]) for r in sample])
    seen = {r["id"] for r in sample}
    kept = by_critic(corpus, critic, threshold=critic.threshold).rows
    arms = {"student": kept, "control": at_random(corpus, len(kept), seed)}
    tests = heads_of(room.task, "test", len(problems(room.task, "test")), seed)
    found: dict[str, float] = {}
    for name, rows in arms.items():
        model = room.learned(name, [(head(r), r["text"]) for r in rows])
        texts = room.says(model, [head(r) for r in tests], writing)
        good = [t for r, t in zip(tests, texts, strict=True) if valid(r, t)]
        found[name] = len(good) / len(tests)
        found[f"distinct_{name}"] = len(set(good)) / max(1, len(good))
        found[f"nouns_{name}"] = len({n for t in good for n in mentions(t)["nouns"]})
    rest = [r for r in corpus if r["id"] not in seen]
    passed = [r for r in kept if r["id"] not in seen]
    return {
        "figure": {
            "gain": found["student"] - found["control"],
            "valid": found["student"],
            "valid_control": found["control"],
            "distinct": found["distinct_student"],
            "distinct_control": found["distinct_control"],
            "corpus_valid": share_valid(rest),
            "kept_valid": share_valid(passed),
            "critic_area": critic.area or 0.0,
            "rows": float(len(kept)),
            **cost(said.spent),
        }
    }


def heads_of(task: Task, part: str, count: int, seed: int) -> list[Row]:
    """Heads drawn from those of a part's problems; more of them than problems where asked for.

    Raises:
        MethodRefused: problems of another world.
    """
    from random import Random

    from understudy.tasks.school.rows import parse
    from understudy.tasks.school.words import NAMES, NOUNS

    found = [p for p in (parse(r["question"]) for r in problems(task, part)) if p is not None]
    if not found:
        raise MethodRefused(
            f"symbolic_kd writes problems for the skills of the school, and {task.name} has none of "
            "them; use the setting school"
        )
    random = Random(f"heads:{part}:{seed}")
    rows = []
    for number in range(count):
        one = found[number % len(found)]
        rows.append(
            {
                "number": number, "skill": one.skill, "level": one.level,
                "name": random.choice(NAMES), "noun": random.choice(NOUNS),
            }
        )  # fmt: skip
    return numbered(rows)


def ask(row: Row) -> Conversation:
    """The prompt for a head."""
    return prompts.write(row["skill"], row["level"], row["name"], row["noun"])


def head(row: Row) -> str:
    """The student's prompt for a head."""
    from understudy.tasks.school.text import write_prompt

    return write_prompt(row["skill"], row["level"], row["name"], row["noun"])


def valid(row: Row, text: str) -> bool:
    """Whether a text is a problem that can be solved, and the one its head asks for."""
    from understudy.tasks.school.check import check_written

    return bool(
        check_written(
            text, skill=row["skill"], level=row["level"], name=row["name"], noun=row["noun"]
        )
    )


def share_valid(rows: Sequence[Row]) -> float:
    """The share of texts that are valid."""
    if not rows:
        raise DataError("symbolic_kd: no text is left to measure; judge fewer or write more")
    return sum(valid(r, r["text"]) for r in rows) / len(rows)
