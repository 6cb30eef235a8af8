"""Schemas: what is asked for, what is read, what does not fit."""

import json

import pytest
from pydantic import BaseModel, Field

from understudy.errors import UserError
from understudy.teachers.chat.schema import Form, found, strict


class Grade(BaseModel):
    label: str = Field(pattern="^(good|bad)$")
    points: list[int]


CHECKS = [
    ({"type": "string"}, ["a", ""], [1, None, [], {}]),
    ({"type": "integer"}, [1, -3, 2.0], [1.5, True, "1"]),
    ({"type": "number"}, [1, 1.5], [True, "1"]),
    ({"type": ["string", "null"]}, ["a", None], [1]),
    ({"type": "boolean"}, [True, False], [0, "true"]),
    ({"enum": ["a", 1, None]}, ["a", 1, None, 1.0], ["b", True]),
    ({"const": {"a": 1}}, [{"a": 1}], [{"a": 2}, {}]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "abc", 5], ["a", "abcd"]),
    ({"pattern": "^a+$"}, ["aa"], ["ab"]),
    ({"minimum": 1, "maximum": 2}, [1, 2, 1.5], [0.9, 2.1]),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1.5], [1, 2]),
    ({"multipleOf": 0.5}, [1.5, 2], [1.2]),
    ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, None]]),
    ({"minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
    ({"uniqueItems": True}, [[1, 2]], [[1, 1]]),
    ({"prefixItems": [{"const": 1}], "items": False}, [[1], []], [[2], [1, 2]]),
    ({"required": ["a"]}, [{"a": None}], [{}, {"b": 1}]),
    ({"properties": {"a": {"type": "integer"}}}, [{}, {"a": 1}, {"b": "x"}], [{"a": "x"}]),
    ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"a": 1, "b": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "y"}]),
    ({"anyOf": [{"type": "integer"}, {"const": "x"}]}, [1, "x"], ["y"]),
    ({"oneOf": [{"minimum": 1}, {"minimum": 3}]}, [2], [0, 4]),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2], [0, 4]),
    ({"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "properties": {
        "next": {"$ref": "#/$defs/t"}}, "additionalProperties": False}}},
     [{}, {"next": {"next": {}}}], [{"next": {"last": 1}}, 3]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CHECKS, ids=lambda x: json.dumps(x)[:40])
def test_every_word_is_checked(schema, good, bad):
    form = Form(schema)
    for value in good:
        assert form.read(json.dumps(value)) == value
    for value in bad:
        with pytest.raises(ValueError, match="answer") as error:
            form.read(json.dumps(value))
        assert "\n" not in str(error.value)


def test_errors_say_where():
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}}
    with pytest.raises(ValueError, match=r'^answer\.a\[1\]\.b is of type integer, not "x"$'):
        Form(schema).read('{"a": [{"b": 1}, {"b": "x"}]}')


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strin"}, "no type 'strin'; did you mean string"),
        ({"patern": "x"}, "'patern', which is not checked here; did you mean pattern"),
        ({"properties": {"a": {"not": {}}}}, "the schema.a says 'not'"),
        ({"$ref": "http://elsewhere"}, "only references within it"),
        ({"items": [1]}, "not a JSON schema"),
        ("text", "a schema is a pydantic model's class or a mapping, not str"),
        (int, "a schema is a pydantic model's class or a mapping, not int"),
    ],
)
def test_schemas_that_nobody_would_check_are_refused(schema, said):
    with pytest.raises(UserError, match=said):
        Form(schema)


def test_a_pydantic_model_reads_its_own():
    form = Form(Grade)
    assert form.read('{"label": "good", "points": [1]}') == Grade(label="good", points=[1])
    with pytest.raises(ValueError, match=r"^label: .*; points\.0: "):
        form.read('{"label": "fine", "points": ["x"]}')
    assert form.response_format()["json_schema"]["name"] == "Grade"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": 1}\n', {"a": 1}),
        ("Here:\n```json\n[1, 2]\n```\nDone.", [1, 2]),
        ("```\n3\n```", 3),
        ('It is {"a": {"b": "}"}} as said {', {"a": {"b": "}"}}),
        ("a {b} [c] [1]", [1]),
    ],
)
def test_json_is_found_in_words(text, value):
    assert found(text) == value


@pytest.mark.parametrize("text", ["", "  ", "no", '{"a": 1', "{'a': 1}", "NaN", "[NaN]"])
def test_what_is_no_json(text):
    with pytest.raises(ValueError, match=r"it is empty|no JSON in it"):
        found(text)


def test_strict_where_nothing_is_left_open():
    """Strict mode wants every object closed and all of it required; else it would say another thing."""
    closed = {"type": "object", "properties": {"a": {"type": "array", "items": {
        "type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}}},
        "required": ["a"]}  # fmt: skip
    made = strict(closed)
    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in closed
    assert Form(closed).response_format()["json_schema"]["strict"] is True
    for open_one in (
        {**closed, "required": []},
        {**closed, "additionalProperties": True},
        {"type": "array", "items": closed},
        {"type": "object", "properties": {"a": {"oneOf": []}}, "required": ["a"]},
    ):
        assert strict(open_one) is None
        assert Form(open_one).response_format()["json_schema"]["schema"] == open_one
