"""What somebody said about each sample, once, as a teacher: votes, probabilities of labels."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from understudy.errors import DataError
from understudy.objectives import Needs
from understudy.signals import Batch, Signals
from understudy.teachers.base import Gives


class Told:
    """Probabilities [N, K] of the samples `ids` [N], given as their logarithm.

    floor: the least probability that a class has, so that its logarithm is finite; each row is
    divided by its sum then. A sample that was not told about is an error, which names it.
    """

    def __init__(self, ids: Tensor, probabilities: Tensor, *, floor: float = 1e-4) -> None:
        if probabilities.ndim != 2 or len(ids) != len(probabilities):
            raise DataError(
                f"probabilities [N, K] of N samples, not {tuple(probabilities.shape)} of {len(ids)}"
            )
        bad = ~torch.isfinite(probabilities).all(1) | (probabilities < 0).any(1)
        bad |= probabilities.sum(1) <= 0
        if bool(bad.any()):
            raise DataError(f"what is said of sample {int(ids[bad.nonzero()[0, 0]])} is no share")
        order = ids.argsort()
        self.ids = ids[order].long()
        kept = probabilities[order].double().clamp(min=floor)
        self.logits = (kept / kept.sum(1, keepdim=True)).log().float()

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Refuses what has more than logits."""
        Gives(features=(), graph=False, head=False).refuse(needs, "what was told once")

    def signals(self, batch: Batch) -> Signals:
        """Logits [B, K] of the batch's samples."""
        if batch.index is None:
            raise DataError("these samples have no numbers, by which what was told is found")
        index = batch.index.cpu()
        place = torch.searchsorted(self.ids, index).clamp(max=len(self.ids) - 1)
        lost = self.ids[place] != index
        if bool(lost.any()):
            raise DataError(f"nothing was told about sample {int(index[lost][0])}")
        return Signals(logits=self.logits[place].to(batch.index.device))

    def modules(self) -> Mapping[str, nn.Module]:
        """None."""
        return {}

    def fingerprint(self) -> str:
        """sha256 of what was said, and of which samples."""
        content = self.ids.numpy().tobytes() + self.logits.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()
