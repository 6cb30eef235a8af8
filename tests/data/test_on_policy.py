"""Texts that are written while the student learns: whose they are, when, and an exact resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from language_worlds import END, settings_of, toy_texts
from small_worlds import differing, weights
from understudy.data import Indexed, Order, Texts
from understudy.data.beams import beam_search
from understudy.data.on_policy import OnPolicy, OnPolicyLoader, longest_answer
from understudy.data.replay import Buffer, Replay, packed, unpacked
from understudy.data.rewritten import TeacherTexts
from understudy.data.writers import MixturePick, ModelWriter, PairWriter, SpeculativePick
from understudy.data.written import Written, batch_of, beside, prompts_of
from understudy.errors import DataError, MethodRefused, UserError
from understudy.objectives import lm_kd
from understudy.running import Studio
from understudy.setting import Recipe, Setting, Stage
from understudy.signals import IGNORE, Batch
from understudy.signals.authors import CORPUS, DATA, STUDENT, TEACHER, authors, numbers
from understudy.signals.generation import Sampling, generate, speaking
from understudy.students import load_model
from understudy.training.interrupt import Interrupt, Interrupted


@pytest.fixture(scope="module")
def setting() -> Setting:
    return settings_of(epochs=2)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    torch.manual_seed(0)
    spec = "llama:width=16,depth=1,heads=2"
    return tuple(load_model(spec, classes=32, vocabulary=32, length=32) for _ in range(2))


def loader_of(
    model: Any, plan: OnPolicy, *, texts: Texts | None = None, seed: int = 0, **settings: Any
) -> OnPolicyLoader:
    """A loader over the toy's texts whose writer is `model`."""
    texts = toy_texts(24, 1) if texts is None else texts
    data = Indexed(texts, Order(size=len(texts), batch_size=8, seed=3))
    sampling = Sampling(max_new=6, temperature=plan.temperature, stop=(END,))
    own = {"writers": [ModelWriter(model=model)], "sampling": sampling, "context": 32, "total": 9}
    return OnPolicyLoader(data, plan, **{**own, "seed": seed, **settings})


def equal(a: Batch, b: Batch) -> bool:
    mine = (*a.inputs.values(), a.labels, a.mask, a.index)
    theirs = (*b.inputs.values(), b.labels, b.mask, b.index)
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(mine, theirs, strict=True))


def all_of(loader: OnPolicyLoader, epochs: int = 2) -> list[Batch]:
    return [batch for epoch in range(epochs) for batch in loader.batches(epoch)]


# --- what a batch of written texts is -------------------------------------------------------------


def test_a_written_batch_is_the_prompt_and_what_was_drawn_after_it(pair: Any) -> None:
    """By hand: the writer's own answer behind the prompt, shifted once, scored to its end."""
    student, _ = pair
    texts = toy_texts(24, 1)
    loader = loader_of(student, OnPolicy(temperature=0.0), texts=texts)
    batch = next(loader.batches(0))
    for row in range(len(batch)):
        sample = int(numbers(batch.index)[row])
        prompt = texts.prompt(sample)
        (answer,) = generate(student, [prompt], loader.sampling)
        tokens = torch.cat([prompt, answer])
        real = batch.inputs["attention_mask"][row].bool()
        assert torch.equal(batch.inputs["input_ids"][row][real], tokens[:-1])
        scored = batch.mask[row]
        assert torch.equal(batch.labels[row][scored], answer)
        assert scored.nonzero().flatten().tolist() == list(range(len(prompt) - 1, len(tokens) - 1))
        assert bool((batch.labels[row][~scored] == IGNORE).all())
    assert authors(batch.index).tolist() == [STUDENT] * 8


def test_the_stop_token_ends_a_text_and_is_learned(pair: Any) -> None:
    student, _ = pair
    never, always = (loader_of(student, OnPolicy(), sampling=s) for s in (
        Sampling(max_new=5),
        Sampling(max_new=5, stop=tuple(range(32))),
    ))  # fmt: skip
    assert {int(n) for b in never.batches(0) for n in b.mask.sum(-1)} == {5}
    for batch in always.batches(0):
        assert batch.mask.sum(-1).tolist() == [1] * 8  # whatever comes first is an end, and scored


