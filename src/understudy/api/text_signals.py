"""What a language model says of texts, written to disk: from a local model or from an endpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.errors import UserError, unknown
from understudy.files import write_json
from understudy.running import Studio
from understudy.setting import Setting, Trained
from understudy.settings import READING, SETTINGS, for_task, is_store, own
from understudy.signals import as_call
from understudy.tasks.task import Task

ENGINES = ("transformers", "openai")
PAID_TEXTS = 64
"""Texts a shard where each is paid for: the most that a kill can lose."""


@dataclass(frozen=True, kw_only=True)
class TextSignals:
    """How signals of texts are written; see `teachers.write_text_signals`.

    engine:      transformers (a local model) or openai (an endpoint that lists log-probabilities of
                 a prompt: vLLM and its kin)
    base_url:    of the endpoint, with key_env, the name of the variable that holds the key
    vocabulary:  token ids that the endpoint's model has (default: the tokenizer's)
    load_in_4bit, device_map: of a local model too large for one GPU; not tried on a GPU here
    """

    mode: Literal["top-k", "sampled", "hidden"] = "top-k"
    k: int = 12
    draws: int = 50
    proposal: float = 1.0
    tail: Literal["uniform", "renormalise", "bucket"] = "uniform"
    temperature: float = 1.0
    seed: int = 0
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    batch_size: int = 32
    shard_rows: int | None = None
    engine: Literal["transformers", "openai"] = "transformers"
    base_url: str | None = None
    key_env: str | None = None
    vocabulary: int | None = None
    load_in_4bit: bool = False
    device_map: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        far = [n for n in ("base_url", "key_env", "vocabulary") if getattr(self, n) is not None]
        if self.engine == "transformers" and far:
            raise UserError(f"--{far[0].replace('_', '-')} is for --engine openai")
        if self.engine == "openai" and self.base_url is None:
            raise UserError(
                "--engine openai needs --base-url, such as http://localhost:8000/v1 (and --key-env "
                "VARIABLE where a key is asked for)"
            )
        if self.engine == "openai" and (self.load_in_4bit or self.device_map):
            raise UserError("--load-in-4bit and --device-map are for --engine transformers")


def setting_of(
    teacher: str | None, data: str | None, how: TextSignals, options: dict[str, Any]
) -> Setting:
    """The pair's data, and its teacher where it is a local one.

    A built-in setting is named by `data` (its own teacher speaks where none is named).
    """
    named = next((n for n in (data, teacher) if n in SETTINGS), None)
    if named is not None and data in (None, named):
        setting = for_task(named)
        if teacher in (None, named):
            return setting
        if how.engine == "openai":
            return setting.but(teachers={})
        return setting.but(**{"teachers.teacher": teacher})
    if data is None:
        raise UserError("signals write needs --data: a file of texts, or a built-in setting's name")
    if how.engine == "openai":
        if options.get("tokenizer") is None:
            raise UserError(
                "an endpoint does not say how it reads text: give --tokenizer DIR, its model's"
            )
        return own(teacher=None, student="none", data=data, kind="language", **options)
    if teacher is None:
        raise UserError("signals write needs --teacher: a folder, a hub name, or a setting's name")
    return own(teacher=teacher, student="none", data=data, **options)


def speaker(setting: Setting, task: Task, teacher: str | None, how: TextSignals, studio: Studio):
    """The teacher that says something about the texts."""
    from understudy.students.quantised import load_quantised
    from understudy.teachers import Endpoint, Frozen, Server

    tokenizer = task.extras.get("tokenizer")
    if how.engine == "openai":
        if teacher is None:
            raise UserError("--engine openai needs --teacher, the model's name at the endpoint")
        assert how.base_url is not None
        return Endpoint(
            Server(base_url=how.base_url, key_env=how.key_env),
            teacher,
            vocabulary=how.vocabulary or task.classes,
            k=how.k,
            tokenizer=tokenizer if hasattr(tokenizer, "decode") else None,
            tail=how.tail,
        )
    name = setting.teacher
    if name is None:
        raise UserError(f"the setting {setting.name} has no teacher: name one by --teacher")
    spec = setting.teachers[name]
    if isinstance(spec, Trained):
        raise UserError(
            f"the teacher {teacher or setting.name} has no weights; train it first (understudy "
            "distill)"
        )
    if how.load_in_4bit or how.device_map is not None:
        model = load_quantised(
            str(teacher), load_in_4bit=how.load_in_4bit, device_map=how.device_map
        )
        return Frozen(model, call=as_call(setting.teacher_call or setting.call))
    return studio.teacher(setting, name, 0)


def write_texts(
    teacher: str | None,
    setting: Setting,
    out: str | Path,
    how: TextSignals,
    *,
    shard: tuple[int, int] = (0, 1),
    device: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write signals of all parts of a language task; returns lines to print."""
    from understudy.teachers import write_text_signals

    studio = Studio(None, device=device)
    task = studio.task(setting, 0)
    if task.view is not None:
        raise UserError(f"{setting.name} shows its texts through a view, which is not stored")
    says = speaker(setting, task, teacher, how, studio)
    rows = how.shard_rows or (PAID_TEXTS if how.engine == "openai" else None)
    lines = []
    # of the texts that a student is judged on, a paid endpoint is not asked
    parts = ("", "validate", "test") if how.engine == "transformers" else ("",)
    for part in parts:
        source = getattr(task, part or "train")
        if source is None:
            continue
        place = Path(out) / part
        store = write_text_signals(
            says,
            source,
            place,
            mode=how.mode,
            k=how.k,
            draws=how.draws,
            proposal=how.proposal,
            tail=how.tail,
            temperature=how.temperature,
            seed=how.seed,
            dtype=how.dtype,
            tokenizer=task.extras.get("tokenizer"),
            batch_size=how.batch_size,
            shard=shard,
            shard_rows=rows,
            progress=progress if not part else None,
        )
        if not part:
            reading = {k: v for k, v in setting.origin.items() if k != "data"}
            write_json(place / READING, reading)
        if store is None:
            lines.append(
                f"shard {shard[0]}/{shard[1]}{f' of {part}' if part else ''} written to {place}; "
                "other workers' shards are missing still"
            )
            continue
        m = store.manifest
        lines.append(
            f"{len(source)} texts{f' of {part}' if part else ''} in {place}: {m['tokens']} tokens, "
            f"{m['bytes'] / 2**20:.2f} MiB, {m['bytes_per_token']:.1f} bytes a token ({how.mode})"
        )
    return "\n".join(lines)


def refuse_store(teacher: str | None) -> None:
    """Signals are not made of signals."""
    if teacher is not None and is_store(teacher):
        raise UserError(f"{teacher} holds stored signals already; name the model that made them")
