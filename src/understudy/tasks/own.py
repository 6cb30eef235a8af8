"""A user's own data as a `Task`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from understudy.data import Arrays, Source, ViewFunction
from understudy.errors import DataError, UserError, nearest
from understudy.evaluation import default_metric
from understudy.signals import IGNORE
from understudy.tasks.arrays import read_arrays
from understudy.tasks.folders import IN_MEMORY, decoded, is_image, read_folder, survey
from understudy.tasks.frames import TABLES, check, numbers, read_table
from understudy.tasks.hub import is_saved, read_hub, read_saved
from understudy.tasks.labels import Labels, encode_labels, weights_of
from understudy.tasks.pixels import ImageFiles, Pixels, statistics
from understudy.tasks.raw import Part, Raw, join, listed, take
from understudy.tasks.splits import cut, share
from understudy.tasks.task import Kind, Task
from understudy.tasks.words import encode, model_sizes, tokenizer_of

Normalise = bool | tuple[Sequence[float], Sequence[float]] | None


def load(
    path: Any,
    *,
    target: str | Sequence[str] | None = None,
    text: str | tuple[str, str] | None = None,
    kind: Kind | None = None,
    labels: Sequence[str] | None = None,
    classes: int | None = None,
    class_weights: Literal["balanced"] | Sequence[float] | Tensor | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    image_size: int | None = None,
    normalise: Normalise = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    metric: str | None = None,
    view: ViewFunction | None = None,
    **language: Any,
) -> Task:
    """Data from a folder, a file or the Hugging Face hub.

    What it may be: a folder of images (a subfolder a class; or `train/`, `val/`, `test/`,
    `unlabelled/` of such; or images alone: no labels), NPZ or safetensors (`x`, `y`;
    `x_train`, ...), CSV, TSV or Parquet (or a folder with one a split), a folder of
    `datasets.save_to_disk`, or a data set's name on the hub.

    target:        the label's column or array (found by name otherwise), several 0/1 columns for a
                   multi-label task, or "none"; samples without a label are transfer data
    text:          the text's column, or a pair of them; without one, a table's columns are numbers
    kind:          single, multi or regression; told from the labels otherwise, as notes say
    labels:        class names in the order of the models' outputs, where the data has another
    classes:       number of classes, where not all occur
    class_weights: "balanced", or one number a class
    validation, test: share (or number) of the labelled training samples to keep apart where the
                   data has no such split: stratified, drawn by `seed`. Where there is a validation
                   split, no test part is cut off
    image_size:    images are resized and cut square to it
    normalise:     True or None: images by the mean and deviation of the training images' channels
                   (of 0 to 1), tables by those of their columns, arrays not at all; False: images
                   in 0 to 1, tables as they are; (mean, deviation): those, as a given teacher
                   needs them
    tokenizer:     a Hugging Face tokenizer or its name; None: words of the training texts
    max_length:    tokens of a text at most (128 of a text that is classified)

    `kind="language"` reads texts to predict token by token, with the options of `load_texts`
    (columns, chat, truncate, ...); `path` may be a list of rows then.

    Without any labels the task judges by agreement with the teacher (`metric="agreement"`), and
    `classes` is 0 unless given: the teacher says. Where teacher and student need different
    tokenizers, `extras["texts"]` has each part's raw text in the order of its samples.
    `extras["notes"]` says what was decided here, `extras["preprocess"]` what was done to inputs.

    Raises `DataError` in one line: a path or column that does not exist (with the nearest), an
    empty or unreadable file, values that are not finite (row named), a label out of range, images
    of different sizes, training labels that are all the same, a part with fewer than two samples.
    """
    if kind == "language":
        from understudy.tasks.own_texts import load_texts

        if text is not None:
            language["columns"] = {"text": text, **language.get("columns", {})}
        return load_texts(
            path, tokenizer=tokenizer, max_length=max_length, validation=validation, test=test,
            seed=seed, metric=metric, **language,
        )  # fmt: skip
    if language:
        raise UserError(f"{next(iter(language))} is for data of kind 'language'")
    raw = _merged(_read(path, target, text))
    where = raw.where
    if raw.modality == "table":
        check({k: v.inputs for k, v in raw.parts.items()}, where)
    found = encode_labels(
        {k: v.labels for k, v in raw.parts.items()},
        where=where, kind=kind, names=labels or raw.names, classes=classes,
    )  # fmt: skip
    parts, values, rows, notes = _divided(raw, found, validation, test, seed)
    for name, part in parts.items():
        if len(part) < 2:
            raise DataError(f"{where}: {name} has {len(part)} sample; every split needs at least 2")

    make, sizes, extras = _INPUTS[raw.modality](
        {k: v.inputs for k, v in parts.items()}, where,
        image_size=image_size, normalise=normalise, tokenizer=tokenizer,
        max_length=max_length or 128,
    )  # fmt: skip
    made = {k: make(k, values[k], rows[k]) for k in parts}
    labelled = values["train"] is not None or values["validate"] is not None
    return Task(
        name=Path(str(path)).stem or str(path),
        kind=found.kind,
        classes=found.classes,
        train=made["train"],
        validate=made["validate"],
        test=made.get("test"),
        metric=metric or (default_metric(found.kind).name if labelled else "agreement"),
        view=view,
        labels=found.names,
        model={**({"classes": found.classes} if found.classes else {}), **sizes},
        class_weights=weights_of(class_weights, found, values["train"]),
        extras={**extras, "notes": (*raw.notes, *found.notes, *notes), "path": where},
    )


def _read(path: str | Path, target: Any, text: Any) -> Raw:
    """Whatever lies there, or has that name."""
    p = Path(path).expanduser()
    if p.is_file():
        suffix = p.suffix.lower()
        if suffix in TABLES:
            return read_table(p, target, text)
        if suffix in (".npz", ".safetensors"):
            if target is not None and not isinstance(target, str):
                raise DataError(f"{p}: target is the name of one array, not {list(target)}")
            return read_arrays(p, target)
        raise DataError(
            f"{p}: {suffix or 'no suffix'} is no kind of data that is read; give .csv, .tsv, "
            ".parquet, .npz, "
            ".safetensors or a folder"
        )
    if p.is_dir():
        inside = listed(p)
        if not inside:
            raise DataError(f"{p} is empty; give a folder with images or tables, or a file")
        if is_saved(p):
            return read_saved(p, target, text)
        if any(q.suffix.lower() in TABLES for q in inside) and not any(map(is_image, inside)):
            return read_table(p, target, text)
        return read_folder(p)
    name = str(path)
    hub = name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not p.suffix
    if hub and not (p.parent != Path(".") and p.parent.is_dir()):
        return read_hub(name, target, text)
    near = nearest(p.name, [q.name for q in listed(p.parent)]) if p.parent.is_dir() else ""
    raise DataError(f"there is no file or folder {name}{near}")


def _merged(raw: Raw) -> Raw:
    """Unlabelled samples as the last of the training part."""
    parts = dict(raw.parts)
    extra = parts.pop("unlabelled", None)
    if extra is None:
        return raw
    train = parts.get("train")
    if train is None:
        return replace(raw, parts={"train": Part(inputs=extra.inputs), **parts})
    labels = train.labels
    if labels is not None and getattr(labels, "ndim", 1) > 1:
        blank = np.full((len(extra), labels.shape[1]), np.nan)
        labels = np.concatenate([np.asarray(labels, dtype=float), blank])
    elif labels is not None:
        labels = [*labels, *[None] * len(extra)]
    both = Part(inputs=join(train.inputs, extra.inputs, raw.where), labels=labels)
    note = f"{raw.where}: {len(extra)} samples without labels joined the training data"
    return replace(raw, parts={**parts, "train": both}, notes=(*raw.notes, note))


def _divided(
    raw: Raw, found: Labels, validation: float, test: float, seed: int
) -> tuple[dict[str, Part], dict[str, np.ndarray | None], dict[str, np.ndarray], list[str]]:
    """Parts, their labels and sample ids; what is missing is cut off the training data."""
    parts, values = dict(raw.parts), dict(found.values)
    notes = []
    if values["train"] is not None:
        for name in ("validate", "test"):
            if name in parts and (
                values[name] is None or not _known(values[name], found.kind).any()
            ):
                notes.append(f"{raw.where}: {name} has no labels and is left out")
                del parts[name], values[name]
    rows = {k: np.arange(len(v)) for k, v in parts.items()}
    if "validate" in parts:
        return parts, values, rows, notes
    train, y = parts["train"], values["train"]
    known = np.arange(len(train)) if y is None else np.flatnonzero(_known(y, found.kind))
    if len(known) < 2:
        raise DataError(
            f"{raw.where}: train has {len(known)} labelled samples; it needs at least 2"
        )
    wanted = {"validate": share(validation, len(known), "validation")}
    if wanted["validate"] == 0:
        raise DataError(f"{raw.where} has no validation split, so validation= cannot be 0")
    if "test" not in parts and test:
        wanted["test"] = share(test, len(known), "test")
    rest = len(known) - sum(wanted.values())
    if rest < 2:
        raise DataError(
            f"{raw.where}: {len(known)} samples leave {rest} to learn from beside validation and "
            "test; "
            "every split needs at least 2"
        )
    strata = y[known] if y is not None and found.kind == "single" else None
    drawn = cut(len(known), (rest, *wanted.values()), strata=strata, seed=seed)
    taken = {name: known[part] for name, part in zip(wanted, drawn[1:], strict=True)}
    taken["train"] = np.setdiff1d(np.arange(len(train)), np.concatenate(list(taken.values())))
    for name, part in taken.items():
        parts[name], rows[name] = train.rows(part), part
        values[name] = None if y is None else y[part]
    how = "stratified by class, " if strata is not None else ""
    cuts = " and ".join(f"{n} samples for {k}" for k, n in wanted.items())
    notes.append(
        f"{raw.where}: {cuts} were cut off the {len(train)} training samples ({how}seed {seed})"
    )
    return parts, values, rows, notes


def _known(y: np.ndarray | None, kind: Kind) -> np.ndarray:
    assert y is not None
    known = np.isfinite(y) if kind == "regression" else np.not_equal(y, IGNORE)
    return known if known.ndim == 1 else np.logical_and.reduce(known, axis=1)


Make = Callable[[str, np.ndarray | None, np.ndarray], Source]
Made = tuple[Make, dict[str, int], dict[str, Any]]


def _images(
    parts: Mapping[str, Any], where: str, *, image_size: int | None, normalise: Normalise, **_: Any
) -> Made:
    first = parts["train"]
    if isinstance(first, np.ndarray):
        mode, size = "arrays", first.shape[-2:]
        if image_size is not None and size != (image_size, image_size):
            raise DataError(
                f"{where}: image_size resizes image files; these are arrays of {size[1]}x{size[0]}"
            )
        channels, total = first.shape[1], 0
    else:
        files = [f for part in parts.values() for f in part]
        mode, size = survey(files, image_size, where)
        channels = 1 if mode == "L" else 3
        total = len(files) * channels * size[0] * size[1]
    held = {}
    if mode == "arrays":
        held = dict(parts)
    elif total <= IN_MEMORY:
        held = {k: decoded(v, size=image_size, mode=mode) for k, v in parts.items()}
    if isinstance(normalise, tuple):
        mean, std = (tuple(float(x) for x in v) for v in normalise)
    elif normalise is False:
        mean, std = (0.0,) * channels, (1.0,) * channels
    elif held:
        mean, std = statistics(held["train"])
    else:
        some = np.random.default_rng(0).choice(len(first), min(1000, len(first)), replace=False)
        mean, std = statistics(decoded(list(take(first, some)), size=image_size, mode=mode))
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"normalise has {len(mean)} means and {len(std)} deviations for {channels} channels"
        )

    def make(name: str, labels: np.ndarray | None, rows: np.ndarray) -> Source:
        if held:
            return Pixels(held[name], labels, ids=rows, mean=mean, std=std, name=name)
        return ImageFiles(
            parts[name], labels, size=image_size, mode=mode, mean=mean, std=std, ids=rows, name=name
        )

    sizes = {"in_channels": channels, "in_features": channels * size[0] * size[1]}
    if size[0] == size[1]:
        sizes["image_size"] = size[0]
    preprocess = {
        "mean": list(mean),
        "std": list(std),
        "scale": 255.0,
        "size": list(size),
        "mode": mode,
    }
    return make, sizes, {"preprocess": preprocess}


def _table(parts: Mapping[str, Any], where: str, *, normalise: Normalise, **_: Any) -> Made:
    found, columns = numbers(parts)
    extras: dict[str, Any] = {"columns": columns}
    if normalise is not False:
        if isinstance(normalise, tuple):
            mean, std = (np.asarray(v, dtype=float) for v in normalise)
            if mean.shape != (len(columns),) or std.shape != mean.shape:
                raise DataError(
                    f"normalise needs a mean and a deviation for each of {len(columns)} columns"
                )
        else:
            mean, std = found["train"].mean(0), found["train"].std(0)
        std = np.where(std > 0, std, 1.0)
        found = {k: (v - mean) / std for k, v in found.items()}
        extras |= {"mean": mean.tolist(), "std": std.tolist()}

    def make(name: str, labels: np.ndarray | None, rows: np.ndarray) -> Source:
        return Arrays(found[name], labels, ids=rows, name=name)

    return make, {"in_features": len(columns)}, {"preprocess": extras}


def _texts(
    parts: Mapping[str, Any], where: str, *, tokenizer: Any, max_length: int, **_: Any
) -> Made:
    chosen = tokenizer_of(tokenizer, parts["train"])
    inputs = encode(chosen, parts, max_length)

    def make(name: str, labels: np.ndarray | None, rows: np.ndarray) -> Source:
        return Arrays(inputs[name], labels, ids=rows, name=name)

    extras = {"texts": {k: list(v) for k, v in parts.items()}, "tokenizer": chosen}
    return make, model_sizes(chosen, inputs["train"]), extras


def _arrays(parts: Mapping[str, Any], where: str, **_: Any) -> Made:
    first = parts["train"]
    shapes = {
        k: v.shape[1:] for k, v in (first if isinstance(first, dict) else {"inputs": first}).items()
    }
    for name, part in parts.items():
        other = part if isinstance(part, dict) else {"inputs": part}
        if {k: v.shape[1:] for k, v in other.items()} != shapes:
            raise DataError(
                f"{where}: samples of {name} have another shape than those of train, {shapes}"
            )
    sizes: dict[str, int] = {}
    if isinstance(first, dict) and "input_ids" in first:
        top = max(int(p["input_ids"].max()) for p in parts.values())
        sizes = {"vocabulary": top + 1, "length": first["input_ids"].shape[1]}
    elif not isinstance(first, dict):
        sizes["in_features"] = int(np.prod(first.shape[1:]))
        if first.ndim == 4:
            sizes["in_channels"] = first.shape[1]
            if first.shape[2] == first.shape[3]:
                sizes["image_size"] = first.shape[2]

    def make(name: str, labels: np.ndarray | None, rows: np.ndarray) -> Source:
        return Arrays(_tensors(parts[name]), labels, ids=rows, name=f"{where}: {name}")

    return make, sizes, {}


def _tensors(x: Any) -> Any:
    """Token ids as int64, other whole numbers and reals as single precision."""
    if isinstance(x, dict):
        return {k: torch.as_tensor(v).long() if v.dtype.kind in "iub" else torch.as_tensor(v)
                for k, v in x.items()}  # fmt: skip
    return torch.as_tensor(x).float()


_INPUTS: dict[str, Callable[..., Made]] = {
    "images": _images, "table": _table, "text": _texts, "arrays": _arrays,
}  # fmt: skip
