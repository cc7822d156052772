"""The page about clients cannot drift: every method and every error is on it, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import icl_select.client
from icl_select.client import AsyncClient, Client, ServiceProblem

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")


def test_every_method_is_on_the_page() -> None:
    rows = [line.split("|")[2] for line in TEXT.splitlines() if line.startswith("|")][2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert named == public - {"close", "run"}
    assert named == {name for name in vars(AsyncClient) if not name.startswith("_")} - {"aclose", "run"}


def test_every_error_is_on_the_page() -> None:
    errors = {name for name in icl_select.client.__all__ if name.endswith(("Error", "Problem"))}
    assert {name for name in errors if f"`{name}`" not in TEXT} == set()
    assert {name for name in re.findall(r"`(\w+Error)`", TEXT) if name not in errors} == {
        "IclSelectError",
        "LookupError",
        "PermissionError",
        "ValueError",
    }
    assert issubclass(ServiceProblem, icl_select.IclSelectError)
