"""Models of Hugging Face `transformers`, from a folder or the hub; imported only when needed."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from understudy.errors import UserError, unknown
from understudy.students.echo import is_echo, load_echo
from understudy.students.state import first_line

# What stands in an architecture's name, the task, the class that loads it, has it label heads.
_TASKS = {
    "image-classification": (
        "ForImageClassification",
        "AutoModelForImageClassification",
        True,
    ),
    "text-classification": (
        "ForSequenceClassification",
        "AutoModelForSequenceClassification",
        True,
    ),
    "audio-classification": (
        "ForAudioClassification",
        "AutoModelForAudioClassification",
        True,
    ),
    "token-classification": (
        "ForTokenClassification",
        "AutoModelForTokenClassification",
        True,
    ),
    "causal-lm": ("ForCausalLM", "AutoModelForCausalLM", False),
    "seq2seq-lm": ("ForConditionalGeneration", "AutoModelForSeq2SeqLM", False),
    "masked-lm": ("ForMaskedLM", "AutoModelForMaskedLM", False),
}


def load_pretrained(
    name: str,
    *,
    classes: int | None = None,
    task: str | None = None,
    fresh: bool = False,
    new_head: bool = False,
) -> nn.Module:
    """The model in folder `name` or of hub name `name`, in evaluation mode (a fresh one too).

    The task is read from `config.architectures`. A checkpoint without a classification head (an
    encoder, a masked language model) gets a new one where `classes` is given; its kind, image or
    text, is what `transformers` knows the architecture for. A head with another number of labels
    is refused unless `new_head`.
    """
    try:
        import transformers
    except ImportError:
        raise UserError(f"{name} is a Hugging Face model: pip install transformers") from None

    if task is not None and task not in _TASKS:
        raise unknown("task", task, _TASKS)
    local = not Path(name).is_dir() and not _hub_answers()
    if not fresh and is_echo(name):
        return load_echo(name)
    try:
        config = transformers.AutoConfig.from_pretrained(
            name, trust_remote_code=False, local_files_only=local
        )
    except Exception as error:
        raise _not_loaded(name, error) from error
    found = _task_of(config)
    if task is None:
        task = found
        if task is None or (classes is not None and not _TASKS[task][2]):
            task = _head_for(transformers, config, name, classes)
    _, loader_name, labelled = _TASKS[task]
    options: dict[str, Any] = {}
    if labelled and classes is not None and classes != config.num_labels:
        if found == task and not (new_head or fresh):
            raise UserError(
                f"{name} has {config.num_labels} labels; {classes} classes are asked for"
                " (new_head=True replaces its head, --new-head a student's)"
            )
        config.num_labels = classes
        options["ignore_mismatched_sizes"] = True
    loader = getattr(transformers, loader_name)
    try:
        with quiet(Path(name).is_dir()):
            if fresh:
                return loader.from_config(config, trust_remote_code=False).eval()
            return loader.from_pretrained(
                name, config=config, trust_remote_code=False, local_files_only=local, **options
            ).eval()
    except Exception as error:
        raise _not_loaded(name, error) from error


@contextmanager
def quiet(local: bool) -> Iterator[None]:
    """No bar for what is read or written in a moment; a download shows its own."""
    from transformers.utils import logging

    shown = local and logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _hub_answers() -> bool:
    """False where the hub's name does not resolve: its client would retry for half a minute.

    Models in the local cache are then still found. Behind a proxy the name need not resolve here.
    """
    if urllib.request.getproxies():
        return True
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _task_of(config: Any) -> str | None:
    for architecture in getattr(config, "architectures", None) or ():
        for task, (part, *_) in _TASKS.items():
            if part in architecture:
                return task
        if architecture.endswith("LMHeadModel"):
            return "causal-lm"
    return None


def _head_for(transformers: Any, config: Any, name: str, classes: int | None) -> str:
    """The classification task for an encoder, by which head `transformers` has for it."""
    if classes is not None:
        for task, (_, loader, labelled) in _TASKS.items():
            if labelled and type(config) in getattr(transformers, loader)._model_mapping:
                return task
    heads = ", ".join(getattr(config, "architectures", None) or ("none named",))
    raise UserError(
        f"{name} ({heads}) has no head that is known here; pass task=, one of {', '.join(_TASKS)},"
        " or classes= for a new classification head"
    )


def _not_loaded(name: str, error: Exception) -> UserError:
    if Path(name).is_dir():
        return UserError(f"{name} cannot be loaded: {first_line(error)}")
    return UserError(
        f"{name} cannot be had from the Hugging Face hub (offline, or there is no such model):"
        f" {first_line(error)}; a local folder works without network"
    )
