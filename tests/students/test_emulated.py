"""A model put together while it writes."""

import pytest
import torch
from torch import nn

from understudy.errors import UserError
from understudy.evaluation.speculative import speculate
from understudy.signals import Batch, CausalLM
from understudy.signals.generation import Sampling, generate
from understudy.students import load_model
from understudy.students.emulated import Emulated, up_scaled

PROMPTS = [torch.tensor([3, 4, 5]), torch.tensor([6]), torch.tensor([1, 2])]
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 1, 2, 3]])


def model(seed: int, width: int = 16, vocabulary: int = 12, length: int = 24) -> nn.Module:
    torch.manual_seed(seed)
    spec = f"llama:width={width},depth=2,heads=2,length={length}"
    made = load_model(spec, classes=vocabulary, vocabulary=vocabulary).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(4)
    return made


@torch.no_grad()
def log_p(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids).logits[..., :12].double().log_softmax(-1)


def test_it_is_the_base_and_what_tuning_changed() -> None:
    base, tuned, untuned, other = (model(s, w) for s, w in ((0, 32), (1, 16), (2, 16), (3, 16)))
    found = log_p(Emulated(base, [(0.7, tuned, untuned), (-0.2, other, untuned)]))
    expected = (
        log_p(base) + 0.7 * (log_p(tuned) - log_p(untuned)) - 0.2 * (log_p(other) - log_p(untuned))
    ).log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_it_comes_to_at_its_ends() -> None:
    base, tuned, untuned = model(0), model(1), model(2)
    cases = [
        (up_scaled(base, tuned, untuned, 0.0), base),
        (up_scaled(base, tuned, tuned), base),
        (up_scaled(base, tuned, base), tuned),
    ]
    for made, like in cases:
        torch.testing.assert_close(log_p(made), log_p(like), rtol=1e-4, atol=1e-4)


def test_padded_vocabularies_are_cut_to_the_shared_part() -> None:
    base, tuned, untuned = model(0, vocabulary=16), model(1), model(2)
    assert up_scaled(base, tuned, untuned)(input_ids=IDS).logits.shape == (2, 5, 12)


def test_it_writes_with_caches_what_it_writes_without() -> None:
    made = up_scaled(model(0, 32), model(1), model(2))
    told = generate(made, PROMPTS, Sampling(max_new=6, temperature=0.0, stop=(0,)))
    for prompt, text in zip(PROMPTS, told, strict=True):
        ids = prompt
        for token in text:
            assert int(log_p(made, ids[None])[0, -1].argmax()) == int(token)
            ids = torch.cat([ids, token[None]])
    batch = Batch(inputs={"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    said = CausalLM()(made, batch)
    torch.testing.assert_close(said, made(input_ids=IDS).logits)


def test_a_draft_by_the_tuned_one_writes_the_same_greedy_text() -> None:
    tuned = model(1)
    made = up_scaled(model(0, 32), tuned, model(2))
    sampling = Sampling(max_new=6, temperature=0.0, stop=(0,))
    found = speculate(made, tuned, PROMPTS, sampling=sampling, draft=3)
    for one, other in zip(found.texts, generate(made, PROMPTS, sampling), strict=True):
        assert torch.equal(one, other)
    alike = speculate(up_scaled(model(2), tuned, model(2)), tuned, PROMPTS, sampling=sampling)
    assert alike.acceptance == 1


def test_context_is_that_of_the_shortest() -> None:
    from understudy.signals.language import context_of

    assert context_of(up_scaled(model(0), model(1, length=8), model(2))) == 8
    with pytest.raises(UserError, match="tuned model"):
        Emulated(model(0), [])
