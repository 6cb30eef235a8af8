r"""Reverse KL from the tokens that the student has drawn: estimators, and what their gradient is.

With d = log q(y) - log p(y) of a token y that the student q has drawn (p teaches):

    k1 = d        k2 = d^2 / 2        k3 = exp(-d) - 1 + d

k1 and k3 are unbiased values of KL(q || p), k2 a biased one of less variance. Source: Schulman,
"Approximating KL divergence" (2020). What an update does is another matter, as y depends on q:

    form      k1                   k2                    k3
    advantage grad KL(q || p)      refused               refused
    loss      refused              grad KL(q || p)       grad KL(p || q)

k1 as a loss has a gradient, grad log q(y), that knows nothing of the teacher and is zero in the
mean. k2 or k3 as a reward punish tokens that the teacher likes more as much as those that it likes
less. k3 as a loss pulls forward, not reverse: E_q[(1 - p/q) grad log q] = -sum p grad log q.
"""

from typing import Literal

import torch
from torch import Tensor

from understudy.errors import UserError, unknown
from understudy.objectives.base import Needs, Objective, Sum, active, nothing
from understudy.objectives.planning import packed
from understudy.objectives.positions import Rows, per_position
from understudy.signals import Batch, Signals

_ESTIMATORS = ("k1", "k2", "k3")
_REFUSED = {
    ("k1", "loss"): (
        "k1 as a loss teaches nothing: its gradient does not depend on the teacher; use "
        "form='advantage', or k2"
    ),
    ("k2", "advantage"): (
        "k2 as a reward punishes tokens that the teacher prefers as much as those that it does "
        "not; use k1, or form='loss'"
    ),
    ("k3", "advantage"): (
        "k3 as a reward has the gradient of KL(q || p) less that of KL(p || q); use k1, or "
        "form='loss'"
    ),
}


def token_log_probabilities(log_q: Tensor, log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log q(y) and log p(y), [n] each."""
    return log_q.gather(-1, labels[:, None])[:, 0], log_p.gather(-1, labels[:, None])[:, 0]


class SampledKL(Objective):
    r"""KL(q || p) of the student and the teacher, estimated at the student's own tokens, in nats.

    The labels of the counted positions have to be drawn from the student as it is
    (`data.on_policy`), at temperature 1. The value is the estimator's, whatever the form. As an
    advantage the gradient is sum_t A_t grad log q(y_t) with A_t = sum_{k >= 0} discount^k
    k1_{t+k}, kept constant; `discount=0` credits each token for itself alone. d is held within
    +-`limit` (None for no limit).
    """

    name = "sampled_kl"
    needs = Needs(labels=True)
    counts = "labelled"

    def __init__(
        self, estimator: str, form: str, *, discount: float = 0.0, limit: float | None = 10.0
    ) -> None:
        super().__init__()
        if estimator not in _ESTIMATORS:
            raise unknown("estimator", estimator, _ESTIMATORS)
        if form not in ("advantage", "loss"):
            raise unknown("form", form, ("advantage", "loss"))
        if (estimator, form) in _REFUSED:
            raise UserError(_REFUSED[estimator, form])
        if not 0 <= discount <= 1:
            raise UserError(f"discount lies in [0, 1], not {discount}")
        if discount and form == "loss":
            raise UserError("a loss has no discount: it credits no token for later ones")
        if limit is not None and limit <= 0:
            raise UserError(f"limit is above 0, not {limit}")
        self.estimator, self.form = estimator, form
        self.discount, self.limit = discount, limit
        self.coupling: Literal["position", "sample"] = "sample" if discount else "position"  # pyright: ignore[reportIncompatibleVariableOverride]

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """Weighted sum over the counted positions."""
        found = packed(self, student, teacher, batch)
        if found is None:
            return Sum(nothing(student), active(self, batch).sum().float())
        said, heard, small, count, share = found
        assert small.labels is not None
        mine, theirs = per_position(token_log_probabilities, said, heard, small.labels)
        d = mine - theirs
        if self.limit is not None:
            d = d.clamp(-self.limit, self.limit)
        if self.estimator == "k2":
            values = d.square() / 2
        elif self.estimator == "k3":
            values = torch.expm1(-d) + d
        else:
            reward = d.detach()
            to_go = Rows(self, batch, student).to_go(reward, self.discount)
            # the value of the estimator with the gradient of the policy
            values = reward + to_go * (mine - mine.detach())
        if small.weights is not None:
            values = values * small.weights
        return Sum(share * values.sum(), count)


def sampled_kl(
    estimator: str = "k1",
    form: str | None = None,
    *,
    discount: float = 0.0,
    limit: float | None = 10.0,
) -> SampledKL:
    """Reverse KL at the student's own tokens; form: advantage (for k1) or loss (for k2 and k3).

    Meaningless combinations are refused; see `understudy.objectives.policy`.
    """
    form = form or ("advantage" if estimator == "k1" else "loss")
    return SampledKL(estimator, form, discount=discount, limit=limit)
