"""Log-probabilities of choices from a running vLLM: a walk of one-token requests, or whole prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_select.errors import ModelError
from icl_select.score.encoding import EncodedItem
from icl_select.score.protocol import Usage
from icl_select.score.trie import collect, plan_reads, walk_cost
from icl_select.score.vllm_engine import Engine
from icl_select.types import FloatArray

__all__ = ["prefill_is_cheaper", "score_items"]

# What a request costs beside its tokens (scheduling, a row of log-probabilities), counted in tokens.
_OVERHEAD = 16


def score_items(engine: Engine, items: Sequence[EncodedItem], usage: Usage) -> FloatArray:
    """Sum the log-probabilities of the tokens of every choice.

    Parameters
    ----------
    engine : Engine
    items : sequence of EncodedItem, not empty
    usage : Usage
        Counts what is asked.

    Returns
    -------
    ndarray of shape (n, c), float64
        NaN where an item has fewer than c choices.

    Raises
    ------
    ModelError
        If the engine fails, or gives NaN.

    Notes
    -----
    An item is walked (:func:`icl_select.score.trie.plan_reads`) unless :func:`prefill_is_cheaper`: then the engine is
    asked for the log-probabilities of the prompt's own tokens (``prompt_logprobs``), once for each choice. vLLM lets
    such requests write its prefix cache and not read it; telling it to read (``skip_reading_prefix_cache=False``)
    gives log-probabilities of 0 for cached tokens.
    """
    found = np.full((len(items), max(len(item.choices) for item in items)), np.nan)
    # With an adapter vLLM (0.32, CPU) fails on prompt_logprobs: it has its rows of logits counted by requests.
    walks = np.array([engine.adapted or not prefill_is_cheaper(item, engine.block) for item in items])
    for way, score in ((walks, _walk), (~walks, _prefill)):
        part = [item for item, chosen in zip(items, way, strict=True) if chosen]
        if part:
            values = score(engine, part, usage)
            found[way, : values.shape[1]] = values
    return found


def prefill_is_cheaper(item: EncodedItem, block: int) -> bool:
    """Whether reading an item once for each choice costs less than walking its tree, in tokens to compute.

    A cached prefix is a number of whole blocks: every read of a walk computes again what stands behind the last of
    them, half a block on average, and a request costs about as much as 16 tokens. With blocks of 16 (GPU) a walk wins
    for four endings of 20 tokens after 1,000; with blocks of 128 it would compute more tokens than four times 1,000.
    What other prompts have left in the cache is not counted, so that the way depends on the item alone.

    Parameters
    ----------
    item : EncodedItem
    block : int
        Tokens of a block of the prefix cache.

    Examples
    --------
    >>> endings = EncodedItem((1,) * 1000, tuple((word,) * 20 for word in range(4)))
    >>> prefill_is_cheaper(endings, block=16), prefill_is_cheaper(endings, block=128)
    (False, True)
    """
    requests, tokens = walk_cost(item, block)
    once = sum(len(item.context) + len(choice) - 1 + _OVERHEAD for choice in item.choices)
    return requests > 1 and once < tokens + requests * _OVERHEAD


def _walk(engine: Engine, items: Sequence[EncodedItem], usage: Usage) -> FloatArray:
    plan = plan_reads(items)
    parameters = [
        engine.sampling(max_tokens=1, temperature=0, logprob_token_ids=list(read.wanted), detokenize=False)
        for read in plan.reads
    ]
    outputs = engine.ask([read.prefix for read in plan.reads], parameters, usage)
    answers = [{token: found.logprob for token, found in output.outputs[0].logprobs[0].items()} for output in outputs]
    return collect(items, plan, answers)


def _prefill(engine: Engine, items: Sequence[EncodedItem], usage: Usage) -> FloatArray:
    """Read context and choice but for its last token, which is asked for as the one that follows: so that it fits."""
    pairs = [(row, column) for row, item in enumerate(items) for column in range(len(item.choices))]
    tails = [items[row].choices[column] for row, column in pairs]
    parameters = [
        engine.sampling(max_tokens=1, temperature=0, prompt_logprobs=0, logprob_token_ids=[tail[-1]], detokenize=False)
        for tail in tails
    ]
    reads = [[*items[row].context, *tail[:-1]] for (row, _), tail in zip(pairs, tails, strict=True)]
    outputs = engine.ask(reads, parameters, usage)
    values = np.full((len(items), max(len(item.choices) for item in items)), np.nan)
    for (row, column), tail, output in zip(pairs, tails, outputs, strict=True):
        lines = [*output.prompt_logprobs[len(items[row].context) :], output.outputs[0].logprobs[0]]
        total = sum(line[token].logprob for line, token in zip(lines, tail, strict=True))
        if total != total:
            raise ModelError("the engine gave NaN for a log-probability. Use dtype='bfloat16' or 'float32'.")
        values[row, column] = total
    return values
