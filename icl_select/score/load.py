"""Scorers by name."""

from __future__ import annotations

import functools
import importlib
import inspect
from importlib.metadata import entry_points

from icl_select.errors import ParameterError, UnknownNameError, suggest
from icl_select.registry import Spec, parse
from icl_select.score.language_model import ModelScorer
from icl_select.score.protocol import Scorer

__all__ = ["ENTRY_POINTS", "load_scorer", "scorer_names"]

ENTRY_POINTS = "icl_select.scorers"

# Language models: a ModelScorer is made of them, and takes its rule from among their parameters.
_MODELS = {
    "openai": "icl_select.score.http_model:HttpModel",
    "transformers": "icl_select.score.transformers_model:TransformersModel",
    "vllm": "icl_select.score.vllm_model:VllmModel",
}
_BUILTIN = {"knn": "icl_select.score.knn:KnnScorer", **_MODELS}

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@functools.cache
def _plugins() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def scorer_names() -> list[str]:
    """List every registered scorer, ours and those of installed packages.

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted({**_plugins(), **_BUILTIN})


def load_scorer(name: str | Spec) -> Scorer:
    """Make the scorer of a name with parameters, such as ``knn(k=5)`` or ``vllm(model='org/name', rule='sum')``.

    The parameters of a language model are those of its class, and `rule` of :class:`ModelScorer`.
    Other packages add scorers through the entry-point group ``icl_select.scorers``; each names a callable that
    takes the parameters as keywords and returns a :class:`Scorer`. Our own names cannot be taken over.

    Parameters
    ----------
    name : str or Spec
        A name of :func:`scorer_names`, with parameters if you like.

    Returns
    -------
    Scorer

    Raises
    ------
    ParameterError
        If the name cannot be read, or a parameter is missing or out of range.
    UnknownNameError
        For an unknown scorer or parameter; the nearest known name is suggested.

    Examples
    --------
    >>> load_scorer("knn( weighting='uniform', k=5 )").versions["scorer"]
    "knn(k=5, weighting='uniform')"
    """
    spec = parse(name) if isinstance(name, str) else name
    target = _BUILTIN.get(spec.name) or _plugins().get(spec.name)
    if target is None:
        raise UnknownNameError(f"unknown scorer {spec.name!r}.{suggest(spec.name, scorer_names())}")
    module, _, attribute = target.partition(":")
    make = getattr(importlib.import_module(module), attribute)
    known = dict(inspect.signature(make).parameters)
    if spec.name in _MODELS:
        known["rule"] = inspect.signature(ModelScorer).parameters["rule"]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for key in spec.params:
            if key not in known:
                hint = suggest(key, known) or " It takes none."
                raise UnknownNameError(f"scorer {spec.name!r} has no parameter {key!r}.{hint}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and parameter.kind in _NAMED and key not in spec.params:
            raise ParameterError(f"scorer {spec.name!r} needs {key}. Write {spec.name}({key}='...').")
    if spec.name in _MODELS:
        options = {key: value for key, value in spec.params.items() if key != "rule"}
        return ModelScorer(make(**options), rule=str(spec.params.get("rule", "mean")))
    scorer: Scorer = make(**spec.params)
    return scorer
