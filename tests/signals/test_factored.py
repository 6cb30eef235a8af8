"""Hidden states and a head give the logits that the model itself gives, or the model's are taken."""

from typing import Any

import pytest
import torch
from torch import nn

from tiny_causal import tiny
from understudy.objectives import lm_ce, lm_kd
from understudy.signals import Batch, CausalLM, Factored, Signals
from understudy.students import LoRA

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "qwen2": ("qwen2", {}),
    "gemma": ("gemma", {}),
    "gemma2 with its soft-cap": ("gemma2", {"final_logit_softcapping": 3.0}),
    "gemma2 without": ("gemma2", {"final_logit_softcapping": None}),
    "cohere with its logit scale": ("cohere", {"logit_scale": 0.25}),
    "granite with its logits' divisor": ("granite", {"logits_scaling": 4.0}),
}
TIED = (True, False)


def batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 40, (3, 10), generator=g)
    mask = torch.ones(3, 10, dtype=torch.bool)
    mask[1, 7:] = False
    labels = torch.where(mask, torch.randint(0, 40, (3, 10), generator=g), -100)
    return Batch(inputs={"input_ids": ids, "attention_mask": mask.long()}, labels=labels, mask=mask)


def plainly(model: Any) -> torch.Tensor:
    return model(**batch().inputs, use_cache=False).logits


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("name", CASES)
def test_factored_logits_are_the_models_own(name: str, tied: bool) -> None:
    family, changes = CASES[name]
    model = tiny(family, tie_word_embeddings=tied, **changes)
    said = CausalLM()(model, batch())
    assert isinstance(said, Factored)
    own = plainly(model)
    assert float(own.detach().std()) > 0.1
    torch.testing.assert_close(said.dense(), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_dense_logits(name: str, tied: bool) -> None:
    """Of every parameter, the embedding that is also the head among them."""
    family, changes = CASES[name]
    model = tiny(family, tie_word_embeddings=tied, **changes).double()
    heard = Signals(logits=plainly(tiny(family, seed=1, **changes).double()).detach())
    objective = lm_ce() + 0.5 * lm_kd("jsd")
    found = []
    for call in (CausalLM(), CausalLM(factored=False)):
        model.zero_grad()
        said = call(model, batch())
        assert isinstance(said, Factored) == call.factored
        signals = Signals(logits=said)  # type: ignore
        value = sum(w * o(signals, heard, batch()).total for _, w, o in objective)
        value.backward()  # type: ignore
        found.append([p.grad.clone() for p in model.parameters()])  # type: ignore
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_and_adapters(name: str) -> None:
    family, changes = CASES[name]
    model = tiny(family, **changes).bfloat16()
    said = CausalLM()(model, batch())
    assert isinstance(said, Factored)
    torch.testing.assert_close(said.dense(), plainly(model), rtol=5e-2, atol=5e-2)
    adapted = LoRA(r=2).put(tiny(family, **changes))
    with torch.no_grad():
        for key, p in adapted.named_parameters():
            if "lora_B" in key:
                p.normal_()
    said = CausalLM()(adapted, batch())
    assert isinstance(said, Factored)
    torch.testing.assert_close(said.dense(), plainly(adapted), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plainly(adapted), plainly(tiny(family, **changes)), atol=1e-2)


class Shifted(nn.Module):
    """Adds to the logits after the head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base_model, self.inner, self.config = model.base_model, model, model.config

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        said = self.inner(**inputs)
        said.logits = said.logits + torch.arange(40)
        return said


def adapted_head() -> nn.Module:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
    return peft.get_peft_model(tiny("llama", tie_word_embeddings=False), config).eval()  # type: ignore


@pytest.mark.parametrize("made", [lambda: Shifted(tiny("llama")), adapted_head])
def test_dense_where_a_head_does_more(made: Any) -> None:
    model = made()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.normal_()
    said = CausalLM()(model, batch())
    assert isinstance(said, torch.Tensor)
    torch.testing.assert_close(said, plainly(model))


def test_dense_where_only_what_comes_later_shows_it() -> None:
    """An adapter of the head that is zero at first is one all the same once it learns."""
    model = adapted_head()
    with torch.no_grad():
        CausalLM()(model, batch())
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.normal_()
    said = CausalLM()(model, batch())
    assert isinstance(said, torch.Tensor)
    torch.testing.assert_close(said, plainly(model))
