"""Long work, one file for each kind of job. A worker process does it; see :mod:`icl_select.service.worker`."""

from .context import Cancelled, Context, EncoderSlot
from .kinds import run

__all__ = ["Cancelled", "Context", "EncoderSlot", "run"]
