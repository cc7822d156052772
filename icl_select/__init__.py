"""icl-select: which examples to label, prompts from the labelled ones, and whether it beat random.

The names below load on first use, so that ``import icl_select`` stays fast and needs no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module that defines it; loaded on first use.
_EXPORTS = {
    "Pool": "icl_select.data",
    "embed": "icl_select.embedding",
    "select": "icl_select.methods",
    "GrowingSelection": "icl_select.growing",
    "Retriever": "icl_select.retrieve",
    "PromptTemplate": "icl_select.prompt",
    "Prompter": "icl_select.pipeline",
    "Example": "icl_select.types",
    "Selection": "icl_select.types",
    "Prompt": "icl_select.types",
    "IclSelectError": "icl_select.errors",
}

__all__ = [
    "Example",
    "GrowingSelection",
    "IclSelectError",
    "Pool",
    "Prompt",
    "PromptTemplate",
    "Prompter",
    "Retriever",
    "Selection",
    "__version__",
    "embed",
    "select",
]

if TYPE_CHECKING:
    from icl_select.data import Pool
    from icl_select.embedding import embed
    from icl_select.errors import IclSelectError
    from icl_select.growing import GrowingSelection
    from icl_select.methods import select
    from icl_select.pipeline import Prompter
    from icl_select.prompt import PromptTemplate
    from icl_select.retrieve import Retriever
    from icl_select.types import Example, Prompt, Selection


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'icl_select' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
