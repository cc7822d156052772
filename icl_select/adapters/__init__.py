"""Adapters for other libraries: LangChain in ``icl_select.adapters.langchain``, DSPy in ``icl_select.adapters.dspy``.

Both ask a source of examples: :class:`PoolSource` is a pool in this process, :class:`ServiceSource` one of the service.
Importing this package imports neither library.
"""

from icl_select.adapters.pool_source import PoolSource
from icl_select.adapters.service_source import ServiceSource
from icl_select.adapters.source import ExampleSource

__all__ = ["ExampleSource", "PoolSource", "ServiceSource"]
