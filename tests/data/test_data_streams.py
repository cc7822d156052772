"""Rows as a stream: one at a time, in little memory, and safe for files of strangers."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from icl_select.data import Pool
from icl_select.data.readers import Table, read_csv, read_jsonl, read_parquet, read_records
from icl_select.data.rows import Row, RowSpec, build, read_rows
from icl_select.errors import DataError, LabelError, ParameterError, TemplateError

MIB = 1 << 20

# Buffers do not keep the pool alive that they are given back to.
POOLS: list[Any] = []


def jsonl(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            stream.write(json.dumps({"text": f"{number} " + "word " * 40, "label": number % 2, "n": number}) + "\n")
    return path


def parquet(path: Path, table: dict[str, Any] | pa.Table, **options: Any) -> Path:
    pq.write_table(pa.table(table), path, **options)
    return path


@contextlib.contextmanager
def arrow_pool() -> Iterator[Any]:
    """A memory pool of Arrow for a while; its ``max_memory()`` is what was taken at most meanwhile."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(usual)


def count(table: Table) -> int:
    return sum(1 for _ in table.rows)


# One row at a time.


def test_a_row_is_read_only_when_it_is_asked_for() -> None:
    read: list[int] = []

    def source() -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number in range(3):
            read.append(number)
            yield number, {"text": f"text {number}"}

    rows = read_rows(Table("here", "item", source()), RowSpec())
    assert read == []
    assert next(rows).text == "text 0"
    assert read == [0]
    assert [row.number for row in rows] == [1, 2]


def test_rows_say_what_they_are_and_where() -> None:
    records: list[dict[str, Any]] = [
        {"id": 7, "q": "a", "topic": "post", "label": 1, "metadata": {"by": "ann"}},
        {"q": "b", "topic": "shop", "label": None},
    ]
    spec = RowSpec(text="{topic}: {q}", label_words=["no", "yes"])
    first, second = read_rows(read_records(records, "the request"), spec)
    assert (first.where, first.given, first.text, first.label) == ("the request, item 0", "7", "post: a", "yes")
    assert (first.fields, first.metadata) == ({"q": "a", "topic": "post"}, {"by": "ann"})
    assert (second.number, second.given, second.label, second.metadata) == (1, None, None, {})
    assert second.content_id == Pool.from_records(records, text="{topic}: {q}", label_words=["no", "yes"]).ids[1]


def test_a_row_without_fields_is_named_by_its_text() -> None:
    (row,) = read_rows(read_records([{"text": "a", "label": "x"}], "r"), RowSpec(fields=[]))
    assert row.fields == {}
    assert row.content_id == Pool.from_texts(["a"]).ids[0]


def test_the_stream_and_the_pool_hold_the_same(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", 20)
    pool = Pool.from_jsonl(path)
    rows = list(read_rows(read_jsonl(path), RowSpec()))
    assert [(row.content_id, row.text, row.fields, row.label) for row in rows] == [
        (example.id, example.text, example.fields, example.label) for example in pool
    ]


def test_skipped_rows_are_counted_while_they_pass() -> None:
    records: list[dict[str, Any]] = [{"text": "a"}, {"text": " "}, {"text": None}, {"text": "b"}]
    rows = read_rows(read_records(records, "r"), RowSpec(skip_empty=True))
    assert (next(rows).text, rows.skipped) == ("a", 0)
    assert (next(rows).text, rows.skipped) == ("b", 2)
    examples, skipped = build(read_records(records, "r"), RowSpec(skip_empty=True))
    assert (len(examples), skipped) == (2, 2)


def test_good_rows_pass_before_the_broken_one() -> None:
    rows = read_rows(read_records([{"text": "a"}, {"text": "b"}, {"txt": "c"}], "r"), RowSpec())
    passed: list[Row] = []
    with pytest.raises(DataError, match=r"r, item 2: no field 'text'"):
        passed.extend(rows)
    with pytest.raises(TemplateError, match="r, item 1"):
        list(read_rows(read_records([{"q": "a"}, {"x": "b"}], "r"), RowSpec(text="{q}")))


def test_what_only_the_end_shows_is_said_at_the_end() -> None:
    rows = read_rows(read_records([{"text": "a", "lable": 1}], "r"), RowSpec(label="label"))
    assert next(rows).text == "a"
    with pytest.raises(DataError, match=r"r: no row has the field 'label' .*Did you mean 'lable'"):
        next(rows)
    with pytest.raises(DataError, match=r"r holds no rows: all 1 texts are empty"):
        next(read_rows(read_records([{"text": ""}], "r"), RowSpec(skip_empty=True)))
    with pytest.raises(DataError, match=r"r holds no rows\. A pool"):
        next(read_rows(read_records([], "r"), RowSpec()))


def test_a_wrong_spec_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="fields='text' is one string"):
        read_rows(read_records([{"text": "a"}], "r"), RowSpec(fields="text"))
    with pytest.raises(LabelError, match="label_words='ab' is one string"):
        read_rows(read_records([{"text": "a"}], "r"), RowSpec(label_words="ab"))


