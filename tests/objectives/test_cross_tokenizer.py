"""A teacher with tokens of its own: what it is fed, what it says, and the losses on that."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.data import Texts
from understudy.data.alignment import Aligner, Pieces, byte_pieces, shared_ids
from understudy.errors import SignalError, UserError
from understudy.objectives import gold, lm_kd, projected_kl, uld
from understudy.signals import Batch, CausalLM, Signals
from understudy.students import load_model
from understudy.teachers import Frozen
from understudy.teachers.retokenizing import Retokenizing


def greedy(*pieces: bytes, specials: int = 1, begin: int | None = None) -> Pieces:
    every = (b"",) * specials + pieces

    def encode(text: str) -> list[int]:
        raw, found = text.encode(), []
        while raw:
            best = max(
                (i for i, p in enumerate(every) if p and raw.startswith(p)),
                key=lambda i: len(every[i]),
            )
            found.append(best)
            raw = raw[len(every[best]) :]
        return found

    return Pieces(pieces=every, encode=encode, begin=begin)


STUDENT = greedy(b"a", b"b", b"c", b" ", b"ab", b"bc")
TEACHER = greedy(b"a", b"b", b"c", b" ", b"abc", b"c ", specials=2)
PAIRS = {0: 1}
TEXTS = Texts(
    [[4, 5, 3, 4, 1, 6, 0], [1, 4, 2, 3, 0]], [[False] * 2 + [True] * 5, [False] + [True] * 4]
)


class Heard(nn.Module):
    """Logits that depend on the ids that were read before, in float64; remembers the ids."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(vocabulary)
        self.table = nn.Parameter(torch.randn(50, vocabulary, generator=g, dtype=torch.float64))
        self.seen: list[torch.Tensor] = []

    def forward(self, input_ids, attention_mask, use_cache=False):
        self.seen.append(input_ids)
        return {"logits": self.table[(input_ids.cumsum(-1) * 7) % 50]}


def parts(begin: int | None = None):
    teacher = Pieces(pieces=TEACHER.pieces, encode=TEACHER.encode, begin=begin)
    aligner = Aligner(student=STUDENT, teacher=teacher, specials=PAIRS)
    model, batch = Heard(len(TEACHER)), TEXTS.batch(torch.arange(2))
    call = Retokenizing(aligner, CausalLM(factored=False))
    said = Signals(logits=Heard(len(STUDENT))(batch.inputs["input_ids"], None)["logits"])
    return model, Frozen(model, call=call), aligner, batch, said


def by_hand(model: Heard, batch: Batch, said: Signals, begin: int | None = None):
    """Of each scored group (p, q, p of the later tokens, q of the later ones, one each side)."""
    # text 0: ab _|c... read as bytes: "ab" "bc" "c" " "...; groups written out by hand
    texts = [
        # student: [4 " "], [5 "ab"], [3 "c"], [4 " "], [1 "a"], [6 "bc"], end
        # teacher: " "  "abc"  " "  "abc"  end   (of "abc " the longest piece is taken first)
        ([5, 6, 5, 6, 1], [((3, 4), (2, 3)), ((4, 6), (3, 4)), ((6, 7), (4, 5))]),
        # student: [1 "a"], [4 " "], [2 "b"], [3 "c"], end; teacher: a, " ", b, c, end
        ([2, 5, 3, 4, 1], [((n, n + 1), (n, n + 1)) for n in range(1, 5)]),
    ]
    shift = 0 if begin is None else 1
    found = []
    for n, (ids, groups) in enumerate(texts):
        ids = ([] if begin is None else [begin]) + ids
        heard = model.table[(torch.tensor(ids).cumsum(-1) * 7) % 50].detach().numpy()
        spoken = said.dense[n].detach().numpy()
        text = TEXTS.tokens(n).tolist()

        def soft(z):
            e = np.exp(z - z.max())
            return e / e.sum()

        for (a, b), (c, d) in groups:
            c, d = c + shift, d + shift
            later_q = np.prod([soft(spoken[t - 1])[text[t]] for t in range(a + 1, b)])
            later_p = np.prod([soft(heard[t - 1])[ids[t]] for t in range(c + 1, d)])
            one = b - a == 1 and d - c == 1
            found.append((soft(heard[c - 1]), soft(spoken[a - 1]), later_p, later_q, one))
    return found


@pytest.mark.parametrize("begin", [None, 0])
def test_the_teacher_reads_its_own_ids(begin: int | None) -> None:
    """Not the student's: the mistake that goes unnoticed where both vocabularies have such ids."""
    model, teacher, _, batch, _ = parts(begin)
    said = teacher.signals(batch)
    start = [] if begin is None else [begin]
    # the last token predicts nothing, and is not read
    expected = [[*start, 5, 6, 5, 6], [*start, 2, 5, 3, 4]]
    assert model.seen[-1].tolist() == expected
    assert said.logits is None
    with pytest.raises(SignalError, match="no logits"):
        lm_kd()(Signals(logits=batch.inputs["input_ids"].double()[..., None]), said, batch)


