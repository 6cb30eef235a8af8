"""A sheet that people fill in, and what it says once it is filled."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from understudy.data.labelling.answers import Row
from understudy.errors import DataError, nearest
from understudy.files import write_text

COLUMNS = ("number", "text", "label")


def stratified(rows: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """`count` rows (or all there are), from each teacher's label its share, and at least one.

    Shares are rounded by largest remainder. In the order of the texts' numbers, which tells
    nothing about the teacher's label.
    """
    if count < 1:
        raise DataError(f"a sheet has at least 1 row, not {count}")
    if count >= len(rows):
        return sorted(rows, key=lambda r: r.number)
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    exact = {k: count * len(v) / len(rows) for k, v in by_label.items()}
    quota = {k: max(1, int(v)) for k, v in exact.items()}
    order = sorted(exact, key=lambda k: (int(exact[k]) - exact[k], k))
    at = 0
    while sum(quota.values()) < count:
        label = order[at % len(order)]
        quota[label] += quota[label] < len(by_label[label])
        at += 1
    while sum(quota.values()) > count and max(quota.values()) > 1:
        quota[max(quota, key=lambda k: (quota[k], k))] -= 1
    found: list[Row] = []
    for label, own in by_label.items():
        found += [own[i] for i in rng.choice(len(own), quota[label], replace=False)]
    return sorted(found, key=lambda r: r.number)


def write_sheet(path: Path, rows: Sequence[Row]) -> None:
    """A CSV with an empty column `label`; the teacher's own stays out, so that it sways nobody."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row.number, row.text, ""] for row in rows)
    write_text(path, out.getvalue())


def read_sheet(
    path: Path, labels: Mapping[str, str], texts: Mapping[int, str] | None = None
) -> dict[int, str]:
    """People's labels by text number; lines that are still empty are left out.

    Lines are found by `number`, or in a table without such a column by their text.

    Raises:
        DataError: no such file or column, a label that the schema does not have, a text that is
            not the one of its number.
    """
    if not path.is_file():
        raise DataError(f"there is no sheet {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        for wanted in ("text", "label"):
            if wanted not in columns:
                raise DataError(f"{path} has no column {wanted!r}{nearest(wanted, columns)}")
        lines = list(reader)
    known = {k.casefold(): k for k in labels}
    places = {} if texts is None else {t: n for n, t in reversed(list(texts.items()))}
    found: dict[int, str] = {}
    for at, line in enumerate(lines, 2):
        said = " ".join((line["label"] or "").split())
        if not said:
            continue
        if said.casefold() not in known:
            raise DataError(
                f"{path}, line {at}: {said!r} is none of the {len(labels)} labels"
                f"{nearest(said, labels)}"
            )
        number = (
            places.get(line["text"] or "") if "number" not in columns else _number(line, at, path)
        )
        if number is None:
            continue
        if texts is not None and "number" in columns and texts.get(number) != line["text"]:
            raise DataError(
                f"{path}, line {at}: text {number} is another one in the data; was it changed?"
            )
        found[number] = known[said.casefold()]
    return found


def _number(line: Mapping[str, str], at: int, path: Path) -> int:
    try:
        return int(line["number"])
    except (TypeError, ValueError):
        raise DataError(f"{path}, line {at}: the number is {line['number']!r}") from None
