"""A student on disk: a folder with `config.json` and `model.safetensors`, written whole or not."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from understudy.errors import CheckpointError, UserError
from understudy.files import failure, files, plain
from understudy.students.families import from_config, unwrapped
from understudy.students.lora import is_adapted, is_adapter, load_adapter, merged, save_adapter
from understudy.students.state import first_line, put_state, read_state

BESIDE = "understudy.json"
"""Labels and extras of adapters: with a config.json, `transformers` would look for a model there."""


def save_student(
    model: nn.Module,
    folder: str | Path,
    *,
    labels: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    processor: Any = None,
    overwrite: bool = False,
) -> Path:
    """Writes `model` to `folder` and returns it.

    A built-in family leaves `model.safetensors` and a `config.json` that rebuilds it; a Hugging
    Face model what `save_pretrained` leaves, with `labels` as its `id2label`, and `processor` (a
    tokenizer or image processor, or several in a list) beside it; one with adapters of `peft` the
    adapters alone, or the whole model where they are to be merged; any other module its weights and
    its class name, to be loaded `into=` a module of that class. `extra` is kept under "extra", for
    Hugging Face models under "understudy". The folder appears at once, complete and flushed, or
    not at all; one that exists is refused unless `overwrite`.
    """
    target = Path(folder)
    model = unwrapped(model)
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists; pass overwrite=True or take another folder")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary.chmod(0o755)
        _write(model, temporary, labels, extra, processor)
        for path in sorted(temporary.rglob("*")):
            files.sync(path)
        files.sync(temporary)
        _replace(temporary, target)
        files.sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise failure(f"cannot write {target.name}", target.parent, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_student(folder: str | Path, *, into: nn.Module | None = None) -> nn.Module:
    """The model that `save_student` wrote, in evaluation mode.

    `into` is the module that takes the weights of a student that is no built-in family. What
    `labels` and `extra` were given is in `read_config(folder)`.
    """
    path = Path(folder)
    if is_adapter(path):
        return load_adapter(path)
    config = read_config(path)
    if "architectures" in config or "model_type" in config:
        from understudy.students.huggingface import load_pretrained

        return load_pretrained(str(path))
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"{path} has no model.safetensors")
    state = read_state(weights)
    if into is None:
        if "student" not in config:
            raise CheckpointError(
                f"{path} holds a {config.get('class', 'module')}, which is no built-in family; name"
                " the function that makes it: factory=model.py:make"
            )
        into = from_config(config["student"])
    put_state(into, state, str(weights))
    return into.eval()


def read_config(folder: str | Path) -> dict[str, Any]:
    """`config.json` of a student's or a Hugging Face model's folder, or what lies with adapters."""
    path = Path(folder) / ("config.json" if not is_adapter(folder) else BESIDE)
    if is_adapter(folder) and not path.is_file():
        return {}  # adapters of another library
    if not path.is_file():
        raise CheckpointError(f"{folder} is no model folder: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return config


def _write(
    model: nn.Module,
    folder: Path,
    labels: Sequence[str] | None,
    extra: Mapping[str, Any] | None,
    processor: Any,
) -> None:
    if is_adapted(model) and getattr(model, "merge_when_saved", False):
        model = merged(model)
    if is_adapted(model):
        save_adapter(model, folder)
        named = None if labels is None else list(labels)
        _write_json(folder / BESIDE, {"labels": named, "extra": dict(extra or {})})
    elif hasattr(model, "save_pretrained"):
        with _no_bars(model):
            model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        config = read_config(folder)
        if labels is not None:
            config["id2label"] = {str(index): name for index, name in enumerate(labels)}
            config["label2id"] = {name: index for index, name in enumerate(labels)}
        if extra:
            config["understudy"] = dict(extra)
        _write_json(folder / "config.json", config)
    else:
        own = getattr(model, "config", None)
        config: dict[str, Any] = {"format": "understudy-student-1"}
        if isinstance(own, dict) and "family" in own:
            config |= {"student": own, "classes": own["classes"]}
        else:
            config["class"] = type(model).__qualname__
        config |= {
            "labels": None if labels is None else list(labels),
            "extra": dict(extra or {}),
        }
        weights = folder / "model.safetensors"
        files.write_tensors(weights, _separate(model.state_dict()))
        _write_json(folder / "config.json", config)
        files.same_mode(weights, folder / "config.json")
    for part in processor if isinstance(processor, list | tuple) else [processor]:
        if part is not None:
            part.save_pretrained(folder)


def _no_bars(model: nn.Module) -> AbstractContextManager[None]:
    """Where `transformers` writes, its progress bars are left out."""
    if type(model).__module__.partition(".")[0] != "transformers":
        return nullcontext()
    from understudy.students.huggingface import quiet

    return quiet(local=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(plain(content, "config"), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _separate(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU; tied ones are written each, since safetensors shares none."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"state {key!r} is a {type(value).__name__}, not a tensor: not saved")
        value = value.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in places and value.numel():
            value = value.clone(memory_format=torch.contiguous_format)
        places.add(value.untyped_storage().data_ptr())
        plain[key] = value
    return plain


def _replace(temporary: Path, target: Path) -> None:
    """Renames `temporary` to `target`; what stood there goes only once the new one is in place.

    A folder cannot be renamed over another: a kill between the two renames leaves the old student
    beside, as `.NAME.old.*/old`.
    """
    if not target.exists():
        files.rename(temporary, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    old = aside / "old"
    try:
        files.rename(target, old)
        files.rename(temporary, target)
    except OSError:
        if old.exists() and not target.exists():
            files.rename(old, target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
