"""Encoders by name, as they are written in Python, YAML and on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from icl_select.embedding.causal_lm import CausalLMEncoder
from icl_select.embedding.encoder import Encoder, HashEncoder
from icl_select.embedding.onnx_encoder import OnnxEncoder
from icl_select.embedding.sentence_transformer import MINILM, PUBLISHED, SentenceTransformerEncoder
from icl_select.errors import ParameterError, UnknownNameError, suggest
from icl_select.registry import parse

__all__ = ["encoder_names", "load_encoder"]

_KINDS: Mapping[str, Callable[..., Encoder]] = {
    MINILM: SentenceTransformerEncoder,
    "hash": HashEncoder,
    "onnx": OnnxEncoder,
    "sentence_transformer": SentenceTransformerEncoder,
    "causal_lm": CausalLMEncoder,
}

# The others must be told which model.
_COMPLETE = (MINILM, "hash", "onnx")

_PARAMETERISED = re.compile(r"(\w+)\s*(\(.*)?", re.DOTALL)


def encoder_names() -> list[str]:
    """List the names that need no hub id or path.

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted({*_KINDS, *PUBLISHED})


def load_encoder(name: str) -> Encoder:
    """Return the encoder that a name stands for. No model is loaded before the first text is encoded.

    Parameters
    ----------
    name : str
        * ``"minilm"``: all-MiniLM-L6-v2 from a package, no hub needed;
        * ``"onnx"``: the same model as an ONNX graph, run without torch; ``"onnx(model='FOLDER')"``:
          :class:`OnnxEncoder` for a model folder;
        * ``"hash"`` or ``"hash(dim=512)"``: :class:`HashEncoder`, no model at all;
        * ``"paraphrase-mpnet-base-v2"``, ``"all-mpnet-base-v2"``: the published choices;
        * a hub id, ``"owner/model"`` or ``"owner/model@revision"``;
        * the path of a model folder;
        * ``"causal_lm(model='EleutherAI/gpt-j-6b')"``: mean pooling over a language model;
        * ``"sentence_transformer(model='...', dtype='bfloat16')"`` and ``"minilm(dtype='bfloat16')"``: the
          same with parameters.

    Returns
    -------
    Encoder

    Raises
    ------
    UnknownNameError
        For an unknown name or parameter; the nearest one is suggested.
    ParameterError
        For a parameter that is missing or out of range.
    ModelError
        For a hub model that can be found neither on the hub nor in its local cache.

    Examples
    --------
    >>> load_encoder("hash(dim=512)").dim
    512
    """
    name = name.strip()
    match = _PARAMETERISED.fullmatch(name)
    if match and (match[1] in _KINDS or match[2]):
        return _build(name)
    model, _, revision = name.partition("@")
    if model in PUBLISHED:
        return SentenceTransformerEncoder(model, revision or None)
    if name and Path(name).expanduser().is_dir():
        return SentenceTransformerEncoder(name)
    if "/" not in name and not name.startswith((".", "~")):
        raise UnknownNameError(
            f"unknown encoder {name!r}.{suggest(name, encoder_names())} A hub id is written owner/model, with "
            "@revision behind it if you like; a path names a model folder."
        )
    return SentenceTransformerEncoder(model, revision or None)


def _build(name: str) -> Encoder:
    spec = parse(name)
    if spec.name not in _KINDS:
        raise UnknownNameError(f"unknown encoder {spec.name!r}.{suggest(spec.name, encoder_names())}")
    kind = _KINDS[spec.name]
    known = dict(inspect.signature(kind).parameters)
    if spec.name == MINILM:
        for fixed in ("model", "revision"):
            known.pop(fixed)
    for parameter in spec.params:
        if parameter not in known:
            raise UnknownNameError(f"encoder {spec.name!r} has no parameter {parameter!r}.{suggest(parameter, known)}")
    options: dict[str, Any] = dict(spec.params)
    if spec.name not in _COMPLETE and not isinstance(options.get("model"), str):
        raise ParameterError(f"encoder {name!r} does not say which model. Write {spec.name}(model='owner/model').")
    return kind(**options)
