"""A small world of three kinds of token sequences: a language task that is learned in a moment."""

from functools import cache

import torch

from understudy.data import Texts
from understudy.setting import Setting, Trained
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.training.budget import Budget

KINDS, END = 3, 28


def sequences(count: int, seed: int, *, noise: float = 0.0) -> tuple[Texts, list[int]]:
    """Texts [kind, a, b, 10 tokens, end], of which the 11 last are scored; and their kinds.

    Kind 0 alternates a and b, kind 1 goes on in steps of b, kind 2 is drawn.
    """
    g = torch.Generator().manual_seed(seed)
    rows, kinds = [], []
    for n in range(count):
        kind = n % KINDS
        a, b = torch.randint(23, (2,), generator=g).tolist()
        body = [(a if k % 2 else b) if kind == 0 else (a + b * k) % 23 for k in range(10)]
        if kind == 2:
            body = torch.randint(23, (10,), generator=g).tolist()
        lost = torch.rand(10, generator=g) < noise
        drawn = torch.randint(23, (10,), generator=g).tolist()
        body = [d if gone else v for v, d, gone in zip(body, drawn, lost.tolist(), strict=True)]
        rows.append([24 + kind, a + 1, b + 1, *[v + 1 for v in body], END])
        kinds.append(kind)
    scored = [[False] * 3 + [True] * 11 for _ in rows]
    return Texts(rows, scored, bytes=[11] * count, name="progressions"), kinds


@cache
def progressions(*, train: int = 96, steps: int = 60, noise: float = 0.0) -> Setting:
    """A pair on this world; the teacher is trained for `steps` updates."""
    parts = {
        name: sequences(count, seed, noise=noise)
        for seed, (name, count) in enumerate(
            {"train": train, "validate": 48, "test": 48}.items(), start=1
        )
    }
    task = language_task(
        "progressions",
        train=parts["train"][0],
        validate=parts["validate"][0],
        test=parts["test"][0],
        vocabulary=32,
        length=32,
        extras={"domains": {name: kinds for name, (_, kinds) in parts.items()}},
    )
    return Setting(
        name="progressions",
        task=task,
        kind="language",
        call=CausalLM(),
        student="llama:width=16,depth=1,heads=2",
        teachers={
            "teacher": Trained(
                model="llama:width=32,depth=1,heads=2",
                budget=Budget(steps=steps, lr=2e-2, batch_size=32, validate_every=1000),
            )
        },
        budget=Budget(epochs=4, lr=1e-2, batch_size=32),
    )
