"""A loaded causal language model: logits only where they are read, on top of caches that are never changed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select._optional import require
from icl_select.errors import ModelError

__all__ = ["Cache", "CausalLM", "check_sharing"]

# What a layer of a cache may be: anything else keeps states that cannot be cut back or spread over rows.
_LAYER_KINDS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of rows of tokens, never written to.

    Attributes
    ----------
    layers : tuple of (keys, values)
        Tensors of shape (rows, heads, width, size), one pair a layer.
    starts, ends : tuple of int
        The tokens of row i stand at ``starts[i]:ends[i]``; what is outside is padding.
    """

    layers: tuple[tuple[Any, Any], ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def width(self) -> int:
        """Places, padding included."""
        return int(self.layers[0][0].shape[2])

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return self.ends[row] - self.starts[row]

    def take(self, rows: Sequence[int]) -> Cache:
        """The cache of these rows, repeats allowed, all ending at the right border.

        Rows stay in one piece, so that windows of attention and relative positions are as in one sequence.
        """
        lengths = tuple(self.length(row) for row in rows)
        width = max(lengths)
        if list(rows) == list(range(len(self.ends))) and all(end == self.width for end in self.ends):
            return self
        if len(set(rows)) == 1:
            spread = tuple((self._one(keys, rows), self._one(values, rows)) for keys, values in self.layers)
        else:
            spread = tuple((self._aligned(keys, rows), self._aligned(values, rows)) for keys, values in self.layers)
        return Cache(spread, tuple(width - length for length in lengths), (width,) * len(rows))

    def _one(self, block: Any, rows: Sequence[int]) -> Any:
        row = rows[0]
        return block[row : row + 1, :, self.starts[row] : self.ends[row]].expand(len(rows), -1, -1, -1)

    def _aligned(self, block: Any, rows: Sequence[int]) -> Any:
        width = max(self.length(row) for row in rows)
        out = block.new_zeros((len(rows), block.shape[1], width, block.shape[3]))
        for place, row in enumerate(rows):
            out[place, :, width - self.length(row) :] = block[row, :, self.starts[row] : self.ends[row]]
        return out


class CausalLM:
    """Runs a model of ``transformers`` over rows of token ids.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on `device`.
    device : str
    name : str
        For messages.
    """

    def __init__(self, model: Any, device: str, name: str) -> None:
        self._torch = require("torch", extra="models", purpose=f"the model {name}")
        self._cache_utils = require("transformers.cache_utils", extra="models", purpose=f"the model {name}")
        self.model = model
        self._device = device
        self.name = name
        self._takes = frozenset(inspect.signature(model.forward).parameters)

    def read(
        self, rows: Sequence[Sequence[int]], at: Sequence[tuple[int, int]], past: Cache | None = None
    ) -> tuple[Any, Cache]:
        """Run rows of tokens, each on top of its row of `past`.

        Parameters
        ----------
        rows : sequence of token ids, none empty
        at : sequence of (row, column)
            Where logits are wanted: after which token of which row.
        past : Cache, optional
            Of as many rows, all ending at the right border.

        Returns
        -------
        logits : tensor of shape (len(at), vocabulary), float32
        cache : Cache
            Of everything read.

        Raises
        ------
        ModelError
            If the model fails, or its numbers are no numbers.

        Notes
        -----
        Only the rows of logits in `at` are ever made where the model has a linear output layer, as all common ones
        have; others make them all and the rest is dropped.
        """
        kept = self._library_cache(past)
        logits = self._run(rows, at, past, kept)
        return logits, self._kept(kept, rows, past)

    def read_whole(self, rows: Sequence[Sequence[int]], at: Sequence[tuple[int, int]]) -> Any:
        """Like :meth:`read`, without any cache."""
        return self._run(rows, at, None, None)

    def logprobs(self, logits: Any) -> Any:
        """Log-softmax of logits, in float32."""
        return self._torch.log_softmax(logits, dim=-1)

    def _run(self, rows: Sequence[Sequence[int]], at: Sequence[tuple[int, int]], past: Cache | None, kept: Any) -> Any:
        try:
            with self._torch.inference_mode():
                logits = self._logits(self._inputs(rows, past), at, kept).float()
                broken = bool(self._torch.isnan(logits).any())
        except (RuntimeError, IndexError) as exc:
            raise self._failure(exc, rows, past) from exc
        if broken:
            raise ModelError(
                f"the model {self.name} gave NaN for a batch of {len(rows)} prompts. Use dtype='float32' or "
                "'bfloat16' (float16 overflows in many models)."
            )
        return logits

    def _logits(self, inputs: dict[str, Any], at: Sequence[tuple[int, int]], kept: Any) -> Any:
        """Logits at (row, column), taken before the output layer where that can be done."""
        torch = self._torch
        row, column = torch.tensor(at, dtype=torch.long, device=self._device).T
        picked = []

        def pick(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            picked.append(True)
            return (args[0][row, column].unsqueeze(0), *args[1:])

        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(pick) if isinstance(head, torch.nn.Linear) else None
        try:
            output = self.model(**inputs, past_key_values=kept, use_cache=kept is not None)
        finally:
            if hook is not None:
                hook.remove()
        return output.logits[0] if picked else output.logits[row, column]

    def _inputs(self, rows: Sequence[Sequence[int]], past: Cache | None) -> dict[str, Any]:
        """Ids, positions and mask. Padding on the right stands behind every token that could see it: causal
        attention hides it, and only padding on the left, in front of a cache, is masked."""
        held = 0 if past is None else past.width
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), dtype=np.int64)
        positions = np.zeros_like(ids)
        mask = np.ones((len(rows), held + width), dtype=np.int64)
        for row, tokens in enumerate(rows):
            before = 0 if past is None else past.length(row)
            ids[row, : len(tokens)] = tokens
            positions[row, : len(tokens)] = np.arange(before, before + len(tokens))
            mask[row, : held - before] = 0
        made = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self._takes:
            made["position_ids"] = positions
        return {key: self._torch.from_numpy(value).to(self._device) for key, value in made.items()}

    def _library_cache(self, past: Cache | None) -> Any:
        """A cache of the library that starts from ours; it concatenates, so that ours stays as it is.

        Made without the configuration, so that layers of sliding attention keep every token: their window is in the
        mask, and what is kept can be cut anywhere.
        """
        cache = self._cache_utils.DynamicCache()
        for keys, values in () if past is None else past.layers:
            layer = self._cache_utils.DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        return cache

    def _kept(self, cache: Any, rows: Sequence[Sequence[int]], past: Cache | None) -> Cache:
        held = 0 if past is None else past.width
        starts = (0,) * len(rows) if past is None else past.starts
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        wanted = held + max(map(len, rows))
        for keys, values in layers:
            if keys is None or any(block.ndim != 4 or block.shape[2] != wanted for block in (keys, values)):
                raise ModelError(f"the model {self.name} keeps no plain cache of keys and values. {_WAY}")
        if not layers:
            raise ModelError(f"the model {self.name} left its cache empty. {_WAY}")
        return Cache(layers, starts, tuple(held + len(tokens) for tokens in rows))

    def _failure(self, exc: Exception, rows: Sequence[Sequence[int]], past: Cache | None) -> ModelError:
        held = 0 if past is None else past.width
        what = f"the model {self.name} failed on {len(rows)} rows of up to {held + max(map(len, rows))} tokens"
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
        memory = isinstance(exc, self._torch.OutOfMemoryError) or "allocate" in reason
        if memory:
            return ModelError(f"{what}: out of memory ({reason}). Pass a smaller batch_size, or dtype='bfloat16'.")
        return ModelError(f"{what} ({reason}). Pass a smaller batch_size or max_length, another dtype or device.")


