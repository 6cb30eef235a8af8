"""What `import understudy` shows: distill, compare, attach, evaluate, load, Run."""

from understudy.api.artefacts import export_run, write_signals
from understudy.api.attaching import Attached, attach
from understudy.api.distilling import distill
from understudy.api.labelling import LabelRun, label, label_plan
from understudy.api.leagues import compare
from understudy.api.playing import plan, play
from understudy.api.run import Run, evaluate, load
from understudy.league import method_of
from understudy.setting import Setting

__all__ = [
    "Attached",
    "LabelRun",
    "Run",
    "Setting",
    "attach",
    "compare",
    "distill",
    "evaluate",
    "export_run",
    "label",
    "label_plan",
    "load",
    "method_of",
    "plan",
    "play",
    "write_signals",
]
