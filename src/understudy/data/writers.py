"""Who writes: a model, two of them token by token, or a server; from prompts to continuations."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from understudy.errors import UserError
from understudy.signals.authors import BOTH, STUDENT
from understudy.signals.generation import Decoder, Sampling, generate, speaking
from understudy.signals.language import context_of
from understudy.signals.taps import plain


class Writer(Protocol):
    """Continues prompts; the same for the same prompts, sampling, seed and weights."""

    @property
    def author(self) -> int:
        """Who is named as the author (`understudy.signals.authors`)."""
        ...

    def write(self, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[Tensor]:
        """The continuation of each prompt (1-d token ids), a stop token included."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """A model that writes by itself, from its weights as they are at the moment."""

    model: nn.Module = field(repr=False)
    author: int = STUDENT
    batch_size: int = 128

    @property
    def models(self) -> tuple[nn.Module, ...]:
        """Whose weights are read."""
        return (self.model,)

    def write(self, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[Tensor]:
        """As `Writer`."""
        return generate(
            self.model,
            prompts,
            sampling,
            generator=_generator(self.model, seed),
            batch_size=self.batch_size,
        )


Pick = Callable[[Tensor, Tensor, Sampling, torch.Generator], Tensor]
"""(student's logits [M, V], teacher's, sampling, generator) -> token ids [M]."""


@dataclass(frozen=True, kw_only=True)
class MixturePick:
    """Tokens drawn from alpha p + (1 - alpha) q. Source: MiniLLM, arXiv 2306.08543, Eq. 4."""

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"the teacher's share alpha lies in [0, 1], not {self.alpha}")

    def __call__(
        self, student: Tensor, teacher: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Token ids [M]."""
        q = sampling.log_probabilities(student).exp()
        p = sampling.log_probabilities(teacher).exp()
        mixed = torch.lerp(q, p, self.alpha)
        return torch.multinomial(mixed, 1, generator=generator)[:, 0]


@dataclass(frozen=True, kw_only=True)
class SpeculativePick:
    """The student's token where it is among the teacher's top k, else one that the teacher draws.

    Source: SKD, arXiv 2410.11325, Algorithm 1. top_k 1 with a greedy teacher writes the teacher's
    text, top_k of the whole vocabulary the student's.
    """

    top_k: int = 25
    teacher: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UserError(f"top_k is at least 1, not {self.top_k}")

    def __call__(
        self, student: Tensor, teacher: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """Token ids [M]."""
        drafted = sampling.draw(student, generator)
        # drawn for every text, so that what one is given does not depend on the others' drafts
        instead = self.teacher.draw(teacher, generator)
        least = teacher.topk(min(self.top_k, teacher.shape[-1]), -1).values[:, -1]
        kept = teacher.gather(-1, drafted[:, None])[:, 0] >= least
        return torch.where(kept, drafted, instead)


@dataclass(frozen=True, kw_only=True)
class PairWriter:
    """Student and teacher read the same text, and `pick` chooses each token from both."""

    student: nn.Module = field(repr=False)
    teacher: nn.Module = field(repr=False)
    pick: Pick
    author: int = BOTH
    batch_size: int = 128

    @property
    def models(self) -> tuple[nn.Module, ...]:
        """Whose weights are read."""
        return (self.student, self.teacher)

    def write(self, prompts: Sequence[Tensor], sampling: Sampling, seed: int) -> list[Tensor]:
        """As `Writer`."""
        student, teacher = plain(self.student), plain(self.teacher)
        generator = _generator(student, seed)
        found: list[Tensor] = []
        with speaking(student, teacher):
            for start in range(0, len(prompts), self.batch_size):
                part = prompts[start : start + self.batch_size]
                found += self._batch(student, teacher, part, sampling, generator)
        return found

    def _batch(
        self,
        student: nn.Module,
        teacher: nn.Module,
        prompts: Sequence[Tensor],
        sampling: Sampling,
        generator: torch.Generator,
    ) -> list[Tensor]:
        mine, z = Decoder.over(student, prompts)
        theirs, y = Decoder.over(teacher, prompts)
        rows = torch.arange(len(prompts), device=z.device)
        told = torch.full((len(prompts), sampling.max_new), -1, device=z.device)
        stop = torch.tensor(sampling.stop, device=z.device, dtype=torch.long)
        limits = [c for c in map(context_of, (student, teacher)) if c is not None]
        shared = min(z.shape[-1], y.shape[-1])  # families pad their vocabularies
        for step in range(sampling.max_new):
            y = y.to(z.device)
            drawn = self.pick(z[:, :shared], y[:, :shared], sampling, generator)
            told[rows, step] = drawn
            going = ~torch.isin(drawn, stop)
            if limits:
                going &= mine.mask.sum(-1) < min(limits)
            if not bool(going.any()) or step == sampling.max_new - 1:
                break
            if not bool(going.all()):
                rows, drawn = rows[going], drawn[going]
                for decoder in (mine, theirs):
                    decoder.keep(going.nonzero().flatten().to(decoder.mask.device))
            z = mine.read(drawn[:, None])[:, -1]
            y = theirs.read(drawn[:, None].to(theirs.mask.device))[:, -1]
        return [row[row >= 0].cpu() for row in told]


@contextmanager
def gathered(models: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block models that are sharded over processes stand whole in each of them.

    So each may write as many tokens as its own texts take. All processes enter and leave together.
    """
    parts: list[Any] = [
        part
        for model in models
        for part in plain(model).modules()
        if hasattr(type(part), "set_requires_gradient_sync") and hasattr(part, "unshard")
    ]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def _generator(model: nn.Module, seed: int) -> torch.Generator:
    device = next(plain(model).parameters()).device
    return torch.Generator(device).manual_seed(seed)
