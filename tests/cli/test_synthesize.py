"""`understudy synthesize`: from questions to a split that `distill` reads, one stage a command."""

import json
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.data.synthesis import read_rows, write_rows
from understudy.tasks.school.rows import rows
from understudy.tasks.writings import read_writings


def problems(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    made = rows(count, seed, split=split, skills=["add"], difficulty=1)  # type: ignore[arg-type]
    return [{"question": r.question, "answer": r.answer, "program": r.program} for r in made]


def test_from_questions_to_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, tests = tmp_path / "start.jsonl", tmp_path / "tests.jsonl"
    asked = problems(12)
    start.write_text("".join(json.dumps(p) + "\n" for p in [*asked, asked[0]]))
    tests.write_text("".join(json.dumps(p) + "\n" for p in problems(5, 1, "test") + asked[3:4]))
    names = ["start.jsonl", "once.parquet", "clean.parquet", "said.parquet", "right.parquet"]
    paths = [str(tmp_path / n) for n in names]
    commands = [
        ["deduplicate", paths[0], paths[1]],
        ["decontaminate", paths[1], paths[2], "--tests", str(tests)],
        [
            "generate",
            paths[2],
            paths[3],
            "--endpoint",
            "school",
            "--n",
            "2",
            "--temperature",
            "1.6",
        ],
        ["verify", paths[3], paths[4], "--by", "answer"],
    ]
    for command in commands:
        assert main(["synthesize", *command]) == 0
    said = capsys.readouterr().out
    assert "12 rows kept; deduplicate: 1 dropped (1 a duplicate)" in said
    assert "decontaminate: 1 dropped (1 shows a test)" in said
    evidence = " ".join(asked[3]["question"].lower().replace(".", "").replace("?", "").split())
    assert f"test 5: '{evidence}'" in said.replace("\n", "")
    right = read_rows(paths[4])
    assert 11 < len(right) <= 22
    assert all(r["reply"].endswith(f"#{r['answer']}") for r in right)
    again = tmp_path / "again.parquet"
    assert main(["synthesize", *commands[2][:2], str(again), *commands[2][3:]]) == 0
    assert again.read_bytes() == Path(paths[3]).read_bytes()
    dropped = [json.loads(x) for x in (tmp_path / "right.dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == 22 - len(right)
    folder = tmp_path / "data"
    shares = "train=0.6,validation=0.2,test=0.2"
    assert main(["synthesize", "split", paths[4], str(folder), "--shares", shares]) == 0
    parts = read_writings(folder)
    assert sum(map(len, parts.values())) == len(right)
    assert {r["id"] for p in parts.values() for r in p} == {r["id"] for r in right}


def test_other_stages(tmp_path: Path) -> None:
    start, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    made = problems(8)
    made[2]["program"] = "1+"
    write_rows(start, [{"id": str(i), "made_by": [], **p} for i, p in enumerate(made)])
    for more in ([], ["--sandbox"]):
        assert main(["synthesize", "verify", str(start), str(out), "--by", "program", *more]) == 0
        assert [r["id"] for r in read_rows(out)] == [str(i) for i in range(8) if i != 2]
    assert (
        main(["synthesize", "balance", str(start), str(out), "--by", "answer", "--most", "1"]) == 0
    )
    assert len({p["answer"] for p in made}) == len(read_rows(out))
    assert main(["synthesize", "filter", str(start), str(out), "--most", "3"]) == 0
    assert read_rows(out) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generat", "a.jsonl", "b.jsonl"], "did you mean generate"),
        (["generate", "none.jsonl", "b.jsonl"], "there is no file"),
        (["generate", "a.jsonl", "b.jsonl"], "--endpoint"),
        (["generate", "a.jsonl", "b.jsonl", "--endpoint", "http://x"], "--model"),
        (["generate", "a.jsonl", "b.jsonl", "--endpoint", "school", "--prompt", "sol"], "did you mean solve"),
        (["decontaminate", "a.jsonl", "b.jsonl"], "--tests"),
        (["balance", "a.jsonl", "b.jsonl"], "--by"),
        (["verify", "a.jsonl", "b.jsonl", "--by", "hope"], "there are answer, consistency, program"),
        (["filter", "a.jsonl", "b.csv"], "written as .parquet or .jsonl"),
        (["split", "a.jsonl", "b", "--shares", "train=0.5"], "add up to 1"),
        (["split", "a.jsonl", "b", "--shares", "train"], "--shares takes"),
    ],
)  # fmt: skip
def test_bad_input(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"question": "What is it?"}\n')
    assert main(["synthesize", *arguments]) == 2
    assert said in capsys.readouterr().err
