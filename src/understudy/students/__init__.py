"""How a student is made: built, loaded, saved, inherited."""

from understudy.students.causal import is_causal_lm, load_causal, load_tokenizer
from understudy.students.families import (
    Family,
    build,
    families,
    from_config,
    input_sizes,
    parse,
    to_config,
)
from understudy.students.inherit import inherit, layer_stack, spread
from understudy.students.load import load_model, make_from
from understudy.students.lora import LoRA
from understudy.students.saving import load_student, read_config, save_student
from understudy.students.state import put_state, read_state

__all__ = [
    "Family",
    "LoRA",
    "build",
    "families",
    "from_config",
    "inherit",
    "input_sizes",
    "is_causal_lm",
    "layer_stack",
    "load_causal",
    "load_model",
    "load_student",
    "load_tokenizer",
    "make_from",
    "parse",
    "put_state",
    "read_config",
    "read_state",
    "save_student",
    "spread",
    "to_config",
]
