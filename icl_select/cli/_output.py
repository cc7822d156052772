"""What commands write: results as one JSON document, tab-separated lines or a file, and remarks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from icl_select._files import atomic_write

__all__ = ["emit_json", "emit_rows", "remark", "row_lines", "write_text"]


def remark(text: str) -> None:
    """Tell the person at the terminal something, on stderr, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def emit_json(value: Any, output: Path | None = None) -> None:
    """Write one JSON document to stdout, or atomically to a file."""
    write_text(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n", output)


def emit_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], output: Path | None = None) -> None:
    """Write tab-separated lines under a header; tabs and line breaks inside values become spaces."""
    write_text("\n".join(row_lines(header, rows)) + "\n", output)


def row_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines that :func:`emit_rows` writes."""
    return ["\t".join(header), *("\t".join(_cell(value) for value in row) for row in rows)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split())


def write_text(text: str, output: Path | None = None) -> None:
    """Write text to stdout, or atomically to a file; characters that UTF-8 cannot hold are replaced."""
    content = text.encode("utf-8", "replace")
    if output is not None:
        atomic_write(output, content)
        return
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(content.decode("utf-8"))
    else:
        buffer.write(content)
        buffer.flush()
