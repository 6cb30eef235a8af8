"""`label`: from texts without labels, a list of labels and a teacher to talk to, to a student."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from understudy.api.folders import open_run
from understudy.api.label_rounds import Learned, learn_in_rounds
from understudy.api.run import Run
from understudy.data.labelling import (
    Asking,
    Divided,
    Labelled,
    Plan,
    Prices,
    Row,
    ask,
    cascade,
    distinct,
    divide,
    read_labels,
    read_sheet,
    soft_way,
    stratified,
    write_sheet,
)
from understudy.data.labelling import plan as planned
from understudy.errors import UserError, nearest
from understudy.evaluation.raters import agree, wilson_interval
from understudy.files import write_json, write_text
from understudy.recipes.talking_teachers._students import WORDS, said, student_spec
from understudy.recipes.talking_teachers._teachers import answering
from understudy.running import Studio
from understudy.setting import override
from understudy.students import save_student
from understudy.tasks.frames import TEXTS
from understudy.tasks.words import encode
from understudy.tasks.writings import read_file
from understudy.teachers.chat import ChatTeacher
from understudy.training.distribution import pick_device

SHEET = "gold.csv"
Soft = Literal["auto", "logprobs", "votes"]


class LabelRun(Run):
    """What a labelling came to; `classify` names the labels of new texts."""

    def __init__(
        self, summary: dict[str, Any], student: nn.Module, folder: Path | None, tokenizer: Any,
        max_length: int,
    ) -> None:  # fmt: skip
        super().__init__(summary, student, folder, None)
        self.labels = tuple(summary["label"]["labels"])
        self._tokenizer, self._length = tokenizer, max_length

    def classify(self, texts: Sequence[str]) -> list[str]:
        """The student's label of each text."""
        if not texts:
            return []
        inputs = encode(self._tokenizer, {"texts": list(texts)}, self._length)["texts"]
        return [self.labels[i] for i in self.predict(inputs).argmax(-1).tolist()]

    def table(self, width: int | None = None) -> str:
        """Cost, learning curve, agreement, classes, cascade."""
        from understudy.reporting.labels import label_tables

        return label_tables(self.summary["label"], width)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a labelling starts from, read and checked."""

    texts: dict[int, str]
    notes: list[str]
    asking: Asking
    people: dict[int, str]
    soft: bool


def label(
    texts: str | Path | Sequence[str],
    labels: str | Path | Mapping[str, str] | Sequence[Any],
    teacher: ChatTeacher | None = None,
    *,
    endpoint: str | None = None,
    model: str | None = None,
    key_env: str | None = None,
    budget: float | None = None,
    prices: Prices | None = None,
    ledger: str | Path | None = None,
    concurrency: int = 16,
    text: str | None = None,
    student: str | Path = WORDS,
    soft: bool | Soft = False,
    votes: int | None = None,
    gold: int | str | Path | None = None,
    first: int = 100,
    every: bool = False,
    least: float = 0.0,
    validate: float = 0.15,
    test: float = 0.2,
    max_length: int = 128,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    callbacks: Sequence[Callable[[str, dict[str, Any]], None]] = (),
    progress: Callable[[int, int], None] | None = None,
    command: str = "",
    **options: Any,
) -> LabelRun:
    """From texts without labels to a student that labels them.

    texts:     a list, or a file (.csv, .parquet, .jsonl, .txt; `text` names the column)
    labels:    names with definitions: a JSON file, a mapping, or a list (`data.labelling`)
    teacher:   any `ChatTeacher`; or `endpoint`, an OpenAI-compatible URL with a `model` and the
               name of the environment variable that holds the key, or the name of a built-in expert
               (zero-shot)
    budget:    in money, with `prices` of a million tokens (read, written); once spent, what was
               answered is learned from, and `resume` with more goes on
    ledger:    where answers are kept (default: `ledger.sqlite` beside the run folder)
    soft:      learn probabilities: from log-probabilities of the answer where the endpoint gives
               them, else of `votes` answers a text (5)
    votes:     answers a text; without `soft` their majority is the label
    least:     rows of less confidence are not learned from
    gold:      a number: draws a sheet of that many texts for people, `gold.csv` in the run folder,
               and reads what they have filled in; or a CSV with columns text and label
    first, every: size of the first round; label every text, whatever it gains
    validate, test: shares of the texts, at most 500 each, that choose and that judge
    student:   a family of ours, or the folder of a Hugging Face encoder
    options:   fields of the student's `Budget` (epochs, lr, ...)

    Raises `UserError` in one line.
    """
    given = _read(texts, labels, text, soft, votes, gold, out)
    spec = student_spec(student)
    spec = replace(spec, budget=override(spec.budget, options))
    if not 0 <= least <= 1:
        raise UserError(f"least is a confidence from 0 to 1, not {least}")
    with answering(
        teacher, endpoint, model, key_env=key_env, budget=budget, prices=prices,
        ledger=ledger or _beside(out), concurrency=concurrency,
    ) as speaks:  # fmt: skip
        config: dict[str, Any] = {
            "method": "label",
            "recipe": {
                "labels": dict(given.asking.labels),
                "teacher": speaks.fingerprint(),
                "texts": len(given.texts),
                "student": str(student),
                "budget": {k: str(v) for k, v in options.items()},
                "soft": str(soft),
                "votes": votes,
                "least": least,
                "validate": validate,
                "test": test,
                "seed": seed,
            },
            "seeds": 1,
            "command": command,
        }
        if out is not None:  # where an export finds texts to judge on
            config["origin"] = {
                "data": str(Path(out) / "labelled.csv"), "target": "label", "text": "text",
                "max_length": max_length,
            }  # fmt: skip
        asking = given.asking
        divided = _divided(given, gold, validate, test, seed)
        first_text = given.texts[divided.validate[0]]
        if given.soft and votes is None:
            way = soft if isinstance(soft, str) and soft != "auto" else None
            asking = replace(asking, way=way or soft_way(speaks, first_text, asking.labels))
        found = Labelled()
        if teacher is None:
            # a wrong key or address says so before there is a folder; the ledger keeps the answer
            ask(speaks, {divided.validate[0]: first_text}, asking, found)
        folder = open_run(out, config, resume=resume, overwrite=overwrite)
        studio = Studio(
            None if folder is None else folder / "checkpoints",
            device=pick_device(device),
            listeners=list(callbacks),
        )
        learned = learn_in_rounds(
            studio, speaks, given.texts, divided, asking, found, spec, soft=given.soft, first=first,
            every=every, least=least, max_length=max_length, seed=seed, progress=progress,
        )  # fmt: skip
    assert learned.result is not None
    assert learned.task is not None
    people, sheet = given.people, None
    if folder is not None and isinstance(gold, int):
        sheet = folder / SHEET
        if not sheet.exists():
            write_sheet(sheet, stratified(found.of(divided.test), gold, seed))
    what = _told(given, asking, divided, found, learned, people)
    what |= {
        "teacher": _name(teacher, endpoint, model),
        "student": str(student),
        "prices": None if prices is None else list(prices),
        "sheet": None if sheet is None else {"path": sheet.name, "filled": len(people)},
    }
    summary = {
        "version": 1, "title": "labels for texts", "method": "label", "arms": [], "label": what,
        "task": {
            "name": "labels", "kind": "single", "metric": "accuracy", "labels": list(what["labels"]),
            "classes": len(what["labels"]), "labelled": len(found.rows),
            "train": len(learned.learned),
        },
        "command": command,
    }  # fmt: skip
    tokenizer = learned.task.extras["tokenizer"]
    run = LabelRun(summary, learned.result.model, folder, tokenizer, max_length)
    if folder is not None:
        _deliver(folder, run, learned, found, divided, tokenizer)
    return run


def label_plan(
    texts: str | Path | Sequence[str],
    labels: str | Path | Mapping[str, str] | Sequence[Any],
    teacher: ChatTeacher | None = None,
    *,
    endpoint: str | None = None,
    model: str | None = None,
    key_env: str | None = None,
    budget: float | None = None,
    prices: Prices | None = None,
    ledger: str | Path | None = None,
    text: str | None = None,
    soft: bool | Soft = False,
    votes: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> Plan:
    """What `label` would send and cost: prompts as they are sent, and an estimate from 20 answers.

    The answers are kept in the ledger that `label` reads, so that they are not paid for again.
    """
    given = _read(texts, labels, text, soft, votes, None, None)
    with answering(
        teacher, endpoint, model, key_env=key_env, budget=budget, prices=prices,
        ledger=ledger or _beside(out),
    ) as speaks:  # fmt: skip
        asking = given.asking
        if given.soft and votes is None:
            way = soft if isinstance(soft, str) and soft != "auto" else None
            probe = next(iter(given.texts.values()))
            asking = replace(asking, way=way or soft_way(speaks, probe, asking.labels))
        return planned(speaks, given.texts, asking, prices)


def _beside(out: str | Path | None) -> Path | None:
    """One ledger for the runs of a folder: what one of them paid for, the others have."""
    return None if out is None else Path(out).resolve().parent / "ledger.sqlite"


def _name(teacher: ChatTeacher | None, endpoint: str | None, model: str | None) -> str:
    if teacher is not None:
        return type(teacher).__name__
    return str(endpoint) if model is None else f"{model} at {endpoint}"


def _read(
    texts: Any, labels: Any, column: str | None, soft: bool | Soft, votes: int | None, gold: Any,
    out: str | Path | None,
) -> _Given:  # fmt: skip
    schema = read_labels(labels)
    if soft not in (False, True, "auto", "logprobs", "votes"):
        raise UserError(f"soft targets come from logprobs or votes, not {soft!r}")
    if soft == "logprobs" and votes is not None:
        raise UserError("--soft logprobs asks once a text; leave --votes out")
    if votes is not None and votes < 2:
        raise UserError(f"--votes is at least 2 answers a text, not {votes}")
    asking = Asking(labels=schema)
    if votes is not None or soft == "votes":
        asking = replace(asking, way="votes", votes=votes or asking.votes)
    found, notes = distinct(_texts(texts, column))
    people: dict[int, str] = {}
    if isinstance(gold, bool) or (isinstance(gold, int) and gold < 1):
        raise UserError(f"--gold is a number of texts from 1, or a CSV file, not {gold}")
    if isinstance(gold, int):
        if out is None:
            raise UserError("a sheet for people lies in the run folder: give out= (--out)")
        sheet = Path(out) / SHEET
        people = read_sheet(sheet, schema, found) if sheet.is_file() else {}
    elif gold is not None:
        people = _own_gold(Path(gold), schema, found)
    return _Given(texts=found, notes=notes, asking=asking, people=people, soft=bool(soft))


def _own_gold(path: Path, schema: Mapping[str, str], found: dict[int, str]) -> dict[int, str]:
    """People's labels of a CSV; its texts that are not among the data join it."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; --gold takes a number of texts, or such a CSV")
    known = set(found.values())
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.DictReader(file):
            text = (line.get("text") or "").strip()
            if text and text not in known and (line.get("label") or "").strip():
                found[max(found) + 1] = text
                known.add(text)
    return read_sheet(path, schema, found)


