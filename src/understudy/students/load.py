"""Models from what a user has: a family's name, a Hugging Face model, a state dict and a factory.

Loading runs no code but the factory that the user names: weights are safetensors, or a PyTorch
file read with `weights_only=True`; a pickle that is more than a plain state dict is refused.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import UserError, nearest, unknown
from understudy.students.families import build, families, parse
from understudy.students.lora import is_adapter, load_adapter
from understudy.students.saving import load_student, read_config, save_student
from understudy.students.state import first_line, put_state, read_state

__all__ = ["load_model", "load_student", "make_from", "save_student"]

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
Factory = str | Callable[..., nn.Module]


def load_model(
    spec: str | Path | nn.Module | Callable[..., nn.Module],
    *,
    classes: int | None = None,
    factory: Factory | None = None,
    task: str | None = None,
    fresh: bool = False,
    new_head: bool = False,
    **sizes: Any,
) -> nn.Module:
    """The model that `spec` names.

    - a module: itself; a function: what it returns;
    - `"resnet8x4"`, `"mlp:width=64"`: a built-in family, untrained; needs `classes` and the sizes
      that the input dictates (`in_channels=`, `in_features=`, `vocabulary=`), which other
      forms ignore; a folder of such a name is written `./resnet8x4`;
    - a folder: a student saved by `save_student`, a Hugging Face model, or adapters of `peft`;
    - `"weights.safetensors@model.py:make"`, or the file with `factory="model.py:make"`: a state
      dict in the module that the factory returns (`.pt`, `.pth`, `.bin`, `.ckpt` likewise);
    - `"model.py:make"`: the factory's module, untrained;
    - `"owner/name"`: a model of the Hugging Face hub.

    `classes`, where given, is checked against a Hugging Face model's label count; `new_head=True`
    replaces a head of another size. `fresh=True` takes a Hugging Face model's architecture without
    its weights. `task` ("image-classification", "text-classification", "causal-lm", ...) overrides
    what its config says. A factory that takes `classes` or `num_classes` is given it. A model with
    loaded weights is in evaluation mode. Errors are `UserError`, of one line.
    """
    if isinstance(spec, nn.Module):
        return spec
    if callable(spec):
        return _made(spec, getattr(spec, "__name__", "factory"), classes)
    text = str(spec)
    if text.partition(":")[0] in families():
        name, spelled = parse(text)
        if classes is None:
            raise UserError(f"{name} needs the number of classes")
        return build(name, classes=classes, **(sizes | spelled))
    weights, at, named = text.rpartition("@")
    if at and weights.endswith(WEIGHTS):
        if factory is not None:
            raise UserError(f"{text!r} names a factory, and factory= gives another")
        return _from_weights(Path(weights), named, classes)
    path = Path(text).expanduser()
    if path.is_dir():
        return _from_folder(path, classes, factory, task, fresh, new_head)
    if path.suffix in WEIGHTS:
        return _from_weights(path, factory, classes)
    if text.partition(":")[0].endswith(".py"):
        return make_from(text, classes=classes)
    if text.startswith((".", "/", "~")):
        raise UserError(f"{text}: there is no such file or folder")
    if text.count("/") == 1 and ":" not in text:
        from understudy.students.huggingface import load_pretrained

        return load_pretrained(text, classes=classes, task=task, fresh=fresh, new_head=new_head)
    name = text.partition(":")[0]
    raise UserError(
        f"{unknown('model family', name, families())} (a file or folder of that name does not"
        " exist; a Hugging Face hub name is owner/name)"
    )


def _from_folder(
    folder: Path,
    classes: int | None,
    factory: Factory | None,
    task: str | None,
    fresh: bool,
    new_head: bool,
) -> nn.Module:
    if is_adapter(folder):
        return load_adapter(folder)
    config = read_config(folder)
    if "architectures" in config or "model_type" in config:
        from understudy.students.huggingface import load_pretrained

        name = str(folder)
        return load_pretrained(name, classes=classes, task=task, fresh=fresh, new_head=new_head)
    made = None if factory is None else _made_by(factory, classes)
    model = load_student(folder, into=made)
    found = config.get("classes")
    if classes is not None and isinstance(found, int) and found != classes:
        raise UserError(f"{folder} has {found} classes; {classes} are asked for")
    return model


def _from_weights(path: Path, factory: Factory | None, classes: int | None) -> nn.Module:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if factory is None:
        config = path.parent / "config.json"
        if path.name == "model.safetensors" and config.is_file():
            return load_model(path.parent, classes=classes)
        raise UserError(
            f"{path} holds weights only; name the function that makes the model:"
            f" {path}@model.py:make, or factory="
        )
    model = _made_by(factory, classes)
    put_state(model, read_state(path), str(path))
    return model.eval()


def make_from(spec: str, *, classes: int | None = None) -> nn.Module:
    """The module that `file.py:function` or `package.module:function` makes."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UserError(f"{spec!r} names no factory; the form is file.py:function")
    return _made(function_from(place, name), spec, classes)


def function_from(place: str, name: str) -> Callable[..., Any]:
    """The function `name` of a file (`models.py`) or of an importable module."""
    spec = f"{place}:{name}"
    if place.endswith(".py"):
        module = _module(Path(place).expanduser())
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise UserError(f"{spec}: {first_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"{place} has no function {name!r}{nearest(name, known)}")
    return function


def functions_of(place: str) -> dict[str, Callable[..., Any]]:
    """The functions that a file defines, by name."""
    module = _module(Path(place).expanduser())
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    }


def _module(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    name = f"understudy_factory_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses in the file look themselves up there
    # The file may import its neighbours.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"{path} cannot be run: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _made_by(factory: Factory, classes: int | None) -> nn.Module:
    if isinstance(factory, str):
        return make_from(factory, classes=classes)
    return _made(factory, getattr(factory, "__name__", "factory"), classes)


def _made(function: Callable[..., Any], where: str, classes: int | None) -> nn.Module:
    try:
        accepted = inspect.signature(function).parameters
    except (TypeError, ValueError):
        accepted = {}
    key = next((key for key in ("classes", "num_classes") if key in accepted), None)
    try:
        model = function(**({key: classes} if key and classes is not None else {}))
    except Exception as error:
        raise UserError(f"{where} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{where} returned {type(model).__name__}, not a torch module")
    return model
