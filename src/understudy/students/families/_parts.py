"""What the convolutional families share: a conv unit, initialisation, checks of sizes."""

from torch import Tensor, nn

from understudy.errors import UserError


class ConvUnit(nn.Module):
    """`relu(bn(conv(x)))`, each part reachable by path: the pre-activation is `relu:in`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


def init_convs(model: nn.Module) -> None:
    """Normal with variance `2 / (kernel area * out channels)`, as the references have it.

    That is Kaiming's `fan_out`; for a depthwise kernel too, since PyTorch counts the fan without
    dividing by groups, as MobileNetV2's reference does.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pooled(x: Tensor) -> Tensor:
    """Global average over height and width: [B, C, H, W] -> [B, C]."""
    return x.mean((2, 3))


def at_least(family: str, minimum: int = 1, **sizes: int) -> None:
    """Refuses a size under `minimum`."""
    for name, value in sizes.items():
        if value < minimum:
            raise UserError(f"{family}: {name} is {value}; it must be at least {minimum}")


def depth_of_form(family: str, depth: int, per_block: int, rest: int) -> int:
    """Blocks a stage of a network of depth `per_block * n + rest`."""
    blocks, left = divmod(depth - rest, per_block)
    if left or blocks < 1:
        some = ", ".join(str(per_block * n + rest) for n in (1, 2, 3, 5, 6, 9))
        raise UserError(f"{family}: depth is {depth}; it must be {per_block}n+{rest}, as {some}")
    return blocks