def _texts(texts: Any, column: str | None) -> list[str]:
    if not isinstance(texts, str | Path):
        return [str(t) for t in texts]
    path = Path(texts).expanduser()
    if not path.is_file():
        near = (
            nearest(path.name, [q.name for q in path.parent.iterdir()])
            if (path.parent.is_dir())
            else ""
        )
        raise UserError(f"there is no file {path}{near}")
    rows = read_file(path)
    if not rows:
        raise UserError(f"{path} is empty; it needs at least one text")
    columns = list(rows[0])
    if column is None:
        lower = {c.lower(): c for c in reversed(columns)}
        named = [lower[t] for t in TEXTS if t in lower]
        wordy = [c for c in columns if isinstance(rows[0][c], str)]
        if not named and len(wordy) != 1:
            raise UserError(
                f"{path}: which column is the text? There are {', '.join(columns)}; say --text"
            )
        column = named[0] if named else wordy[0]
    elif column not in columns:
        raise UserError(f"{path} has no column {column!r}{nearest(column, columns)}")
    return ["" if row.get(column) is None else str(row[column]) for row in rows]


def _divided(given: _Given, gold: Any, validate: float, test: float, seed: int) -> Divided:
    """People's texts judge and are never learned from; the others are drawn."""
    if isinstance(gold, int) or not given.people:
        wanted = gold if isinstance(gold, int) else 0
        return divide(list(given.texts), validate=validate, test=test, at_least=wanted, seed=seed)
    others = [n for n in given.texts if n not in given.people]
    rest = divide(others, validate=validate, test=test, seed=seed)
    return replace(rest, test=(*given.people, *rest.test))


