"""Where the signal comes from: frozen models, ensembles, averages of the student, stores."""

from understudy.teachers.base import Gives, Teacher, fingerprint_of
from understudy.teachers.convert import as_teacher
from understudy.teachers.ema import EMA
from understudy.teachers.endpoint import Endpoint
from understudy.teachers.ensemble import Ensemble
from understudy.teachers.frozen import Frozen, still
from understudy.teachers.server import Server
from understudy.teachers.stored import Stored
from understudy.teachers.texts import write_text_signals
from understudy.teachers.write import view_words, write_signals

__all__ = [
    "EMA",
    "Endpoint",
    "Ensemble",
    "Frozen",
    "Gives",
    "Server",
    "Stored",
    "Teacher",
    "as_teacher",
    "fingerprint_of",
    "still",
    "view_words",
    "write_signals",
    "write_text_signals",
]
