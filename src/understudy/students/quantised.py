"""Causal language models in few bits, or spread over several GPUs: teachers too large for one."""

from typing import Any

from torch import nn

from understudy.errors import UserError
from understudy.students.state import first_line


def load_quantised(
    name: str, *, load_in_4bit: bool = False, device_map: str | None = None
) -> nn.Module:
    """A causal language model of a folder or hub name, as `transformers` and `accelerate` load it.

    load_in_4bit: NF4 weights, by `bitsandbytes` (a GPU is needed). device_map: `auto` spreads the
    layers over all GPUs. The options are passed on; they have not been tried on a GPU here.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    except ImportError:
        raise UserError(f"{name} needs transformers: pip install understudy[lm]") from None
    options: dict[str, Any] = {"device_map": device_map or ("auto" if load_in_4bit else None)}
    if load_in_4bit:
        if not torch.cuda.is_available():
            raise UserError("--load-in-4bit needs a GPU (bitsandbytes), and there is none here")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        return AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, **options).eval()
    except Exception as error:
        raise UserError(f"{name} cannot be loaded so: {first_line(error)}") from error
