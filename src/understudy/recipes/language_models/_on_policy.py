"""What the systems that learn from written texts share: a start on the labels, then the texts."""

from collections.abc import Mapping
from typing import Any

from understudy.data.on_policy import OnPolicy
from understudy.errors import UserError
from understudy.objectives import Objective, Total, lm_ce, written_by
from understudy.setting import Setting, Stage
from understudy.signals.authors import CORPUS


def started(
    setting: Setting, objective: Objective | Total, loader: OnPolicy, *, start: float
) -> tuple[Stage, ...]:
    """The student on its labels for a share `start` of the budget, then on what is written.

    What an untrained model writes is noise; published students were fine-tuned before.
    """
    if not 0 <= start < 1:
        raise UserError(f"start, the share of the budget on labels, lies in [0, 1), not {start}")
    first = Stage(name="start", objective=setting.supervised(), teacher=None, share=start)
    then = Stage(objective=objective, loader=loader, share=1.0 - start)
    return (first, then) if start else (then,)


def with_corpus(
    objective: Objective | Total, corpus: Any, weight: float
) -> tuple[Total | Objective, Mapping[str, Any]]:
    """The objective, and beside it the plain loss on texts of a corpus; settings of `OnPolicy`."""
    if corpus is None:
        return objective, {}
    return objective + weight * written_by(lm_ce(), CORPUS).named("corpus"), {"corpus": corpus}
