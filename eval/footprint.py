"""How large a language model is: counted on its configuration, without weights and without memory for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from icl_select._models import Source, failures
from icl_select._optional import require
from icl_select.errors import ModelError
from icl_select.score.source import find_model

__all__ = ["DTYPE_BYTES", "Footprint", "kv_numbers", "measure_model", "skeleton"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a model that reads several sequences at once.

    Attributes
    ----------
    model : str
        Name and revision, without a path.
    architecture : str
    parameters : int
        Tied ones once.
    dtype : str
        Of weights, keys and values.
    weight_bytes : int
    kv_bytes_per_token : int
        Keys and values of one token in all layers. An upper bound where layers keep a window only.
    max_length, sequences : int
        Tokens of one sequence at most, and sequences at a time.
    """

    model: str
    architecture: str
    parameters: int
    dtype: str
    weight_bytes: int
    kv_bytes_per_token: int
    max_length: int
    sequences: int

    @property
    def kv_bytes(self) -> int:
        """Keys and values of `sequences` full sequences."""
        return self.kv_bytes_per_token * self.max_length * self.sequences

    @property
    def total_bytes(self) -> int:
        """Weights, keys and values; what an engine needs beyond them for one step is not in it."""
        return self.weight_bytes + self.kv_bytes

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**asdict(self), "kv_bytes": self.kv_bytes, "total_bytes": self.total_bytes}


def measure_model(
    model: str,
    revision: str | None = None,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    sequences: int = 1,
) -> Footprint:
    """Count the parameters of a model and the bytes of its keys and values.

    Parameters
    ----------
    model, revision : str
        As :func:`icl_select.score.source.find_model` takes them.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        That of the weights as they are loaded; "auto" is the one that the configuration names.
    max_length : int, optional
        Tokens of one sequence; None is what the model reads at most.
    sequences : int, default=1

    Raises
    ------
    MissingDependencyError
        If transformers is not installed.
    ModelError
        If the model cannot be found, is quantised (its configuration does not say how many bytes are left), has no
        keys and values of the usual form, or `dtype` is not one of the above.

    Notes
    -----
    Keys and values: two vectors of ``head_dim`` for each key-value head of each layer. The architecture is built on
    torch's "meta" device, which holds shapes and no numbers: a second or so, whatever the size of the model.
    """
    source = find_model(model, revision)
    config = _config(source)
    text = config.get_text_config()
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{source} is quantised, and its configuration does not say what its weights take in memory.")
    chosen = _dtype_name(config) if dtype == "auto" else dtype
    if chosen not in DTYPE_BYTES:
        raise ModelError(f"the memory of {source} in {chosen!r} is not known. Known are {', '.join(DTYPE_BYTES)}.")
    with failures(source.name, source.hub_revision, local=source.local):
        parameters = sum(weight.numel() for weight in skeleton(config).parameters())
    length = max_length or getattr(text, "max_position_embeddings", None)
    if length is None:
        raise ModelError(f"the configuration of {source} does not say how much it reads. Pass max_length.")
    return Footprint(
        model=str(source),
        architecture=(config.architectures or [type(config).__name__])[0],
        parameters=parameters,
        dtype=chosen,
        weight_bytes=parameters * DTYPE_BYTES[chosen],
        kv_bytes_per_token=kv_numbers(text, str(source)) * DTYPE_BYTES[chosen],
        max_length=int(length),
        sequences=sequences,
    )


def skeleton(config: Any) -> Any:
    """The architecture of a configuration with shapes only: no memory is taken for weights."""
    torch = require("torch", extra="models", purpose="counting the parameters of a model")
    transformers = require("transformers", extra="models", purpose="counting the parameters of a model")
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def _config(source: Source) -> Any:
    transformers = require("transformers", extra="models", purpose="reading the configuration of a model")
    revision = source.hub_revision
    with failures(source.name, revision, local=source.local):
        return transformers.AutoConfig.from_pretrained(source.location, revision=revision, trust_remote_code=False)


def _dtype_name(config: Any) -> str:
    """What the weights were saved in; float32 where the configuration says nothing, as transformers reads it."""
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def kv_numbers(text: Any, name: str) -> int:
    """Numbers kept of one token: keys and values of every key-value head of every layer."""
    layers, heads = getattr(text, "num_hidden_layers", None), getattr(text, "num_attention_heads", None)
    if not isinstance(layers, int) or not isinstance(heads, int):
        raise ModelError(f"the configuration of {name} names no layers and heads: what its cache takes is not known.")
    shared = getattr(text, "num_key_value_heads", None) or heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2 * layers * int(shared) * int(size)
