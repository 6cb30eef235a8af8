"""Language models on the command line: what is shown, trained, saved and refused."""

import pytest
import torch

from tiny_causal import chats, save_pair, write_lines
from understudy.reporting.marked import marked, show_example
from understudy.settings import own

IDS = torch.arange(12).view(2, 6)


@pytest.fixture(autouse=True)
def pair(tmp_path, elsewhere):
    save_pair(tmp_path)
    write_lines(tmp_path / "chats.jsonl", chats(20))


OWN = ("distill", "--teacher", "teacher", "--student", "student", "--data", "chats.jsonl")


def test_an_example_is_shown_and_nothing_is_trained(cli, tmp_path):
    code, out, _ = cli(*OWN, "--show-example")
    assert code == 0
    assert "[[It is " in out
    assert out.count("<|im_end|>]]") == 2
    assert "[[yes<|im_end|>]]" in out
    assert "every turn of the assistant is scored" in out
    assert not (tmp_path / "runs").exists()
    setting = own(teacher="teacher", student="student", data="chats.jsonl")
    assert "\033[1;32mIt is" in show_example(setting, colour=True)


def test_what_would_steer_a_terminal_is_escaped():
    class Reads:
        def decode(self, ids, **_):
            return "".join(map(chr, ids))

    said = marked([65, 27, 91, 66], [False, True, True, True], Reads(), False)
    assert said == "A[[\\x1b[B]]"


def test_adapters_and_packing_from_data_to_a_saved_student(cli, tmp_path):
    run = (*OWN, "--pack", "128", "--steps", "2", "--batch_size", "4", "--lr", "0.05")
    code, _, err = cli(*run, "--lora", "r=2,targets=q_proj+v_proj", "--out", "a")
    assert code == 0, err
    assert (tmp_path / "a" / "student" / "adapter_config.json").is_file()
    code, _, err = cli(*run, "--lora", "r=2,targets=q_proj+v_proj", "--merge", "--out", "b")
    assert code == 0, err
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained("b/student")
    adapted = AutoModelForCausalLM.from_pretrained("a/student")  # by way of peft
    begun = AutoModelForCausalLM.from_pretrained("student")
    torch.testing.assert_close(whole(IDS).logits, adapted(IDS).logits, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(whole(IDS).logits, begun(IDS).logits, atol=1e-3)
    assert AutoTokenizer.from_pretrained("a/student").chat_template
    assert cli("distill", "--out", "a", "--resume")[0] == 0


def test_columns_are_named(cli, tmp_path):
    (tmp_path / "qa.csv").write_text(
        "q,a\n" + "".join(f"{n} plus {n}?,It is {2 * n}.\n" for n in range(12))
    )
    own_data = (*OWN[:-1], "qa.csv", "--columns", "prompt=q,completion=a", "--show-example")
    code, out, err = cli(*own_data)
    assert code == 0, err
    assert " plus " in out
    assert "?[[It is " in out
    assert ".</s>]]" in out
    code, out, _ = cli(*own_data, "--chat")
    assert "<|im_start|>user\n" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--merge",), "--merge goes with --lora"),
        (("--lora", "rank=2"), "no setting of --lora 'rank'; did you mean r"),
        (("--lora", "targets=qproj"), "no linear layer 'qproj'; did you mean q_proj"),
        (("--columns", "question"), "--columns takes name=column"),
        (("--columns", "text=body"), "has no column 'body'"),
        (("--max-length", "4"), "nothing is left to score"),
        (("--max-length", "999"), "more than the models read, 128"),
        (("--image-size", "9"), "--image-size is not for language models"),
        (("--tokenizer", "nowhere/at/all"), "no tokenizer at"),
    ],
)  # fmt: skip
def test_refused_in_one_line(refused, arguments, words):
    assert words in refused(*OWN, *arguments)
