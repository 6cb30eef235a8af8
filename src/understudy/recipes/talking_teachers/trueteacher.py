"""TrueTeacher: summaries that models wrote, labelled for consistency by a model that reads."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data import Arrays
from understudy.data.labelling import Failure, Spent, Unreadable, label_of, weighed
from understudy.data.synthesis import prompts
from understudy.errors import DataError, MethodRefused
from understudy.evaluation import auroc
from understudy.recipes.talking_teachers._documents import (
    Document,
    Pair,
    Words,
    balanced,
    pair_inputs,
    summaries_task,
)
from understudy.recipes.talking_teachers._students import said
from understudy.recipes.talking_teachers._summarisers import Writer, central, tokens
from understudy.recipes.talking_teachers._teachers import answering
from understudy.setting import Recipe, Setting, Stage
from understudy.students.aligned import Aligned
from understudy.tasks.task import Task
from understudy.teachers.chat import BudgetSpent, ChatError, ChatSampling, ChatTeacher
from understudy.training.budget import Budget

ANSWERS = {"no": "", "yes": ""}
"""In the order of the classes: inconsistent, consistent."""
BUDGET = Budget(
    steps=400, batch_size=32, lr=2e-3, weight_decay=1e-3, warmup=0.05, validate_every=10**6
)
WRITERS: dict[str, dict[str, Any]] = {
    "copies": {"hidden": 16, "common": 0},
    "writes": {"hidden": 16, "common": 120},
    "writes loosely": {"hidden": 0, "faithful": False},
}
"""Trained summarisers of several capacities, as the paper has T5 from small to 11B."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A summary, who wrote it, and the teacher's probability that it is consistent."""

    document: str
    summary: str
    writer: str
    probability: float

    @property
    def consistent(self) -> bool:
        """What the teacher says."""
        return self.probability > 0.5


def trueteacher(
    setting: Setting | None = None,
    *,
    endpoint: str = "entailment",
    model: str = "",
    key_env: str = "",
    pairs: str = "",
    writer_epochs: int = 4,
    documents: int = 2000,
) -> Recipe:
    """TrueTeacher: Learning Factual Consistency Evaluation with Large Language Models.

    Summarisers of several capacities write about real documents; a teacher that reads both says
    whether a summary is consistent with its document; classes are balanced, and a small student of
    pairs is trained on the labels and judged by ROC-AUC.

    Source: arXiv 2305.11171
    Kind: procedure
    Equation (none in the paper): y(d, s) = [p_teacher(yes | d, s) > p_teacher(no | d, s)], s from one
        of several summarisers; as many y = 1 as y = 0; the student minimises the cross-entropy with
        y, and is judged by P(score of a consistent pair > score of an inconsistent one).
    When: a check of what models write is needed at every text, and a judge that reads is too dear.
    Cost: one request a summary, once; summarisers and student train in seconds here.
    Defaults: the zero-shot question of the paper in our own words, answered yes or no, temperature 0,
        summaries of five models (four here), balanced classes, as published.
    Deviations: documents are docstrings of the standard library without their first line (published:
        CNN/DailyMail), summarisers one that takes the central sentence and three that were trained
        here on first lines (T5, five sizes, tuned on XSum), the teacher an entailment model of 0.1M
        parameters over a sentence encoder (FLAN-PaLM 540B; any endpoint by `endpoint`, `model`,
        `key_env`), the student a decomposable attention model (T5-11B tuned on NLI first). Own
        summaries are read from `pairs` (JSONL: document, summary). The test is no benchmark of
        people's labels but controlled edits: known to be consistent are sentences of the document,
        inconsistent such with another number, another name, a negation, or of another document. The
        control on perturbed text is trained on the same kinds of edits, and so at an advantage; a
        second test (`lines`) is of first lines as their authors wrote them, a document's own against
        one of another document of the same area, which no control has seen the like of.
    Result: gain over random -0.0042 ± 0.019, gain over perturbed -0.0693 ± 0.029, gain over
        teacher -0.0992 ± 0.0275, gain lines over random 0.00337 ± 0.00543, gain lines over
        perturbed 0.0272 ± 0.0305 (3 seeds). See docs/results/talking-teachers.md.
    """
    if setting is None:
        setting = Setting(
            name="stdlib-summaries",
            task=summaries_task,
            student=_student,
            budget=BUDGET,
        )
    known = {
        "endpoint": endpoint, "model": model, "pairs": pairs, "writer_epochs": writer_epochs,
        "documents": documents,
    }  # fmt: skip
    study = partial(
        _study,
        setting=setting,
        who=(endpoint, model, key_env),
        own_pairs=pairs,
        epochs=writer_epochs,
        most=documents,
    )
    return Recipe(
        name="trueteacher", setting=setting, kind="procedure", study=study, settings=known
    )