def test_plain_texts_are_continued_from_their_first_tokens(pair: Any) -> None:
    student, _ = pair
    texts = Texts([torch.arange(1, n) for n in (9, 7, 4, 12)])
    loader = loader_of(student, OnPolicy(prompt_tokens=5), texts=texts)
    batch = next(loader.batches(0))
    for row in range(4):
        original = texts.tokens(int(numbers(batch.index)[row]))
        first = int(batch.mask[row].nonzero()[0])
        size = min(5, len(original) - 1)
        assert first == size - 1
        assert torch.equal(batch.inputs["input_ids"][row, :size], original[:size])


def test_prompts_too_long_for_the_context_are_refused_or_cut() -> None:
    tokens = [torch.arange(12) % 30 + 1, torch.arange(6) + 1]
    scored = [torch.arange(12) >= 10, torch.arange(6) >= 4]
    texts = Texts(tokens, scored, ids=[4, 9])
    batch = texts.batch(torch.arange(2))
    with pytest.raises(
        DataError, match=r"text 4 has 10 tokens, and a model here reads 8.*cut=True"
    ):
        prompts_of(batch, prompt_tokens=4, context=8)
    cut = prompts_of(batch, prompt_tokens=4, context=8, cut=True)
    assert torch.equal(cut[0], tokens[0][2:10])
    assert torch.equal(cut[1], tokens[1][:4])
    model = load_model("llama:width=16,depth=1,heads=2", classes=32, vocabulary=32, length=8)
    loader = loader_of(
        model, OnPolicy(cut=True), texts=texts, context=8, sampling=Sampling(max_new=4)
    )
    written = next(loader.batches(0))
    # a prompt that fills the context leaves room for the one token that follows it
    assert written.inputs["input_ids"].shape[1] <= 8
    assert sorted(written.mask.sum(-1).tolist()) == [1, 4]


def test_the_longest_answer_and_the_stop_token_are_the_datas(setting: Setting) -> None:
    texts = toy_texts(24, 1)
    assert longest_answer(texts, 8) == max(len(texts.answer(i)) for i in range(24))
    plain = Texts([torch.arange(1, n) for n in (9, 7, 4)])
    assert longest_answer(plain, 3) == 8 - 3
    task = setting.task_for(0)
    sampling = OnPolicy().sampling(task, texts)
    assert sampling.stop == (END,)
    assert sampling.max_new == longest_answer(texts, 8)
    assert OnPolicy(stop=(5,), max_new=2).sampling(task, texts) == Sampling(max_new=2, stop=(5,))
    odd = Texts([torch.tensor([1, 2]), torch.tensor([1, 3])])
    assert OnPolicy().sampling(task, odd).stop == ()


def test_batches_of_texts_join_padded_to_the_longer() -> None:
    texts = [
        Written(tokens=torch.tensor([1, 2, 3, 4, 5]), prompt=2, sample=3, author=STUDENT),
        Written(tokens=torch.tensor([6, 7, 8]), prompt=1, sample=1, author=TEACHER),
    ]
    like = toy_texts(2, 1).batch(torch.arange(2))
    first, second = (batch_of([t], like=like) for t in texts)
    joined = beside(first, second)
    assert equal(joined, batch_of(texts, like=like))
    assert authors(joined.index).tolist() == [STUDENT, TEACHER]
    assert numbers(joined.index).tolist() == [3, 1]


# --- when it is written, and by whom --------------------------------------------------------------


def test_what_is_drawn_depends_on_seed_epoch_and_batch_alone(pair: Any) -> None:
    student, _ = pair
    whole = all_of(loader_of(student, OnPolicy(lmbda=0.6)))
    torch.manual_seed(99)
    again = loader_of(student, OnPolicy(lmbda=0.6))
    later = [*again.batches(1, 1)]  # not having drawn what comes before
    assert all(equal(a, b) for a, b in zip(whole[4:], later, strict=True))
    assert all(equal(a, b) for a, b in zip(whole, all_of(again), strict=True))
    other = all_of(loader_of(student, OnPolicy(lmbda=0.6), seed=1))
    assert not all(equal(a, b) for a, b in zip(whole, other, strict=True))
    kinds = [bool((b.index < 0).all()) for b in whole]
    assert True in kinds
    assert False in kinds


