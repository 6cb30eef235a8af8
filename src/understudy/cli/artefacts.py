"""`understudy methods | signals | export | report`."""

import json
import sys
from pathlib import Path
from typing import Any

from understudy.cli.shared import Bars, show
from understudy.cli.training import _columns, _shard


def methods(given: Any) -> int:
    """List methods, or show one card."""
    from understudy.recipes import recipe, recipes
    from understudy.recipes.card import card

    if given.name is not None:
        found = card(recipe(given.name))
        show(json.dumps(found.json(), indent=2) if given.json else _card_text(found))
        return 0
    cards = [card(f) for f in recipes().values()]
    cards = [c for c in cards if given.wing in (None, c.wing)]
    if given.json:
        print(json.dumps([c.json() for c in cards], indent=2))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "wing", "kind", "title"):
        table.add_column(column, no_wrap=column != "title")
    for c in cards:
        table.add_row(c.name, c.wing, c.kind, c.title)
    show(table)
    return 0


_TEXTS = ("mode", "k", "tail", "draws", "proposal", "temperature", "seed", "engine", "base_url",
          "key_env", "vocabulary", "load_in_4bit", "device_map")  # fmt: skip
"""What is said of signals of texts."""


def signals(given: Any) -> int:
    """Write a teacher's signals."""
    from understudy import api

    shard = _shard(given.shard)
    with Bars(given) as progress:
        text = api.write_signals(
            given.teacher,
            given.data,
            given.out,
            target=given.target,
            text=given.text,
            image_size=given.image_size,
            classes=given.classes,
            tokenizer=given.tokenizer,
            max_length=given.max_length,
            chat=given.chat or None,
            columns=_columns(given),
            texts={n: v for n in _TEXTS if (v := getattr(given, n)) is not None and v is not False},
            taps=tuple(t for t in given.taps.split(",") if t),
            dtype=given.dtype,
            top_k=given.top_k,
            batch_size=given.batch_size,
            shard=shard,
            device=given.device,
            progress=progress.count,
        )
    show(text)
    return 0


def export(given: Any) -> int:
    """Write a finished run's student in a form to deploy."""
    from understudy import api

    result = api.export_run(
        given.folder,
        format=given.format,
        int8=given.int8,
        out=given.out,
        data=given.data,
        target=given.target,
        text=given.text,
        max_drop=given.max_drop,
        factory=given.factory,
    )
    show(result.table())
    if result.exceeded:
        print(f"understudy: quality fell by more than --max-drop {given.max_drop}", file=sys.stderr)
        return 1
    return 0


def report(given: Any) -> int:
    """Write a run's report again."""
    from understudy.reporting import report

    show(f"report: {report(Path(given.folder))}")
    return 0


def _card_text(card: Any) -> str:
    import textwrap

    lines = [card.title, f"{card.name} · {card.kind} · wing {card.wing} · {card.recipe}", ""]
    lines += [*textwrap.wrap(card.summary, 96), ""]
    for name, value in card.fields.items():
        lines += textwrap.wrap(f"{name}: {value}", 96, subsequent_indent="    ")
    return "\n".join(lines)
