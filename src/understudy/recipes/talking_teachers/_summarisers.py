"""Summarisers of documents: one that takes a sentence, one that writes word by word."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from understudy.recipes.talking_teachers._documents import Document

_TOKEN = re.compile(r"[A-Za-z_][\w'()-]*|\d+(?:\.\d+)?|[^\w\s]")
END = "</s>"
LONGEST = 18
FEATURES = 11


def tokens(text: str) -> list[str]:
    """Words, numbers and marks."""
    return _TOKEN.findall(text)


def joined(words: Sequence[str]) -> str:
    """As text."""
    text = " ".join(words)
    return re.sub(r"\s+([.,;:!?)])", r"\1", text)


def central(document: Document, frequency: Counter[str], count: int) -> str:
    """The sentence nearest the document's centre: sum_w tf(w) idf(w), a word of it on average.

    frequency: in how many of `count` documents a word stands.
    """
    words = [[w.lower() for w in tokens(s)] for s in document.sentences]
    tf = Counter(w for s in words for w in s)

    def near(s: list[str]) -> float:
        worth = sum(tf[w] * math.log((count + 1) / (frequency[w] + 1)) for w in set(s))
        return worth / (len(s) + 4)

    scores = [near(s) for s in words]
    return document.sentences[scores.index(max(scores))]


class Writer(nn.Module):
    """A small summariser that was trained: the next word by features of word, last word, document.

    p(w | last, document) = softmax over the document's words, common words and the end of
    f(features), f linear or with one hidden layer. It copies a good deal and joins what does not
    belong together: the errors of a small abstractive summariser.

    faithful: whether it knows which words follow each other in the document
    common: words that it may write though the document does not have them
    """

    def __init__(self, hidden: int = 0, faithful: bool = True, common: int = 120) -> None:
        super().__init__()
        self.faithful, self.size = faithful, common
        layers: list[nn.Module] = [nn.Linear(FEATURES, hidden or 1)]
        if hidden:
            layers += [nn.Tanh(), nn.Linear(hidden, 1)]
        self.score = nn.Sequential(*layers)
        self.after: dict[str, Counter[str]] = {}
        self.common: list[str] = []

    def learn(
        self, documents: Sequence[Document], *, epochs: int, generator: torch.Generator
    ) -> float:
        """Cross-entropy of the words of first lines, nats, in the last pass; Adam, 64 words a step."""
        lines = [[*tokens(d.line.rstrip(".")), END] for d in documents]
        counts = Counter(w for line in lines for w in line)
        self.common = [w for w, _ in counts.most_common(self.size) if w != END]
        self.after = {}
        for d, line in zip(documents, lines, strict=True):
            for text in (["", *line], *(["", *tokens(s), END] for s in d.sentences)):
                for a, b in pairwise(text):
                    self.after.setdefault(a.lower(), Counter())[b] += 1
        steps: list[tuple[Tensor, int]] = []
        for d, line in zip(documents, lines, strict=True):
            facts = _Facts(d, self.common)
            for n, word in enumerate(line[:LONGEST]):
                if word in facts.places:
                    steps.append((self._features(facts, line[:n]), facts.places[word]))
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        loss = torch.zeros(())
        for _ in range(epochs):
            whole = 0.0
            for batch in torch.randperm(len(steps), generator=generator).split(64):
                rows = [steps[i] for i in batch.tolist()]
                x = nn.utils.rnn.pad_sequence([f for f, _ in rows], batch_first=True)
                sizes = torch.tensor([len(f) for f, _ in rows])
                score = self.score(x)[..., 0]
                gone = torch.arange(x.shape[1])[None] >= sizes[:, None]
                target = torch.tensor([t for _, t in rows])
                loss = nn.functional.cross_entropy(score.masked_fill(gone, -1e9), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                whole += float(loss.detach()) * len(rows)
            loss = torch.tensor(whole / max(len(steps), 1))
        return float(loss)

    @torch.no_grad()
    def write(self, document: Document) -> str:
        """Always the likeliest word; no pair of words twice."""
        facts, said = _Facts(document, self.common), list[str]()
        seen: set[tuple[str, str]] = set()
        while len(said) < LONGEST:
            score = self.score(self._features(facts, said))[:, 0]
            last = said[-1] if said else ""
            barred = [i for i, w in enumerate(facts.words) if (last, w) in seen or w == last]
            score[barred] = -torch.inf
            if len(said) < 3:
                score[facts.places[END]] = -torch.inf
            word = facts.words[int(score.argmax())]
            if word == END:
                break
            seen.add((last, word))
            said.append(word)
        text = joined(said)
        return text[:1].upper() + text[1:] + "."

    def _features(self, facts: "_Facts", said: Sequence[str]) -> Tensor:
        """[candidates, FEATURES]."""
        last = said[-1] if said else ""
        before = said[-2] if len(said) > 1 else ""
        after = self.after.get(last.lower(), Counter())
        whole = after.total()
        rows = []
        for word, (count, place) in zip(facts.words, facts.facts, strict=True):
            pair = (last, word) in facts.pairs
            ends = float(word == END)
            rows.append(
                [
                    math.log((after[word] + 0.05) / (whole + 5)),
                    float(pair) * self.faithful,
                    float((before, last, word) in facts.triples) * self.faithful,
                    math.log1p(count),
                    float(count > 0),
                    place,
                    float(word in said),
                    ends,
                    ends * len(said) / LONGEST,
                    float(not word[0].isalnum()),
                    float(not said and word[0].isupper()),
                ]
            )
        return torch.tensor(rows)


class _Facts:
    """What of a document the features read."""

    def __init__(self, document: Document, common: Sequence[str]) -> None:
        runs = [tokens(s) for s in document.sentences]
        words = [w for s in runs for w in s if w != "."]
        self.words = list(dict.fromkeys([*words, *common, END]))
        self.places = {w: i for i, w in enumerate(self.words)}
        count = Counter(words)
        self.facts = [
            (count[w], words.index(w) / len(words) if w in count else 1.0) for w in self.words
        ]
        ends = [["", *s[:-1], END] for s in runs]
        self.pairs = {p for s in ends for p in pairwise(s)}
        self.triples = {t for s in ends for t in zip(s, s[1:], s[2:], strict=False)}