def test_writing_leaves_global_randomness_and_modes_as_they_were(pair: Any) -> None:
    student, _ = pair
    student.train()
    state = torch.get_rng_state()
    all_of(loader_of(student, OnPolicy()))
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training


def test_texts_are_the_models_of_the_moment(pair: Any) -> None:
    """Drawn lazily: a change of the weights between two batches changes the second alone."""
    student = load_model("llama:width=16,depth=1,heads=2", classes=32, vocabulary=32, length=32)
    before = list(loader_of(student, OnPolicy(temperature=0.0)).batches(0))
    stream = loader_of(student, OnPolicy(temperature=0.0)).batches(0)
    first = next(stream)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(-3).add_(0.1)
    assert equal(first, before[0])
    assert not equal(next(stream), before[1])


def test_a_pair_writes_every_text_twice(pair: Any) -> None:
    student, teacher = pair
    writers = [ModelWriter(model=teacher, author=TEACHER), ModelWriter(model=student)]
    batch = next(loader_of(student, OnPolicy(writer="pair"), writers=writers).batches(0))
    assert authors(batch.index).tolist() == [TEACHER] * 8 + [STUDENT] * 8
    assert numbers(batch.index)[:8].tolist() == numbers(batch.index)[8:].tolist()


def test_a_corpus_goes_beside_every_batch(pair: Any) -> None:
    student, _ = pair
    corpus = toy_texts(5, 9)
    batches = all_of(loader_of(student, OnPolicy(lmbda=0.5, corpus=corpus)))
    for batch in batches:
        who = authors(batch.index)
        assert (who == CORPUS).sum() == 8
        rows = who == CORPUS
        for row in rows.nonzero().flatten().tolist():
            original = corpus.tokens(int(numbers(batch.index)[row]))
            real = batch.inputs["attention_mask"][row].bool()
            assert torch.equal(batch.inputs["input_ids"][row][real], original[:-1])


def test_a_schedule_sets_the_share(pair: Any) -> None:
    student, _ = pair
    loader = loader_of(student, OnPolicy(lmbda=lambda progress: float(progress >= 0.5)), total=6)
    kinds = [bool((b.index < 0).all()) for b in all_of(loader)]
    assert kinds == [False, False, False, True, True, True]
    assert loader.logged() == {"written": 0.5}
    assert loader.logged() == {"written": 0.0}
    assert loader.seconds > 0


def test_texts_may_be_written_all_at_the_start_of_an_epoch(pair: Any) -> None:
    student = load_model("llama:width=16,depth=1,heads=2", classes=32, vocabulary=32, length=32)
    plan = OnPolicy(refresh="epoch", temperature=0.0)
    before = list(loader_of(student, plan).batches(0))
    loader = loader_of(student, plan)
    stream = loader.batches(0)
    first = next(stream)
    state = loader.state_dict()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(-3).add_(0.1)
    rest = [first, *stream]
    assert all(equal(a, b) for a, b in zip(rest, before, strict=True))
    fresh = loader_of(student, plan)
    fresh.load_state_dict(state)
    continued = list(fresh.batches(0, 1))
    assert all(equal(a, b) for a, b in zip(continued, before[1:], strict=True))
    assert not equal(next(loader.batches(1)), next(loader_of(pair[0], plan).batches(1)))


# --- token by token, by both ----------------------------------------------------------------------


def test_speculative_texts_are_the_students_or_the_teachers_at_the_ends_of_k(pair: Any) -> None:
    student, teacher = pair
    prompts = [toy_texts(6, 1).prompt(i) for i in range(6)]
    greedy = Sampling(max_new=6, temperature=0.0)
    for top_k, writer in ((1, teacher), (32, student)):
        pick = SpeculativePick(top_k=top_k, teacher=Sampling(temperature=0.0))
        both = PairWriter(student=student, teacher=teacher, pick=pick)
        alone = generate(writer, prompts, greedy)
        assert all(map(torch.equal, both.write(prompts, greedy, 0), alone))


