"""Packed rows give the loss and the gradients of padded ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tiny_causal import tiny
from understudy.data import Texts
from understudy.errors import SignalError
from understudy.objectives import lm_ce, lm_kd
from understudy.objectives.divergences import KINDS
from understudy.signals import Batch, CausalLM, Factored, Signals, Sparse
from understudy.teachers import Frozen, Stored, write_text_signals

FAMILIES = ("llama", "gpt2", "qwen2", "gemma")


def _texts() -> Texts:
    g = torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, 40, (n,), generator=g) for n in (9, 3, 14, 6, 2, 11)]
    return Texts(tokens, [[i >= len(t) // 2 for i in range(len(t))] for t in tokens])


TEXTS = _texts()


def batch() -> Batch:
    return TEXTS.batch(torch.arange(6))


def scaled(model: nn.Module) -> nn.Module:
    """In double precision, so that nothing but the packing is compared."""
    return model.double()


def gradients(model: nn.Module, pack: int | None, kind: str, heard: Signals) -> tuple[Any, Any]:
    model.zero_grad()
    said = CausalLM(pack=pack)(model, batch())
    signals = said if isinstance(said, Signals) else Signals(logits=said)
    total, count = lm_kd(kind)(signals, heard, batch())
    assert int(count) == int(batch().mask.sum())  # type: ignore
    total.backward()
    return total.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_divergence(family: str, kind: str) -> None:
    student, teacher = scaled(tiny(family)), scaled(tiny(family, seed=1))
    with torch.no_grad():
        heard = Signals(logits=CausalLM()(teacher, batch()))  # type: ignore
        packed = Signals(logits=CausalLM(pack=20)(teacher, batch()))  # type: ignore
    padded = gradients(student, None, kind, heard)
    for pack in (16, 64):
        value, grads = gradients(student, pack, kind, packed)
        torch.testing.assert_close(value, padded[0], rtol=1e-5, atol=1e-5)
        for name, grad in grads.items():
            scale = float(padded[1][name].abs().max())
            torch.testing.assert_close(
                grad, padded[1][name], rtol=1e-5, atol=1e-5 * max(1.0, scale), msg=name
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_from_the_store(family: str, tmp_path: Path) -> None:
    """Signals on disk stand at the batch's places, whatever the rows of the student."""
    student = scaled(tiny(family))
    live = Frozen(tiny(family, seed=1), call=CausalLM())
    write_text_signals(live, TEXTS, tmp_path / "store", k=8, dtype="fp32")
    heard = Stored(tmp_path / "store", teacher=live, data=TEXTS).signals(batch())
    assert isinstance(heard.logits, Sparse)
    padded = gradients(student, None, "kl", heard)
    value, grads = gradients(student, 24, "kl", heard)
    torch.testing.assert_close(value, padded[0], rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, padded[1][name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_cross_entropy_and_single_precision(family: str) -> None:
    student = tiny(family)
    found = []
    for pack in (None, 24):
        student.zero_grad()
        said = Signals(logits=CausalLM(pack=pack)(student, batch()))  # type: ignore
        total, _ = lm_ce()(said, Signals(), batch())
        total.backward()
        found.append((total.detach(), [p.grad.clone() for p in student.parameters()]))  # type: ignore
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(one.norm()) + 1e-5


class Mixing(nn.Module):
    """A recurrent model: what stands before a text is remembered, whatever its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 8)
        self.memory = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 40)

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None,
                use_cache: bool = False) -> Any:  # fmt: skip
        return self.head(self.memory(self.embed(input_ids))[0])


class NoPositions(Mixing):
    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:  # type: ignore
        return super().forward(input_ids)


@pytest.mark.parametrize("kind", [Mixing, NoPositions])
def test_a_model_that_mixes_packed_texts_is_refused(kind: type[nn.Module]) -> None:
    model = kind()
    assert CausalLM()(model, batch()).shape == (6, 13, 40)  # type: ignore
    for _ in range(2):
        with pytest.raises(SignalError, match="does not keep packed texts apart"):
            CausalLM(pack=32)(model, batch())


def test_a_mask_of_ones_mixes() -> None:
    """A model of transformers that is always given a mask sees the whole row."""
    model = tiny("llama")
    inner = model.model  # type: ignore
    own = inner.forward

    def always_masked(*arguments: Any, **named: Any) -> Any:
        named["attention_mask"] = torch.ones_like(named["input_ids"])
        return own(*arguments, **named)

    inner.forward = always_masked
    with pytest.raises(SignalError, match="does not keep packed texts apart"):
        CausalLM(pack=32)(model, batch())
    assert isinstance(CausalLM()(model, batch()), Factored)
