"""The default world of this wing's recipes, and what a recipe asks of a setting."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from understudy.data import Texts
from understudy.errors import MethodRefused
from understudy.recipes.language_models._studies import picked, texts
from understudy.setting import Setting
from understudy.tasks.task import Task


def speaking(setting: Setting | None, name: str, *, teacher: bool = True) -> Setting:
    """The setting, or the school's; refused where its models are no language models."""
    if setting is None:
        from understudy import settings

        setting = settings.school()
    if setting.kind != "language":
        raise MethodRefused(
            f"{name} trains language models, and {setting.name} is of kind {setting.kind}; use a "
            "setting of texts, such as school, or method kd"
        )
    if teacher and not setting.teachers:
        raise MethodRefused(f"{name} learns from a teacher, and the setting has none")
    return setting


def vocabulary_of(setting: Setting) -> tuple[Any, int]:
    """(tokenizer or None, token ids there are); without making the texts where that can be."""
    if str(setting.origin.get("task", "")).startswith("school"):
        from understudy.tasks.school.tokens import tokenizer

        return tokenizer(), len(tokenizer())
    task = setting.task_for(0)
    return task.extras.get("tokenizer"), task.classes or 1


def words(tokenizer: Any, text: str, count: int, vocabulary: int, seed: int) -> Tensor:
    """`count` token ids: those of a text, repeated as need be; drawn where there is no tokenizer."""
    ids: list[int] = []
    if tokenizer is not None:
        encode = getattr(tokenizer, "encode", None)
        found: Any = encode(text) if callable(encode) else tokenizer(text)["input_ids"]
        ids = [int(i) for i in getattr(found, "ids", found)]
    if not ids:
        g = torch.Generator().manual_seed(seed)
        return torch.randint(vocabulary, (count,), generator=g)
    return torch.tensor((ids * count)[:count])


def pre_training(split: int, *, task: Any, share: float = 1.0) -> Task:
    """The task as pre-training sees it: a share of its texts, every token scored."""
    own: Task = task if isinstance(task, Task) else task(split)
    train = texts(own.train, "pre-training")
    train = picked(train, max(1, round(share * len(train))), split)
    rows = [train.tokens(i) for i in range(len(train))]
    return replace(own, train=Texts(rows, ids=train.ids, name=train.name), teach=None)
