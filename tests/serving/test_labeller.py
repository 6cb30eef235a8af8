"""A student of labels where its teacher stood: behind a server, asked as a chat model is."""

import json
import math
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

import understudy as us
from label_worlds import LABELS, Tfidf, docstrings
from understudy.data.synthesis import prompts
from understudy.errors import UserError
from understudy.serving import background, teacher_of
from understudy.students import build, save_student
from understudy.teachers.chat import ChatSampling, user
from understudy.teachers.chat.client import ChatEndpoint

TEXTS = ["Return the event loop.", "A MIME part.", "Log a message with level INFO.", "zzz"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("served") / "mine"
    texts = docstrings(150)[0]
    return us.label(texts, LABELS, Tfidf(), out=out, first=60, steps=40, validate_steps=20)


@pytest.fixture(scope="module")
def teacher(run: Any) -> Any:
    name, found = teacher_of(str(run.folder))
    assert name == "mine"
    return found


def test_a_message_is_a_text_and_its_answer_a_label(run: Any, teacher: Any) -> None:
    with (
        background(teacher, name="mine") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        for text, label in zip(TEXTS, run.classify(TEXTS), strict=True):
            said = client.chat.completions.create(
                model="mine", messages=[{"role": "user", "content": text}], temperature=0,
                logprobs=True, top_logprobs=8,
            )  # fmt: skip
            assert said.choices[0].message.content == label
            top = said.choices[0].logprobs.content[0].top_logprobs  # type: ignore[union-attr]
            assert {t.token for t in top} == set(LABELS)
            assert math.isclose(sum(math.exp(t.logprob) for t in top), 1, abs_tol=1e-9)


def test_it_labels_as_its_teacher_did(run: Any, teacher: Any) -> None:
    with background(teacher, name="mine") as url, ChatEndpoint(url, "mine") as endpoint:
        asked = [prompts.classify(text, LABELS) for text in TEXTS]
        said = [r[0].text for _, r in sorted(endpoint.replies(asked, 1, ChatSampling(temperature=0)))]  # fmt: skip
        assert [json.loads(s)["label"] for s in said] == run.classify(TEXTS)


def test_draws_are_from_its_probabilities(teacher: Any) -> None:
    replies = teacher.reply(user(TEXTS[0]), 400, ChatSampling(temperature=1.0, seed=1, logprobs=8))
    told = dict(replies[0].logprobs[0][2])
    for label, log_p in told.items():
        p = math.exp(log_p)
        share = sum(r.text == label for r in replies) / 400
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 400) + 0.003
    assert "cannot answer" in teacher.reply(user("  "))[0].text


def test_what_is_no_classifier_of_texts_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("mlp:width=4", classes=2, in_features=3)
    save_student(model, tmp_path / "images", labels=["a", "b"])
    with pytest.raises(
        UserError, match=r"cannot be served: .*classifier of texts.*tokenizer\.json"
    ):
        teacher_of(str(tmp_path / "images"))
