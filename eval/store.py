"""The run folder: one file per cell and per selection, each with the key of all that determines it.

::

    <folder>/campaign.json                          what was asked
    <folder>/cells/<task>/<method>/b018-d03-r0.parquet   per-item results of one cell
    <folder>/selections/<task>/<method>/b100-d03-r0.json what was picked
    <folder>/tasks/<task>.json                      density, duplicates, leaks, truncation
    <folder>/results.json, report.html, report.md   written last
    <folder>/run.json                               times and machine; the only file that differs between runs

Files are whole or absent. A file whose key differs from what the configuration asks for is out of date and is
computed again; so is a file that cannot be read, with a warning.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from icl_select import registry
from icl_select._files import atomic_write
from icl_select.errors import StoreError
from icl_select.types import Selection

__all__ = ["Cell", "CellName", "ItemResult", "RunFolder"]

_LOGGER = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("prediction", pa.string()),
        ("reference", pa.string()),
        ("score", pa.float64()),
        ("demo_ids", pa.list_(pa.string())),
        ("demo_scores", pa.list_(pa.float64())),
        ("n_shots", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("n_dropped", pa.int32()),
        ("response", pa.string()),
        ("choice_scores", pa.list_(pa.float64())),
        ("answer_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("finished", pa.bool_()),
    ]
)


@dataclass(frozen=True, order=True)
class CellName:
    """Which cell: task x method x draw x repeat x budget."""

    task: str
    method: str
    draw: int
    repeat: int
    budget: int

    @property
    def path(self) -> str:
        """Place below ``cells`` or ``selections``, without suffix."""
        slug = registry.parse(self.method).slug
        return f"{self.task}/{slug}/b{self.budget:04d}-d{self.draw:03d}-r{self.repeat:02d}"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What happened to one test item in one cell.

    ``response`` is what a language model wrote, before it was read; ``choice_scores`` are the scores of the choices
    in their order; ``truncated`` tells that the prompt was cut to fit, ``finished`` that the model ended its answer
    by itself. All are None without a language model, or where they do not apply.
    """

    item_id: str
    prediction: str
    reference: str
    score: float
    demo_ids: tuple[str, ...]
    demo_scores: tuple[float, ...]
    prompt_tokens: int | None = None
    n_dropped: int | None = None
    response: str | None = None
    choice_scores: tuple[float, ...] | None = None
    answer_tokens: int | None = None
    truncated: bool | None = None
    finished: bool | None = None


@dataclass(frozen=True, eq=False)
class Cell:
    """The per-item results of one cell, as columns."""

    name: CellName
    table: pa.Table

    @property
    def item_ids(self) -> list[str]:
        """Ids of the test items."""
        return list(self.table.column("item_id").to_pylist())

    @property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """One value of the metric per test item."""
        return np.asarray(self.table.column("score").to_numpy(), dtype=np.float64)

    @property
    def picks(self) -> tuple[str, ...]:
        """Ids of the pool rows that were labelled, in pick order."""
        return tuple(json.loads((self.table.schema.metadata or {})[b"icl_select.picks"]))

    def column(self, name: str) -> list[Any]:
        """One column as a list."""
        return list(self.table.column(name).to_pylist())


