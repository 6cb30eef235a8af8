"""Hidden states of the same layers, token by token."""

from typing import ClassVar

from torch import Tensor

from understudy.errors import SignalError, UserError
from understudy.objectives.base import Needs, PerSample
from understudy.signals import Batch, Signals


class _LayerMSE(PerSample):
    name = "layer_mse"
    coupling: ClassVar = "position"

    def __init__(self, layers: tuple[str, ...]) -> None:
        super().__init__()
        if not layers:
            raise UserError("layer_mse compares hidden states: name at least one layer")
        self.layers = layers
        self.needs = Needs(student=layers, teacher=layers, logits=False)

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        values = []
        for layer in self.layers:
            mine, theirs = student.feature(layer), teacher.feature(layer)
            if mine.shape != theirs.shape:
                raise SignalError(
                    f"layer_mse: {layer} has width {mine.shape[-1]} in the student and "
                    f"{theirs.shape[-1]} in the teacher; it compares inherited layers"
                )
            values.append((mine - theirs).square().flatten(1).mean(1))
        return sum(values) / len(values)  # pyright: ignore[reportReturnType]


def layer_mse(*layers: str) -> _LayerMSE:
    """Mean over layers and units of (h_s - h_t)^2, at the same taps on both sides; no unit."""
    return _LayerMSE(layers)
