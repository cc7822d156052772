"""Joining and cutting the parts of a prompt as the published code does, through MetaICL's "direct" format."""

from __future__ import annotations

from collections.abc import Sequence

from icl_select.prompt import Tokenizer
from icl_select.types import Demonstration, Example

from .tasks import Task

__all__ = ["DEMONSTRATION", "QUERY", "WHOLE", "assemble"]

DEMONSTRATION = 256
"""Tokens of a demonstration, its separator and answer included."""

QUERY = 254
"""Tokens of the query, its separator included, and its longest answer."""

WHOLE = 1024
"""Tokens of everything, the longest answer included."""


def assemble(
    task: Task, tokenizer: Tokenizer, shown: Sequence[Demonstration], query: Example, choices: Sequence[str]
) -> tuple[str, dict[str, int]]:
    """Write a prompt with every part cut at a token's border.

    A demonstration loses the end of its input, never its answer. The query loses its *end*, which is where its cue
    for the answer stands: this is the error of the published code. What is then too long as a whole loses its
    beginning. The separator stands before the query even where no demonstration does.

    Parameters
    ----------
    task : Task
        Its demonstrations must end in its prefix and the label.
    tokenizer : Tokenizer
    shown : sequence of Demonstration
        In prompt order.
    query : Example
    choices : sequence of str

    Returns
    -------
    text : str
    cut : dict
        ``demonstrations``: how many were cut; ``query`` and ``whole``: tokens lost from the end of the query and from
        the beginning of the whole.

    Notes
    -----
    The published code joins token ids; here the text between the same borders is read again by the engine, which may
    join tokens across a seam. It also cuts the beginning for each choice by itself; here the longest decides for all
    of them, so that they are compared after the same text.
    """
    answer_room = max((_length(tokenizer, task.prefix + choice) for choice in choices), default=0)
    parts, n_cut = [], 0
    for place, demonstration in enumerate(shown):
        answer = task.prefix + demonstration.label
        rendered = task.template.render_demonstration(demonstration, place + 1)
        assert rendered.endswith(answer)
        asked = (task.separator if place else "") + rendered.removesuffix(answer)
        kept = tokenizer.cut(asked, max(0, DEMONSTRATION - _length(tokenizer, answer)))
        n_cut += kept != asked
        parts.append(kept + answer)
    asked = task.separator + task.template.render_query(query, len(shown) + 1)
    kept = tokenizer.cut(asked, max(0, QUERY - answer_room))
    whole = "".join(parts) + kept
    text = tokenizer.cut(whole, max(0, WHOLE - answer_room), "left")
    cut = {
        "demonstrations": n_cut,
        "query": _lost(tokenizer, asked, kept),
        "whole": _lost(tokenizer, whole, text),
    }
    return text, cut


def _length(tokenizer: Tokenizer, text: str) -> int:
    """Tokens without those that the tokenizer adds by itself."""
    return tokenizer.count(text) - tokenizer.count("")


def _lost(tokenizer: Tokenizer, before: str, after: str) -> int:
    return 0 if before == after else _length(tokenizer, before) - _length(tokenizer, after)
