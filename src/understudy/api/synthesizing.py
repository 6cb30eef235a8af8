"""`understudy synthesize`: one stage of synthetic data, from a file to a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from understudy.data.arithmetic import interpret
from understudy.data.synthesis import (
    Kept,
    Row,
    balance,
    by_answer,
    by_consistency,
    by_length,
    by_program,
    decontaminate,
    exact,
    generate,
    kept_as,
    near,
    prompts,
    read_rows,
    sandboxed,
    split,
    write_rows,
)
from understudy.data.synthesis.rows import text_of
from understudy.errors import UserError, unknown
from understudy.teachers.chat import ChatSampling, ChatTeacher, Conversation

STAGES = ("generate", "verify", "filter", "deduplicate", "decontaminate", "balance", "split")
PROMPTS: Mapping[str, tuple[str, Callable[[Row], Conversation]]] = {
    "solve": ("reply", lambda r: prompts.solve(_said(r, "question"))),
    "explained": ("reply", lambda r: prompts.explained(_said(r, "question"), _said(r, "answer"))),
    "program": ("program", lambda r: prompts.program(_said(r, "question"))),
    "rephrase": ("question", lambda r: prompts.rephrase(_said(r, "question"))),
    "write": (
        "question",
        lambda r: prompts.write(
            _said(r, "skill"), _said(r, "level"), _said(r, "name"), _said(r, "noun")
        ),
    ),
}
"""What a teacher can be asked about a row, and the field that its answer becomes."""


def _said(row: Row, field: str) -> str:
    return text_of(row, field, "generate")


def synthesize(
    stage: str,
    source: str | Path,
    out: str | Path,
    *,
    teacher: ChatTeacher | None = None,
    prompt: str = "solve",
    n: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 512,
    seed: int = 0,
    by: str | None = None,
    field: str = "question",
    truth: str = "answer",
    sandbox: bool = False,
    least: float | None = None,
    most: int | None = None,
    threshold: float | None = None,
    tests: str | Path | None = None,
    longest: int = 13,
    shares: str = "train=0.9,validation=0.05,test=0.05",
) -> list[Kept]:
    """Runs one stage on the rows of `source` (.jsonl, .parquet) and writes `out`; says what it did.

    What was dropped stands beside it, in `NAME.dropped.jsonl`. `split` writes a folder of one
    Parquet file a part, which `distill --data` reads.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    rows, out = read_rows(source), Path(out)
    if stage == "split":
        parts = split(rows, _shares(shares), group=field, seed=seed)
        for name, part in parts.items():
            write_rows(out / f"{name}.parquet", part)
        return []
    if stage == "generate":
        if teacher is None:
            raise UserError("generate asks a teacher: give --endpoint URL --model NAME, or school")
        if prompt not in PROMPTS:
            raise unknown("prompt", prompt, PROMPTS)
        name, ask = PROMPTS[prompt]
        sampling = ChatSampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
        found = generate(teacher, rows, ask, kept_as(name), n=n, sampling=sampling)
    elif stage == "verify":
        found = _verified(rows, by or "answer", truth, sandbox, least)
    elif stage == "filter":
        found = by_length(rows, field, least=int(1 if least is None else least), most=most)
    elif stage == "deduplicate":
        found = (
            exact(rows, (field,)) if threshold is None else near(rows, field, threshold=threshold)
        )
    elif stage == "decontaminate":
        if tests is None:
            raise UserError("decontaminate compares with a test's texts: give --tests FILE")
        shown = [text_of(r, field, "decontaminate") for r in read_rows(tests)]
        found = decontaminate(rows, shown, (field,), longest=longest, shortest=min(8, longest))
    else:
        if by is None:
            raise UserError("balance evens out the values of a column: give --by COLUMN")
        found = balance(rows, by, most=most, seed=seed)
    write_rows(out, found.rows)
    told = [{"id": d.id, "reason": d.reason, "evidence": d.evidence} for d in found.dropped.rows]
    write_rows(out.with_name(f"{out.stem}.dropped.jsonl"), told)
    return [found]


def _verified(rows: list[Row], by: str, truth: str, sandbox: bool, least: float | None) -> Kept:
    if by == "answer":
        return by_answer(rows, truth=truth)
    if by == "program":
        return by_program(rows, truth=truth, worth=sandboxed if sandbox else interpret)
    if by == "consistency":
        return by_consistency(rows, least=0.5 if least is None else least)
    raise unknown("way to verify", by, ("answer", "program", "consistency"))


def _shares(text: str) -> dict[str, float]:
    found = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"--shares takes train=0.9,test=0.1, not {text!r}") from None
    return found
