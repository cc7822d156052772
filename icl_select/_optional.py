"""Optional packages, imported late and with the remedy in the message."""

from __future__ import annotations

import importlib
from types import ModuleType

from icl_select.errors import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or raise an error that names the pip command.

    Parameters
    ----------
    module : str
        Dotted module name, such as ``"faiss"``.
    extra : str
        Extra of this package that brings it.
    purpose : str
        What needs it, as the subject of the message: ``"the faiss retrieval backend"``.

    Raises
    ------
    MissingDependencyError
        If the module, or a module it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        missing = exc.name or module
        raise MissingDependencyError(
            f"{purpose} needs the package {missing!r}, which cannot be imported ({exc}). "
            f"Install it with: pip install 'icl-select[{extra}]'",
            name=missing,
        ) from exc
