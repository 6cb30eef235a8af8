"""How a batch is given to a model, and where the logits are in what comes back."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from understudy.errors import SignalError
from understudy.signals.batch import Batch
from understudy.signals.record import Factored, Logits, Signals

Call = Callable[[nn.Module, Batch], Logits | Signals]


def default_call(model: nn.Module, batch: Batch) -> Logits | Signals:
    """`model(x)`, `model(*xs)` or `model(**fields)` by the form of the inputs."""
    x = batch.inputs
    if isinstance(x, Mapping):
        output = model(**x)
    elif isinstance(x, list | tuple):
        output = model(*x)
    else:
        output = model(x)
    return read(output, model)


def read(output: Any, model: nn.Module) -> Logits | Signals:
    """The logits in a model's output: a tensor, `.logits`, `["logits"]` or the first of a tuple."""
    if isinstance(output, Tensor | Signals | Factored):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if (logits := getattr(output, "logits", None)) is not None:
        return logits
    if isinstance(output, list | tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    raise SignalError(
        f"{type(model).__name__} returned {type(output).__name__}, in which no logits are found; "
        "pass call=lambda model, batch: <logits>"
    )


def as_call(call: Callable[..., Any] | None) -> Call:
    """A user's `call(model, batch)`, reading the logits out of whatever it returns."""
    if call is None:
        return default_call
    return lambda model, batch: read(call(model, batch), model)
