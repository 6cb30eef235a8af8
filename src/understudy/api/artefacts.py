"""Teacher signals written, students exported."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from understudy.api.folders import read_json
from understudy.api.run import load
from understudy.errors import UserError
from understudy.files import write_json
from understudy.running import Studio
from understudy.setting import (
    Trained,
)
from understudy.training.distribution import pick_device


def write_signals(
    teacher: str | None,
    data: str | None,
    out: str | Path,
    *,
    shard: tuple[int, int] = (0, 1),
    classes: int | None = None,
    device: str | None = None,
    taps: tuple[str, ...] = (),
    dtype: Any = None,
    top_k: int | None = None,
    batch_size: int | None = None,
    texts: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> str:
    """Run a teacher once over data and keep what it says; returns a line to print.

    A causal language model says something of every token of texts; `texts` are fields of
    `TextSignals` (mode, k, draws, temperature, ...; engine="openai" with a base_url for an
    endpoint). dtype: fp32, of texts fp16. batch_size: 256 samples, or 32 texts.
    """
    from understudy.api.text_signals import TextSignals, refuse_store, setting_of, write_texts
    from understudy.settings import READING
    from understudy.teachers import Frozen
    from understudy.teachers import write_signals as write

    said = {k: v for k, v in (texts or {}).items() if v is not None}
    both = {"k": top_k, "dtype": dtype, "batch_size": batch_size}
    fields: dict[str, Any] = {k: v for k, v in both.items() if v is not None} | said
    how = TextSignals(**fields)
    refuse_store(teacher)
    given = {k: v for k, v in options.items() if v is not None}
    setting = setting_of(
        teacher, data, how, {**given, **({} if classes is None else {"classes": classes})}
    )
    if setting.kind == "language":
        if taps:
            raise UserError("--taps is for labelled samples: of texts logits are stored")
        return write_texts(
            teacher, setting, out, how, shard=shard, device=pick_device(device), progress=progress
        )
    if said:
        flag = next(iter(said)).replace("_", "-")
        raise UserError(f"--{flag} is for texts and causal language models")
    dtype, batch_size = dtype or "fp32", batch_size or 256
    studio = Studio(None, device=pick_device(device))
    task = studio.task(setting, 0)
    spec = setting.teachers["teacher"]
    if isinstance(spec, Trained):
        raise UserError(
            f"the teacher {teacher} has no weights; train it first (understudy distill)"
        )
    teaches = studio.teacher(setting, "teacher", 0)
    if isinstance(teaches, Frozen):
        teaches = Frozen(teaches.module, call=setting.call, taps=taps)
    sources = {"": task.train, "validate": task.validate, "test": task.test}
    lines = []
    for part, source in sources.items():
        if source is None:
            continue
        place = Path(out) / part
        store = write(
            teaches,
            source,
            place,
            view=task.view if not part else None,
            dtype=dtype,
            top_k=top_k,
            taps=taps if not part else (),
            batch_size=batch_size,
            shard=shard,
            progress=progress if not part else None,
        )
        if not part:
            reading = {k: v for k, v in setting.origin.items() if k != "data"}
            write_json(place / READING, reading)
        if store is None:
            return (
                f"shard {shard[0]}/{shard[1]} written to {out}; other workers' shards are missing "
                "still"
            )
        size = sum(
            f.stat().st_size
            for f in place.rglob("*")
            if f.is_file() and (part or not {"validate", "test"} & set(f.relative_to(place).parts))
        )
        lines.append(
            f"{len(source)} samples{f' of {part}' if part else ''} in {place}: "
            f"{size / 2**20:.2f} MiB, {size / len(source):.0f} bytes a sample"
        )
    return "\n".join(lines)


def export_run(
    folder: str | Path,
    *,
    format: Any = "onnx",
    int8: bool = False,
    out: str | Path | None = None,
    data: str | None = None,
    max_drop: float | None = None,
    factory: str | Callable[..., nn.Module] | None = None,
    **options: Any,
) -> Any:
    """Export a run's student, load the artefact back and judge it on the run's validation split.

    factory: what makes the module, where it is of your own code
    """
    from understudy.reporting import export, read_summary
    from understudy.settings import for_task, own

    folder = Path(folder)
    model = load(folder, factory=factory)
    config = read_json(folder / "config.json")
    setting_of_run = config["recipe"].get("setting", config)  # a labelling has no setting
    origin = dict(setting_of_run.get("origin") or {})
    summary = read_summary(folder)
    if summary["task"]["kind"] == "language":
        raise UserError(
            f"{folder} holds a causal language model, which writes text step by step with a cache: "
            f"{folder / 'student'} is what servers and converters read (AutoModelForCausalLM, "
            "AutoTokenizer); --format onnx and torch-export are for models of one pass"
        )
    given = {k: v for k, v in options.items() if v is not None}
    if data is None and "task" in origin:
        named = {k: v for k, v in origin.items() if v is not None}
        setting = for_task(named.pop("task"), **named)
    elif data is None and "data" not in origin:
        raise UserError(
            "the run's data was given in Python and is not known here: name it by --data"
        )
    else:
        labelled = summary["task"]["labelled"] > 0
        origin |= given | ({} if data is None else {"data": data})
        known = {} if labelled else {"classes": summary["task"]["classes"]}
        setting = own(teacher=None, student=str(folder / "student"), **{**known, **origin})
    task = setting.task_for(0)
    suffix = "onnx" if format == "onnx" else "pt2"
    path = Path(out) if out else folder / "export" / f"student{'-int8' if int8 else ''}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return export(
        model,
        task.example(2),
        path,
        format=format,
        int8=int8,
        validate=task.validate,
        metric=task.metric,
        kind=task.kind,
        max_drop=max_drop,
        calibrate=task.train,
    )
