"""Servers in processes of their own: ours by the command line, and that of transformers."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from tiny_causal import tiny, tokenizer
from understudy.cli import main
from understudy.teachers.chat import ChatSampling, in_order, user
from understudy.teachers.chat.client import ChatEndpoint
from understudy.teachers.chat.local import LocalChat

ASKED = [user("hello"), user("how are you?"), user("two plus two")]
GREEDY = ChatSampling(temperature=0, max_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A causal language model as Hugging Face saves it."""
    place = tmp_path_factory.mktemp("models") / "tiny"
    words = tokenizer()
    tiny("llama", vocab_size=len(words), max_position_embeddings=96).save_pretrained(place)
    words.save_pretrained(place)
    return place


@contextmanager
def started(command, pattern, **environment):
    """(process, what `pattern` found in its output), ended at the end by Ctrl-C."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def read(stream):
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, args=(process.stdout,), daemon=True).start()
    said = ""
    try:
        while not (found := re.search(pattern, said)):
            line = lines.get(timeout=120)
            assert line is not None, said
            said += line
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def expected(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    return in_order(LocalChat(model, AutoTokenizer.from_pretrained(folder)), ASKED, 1, GREEDY)


def test_the_command_serves_a_folder_until_it_is_interrupted(folder, monkeypatch):
    monkeypatch.setenv("TINY_KEY", "open sesame 7")
    command = [sys.executable, "-m", "understudy.cli", "serve", str(folder), "--port", "0", "--key-env", "TINY_KEY"]  # fmt: skip
    with started(command, r"http://\S+/v1") as (process, url):
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
        with ChatEndpoint(url, "tiny", key_env="TINY_KEY") as endpoint:
            said = in_order(endpoint, ASKED, 1, GREEDY)
    assert [s[0].text for s in said] == [w[0].text for w in expected(folder)]
    assert process.returncode == 0


def test_our_client_reads_the_server_of_transformers(folder, tmp_path):
    script = Path(sys.executable).with_name("transformers")
    command = [str(script), "serve", "--port", "0", "--device", "cpu"]
    ledger = tmp_path / "ledger.sqlite"
    with (
        started(command, r"http://\S+:\d+", HF_HOME=str(tmp_path)) as (_, url),
        ChatEndpoint(f"{url}/v1", str(folder), ledger=ledger) as endpoint,
    ):
        said = in_order(endpoint, ASKED, 1, GREEDY)
        again = in_order(endpoint, ASKED, 1, GREEDY)
    want = expected(folder)
    assert [s[0].text for s in said] == [w[0].text for w in want]
    assert [s[0].prompt_tokens for s in said] == [w[0].prompt_tokens for w in want]
    assert [s[0].cached for s in again] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["schol"], "did you mean school"),
        (["."], "causal language model"),
        (["school", "--port", "70000"], "--port"),
        (["school", "--batch-size", "0"], "batch_size"),
        (["school", "--host", "0.0.0.0"], "--key-env"),
        (["school", "--key-env", "NOT_SET_AT_ALL"], "NOT_SET_AT_ALL"),
        (["school", "--prot", "1"], "--prot"),
    ],
)
def test_wrong_commands_are_told_in_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
