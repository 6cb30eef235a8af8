"""Plain PyTorch that one would write for five methods, without this library: encoder_step's other.

Networks return their features, losses are modules that are called with them, as in the published
code of the tables (RepDistiller, mdistiller). Names of parameters are those of the built-in
families, so that weights can be copied; in-place operations are where that code has them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Said(NamedTuple):
    """What a network returns: logits, and its features before and after each stage's last ReLU."""

    logits: Tensor
    stages: list[Tensor]
    before: list[Tensor]
    pooled: Tensor


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = out.add_(shortcut)
        return F.relu(out), out


class ResNet(nn.Module):
    """A CIFAR ResNet of basic blocks that returns its features."""

    def __init__(self, depth: int, width: int, classes: int, stem: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        blocks = (depth - 2) // 6
        self.stage1 = self._stage(blocks, stem, width, 1)
        self.stage2 = self._stage(blocks, width, 2 * width, 2)
        self.stage3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.head = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(blocks: int, before: int, width: int, stride: int) -> nn.Sequential:
        first = Block(before, width, stride)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Said:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        stages: list[Tensor] = []
        befores: list[Tensor] = []
        for stage in (self.stage1, self.stage2, self.stage3):
            before = x
            for block in stage:
                x, before = block(x)
            stages.append(x)
            befores.append(before)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return Said(self.head(pooled), stages, befores, pooled)


class KD(nn.Module):
    def __init__(self, temperature: float, weight: float) -> None:
        super().__init__()
        self.temperature, self.weight = temperature, weight

    def forward(self, student: Said, teacher: Said, labels: Tensor) -> Tensor:
        t = self.temperature
        log_q = F.log_softmax(student.logits / t, 1)
        p = F.softmax(teacher.logits / t, 1)
        soft = F.kl_div(log_q, p, reduction="batchmean") * t**2
        return F.cross_entropy(student.logits, labels) + self.weight * soft


class Hint(nn.Module):
    """The stage of FitNets that learns from the hint alone."""

    def __init__(self, student_width: int, teacher_width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.conv = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        self.bn = nn.BatchNorm2d(teacher_width)

    def forward(self, student: Said, teacher: Said, labels: Tensor) -> Tensor:
        regressed = F.relu(self.bn(self.conv(student.stages[1])), inplace=True)
        return self.weight * F.mse_loss(regressed, teacher.stages[1])


class DKD(nn.Module):
    def __init__(self, alpha: float, beta: float, temperature: float) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student: Said, teacher: Said, labels: Tensor) -> Tensor:
        t = self.temperature
        target = torch.zeros_like(student.logits).scatter_(1, labels[:, None], 1).bool()
        q = F.softmax(student.logits / t, 1)
        p = F.softmax(teacher.logits / t, 1)
        q_two = torch.stack([(q * target).sum(1), (q * ~target).sum(1)], 1)
        p_two = torch.stack([(p * target).sum(1), (p * ~target).sum(1)], 1)
        tckd = F.kl_div(q_two.log(), p_two, reduction="batchmean")
        p_rest = F.softmax(teacher.logits / t - 1000.0 * target, 1)
        log_q_rest = F.log_softmax(student.logits / t - 1000.0 * target, 1)
        nckd = F.kl_div(log_q_rest, p_rest, reduction="batchmean")
        loss = (self.alpha * tckd + self.beta * nckd) * t**2
        return F.cross_entropy(student.logits, labels) + loss


class CRD(nn.Module):
    """Negatives are the batch's and a queue's, of other classes."""

    def __init__(
        self, student_width: int, teacher_width: int, width: int, tau: float, queue: int, weight: float
    ) -> None:  # fmt: skip
        super().__init__()
        self.tau, self.size, self.weight = tau, queue, weight
        self.embed_s = nn.Linear(student_width, width)
        self.embed_t = nn.Linear(teacher_width, width)
        self.z = torch.ones(())
        self.queue_s, self.queue_t = torch.zeros(queue, width), torch.zeros(queue, width)
        self.queue_y = torch.zeros(queue, dtype=torch.long)
        self.held, self.cursor = 0, 0

    def embed(self, student: Said, teacher: Said) -> tuple[Tensor, Tensor]:
        s = F.normalize(self.embed_s(student.pooled))
        return s, F.normalize(self.embed_t(teacher.pooled))

    @torch.no_grad()
    def set_constant(self, student: Said, teacher: Said) -> None:
        """The normalising constant, from one batch before training."""
        s, t = self.embed(student, teacher)
        self.z = torch.exp(s @ t.T / self.tau).mean()

    def contrast(self, one: Tensor, others: Tensor, negative: Tensor) -> Tensor:
        e = torch.exp(one @ others.T / self.tau) / self.z
        n = negative.sum(1, keepdim=True).float()
        positive = torch.log(e.diagonal() / (e.diagonal() + n[:, 0]))
        rest = (torch.log(n / (e + n)) * negative).sum(1)
        return -(positive + rest).mean()

    def forward(self, student: Said, teacher: Said, labels: Tensor) -> Tensor:
        s, t = self.embed(student, teacher)
        all_s = torch.cat([s, self.queue_s[: self.held]])
        all_t = torch.cat([t, self.queue_t[: self.held]])
        seen = torch.cat([labels, self.queue_y[: self.held]])
        negative = labels[:, None] != seen[None]
        loss = self.contrast(s, all_t, negative) + self.contrast(t, all_s, negative)
        self._put(s.detach(), t.detach(), labels)
        return F.cross_entropy(student.logits, labels) + self.weight * loss

    def _put(self, s: Tensor, t: Tensor, labels: Tensor) -> None:
        places = (self.cursor + torch.arange(len(s))) % self.size
        self.queue_s[places], self.queue_t[places], self.queue_y[places] = s, t, labels
        self.cursor = (self.cursor + len(s)) % self.size
        self.held = min(self.held + len(s), self.size)


class ABF(nn.Module):
    def __init__(self, width: int, middle: int, target: int, *, fuse: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.conv2 = nn.Sequential(
            nn.Conv2d(middle, target, 3, 1, 1, bias=False), nn.BatchNorm2d(target)
        )
        self.att = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuse else None

    def forward(self, x: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        n, _, h, w = x.shape
        x = self.conv1(x)
        if self.att is not None:
            assert above is not None
            above = F.interpolate(above, (h, w), mode="nearest")
            z = self.att(torch.cat([x, above], dim=1))
            x = x * z[:, 0].view(n, 1, h, w) + above * z[:, 1].view(n, 1, h, w)
        return self.conv2(x), x


class ReviewKD(nn.Module):
    def __init__(self, student: list[int], teacher: list[int], weight: float) -> None:
        super().__init__()
        self.weight = weight
        top = len(student) - 1
        self.abfs = nn.ModuleList(
            ABF(s, student[-1], t, fuse=i < top)
            for i, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, student: Said, teacher: Said, labels: Tensor) -> Tensor:
        mine = [*student.stages, student.pooled[:, :, None, None]]
        theirs = [*teacher.before, teacher.pooled[:, :, None, None]]
        loss = torch.zeros(())
        above = None
        for i in reversed(range(len(mine))):
            out, above = self.abfs[i](mine[i], above)
            loss = loss + hcl(out, theirs[i])
        return F.cross_entropy(student.logits, labels) + self.weight * loss


def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    loss = F.mse_loss(student, teacher)
    total, share = 1.0, 1.0
    for size in (4, 2, 1):
        if size >= student.shape[2]:
            continue
        share /= 2
        small = F.adaptive_avg_pool2d(student, (size, size))
        loss = loss + share * F.mse_loss(small, F.adaptive_avg_pool2d(teacher, (size, size)))
        total += share
    return loss / total
