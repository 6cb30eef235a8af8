"""The chunk loop over a head: losses of factored logits, with gradients made on the way.

It walks over chunks of the positions, as many as make a fast matrix product, and makes the logits
of student and teacher of one chunk once. Within, it walks over blocks, as few positions as a cache
holds: there every part of the loss pulls at the student's logits, and the sum of their gradients
takes the logits' place, from which those of hidden states, head and bias follow. Never more than a
chunk of logits exists, memory does not grow with the number of positions, and the gradients are
exact.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.errors import SignalError
from understudy.objectives.divergences import Block, Divergence, pull
from understudy.objectives.sparse import Listed, sparse_pull
from understudy.signals import Factored, Signals, Sparse

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Size of a chunk's logits of one head, by device."""

BLOCK_BYTES = {"cpu": 2 * 2**20, "cuda": 64 * 2**20}
"""Size of each buffer of a block: what is computed class by class reads it again and again."""


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: weight [V, d], bias [V], scale and soft-cap."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None

    @classmethod
    def of(cls, factored: Factored) -> "Head":
        """The head of factored logits."""
        return cls(factored.weight, factored.bias, factored.scale, factored.softcap)

    def product(self, hidden: Tensor, work: "Work", name: str) -> Tensor:
        """[n, V] scaled hidden states times the weight, in its precision, in the buffer `name`."""
        h = hidden.to(self.weight.dtype)
        h = h if self.scale == 1.0 else h * self.scale
        out = work.get(name, (len(h), len(self.weight)), self.weight.dtype)
        return torch.mm(h, self.weight.T, out=out)

    def logits(self, product: Tensor, work: "Work", name: str) -> Tensor:
        """[n, V] in single precision or better: in the product's place, if that is in it already."""
        wide = product.dtype == work.dtype
        z = product if wide else work.get(name, product.shape).copy_(product)
        if self.bias is not None:
            # an excluded class (-inf) becomes the least number, so that 0 x -inf never arises
            z += (self.bias * self.scale).clamp_min(torch.finfo(self.bias.dtype).min)
        return z if self.softcap is None else z.div_(self.softcap).tanh_().mul_(self.softcap)

    def back(self, grad: Tensor, z: Tensor, work: "Work") -> Tensor:
        """The gradient before the soft-cap, in place: d tanh is 1 - tanh^2."""
        if self.softcap is None:
            return grad
        squared = torch.square(z, out=work.get("cap", z.shape)).mul_(grad)
        return grad.sub_(squared, alpha=1 / self.softcap**2)


