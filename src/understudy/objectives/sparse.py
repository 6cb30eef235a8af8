"""Divergences from a teacher of whom only some log-probabilities are known.

Nothing of the size [n, V] is made for the teacher where the divergence allows it. With a bucket,
or a renormalised teacher, it is a divergence of k + 1 classes, the last of which is all the rest,

    D = sum_i term(p_i, q_i) + term(p_rest, 1 - sum_i q_i),

exact where the teacher's rest is nothing, and a lower bound of the whole divergence (data
processing inequality) where it is a bucket. Forward KL reads a uniform rest in closed form, and
samples as sum_i c_i / n (-log q_i): unbiased in gradient, and in value up to the teacher's entropy
(Anshumann et al., arXiv 2503.16870).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.errors import SignalError
from understudy.objectives.divergences import Block, Divergence, pull
from understudy.signals import Sparse


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A sparse teacher over `columns` classes at one temperature; its probabilities sum to one.

    ids [n, k] (a place where nothing is listed repeats the likeliest), log_p [n, k] (-inf there),
    rest [n, 1]: log p of each other class (`form` uniform) or of all of them together (merged,
    sampled).
    """

    ids: Tensor
    log_p: Tensor
    rest: Tensor
    columns: int
    form: str

    def rows(self, part: slice) -> "Listed":
        """Some positions."""
        return replace(self, ids=self.ids[part], log_p=self.log_p[part], rest=self.rest[part])

    def spread(self, out: Tensor) -> Tensor:
        """[n, columns] log-probabilities, written to `out`; an excluded class has the least."""
        least = torch.finfo(out.dtype).min
        out.copy_(self.rest.clamp_min(least).expand_as(out))
        best = self.log_p.argmax(-1, keepdim=True)
        there = self.log_p > -torch.inf
        values = torch.where(there, self.log_p, self.log_p.gather(-1, best))
        return out.scatter_(-1, self.ids, values.to(out.dtype))


def listed(
    said: Sparse, kind: Divergence, temperature: float, columns: int, dtype: torch.dtype
) -> Listed:
    """What a sparse teacher says of the first `columns` classes, at a temperature.

    Raises:
        SignalError: the tail rule leaves no way to this divergence or temperature; says what does.
    """
    name = type(kind).__name__
    if said.ids.shape != said.values.shape:
        raise SignalError(
            f"sparse logits have ids {tuple(said.ids.shape)} and values {tuple(said.values.shape)}"
        )
    ids, _ = said.filled()
    low, high = (int(x) for x in ids.aminmax()) if ids.numel() else (0, 0)
    if low < 0 or high >= said.size:
        wrong = low if low < 0 else high
        raise SignalError(f"sparse logits list the class {wrong} of {said.size} (0 ... size - 1)")
    log_p = said.values.to(dtype)
    k = log_p.shape[-1]
    ratio = temperature / said.temperature
    everything = k >= said.size and bool((log_p > -torch.inf).all())
    if ratio != 1 and not everything and said.tail in ("bucket", "sampled"):
        raise SignalError(
            f"the sparse teacher was taken at temperature {said.temperature:g}, and its {said.tail} "
            f"tail cannot be read at {temperature:g}: use that temperature, or a store with the "
            "tail renormalise or uniform"
        )
    if said.tail == "sampled" and not getattr(kind, "linear", False):
        raise SignalError(
            f"{name} cannot be estimated without bias from sampled classes; forward KL can (kl)"
        )
    merges = bool(getattr(kind, "merges", False))
    if said.tail == "bucket" and not merges and not everything:
        raise SignalError(
            f"{name} over merged classes bounds nothing; use the tail uniform or renormalise"
        )
    # padded columns of one side are left out, and what is left is a distribution again
    log_p = log_p.masked_fill(said.ids >= columns, -torch.inf)
    ids, _ = replace(said, values=log_p).filled()
    if said.tail in ("renormalise", "sampled") or everything:
        if not everything and not _finite_alone(kind):
            raise SignalError(
                f"{name} is infinite where the teacher's probability is zero, which renormalised "
                "top-k sets; use the tail bucket or uniform"
            )
        log_p = (log_p / ratio).log_softmax(-1)
        rest = torch.full_like(log_p[..., :1], -torch.inf)
        form = "sampled" if said.tail == "sampled" else "merged" if merges else "uniform"
        return Listed(ids=ids, log_p=log_p, rest=rest, columns=columns, form=form)
    floor = torch.log(torch.tensor(1e-10, dtype=dtype, device=log_p.device))
    missing = torch.log1p(-said.values.to(dtype).exp().sum(-1, keepdim=True).clamp_max(1.0))
    rest, others = torch.maximum(missing, floor), None
    if said.tail == "uniform":
        # over the classes that are not listed, k of them listed per position
        there = (said.values > -torch.inf).sum(-1, keepdim=True)
        rest = rest - (said.size - there).clamp_min(1).to(dtype).log()
        kept = (log_p > -torch.inf).sum(-1, keepdim=True)
        others = (columns - kept).clamp_min(1).to(dtype).log()
    log_p, rest = log_p / ratio, rest / ratio
    whole = torch.cat([log_p, rest if others is None else rest + others], -1)
    norm = whole.logsumexp(-1, keepdim=True)
    form = "uniform" if said.tail == "uniform" else "merged"
    return Listed(ids=ids, log_p=log_p - norm, rest=rest - norm, columns=columns, form=form)


