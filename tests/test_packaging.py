"""What is in the tree is in the wheel: packages, data files, entry points."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import icl_select

ROOT = Path(__file__).resolve().parents[1]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    setuptools = project()["tool"]["setuptools"]
    found = {"icl_select.configs"}
    for name in ("icl_select", "icl_select.eval", "icl_select.service"):
        folder = ROOT / name.removeprefix("icl_select.")
        for init in folder.rglob("__init__.py"):
            inner = init.parent.relative_to(folder).parts
            found.add(".".join((name, *inner)))
    assert set(setuptools["packages"]) == found


def test_data_files_are_declared_where_they_lie() -> None:
    data = project()["tool"]["setuptools"]["package-data"]
    outside = ("eval", "configs", "service")
    for package, patterns in data.items():
        inner = package.removeprefix("icl_select.")
        folder = ROOT / (inner if inner.startswith(outside) else package).replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"


def test_campaigns_are_found_from_anywhere() -> None:
    names = {entry.name for entry in files("icl_select.configs").iterdir()}
    assert {"demo.yaml", "knn_nine.yaml"} <= names


def test_public_names_load_on_first_use() -> None:
    assert set(icl_select.__all__) == {*icl_select._EXPORTS, "__version__"}
    for name in icl_select.__all__:
        assert getattr(icl_select, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'selct'"):
        _ = icl_select.selct


def test_commands_join_through_entry_points() -> None:
    commands = {point.name: point for point in entry_points(group="icl_select.commands")}
    assert {"eval", "demo", "keys", "serve"} <= set(commands)
    for point in commands.values():
        assert callable(point.load())
