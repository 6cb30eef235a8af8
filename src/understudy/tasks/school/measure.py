"""How well a model has a role of this world: it writes, greedily, and the world's rules check."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from understudy.signals.generation import Sampling, generate
from understudy.tasks.school.check import (
    Checked,
    check_explanation,
    check_grade,
    check_written,
    solves,
)
from understudy.tasks.school.corpus import EOS_ID, PAD_ID
from understudy.tasks.school.rows import SKILLS, Split, rows
from understudy.tasks.school.text import ABILITIES, Ability, Example, example
from understudy.tasks.school.tokens import decode, encode


@dataclass(frozen=True, kw_only=True)
class Score:
    """Share that passed, of how many; by skill; and the examples with what was said."""

    share: float
    count: int
    skills: dict[str, float]
    said: tuple[tuple[Example, str, Checked], ...]


def complete(
    model: nn.Module,
    prompts: Sequence[str],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_new: int = 144,
    batch_size: int = 128,
) -> list[str]:
    """What a model writes after each prompt, in batches with a key-value cache.

    temperature 0 takes the likeliest token. Prompts of like length share a batch.
    """
    device = next(model.parameters()).device
    ids = [torch.tensor(i, device=device) for i in encode(list(prompts))]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    sampling = Sampling(max_new=max_new, temperature=temperature, stop=(EOS_ID,))
    generator = torch.Generator(device).manual_seed(seed)
    told = generate(
        model, [ids[i] for i in order], sampling,
        generator=generator, batch_size=batch_size, padding=PAD_ID,
    )  # fmt: skip
    found = [""] * len(ids)
    for i, t in zip(order, told, strict=True):
        found[i] = decode(t.tolist())
    return found


def passes(example: Example, said: str) -> Checked:
    """Whether a completion of an example's prompt is what was asked for."""
    row, given = example.row, example.given or ""
    if example.ability == "write":
        return check_written(said, skill=row.skill, level=row.level, name=row.name, noun=row.noun)
    if example.ability == "explain":
        return check_explanation(said, row.question, given)
    if example.ability == "grade":
        return check_grade(said, row.question, given)
    return solves(said, row.question)


def asked(
    ability: Ability,
    count: int,
    seed: int = 0,
    *,
    split: Split = "test",
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
) -> list[Example]:
    """`count` examples of one ability, as many of each skill; rows that have none are passed by."""
    wanted = [s for s in SKILLS if skills is None or s in skills]
    made: list[Example] = []
    for number, skill in enumerate(wanted):
        want = count // len(wanted) + (number < count % len(wanted))
        start, found = 0, 0
        while found < want:
            for row in rows(
                want, seed, split=split, skills=[skill], difficulty=difficulty, start=start
            ):
                one = example(ability, row, seed)
                if one is not None and found < want:
                    made.append(one)
                    found += 1
            start += want
    return made


def score(
    model: nn.Module,
    ability: Ability,
    count: int = 240,
    seed: int = 0,
    *,
    split: Split = "test",
    skills: Sequence[str] | None = None,
    difficulty: Sequence[int] | None = None,
    temperature: float = 0.0,
) -> Score:
    """The share of held-out examples that a model gets right, in all and by skill."""
    made = asked(ability, count, seed, split=split, skills=skills, difficulty=difficulty)
    said = complete(model, [e.prompt for e in made], temperature=temperature, seed=seed)
    checked = tuple((e, s, passes(e, s)) for e, s in zip(made, said, strict=True))
    by: dict[str, list[bool]] = defaultdict(list)
    for e, _, c in checked:
        by[e.row.skill].append(bool(c))
    return Score(
        share=sum(bool(c) for _, _, c in checked) / max(len(checked), 1),
        count=len(checked),
        skills={k: sum(v) / len(v) for k, v in by.items()},
        said=checked,
    )


def report(model: nn.Module, count: int = 480, seed: int = 10) -> dict[str, dict[str, float]]:
    """All abilities on test numbers, and solving out of distribution; shares by skill and `all`.

    Of the shipped teacher no choice was made on seed 10.
    """
    found: dict[str, dict[str, float]] = {}
    for ability in ABILITIES:
        one = score(model, ability, count, seed)
        found[ability] = {"all": one.share, **one.skills}
    for split in ("template", "composition"):
        one = score(model, "solve", count, seed, split=split)
        found[f"solve, new {split}s"] = {"all": one.share, **one.skills}
    return found
