"""An estimate as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .estimate import Estimate

__all__ = ["describe"]


def describe(found: Estimate) -> Iterator[str]:
    """The lines of an estimate, its assumptions last."""
    cells = sum(task.cells for task in found.tasks)
    if found.model is None:
        yield f"estimate: {cells:,} cells; {found.assumptions[0]}"
        return
    yield f"estimate for {found.model}, tokens of {found.tokenizer}:"
    for task in found.tasks:
        more = [
            f"{count:,} {what}"
            for count, what in ((task.feedback_prompts, "while selecting"), (task.extra_prompts, "to calibrate"))
            if count
        ]
        mean = task.prompt_tokens / max(1, task.all_prompts)
        yield (
            f"  {task.task}: {task.cells:,} cells, {task.prompts:,} prompts at most{''.join(f' + {m}' for m in more)}, "
            f"{mean:,.0f} tokens each, {_short(task.prompt_tokens)} in all (standard error "
            f"{_short(task.standard_error)})"
        )
    yield f"  tokens to compute: {_short(found.tokens.low)} to {_short(found.tokens.high)}"
    if found.memory is not None:
        m = found.memory
        yield (
            f"  memory: {_bytes(m.weight_bytes)} for {m.parameters:,} parameters in {m.dtype}, {_bytes(m.kv_bytes)} "
            f"for keys and values of {m.sequences} sequences of {m.max_length:,} tokens"
        )
    if found.seconds is not None:
        yield f"  time of the engine: {_time(found.seconds.low)} to {_time(found.seconds.high)}"
    if found.cost is not None:
        yield f"  cost: {found.cost:,.2f} at most"
    for line in found.assumptions:
        yield f"  ({line})"


def _short(count: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
