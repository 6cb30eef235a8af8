"""Causal language models: hidden states and the head that would make the logits, in one call.

The labels of a batch are shifted once, in the data: what stands at [n, l] of a batch's labels is
the token after position l. Nothing here or later shifts again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from understudy.errors import SignalError
from understudy.signals.batch import Batch
from understudy.signals.calls import read
from understudy.signals.record import Factored, Logits, Signals
from understudy.signals.taps import plain, preserved

Parts = tuple[nn.Module, nn.Linear, float, float | None]

_KNOWN: "WeakKeyDictionary[nn.Module, Parts | None]" = WeakKeyDictionary()
"""Of each model its body, head, scale and cap; None where its logits cannot be factored so."""


@dataclass(frozen=True)
class CausalLM:
    """How a causal language model is called: `logits` come factored, [N, L, d] and a head.

    pack: sequences are laid one after another into rows of at most that many tokens, so that no
    time is spent on padding. Positions begin anew with each sequence, by which attention keeps them
    apart (tried once on every model; one that mixes them is refused); what comes back stands where
    the batch has it. Taps on modules see packed rows.

    A model whose logits are not `softcap(scale * head(hidden))` of its last hidden state (which is
    compared once, on a few tokens), or whose head is sharded, gives them dense.
    """

    pack: int | None = None
    factored: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, batch: Batch) -> Logits | Signals:
        """The logits of every position; those of padding mean nothing."""
        inputs = batch.inputs
        if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
            raise SignalError("a causal language model is called with input_ids and attention_mask")
        _check_length(model, inputs["input_ids"])
        if self.pack is None:
            return self._said(model, {**inputs, **self.extra})
        _check_apart(model, inputs["input_ids"], self.extra)
        rows = Packed.of(inputs["input_ids"], inputs["attention_mask"], self.pack)
        said = self._said(
            model, {"input_ids": rows.ids, "position_ids": rows.positions, **self.extra}
        )
        if isinstance(said, Factored):
            return Factored(
                hidden=rows.back(said.hidden), weight=said.weight, bias=said.bias,
                scale=said.scale, softcap=said.softcap,
            )  # fmt: skip
        return rows.back(said)

    def _said(self, model: nn.Module, inputs: Mapping[str, Any]) -> Factored | Tensor:
        parts = _parts(model, inputs) if self.factored else None
        if parts is None:
            said = read(model(**inputs, use_cache=False), model)
            if not isinstance(said, Tensor):
                raise SignalError(f"{type(model).__name__} gives no logits of a language model")
            return said
        body, head, scale, cap = parts
        hidden = body(**inputs, use_cache=False).last_hidden_state
        return Factored(hidden=hidden, weight=head.weight, bias=head.bias, scale=scale, softcap=cap)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Sequences of a padded batch in fewer rows: ids and positions [R, T], and the way back.

    where: [N, L] the place of each token in the flattened rows; padding points at place 0.
    """

    ids: Tensor
    positions: Tensor
    where: Tensor

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor, length: int) -> "Packed":
        """First fit, the longest first; a sequence longer than `length` has a row of its own."""
        sizes = mask.sum(-1).tolist()
        width = max([length, *sizes]) if max(sizes) > length else length
        rows: list[int] = []
        place = [(0, 0)] * len(sizes)
        for n in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            row = next((r for r, used in enumerate(rows) if used + sizes[n] <= width), len(rows))
            if row == len(rows):
                rows.append(0)
            place[n] = (row, rows[row])
            rows[row] += sizes[n]
        width = max(rows)
        offsets = torch.tensor([r * width + at for r, at in place], device=ids.device)
        within = torch.arange(ids.shape[1], device=ids.device)
        where = torch.where(mask.bool(), offsets[:, None] + within, 0)
        flat = torch.zeros(len(rows) * width, dtype=ids.dtype, device=ids.device)
        # what is left over at the end of a row is a sequence of its own, which nobody reads
        left = torch.tensor([n for n in rows], device=ids.device)[:, None]
        positions = (torch.arange(width, device=ids.device)[None] - left).clamp_min(0)
        flat_positions = positions.reshape(-1)
        real = mask.bool()
        flat[where[real]] = ids[real]
        flat_positions[where[real]] = within.expand_as(ids)[real]
        return cls(
            ids=flat.view(len(rows), width),
            positions=flat_positions.view(len(rows), width),
            where=where,
        )

    def back(self, rows: Tensor) -> Tensor:
        """[R, T, ...] as [N, L, ...]."""
        return rows.flatten(0, 1)[self.where]


