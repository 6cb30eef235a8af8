"""A task's training texts with completions that the teacher has written, once, before training."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.data.beams import beam_search
from understudy.data.on_policy import OnPolicy, checked_texts, teacher_of
from understudy.data.sources import Source
from understudy.data.texts import Texts
from understudy.data.writers import ModelWriter, Writer
from understudy.data.written import prompts_of
from understudy.signals.authors import TEACHER, marked, numbers
from understudy.signals.generation import Sampling
from understudy.signals.language import context_of


@dataclass(frozen=True, kw_only=True)
class TeacherTexts:
    """The prompts of a task's training texts, completed by its teacher: a `Stage.source`.

    beams: of a beam search; 0 to draw at `temperature` instead. copies: completions of each prompt
    (drawn ones differ). writer: in the teacher's place (an `EndpointWriter`). The other settings
    are those of `OnPolicy`.
    """

    beams: int = 5
    temperature: float = 1.0
    copies: int = 1
    teacher: str | None = None
    writer: Writer | None = None
    max_new: int | None = None
    stop: tuple[int, ...] | None = None
    prompt_tokens: int = 8
    cut: bool = False
    batch_size: int = 64

    def __call__(self, play: Any) -> Texts:
        """The texts; what is drawn depends on the play's seed and the text's place."""
        began = time.perf_counter()
        source: Source = play.task.train
        checked_texts(source.batch(torch.arange(1)))
        plan = OnPolicy(
            writer="teacher",
            temperature=self.temperature,
            max_new=self.max_new,
            stop=self.stop,
            prompt_tokens=self.prompt_tokens,
        )
        sampling = plan.sampling(play.task, source)
        model = None if self.writer is not None else teacher_of(play, self.teacher)
        context = None if model is None else context_of(model)
        writer = self.writer or ModelWriter(model=model, author=TEACHER)  # pyright: ignore[reportArgumentType]
        tokens: list[Tensor] = []
        scored: list[Tensor] = []
        ids: list[Tensor] = []
        for start in range(0, len(source), self.batch_size):
            rows = torch.arange(start, min(start + self.batch_size, len(source)))
            batch = source.batch(rows)
            prompts = prompts_of(
                batch, prompt_tokens=self.prompt_tokens, context=context, cut=self.cut
            )
            for copy in range(self.copies):
                seed = hash((play.seed, start, copy)) & 0x7FFFFFFF
                answers = self._answers(writer, prompts, sampling, seed)
                for prompt, answer in zip(prompts, answers, strict=True):
                    tokens.append(torch.cat([prompt, answer]))
                    scored.append(torch.arange(len(tokens[-1])) >= len(prompt))
                known = rows if batch.index is None else numbers(batch.index)
                ids.append(marked(known, TEACHER))
        play.writing_seconds += time.perf_counter() - began
        return Texts(
            tokens, scored, ids=torch.cat(ids), name=f"{play.task.name}, in the teacher's words"
        )

    def _answers(
        self, writer: Writer, prompts: Sequence[Tensor], sampling: Sampling, seed: int
    ) -> list[Tensor]:
        if self.beams and isinstance(writer, ModelWriter):
            return beam_search(
                writer.model, prompts, beams=self.beams, max_new=sampling.max_new,
                stop=sampling.stop, batch_size=self.batch_size,
            )  # fmt: skip
        return writer.write(prompts, sampling, seed)