def test_speculation_replaces_tokens_outside_the_teachers_best() -> None:
    student = torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 9.0]])
    teacher = torch.tensor([[3.0, 2, 1, 0], [3.0, 2, 1, 0]])
    greedy = Sampling(temperature=0.0)
    g = torch.Generator().manual_seed(0)
    pick = SpeculativePick(top_k=2, teacher=greedy)
    assert pick(student, teacher, greedy, g).tolist() == [0, 0]
    assert SpeculativePick(top_k=4, teacher=greedy)(student, teacher, greedy, g).tolist() == [0, 3]
    drawn = SpeculativePick(top_k=2)
    found = torch.stack([drawn(student, teacher, greedy, g) for _ in range(4000)])
    share = torch.bincount(found[:, 1], minlength=4) / 4000
    torch.testing.assert_close(share, teacher[1].softmax(-1), atol=0.03, rtol=0)
    assert bool((found[:, 0] == 0).all())


def test_a_mixture_draws_from_both_in_their_shares() -> None:
    student = torch.tensor([[2.0, 0, 0]]).repeat(20000, 1)
    teacher = torch.tensor([[0.0, 0, 2]]).repeat(20000, 1)
    g = torch.Generator().manual_seed(0)
    found = MixturePick(alpha=0.2)(student, teacher, Sampling(), g)
    share = torch.bincount(found, minlength=3) / 20000
    expected = 0.2 * teacher[0].softmax(-1) + 0.8 * student[0].softmax(-1)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_a_beam_search_finds_what_no_other_text_beats(pair: Any) -> None:
    """Against every text of three tokens, with as many beams as there are tokens."""
    model, _ = pair
    small = load_model("llama:width=16,depth=1,heads=2", classes=4, vocabulary=4, length=8)
    prompt = torch.tensor([1, 2])

    def score(tokens: list[int]) -> float:
        ids = torch.cat([prompt, torch.tensor(tokens)])[None]
        with speaking(small):
            logs = small(input_ids=ids).logits.log_softmax(-1)[0]
        return sum(float(logs[len(prompt) - 1 + i, t]) for i, t in enumerate(tokens))

    end = 3
    every: list[list[int]] = []
    for a in range(4):
        for b in range(4):
            for c in range(4):
                text = [a] if a == end else [a, b] if b == end else [a, b, c]
                every.append(text)
    best = max(every, key=score)
    (found,) = beam_search(small, [prompt], beams=16, max_new=3, stop=(end,))
    assert found.tolist() == best
    greedy = Sampling(max_new=6, temperature=0.0, stop=(END,))
    prompts = [toy_texts(6, 1).prompt(i) for i in range(6)]
    alone = generate(model, prompts, greedy)
    assert all(
        map(torch.equal, beam_search(model, prompts, beams=1, max_new=6, stop=(END,)), alone)
    )
    together = beam_search(model, prompts, beams=3, max_new=6, stop=(END,))
    each = [beam_search(model, [p], beams=3, max_new=6, stop=(END,))[0] for p in prompts]
    assert all(map(torch.equal, together, each))


# --- texts that are read again --------------------------------------------------------------------


def written(i: int) -> Written:
    tokens = torch.arange(i, i + 3 + i % 2)
    return Written(tokens=tokens, prompt=1, sample=i, author=STUDENT)


def same(a: list[Written], b: list[Written]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.tokens, y.tokens)
        and (x.prompt, x.sample, x.author) == (y.prompt, y.sample, y.author)
        for x, y in zip(a, b, strict=True)
    )


