"""A byte-level BPE tokenizer: trained from texts, saved and loaded as `transformers` has it."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import UserError

END = "<|end|>"
"""Stands after every text; its id is 0."""


def train_bpe(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE of `size` tokens as a `PreTrainedTokenizerFast`; the same for equal texts.

    All 256 bytes are tokens, so any text can be read and written back exactly.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if size < 300:
        raise UserError(f"a byte-level vocabulary has at least 300 tokens, not {size}")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    core.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )


@cache
def load_bpe(folder: str | Path) -> Any:
    """The tokenizer that was saved in a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def token_bytes(tokenizer: Any) -> np.ndarray:
    """[V] UTF-8 bytes that each token stands for; none for special ones."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    # in a byte-level vocabulary one character of a token's name is one byte
    return np.array([0 if i in special else len(n) for i, n in enumerate(names)], dtype=np.int64)
