"""An update that stays with its old version where it would be wrong itself."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from understudy.errors import UserError
from understudy.objectives.base import Needs, PerSample
from understudy.objectives.logits import checked_temperature
from understudy.signals import Batch, Signals

OLD = "old"


class _Compatible(PerSample):
    name = "compatible_kd"
    coupling: ClassVar = "position"
    needs = Needs(labels=True, teacher=(OLD,))
    counts = "labelled"

    def __init__(self, temperature: float, mask: str) -> None:
        super().__init__()
        if mask not in ("student", "new"):
            raise UserError(f"compatible_kd looks at whether student or new is right, not {mask!r}")
        self.temperature, self.mask = checked_temperature(temperature), mask

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        assert batch.labels is not None
        new, old, z = teacher.dense, teacher.feature(OLD), student.dense
        judged = z if self.mask == "student" else new
        wrong = judged.argmax(-1) != batch.labels
        target = torch.where(wrong.unsqueeze(-1), old, new)
        log_p = (target / self.temperature).log_softmax(-1)
        log_q = (z / self.temperature).log_softmax(-1)
        p = log_p.exp()
        return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)


def compatible_kd(
    *, temperature: float = 1.0, mask: Literal["student", "new"] = "student"
) -> _Compatible:
    r"""m KL(p_old || q) + (1 - m) KL(p_new || q) at temperature T, m = [argmax q != label]; nats.

    The teacher's logits are the new version's, its feature `old` the old one's (`Versions`). mask:
    whose mistakes decide, the model's in training or the new version's. No T^2, as published.

    Source: Echterhoff et al., MUSCLE, arXiv 2407.09435, Eq. 1.
    """
    return _Compatible(temperature, mask)
