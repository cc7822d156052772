"""Dialogue states: joint goal accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icl_select.errors import MetricError
from icl_select.types import FloatArray

__all__ = ["format_state", "joint_goal_accuracy", "parse_state"]

# What a slot without a value is written as.
_EMPTY = frozenset(["", "none", "not mentioned"])

State = Mapping[str, Any]


def parse_state(state: str | State) -> dict[str, str]:
    """Read a dialogue state: slot -> value.

    Parameters
    ----------
    state : mapping, or str
        A mapping; the same as JSON; or ``slot: value, slot: value``, as in prompts (a part without ``": "`` belongs
        to the value before it).

    Returns
    -------
    dict of str to str
        Slots and values in lower case with blanks run together. Slots without a value ("", "none", "not
        mentioned") are left out.

    Raises
    ------
    MetricError
        If the text is neither form.

    Examples
    --------
    >>> parse_state("hotel-area: Centre, hotel-name: none, train-leaveat: 08:45")
    {'hotel-area': 'centre', 'train-leaveat': '08:45'}
    >>> parse_state('{"hotel-area": "centre"}')
    {'hotel-area': 'centre'}
    """
    pairs = list(state.items()) if isinstance(state, Mapping) else _read(state)
    clean = {}
    for slot, value in pairs:
        if isinstance(value, (Mapping, list, tuple)):
            raise MetricError(
                f"slot {slot!r} of a dialogue state holds a {type(value).__name__}. Write one value each."
            )
        text = "" if value is None else " ".join(str(value).lower().split())
        if text not in _EMPTY:
            clean[" ".join(str(slot).lower().split())] = text
    return clean


def _read(text: str) -> list[tuple[str, Any]]:
    problem = MetricError(
        f"cannot read {text[:80]!r} as a dialogue state. Write a JSON object, or 'slot: value, slot: value'."
    )
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise problem from exc
        return list(content.items())
    pairs: list[tuple[str, str]] = []
    for part in text.split(","):
        slot, colon, value = part.partition(": ")
        if colon:
            pairs.append((slot, value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{part}")
        else:
            raise problem
    return pairs


def format_state(state: State) -> str:
    """Write a state in its one canonical form: JSON with sorted slots; ``{}`` for the empty state.

    Parameters
    ----------
    state : mapping, or str
        As :func:`parse_state` reads it.

    Returns
    -------
    str

    Raises
    ------
    MetricError
        If a text cannot be read.

    Examples
    --------
    >>> format_state({"hotel-name": "", "hotel-area": "Centre"})
    '{"hotel-area": "centre"}'
    """
    return json.dumps(parse_state(state), sort_keys=True, ensure_ascii=False)


def joint_goal_accuracy(predictions: Sequence[str | State], references: Sequence[str | State]) -> FloatArray:
    """1 where the whole predicted state is the whole true state, 0 elsewhere.

    States are read by :func:`parse_state`. Where a true value lists alternatives (``east|south``), each of them is
    right, and so is the list. A prediction that is empty or cannot be read scores 0, also where the true state is
    empty: write ``{}`` for an empty state.

    Parameters
    ----------
    predictions, references : sequence of str or mapping
        One state for each item.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    MetricError
        If a reference cannot be read.

    Examples
    --------
    >>> joint_goal_accuracy(["hotel-area: east", "{}"], ["hotel-area: east|south", "{}"]).tolist()
    [1.0, 1.0]
    """
    return np.array([float(_same(p, r)) for p, r in zip(predictions, references, strict=True)])


def _same(prediction: str | State, reference: str | State) -> bool:
    truth = parse_state(reference)
    if isinstance(prediction, str) and not prediction.strip():
        return False
    try:
        said = parse_state(prediction)
    except MetricError:
        return False
    return said.keys() == truth.keys() and all(
        said[slot] == value or said[slot] in value.split("|") for slot, value in truth.items()
    )
