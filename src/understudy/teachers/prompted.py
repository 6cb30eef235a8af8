"""A language model that teaches behind a soft prompt: its one part that may learn."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from understudy.errors import MethodRefused
from understudy.objectives import Needs
from understudy.signals import Batch, Signals
from understudy.signals.language import context_of
from understudy.signals.taps import plain
from understudy.store import teacher_fingerprint
from understudy.teachers.base import Gives
from understudy.teachers.frozen import still


class SoftPrompt(nn.Module):
    """Vectors [P, d] that stand before every text, in place of token embeddings."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone())


class Prompted:
    """A frozen language model that reads P soft tokens before each text.

    `signals` says what a `Teacher` says: without a graph, at the text's own positions. `speak` is
    the same with a graph to the prompt, which is the declared trainable part (`prompt`); the
    model's own parameters never get a gradient.
    """

    gives = Gives(head=False, features=())

    def __init__(self, model: nn.Module, prompt: SoftPrompt) -> None:
        self.model, self.prompt = model, prompt

    @classmethod
    def starting(cls, model: nn.Module, tokens: Tensor) -> "Prompted":
        """With a prompt that starts as the embeddings of these tokens [P]."""
        embed = _embedding(model)
        with torch.no_grad():
            return cls(model, SoftPrompt(embed(tokens.to(embed.weight.device))))

    def prepare(self, needs: Needs, example: Batch) -> None:
        """Refuses what a prompt cannot stand before."""
        self.gives.refuse(needs, "a prompted teacher")
        room, length = context_of(self.model), example.inputs["input_ids"].shape[-1]
        if room is not None and length + len(self.prompt.vectors) > room:
            raise MethodRefused(
                f"a text of {length} tokens and a prompt of {len(self.prompt.vectors)} are longer "
                f"than what {type(plain(self.model)).__name__} reads ({room}); take a shorter "
                "prompt, or cut the data"
            )

    def speak(self, batch: Batch) -> Signals:
        """Logits [N, L, V] behind the prompt, with a graph to it."""
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        vectors = self.prompt.vectors
        with still(self.model):
            embedded = _embedding(self.model)(ids)
            before = vectors.to(embedded.dtype).expand(len(ids), *vectors.shape)
            seen = torch.cat([mask.new_ones(len(ids), len(vectors)), mask], 1)
            out = self.model(
                inputs_embeds=torch.cat([before, embedded], 1),
                attention_mask=seen,
                use_cache=False,
            )
        return Signals(logits=out.logits[:, len(vectors) :])

    @torch.no_grad()
    def signals(self, batch: Batch) -> Signals:
        """The same, without a graph."""
        return self.speak(batch)

    def modules(self) -> Mapping[str, nn.Module]:
        """The model and the prompt."""
        return {"model": self.model, "prompt": self.prompt}

    def fingerprint(self) -> str:
        """Hash of both."""
        return f"{teacher_fingerprint(self.model)}-{teacher_fingerprint(self.prompt)}"


def _embedding(model: nn.Module) -> nn.Embedding:
    found = getattr(plain(model), "get_input_embeddings", lambda: None)()
    if not isinstance(found, nn.Embedding):
        raise MethodRefused(
            f"a soft prompt stands before token embeddings, and {type(plain(model)).__name__} shows "
            "none (get_input_embeddings); use a Hugging Face language model as the teacher"
        )
    return found
