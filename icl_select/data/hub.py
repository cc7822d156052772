"""Data sets from the Hugging Face hub, its cache, or a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from icl_select._optional import require
from icl_select.data.readers import SUFFIXES, Table, plain
from icl_select.errors import DataError, ParameterError, suggest

__all__ = ["is_hub_id", "read_hub"]

_LOG = logging.getLogger(__name__)

# Where the hub keeps the Parquet copy of a repository that is a loading script.
PARQUET_REVISION = "refs/convert/parquet"

_BATCH = 10_000


_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def is_hub_id(name: str | Path) -> bool:
    """Whether `name` is the id of a hub repository: ``owner/name``, nothing on disk, and not a file's name."""
    text = str(name)
    return (
        isinstance(name, str)
        and _HUB_ID.fullmatch(text) is not None
        and not text.lower().endswith(SUFFIXES)
        and not Path(text).exists()
        and not Path(text).parent.is_dir()
    )


def _is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def read_hub(
    name: str | Path,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    columns: Collection[str] | None = None,
) -> Table:
    """Rows of a hub data set (``owner/name``), of a folder of data files, or of a ``save_to_disk`` folder.

    Class columns keep their integers; the words that the data set declares for them are in ``class_names``.
    """
    library = require("datasets", extra="hub", purpose="reading Hugging Face data sets")
    folder = Path(name)
    if folder.is_dir() and _is_saved(folder):
        given = next(
            (key for key, value in {"config": config, "revision": revision}.items() if value is not None), None
        )
        if given is not None:
            raise ParameterError(
                f"{given}= is for data sets of the hub, and {name} is a folder that save_to_disk wrote. Leave it out."
            )
        dataset = _from_disk(library, folder, split)
        source = str(name)
    else:
        dataset, used = _from_hub(library, str(name), config, split or "train", revision)
        source = f"{name}{f' ({config})' if config else ''}{f'@{used}' if used else ''}, split {split or 'train'}"
    if columns is not None:
        dataset = dataset.select_columns([column for column in dataset.column_names if column in columns])
    names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "int2str")}
    return Table(source, "row", _rows(dataset, source), names)


def _rows(dataset: Any, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    # Arrow batches give the stored values: nothing is decoded, no image or audio library is needed.
    for batch in dataset.with_format("arrow").iter(batch_size=_BATCH):
        for row in batch.to_pylist():
            number += 1
            yield number, {key: plain(value, f"{source}, row {number}", key) for key, value in row.items()}


def _from_disk(library: Any, folder: Path, split: str | None) -> Any:
    try:
        dataset = library.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(
            f"{folder} cannot be read as a saved data set ({exc}). Write it again with save_to_disk."
        ) from exc
    if hasattr(dataset, "keys"):  # several splits
        if split is None and len(dataset) == 1:
            return next(iter(dataset.values()))
        wanted = split or "train"
        if wanted not in dataset:
            raise DataError(f"{folder} has no split {wanted!r}.{suggest(wanted, dataset)} Pass split=.")
        return dataset[wanted]
    if split is not None and str(dataset.split) != split:
        what = f"of split {dataset.split}, not {split!r}" if dataset.split else f"without splits, so not {split!r}"
        raise DataError(f"{folder} holds one data set, {what}. Leave split= out.")
    return dataset


def _from_hub(library: Any, name: str, config: str | None, split: str, revision: str | None) -> tuple[Any, str | None]:
    """The data set and the revision it was read at; a loading script is replaced by the hub's Parquet copy."""
    try:
        return _load(library, name, config, split, revision), revision
    except RuntimeError as exc:
        if "script" not in str(exc).lower():
            raise DataError(_failed(name, config, split, exc)) from exc
        if revision is not None:
            raise DataError(
                f"{name} at revision {revision!r} is a loading script, which is not run. Pass "
                f"revision={PARQUET_REVISION!r} for the hub's Parquet copy, or a local file."
            ) from exc
        _LOG.warning("%s is a loading script; reading the hub's Parquet copy, revision %s", name, PARQUET_REVISION)
    try:
        return _load(library, name, config, split, PARQUET_REVISION), PARQUET_REVISION
    except RuntimeError as exc:
        raise DataError(_failed(name, config, split, exc)) from exc


def _load(library: Any, name: str, config: str | None, split: str, revision: str | None) -> Any:
    try:
        return library.load_dataset(name, config, split=split, revision=revision)
    except ConnectionError as exc:
        raise DataError(
            f"{name} cannot be fetched, because the hub cannot be reached and no copy is in the local cache ({exc}). "
            "Connect (and unset HF_HUB_OFFLINE), or pass a local file or a folder written by save_to_disk."
        ) from exc
    except (OSError, ValueError, library.exceptions.DatasetsError) as exc:
        raise DataError(_failed(name, config, split, exc)) from exc


def _failed(name: str, config: str | None, split: str, exc: Exception) -> str:
    asked = f"config={config!r}, split={split!r}"
    reason = " ".join(str(exc).split())[:400]
    return f"{name} cannot be loaded with {asked} ({type(exc).__name__}: {reason}). Check the name, config and split."
