"""Text from a causal language model: batched, left-padded, with a key-value cache."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import SignalError, UserError
from understudy.signals.language import context_of
from understudy.signals.taps import plain


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn. temperature 0 takes the likeliest; top_k 0 and top_p 1 leave none out.

    max_new: tokens at most; stop: token ids that end a text (and belong to it).
    """

    max_new: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        good = {
            "max_new": self.max_new >= 1,
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
        }
        for name, fine in good.items():
            if not fine:
                raise UserError(f"sampling: {name} cannot be {getattr(self, name)!r}")

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """[N, V] of what is drawn from: scaled, cut to top_k and top_p, normalised. nats."""
        if self.temperature == 0:
            best = logits.argmax(-1, keepdim=True)
            return torch.full_like(logits, float("-inf")).scatter(-1, best, 0.0)
        z = logits / self.temperature
        if 0 < self.top_k < z.shape[-1]:
            z = z.masked_fill(z < z.topk(self.top_k, -1).values[:, -1:], float("-inf"))
        if self.top_p < 1:
            ordered, places = z.sort(-1, descending=True)
            p = ordered.softmax(-1)
            # the token that crosses the threshold is kept
            out = p.cumsum(-1) - p >= self.top_p
            z = z.masked_fill(torch.zeros_like(out).scatter(-1, places, out), float("-inf"))
        return z.log_softmax(-1)

    def draw(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """[N] token ids from logits [N, V]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        p = self.log_probabilities(logits.float()).exp()
        return torch.multinomial(p, 1, generator=generator)[:, 0]


@dataclass
class Decoder:
    """A model that has read some tokens of N texts and is given the next ones, with a cache.

    Texts of different lengths are padded on the left; padding is masked, and positions count from
    each text's own start, so that every text reads as it would alone.
    """

    model: nn.Module
    mask: Tensor
    cache: Any = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def over(
        cls, model: nn.Module, prompts: Sequence[Tensor], *, padding: int = 0
    ) -> tuple["Decoder", Tensor]:
        """A decoder, and the logits [N, V] after each prompt's last token."""
        device = next(model.parameters()).device
        width = max(len(p) for p in prompts)
        if min(len(p) for p in prompts) == 0:
            raise SignalError("an empty prompt: there is nothing to continue from")
        ids = torch.full((len(prompts), width), padding, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        decoder = cls(model, mask[:, :0].to(device))
        return decoder, decoder.read(ids.to(device), mask.to(device))[:, -1]

    @property
    def room(self) -> int | None:
        """Tokens that may still be read; None where the model has no limit."""
        limit = context_of(self.model)
        return None if limit is None else limit - int(self.mask.sum(-1).max())

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read ids [N, k] and give the logits [N, k, V] after each."""
        mask = torch.ones_like(ids) if mask is None else mask
        before = self.mask.sum(-1, keepdim=True)
        self.mask = torch.cat([self.mask, mask], 1)
        positions = (before + mask.cumsum(-1) - 1).clamp_min(0)
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.extra,
        )
        self.cache = out.past_key_values
        return out.logits.float()

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts alone."""
        self.mask = self.mask[rows]
        self.cache.batch_select_indices(rows)

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens of every text."""
        if count:
            self.mask = self.mask[:, :-count]
            self.cache.crop(-count)  # negative: what goes


@contextmanager
def speaking(*models: nn.Module) -> Iterator[None]:
    """Within the block the models are in evaluation mode and leave no graph."""
    modes = [(m, m.training) for model in models for m in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


Choose = Callable[[Tensor, Tensor], Tensor]
"""(logits [M, V], rows [M] of the texts that go on) -> token ids [M]."""


def generate(
    model: nn.Module,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 128,
    padding: int = 0,
    choose: Choose | None = None,
) -> list[Tensor]:
    """The continuation of each prompt (1-d token ids), a stop token included.

    Drawn from `generator` (of the model's device; the global one if None), the same for the same
    prompts, order and batch size. Texts that have ended leave the batch. `choose` draws instead.
    """
    found: list[Tensor] = []
    inner = plain(model)
    with speaking(inner):
        for start in range(0, len(prompts), batch_size):
            part = prompts[start : start + batch_size]
            found += _batch(inner, part, sampling, generator, padding, choose)
    return found


def _batch(
    model: nn.Module,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    generator: torch.Generator | None,
    padding: int,
    choose: Choose | None,
) -> list[Tensor]:
    decoder, logits = Decoder.over(model, prompts, padding=padding)
    rows = torch.arange(len(prompts), device=logits.device)
    told = torch.full((len(prompts), sampling.max_new), -1, device=logits.device)
    stop = torch.tensor(sampling.stop, device=logits.device, dtype=torch.long)
    limit = context_of(model)
    for step in range(sampling.max_new):
        drawn = choose(logits, rows) if choose else sampling.draw(logits, generator)
        told[rows, step] = drawn
        going = ~torch.isin(drawn, stop)
        if limit is not None:  # a text that fills the context has ended, whatever its neighbours
            going &= decoder.mask.sum(-1) < limit
        if not bool(going.any()) or step == sampling.max_new - 1:
            break
        if not bool(going.all()):
            rows, drawn = rows[going], drawn[going]
            decoder.keep(going.nonzero().flatten())
        logits = decoder.read(drawn[:, None])[:, -1]
    return [row[row >= 0].cpu() for row in told]
