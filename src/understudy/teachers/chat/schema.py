"""Answers of a form: a JSON schema for the endpoint, and its checks on what came back."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from understudy.errors import UserError, nearest

_CHECKED = {
    "type", "properties", "required", "additionalProperties", "enum", "const", "items",
    "prefixItems", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "anyOf", "oneOf",
    "allOf", "$ref",
}  # fmt: skip
_SAID = {"title", "description", "default", "examples", "format", "$schema", "$id", "$defs",
         "$comment", "definitions", "deprecated", "discriminator"}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,),
    "null": (type(None),), "integer": (int,), "number": (int, float),
}  # fmt: skip


class Form:
    """A schema as it is asked for and as answers are held against it.

    schema: a pydantic model's class, or a JSON schema. Checked are types, properties, required,
    enum, const, items, lengths, bounds, patterns, anyOf, oneOf, allOf and local references; a
    schema that says more is refused, as nobody would check it.

    Raises:
        UserError: no schema, or one with a word that is not checked; names where.
    """

    def __init__(self, schema: Any) -> None:
        self.model: Any = None
        if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
            self.model = schema
            self.schema: dict[str, Any] = schema.model_json_schema()
            self.name = schema.__name__
        elif isinstance(schema, Mapping):
            self.schema = json.loads(json.dumps(dict(schema)))
            self.name = str(schema.get("title", "answer"))
        else:
            kind = schema.__name__ if isinstance(schema, type) else type(schema).__name__
            raise UserError(f"a schema is a pydantic model's class or a mapping, not {kind}")
        if self.model is None:  # pydantic checks its own in full
            _known(self.schema, "the schema", self.schema)

    def response_format(self) -> dict[str, Any]:
        """What the endpoint is asked for: strict where strict mode can say it."""
        tight = strict(self.schema)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", self.name)[:64] or "answer"
        wanted = {"name": name, "schema": tight or self.schema, "strict": tight is not None}
        return {"type": "json_schema", "json_schema": wanted}

    def words(self) -> str:
        """The same in words, for an endpoint that takes no schema."""
        return (
            "Answer with one JSON value that fits this JSON schema, and nothing else:\n"
            + json.dumps(self.schema, ensure_ascii=False)
        )

    def read(self, text: str) -> Any:
        """The answer in a text.

        Raises:
            ValueError: what is wrong with it, in one line.
        """
        value = found(text)
        if self.model is None:
            _check(value, self.schema, self.schema, "answer")
            return value
        try:
            return self.model.model_validate(value)
        except ValueError as error:
            raise ValueError(_first(error)) from None


def _first(error: ValueError) -> str:
    listed = getattr(error, "errors", None)
    if listed is None:
        return " ".join(str(error).split())[:300]
    parts = [f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in listed()]
    return "; ".join(parts)[:300]


def found(text: str) -> Any:
    """The JSON value in a text: all of it, or between a fence, or the first object or list in it.

    Raises:
        ValueError: there is none.
    """
    stripped = text.strip()
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", stripped, re.DOTALL)
    for part in (stripped, fenced[1].strip() if fenced else ""):
        if part:
            try:
                return json.loads(part, parse_constant=_constant)
            except ValueError:
                pass
    decoder = json.JSONDecoder(parse_constant=_constant)
    for start in (m.start() for m in re.finditer(r"[{\[]", stripped)):
        try:
            return decoder.raw_decode(stripped, start)[0]
        except ValueError:
            continue
    shown = " ".join(stripped.split())[:60]
    raise ValueError(f"no JSON in it: {shown!r}" if shown else "it is empty")


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def strict(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema for strict mode, where every object is closed and all of it is required.

    None where it leaves something open: strict mode would change what it means.
    """
    made = deepcopy(dict(schema))
    return made if made.get("type") == "object" and _tight(made) else None


def _tight(node: Any) -> bool:
    if isinstance(node, list):
        return all(_tight(x) for x in node)
    if not isinstance(node, dict):
        return True
    if node.get("type") == "object" or "properties" in node:
        names = node.get("properties", {})
        if set(node.get("required", ())) != set(names) or node.get("additionalProperties"):
            return False
        node["additionalProperties"] = False
    inside = [node.get("items"), *node.get("anyOf", ())]
    for name in ("properties", "$defs", "definitions"):
        inside += node.get(name, {}).values()
    if any(word in node for word in ("oneOf", "allOf", "prefixItems", "uniqueItems", "default")):
        return False
    return all(_tight(x) for x in inside)


