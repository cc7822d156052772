"""``icl-select methods``: what can be asked for, with parameters and defaults."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from icl_select.cli._output import emit_json, emit_rows
from icl_select.errors import MissingDependencyError
from icl_select.registry import method_names, own_parameters, resolve

__all__ = ["methods"]


def methods(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List the selection methods and their parameters.

    Parameters
    ----------
    as_json
        Write one JSON document.
    """
    entries = [_describe(name) for name in method_names()]
    if as_json:
        emit_json({"methods": entries})
    else:
        rows = [(e["name"], _signature(e), e["summary"]) for e in entries]
        emit_rows(("name", "parameters", "summary"), rows)


def _describe(name: str) -> dict[str, Any]:
    try:
        _, function = resolve(name)
    except MissingDependencyError as exc:
        # Somebody else's broken package must not hide the methods that work.
        return {"name": name, "parameters": {}, "summary": f"cannot be used: {exc}"}
    parameters = {
        key: None if parameter.default is inspect.Parameter.empty else parameter.default
        for key, parameter in own_parameters(function).items()
    }
    summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    return {"name": name, "parameters": parameters, "summary": summary}


def _signature(entry: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in entry["parameters"].items()) or "-"
