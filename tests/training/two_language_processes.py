"""What `test_language_torchrun.py` trains: in one process there, in two under torchrun here.

`python -m torch.distributed.run --nproc-per-node 2 two_language_processes.py STRATEGY FOLDER`
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from tiny_causal import tiny
from understudy.data import Texts
from understudy.objectives import lm_ce, lm_kd
from understudy.objectives.gather import processes
from understudy.running import Studio
from understudy.setting import Recipe, Setting, Stage
from understudy.signals import CausalLM
from understudy.tasks.language import language_task
from understudy.training.budget import Budget
from understudy.training.distribution import Strategy, is_sharded, join, leave, rank

PACK = {"padded": None, "packed": 32}


def texts(count: int, seed: int) -> Texts:
    """Of 4 to 14 tokens, of which 1 to 13 are scored: unevenly between the processes."""
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(4, 15, (count,), generator=g).tolist()
    tokens = [torch.randint(0, 40, (n,), generator=g) for n in sizes]
    scored = [[i >= int(t[0]) % (len(t) - 1) + 1 for i in range(len(t))] for t in tokens]
    return Texts(tokens, scored)


def setting(pack: int | None) -> Setting:
    task = language_task(
        "toy", train=texts(37, 1), validate=texts(9, 2), test=texts(7, 3), vocabulary=40, length=64
    )
    return Setting(
        name="toy",
        task=task,
        kind="language",
        call=CausalLM(pack=pack),
        teachers={"teacher": partial(tiny, "llama", seed=1, hidden_size=24)},
        student=partial(tiny, "qwen2", seed=2),
        budget=Budget(epochs=2, batch_size=8, lr=2e-3, clip=1.0, accumulate=2, weight_decay=0.1),
    )


def played(strategy: Strategy, pack: int | None, folder: Path | None = None) -> dict[str, Tensor]:
    """Weights and measures of a student, after two stages."""
    stages = (
        Stage(name="distil", objective=lm_ce() + lm_kd("jsd"), budget={"epochs": 1}),
        Stage(name="further", objective=1.0 * lm_kd("reverse_kl"), carry="best"),
    )
    recipe = Recipe(name="toy", setting=setting(pack), stages=stages)
    studio = Studio(folder, strategy=strategy, save_seconds=None)
    result = studio.play(recipe, seed=1)
    teachers = [t.modules()["model"] for t in studio._teachers.values()]
    sharded = [all(is_sharded(p) for p in t.parameters()) for t in teachers]
    assert sharded == [strategy == "fully_shard" and processes() > 1]
    if sharded[0]:
        learner = _sharded_student(studio)
        assert learner
    scores = {k: torch.tensor(v) for k, v in result.last.items() if k in ("perplexity", "kl")}
    assert len(scores) == 2
    return {**result.model.state_dict(), **scores}


def _sharded_student(studio: Studio) -> bool:
    """Whether a student stands sharded while it is trained, each process with a part of it."""
    from understudy.running import Play

    recipe = Recipe(
        name="probe", setting=setting(None), stages=(Stage(objective=1.0 * lm_kd("kl")),)
    )
    play = Play(studio, recipe, 0)
    play.cast()
    fit = play.begin(recipe.stages[0])
    model: nn.Module = fit.algorithm.modules()["student"]
    parts = [p for p in model.parameters() if is_sharded(p)]
    own: Any = sum(p.to_local().numel() for p in parts)  # type: ignore
    return len(parts) == len(list(model.parameters())) and own < sum(p.numel() for p in parts)


def main(strategy: Strategy, folder: Path) -> None:
    assert join()
    assert dist.get_world_size() == processes() == 2
    torch.set_num_threads(1)
    for name, pack in PACK.items():
        found = played(strategy, pack, folder / name)
        if rank() == 0:
            save_file(
                {k: v.detach().clone().contiguous() for k, v in found.items()},
                folder / f"{name}.safetensors",
            )
    mine = rank()
    leave()
    (folder / f"done-{mine}").touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))  # pyright: ignore[reportArgumentType]
