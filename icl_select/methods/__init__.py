"""Selection methods, one file each, and :func:`select`, the public edge that all of them share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from icl_select._progress import progress_of
from icl_select._validation import (
    check_budget,
    check_directions,
    check_embeddings,
    check_given,
    check_rng,
    unit_rows,
)
from icl_select.errors import FeedbackError, IclSelectError, ParameterError
from icl_select.registry import Spec, resolve
from icl_select.types import Feedback, FloatArray, Progress, Selection

__all__ = ["select"]

_CANNOT_CALL = (
    "method {name} cannot be called as f(x, budget, *, given, rng): {why}. "
    "Pass the name of a method, or such a function."
)


def select(
    method: str | Spec | Callable[..., Selection],
    x: Any,
    budget: int,
    *,
    given: Iterable[int] = (),
    seed: int = 0,
    feedback: Feedback | None = None,
    progress: bool | Progress = False,
) -> Selection:
    """Say which `budget` pool rows to label next.

    Parameters
    ----------
    method : str or Spec or callable
        Registered name with parameters, such as ``"max_herding(bandwidth=0.8)"``, or a function
        ``f(x, budget, *, given, rng) -> Selection`` on unit rows. A function with a parameter ``raw`` also
        gets the rows as they came (methods that replay published rounding need them), one with a parameter
        ``progress`` whom to tell how far it is. See also :func:`icl_select.registry.any_norm`.
    x : array-like of shape (n, d), float32 or float64
        Embeddings, one row per pool example. Rows are brought to unit norm once, in a copy, unless the method reads
        directions only, as ``max_herding`` does; they are never centred here (that is a switch of
        :func:`icl_select.embed`). A memory map (``numpy.load(path, mmap_mode="r")``) of float32 rows that are more
        than memory holds will do where the method neither copies nor holds them: near-exact ``max_herding``.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : iterable of int, default=()
        Pool indices already labelled. They count as covered and are never returned.
    seed : int, default=0
        Seeds the one generator that the method may use. Deterministic methods ignore it.
    feedback : callable, optional
        ``feedback(labelled) -> (n,)``: how unsure the model is of every pool row when prompted with the rows
        `labelled` so far; larger is less confident. Only for methods that ask the model.
    progress : bool or callable, default=False
        True shows bars on stderr for what takes longer than a second. A function is called as
        ``progress(stage, done, total)`` in this thread; what it raises ends the selection.

    Returns
    -------
    Selection
        Exactly `budget` unique pool indices in pick order, with the gain of each pick.

    Raises
    ------
    EmbeddingError, BudgetError, GivenError
        If the arguments cannot be served; see :mod:`icl_select.errors`.
    UnknownNameError, ParameterError
        If the method or one of its parameters is not known, or a parameter is out of range.
    FeedbackError
        If `feedback` is missing for a method that asks the model, or passed to one that does not.

    Notes
    -----
    Time and memory are the method's own, plus one normalised copy of `x` for methods that need unit rows, and for
    float64 rows. Work is done on every core; ``$ICS_THREADS`` says how many threads share it, and changes no pick.

    Examples
    --------
    >>> import numpy as np
    >>> angle = np.radians([0, 10, 90, 100, 200])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> select("max_herding", x, budget=3).indices.tolist()
    [2, 0, 4]
    """
    rows = check_embeddings(x)
    labelled = check_given(given, len(rows))
    budget = check_budget(budget, len(rows), len(labelled))
    rng = check_rng(seed)
    name, function = _callable(method)
    options = _options(name, function, {"given": labelled, "rng": rng}, rows, feedback)
    with progress_of(progress) as told:
        if "progress" in inspect.signature(function).parameters:
            options["progress"] = told
        picked = function(_rows_for(function, rows), budget, **options)
    _check_contract(picked, budget, labelled.tolist(), len(rows), name)
    return replace(picked, method=name, seed=seed)


def _callable(method: str | Spec | Callable[..., Selection]) -> tuple[str, Callable[..., Selection]]:
    if isinstance(method, (str, Spec)):
        spec, function = resolve(method)
        return str(spec), functools.partial(function, **spec.params)
    return getattr(method, "__name__", type(method).__name__), method


def _rows_for(function: Callable[..., Selection], rows: FloatArray) -> FloatArray:
    """Unit rows; or the rows themselves, where no norm can over- or underflow, for a method that needs no more."""
    method = function.func if isinstance(function, functools.partial) else function
    if rows.dtype == np.float32 and getattr(method, "any_norm", False):
        check_directions(rows)
        view = rows.view()
        view.setflags(write=False)
        return view
    return unit_rows(rows)


def _options(
    name: str, function: Callable[..., Selection], options: dict[str, Any], rows: Any, feedback: Feedback | None
) -> dict[str, Any]:
    """Add what the signature of the method asks for, and make sure that it can be called so."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as exc:
        raise ParameterError(_CANNOT_CALL.format(name=name, why=exc)) from exc
    parameters = signature.parameters
    if feedback is not None:
        if "feedback" not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            raise FeedbackError(f"feedback was passed, but {name} does not ask the model. Leave feedback out.")
        options["feedback"] = feedback
    if "raw" in parameters:
        options["raw"] = rows
    try:
        signature.bind(rows, 1, **options)
    except TypeError as exc:
        raise ParameterError(_CANNOT_CALL.format(name=name, why=exc)) from exc
    return options


def _check_contract(picked: Selection, budget: int, given: list[int], n: int, name: str) -> None:
    """Hold third-party methods to the contract: a wrong selection costs somebody's labels."""
    if not isinstance(picked, Selection):
        raise IclSelectError(
            f"method {name} returned {type(picked).__name__}, not a Selection. It breaks the contract."
        )
    indices = picked.indices.tolist()
    if len(indices) != budget or len(picked.gains) != budget or len(set(indices)) != budget:
        raise IclSelectError(
            f"method {name} returned {len(indices)} rows ({len(set(indices))} distinct) and {len(picked.gains)} gains "
            f"for budget={budget}. It breaks the contract of exactly budget unique rows."
        )
    if not np.isfinite(picked.gains).all():
        raise IclSelectError(f"method {name} returned gains that are not finite. It breaks the contract.")
    if not all(0 <= i < n for i in indices) or set(indices) & set(given):
        raise IclSelectError(f"method {name} returned rows outside the pool or already given. It breaks the contract.")
