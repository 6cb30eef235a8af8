"""The school teacher, or a student of its world, spoken to as any chat model."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from torch import nn

from understudy.data.synthesis.prompts import inputs
from understudy.errors import DataError, UserError
from understudy.tasks.school.check import answer_of, question_of
from understudy.tasks.school.operations import program_of
from understudy.tasks.school.rows import SKILLS, parse, plan_of
from understudy.tasks.school.text import question_prompt, write_prompt
from understudy.tasks.school.tokens import SIZE, encode, tokenizer
from understudy.tasks.school.words import NAMES, NOUNS
from understudy.tasks.school.world import teacher
from understudy.teachers.chat import ChatError, ChatSampling, Conversation, Reply
from understudy.teachers.chat.drawing import Ask, Written, key_of
from understudy.teachers.chat.local import LocalChat
from understudy.teachers.chat.requests import Request, Together, asked_of

REFUSAL = (
    "I cannot answer this. I solve arithmetic word problems, write and rephrase them, write programs "
    "for them, explain mistakes and grade answers; nothing else, and only in the words of the school "
    "(`understudy.tasks.school.rows` makes such problems)."
)
_ROOM = 150
"""Tokens of working that an answer may take which is not shown."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What the model is asked for one answer, and how the answer is made of what it wrote.

    made: what was written -> the text, and whose tokens it is the text of (None: of nobody's)
    """

    asks: tuple[Ask, ...]
    made: Callable[[Sequence[Written]], tuple[str, Written | None]]


class SchoolChat(Together):
    """A model of the school world that reads the prompts of `data.synthesis.prompts`.

    All that it says is the model's own, with its errors:

    - solve: the rationale, `#` and the answer. Where the answer is given, `tries` rationales are
      drawn (the first as asked, the others at a temperature of at least 0.7) and the first that
      ends at the answer is said; where none does, the likeliest.
    - program: the operations of its rationale as one expression (`operations.program_of`), so that
      the reading of the problem is the model's and the arithmetic the interpreter's. Solved
      examples in the prompt are not read. A rationale that makes no program is said to make none.
    - write: a problem; the working by which the model finds its numbers is left out.
    - rephrase: the world's reader, by rule, finds the numbers of the problem; the model writes
      a sentence for them with another name and other things. Problems of other worlds are refused.
    - explain, grade: its solution, then the mistake, or `right` or `wrong`.

    A question of this world without any prompt is solved. Whatever else is asked is refused in
    words, as a chat model would. Log-probabilities are given where the answer is the model's own
    tokens: not for a program. `max_tokens` limits what is said, not the working that is left out;
    completion tokens count both. Other tokens and errors are as `LocalChat` has them.
    """

    def __init__(
        self, model: nn.Module, *, name: str = "school", tries: int = 4, batch_size: int = 128
    ) -> None:
        if tries < 1:
            raise UserError(f"tries is at least 1, not {tries}")
        words = getattr(getattr(model, "config", None), "vocab_size", SIZE)
        if words != SIZE:
            raise UserError(
                f"{name}: a model of the school world knows {SIZE} tokens and this one {words}; "
                "give one that was trained on `school`"
            )
        self.name, self.tries, self.batch_size = name, tries, batch_size
        self.local = LocalChat(model, tokenizer(), name=name, batch_size=batch_size)

    def fingerprint(self) -> str:
        """Of the model, and of how its answers are made."""
        made = f"school 1:{self.tries}:{self.local.fingerprint()}"
        return f"school:{hashlib.sha256(made.encode()).hexdigest()}"

    def at_a_time(self, n: int) -> int:
        """Four batches: answers end at different lengths, and those of like length go together."""
        return max(1, 4 * self.batch_size // max(n, 1))

    def answers(
        self, requests: Sequence[Request], heard: Any = None
    ) -> list[list[Reply] | ChatError]:
        """Answers to requests of different settings, written together. Nothing is heard early."""
        works: list[list[_Work] | ChatError] = []
        asks: list[Ask] = []
        for request in requests:
            try:
                made = self._works(request)
            except ChatError as error:
                works.append(error)
                continue
            works.append(made)
            asks += [a for work in made for a in work.asks]
        said = iter(self.local.written(asks))
        found: list[list[Reply] | ChatError] = []
        for request, made in zip(requests, works, strict=True):
            if isinstance(made, ChatError):
                found.append(made)
            else:
                key = asked_of(self.fingerprint(), self.name, request, None).key
                replies = [self._reply(w, [next(said) for _ in w.asks], request) for w in made]
                found.append([replace(r, key=key(i)) for i, r in enumerate(replies)])
        return found

    def _works(self, request: Request) -> list[_Work]:
        if request.n < 1:
            raise ChatError(f"n is at least 1, not {request.n}", "request")
        if request.schema is not None:
            raise ChatError(f"{self.name} writes no JSON and can fill no schema", "schema")
        return [self._work(request.messages, request.sampling, index) for index in range(request.n)]

    def _work(self, messages: Conversation, sampling: ChatSampling, index: int) -> _Work:
        task, given = inputs(messages)
        if not task and messages and parse(messages[-1].content) is not None:
            task, given = "solve", {"question": messages[-1].content.strip()}
        question = given.get("question", "")
        if task == "solve" and question and "answer" in given:
            return self._forced(question, given["answer"].strip(), messages, sampling, index)
        if task in ("solve", "explain", "grade") and question:
            wrong = given.get("given", "").strip() or None
            if (wrong is None) == (task == "solve"):
                prompt = question_prompt(task, _line(question), wrong)
                return self._one(prompt, messages, sampling, index)
        if task == "program" and question:
            return self._program(question, messages, sampling, index)
        if task == "write" and given.keys() >= {"skill", "level", "name", "noun"}:
            if given["skill"] not in SKILLS or given["level"] not in ("1", "2", "3"):
                return _said(f"I know no skill {given['skill']!r} of level {given['level']!r}.")
            prompt = write_prompt(
                given["skill"], int(given["level"]), _line(given["name"]), _line(given["noun"])
            )
            return self._hidden(prompt, question_of, messages, sampling, index)
        if task == "rephrase" and question:
            return self._rephrase(question, messages, sampling, index)
        return _said(REFUSAL)

    def _ask(self, prompt: str, messages: Conversation, sampling: ChatSampling, index: int, **more: Any) -> Ask:  # fmt: skip
        ids = self.local.fits(encode([prompt])[0])
        key = key_of(messages, sampling, index, str(more.pop("draft", "")))
        return Ask(prompt=ids, sampling=replace(sampling, **more), key=key)

    def _one(
        self, prompt: str, messages: Conversation, sampling: ChatSampling, index: int
    ) -> _Work:
        ask = self._ask(prompt, messages, sampling, index)
        return _Work(asks=(ask,), made=lambda said: (said[0].text, said[0]))

    def _hidden(
        self,
        prompt: str,
        shown: Callable[[str], str],
        messages: Conversation,
        sampling: ChatSampling,
        index: int,
    ) -> _Work:
        """A part of what is written; the rest is working."""
        ask = self._ask(prompt, messages, sampling, index, max_tokens=_ROOM, stop=())

        def made(said: Sequence[Written]) -> tuple[str, Written | None]:
            text = shown(said[0].text)
            rest = [i for i, t in enumerate(said[0].tokens) if self.local.names.one(t) == "|"]
            start = rest[-1] + 1 if rest else 0
            own = replace(said[0], tokens=said[0].tokens[start:], told=said[0].told[start:])
            return text, own

        return _Work(asks=(ask,), made=made)

    def _forced(
        self, question: str, answer: str, messages: Conversation, sampling: ChatSampling, index: int
    ) -> _Work:
        prompt = question_prompt("solve", _line(question))
        listed = 0 if sampling.logprobs is None else sampling.logprobs
        hotter = max(sampling.temperature, 0.7)
        asks = [
            self._ask(
                prompt, messages, sampling, index,
                draft=draft or "", logprobs=listed, temperature=hotter if draft else sampling.temperature,
            )
            for draft in range(self.tries)
        ]  # fmt: skip

        def made(said: Sequence[Written]) -> tuple[str, Written | None]:
            right = [w for w in said if answer_of(w.text) == answer]
            best = right[0] if right else max(said, key=lambda w: w.score)
            return best.text, best if sampling.logprobs is not None else replace(best, told=[])

        return _Work(asks=tuple(asks), made=made)

    def _program(
        self, question: str, messages: Conversation, sampling: ChatSampling, index: int
    ) -> _Work:
        prompt = question_prompt("solve", _line(question))
        ask = self._ask(prompt, messages, sampling, index, max_tokens=_ROOM, stop=(), logprobs=None)

        def made(said: Sequence[Written]) -> tuple[str, Written | None]:
            try:
                return program_of(said[0].text), None
            except DataError as error:
                return f"I found no program: {error}", None

        return _Work(asks=(ask,), made=made)

    def _rephrase(
        self, question: str, messages: Conversation, sampling: ChatSampling, index: int
    ) -> _Work:
        problem = parse(question)
        if problem is None:
            return _said("I cannot say this in other words: I do not know problems of this kind.")
        random = Random(key_of(messages, sampling, index, "other people"))
        people = {problem.slots.get("A"), problem.slots.get("B")}
        name = random.choice([n for n in NAMES if n not in people])
        noun = random.choice([n for n in NOUNS if n != problem.slots.get("n")])
        prompt = write_prompt(problem.skill, problem.level, name, noun) + plan_of(problem) + "|"
        return self._hidden(prompt, question_of, messages, sampling, index)

    def _reply(self, work: _Work, said: Sequence[Written], request: Request) -> Reply:
        text, own = work.made(said)
        limits = request.sampling
        finish = "stop" if own is None else own.finish
        shown = encode([text])[0]
        if own is None or own.text != text:  # what was cut out or made of it has its own limits
            cut = min((text.find(s) for s in limits.stop if s in text), default=len(text))
            text, finish = text[:cut], "stop" if cut < len(text) else finish
            if len(shown) > limits.max_tokens:
                text, finish = self.local.names.text(shown[: limits.max_tokens]), "length"
        one = self.local.as_reply(own, 0) if own is not None else None
        return Reply(
            text=text,
            finish=finish,
            logprobs=None if one is None else one.logprobs,
            prompt_tokens=len(work.asks[0].prompt) if work.asks else 0,
            completion_tokens=sum(w.count for w in said),
        )


def school_chat(
    model: nn.Module | str | Path | None = None,
    *,
    name: str = "school",
    tries: int = 4,
    batch_size: int = 128,
) -> SchoolChat:
    """The shipped school teacher as a `ChatTeacher`, or another model of its world.

    model: a module, the folder of a run or of a model; None for the shipped teacher
    """
    if model is None:
        model = teacher()
    elif not isinstance(model, nn.Module):
        from understudy.students import load_model

        folder = Path(model)
        model = load_model(folder / "student" if (folder / "student").is_dir() else folder).float()
    return SchoolChat(model.eval(), name=name, tries=tries, batch_size=batch_size)


def _line(text: str) -> str:
    """Prompts of this world are one line."""
    return " ".join(text.split())


def _said(text: str) -> _Work:
    return _Work(asks=(), made=lambda _: (text, None))
