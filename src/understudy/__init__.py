"""understudy: teacher-student learning.

`distill`, `compare`, `attach`, `load` and the common objectives (`ce`, `kd`, ...) are here; the
rest is in the rooms: `objectives`, `recipes`, `teachers`, `students`, `tasks`, `evaluation`, ...
Everything is imported when it is first used.
"""

# ruff: noqa: F401 (what type checkers see at the end)
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = (
    "algorithms", "data", "evaluation", "objectives", "recipes", "reporting", "settings", "signals",
    "store", "students", "tasks", "teachers", "training",
)  # fmt: skip
_HOMES = {
    **dict.fromkeys(
        ("Attached", "Run", "attach", "compare", "distill", "evaluate", "label", "load"), "api"
    ),
    **dict.fromkeys(("Budget",), "training.budget"),
    **dict.fromkeys(("Recipe", "Setting", "Stage", "Trained"), "setting"),
    **dict.fromkeys(("lora",), "settings.own_language"),
    **dict.fromkeys(("Batch", "Signals"), "signals"),
    **dict.fromkeys(("Studio",), "running"),
    **dict.fromkeys(("UserError",), "errors"),
}

__all__ = [*_HOMES, *_ROOMS, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"understudy.{name}")
    if name in _HOMES:
        return getattr(import_module(f"understudy.{_HOMES[name]}"), name)
    if name.startswith("_"):
        raise AttributeError(name)
    objectives = import_module("understudy.objectives")
    if name in objectives.__all__:
        return getattr(objectives, name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *import_module("understudy.objectives").__all__})


if TYPE_CHECKING:
    from understudy.api import Attached, Run, attach, compare, distill, evaluate, label, load
    from understudy.errors import UserError
    from understudy.objectives import *  # noqa: F403
    from understudy.running import Studio
    from understudy.setting import Recipe, Setting, Stage, Trained
    from understudy.settings.own_language import lora
    from understudy.signals import Batch, Signals
    from understudy.training.budget import Budget
