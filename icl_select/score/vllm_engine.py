"""A running vLLM: the settings that this process needs, requests in order, and errors that say what to do."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icl_select._models import Source
from icl_select._optional import require
from icl_select.errors import ModelError
from icl_select.score.protocol import Usage
from icl_select.score.vllm_setup import Adapter, Build, EngineOptions

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

_PURPOSE = "the vLLM scorer"

# vLLM would take a share of all memory, which a process on a shared machine does not own.
_CPU_CACHE = 2 << 30
_CPU_SEQUENCES = 64
# vLLM's own is 128. A read finds whole blocks of its prefix: with the smallest that its CPU kernels like, words of
# several tokens were scored three times as fast (benchmarks/label_scoring.py), and whole prompts as fast as before.
_CPU_BLOCK = 32

# Requests handed to vLLM at once; more only takes memory for prompts that wait.
_SUBMIT = 4096

_START = (
    "Where memory is short, lower max_length or max_num_seqs, raise gpu_memory (GPU) or kv_cache_gib (CPU), or take a "
    "smaller dtype; where the architecture is unknown to vLLM, pass model_impl='transformers' or use the "
    "'transformers' scorer. VLLM_LOGGING_LEVEL=INFO shows what vLLM did."
)
_DIED = (
    "Answers of earlier calls are kept where results are cached: run the same command again and it continues there. If "
    "it fails at the same place, lower max_num_seqs, max_length or gpu_memory."
)


# What comes out of vLLM besides its own errors.
_RAISED = (RuntimeError, ValueError, OSError, AssertionError, ImportError, LookupError, TypeError, AttributeError)


class Engine:
    """A model loaded by vLLM into this process.

    Parameters
    ----------
    source : Source
    build : Build
    adapter : Adapter or None
        LoRA adapter that every request uses.
    options : EngineOptions
    progress : bool
        Show vLLM's progress bars (stderr).

    Raises
    ------
    MissingDependencyError, ModelError
        If vLLM cannot be imported, or does not start.
    """

    def __init__(
        self, source: Source, build: Build, adapter: Adapter | None, options: EngineOptions, *, progress: bool
    ) -> None:
        chosen = options.to_vllm()
        eager = chosen.setdefault("enforce_eager", build.cpu)
        _prepare(cpu_eager=build.cpu and eager)
        torch: Any = require("torch", extra="vllm", purpose=_PURPOSE)
        vllm = require("vllm", extra="vllm", purpose=_PURPOSE)
        if build.cpu:
            chosen.setdefault("max_num_seqs", _CPU_SEQUENCES)
            chosen.setdefault("block_size", _CPU_BLOCK)
            if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
                chosen.setdefault("kv_cache_memory_bytes", _CPU_CACHE)
        if adapter is not None:
            chosen |= {"enable_lora": True, "max_lora_rank": adapter.rank}
        threads = torch.set_num_threads
        logger.info("starting vLLM %s with %s", build, source)
        try:
            with _failures(f"vLLM cannot start {source.name}", _START), _beside_numba(cpu=build.cpu):
                self._llm = vllm.LLM(
                    model=source.location,
                    revision=source.hub_revision,
                    tokenizer_revision=source.hub_revision,
                    trust_remote_code=False,
                    enable_prefix_caching=True,
                    use_tqdm_on_load=progress,
                    **chosen,
                )
        finally:
            # The CPU worker puts a function without effect in its place, for the whole process.
            torch.set_num_threads = threads
        self.sampling: Any = vllm.SamplingParams
        self._name = source.name
        self._progress = progress
        self.closed = False
        self._lora = None
        if adapter is not None:
            lora = require("vllm.lora.request", extra="vllm", purpose=_PURPOSE)
            self._lora = lora.LoRARequest(adapter.content[:8], 1, adapter.folder)

    @property
    def block(self) -> int:
        """Tokens of a block of the prefix cache."""
        return int(self._llm.llm_engine.vllm_config.cache_config.block_size)

    @property
    def adapted(self) -> bool:
        """Whether a LoRA adapter is used."""
        return self._lora is not None

    def forget(self) -> None:
        """Empty the prefix cache: what other calls left in it would change the last digits of the next."""
        if not self._llm.reset_prefix_cache():
            logger.warning(
                "vLLM still holds blocks of its prefix cache: a run that is resumed may differ in the last digits"
            )

    def ask(self, reads: Sequence[list[int]], parameters: Sequence[Any], usage: Usage) -> list[Any]:
        """Send requests in their order, some thousands at a time; return vLLM's outputs and count them.

        Raises
        ------
        ModelError
            If vLLM fails. The engine is closed then.
        """
        started = time.perf_counter()
        outputs: list[Any] = []
        for start in range(0, len(reads), _SUBMIT):
            part = slice(start, start + _SUBMIT)
            outputs += self._submit([{"prompt_token_ids": ids} for ids in reads[part]], list(parameters[part]))
        usage.requests += len(reads)
        usage.prompt_tokens += sum(len(ids) for ids in reads)
        usage.cached_tokens += sum(output.num_cached_tokens or 0 for output in outputs)
        usage.seconds += time.perf_counter() - started
        return outputs

    def _submit(self, requests: list[Any], parameters: list[Any]) -> list[Any]:
        answered = False
        try:
            with _failures(f"vLLM failed while running {self._name}", _DIED):
                made = self._llm.generate(requests, parameters, use_tqdm=self._progress, lora_request=self._lora)
            answered = True
        finally:
            if not answered:
                # Requests that are still queued would be answered by the next call.
                self.close()
        if len(made) != len(requests):
            raise ModelError(f"vLLM answered {len(made)} of {len(requests)} requests. {_DIED}")
        return list(made)

    def close(self) -> None:
        """Give back the memory. The engine cannot be used any more."""
        if not self.closed:
            self.closed = True
            self._llm.llm_engine.engine_core.shutdown()


def _prepare(*, cpu_eager: bool) -> None:
    """Set what the process needs where the user has not; what is set stays as it is.

    One process for the scheduler and the front end: requests are then scheduled in the order in which they are
    given, so that the same call gives the same numbers to the last bit, and nothing has to be spawned. Log lines go
    to stderr, and only errors: a start without anything amiss warns a dozen times.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if cpu_eager and "TORCHDYNAMO_DISABLE" not in os.environ:
        # On CPU the first request with log-probabilities compiles its sampler for 20 s, also with enforce_eager. The
        # variable is for workers; torch has read it here already if it was imported before.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
        dynamo: Any = require("torch._dynamo.config", extra="vllm", purpose=_PURPOSE)
        dynamo.disable = True


