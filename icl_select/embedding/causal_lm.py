"""Mean of the last hidden states of a language model, as published for GPT-J; works with any AutoModel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from icl_select._fingerprint import fingerprint
from icl_select._models import (
    check_dtype,
    failures,
    find_source,
    length_batches,
    start_torch,
)
from icl_select._optional import require
from icl_select._quiet import without_bars
from icl_select._validation import check_int
from icl_select.embedding._progress import progress_bar
from icl_select.embedding.encoder import Encoded, Vectors, check_texts
from icl_select.errors import DataError, ModelError
from icl_select.types import BoolArray

__all__ = ["CausalLMEncoder"]

# Tokenizers without a limit say so with a number like 1e30.
_NO_LIMIT = 10**9


class CausalLMEncoder:
    """Mean pooling over the last hidden state of a language model.

    Every token of the text counts once, padding never. Special tokens are those that the model's tokenizer adds
    by itself; no BOS is put in front where the tokenizer puts none.

    Parameters
    ----------
    model : str
        Hub id, such as ``"EleutherAI/gpt-j-6b"``, or the path of a model folder.
    revision : str, optional
        Commit, tag or branch of a hub model. Anything but a full commit is looked up once and pinned.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; the best there is by default.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the model runs in; pooling is in float32 and vectors are float32 in any case.
    batch_size : int, default=8
    max_tokens : int, optional
        Tokens read of a text. By default what the model can read: the smaller of its positions and of the limit
        of its tokenizer.
    threads : int, optional
        Threads of torch in this process; by default torch decides (``OMP_NUM_THREADS``).

    Notes
    -----
    Rows are padded on the right behind the attention mask, whatever side the tokenizer prefers, so that positions
    start at zero in every row. Code that comes with a hub model is never run.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
        *,
        max_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.batch_size = check_int(batch_size, name="batch_size", low=1)
        self._limit = None if max_tokens is None else check_int(max_tokens, name="max_tokens", low=1)
        self._threads = None if threads is None else check_int(threads, name="threads", low=1)
        self._dtype = check_dtype(dtype)
        self._device = device
        self._source = find_source(model, revision)

    @property
    def name(self) -> str:
        """Model, pooling, and what differs from the defaults."""
        limit = "" if self._limit is None else f", {self._limit} tokens"
        dtype = "" if self._dtype == "float32" else f", {self._dtype}"
        return f"{self._source} (mean of last hidden state{limit}{dtype})"

    @property
    def revision(self) -> str:
        """Commit of a hub model; hash of the content of a local one."""
        return self._source.revision

    @property
    def fingerprint(self) -> str:
        """Hash of model, revision, pooling, dtype and token limit."""
        return fingerprint(
            {
                "kind": "causal_lm",
                "version": 1,
                "pooling": "mean",
                "model": self._source.name,
                "revision": self._source.revision,
                "dtype": self._dtype,
                "max_tokens": self._limit,
            }
        )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._parts[1].config.hidden_size)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that are read of a text, special tokens included."""
        if self._limit is not None:
            return self._limit
        tokenizer, model, _ = self._parts
        positions = getattr(model.config, "max_position_embeddings", None)
        limits = [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < _NO_LIMIT]
        return int(min(limits)) if limits else None

    def load(self) -> None:
        """Load tokenizer and model now rather than with the first text.

        Raises
        ------
        MissingDependencyError
            If the extra that brings the library is not installed.
        ModelError
            If the model cannot be loaded.
        """
        _ = self._parts

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any, str]:
        """Tokenizer, model and device, loaded on first use."""
        source = self._source
        purpose = f"the encoder {source}"
        torch, device = start_torch(self._device, self._threads, extra="models", purpose=purpose)
        transformers = require("transformers", extra="models", purpose=purpose)
        options: dict[str, Any] = {"trust_remote_code": False}
        if not source.local:
            options["revision"] = source.revision
        with failures(source.name, source.revision, local=source.local), without_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.location, **options)
            model = transformers.AutoModel.from_pretrained(
                source.location, dtype=getattr(torch, self._dtype), **options
            )
            return tokenizer, model.to(device).eval(), device

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        """Encode texts, in order, in batches of similar length.

        Parameters
        ----------
        texts : sequence of str
        progress : bool, default=False
            Show a bar on stderr.

        Returns
        -------
        Encoded
            ``vectors`` of shape (n, d) float32 and ``truncated`` of shape (n,) bool.

        Raises
        ------
        DataError
            If a text is empty, no string, or gives no token at all.
        ModelError
            If the model cannot be loaded or fails while running.
        """
        items = check_texts(texts)
        tokens, truncated = self._tokenize(items)
        vectors = np.empty((len(items), self.dim), dtype=np.float32)
        with progress_bar(len(items), self.name, progress) as bar:
            for rows in length_batches([len(ids) for ids in tokens], self.batch_size):
                vectors[rows] = self._run([tokens[row] for row in rows])
                bar.update(len(rows))
        return Encoded(vectors, truncated)

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], BoolArray]:
        """Token ids cut to the limit, and which texts were cut; counted before the cut."""
        truncated = np.zeros(len(texts), dtype=bool)
        if not texts:
            return [], truncated
        tokenizer, limit = self._parts[0], self.max_tokens
        tokens: list[list[int]] = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        for row, ids in enumerate(tokens):
            if not ids:
                raise DataError(f"text {row} gives no token under {self.name}. Fill it in, or leave it out.")
            if limit is not None and len(ids) > limit:
                truncated[row] = True
                # The tokenizer cuts, so that a special token at the end survives.
                tokens[row] = tokenizer(texts[row], truncation=True, max_length=limit)["input_ids"]
        return tokens, truncated

    def _run(self, batch: list[list[int]]) -> Vectors:
        import torch

        _, model, device = self._parts
        ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        mask = mask.to(device)
        try:
            with torch.inference_mode():
                hidden = model(input_ids=ids.to(device), attention_mask=mask).last_hidden_state.float()
                weights = mask.unsqueeze(-1).float()
                mean = torch.where(weights > 0, hidden, 0.0).sum(1) / weights.sum(1)
            vectors: Vectors = mean.cpu().numpy()
        except RuntimeError as exc:
            raise ModelError(
                f"the model {self.name} failed on {len(batch)} texts of up to {ids.shape[1]} tokens ({exc}). Pass a "
                "smaller batch_size, another dtype or another device; what was finished is in the cache."
            ) from exc
        return vectors
