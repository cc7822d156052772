"""From a sentence-transformers model to an ONNX graph: the one step that needs torch."""

from __future__ import annotations

import io
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

from icl_select._models import Source, failures, start_torch
from icl_select._optional import require
from icl_select._quiet import without_bars
from icl_select.embedding._onnx_files import Exported, Settings
from icl_select.embedding._onnx_graph import INPUTS, OUTPUT, OnnxGraph
from icl_select.embedding.sentence_transformer import default_prompt, token_limit
from icl_select.errors import ModelError

__all__ = ["export_model"]

_OPSET = 17

# Relative to the largest number in the vectors; float32 on another path stays well below.
_TOLERANCE = 1e-5

# What the export is traced and tried with: of unlike lengths, the last one cut by most models.
_PROBES = ["A short text.", "  Grüße, 请问我的订单在哪里?\n\tTwo  spaces.", "one more word of a long text " * 100]


def export_model(source: Source, location: str, name: str) -> Exported:
    """Turn a model into a graph from token ids to vectors, pooling and normalisation included, in float32.

    Parameters
    ----------
    source : Source
        What messages call the model.
    location : str
        Its folder.
    name : str
        What messages call the encoder.

    Returns
    -------
    Exported
        Tried before it is returned: it gives the vectors of the model.

    Raises
    ------
    MissingDependencyError
        If torch, sentence-transformers, onnx or onnxruntime is not installed.
    ModelError
        If the model cannot be loaded, is more than a transformer with mean pooling and a normalisation, cannot be
        exported, or the graph does not give its vectors.
    """
    purpose = f"exporting the encoder {name}"
    for module in ("onnx", "onnxruntime", "tokenizers"):  # told at once, not after the model was loaded
        require(module, extra="onnx", purpose=purpose)
    torch, _ = start_torch("cpu", None, extra="onnx", purpose=purpose)
    library = require("sentence_transformers", extra="onnx", purpose=purpose)
    with failures(source.name, None, local=True), without_bars():
        model = library.SentenceTransformer(
            location,
            device="cpu",
            trust_remote_code=False,
            # Plain matrix products: they export to a few operators that onnxruntime fuses again.
            model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
        ).eval()
    _check_stack(model, source.name)
    exported = Exported(_graph(torch, model, source.name), _tokenizer(model), _settings(model), _versions())
    _check_vectors(model, exported, source.name, name)
    return exported


def _check_stack(model: Any, name: str) -> None:
    """Refuse what the graph and the tokenizer together cannot reproduce."""
    purpose = f"exporting the model {name}"
    modules: Any = require("sentence_transformers.sentence_transformer.modules", extra="onnx", purpose=purpose)
    tokenizers: Any = require("tokenizers", extra="onnx", purpose=purpose)
    kinds = [type(module) for module in model]
    found = " + ".join(kind.__name__ for kind in kinds)
    stack = [modules.Transformer, modules.Pooling, modules.Normalize]
    if kinds not in (stack, stack[:2]):
        raise _refusal(name, f"is {found}, not Transformer + Pooling with or without Normalize")
    transformer, pooling = model[0], model[1]
    if pooling.pooling_mode != "mean":
        raise _refusal(name, f"pools by {pooling.pooling_mode!r}, not by the mean")
    if default_prompt(model) and not pooling.include_prompt:
        raise _refusal(name, "leaves its prompt out of the mean")
    if list(transformer.modalities) != ["text"]:
        raise _refusal(name, f"reads {transformer.modalities}, not text alone")
    if not isinstance(getattr(model.tokenizer, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise _refusal(name, "has a tokenizer that the tokenizers library cannot run")


def _refusal(name: str, why: str) -> ModelError:
    return ModelError(
        f"the model {name} {why}, so it cannot become an ONNX encoder. Name it without onnx, and sentence-transformers "
        "runs it."
    )


def _graph(torch: Any, model: Any, name: str) -> bytes:
    """The whole stack of modules, traced on the probes."""
    features = {key: value for key, value in model.preprocess(_PROBES[:2]).items() if isinstance(value, torch.Tensor)}
    inputs = list(features)
    if not set(inputs) <= set(INPUTS):
        raise _refusal(name, f"asks for {', '.join(sorted(set(inputs) - set(INPUTS)))} beside tokens")
    whole = torch.nn.Module()
    whole.model = model
    whole.forward = lambda *tensors: model(dict(zip(inputs, tensors, strict=True)))["sentence_embedding"]
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            # That tracing can go wrong: the vectors are compared below.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                tuple(features.values()),
                stream,
                dynamo=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=[OUTPUT],
                dynamic_axes={**{key: {0: "texts", 1: "tokens"} for key in inputs}, OUTPUT: {0: "texts"}},
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError) as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise _refusal(name, f"cannot be exported by torch {torch.__version__} ({reason[0].rstrip('.')})") from exc
    return stream.getvalue()


def _tokenizer(model: Any) -> bytes:
    """The tokenizer as it was loaded, which may differ from the file beside the model; it neither cuts nor pads."""
    loaded = model.tokenizer.backend_tokenizer
    plain = type(loaded).from_str(loaded.to_str())
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str()).encode()


def _settings(model: Any) -> Settings:
    tokenizer = model.tokenizer
    return Settings(
        dim=int(model.get_embedding_dimension()),
        max_tokens=token_limit(model),
        prompt=default_prompt(model),
        pad_id=int(tokenizer.pad_token_id),
        pad_type_id=int(tokenizer.pad_token_type_id),
        pad_left=tokenizer.padding_side == "left",
        cut_left=tokenizer.truncation_side == "left",
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers", "onnx")}


def _check_vectors(model: Any, exported: Exported, model_name: str, name: str) -> None:
    """Hold the graph against the library, in one batch and one text at a time."""
    special = " ".join(["special", *model.tokenizer.all_special_tokens])
    probes = [*_PROBES, special]
    expected = np.asarray(model.encode(probes, batch_size=len(probes), show_progress_bar=False), dtype=np.float32)
    graph = OnnxGraph(exported, 1, name)
    tokens = graph.tokenize(probes)[0]
    ours = np.stack([graph.run(tokens), np.concatenate([graph.run([some]) for some in tokens])])
    gap = float(np.abs(ours - expected).max() / np.abs(expected).max())
    if not gap <= _TOLERANCE:
        raise _refusal(model_name, f"gives other vectors as a graph (by {gap:.1g} of the largest number)")
