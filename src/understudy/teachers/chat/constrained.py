"""Answers written by their schema: what it forbids has no probability while a model writes.

A schema read only afterwards costs a second answer where the first does not fit, and a small model
often misses twice. Here the schema becomes a grammar, and the grammar, with the bytes that each
token stands for, says at every place which tokens may come next (library `llguidance`). The logits
of all others become minus infinity before temperature and top-p, so that draws are from the model's
own distribution given that the next token is allowed.

Between the marks of JSON stands at most one line break and then 16 spaces: with whitespace without
end, which JSON allows, a model may write nothing else until it is cut.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.errors import UserError

_log = logging.getLogger("understudy.chat")
_BETWEEN = r"\n? {0,16}"


@dataclass(frozen=True, eq=False)
class Guide:
    """A schema compiled for a tokenizer. Any number of answers may be written by it."""

    matcher: Any
    vocabulary: int
    executor: Any

    def begin(self) -> Any:
        """The state of an answer of which nothing is written."""
        return self.matcher.deep_copy()


class Guides:
    """Compiles schemas for the tokenizer of one model, and keeps the last 64.

    Served are fast tokenizers of bytes: byte-level BPE, and those that fall back to bytes.

    stops: ids of the tokens that end an answer; they are allowed where the schema is complete
    """

    def __init__(self, tokenizer: Any, stops: Sequence[int]) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self._kept = lru_cache(maxsize=64)(self._compiled)

    @cached_property
    def _words(self) -> Any:
        """The tokens as bytes; None where the library is not there or does not know them."""
        try:
            from llguidance.hf import from_tokenizer

            known = [s for s in self.stops if s < len(self.tokenizer)]
            return from_tokenizer(self.tokenizer, eos_token=known or None)
        except Exception as error:  # whatever is wrong with it: answers are read afterwards
            _log.warning("schemas are read after an answer, not written by: %s", _line(str(error)))
            return None

    @cached_property
    def _executor(self) -> Any:
        from llguidance import LLExecutor

        return LLExecutor()

    def of(self, schema: Mapping[str, Any]) -> Guide | None:
        """The guide of a JSON schema; None where answers cannot be written by it, only read.

        Keywords that have no grammar (`uniqueItems`, alternatives of `oneOf` that overlap) are left
        out of it: what is written has still to be read by the schema.

        Raises:
            UserError: nothing fits the schema.
        """
        if self._words is None:
            return None
        return self._kept(
            json.dumps(schema, ensure_ascii=False)
        )  # unsorted: names keep their order

    def _compiled(self, schema: str) -> Guide | None:
        from llguidance import LLMatcher

        for more in ({}, {"lenient": True, "coerce_one_of": True}):
            options: Any = {"whitespace_pattern": _BETWEEN, **more}
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=options)
            matcher = LLMatcher(self._words, grammar, log_level=0)
            wrong = matcher.get_error()
            if not wrong:
                break
            if wrong.startswith("Unsatisfiable"):
                raise UserError(f"no answer fits the schema: {_line(wrong)}")
        else:
            return None
        matcher.compute_bitmask()
        if matcher.is_error():  # nothing may be written at all: a schema that is only itself
            raise UserError(f"no answer fits the schema: {_line(schema)}")
        return Guide(matcher, self._words.vocab_size, self._executor)


class Guided:
    """The rows of one batch that are written by a schema, each by its own."""

    def __init__(self, guides: Sequence[Guide | None]) -> None:
        self._guide = next((g for g in guides if g is not None), None)
        self._states = {row: g.begin() for row, g in enumerate(guides) if g is not None}
        self._whole = dict.fromkeys(self._states, False)
        self._stuck: set[int] = set()

    def complete(self, row: int) -> bool | None:
        """Whether what was written is all of an answer; None of a row without schema.

        A number that might have gone on is not, unless a token that ends the answer was drawn.
        """
        return self._whole.get(row)

    def over(self, row: int) -> bool:
        """Whether nothing may follow, or nothing can."""
        return self._whole.get(row, False) or row in self._stuck

    def took(self, row: int, token: int, ends: bool) -> None:
        """A token was written; `ends`: it is one that ends the answer."""
        state = self._states.get(row)
        if state is None:
            return
        if ends:
            self._whole[row] = state.is_accepting()
        elif not state.consume_token(token):
            self._stuck.add(row)
        else:
            self._whole[row] = state.is_stopped() and state.is_accepting()

    def masked(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Logits [M, V] of `rows`: minus infinity where the schema of a row allows no token.

        Rows without schema, and those that are over, are as they were.
        """
        mine = [i for i, r in enumerate(rows) if r in self._states and not self.over(r)]
        if not mine:
            return logits
        states = [self._states[rows[i]] for i in mine]
        kept = torch.where(self._allowed(states, logits), logits[mine], float("-inf"))
        # a grammar may grow beyond the library's limits, or allow what the model cannot say
        alive = kept.amax(-1).isfinite().tolist()
        alive = [a and not s.is_error() for a, s in zip(alive, states, strict=True)]
        self._stuck |= {rows[i] for i, a in zip(mine, alive, strict=True) if not a}
        found = logits.clone()
        found[[i for i, a in zip(mine, alive, strict=True) if a]] = kept[alive]
        return found

    def _allowed(self, states: Sequence[Any], logits: Tensor) -> Tensor:
        """[K, V] of what may come next."""
        # not by llguidance.torch: that compiles, which takes longer than the whole answer
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

        assert self._guide is not None
        bits = allocate_token_bitmask(len(states), self._guide.vocabulary)
        fill_next_token_bitmask_par(
            self._guide.executor, [(s, k) for k, s in enumerate(states)], bits
        )
        flags = np.unpackbits(bits.astype("<i4", copy=False).view(np.uint8), 1, bitorder="little")
        allowed = torch.from_numpy(flags).to(logits.device).bool()
        # a model may have more logits than its tokenizer has tokens, and fewer
        return torch.nn.functional.pad(allowed, (0, logits.shape[-1] - allowed.shape[-1]))


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
