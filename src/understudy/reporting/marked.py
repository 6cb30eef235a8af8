"""A sample of a language task in words, its scored tokens marked."""

from itertools import groupby
from typing import Any

from understudy.data import OwnTemplate, Texts
from understudy.errors import DataError
from understudy.setting import Setting

SCORED, PLAIN = "\033[1;32m", "\033[0m"


def show_example(setting: Setting, *, row: int = 0, colour: bool = False) -> str:
    """One training sample; scored tokens in green and bold, or in [[ ]]; nothing is trained.

    Where the teacher reads its own chat template, its sample comes below the student's.
    """
    task = setting.task_for(0)
    texts = task.train
    if not isinstance(texts, Texts):
        raise DataError(f"{task.name} holds no texts: --show-example is for language models")
    tokenizer = task.extras.get("tokenizer")
    lines = [_sample(texts, row, tokenizer, colour)]
    if isinstance(setting.teacher_call, OwnTemplate):
        other = setting.teacher_call.texts
        found = int((other.ids == texts.ids[row]).nonzero()[0])
        lines += ["", "as the teacher reads it:", _sample(other, found, tokenizer, colour)]
    lines += ["", *(str(n) for n in task.extras.get("notes", ()))]
    return "\n".join(lines)


def _sample(texts: Texts, row: int, tokenizer: Any, colour: bool) -> str:
    start, end = int(texts.offsets[row]), int(texts.offsets[row + 1])
    tokens = texts.flat[start:end].tolist()
    scored = texts.scored[start:end].tolist()
    head = f"sample {int(texts.ids[row])}: {len(tokens)} tokens, {sum(scored)} scored"
    return f"{head}\n{marked(tokens, scored, tokenizer, colour)}"


def marked(tokens: list[int], scored: list[bool], tokenizer: Any, colour: bool) -> str:
    """The text of tokens, those that are scored marked."""
    open_, close = (SCORED, PLAIN) if colour else ("[[", "]]")
    parts = []
    for counts, run in groupby(zip(tokens, scored, strict=True), key=lambda pair: pair[1]):
        ids = [t for t, _ in run]
        said = _decoded(ids, tokenizer)
        parts.append(f"{open_}{said}{close}" if counts else said)
    return "".join(parts)


def _decoded(ids: list[int], tokenizer: Any) -> str:
    if not hasattr(tokenizer, "decode"):
        return " ".join(map(str, ids)) + " "
    return _printable(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _printable(text: str) -> str:
    """Text without what would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
