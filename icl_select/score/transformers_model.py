"""Any causal language model of Hugging Face ``transformers``, on CPU or GPU, common beginnings computed once."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select._models import check_dtype
from icl_select._validation import check_int
from icl_select.errors import ParameterError
from icl_select.score.causal_lm.batching import Scheduler
from icl_select.score.causal_lm.loading import installed, load_causal_lm
from icl_select.score.causal_lm.reading import CausalLM, check_sharing
from icl_select.score.causal_lm.stems import ask
from icl_select.score.causal_lm.writing import Writer
from icl_select.score.encoding import to_loglik
from icl_select.score.pretrained import Texts, read_facts
from icl_select.score.protocol import Generation, Loglik, Usage, check_decoding
from icl_select.score.source import adapter_hash, find_model
from icl_select.types import Decoding, Prompt

__all__ = ["TransformersModel"]

# Tokenizers without a limit say so with a number like 1e30.
_NO_LIMIT = 10**9


class TransformersModel:
    """A causal language model of ``transformers``. Weights are loaded at the first call.

    The context of an item is computed once and its choices in one batch on top of it; prompts of one call that share
    a long beginning (the same demonstrations) share its computation as well. Label words of one token need nothing
    beyond the context. Numbers are those of one sequence at a time without a cache, but for rounding.

    Parameters
    ----------
    model : str
        Hub id (also ``id@revision``), the path of a model folder, or "tiny".
    revision : str, optional
        Commit, tag or branch of a hub model. Anything but a full commit is looked up once and pinned.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; the best there is by default.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the model runs in; log-probabilities are taken in float32.
    batch_size : int, default=8
        How much is computed at once: as much as this many sequences of 1,024 tokens. More of shorter ones, fewer
        of longer ones. Lower it where memory runs out.
    max_length : int, optional
        Tokens that the model reads and writes together; by default the smaller of its positions and of the limit of
        its tokenizer. Longer prompts are cut on the left.
    chat : bool, default=False
        Read ``Prompt.messages`` through the tokenizer's chat template in place of ``Prompt.text``.
    attention : str, optional
        ``attn_implementation`` of transformers, such as "eager" or "sdpa"; its own choice by default.
    lora : str or Path, optional
        Folder of a LoRA adapter, merged into the weights when they are loaded (``icl-select[lora]``).
    share : bool, default=True
        Compute common beginnings once. Models whose cache cannot be shared (recurrent ones such as Mamba, attention
        in chunks) are refused at the first call, and run with ``share=False``: every sequence is then computed
        whole, and a generated text anew for each of its tokens.
    threads : int, optional
        Threads of torch in this process; by default torch decides (``OMP_NUM_THREADS``).

    Raises
    ------
    ModelError, ParameterError, MissingDependencyError
        If the model cannot be found, or a parameter is out of range.

    Notes
    -----
    Batches are formed within one call, so its numbers depend on that call alone, and are the same to the last bit
    when it is repeated on the same machine. Memory beyond the weights: about three caches of `batch_size` times
    1,024 tokens, and logits only for the tokens that are scored. Code that comes with a model is never run.

    The cache is reused for models whose layers are of full or sliding attention (Llama, Mistral, Qwen, GPT-2,
    GPT-Neo, GPT-J, GPT-NeoX ...). Rows of a batch are padded on the right, where causal attention cannot look, and
    caches of different lengths are moved to the right border with their true positions.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
        max_length: int | None = None,
        chat: bool = False,
        attention: str | None = None,
        lora: str | Path | None = None,
        share: bool = True,
        threads: int | None = None,
    ) -> None:
        self.batch_size = check_int(batch_size, name="batch_size", low=1)
        self.chat = bool(chat)
        self.usage = Usage()
        self._limit = None if max_length is None else check_int(max_length, name="max_length", low=2)
        self._threads = None if threads is None else check_int(threads, name="threads", low=1)
        self._dtype = check_dtype(dtype)
        self._device = device
        self._attention = attention
        self._share = bool(share)
        self._lora = None if lora is None else Path(lora).expanduser()
        self._versions = {"engine": "transformers", **installed("transformers", "torch")}
        self._source = find_model(model, revision)
        self._adapter = None if self._lora is None else adapter_hash(self._lora)
        if self._lora is not None:
            self._versions |= installed("peft")

    @property
    def name(self) -> str:
        """Model and revision."""
        return str(self._source)

    @property
    def versions(self) -> Mapping[str, str]:
        """Everything that changes a number, batches and the device left out."""
        known = {
            "model": self._source.name,
            "revision": self._source.revision,
            **self._versions,
            "dtype": self._dtype,
            "max_length": "default" if self._limit is None else str(self._limit),
            "chat": str(self.chat),
        }
        if self._attention is not None:
            known["attention"] = self._attention
        if self._adapter is not None:
            known["lora"] = self._adapter
        return known

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    @property
    def tokenizer_name(self) -> str | None:
        """Folder of the model, or ``id@revision``."""
        return self._source.pinned

    @functools.cached_property
    def max_length(self) -> int | None:
        """Tokens that the model reads and writes together; None if neither model nor tokenizer has a limit."""
        positions = read_facts(self._source).max_length
        if self._limit is not None:
            if positions is not None and self._limit > positions:
                raise ParameterError(
                    f"max_length={self._limit} was asked of {self.name}, which has {positions} positions. Pass at most "
                    "that, or leave it out."
                )
            return self._limit
        limits = [limit for limit in (positions, self._texts.tokenizer.model_max_length) if limit and limit < _NO_LIMIT]
        return int(min(limits)) if limits else None

    @functools.cached_property
    def _texts(self) -> Texts:
        return Texts(self._source, chat=self.chat)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Scheduler]:
        """The model and what runs it, loaded on first use."""
        model, device = load_causal_lm(
            self._source,
            device=self._device,
            dtype=self._dtype,
            attention=self._attention,
            lora=self._lora,
            threads=self._threads,
        )
        runner = CausalLM(model, device, self.name)
        if self._share:
            check_sharing(runner)
        return model, Scheduler(runner, self.batch_size, limit=self.max_length, share=self._share)

    def load(self) -> None:
        """Load the weights now rather than with the first call.

        Raises
        ------
        ModelError, MissingDependencyError
        """
        _ = self._loaded

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Return how likely each choice follows its prompt.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
        choices : sequence of sequence of str, length n
            What may stand after each prompt, leading blanks included; at least one for each.

        Returns
        -------
        Loglik
            Of shape (n, c), c being the most choices that a prompt has.

        Raises
        ------
        PromptError
            If a prompt has no choices, or one that cannot be scored after it.
        ModelError
            If the model cannot be loaded, fails, runs out of memory, or gives NaN.
        """
        _, scheduler = self._loaded
        start = time.perf_counter()
        items = self._texts.encode_items(prompts, choices, max_length=self.max_length)
        questions = ask(items)
        answers, reused = scheduler.score(questions)
        self._count([len(item.context) for item in items], reused, start)
        return to_loglik(items, questions.sums(answers))

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt until a stop string, the end of text, or the token limit.

        Parameters
        ----------
        prompts : sequence of Prompt
        decoding : Decoding

        Returns
        -------
        list of Generation
            ``text`` ends before the first stop string, wherever its tokens are cut, and is decoded from all tokens at
            once; ``logprobs`` are raw, whatever the temperature, and count the token that ends the text.

        Raises
        ------
        ParameterError
            If `decoding` is out of range.
        PromptError
            If a prompt is empty.
        ModelError
            If the model cannot be loaded, fails, runs out of memory, gives NaN, or has no room for `max_tokens`.
        """
        check_decoding(decoding)
        model, scheduler = self._loaded
        start = time.perf_counter()
        ends = self._ends(model)
        texts = [self._texts.text(prompt) for prompt in prompts]
        encoded = self._texts.encode_prompts(prompts, max_length=self.max_length, max_tokens=decoding.max_tokens)
        read = dict(zip(texts, encoded, strict=True))
        writers = {
            text: Writer(tuple(ids), text, decoding, self._texts.decode_after, ends) for text, (ids, _) in read.items()
        }
        reused = dict(zip(writers, scheduler.write(list(writers.values())), strict=True))
        made, saved = [], []
        for text in texts:
            own = writers[text]
            made.append(
                Generation(own.written, tuple(own.logprobs), len(own.ids), own.finished, len(own.prompt), read[text][1])
            )
            # Equal prompts are written once.
            saved.append(reused.pop(text, len(own.prompt)))
        self._count([generation.prompt_tokens for generation in made], saved, start)
        self.usage.generated_tokens += sum(len(writer.ids) for writer in writers.values())
        return made

    def _ends(self, model: Any) -> frozenset[int]:
        """Tokens that end a text: those of the tokenizer and of the model's own generation settings."""
        own = getattr(model.generation_config, "eos_token_id", None)
        listed = own if isinstance(own, (list, tuple)) else [own]
        return frozenset(int(i) for i in (*listed, self._texts.tokenizer.eos_token_id) if i is not None)

    def _count(self, lengths: list[int], reused: list[int], start: float) -> None:
        usage = self.usage
        usage.requests += len(lengths)
        usage.prompt_tokens += sum(lengths)
        usage.cached_tokens += sum(min(pair) for pair in zip(lengths, reused, strict=True))
        usage.seconds += time.perf_counter() - start
