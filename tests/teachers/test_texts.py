"""Signals of texts on disk say what the live teacher says of every scored token."""

import json
import multiprocessing
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import understudy as us
from token_worlds import IDS, VOCABULARY, live, llama, log_p, texts, whole
from understudy.algorithms import Plain, Scene
from understudy.data import Indexed, Order, Texts
from understudy.errors import (
    CheckpointError,
    DataError,
    MethodRefused,
    NotFinite,
    SignalError,
    UserError,
)
from understudy.objectives import Needs, total
from understudy.signals import Batch, CausalLM, Factored, Signals, Sparse
from understudy.store import SignalStore, TokenStore, text_hashes, tokenizer_fingerprint
from understudy.teachers import Frozen, Stored, Teacher, write_text_signals
from understudy.training.budget import Budget
from understudy.training.fit import Fit

DATA = texts()


def write(path, teacher=None, source=DATA, **options):
    return write_text_signals(teacher or live(), source, path, **{"shard_rows": 6, **options})


def contents(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_top_k_is_the_live_top_k(tmp_path, in_memory):
    write(tmp_path / "s", k=5, dtype="fp32", temperature=2.0)
    stored = Stored(
        SignalStore.open(tmp_path / "s", in_memory=in_memory), teacher=live(), data=DATA
    )
    assert isinstance(stored, Teacher)
    assert not stored.modules()
    for index in torch.randperm(len(DATA)).split(8):
        batch = DATA.batch(index)
        heard = stored.signals(batch).logits
        assert isinstance(heard, Sparse)
        assert heard.ids.shape == heard.values.shape == (*batch.mask.shape, 5)
        assert (heard.temperature, heard.tail, heard.size) == (2.0, "uniform", VOCABULARY)
        said = log_p(live(), batch, 2.0)
        order = np.argsort(-said, -1)[:, :5]
        assert np.array_equal(heard.ids[batch.mask], order)
        np.testing.assert_allclose(
            heard.values[batch.mask], np.take_along_axis(said, order, -1), atol=1e-5
        )
        # what stands where nothing is scored is a distribution, too
        rest = heard.values[~batch.mask].exp().sum(-1)
        np.testing.assert_allclose(rest, 5 / VOCABULARY, rtol=1e-6)


@pytest.mark.parametrize("in_memory", [0, 10**9])
@pytest.mark.parametrize(("dtype", "bits"), [("fp32", 20), ("fp16", 10), ("bf16", 7)])
def test_hidden_states_make_the_live_logits_again(tmp_path, dtype, bits, in_memory):
    store = write(tmp_path / "s", mode="hidden", dtype=dtype)
    stored = Stored(SignalStore.open(store.path, in_memory=in_memory))
    batch = whole(DATA)
    heard, said = stored.signals(batch).logits, live().signals(batch).logits
    assert isinstance(heard, Factored)
    assert torch.equal(heard.weight, said.weight)
    difference = (heard.hidden - said.hidden)[batch.mask].abs()
    assert (difference <= 2.0**-bits * said.hidden[batch.mask].abs() + 1e-6).all()
    assert bool(heard.hidden[~batch.mask].eq(0).all())
    assert stored.gives.k is None
    assert stored.gives.tail is None


def test_hidden_states_keep_scale_and_cap_of_the_head(tmp_path):
    class Scaled(Frozen):
        def signals(self, batch):
            said = super().signals(batch)
            return replace(said, logits=replace(said.logits, scale=0.5, softcap=3.0))

    teacher = Scaled(llama(), CausalLM())
    stored = Stored(write(tmp_path / "s", teacher, mode="hidden", dtype="fp32"))
    batch = whole(DATA)
    heard, said = (t.signals(batch).rows(batch.mask).dense for t in (stored, teacher))
    assert said.abs().max() <= 3.0
    torch.testing.assert_close(heard, said, atol=1e-5, rtol=0)


@pytest.mark.parametrize("proposal", [1.0, 1.6])
def test_samples_approach_the_distribution_within_their_standard_error(tmp_path, proposal):
    # sixty copies of four texts, each with draws of its own
    copies, draws = 60, 64
    some = DATA.subset(torch.arange(4))
    rows = torch.arange(4).repeat(copies)
    source = Texts(
        [some.tokens(r) for r in rows],
        [some.scored[some.offsets[r] : some.offsets[r + 1]] for r in rows],
    )
    p = np.exp(log_p(live(), whole(some)))
    store = write(
        tmp_path / "s", source=source, mode="sampled", draws=draws, proposal=proposal,
        shard_rows=240, batch_size=240,
    )  # fmt: skip
    batch = whole(source)
    said = Stored(store).signals(batch).rows(batch.mask).logits
    assert (said.tail, said.size) == ("sampled", VOCABULARY)
    assert said.counts.sum(-1).eq(draws).all()
    # each id once, and nothing where nothing was drawn
    assert bool(said.values[said.counts == 0].eq(-torch.inf).all())
    estimate = torch.zeros(len(said.ids), VOCABULARY).scatter_add(-1, said.ids, said.values.exp())
    found = estimate.double().numpy().reshape(copies, len(p), VOCABULARY)
    q = p ** (1 / proposal)
    q /= q.sum(-1, keepdims=True)
    # the variance of one draw's p / q at each token
    spread = np.sqrt(np.maximum(p * p / q - p * p, 0) / (draws * copies))
    off = (np.mean(found, 0) - p) / np.maximum(spread, 1e-9)
    often = q * draws * copies > 20
    assert np.abs(off[often]).max() < 4.5
    assert 0.8 < off[often].std() < 1.2
    if proposal != 1:  # weights of the draws, half precision, make the difference
        plain = write(tmp_path / "p", source=source, mode="sampled", draws=draws)
        assert store.manifest["bytes_per_token"] > plain.manifest["bytes_per_token"]


def test_draws_depend_on_seed_and_id_alone(tmp_path):
    few = DATA.subset(torch.tensor([3, 11, 7]))
    all_, some, other = (
        Stored(write(tmp_path / str(n), source=s, mode="sampled", seed=seed))
        for n, (s, seed) in enumerate([(DATA, 0), (few, 0), (few, 1)])
    )
    batch = whole(few)
    said = [t.signals(batch).rows(batch.mask).logits for t in (all_, some, other)]
    assert torch.equal(said[0].ids, said[1].ids)
    assert torch.equal(said[0].counts, said[1].counts)
    assert said[0].ids.shape != said[2].ids.shape or not torch.equal(said[0].ids, said[2].ids)


def test_twelve_drawn_ids_of_a_large_vocabulary_take_forty_bytes_a_token(tmp_path):
    size, n = 128256, 60

    class Twelve:
        """Eleven tokens and one of them often: twelve different ids in 50 draws, always."""

        def prepare(self, needs, example):
            pass

        def modules(self):
            return {}

        def signals(self, batch):
            z = torch.full((*batch.mask.shape, size), -torch.inf)
            z[..., 100000:100012] = 0.0
            return Signals(logits=z)

    source = Texts([[1] * n for _ in range(5)])
    store = write(
        tmp_path / "s", Twelve(), source, mode="sampled", draws=50, batch_size=1, shard_rows=6
    )
    said = Stored(store).signals(whole(source)).logits
    assert said.ids[said.counts > 0].unique().tolist() == list(range(100000, 100012))
    unique = float((said.counts > 0).sum(-1).float().mean())
    assert 11.5 < unique <= 12
    assert store.manifest["bytes_per_token"] < 36.5
    # as the file system has it, header and all
    on_disk = sum(p.stat().st_size for p in (store.path / "shards").glob("*.safetensors"))
    assert on_disk / store.manifest["tokens"] < 40


def test_it_describes_itself(tmp_path):
    store = write(tmp_path / "s", k=3, tail="bucket", tokenizer="abc")
    m = json.loads((store.path / "manifest.json").read_text())
    assert m["settings"] == {
        "form": "tokens", "mode": "top-k", "vocabulary": VOCABULARY, "tokenizer": "abc",
        "temperature": 1.0, "k": 3, "tail": "bucket", "draws": None, "proposal": None,
        "seed": None, "dtype": "fp16", "scale": None, "softcap": None,
    }  # fmt: skip
    assert m["teacher"] == live().fingerprint()
    assert m["tokens"] == int(DATA.scored.sum())
    assert isinstance(store, TokenStore)
    assert "21 texts" in repr(store)
    assert Stored(store).fingerprint() == live().fingerprint()
    assert Stored(store).gives.k == 3


def test_a_text_is_known_by_its_own_tokens_whatever_stands_beside_it():
    alone = torch.cat([text_hashes(DATA.batch(torch.tensor([i]))) for i in range(len(DATA))])
    assert torch.equal(text_hashes(whole(DATA)), alone)
    assert len(alone.unique(dim=0)) == len(DATA)
    padded = Texts([DATA.tokens(0), [1] * 30], [[True] * len(DATA.tokens(0)), [True] * 30])
    scored = DATA.scored[: len(DATA.tokens(0))].clone()
    same = Texts([DATA.tokens(0), [1] * 30], [scored, [True] * 30], padding=9)
    assert torch.equal(text_hashes(whole(same))[0], alone[0])
    other = text_hashes(whole(padded))[0]
    assert torch.equal(other, alone[0]) == bool(scored[1:].all())


def test_another_scored_token_or_token_is_another_text(tmp_path):
    stored = Stored(write(tmp_path / "s"))
    one = whole(DATA)
    stored.signals(one)
    for change in ("mask", "labels", "inputs"):
        row = int((one.mask.sum(-1) > 1).nonzero()[0])
        place = int(one.mask[row].nonzero()[0])
        batch = DATA.batch(torch.tensor([row]))
        if change == "mask":
            batch.mask[0, place] = False
        elif change == "labels":
            batch.labels[0, place] = (batch.labels[0, place] + 1) % VOCABULARY
        else:
            ids = batch.inputs["input_ids"].clone()
            ids[0, 0] = (ids[0, 0] + 1) % VOCABULARY
            batch = replace(batch, inputs={**batch.inputs, "input_ids": ids})
        with pytest.raises(
            CheckpointError, match=f"sample {int(one.index[row])} has other content"
        ):
            Stored(tmp_path / "s").signals(batch)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"teacher": live(1)}, "another teacher .*write signals of this one"),
        ({"data": texts(1)}, "has other content .*differ"),
        ({"data": texts(ids=IDS + 1)}, r"sample \d+ is not among the 21 "),
        ({"data": "c" * 64}, "another data"),
        ({"tokenizer": "other"}, "another tokenizer .*abc there, other here"),
        ({"view": "crop"}, "another view"),
    ],
)
def test_a_store_of_something_else_is_refused_before_training(tmp_path, given, says):
    store = write(tmp_path / "s", tokenizer="abc")
    Stored(store, teacher=live(), data=DATA, tokenizer="abc")
    Stored(store, data=DATA.subset(torch.tensor([4, 2])))
    with pytest.raises(CheckpointError, match=says) as error:
        Stored(store, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"teacher": live(1)}, "teacher"),
        ({"source": texts(1)}, "data"),
        ({"tokenizer": "other"}, "tokenizer"),
        ({"k": 4}, "k"),
        ({"tail": "bucket"}, "tail"),
        ({"temperature": 2.0}, "temperature"),
        ({"mode": "sampled"}, "mode"),
        ({"dtype": "fp32"}, "dtype"),
        ({"shard_rows": 5}, "shard_rows"),
    ],
)
def test_another_write_into_the_same_folder_is_refused(tmp_path, changed, named):
    write(tmp_path / "s", k=3)
    before = contents(tmp_path / "s")
    with pytest.raises(CheckpointError, match=f"signals with another {named} .*another folder"):
        write(tmp_path / "s", **{"k": 3, **changed})
    assert contents(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("mode", "objective", "says"),
    [
        ("sampled", us.lm_kd("reverse_kl"), "ReverseKL cannot be estimated without bias.*hidden"),
        ("sampled", us.lm_kd("jsd"), "GeneralisedJSD cannot be estimated without bias"),
        ("sampled", us.lm_kd(temperature=2.0), "at temperature 2, .* at 1, .*mode hidden"),
        ("top-k", us.lm_kd(temperature=2.0), "at temperature 2, .* at 1"),
        ("renormalise", us.lm_kd("reverse_kl"), "is infinite where the teacher's probability is"),
        ("bucket", us.lm_kd("alpha_beta", alpha=1.0, beta=1.0), "says nothing of merged classes"),
        ("hidden", us.hint(), "reads the teacher's"),
    ],
)
def test_a_loss_that_needs_more_is_refused_before_training(tmp_path, mode, objective, says):
    tail = mode if mode in ("renormalise", "bucket") else "uniform"
    stored = Stored(write(tmp_path / "s", mode="top-k" if tail == mode else mode, tail=tail))
    example = DATA.batch(torch.arange(2))
    stored.prepare(total(us.lm_kd()).needs, example)
    with pytest.raises(MethodRefused, match=says) as error:
        stored.prepare(total(us.lm_ce() + 0.5 * objective).needs, example)
    assert "\n" not in str(error.value)


