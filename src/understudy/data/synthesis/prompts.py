"""What a chat model is asked. Inputs stand between delimiters, so that whatever reads them finds them.

Every prompt is meant for any instruction-following model. Its first line names the task in one
word; `inputs` is the way back from a prompt to what stands in it, which the experts (small models
behind the same words) use.
"""

from collections.abc import Mapping, Sequence

from understudy.teachers.chat import Conversation
from understudy.teachers.chat.asking import asked, inputs

__all__ = [
    "asked", "classify", "consistent", "explained", "grade", "inputs", "mistake", "program",
    "rephrase", "solve", "write",
]  # fmt: skip


def solve(question: str) -> Conversation:
    """A rationale and, after `#`, the final answer."""
    return asked(
        "solve",
        "Solve the problem. Let's think step by step: write every step of the calculation, then the "
        "sign # and the final answer alone (a number without its unit, or a name).",
        question=question,
    )


def explained(question: str, answer: str) -> Conversation:
    """A rationale that leads to the answer that is known."""
    return asked(
        "solve",
        "The answer to the problem is given. Write every step of the calculation that leads to it, "
        "then the sign # and the answer.",
        question=question,
        answer=answer,
    )


def program(question: str, examples: Sequence[tuple[str, str]] = ()) -> Conversation:
    """One expression that is worth the answer; `examples` are solved ones to follow."""
    shown = "\n\n".join(f"Problem: {q}\nProgram: {p}" for q, p in examples)
    given = {"examples": shown} if shown else {}
    return asked(
        "program",
        "Write one line of Python whose value is the answer to the problem: whole numbers, "
        "+ - * // %, / where it comes out even, ceil(a/b), or more(Mia=46, Noor=14) and "
        "less(Mia=46, Noor=14), whose value is a name. Write the program and nothing else.",
        **given,
        question=question,
    )


def write(skill: str, level: int | str, name: str, noun: str) -> Conversation:
    """A new problem for a skill and a difficulty."""
    return asked(
        "write",
        "Write one new arithmetic word problem for the skill and the level of difficulty (1 is easy, "
        "3 is hard), about the person and the things named. Write the problem and nothing else.",
        skill=skill,
        level=str(level),
        name=name,
        noun=noun,
    )


def rephrase(question: str) -> Conversation:
    """The same problem in other words."""
    return asked(
        "rephrase",
        "Say the problem in other words: other people, other things or another sentence, with the "
        "same numbers and the same answer. Write the problem and nothing else.",
        question=question,
    )


def mistake(question: str, given: str) -> Conversation:
    """What went wrong in a wrong answer."""
    return asked(
        "explain",
        "The answer given to the problem is wrong. Solve the problem, then say in a few words which "
        "mistake leads to the answer given.",
        question=question,
        given=given,
    )


def grade(question: str, given: str) -> Conversation:
    """`right` or `wrong`, at the end."""
    return asked(
        "grade",
        "Check the answer given to the problem: solve it yourself, compare, and end with the word "
        "right or the word wrong.",
        question=question,
        given=given,
    )


def classify(text: str, labels: Mapping[str, str], name: str = "label") -> Conversation:
    """The one label that fits; `labels` are names with their definitions."""
    known = "\n".join(f"{k}: {v}" if v else k for k, v in labels.items())
    return asked(
        "classify",
        "Choose the one label that fits the text best. Answer with the JSON object "
        f'{{"{name}": "..."}} and nothing else, with the label spelt as below.',
        labels=known,
        text=text,
    )


def consistent(document: str, summary: str) -> Conversation:
    """`yes` where all that a summary says is said by the document."""
    return asked(
        "consistent",
        "Is everything that the summary says supported by the document? Answer yes or no.",
        document=document,
        summary=summary,
    )
