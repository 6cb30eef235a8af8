"""Knowledge review: levels of the student, fused with those above, match the teacher's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.objectives.base import PerSample
from understudy.objectives.pairs import STAGES, Paired, Places
from understudy.signals import Batch, Signals

LEVELS = (*STAGES, "penultimate")


class Fusion(nn.Module):
    """Attention-based fusion (ABF): a level's feature mixed with what comes from above it."""

    def __init__(self, width: int, middle: int, target: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.expand = nn.Sequential(
            nn.Conv2d(middle, target, 3, padding=1, bias=False), nn.BatchNorm2d(target)
        )
        self.attend = nn.Conv2d(2 * middle, 2, 1) if fuse else None
        nn.init.kaiming_uniform_(self.reduce[0].weight, a=1)  # pyright: ignore
        nn.init.kaiming_uniform_(self.expand[0].weight, a=1)  # pyright: ignore

    def forward(self, x: Tensor, above: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        """(what is compared, what goes down): [N, target, *size], [N, middle, *size]."""
        x = self.reduce(x)
        if self.attend is not None and above is not None:
            above = F.interpolate(above, x.shape[-2:], mode="nearest")
            share = self.attend(torch.cat([x, above], 1)).sigmoid()
            x = x * share[:, :1] + above * share[:, 1:]
        if list(x.shape[-2:]) != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.expand(x), x


class ReviewKD(Paired, PerSample):
    r"""Knowledge review: fused student levels against the teacher's by hierarchical context loss.

    From the top down, ABF mixes each level with the fused one above by two learned attention maps;
    the result is compared by HCL: the mean squared error at full size, plus those of the maps
    pooled to 4, 2 and 1 (where smaller than the map), weighted 1, 1/2, 1/4, 1/8 and divided by the
    weights' sum; summed over levels (section 3.3). Vectors count as maps of size 1. Squared units
    of the feature. Published: teacher's features before their ReLU, `width` min(512, the top
    level's) channels; weight 5 (resnet32x4) times a ramp over 20 epochs, at three stages and the
    pooled feature. Source: Chen et al., arXiv 2104.09044. Batch normalisation sees one microbatch,
    as the student's does.
    """

    name = "reviewkd"

    def __init__(
        self, student: Places = LEVELS, teacher: Places | None = None, *, width: int = 512
    ) -> None:
        super().__init__()
        self.pair_up(student, teacher)
        self.width = width
        self.fusions = nn.ModuleList()

    def build(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """One fusion a level, from the lowest to the highest."""
        pairs = [(_map(s), _map(t)) for s, t in self.pairs(student, teacher)]
        middle = min(self.width, pairs[-1][0].shape[1])
        self.fusions = nn.ModuleList(
            [
                Fusion(s.shape[1], middle, t.shape[1], fuse=i < len(pairs) - 1)
                for i, (s, t) in enumerate(pairs)
            ]
        )

    def values(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """[M], summed over levels."""
        levels = list(zip(self.fusions, self.pairs(student, teacher), strict=True))
        losses: list[Tensor] = []
        above: Tensor | None = None
        for fusion, (s, t) in reversed(levels):
            s, t = _map(s), _map(t)
            said, above = fusion(s, above, list(t.shape[-2:]))
            losses.append(context_loss(said, t))
        return torch.stack(losses).sum(0)


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss (HCL) of maps [N, C, H, W] of one shape, [N]."""

    def error(a: Tensor, b: Tensor) -> Tensor:
        return F.mse_loss(a, b, reduction="none").flatten(1).mean(1)

    loss, weight, total = error(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size >= student.shape[-2]:
            continue
        weight /= 2
        pooled = (F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
        loss = loss + weight * error(*pooled)
        total += weight
    return loss / total


def _map(x: Tensor) -> Tensor:
    """Maps as they are, vectors as maps of one position, tokens as a column of positions."""
    if x.ndim == 4:
        return x
    return x[:, :, None, None] if x.ndim == 2 else x.transpose(1, 2)[..., None]


def reviewkd(
    student: Places = LEVELS, teacher: Places | None = None, *, width: int = 512
) -> ReviewKD:
    """Knowledge review; see `ReviewKD`."""
    return ReviewKD(student, teacher, width=width)
