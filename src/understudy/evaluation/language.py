"""How well a language model predicts text, and how near it is to its teacher, token by token."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from understudy.errors import DataError
from understudy.signals import Batch, Signals
from understudy.signals.generation import Sampling, generate

CHUNK = 2**22
"""Logits held at once."""


class Texts(Protocol):
    """A source of texts: batches by index, and the bytes of each where they are known."""

    bytes: Tensor | None

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """The texts at `index`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Sums over the scored tokens of a text source; nats where they are divergences."""

    tokens: int
    nats: float
    bytes: int | None = None
    kl: float | None = None
    agree: float | None = None
    overlap: float | None = None

    def measures(self) -> dict[str, float]:
        """perplexity, bits_per_byte; and with a teacher kl (nats a token), agreement, acceptance.

        acceptance: mean of sum_v min(p_v, q_v), the chance that the teacher takes a token that
        the student drafts (Leviathan et al., arXiv 2211.17192, Theorem 3.5), on this text.
        """
        found = {"perplexity": math.exp(min(self.nats / self.tokens, 700.0))}
        if self.bytes:
            found["bits_per_byte"] = self.nats / math.log(2) / self.bytes
        if self.kl is not None and self.agree is not None and self.overlap is not None:
            found["kl"] = self.kl / self.tokens
            found["agreement"] = self.agree / self.tokens
            found["acceptance"] = self.overlap / self.tokens
        return found


@torch.no_grad()
def token_scores(
    say: Callable[[Batch], Signals],
    source: Texts,
    hear: Callable[[Batch], Signals] | None = None,
    *,
    batch_size: int = 32,
) -> TokenScores:
    """Scores of a model (`say`) on texts, and against a teacher (`hear`) of the same vocabulary.

    Logits are made for a part of the positions at a time. Longer texts come last, so that a batch
    holds texts of one length. Where the vocabularies are padded differently the shared part counts.
    """
    lengths = getattr(source, "lengths", None)
    order = torch.arange(len(source)) if lengths is None else lengths.argsort(stable=True)
    nats = kl = agree = overlap = 0.0
    tokens = 0
    for index in order.split(batch_size):
        batch = source.batch(index)
        mask, labels = batch.mask, batch.labels
        assert mask is not None
        assert labels is not None
        said = say(batch).rows(mask)
        heard = None if hear is None else hear(batch).rows(mask)
        truth = labels[mask]
        tokens += len(truth)
        rows = max(1, CHUNK // _classes(said))
        for part in torch.arange(len(truth)).split(rows):
            log_q = said.rows(part).dense.log_softmax(-1)
            nats -= float(log_q.gather(-1, truth[part].to(log_q.device)[:, None]).double().sum())
            if heard is None:
                continue
            p = heard.rows(part).dense[..., : log_q.shape[-1]]
            log_p, log_q = p.log_softmax(-1), log_q[..., : p.shape[-1]]
            ratio = torch.where(log_p > -torch.inf, log_p - log_q, 0.0)
            kl += float((log_p.exp() * ratio).sum(-1).double().sum())
            agree += float((log_p.argmax(-1) == log_q.argmax(-1)).sum())
            overlap += float(torch.minimum(log_p, log_q).exp().sum(-1).double().sum())
    if not tokens:
        raise DataError("no token is scored: there is nothing to measure")
    bytes_ = None if source.bytes is None else int(source.bytes.sum())
    if hear is None:
        return TokenScores(tokens=tokens, nats=nats, bytes=bytes_)
    return TokenScores(tokens=tokens, nats=nats, bytes=bytes_, kl=kl, agree=agree, overlap=overlap)


def _classes(said: Signals) -> int:
    logits = said.logits
    if isinstance(logits, Tensor):
        return logits.shape[-1]
    weight = getattr(logits, "weight", None)
    return weight.shape[0] if weight is not None else int(getattr(logits, "size", 1))


def generation_speed(
    model: nn.Module,
    prompts: Sequence[Tensor],
    *,
    new: int = 32,
    runs: int = 3,
    seconds: float = 2.0,
) -> float:
    """Tokens a second that a model writes: greedy, all prompts at once, with a cache; the median.

    The time to read the prompts counts. A short run before the timed ones warms up; after `seconds`
    no further one is begun.
    """
    generate(model, prompts, Sampling(max_new=4, temperature=0), batch_size=len(prompts))
    sampling, times = Sampling(max_new=new, temperature=0), list[float]()
    until = time.perf_counter() + seconds
    while not times or (len(times) < runs and time.perf_counter() < until):
        began = time.perf_counter()
        texts = generate(model, prompts, sampling, batch_size=len(prompts))
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - began) / sum(len(t) for t in texts))
    return 1 / statistics.median(times)
