"""A finished classifier of texts, behind the words of a chat model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from understudy.errors import UserError
from understudy.signals import as_batch, default_call
from understudy.store.fingerprints import teacher_fingerprint
from understudy.students import load_model, load_tokenizer, read_config
from understudy.tasks.words import Vocabulary, encode
from understudy.teachers.chat import Conversation
from understudy.teachers.experts import Choice, Expert

LONGEST = 512
"""Tokens of a text that are read where the folder does not say how many."""


class Labeller(Expert):
    """Names the label of a text, by a student that was trained for these labels.

    A prompt `Task: classify` is answered as any teacher of labels answers it, `{"label": ...}`, so
    that the student can stand where its teacher stood (the labels are its own, whatever the prompt
    lists). Any other message is a text itself, and its answer the label alone. Log-probabilities
    are those of the labels.

    Raises:
        UserError: a folder whose model has no named labels, or no tokenizer.
    """

    task, needs = "classify", ("text",)

    def __init__(
        self, folder: str | Path, *, name: str, device: str = "cpu", batch_size: int = 64
    ) -> None:
        super().__init__(name=name, batch_size=batch_size)
        is_model = (Path(folder) / "config.json").is_file()
        config = read_config(folder) if is_model else {}
        extra = config.get("extra") or config.get("understudy") or {}
        named = config.get("labels") or _in_order(config.get("id2label") or {})
        words = (Path(folder) / "tokenizer.json").is_file()
        made = "".join(config.get("architectures") or ["SequenceClassification"])
        if (
            "SequenceClassification" not in made
        ):  # names of labels stand in any model's configuration
            named = None
        if not named or not words or extra.get("kind", "single") != "single":
            raise UserError(
                f"{folder} cannot be served: that takes a causal language model, or a classifier of "
                "texts, one label each, with its labels (config.json) and its tokenizer.json"
            )
        own = Vocabulary.saved(folder)
        self.tokenizer = Vocabulary.load(folder) if own else load_tokenizer(str(folder))
        self.labels = tuple(named)
        self.length = int(extra.get("max_length") or LONGEST)
        self.model = load_model(folder).float().to(device).eval()
        self.device = torch.device(device)

    def parts(self) -> Sequence[str]:
        """Weights, labels and length."""
        return (teacher_fingerprint(self.model), json.dumps(self.labels), str(self.length))

    def read(self, messages: Conversation) -> tuple[Mapping[str, str], str] | None:
        """The text of a prompt, or the last message as it stands."""
        last = messages[-1].content
        return super().read(messages) or (({"text": last}, last) if last.strip() else None)

    def choose(self, given: Sequence[tuple[Mapping[str, str], str]]) -> list[Choice]:
        """log p(label) of each text."""
        found = []
        for start in range(0, len(given), self.batch_size):
            part = given[start : start + self.batch_size]
            texts = [inputs["text"] for inputs, _ in part]
            batch = as_batch(encode(self.tokenizer, {"texts": texts}, self.length)["texts"])
            with torch.no_grad():
                said: Any = default_call(self.model, batch.to(self.device))
            log_p = torch.log_softmax(getattr(said, "dense", said).double(), -1).tolist()
            counts = batch.inputs["attention_mask"].sum(-1).tolist()
            for (_, prompt), row, count in zip(part, log_p, counts, strict=True):
                asked = prompt.startswith(f"Task: {self.task}\n")
                names = [json.dumps(k, ensure_ascii=False)[1:] + "}" if asked else k for k in self.labels]  # fmt: skip
                found.append(
                    Choice(
                        answers=dict(zip(names, row, strict=True)),
                        before='{"label": "' if asked else "",
                        tokens=int(count),
                    )
                )
        return found


def _in_order(names: Mapping[str, str]) -> list[str]:
    return [names[k] for k in sorted(names, key=int)]
