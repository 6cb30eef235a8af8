"""Two tokenizations of one text, by the bytes that they cover."""

import pytest
import torch

from understudy.data import Texts
from understudy.data.alignment import (
    Aligner,
    Pieces,
    byte_pieces,
    pieces_of,
    shared_ids,
    translated,
)
from understudy.errors import DataError


def greedy(*pieces: bytes, begin: int | None = None, specials: int = 1) -> Pieces:
    """A tokenizer that takes the longest piece; specials come first, bytes not known are none."""
    every = (b"",) * specials + pieces

    def encode(text: str) -> list[int]:
        raw, found = text.encode(), []
        while raw:
            fits = [i for i, p in enumerate(every) if p and raw.startswith(p)]
            best = max(fits, key=lambda i: len(every[i]))
            found.append(best)
            raw = raw[len(every[best]) :]
        return found

    return Pieces(pieces=every, encode=encode, begin=begin)


LETTERS = tuple(bytes([c]) for c in b"abc .")
STUDENT = greedy(*LETTERS, b"ab", b"bc")  # 1..5 letters, 6 ab, 7 bc
TEACHER = greedy(*LETTERS, b"abc", specials=2)  # 2..6 letters, 7 abc


def test_groups_cover_the_same_bytes_and_are_as_short_as_can_be() -> None:
    found = Aligner(student=STUDENT, teacher=TEACHER).groups([6, 3, 4, 1, 7])  # ab c _ a bc
    assert found.theirs == [7, 5, 7]
    assert found.mine == [(0, 2), (2, 3), (3, 5)]
    assert found.other == [(0, 1), (1, 2), (2, 3)]


def test_no_common_edge_but_the_ends() -> None:
    aligner = Aligner(student=greedy(*LETTERS, b"ab", b"c."), teacher=greedy(*LETTERS, b"bc"))
    found = aligner.groups([6, 7])  # ab c. | a bc .
    assert (found.mine, found.other) == ([(0, 2)], [(0, 3)])


def test_a_special_token_has_its_like_or_is_left_out() -> None:
    aligner = Aligner(student=STUDENT, teacher=TEACHER, specials={0: 1})
    found = aligner.groups([1, 0, 6])
    assert found.theirs == [2, 1, 2, 3]
    assert found.mine == [(0, 1), (1, 2), (2, 3)]
    assert found.other == [(0, 1), (1, 2), (2, 4)]
    without = Aligner(student=STUDENT, teacher=TEACHER).groups([1, 0, 6])
    assert without.theirs == [2, 2, 3]
    assert without.mine == [(0, 1), (2, 3)]
    # the text on either side is read by itself: its tokens never run over what stood between
    assert Aligner(student=STUDENT, teacher=TEACHER).groups([6, 0, 3]).theirs == [2, 3, 4]


def test_a_token_that_begins_every_text_on_one_side_moves_no_group() -> None:
    own = Texts([[1, 4, 6, 5]]).batch(torch.arange(1))  # a _ ab .
    bare = Aligner(student=STUDENT, teacher=TEACHER).aligned(own)
    begun = Aligner(student=STUDENT, teacher=greedy(*LETTERS, b"abc", begin=1, specials=2))
    with_it = begun.aligned(own)
    assert bare.ids.tolist() == [[2, 5, 2, 3, 6]]
    assert with_it.ids.tolist() == [[1, 2, 5, 2, 3, 6]]
    assert bare.group.tolist() == with_it.group.tolist() == [[0, 1, 2]]
    assert bare.first.tolist() == [[0, 1, 3]]
    assert with_it.first.tolist() == [[1, 2, 4]]
    assert bare.count.tolist() == [[1, 2, 1]]
    assert bare.later.tolist() == [[0, 1, 2, 3]]


def test_characters_split_over_tokens() -> None:
    student = byte_pieces()
    teacher = greedy("é".encode(), b"a", "漢".encode())
    aligner = Aligner(student=student, teacher=teacher)
    found = aligner.groups(list("aé漢a".encode()))
    assert found.theirs == [2, 1, 3, 2]
    assert found.mine == [(0, 1), (1, 3), (3, 6), (6, 7)]
    # a character that is cut off is read by nobody, and in no group
    cut = aligner.groups(list("aé漢".encode()[:-1]))
    assert cut.theirs == [2, 1]
    assert cut.mine == [(0, 1), (1, 3)]
    broken = aligner.groups([*b"a", 0xFF, *"é".encode()])
    assert broken.theirs == [2, 1]
    assert broken.mine == [(0, 1), (2, 4)]


