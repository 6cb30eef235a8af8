"""What the words of a sentence and of a document have in common, as numbers."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"[A-Za-z_][\w.'-]*[\w]|[A-Za-z]|\d+(?:\.\d+)?")
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9_])")
_BRIEF = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|Mr|Mrs|Dr|No|St)\.$")

_COUNTS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
NUMBERS = {word: str(n) for n, word in enumerate(_COUNTS)} | {
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th",
    "hundred": "100", "thousand": "1000", "million": "1000000", "once": "1 time", "twice": "2 times",
}  # fmt: skip
NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "nothing",
        "neither",
        "nor",
        "without",
        "cannot",
        "nobody",
        "hardly",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "doesn't",
        "don't",
        "didn't",
        "can't",
        "couldn't",
        "won't",
        "wouldn't",
        "shouldn't",
        "mustn't",
        "hasn't",
        "haven't",
        "hadn't",
    ]
)
_PAIRS = (
    "true false", "first last", "before after", "increase decrease", "increases decreases",
    "maximum minimum", "larger smaller", "greater less", "higher lower", "more fewer",
    "left right", "start end", "beginning end", "open close", "opened closed", "opens closes",
    "input output", "read write", "reading writing", "reads writes", "older newer", "old new",
    "positive negative", "valid invalid", "empty full", "enabled disabled", "enable disable",
    "success failure", "succeeds fails", "allowed forbidden", "same different", "always never",
    "lower upper", "forward backward", "ascending descending", "public private", "early late",
    "earlier later", "above below", "inside outside", "mutable immutable", "required optional",
    "local global", "possible impossible", "equal unequal", "visible hidden", "include exclude",
    "includes excludes", "including excluding", "add remove", "added removed", "adds removes",
    "slow fast", "slower faster", "longest shortest", "longer shorter", "long short",
    "best worst", "better worse", "safe unsafe", "accept reject", "accepts rejects", "won lost",
    "win lose", "rose fell", "rise fall", "rises falls", "gain loss", "bought sold", "buy sell",
    "up down", "north south", "east west", "day night", "man woman", "men women", "young old",
    "hot cold", "good bad", "large small", "big small", "high low", "near far", "easy difficult",
    "begin end", "begins ends", "strict lenient", "encode decode", "encodes decodes",
    "encoded decoded", "encrypt decrypt", "absolute relative", "child parent", "server client",
    "source target", "sender receiver", "prefix suffix", "row column", "rows columns",
    "outer inner",
)  # fmt: skip
OPPOSITES: tuple[tuple[str, str], ...] = tuple(
    (p.partition(" ")[0], p.partition(" ")[2]) for p in _PAIRS
)
OPPOSITES_OF: dict[str, frozenset[str]] = {
    w: frozenset(b if a == w else a for a, b in OPPOSITES if w in (a, b))
    for pair in OPPOSITES
    for w in pair
}

STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "to",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "with",
        "as",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "and",
        "or",
        "but",
        "if",
        "then",
        "than",
        "so",
        "such",
        "which",
        "who",
        "whom",
        "whose",
        "what",
        "when",
        "where",
        "how",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "will",
        "would",
        "can",
        "could",
        "may",
        "might",
        "must",
        "should",
        "shall",
        "into",
        "over",
        "under",
        "about",
        "there",
        "their",
        "they",
        "them",
        "he",
        "she",
        "his",
        "her",
        "you",
        "your",
        "we",
        "our",
        "i",
        "also",
        "any",
        "all",
        "each",
        "every",
        "some",
        "other",
        "only",
        "just",
        "very",
        "one",
    ]
)

FEATURES = (
    "nearest", "second", "mean", "words_near", "words_all", "pairs_near", "pairs_all",
    "triples_all", "in_order", "new_numbers_near", "new_numbers_all", "numbers", "new_names_near",
    "new_names_all", "names", "more_negations", "fewer_negations", "odd_negations", "opposites",
    "new_words_near", "new_words_all", "swapped", "length", "ratio", "of_two",
)  # fmt: skip


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; the text itself where it has no end of one."""
    found: list[str] = []
    for part in _END.split(" ".join(text.split())):
        if found and _BRIEF.search(found[-1]):
            found[-1] += " " + part
        elif part.strip():
            found.append(part.strip())
    return found or [text.strip()]


