"""Soft targets that say less where a token is likely to be private."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from understudy.errors import SignalError, UserError
from understudy.objectives.base import PerSample, Sum
from understudy.signals import Batch, Signals

Likelihood = Callable[[Batch], Tensor]
"""A batch -> how likely each label is private, 0 to 1, of the labels' shape."""

PRIVATE = "private"


class _Swing(PerSample):
    name = "swing_kd"
    coupling: ClassVar = "position"

    def __init__(
        self, likelihood: Likelihood | None, low: float, high: float, noise: float
    ) -> None:
        super().__init__()
        if not 0 < low <= high:
            raise UserError(f"swing: temperatures rise from low to high, not {low} to {high}")
        if noise < 0:
            raise UserError(f"swing: noise is a size, not {noise}")
        self.likelihood, self.low, self.high, self.noise = likelihood, low, high, noise

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over active positions."""
        if self.likelihood is not None:
            found = self.likelihood(batch)
            shape = batch.mask.shape if batch.mask is not None else found.shape
            if found.shape[: len(shape)] != shape:
                raise SignalError(
                    f"how private tokens are was said for {list(found.shape)} of them, and the "
                    f"batch has {list(shape)}"
                )
            student = replace(student, features={**student.features, PRIVATE: found})
        return super().forward(student, teacher, batch)

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        z_t, z_s = teacher.dense, student.dense
        shared = min(z_t.shape[-1], z_s.shape[-1])
        z_t, z_s = z_t[..., :shared], z_s[..., :shared]
        if self.likelihood is None:
            private = z_t.softmax(-1).max(-1).values
        else:
            private = student.features[PRIVATE].to(z_t)
        temperature = self.low + (self.high - self.low) * private
        p = (z_t / temperature.unsqueeze(-1)).softmax(-1)
        if self.noise and self.training:
            p = (p + self.noise / shared * torch.randn_like(p)).clamp_min(0)
            p = p / p.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        log_q = (z_s / self.low).log_softmax(-1)
        log_p = torch.where(p > 0, p, 1.0).log()
        return self.low**2 * (p * (log_p - log_q)).sum(-1)


def swing_kd(
    likelihood: Likelihood | None = None,
    *,
    low: float = 1.0,
    high: float = 10.0,
    noise: float = 0.2,
) -> _Swing:
    r"""low^2 KL(p~ || softmax(z_s / low)), p~ = softmax(z_t / T_n) + noise, nats.

    T_n = low + (high - low) r_n, r_n how likely token n is private: as `likelihood(batch)` says, or,
    without one, the teacher's largest probability (what is memorised is said with certainty). The
    noise, drawn while training, is normal with deviation `noise` / V, cut at zero and normalised.
    The student keeps the temperature `low`: at T_n on both sides it could undo the flattening.

    Source: Li et al., arXiv 2212.08349, section 3.
    """
    return _Swing(likelihood, low, high, noise)
