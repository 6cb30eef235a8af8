"""Students that learn low-rank adapters alone, by `peft`.

W x becomes W x + (alpha / r) B A x with A [r, in] drawn at random, B [out, r] zero at first; W and
all else stay as they are. Source: Hu et al., LoRA, arXiv 2106.09685, Eq. 3.
"""

import copy
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import CheckpointError, UserError, nearest, unknown
from understudy.students.state import first_line

BASE = "base"
"""In an adapter's folder: the model under it, where that lies nowhere else."""
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters.

    r:       rank; alpha: their scale is alpha / r
    targets: ends of the names of the linear layers that get one; empty: all but the head
    dropout: on what the adapters read
    merge:   a saved student is the whole model, adapters added to its weights
    """

    r: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    merge: bool = False

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"lora: r is at least 1, alpha above 0, dropout in [0, 1); not r={self.r}, "
                f"alpha={self.alpha}, dropout={self.dropout}"
            )

    @classmethod
    def parse(cls, text: str, *, merge: bool = False) -> "LoRA":
        """`r=8,alpha=16,targets=q_proj+v_proj,dropout=0.1` (any of them; empty for the defaults)."""
        known = {f.name: f.type for f in fields(cls) if f.name != "merge"}
        given: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, equals, value = (p.strip() for p in part.partition("="))
            if not equals or not value:
                raise UserError(f"--lora takes name=value,... such as r=8,alpha=16, not {part!r}")
            if name not in known:
                raise unknown("setting of --lora", name, known)
            try:
                given[name] = (
                    tuple(value.split("+"))
                    if name == "targets"
                    else int(value)
                    if name == "r"
                    else float(value)
                )
            except ValueError:
                raise UserError(f"--lora: {name} takes a number, not {value!r}") from None
        return cls(**given, merge=merge)

    def put(self, model: nn.Module) -> nn.Module:
        """The model with adapters (a `PeftModel`), all but those frozen; the model is changed."""
        peft = _peft()
        if isinstance(model, peft.PeftModel):
            raise UserError("lora: the model has adapters already; give the model under them")
        if not hasattr(model, "save_pretrained"):
            raise UserError(
                f"lora: {type(model).__name__} is no model of transformers, which adapters are for"
            )
        config = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            target_modules=self._found(model),
            lora_dropout=self.dropout,
            bias="none",
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
            task_type="CAUSAL_LM",
        )
        adapted = peft.get_peft_model(model, config)
        adapted.merge_when_saved = self.merge
        return adapted.eval()

    def _found(self, model: nn.Module) -> list[str] | str:
        """The layers asked for, each of which is there; or all linear ones but the head.

        A layer is what `peft` adapts: linear, or the transposed linear layer of GPT-2.
        """
        head = getattr(model, "get_output_embeddings", lambda: None)()
        layers = [
            name
            for name, m in model.named_modules()
            if m is not head and (isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D")
        ]
        if not layers:
            raise UserError(f"lora: {type(model).__name__} has no linear layers to adapt")
        short = {n.rpartition(".")[2] for n in layers}
        for target in self.targets:
            if not any(n == target or n.endswith("." + target) for n in layers):
                raise UserError(f"lora: no linear layer {target!r}{nearest(target, short)}")
        return list(self.targets) or "all-linear"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds adapters and not a whole model."""
    return (Path(folder) / ADAPTER).is_file()


def is_adapted(model: nn.Module) -> bool:
    """Whether a model has adapters of `peft`."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def merged(model: Any) -> nn.Module:
    """The plain model with its adapters added to its weights; a copy."""
    return copy.deepcopy(model).merge_and_unload()


def save_adapter(model: Any, folder: Path) -> None:
    """Adapters as `peft` keeps them.

    The model under them lies beside where it has no place of its own: no name it was loaded from.
    """
    name = str(getattr(model.get_base_model().config, "_name_or_path", "") or "")
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty form; a card is written later
    path = folder / ADAPTER
    config = json.loads(path.read_text(encoding="utf-8"))
    if name:
        place = Path(name).expanduser()
        config["base_model_name_or_path"] = str(place.resolve()) if place.is_dir() else name
    else:
        copy.deepcopy(model).unload().save_pretrained(folder / BASE)
        config["base_model_name_or_path"] = BASE
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(folder: str | Path, base: nn.Module | None = None) -> nn.Module:
    """The model with the adapters of a folder, in evaluation mode, single precision."""
    from understudy.students.huggingface import load_pretrained

    folder = Path(folder)
    try:
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / ADAPTER} cannot be read: {first_line(error)}") from None
    peft = _peft()
    if base is None:
        name = str(config.get("base_model_name_or_path") or "")
        if (folder / BASE).is_dir():
            name = str(folder / BASE)
        if not name:
            raise CheckpointError(f"{folder} names no model that its adapters belong to")
        base = load_pretrained(name, task="causal-lm").float()
    try:
        return peft.PeftModel.from_pretrained(base, str(folder), is_trainable=True).eval()
    except Exception as error:
        raise CheckpointError(
            f"{folder}: its adapters cannot be loaded: {first_line(error)}"
        ) from error


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError("adapters need peft: pip install understudy[lm]") from None
    return peft
