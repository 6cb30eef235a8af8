"""The completions of a local language model: plain text or token ids, with log-probabilities."""

import asyncio
from collections.abc import Sequence
from typing import Any

from understudy.serving.batching import Batcher
from understudy.serving.wire import Bad, Texts, head, usage
from understudy.signals.language import context_of
from understudy.teachers.chat import ChatError
from understudy.teachers.chat.drawing import Ask, Told, Written
from understudy.teachers.chat.local import LocalChat


async def completions(batcher: Batcher, asked: Texts, model: str) -> dict[str, Any]:
    """The answer to a request of /v1/completions."""
    local = batcher.local
    assert local is not None
    prompts = [_read(local, p) for p in asked.prompts]
    said = [] if asked.silent else await _written(batcher, asked, prompts)
    scores: list[list[Told | None]] = []
    width = max(asked.prompt_logprobs or 0, asked.logprobs or 0)
    if asked.prompt_logprobs is not None or (asked.echo and asked.logprobs is not None):
        scores = await asyncio.wrap_future(batcher.scores(prompts, width))
    choices = []
    for place, prompt in enumerate(prompts):
        score = scores[place] if scores else None
        for k in range(asked.n):
            index = place * asked.n + k
            own = said[index] if said else Written([], "length", [])
            choices.append(_choice(local, asked, index, prompt, own, score))
    return {
        **head("text_completion", model, "cmpl"),
        "choices": choices,
        "usage": usage(sum(len(p) for p in prompts), sum(w.count for w in said)),
    }


def _read(local: LocalChat, prompt: str | tuple[int, ...]) -> list[int]:
    ids = local.read(prompt) if isinstance(prompt, str) else list(prompt)
    limit = context_of(local.model)
    if not ids:
        raise Bad("an empty prompt: there is nothing to go on from", "prompt")
    if limit is not None and len(ids) > limit:
        raise ChatError(
            f"the prompt has {len(ids)} tokens and the model reads {limit}; shorten it", "context"
        )
    return ids


async def _written(
    batcher: Batcher, asked: Texts, prompts: Sequence[Sequence[int]]
) -> list[Written]:
    asks = [
        Ask(
            prompt=prompt, sampling=asked.sampling, stops=asked.stops, listed=asked.logprobs,
            key=f"{asked.sampling.seed}:{index}:{','.join(map(str, prompt))}",
        )
        for prompt in prompts
        for index in range(asked.n)
    ]  # fmt: skip
    return await asyncio.wrap_future(batcher.texts(asks))


def _choice(
    local: LocalChat,
    asked: Texts,
    index: int,
    prompt: Sequence[int],
    said: Written,
    score: list[Told | None] | None,
) -> dict[str, Any]:
    before = local.names.text(prompt) if asked.echo else ""
    choice: dict[str, Any] = {
        "index": index,
        "text": before + said.text,
        "finish_reason": said.finish,
        "logprobs": None,
    }
    if asked.logprobs is not None:
        told: list[tuple[int, Told | None]] = []
        if asked.echo and score is not None:
            told += zip(prompt, score, strict=True)
        told += [(t[0], t) for t in said.told]
        choice["logprobs"] = _listed(local, told, asked.logprobs, asked.ids)
    if asked.prompt_logprobs is not None and score is not None:
        choice["prompt_logprobs"] = [_by_id(local, s, asked.prompt_logprobs) for s in score]
    if asked.with_ids:
        choice["token_ids"] = said.drawn
        choice["prompt_token_ids"] = list(prompt)
    return choice


def _listed(
    local: LocalChat, told: Sequence[tuple[int, Told | None]], k: int, ids: bool
) -> dict[str, Any]:
    """Tokens, their log-probabilities, the likeliest in their place, and where each begins."""

    def name(token: int) -> str:
        return f"token_id:{token}" if ids else local.names.one(token)

    tops: list[dict[str, float] | None] = []
    offsets, at = [], 0
    for token, one in told:
        offsets.append(at)
        at += 0 if token in local.names.special else len(local.names.one(token))
        if one is None:
            tops.append(None)
            continue
        there: dict[str, float] = {}
        for other, value in (*one[2][:k], (token, one[1])):  # its own beside the likeliest
            there.setdefault(name(other), _finite(value))
        tops.append(there)
    return {
        "tokens": [name(t) for t, _ in told],
        "token_logprobs": [None if o is None else _finite(o[1]) for _, o in told],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def _by_id(local: LocalChat, one: Told | None, k: int) -> dict[str, dict[str, Any]] | None:
    """`prompt_logprobs`: each token's own and the likeliest, by id."""
    if one is None:
        return None
    token, value, tops = one
    found = {}
    for rank, (other, p) in enumerate(tops[:k], 1):
        found[str(other)] = {
            "logprob": _finite(p), "rank": rank, "decoded_token": local.names.one(other),
        }  # fmt: skip
    if str(token) not in found:
        found[str(token)] = {"logprob": _finite(value), "decoded_token": local.names.one(token)}
    return found


def _finite(value: float) -> float:
    return max(value, -9999.0)


def only_local(batcher: Batcher) -> LocalChat:
    """The language model, or an error where the teacher is none."""
    if batcher.local is None:
        raise Bad("completions are of a language model; this one answers conversations alone")
    return batcher.local
