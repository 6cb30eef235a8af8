"""A writer whose worst token is corrected by the teacher before it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.signals.authors import BOTH
from understudy.signals.generation import Sampling, generate, speaking
from understudy.signals.taps import plain


@dataclass(frozen=True, kw_only=True)
class CorrectingWriter:
    """Sequence correction and re-generation: the student writes y; of the tokens that are not the
    teacher's likeliest, the one at which KL(p || q) is largest is replaced by that; from there the
    student writes anew. Repeated `times`; a text that the teacher would write as well stays.

    Source: Liu et al., arXiv 2407.10068, section 3.1.
    """

    student: nn.Module = field(repr=False)
    teacher: nn.Module = field(repr=False)
    times: int = 1
    author: int = BOTH
    batch_size: int = 128

    def write(self, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[Tensor]:
        """The continuation of each prompt (1-d token ids), a stop token included."""
        student, teacher = plain(self.student), plain(self.teacher)
        device = next(student.parameters()).device
        g = torch.Generator(device).manual_seed(seed)
        size = self.batch_size
        told = generate(student, prompts, sampling, generator=g, batch_size=size)
        for _ in range(self.times):
            with speaking(student, teacher):
                worst = corrections(student, teacher, prompts, told, batch_size=size)
            told = self._again(student, prompts, told, worst, sampling, g)
        return told

    def _again(
        self,
        student: nn.Module,
        prompts: Sequence[Tensor],
        told: list[Tensor],
        worst: list[tuple[int, int] | None],
        sampling: Sampling,
        g: torch.Generator,
    ) -> list[Tensor]:
        found = list(told)
        going: list[tuple[int, Tensor]] = []
        for n, place in enumerate(worst):
            if place is None:
                continue
            at, token = place
            found[n] = torch.cat([told[n][:at], torch.tensor([token])])
            if token not in sampling.stop and len(found[n]) < sampling.max_new:
                going.append((n, torch.cat([prompts[n].cpu(), found[n]])))
        # each has room for as many tokens as its text lacks
        for room in sorted({sampling.max_new - len(found[n]) for n, _ in going}):
            part = [(n, p) for n, p in going if sampling.max_new - len(found[n]) == room]
            rest = generate(
                student,
                [p for _, p in part],
                replace(sampling, max_new=room),
                generator=g,
                batch_size=self.batch_size,
            )
            for (n, _), tail in zip(part, rest, strict=True):
                found[n] = torch.cat([found[n], tail])
        return found


def corrections(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Sequence[Tensor],
    told: Sequence[Tensor],
    *,
    batch_size: int = 128,
) -> list[tuple[int, int] | None]:
    """Of each text the place of its worst token and the teacher's in its place; None: there is none.

    The worst is that of the largest KL(p || q) among tokens that the teacher finds less likely than
    another one. Places count from the first token told.
    """
    found: list[tuple[int, int] | None] = []
    for start in range(0, len(told), batch_size):
        part = slice(start, start + batch_size)
        found += _worst(student, teacher, prompts[part], told[part])
    return found


def _worst(
    student: nn.Module, teacher: nn.Module, prompts: Sequence[Tensor], told: Sequence[Tensor]
) -> list[tuple[int, int] | None]:
    texts = [torch.cat([p.cpu(), t.cpu()])[:-1] for p, t in zip(prompts, told, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(t) for t in texts], batch_first=True)
    said: list[Tensor] = []
    for model in (student, teacher):
        device = next(model.parameters()).device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        said.append(model(**inputs, use_cache=False).logits.cpu())
    shared = min(z.shape[-1] for z in said)  # families pad their vocabularies
    found: list[tuple[int, int] | None] = []
    for n, (prompt, text) in enumerate(zip(prompts, told, strict=True)):
        own = slice(len(prompt) - 1, len(prompt) - 1 + len(text))
        log_q, log_p = (F.log_softmax(z[n, own, :shared].float(), -1) for z in said)
        apart = (log_p.exp() * (log_p - log_q)).sum(-1)
        best = log_p.argmax(-1)
        wrong = best != text.cpu()
        if not bool(wrong.any()):
            found.append(None)
            continue
        at = int(apart.masked_fill(~wrong, -1.0).argmax())
        found.append((at, int(best[at])))
    return found
