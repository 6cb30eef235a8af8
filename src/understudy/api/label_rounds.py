"""Labelling in rounds: ask for more labels, train the student anew, stop when it gains no more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.data.labelling import Asking, Divided, Labelled, Row, ask, rounds
from understudy.errors import DataError
from understudy.evaluation import interval
from understudy.evaluation.raters import wilson_interval
from understudy.recipes.talking_teachers._students import StudentSpec, right, said, taught
from understudy.running import Result
from understudy.setting import Setting
from understudy.tasks.labelled import labelled_task
from understudy.tasks.task import Task
from understudy.tasks.words import Vocabulary, tokenizer_of
from understudy.teachers.chat import ChatTeacher


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: texts that were asked for, rows learned from, and scores against the teacher.

    gain: in validation accuracy over the round before, with the half width of its 95 % t interval
    (over the texts, paired); None for the first round.
    """

    asked: int
    rows: int
    validate: float
    validate_interval: tuple[float, float]
    test: float
    test_interval: tuple[float, float]
    gain: float | None
    gain_half_width: float | None
    money: float | None


@dataclass
class Learned:
    """What the rounds came to: the last student, and why they stopped."""

    rounds: list[Round] = field(default_factory=list)
    stopped: str = ""
    task: Task | None = None
    result: Result | None = None
    learned: list[Row] = field(default_factory=list)


def learn_in_rounds(
    studio: Any,
    teacher: ChatTeacher,
    texts: Mapping[int, str],
    divided: Divided,
    asking: Asking,
    found: Labelled,
    student: StudentSpec,
    *,
    soft: bool = False,
    first: int = 100,
    every: bool = False,
    least: float = 0.0,
    max_length: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Learned:
    """Rounds of `first`, 2 `first`, 4 `first`, ... texts; each trains the student from its start.

    After each the student is compared with the last one on the validation texts. Where the mean gain
    is below the half width of its interval, more labels cannot be told from none, and it stops, unless
    `every` text is to be labelled. A budget that is spent stops it as well. Rows of less confidence
    than `least` are not learned from.
    """
    names = list(asking.labels)
    ask(teacher, {n: texts[n] for n in (*divided.validate, *divided.test)}, asking, found, progress)
    parts = {"validate": found.of(divided.validate), "test": found.of(divided.test)}
    for name, rows in parts.items():
        if len(rows) < 2:
            why = _first_reason(found)
            raise DataError(f"only {len(rows)} of the texts for {name} got a label: {why}")
    # every word that will be read, with or without a label; the judged texts are left out
    tokenizer = student.tokenizer
    if tokenizer is None:
        tokenizer = Vocabulary.build([texts[n] for n in (*divided.learn, *divided.validate)])
    tokenizer = tokenizer_of(tokenizer, ())
    setting = Setting(
        name="labels", task=_nothing, student=student.model, budget=student.budget, kind="single"
    )
    out, before = Learned(), None
    for number, size in enumerate(rounds(len(divided.learn), first)):
        numbers = divided.learn[:size]
        ask(teacher, {n: texts[n] for n in numbers}, asking, found, progress)
        rows = [r for r in found.of(numbers) if r.confidence >= least]
        if len({r.label for r in rows}) < 2:
            if found.budget_spent:
                break
            continue
        made = {"train": rows, **parts}
        task = labelled_task(
            "labels",
            {k: _columns(v, names) for k, v in made.items()},
            names,
            tokenizer=tokenizer,
            max_length=max_length,
        )
        shares = torch.tensor([r.soft for r in rows]) if soft else None
        result = taught(studio, seed, f"round-{number + 1}", setting, task, shares)
        model = result.model
        assert task.test is not None
        hits = right(said(model, task.validate), _classes(parts["validate"], names))
        judged = right(said(model, task.test), _classes(parts["test"], names))
        gain = None if before is None else interval((hits - before).numpy())
        money = found.spent.cost if found.spent.priced and found.spent.answers else None
        out.rounds.append(
            Round(
                asked=len(numbers),
                rows=len(rows),
                validate=float(hits.mean()),
                validate_interval=wilson_interval(int(hits.sum()), len(hits)),
                test=float(judged.mean()),
                test_interval=wilson_interval(int(judged.sum()), len(judged)),
                gain=None if gain is None else gain.mean,
                gain_half_width=None if gain is None else gain.half_width,
                money=money,
            )
        )
        out.task, out.result, out.learned, before = task, result, rows, hits
        if found.budget_spent:
            break
        if gain is not None and not every and gain.mean < (gain.half_width or 0.0):
            out.stopped = (
                f"the last round gained {100 * gain.mean:+.1f} points on validation, within its "
                f"interval of {100 * (gain.half_width or 0.0):.1f}"
            )
            break
    if out.result is None:
        raise DataError(
            f"{len(found.rows)} texts got a label, too few or all the same: {_first_reason(found)}"
        )
    if found.budget_spent:
        out.stopped = "the budget is spent; a larger one goes on from here"
    elif not out.stopped:
        out.stopped = "every text is labelled"
    return out


def _nothing(split: int) -> Task:
    raise AssertionError("the rounds name their own task")


def _columns(rows: Sequence[Row], names: list[str]) -> tuple[list[int], list[str], list[int]]:
    return [r.number for r in rows], [r.text for r in rows], _classes(rows, names).tolist()


def _classes(rows: Sequence[Row], names: list[str]) -> Tensor:
    return torch.tensor([names.index(r.label) for r in rows])


def _first_reason(found: Labelled) -> str:
    if found.failures:
        worst = next(iter(found.failures.values()))
        return f"{len(found.failures)} failed, the first because: {worst.reason}"
    return "the budget is spent" if found.budget_spent else "give more texts"
