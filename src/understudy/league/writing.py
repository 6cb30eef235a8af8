"""What the models of a language task write: a few texts gone on with, for people to read."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from understudy.data import Texts
from understudy.errors import UserError
from understudy.signals.generation import Sampling, generate
from understudy.tasks.task import Task

WRITTEN = "written.json"
"""In a run folder: prompts, how the data goes on, and how each model does."""
SHOWN, NEW = 4, 40


def written(task: Task, part: str, models: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """Greedy continuations of texts of a part, spaced evenly; none where they cannot be read.

    A text is cut before its first scored token, or in its middle where that is the second.
    """
    source, tokenizer = getattr(task, part), task.extras.get("tokenizer")
    if not isinstance(source, Texts) or not hasattr(tokenizer, "decode") or not models:
        return []
    rows = torch.linspace(0, len(source) - 1, min(SHOWN, len(source))).long().tolist()
    prompts, rests = [], []
    for row in rows:
        whole = source.tokens(row)
        cut = len(source.prompt(row))
        cut = cut if cut > 1 else max(1, len(whole) // 2)
        prompts.append(whole[:cut])
        rests.append(whole[cut : cut + NEW])
    stop = getattr(tokenizer, "eos_token_id", None)
    sampling = Sampling(max_new=NEW, temperature=0, stop=() if stop is None else (int(stop),))
    said: dict[str, list[str]] = {}
    for name, model in models.items():
        try:
            texts = generate(model, prompts, sampling)
        except (UserError, TypeError, AttributeError):  # a model that cannot write with a cache
            continue
        said[name] = [_text(tokenizer, t) for t in texts]
    return [
        {
            "prompt": _text(tokenizer, prompts[k]),
            "data": _text(tokenizer, rests[k]),
            "said": {name: texts[k] for name, texts in said.items()},
        }
        for k in range(len(rows))
    ]


def _text(tokenizer: Any, ids: torch.Tensor) -> str:
    return str(tokenizer.decode([int(i) for i in ids]))
