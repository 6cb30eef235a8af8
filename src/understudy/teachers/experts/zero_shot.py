"""A classifier that was trained on none of the labels: it compares a text with their definitions."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from understudy.errors import UserError
from understudy.teachers.experts.base import Choice, Expert
from understudy.teachers.experts.encoder import SentenceEncoder, minilm

_NAMED = re.compile(r'\{"([^"]+)": "\.\.\."\}')


class ZeroShot(Expert):
    """Chooses a label for prompts `Task: classify`, by a sentence encoder.

    p(k) = softmax over labels of cos(text, `name: definition` of k) / temperature. A text is read
    up to the encoder's 256 tokens. The answer is the JSON object that the prompt asks for, as two
    tokens: what stands before the label, and the label with its end; the second carries the
    log-probabilities of all labels (of the 20 likeliest, at most, as a chat endpoint would).

    Source: label descriptions as embeddings, Chang et al. 2008 ("dataless classification"); the
    encoder is all-MiniLM-L6-v2 (Reimers & Gurevych 2019).
    """

    task, needs = "classify", ("labels", "text")

    def __init__(
        self,
        encoder: SentenceEncoder | None = None,
        *,
        temperature: float = 0.05,
        name: str = "zero-shot",
        batch_size: int = 64,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size)
        if not temperature > 0:
            raise UserError(f"the temperature is above 0, not {temperature!r}")
        self.encoder = minilm() if encoder is None else encoder
        self.temperature = temperature

    def parts(self) -> Sequence[str]:
        """Encoder and temperature."""
        return (self.encoder.fingerprint(), repr(self.temperature))

    def choose(self, given: Sequence[tuple[Mapping[str, str], str]]) -> list[Choice]:
        """Softmax over the labels of each prompt."""
        labels = [_labels(inputs["labels"]) for inputs, _ in given]
        defined = [f"{k}: {v}" if v else k for one in labels for k, v in one.items()]
        texts = [inputs["text"] for inputs, _ in given]
        vectors, counts = self.encoder.read([*texts, *defined])
        found, at = [], len(texts)
        for place, (one, (_, prompt)) in enumerate(zip(labels, given, strict=True)):
            own = slice(at, at + len(one))
            near = vectors[own].double() @ vectors[place].double()
            log_p = torch.log_softmax(near / self.temperature, -1).tolist()
            named = _NAMED.search(prompt)
            before = "{" + json.dumps(named[1] if named else "label", ensure_ascii=False) + ': "'
            ends = [json.dumps(k, ensure_ascii=False)[1:] + "}" for k in one]
            found.append(
                Choice(
                    answers=dict(zip(ends, log_p, strict=True)),
                    before=before,
                    tokens=counts[place] + sum(counts[own]),
                )
            )
            at = own.stop
        return found


def _labels(listed: str) -> dict[str, str]:
    """`name: definition`, a line each."""
    found: dict[str, Any] = {}
    for line in listed.splitlines():
        name, _, definition = line.partition(":")
        if name.strip():
            found[name.strip()] = definition.strip()
    return found
