"""The llama family: what it builds, and that transformers reads what is saved of it."""

import pytest
import torch

import understudy as us
from understudy.signals import CausalLM
from understudy.signals.generation import Sampling, generate
from understudy.students import load_model, load_student, save_student

SIZES = {"classes": 40, "vocabulary": 40, "length": 24}


def made(spec: str = "llama:width=16,depth=2,heads=2") -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model(spec, **SIZES).eval()


def test_parameters_are_those_of_the_sizes():
    width, depth, hidden, vocabulary = 16, 2, 48, 40
    layer = 4 * width**2 + 3 * width * hidden + 2 * width
    tied = vocabulary * width + depth * layer + width
    assert sum(p.numel() for p in made().parameters()) == tied
    untied = made("llama:width=16,depth=2,heads=2,tied=false")
    assert sum(p.numel() for p in untied.parameters()) == tied + vocabulary * width


def test_it_reads_from_left_to_right():
    model, ids = made(), torch.randint(40, (1, 12))
    with torch.no_grad():
        whole, part = model(input_ids=ids).logits, model(input_ids=ids[:, :7]).logits
    assert torch.allclose(whole[:, :7], part, atol=1e-6)


def test_transformers_reads_what_is_saved(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    model = made()
    save_student(model, tmp_path / "student")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    ours = load_student(tmp_path / "student")
    assert isinstance(theirs, LlamaForCausalLM)
    ids = torch.randint(40, (2, 9))
    with torch.no_grad():
        want = model(input_ids=ids).logits
        assert torch.equal(theirs(input_ids=ids).logits, want)
        assert torch.equal(ours(input_ids=ids).logits, want)
    assert theirs.config.tie_word_embeddings
    assert theirs.config.max_position_embeddings == 24


def test_ours_and_theirs_write_the_same(tmp_path):
    model = made("llama:width=16,depth=1,heads=2,tied=false").double()
    with torch.no_grad():  # an untrained model repeats itself
        model.get_output_embeddings().weight.mul_(40)
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([7])]
    said = generate(model, prompts, Sampling(max_new=8, temperature=0))
    for prompt, text in zip(prompts, said, strict=True):
        own = model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], max_new_tokens=8,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        assert own[0, len(prompt) :].tolist() == text.tolist()


def test_factored_logits_are_the_models_own():
    model = made()
    ids = torch.randint(40, (2, 10))
    batch = us.Batch(inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    with torch.no_grad():
        said = us.Signals(logits=CausalLM()(model, batch))
        assert torch.allclose(said.dense, model(input_ids=ids).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "words"),
    [("llama:width=18,depth=1,heads=4", "multiple"), ("llama:depth=0", "depth"),
     ("llama:widht=16", "width")],
)  # fmt: skip
def test_wrong_sizes_are_refused(spec, words):
    with pytest.raises(us.UserError, match=words):
        load_model(spec, **SIZES)
