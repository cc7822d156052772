"""What of a DSPy trainset is embedded. Needs no DSPy: its examples bring what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icl_select.errors import DataError

__all__ = ["input_keys", "text_of", "texts_of"]


def input_keys(trainset: Sequence[Any]) -> list[str]:
    """Names of the inputs, in the order of the first example, so that a query reads like an example."""
    if not trainset:
        raise DataError("the trainset is empty. Pass at least one example.")
    for number, example in enumerate(trainset):
        try:
            keys = example.inputs().keys()
        except ValueError as exc:
            raise DataError(
                f"example {number} of the trainset does not say which fields are its inputs. Mark them: "
                "example.with_inputs('question')."
            ) from exc
        if number == 0:
            first = list(keys)
        if set(keys) != set(first) or not first:
            raise DataError(
                f"example {number} of the trainset has the inputs {sorted(keys)}, and the first one {sorted(first)}. "
                "Give all the same inputs, at least one."
            )
    return first


def texts_of(trainset: Sequence[Any], keys: Sequence[str]) -> list[str]:
    """The embedded text of every example."""
    return [text_of(example, keys) for example in trainset]


def text_of(inputs: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What is embedded: the value of a single input, else all with their names."""
    if len(keys) == 1:
        return str(inputs[keys[0]])
    return "\n".join(f"{key}: {inputs[key]}" for key in keys)
