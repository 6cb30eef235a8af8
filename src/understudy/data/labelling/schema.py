"""What labels there are and what they mean."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import DataError

FORMS = (
    'a list of names, a list of {"name": ..., "definition": ...}, or a mapping of names to '
    "definitions"
)


def read_labels(given: str | Path | Mapping[str, str] | Sequence[Any]) -> dict[str, str]:
    """Names with their definitions ("" where there is none), in the order given.

    given: a JSON file, or what would be in it: `["spam", "ham"]`, `{"spam": "Sold to everybody",
    "ham": ""}`, or `[{"name": "spam", "definition": "Sold to everybody"}, ...]`.

    Raises:
        DataError: in one line, where it is none of these, names repeat, or there are fewer than two.
    """
    where = "labels"
    if isinstance(given, str | Path):
        where = str(given)
        given = _read(Path(given).expanduser())
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        pairs = [_pair(item, n, where) for n, item in enumerate(given)]
    else:
        raise DataError(f"{where} holds {type(given).__name__}; give {FORMS}")
    found: dict[str, str] = {}
    for name, definition in pairs:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: a label has the name {name!r}; names are text")
        if not isinstance(definition, str):
            raise DataError(f"{where}: the definition of {name!r} is {definition!r}; give text")
        name, definition = " ".join(name.split()), " ".join(definition.split())
        if name.casefold() in {n.casefold() for n in found}:
            raise DataError(f"{where}: the label {name!r} is there twice")
        if '"' in name or "\\" in name:
            raise DataError(
                f"{where}: the label {name!r} holds a quote or a backslash; leave it out"
            )
        if "</labels>" in f"{name} {definition}":
            raise DataError(
                f"{where}: the label {name!r} says '</labels>', which ends the prompt's list"
            )
        found[name] = definition
    if len(found) < 2:
        raise DataError(f"{where} has {len(found)} label(s); a choice needs at least two")
    return found


def answer_schema(labels: Mapping[str, str], name: str = "label") -> dict[str, Any]:
    """The JSON schema of an answer: an object with one of the labels."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": list(labels)}},
        "required": [name],
        "additionalProperties": False,
    }


def _read(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"there is no label file {path}; give a JSON file with {FORMS}")
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no JSON ({error}); give {FORMS}") from None


def _pair(item: Any, n: int, where: str) -> tuple[Any, Any]:
    if isinstance(item, str):
        return item, ""
    if isinstance(item, Mapping) and "name" in item:
        odd = sorted(set(map(str, item)) - {"name", "definition"})
        if odd:
            raise DataError(f"{where}: label {n} has {odd[0]!r}; it takes name and definition")
        return item["name"], item.get("definition", "")
    raise DataError(f"{where}: label {n} is {item!r}; give {FORMS}")