class RunFolder:
    """Reads and writes the files of one campaign; nothing else knows their names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # Cells ------------------------------------------------------------------------------------------------

    def cell_path(self, name: CellName) -> Path:
        """The file of a cell."""
        return self.path / "cells" / f"{name.path}.parquet"

    def has_cell(self, name: CellName, key: str) -> bool:
        """Whether the cell is there, whole, and was made from exactly what `key` stands for."""
        return self._read_cell(name, key) is not None

    def read_cell(self, name: CellName, key: str | None = None) -> Cell:
        """Return a finished cell (None: whatever its key), or raise StoreError."""
        cell = self._read_cell(name, key)
        if cell is None:
            raise StoreError(f"{self.cell_path(name)} is missing or out of date. Run the campaign again to compute it.")
        return cell

    def _read_cell(self, name: CellName, key: str | None) -> Cell | None:
        path = self.cell_path(name)
        content = _read_bytes(path)
        if content is None:
            return None
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as exc:
            _LOGGER.warning("%s is damaged (%s); it will be computed again.", path, " ".join(str(exc).split())[:120])
            return None
        if table.schema.remove_metadata() != _SCHEMA:
            _LOGGER.warning("%s has other columns than a cell; it will be computed again.", path)
            return None
        metadata = table.schema.metadata or {}
        if b"icl_select.picks" not in metadata or (key is not None and metadata.get(b"icl_select.key") != key.encode()):
            return None
        return Cell(name, table)

    def write_cell(
        self, name: CellName, key: str, picks: Sequence[str], items: Sequence[ItemResult], versions: Mapping[str, str]
    ) -> None:
        """Write a cell with the ids that were labelled for it and the versions of what answered; the same content
        gives the same bytes.
        """
        columns = [
            [item.item_id for item in items],
            [item.prediction for item in items],
            [item.reference for item in items],
            [item.score for item in items],
            [list(item.demo_ids) for item in items],
            [list(item.demo_scores) for item in items],
            [len(item.demo_ids) for item in items],
            [item.prompt_tokens for item in items],
            [item.n_dropped for item in items],
            [item.response for item in items],
            [None if item.choice_scores is None else list(item.choice_scores) for item in items],
            [item.answer_tokens for item in items],
            [item.truncated for item in items],
            [item.finished for item in items],
        ]
        arrays = [pa.array(values, type=column.type) for values, column in zip(columns, _SCHEMA, strict=True)]
        schema = _SCHEMA.with_metadata(
            {
                "icl_select.key": key,
                "icl_select.cell": name.path,
                "icl_select.picks": json.dumps(list(picks)),
                "icl_select.versions": json.dumps(dict(versions), sort_keys=True),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema), buffer, compression="zstd", write_page_checksum=True
        )
        atomic_write(self.cell_path(name), buffer.getvalue())

    # Selections -------------------------------------------------------------------------------------------

    def selection_path(self, name: CellName) -> Path:
        """The file of a selection."""
        return self.path / "selections" / f"{name.path}.json"

    def read_selection(self, name: CellName, key: str, pool_ids: Sequence[str]) -> Selection | None:
        """Return a stored selection as indices into `pool_ids`, or None if there is none of that key."""
        record = self.read_json(self.selection_path(name))
        if record is None or record.get("key") != key:
            return None
        try:
            indices = np.array(record["indices"], dtype=np.int64)
            selection = Selection(
                indices=indices,
                gains=np.array([np.nan if gain is None else gain for gain in record["gains"]], dtype=np.float64),
                nested=bool(record["nested"]),
                method=str(record["method"]),
                seed=int(record["seed"]),
                info=dict(record["info"]),
            )
            whole = [pool_ids[i] for i in indices] == record["ids"]
        except (KeyError, TypeError, ValueError, IndexError):
            whole = False
        if not whole or len(indices) != name.budget:
            _LOGGER.warning("%s is damaged; it will be computed again.", self.selection_path(name))
            return None
        return selection

    def write_selection(self, name: CellName, key: str, selection: Selection, pool_ids: Sequence[str]) -> None:
        """Write what was picked: indices into the draw's pool rows, their ids, gains."""
        record = {
            "key": key,
            "task": name.task,
            "draw": name.draw,
            "repeat": name.repeat,
            "budget": name.budget,
            "method": selection.method,
            "seed": selection.seed,
            "nested": selection.nested,
            "indices": selection.indices.tolist(),
            "ids": [pool_ids[i] for i in selection.indices],
            "gains": [gain if np.isfinite(gain) else None for gain in selection.gains.tolist()],
            "info": dict(selection.info),
        }
        self.write_json(self.selection_path(name), record)

    # The rest ---------------------------------------------------------------------------------------------

    def task_path(self, task: str) -> Path:
        """The file of what is known about a task's texts."""
        return self.path / "tasks" / f"{task}.json"

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """Return the object in a JSON file; None if there is none, or (with a warning) if it is damaged."""
        content = _read_bytes(path)
        if content is None:
            return None
        try:
            record = json.loads(content.decode("utf-8"))
        except ValueError:
            record = None
        if not isinstance(record, dict):
            _LOGGER.warning("%s is damaged; it will be computed again.", path)
            return None
        return record

    def write_json(self, path: Path, record: Any) -> None:
        """Write JSON, keys in the order of the record; the same record gives the same bytes."""
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(path, (text + "\n").encode("utf-8", "backslashreplace"))


def _read_bytes(path: Path) -> bytes | None:
    """Content of a file, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(f"cannot read {path}: {exc.strerror}. Check its permissions.") from exc