def tails_for(kind: Divergence) -> tuple[str, ...]:
    """The tail rules of a sparse teacher from which `listed` gives a divergence."""
    return (
        "uniform",
        *(["renormalise"] if _finite_alone(kind) else []),
        *(["bucket"] if getattr(kind, "merges", False) else []),
        *(["sampled"] if getattr(kind, "linear", False) else []),
    )


def _finite_alone(kind: Divergence) -> bool:
    """Whether a class that the teacher excludes costs the student something finite."""
    no, some = torch.tensor([-torch.inf]), torch.tensor([-1.0])
    return bool(kind.terms(no, some).isfinite().all())


def sparse_divergence(z: Tensor, teacher: Sparse, kind: Divergence, temperature: float) -> Tensor:
    """[n] divergence of a student's logits [n, V] from a sparse teacher; gradients by autograd."""
    log_q = (z / temperature).log_softmax(-1)
    said = listed(teacher, kind, temperature, z.shape[-1], log_q.dtype)
    if said.form == "uniform":
        return kind.terms(said.spread(torch.empty_like(log_q)), log_q).sum(-1)
    there = said.log_p > -torch.inf
    mine = log_q.gather(-1, said.ids).where(there, -torch.inf)
    if said.form == "sampled":
        return -torch.where(there, said.log_p.exp() * mine, 0.0).sum(-1)
    unlisted = log_q.detach().new_zeros(log_q.shape).scatter(-1, said.ids, -torch.inf)
    if bool((unlisted.amax(-1) == -torch.inf).all()):
        return kind.terms(said.log_p, mine).sum(-1)
    theirs = (log_q + unlisted).logsumexp(-1, keepdim=True)
    return kind.terms(torch.cat([said.log_p, said.rest], -1), torch.cat([mine, theirs], -1)).sum(-1)


def sparse_pull(kind: Divergence, said: Listed, block: Block) -> tuple[Tensor, Tensor]:
    """(values [n, 1], gradient [n, V]) of a block whose teacher is listed, as `pull`."""
    linear = bool(getattr(kind, "linear", False))
    if said.form == "uniform" and not linear:
        said.spread(block.log_p)
        torch.exp(block.log_p, out=block.p)
        return pull(kind, block)
    there = said.log_p > -torch.inf
    mine = block.log_q.gather(-1, said.ids).masked_fill_(~there, -torch.inf)
    if linear and said.form != "merged":
        return _linear(said, mine, there, block)
    q = block.q
    own = mine.exp()
    left = _sum(q.scatter_(-1, said.ids, 0.0))
    log_p = torch.cat([said.log_p, said.rest], -1)
    log_q = torch.cat([mine, left.log()], -1)
    slope = kind.slope(log_p, log_q)
    total = _sum(slope)
    each = torch.where(left > 0, slope[..., -1:] / left, 0.0)
    gradient = q.mul_(each - total)
    gradient.scatter_add_(-1, said.ids, slope[..., :-1] - own * total)
    return _sum(kind.terms(log_p, log_q)), gradient


def _linear(said: Listed, mine: Tensor, there: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Forward KL, the gradient q - p; of samples without the teacher's entropy."""
    p = said.log_p.exp()
    if said.form == "sampled":
        values = -_sum(torch.where(there, p * mine, 0.0))
        return values, block.q.scatter_add_(-1, said.ids, -p)
    each = said.rest.exp()
    count = said.columns - _sum(there)
    other = _sum(block.log_q) - _sum(torch.where(there, mine, 0.0))
    values = _sum(torch.where(there, p * (said.log_p - mine), 0.0))
    values += torch.where(count > 0, each * (count * said.rest - other), 0.0)
    gradient = block.q.sub_(each)
    return values, gradient.scatter_add_(-1, said.ids, torch.where(there, each - p, 0.0))


def _sum(t: Tensor) -> Tensor:
    return t.sum(-1, keepdim=True)
