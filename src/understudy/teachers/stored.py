"""A teacher that has already spoken: its signals on disk, no model in memory."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn

from understudy.errors import SignalError
from understudy.objectives import Needs
from understudy.signals import Batch, Signals
from understudy.store import (
    SignalStore,
    TokenStore,
    data_fingerprint,
    identify,
    identify_texts,
    teacher_fingerprint,
)
from understudy.teachers.base import Gives, Teacher, fingerprint_of
from understudy.teachers.write import view_words

_ANY = object()


class Stored:
    """Signals that `write_signals` or `write_text_signals` wrote, given as the live teacher would.

    Every sample is compared, the first time it is seen in a process, with what the teacher saw
    (a hash of the inputs as they come, view included): other data or another view is refused by
    the sample's id. What is named here is compared before training as well:

    teacher: the live teacher (a module, a `Teacher`) or its fingerprint
    data:    a `Source` (all of its samples must be stored; a subset of the data will do), or a
             fingerprint (of the whole data)
    view:    the view function (None = none) with its `seed`, or its description
    tokenizer: what made the texts' ids, or its fingerprint; for signals of texts
    parts:   further stores by name (`validate`, `test`): what is compared with the student there
    """

    def __init__(
        self,
        store: str | PathLike[str] | SignalStore,
        *,
        teacher: Any = _ANY,
        data: Any = _ANY,
        view: Any = _ANY,
        seed: int = 0,
        tokenizer: Any = None,
        verify: bool = True,
        parts: Mapping[str, "Stored"] | None = None,
    ) -> None:
        self.parts = dict(parts or {})
        self.store = (
            store if isinstance(store, SignalStore) else SignalStore.open(str(store), verify=verify)
        )
        if teacher is not _ANY and teacher is not None:
            self.store.check(teacher=_teacher_fingerprint(teacher))
        if view is not _ANY:
            words = view if isinstance(view, str) else view_words(view, seed, self.store.epochs)
            self.store.check(view=words)
        if isinstance(data, str):
            self.store.check(data=data)
        elif data is not _ANY and data is not None:
            tokens = isinstance(self.store, TokenStore)
            ids, contents = identify_texts(data)[:2] if tokens else identify(data)
            if data_fingerprint(ids, contents) != self.store.manifest["data"]:
                self.store.check_samples(ids, contents)
        rows = int(self.store.manifest["rows"])
        self._checked = torch.zeros(rows, dtype=torch.bool)
        if isinstance(self.store, TokenStore):
            self.store.check_tokenizer(tokenizer)
            self.gives = _of_tokens(self.store.entry)
            return
        logits = self.store.entries.get("logits")
        self.gives = Gives(
            logits=logits is not None,
            k=logits["k"] if logits and logits["form"] == "sparse" else None,
            features=tuple(self.store.features),
            graph=False,
            head=False,
        )

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Refuse an objective that reads what was not stored."""
        self.gives.refuse(needs, f"the store {self.store.path}")

    def signals(self, batch: Batch) -> Signals:
        """What the teacher said about these samples in this view."""
        if batch.index is None:
            raise SignalError(
                "stored signals are found by sample id, and the batch has no index; read the data "
                "by index (a Dataset or arrays, not a DataLoader), or give `index` in each batch"
            )
        rows = self.store.rows(batch.index, int(batch.epoch))
        new = ~self._checked[rows]
        if bool(new.any()):
            fresh = batch if bool(new.all()) else batch.rows(new.to(batch.index.device))
            self.store.compare(
                batch.index[new.to(batch.index.device)], rows[new], self.store.hashes(fresh)
            )
            self._checked[rows] = True
        return self.store.said(rows, batch)

    def modules(self) -> Mapping[str, nn.Module]:
        """None: the teacher is not in memory."""
        return {}

    def fingerprint(self) -> str:
        """That of the teacher that wrote them."""
        return self.store.manifest["teacher"]


def _teacher_fingerprint(teacher: Any) -> str:
    if isinstance(teacher, str):
        return teacher
    if isinstance(teacher, nn.Module):
        return teacher_fingerprint(teacher)
    assert isinstance(teacher, Teacher)
    return fingerprint_of(teacher)


def _of_tokens(entry: Mapping[str, Any]) -> Gives:
    """What a store of token signals can give: all of the distribution, or what it lists of it."""
    k = entry.get("k") or entry.get("draws")
    whole = entry["form"] == "hidden" or (entry["form"] == "top-k" and k >= entry["size"])
    return Gives(
        k=None if whole else k,
        features=(),
        graph=False,
        head=False,
        tail=None if whole else entry["tail"],
        temperature=entry["temperature"],
    )
