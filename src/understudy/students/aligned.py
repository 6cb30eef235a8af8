"""A small model of pairs of texts: each word of the second looks for its like in the first."""

import torch
from torch import Tensor, nn

SEPARATOR = 2
"""The token between the two texts (`tasks.words.Vocabulary`)."""


class Aligned(nn.Module):
    """Does the first text say what the second says? Attend, compare, aggregate.

    For each word s of the second text over the words d of the first:
    a(s, d) = q(s) . k(d) / sqrt(width) + b1 [same word] + b2 [same word after the same word];
    s is compared with its average under softmax_d a and with how well its word, and its pair of
    words, are found there; the mean and the maximum of the comparisons over s go to the head.

    Source: decomposable attention, Parikh et al. 2016, arXiv 1606.01933, with matches of words as
    biases, for few data.
    """

    def __init__(
        self, *, vocabulary: int, classes: int = 2, width: int = 32, hidden: int = 32,
        padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.padding, self.width = padding, width
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.same = nn.Parameter(torch.tensor([4.0, 4.0]))
        self.compare = nn.Sequential(
            nn.Linear(3 * width + 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids [B, L] of `first SEPARATOR second` -> logits [B, K]."""
        ids = input_ids
        real = ids != self.padding if attention_mask is None else attention_mask.bool()
        after = (ids == SEPARATOR).long().cumsum(1) > 0
        second = after & real & (ids != SEPARATOR)
        first = ~after & real
        x = self.embedding(ids)
        score = self.query(x) @ self.key(x).transpose(1, 2) / self.width**0.5
        word = (ids[:, :, None] == ids[:, None, :]).float()
        before = torch.nn.functional.pad(ids[:, :-1], (1, 0))
        pair = word * (before[:, :, None] == before[:, None, :]).float()
        score = score + self.same[0] * word + self.same[1] * pair
        weight = score.masked_fill(~first[:, None, :], -1e4).softmax(-1) * first[:, None, :]
        aligned = weight @ x
        seen = first[:, None, :].float()
        found = [(m * seen).amax(-1) for m in (word, pair)]
        follows = torch.nn.functional.pad(found[1][:, 1:], (0, 1))
        facts = torch.stack([*found, follows, weight.amax(-1)], -1)
        h = self.compare(torch.cat([x * aligned, (x - aligned).abs(), x, facts], -1))
        kept = second[..., None].float()
        mean = (h * kept).sum(1) / kept.sum(1).clamp(min=1)
        most = (h * kept).amax(1)
        return self.head(torch.cat([mean, most], -1))
