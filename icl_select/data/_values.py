"""Values of any reader as JSON values."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Mapping
from typing import Any

from icl_select.errors import DataError

__all__ = ["plain"]


def plain(value: Any, where: str, name: str) -> Any:
    """Return `value` as a JSON value: NaN as null, dates in ISO form, decimals as strings, bytes as UTF-8 text."""
    try:
        return _plain(value, where, name)
    except RecursionError as exc:
        raise DataError(
            f"{where}: the field {name!r} is nested too deeply. Flatten it, or leave it out: name the fields to keep "
            "with fields=[...]."
        ) from exc


def _plain(value: Any, where: str, name: str) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, name) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise DataError(
                f"{where}: the field {name!r} holds bytes that are not text. Leave it out: name the fields to keep "
                "with fields=[...]."
            ) from exc
    if isinstance(value, decimal.Decimal):
        return str(value)
    item = getattr(value, "item", None)  # numpy scalars
    if callable(item):
        return _plain(item(), where, name)
    raise DataError(
        f"{where}: the field {name!r} holds a {type(value).__name__}, which is no JSON value. Convert it, or leave "
        "it out: name the fields to keep with fields=[...]."
    )
