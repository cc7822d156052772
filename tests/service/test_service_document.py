"""The OpenAPI document: every route has examples, and every example is what its schema says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from icl_select.service.app import create_app
from icl_select.service.document import examples
from icl_select.service.settings import Settings

DOCUMENT = create_app(Settings(data_dir=Path("nowhere"))).openapi()
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}


def test_every_operation_was_recorded_and_nothing_else() -> None:
    assert set(examples()) == set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_says_what_it_does_with_examples(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation.get("description"), "say what the route does in its docstring"
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            assert "example" in parameter or parameter["schema"].get("examples") or parameter.get("examples")
    if "requestBody" in operation:
        assert "example" in next(iter(operation["requestBody"]["content"].values()))
    status = examples()[name]["status"]
    assert status in operation["responses"]
    if status not in ("204",):
        contents = operation["responses"][status]["content"].values()
        assert any("example" in content for content in contents)


def recorded() -> Iterator[tuple[str, str, Any, Any]]:
    for name, operation in OPERATIONS.items():
        example = examples()[name]
        if "request" in example:
            schema = next(iter(operation["requestBody"]["content"].values())).get("schema")
            yield name, "request", schema, example["request"]
        if "answer" in example:
            schema = operation["responses"][example["status"]]["content"][example["media"]].get("schema")
            yield name, "answer", schema, example["answer"]


@pytest.mark.parametrize(("name", "what", "schema", "value"), list(recorded()))
def test_an_example_is_what_its_schema_says(name: str, what: str, schema: Any, value: Any) -> None:
    if schema is None:
        assert isinstance(value, (str, dict))
        return
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole).validate(value)


def test_failures_are_described_as_problems() -> None:
    for operation in OPERATIONS.values():
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and operation["operationId"] not in ("chat", "complete", "list_models"):
                assert list(answer["content"]) == ["application/problem+json"], operation["operationId"]
