"""The model card: README.md of a student's folder, in the form that the Hugging Face hub reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import CheckpointError
from understudy.files import write_text
from understudy.reporting import summary as s
from understudy.reporting import words
from understudy.reporting.table import markdown, to_markdown

__all__ = ["model_card", "write_card"]


def model_card(run_folder: Path | str) -> str:
    """The card of a run's student: YAML front matter, then what it is, table, loading, limits.

    Raises:
        CheckpointError: no finished run, or no student in it.
    """
    folder = Path(run_folder)
    summary = s.read_summary(folder)
    arm = s.shown(summary)
    if arm is None:
        raise CheckpointError(f"{folder} has no student that a card could describe")
    config = s.read_json(folder / "student" / "config.json")
    config = config if isinstance(config, Mapping) else {}
    parts = [
        _front(summary, arm, config),
        f"# {markdown(str(summary.get('title') or 'A distilled student'))}\n",
        f"{markdown(words.headline(summary))}\n",
        _what(summary, arm),
        f"## Results\n\n{to_markdown(summary)}",
        _loading(summary, config),
        _limits(summary, arm),
        _made(summary),
    ]
    return "\n".join(parts)


def write_card(run_folder: Path | str) -> Path:
    """Writes the card to `student/README.md` of the run and returns its path."""
    path = Path(run_folder) / "student" / "README.md"
    write_text(path, model_card(run_folder))
    return path


def _front(summary: s.Summary, arm: s.Arm, config: Mapping[str, Any]) -> str:
    """YAML; every text in JSON's quotes, which YAML reads as the same text."""
    task, metric = summary["task"], summary["task"]["metric"]
    tags = ["understudy", "knowledge-distillation", str(summary.get("method") or arm["name"])]
    lines = [
        "---",
        f"library_name: {'transformers' if _is_hub(config) else 'understudy'}",
        "tags:",
        *[f"- {_quoted(tag)}" for tag in dict.fromkeys(tags)],
        "metrics:",
        *[f"- {_quoted(m)}" for m in s.measures(summary) if s.mean(arm, m) is not None],
    ]
    value = s.mean(arm, metric)
    if value is not None and value == value:
        kind = {
            "single": "classification",
            "multi": "multi-label-classification",
            "language": "text-generation",
        }
        named = _quoted(str(task["name"]))
        lines += [
            "model-index:",
            f"- name: {_quoted(str(summary.get('title') or arm['name']))}",
            "  results:",
            f"  - task: {{type: {_quoted(kind.get(task.get('kind', 'single'), 'regression'))}}}",
            f"    dataset: {{name: {named}, type: {named}, "
            f"split: {_quoted(str(summary.get('split', 'validate')))}}}",
            "    metrics:",
            f"    - {{type: {_quoted(metric)}, value: {value!r}}}",
        ]
    return "\n".join([*lines, "---", ""])


def _what(summary: s.Summary, arm: s.Arm) -> str:
    task = summary["task"]
    teacher = next((a for a in summary["arms"] if a.get("role") == "teacher"), None)
    lines = [
        "## What it is\n",
        f"A student trained with understudy (knowledge distillation) by the method "
        f"`{_code(summary.get('method') or arm['name'])}`.\n",
        f"- student: {words.count(s.cost(arm, 'parameters'))} parameters, "
        f"{words.size(s.cost(arm, 'bytes'))} of weights",
    ]
    if teacher is not None:
        named = "" if s.title(teacher) == "teacher" else f"{markdown(s.title(teacher))}, "
        lines.append(f"- teacher: {named}{words.count(s.cost(teacher, 'parameters'))} parameters")
    data = f"- data: {markdown(str(task['name']))}"
    # a text is its own label
    labelled = () if task.get("kind") == "language" else (("labelled", "of them labelled"),)
    amounts = [
        f"{task[key]} {word}"
        for key, word in (("train", "for training"), *labelled,
                          ("validate", "for validation"), ("test", "for the test"))
        if task.get(key) is not None
    ]  # fmt: skip
    lines.append(data + (f" ({', '.join(amounts)})" if amounts else ""))
    if task.get("labels"):
        names = [markdown(str(n)) for n in task["labels"]]
        lines.append(f"- labels: {', '.join(names[:50])}{' ...' if len(names) > 50 else ''}")
    return "\n".join(lines) + "\n"


