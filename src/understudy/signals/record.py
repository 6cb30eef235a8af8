"""Signals: one record of what a model says about a batch, whoever produced it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.errors import SignalError, nearest


@dataclass(frozen=True, kw_only=True)
class Factored:
    """Logits that nobody has made yet: `softcap(scale * (hidden @ weight.T + bias))`.

    hidden [..., d], weight [V, d], bias [V]. With a cap c the logits are `c * tanh(z / c)`.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def dense(self) -> Tensor:
        """The logits, [..., V]."""
        logits = torch.nn.functional.linear(self.hidden, self.weight, self.bias) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


Tail = Literal["uniform", "renormalise", "bucket", "sampled"]
"""What the classes that are not listed are taken as; see `Sparse`."""


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """Some log-probabilities of a distribution over `size` classes, and what the rest is taken as.

    ids [..., k] int64, values [..., k] log-probabilities (nats) of softmax(z / temperature); a
    value of -inf fills a place where nothing is listed. Tails:

    uniform:      the missing mass, spread evenly over the other classes
    renormalise:  nothing; the listed classes share the missing mass
    bucket:       the missing mass, of all other classes together: one more class
    sampled:      ids were drawn from the distribution (arXiv 2503.16870) and counts [..., k] say
                  how often; values are log(count / draws), an unbiased estimate of it
    """

    ids: Tensor
    values: Tensor
    size: int
    tail: Tail = "uniform"
    temperature: float = 1.0
    counts: Tensor | None = None

    @classmethod
    def sampled(
        cls, *, ids: Tensor, counts: Tensor, size: int, temperature: float = 1.0
    ) -> "Sparse":
        """Of drawn classes: ids and counts [..., k], a count of 0 filling a place."""
        counts_ = counts.float()
        values = (counts_ / counts_.sum(-1, keepdim=True)).log()
        return cls(
            ids=ids, values=values, size=size, tail="sampled", temperature=temperature,
            counts=counts,
        )  # fmt: skip

    def dense(self) -> Tensor:
        """Logits at temperature 1 (log-probabilities where `temperature` is 1), [..., size]."""
        if self.tail in ("bucket", "sampled"):
            what = "their tail is one bucket" if self.tail == "bucket" else "they were sampled"
            raise SignalError(
                f"these sparse logits say nothing about single classes that are not listed "
                f"({what}); use a loss that reads them as they are (vocabulary_kd), or a store "
                "with the tail uniform or renormalise"
            )
        ids, values = self.filled()
        said = self.values.to(values.dtype)
        k = (said > -torch.inf).sum(-1, keepdim=True)
        if self.tail == "renormalise" or bool((k >= self.size).all()):
            values = values - said.logsumexp(-1, keepdim=True)
            rest = torch.full_like(values[..., :1], float("-inf"))
        else:
            missing = (1 - said.exp().sum(-1, keepdim=True)).clamp_min(1e-10)
            rest = (missing / (self.size - k).clamp_min(1)).log()
        full = rest.expand(*values.shape[:-1], self.size).clone()
        full = full.scatter(-1, ids, values)
        return full if self.temperature == 1 else full * self.temperature

    def filled(self) -> tuple[Tensor, Tensor]:
        """(ids, values of at least single precision), the largest where nothing is listed."""
        values = self.values.to(torch.promote_types(self.values.dtype, torch.float32))
        most = values.argmax(-1, keepdim=True)
        there = values > -torch.inf
        return (
            torch.where(there, self.ids, self.ids.gather(-1, most)),
            torch.where(there, values, values.gather(-1, most)),
        )

    def map(self, f: Callable[[Tensor], Tensor]) -> "Sparse":
        """`f` on every tensor."""
        counts = None if self.counts is None else f(self.counts)
        return replace(self, ids=f(self.ids), values=f(self.values), counts=counts)


Logits = Tensor | Factored | Sparse


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a model says about a batch.

    logits:     dense [N, ..., K], factored or sparse; an objective reads them through `dense`
    features:   tensors by the name of the tap that asked for them
    others:     what else a producer gives by name: attention, embedding, scores, boxes, text
    """

    logits: Logits | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dense(self) -> Tensor:
        """Logits as a tensor of at least single precision, [N, ..., K]."""
        if self.logits is None:
            raise SignalError("this source gives no logits, and the objective needs them")
        logits = self.logits if isinstance(self.logits, Tensor) else self.logits.dense()
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def feature(self, tap: str) -> Tensor:
        """The feature that tap `tap` recorded."""
        try:
            found = self.features[tap]
        except KeyError:
            raise SignalError(
                f"no feature {tap!r} was recorded{nearest(tap, self.features)}"
            ) from None
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found

    def map(self, f: Callable[[Tensor], Tensor]) -> "Signals":
        """`f` on every tensor whose first dimension is the batch."""
        logits = self.logits
        if isinstance(logits, Tensor):
            logits = f(logits)
        elif isinstance(logits, Factored):
            logits = replace(logits, hidden=f(logits.hidden))
        elif isinstance(logits, Sparse):
            logits = logits.map(f)
        return Signals(
            logits=logits,
            features={k: f(v) for k, v in self.features.items()},
            others={k: f(v) if isinstance(v, Tensor) else v for k, v in self.others.items()},
        )

    def rows(self, rows: Tensor | slice) -> "Signals":
        """The samples (or, with a mask over positions, the positions) `rows`."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool and bool(rows.all()):
            rows = slice(None) if rows.ndim == 1 else rows
        return self.map(lambda t: t[rows])

    def detach(self) -> "Signals":
        """Without the graph, the head of factored logits included."""
        found = self.map(Tensor.detach)
        if not isinstance(found.logits, Factored):
            return found
        weight, bias = found.logits.weight, found.logits.bias
        head = replace(
            found.logits, weight=weight.detach(), bias=None if bias is None else bias.detach()
        )
        return replace(found, logits=head)

    def to(self, device: torch.device | str) -> "Signals":
        """On a device."""
        return self.map(lambda t: t.to(device))

    def tensors(self) -> list[Tensor]:
        """All tensors that carry a gradient."""
        found: list[Tensor] = []
        self.map(lambda t: (found.append(t) if t.requires_grad else None, t)[1])
        return found
