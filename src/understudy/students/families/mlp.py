"""A multi-layer perceptron for tables, vectors and small images."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from understudy.errors import UserError
from understudy.students.families._parts import at_least


class DenseUnit(nn.Module):
    """`relu(norm(linear(x)))`; the pre-activation is `relu:in`."""

    def __init__(self, in_features: int, width: int, norm: bool, dropout: float):
        super().__init__()
        self.linear = nn.Linear(in_features, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.dropout = dropout
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F] -> [B, width]."""
        x = self.relu(self.norm(self.linear(x)))
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class MLP(nn.Module):
    """Flatten, `stage1` ... `stageN` (one hidden layer each), linear head."""

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        norm: bool,
        dropout: float,
        classes: int,
    ):
        super().__init__()
        self.in_features, self.stages = in_features, depth
        features = in_features
        for index in range(depth):
            unit = DenseUnit(features, width, norm, dropout)
            self.add_module(f"stage{index + 1}", nn.Sequential(unit))
            features = width
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> logits [B, K]."""
        if math.prod(x.shape[1:]) != self.in_features:
            raise UserError(
                f"mlp: a sample has shape {tuple(x.shape[1:])} = {math.prod(x.shape[1:])} values;"
                f" the model was built for in_features={self.in_features}"
            )
        x = x.flatten(1)
        for index in range(self.stages):
            x = self.get_submodule(f"stage{index + 1}")(x)
        return self.head(x)


def mlp(
    *,
    classes: int,
    in_features: int,
    width: int = 128,
    depth: int = 2,
    norm: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """`depth` hidden layers of `width`; depth 0 is a linear classifier. Any input is flattened."""
    at_least("mlp", classes=classes, in_features=in_features, width=width)
    at_least("mlp", 0, depth=depth)
    return MLP(in_features, width, depth, norm, dropout, classes)
