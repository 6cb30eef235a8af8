"""The default world of this wing's school studies, and what they share: rows, arms, judgement."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.data import Texts
from understudy.data.synthesis import Row, Spent, final_answer, normal, numbered
from understudy.errors import DataError, MethodRefused, UserError
from understudy.recipes.language_models._studies import (
    longest_answer,
    stops,
    texts,
    without_teachers,
)
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import school_basic
from understudy.signals.generation import Sampling, generate
from understudy.tasks.language import LanguageJudge
from understudy.tasks.task import Task
from understudy.teachers.chat import ChatTeacher


def basics(setting: Setting | None, name: str) -> Setting:
    """The setting, or four skills of the school for a student that can read (`school-reader`).

    Raises:
        MethodRefused: a setting that is not of language.
    """
    if setting is None:
        return school_basic(base="reader")
    if setting.kind != "language":
        raise MethodRefused(
            f"{name} trains language models on a teacher's texts, and {setting.name} is of kind "
            f"{setting.kind}; use a setting of texts, such as school-reader"
        )
    return setting


def procedure(name: str, setting: Setting, study: Callable[..., Any], **known: Any) -> Recipe:
    """A recipe of a study, called with the setting and with what is known beside it."""
    return Recipe(
        name=name,
        setting=setting,
        kind="procedure",
        study=partial(study, setting=setting, **known),
        settings=known,
    )


# --- the teacher ----------------------------------------------------------------------------------


def spoken(teacher: ChatTeacher | str | Path | None, studio: Any = None) -> ChatTeacher:
    """The teacher: the shipped school teacher, a folder of another model of its world, or any.

    `URL#MODEL` is an endpoint, `URL#MODEL#VAR` one whose key is in that environment variable; what
    it answers is kept in `ledger.sqlite` in the studio's folder.
    """
    if isinstance(teacher, str) and teacher.startswith(("http://", "https://")):
        from understudy.teachers.chat.client import ChatEndpoint

        url, *rest = teacher.split("#")
        if len(rest) not in (1, 2) or not all(rest):
            raise UserError(f"an endpoint is URL#MODEL or URL#MODEL#KEY_VARIABLE, not {teacher!r}")
        folder = getattr(studio, "folder", None)
        ledger = None if folder is None else folder / "ledger.sqlite"
        if ledger is not None:
            ledger.parent.mkdir(parents=True, exist_ok=True)
        key = rest[1] if len(rest) == 2 else None
        return ChatEndpoint(url, rest[0], key_env=key, ledger=ledger)
    if teacher is None or isinstance(teacher, str | Path):
        from understudy.tasks.school.talking import school_chat

        return school_chat(teacher or None)
    if not isinstance(teacher, ChatTeacher):
        raise UserError(
            "teacher is a ChatTeacher (ChatEndpoint, LocalChat, ...), URL#MODEL, or the folder of a "
            f"school model, not {type(teacher).__name__}"
        )
    return teacher


# --- rows -----------------------------------------------------------------------------------------


def problems(task: Task, part: str = "train", count: int | None = None) -> list[Row]:
    """A part's problems as rows: `question`, `prompt` (as a student reads it), `solution`, `answer`.

    Raises:
        MethodRefused: texts that do not end in an answer after `#`, or have no tokenizer.
    """
    source = getattr(task, part) or task.validate
    found = texts(source, "a talking teacher")
    tokenizer = _tokenizer(task)
    rows = []
    for i in range(len(found) if count is None else min(count, len(found))):
        prompt = tokenizer.decode(found.prompt(i).tolist(), skip_special_tokens=True)
        solution = tokenizer.decode(found.answer(i).tolist(), skip_special_tokens=True).strip()
        answer = final_answer(solution)
        if answer is None:
            raise MethodRefused(
                f"{task.name}: text {int(found.ids[i])} does not end in '# answer', so that no "
                "teacher's answer to it can be checked; use a task of problems, such as school"
            )
        question = prompt.strip().removeprefix("solve: ")
        rows.append(
            {"question": question, "prompt": prompt, "solution": solution, "answer": answer}
        )
    return numbered(rows)


def texts_from(
    task: Task, pairs: Sequence[tuple[str, str]], weights: Sequence[float] | None = None
) -> Texts:
    """Prompts and what is to be said after them as texts; those too long for the student are left out.

    weights: of each pair's tokens in the loss
    """
    if not pairs:
        raise DataError("no row was kept: there is nothing to learn from; loosen what drops them")
    tokenizer, end = _tokenizer(task), stops(task)[0]
    room = int(task.model["length"])
    asked = tokenizer([p for p, _ in pairs], add_special_tokens=False)["input_ids"]
    said = tokenizer([c for _, c in pairs], add_special_tokens=False)["input_ids"]
    found = [(p, c, i) for i, (p, c) in enumerate(zip(asked, said, strict=True)) if len(p) + len(c) < room]  # fmt: skip
    if not found:
        raise DataError(f"every row is longer than the {room} tokens that the student reads")
    return Texts(
        [[*p, *c, end] for p, c, _ in found],
        [[False] * len(p) + [True] * (len(c) + 1) for p, c, _ in found],
        weights=None if weights is None else [[weights[i]] * (len(p) + len(c) + 1) for p, c, i in found],
        ids=[i for *_, i in found],
        bytes=[len(pairs[i][1].encode()) for *_, i in found],
        max_length=room,
        name="rows of a teacher",
    )  # fmt: skip


def _tokenizer(task: Task) -> Any:
    tokenizer = task.extras.get("tokenizer")
    if tokenizer is None:
        raise MethodRefused(f"{task.name} has no tokenizer to read a teacher's texts with")
    return tokenizer


# --- students -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Classroom:
    """Where a study's students learn: each from the setting's, with the same budget and seed."""

    studio: Any
    setting: Setting
    seed: int
    name: str

    @property
    def task(self) -> Task:
        """The task as this seed splits it."""
        return self.studio.task(self.setting, self.seed)

    def learned(
        self,
        arm: str,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: Sequence[float] | None = None,
        times: float = 1.0,
    ) -> nn.Module:
        """A student that has read these prompts and completions."""
        setting = self._on(texts_from(self.task, pairs, weights), times)
        stage = Stage(objective=setting.supervised(), teacher=None)
        recipe = Recipe(name=f"{self.name}-{arm}", setting=setting, stages=(stage,))
        return self.studio.play(recipe, self.seed).model

    def _on(self, made: Texts, times: float) -> Setting:
        told = [made.flat.tolist(), made.offsets.tolist()]
        told += [] if made.weights is None else [made.weights.tolist()]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        own = replace(
            self.task, train=made, teach=None, metric="perplexity", metrics=(),
            extras={**self.task.extras, "options": {"rows": digest}},
        )  # fmt: skip
        if isinstance(own.judge, LanguageJudge):  # what is written is judged by the study
            own = replace(own, judge=replace(own.judge, answers=None))
        alone = without_teachers(self.setting, self.setting.student)
        return replace(alone, task=own, budget=alone.budget.lasting(times))

    def tokens(self, said: Sequence[str]) -> int:
        """Tokens that a student is scored on in these completions, their ends included."""
        ids = (
            _tokenizer(self.task)(list(said), add_special_tokens=False)["input_ids"] if said else []
        )
        return sum(len(i) + 1 for i in ids)

    def says(self, model: nn.Module, prompts: Sequence[str], temperature: float = 0.0) -> list[str]:
        """What a student writes after each prompt."""
        return written_after(model, self.task, prompts, temperature, self.seed)

    def exact_match(self, model: nn.Module, test: Sequence[Row]) -> float:
        """The share of problems whose solution, written greedily, ends in the right answer."""
        said = self.says(model, [r["prompt"] for r in test])
        return right(said, test)


def right(said: Sequence[str | None], test: Sequence[Row]) -> float:
    """The share of texts that end in their problem's answer."""
    hits = [
        a is not None and normal(a) == normal(r["answer"])
        for a, r in zip((None if s is None else final_answer(s) for s in said), test, strict=True)
    ]
    return sum(hits) / len(hits)


def written_after(
    model: nn.Module, task: Task, prompts: Sequence[str], temperature: float, seed: int
) -> list[str]:
    """What a model writes after each prompt; prompts of like length share a batch."""
    tokenizer = _tokenizer(task)
    device = next(model.parameters()).device
    ids = [torch.tensor(i, device=device) for i in tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]  # fmt: skip
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    longest = max(len(i) for i in ids)
    room = min(
        int(task.model["length"]) - longest, 5 * longest_answer(texts(task.train, task.name)) // 4
    )
    sampling = Sampling(max_new=max(room, 8), temperature=temperature, stop=stops(task))
    g = torch.Generator(device=device).manual_seed(seed)
    model.eval()
    told = generate(model, [ids[i] for i in order], sampling, generator=g, batch_size=128)
    found = [""] * len(ids)
    for i, t in zip(order, told, strict=True):
        found[i] = tokenizer.decode(t.tolist(), skip_special_tokens=True)
    return found


def cost(spent: Spent) -> dict[str, float]:
    """What the teacher was asked, for the figure."""
    return {"requests": float(spent.requests), "tokens": float(spent.tokens)}