def head_of(model: nn.Module) -> nn.Linear | None:
    """The linear layer that makes a language model's logits; None where it is of another kind."""
    found = getattr(plain(model), "get_output_embeddings", lambda: None)()
    return found if type(found) is nn.Linear else None


def context_of(model: nn.Module) -> int | None:
    """The most tokens that a model can read, where its configuration says."""
    config = getattr(plain(model), "config", None)
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def _check_length(model: nn.Module, ids: Tensor) -> None:
    length = context_of(model)
    if length is not None and ids.shape[-1] > length:
        raise SignalError(
            f"a sequence of {ids.shape[-1]} tokens is longer than the context of "
            f"{type(plain(model)).__name__} ({length}); cut the data to it (max_length)"
        )


_APART: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()
"""Whether a model keeps sequences of one row apart."""


def _check_apart(model: nn.Module, ids: Tensor, extra: Mapping[str, Any]) -> None:
    """Refuse to pack for a model that lets one sequence of a row see the one before it."""
    inner = plain(model)
    if inner not in _APART:
        _APART[inner] = _apart(inner, ids[:1, :6], extra)
    if not _APART[inner]:
        raise SignalError(
            f"{type(inner).__name__} does not keep packed texts apart (what stands before a text "
            "changes what is said of it): leave out pack"
        )


@torch.no_grad()
def _apart(model: nn.Module, ids: Tensor, extra: Mapping[str, Any]) -> bool:
    """The same few tokens alone, and behind others in one row."""
    length = ids.shape[1]
    positions = torch.arange(length, device=ids.device)[None]
    # in front stand the same tokens the other way round, and one more
    row = torch.cat([ids.flip(-1), ids[:, :1], ids], 1)
    places = torch.cat([torch.arange(length + 1, device=ids.device)[None], positions], 1)
    with preserved(model):
        model.eval()
        try:
            alone = read(
                model(input_ids=ids, position_ids=positions, use_cache=False, **extra), model
            )
            behind = read(
                model(input_ids=row, position_ids=places, use_cache=False, **extra), model
            )
        except TypeError:
            return False  # it knows nothing of positions
    if not isinstance(alone, Tensor) or not isinstance(behind, Tensor):
        return False
    mine = behind[:, length + 1 :].float()
    tolerance = 1e-4 if alone.dtype in (torch.float32, torch.float64) else 5e-2
    return torch.allclose(mine, alone.float(), rtol=tolerance, atol=tolerance)


def _parts(model: nn.Module, inputs: Mapping[str, Any]) -> Parts | None:
    model = plain(model)
    if hasattr(type(model), "set_requires_gradient_sync"):
        return None  # sharded: the head is whole only inside the model's own forward pass
    if model not in _KNOWN:
        _KNOWN[model] = _factors(model, inputs)
    return _KNOWN[model]


@torch.no_grad()
def _factors(model: nn.Module, inputs: Mapping[str, Any]) -> Parts | None:
    """Body and head, if head(body(x)) is what the model says."""
    inner: Any = model
    if hasattr(model, "get_base_model"):  # adapters of peft live inside the model's own layers
        inner = model.get_base_model()  # pyright: ignore[reportCallIssue]
    head, body = head_of(inner), getattr(inner, "base_model", None)
    if head is None or not isinstance(body, nn.Module) or body is inner:
        return None
    config = getattr(inner, "config", None)
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    few = {k: v[:1, :16] for k, v in inputs.items() if isinstance(v, Tensor)}
    with preserved(model):
        model.eval()
        try:
            whole = read(model(**few, use_cache=False), model)
            hidden = body(**few, use_cache=False).last_hidden_state
        except (AttributeError, TypeError):
            return None
        made = Factored(
            hidden=hidden, weight=head.weight, bias=head.bias, scale=scale, softcap=cap
        ).dense()
    if not isinstance(whole, Tensor) or whole.shape != made.shape:
        return None
    tolerance = 1e-4 if made.dtype in (torch.float32, torch.float64) else 5e-2
    close = torch.allclose(whole.float(), made.float(), rtol=tolerance, atol=tolerance)
    return (body, head, scale, cap) if close else None
