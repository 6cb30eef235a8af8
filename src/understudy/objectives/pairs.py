"""What feature objectives share: pairs of taps, and features brought to one form."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.errors import SignalError, UserError
from understudy.objectives.base import Needs, Objective
from understudy.objectives.connect import as_kind, resize
from understudy.signals import Signals

Places = str | tuple[str, ...]
"""One tap or several, by name."""

STAGES = ("stage.0", "stage.1", "stage.2")
"""The three stages of the CIFAR networks of the published tables."""


class Paired:
    """Mixed into an objective that compares features at pairs of taps."""

    places: tuple[tuple[str, str], ...]

    def pair_up(
        self, student: Places, teacher: Places | None, *, logits: bool = False, **needs: Any
    ) -> None:
        """Declare the taps; without `teacher` the names of the student's are used for both."""
        here = (student,) if isinstance(student, str) else tuple(student)
        there = here if teacher is None else (teacher,) if isinstance(teacher, str) else teacher
        if len(here) != len(there) or not here:
            raise UserError(
                f"taps come in pairs: {len(here)} of the student, {len(there)} of the teacher"
            )
        self.places = tuple(zip(here, there, strict=True))
        assert isinstance(self, Objective)
        self.needs = Needs(student=here, teacher=tuple(there), logits=logits, **needs)

    def pairs(self, student: Signals, teacher: Signals) -> Iterator[tuple[Tensor, Tensor]]:
        """(student's, teacher's) feature at each pair of taps."""
        for here, there in self.places:
            yield student.feature(here), teacher.feature(there)


def vectors(x: Tensor) -> Tensor:
    """[N, ...] to [N, D]."""
    return x.flatten(1)


def grid(x: Tensor, what: str) -> Tensor:
    """A feature [N, C, H, W] or tokens [N, L, d] as [N, C, P], channels by positions."""
    if x.ndim == 4:
        return x.flatten(2)
    if x.ndim == 3:
        return x.transpose(1, 2)
    raise SignalError(
        f"{what} compares positions, and this feature has none (shape {list(x.shape)}); "
        "tap a layer before the pooling"
    )


def same_size(a: Tensor, b: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Two features as [N, C, P] over the same positions: the larger is average-pooled."""
    if a.ndim == 4 and b.ndim == 4:
        height, width = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
        a, b = (
            x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))
            for x in (a, b)
        )
    a, b = grid(a, what), grid(b, what)
    if a.shape[2] != b.shape[2]:
        length = min(a.shape[2], b.shape[2])
        a, b = (
            resize(x.transpose(1, 2), (len(x), length, x.shape[1])).transpose(1, 2) for x in (a, b)
        )
    return a, b


def cells(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two features as [N, C, P] over the same positions; a vector is one position."""
    if a.ndim == 2 or b.ndim == 2:
        return as_kind(a, 2)[:, :, None], as_kind(b, 2)[:, :, None]
    return same_size(a, b, "this objective")


def unit(x: Tensor, dim: int = -1, eps: float = 1e-12) -> Tensor:
    """X / ||x||_2 along `dim`; a vector of (nearly) zero stays zero and gets no gradient.

    (Dividing by a clamped norm would give it a gradient of 1 / eps.)
    """
    squares = x.square().sum(dim, keepdim=True)
    there = squares > eps**2
    return torch.where(there, x / torch.where(there, squares, 1.0).sqrt(), 0.0)


def checked_form(form: str, *forms: str) -> str:
    """The form, refused where it is none of `forms`."""
    if form not in forms:
        raise UserError(f"form is {' or '.join(forms)}, not {form!r}")
    return form
