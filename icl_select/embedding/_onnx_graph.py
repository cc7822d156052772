"""Tokenising with the tokenizers library and running a graph with onnxruntime: an encoder without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_select._optional import require
from icl_select.embedding._onnx_files import Exported
from icl_select.embedding.encoder import Vectors
from icl_select.errors import DataError, ModelError
from icl_select.types import BoolArray

__all__ = ["INPUTS", "OUTPUT", "OnnxGraph", "Tokens"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a graph may ask for."""

OUTPUT = "vectors"


class Tokens(NamedTuple):
    """A text as the graph reads it."""

    ids: list[int]
    type_ids: list[int]


class OnnxGraph:
    """Tokenizer and graph of an exported encoder, on the CPU.

    Parameters
    ----------
    exported : Exported
    threads : int
        Threads of one call. Idle ones sleep: spinning would take the cores from other processes.
    name : str
        What messages call the encoder.
    """

    def __init__(self, exported: Exported, threads: int, name: str) -> None:
        purpose = f"the encoder {name}"
        onnxruntime = require("onnxruntime", extra="onnx", purpose=purpose)
        tokenizers = require("tokenizers", extra="onnx", purpose=purpose)
        state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnx", purpose=purpose)
        # Its errors have no base of their own.
        kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
        self._errors: tuple[type[Exception], ...] = tuple(kinds)
        self._name = name
        self.settings = exported.settings
        self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(exported.tokenizer)
        if self.settings.max_tokens is not None:
            direction = "left" if self.settings.cut_left else "right"
            self._tokenizer.enable_truncation(self.settings.max_tokens, direction=direction)
        self._session: Any = self._started(onnxruntime, exported.graph, threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def _started(self, onnxruntime: Any, graph: bytes, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except self._errors as exc:
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph of {self._name} ({exc}). Install a newer "
                "onnxruntime."
            ) from exc

    def tokenize(self, texts: Sequence[str]) -> tuple[list[Tokens], BoolArray]:
        """Token ids cut to the limit, and which texts were cut; DataError for a text without a token."""
        encodings = self._tokenizer.encode_batch_fast([self.settings.prompt + text for text in texts])
        tokens = [Tokens(encoding.ids, encoding.type_ids) for encoding in encodings]
        for row, (ids, _) in enumerate(tokens):
            if not ids:
                raise DataError(f"text {row} gives no token under {self._name}. Fill it in, or leave it out.")
        return tokens, np.array([bool(encoding.overflowing) for encoding in encodings], dtype=bool)

    def run(self, batch: Sequence[Tokens]) -> Vectors:
        """Vectors of shape (n, d) of a batch, padded to its longest text."""
        width = max(len(tokens.ids) for tokens in batch)
        ids = np.full((len(batch), width), self.settings.pad_id, dtype=np.int64)
        type_ids = np.full_like(ids, self.settings.pad_type_id)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            length = len(tokens.ids)
            place = slice(width - length, width) if self.settings.pad_left else slice(0, length)
            ids[row, place], type_ids[row, place], mask[row, place] = tokens.ids, tokens.type_ids, 1
        known = dict(zip(INPUTS, (ids, mask, type_ids), strict=True))
        try:
            vectors: Vectors = self._session.run([OUTPUT], {name: known[name] for name in self._inputs})[0]
        except self._errors as exc:
            raise ModelError(
                f"the model {self._name} failed on {len(batch)} texts of up to {width} tokens ({exc}). Pass a smaller "
                "batch_size; what was finished is in the cache."
            ) from exc
        return vectors
