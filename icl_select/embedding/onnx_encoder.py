"""An encoder that runs an exported graph with onnxruntime: no torch in the process once the export is there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icl_select._cache import cache_name, default_cache_folder
from icl_select._fingerprint import fingerprint
from icl_select._models import find_source, length_batches
from icl_select._validation import check_int
from icl_select.embedding._onnx_files import Exported, find_or_export
from icl_select.embedding._onnx_graph import OnnxGraph
from icl_select.embedding._progress import progress_bar
from icl_select.embedding.encoder import Encoded, check_texts
from icl_select.embedding.onnx_export import export_model
from icl_select.embedding.sentence_transformer import MINILM, MINILM_SHAPE, minilm_folder, minilm_source
from icl_select.errors import ModelError

__all__ = ["OnnxEncoder"]

# Raise it with every change of the graph or of how texts are cut and padded that moves a vector.
_RECIPE = 1


class OnnxEncoder:
    """Sentence embeddings of an exported model, in float32 on the CPU.

    The first use exports the model into ``onnx/`` of the cache folder (``$ICS_CACHE_DIR``, else
    ``~/.cache/icl-select``), which needs torch and sentence-transformers. From then on neither is imported, here
    or on any machine that has the folder: onnxruntime and tokenizers are enough.

    Parameters
    ----------
    model : str, default="minilm"
        ``"minilm"`` (weights in a package), or the path of a sentence-transformers folder: a transformer with mean
        pooling, with or without a normalisation.
    batch_size : int, default=32
    threads : int, default=1
        Threads of one call. One per process is best when several processes share the cores.

    Notes
    -----
    Vectors are those of :class:`SentenceTransformerEncoder` within 1e-6 for models that normalise. The fingerprint
    is another one all the same: a pool and its queries come from one way of computing, or near ties swap. As there,
    a text's vector depends on the texts it is batched with by about 1e-7.
    """

    def __init__(self, model: str = MINILM, batch_size: int = 32, *, threads: int = 1) -> None:
        self.batch_size = check_int(batch_size, name="batch_size", low=1)
        self._threads = check_int(threads, name="threads", low=1)
        # A folder of a user's may be called minilm too: then its revision differs.
        self._packaged = model == MINILM
        if not self._packaged and not Path(model).expanduser().is_dir():
            raise ModelError(
                f"the encoder onnx takes 'minilm' or a model folder, and {model!r} is neither. Download a hub model "
                "first: hf download OWNER/MODEL --local-dir FOLDER. Then pass the folder."
            )
        self._source = minilm_source() if self._packaged else find_source(model, None)

    @property
    def name(self) -> str:
        """Model, and that it runs as a graph."""
        return f"{MINILM if self._packaged else self._source} (onnx)"

    @property
    def revision(self) -> str:
        """Hash of the weights of the packaged model; of the content of a folder."""
        return self._source.revision

    @property
    def fingerprint(self) -> str:
        """Hash of model, revision and the recipe of the graph."""
        return fingerprint(
            {"kind": "onnx", "version": _RECIPE, "model": self._source.name, "revision": self._source.revision}
        )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return MINILM_SHAPE[0] if self._packaged else self._graph.settings.dim

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, special tokens and prompt included."""
        return MINILM_SHAPE[1] if self._packaged else self._graph.settings.max_tokens

    @property
    def concurrent(self) -> bool:
        """Whether several threads may encode at once, each on one core."""
        return self._threads == 1

    def load(self) -> None:
        """Load the graph now rather than with the first text; export it if that was never done.

        Raises
        ------
        MissingDependencyError
            If the extra that brings the libraries is not installed.
        ModelError
            If the model cannot be loaded or exported.
        StoreError
            If the cache folder cannot be read or written.
        """
        _ = self._graph

    @functools.cached_property
    def _graph(self) -> OnnxGraph:
        folder = default_cache_folder() / "onnx" / cache_name(self._source.name, self.fingerprint)
        return OnnxGraph(find_or_export(folder, self.fingerprint, self._export), self._threads, self.name)

    def _export(self) -> Exported:
        location = str(minilm_folder()) if self._packaged else self._source.location
        return export_model(self._source, location, self.name)

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
        StoreError
            If the exported graph cannot be read or stored.
        """
        items = check_texts(texts)
        vectors = np.empty((len(items), self.dim), dtype=np.float32)
        if not items:
            return Encoded(vectors, np.zeros(0, dtype=bool))
        tokens, truncated = self._graph.tokenize(items)
        with progress_bar(len(items), self.name, progress) as bar:
            for rows in length_batches([len(some.ids) for some in tokens], self.batch_size):
                vectors[rows] = self._graph.run([tokens[row] for row in rows])
                bar.update(len(rows))
        return Encoded(vectors, truncated)
