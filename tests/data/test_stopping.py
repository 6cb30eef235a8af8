"""Where texts end."""

from understudy.data import Texts
from understudy.data.stopping import stop_tokens


def test_the_stop_token_is_found_where_all_texts_end_in_it() -> None:
    assert stop_tokens(Texts([[5, 6, 1], [8, 9, 2, 3, 1]])) == (1,)
    assert stop_tokens(Texts([[1, 2], [1, 3]])) == ()
    assert stop_tokens([1, 2]) == ()
