"""XSum: one sentence that sums up a news article."""

from __future__ import annotations

from collections.abc import Sequence

from icl_select.types import Decoding, Example

from ._task import HubSource, Task, TextLabel

_INPUT = "write a short summary:\n{{ document }}\nTL;DR:"

# Tokens at which the published code ends a summary.
STOPS = ("\n", ";", "#", "--")


def published_text(pieces: Sequence[str]) -> str:
    """Generated tokens up to the first stop that is not the first token, joined with spaces.

    The spaces stand inside words too, wherever a word was written in several tokens.

    Examples
    --------
    >>> published_text(["\\n", "A", " sum", "mary", ".", "\\n", "write"])
    '\\n A  sum mary .'
    """
    ends = (place for place, piece in enumerate(pieces) if place > 0 and piece in STOPS)
    return " ".join(pieces[: next(ends, len(pieces))])


def parse(text: str, example: Example, protocol: str) -> str:
    """The first line of what was written; under "published" all of it, cut before by :func:`published_text`."""
    return text if protocol == "published" else text.strip().partition("\n")[0].strip()


TASK = Task(
    name="xsum",
    folder="xsum",
    hub=HubSource("EdinburghNLP/xsum", pool_split="train", test_split="test"),
    columns=("document", "summary"),
    embedded="{document}",
    demonstration=_INPUT + "{{ label }}",
    query=_INPUT,
    separator="\n\n",
    metric="rouge_l",
    label=TextLabel("summary"),
    max_tokens=1900,
    decoding=Decoding(max_tokens=64, stop=("\n",)),
    published_decoding=Decoding(max_tokens=64, stop=()),
    shorten="document",
    published_text=published_text,
    parse=parse,
    notes=(
        "The knn baseline copies the summary of the nearest labelled article. Under the protocol 'published', a "
        "summary ends before the first token, after the first one, that is a line break, ';', '#' or '--', and its "
        "tokens are joined with spaces, which splits words and lowers ROUGE; an article of more than 1,900 tokens "
        "stands alone, and the engine cuts its beginning. Under 'sound' a summary ends at a line break, and an article "
        "that is too long loses its end."
    ),
)
