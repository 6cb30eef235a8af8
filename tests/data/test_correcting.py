"""Sequence correction and re-generation."""

import torch
from torch import nn

from understudy.data.correcting import CorrectingWriter, corrections
from understudy.signals.generation import Sampling
from understudy.students import load_model


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = load_model("llama:width=16,depth=2,heads=2,length=24", classes=12, vocabulary=12).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(6)
    return made


PROMPTS = [torch.tensor([3, 4, 5]), torch.tensor([6]), torch.tensor([1, 2])]
GREEDY = Sampling(max_new=6, temperature=0.0, stop=(0,))


def by_hand(student, teacher, prompt, text):
    """Token by token, each distribution from a text of its own."""
    worst = None
    for at in range(len(text)):
        ids = torch.cat([prompt, text[:at]])[None]
        with torch.no_grad():
            q = student(ids).logits[0, -1].double().softmax(-1)
            p = teacher(ids).logits[0, -1].double().softmax(-1)
        apart = float((p * (p / q).log()).sum())
        if int(p.argmax()) != int(text[at]) and (worst is None or apart > worst[0]):
            worst = (apart, at, int(p.argmax()))
    return None if worst is None else worst[1:]


def test_the_worst_token_is_where_both_differ_most() -> None:
    student, teacher = model(0), model(1)
    told = [torch.tensor([4, 7, 1, 1]), torch.tensor([2]), torch.tensor([9, 9, 0])]
    with torch.no_grad():
        found = corrections(student, teacher, PROMPTS, told)
        alone = corrections(student, teacher, PROMPTS, told, batch_size=1)
    assert found == alone
    assert found == [by_hand(student, teacher, p, t) for p, t in zip(PROMPTS, told, strict=True)]


def test_the_text_stands_up_to_the_correction_and_goes_on_from_there() -> None:
    student, teacher = model(0), model(1)
    first = CorrectingWriter(student=student, teacher=teacher, times=0).write(PROMPTS, GREEDY, 0)
    found = CorrectingWriter(student=student, teacher=teacher).write(PROMPTS, GREEDY, 0)
    changed = 0
    for prompt, was, now in zip(PROMPTS, first, found, strict=True):
        place = by_hand(student, teacher, prompt, was)
        if place is None:
            assert torch.equal(was, now)
            continue
        at, token = place
        assert torch.equal(now[:at], was[:at])
        assert int(now[at]) == token
        assert len(now) <= GREEDY.max_new
        ids = torch.cat([prompt, now[: at + 1]])
        for nxt in now[at + 1 :]:
            with torch.no_grad():
                assert int(student(ids[None]).logits[0, -1].argmax()) == int(nxt)
            ids = torch.cat([ids, nxt[None]])
        changed += 1
    assert changed >= 1


def test_a_student_that_writes_as_its_teacher_is_not_corrected() -> None:
    own = model(0)
    writer = CorrectingWriter(student=own, teacher=own, times=2)
    plain = CorrectingWriter(student=own, teacher=own, times=0)
    for a, b in zip(writer.write(PROMPTS, GREEDY, 0), plain.write(PROMPTS, GREEDY, 0), strict=True):
        assert torch.equal(a, b)


def test_the_same_seed_writes_the_same() -> None:
    student, teacher = model(0), model(1)
    writer = CorrectingWriter(student=student, teacher=teacher)
    sampling = Sampling(max_new=6, stop=(0,))
    texts = [[t.tolist() for t in writer.write(PROMPTS, sampling, s)] for s in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2] or texts[0] != texts[3]
