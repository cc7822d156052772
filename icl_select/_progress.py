"""Progress of long work: told to a function, or shown as bars on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from icl_select.types import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["progress_of", "telling"]

# Work that is over sooner shows no bar.
_DELAY_SECONDS = 1.0


def telling(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    """Tell how much of one stage is done."""
    if progress is None:
        return None
    return lambda done: progress(stage, done, total)


@contextmanager
def progress_of(asked: bool | Progress) -> Iterator[Progress | None]:
    """What to call: the function that was passed; one that draws a bar a stage, for True; nothing, for False."""
    if asked is False:
        yield None
    elif asked is not True:
        yield asked
    else:
        bars: dict[str, tqdm[Any]] = {}
        try:
            yield partial(_draw, bars)
        finally:
            for bar in bars.values():
                bar.close()


def _draw(bars: dict[str, tqdm[Any]], stage: str, done: int, total: int) -> None:
    from tqdm import tqdm

    bar = bars.get(stage)
    if bar is not None and done <= bar.n:  # the stage begins again
        bar.close()
        bar = None
    if bar is None:
        for other in bars.values():
            other.close()
        bar = bars[stage] = tqdm(total=total, desc=stage, dynamic_ncols=True, delay=_DELAY_SECONDS)
    bar.update(done - bar.n)
