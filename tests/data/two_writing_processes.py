"""What `test_on_policy_torchrun.py` trains in two processes.

`python -m torch.distributed.run --nproc-per-node 2 two_writing_processes.py STRATEGY FOLDER`
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from language_worlds import settings_of
from small_worlds import differing, weights
from understudy.data.on_policy import OnPolicy
from understudy.data.replay import Replay
from understudy.data.writers import SpeculativePick
from understudy.objectives import lm_kd
from understudy.objectives.gather import processes
from understudy.running import Studio
from understudy.setting import Recipe, Stage
from understudy.signals import Batch
from understudy.signals.authors import authors, numbers
from understudy.training.distribution import Strategy, join, leave, rank
from understudy.training.interrupt import Interrupt, Interrupted

PLANS = {
    "replay": OnPolicy(lmbda=0.8, replay=Replay(capacity=20)),
    "speculative": OnPolicy(writer=SpeculativePick(top_k=4)),
}


class Spied:
    """A plan whose batches are kept."""

    def __init__(self, plan: OnPolicy, seen: list[Batch]) -> None:
        self.plan, self.seen = plan, seen

    def fingerprint(self) -> str:
        return str(self.plan.lmbda)

    def __call__(self, play: Any, loader: Any) -> Any:
        made = self.plan(play, loader)
        drawn = made.batches

        def batches(epoch: int, start: int = 0) -> Any:
            for batch in drawn(epoch, start):
                self.seen.append(batch)
                yield batch

        made.batches = batches
        return made


def recipe(plan: OnPolicy, seen: list[Batch]) -> Recipe:
    # of 17 texts one process has 9 and the other 8
    setting = replace(settings_of(epochs=2), budget=replace(settings_of().budget, batch_size=17))
    stage = Stage(objective=lm_kd("reverse_kl"), loader=Spied(plan, seen))
    return Recipe(name="mine", setting=setting, stages=(stage,))


def check(name: str, strategy: Strategy, folder: Path) -> None:
    seen: list[Batch] = []
    whole = Studio(folder / "whole", strategy=strategy, save_seconds=None)
    result = whole.play(recipe(PLANS[name], seen))
    assert result.writing_seconds > 0
    told: list[Any] = [None, None]
    mine = [(b.inputs["input_ids"].tolist(), numbers(b.index).tolist()) for b in seen]
    dist.all_gather_object(told, mine)
    assert len(told[0]) == len(told[1]) == 6
    for (ids, samples), (others, theirs) in zip(*told, strict=True):
        assert ids != others
        if name != "replay":  # which draws from what a process wrote itself
            assert not set(samples) & set(theirs)
    assert any(bool((authors(b.index) > 0).all()) for b in seen)
    interrupt, count = Interrupt(), []

    def stop(kind: str, fields: dict[str, Any]) -> None:
        if kind == "update":
            count.append(1)
            interrupt.wanted |= len(count) == 4

    cut = Studio(
        folder / "cut", strategy=strategy, save_seconds=None, interrupt=interrupt, listeners=[stop]
    )
    stopped = False
    try:
        cut.play(recipe(PLANS[name], []))
    except Interrupted:
        stopped = True
    assert stopped
    again = Studio(folder / "cut", strategy=strategy, save_seconds=None)
    again.play(recipe(PLANS[name], []))
    dist.barrier()
    if rank() == 0:
        assert differing(weights(folder / "whole", "mine"), weights(folder / "cut", "mine")) == []


def main(strategy: Strategy, folder: Path) -> None:
    assert join()
    assert dist.get_world_size() == processes() == 2
    torch.set_num_threads(1)
    for name in PLANS:
        check(name, strategy, folder / name)
    mine = rank()
    leave()
    (folder / f"done-{mine}").touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))  # pyright: ignore[reportArgumentType]
