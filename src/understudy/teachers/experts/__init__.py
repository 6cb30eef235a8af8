"""Small real models that read the prompts a chat model would get, and answer in its form."""

from importlib import import_module
from typing import Any

from understudy.errors import unknown
from understudy.teachers.experts.base import Choice, Expert
from understudy.teachers.experts.encoder import SentenceEncoder, minilm
from understudy.teachers.experts.entailment import Entailment
from understudy.teachers.experts.zero_shot import ZeroShot

EXPERTS: dict[str, str] = {
    "zero-shot": "understudy.teachers.experts.zero_shot:ZeroShot",
    "entailment": "understudy.teachers.experts.entailment:Entailment",
}
"""Experts by name; a new one is an `Expert` and a line here."""


def expert(name: str, **options: Any) -> Expert:
    """The expert of a name; options are its own."""
    if name not in EXPERTS:
        raise unknown("expert", name, EXPERTS)
    module, _, found = EXPERTS[name].partition(":")
    return getattr(import_module(module), found)(**options)


__all__ = [
    "EXPERTS",
    "Choice",
    "Entailment",
    "Expert",
    "SentenceEncoder",
    "ZeroShot",
    "expert",
    "minilm",
]
