"""Tiny causal language models of several families, a tokenizer, and conversations."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@functools.cache
def _trained() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore
    made.decoder = decoders.ByteLevel()  # type: ignore
    trainer: Any = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )  # type: ignore
    made.train_from_iterator(["hello world, how are you? I am fine. two plus two is four"], trainer)
    return made.to_str()


def tokenizer(template: str | None = CHATML, *, begins: bool = False) -> Any:
    """A byte-level BPE of 300 tokens or fewer; `begins` puts <s> before every text."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer.from_str(_trained())
    if begins:
        made.post_processor = processors.TemplateProcessing(  # type: ignore
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    found = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    found.chat_template = template
    return found


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"{a} plus {a}?"},
                {"role": "assistant", "content": f"It is {2 * a}."},
                {"role": "user", "content": "sure?"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for a in range(1, count + 1)
    ]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def tiny(family: str, *, seed: int = 0, **changes: Any) -> nn.Module:
    """A causal language model with random weights, in evaluation mode."""
    import transformers as t

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "gpt2":
            sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64,
                     "bos_token_id": None, "eos_token_id": None}  # fmt: skip
            model: Any = t.GPT2LMHeadModel(t.GPT2Config(**{**sizes, **changes}))
        else:
            name = {"llama": "Llama", "qwen2": "Qwen2", "gemma2": "Gemma2", "gemma": "Gemma",
                    "cohere": "Cohere", "granite": "Granite"}[family]  # fmt: skip
            own: dict[str, Any] = {}
            if family in ("gemma", "gemma2"):
                own = {"head_dim": 8}
            sizes = {**SMALL, **own, **changes}
            config = getattr(t, name + "Config")(**sizes)
            model = getattr(t, name + "ForCausalLM")(config)
        with torch.no_grad():  # so that what a head does to its input can be seen
            for p in model.parameters():
                if p.ndim > 1:
                    p.mul_(8)
    return model.eval()


def save_pair(folder: Path, *, template: str | None = CHATML, other: str | None = None) -> None:
    """`teacher/` and `student/`: models with weights and tokenizers, vocabularies padded apart."""
    for name, width, vocabulary in (("teacher", 32, 304), ("student", 16, 296)):
        sizes = {"vocab_size": vocabulary, "hidden_size": width, "max_position_embeddings": 128}
        tiny("llama", **sizes).save_pretrained(folder / name)  # type: ignore
        own = other if name == "teacher" and other is not None else template
        tokenizer(own).save_pretrained(folder / name)
