"""A chat teacher, or a finished student, behind an OpenAI-compatible server."""

from understudy.serving.app import make_app
from understudy.serving.batching import Batcher, Busy
from understudy.serving.running import background, serve
from understudy.serving.targets import TARGETS, teacher_of

__all__ = [
    "TARGETS",
    "Batcher",
    "Busy",
    "background",
    "make_app",
    "serve",
    "teacher_of",
]
