"""Prompts with their inputs between delimiters, and the way back: what experts read."""

import re
from collections.abc import Sequence

from understudy.errors import UserError
from understudy.teachers.chat.talk import Conversation, Message, user

_TASK = re.compile(r"\ATask: ([a-z]+)\n")
_INPUT = re.compile(r"<(?P<name>[a-z_]+)>\n(?P<value>.*?)\n</(?P=name)>", re.DOTALL)


def asked(task: str, instructions: str, **given: str) -> Conversation:
    """A conversation of one question: the task, what to do, and each input between its delimiters.

    Raises:
        UserError: an input that holds its own closing delimiter, which would end it early.
    """
    for name, value in given.items():
        if f"</{name}>" in value:
            raise UserError(f"a text that contains '</{name}>' cannot stand in this prompt; cut it")
    parts = [f"Task: {task}", instructions]
    parts += [f"<{name}>\n{value}\n</{name}>" for name, value in given.items()]
    return user("\n".join(parts))


def inputs(messages: Sequence[Message]) -> tuple[str, dict[str, str]]:
    """(task, inputs by name) of the last question of a conversation; ("", {}) where it is another's."""
    last = next((m.content for m in reversed(messages) if m.role == "user"), "")
    found = _TASK.match(last)
    if found is None:
        return "", {}
    return found[1], {m["name"]: m["value"] for m in _INPUT.finditer(last)}
