"""vLLM in this process: choices read off prefix trees one token at a time, text generated."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icl_select._fingerprint import fingerprint, seed_from
from icl_select._models import Source
from icl_select.errors import ModelError, ParameterError
from icl_select.score.encoding import to_loglik
from icl_select.score.pretrained import Texts, read_facts
from icl_select.score.protocol import Generation, Loglik, Usage, check_decoding
from icl_select.score.source import find_model
from icl_select.score.vllm_choices import score_items
from icl_select.score.vllm_engine import Engine
from icl_select.score.vllm_setup import Build, EngineOptions, find_adapter, find_build
from icl_select.types import Decoding, Prompt

__all__ = ["VllmModel"]

# vLLM quietly draws at this temperature where a lower one is asked for.
_COOLEST = 0.01


class VllmModel:
    """A causal language model run by vLLM, in process or, with tensor parallelism, by processes that it starts.

    Parameters
    ----------
    model : str
        Hub id (also ``id@revision``), folder, or "tiny".
    revision : str, optional
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "auto" is the one that the weights are saved in, float32 if the configuration is silent: what is recorded is
        the one that runs. (vLLM's own "auto" would turn float32 weights into half precision.)
    quantization : str, optional
        As vLLM names it; by default what the configuration of the weights says.
    max_length : int, optional
        Tokens read and written together; default what the model was made for. Less takes less memory.
    tensor_parallel : int, default=1
        Devices that share one copy of the model.
    data_parallel : int, default=1
        Only 1: vLLM runs several copies behind a server, for which there is the ``openai`` scorer.
    gpu_memory : float, optional
        Share of the GPU's memory to use, default vLLM's. Without effect on CPU.
    kv_cache_gib : float, optional
        Size of the cache of keys and values. Default what `gpu_memory` leaves; on CPU ``VLLM_CPU_KVCACHE_SPACE``,
        else 2.
    lora : str or Path, optional
        Folder of a LoRA adapter as peft saves it.
    chat : bool, default=False
        Send ``Prompt.messages`` in the model's chat template, not ``Prompt.text``.
    model_impl : {"auto", "vllm", "transformers"}, default="auto"
        Whose code runs the architecture: vLLM's own, that of Transformers inside vLLM, or the first that there is.
    enforce_eager : bool, optional
        Do not compile or capture graphs; default on CPU.
    max_num_seqs : int, optional
        Requests computed together; default vLLM's, on CPU 64.
    progress : bool, default=False
        Progress bars on stderr.

    Raises
    ------
    MissingDependencyError
        If vLLM is not installed.
    ModelError, ParameterError
        If there is no such model or adapter, or an option is out of range.

    Notes
    -----
    Log-probabilities are those of the softmax over the whole vocabulary at temperature 1, of generated tokens too.
    Every call begins with an empty prefix cache, so that its numbers depend on the call alone; within the call what
    prompts have in common is computed once. Code that comes with a model is never run.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        dtype: str = "auto",
        quantization: str | None = None,
        max_length: int | None = None,
        tensor_parallel: int = 1,
        data_parallel: int = 1,
        gpu_memory: float | None = None,
        kv_cache_gib: float | None = None,
        lora: str | Path | None = None,
        chat: bool = False,
        model_impl: str = "auto",
        enforce_eager: bool | None = None,
        max_num_seqs: int | None = None,
        progress: bool = False,
    ) -> None:
        self._build: Build = find_build()
        self._source: Source = find_model(model, revision)
        facts = read_facts(self._source)
        length = facts.max_length if max_length is None else max_length
        if length is None:
            raise ModelError(f"the configuration of {model} does not say how many tokens it reads. Pass max_length.")
        self._options = EngineOptions(
            facts.dtype if dtype == "auto" else dtype,
            length,
            quantization=quantization,
            tensor_parallel=tensor_parallel,
            data_parallel=data_parallel,
            gpu_memory=gpu_memory,
            kv_cache_gib=kv_cache_gib,
            model_impl=model_impl,
            enforce_eager=enforce_eager,
            max_num_seqs=max_num_seqs,
        )
        self._adapter = None if lora is None else find_adapter(lora)
        self.chat = chat
        self.progress = progress
        self.usage = Usage()
        self._running: Engine | None = None

    @property
    def versions(self) -> Mapping[str, str]:
        """Model, revision, engine and its version, and the options that change a number."""
        return {
            "model": self._source.name,
            "revision": self._source.revision,
            "engine": "vllm",
            "vllm": str(self._build),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "dtype": self._options.dtype,
            "quantization": self._options.quantization or "as saved",
            "lora": self._adapter.content if self._adapter else "none",
            "model_impl": self._options.model_impl,
            "max_length": str(self.max_length),
            "chat": "yes" if self.chat else "no",
        }

    @property
    def name(self) -> str:
        """Model, the beginning of its revision, and of its adapter's hash."""
        return str(self._source) + (f"+lora-{self._adapter.content[:8]}" if self._adapter else "")

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    @property
    def tokenizer_name(self) -> str:
        """Folder, or hub id with the full revision."""
        return self._source.pinned

    @property
    def max_length(self) -> int:
        """Tokens read and written together."""
        return self._options.max_length

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        r"""Return how likely each choice follows its prompt.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
        choices : sequence of sequence of str, length n
            ``choices[i]`` belong to ``prompts[i]``, leading blanks included: ``"\nTrue"``.

        Returns
        -------
        Loglik

        Raises
        ------
        PromptError
            If an item has no choices, or cannot be encoded (see :func:`icl_select.score.encoding.encode_item`).
        ModelError
            If the engine cannot start or fails, or gives NaN.

        Notes
        -----
        One request of one token for each distinct beginning: for label words of one token that is one request for
        each prompt. Long endings may cost less otherwise: see :func:`icl_select.score.vllm_choices.score_items`.
        """
        if not prompts and not choices:
            return Loglik.from_rows([])
        items = self._texts.encode_items(prompts, choices, max_length=self.max_length)
        engine = self._start()
        return to_loglik(items, score_items(engine, items, self.usage))

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt.

        Parameters
        ----------
        prompts : sequence of Prompt
            Cut on the left to what leaves room for ``decoding.max_tokens``.
        decoding : Decoding

        Returns
        -------
        list of Generation, of the length of `prompts`

        Raises
        ------
        ParameterError
            If `decoding` is out of range; for a temperature between 0 and 0.01, which vLLM does not draw at.
        PromptError
            If a prompt has no token.
        ModelError
            If the engine cannot start or fails, or there is no room for a prompt.
        """
        check_decoding(decoding)
        if 0 < decoding.temperature < _COOLEST:
            raise ParameterError(
                f"temperature={decoding.temperature!r}: vLLM draws at {_COOLEST} or above. Pass 0 for the most likely "
                "token each time."
            )
        if not prompts:
            return []
        texts = [self._texts.text(prompt) for prompt in prompts]
        read = self._texts.encode_prompts(prompts, max_length=self.max_length, max_tokens=decoding.max_tokens)
        engine = self._start()
        parameters = [
            engine.sampling(
                max_tokens=decoding.max_tokens,
                temperature=decoding.temperature,
                stop=list(decoding.stop),
                # 63 bits are what a generator of torch takes.
                seed=seed_from(decoding.seed, text) % 2**63 if decoding.temperature else None,
                logprobs=0,
            )
            for text in texts
        ]
        outputs = engine.ask([ids for ids, _ in read], parameters, self.usage)
        self.usage.generated_tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
        return [
            self._generation(output.outputs[0], ids, cut, decoding)
            for output, (ids, cut) in zip(outputs, read, strict=True)
        ]

    def close(self) -> None:
        """Give back the engine's memory; the next call starts it again."""
        if self._running is not None:
            self._running.close()
            self._running = None

    @functools.cached_property
    def _texts(self) -> Texts:
        return Texts(self._source, chat=self.chat)

    def _start(self) -> Engine:
        """The engine with nothing in its prefix cache; another one after one that failed."""
        if self._running is None or self._running.closed:
            self._running = Engine(self._source, self._build, self._adapter, self._options, progress=self.progress)
        else:
            self._running.forget()
        return self._running

    def _generation(self, made: Any, read: Sequence[int], cut: bool, decoding: Decoding) -> Generation:
        logprobs = tuple(line[token].logprob for token, line in zip(made.token_ids, made.logprobs, strict=True))
        if any(value != value for value in logprobs):
            raise ModelError("the engine gave NaN for a log-probability. Use dtype='bfloat16' or 'float32'.")
        text = self._texts.decode_after(read, made.token_ids)
        # The engine stops at the stop string that is complete first; of two that end together the longer one counts.
        end = min((text.find(stop) for stop in decoding.stop if stop in text), default=len(text))
        finished = made.finish_reason == "stop"
        return Generation(text[:end], logprobs, len(made.token_ids), finished, len(read), cut)
