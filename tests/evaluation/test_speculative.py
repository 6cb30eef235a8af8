"""Speculative sampling: the texts are the teacher's, whatever the student drafts."""

import numpy as np
import pytest
import torch

from understudy.errors import UserError
from understudy.evaluation import speculate
from understudy.signals.generation import Sampling, generate
from understudy.students import load_model


def model(seed, *, vocabulary=12, width=16, scale=40.0):
    torch.manual_seed(seed)
    made = load_model(
        f"llama:width={width},depth=1,heads=2,tied=false",
        classes=vocabulary,
        vocabulary=vocabulary,
        length=48,
    ).double()
    with torch.no_grad():  # an untrained model says nearly the same of all tokens
        made.get_output_embeddings().weight.mul_(scale)
    return made.eval()


PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([5]), torch.tensor([7, 7, 1, 0, 4])]


@pytest.mark.parametrize("draft", [1, 3, 8])
def test_greedy_text_is_the_teachers(draft):
    teacher, student = model(0), model(1)
    own = generate(teacher, PROMPTS, Sampling(max_new=24, temperature=0))
    said = speculate(
        teacher, student, PROMPTS, sampling=Sampling(max_new=24, temperature=0), draft=draft
    )
    assert [t.tolist() for t in said.texts] == [t.tolist() for t in own]
    assert said.accepted < said.tested  # the student was refused at times, so this was no luck


def test_a_student_like_its_teacher_is_always_taken():
    teacher = model(0)
    sampling = Sampling(max_new=25, temperature=0)
    said = speculate(teacher, teacher, PROMPTS, sampling=sampling, draft=4)
    assert said.acceptance == 1.0
    # five tokens a pass: four drafts and one of the teacher's own
    assert said.passes == 3 * 5
    assert said.tokens_a_pass == 5.0


def test_stop_tokens_end_a_text():
    teacher, student = model(0), model(1)
    free = generate(teacher, PROMPTS, Sampling(max_new=24, temperature=0))
    stop = int(free[0][6])
    sampling = Sampling(max_new=24, temperature=0, stop=(stop,))
    own = generate(teacher, PROMPTS, sampling)
    said = speculate(teacher, student, PROMPTS, sampling=sampling, draft=5)
    assert [t.tolist() for t in said.texts] == [t.tolist() for t in own]
    assert min(map(len, own)) < 24
    same = speculate(teacher, teacher, PROMPTS, sampling=sampling, draft=5)
    assert [t.tolist() for t in same.texts] == [t.tolist() for t in own]


def test_texts_are_distributed_as_the_teachers():
    """Two tokens, counted against the teacher's exact joint probabilities."""
    teacher, student = (model(s, vocabulary=4, width=8, scale=60.0) for s in (3, 4))
    prompt = torch.tensor([1, 2])
    with torch.no_grad():
        first = teacher(input_ids=prompt[None]).logits[0, -1].softmax(-1).numpy()
        second = np.stack([
            teacher(input_ids=torch.tensor([[1, 2, t]])).logits[0, -1].softmax(-1).numpy()
            for t in range(4)
        ])  # fmt: skip
        other = student(input_ids=prompt[None]).logits[0, -1].softmax(-1).numpy()
    joint = (first[:, None] * second).ravel()
    assert np.abs(first - other).sum() > 0.2  # the student by itself would be told apart
    n = 400
    said = speculate(
        teacher, student, [prompt] * n, sampling=Sampling(max_new=2), draft=2,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    counts = np.bincount([4 * int(a) + int(b) for a, b in said.texts], minlength=16)
    chi2 = float(((counts - n * joint) ** 2 / (n * joint)).sum())
    assert chi2 < 37.7  # the 0.1 % point of 15 degrees of freedom
    # only the first token was drafted: there the chance is the sum of the smaller probabilities
    expected = float(np.minimum(first, other).sum())
    assert abs(said.acceptance - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_vocabularies_padded_differently():
    teacher, student = model(0), model(1, vocabulary=16)
    own = generate(teacher, PROMPTS, Sampling(max_new=12, temperature=0))
    said = speculate(teacher, student, PROMPTS, sampling=Sampling(max_new=12, temperature=0))
    assert [t.tolist() for t in said.texts] == [t.tolist() for t in own]
    with pytest.raises(UserError, match="not in the vocabulary"):
        speculate(teacher, model(1, vocabulary=3), PROMPTS)


def test_the_context_limits_what_is_written():
    teacher, student = model(0), model(1)
    long = torch.ones(40, dtype=torch.long)
    said = speculate(teacher, student, [long], sampling=Sampling(max_new=64, temperature=0))
    own = generate(teacher, [long], Sampling(max_new=64, temperature=0))
    assert said.texts[0].tolist() == own[0].tolist()
    assert len(own[0]) == 9


@pytest.mark.parametrize(
    ("prompts", "draft", "words"),
    [([torch.tensor([], dtype=torch.long)], 4, "empty prompt"), (PROMPTS, 0, "draft"),
     ([torch.ones(60, dtype=torch.long)], 4, "no room")],
)  # fmt: skip
def test_what_cannot_work_is_refused(prompts, draft, words):
    with pytest.raises(UserError, match=words):
        speculate(model(0), model(1), prompts, draft=draft)