def test_a_buffer_drops_the_oldest_and_comes_back_as_it_was() -> None:
    buffer = Buffer(4)
    buffer.add([written(i) for i in range(6)])
    assert [t.sample for t in buffer.texts] == [2, 3, 4, 5]
    assert buffer.full
    drawn = buffer.draw(3, torch.Generator().manual_seed(0))
    assert len({t.sample for t in drawn}) == 3
    fresh = Buffer(4)
    fresh.load_state_dict(buffer.state_dict())
    assert same(list(fresh.texts), list(buffer.texts))
    assert same(fresh.draw(3, torch.Generator().manual_seed(0)), drawn)
    assert unpacked(packed([])) == []


def test_a_full_buffer_serves_texts_again_ever_more(pair: Any) -> None:
    student, _ = pair
    replay = Replay(capacity=16, adaptive=False)
    loader = loader_of(student, OnPolicy(replay=replay), total=30)
    seen: list[Batch] = all_of(loader, 10)
    told = loader.logged()
    assert told["written"] == 1
    assert told["lmbda"] == 1
    # the chance of a text written anew falls from 1 to 0
    assert 0.25 < told["again"] < 0.75
    assert len(loader.buffer) == 16
    assert all(bool((authors(b.index) == STUDENT).all()) for b in seen)
    fixed = loader_of(student, OnPolicy(replay=replace(replay, fresh=0.0)), total=30)
    all_of(fixed, 10)
    assert fixed.logged()["again"] == pytest.approx(28 / 30)


@pytest.mark.parametrize(
    ("against", "shares"),
    [("previous", [0.2, 0.2, 0.3, 0.3, 0.4]), ("raised", [0.2, 0.2, 0.3, 0.3, 0.3])],
)
def test_the_share_rises_with_the_held_out_loss(
    pair: Any, against: str, shares: list[float]
) -> None:
    student, _ = pair
    losses = iter([2.0, 2.05, 2.3, 1.0, 1.2])
    replay = Replay(capacity=8, against=against)
    loader = loader_of(student, OnPolicy(lmbda=0.2, replay=replay), measure=lambda: next(losses))
    found = []
    for epoch in range(5):
        list(loader.batches(epoch))
        found.append(loader.share)
    np.testing.assert_allclose(found, shares)


def test_processes_write_their_own(pair: Any) -> None:
    """The same decisions in all, other texts in each."""
    student, _ = pair
    found = []
    for rank in range(2):
        loader = loader_of(student, OnPolicy(lmbda=0.5))
        loader.loader.rank, loader.loader.world, loader.rank = rank, 2, rank
        found.append(all_of(loader))
    for a, b in zip(*found, strict=True):
        assert len(a) == len(b) == 4
        assert bool((a.index < 0).all()) == bool((b.index < 0).all())
        assert not set(numbers(a.index).tolist()) & set(numbers(b.index).tolist())


# --- in a play ------------------------------------------------------------------------------------


def recipe_of(setting: Setting, loader: Any = None, name: str = "mine") -> Recipe:
    stage = Stage(objective=lm_kd("reverse_kl"), loader=loader)
    return Recipe(name=name, setting=setting, stages=(stage,))


