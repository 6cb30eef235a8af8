"""Running a language model once over texts, and keeping what it says of every scored token."""

from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from understudy.errors import NotFinite, SignalError, UserError, unknown
from understudy.objectives import Needs
from understudy.signals import Batch, CausalLM, Factored, Signals, Sparse
from understudy.store import TokenStore, TokenWriter, identify_texts, tokenizer_fingerprint
from understudy.store.layout import dtype_named
from understudy.store.ragged import MODES, joined
from understudy.teachers.base import Teacher, fingerprint_of
from understudy.teachers.convert import as_teacher
from understudy.teachers.write import on_device_of

LOGITS = 2**22
"""Probabilities held at once."""
SHARD_BYTES, SHARD_TEXTS = 64 * 2**20, 1024
Said = dict[str, Tensor]


def write_text_signals(
    teacher: Any,
    source: Any,
    path: str | PathLike[str],
    *,
    mode: Literal["top-k", "sampled", "hidden"] = "top-k",
    k: int = 12,
    draws: int = 50,
    proposal: float = 1.0,
    tail: Literal["uniform", "renormalise", "bucket"] = "uniform",
    temperature: float = 1.0,
    seed: int = 0,
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16",
    tokenizer: Any = None,
    batch_size: int = 32,
    shard: tuple[int, int] = (0, 1),
    shard_rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore | None:
    """Write what a teacher says of every scored token of texts; goes on where it was stopped.

    Args:
        teacher: a causal language model, a `Teacher` of one (`Frozen(model, CausalLM())`) or an
            `Endpoint`.
        source: `data.Texts`, or what gives such batches by index.
        path: the store's folder.
        mode: `top-k`: the k likeliest tokens and their log-probabilities; `sampled`: tokens drawn
            with replacement, and how often (an unbiased estimate; Anshumann et al., arXiv
            2503.16870); `hidden`: the last hidden state, of which the head, kept once, makes all
            logits again.
        k: tokens that are listed. draws: tokens that are drawn; 50 give about 12 different ones.
        proposal: temperature of what is drawn from, softmax(z / (temperature * proposal)); each
            token then has its weight p / q stored beside its count.
        tail: how a reader takes the tokens that are not listed; see `Sparse`.
        temperature: of the distribution p = softmax(z / temperature) that is listed or drawn from.
        seed: of the draws; those of a text depend on it and on the text's id alone.
        dtype: of log-probabilities and hidden states.
        tokenizer: what made the ids, or its fingerprint; a reader's is compared with it.
        batch_size: texts a forward pass. Other sizes may change last bits.
        shard: (i, n): this process writes shards i, i + n, ...; n processes share one folder.
        shard_rows: texts a shard, the most that a kill can lose; by their size, at most 1024.
        progress: called with (texts done, texts in all) after each batch.

    Returns:
        The store, or None while shards of other workers are missing.

    Raises:
        CheckpointError: other signals are at `path`, or the disk is full or not writable.
        UserError: bad settings, or a mode that the teacher cannot give.
    """
    teacher = _asked(teacher)
    _check(mode, k, draws, proposal, temperature, batch_size, shard)
    first = source.batch(torch.arange(1))
    example = on_device_of(first, teacher)
    teacher.prepare(Needs(), example)
    kept = _Kept(mode, k, draws, proposal, temperature, seed, dtype)
    head = kept.look(_said(teacher, example))
    ids, contents, scored = identify_texts(source)
    settings = kept.settings(tail, tokenizer, head)
    if shard_rows is None:
        each = kept.bytes_a_token() * max(1.0, float(scored.float().mean()))
        shard_rows = max(1, min(SHARD_TEXTS, int(SHARD_BYTES / each)))
    writer = TokenWriter.create(
        Path(path),
        teacher=fingerprint_of(teacher),
        view="none",
        ids=ids,
        contents=contents,
        settings=settings,
        shard_rows=shard_rows,
    )
    if head is not None:
        writer.write_head(head)
    missing, total = writer.missing(*shard), len(ids)
    done = total - sum(len(writer.shard_range(s)) for s in missing) if shard[1] == 1 else 0
    for number in missing:
        places = writer.order[torch.tensor(writer.shard_range(number))]
        parts: dict[int, Said] = {}
        # texts of one length together; which ones does not depend on who writes the shard
        for some in scored[places].argsort(stable=True).split(batch_size):
            batch = source.batch(places[some])
            for row, said in zip(some.tolist(), kept.of(teacher, batch), strict=True):
                parts[row] = said
            done += len(some)
            if progress is not None:
                progress(done, total)
        tensors, entries = joined([parts[row] for row in range(len(places))], settings)
        writer.write(
            number,
            tensors,
            entries,
            ids=ids[places],
            epochs=torch.zeros(len(places)),
            seen=contents[places],
        )
    store = writer.finish()
    assert store is None or isinstance(store, TokenStore)
    return store


class _Kept:
    """What is kept of one batch, text by text."""

    def __init__(
        self,
        mode: str,
        k: int,
        draws: int,
        proposal: float,
        temperature: float,
        seed: int,
        dtype: str,
    ) -> None:
        self.mode, self.k, self.draws, self.proposal = mode, k, draws, proposal
        self.temperature, self.seed, self.dtype = temperature, seed, dtype
        self.number_type = dtype_named(dtype)
        self.size = self.width = 0

    def look(self, said: Signals) -> Factored | None:
        """Learn sizes from what the teacher says, refuse what it does not give; the head to keep."""
        logits = said.logits
        if logits is None:
            raise SignalError("this teacher gives no logits: nothing to store")
        if isinstance(logits, Sparse):
            if self.mode != "top-k":
                raise UserError(
                    f"this teacher lists {logits.ids.shape[-1]} tokens a position, and mode "
                    f"{self.mode} needs all of them: use top-k"
                )
            if self.temperature != logits.temperature:
                raise UserError(
                    f"this teacher lists tokens at temperature {logits.temperature:g} only, not at "
                    f"{self.temperature:g}"
                )
        if isinstance(logits, Factored):
            self.size, self.width = logits.weight.shape
        else:
            self.size = logits.size if isinstance(logits, Sparse) else logits.shape[-1]
        if self.mode == "hidden":
            if not isinstance(logits, Factored):
                raise UserError(
                    "the teacher's logits are not head(hidden state), or its call gives them dense: "
                    "use call=CausalLM(), or mode top-k or sampled"
                )
            return logits
        listed = logits.ids.shape[-1] if isinstance(logits, Sparse) else self.size
        if self.mode == "top-k" and self.k > listed:
            raise UserError(f"k lies in 1 ... {listed} (what the teacher lists), not {self.k}")
        return None

    def settings(self, tail: str, tokenizer: Any, head: Factored | None) -> dict[str, Any]:
        """All that changes what is stored, and what a reader has to know."""
        top, drawn = self.mode == "top-k", self.mode == "sampled"
        return {
            "form": "tokens",
            "mode": self.mode,
            "vocabulary": self.size,
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "temperature": 1.0 if head is not None else float(self.temperature),
            "k": self.k if top else None,
            "tail": tail if top else None,
            "draws": self.draws if drawn else None,
            "proposal": float(self.proposal) if drawn else None,
            "seed": self.seed if drawn else None,
            "dtype": None if drawn else self.dtype,
            "scale": None if head is None else head.scale,
            "softcap": None if head is None else head.softcap,
        }

    def bytes_a_token(self) -> float:
        """About; for the size of shards."""
        number = self.number_type.itemsize
        if self.mode == "hidden":
            return self.width * number
        listed = self.k if self.mode == "top-k" else self.draws / 2
        return listed * (3 + (number if self.mode == "top-k" else 1))

    def of(self, teacher: Teacher, batch: Batch) -> Iterator[Said]:
        """What is kept of each text of a batch, on the CPU."""
        assert batch.mask is not None
        assert batch.index is not None
        there = on_device_of(batch, teacher)
        assert there.mask is not None
        said = _said(teacher, there).rows(there.mask).logits
        counts = batch.mask.sum(-1).tolist()
        names = batch.index.repeat_interleave(batch.mask.sum(-1))
        if self.mode == "hidden":
            assert isinstance(said, Factored)
            hidden = said.hidden.cpu().to(self.number_type)
            _finite(hidden, names, "hidden states")
            yield from ({"hidden": t.clone()} for t in hidden.split(counts))
        elif self.mode == "top-k":
            ids, values = (torch.cat(t) for t in zip(*self._top(said, names), strict=True))
            for part in zip(ids.split(counts), values.split(counts), strict=True):
                yield {"ids": part[0], "values": part[1]}
        else:
            uniform = torch.cat([
                torch.from_numpy(
                    np.random.default_rng([self.seed, *_words(int(i))]).random((n, self.draws))
                )
                for i, n in zip(batch.index, counts, strict=True)
            ])  # fmt: skip
            drawn = [self._draw(z, uniform[p]) for p, z in self._dense(said, names)]
            unique = torch.cat([d["unique"] for d in drawn])
            others = [n for n in drawn[0] if n != "unique"]
            fields = [int(u.sum()) for u in unique.split(counts)]
            cut = {n: torch.cat([d[n] for d in drawn]).split(fields) for n in others}
            for row, part in enumerate(unique.split(counts)):
                yield {"unique": part, **{n: cut[n][row] for n in others}}

    def _dense(self, said: Any, names: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(places, log-probabilities [m, V] at the temperature), so many that memory holds them."""
        rows = max(1, LOGITS // self.size)
        for start in range(0, len(names), rows):
            part = slice(start, start + rows)
            z = Signals(logits=said).rows(part).dense
            bad = ~(z.isfinite() | (z == -torch.inf)).all(-1)
            if bool(bad.any()):
                _not_finite("logits", names[start + int(bad.nonzero()[0])])
            yield part, (z / self.temperature).log_softmax(-1)

    def _top(self, said: Any, names: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if isinstance(said, Sparse):
            values, places = said.values.topk(self.k, -1)
            yield said.ids.gather(-1, places).cpu(), values.cpu().to(self.number_type)
            return
        for _, log_p in self._dense(said, names):
            values, ids = log_p.topk(self.k, -1)
            yield ids.int().cpu(), values.cpu().to(self.number_type)

    def _draw(self, log_p: Tensor, uniform: Tensor) -> Said:
        """Draws by inversion: the ids of `uniform` [m, n] in the distribution's running sums."""
        log_q = log_p if self.proposal == 1 else (log_p / self.proposal).log_softmax(-1)
        sums = log_q.double().exp().cumsum(-1)
        # the first running sum above it: never a token of no probability
        ids = torch.searchsorted(sums, uniform.to(sums) * sums[:, -1:], right=True)
        ids = ids.clamp_max(self.size - 1).sort(-1).values
        new = torch.ones_like(ids, dtype=torch.bool)
        new[:, 1:] = ids[:, 1:] != ids[:, :-1]
        starts = new.flatten().nonzero().flatten()
        counts = torch.cat([starts, starts.new_tensor([new.numel()])]).diff()
        found = {"unique": new.sum(-1), "ids": ids[new], "counts": counts}
        if self.proposal != 1:
            rows = starts // self.draws
            found["weights"] = (log_p - log_q)[rows, ids[new]]
        return {name: t.cpu() for name, t in found.items()}


def _asked(teacher: Any) -> Teacher:
    """A module is called as a language model."""
    if isinstance(teacher, torch.nn.Module):
        return as_teacher(teacher, call=CausalLM())
    return as_teacher(teacher)


def _check(
    mode: str, k: int, draws: int, proposal: float, temperature: float, size: int,
    shard: tuple[int, int],
) -> None:  # fmt: skip
    if mode not in MODES:
        raise unknown("mode of stored signals", mode, MODES)
    if min(k, draws, size) < 1:
        raise UserError("k, draws and batch_size are at least 1")
    if not (proposal > 0 and temperature > 0):
        raise UserError(f"temperatures are above 0, not {min(proposal, temperature)}")
    if mode == "hidden" and temperature != 1:
        raise UserError("hidden states give logits for any temperature: leave temperature out")
    if not (shard[1] >= 1 and 0 <= shard[0] < shard[1]):
        raise UserError(f"shard is (i, n) with 0 <= i < n, not {shard}")


@torch.no_grad()
def _said(teacher: Teacher, batch: Batch) -> Signals:
    return teacher.signals(batch)


def _words(number: int) -> tuple[int, ...]:
    """A sample id as numbers that are not negative."""
    return (number,) if number >= 0 else (-number, 1)


def _finite(value: Tensor, names: Tensor, what: str) -> None:
    bad = ~value.isfinite().all(-1)
    if bool(bad.any()):
        _not_finite(what, names[int(bad.nonzero()[0])])


def _not_finite(what: str, name: Tensor) -> None:
    raise NotFinite(
        f"the teacher's {what} of text {int(name)} are not finite (fp16 ends at 65504; bf16 and "
        "fp32 go on)"
    )
