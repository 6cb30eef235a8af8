"""ShuffleNet V1 (arXiv:1707.01083) and V2 (arXiv:1807.11164) in the CIFAR forms of the tables.

Both have a 1x1 stem of 24 channels and no pooling before the first stage. Initialisation is
PyTorch's own, as in the reference.
"""

import torch
from torch import Tensor, nn

from understudy.errors import UserError
from understudy.students.families._parts import ConvUnit, at_least, pooled


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: channel `g * n + c` of g groups of n goes to `c * groups + g`."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleV1Block(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; a striding block concatenates its input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int):
        super().__init__()
        new = out_channels - in_channels if stride == 2 else out_channels
        middle = new // 4
        self.groups = 1 if in_channels == 24 else groups  # the stem is too thin to be grouped
        self.reduce = ConvUnit(in_channels, middle, 1, groups=self.groups)
        self.depthwise = ConvUnit(middle, middle, 3, stride=stride, groups=middle)
        self.expand = nn.Conv2d(middle, new, 1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(new)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        out = self.depthwise(shuffled(self.reduce(x), self.groups))
        out = self.bn(self.expand(out))
        return self.relu(out + x if self.pool is None else torch.cat([out, self.pool(x)], 1))


class ShuffleV2Block(nn.Module):
    """Half of the channels pass; the other half is convolved; then both are shuffled.

    `relu` works on the convolved half alone, so `relu:in` has half of the channels.
    """

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = ConvUnit(half, half, 1)
        self.depthwise = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        kept, moved = x.chunk(2, 1)
        moved = self.bn2(self.depthwise(self.conv1(moved)))
        moved = self.relu(self.bn3(self.conv3(moved)))
        return shuffled(torch.cat([kept, moved], 1), 2)


class ShuffleV2Down(nn.Module):
    """Halves height and width: both branches see the whole input and are concatenated."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        half = out_channels // 2
        self.left_depthwise = nn.Conv2d(
            in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False
        )
        self.left_bn = nn.BatchNorm2d(in_channels)
        self.left = ConvUnit(in_channels, half, 1)
        self.right1 = ConvUnit(in_channels, half, 1)
        self.right_depthwise = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.right_bn = nn.BatchNorm2d(half)
        self.right2 = ConvUnit(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / 2, W / 2]."""
        left = self.left(self.left_bn(self.left_depthwise(x)))
        right = self.right2(self.right_bn(self.right_depthwise(self.right1(x))))
        return shuffled(torch.cat([left, right], 1), 2)


class ShuffleNet(nn.Module):
    """Stem, three stages, for V2 a 1x1 `tail`, average pool, linear head."""

    def __init__(self, stages: list[nn.Sequential], last: int, tail: int, classes: int, ins: int):
        super().__init__()
        self.stem = ConvUnit(ins, 24, 1)
        self.stage1, self.stage2, self.stage3 = stages
        self.tail = ConvUnit(last, tail, 1) if tail else nn.Identity()
        self.head = nn.Linear(tail or last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, K]."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(pooled(self.tail(x)))


def shufflenet_v1(
    *, classes: int, in_channels: int = 3, width: int = 240, groups: int = 3
) -> nn.Module:
    """4, 8 and 4 blocks of `width`, twice and four times as many channels."""
    at_least("shufflenet_v1", classes=classes, in_channels=in_channels, groups=groups)
    if groups not in (1, 2, 3, 6):
        raise UserError(f"shufflenet_v1: groups is {groups}; it must be 1, 2, 3 or 6")
    # A block's middle is a quarter of its new channels and is split into groups; the first block
    # of all makes `width - 24`, and 24 is a multiple of 4 * groups for these groups.
    if width < 25 or width % (4 * groups):
        raise UserError(
            f"shufflenet_v1: width is {width}; it must be more than 24 and a multiple of"
            f" {4 * groups} (4 x groups)"
        )
    stages, channels = [], 24
    for index, count in enumerate((4, 8, 4)):
        out = width * 2**index
        first = ShuffleV1Block(channels, out, 2, groups)
        rest = [ShuffleV1Block(out, out, 1, groups) for _ in range(count - 1)]
        stages.append(nn.Sequential(first, *rest))
        channels = out
    return ShuffleNet(stages, channels, 0, classes, in_channels)


_V2_WIDTHS = {
    0.2: (40, 80, 160, 512, 3),
    0.3: (40, 80, 160, 512, 7),
    0.5: (48, 96, 192, 1024, 7),
    1.0: (116, 232, 464, 1024, 7),
    1.5: (176, 352, 704, 1024, 7),
    2.0: (224, 488, 976, 2048, 7),
}


def shufflenet_v2(*, classes: int, in_channels: int = 3, width: float = 1.0) -> nn.Module:
    """A striding block and 3, 7 and 3 further blocks a stage, at one of the published widths."""
    if width not in _V2_WIDTHS:
        known = ", ".join(map(str, _V2_WIDTHS))
        raise UserError(f"shufflenet_v2: width is {width}; it must be one of {known}")
    at_least("shufflenet_v2", classes=classes, in_channels=in_channels)
    *widths, tail, middle = _V2_WIDTHS[width]
    stages, channels = [], 24
    for out, count in zip(widths, (3, middle, 3), strict=True):
        blocks = [ShuffleV2Block(out) for _ in range(count)]
        stages.append(nn.Sequential(ShuffleV2Down(channels, out), *blocks))
        channels = out
    return ShuffleNet(stages, channels, tail, classes, in_channels)
