"""The likeliest continuation that a beam search finds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from understudy.signals.generation import Decoder, speaking
from understudy.signals.taps import plain


def beam_search(
    model: nn.Module,
    prompts: Sequence[Tensor],
    *,
    beams: int = 5,
    max_new: int = 64,
    stop: Sequence[int] = (),
    batch_size: int = 64,
) -> list[Tensor]:
    """The continuation of each prompt with the highest total log-probability among `beams` kept.

    A text that has ended (a stop token, which belongs to it) keeps its place. One beam is greedy.
    The longest prompt of a batch sets how much fits into the context.
    """
    found: list[Tensor] = []
    inner = plain(model)
    with speaking(inner):
        for start in range(0, len(prompts), batch_size):
            part = prompts[start : start + batch_size]
            found += _batch(inner, part, beams, max_new, stop)
    return found


def _batch(
    model: nn.Module, prompts: Sequence[Tensor], beams: int, max_new: int, stop: Sequence[int]
) -> list[Tensor]:
    n = len(prompts)
    decoder, logits = Decoder.over(model, prompts)
    device, classes = logits.device, logits.shape[-1]
    beams = min(beams, classes)
    ends = torch.tensor(list(stop), device=device, dtype=torch.long)
    score, token = logits.log_softmax(-1).topk(beams, -1)  # [n, beams]
    told = token[..., None]
    over = torch.isin(token, ends)
    decoder.keep(torch.arange(n, device=device).repeat_interleave(beams))
    room = decoder.room
    most = max_new if room is None else min(max_new, room + 1)
    first = torch.arange(n, device=device)[:, None] * beams
    for _ in range(most - 1):
        if bool(over.all()):
            break
        logits = decoder.read(told[..., -1].clamp_min(0).reshape(-1, 1))[:, -1]
        more = logits.log_softmax(-1).view(n, beams, classes)
        # what has ended goes on with nothing, at no cost, in one way
        still = torch.full_like(more, float("-inf"))
        still[..., 0] = 0.0
        more = torch.where(over[..., None], still, more)
        score, place = (score[..., None] + more).view(n, -1).topk(beams, -1)
        parent, token = place // classes, place % classes
        told = told.gather(1, parent[..., None].expand(-1, -1, told.shape[-1]))
        over = over.gather(1, parent)
        told = torch.cat([told, token.where(~over, -1)[..., None]], -1)
        over = over | torch.isin(token, ends)
        decoder.keep((first + parent).flatten())
    best = told[:, 0]  # the highest score comes first
    return [row[row >= 0].cpu() for row in best]
