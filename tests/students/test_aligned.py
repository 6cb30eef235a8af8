"""The small model of pairs: what it reads, and that it learns what it is for."""

import torch

from understudy.students.aligned import SEPARATOR, Aligned


def pairs(count: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight words and three words; label 1 where the three stand in the eight, one after another."""
    first = torch.randint(3, 200, (count, 8), generator=g)
    start = torch.randint(0, 6, (count,), generator=g)
    inside = torch.stack([first[i, s : s + 3] for i, s in enumerate(start.tolist())])
    label = torch.randint(0, 2, (count,), generator=g)
    outside = torch.randint(3, 200, (count, 3), generator=g)
    second = torch.where(label[:, None] == 1, inside, outside)
    return torch.cat([first, torch.full((count, 1), SEPARATOR), second], 1), label


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Aligned(vocabulary=200).eval()
    ids, _ = pairs(5, torch.Generator().manual_seed(0))
    longer = torch.nn.functional.pad(ids, (0, 4))
    assert torch.allclose(model(ids), model(longer), atol=1e-6)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 4))
    junk = longer.clone()
    junk[:, -4:] = 7
    assert torch.allclose(model(ids), model(junk, mask), atol=1e-6)


def test_a_text_without_a_second_is_finite() -> None:
    model = Aligned(vocabulary=50)
    for ids in ([[5, 6, 7]], [[2, 5, 6]], [[5, 6, 2]]):
        assert bool(torch.isfinite(model(torch.tensor(ids))).all())


def test_learns_whether_one_stands_in_the_other_with_words_never_seen() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    model = Aligned(vocabulary=400, width=16, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        ids, label = pairs(64, g)
        loss = torch.nn.functional.cross_entropy(model(ids), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids, label = pairs(200, g)
    moved = torch.where(ids > 2, ids + 190, ids)  # other words, of which it has seen few
    assert float((model(moved).argmax(-1) == label).float().mean()) > 0.95
