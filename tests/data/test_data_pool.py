"""Pools: ids, text, labels, subsets and the round trip through a file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icl_select.data import Pool
from icl_select.errors import DataError, LabelError, ParameterError, TemplateError, UnknownNameError
from icl_select.types import Example


def small() -> Pool:
    return Pool.from_texts(["one", "two", "three"], ids=["a", "b", 7], labels=[None, 0, "x"])


def test_texts_ids_and_labels_become_examples() -> None:
    pool = small()
    assert pool.texts == ["one", "two", "three"]
    assert pool.ids == ["a", "b", "7"]
    assert pool.labels == [None, "0", "x"]
    assert pool.labelled.tolist() == [1, 2]
    assert pool.labelled.dtype == np.int64
    assert pool[0] == Example("a", "one", {"text": "one"})
    assert pool[-1].id == "7"
    assert [example.id for example in pool] == pool.ids
    assert pool.index("7") == pool.index(7) == 2
    assert pool.example("b").text == "two"
    assert "a" in pool
    assert "one" not in pool
    assert pool[1] in pool
    assert Example("b", "other") not in pool


def test_ids_are_hashes_of_content_and_repeats_are_numbered_in_order() -> None:
    pool = Pool.from_texts(["same", "other", "same", "same"])
    base = pool.ids[0]
    assert len(base) == 16
    assert pool.ids == [base, pool.ids[1], f"{base}-2", f"{base}-3"]
    assert Pool.from_texts(["same"], labels=["x"]).ids == [base], "the label is no part of the id"
    assert Pool.from_records([{"text": "same"}]).ids == [base]


def test_content_ids_step_aside_for_given_ones() -> None:
    base = Pool.from_texts(["same"]).ids[0]
    rows = [{"text": "same"}, {"id": f"{base}-2", "text": "x"}, {"id": base, "text": "y"}, {"text": "same"}]
    assert Pool.from_records(rows).ids == [f"{base}-3", f"{base}-2", base, f"{base}-4"]


def test_empty_pool_is_refused() -> None:
    with pytest.raises(DataError, match="texts holds no rows"):
        Pool.from_texts([])
    with pytest.raises(DataError, match="pool is empty"):
        Pool([])


def test_blank_text_is_refused_or_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"texts, item 1: the text is empty.*skip_empty=True"):
        Pool.from_texts(["a", " \n"])
    pool = Pool.from_texts(["a", " \n", ""], skip_empty=True)
    assert pool.texts == ["a"]
    assert pool.skipped == 2
    assert "left out 2 rows" in caplog.text
    with pytest.raises(DataError, match="all 2 texts are empty"):
        Pool.from_texts(["", " "], skip_empty=True)


def test_a_template_without_a_field_is_refused() -> None:
    """Doubled braces are literal ones: all rows would have the same text."""
    with pytest.raises(TemplateError, match="names no field"):
        Pool.from_records([{"id": "1", "content": "a"}], text="{{ content }}")


def test_a_template_says_what_is_embedded() -> None:
    rows = [{"subject": "Invoice", "body": "It is wrong.", "n": 3}]
    pool = Pool.from_records(rows, text="{subject}\n{body}")
    assert pool.texts == ["Invoice\nIt is wrong."]
    assert dict(pool[0].fields) == rows[0]
    assert Pool.from_records(rows, text="body").texts == ["It is wrong."]
    assert Pool.from_records(rows, text="n").texts == ["3"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, DataError, r"item 0: no field 'text'.*Say which text is embedded"),
        ({"text": "boody"}, DataError, r"no field 'boody'. Did you mean 'body'\?"),
        ({"text": "{subject}: {boody}"}, TemplateError, r"item 0: .*'boody'. Did you mean 'body'\?"),
        ({"text": "{body.__class__}"}, TemplateError, "more than a field name"),
        ({"text": "tags"}, DataError, "holds a list"),
        ({"text": "body", "id": "idd"}, DataError, r"no field 'idd', which id= names. Did you mean 'id2'\?"),
        ({"text": "body", "label": "klass"}, DataError, r"no row has the field 'klass'.*Did you mean 'class'\?"),
        ({"text": "body", "fields": ["nope"]}, DataError, "no field 'nope', which fields= names"),
        ({"text": "body", "fields": "body"}, DataError, r"Pass a list of field names"),
        ({"text": "body", "label_words": "yes"}, LabelError, "Pass a list of words"),
        ({"text": "body", "label": "tags"}, LabelError, "the label is a list"),
        ({"text": "body", "id": "class"}, DataError, r"the id is empty"),
        ({"text": "body", "id": "tags"}, DataError, r"is a list. Ids are strings or whole numbers"),
    ],
)
def test_what_rows_do_not_have_is_named(options: dict[str, object], error: type[Exception], message: str) -> None:
    rows = [{"subject": "s", "body": "b", "id2": 1, "class": None, "tags": ["x", "y"]}]
    with pytest.raises(error, match=f"(?s){message}"):
        Pool.from_records(rows, **options)


def test_fields_keeps_only_those_named_and_text_may_use_others() -> None:
    rows = [{"a": 1, "b": "x", "c": [1]}]
    pool = Pool.from_records(rows, text="b", fields=["c", "a"])
    assert list(pool[0].fields.items()) == [("c", [1]), ("a", 1)]
    assert pool.texts == ["x"]


def test_given_ids_must_be_unique_and_both_places_are_named() -> None:
    with pytest.raises(DataError, match=r"texts, item 2: the id 'x' was already given at item 0"):
        Pool.from_texts(["a", "b", "c"], ids=["x", "y", "x"])
    with pytest.raises(DataError, match=r"examples 0 and 1 have the same id 'x'"):
        Pool([Example("x", "a"), Example("x", "b")])
    with pytest.raises(DataError, match="2 ids for 1 texts"):
        Pool.from_texts(["a"], ids=["x", "y"])


def test_a_null_id_gets_a_content_hash_by_default_and_is_an_error_where_ids_are_asked_for() -> None:
    rows = [{"id": 5, "text": "a"}, {"id": None, "text": "b"}, {"text": "c"}, {"id": 3.0, "text": "d"}]
    pool = Pool.from_records(rows)
    assert pool.ids[0] == "5"
    assert pool.ids[1:3] == Pool.from_texts(["b", "c"]).ids
    assert pool.ids[3] == "3", "a whole number stored as float"
    with pytest.raises(DataError, match=r"item 1: the id is empty"):
        Pool.from_records(rows, id="id")
    with pytest.raises(DataError, match=r"1\.5 is a float"):
        Pool.from_records([{"id": 1.5, "text": "a"}])
    with pytest.raises(DataError, match="True is a bool"):
        Pool.from_records([{"id": True, "text": "a"}])


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        (0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        (["x"], "x"),
        ("a b", "a b"),
        (np.int64(3), "3"),
    ],
)
def test_raw_labels_become_strings(raw: object, label: str | None) -> None:
    assert Pool.from_records([{"text": "t", "label": raw}]).labels == [label]


@pytest.mark.parametrize(
    ("raw", "words", "label"),
    [
        (0, ["no", "yes"], "no"),
        ("1", ["no", "yes"], "yes"),
        (True, ["no", "yes"], "yes"),
        ("yes", ["no", "yes"], "yes"),
        ("1", ["1", "2"], "1"),
        (1, ["1", "2"], "2"),
        (-1, ["no", "yes"], None),
        (None, ["no", "yes"], None),
        (0, {"0": "no", "1": "yes"}, "no"),
        ("pos", {"pos": "great"}, "great"),
        ("great", {"pos": "great"}, "great"),
    ],
)
def test_label_words_stand_for_class_ids(raw: object, words: object, label: str | None) -> None:
    assert Pool.from_records([{"text": "t", "label": raw}], label_words=words).labels == [label]


@pytest.mark.parametrize("raw", [2, "2", -2, "maybe", "Yes", 0.5, {"a": 1}])
def test_labels_outside_the_label_words_are_refused(raw: object) -> None:
    with pytest.raises(LabelError, match="records, item 0: the label"):
        Pool.from_records([{"text": "t", "label": raw}], label_words=["no", "yes"])


def test_labelling_checks_everything_first() -> None:
    pool = small()
    assert pool.label({"a": "x"}) is pool
    assert pool.labels == ["x", "0", "x"]
    pool.label({"a": "x"})  # the same again is no conflict
    with pytest.raises(LabelError, match=r"id 'a' is labelled 'x', and 'y' was given.*overwrite=True"):
        pool.label({"7": "x", "a": "y"})
    with pytest.raises(UnknownNameError, match="no id 'zz'"):
        pool.label({"a": "z", "zz": "y"}, overwrite=True)
    with pytest.raises(LabelError, match=r"'po' is not one of the 2 label words. Did you mean 'pos'\?"):
        pool.label({"a": "po"}, overwrite=True, label_words=["pos", "neg"])
    with pytest.raises(LabelError, match="the label ' ' is no word"):
        pool.label({"a": " "}, overwrite=True)
    with pytest.raises(LabelError, match="overwrite=True"):
        pool.label({"a": None})
    assert pool.labels == ["x", "0", "x"], "nothing was changed"
    pool.label({"a": None, "7": "y"}, overwrite=True)
    assert pool.labels == [None, "0", "y"]


def test_a_copy_is_labelled_on_its_own_and_labels_do_not_change_the_fingerprint() -> None:
    pool = small()
    copy = pool.copy()
    assert copy == pool
    before = pool.fingerprint
    copy.label({"a": "new"})
    assert pool.labels[0] is None
    assert copy != pool
    assert copy.fingerprint == before
    assert Pool.from_texts(["one", "two", "threE"], ids=["a", "b", "7"]).fingerprint != before
    assert Pool.from_texts(["two", "one", "three"], ids=["a", "b", "7"]).fingerprint != before


def test_subsets_keep_the_order_asked_for() -> None:
    pool = small()
    assert pool.subset(np.array([2, 0])).ids == ["7", "a"]
    assert pool[1:].ids == ["b", "7"]
    for bad, error in [([3], ParameterError), ([-1], ParameterError), ([0, 0], DataError), ([], DataError)]:
        with pytest.raises(error):
            pool.subset(bad)


def test_unknown_id_in_a_large_pool_does_not_list_it_all() -> None:
    pool = Pool.from_texts([f"text {i}" for i in range(1000)], ids=range(1000))
    with pytest.raises(UnknownNameError, match=r"pool of 1000 examples has no id 'zz'. Its first id is '0'.") as info:
        pool.index("zz")
    assert len(str(info.value)) < 200


def test_lone_surrogates_are_refused_with_the_place_and_the_way_out() -> None:
    with pytest.raises(DataError, match=r"texts, item 0: 'text' holds U\+D800, half of a surrogate pair.*encode"):
        Pool.from_texts(["bad \ud800"])
    with pytest.raises(DataError, match="'field tags' holds"):
        Pool.from_records([{"text": "t", "tags": [{"k": "\udfff"}]}])
    with pytest.raises(DataError, match="'label' holds"):
        Pool.from_texts(["t"], labels=["\ud800"])
    with pytest.raises(DataError, match="'id' holds"):
        Pool([Example("\ud800", "t")])
    with pytest.raises(DataError, match="half of a surrogate"):
        Pool.from_texts(["t"], ids=["a"]).label({"a": "\ud800"})


@pytest.mark.parametrize(
    "example",
    ["text", Example("", "t"), Example("a", " "), Example("a", "t", label=""), Example(3, "t")],  # type: ignore[arg-type]
)
def test_examples_made_by_hand_are_checked(example: Example) -> None:
    with pytest.raises((DataError, LabelError), match="example 0"):
        Pool([example])


def test_what_is_no_list_of_texts_or_records_is_refused() -> None:
    with pytest.raises(DataError, match="one string"):
        Pool.from_texts("hello")
    with pytest.raises(DataError, match="item 0 is a str"):
        Pool.from_records(["hello"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="txt"):
        Pool.from_records([{"text": "a"}], txt="text")  # type: ignore[call-arg]


def test_values_that_json_cannot_hold_are_refused_on_writing(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    for value in (float("inf"), object()):
        with pytest.raises(DataError, match="example 'a' holds a value that JSON cannot"):
            Pool([Example("a", "t", {"v": value})]).to_jsonl(path)
    assert not path.exists()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
WORDS = TEXT.filter(lambda text: not text.isspace())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(TEXT | st.sampled_from(["id", "text", "label", "fields", "metadata"]), JSON, max_size=4)
EXAMPLES = st.lists(
    st.builds(Example, id=WORDS, text=WORDS, fields=FIELDS, label=st.none() | WORDS, metadata=FIELDS),
    min_size=1,
    max_size=5,
    unique_by=lambda example: example.id,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EXAMPLES, st.sampled_from(["pool.jsonl", "pool.jsonl.gz"]))
def test_a_written_pool_reads_back_equal(tmp_path: Path, examples: list[Example], name: str) -> None:
    pool = Pool(examples)
    path = pool.to_jsonl(tmp_path / name)
    again = Pool.from_jsonl(path)
    assert again == pool
    assert again.fingerprint == pool.fingerprint
    assert Pool.read(path) == pool
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert len(content.decode("utf-8").splitlines()) >= len(pool)
    for line in content.splitlines():
        json.loads(line)


def test_writing_is_deterministic_and_line_separators_are_escaped(tmp_path: Path) -> None:
    pool = Pool.from_texts(["a\u2028b\u2029c\x85d\ne\r\nf"], ids=["x"])
    first = pool.to_jsonl(tmp_path / "a.jsonl.gz").read_bytes()
    assert pool.to_jsonl(tmp_path / "b.jsonl.gz").read_bytes() == first
    text = pool.to_jsonl(tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1
    assert Pool.from_jsonl(tmp_path / "a.jsonl") == pool


def test_a_written_pool_can_be_read_with_another_text(tmp_path: Path) -> None:
    pool = Pool.from_records([{"subject": "s", "body": "b", "kind": "k"}], text="{subject} {body}", label="kind")
    path = pool.to_jsonl(tmp_path / "pool.jsonl")
    assert Pool.from_jsonl(path).texts == ["s b"]
    other = Pool.from_jsonl(path, text="{body}!", fields=["body"])
    assert other.texts == ["b!"]
    assert other.labels == ["k"]
    assert other.ids == pool.ids
    assert dict(other[0].fields) == {"body": "b"}


def test_importing_pools_loads_no_heavy_library() -> None:
    heavy = "'torch', 'faiss', 'transformers', 'pandas', 'datasets', 'pyarrow', 'scipy', 'numba', 'matplotlib'"
    code = f"import sys, icl_select.data; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
