"""Budget: how long and how a stage is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from understudy.errors import UserError

Schedule = Literal["constant", "linear", "cosine", "step"] | Callable[[float], float]
OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how a stage is trained.

    epochs:          passes over the data; `steps` (updates) instead, where given; `times` that
                     many: 0.5 is exactly half of the updates, also of those of one epoch
    batch_size:      samples an update, over all processes and microbatches
    optimizer:       sgd, adam, adamw, or a function of parameter groups
    lr:              learning rate at the top of the schedule
    schedule:        constant; linear or cosine decay to `final` times lr; step: times `gamma` at
                     each of `milestones` (epochs); or the factor as a function of the progress
                     after each update, above 0 to 1. `warmup`: share of updates rising from 0
    accumulate:      microbatches an update
    precision:       fp32, bf16 or fp16 (autocast; fp16 with loss scaling)
    clip:            largest gradient norm
    labelled_share:  share of each batch that has labels (semi-supervised methods)
    patience:        epochs without a better validation before stopping; None: never
    validate_every:  epochs between validations; validate_steps: updates between them instead;
                     save_every: updates between checkpoints besides those at validations (None:
                     none)
    channels_last:   convolutions' layout in memory, faster on accelerators
    compile:         student and teacher run through `torch.compile`, around the taps that are read
    """

    epochs: int = 30
    steps: int | None = None
    times: float = 1.0
    batch_size: int = 64
    optimizer: str | OptimizerFactory = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Schedule = "cosine"
    final: float = 0.0
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float | None = None
    labelled_share: float | None = None
    drop_last: bool = False
    patience: int | None = None
    validate_every: int = 1
    validate_steps: int | None = None
    save_every: int | None = None
    keep: int = 1
    deterministic: bool = False
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "steps": self.steps is None or self.steps >= 1,
            "times": self.times > 0,
            "batch_size": self.batch_size >= 1,
            "lr": self.lr > 0,
            "weight_decay": self.weight_decay >= 0,
            "momentum": 0 <= self.momentum < 1,
            "final": 0 <= self.final <= 1,
            "accumulate": 1 <= self.accumulate <= self.batch_size,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip is None or self.clip > 0,
            "patience": self.patience is None or self.patience >= 1,
            "validate_every": self.validate_every >= 1,
            "validate_steps": self.validate_steps is None or self.validate_steps >= 1,
            "save_every": self.save_every is None or self.save_every >= 1,
            "labelled_share": self.labelled_share is None or 0 < self.labelled_share < 1,
            "keep": self.keep >= 1,
            "precision": self.precision in ("fp32", "bf16", "fp16"),
            "schedule": callable(self.schedule)
            or self.schedule in ("constant", "linear", "cosine", "step"),
        }
        for name, good in checks.items():
            if not good:
                raise UserError(f"budget: {name} cannot be {getattr(self, name)!r}")
        if isinstance(self.optimizer, str) and self.optimizer not in ("sgd", "adam", "adamw"):
            raise UserError(f"optimizer is sgd, adam, adamw or a function, not {self.optimizer!r}")

    def lasting(self, times: float) -> "Budget":
        """That many times as long."""
        return replace(self, times=self.times * times)

    def updates(self, in_epoch: Callable[[int], int]) -> int:
        """All updates, of which there are `in_epoch(k)` in epoch k."""
        whole = self.steps
        if whole is None:
            whole = sum(in_epoch(k) for k in range(self.epochs))
        return max(1, round(self.times * whole))

    def rate(self, done: int, total: int, epoch: float) -> float:
        """The learning rate's factor for the update after `done` of `total`; a pure function."""
        warm = self.warmup * total
        if done < warm:
            return (done + 1) / (warm + 1)
        if callable(self.schedule):
            return float(self.schedule((done + 1) / (total + 1)))
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return self.gamma ** sum(epoch >= m for m in self.milestones)
        p = (done - warm) / max(total - warm, 1)
        fall = (1 + math.cos(math.pi * p)) / 2 if self.schedule == "cosine" else 1 - p
        return self.final + (1 - self.final) * fall

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over these parameter groups."""
        if not isinstance(self.optimizer, str):
            return self.optimizer(groups)
        fused = all(p.is_cuda and p.is_floating_point() for g in groups for p in g["params"])
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
                fused=fused,
            )
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
