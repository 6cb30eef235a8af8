"""Small settings of language models: a sequence that counts on, its end marked by a token."""

from functools import cache

import torch

from understudy.data import Texts
from understudy.setting import Setting
from understudy.signals import CausalLM
from understudy.students import load_model
from understudy.tasks.language import language_task
from understudy.training.budget import Budget

END = 30


def toy_texts(count: int, seed: int) -> Texts:
    """Texts of 9 to 13 tokens: two that start, then a + b k mod 23, then the end; 3 are prompt."""
    g = torch.Generator().manual_seed(seed)
    tokens, scored = [], []
    for _ in range(count):
        a, b = torch.randint(1, 20, (2,), generator=g).tolist()
        size = 6 + int(torch.randint(0, 5, (1,), generator=g))
        text = [a, b, *((a + b * k) % 23 + 1 for k in range(size)), END]
        tokens.append(text)
        scored.append([place >= 3 for place in range(len(text))])
    return Texts(tokens, scored, bytes=[len(t) for t in tokens])


@cache
def _teacher() -> torch.nn.Module:
    torch.manual_seed(5)
    return load_model("llama:width=32,depth=2,heads=2", classes=32, vocabulary=32, length=32)


def settings_of(*, epochs: int = 2) -> Setting:
    """48 texts in batches of 16, and a teacher that was never trained."""
    task = language_task(
        "toy", train=toy_texts(48, 1), validate=toy_texts(8, 2), test=toy_texts(8, 3),
        vocabulary=32, length=32,
    )  # fmt: skip
    return Setting(
        name="toy",
        task=task,
        kind="language",
        call=CausalLM(),
        student="llama:width=16,depth=1,heads=2",
        teachers={"teacher": _teacher()},
        budget=Budget(epochs=epochs, lr=5e-3, batch_size=16),
    )