@contextlib.contextmanager
def _beside_numba(*, cpu: bool) -> Iterator[None]:
    """Let vLLM start on CPU in a process that has loaded numba, as any has that selected examples before.

    To put its CPU kernels in place vLLM 0.32 asks ``vars(value).get`` of all that any loaded module holds. llvmlite's
    handle of its library has an answer for every attribute, ``__dict__`` too, which is then no mapping. While the
    engine starts that module sees a ``vars`` of its own, for which such objects are empty.
    """
    name = "vllm.triton_utils.dispatcher"
    if not cpu or importlib.util.find_spec(name) is None:
        yield
        return

    def attributes(value: Any) -> Mapping[str, Any]:
        found = vars(value)
        return found if isinstance(found, Mapping) else {}

    dispatcher: Any = require(name, extra="vllm", purpose=_PURPOSE)
    dispatcher.vars = attributes
    try:
        with warnings.catch_warnings():
            # Looking at all that modules hold touches what they have deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        del dispatcher.vars


@contextlib.contextmanager
def _failures(what: str, way: str) -> Iterator[None]:
    """Turn what vLLM raises into a ModelError of the form ``what: reason. way``.

    vLLM's own errors are no subclasses of what Python raises, and errors of CUDA, memory and of a worker that died
    arrive as RuntimeError; a broken assertion inside it as AssertionError.
    """
    errors = require("vllm.exceptions", extra="vllm", purpose=_PURPOSE)
    try:
        yield
    except ModelError:
        raise
    except (errors.VLLMError, *_RAISED) as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ModelError(f"{what}: {lines[0].rstrip('.')}. {way}") from exc