# What a pool could not keep.


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a", "metadata": {"by": "\\ud83d"}}', r"line 1: 'metadata' holds U\+D83D"),
        ('{"text": "a", "b\\udc00": 1}', r"line 1: 'names of fields' holds U\+DC00"),
        ('{"text": "a", "tree": ' + "[" * 600 + "]" * 600 + "}", r"line 1: 'field tree' is nested too deeply"),
        ('{"text": "a", "metadata": {"x": ' + "[" * 600 + "]" * 600 + "}}", r"'metadata' is nested too deeply"),
    ],
)
def test_rows_that_no_pool_can_keep_name_their_place(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(row + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Pool.from_jsonl(path)


def test_fields_may_be_called_like_our_own_words() -> None:
    row = {"text": "a", "names": 1, "where": 2, "value": 3, "fields": "x"}
    assert next(read_rows(read_records([row], "r"), RowSpec())).fields == row


def test_records_that_are_nested_too_deeply_say_so() -> None:
    tree: list[Any] = []
    for _ in range(600):
        tree = [tree]
    with pytest.raises(DataError, match="r, item 0: the field 'tree' is nested too deeply"):
        Pool.from_records([{"text": "a", "tree": tree}], source="r")


# Memory.


def peak(path: Path, read: Callable[[Path], Table]) -> int:
    """Bytes that Python takes at most while the rows pass."""
    tracemalloc.start()
    try:
        for _ in read_rows(read(path), RowSpec()):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ten_times_the_lines_take_no_more_memory(tmp_path: Path) -> None:
    few, many = jsonl(tmp_path / "few.jsonl", 2_000), jsonl(tmp_path / "many.jsonl", 20_000)
    peak(few, read_jsonl)  # what is imported and cached by the first reading
    assert peak(many, read_jsonl) < peak(few, read_jsonl) + 32 * 1024


@pytest.mark.parametrize("bound", [None, 64 * MIB])
def test_parquet_rows_take_no_more_memory_the_more_there_are(tmp_path: Path, bound: int | None) -> None:
    def table(rows: int) -> dict[str, Any]:
        return {"text": [f"{number} " + "word " * 200 for number in range(rows)], "n": list(range(rows))}

    def read(path: Path) -> Table:
        return read_parquet(path, batch_rows=100, max_uncompressed_bytes=bound)

    few = parquet(tmp_path / "few", table(2_000), compression="none")
    many = parquet(tmp_path / "many", table(20_000), compression="none")
    peak(few, read)
    assert peak(many, read) < peak(few, read) + 64 * 1024, "in Python"
    assert pq.read_metadata(many).num_row_groups == 1
    assert many.stat().st_size > 20_000_000
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in read_rows(read(many), RowSpec())) - before
    assert most < 10 * MIB, "in Arrow, of 20 MB in one row group"


# Lines.


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_line_may_have_as_many_bytes_as_allowed_and_no_more(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.jsonl"
    line = '{"text": "né"}'
    path.write_bytes(f'{{"text": "a"}}\n{line}{end}'.encode())
    size = len(line.encode())
    assert [row["text"] for _, row in read_jsonl(path, max_line_bytes=size).rows] == ["a", "né"]
    with pytest.raises(DataError, match=rf"a.jsonl, line 2: longer than {size - 1} bytes"):
        list(read_jsonl(path, max_line_bytes=size - 1).rows)


def test_lines_that_are_just_short_enough_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n' * 3)
    assert [number for number, _ in read_jsonl(path, max_line_bytes=13).rows] == [1, 2, 3]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_endless_line_is_never_in_memory(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.jsonl"
    content = b'{"text": "' + b"a" * (64 * MIB) + b'"}\n'
    path.write_bytes(gzip.compress(content) if compressed else content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"line 1: longer than 10,000 bytes.*max_line_bytes"):
            list(read_jsonl(path, max_line_bytes=10_000).rows)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [read_jsonl, read_csv])
def test_gzip_can_be_refused(tmp_path: Path, read: Callable[..., Table]) -> None:
    path = tmp_path / "upload"
    path.write_bytes(gzip.compress(b"text\n" if read is read_csv else b'{"text": "a"}\n'))
    list(read(path).rows)
    with pytest.raises(DataError, match="the body is gzip data, but only plain text is taken here"):
        list(read(path, source="the body", plain_only=True).rows)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_jsonl, b'{"text": 1}\n{', r"items, line 2: not JSON"),
        (read_jsonl, b"[]", r"items, line 1: holds a JSON array"),
        (read_jsonl, b"\xff", r"items, line 1: byte 0xff"),
        (read_jsonl, b"\xff\xfea", r"items is UTF-16"),
        (read_jsonl, gzip.compress(b"{}\n" * 1000, mtime=0)[:-20], r"items: the gzip data breaks off"),
        (read_csv, b"a,b\n1\n", r"items, line 2: 1 cells"),
        (read_csv, b"a,a\n1,2\n", r"items, line 1: the header"),
        (read_csv, b'a\n"', r"items, line 2: not CSV"),
        (read_csv, b"a\n\xff", r"items, line 2: byte 0xff"),
        (read_parquet, b"PAR1", r"items cannot be read as Parquet, at its start"),
        (read_parquet, b"PAR1" + b"\0" * 100 + b"\x10\0\0\0PAR1", r"items cannot be read as Parquet"),
    ],
)
def test_messages_call_a_file_by_the_name_that_was_given(
    tmp_path: Path, read: Callable[..., Table], content: bytes, message: str
) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{message}") as caught:
        list(read(path, source="items").rows)
    assert "spooled" not in str(caught.value)


