"""A causal language model of Llama's shape, as `transformers` has it, from a few sizes."""

from typing import Any

from torch import nn

from understudy.errors import UserError
from understudy.students.families._parts import at_least


def llama(
    *,
    classes: int,
    vocabulary: int,
    length: int = 256,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    hidden: int = 0,
    tied: bool = True,
) -> nn.Module:
    """Token ids [N, L] -> logits [N, L, vocabulary] of the next token each: `LlamaForCausalLM`.

    hidden: width of the gated MLP; 0 for 8/3 of the width, rounded up to a multiple of 16. tied:
    whether the head is the embedding. `classes` is the vocabulary by another name.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise UserError("llama needs transformers: pip install understudy[lm]") from None
    at_least("llama", depth=depth, heads=heads, width=width, vocabulary=vocabulary, length=length)
    if width % (2 * heads):
        raise UserError(f"llama: width {width} is no multiple of twice {heads} heads")
    if classes not in (1, vocabulary):
        raise UserError(f"llama: {classes} classes, but a vocabulary of {vocabulary}")
    config: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": hidden or -(-8 * width // 3 // 16) * 16,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": length,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**config))
