"""The OpenAPI document: what FastAPI makes of the routes, with problems, keys, and examples from a real run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI

from .schemas import ItemsIn, ProblemOut

__all__ = ["document_of", "examples"]


@functools.cache
def examples() -> Mapping[str, Mapping[str, Any]]:
    """A request and its answer for each operation, as ``scripts/make_api_examples.py`` recorded them."""
    found: dict[str, dict[str, Any]] = json.loads(
        files("icl_select.service").joinpath("examples.json").read_text(encoding="utf-8")
    )
    return found


def document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What stands in for ``app.openapi``; the document is made once."""
    made = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = made()
            _add_schemas(found.setdefault("components", {}))
            found["security"] = [{"key": []}]
            found["paths"]["/health"]["get"]["security"] = []
            for operation in _operations(found):
                _add_examples(operation, examples().get(operation["operationId"], {}))
            app.openapi_schema = found
        return app.openapi_schema

    return document


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def _add_schemas(parts: dict[str, Any]) -> None:
    """Models that no signature names: problems, and the body of a route that reads several kinds."""
    schemas = parts.setdefault("schemas", {})
    for model in (ProblemOut, ItemsIn):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}


def _add_examples(operation: dict[str, Any], example: Mapping[str, Any]) -> None:
    for name, value in example.get("path", {}).items():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and parameter["name"] == name:
                parameter["example"] = value
    if "request" in example:
        # The first kind of body that is named is the one that was recorded.
        next(iter(operation["requestBody"]["content"].values()))["example"] = example["request"]
    if "answer" in example:
        content = operation["responses"][example["status"]].setdefault("content", {})
        content.setdefault(example["media"], {})["example"] = example["answer"]