def _known(node: Any, where: str, root: Mapping[str, Any]) -> None:
    if isinstance(node, bool):
        return
    if not isinstance(node, dict):
        raise UserError(f"{where} is not a JSON schema: {type(node).__name__}")
    for word, value in node.items():
        if word not in _CHECKED | _SAID:
            raise UserError(
                f"{where} says {word!r}, which is not checked here{nearest(word, _CHECKED)}"
            )
        if word in ("properties", "$defs", "definitions"):
            for name, part in value.items():
                _known(part, f"{where}.{name}", root)
        elif word in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for i, part in enumerate(value):
                _known(part, f"{where}.{word}[{i}]", root)
        elif word in ("items", "additionalProperties"):
            _known(value, f"{where}.{word}", root)
        elif word == "type":
            for kind in value if isinstance(value, list) else [value]:
                if kind not in _TYPES:
                    raise UserError(f"{where} has no type {kind!r}{nearest(str(kind), _TYPES)}")
        elif word == "$ref" and not str(value).startswith("#"):
            raise UserError(f"{where} refers to {value!r}; only references within it are read")
        elif word == "$ref":
            try:
                _resolved(value, root)
            except (KeyError, IndexError, TypeError):
                raise UserError(f"{where} refers to {value!r}, which is not there") from None
        elif word == "pattern":
            try:
                re.compile(value)
            except (re.error, TypeError):
                raise UserError(f"{where} has no regular expression in {value!r}") from None


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in reference.lstrip("#").strip("/").split("/"):
        if part:
            node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True) or (
        type(a) in (int, float) and type(b) in (int, float) and a == b
    )


def _is(value: Any, kind: str) -> bool:
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _check(value: Any, node: Any, root: Mapping[str, Any], where: str) -> None:
    """Holds a value against a schema; a ValueError says where it does not fit."""
    if isinstance(node, bool):
        if not node:
            raise ValueError(f"{where} is not allowed")
        return
    if "$ref" in node:
        _check(value, _resolved(node["$ref"], root), root, where)
    kinds = node.get("type")
    if kinds is not None:
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if not any(_is(value, k) for k in kinds):
            raise ValueError(f"{where} is of type {' or '.join(kinds)}, not {_shown(value)}")
    if "enum" in node and not any(_same(value, e) for e in node["enum"]):
        raise ValueError(f"{where} is one of {_shown(node['enum'], 200)}, not {_shown(value)}")
    if "const" in node and not _same(value, node["const"]):
        raise ValueError(f"{where} is {_shown(node['const'])}, not {_shown(value)}")
    _choices(value, node, root, where)
    if isinstance(value, str):
        _text(value, node, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _bounds(value, node, where)
    elif isinstance(value, list):
        _list(value, node, root, where)
    elif isinstance(value, dict):
        _object(value, node, root, where)


def _choices(value: Any, node: Any, root: Mapping[str, Any], where: str) -> None:
    for part in node.get("allOf", ()):
        _check(value, part, root, where)
    for word in ("anyOf", "oneOf"):
        if word in node:
            wrong = []
            for part in node[word]:
                try:
                    _check(value, part, root, where)
                except ValueError as error:
                    wrong.append(str(error))
            fitting = len(node[word]) - len(wrong)
            if not fitting:
                raise ValueError(f"{where} fits none of {word}: {wrong[-1] if wrong else 'empty'}")
            if word == "oneOf" and fitting > 1:
                raise ValueError(f"{where} fits {fitting} of oneOf, and only one may fit")


def _text(value: str, node: Any, where: str) -> None:
    if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", float("inf")):
        raise ValueError(f"{where} has {len(value)} characters, which is too few or too many")
    if "pattern" in node and not re.search(node["pattern"], value):
        raise ValueError(f"{where} does not match {node['pattern']!r}: {_shown(value)}")


def _bounds(value: float, node: Any, where: str) -> None:
    infinite = float("inf")
    low, high = node.get("minimum", -infinite), node.get("maximum", infinite)
    above, below = node.get("exclusiveMinimum", -infinite), node.get("exclusiveMaximum", infinite)
    if not (low <= value <= high and (above < value or above == -infinite)):
        raise ValueError(f"{where} is out of bounds: {value!r}")
    if not (value < below or below == infinite):
        raise ValueError(f"{where} is out of bounds: {value!r}")
    step = node.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        raise ValueError(f"{where} is no multiple of {step}: {value!r}")


def _list(value: list[Any], node: Any, root: Mapping[str, Any], where: str) -> None:
    if not node.get("minItems", 0) <= len(value) <= node.get("maxItems", float("inf")):
        raise ValueError(f"{where} has {len(value)} items, which is too few or too many")
    first = node.get("prefixItems", [])
    for i, item in enumerate(value):
        part = first[i] if i < len(first) else node.get("items", True)
        _check(item, part, root, f"{where}[{i}]")
    if node.get("uniqueItems"):
        texts = [json.dumps(x, sort_keys=True) for x in value]
        if len(set(texts)) < len(texts):
            raise ValueError(f"{where} has an item twice")


def _object(value: dict[str, Any], node: Any, root: Mapping[str, Any], where: str) -> None:
    for name in node.get("required", ()):
        if name not in value:
            raise ValueError(f"{where} lacks {name!r}")
    properties = node.get("properties", {})
    for name, item in value.items():
        if name in properties:
            _check(item, properties[name], root, f"{where}.{name}")
        elif "additionalProperties" in node:
            if node["additionalProperties"] is False:
                raise ValueError(f"{where} has {name!r}, which the schema does not know")
            _check(item, node["additionalProperties"], root, f"{where}.{name}")


def _shown(value: Any, most: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 3] + "..."
