"""A user's own texts: files in every form, splits, refusals, a teacher of another template."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import understudy as us
from tiny_causal import CHATML, chats, save_pair, tiny, tokenizer, write_lines
from understudy.data import OwnTemplate, Texts
from understudy.errors import DataError, SignalError, UserError
from understudy.settings import own
from understudy.signals import Batch, CausalLM
from understudy.tasks import load
from understudy.tasks.own_texts import load_texts

WORDS = ["hello world", "how are you?", "two plus two is four", "I am fine."]
ROWS = [{"text": f"{WORDS[n % 4]} {n}"} for n in range(20)]


def plain(texts: Any, reads: Any) -> list[str]:
    assert isinstance(texts, Texts)
    return [reads.decode(texts.tokens(i)).removesuffix("</s>") for i in range(len(texts))]


def everything(path: Path, **options: Any) -> list[str]:
    reads = tokenizer()
    task = load(path, kind="language", tokenizer=reads, **options)
    parts = [p for p in (task.train, task.validate, task.test) if p is not None]
    return sorted(t for p in parts for t in plain(p, reads))


def test_every_form_of_file_says_the_same(tmp_path: Path) -> None:
    import pandas

    wanted = sorted(r["text"] for r in ROWS)
    frame = pandas.DataFrame(ROWS)
    write_lines(tmp_path / "a.jsonl", ROWS)
    write_lines(tmp_path / "strings.jsonl", [r["text"] for r in ROWS])
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    (tmp_path / "a.txt").write_text("\n\n".join(r["text"] for r in ROWS))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "texts").mkdir()
    for n, row in enumerate(ROWS):
        (tmp_path / "texts" / f"{n:02d}.txt").write_text(row["text"])
    for path in sorted(tmp_path.iterdir()):
        assert everything(path) == wanted, path.name


def test_messages_in_every_form(tmp_path: Path) -> None:
    import datasets
    import pandas

    rows = chats(12)
    write_lines(tmp_path / "a.jsonl", rows)
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    pandas.DataFrame([{"messages": json.dumps(r["messages"])} for r in rows]).to_csv(
        tmp_path / "a.csv", index=False
    )
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    found = {p.name: everything(p) for p in sorted(tmp_path.iterdir())}
    assert len(found["a.jsonl"]) == 12
    assert all(v == found["a.jsonl"] for v in found.values()), found.keys()


def test_splits_by_name_are_kept(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:10]), ("validation", ROWS[10:14]), ("test", ROWS[14:])):
        write_lines(tmp_path / f"{name}.jsonl", rows)
    task = load(tmp_path, kind="language", tokenizer=tokenizer())
    assert [len(p) for p in (task.train, task.validate, task.test) if p] == [10, 4, 6]
    ids = torch.cat([p.ids for p in (task.train, task.validate, task.test)])  # type: ignore
    assert torch.equal(ids, torch.arange(20))


def test_shares_are_cut_by_row_and_by_seed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    reads = tokenizer()

    def parts(**options: Any) -> list[list[str]]:
        task = load_texts(path, tokenizer=reads, **options)
        return [plain(p, reads) for p in (task.train, task.validate, task.test)]

    one = parts(validation=0.2, test=3)
    assert [len(p) for p in one] == [13, 4, 3]
    assert sorted(t for part in one for t in part) == sorted(r["text"] for r in ROWS)
    assert parts(validation=0.2, test=3) == one
    assert parts(validation=0.2, test=3, seed=1) != one
    # pieces of one text stay in one part
    pieces = load_texts(path, tokenizer=reads, max_length=3, truncate=True)
    assert len(pieces.train) > 16
    held = set(pieces.validate.ids.tolist())  # type: ignore
    assert max(held) - min(held) == len(held) - 1


REFUSED = {
    "a.md": ("# text", "is no kind of text that is read"),
    "empty.txt": ("\n \n\n", "is empty"),
    "bad.jsonl": ('{"text": "a"}\n{"text": \n', "line 2 is no JSON"),
    "number.jsonl": ("3\n", "line 1 is int; a row is an object or a string"),
    "one.json": ('{"text": "a b"}', "a JSON list of rows is read"),
    "two.txt": ("hello world\n\nhow are you?", "2 texts, and validate and test need one each"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        load(tmp_path / name, kind="language", tokenizer=tokenizer())


def test_other_refusals_of_files(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("fünf\n\nsechs\n\ndrei".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is no UTF-8 text"):
        load(tmp_path / "latin.txt", kind="language", tokenizer=tokenizer())
    with pytest.raises(
        DataError, match=r"no file or folder .*latin\.text; did you mean latin\.txt"
    ):
        load(tmp_path / "latin.text", kind="language", tokenizer=tokenizer())
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="there is no text to read"):
        load(tmp_path / "folder", kind="language", tokenizer=tokenizer())
    write_lines(tmp_path / "folder" / "numbers.jsonl", ROWS)
    with pytest.raises(DataError, match="is no split's name"):
        load(tmp_path / "folder", kind="language", tokenizer=tokenizer())
    with pytest.raises(UserError, match="columns is for data of kind 'language'"):
        load(tmp_path / "folder", columns={})


# --- pairs ----------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_pair(tmp_path)
    write_lines(tmp_path / "chats.jsonl", chats(20))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("pair")
def test_a_pair_of_language_models_is_one_of_kind_language() -> None:
    setting = own(teacher="teacher", student="student", data="chats.jsonl")
    assert setting.kind == "language"
    task = setting.task_for(0)
    assert task.classes == 296  # what both know, the padding of their vocabularies apart
    assert task.model["length"] == 128
    assert setting.call == CausalLM()
    assert setting.teacher_call is None
    run = us.distill(setting=setting, steps=2, batch_size=8)
    assert run.summary["arms"]


@pytest.mark.usefixtures("pair")
def test_a_family_takes_the_teachers_tokenizer_and_vocabulary() -> None:
    setting = own(teacher="teacher", student="llama:width=16,depth=1,heads=2", data="chats.jsonl",
                  max_length=60, pack=128)  # fmt: skip
    run = us.distill(setting=setting, steps=2, batch_size=8)
    assert run.student.config.vocab_size == 304  # type: ignore
    assert run.student.config.max_position_embeddings == 60  # type: ignore
    assert setting.call == CausalLM(pack=128)


@pytest.mark.usefixtures("pair")
def test_texts_longer_than_the_context_are_refused_or_cut() -> None:
    write_lines(Path("long.jsonl"), [{"text": "hello world, how are you? " * 20}] * 4)
    with pytest.raises(DataError, match="the models read 128; --max-length 128 cuts"):
        own(teacher="teacher", student="student", data="long.jsonl")
    with pytest.raises(DataError, match="max_length 500 is more than the models read, 128"):
        own(teacher="teacher", student="student", data="long.jsonl", max_length=500)
    setting = own(teacher="teacher", student="student", data="long.jsonl", max_length=64)
    assert int(setting.task_for(0).train.lengths.max()) == 64  # type: ignore


def test_tokenizers_that_differ_are_refused(pair: Path) -> None:
    reads = tokenizer()
    swapped = json.loads(reads.backend_tokenizer.to_str())
    vocabulary = swapped["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(swapped)), eos_token="</s>"
    )
    other.save_pretrained(pair / "student")
    with pytest.raises(DataError, match=r"different tokenizers.*'a' is.*--method uld"):
        own(teacher="teacher", student="student", data="chats.jsonl")


def test_a_tokenizer_larger_than_the_model_is_refused(pair: Path) -> None:
    reads = tokenizer()
    reads.add_tokens(["plus"])
    tiny("llama", vocab_size=len(reads) - 1, max_position_embeddings=128).save_pretrained(  # type: ignore
        pair / "student"
    )
    reads.save_pretrained(pair / "student")
    with pytest.raises(DataError, match=r"row 0: token \d+ \('plus'\) is outside the models'"):
        own(teacher="student", student="student", data="chats.jsonl")


def test_a_base_student_reads_the_teachers_template(pair: Path) -> None:
    tokenizer(None).save_pretrained(pair / "student")
    (pair / "student" / "chat_template.jinja").unlink(missing_ok=True)
    setting = own(teacher="teacher", student="student", data="chats.jsonl")
    assert setting.task_for(0).extras["tokenizer"].chat_template == CHATML
    for name in ("teacher", "student"):
        tokenizer(None).save_pretrained(pair / name)
        (pair / name / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(DataError, match="no chat template"):
        own(teacher="teacher", student="student", data="chats.jsonl")


def test_options_that_do_not_belong_together(pair: Path) -> None:
    with pytest.raises(UserError, match="--image-size is not for language models"):
        own(teacher="teacher", student="student", data="chats.jsonl", image_size=8)
    with pytest.raises(UserError, match="--pack is for causal language models"):
        own(teacher=None, student="mlp", data="chats.jsonl", pack=64)
    with pytest.raises(UserError, match="mlp is no causal language model"):
        own(teacher="teacher", student="mlp", data="chats.jsonl", kind="language")
    for file in pair.glob("*/tokenizer*"):
        file.unlink()
    with pytest.raises(DataError, match="no model here has a tokenizer"):
        own(teacher="teacher", student="student", data="chats.jsonl")


# --- templates that differ ------------------------------------------------------------------------

POLITE = "{{ '<|im_start|>system\nyou are fine<|im_end|>\n' }}" + CHATML


def test_a_teacher_reads_its_own_template(pair: Path) -> None:
    tokenizer(POLITE).save_pretrained(pair / "teacher")
    setting = own(teacher="teacher", student="student", data="chats.jsonl")
    assert isinstance(setting.teacher_call, OwnTemplate)
    task = setting.task_for(0)
    batch = task.train.batch(torch.tensor([2, 0, 5]))
    reads, teacher = tokenizer(POLITE), us.students.load_model("teacher", task="causal-lm")
    said = setting.teacher_call(teacher, batch).dense()
    assert said.shape == (*batch.mask.shape, 304)  # type: ignore
    for n, row in enumerate(batch.index.tolist()):  # type: ignore
        # row numbers of the file, by what the student reads
        text = task.extras["tokenizer"].decode(task.train.tokens([2, 0, 5][n]))  # type: ignore
        number = int(text.split("user\n")[1].split()[0])
        ids = reads.apply_chat_template(chats(20)[number - 1]["messages"], return_dict=False)
        alone = teacher(torch.tensor([ids])).logits[0].log_softmax(-1)
        prefix = len(ids) - len(task.train.tokens([2, 0, 5][n]))  # type: ignore
        places = batch.mask[n].nonzero().flatten()  # type: ignore
        torch.testing.assert_close(
            said[n, places].log_softmax(-1), alone[places + prefix], rtol=1e-4, atol=1e-4
        )
        assert row == int(task.train.ids[[2, 0, 5][n]])  # type: ignore
    run = us.distill(setting=setting, steps=2, batch_size=8)
    assert run.summary["arms"]


def test_scored_tokens_have_to_coincide(pair: Path) -> None:
    tokenizer(CHATML.replace("m.content }}", "m.content | upper }}")).save_pretrained(
        pair / "teacher"
    )
    with pytest.raises(
        DataError, match=r"row 0: in its own chat template teacher is scored on oth"
    ):
        own(teacher="teacher", student="student", data="chats.jsonl")


def test_text_made_on_the_way_is_refused_where_templates_differ(pair: Path) -> None:
    tokenizer(POLITE).save_pretrained(pair / "teacher")
    setting = own(teacher="teacher", student="student", data="chats.jsonl")
    batch = setting.task_for(0).train.batch(torch.tensor([0]))
    assert batch.labels is not None
    changed = batch.labels.clone()
    changed[batch.mask] += 1
    other = Batch(inputs=batch.inputs, labels=changed, mask=batch.mask, index=batch.index)
    teacher = us.students.load_model("teacher", task="causal-lm")
    with pytest.raises(SignalError, match="give teacher and student one"):
        setting.teacher_call(teacher, other)  # type: ignore
    with pytest.raises(SignalError, match="has not seen"):
        setting.teacher_call(  # type: ignore
            teacher,
            Batch(inputs=batch.inputs, labels=changed, mask=batch.mask, index=torch.tensor([999])),
        )
