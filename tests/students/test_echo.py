"""Layers that share attention."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.errors import CheckpointError, MethodRefused, UserError
from understudy.signals import Batch, CausalLM
from understudy.signals.generation import Sampling, generate
from understudy.students import load_model, load_student, save_student
from understudy.students.echo import attention_similarity, echo_of, similar_groups

IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 1, 2, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
BATCH = Batch(inputs={"input_ids": IDS, "attention_mask": MASK})


def model(depth: int = 5) -> nn.Module:
    torch.manual_seed(0)
    spec = f"llama:width=16,depth={depth},heads=2,length=24"
    made = load_model(spec, classes=12, vocabulary=12).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(4)
    return made


def test_followers_use_their_leaders_weights() -> None:
    """As in a model whose followers' attention weights are put in their place by hand."""
    teacher = model()
    student = echo_of(teacher, [[1, 2, 3]])
    x = teacher.model.embed_tokens(IDS[:1])
    positions = torch.arange(5)[None]
    turn = teacher.model.rotary_emb(x, position_ids=positions)
    mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
    led = None
    with torch.no_grad():
        for n, layer in enumerate(teacher.model.layers):
            h = layer.input_layernorm(x)
            own = layer.self_attn
            own.config._attn_implementation = "eager"
            out, weights = own(h, position_embeddings=turn, attention_mask=mask)
            if n in (2, 3):
                v = own.v_proj(h).view(1, 5, 2, 8).transpose(1, 2)
                out = own.o_proj((led @ v).transpose(1, 2).reshape(1, 5, 16))
            led = weights if n == 1 else led
            x = x + out
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        expected = teacher.lm_head(teacher.model.norm(x))
        found = student(input_ids=IDS[:1]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_shared_is_not_there_twice() -> None:
    teacher = model()
    student = echo_of(teacher, [[1, 2, 3]])
    count = [sum(p.numel() for p in m.parameters()) for m in (teacher, student)]
    assert count[0] - count[1] == 2 * 2 * 16 * 16
    names = dict(student.named_parameters())
    assert "model.layers.2.self_attn.v_proj.weight" in names
    assert "model.layers.2.self_attn.q_proj.weight" not in names


def test_gradients_reach_the_leader_through_its_followers() -> None:
    student = echo_of(model(), [[1, 2]]).train()
    student(input_ids=IDS).logits.square().sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    copy.deepcopy(student)  # nothing of a pass is kept
    assert student.model.layers[1].self_attn.held.weights is None


def test_with_a_cache_it_writes_what_it_writes_without() -> None:
    student = echo_of(model(), [[1, 2, 3]])
    prompts = [torch.tensor([3, 4, 5]), torch.tensor([6])]
    told = generate(student, prompts, Sampling(max_new=5, temperature=0.0, stop=(0,)))
    for prompt, text in zip(prompts, told, strict=True):
        ids = prompt
        for token in text:
            with torch.no_grad():
                assert int(student(input_ids=ids[None]).logits[0, -1].argmax()) == int(token)
            ids = torch.cat([ids, token[None]])


def test_texts_that_end_leave_the_batch_and_the_others_go_on() -> None:
    shared = echo_of(model(), [(1, 2), (3, 4)])
    prompts = [torch.randint(0, 12, (n,)) for n in (3, 5, 2, 7, 4, 6)]
    first = [int(generate(shared, [p], Sampling(max_new=3, temperature=0))[0][2]) for p in prompts]
    # one text's third token stops it, and whichever others write it sooner or later
    how = Sampling(max_new=8, temperature=0, stop=(first[0],))
    together = generate(shared, prompts, how)
    alone = [generate(shared, [p], how)[0] for p in prompts]
    assert len({len(t) for t in together}) > 1
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a, b)


def test_it_is_called_as_any_other_and_packed() -> None:
    student = echo_of(model(), [[1, 2]])
    with torch.no_grad():
        plain = student(**BATCH.inputs).logits
        said = CausalLM()(student, BATCH).dense()
        packed = CausalLM(pack=10)(student, BATCH).dense()
    real = MASK.bool()
    torch.testing.assert_close(said[real], plain[real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed[real], plain[real], rtol=1e-4, atol=1e-4)


def test_a_saved_one_comes_back(tmp_path: Path) -> None:
    student = echo_of(model(), [[1, 2, 3]])
    save_student(student, tmp_path / "student")
    back = load_student(tmp_path / "student")
    assert not back.training
    with torch.no_grad():
        torch.testing.assert_close(back(input_ids=IDS).logits, student(input_ids=IDS).logits)
    assert json.loads((tmp_path / "student/config.json").read_text())["echo"] == [[1, 2, 3]]
    again = load_model(str(tmp_path / "student"))
    assert type(again) is type(student)
    config = json.loads((tmp_path / "student/config.json").read_text())
    (tmp_path / "student/config.json").write_text(json.dumps({**config, "echo": [[1, 2]]}))
    with pytest.raises(CheckpointError, match="not as the configuration says"):
        load_student(tmp_path / "student")


def test_similarity_is_the_cosine_of_attention_matrices() -> None:
    teacher = model(3)
    before = teacher.config._attn_implementation
    found = attention_similarity(teacher, BATCH)
    assert teacher.config._attn_implementation == before
    teacher.set_attn_implementation("eager")
    expected = torch.zeros(3, 3)
    for n, size in ((0, 5), (1, 4)):
        with torch.no_grad():
            maps = teacher(input_ids=IDS[n : n + 1, :size], output_attentions=True).attentions
        for a in range(3):
            for b in range(3):
                for head in range(2):
                    u, v = maps[a][0, head].flatten(), maps[b][0, head].flatten()
                    expected[a, b] += float(u @ v / u.norm() / v.norm()) / 4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_groups_are_runs_of_similar_inner_layers() -> None:
    s = torch.eye(7)
    for a, b, value in ((1, 2, 0.9), (2, 3, 0.3), (3, 4, 0.8), (4, 5, 0.5), (3, 5, 0.7)):
        s[a, b] = s[b, a] = value
    assert similar_groups(s, 1) == [[1, 2]]
    assert similar_groups(s, 2) == [[1, 2], [3, 4]]
    assert similar_groups(s, 3) == [[1, 2], [3, 4, 5]]
    assert similar_groups(s, 9, threshold=0.75) == [[1, 2], [3, 4]]
    assert similar_groups(s, 9) == [[1, 2, 3, 4, 5]]
    assert similar_groups(s, 9, skip=3) == []


def test_what_cannot_be_shared_is_refused() -> None:
    for groups in ([], [[1]], [[1, 2], [2, 3]], [[4, 5]]):
        with pytest.raises(UserError):
            echo_of(model(), groups)
    with pytest.raises(MethodRefused, match="is none"):
        echo_of(nn.Linear(2, 2), [[0, 1]])
