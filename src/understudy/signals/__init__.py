"""What a model says about a batch, and the taps that record it or put it back."""

from understudy.signals.batch import IGNORE, Batch, as_batch
from understudy.signals.calls import Call, as_call, default_call
from understudy.signals.contents import content_hashes
from understudy.signals.language import CausalLM
from understudy.signals.record import Factored, Signals, Sparse, Tail
from understudy.signals.stages import automatic_taps
from understudy.signals.taps import Taps, module_at, observe, preserved

__all__ = [
    "IGNORE",
    "Batch",
    "Call",
    "CausalLM",
    "Factored",
    "Signals",
    "Sparse",
    "Tail",
    "Taps",
    "as_batch",
    "as_call",
    "automatic_taps",
    "content_hashes",
    "default_call",
    "module_at",
    "observe",
    "preserved",
]