def _loading(summary: s.Summary, config: Mapping[str, Any]) -> str:
    code = ["import understudy as us", "", 'student = us.load("path/to/this/folder")']
    if _is_hub(config) and summary["task"].get("kind") == "language":
        name = _auto_class(config)
        code = [f"from transformers import {name}, AutoTokenizer", "",
                'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
                f'student = {name}.from_pretrained("path/to/this/folder")',
                'text = tokenizer("def ", return_tensors="pt")["input_ids"]',
                "print(tokenizer.decode(student.generate(text, max_new_tokens=32)[0]))"]  # fmt: skip
    elif _is_hub(config):
        name = _auto_class(config)
        code = [f"from transformers import {name}", "",
                f'student = {name}.from_pretrained("path/to/this/folder")']  # fmt: skip
    return "\n".join(["## How to load it\n", "```python", *code, "```", ""])


def _limits(summary: s.Summary, arm: s.Arm) -> str:
    split, metric = summary.get("split", "validate"), summary["task"]["metric"]
    lines = [
        "- It was judged on data like its training data only; elsewhere its quality is not known.",
        "- It learned from a teacher and can have learned the teacher's errors and biases.",
    ]
    if split != "test":
        lines.append(
            "- There was no test split: validation figures, which also chose the best epoch."
        )
    n = len(s.runs(arm))
    lines.append(
        "- One seed was trained: the figures have no interval."
        if n <= 1
        else f"- The figures are means over {n} seeds; the weights here are those of one of them."
    )
    for c in summary.get("comparisons") or []:
        if c["arm"] == arm["name"] and c["verdict"] == "inside the noise":
            other = s.arm_named(summary, c["against"])
            whom = s.title(other) if other else str(c["against"])
            lines.append(
                f"- Its difference in {words.name(metric)} from {markdown(whom)} "
                "is inside the noise."
            )
    if (ece := s.mean(arm, "ece")) is not None:
        lines.append(
            f"- Its expected calibration error is {words.value(ece, 'ece')} %: "
            "probabilities are to be read with that in mind."
        )
    return "\n".join(["## Limits\n", *lines, ""])


def _made(summary: s.Summary) -> str:
    lines = ["## How it was made\n"]
    if summary.get("command"):
        # a fence longer than any in the text cannot be closed by it
        fence = "`" * max(3, 1 + max(map(len, _ticks(str(summary["command"]))), default=0))
        lines += [f"{fence}sh", str(summary["command"]), fence, ""]
    versions = ", ".join(f"{k} {v}" for k, v in (summary.get("versions") or {}).items())
    return "\n".join([*lines, *([markdown(versions)] if versions else []), ""])


def _ticks(text: str) -> Sequence[str]:
    return "".join(c if c == "`" else " " for c in text).split()


def _is_hub(config: Mapping[str, Any]) -> bool:
    return bool(config.get("model_type")) and bool(config.get("architectures"))


def _auto_class(config: Mapping[str, Any]) -> str:
    """BertForSequenceClassification -> AutoModelForSequenceClassification."""
    name = str(config["architectures"][0])
    _, found, what = name.partition("For")
    if not found or not what.isidentifier():
        return "AutoModel"
    # a family's own head names that the auto classes write in another way
    return {"LMHeadModel": "AutoModelForCausalLM"}.get(what, f"AutoModelFor{what}")


def _quoted(text: str) -> str:
    return json.dumps(text)


def _code(text: object) -> str:
    return str(text).replace("`", "'")
