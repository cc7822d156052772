"""Rows of Parquet files, by small batches and, for files from strangers, within a bound."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from icl_select.data._file import File
from icl_select.data._values import plain
from icl_select.errors import DataError

__all__ = ["parquet_rows"]

_BUFFER = 1 << 20
# Of a file with a bound: room for some 100,000 column chunks. Arrow takes a multiple of it.
_FOOTER = 16 << 20
# What a number in a list takes as a Python object, with its place in the list.
_OBJECT = 64
# Values of fixed width that Arrow makes room for, however few are decoded.
_AHEAD = 1_024
# Encodings of strings that Arrow does not read as dictionaries; the first one also repeats beginnings of values.
_DELTA = frozenset({"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"})


def parquet_rows(
    file: File, columns: Collection[str] | None, batch_rows: int, bound: int | None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their numbers, from 1; of `columns`, where given, those that the file has."""
    number = 0
    records = _records(file, columns, batch_rows, bound)
    while (record := _next(records, file, number)) is not None:
        number += 1
        where = f"{file}, row {number}"
        yield number, {name: plain(value, where, name) for name, value in record.items()}


def _next(records: Iterator[dict[str, Any]], file: File, number: int) -> dict[str, Any] | None:
    """The next record, None at the end; DataError for whatever Arrow, or a value as Python object, fails with."""
    import pyarrow as pa

    try:
        return next(records, None)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as exc:
        where = f"after row {number}" if number else "at its start"
        reason = str(exc).replace(str(file.path), file.name)
        raise DataError(
            f"{file} cannot be read as Parquet, {where} ({reason}). Write the file again, for example with "
            "pyarrow.parquet.write_table."
        ) from exc


def _records(
    file: File, columns: Collection[str] | None, batch_rows: int, bound: int | None
) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    if bound is not None:
        _check_footer(file)
    metadata = pq.read_metadata(file.path)
    if bound is not None:
        _check_claims(file, metadata, bound)
    groups = range(metadata.num_row_groups)
    lists = [] if bound is None else [leaf.path for leaf in _strings(metadata, groups) if leaf.max_repetition_level]
    with _opened(file, metadata, lists) as opened:
        names = opened.schema_arrow.names
        kept = names if columns is None else [name for name in names if name in columns]
        for group in groups:
            rows = batch_rows if bound is None else min(batch_rows, _rows_within(file, metadata, group, bound))
            for batch in opened.iter_batches(batch_size=rows, row_groups=[group], columns=kept):
                for part in [batch] if bound is None else _parts(file, batch, group, bound):
                    yield from part.to_pylist()


def _opened(file: File, metadata: Any, dictionaries: list[str]) -> Any:
    import pyarrow.parquet as pq

    # Without buffer and pre_buffer, Arrow holds the compressed columns of a whole row group until it is read.
    return pq.ParquetFile(
        file.path, metadata=metadata, read_dictionary=dictionaries, buffer_size=_BUFFER, pre_buffer=False
    )


def _check_footer(file: File) -> None:
    """Refuse a footer that is large itself; what is no Parquet file, Arrow says."""
    with file.path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - 8, 0))
        tail = stream.read(8)
    claimed = int.from_bytes(tail[:4], "little")
    if tail.endswith(b"PAR1") and claimed > _FOOTER:
        raise DataError(
            f"{file}: its footer takes {claimed:,} bytes, more than the {_FOOTER:,} that are read. Write the file with "
            "larger row groups or fewer columns."
        )


def _check_claims(file: File, metadata: Any, bound: int) -> None:
    """Refuse row groups that expand beyond the bound by what the metadata claims."""
    for group in range(metadata.num_row_groups):
        size = sum(_claim(metadata, group))
        if size > bound:
            raise _too_large(file, group, size, bound)


def _claim(metadata: Any, group: int) -> tuple[int, int]:
    """Bytes that a row group takes once, and those that each row takes besides, by what its metadata claims."""
    once, each = 0, 1
    row_group = metadata.row_group(group)
    for place, leaf in enumerate(_leaves(metadata)):
        chunk = row_group.column(place)
        # Sizes are signed: a negative claim must not make up for another.
        stored, values = abs(chunk.total_uncompressed_size), abs(chunk.num_values)
        value = max(_OBJECT, leaf.length or 0)
        if _DELTA.intersection(chunk.encodings):  # what they repeat cannot be measured
            value = max(value, stored)
        if leaf.max_repetition_level:  # one row may hold all the values
            once += max(stored, values * value)
        else:
            once += stored + min(values, _AHEAD) * (leaf.length or 0)
            each += value
    return once, each


def _rows_within(file: File, metadata: Any, group: int, bound: int) -> int:
    """Rows of a group that are decoded together below the bound, although a dictionary may repeat its longest value."""
    once, each = _claim(metadata, group)
    with _opened(file, metadata, [leaf.path for leaf in _strings(metadata, [group])]) as opened:
        first = next(opened.iter_batches(batch_size=1, row_groups=[group]), None)
    dictionaries = 0 if first is None else first.nbytes
    return int(max(1, (bound - once) // (each + dictionaries)))


def _leaves(metadata: Any) -> list[Any]:
    return [metadata.schema.column(place) for place in range(len(metadata.schema))]


def _strings(metadata: Any, groups: Iterable[int]) -> list[Any]:
    """Columns that can be read as dictionaries in some row groups, so that decoding does not repeat their values."""
    row_groups = [metadata.row_group(group) for group in groups]
    return [
        leaf
        for place, leaf in enumerate(_leaves(metadata))
        if leaf.physical_type == "BYTE_ARRAY"
        and not any(_DELTA.intersection(row_group.column(place).encodings) for row_group in row_groups)
    ]


def _parts(file: File, batch: Any, group: int, bound: int) -> Iterator[Any]:
    """A batch in parts that stay below the bound as Python objects; DataError if one row does not."""
    size = sum(map(_expanded, batch.columns))
    if size <= bound:
        yield batch
    elif len(batch) == 1:
        raise _too_large(file, group, size, bound)
    else:
        middle = len(batch) // 2
        yield from _parts(file, batch.slice(0, middle), group, bound)
        yield from _parts(file, batch.slice(middle), group, bound)


def _expanded(array: Any) -> int:
    """Bytes of an Arrow array once every value stands for itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary.cast(pa.large_binary()))
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_map(kind):  # keys and items are those of the whole array, also of a slice
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return _expanded(array.keys[start:stop]) + _expanded(array.items[start:stop])
    if pa.types.is_struct(kind):
        return sum(_expanded(child) for child in array.flatten())
    return _expanded(array.flatten()) if pa.types.is_nested(kind) else int(array.nbytes)


def _too_large(file: File, group: int, size: int, bound: int) -> DataError:
    return DataError(
        f"{file}, row group {group} (from 0): expands to {size:,} bytes, more than the {bound:,} that are taken. Write "
        "smaller row groups, for example with pyarrow.parquet.write_table(table, path, row_group_size=10_000)."
    )
