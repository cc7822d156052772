"""The prompt engine: queries of many requests are encoded together, answered from one index, and kept."""

from .answers import Answer, rebuild
from .engine import Engine
from .options import Options, check_options

__all__ = ["Answer", "Engine", "Options", "check_options", "rebuild"]
