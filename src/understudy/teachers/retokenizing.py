"""A call for a language model that reads a student's text in tokens of its own."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from understudy.errors import SignalError
from understudy.objectives.cross_tokenizer import OWN
from understudy.signals import Batch, Call, Signals
from understudy.signals.language import CausalLM, context_of


@dataclass(frozen=True)
class Retokenizing:
    """Gives the model the ids of its OWN tokenizer, and says the answer at the student's positions.

    aligner: what reads a batch of the student's tokens as the teacher's (`data.Aligner`). There are
    no `logits`: nothing that compares token by token can take those of another vocabulary for its
    own. The features are `own_tokens.logits` [N, L, V'] where a group of tokens that cover the same
    bytes begins (zeros elsewhere), `.group` [N, L] the number of the group that a label is in (-1:
    none), `.count` [N, L] the model's tokens in the group that begins there (0: none begins) and
    `.later` [N, L] the log-probability of those after the first.
    """

    aligner: Any
    call: Call = field(default_factory=CausalLM)

    def __call__(self, model: nn.Module, batch: Batch) -> Signals:
        """What the model says of this text."""
        found = self.aligner.aligned(batch)
        device = batch.inputs["input_ids"].device
        ids, mask, group = found.ids.to(device), found.mask.to(device), found.group.to(device)
        first, later = found.first.to(device), found.later.to(device)
        begins = first >= 0
        rows, _ = begins.nonzero(as_tuple=True)
        # only what is compared is turned into logits
        wanted = torch.zeros(ids.shape, dtype=torch.bool, device=device)
        wanted[rows, first[begins]] = True
        wanted[later[:, 0], later[:, 2]] = True
        # what comes after the last token that predicts one is read by nobody
        read = int(wanted.any(0).nonzero().max()) + 1 if bool(wanted.any()) else 1
        highest = int(ids.max())
        ids, mask, wanted = ids[:, :read], mask[:, :read], wanted[:, :read]
        length = context_of(model)
        if length is not None and read > length:
            raise SignalError(
                f"the text has {read} tokens for {type(model).__name__}, which reads {length}; cut "
                "the data, or take a teacher that reads more"
            )
        said = self.call(model, Batch(inputs={"input_ids": ids, "attention_mask": mask}))
        said = said if isinstance(said, Signals) else Signals(logits=said)
        place = torch.full(ids.shape, -1, device=device)
        place[wanted] = torch.arange(int(wanted.sum()), device=device)
        dense = said.rows(wanted).dense
        if highest >= dense.shape[-1]:
            raise SignalError(
                f"the tokenizer of this teacher has a token {highest}, and "
                f"{type(model).__name__} has {dense.shape[-1]}: they do not belong together"
            )
        logits = dense.new_zeros(*group.shape, dense.shape[-1])
        logits[begins] = dense[place[rows, first[begins]]]
        rest = dense.new_zeros(group.shape)
        told = dense[place[later[:, 0], later[:, 2]]].log_softmax(-1)
        told = told.gather(-1, later[:, 3:]).squeeze(-1)
        rest.index_put_((later[:, 0], later[:, 1]), told, accumulate=True)
        features = {
            "logits": logits,
            "group": group,
            "count": found.count.to(device),
            "later": rest,
        }
        return replace(Signals(), features={f"{OWN}.{k}": v for k, v in features.items()})
