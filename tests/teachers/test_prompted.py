"""A soft prompt before a frozen language model."""

import pytest
import torch

from understudy.errors import MethodRefused
from understudy.objectives import Needs
from understudy.signals import Batch
from understudy.students import load_model
from understudy.teachers.prompted import Prompted

TEXT = torch.tensor([[5, 6, 7, 8], [9, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def model(length: int = 16):
    torch.manual_seed(0)
    spec = f"llama:width=16,depth=2,heads=2,length={length}"
    return load_model(spec, classes=12, vocabulary=12).eval()


def batch() -> Batch:
    return Batch(inputs={"input_ids": TEXT, "attention_mask": MASK})


def test_a_prompt_of_tokens_reads_as_those_tokens() -> None:
    """Its logits are those of the model on the tokens followed by the text."""
    own, tokens = model(), torch.tensor([3, 4])
    said = Prompted.starting(own, tokens).signals(batch()).dense
    whole = torch.cat([tokens.expand(2, 2), TEXT], 1)
    seen = torch.cat([torch.ones(2, 2, dtype=torch.long), MASK], 1)
    with torch.no_grad():
        expected = own(input_ids=whole, attention_mask=seen).logits[:, 2:]
    assert said.shape == (2, 4, 12)
    torch.testing.assert_close(said[MASK.bool()], expected[MASK.bool()], rtol=1e-5, atol=1e-5)


def test_the_prompt_learns_and_the_model_does_not() -> None:
    own = model()
    teacher = Prompted.starting(own, torch.tensor([3, 4]))
    assert not teacher.signals(batch()).dense.requires_grad
    teacher.speak(batch()).dense.square().sum().backward()
    assert teacher.prompt.vectors.grad is not None
    assert bool((teacher.prompt.vectors.grad != 0).any(1).all())
    assert all(p.grad is None for p in own.parameters())
    assert all(p.requires_grad for p in own.parameters())


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    teacher = Prompted.starting(model(length=5), torch.tensor([3, 4]))
    with pytest.raises(MethodRefused, match="shorter prompt"):
        teacher.prepare(Needs(), batch())
    with pytest.raises(MethodRefused, match="linear layer"):
        teacher.prepare(Needs(head=True), batch())
    with pytest.raises(MethodRefused, match="token embeddings"):
        Prompted.starting(torch.nn.Linear(2, 2), torch.tensor([1]))
