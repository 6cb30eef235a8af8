"""Conversations as token ids, and which of them the assistant said: by a tokenizer's template."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.errors import DataError

Messages = Sequence[Mapping[str, Any]]
ROLES = ("system", "developer", "user", "assistant", "tool")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK = "\ue000"
"""A character that no text holds, to see where a message stands."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text: token ids, which of them are scored, and the UTF-8 bytes of what is scored."""

    tokens: list[int]
    scored: list[bool]
    bytes: int

    def cut(self, length: int) -> "Sample":
        """The first `length` tokens to read, and the one after them."""
        kept = sum(self.scored[: length + 1])
        share = kept / max(1, sum(self.scored))
        return Sample(
            tokens=self.tokens[: length + 1],
            scored=self.scored[: length + 1],
            bytes=round(self.bytes * share),
        )


def checked_messages(messages: Any, where: str) -> list[dict[str, Any]]:
    """Messages as a template takes them: dicts with a role and a text."""
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError(f"{where}: messages is a list of role and content, and not empty")
    found = []
    for number, message in enumerate(messages):
        at = f"{where}, message {number}"
        if not isinstance(message, Mapping) or "role" not in message:
            raise DataError(f"{at} has no role; a message is {{'role': ..., 'content': ...}}")
        own = {k: v for k, v in message.items() if v is not None}
        if own["role"] not in ROLES:
            raise DataError(f"{at}: role {own['role']!r} is none of {', '.join(ROLES)}")
        if not isinstance(own.get("content", ""), str):
            raise DataError(f"{at}: content is no text ({type(own['content']).__name__})")
        if "content" not in own and "tool_calls" not in own:
            raise DataError(f"{at} has no content")
        found.append(own)
    if all(m["role"] != "assistant" for m in found):
        raise DataError(f"{where} has no assistant turn: no token would be scored")
    return found


def rendered(
    messages: list[dict[str, Any]],
    tokenizer: Any,
    where: str,
    *,
    first: int = 0,
    tools: Any = None,
) -> Sample:
    """A conversation in the tokenizer's own template; what the assistant says is scored.

    Where the template marks its generation, by those marks. Otherwise the conversation is rendered
    up to each assistant turn, with the prompt to generate, and that has to be how the whole begins;
    the turn ends with its end-of-turn token. Turns before message `first` are not scored. Special
    tokens are the template's: none is added, so there is one beginning-of-text token at most.

    Raises `DataError`: no template, a template whose prefixes differ, nothing scored.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise DataError(
            f"{where}: the tokenizer has no chat template, and the data are messages; give a model "
            "with one, or rows of prompt and completion"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(f"{where}: chat messages need a fast tokenizer (tokenizer.json)")

    def render(part: list[dict[str, Any]], prompt: bool = False) -> str:
        try:
            return tokenizer.apply_chat_template(
                part, tools=tools, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise DataError(
                f"{where}: the chat template refuses this conversation: {line}"
            ) from None

    whole = render(messages)
    told = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = list(told["input_ids"]), [tuple(p) for p in told["offset_mapping"]]
    if _GENERATION.search(str(template)):
        mask = tokenizer.apply_chat_template(
            messages,
            tools=tools,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        if list(mask["input_ids"]) != ids:
            raise DataError(f"{where}: the chat template is not rendered alike twice")
        scored = [bool(m) for m in mask["assistant_masks"]]
        if first:
            start = len(render(messages[:first], prompt=True))
            scored = [s and p[0] >= start for s, p in zip(scored, places, strict=True)]
    else:
        scored = [False] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant" and turn >= first:
                start, end = _span(render, messages, turn, whole, where)
                _score(scored, ids, places, start, end, tokenizer)
    if not any(scored[1:]):
        raise DataError(
            f"{where}: no token is scored: the chat template shows no assistant turn of this "
            "conversation"
        )
    return Sample(
        tokens=ids, scored=scored, bytes=said_bytes(whole, ids, places, scored, tokenizer)
    )


def _span(
    render: Callable[..., str], messages: list[dict[str, Any]], turn: int, whole: str, where: str
) -> tuple[int, int]:
    """Where in the whole an assistant turn stands, its header left out, its end included."""
    before = render(messages[:turn], True) if turn else ""
    if not whole.startswith(before):
        raise DataError(
            f"{where}: the chat template renders the conversation up to message {turn} otherwise "
            "than as a part of the whole, so that what is scored cannot be told; give a template "
            "with {% generation %} marks"
        )
    through = render(messages[: turn + 1])
    if whole.startswith(through):
        return len(before), len(through)
    # a template that shows the last turn otherwise (a block of thoughts): what does not change
    # with the content of this turn comes after it
    content = str(messages[turn].get("content", ""))
    other = render([*messages[:turn], {**messages[turn], "content": _MARK}, *messages[turn + 1 :]])
    if not content.strip() or _MARK not in other:
        raise DataError(
            f"{where}: where message {turn} ends cannot be told by this chat template; give one "
            "with {% generation %} marks"
        )
    after = other[other.rindex(_MARK) + 1 :]
    if not whole.endswith(after) or len(whole) - len(after) < len(before):
        raise DataError(
            f"{where}: the chat template changes what follows message {turn} with its content; "
            "give one with {% generation %} marks"
        )
    return len(before), -(len(whole) - len(after))  # negative: the end of the content alone


def _score(
    scored: list[bool],
    ids: list[int],
    places: list[tuple[int, int]],
    start: int,
    end: int,
    tokenizer: Any,
) -> None:
    """Mark a turn's tokens up to its end-of-turn token; what a template adds after it is not said.

    A token that only begins in the turn's header belongs to the turn where it carries part of it.
    """
    special = _special(tokenizer)
    content_only, end = end < 0, abs(end)
    inside = [i for i, (a, b) in enumerate(places) if b > start and a < end and b > a]
    if content_only and inside:
        after = inside[-1] + 1
        if after < len(ids) and ids[after] in special:
            inside.append(after)
    else:
        ends = [i for i in inside if ids[i] in special]
        if ends and all(tokenizer.decode([ids[i]]).isspace() for i in inside if i > ends[-1]):
            inside = [i for i in inside if i <= ends[-1]]
    for i in inside:
        scored[i] = True


def _special(tokenizer: Any) -> set[int]:
    """Ids of tokens that are no text: special and added ones."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)}


def said_bytes(
    text: str,
    ids: list[int],
    places: list[tuple[int, int]],
    scored: list[bool],
    tokenizer: Any,
) -> int:
    """UTF-8 bytes of the text under scored tokens, special ones left out."""
    special = _special(tokenizer)
    total, reached = 0, 0
    for token, (a, b), counts in zip(ids, places, scored, strict=True):
        if counts and token not in special:
            a = max(a, reached)  # a character may be spread over several tokens
            total += len(text[a:b].encode()) if b > a else 0
        reached = max(reached, b)
    return total
