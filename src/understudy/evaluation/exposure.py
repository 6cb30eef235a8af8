"""Whether a model has memorised a secret: the rank of an inserted canary among all it could be."""

import math

import torch
from torch import Tensor

from understudy.errors import DataError


def rank_exposure(canary: float, candidates: Tensor, *, size: float | None = None) -> float:
    """log2 |R| - log2 rank, bits: 0 where the canary is least likely, log2 |R| where it is likeliest.

    canary: -log p of the inserted text, any unit. candidates [n]: the same of texts drawn from the
    space R of all that could have been inserted, the canary included or not. rank: 1 + candidates
    that are likelier, half of the equally likely ones counted (a model that says nothing of them
    all leaves about one bit). size: |R|; None where the candidates are all of it. With a sample of a
    larger space the rank is estimated, and no more than log2 of the sample's size can be seen.

    Source: Carlini et al., The Secret Sharer, arXiv 1802.08232, Definition 5 and section 4.3.
    """
    if candidates.ndim != 1 or not len(candidates):
        raise DataError("exposure ranks a canary among candidates [n], at least one")
    scores = candidates.double()
    if not bool(torch.isfinite(scores).all()) or not math.isfinite(canary):
        raise DataError("exposure: a text has no finite probability")
    n = len(scores)
    same = torch.isclose(scores, torch.tensor(canary, dtype=torch.float64), rtol=1e-12, atol=0)
    likelier = int(((scores < canary) & ~same).sum())
    others = max(int(same.sum()) - 1, 0)
    rank = 1 + likelier + others / 2
    space = float(n) if size is None else float(size)
    if space < n:
        raise DataError(f"a space of {space:g} texts cannot hold {n} candidates")
    # a rank in a sample stands for as large a share of the whole space
    return math.log2(space) - math.log2(rank * space / n)


def chance_exposure(size: int) -> float:
    """Expected exposure, bits, of a canary that the model has never seen, in a space of that size."""
    ranks = torch.arange(1, size + 1, dtype=torch.float64)
    return math.log2(size) - float(ranks.log2().mean())
