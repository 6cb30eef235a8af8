"""Texts with the labels that somebody gave them, as a task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from understudy.data import Arrays
from understudy.errors import DataError
from understudy.tasks.task import Task
from understudy.tasks.words import Text, encode, model_sizes, tokenizer_of

Labelled = tuple[Sequence[int], Sequence[Text], Sequence[int]]
"""Numbers of the texts, the texts, and the class of each."""


def labelled_task(
    name: str,
    parts: Mapping[str, Labelled],
    labels: Sequence[str],
    *,
    tokenizer: Any = None,
    words_of: Sequence[Text] = (),
    max_length: int = 128,
    metric: str = "accuracy",
    metrics: Sequence[str] = ("f1",),
) -> Task:
    """`train`, `validate` and, where it is there, `test`.

    tokenizer: a Hugging Face tokenizer, its name or folder, or None for a vocabulary of the words of
    `words_of` (of the training texts where there are none), which texts without a label may add to.
    """
    for part in ("train", "validate"):
        if not parts[part][0]:
            raise DataError(f"{name}: there is no text for {part}")
    chosen = tokenizer_of(tokenizer, list(words_of) or list(parts["train"][1]))
    inputs = encode(chosen, {k: list(v[1]) for k, v in parts.items()}, max_length)
    made = {
        k: Arrays(inputs[k], torch.tensor(list(v[2])), ids=list(v[0]), name=k)
        for k, v in parts.items()
    }
    return Task(
        name=name,
        classes=len(labels),
        train=made["train"],
        validate=made["validate"],
        test=made.get("test"),
        metric=metric,
        metrics=tuple(metrics),
        labels=tuple(labels),
        # the model reads as much as any part has, and more: a later text may be longer
        model={
            "classes": len(labels),
            **model_sizes(chosen, inputs["train"]),
            "length": max_length,
        },
        extras={
            "texts": {k: list(v[1]) for k, v in parts.items()},
            "tokenizer": chosen,
            "options": {"labels": list(labels)},
        },
    )
