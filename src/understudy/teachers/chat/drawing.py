"""Answers of a local causal language model, drawn row by row: no row depends on its neighbours."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.signals.generation import Sampling, generate, speaking
from understudy.signals.language import context_of
from understudy.signals.taps import plain
from understudy.teachers.chat.constrained import Guide, Guided
from understudy.teachers.chat.talk import ChatSampling, Conversation

Finish = Literal["stop", "length"]

Told = tuple[int, float, tuple[tuple[int, float], ...]]
"""A token's id, its log-probability (nats), and the likeliest in its place."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt as token ids, how its answer is drawn, and what the draw's randomness comes from.

    The answer is a function of these alone (see `write`).

    stops:  token ids that end this text, beside those of the model
    listed: how many of the likeliest tokens are listed, where that is more than `sampling` may ask
    guide:  the schema that it is written by
    """

    prompt: Sequence[int]
    sampling: ChatSampling
    key: str
    stops: tuple[int, ...] = ()
    listed: int | None = None
    guide: Guide | None = None

    @property
    def wide(self) -> int | None:
        """How many of the likeliest tokens are listed at each place; None for no list."""
        return self.sampling.logprobs if self.listed is None else self.listed


@dataclass
class Written:
    """What was written: `tokens` without what ended it, `drawn` with it.

    complete: whether it is all that its schema asks for; None where it had none
    """

    tokens: list[int]
    finish: Finish
    drawn: list[int]
    text: str = ""
    told: list[Told] = field(default_factory=list)
    complete: bool | None = None

    @property
    def count(self) -> int:
        """Tokens that were drawn."""
        return len(self.drawn)

    @property
    def score(self) -> float:
        """Mean log-probability of what was drawn; minus infinity where none was asked for."""
        return sum(t[1] for t in self.told) / len(self.told) if self.told else -float("inf")


def key_of(messages: Conversation, sampling: ChatSampling, index: int, more: str = "") -> str:
    """What the randomness of an answer comes from: conversation, seed, sample index.

    Temperature and top-p are no part of it, so that one draw can be compared across them.
    """
    said = [m.dump() for m in messages]
    return json.dumps([said, sampling.seed, index, more], sort_keys=True, ensure_ascii=True)


class Names:
    """Token ids as text, by a tokenizer; texts of single tokens keep the space they begin with."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = frozenset(tokenizer.all_special_ids)
        self.one = lru_cache(maxsize=65536)(self._one)

    def text(self, ids: Sequence[int]) -> str:
        """What ids say, special tokens left out."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _one(self, token: int) -> str:
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        raw = self.tokenizer.convert_ids_to_tokens(token)
        spaced = isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" ")
        return " " + text if spaced else text


def write(
    model: nn.Module,
    asks: Sequence[Ask],
    names: Names,
    *,
    stops: Sequence[int],
    padding: int = 0,
    batch_size: int = 64,
    heard: Callable[[int, int], None] | None = None,
) -> list[Written]:
    """One answer for each of `asks`.

    Each token is drawn by the inverse of its cumulative distribution at a uniform number of the
    row's own generator, seeded by the row's key: so the answer does not depend on what else is in
    the batch, on its order or its size, as far as the logits do not (they differ by the rounding of
    floating point; a model in double precision leaves no more than 1e-12 of that).

    A row with a guide draws from the model's distribution over the tokens that its schema allows,
    cut by temperature and top-p after that, and ends where nothing may follow. Log-probabilities
    are the model's own, before the mask, temperature and top-p (what vLLM calls `raw_logprobs`).

    stops: token ids that end a text. Stop strings end it where they first occur, and are cut.
    heard: is given (row, token id) of each token as it is drawn.
    """
    found: list[Written | None] = [None] * len(asks)
    order = sorted(range(len(asks)), key=lambda i: (len(asks[i].prompt), i))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        rows = _Rows(model, [asks[i] for i in part], names, stops, heard, part)
        generate(
            model,
            [torch.tensor(list(asks[i].prompt)) for i in part],
            Sampling(max_new=rows.longest, stop=(*stops, _ENDED)),
            batch_size=len(part),
            padding=padding,
            choose=rows.choose,
        )
        for place, i in enumerate(part):
            found[i] = rows.written(place)
    return [w for w in found if w is not None]


_ENDED = -1
"""Stands for a token where a row has ended by a stop string or its own limit; no text holds it."""


class _Rows:
    """The state of one batch while it is written."""

    def __init__(
        self,
        model: nn.Module,
        asks: Sequence[Ask],
        names: Names,
        stops: Sequence[int],
        heard: Callable[[int, int], None] | None,
        places: Sequence[int],
    ) -> None:
        self.asks, self.names = asks, names
        self.stops = [frozenset((*stops, *a.stops)) for a in asks]
        self.heard, self.places = heard, places
        limit = context_of(model)
        room = [limit - len(a.prompt) + 1 if limit else a.sampling.max_tokens for a in asks]
        self.limits = [min(a.sampling.max_tokens, r) for a, r in zip(asks, room, strict=True)]
        self.longest = max(self.limits)
        # numbers are drawn as they are needed: a text is mostly shorter than its limit
        self.generators = [
            torch.Generator().manual_seed(_seed(a.key)) if a.sampling.temperature > 0 else None
            for a in asks
        ]
        self.tokens: list[list[int]] = [[] for _ in asks]
        self.told: list[list[Told]] = [[] for _ in asks]
        self.stopped: dict[int, int] = {}
        self.guided = Guided([a.guide for a in asks])

    def choose(self, logits: Tensor, rows: Tensor) -> Tensor:
        """[M] token ids from logits [M, V] of the rows that go on."""
        places = rows.tolist()
        ended = [self._ended(r) for r in places]
        masked = self.guided.masked(logits, places)
        ended = [e or self.guided.over(r) for e, r in zip(ended, places, strict=True)]
        drawn = self._drawn(masked, places)
        self._list(logits, places, drawn, ended)
        for row, token, over in zip(places, drawn, ended, strict=True):
            if not over:
                self.tokens[row].append(token)
                self.guided.took(row, token, token in self.stops[row])
                if self.heard is not None:
                    self.heard(self.places[row], token)
        kept = [_ENDED if e else t for e, t in zip(ended, drawn, strict=True)]
        return torch.tensor(kept, device=logits.device)

    def _ended(self, row: int) -> bool:
        ids = self.tokens[row]
        if len(ids) >= self.limits[row] or (ids and ids[-1] in self.stops[row]):
            return True
        return self.guided.over(row) or self._stop_at(row)

    def _stop_at(self, row: int) -> bool:
        """Whether a stop string stands in what was written; where, is kept."""
        strings = self.asks[row].sampling.stop
        if not strings or row in self.stopped:
            return row in self.stopped
        ids = self.tokens[row]
        # a token is a byte at least, so that a string ends within so many
        near = ids[-(4 * max(len(s) for s in strings) + 4) :]
        if any(s in self.names.text(near) for s in strings):
            text = self.names.text(ids)
            ends = [text.find(s) for s in strings if s in text]
            if ends:
                self.stopped[row] = min(ends)
        return row in self.stopped

    def _drawn(self, logits: Tensor, places: list[int]) -> list[int]:
        best = logits.argmax(-1).tolist()
        hot = [i for i, r in enumerate(places) if self.generators[r] is not None]
        if not hot:
            return best
        settings = [self.asks[places[i]].sampling for i in hot]
        heat = logits.new_tensor([s.temperature for s in settings], dtype=torch.float64)
        share = logits.new_tensor([s.top_p for s in settings], dtype=torch.float64)
        p = (logits[hot].double() / heat[:, None]).softmax(-1)
        if any(s.top_p < 1 for s in settings):
            ordered, where = torch.sort(p, dim=-1, descending=True, stable=True)
            # the token that crosses the threshold is kept
            out = ordered.cumsum(-1) - ordered >= share[:, None]
            p = p.masked_fill(torch.zeros_like(out).scatter(-1, where, out), 0.0)
        reached = p.cumsum(-1)
        u = torch.tensor([self._uniform(places[i]) for i in hot], dtype=torch.float64)
        at = u.to(p.device)[:, None] * reached[:, -1:]
        chosen = torch.searchsorted(reached, at, right=True)[:, 0]
        # u below 1 leaves the last token of any weight at most
        last = (p > 0).long().mul(torch.arange(1, p.shape[-1] + 1, device=p.device)).amax(-1) - 1
        for i, token in zip(hot, torch.minimum(chosen, last).tolist(), strict=True):
            best[i] = token
        return best

    def _uniform(self, row: int) -> float:
        generator = self.generators[row]
        assert generator is not None
        return float(torch.rand((), generator=generator, dtype=torch.float64))

    def _list(self, logits: Tensor, places: list[int], drawn: list[int], ended: list[bool]) -> None:
        """Log-probabilities of the model itself, before mask, temperature and top-p."""
        want = [i for i, r in enumerate(places) if self.asks[r].wide is not None and not ended[i]]
        if not want:
            return
        log_p = logits[want].log_softmax(-1)
        width = max(self.asks[places[i]].wide or 0 for i in want)
        tops = log_p.topk(min(width, log_p.shape[-1]), -1) if width else None
        for k, i in enumerate(want):
            count = self.asks[places[i]].wide or 0
            listed = ()
            if tops is not None and count:
                values, ids = tops.values[k, :count].tolist(), tops.indices[k, :count].tolist()
                listed = tuple(zip(ids, values, strict=True))
            self.told[places[i]].append((drawn[i], float(log_p[k, drawn[i]]), listed))

    def written(self, row: int) -> Written:
        """A row as it ended."""
        drawn, told, complete = self.tokens[row], self.told[row], self.guided.complete(row)
        ids = drawn
        if self._stop_at(row):
            text = self.names.text(ids)[: self.stopped[row]]
            keep = _covering(self.names, ids, len(text))
            complete = None if complete is None else False  # the end of it was cut
            return Written(ids[:keep], "stop", drawn, text, told[:keep], complete)
        finish: Finish = "stop" if complete else "length"
        if ids and ids[-1] in self.stops[row]:
            ids, told, finish = ids[:-1], told[:-1], "stop"
        return Written(ids, finish, drawn, self.names.text(ids), told, complete)


def listed(
    model: nn.Module, texts: Sequence[Sequence[int]], k: int, *, batch_size: int = 16
) -> list[list[Told | None]]:
    """For each token of each text its log-probability and the k likeliest; None for the first."""
    inner = plain(model)
    found: list[list[Told | None]] = []
    with speaking(inner):
        for start in range(0, len(texts), batch_size):
            part = [list(t) for t in texts[start : start + batch_size]]
            found += _listed(inner, part, k)
    return found


def _listed(model: nn.Module, texts: list[list[int]], k: int) -> list[list[Told | None]]:
    device, width = next(model.parameters()).device, max(len(t) for t in texts)
    ids = torch.tensor([t + [0] * (width - len(t)) for t in texts], device=device)
    mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts], device=device)
    log_p = model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
    found = []
    for row, text in enumerate(texts):
        said = log_p[row, : len(text) - 1]
        own = said.gather(-1, ids[row, 1 : len(text), None])[:, 0].tolist()
        top = said.topk(min(k, said.shape[-1]), -1)
        tops = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        rows: list[Told | None] = [None]
        for token, value, (names, values) in zip(text[1:], own, tops, strict=True):
            rows.append((token, value, tuple(zip(names, values, strict=True))))
        found.append(rows)
    return found


def _covering(names: Names, ids: list[int], length: int) -> int:
    """How many tokens it takes to say the first `length` characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(names.text(ids[:middle])) < length:
            low = middle + 1
        else:
            high = middle
    return low


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little", signed=True)
