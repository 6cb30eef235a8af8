"""From answers to rows worth learning: stages that are plain functions over rows.

A row is a dict with an `id` and, in `made_by`, the ledger's keys of the answers that it is made of. A
stage takes rows and gives `Kept`: the rows, what was dropped and why, what was spent. Composition
is ordinary Python::

    said = generate(teacher, questions, lambda r: prompts.solve(r["question"]), n=4)
    right = by_answer(said.rows)
    fresh = decontaminate(near(right.rows, "reply").rows, test_questions)
    write_rows("train.parquet", fresh.rows)
"""

from understudy.data.synthesis import prompts
from understudy.data.synthesis.answers import final_answer, normal, same
from understudy.data.synthesis.decontaminating import Index, decontaminate
from understudy.data.synthesis.deduplicating import exact, near
from understudy.data.synthesis.filtering import by_length, keep_if
from understudy.data.synthesis.generating import child, generate, kept_as
from understudy.data.synthesis.retrieving import Nearest
from understudy.data.synthesis.rows import (
    Drop,
    Dropped,
    Kept,
    Row,
    Spent,
    identity,
    numbered,
    read_rows,
    write_rows,
)
from understudy.data.synthesis.sharing import at_random, balance, split
from understudy.data.synthesis.verifying import (
    by_answer,
    by_consistency,
    by_critic,
    by_judge,
    by_program,
    by_round_trip,
    sandboxed,
)

__all__ = [
    "Drop",
    "Dropped",
    "Index",
    "Kept",
    "Nearest",
    "Row",
    "Spent",
    "at_random",
    "balance",
    "by_answer",
    "by_consistency",
    "by_critic",
    "by_judge",
    "by_length",
    "by_program",
    "by_round_trip",
    "child",
    "decontaminate",
    "exact",
    "final_answer",
    "generate",
    "identity",
    "keep_if",
    "kept_as",
    "near",
    "normal",
    "numbered",
    "prompts",
    "read_rows",
    "same",
    "sandboxed",
    "split",
    "write_rows",
]