def words(text: str) -> list[str]:
    """Words and numbers in lower case, numbers in words as digits, n't as a negation."""
    found = []
    for word in _WORD.findall(text.replace("’", "'")):
        low = word.lower()
        found.append(NUMBERS.get(low, low))
    return found


def names(text: str) -> set[str]:
    """What looks like a name: capitals after the first word, identifiers, quoted words."""
    found = set()
    for number, match in enumerate(_WORD.finditer(text)):
        word = match[0]
        inner = word[1:]
        name = (number > 0 and word[0].isupper()) or "_" in word or "." in inner
        quoted = match.start() > 0 and text[match.start() - 1] in "'\"`"
        if name or quoted or any(c.isupper() for c in inner):
            found.add(word.lower())
    return found


def overlap(
    sentence: str, document: Sequence[str], nearest: int, near: Sequence[float]
) -> list[float]:
    """`FEATURES` of a sentence: against the nearest sentence of the document, and against all of it.

    The nearest one comes with a second, which has most of the words that it has not, where it has
    less than 0.9 of them: a sentence may be made of two.
    near: the cosine with each sentence of the document.
    """
    said = words(sentence)
    all_words = [words(d) for d in document]
    beside = _beside(said, all_words, nearest)
    reference = " ".join(document[i] for i in sorted({nearest, beside}))
    there = words(reference)
    known, close = {w for d in all_words for w in d}, set(there)
    content = [w for w in said if w not in STOP and w not in NEGATIONS]
    numbers = [w for w in said if w[0].isdigit()]
    named = names(sentence)
    near_names = {w.lower() for w in _WORD.findall(reference)}
    all_names = {w.lower() for d in document for w in _WORD.findall(d)}
    minus = sum(w in NEGATIONS for w in said)
    minus_there = sum(w in NEGATIONS for w in there)
    fresh = set(content) - close
    gone = close - set(said)
    ordered = sorted(near, reverse=True)
    return [
        ordered[0],
        ordered[1] if len(ordered) > 1 else 0.0,
        sum(near) / len(near),
        _share(content, close),
        _share(content, known),
        _share(_grams(said, 2), set(_grams(there, 2))),
        _share(_grams(said, 2), {g for d in all_words for g in _grams(d, 2)}),
        _share(_grams(said, 3), {g for d in all_words for g in _grams(d, 3)}),
        _common(said, there) / max(1, len(said)),
        _some(w not in close for w in numbers),
        _some(w not in known for w in numbers),
        _some(True for _ in numbers),
        _some(w not in near_names for w in named),
        _some(w not in all_names for w in named),
        _some(True for _ in named),
        float(max(0, min(3, minus - minus_there))),
        float(max(0, min(3, minus_there - minus))),
        float((minus - minus_there) % 2),
        _some(bool(OPPOSITES_OF.get(w, frozenset()) & gone) for w in fresh),
        _some(True for _ in fresh),
        _some(w not in known for w in content),
        _swapped(content, there),
        math.log(1 + len(said)),
        len(said) / max(1, len(there)),
        float(beside != nearest),
    ]


def _beside(said: Sequence[str], document: Sequence[Sequence[str]], nearest: int) -> int:
    """Which sentence has most of the words that the nearest lacks; the nearest itself for none."""
    content = {w for w in said if w not in STOP and w not in NEGATIONS}
    open_ = content - set(document[nearest])
    if len(open_) <= 0.1 * len(content):
        return nearest
    shares = [len(open_ & set(d)) for d in document]
    best = max(range(len(document)), key=lambda i: (shares[i], -abs(i - nearest)))
    return best if shares[best] >= max(2, 0.4 * len(open_)) else nearest


def _some(each: object) -> float:
    """How many, the more the less they count: log(1 + n)."""
    return math.log1p(sum(bool(x) for x in each))  # type: ignore[attr-defined]


def _share(each: Sequence[object], known: set[object] | set[str]) -> float:
    return sum(x in known for x in each) / len(each) if each else 1.0


def _grams(said: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _swapped(content: Sequence[str], there: Sequence[str]) -> float:
    """Share of neighbouring words whose order the other sentence turns round."""
    place = {w: i for i, w in enumerate(there) if there.count(w) == 1}
    both = [place[w] for w in content if w in place]
    turned = sum(a > b for a, b in pairwise(both))
    return turned / max(1, len(both) - 1)