def _student(classes: int = 2) -> nn.Module:
    return Aligned(vocabulary=len(Words()), classes=classes)


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    who: tuple[str, str, str],
    own_pairs: str,
    epochs: int,
    most: int,
) -> dict[str, Any]:
    task: Task = studio.task(setting, seed)
    if "pairs" not in task.extras:
        raise MethodRefused(
            f"trueteacher reads documents, and {setting.name} has none; take its own setting"
        )
    endpoint, model, key_env = who
    ledger = None if studio.folder is None else studio.folder / "ledger.sqlite"
    random = Random(seed)
    # a short run has fewer edits to learn from, and writes about as many fewer documents
    share = len(task.train) / len(task.extras["pairs"]["train"])
    written = (
        _read_pairs(own_pairs) if own_pairs else _written(task, share, most, epochs, seed, random)
    )
    # people's own lines stand behind the edits: each is scored apart
    edited = _tested(task)
    test = [*edited, *task.extras["lines"][: max(2, 2 * len(edited))]]
    spent, failures = Spent(), list[Failure]()
    with answering(None, endpoint, model, key_env=key_env, ledger=ledger) as teacher:
        judged = judge(teacher, written, spent, failures)
        own = [(p.document.text, p.statement, p.made) for p in test]
        heard = judge(teacher, own, Spent(), [])
    kept = balanced(judged, random)
    n = len(kept)
    if n < 4:
        raise DataError(
            f"of {len(judged)} summaries the teacher finds {sum(j.consistent for j in judged)} "
            "consistent: too few of one class to learn from"
        )
    edits = task.train
    drawn = torch.tensor(random.sample(range(len(edits)), min(n, len(edits))))
    rows = {
        "trueteacher": _source(kept),
        "random": _source(random.sample(judged, min(n, len(judged)))),
        "perturbed": edits.subset(drawn),  # pyright: ignore[reportAttributeAccessIssue]
    }
    scores = {k: _learned(studio, seed, k, setting, task, v, test) for k, v in rows.items()}
    if len(heard) == len(test):  # failures have no place in a ranking
        p = torch.tensor([j.probability for j in heard], dtype=torch.float64)
        scores["teacher"] = torch.stack([1 - p, p], -1).clamp_min(1e-12).log().float()
    figure = _figure(scores, test, rows, judged, spent, failures)
    shares = Counter(j.writer for j in judged if j.consistent)
    by = {w: shares[w] / c for w, c in Counter(j.writer for j in judged).items()}
    return {"figure": figure, "consistent_by_writer": by}


def judge(
    teacher: ChatTeacher,
    pairs: Sequence[tuple[str, str, str]],
    spent: Spent,
    failures: list[Failure],
) -> list[Judged]:
    """(document, summary, writer) with the teacher's answer; what has none is left to `failures`."""
    asked = [prompts.consistent(document, summary) for document, summary, _ in pairs]
    sampling = ChatSampling(temperature=0.0, max_tokens=8, logprobs=5)
    found: dict[int, Judged] = {}
    try:
        for at, replies in teacher.replies(asked, 1, sampling):
            document, summary, writer = pairs[at]
            if isinstance(replies, ChatError):
                reason = str(replies)
                failures.append(Failure(number=at, text=summary, kind=replies.kind, reason=reason))
                continue
            spent.add(replies)
            try:
                shares = weighed(replies[0], ANSWERS)
                if shares is None:
                    yes = float(label_of(replies[0], ANSWERS) == "yes")
                else:
                    yes = shares[1]
            except Unreadable as error:
                reason = str(error)
                failures.append(Failure(number=at, text=summary, kind="answer", reason=reason))
                continue
            found[at] = Judged(document=document, summary=summary, writer=writer, probability=yes)
    except BudgetSpent:
        pass  # what was answered is learned from
    failures.sort(key=lambda f: f.number)
    return [found[at] for at in sorted(found)]