@pytest.mark.parametrize("begin", [None, 0])
def test_losses_are_those_written_out_by_hand(begin: int | None) -> None:
    model, teacher, _, batch, said = parts(begin)
    heard = teacher.signals(batch)
    shared = shared_ids(STUDENT, TEACHER, PAIRS)
    rows = by_hand(model, batch, said, begin)
    count = int(batch.mask.sum())

    def gap(p, q):
        p, q = np.sort(p)[::-1], np.sort(q)[::-1]
        width = max(len(p), len(q))
        return np.abs(np.pad(p, (0, width - len(p))) - np.pad(q, (0, width - len(q)))).sum()

    def kl(p, q):
        return float((p * np.log(p / q)).sum())

    own, its = shared[:, 0].tolist(), shared[:, 1].tolist()
    other = [i for i in range(len(TEACHER)) if i not in its]
    mine = [i for i in range(len(STUDENT)) if i not in own]
    merged = [gap(p * a, q * b) for p, q, a, b, _ in rows]
    near = [kl(p[its] / p[its].sum(), q[own] / q[own].sum()) for p, q, *_ in rows]
    far = [gap(p[other] * a, q[mine] * b) for p, q, a, b, _ in rows]
    projected = [
        kl(np.append(p[its], p[other].sum()), np.append(q[own], q[mine].sum()))
        for p, q, _, _, one in rows
        if one
    ]
    assert len(rows) == 7
    assert len(projected) == 6
    cases = [
        (uld(), sum(merged)),
        (uld(merged=False), sum(gap(p, q) for p, q, *_ in rows)),
        (gold(shared, matched=0.6, unmatched=0.3), 0.6 * sum(near) + 0.3 * sum(far)),
        (projected_kl(shared), sum(projected)),
    ]
    for objective, expected in cases:
        found = objective(said, heard, batch)
        assert found.count.item() == objective.count(batch).item() == count
        assert found.total.item() == pytest.approx(expected, rel=1e-9)


def test_gradients_reach_the_tokens_that_are_merged() -> None:
    _, teacher, _, batch, said = parts()
    heard = teacher.signals(batch)
    shared = shared_ids(STUDENT, TEACHER, PAIRS)
    for objective in (uld(), gold(shared), projected_kl(shared, where="first")):
        leaf = said.dense.detach().clone().requires_grad_()

        def mean(z, objective=objective):
            return objective(Signals(logits=z), heard, batch).mean

        assert torch.autograd.gradcheck(mean, (leaf,), fast_mode=True, atol=1e-6)
        mean(leaf).backward()
        assert leaf.grad is not None
        assert not leaf.grad[~batch.mask].any()


def test_a_text_where_nothing_can_be_aligned_teaches_nothing() -> None:
    aligner = Aligner(student=byte_pieces(), teacher=greedy(b"a", "é".encode()))
    batch = Texts([[97, 0xC3]], [[False, True]]).batch(torch.arange(1))
    model = Heard(3)
    heard = Frozen(model, call=Retokenizing(aligner, CausalLM(factored=False))).signals(batch)
    z = torch.zeros(1, 1, 257, dtype=torch.float64, requires_grad=True)
    found = uld()(Signals(logits=z), heard, batch)
    assert (found.total.item(), found.count.item()) == (0, 1)
    found.mean.backward()
    assert not z.grad.any()


def test_another_batch_or_vocabulary_is_noticed() -> None:
    _, teacher, _, batch, said = parts()
    heard = teacher.signals(batch)
    shared = shared_ids(STUDENT, TEACHER, PAIRS)
    with pytest.raises(SignalError, match="same batch"):
        uld()(said, heard.map(lambda t: t[:, 1:]), batch)
    with pytest.raises(SignalError, match="shared ids go up to"):
        gold(shared + 5)(said, heard, batch)
    for wrong in (torch.tensor([[0, 1], [0, 2]]), torch.zeros(0, 2), torch.tensor([1])):
        with pytest.raises(UserError, match="shared ids"):
            projected_kl(wrong)
    small = Frozen(Heard(4), call=Retokenizing(parts()[2], CausalLM(factored=False)))
    with pytest.raises(SignalError, match="do not belong together"):
        small.signals(batch)


def test_a_real_model_says_the_same_packed_and_padded() -> None:
    """Factored logits of a Llama of its own vocabulary, at the student's positions."""
    torch.manual_seed(0)
    spec = "llama:width=16,depth=1,heads=2,length=16"
    model = load_model(spec, classes=len(TEACHER), vocabulary=len(TEACHER)).eval()
    aligner, batch = parts()[2], TEXTS.batch(torch.arange(2))
    said = parts()[4].map(lambda t: t.float())
    found = [
        uld()(said, Frozen(model, call=Retokenizing(aligner, call)).signals(batch), batch).total
        for call in (CausalLM(), CausalLM(factored=False), CausalLM(pack=32))
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-5)
    short = load_model(
        "llama:width=16,depth=1,heads=2,length=3", classes=len(TEACHER), vocabulary=len(TEACHER)
    )
    with pytest.raises(SignalError, match="reads 3"):
        Frozen(short, call=Retokenizing(aligner)).signals(batch)
