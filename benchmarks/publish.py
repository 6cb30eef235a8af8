"""Write what leagues, studies and benchmarks have measured into `docs/results/`.

    python benchmarks/publish.py league runs/league-digits docs/results/digits
    python benchmarks/publish.py studies runs/studies docs/results/studies.md
    python benchmarks/publish.py speed runs/speed docs/results/speed.md
    python benchmarks/publish.py cards docs/results/digits.json src/understudy/recipes/encoders

A league gives NAME.json (its summary.json) and NAME.md: the table, which methods beat plain KD beyond
the interval and which do not, and what was refused. Studies are run folders of `understudy run`,
whose first figures stand on the cards too.
Speed takes the JSON files that the benchmarks' `--out` has written. Cards writes a league's figures
into the `Result:` lines of its methods' cards. Nothing is typed in by hand.
"""

import argparse
import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from understudy.evaluation.quality import METRICS
from understudy.reporting import to_markdown, words

PURPOSE = (
    "gain|pgr|saved|reduction|detected|hacking|per_parameter|ratio|correlation|spearman_car",
    "perplexity_emulated",
    "perplexity_large|acceptance",
)
"""What a study is for, as its figures are called: the first of these comes first."""

BY_SKILL = re.compile("^solve_")
"""Figures that stand in the run's folder alone."""


def purpose(figure: str) -> int:
    """The place among `PURPOSE`, or its end."""
    found = (n for n, pattern in enumerate(PURPOSE) if re.search(pattern, figure))
    return next(found, len(PURPOSE))


def league(folder: Path, target: Path, note: str = "") -> None:
    """A league's JSON and its page."""
    summary = json.loads((folder / "summary.json").read_text())
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "summary.json", target.with_suffix(".json"))
    task, protocol = summary["task"], summary["protocol"]
    steps = protocol.get("steps")
    length = f"{steps} updates" if steps else f"{protocol['epochs']} epochs"
    lines = [
        f"# League: {summary['title'].removeprefix('league: ')}",
        "",
        f"`{re.sub(' --(resume|quiet|overwrite)', '', summary['command'])}`",
        "",
        f"{task['train']} training samples, {task['labelled']} of them labelled, "
        f"{task['validate']} to choose by, {task['test']} to judge. {protocol['seeds']} seeds, "
        f"{length} of batch {protocol['batch_size']}, lr {protocol['lr']}.",
        *(["", note] if note else []),
        "",
        to_markdown(summary),
        "",
        *verdicts(summary),
        *on_validation(summary),
    ]
    target.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")


def verdicts(summary: dict[str, Any]) -> list[str]:
    """Which methods beat the controls beyond the interval, and which do not."""
    judged = {c["arm"] for c in summary["comparisons"]}
    metric = summary["task"]["metric"]
    what = "points" if metric in words.PERCENT else words.name(metric)
    lines = [
        f"{summary['protocol']['seeds']} seeds, p values corrected over {len(judged)} methods (Holm): "
        "with few seeds and many methods only very steady differences are called; the differences "
        f"themselves ({what}) stand in brackets.",
        "",
    ]
    for control, title in (("kd", "plain KD"), ("alone", "the student alone")):
        rows = [c for c in summary["comparisons"] if c["against"] == control]
        lines += [f"## Against {title}", ""]
        for verdict in ("better", "inside the noise", "worse"):
            own = sorted(
                (c for c in rows if c["verdict"].startswith(verdict)),
                key=lambda c: -c["difference"] if upwards(metric) else c["difference"],
            )
            named = ", ".join(f"{c['arm']} ({amount(c['difference'], metric)})" for c in own)
            lines.append(f"- **{verdict}**: {named or 'none'}")
        lines.append("")
    others = words.sizes(summary)
    if others:
        lines += ["## Not of the controls' size", "", *(f"- {line}" for line in others), ""]
    refused = [(a["name"], a["error"]) for a in summary["arms"] if a.get("error")]
    if refused:
        lines += ["## Refused or failed", ""]
        lines += [f"- `{name}`: {reason}" for name, reason in refused] + [""]
    return lines


def on_validation(summary: dict[str, Any]) -> list[str]:
    """Means on the validation split, by which a default is chosen; the test split steers nothing."""
    metric = summary["task"]["metric"]
    found = sorted(
        (mean(r["validate"][metric] for r in a["runs"]), a["name"])
        for a in summary["arms"]
        if a["role"] != "teacher" and a["runs"] and metric in a["runs"][0].get("validate", {})
    )
    found.sort(key=lambda f: (-f[0] if upwards(metric) else f[0], f[1]))
    named = ", ".join(f"{name} {words.value(value, metric)}" for value, name in found)
    unit = " in percent" if metric in words.PERCENT else ""
    return ["## On the validation splits", "", f"Mean {words.name(metric)}{unit}: {named}."]


def upwards(metric: str) -> bool:
    """Whether more of it is better."""
    return METRICS[metric].higher_is_better


def amount(difference: float, metric: str) -> str:
    """A difference of two values of a metric."""
    if metric in words.PERCENT:
        return f"{100 * difference:+.2f}"
    return ("+" if difference > 0 else "") + words.significant(difference)