def test_hidden_states_serve_every_divergence_and_temperature(tmp_path):
    stored = Stored(write(tmp_path / "s", mode="hidden"))
    for objective in (us.lm_kd("reverse_kl"), us.lm_kd(temperature=3.0), us.lm_kd("jsd")):
        stored.prepare(total(objective).needs, whole(DATA))
    everything = Stored(write(tmp_path / "k", k=VOCABULARY))
    everything.prepare(total(us.lm_kd("reverse_kl", temperature=2.0)).needs, whole(DATA))


def trained(teacher, objective=None, **options):
    """Weights of a student after two epochs, on its own order of the data."""
    student = llama(5, width=8)
    loader = Indexed(DATA, Order(size=len(DATA), batch_size=6, seed=2))
    scene = Scene(
        learners={"student": student},
        teacher=teacher,
        objective=total(objective or us.lm_kd()),
        example=loader.example(),
        call=CausalLM(),
    )
    Fit(Plain(), scene, loader, Budget(epochs=2, batch_size=6, lr=1e-2)).run()
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def test_training_from_the_store_is_training_from_the_live_teacher(tmp_path):
    begun = torch.cat([p.detach().flatten() for p in llama(5, width=8).parameters()])
    kept = Stored(write(tmp_path / "s", mode="hidden", dtype="fp32", batch_size=4))
    there = trained(live())
    assert (there - begun).abs().max() > 1e-2
    torch.testing.assert_close(trained(kept), there, rtol=0, atol=1e-4)
    # half precision is near as well, and another teacher is not
    half = Stored(write(tmp_path / "h", mode="hidden", dtype="fp16"))
    assert (trained(half) - there).abs().max() < 5e-3
    assert (trained(live(1)) - there).abs().max() > 2e-2
    # all tokens listed is the whole distribution
    listed = Stored(write(tmp_path / "k", k=VOCABULARY, dtype="fp32"))
    torch.testing.assert_close(trained(listed), there, rtol=0, atol=1e-3)