_WAY = "Pass share=False: every sequence is then computed whole, which is exact for any causal model, but slower."

# Mean difference between both ways, in standard deviations of the logits, beyond which it is no rounding.
_ROUNDING = {"torch.float32": 1e-3}
_ROUNDING_OF_HALVES = 0.1


def check_sharing(runner: CausalLM) -> None:
    """Refuse a model whose cache cannot be shared between sequences.

    Recurrent states (Mamba, RWKV, hybrids) can neither be cut back nor padded, and attention in chunks depends on
    where a chunk begins; keys and values of full and of sliding attention can. What no configuration says is tried
    on a few tokens: two sequences on one beginning, moved to the right border, against each computed whole.

    Raises
    ------
    ModelError
        If it cannot, or gives other numbers.
    """
    reason = _why_not(runner.model)
    if reason is not None:
        raise ModelError(f"common beginnings cannot be shared in {runner.name}: {reason}. {_WAY}")
    size = int(runner.model.get_input_embeddings().weight.shape[0])
    ids = [(7 * place * place + 13 * place + 5) % size for place in range(9)]
    begin, middles, lasts = ids[:4], [ids[4:5], ids[5:8]], [ids[8:], ids[6:8]]
    at = [(row, len(last) - 1) for row, last in enumerate(lasts)]
    _, cache = runner.read([begin], [(0, 3)])
    _, cache = runner.read(middles, [(0, 0), (1, 2)], cache.take([0, 0]))
    shared, _ = runner.read(lasts, at, cache.take([0, 1]))
    whole = [begin + middle + last for middle, last in zip(middles, lasts, strict=True)]
    direct = runner.read_whole(whole, [(row, len(tokens) - 1) for row, tokens in enumerate(whole)])
    difference = float((shared - direct).abs().mean() / direct.std().clamp_min(1e-9))
    if difference > _ROUNDING.get(str(runner.model.dtype), _ROUNDING_OF_HALVES):
        raise ModelError(
            f"common beginnings cannot be shared in {runner.name}: its numbers are others by {difference:.2g} standard "
            f"deviations of its logits with a cache. {_WAY}"
        )


def _why_not(model: Any) -> str | None:
    if getattr(model, "_is_stateful", False):
        return "it keeps a recurrent state"
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return "it takes no past_key_values"
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    if kinds - _LAYER_KINDS:
        return f"it has layers of {', '.join(sorted(kinds - _LAYER_KINDS))}"
    return None
