"""Families of models by name and size: `build("resnet8x4", classes=100)`.

Every model has a linear `head` whose input is the penultimate feature, stages by name (`stage1`,
`stage2`, ...) whose outputs are the stage's features, nothing that works in place, and `.config`:
a dict of plain values from which `from_config` builds it again.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from understudy import errors
from understudy.students.families.cnn import cnn
from understudy.students.families.llama import llama
from understudy.students.families.mamba import mamba
from understudy.students.families.mixer import mixer
from understudy.students.families.mlp import mlp
from understudy.students.families.mobilenet import mobilenet_v2
from understudy.students.families.resnet import resnet, resnet18, resnet34, resnet50
from understudy.students.families.shufflenet import shufflenet_v1, shufflenet_v2
from understudy.students.families.speech import speech
from understudy.students.families.text import text
from understudy.students.families.vgg import vgg
from understudy.students.families.vit import vit
from understudy.students.families.wrn import wrn

__all__ = [
    "Family", "build", "families", "from_config", "input_sizes", "parse", "to_config", "unwrapped",
]  # fmt: skip

_INPUTS = ("in_channels", "in_features", "vocabulary", "image_size")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A named way to make a model: a function of typed sizes, some of them preset."""

    name: str
    card: str
    make: Callable[..., nn.Module]
    preset: Mapping[str, int | float | bool | str] = field(default_factory=dict)

    @property
    def types(self) -> dict[str, type]:
        """Sizes that can be set, `classes` apart, with their types."""
        sizes = inspect.signature(self.make).parameters
        return {name: p.annotation for name, p in sizes.items() if name != "classes"}

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes with their values here; a size that must be given is absent."""
        parameters = inspect.signature(self.make).parameters
        empty = inspect.Parameter.empty
        return {
            name: self.preset.get(name, parameters[name].default)
            for name in self.types
            if name in self.preset or parameters[name].default is not empty
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        """Which sizes describe the input: `in_channels`, `in_features`, `vocabulary`, ..."""
        return tuple(name for name in _INPUTS if name in self.types)


@cache
def families() -> dict[str, Family]:
    """Every family by name."""
    found: list[Family] = []

    def add(name: str, make: Callable[..., nn.Module], card: str, **preset: float) -> None:
        found.append(Family(name=name, card=card, make=make, preset=preset))

    add("resnet", resnet, "CIFAR ResNet of any depth 6n+2 and width")
    for depth in (8, 14, 20, 32, 44, 56, 110):
        add(
            f"resnet{depth}",
            resnet,
            f"CIFAR ResNet, {depth} layers, widths 16 32 64",
            depth=depth,
        )
    for depth in (8, 32):
        card = f"CIFAR ResNet, {depth} layers, widths 64 128 256 behind a stem of 32"
        add(f"resnet{depth}x4", resnet, card, depth=depth, width=64, stem=32)
    add("resnet18", resnet18, "four-stage ResNet with a CIFAR stem, basic blocks")
    add("resnet34", resnet34, "four-stage ResNet with a CIFAR stem, basic blocks")
    add("resnet50", resnet50, "four-stage ResNet with a CIFAR stem, bottleneck blocks")
    add("wrn", wrn, "wide ResNet of any depth 6n+4 and width")
    for depth, width in ((16, 1), (16, 2), (40, 1), (40, 2), (40, 4), (28, 10)):
        card = f"wide ResNet, {depth} layers, {width} times as wide"
        add(f"wrn_{depth}_{width}", wrn, card, depth=depth, width=width)
    for depth in (8, 11, 13, 16, 19):
        add(
            f"vgg{depth}",
            vgg,
            f"CIFAR VGG with batch norm, {depth} layers",
            depth=depth,
        )
    add("mobilenet_v2", mobilenet_v2, "CIFAR MobileNetV2, width 0.5, expansion 6")
    add(
        "shufflenet_v1",
        shufflenet_v1,
        "CIFAR ShuffleNet V1, 3 groups, widths 240 480 960",
    )
    add("shufflenet_v2", shufflenet_v2, "CIFAR ShuffleNet V2, width 1")
    add("vit", vit, "small vision transformer")
    add("mixer", mixer, "small MLP-Mixer")
    add("mamba", mamba, "small vision model of selective state space (Mamba) blocks")
    add("cnn", cnn, "a few conv layers for images of 8x8 to 32x32")
    add("mlp", mlp, "multi-layer perceptron for tables, vectors and small images")
    add(
        "text",
        text,
        "token ids: small transformer encoder; depth 0 is a bag of embeddings",
    )
    add("llama", llama, "token ids: causal language model of Llama's shape, by transformers")
    add(
        "speech",
        speech,
        "raw audio: Wav2Small, log-mel front end and seven conv layers",
    )
    return {family.name: family for family in found}


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """`"mlp:width=64,depth=2"` -> `("mlp", {"width": 64, "depth": 2})`, checked and typed."""
    name, _, rest = spec.strip().partition(":")
    family = _family(name.strip())
    sizes: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not value:
            raise errors.UserError(f"{spec!r}: {part!r} is not of the form size=value")
        if key in sizes:
            raise errors.UserError(f"{spec!r}: {key} is given twice")
        sizes[key] = _typed(family, key, value)
    return family.name, sizes


def build(name: str, *, classes: int, **sizes: Any) -> nn.Module:
    """Makes a model of family `name`, or of a whole spec (`"mlp:width=64"`).

    Sizes that the input dictates are given by keyword: `in_channels` (and for ViT, Mixer and Mamba
    `image_size`), `in_features`, `vocabulary`; `input_sizes` finds them from a sample's shape. An
    unknown family or size raises `UnknownName` with the nearest names.
    """
    name, spelled = parse(name)
    family = families()[name]
    if twice := sorted(spelled.keys() & sizes.keys()):
        raise errors.UserError(f"{name}: {', '.join(twice)} is given in the name and by keyword")
    given = spelled | {key: _typed(family, key, value) for key, value in sizes.items()}
    given = family.sizes | given
    if missing := [key for key in family.types if key not in given]:
        raise errors.UserError(
            f"{name} needs {', '.join(missing)}: build({name!r}, {missing[0]}=...)"
        )
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise errors.UserError(f"{name}: classes is {classes!r}; it must be a whole number from 1")
    model = family.make(classes=classes, **given)
    if not hasattr(model, "save_pretrained"):  # a model of transformers has a config of its own
        model.config = {"family": name, "classes": classes, **given}  # pyright: ignore
    return model


def input_sizes(
    name: str, shape: tuple[int, ...] = (), *, vocabulary: int | None = None
) -> dict[str, int]:
    """The sizes that a sample of `shape` (without the batch) dictates to family `name`.

    `("resnet20", (3, 32, 32))` -> `{"in_channels": 3}`; `("mlp", (30,))` -> `{"in_features": 30}`.
    """
    family = families()[parse(name)[0]]
    found: dict[str, int] = {}
    for key in family.inputs:
        if key == "vocabulary":
            if vocabulary is None:
                raise errors.UserError(f"{family.name} reads token ids and needs vocabulary=")
            found[key] = vocabulary
        elif key == "in_features":
            size = 1
            for extent in shape:
                size *= extent
            found[key] = size
        elif len(shape) != 3:
            raise errors.UserError(
                f"{family.name} reads images [channels, height, width]; a sample has shape"
                f" {tuple(shape)}; mlp takes any shape"
            )
        elif key == "image_size" and shape[1] != shape[2]:
            raise errors.UserError(
                f"{family.name} reads square images; a sample is {shape[1]}x{shape[2]}"
            )
        else:
            found[key] = shape[0] if key == "in_channels" else shape[1]
    return found


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `DistributedDataParallel` and `torch.compile` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, nn.parallel.DistributedDataParallel | nn.DataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def to_config(model: nn.Module) -> dict[str, Any]:
    """Family, classes and sizes of a model of ours, JSON-able."""
    config = getattr(unwrapped(model), "config", None)
    if not isinstance(config, dict) or "family" not in config:
        raise errors.UserError(
            f"{type(model).__name__} is no built-in family: it cannot be rebuilt from a config"
        )
    return dict(config)


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """A fresh model from what `to_config` gave; the inverse of it up to the weights."""
    if "family" not in config or "classes" not in config:
        raise errors.UserError("config names no family and classes: not a student of ours")
    if config["family"] == "reused":
        from understudy.students.reused import rebuilt

        return rebuilt(config, from_config)
    sizes = {key: value for key, value in config.items() if key not in ("family", "classes")}
    return build(config["family"], classes=config["classes"], **sizes)


def _family(name: str) -> Family:
    known = families()
    if name not in known:
        raise errors.unknown("model family", name, known)
    return known[name]


def _typed(family: Family, key: str, value: Any) -> Any:
    """`value`, or what its text says, as the type of size `key`."""
    kinds = family.types
    if key not in kinds:
        raise errors.unknown(f"size of {family.name}", key, kinds)
    kind = kinds[key]
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind is str:
            return str(value)
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        result = kind(value)
        if not math.isfinite(result):
            raise ValueError
        return result
    except (ValueError, TypeError, KeyError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise errors.UserError(
            f"{family.name}: {key} is {value!r}; it must be {words.get(kind, kind.__name__)}"
        ) from None
