"""Rows that show a test's texts, found by runs of 8 to 13 words; the matched words are the evidence."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from understudy.data.synthesis.deduplicating import words
from understudy.data.synthesis.rows import Kept, Row, partition, text_of
from understudy.errors import DataError, UserError


@dataclass(frozen=True)
class Match:
    """A run of words that a text shares with a test: the longest, and the test's number."""

    test: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"test {self.test}: {' '.join(self.words)!r}"


class Index:
    """Runs of words of the tests.

    A test of at least `longest` words is known by its runs of that many; a shorter one by the
    whole of it, where it has `shortest` words or more (fewer say too little, and only a text that is
    the same matches). common: runs that occur in more tests than this are a manner of speaking (a
    template) and no evidence; None takes all.
    """

    def __init__(
        self,
        tests: Iterable[str],
        *,
        shortest: int = 8,
        longest: int = 13,
        common: int | None = None,
    ) -> None:
        if not 1 <= shortest <= longest:
            raise UserError(f"decontaminate: no run has from {shortest} to {longest} words")
        runs: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self.whole: dict[tuple[str, ...], int] = {}
        self.tests = 0
        for number, text in enumerate(tests):
            self.tests += 1
            said = tuple(words(text))
            self.whole.setdefault(said, number)
            if len(said) >= shortest:
                size = min(longest, len(said))
                for run in {said[i : i + size] for i in range(len(said) - size + 1)}:
                    runs[run].append(number)
        if not self.tests:
            raise DataError("decontaminate: there are no test texts to compare with")
        self.runs = {r: n[0] for r, n in runs.items() if common is None or len(n) <= common}
        self.sizes = sorted({len(r) for r in self.runs}, reverse=True)

    def match(self, text: str) -> Match | None:
        """The first of the longest matching runs, drawn out as far as they go on."""
        said = tuple(words(text))
        if said in self.whole:
            return Match(self.whole[said], said)
        for size in self.sizes:
            for start in range(len(said) - size + 1):
                number = self.runs.get(said[start : start + size])
                if number is None:
                    continue
                end = start + size
                while self.runs.get(said[end - size + 1 : end + 1]) == number and end < len(said):
                    end += 1
                return Match(number, said[start:end])
        return None


def decontaminate(
    rows: Sequence[Row],
    tests: Iterable[str],
    fields: Sequence[str] = ("question",),
    *,
    shortest: int = 8,
    longest: int = 13,
    common: int | None = None,
) -> Kept:
    """Rows none of whose fields shows a test; what matched stands with each that is dropped."""
    index = Index(tests, shortest=shortest, longest=longest, common=common)

    def verdict(row: Row) -> tuple[str, str] | None:
        for field in fields:
            found = index.match(text_of(row, field, "decontaminate"))
            if found is not None:
                return "shows a test", str(found)
        return None

    return partition("decontaminate", rows, map(verdict, rows))
