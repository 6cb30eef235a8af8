"""ResNets in their CIFAR forms (He et al., arXiv:1512.03385, section 4.2), post-activation.

A stage's output is its post-activation map; the pre-activation is the input of the last block's
last `relu` (`stage2.-1.relu:in`). Shapes and initialisation are those of the published
distillation tables (CRD, arXiv:1910.10699).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from understudy.students.families._parts import (
    at_least,
    depth_of_form,
    init_convs,
    pooled,
)


class BasicBlock(nn.Module):
    """`relu(shortcut(x) + bn2(conv2(relu1(bn1(conv1(x))))))`."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides), 1x1 to four times the width, then as in `BasicBlock`."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        return self.relu(out)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResNet(nn.Module):
    """Stem, stages of doubling stride (the first keeps its size), average pool, linear head."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: int,
        *,
        classes: int,
        in_channels: int,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        channels = stem
        self.stages = len(blocks)
        for index, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for position in range(count):
                stride = 2 if index and not position else 1
                layers.append(block(channels, width, stride))
                channels = width * block.expansion
            self.add_module(f"stage{index + 1}", nn.Sequential(*layers))
        self.head = nn.Linear(channels, classes)
        init_convs(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, K]."""
        x = self.relu(self.bn1(self.conv1(x)))
        for index in range(self.stages):
            x = self.get_submodule(f"stage{index + 1}")(x)
        return self.head(pooled(x))


def resnet(
    *,
    classes: int,
    in_channels: int = 3,
    depth: int = 20,
    width: int = 16,
    stem: int = 16,
) -> nn.Module:
    """Three stages of `(depth - 2) / 6` basic blocks, `width`, twice and four times as wide.

    `resnet8x4` and `resnet32x4` of the published tables have width 64 behind a stem of 32.
    """
    blocks = depth_of_form("resnet", depth, 6, 2)
    at_least("resnet", classes=classes, in_channels=in_channels, width=width, stem=stem)
    widths = (width, 2 * width, 4 * width)
    return ResNet(BasicBlock, [blocks] * 3, widths, stem, classes=classes, in_channels=in_channels)


def _four_stages(block: type, blocks: Sequence[int], width: int, classes: int, in_channels: int):
    at_least("resnet", classes=classes, in_channels=in_channels, width=width)
    widths = [width * 2**i for i in range(4)]
    return ResNet(block, blocks, widths, width, classes=classes, in_channels=in_channels)


def resnet18(*, classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """The four-stage ResNet with basic blocks and a 3x3 stem without pooling."""
    return _four_stages(BasicBlock, (2, 2, 2, 2), width, classes, in_channels)


def resnet34(*, classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """As `resnet18`, with 3, 4, 6 and 3 blocks."""
    return _four_stages(BasicBlock, (3, 4, 6, 3), width, classes, in_channels)


def resnet50(*, classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """The four-stage ResNet with bottleneck blocks and a 3x3 stem without pooling."""
    return _four_stages(Bottleneck, (3, 4, 6, 3), width, classes, in_channels)