def _written(
    task: Task, share: float, most: int, epochs: int, seed: int, random: Random
) -> list[tuple[str, str, str]]:
    """Every summariser on every document that is to be labelled; equal summaries once."""
    of: dict[str, list[Document]] = task.extras["documents"]

    def some(name: str) -> list[Document]:
        own = of[name][:]
        random.shuffle(own)
        return own[: min(most, max(8, round(share * len(own))))]

    learns, reads = some("summarise"), some("label")
    frequency = Counter(w for d in learns for w in {t.lower() for t in tokens(d.text)})
    writers: dict[str, Callable[[Document], str]] = {
        "takes a sentence": partial(central, frequency=frequency, count=len(learns))
    }
    for number, (name, sizes) in enumerate(WRITERS.items()):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed + number)
            writer = Writer(**sizes)
        writer.learn(learns, epochs=epochs, generator=generator)
        writers[name] = writer.write
    found: dict[tuple[str, str], str] = {}
    for document in reads:
        for name, write in writers.items():
            found.setdefault((document.text, write(document)), name)
    return [(document, summary, name) for (document, summary), name in found.items()]


def _read_pairs(path: str) -> list[tuple[str, str, str]]:
    found = []
    for number, line in enumerate(Path(path).expanduser().read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.append((str(row["document"]), str(row["summary"]), str(row.get("writer", ""))))
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: a row has a document and a summary, as JSON"
            ) from None
    return found


def _source(rows: Sequence[Judged]) -> Arrays:
    inputs = pair_inputs([(j.document, j.summary) for j in rows])
    return Arrays(inputs, [int(j.consistent) for j in rows], name="train")


def _learned(
    studio: Any, seed: int, name: str, setting: Setting, task: Task, rows: Any, test: Sequence[Pair]
) -> Tensor:
    """Log-probabilities of the student of these rows on test, at its last update."""
    own = replace(setting, task=replace(task, train=rows, teach=None), teachers={})
    stage = Stage(name=name, objective=own.supervised(), teacher=None)
    result = studio.play(Recipe(name=f"trueteacher-{name}", setting=own, stages=(stage,)), seed)
    judges = Arrays(pair_inputs([(p.document.text, p.statement) for p in test]), name="test")
    return said(result.model, judges).clamp_min(1e-12).log()


def _tested(task: Task) -> list[Pair]:
    """The pairs of the test part, in its order (a short run has some of them)."""
    made = task.extras["pairs"]["test"]
    assert task.test is not None
    return [made[i] for i in task.test.ids.tolist()]  # pyright: ignore[reportAttributeAccessIssue]


def _figure(
    scores: dict[str, Tensor], test: Sequence[Pair], rows: dict[str, Any],
    judged: Sequence[Judged], spent: Spent, failures: Sequence[Failure],
) -> dict[str, float]:  # fmt: skip
    truth = torch.tensor([int(p.consistent) for p in test])
    edited = torch.tensor([p.made != "line" for p in test])
    kinds = sorted({p.made for p in test if not p.consistent and p.made != "line"})
    figure: dict[str, float] = {}
    for name, logits in scores.items():
        figure[f"auc_{name}"] = auroc(logits[edited], truth[edited])
        figure[f"auc_lines_{name}"] = auroc(logits[~edited], truth[~edited])
        for kind in kinds:
            kept = edited & torch.tensor([p.consistent or p.made == kind for p in test])
            figure[f"auc_{kind}_{name}"] = auroc(logits[kept], truth[kept])
    for which in ("", "lines_"):
        for other in ("random", "perturbed", "teacher"):
            if f"auc_{which}{other}" in figure:
                own = figure[f"auc_{which}trueteacher"]
                figure[f"gain_{which}over_{other}"] = own - figure[f"auc_{which}{other}"]
    figure["rows"] = float(len(rows["trueteacher"]))
    figure["rows_perturbed"] = float(len(rows["perturbed"]))
    figure["labelled"] = float(len(judged))
    figure["consistent_share"] = sum(j.consistent for j in judged) / max(len(judged), 1)
    figure["requests"] = float(spent.requests)
    figure["tokens"] = float(spent.prompt_tokens + spent.completion_tokens)
    figure["failures"] = float(len(failures))
    return figure
