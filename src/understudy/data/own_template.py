"""A teacher that reads the same conversations in its own chat template."""

from typing import Any

import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.errors import SignalError
from understudy.signals import Batch, Call, Factored, Signals


class OwnTemplate:
    """A call for a model that reads each sample as `texts` has it, found by sample id.

    What it says about the scored tokens is put where the batch has them, so that teacher and
    student are compared token by token though their prompts differ. Positions that are not scored
    mean nothing. The scored tokens must be those of the batch: text that was made on the way
    (on-policy) is refused, since it stands in one template only.
    """

    def __init__(self, texts: Texts, call: Call) -> None:
        self.texts, self.call = texts, call
        self._row = torch.full((int(texts.ids.max()) + 1,), -1)
        self._row[texts.ids] = torch.arange(len(texts))

    def __call__(self, model: Any, batch: Batch) -> Any:
        """Logits [N, L] of the batch's positions."""
        mask, labels = batch.mask, batch.labels
        if batch.index is None or mask is None or labels is None:
            raise SignalError("a teacher with its own chat template needs sample ids and a mask")
        index = batch.index.cpu()
        known = (index >= 0) & (index < len(self._row))
        if not bool(known.all()) or bool((self._row[index] < 0).any()):
            raise SignalError("the batch holds a text that the teacher's own template has not seen")
        own = self.texts.batch(self._row[index]).to(mask.device)
        assert own.mask is not None
        assert own.labels is not None
        if not torch.equal(own.mask.sum(-1), mask.sum(-1)) or not torch.equal(
            own.labels[own.mask], labels[mask]
        ):
            raise SignalError(
                "the scored tokens of the batch are not those of the data (was text written on the "
                "way?), and the teacher reads another chat template; give teacher and student one"
            )
        said = self.call(model, own)
        where = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
        where[mask] = own.mask.nonzero()[:, 1]
        logits = said.logits if isinstance(said, Signals) else said
        if isinstance(logits, Factored):
            return Factored(
                hidden=_placed(logits.hidden, where), weight=logits.weight, bias=logits.bias,
                scale=logits.scale, softcap=logits.softcap,
            )  # fmt: skip
        assert isinstance(logits, Tensor)
        return _placed(logits, where)


def _placed(values: Tensor, where: Tensor) -> Tensor:
    """[N, L', d] at positions [N, L]."""
    return values[torch.arange(len(values), device=values.device)[:, None], where]