def test_a_group_over_bytes_that_were_left_out_is_none() -> None:
    pieces = (b"", b"a", b"a\xff", b"b")
    student = Pieces(pieces=pieces, encode=lambda t: [])
    teacher = greedy(b"a", b"b", b"ab")
    found = Aligner(student=student, teacher=teacher).groups([2, 3])
    assert found.theirs == [1, 2]
    assert found.mine == [(1, 2)]
    assert found.other == [(1, 2)]


def test_only_groups_that_are_scored_throughout_count() -> None:
    texts = Texts([[1, 1, 2, 5]], [[False, False, True, True]])  # a a b .
    aligner = Aligner(student=STUDENT, teacher=greedy(*LETTERS, b"ab"))
    found = aligner.aligned(texts.batch(torch.arange(1)))
    assert found.ids.tolist() == [[1, 6, 5]]
    assert found.group.tolist() == [[-1, -1, 0]]
    assert found.first.tolist() == [[-1, -1, 1]]


def test_a_tokenizer_that_loses_bytes_is_refused() -> None:
    lower = Pieces(pieces=(b"a",), encode=lambda text: [0] * len(text))
    with pytest.raises(DataError, match="byte by byte"):
        lower.tokens(b"A")
    with pytest.raises(DataError, match="cannot be read as bytes"):
        pieces_of(object())
    with pytest.raises(DataError, match="stands for text"):
        Aligner(student=STUDENT, teacher=TEACHER, specials={0: 3})
    with pytest.raises(DataError, match="outside the student's vocabulary"):
        Aligner(student=STUDENT, teacher=TEACHER).groups([99])


def hugging_face(kind: str):
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    text = ["ann has 3 pens. é 漢字\n", "bob has 4 cups and a pen"] * 20
    if kind == "bytes":
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=280, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
        )
    else:
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="<end>"))
        made.normalizer = tokenizers.normalizers.Lowercase()
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=280, special_tokens=["<end>"], show_progress=False
        )
    made.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def test_hugging_face_tokenizers_are_read_as_bytes() -> None:
    tokenizer = hugging_face("bytes")
    pieces = pieces_of(tokenizer, vocabulary=300)
    assert len(pieces) == 300
    assert pieces.pieces[0] == b""
    for text in ("ann has 3 pens", " é漢 \t<end>", ""):
        ids = pieces.tokens(text.encode())
        assert b"".join(pieces.pieces[i] for i in ids) == text.encode()
        assert 0 not in ids
    has = tokenizer("has", add_special_tokens=False)["input_ids"][0]
    three = tokenizer("3", add_special_tokens=False)["input_ids"][0]
    assert (int(pieces.kinds[has]), int(pieces.kinds[three]), int(pieces.kinds[0])) == (1, 2, 0)
    with pytest.raises(DataError, match="byte by byte"):
        pieces_of(hugging_face("words"))


def test_shared_ids_are_those_of_the_same_bytes() -> None:
    assert shared_ids(STUDENT, TEACHER, {0: 1}).tolist() == [
        [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6],
    ]  # fmt: skip
    twice = Pieces(pieces=(b"a", b"a"), encode=lambda t: [])
    assert shared_ids(twice, TEACHER).tolist() == [[0, 2]]


def test_texts_in_the_teachers_tokens() -> None:
    texts = Texts(
        [[6, 3, 4, 1, 7, 0], [1, 4]],
        [[False, False, True, True, True, True], [False, True]],
        bytes=[4, 1],
        ids=[7, 9],
    )
    found = translated(texts, Aligner(student=STUDENT, teacher=TEACHER, specials={0: 1}))
    assert [found.tokens(i).tolist() for i in range(2)] == [[7, 5, 7, 1], [2, 5]]
    assert found.scored.tolist() == [False, True, True, True, False, True]
    assert found.ids.tolist() == [7, 9]
