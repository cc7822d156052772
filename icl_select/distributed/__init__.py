"""Selection and embedding on a Ray cluster, or on a Ray of this machine; needs the extra ``ray``."""

from icl_select.distributed.engine import RayEngine, check_method

__all__ = ["RayEngine", "check_method"]