def test_training_from_samples_draws_near_to_the_live_teacher(tmp_path):
    there, labels = trained(live()), trained(live(), us.lm_ce())
    near = trained(Stored(write(tmp_path / "s", mode="sampled", draws=2000)))
    assert (near - there).norm() < 0.2 * (labels - there).norm()


@pytest.mark.parametrize("file", ["shards/00001.safetensors", "head.safetensors", "manifest.json"])
def test_a_changed_byte_is_refused(tmp_path, file):
    store = write(tmp_path / "s", mode="hidden")
    path = store.path / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=f"corrupt: {file}") as error:
        Stored(tmp_path / "s")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mode": "topk"}, "no mode of stored signals 'topk'; did you mean top-k"),
        ({"k": 0}, "at least 1"),
        ({"k": VOCABULARY + 1}, rf"k lies in 1 \.\.\. {VOCABULARY}"),
        ({"temperature": 0.0}, "above 0"),
        ({"mode": "hidden", "temperature": 2.0}, "any temperature"),
        ({"dtype": "int8"}, "fp32, fp16 or bf16"),
        ({"shard": (2, 2)}, "0 <= i < n"),
        ({"mode": "hidden", "teacher": Frozen(llama(), CausalLM(factored=False))}, "CausalLM"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing(tmp_path, wrong, says):
    with pytest.raises(UserError, match=says):
        write(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


def test_a_teacher_that_is_not_finite_is_refused_by_text(tmp_path):
    class Bad(Frozen):
        def signals(self, batch):
            said = super().signals(batch)
            hidden = said.logits.hidden.clone()
            hidden[batch.index == int(IDS[4])] = torch.nan
            return replace(said, logits=replace(said.logits, hidden=hidden))

    for mode in ("top-k", "sampled", "hidden"):
        with pytest.raises(NotFinite, match=f"of text {int(IDS[4])} are not finite"):
            write(tmp_path / mode, Bad(llama(), CausalLM()), mode=mode)


def test_texts_without_a_number_or_a_mask_are_refused(tmp_path):
    twice = texts(ids=[5] * len(DATA))
    with pytest.raises(DataError, match="sample id 5 occurs more than once"):
        write(tmp_path / "s", source=twice)
    stored = Stored(write(tmp_path / "t"))
    batch = whole(DATA)
    with pytest.raises(SignalError, match="the batch has no index"):
        stored.signals(replace(batch, index=None))
    with pytest.raises(SignalError, match="input_ids"):
        stored.signals(Batch(inputs=torch.zeros(2, 3), index=batch.index[:2]))


def test_tokenizers_are_told_apart_by_what_they_do(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    def made(*words):
        return Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0]))

    one, other = made("a", "b"), made("b", "a")
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(made("a", "b"))
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(other)
    padded = made("a", "b")
    padded.enable_truncation(4)
    padded.enable_padding()
    assert tokenizer_fingerprint(padded) == tokenizer_fingerprint(one)
    assert tokenizer_fingerprint(None) is None
    store = write(tmp_path / "s", tokenizer=one)
    Stored(store, tokenizer=padded)
    Stored(store)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        Stored(store, tokenizer=other)


