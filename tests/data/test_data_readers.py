"""Files: JSON Lines, CSV, Parquet; what breaks them, and where."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icl_select.data import Pool
from icl_select.data.readers import read_csv, read_jsonl
from icl_select.errors import DataError, LabelError, ParameterError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


LINES = '{"text": "a", "label": 1}\n{"text": "b"}\n'


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.rstrip("\n"),
        LINES.replace("\n", "\r\n"),
        "\ufeff" + LINES,
        "\n" + LINES.replace("\n", "\n  \n") + "\n\n",
        gzip.compress(LINES.encode(), mtime=0),
    ],
    ids=["plain", "no last line end", "CR LF", "byte order mark", "blank lines", "gzip by content"],
)
def test_json_lines_in_every_dress(tmp_path: Path, content: str | bytes) -> None:
    pool = Pool.read(write(tmp_path / "pool.jsonl", content))
    assert pool.texts == ["a", "b"]
    assert pool.labels == ["1", None]
    assert pool.ids == Pool.from_texts(["a", "b"]).ids
    assert pool.source == str(tmp_path / "pool.jsonl")


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\u2029d", "e\x85f", "g\x0bh\x0ci", "j\x1ck", "l\rm"]
    body = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    assert Pool.read(write(tmp_path / "pool.jsonl", body)).texts == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": "b"\n', r"pool.jsonl, line 2: not JSON .*Expected one whole JSON object per line"),
        ('{"text": "a"}\n\n[1]\n', r"line 3: holds a JSON array"),
        ('"abc"\n', r"line 1: holds the JSON value \"abc\""),
        ('{"text": "a", "v": Infinity}\n', r"line 1: not JSON \(Infinity is not a JSON number\)"),
        ('{"text": "a", "v": ' + "9" * 5000 + "}\n", r"line 1: not JSON"),
        ('{"text": ' + "[" * 100_000 + "\n", r"line 1: not JSON"),
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"line 2: byte 0xe9 is not UTF-8.*iconv"),
        ('{"text": "a"}'.encode("utf-16"), r"is UTF-16 text.*iconv -f utf-16"),
        ('{"text": "a"}\n{"text": null}\n', r"line 2: the text is empty"),
        ('{"text": "a"}\n{"txt": "b"}\n', r"line 2: no field 'text'. Did you mean 'txt'"),
        ('{"text": "a \\ud83d"}\n', r"line 1: 'text' holds U\+D83D"),
        ('{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}\n', r"line 2: the id '1' was already given at line 1"),
        ("", r"pool.jsonl holds no rows"),
        ("\n\n", r"holds no rows"),
        (gzip.compress(LINES.encode() * 1000, mtime=0)[:-20], r"gzip data breaks off after line \d+"),
    ],
)
def test_broken_json_lines_name_the_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        Pool.read(write(tmp_path / "pool.jsonl", content))


def test_a_label_outside_the_words_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n')
    with pytest.raises(LabelError, match=r"pool.jsonl, line 2: the label '2' is not one of the 2 label words"):
        Pool.read(path, label_words=["no", "yes"])


def test_nan_is_null_as_pandas_writes_it(tmp_path: Path) -> None:
    pool = Pool.read(write(tmp_path / "pool.jsonl", '{"text": "a", "label": NaN, "score": NaN}\n'))
    assert pool.labels == [None]
    assert dict(pool[0].fields) == {"text": "a", "score": None}


def test_missing_and_unreadable_paths_say_so(tmp_path: Path) -> None:
    write(tmp_path / "tickets.jsonl", LINES)
    with pytest.raises(DataError, match=r"does not exist. Did you mean 'tickets.jsonl'\?"):
        Pool.read(tmp_path / "ticket.jsonl")
    with pytest.raises(DataError, match="there is no folder"):
        Pool.read(tmp_path / "no" / "x.jsonl")
    with pytest.raises(DataError, match=r"suffix '.xlsx' names no format.*\.parquet"):
        Pool.read(write(tmp_path / "a.xlsx", b"PK"))
    with pytest.raises(DataError, match="is a folder"):
        Pool.from_jsonl(tmp_path)
    with pytest.raises(ParameterError, match="split= is for Hugging Face data sets"):
        Pool.read(tmp_path / "tickets.jsonl", split="train")


def test_csv_cells_are_strings_and_empty_labels_are_none(tmp_path: Path) -> None:
    content = 'id,text,label\r\n01,"a, ""quoted""\r\nsecond line",0\r\n2,b\u2028c,\r\n'
    pool = Pool.read(write(tmp_path / "pool.csv", "\ufeff" + content))
    assert pool.ids == ["01", "2"]
    assert pool.texts == ['a, "quoted"\r\nsecond line', "b\u2028c"]
    assert pool.labels == ["0", None]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_delimiters_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    content = f'subject{delimiter}body\n"x; y, z\tw"{delimiter}v\n'
    pool = Pool.read(write(tmp_path / "pool.csv", content), text="{subject}|{body}")
    assert pool.texts == ["x; y, z\tw|v"]


def test_csv_gzip_single_column_and_trailing_blank_lines(tmp_path: Path) -> None:
    assert Pool.read(write(tmp_path / "a.csv.gz", gzip.compress(b"text\nhello\n\n\n"))).texts == ["hello"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,label\n"a\nb",1\nc\n', r"line 4: 1 cells, but the header names 2 columns"),
        ("text,label\na,1,2\n", r"line 2: 3 cells"),
        ('text\n"a" b\n', r"line 2: not CSV"),
        ('text\nx\n"open\n', r"line 3: not CSV"),
        ("text,text\na,b\n", r"header names 'text' twice"),
        ("text,label\n", r"holds no rows"),
        ("", r"holds no rows"),
        (b"text\na\ncaf\xe9\n", r"line 3: byte 0xe9 is not UTF-8"),
        ("text,label\n ,1\n", r"line 2: the text is empty"),
    ],
)
def test_broken_csv_names_the_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Pool.read(write(tmp_path / "pool.csv", content))


def test_huge_cells_are_read_and_the_global_limit_is_left_alone(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    huge = "x" * (limit + 1000)
    assert Pool.read(write(tmp_path / "pool.csv", f"text\n{huge}\n")).texts == [huge]
    assert csv.field_size_limit() == limit


def test_csv_files_are_read_from_several_threads(tmp_path: Path) -> None:
    huge = "y" * (csv.field_size_limit() + 10)
    paths = [write(tmp_path / f"{i}.csv", "text\n" + f"{huge}\n" * 5) for i in range(4)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda p=path: found.append(len(Pool.read(p)))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 4


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=15)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_what_csv_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerows([("a", "b"), *rows])
    table = read_csv(write(tmp_path / "t.csv", stream.getvalue()))
    assert [tuple(row.values()) for _, row in table.rows] == rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(CELLS, CELLS | st.integers() | st.none(), max_size=4), max_size=6), st.booleans())
def test_what_json_writes_is_read_back(tmp_path: Path, rows: list[dict[str, object]], escape: bool) -> None:
    body = "".join(json.dumps(row, ensure_ascii=escape) + "\n" for row in rows)
    assert [row for _, row in read_jsonl(write(tmp_path / "t.jsonl", body)).rows] == rows


def test_parquet_values_become_json_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "label": pa.array([0.0, None], pa.float64()),
            "when": [datetime.datetime(2024, 1, 2, 3, 4), None],
            "price": [decimal.Decimal("1.50"), None],
            "tags": [["x"], ["y", "z"]],
            "raw": [b"bytes", None],
            "score": [float("nan"), 2.5],
            "part": [{"n": 1}, {"n": None}],
        }
    )
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = Pool.read(tmp_path / "pool.parquet")
    assert pool.labels == ["0", None]
    assert dict(pool[0].fields) == {
        "text": "a",
        "when": "2024-01-02T03:04:00",
        "price": "1.50",
        "tags": ["x"],
        "raw": "bytes",
        "score": None,
        "part": {"n": 1},
    }
    assert Pool.from_jsonl(pool.to_jsonl(tmp_path / "pool.jsonl")) == pool


def test_parquet_reads_only_the_columns_that_are_used(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "title": ["a", "b"], "body": ["c", "d"], "image": [b"\xff\xd8", b"\xff"]})
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = Pool.read(tmp_path / "pool.parquet", text="{title} {body}", fields=["title"])
    assert pool.texts == ["a c", "b d"]
    assert pool.ids == ["1", "2"]
    with pytest.raises(DataError, match=r"row 1: the field 'image' holds bytes that are not text.*fields="):
        Pool.read(tmp_path / "pool.parquet", text="title")
    with pytest.raises(DataError, match=r"row 1: no field 'boddy'"):
        Pool.read(tmp_path / "pool.parquet", text="boddy", fields=["title"])


def test_broken_parquet_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 1000}), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    for name, content in [("text", b"not parquet"), ("cut", good[: len(good) // 2]), ("empty", b"")]:
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            Pool.read(write(tmp_path / f"{name}.parquet", content))
