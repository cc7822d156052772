"""The upstream server's list of models, with the names under which pools are asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from ..errors import UpstreamError
from .body import MARK

__all__ = ["with_pools"]

# Names that one list holds at most.
_MOST = 10_000


def with_pools(listing: bytes, pools: Sequence[str]) -> bytes:
    """Add ``pool::model`` for each pool and model behind the models themselves, up to 10,000 names in all.

    Parameters
    ----------
    listing : bytes
        The upstream server's answer.
    pools : sequence of str

    Returns
    -------
    bytes

    Raises
    ------
    UpstreamError
        If the answer is no list of models.
    """
    try:
        content = json.loads(listing)
        models = content["data"]
        if not isinstance(models, list):
            raise TypeError("data is no list")
        names = [(pool, model, str(model["id"])) for pool in ("", *pools) for model in models]
        content["data"] = [
            {**model, "id": f"{pool}{MARK}{name}"} if pool else model
            for pool, model, name in itertools.islice(names, max(_MOST, len(models)))
        ]
        return json.dumps(content, allow_nan=False).encode("ascii")
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise UpstreamError(
            "the upstream server's list of models cannot be read. Check that --upstream is the base URL of an "
            "OpenAI-compatible API, such as http://127.0.0.1:8000/v1."
        ) from exc
