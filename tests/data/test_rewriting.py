"""Completions written anew, and a loader that does so."""

import pytest
import torch

from understudy.data import Indexed, Order, Texts
from understudy.data.rewriting import Rewriting, continued, prompts_of, stop_tokens
from understudy.errors import DataError


def texts() -> Texts:
    return Texts(
        [[5, 6, 7, 1], [8, 9, 2, 3, 1]],
        [[False, False, True, True], [False, True, True, True, True]],
    )


def test_prompts_end_before_the_first_scored_token() -> None:
    source = texts()
    found = prompts_of(source.batch(torch.arange(2)))
    assert [p.tolist() for p in found] == [[5, 6], [8]]
    assert [p.tolist() for p in found] == [source.prompt(i).tolist() for i in range(2)]


def test_what_is_continued_is_scored_from_there_on() -> None:
    batch = texts().batch(torch.arange(2))
    found = continued(batch, prompts_of(batch), [torch.tensor([4]), torch.tensor([4, 3, 1])])
    assert found.inputs["input_ids"].tolist() == [[5, 6, 4], [8, 4, 3]]
    assert found.inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert found.labels.tolist() == [[-100, 4, -100], [4, 3, 1]]
    assert found.index.tolist() == [0, 1]


def test_a_text_without_a_scored_token_has_no_prompt() -> None:
    batch = texts().batch(torch.arange(2))
    batch.mask[1] = False
    with pytest.raises(DataError, match="no prompt"):
        prompts_of(batch)


def test_the_stop_token_is_found_where_all_texts_end_in_it() -> None:
    assert stop_tokens(texts()) == (1,)
    assert stop_tokens(Texts([[1, 2], [1, 3]])) == ()


def test_draws_depend_on_seed_epoch_and_number_alone() -> None:
    seen = []

    def rewrite(batch, g):
        seen.append(torch.rand(1, generator=g).item())
        return batch

    source = texts()
    order = Order(size=2, batch_size=1, seed=0, drop_last=False)
    loader = Rewriting(Indexed(source, order), rewrite, seed=3)
    whole = [b.index.tolist() for b in loader.batches(0)]
    first, seen[:] = list(seen), []
    assert [b.index.tolist() for b in loader.batches(0, 1)] == whole[1:]
    assert seen == first[1:]
    list(loader.batches(1))
    assert not set(seen[1:]) & set(first)
