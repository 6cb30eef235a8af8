"""Which rows hold: by their answer, by a program, by a critic, by a majority, by the way back."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from understudy.data.arithmetic import interpret
from understudy.data.synthesis.answers import final_answer, normal, same
from understudy.data.synthesis.generating import Prompt, generate, kept_as
from understudy.data.synthesis.rows import Kept, Row, partition, text_of
from understudy.errors import DataError, UserError
from understudy.teachers.chat import ChatSampling, ChatTeacher

Verdict = tuple[str, str] | None


def by_answer(
    rows: Sequence[Row],
    *,
    said: str = "reply",
    truth: str = "answer",
    read: Callable[[str], str | None] = final_answer,
) -> Kept:
    """Rows whose text ends in the answer that is known."""

    def verdict(row: Row) -> Verdict:
        found = read(text_of(row, said, "verify by answer"))
        if found is None:
            return "no answer", str(row[said])
        right = text_of(row, truth, "verify by answer")
        return None if same(found, right) else ("wrong answer", f"{found}, not {right}")

    return partition("verify by answer", rows, map(verdict, rows))


def sandboxed(program: str) -> Any:
    """The value of any Python program, run in the sandbox."""
    from understudy.data.sandbox import run

    found = run(program)
    if not found.good:
        raise DataError(found.error)
    return found.value


def by_program(
    rows: Sequence[Row],
    *,
    program: str = "program",
    truth: str | None = "answer",
    worth: Callable[[str], Any] = interpret,
) -> Kept:
    """Rows whose program is worth the answer that is known; with truth None, worth anything.

    worth: `interpret` reads arithmetic; `sandboxed` runs any program, shut in. A program that
    fails is a `DataError` of it. Rows that are kept get the value as `value`.
    """
    values: dict[int, str] = {}

    def verdict(place: int, row: Row) -> Verdict:
        text = text_of(row, program, "verify by program")
        try:
            value = worth(text)
        except DataError as error:
            return "the program fails", str(error)
        if value is None:
            return "the program has no value", text
        if truth is not None and not same(value, text_of(row, truth, "verify by program")):
            return "wrong value", f"{value}, not {row[truth]}: {text}"
        values[place] = str(value)
        return None

    found = [verdict(place, row) for place, row in enumerate(rows)]
    kept = partition("verify by program", rows, found)
    for place, row in zip(sorted(values), kept.rows, strict=True):
        row["value"] = values[place]
    return kept


def by_critic(
    rows: Sequence[Row],
    score: Callable[[Sequence[Row]], Sequence[float]],
    *,
    threshold: float = 0.5,
) -> Kept:
    """Rows that a critic gives at least `threshold`; each gets its `score`."""
    scores = [float(s) for s in score(rows)]
    if len(scores) != len(rows):
        raise UserError(f"the critic gave {len(scores)} scores for {len(rows)} rows")
    told = [{**r, "score": s} for r, s in zip(rows, scores, strict=True)]
    return partition(
        "verify by critic",
        told,
        (None if s >= threshold else ("below the threshold", f"{s:.4f}") for s in scores),
    )


def by_judge(
    teacher: ChatTeacher,
    rows: Sequence[Row],
    prompt: Prompt,
    *,
    accept: Callable[[str], bool],
    sampling: ChatSampling | None = None,
) -> Kept:
    """Rows that a chat model accepts when it is asked about each (`prompts.grade`, ...)."""
    asked = generate(teacher, rows, prompt, kept_as("verdict"), sampling=sampling, stage="judge")
    by_row = {r["from"]: r for r in asked.rows}

    def verdicts() -> Iterator[Verdict]:
        for row in rows:
            told = by_row.get(row["id"])
            if told is None:
                yield "no verdict", ""
            else:
                yield None if accept(told["verdict"]) else ("rejected", told["verdict"])

    kept = partition("verify by judge", rows, verdicts())
    found = [_with_keys(r, by_row[r["id"]]) for r in kept.rows]
    return Kept(rows=found, dropped=kept.dropped, spent=asked.spent)


def by_consistency(
    rows: Sequence[Row],
    *,
    said: str = "reply",
    group: str = "question",
    least: float = 0.5,
    read: Callable[[str], str | None] = final_answer,
) -> Kept:
    """Rows whose answer is the one most given in their group (self-consistency, arXiv 2203.11171).

    least: the share of a group that has to give it, texts without an answer counted; on a tie the
    answer that was given first. Rows kept get `votes`, and the answer as `majority`. No truth
    is needed.
    """
    if not 0 <= least <= 1:
        raise UserError(f"verify by consistency: least is a share in [0, 1], not {least}")
    answers = [read(text_of(r, said, "verify by consistency")) for r in rows]
    groups: dict[str, list[str | None]] = defaultdict(list)
    for row, answer in zip(rows, answers, strict=True):
        groups[text_of(row, group, "verify by consistency")].append(answer)
    most: dict[str, tuple[str, int]] = {}
    for name, given in groups.items():
        votes = Counter(normal(a) for a in given if a is not None)
        if votes:
            most[name] = votes.most_common(1)[0]
    told: list[Row] = []
    verdicts: list[Verdict] = []
    for row, answer in zip(rows, answers, strict=True):
        name = str(row[group])
        winner, votes = most.get(name, ("", 0))
        told.append({**row, "votes": votes, "majority": winner})
        size = len(groups[name])
        if answer is None:
            verdicts.append(("no answer", str(row[said])))
        elif votes < least * size:
            verdicts.append(("no majority", f"{winner}: {votes} of {size}"))
        elif normal(answer) != winner:
            verdicts.append(("outvoted", f"{answer}, and {votes} of {size} say {winner}"))
        else:
            verdicts.append(None)
    return partition("verify by consistency", told, verdicts)


def by_round_trip(
    teacher: ChatTeacher,
    rows: Sequence[Row],
    back: Prompt,
    *,
    agree: Callable[[Row, str], bool],
    sampling: ChatSampling | None = None,
) -> Kept:
    """Rows from which the teacher finds the way back: it is asked the reverse, and the two agree.

    back: the reverse question (a written problem is solved, a solution's problem guessed)
    """
    asked = generate(teacher, rows, back, kept_as("returned"), sampling=sampling, stage="return")
    by_row = {r["from"]: r for r in asked.rows}

    def verdicts() -> Iterator[Verdict]:
        for row in rows:
            told = by_row.get(row["id"])
            if told is None:
                yield "no way back", ""
            else:
                good = agree(row, told["returned"])
                yield None if good else ("the way back leads elsewhere", told["returned"])

    kept = partition("verify by round trip", rows, verdicts())
    found = [_with_keys(r, by_row[r["id"]]) for r in kept.rows]
    return Kept(rows=found, dropped=kept.dropped, spent=asked.spent)


def _with_keys(row: Row, told: Row) -> Row:
    return {**row, "made_by": list(told["made_by"])}
