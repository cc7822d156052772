"""Every error that icl-select raises on purpose, in one tree.

::

    IclSelectError
    ├── BudgetError            (ValueError)    budget that the pool cannot give
    ├── EmbeddingError         (ValueError)    NaN, zero rows, wrong shape
    ├── GivenError             (ValueError)    labelled indices that are not pool indices
    ├── FeedbackError          (ValueError)    the model's opinion is missing or misshapen
    ├── UnknownNameError       (LookupError)   no such method, parameter, task, metric, field
    ├── ParameterError         (ValueError)    a known parameter with a bad value
    ├── DataError              (ValueError)    broken or empty file, bad row; names file and line
    ├── LabelError             (ValueError)    missing label, label outside the label words, conflict
    ├── TemplateError          (ValueError)    template that is broken or names a missing field
    ├── PromptError            (ValueError)    a query that cannot fit its token budget
    ├── MetricError            (ValueError)    a metric asked for what it cannot measure
    ├── StatisticsError        (ValueError)    a design or sample that cannot be tested
    ├── ConfigError            (ValueError)    campaign file with an unknown key or bad value
    ├── ModelError             (RuntimeError)  a model or tokenizer that cannot be loaded or run
    │   └── SpendError                         the next request might cost more than is allowed
    ├── StoreError             (OSError)       a cache or run folder that cannot be read or written
    │   └── LockedError                        another process works in the folder
    └── MissingDependencyError (ImportError)   an extra that is not installed

A message says what was asked, what forbids it, and the way out. Each leaf is also the builtin that a
caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "EmbeddingError",
    "FeedbackError",
    "GivenError",
    "IclSelectError",
    "LabelError",
    "LockedError",
    "MetricError",
    "MissingDependencyError",
    "ModelError",
    "ParameterError",
    "PromptError",
    "SpendError",
    "StatisticsError",
    "StoreError",
    "TemplateError",
    "UnknownNameError",
    "suggest",
]

# Names listed in a message before it becomes a wall of text.
_SHOWN = 30
_COMPARED = 500
_COMPARED_LENGTH = 100


class IclSelectError(Exception):
    """Root of the tree; catch it to catch everything icl-select raises on purpose."""


class BudgetError(IclSelectError, ValueError):
    """The budget is below one or above the rows that may still be picked."""


class EmbeddingError(IclSelectError, ValueError):
    """The embeddings are not a finite (n, d) array of non-zero rows."""


class GivenError(IclSelectError, ValueError):
    """``given`` holds something that is not a distinct index into the pool."""


class FeedbackError(IclSelectError, ValueError):
    """A method needs the model's opinion and got none, or one of the wrong shape."""


class UnknownNameError(IclSelectError, LookupError):
    """A name that nothing is registered under; the message suggests the nearest one."""


class ParameterError(IclSelectError, ValueError):
    """A known parameter holds a value outside its range."""


class DataError(IclSelectError, ValueError):
    """A file or record cannot be read as what it should be."""


class LabelError(IclSelectError, ValueError):
    """A label is missing, contradicts another, or is not one of the label words."""


class TemplateError(IclSelectError, ValueError):
    """A template is broken or names a field that an example does not have."""


class PromptError(IclSelectError, ValueError):
    """A prompt cannot be built, for example because the query alone exceeds the budget."""


class MetricError(IclSelectError, ValueError):
    """A metric was asked for something that it cannot measure."""


class StatisticsError(IclSelectError, ValueError):
    """A comparison was asked for that its sample cannot carry."""


class ConfigError(IclSelectError, ValueError):
    """A campaign file holds an unknown key or a bad value."""


class ModelError(IclSelectError, RuntimeError):
    """A model or tokenizer cannot be loaded or fails while running."""


class SpendError(ModelError):
    """The next request to a paid server might pass the cap on spending."""


class StoreError(IclSelectError, OSError):
    """A cache or run folder cannot be read or written."""


class LockedError(StoreError):
    """Another process works in the folder."""


class MissingDependencyError(IclSelectError, ImportError):
    """An optional package is not installed; the message names the pip command."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, else the list of known names.

    Examples
    --------
    >>> suggest("votek", ["vote_k", "random"])
    " Did you mean 'vote_k'?"
    """
    names = sorted(known)
    # Comparing takes time that grows with lengths and numbers, and names may come from strangers.
    short = [known_name for known_name in names if len(known_name) <= _COMPARED_LENGTH][:_COMPARED]
    folded = {known_name.casefold(): known_name for known_name in reversed(short)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6) if len(name) <= _COMPARED_LENGTH else []
    if close:
        return f" Did you mean {folded[close[0]]!r}?"
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f" Known: {shown}." if names else ""