def test_a_share_of_zero_is_plain_training_bit_for_bit(setting: Setting, tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    plain = studio.play(recipe_of(setting, name="plain"))
    never = studio.play(recipe_of(setting, OnPolicy(lmbda=0.0), name="never"))
    always = studio.play(recipe_of(setting, OnPolicy(), name="always"))
    assert differing(weights(tmp_path, "plain"), weights(tmp_path, "never")) == []
    assert differing(weights(tmp_path, "plain"), weights(tmp_path, "always"))
    assert [h["terms"]["written"] for h in never.history] == [0, 0]
    assert [h["terms"]["written"] for h in always.history] == [1, 1]
    assert never.writing_seconds == plain.writing_seconds == 0
    assert 0 < always.writing_seconds < always.seconds
    assert always.row()["writing_seconds"] == always.writing_seconds


def test_a_share_of_one_trains_on_own_text_alone(setting: Setting) -> None:
    seen: list[Batch] = []

    class Spied:
        def __call__(self, play: Any, loader: Any) -> Any:
            made = OnPolicy()(play, loader)
            drawn = made.batches

            def batches(epoch: int, start: int = 0) -> Any:
                for batch in drawn(epoch, start):
                    seen.append(batch)
                    yield batch

            made.batches = batches
            return made

    Studio(None).play(recipe_of(setting, Spied()))
    assert seen
    assert all(bool((authors(b.index) == STUDENT).all()) for b in seen)


PLANS = {
    "student": OnPolicy(lmbda=0.7),
    "replay": OnPolicy(lmbda=0.8, replay=Replay(capacity=40)),
    "epoch": OnPolicy(writer="pair", refresh="epoch"),
    "speculative": OnPolicy(writer=SpeculativePick(top_k=4)),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_resume_in_the_middle_of_an_epoch_is_exact(
    name: str, setting: Setting, tmp_path: Path
) -> None:
    """Fresh objects, the buffer and what adapts restored: the end is bit-equal."""
    whole = Studio(tmp_path / "whole").play(recipe_of(setting, PLANS[name]))
    interrupt, count = Interrupt(), []

    def stop(kind: str, fields: dict[str, Any]) -> None:
        if kind == "update":
            count.append(1)
            interrupt.wanted |= len(count) == 3

    recipe = recipe_of(settings_of(epochs=2), PLANS[name])
    with pytest.raises(Interrupted):
        Studio(tmp_path / "cut", interrupt=interrupt, listeners=[stop]).play(recipe)
    again = Studio(tmp_path / "cut").play(recipe_of(settings_of(epochs=2), PLANS[name]))
    mine, theirs = (weights(tmp_path / side, "mine") for side in ("whole", "cut"))
    assert differing(mine, theirs) == []
    assert repr(again.history) == repr(whole.history)
    assert again.last == whole.last


def test_teacher_texts_replace_the_data(setting: Setting) -> None:
    seen: list[Texts] = []

    def source(play: Any) -> Texts:
        seen.append(TeacherTexts(beams=0, temperature=0.0, copies=2)(play))
        return seen[-1]

    stage = Stage(objective=setting.supervised(), teacher=None, source=source)
    result = Studio(None).play(Recipe(name="texts", setting=setting, stages=(stage,)))
    train = setting.task_for(0).train
    assert len(seen[0]) == 2 * len(train)
    assert result.writing_seconds > 0
    for row in (0, 5):
        sample = int(numbers(seen[0].ids)[row])
        assert torch.equal(seen[0].prompt(row), train.prompt(sample))
    assert set(authors(seen[0].ids).tolist()) == {TEACHER}


# --- what cannot be -------------------------------------------------------------------------------


def test_wrong_settings_are_refused() -> None:
    for wrong in (
        {"lmbda": 1.5},
        {"prompt_tokens": 0},
        {"refresh": "epoch", "replay": Replay()},
        {"lmbda": lambda p: p, "replay": Replay()},
    ):
        with pytest.raises(UserError):
            OnPolicy(**wrong)
    for wrong in ({"capacity": 0}, {"fresh": 2.0}, {"fresh": "rising"}, {"against": "last"}):
        with pytest.raises(UserError):
            Replay(**wrong)
    for make in (lambda: MixturePick(alpha=2), lambda: SpeculativePick(top_k=0)):
        with pytest.raises(UserError):
            make()


def test_a_setting_without_a_teacher_is_refused(setting: Setting) -> None:
    alone = replace(setting, teachers={})
    stage = Stage(objective=setting.supervised(), teacher=None, loader=OnPolicy(writer="teacher"))
    with pytest.raises(MethodRefused, match="learns from a teacher"):
        Studio(None).play(Recipe(name="mine", setting=alone, stages=(stage,)))


def test_a_state_of_other_processes_is_refused(pair: Any) -> None:
    loader = loader_of(pair[0], OnPolicy())
    state = loader.state_dict()
    with pytest.raises(UserError, match="2 process"):
        loader.load_state_dict({"processes": state["processes"] * 2})


def test_data_is_its_own_author(pair: Any) -> None:
    batch = next(loader_of(pair[0], OnPolicy(lmbda=0.0)).batches(0))
    assert set(authors(batch.index).tolist()) == {DATA}
