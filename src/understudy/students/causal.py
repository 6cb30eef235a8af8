"""Causal language models by name: what they read, and loading them to teach or to learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.errors import UserError
from understudy.students.families import families, parse
from understudy.students.load import load_model
from understudy.students.lora import ADAPTER, BASE, is_adapter

FAMILIES = ("llama",)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a causal language model reads: tokens that it knows, tokens at once; None: any."""

    vocabulary: int | None = None
    context: int | None = None


def is_causal_lm(spec: str) -> bool:
    """Whether a spec names a causal language model, as its folder or its hub entry says."""
    if spec.partition(":")[0] in families():
        return spec.partition(":")[0] in FAMILIES
    config = _config(base_of(spec))
    names = getattr(config, "architectures", None) or ()
    return any("ForCausalLM" in n or n.endswith("LMHeadModel") for n in names)


def sizes_of(spec: str) -> Sizes:
    """The vocabulary and context of a spec; what a family's name leaves open is None."""
    if spec.partition(":")[0] in families():
        sizes = parse(spec)[1]
        return Sizes(vocabulary=sizes.get("vocabulary"), context=sizes.get("length"))
    config = _config(base_of(spec))
    if config is None:
        return Sizes()
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = getattr(text, "max_position_embeddings", None)
    return Sizes(
        vocabulary=getattr(text, "vocab_size", None),
        context=length if isinstance(length, int) and length > 0 else None,
    )


def base_of(spec: str) -> str:
    """The model under a folder of adapters; otherwise the spec."""
    import json

    folder = Path(spec).expanduser()
    if not is_adapter(folder):
        return spec
    if (folder / BASE).is_dir():
        return str(folder / BASE)
    return str(json.loads((folder / ADAPTER).read_text()).get("base_model_name_or_path") or spec)


def load_causal(spec: str, *, dtype: str | None = None) -> nn.Module:
    """A causal language model from a folder, adapters or the hub; in its own precision if None."""
    model = load_model(spec, task="causal-lm")
    return model if dtype is None else model.to(getattr(torch, dtype))


def load_tokenizer(spec: str) -> Any:
    """The tokenizer that lies with a model, or None."""
    folder = Path(spec).expanduser()
    for place in (spec, base_of(spec)):
        here = Path(place).expanduser()
        if here.is_dir() and not any(
            (here / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json")
        ):
            continue
        if not here.is_dir() and (folder.is_dir() or not _hub_like(place)):
            continue
        return _tokenizer(place)
    return None


def difference(a: Any, b: Any) -> str | None:
    """What two tokenizers do otherwise, or None: the same ids for the same text.

    One may know further special tokens; which the models know is looked at in the data.
    """
    if hasattr(a, "backend_tokenizer") and hasattr(b, "backend_tokenizer"):
        import json

        mine, theirs = (json.loads(t.backend_tokenizer.to_str()) for t in (a, b))
        for part in ("normalizer", "pre_tokenizer"):
            if mine.get(part) != theirs.get(part):
                return f"their {part.replace('_', '-')}s differ"
        if mine["model"].get("merges") != theirs["model"].get("merges"):
            return "their merges differ"
    one, other = a.get_vocab(), b.get_vocab()
    for token in sorted(one.keys() & other.keys()):
        if one[token] != other[token]:
            return f"{token!r} is {one[token]} in one and {other[token]} in the other"
    special = {*a.all_special_tokens, *b.all_special_tokens, *_added(a), *_added(b)}
    odd = sorted((one.keys() ^ other.keys()) - special)
    return f"only one of them knows {odd[0]!r}" if odd else None


def _added(tokenizer: Any) -> set[str]:
    return {t.content for t in getattr(tokenizer, "added_tokens_decoder", {}).values()}


def _hub_like(spec: str) -> bool:
    return spec.count("/") == 1 and ":" not in spec and not spec.startswith((".", "/", "~"))


def _config(spec: str) -> Any:
    """The configuration of a folder or of a hub name; None for anything else."""
    folder = Path(spec).expanduser()
    if folder.is_dir():
        import json

        path = folder / "config.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError):
            found = {}
        if not isinstance(found, dict) or "model_type" not in found:
            return None
    elif not _hub_like(spec):
        return None
    try:
        from transformers import AutoConfig
    except ImportError:
        return None
    from understudy.students.huggingface import _hub_answers

    local = not folder.is_dir() and not _hub_answers()
    try:
        return AutoConfig.from_pretrained(spec, trust_remote_code=False, local_files_only=local)
    except Exception:  # whoever loads the model says what is wrong with it
        return None


def _tokenizer(place: str) -> Any:
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(place)
    except ImportError:
        raise UserError("a tokenizer needs transformers: pip install understudy[lm]") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"no tokenizer at {place!r} ({line})") from None
