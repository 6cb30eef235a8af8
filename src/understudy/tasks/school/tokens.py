"""The tokenizer of the school world: a BPE of at most 512 tokens, every digit and mark alone."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SIZE = 512
FILE = Path(__file__).with_name("tokenizer.json")
_SPLIT = r"[0-9]| ?[A-Za-z]+|\s|[^\sA-Za-z0-9]"


def train_tokenizer(texts: Iterable[str], size: int = SIZE) -> Any:
    """A `tokenizers.Tokenizer` learned from texts. Its alphabet is printable ASCII and the new
    line, so that any such text comes back unchanged; every other character is `<unk>`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token=UNK))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")  # type: ignore
    made.decoder = decoders.Fuse()  # type: ignore
    trainer: Any = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=[chr(c) for c in range(32, 127)] + ["\n"],
        limit_alphabet=96,
        show_progress=False,
    )  # type: ignore
    made.train_from_iterator(texts, trainer)
    return made


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """The shipped one, as a `PreTrainedTokenizerFast` with `<eos>` and `<pad>`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(FILE),
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


@lru_cache(maxsize=1)
def _plain() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(FILE))


def encode(texts: list[str]) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    return [e.ids for e in _plain().encode_batch(texts, add_special_tokens=False)]


def decode(ids: Iterable[int]) -> str:
    """Text of token ids up to the first `<eos>`, without padding."""
    kept = []
    for i in ids:
        if int(i) == _plain().token_to_id(EOS):
            break
        kept.append(int(i))
    return _plain().decode(kept, skip_special_tokens=True)
