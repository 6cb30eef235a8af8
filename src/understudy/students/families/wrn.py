"""Wide residual networks (Zagoruyko and Komodakis, arXiv:1605.07146), pre-activation.

A stage ends in the sum of its last residual block, before normalisation, as in the reference; what
the literature calls its pre-activation is the output of the batch norm that follows
(`stage2.0.bn1` for stage 1, `stage3.0.bn1` for stage 2, `bn1` for stage 3) and its activation that
of the `relu` behind it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from understudy.students.families._parts import (
    at_least,
    depth_of_form,
    init_convs,
    pooled,
)


class WideBlock(nn.Module):
    """`shortcut + conv2(relu2(bn2(conv1(relu1(bn1(x))))))`.

    Where the width changes, the shortcut is a 1x1 convolution of the ACTIVATED input; elsewhere it
    is the input itself.
    """

    def __init__(self, in_channels: int, width: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.dropout = dropout
        same = in_channels == width
        self.shortcut = None if same else nn.Conv2d(in_channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        active = self.relu1(self.bn1(x))
        out = self.relu2(self.bn2(self.conv1(active)))
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        return self.conv2(out) + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """3x3 stem of 16, three stages, batch norm, ReLU, average pool, linear head."""

    def __init__(self, blocks: int, width: int, dropout: float, classes: int, in_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        widths = (16, 16 * width, 32 * width, 64 * width)

        def stage(index: int) -> nn.Sequential:
            before, after = widths[index - 1], widths[index]
            first = WideBlock(before, after, 1 if index == 1 else 2, dropout)
            rest = [WideBlock(after, after, 1, dropout) for _ in range(blocks - 1)]
            return nn.Sequential(first, *rest)

        self.stage1, self.stage2, self.stage3 = stage(1), stage(2), stage(3)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(widths[-1], classes)
        init_convs(self)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, K]."""
        x = self.stage3(self.stage2(self.stage1(self.conv1(x))))
        return self.head(pooled(self.relu(self.bn1(x))))


def wrn(
    *,
    classes: int,
    in_channels: int = 3,
    depth: int = 16,
    width: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Three stages of `(depth - 4) / 6` blocks of 16, 32 and 64 times `width` channels."""
    blocks = depth_of_form("wrn", depth, 6, 4)
    at_least("wrn", classes=classes, in_channels=in_channels, width=width)
    return WideResNet(blocks, width, dropout, classes, in_channels)
