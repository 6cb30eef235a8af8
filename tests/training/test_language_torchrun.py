"""Language models in two processes under torchrun: as in one, teacher and student sharded too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_language_processes
from safetensors.torch import load_file
from two_language_processes import PACK, played

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["ddp", "fully_shard"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases of one strategy in one launch: starting the processes is what takes time."""
    place = tmp_path_factory.mktemp(request.param)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", two_language_processes.__file__, request.param, str(place)),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert sorted(p.name for p in place.glob("done-*")) == ["done-0", "done-1"]
    return place


@pytest.mark.parametrize("name", PACK)
def test_two_processes_give_what_one_gives(folder: Path, name: str) -> None:
    together = load_file(folder / f"{name}.safetensors")
    alone = played("ddp", PACK[name])
    assert together.keys() == alone.keys()
    moved = 0.0
    begun = two_language_processes.setting(None).student().state_dict()  # type: ignore
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value.detach(), rtol=1e-5, atol=1e-5, msg=key)
        if key in begun:
            moved = max(moved, float((value - begun[key]).abs().max()))
    assert moved > 1e-2