class Work:
    """Buffers of one chunk or block, made when first asked for and used again for the next one."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.size = rows, rows * columns
        self.dtype, self.device = dtype, device
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self.products: dict[int, Tensor] = {}
        self.said: dict[int, Tensor] = {}
        self.shared: set[int] = set()

    def get(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """The buffer `name` as a matrix of this shape, with whatever is in it."""
        key = (name, dtype or self.dtype)
        if key not in self.buffers:
            self.buffers[key] = torch.empty(self.size, dtype=key[1], device=self.device)
        return self.buffers[key][: shape[0] * shape[1]].view(*shape)

    def spans(self, start: int, stop: int) -> Iterator[slice]:
        """Of `rows` positions each, the last of what is left."""
        for first in range(start, stop, self.rows):
            yield slice(first, min(first + self.rows, stop))


class Target(Protocol):
    """What the student's distribution over its first `columns` classes is pulled towards."""

    @property
    def temperature(self) -> float:
        """T, at which the student is asked."""
        ...

    @property
    def columns(self) -> int:
        """How many classes are compared."""
        ...

    def pull(self, part: slice, log_q: Tensor, q: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """(values [n, 1], gradient [n, columns] at z / T); log_q and q may be overwritten."""
        ...


@dataclass(frozen=True)
class Logits:
    """A divergence from a teacher's logits, factored or dense, of `columns` classes."""

    kind: Divergence
    source: Factored | Tensor
    temperature: float
    columns: int

    def pull(self, part: slice, log_q: Tensor, q: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """As `Target`; a teacher of several targets speaks once."""
        key, shape = id(self.source), q.shape
        z = work.said.get(key)
        if z is None:
            z = self._said(part, work)
        if key in work.shared:
            work.said[key] = z
            p = work.get("p", shape)
        else:
            p = z  # nobody asks for these logits again
        log_p, spare = work.get("log_p", shape), work.get("spare", shape)
        if self.temperature != 1:
            z = torch.mul(z, 1 / self.temperature, out=p)
            z.clamp_min_(torch.finfo(z.dtype).min)
        torch.log_softmax(z, -1, out=log_p)
        torch.exp(log_p, out=p)
        return pull(self.kind, Block(log_p, log_q, p, q, spare))

    def _said(self, part: slice, work: Work) -> Tensor:
        name = f"said {id(self.source)}"
        if isinstance(self.source, Factored):
            return Head.of(self.source).logits(work.products[id(self.source)], work, name)
        z = self.source[part]
        return torch.clamp_min(
            z.to(work.dtype), torch.finfo(work.dtype).min, out=work.get(name, z.shape)
        )


@dataclass(frozen=True)
class Some:
    """A divergence from a sparse teacher."""

    kind: Divergence
    source: Listed
    temperature: float
    columns: int

    def pull(self, part: slice, log_q: Tensor, q: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """As `Target`."""
        log_p, p, spare = q, q, q
        if self.source.form == "uniform" and not getattr(self.kind, "linear", False):
            log_p, p, spare = (work.get(name, q.shape) for name in ("log_p", "p", "spare"))
        return sparse_pull(self.kind, self.source.rows(part), Block(log_p, log_q, p, q, spare))


@dataclass(frozen=True)
class Labels:
    """Cross-entropy with labels [n], a share of which is spread evenly over all classes."""

    labels: Tensor
    smoothing: float
    columns: int
    temperature: float = 1.0

    def pull(self, part: slice, log_q: Tensor, q: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """As `Target`; the gradient is q less the target."""
        label, a = self.labels[part].unsqueeze(-1), self.smoothing
        values = log_q.gather(-1, label).mul_(a - 1)
        if a:
            values -= a * log_q.mean(-1, keepdim=True)
            q -= a / self.columns
        return values, q.scatter_add_(-1, label, torch.full_like(values, a - 1))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One term of a loss: its target, a factor, weights [n] and how much it counts in the loss.

    The gradient that is made in the forward pass is that of sum_i share_i total_i.
    """

    target: Target
    factor: float = 1.0
    weights: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Gradients:
    """Of hidden states [n, d], weight [V, d] and bias [V]; None where not wanted."""

    of: tuple[Tensor | None, ...]
    wanted: tuple[bool, ...]

    def scaled(self, by: float, dtypes: list[torch.dtype | None]) -> tuple[Tensor | None, ...]:
        """In place, so that nothing of their size is made again."""
        found = []
        for t, dtype in zip(self.of, dtypes, strict=True):
            if t is not None and by != 1.0:
                t *= by
            found.append(None if t is None or dtype is None else t.to(dtype))
        return tuple(found)


def walk(
    hidden: Tensor, head: Head, parts: list[Part], wanted: tuple[bool, ...]
) -> tuple[Tensor, Gradients]:
    """Totals [m] of the parts, and the gradients of sum_i share_i total_i."""
    n, columns = hidden.shape[0], head.weight.shape[0]
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    sources = [p.target.source for p in parts if isinstance(p.target, Logits)]
    teachers = {id(s): s for s in sources if isinstance(s, Factored)}
    wide = max(t.dtype.itemsize for t in (head.weight, *(s.weight for s in teachers.values())))
    rows = _rows(n, columns * wide, CHUNK_BYTES, hidden.device)
    height = _rows(rows, columns * dtype.itemsize, BLOCK_BYTES, hidden.device)
    chunk, work = (Work(r, columns, dtype, hidden.device) for r in (rows, height))
    work.shared = {id(s) for s in sources if sum(other is s for other in sources) > 1}
    # an accelerator's products accumulate in single precision within a chunk already
    sums = dtype if hidden.device.type == "cpu" else head.weight.dtype
    d_hidden = torch.zeros_like(hidden) if wanted[0] else None
    d_weight = torch.zeros_like(head.weight, dtype=sums) if wanted[1] else None
    d_bias = hidden.new_zeros(columns, dtype=dtype) if wanted[2] else None
    sums_ = torch.zeros(len(parts), device=hidden.device, dtype=torch.float64)
    factors = torch.ones(rows, 1, dtype=dtype, device=hidden.device)
    for span in chunk.spans(0, n):
        h = hidden[span]
        z = head.product(h, chunk, "z")
        said = {key: Head.of(s).product(s.hidden[span], chunk, f"said {key}")
                for key, s in teachers.items()}  # fmt: skip
        for block in work.spans(0, len(h)):
            work.said.clear()
            work.products = {key: product[block] for key, product in said.items()}
            part = slice(span.start + block.start, span.start + block.stop)
            sums_ += _pulled(z[block], factors[block], part, head, parts, work, any(wanted))
        if not any(wanted) or not any(part.share for part in parts):
            continue
        by = factors[: len(h)] * head.scale
        if d_hidden is not None:
            torch.mm(z, head.weight, out=d_hidden[span]).mul_(by)
        if d_weight is not None:
            right = (h * by).to(h.dtype)
            if z.dtype == d_weight.dtype:
                d_weight.addmm_(z.T, right)
            else:
                d_weight += z.T @ right
        if d_bias is not None:
            d_bias += (by.T.to(z.dtype) @ z).squeeze(0)
    return sums_.to(dtype), Gradients((d_hidden, d_weight, d_bias), wanted)


def _rows(n: int, width: int, bytes_: dict[str, int], device: torch.device) -> int:
    """Positions of `width` bytes that there is room for, in parts of like size of the n."""
    parts = math.ceil(n / max(1, bytes_.get(device.type, bytes_["cuda"]) // width))
    return max(1, math.ceil(n / max(1, parts)))


def _pulled(
    product: Tensor,
    factors: Tensor,
    span: slice,
    head: Head,
    parts: list[Part],
    work: Work,
    learns: bool,
) -> Tensor:
    """Totals [m] of one block, whose gradient takes the product's place, up to a factor a row."""
    z = head.logits(product, work, "z")
    free = head.softcap is None  # not needed afterwards, so that the last part may overwrite it
    n, columns = z.shape
    totals, grad = [], None
    one = z.new_ones(1, 1).expand(n, 1)
    alone = len(parts) == 1 and parts[0].target.columns == columns
    for place, part in enumerate(parts, 1):
        target = part.target
        shape, whole = (n, target.columns), target.columns == columns
        mine, log_q = z[:, : target.columns], work.get("log_q", shape)
        # where the first part's gradient lies, the others' are added up
        spare = "q" if grad is None else "other q"
        q = mine if free and whole and place == len(parts) else work.get(spare, shape)
        if target.temperature != 1:
            mine = torch.mul(mine, 1 / target.temperature, out=q)
        torch.log_softmax(mine, -1, out=log_q)
        torch.exp(log_q, out=q)
        values, slope = target.pull(span, log_q, q, work)
        by = one * part.factor
        if part.weights is not None:
            by = by * part.weights[span].to(z.dtype).unsqueeze(-1)
        totals.append((values * by).sum(dtype=torch.float64))
        by = by * (part.share / target.temperature)
        if not learns or not part.share:
            continue
        if alone:
            grad = slope
            factors.copy_(by)
        elif grad is None and whole and slope.data_ptr() == q.data_ptr() != z.data_ptr():
            grad = slope.mul_(by)
        else:
            if grad is None:
                grad = work.get("sum", z.shape).zero_()
            grad[:, : target.columns].addcmul_(slope, by)
    if grad is not None:
        grad = head.back(grad, z, work)
        if grad.data_ptr() != product.data_ptr():
            product.copy_(grad)
    return torch.stack(totals)


class _Walk(torch.autograd.Function):
    """Totals [m] of hidden states [n, d] and a head, gradients made on the way."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, parts: list[Part]
    ) -> Tensor:
        """Keeps gradients of size [n, d], [V, d], [V]."""
        wanted = tuple(ctx.needs_input_grad[:3])
        totals, ctx.kept = walk(hidden, head, parts, wanted)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.head, ctx.parts = head, parts
        return totals

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scales what was kept; walks again where the terms are weighted otherwise or asked twice.

        So a gradient of one term alone (a probe, a method that balances terms) is exact too.
        """
        inputs = ctx.saved_tensors
        asked = grad.tolist()
        by = _multiple(asked, [part.share for part in ctx.parts], torch.finfo(grad.dtype).eps)
        kept, wanted = ctx.kept, tuple(ctx.needs_input_grad[:3])
        if kept is None or by is None or kept.wanted != wanted:
            parts = [replace(part, share=a) for part, a in zip(ctx.parts, asked, strict=True)]
            by, (_, kept) = 1.0, walk(inputs[0], ctx.head, parts, wanted)
        else:
            ctx.kept = None  # handed over
        dtypes = [None if t is None else t.dtype for t in inputs]
        return (*kept.scaled(by, dtypes), None, None)


def _multiple(asked: list[float], shares: list[float], eps: float) -> float | None:
    """The s with asked = s shares, if there is one."""
    norm = sum(b * b for b in shares)
    if not norm:
        return None
    s = sum(a * b for a, b in zip(asked, shares, strict=True)) / norm
    most = max(abs(a) for a in asked)
    near = all(abs(a - s * b) <= 8 * eps * most for a, b in zip(asked, shares, strict=True))
    return s if near else None


def totals(student: Factored, parts: list[Part]) -> Tensor:
    """[m] totals of the parts over packed positions (hidden states [n, d]), with gradients."""
    hidden, weight, bias = student.hidden, student.weight, student.bias
    if hidden.ndim != 2:
        raise SignalError("the chunked loss takes packed positions: hidden states [n, d]")
    kind = hidden.device.type
    dtype = weight.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    head = Head(weight.detach(), None if bias is None else bias.detach(), student.scale,
                student.softcap)  # fmt: skip
    with torch.autocast(kind, enabled=False):
        return _Walk.apply(hidden, weight, bias, head, parts)  # pyright: ignore[reportReturnType]


def trimmed(teacher: Signals, columns: int) -> Signals:
    """A teacher whose logits have no more than a student's `columns` classes, if not sparse."""
    said = teacher.logits
    if said is None or isinstance(said, Sparse):
        return teacher
    return replace(teacher, logits=cut(said, common(columns, classes(said))))


def common(student: int, teacher: int) -> int:
    """The classes that two vocabularies of one padded family have in common.

    Raises:
        SignalError: they differ by more than padding does (512 columns, or a tenth of a small one).
    """
    small = min(student, teacher)
    if abs(student - teacher) > min(512, max(8, small // 10)):
        raise SignalError(
            f"the student's vocabulary has {student} classes and the teacher's {teacher}: that is "
            "more than padding, so their ids do not agree; align the tokenisers (uld, gold)"
        )
    return small


def classes(teacher: Factored | Tensor | Sparse) -> int:
    """How many classes a teacher speaks of."""
    if isinstance(teacher, Sparse):
        return teacher.size
    return len(teacher.weight) if isinstance(teacher, Factored) else teacher.shape[-1]


def cut(teacher: Factored | Tensor, columns: int) -> Factored | Tensor:
    """Logits of the first `columns` classes; themselves where there are no more."""
    if isinstance(teacher, Tensor):
        return teacher if teacher.shape[-1] <= columns else teacher[..., :columns]
    if len(teacher.weight) <= columns:
        return teacher
    bias = None if teacher.bias is None else teacher.bias[:columns]
    return replace(teacher, weight=teacher.weight[:columns], bias=bias)