@pytest.mark.parametrize("bound", [None, MIB])
def test_the_words_of_the_system_do_not_name_the_path_either(tmp_path: Path, bound: int | None) -> None:
    (tmp_path / "spooled").mkdir()
    with pytest.raises(DataError, match=r"^items cannot be read as Parquet, .*directory") as caught:
        count(read_parquet(tmp_path / "spooled", source="items", max_uncompressed_bytes=bound))
    assert "spooled" not in str(caught.value)
    assert "'items'" in str(caught.value)


def test_the_name_stands_before_every_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "spooled", {"text": ["a", None]})
    rows = read_rows(read_parquet(path, source="items"), RowSpec())
    assert next(rows).where == "items, row 1"
    with pytest.raises(DataError, match=r"^items, row 2: the text is empty"):
        next(rows)


# Parquet within bounds.

TEXTS = [f"text {number}" for number in range(500)]
HONEST: dict[str, Any] = {
    "text": TEXTS,
    "tags": [["a", "b"], [], None, ["c"], ["d" * 100]] * 100,
    "map": pa.array([[("k", "v")], []] * 250, pa.map_(pa.string(), pa.string())),
    "parts": [{"x": [{"y": "z"}], "n": 1}, None] * 250,
    "scores": [[1.5, 2.5]] * 500,
    "kind": pa.array(["x", "y"] * 250).dictionary_encode(),
    "long": pa.array(TEXTS, pa.large_string()),
}


@pytest.mark.parametrize("bound", [None, 10 * MIB, 600_000])
@pytest.mark.parametrize("batch_rows", [1, 7, 10_000])
def test_honest_files_read_the_same_with_and_without_bounds(tmp_path: Path, bound: int | None, batch_rows: int) -> None:
    table = pa.table(HONEST)
    path = parquet(tmp_path / "a.parquet", table, row_group_size=120)
    rows = list(read_parquet(path, batch_rows=batch_rows, max_uncompressed_bytes=bound).rows)
    assert [number for number, _ in rows] == list(range(1, 501))
    expected = [{**row, "map": [list(pair) for pair in row["map"]]} for row in table.to_pylist()]
    assert [row for _, row in rows] == expected


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_bounds_take_every_encoding_of_strings(tmp_path: Path, encoding: str) -> None:
    encodings = {"text": encoding, "tags.list.element": encoding}
    table = {"text": TEXTS, "tags": [["a", "b"]] * 500}
    path = parquet(tmp_path / "a.parquet", table, use_dictionary=False, column_encoding=encodings)
    rows = read_parquet(path, max_uncompressed_bytes=100 * MIB).rows
    assert [row for _, row in rows] == pa.table(table).to_pylist()
    assert encoding in pq.read_metadata(path).row_group(0).column(0).encodings


def refused(path: Path, bound: int) -> int:
    """Bytes that Arrow took at most until the file was refused."""
    message = rf"^up, row group 0 \(from 0\): expands to .* than the {bound:,} that are taken"
    with arrow_pool() as pool:
        with pytest.raises(DataError, match=message):
            count(read_parquet(path, source="up", max_uncompressed_bytes=bound))
        return int(pool.max_memory())