def studies(folder: Path, target: Path, note: str = "") -> None:
    """Figures of measurements, mean and standard deviation over seeds, with their plots."""
    title = target.stem.replace("-", " ").capitalize()
    intro = "Figures of each study, mean ± standard deviation over seeds."
    head, lines = [f"# {title}", "", f"{intro} {note}".strip()], []
    gains = []
    pictures = target.parent / "images"
    for path in sorted(folder.glob("*/summary.json")):
        summary = json.loads(path.read_text())
        if not summary.get("figures"):
            continue
        name, figures = summary["method"], summary["figures"]
        config = json.loads((path.parent / "config.json").read_text())
        command = re.sub(r" --(resume|quiet|overwrite|out \S+)", "", config["command"])
        lines += ["", f"## {name}", "", f"`{command}`", ""]
        lines += ["| figure | mean ± sd | seeds |", "| --- | ---: | ---: |"]
        said = []
        for key in (k for k in figures[0] if k != "seed" and not BY_SKILL.search(k)):
            values = [f[key] for f in figures if isinstance(f.get(key), int | float)]
            if values:
                spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
                name_ = key.replace("_", " ")
                lines.append(f"| {name_} | {mean(values):.4g}{spread} | {len(values)} |")
                said.append((key, f"{key.replace('_', ' ')} {mean(values):.3g}{spread}"))
        for path_ in Path("src/understudy/recipes").glob(f"*/{name}.py"):
            # what it is for comes first
            ordered = sorted(said, key=lambda s: purpose(s[0]))
            some = ", ".join(text for _, text in ordered[:5])
            if purpose(ordered[0][0]) < len(PURPOSE):
                gains.append(f"| [{name}](#{name}) | {ordered[0][1]} | {len(figures)} |")
            put_result(path_, f"{some} ({len(figures)} seeds). See docs/results/{target.name}.")
        if (path.parent / "study.png").exists():
            pictures.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.parent / "study.png", pictures / f"{name}.png")
            lines += ["", f"![{name}](images/{name}.png)"]
    if gains:
        head += ["", "| study | its own figure | seeds |", "| --- | ---: | ---: |", *gains]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([*head, *lines]) + "\n")


def speed(folder: Path, target: Path) -> None:
    """The benchmarks' own JSON, one table each."""
    lines = [
        "# Speed",
        "",
        "Ratios of two things timed in turns in one run, on a machine that was idle where no note says else.",
    ]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        command = content.pop("command", f"python benchmarks/{path.stem}.py")
        lines += ["", f"## {path.stem}", "", f"`{command}`", ""]
        lines += table(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def cards(source: Path, target: Path, only: str = "") -> None:
    """The measured result of every method of a league on its card; the others say they have none.

    only: names of the methods whose cards are written, with commas; the others stay as they are
    """
    summary = json.loads(source.read_text())
    metric, name = summary["task"]["metric"], source.stem
    arms = {a["name"]: a for a in summary["arms"]}
    for path in sorted(target.glob("[a-z]*.py")):
        if only and path.stem not in only.split(","):
            continue
        arm = arms.get(path.stem)
        if arm is not None and arm["runs"]:
            values = [r["last"][metric] for r in arm["runs"]]
            unit = " %" if metric in words.PERCENT else ""
            shown = words.value(mean(values), metric) + unit
            text = f"{words.name(metric)} {shown} on {name} ({len(values)} seeds)"
            ratio = words.other_sizes(summary).get(path.stem)
            if ratio is not None:
                text += f" with a student of {words.significant(ratio, 2)} times the others' size"
            for c in summary["comparisons"]:
                if c["arm"] == path.stem and c["difference"] is not None:
                    control = "plain KD" if c["against"] == "kd" else "the student alone"
                    more = amount(c["difference"], metric) + (" points" if unit else "")
                    text += f"; {more} against {control}, {c['verdict']}"
            text += f". See docs/results/{name}.md."
        elif arm is not None and arm.get("error"):
            text = f"refused on {name}: {arm['error']}"
        elif "See docs/results/" in path.read_text():
            continue  # another league has measured it
        else:
            text = "not measured against the controls yet."
        put_result(path, text)


def put_result(path: Path, text: str) -> None:
    """The `Result:` line of a recipe's card."""
    filled = textwrap.fill(
        "Result: " + text,
        98,
        initial_indent="    ",
        subsequent_indent="        ",
        break_on_hyphens=False,
    )
    code = path.read_text()
    old = re.search(r"    Result: [^\n]*(\n        [^\n]*)*", code)
    if old is not None:
        path.write_text(code.replace(old.group(), filled, 1))


def table(content: Any) -> list[str]:
    """A list of rows as a table; other values as items."""
    lines: list[str] = []
    plain = {k: v for k, v in content.items() if not isinstance(v, list | dict)}
    lines += [f"- {k}: {_shown(v)}" for k, v in plain.items()]
    for key, value in content.items():
        rows = [r for r in _rows(value) if r]
        if rows:
            columns = list(dict.fromkeys(k for r in rows for k in r))
            lines += ["", f"**{key}**", "", "| " + " | ".join(columns) + " |"]
            lines.append("|" + " --- |" * len(columns))
            lines += ["| " + " | ".join(_shown(r.get(c, "")) for c in columns) + " |" for r in rows]
    return lines


def _rows(value: Any) -> list[dict[str, Any]]:
    """Records of one table: of a list, of a mapping of records by name, or of one record."""
    if isinstance(value, list):
        return [_flat(r) for r in value if isinstance(r, dict)]
    if not isinstance(value, dict):
        return []
    if value and all(isinstance(v, dict) for v in value.values()):
        return [{"": name, **_flat(record)} for name, record in value.items()]
    return [_flat(value)]


def _flat(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name} ")
        elif not isinstance(value, list):
            found[before + name] = value
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Dispatch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("league", "studies", "speed", "cards"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--only", default="", help="cards of these methods alone, with commas")
    parser.add_argument("--note", default="", help="what the reader has to know")
    given = parser.parse_args()
    if given.kind == "cards":
        cards(given.source, given.target, given.only)
    elif given.kind == "speed":
        speed(given.source, given.target)
    else:
        {"league": league, "studies": studies}[given.kind](given.source, given.target, given.note)


if __name__ == "__main__":
    main()
