"""A trained teacher as a folder: half-precision weights, configuration, tokenizer, and its story."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.tasks.school.study import Study
from understudy.tasks.school.text import examples
from understudy.tasks.school.tokens import EOS, PAD, tokenizer, train_tokenizer

TOKENIZER_ROWS, TOKENIZER_SEED = 20_000, 99


def new_tokenizer() -> Any:
    """The tokenizer as it was learned; `tokenizer.json` holds the result."""
    made = examples(TOKENIZER_ROWS, TOKENIZER_SEED)
    return train_tokenizer([e.prompt + e.completion for e in made])


def ship(
    model: nn.Module,
    folder: Path,
    studies: Mapping[str, Study],
    measured: Mapping[str, Mapping[str, float]],
    *,
    count: int,
    seconds: float,
) -> None:
    """Writes the folder. studies: the stages of the training, in order; count: rows an ability."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError("a teacher is a transformers model")
    inner: Any = model
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = {p.dtype for p in inner.parameters()}
    inner.config.eos_token_id, inner.config.pad_token_id = _ids()
    inner.generation_config.eos_token_id, inner.generation_config.pad_token_id = _ids()
    inner.to(torch.float16).save_pretrained(folder)
    inner.to(dtypes.pop())
    tokenizer().save_pretrained(folder)
    for file in folder.iterdir():  # a cache of the library makes weights private
        file.chmod(0o644)
    story = {
        "command": "python benchmarks/school_teacher.py --out runs/school-teacher",
        "parameters": sum(p.numel() for p in inner.parameters()),
        "stages": {name: asdict(study) for name, study in studies.items()},
        "threads": torch.get_num_threads(),
        "seconds": round(seconds),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "measured": {k: {s: round(x, 4) for s, x in v.items()} for k, v in measured.items()},
        "measured_on": f"{count} held-out examples an ability (seed 10, on which no choice was "
        "made), greedy, weights in half precision computed in single precision",
    }
    (folder / "made_by.json").write_text(json.dumps(story, indent=1) + "\n")
    (folder / "README.md").write_text(_card(story))


def _ids() -> tuple[int, int]:
    told = tokenizer().convert_tokens_to_ids([EOS, PAD])
    return told[0], told[1]


def _card(story: Mapping[str, Any]) -> str:
    rows = [
        f"| {ability} | {100 * shares['all']:.1f} | "
        f"{100 * min(v for k, v in shares.items() if k != 'all'):.1f} |"
        for ability, shares in story["measured"].items()
    ]
    return (
        "# The teacher of the school world\n\n"
        f"A Llama-shaped causal language model of {story['parameters']:,} parameters that solves "
        "arithmetic word problems with a rationale, writes one for a skill and difficulty, "
        "explains a mistake and grades an answer. Its remaining errors are wanted: what filters "
        "and checks its texts has something to find.\n\n"
        f"Made by `{story['command']}`, {story['seconds'] / 60:.0f} minutes; settings, versions "
        "and all figures are in `made_by.json`. It was trained on problems whose numbers are "
        "disjoint, by skill, from those that it is measured on.\n\n"
        f"Share of {story['measured_on']}:\n\n"
        "| ability | all, % | weakest skill, % |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )
