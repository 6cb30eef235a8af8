"""A served model lists what the local one says; what a server cannot give is one clear error.

The server is a real one on this machine, which answers from a tiny language model.
"""

import numpy as np
import pytest
import torch

import understudy as us
from served_worlds import Letters, serving
from token_worlds import VOCABULARY, live, llama, log_p, texts, whole
from understudy.data import Texts
from understudy.errors import CheckpointError, DataError, MethodRefused, UserError
from understudy.objectives import total
from understudy.teachers import Endpoint, Server, Stored, write_text_signals

DATA = texts()
KEY = "UNDERSTUDY_TEST_KEY"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def endpoint(url, **options):
    options = {"vocabulary": VOCABULARY, "k": 6, **options}
    return Endpoint(Server(base_url=url, wait=0.0), "tiny", **options)


@pytest.mark.parametrize(
    "behaviour",
    [
        {"form": "vllm"},
        {"form": "echo"},
        {"form": "echo", "ids": False},
        {"form": "strict"},
        {"form": "vllm", "busy": 3},
    ],
)
def test_it_lists_the_likeliest_tokens_of_the_served_model(behaviour):
    with serving(**behaviour) as (url, served):
        said = endpoint(url, tokenizer=Letters()).signals(whole(DATA)).logits
    batch = whole(DATA)
    truth = log_p(live(), batch)
    order = np.argsort(-truth, -1)[:, :6]
    assert np.array_equal(said.ids[batch.mask], order)
    np.testing.assert_allclose(
        said.values[batch.mask], np.take_along_axis(truth, order, -1), atol=1e-4
    )
    assert bool(said.values[~batch.mask].exp().sum(-1).sub(6 / VOCABULARY).abs().lt(1e-6).all())
    # each text went once, whole up to its last scored token, and no more
    lengths = sorted(len(r["prompt"]) for r in served.asked if "echo" not in r)
    if behaviour == {"form": "vllm"}:
        assert lengths == sorted(
            len(DATA.tokens(i)) - (0 if DATA.scored[DATA.offsets[i + 1] - 1] else 1)
            for i in range(len(DATA))
        )
        assert all(r["max_tokens"] == 1 and r["model"] == "tiny" for r in served.asked)


def test_signals_of_an_endpoint_are_stored_as_those_of_a_local_model(tmp_path):
    options = {"mode": "top-k", "k": 4, "dtype": "fp32", "shard_rows": 5}
    with serving() as (url, served):
        teacher = endpoint(url)
        store = write_text_signals(teacher, DATA, tmp_path / "far", **options)
        asked = len(served.asked)
        assert asked == len(DATA) + 1  # the first text shows what is given
        # what is finished is not asked again
        write_text_signals(teacher, DATA, tmp_path / "far", **options)
        assert len(served.asked) <= asked + 1
    near = write_text_signals(live(), DATA, tmp_path / "near", **options)
    batch = whole(DATA)
    far, here = (Stored(s).signals(batch).rows(batch.mask).logits for s in (store, near))
    assert torch.equal(far.ids, here.ids)
    torch.testing.assert_close(far.values, here.values, atol=1e-4, rtol=0)
    with pytest.raises(CheckpointError, match="another teacher"):
        Stored(store, teacher=live())
    with pytest.raises(CheckpointError, match="another teacher"):
        write_text_signals(live(), DATA, tmp_path / "far", **options)


def test_shards_by_several_workers_ask_for_each_text_once(tmp_path):
    with serving() as (url, served):
        for part in (1, 0):
            store = write_text_signals(
                endpoint(url), DATA, tmp_path / "s", k=4, shard=(part, 2), shard_rows=5
            )
        assert store is not None
        assert len(served.asked) == len(DATA) + 2


@pytest.mark.parametrize(
    ("behaviour", "options", "says"),
    [
        ({"limit": 5}, {}, "HTTP 400: 6 is greater than max allowed: 5"),
        ({"limit": 5, "form": "echo"}, {}, "max allowed: 5"),
        ({"limit": 5, "refuses": "no"}, {}, "gave 5 log-probabilities a token where 6.*k=5"),
        ({"form": "echo", "limit": 4, "refuses": "no"}, {}, "gave 4 log-prob.*6 were asked"),
        ({"form": "echo", "limit": 5, "refuses": "no"}, {}, "gave 5 log-prob.*6 were asked"),
        ({"prefix": [0]}, {}, "read 4 tokens where we sent 3.*special tokens"),
        ({"form": "echo", "prefix": [39]}, {}, "read another token at place 0"),
        ({"swap": 1}, {}, "another token at place 1 .*its tokenizer is not ours"),
        ({"form": "echo", "swap": 2}, {}, "another token at place 2 .*its tokenizer is not ours"),
        ({"form": "mute"}, {}, "gives no log-probabilities of a prompt"),
        ({"form": "echo"}, {"form": "prompt_logprobs"}, "gives no prompt_logprobs"),
        ({"form": "echo", "ids": False}, {}, "names tokens by their text .* give the tokenizer"),
        (
            {"form": "echo", "ids": False, "twins": {i: 7 for i in range(VOCABULARY)}},
            {"tokenizer": Letters({i: 7 for i in range(VOCABULARY)})},
            "the text of several ids",
        ),
        ({}, {"vocabulary": 10}, "lists the token .* and the vocabulary has 10"),
        ({"busy": 99}, {}, "did not answer: HTTP 503: loading"),
        ({"redirect": "http://127.0.0.1:9/v1/completions"}, {}, "HTTP 302"),
    ],
)
def test_what_a_server_cannot_give_is_one_clear_error(behaviour, options, says):
    source = Texts([[3, 5, 7]])
    with serving(**behaviour) as (url, _), pytest.raises(DataError, match=says) as error:
        endpoint(url, **options).signals(whole(source))
    assert "\n" not in str(error.value)


def test_a_server_that_is_not_there_is_one_clear_error():
    with serving() as (url, _):
        pass
    with pytest.raises(DataError, match=r"did not answer: .*[Rr]efused"):
        endpoint(url).signals(DATA.batch(torch.arange(1)))
    with pytest.raises(UserError, match="begins with http"):
        endpoint("localhost:8000")


def test_the_key_is_read_from_the_environment_and_told_to_nobody(tmp_path, monkeypatch):
    source, secret = DATA.subset(torch.arange(3)), "sk-not-for-eyes"
    with serving(key=secret) as (url, _):
        monkeypatch.delenv(KEY, raising=False)
        with pytest.raises(UserError, match=f"the environment variable {KEY} holds no key"):
            Server(base_url=url, key_env=KEY)
        monkeypatch.setenv(KEY, "wrong")
        server = Server(base_url=url, key_env=KEY, wait=0.0)
        teacher = Endpoint(server, "tiny", vocabulary=VOCABULARY, k=4)
        with pytest.raises(DataError, match="HTTP 401: invalid key") as error:
            write_text_signals(teacher, source, tmp_path / "s", k=4)
        monkeypatch.setenv(KEY, secret)
        write_text_signals(teacher, source, tmp_path / "s", k=4)
    assert "wrong" not in str(error.value)
    assert secret not in repr(server) + repr(vars(teacher))
    assert not any(secret.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_loss_or_a_mode_that_needs_more_is_refused(tmp_path):
    with serving() as (url, served):
        teacher = endpoint(url)
        teacher.prepare(total(us.lm_kd("reverse_kl")).needs, DATA.batch(torch.arange(1)))
        for objective, says in (
            (us.lm_kd(temperature=2.0), "at temperature 2"),
            (us.hint(), "reads the teacher's"),
        ):
            with pytest.raises(MethodRefused, match=says):
                teacher.prepare(total(objective).needs, DATA.batch(torch.arange(1)))
        assert not served.asked
        for wrong, says in (
            ({"mode": "sampled"}, "lists 6 tokens a position, and mode sampled needs all"),
            ({"mode": "hidden"}, "mode hidden needs all of them"),
            ({"temperature": 2.0}, "temperature 1 only, not at 2"),
            ({"k": 7}, r"k lies in 1 \.\.\. 6"),
        ):
            with pytest.raises(UserError, match=says):
                write_text_signals(teacher, DATA, tmp_path / "s", **{"k": 6, **wrong})
    with pytest.raises(UserError, match=r"k lies in 1 \.\.\. 40"):
        endpoint("http://x", k=41)


def test_the_own_token_of_a_text_never_stands_in_for_one_of_the_likeliest():
    row = torch.log_softmax(llama()(torch.tensor([[3]])).logits[0, 0], -1)
    order = row.argsort(descending=True).tolist()
    source = Texts([[3, order[5]]])  # the sixth likeliest: six are listed, of whichever limit
    for form in ("vllm", "echo"):
        with serving(form=form, limit=5, refuses="no") as (url, _):
            said = endpoint(url, k=5).signals(whole(source)).logits
            assert said.ids[0, 0].tolist() == order[:5]
    with serving(form="vllm") as (url, _):  # its rank says that it is the last of six
        assert endpoint(url).signals(whole(source)).logits.ids[0, 0].tolist() == order[:6]
    source = Texts([[3, order[9]]])
    cut = serving(form="vllm", limit=5, refuses="no")
    with cut as (url, _), pytest.raises(DataError, match="gave 5 log-probabilities"):
        endpoint(url).signals(whole(source))