def test_a_row_group_that_claims_too_much_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["a" * 8 * MIB]}, compression="zstd")
    assert path.stat().st_size < MIB / 8
    assert refused(path, 4 * MIB) < MIB / 8
    assert len(list(read_parquet(path, max_uncompressed_bytes=20 * MIB).rows)) == 1


def test_lists_are_counted_by_their_values(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["a"], "n": pa.array([[0] * 1_000_000])})
    assert path.stat().st_size < MIB / 8
    assert refused(path, 32 * MIB) < MIB / 8


def test_a_delta_encoded_list_is_counted_as_if_each_value_repeated_the_one_before(tmp_path: Path) -> None:
    table = {"text": ["a"], "tags": [["a" * 10_000 + str(number) for number in range(1_000)]]}
    encoding = {"tags.list.element": "DELTA_BYTE_ARRAY", "text": "PLAIN"}
    path = parquet(tmp_path / "a.parquet", table, use_dictionary=False, column_encoding=encoding)
    assert path.stat().st_size < MIB / 8
    assert refused(path, 8 * MIB) < MIB / 8


@pytest.mark.parametrize("first", [0, 300])
def test_a_dictionary_that_repeats_a_long_text_makes_batches_small(tmp_path: Path, first: int) -> None:
    long = "a" * MIB
    path = parquet(tmp_path / "a.parquet", {"text": TEXTS[:first] + [long] * 200}, compression="zstd")
    assert path.stat().st_size < MIB / 8
    assert pq.read_metadata(path).row_group(0).total_byte_size < 4 * MIB, "so the metadata shows no harm"
    with arrow_pool() as pool:
        assert count(read_parquet(path, max_uncompressed_bytes=8 * MIB)) == first + 200
        assert pool.max_memory() < 32 * MIB, "of 200 MiB"


@pytest.mark.parametrize("nested", ["list", "map", "struct"])
def test_lists_that_repeat_a_long_text_are_split_or_refused(tmp_path: Path, nested: str) -> None:
    long = "a" * MIB

    def table(rows: int, values: int) -> pa.Table:
        column = {
            "list": pa.array([[long] * values] * rows),
            "map": pa.array([[(str(n), long) for n in range(values)]] * rows, pa.map_(pa.string(), pa.string())),
            "struct": pa.array([{"x": [{"y": long}] * values}] * rows),
        }[nested]
        return pa.table({"text": ["a"] * rows, "n": column})

    path = parquet(tmp_path / "many.parquet", table(50, 2), compression="zstd")
    assert count(read_parquet(path, max_uncompressed_bytes=8 * MIB)) == 50
    path = parquet(tmp_path / "long.parquet", table(1, 50), compression="zstd")
    assert path.stat().st_size < MIB / 8
    assert refused(path, 8 * MIB) < 16 * MIB, "of 50 MiB"


@pytest.mark.parametrize(("width", "rows"), [(MIB // 16, 2_000), (MIB, 100)])
def test_null_values_of_fixed_width_are_counted(tmp_path: Path, width: int, rows: int) -> None:
    """Arrow makes room for 1,024 of them ahead, and for each row of a batch."""
    path = parquet(tmp_path / "a.parquet", {"text": ["a"] * rows, "wide": pa.nulls(rows, pa.binary(width))})
    assert path.stat().st_size < MIB / 8
    with arrow_pool() as pool:
        assert count(read_parquet(path, max_uncompressed_bytes=104 * MIB)) == rows
        assert pool.max_memory() < 104 * MIB, f"of {rows * width / MIB} MiB"
    assert refused(path, 60 * MIB) < MIB / 8


def test_a_large_footer_is_refused_where_there_is_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 100 + (17 * MIB).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=r"its footer takes 17,825,792 bytes.*larger row groups"):
        list(read_parquet(path, max_uncompressed_bytes=MIB).rows)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_parquet(path).rows)


def test_values_that_python_cannot_hold_name_the_file(tmp_path: Path) -> None:
    latin = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")])
    far = pa.array([2**55], pa.timestamp("ms"))
    for name, column in {"latin": latin, "far": far}.items():
        path = parquet(tmp_path / name, {"text": column})
        with pytest.raises(DataError, match=r"^up cannot be read as Parquet, at its start"):
            list(read_parquet(path, source="up").rows)


def test_a_batch_has_rows() -> None:
    with pytest.raises(ParameterError, match="batch_rows=0 decodes nothing"):
        read_parquet(__file__, batch_rows=0)
