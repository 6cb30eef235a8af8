"""Files of text, as rows: .txt, .jsonl, .json, tables, folders and `datasets`, by split."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.errors import DataError, nearest
from understudy.tasks.frames import TABLES
from understudy.tasks.raw import SPLITS, listed

Rows = list[dict[str, Any]]
FILES = {".txt", ".jsonl", ".json", *TABLES}


def read_writings(path: str | Path) -> dict[str, Rows]:
    """Rows by split: a file is `train`; files called train, validation, test are those.

    - `.txt`: texts are divided by blank lines; in a folder every .txt is one text
    - `.jsonl`: a JSON object (or a string: a text) a line; `.json`: a list of such
    - `.csv`, `.tsv`, `.parquet`: a row each
    - a folder that `datasets.save_to_disk` wrote, or a data set's name on the hub
    """
    from understudy.tasks.hub import is_saved

    p = Path(path).expanduser()
    if p.is_file():
        return {"train": read_file(p)}
    if p.is_dir():
        return _saved(p) if is_saved(p) else _folder(p)
    name = str(path)
    if name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not p.suffix:
        return _hub(name)
    near = nearest(p.name, [q.name for q in listed(p.parent)]) if p.parent.is_dir() else ""
    raise DataError(f"there is no file or folder {name}{near}")


def read_file(path: Path) -> Rows:
    """The rows of one file."""
    suffix = path.suffix.lower()
    if suffix in TABLES:
        from understudy.tasks.frames import _frame

        return _framed(_frame(path))
    if suffix not in FILES:
        raise DataError(
            f"{path}: {suffix or 'no suffix'} is no kind of text that is read; give "
            f"{', '.join(sorted(FILES))}, or a folder"
        )
    text = _text(path)
    if suffix == ".txt":
        rows: Rows = [{"text": t} for t in re.split(r"\n[ \t]*\n", text) if t.strip()]
    elif suffix == ".jsonl":
        rows = [
            _row(_parsed(line, f"{path}, line {n + 1}"), f"{path}, line {n + 1}")
            for n, line in enumerate(text.split("\n"))
            if line.strip()
        ]
    else:
        found = _parsed(text, str(path))
        if isinstance(found, Mapping):
            lists = [v for v in found.values() if isinstance(v, list)]
            if len(lists) != 1:
                raise DataError(f"{path}: a JSON list of rows is read, and this is an object")
            found = lists[0]
        if not isinstance(found, list):
            raise DataError(f"{path}: a JSON list of rows is read, not {type(found).__name__}")
        rows = [_row(r, f"{path}, row {n}") for n, r in enumerate(found)]
    if not rows:
        raise DataError(f"{path} is empty; it needs at least one text")
    return rows


def _folder(folder: Path) -> dict[str, Rows]:
    inside = listed(folder)
    tables = [p for p in inside if p.suffix.lower() in FILES - {".txt"}]
    if tables:
        parts: dict[str, Rows] = {}
        for file in tables:
            split = SPLITS.get(file.stem.lower().split("-")[0])
            if split is None:
                raise DataError(
                    f"{folder}: {file.name} is no split's name; call the files train, validation, "
                    "test"
                )
            parts[split] = parts.get(split, []) + read_file(file)
        return _with_train(parts, str(folder))
    split_folders = [p for p in inside if p.is_dir() and p.name.lower() in SPLITS]
    if split_folders:
        return _with_train(
            {SPLITS[p.name.lower()]: _writings(p) for p in split_folders}, str(folder)
        )
    return {"train": _writings(folder)}


def _writings(folder: Path) -> Rows:
    """Every .txt under a folder as one text, by name."""
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise DataError(f"{folder} holds no {', '.join(sorted(FILES))}: there is no text to read")
    return [{"text": _text(f)} for f in files]


def _with_train(parts: dict[str, Rows], where: str) -> dict[str, Rows]:
    if "unlabelled" in parts:  # text is its own label
        parts["train"] = parts.get("train", []) + parts.pop("unlabelled")
    if "train" not in parts:
        raise DataError(f"{where} has {', '.join(parts)} but no train split")
    return parts


def _saved(folder: Path) -> dict[str, Rows]:
    from understudy.tasks.hub import _library, _line

    try:
        found = _library().load_from_disk(str(folder))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{folder} cannot be read by datasets ({_line(error)})") from None
    return _datasets(found, str(folder))


def _hub(name: str) -> dict[str, Rows]:
    from understudy.tasks.hub import _library, _line

    library = _library()
    try:
        found = library.load_dataset(name)
    except Exception as error:
        raise DataError(
            f"no file or folder {name!r} here, and no data set of that name can be had from the "
            f"Hugging Face hub ({_line(error)})"
        ) from None
    return _datasets(found, name)


def _datasets(found: Any, where: str) -> dict[str, Rows]:
    parts: dict[str, Rows] = {}
    for key, data in found.items() if isinstance(found, Mapping) else [("train", found)]:
        split = SPLITS.get(key.lower())
        if split is None:
            raise DataError(f"{where}: split {key!r} is no train, validation, test or unlabelled")
        parts[split] = parts.get(split, []) + [dict(row) for row in data]
    return _with_train(parts, where)


def _framed(frame: Any) -> Rows:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(k): _plain(v) for k, v in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """Lists in place of the arrays that parquet gives."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text; convert it first") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error})") from None


def _row(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise DataError(f"{where} is {type(value).__name__}; a row is an object or a string")
    return value
