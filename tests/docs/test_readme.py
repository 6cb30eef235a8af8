"""The documents, run: every command and every Python block, as they stand there.

Each document is played in a folder of its own with the files that it names (`world`), its Python
blocks in one namespace and in the order of the text. A block whose first line is `# name.py` is
also written to that file. Long commands get the options in `SHORTER`; nothing else is changed.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from understudy.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
]
SHORTER = {
    "understudy distill": "--seeds 1 --steps 4 --set teachers.teacher.budget.steps=20",
    "understudy compare": "--seeds 1 --steps 4 --set teachers.teacher.budget.steps=4",
}
"""Appended to commands on the built-in setting, which train for a minute and more."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(b[1], b[2]) for b in BLOCK.finditer(page.read_text())]


def commands(block: str) -> list[str]:
    """Lines of a shell block, continued lines joined, comments left out."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def vit(folder: Path) -> None:
    """A Hugging Face image classifier, tiny, untrained."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4, num_channels=3, num_labels=2,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)


def language_model(world: Path) -> None:
    """A tiny causal language model with its tokenizer, conversations, questions and answers."""
    from tiny_causal import chats, save_pair, write_lines

    save_pair(world)
    (world / "teacher").rename(world / "my-lm")
    write_lines(world / "chats.jsonl", chats(20))
    (world / "answers.csv").write_text(
        "q,a\n" + "".join(f"{n} plus {n}?,It is {2 * n}.\n" for n in range(20))
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the documents name, small."""
    g = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for n in range(20):
            pixels = g.integers(0, 128, (8, 8, 3)) + (100 if label == "dog" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}.png")
    x = g.normal(size=(80, 6)).astype(np.float32)
    np.savez(tmp_path / "sensors.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    words = ["good film", "bad film", "good story", "bad story"]
    rows = [f"{words[n % 4]} number {n},{1 + 4 * ((n + 1) % 2)}" for n in range(80)]
    (tmp_path / "reviews.csv").write_text("review,stars\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def played(command: str) -> None:
    """Run one line of a shell block, or check what it would do."""
    words = shlex.split(command)
    if words[0] == "understudy":
        own = any(w in words for w in ("--data", "--teacher"))
        extra = "" if own else SHORTER.get(" ".join(words[:2]), "")
        assert main([*words[1:], *shlex.split(extra)]) == 0, command
    elif words[0] == "make":
        # the target exists, and does what the document says; setting up anew is CI's to do
        said = subprocess.run(
            ["make", "-n", "-C", str(ROOT), *words[1:]], capture_output=True, text=True, check=True
        )
        assert {"demo": "understudy distill", "test": "pytest", "lint": "ruff check"}[
            words[1]
        ] in said.stdout
    elif words[0].startswith(".ci/"):
        assert subprocess.run(["bash", "-n", str(ROOT / words[0])], check=True).returncode == 0
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = re.findall(r"\[(\w+)\]", command)
        assert named
        assert set(named) <= set(extras["optional-dependencies"])
    else:
        pytest.fail(f"a document shows a command that this test does not know: {command}")


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_page(page: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "my-teacher/" in page.read_text():
        vit(world / "my-teacher")
    if "my-lm/" in page.read_text():
        language_model(world)
    namespace: dict[str, object] = {"__name__": "__document__"}
    for language, block in blocks(page):
        if language == "sh":
            for command in commands(block):
                played(command)
        elif language == "python":
            if named := re.match(r"# (\w+\.py)\n", block):
                (world / named[1]).write_text(block)
            exec(compile(block, page.name, "exec"), namespace)
        else:
            assert language in ("", "text"), f"{page.name}: a block of {language} is not run"
    for name in ("objective", "mine"):
        sys.modules.pop(name, None)  # files of this page, not of the next
    capsys.readouterr()


def test_the_demo_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    """The table in the README has the rows and columns that `understudy distill` prints today."""
    shown = re.search(
        r"<!-- output: understudy distill -->\n```text\n(.*?)\n```",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    assert shown is not None
    assert main(["distill", *shlex.split(SHORTER["understudy distill"])]) == 0
    printed = capsys.readouterr().out

    def rows(text: str) -> list[str]:
        body = text[text.index("---") :].strip("-\n ").splitlines()
        return [line.split()[0] for line in body[:4]]

    def measures(text: str) -> list[str]:
        return [w for w in ("accuracy", "agree", "KL", "params") if w in text.partition("---")[0]]

    assert rows(shown[1])[:3] == rows(printed)[:3]
    assert measures(shown[1]) == measures(printed)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [u for u in links(page) if "://" not in u and not (page.parent / u).exists()]
    assert dead == []
