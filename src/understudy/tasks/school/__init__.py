"""The school world: arithmetic word problems made by rule, and whatever they say checked by rule.

`rows` makes problems, `examples` the four abilities as text, `check` judges what a model wrote,
`school` is the task, and `teacher` the small language model that is shipped with it.
"""

from understudy.tasks.school.check import (
    Checked,
    answer_of,
    check_explanation,
    check_grade,
    check_written,
    exact_match,
    mistake_of,
    question_of,
    same_problem,
    solves,
    verdict_of,
    wrong_steps,
)
from understudy.tasks.school.corpus import LENGTH, ByLength, corpus, texts
from understudy.tasks.school.measure import Score, asked, complete, passes, report, score
from understudy.tasks.school.program import evaluate, rationale
from understudy.tasks.school.rows import SKILLS, SPLITS, Parsed, Row, parse, rows, stream
from understudy.tasks.school.talking import SchoolChat, school_chat
from understudy.tasks.school.text import (
    ABILITIES,
    MIX,
    Example,
    example,
    examples,
    question_prompt,
    solution,
    write_prompt,
)
from understudy.tasks.school.tokens import decode, encode, tokenizer
from understudy.tasks.school.world import BASES, STUDENTS, TEACHER, made_by, school, teacher

__all__ = [
    "ABILITIES",
    "BASES",
    "LENGTH",
    "MIX",
    "SKILLS",
    "SPLITS",
    "STUDENTS",
    "TEACHER",
    "ByLength",
    "Checked",
    "Example",
    "Parsed",
    "Row",
    "SchoolChat",
    "Score",
    "answer_of",
    "asked",
    "passes",
    "check_explanation",
    "check_grade",
    "check_written",
    "complete",
    "corpus",
    "decode",
    "encode",
    "evaluate",
    "exact_match",
    "example",
    "examples",
    "made_by",
    "mistake_of",
    "parse",
    "question_of",
    "question_prompt",
    "rationale",
    "report",
    "rows",
    "same_problem",
    "school",
    "school_chat",
    "score",
    "solution",
    "solves",
    "stream",
    "teacher",
    "texts",
    "tokenizer",
    "verdict_of",
    "write_prompt",
    "wrong_steps",
]