def _told(
    given: _Given, asking: Asking, divided: Divided, found: Labelled, learned: Learned,
    people: Mapping[int, str],
) -> dict[str, Any]:  # fmt: skip
    """What the report shows."""
    assert learned.result is not None
    assert learned.task is not None
    names, task = list(asking.labels), learned.task
    assert task.test is not None
    shares = said(learned.result.model, task.test)
    judged = found.of(divided.test)
    teacher = torch.tensor([names.index(r.label) for r in judged])
    student = shares.argmax(-1)
    spots = [i for i, r in enumerate(judged) if r.number in people]
    truth = torch.tensor([names.index(people[judged[i].number]) for i in spots])
    by_people = len(spots) > 1
    rows = torch.tensor(spots) if by_people else torch.arange(len(judged))
    right_answer = truth if by_people else teacher
    agreement = {}
    if by_people:
        pairs = {"teacher and people": teacher[rows], "student and people": student[rows]}
        agreement = {k: asdict(agree(v.numpy(), truth.numpy())) for k, v in pairs.items()}
    agreement["student and teacher"] = asdict(agree(student.numpy(), teacher.numpy()))
    spent = found.spent.json()
    each = None if spent["money"] is None else spent["money"] / max(found.spent.requests, 1)
    steps = cascade(
        shares.max(-1).values[rows].numpy(),
        (student[rows] == right_answer).double().numpy(),
        (teacher[rows] == right_answer).double().numpy(),
        money=each,
    )
    return {
        "labels": dict(asking.labels),
        "way": asking.way,
        "answers_a_text": asking.count,
        "soft": given.soft,
        "notes": given.notes,
        "texts": {k: len(getattr(divided, k)) for k in ("learn", "validate", "test")},
        "spent": spent,
        "budget_spent": found.budget_spent,
        "rounds": [asdict(r) for r in learned.rounds],
        "stopped": learned.stopped,
        "judged_by": "people" if by_people else "teacher",
        "agreement": agreement,
        "classes": _classes(names, learned.learned, student[rows], right_answer),
        "cascade": [asdict(s) for s in steps],
        "failures": _counted(found),
    }