class Slow(Frozen):
    """A teacher that takes its time, so that a kill finds it at work."""

    def signals(self, batch):
        time.sleep(0.02)
        return super().signals(batch)


def _alone(folder, mode, shard):
    torch.set_num_threads(1)
    write(folder, Slow(llama(), CausalLM()), mode=mode, shard=shard, shard_rows=3, batch_size=2)


def started(*args):
    process = multiprocessing.get_context("fork").Process(target=_alone, args=args)
    process.start()
    return process


@pytest.mark.parametrize("mode", ["top-k", "sampled", "hidden"])
def test_killed_while_writing_it_goes_on_to_the_same_bytes(tmp_path, mode):
    whole_, folder = tmp_path / "whole", tmp_path / "killed"
    write(whole_, mode=mode, shard_rows=3, batch_size=2)
    for wanted in (1, 3):
        process = started(folder, mode, (0, 1))
        until = time.monotonic() + 60
        while len(list(folder.glob("shards/*.json"))) < wanted and time.monotonic() < until:
            assert process.is_alive()
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -9
    assert not (folder / "manifest.json").exists()
    with pytest.raises(CheckpointError, match="not finished; run the same write again"):
        Stored(folder)
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("shards/*.json")}
    assert len(kept) >= 3
    assert write(folder, mode=mode, shard_rows=3, batch_size=2) is not None
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert contents(folder) == contents(whole_)


@pytest.mark.parametrize("mode", ["sampled", "hidden"])
def test_two_workers_write_what_one_does(tmp_path, mode):
    write(tmp_path / "one", mode=mode, shard_rows=3, batch_size=2)
    workers = [started(tmp_path / "two", mode, (i, 2)) for i in range(2)]
    for worker in workers:
        worker.join(timeout=60)
    assert [w.exitcode for w in workers] == [0, 0]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_worker_alone_leaves_the_rest_to_others(tmp_path):
    assert write(tmp_path / "s", shard=(1, 2)) is None
    assert sorted(p.name for p in tmp_path.glob("s/shards/*.json")) == ["00001.json", "00003.json"]
    assert write(tmp_path / "s", shard=(0, 2)) is not None


def test_needs_of_several_terms_are_kept_apart():
    needs = total(us.lm_kd("reverse_kl", temperature=2.0) + us.lm_kd() + us.lm_ce()).needs
    assert [(r.name, r.temperature) for r in needs.reads] == [
        ("ReverseKL", 2.0),
        ("ForwardKL", 1.0),
    ]
    assert Needs().reads == ()
