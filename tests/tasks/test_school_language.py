"""The school world as text for language models: tokens, batches, the task and its teacher."""

import pytest
import torch

from understudy.errors import DataError, UnknownName
from understudy.tasks.school import (
    ABILITIES,
    LENGTH,
    TEACHER,
    ByLength,
    complete,
    corpus,
    decode,
    encode,
    example,
    examples,
    made_by,
    rows,
    school,
    score,
    teacher,
    tokenizer,
)
from understudy.tasks.school.study import STAGES, Study, new_model, train

EOS, PAD = 1, 0


def test_digits_and_marks_stand_alone():
    said = tokenizer().convert_ids_to_tokens(encode(["12+345=357,Mia has 40%"])[0])
    assert said[:11] == ["1", "2", "+", "3", "4", "5", "=", "3", "5", "7", ","]
    assert said[-3:] == ["4", "0", "%"]
    vocabulary = tokenizer().get_vocab()
    assert len(vocabulary) <= 512
    assert not [t for t in vocabulary if len(t) > 1 and any(c.isdigit() for c in t)]


def test_text_comes_back_unchanged():
    made = examples(300, 21)
    for e, ids in zip(made, encode([e.prompt + e.completion for e in made]), strict=True):
        assert decode(ids) == e.prompt + e.completion
        assert tokenizer()(e.prompt)["input_ids"] == encode([e.prompt])[0]
        assert tokenizer().decode(ids) == e.prompt + e.completion
    ascii = "".join(map(chr, range(32, 127))) + "\n"
    assert decode(encode([ascii])[0]) == ascii
    assert "<unk>" in tokenizer().convert_ids_to_tokens(encode(["é"])[0])


def test_tokenizer_is_saved_and_loaded_by_transformers(tmp_path):
    from transformers import AutoTokenizer

    tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "solve: What is 3/4 of 20?\n"
    assert loaded(text)["input_ids"] == encode([text])[0]
    assert (loaded.eos_token, loaded.eos_token_id) == ("<eos>", EOS)
    assert (loaded.pad_token, loaded.pad_token_id) == ("<pad>", PAD)


def test_a_corpus_scores_completions_and_weighs_prompts():
    made = examples(6, 3)
    plain, weighted = corpus(6, 3), corpus(6, 3, prompt_weight=0.3)
    for i, e in enumerate(made):
        assert decode(plain.prompt(i).tolist()) == e.prompt
        assert decode(plain.answer(i).tolist()) == e.completion
        assert int(plain.answer(i)[-1]) == EOS
    batch = weighted.batch(torch.arange(6))
    assert batch.weights is not None
    for i in range(6):
        asked = len(plain.prompt(i)) - 1
        said = len(plain.answer(i))
        assert torch.allclose(batch.weights[i, :asked], torch.full((asked,), 0.3))
        assert torch.equal(batch.weights[i, asked : asked + said], torch.ones(said))
        assert float(batch.weights[i, asked + said :].sum()) == 0


def test_batches_by_length_hold_every_text_once():
    lengths = torch.randint(20, 160, (3000,), generator=torch.Generator().manual_seed(0))
    order = ByLength(lengths=lengths, tokens=2000, pool=1024)
    batches = order.batches(0)
    assert sorted(torch.cat(batches).tolist()) == list(range(3000))
    sizes = [len(b) * int(lengths[b].max()) for b in batches]
    assert max(sizes) <= 2000
    assert float(lengths.sum()) / sum(sizes) > 0.95
    assert [b.tolist() for b in batches] == [b.tolist() for b in order.batches(0)]
    assert [b.tolist() for b in batches] != [b.tolist() for b in order.batches(1)]


def test_examples_fit_the_models():
    assert int(corpus(1500, 4).lengths.max()) < LENGTH


def test_every_ability_has_examples_of_a_row():
    [row] = rows(1, 2, skills=["subtract"], difficulty=3)
    made = {a: example(a, row) for a in ABILITIES}
    assert made["solve"].completion == f"{row.rationale}#{row.answer}"
    assert made["write"].prompt == f"write: subtract 3, {row.name}, {row.noun}\n"
    assert made["explain"].completion.startswith(
        f"{made['solve'].completion}?{made['explain'].given} "
    )
    with pytest.raises(UnknownName, match="solve"):
        example("solv", row)


def test_the_task():
    made = school(count=200, judged=24)
    assert (made.kind, made.metric, made.classes) == ("language", "exact_match", 512)
    assert len(made.train) == 200
    assert len(made.validate) == len(made.test) == 24
    said = {decode(made.test.tokens(i).tolist()) for i in range(24)}
    assert not said & {decode(made.validate.tokens(i).tolist()) for i in range(24)}
    other = school(split=1, count=200, judged=24)
    assert not torch.equal(other.train.flat, made.train.flat)
    assert not torch.equal(other.test.flat, made.test.flat)
    numbers = [set(t.ids.tolist()) for m in (made, other) for t in (m.train, m.validate, m.test)]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 2 * (200 + 24 + 24)
    with pytest.raises(UnknownName):
        school(abilities=("sing",))
    with pytest.raises(DataError):
        school(abilities=())


def test_training_goes_on_where_it_stood(tmp_path):
    study = Study(width=16, depth=1, heads=2, count=120, steps=6, tokens=1000)
    whole = train(study, tmp_path / "whole", save_every=100)
    train(study, tmp_path / "halves", save_every=3, stop_after=4)
    halves = train(study, tmp_path / "halves", save_every=3)
    a, b, fresh = whole.state_dict(), halves.state_dict(), new_model(study).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], fresh[k]) for k in a)


def test_the_shipped_teacher_solves_most_of_a_sample():
    model = teacher()
    sample = score(model, "solve", 48, seed=5)
    told = made_by()["measured"]["solve"]["all"]
    # of 48 at the told share, three standard errors below it
    assert sample.share > told - 3 * (told * (1 - told) / 48) ** 0.5
    assert sample.count == 48
    assert next(model.parameters()).dtype == torch.float32


def test_a_fresh_model_solves_nothing():
    study = Study(width=16, depth=1, heads=2)
    assert score(new_model(study), "solve", 12).share == 0


def test_completions_do_not_depend_on_their_neighbours():
    model = teacher()
    prompts = [e.prompt for e in examples(6, 31)]
    together = complete(model, prompts)
    assert together == [complete(model, [p])[0] for p in prompts]
    assert complete(model, prompts, temperature=1.0, seed=1) == complete(
        model, prompts, temperature=1.0, seed=1
    )


def test_the_shipped_folder_is_small_and_loads_with_transformers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sum(f.stat().st_size for f in TEACHER.iterdir()) < 8 * 2**20
    assert not [f for f in TEACHER.iterdir() if f.suffix in (".bin", ".pt", ".pkl")]
    words, model = (
        AutoTokenizer.from_pretrained(TEACHER),
        AutoModelForCausalLM.from_pretrained(TEACHER),
    )
    prompt = "solve: What is 7+6*9?\n"
    asked = words(prompt, return_tensors="pt")
    asked.pop("token_type_ids", None)
    told = model.float().generate(**asked, max_new_tokens=60, do_sample=False)
    said = words.decode(told[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == complete(teacher(), [prompt])[0]
    assert "#" in said


def test_the_story_of_the_teacher_names_its_settings():
    story = made_by()
    assert list(story["stages"]) == list(STAGES)
    assert {k: Study(**v) for k, v in story["stages"].items()} == dict(STAGES)
    assert story["parameters"] == sum(p.numel() for p in teacher().parameters())
    assert set(story["measured"]) >= {*ABILITIES, "solve, new templates", "solve, new compositions"}