def _classes(
    names: Sequence[str], learned: Sequence[Row], student: torch.Tensor, truth: torch.Tensor
) -> list[dict[str, Any]]:
    """Each label: rows learned from, judged texts, precision, recall with its interval, F1."""
    table = []
    for k, name in enumerate(names):
        both = int(((student == k) & (truth == k)).sum())
        said_so, is_so = int((student == k).sum()), int((truth == k).sum())
        table.append(
            {
                "label": name,
                "learned": sum(r.label == name for r in learned),
                "judged": is_so,
                "precision": both / said_so if said_so else None,
                "recall": both / is_so if is_so else None,
                "recall_interval": wilson_interval(both, is_so) if is_so else None,
                "f1": 2 * both / (said_so + is_so) if said_so + is_so else None,
            }
        )
    return table


def _counted(found: Labelled) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    for failure in found.failures.values():
        kind = kinds.setdefault(failure.kind, {"count": 0, "first": failure.reason})
        kind["count"] += 1
    return kinds


def _deliver(
    folder: Path, run: LabelRun, learned: Learned, found: Labelled, divided: Divided, tokenizer: Any
) -> None:
    from understudy.reporting.labels import write_label_report

    part_of = {n: p for p in ("learn", "validate", "test") for n in getattr(divided, p)}
    names = list(run.labels)
    head = ["number", "text", "label", "confidence", "part", "requests", *names]
    lines: list[list[Any]] = [
        [r.number, r.text, r.label, f"{r.confidence:.6g}", part_of[r.number], " ".join(r.keys),
         *(f"{p:.6g}" for p in r.soft)]
        for r in found.rows.values()
    ]  # fmt: skip
    _write_table(folder / "labelled.csv", head, lines)
    failed = [[f.number, f.text, f.kind, f.reason] for f in found.failures.values()]
    _write_table(folder / "failures.csv", ["number", "text", "kind", "reason"], failed)
    save_student(
        run.student, folder / "student", labels=names,
        extra={"task": "labels", "kind": "single", "max_length": run._length},
        processor=tokenizer, overwrite=True,
    )  # fmt: skip
    write_json(folder / "summary.json", run.summary)
    write_label_report(folder)


def _write_table(path: Path, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    write_text(path, text.getvalue())
