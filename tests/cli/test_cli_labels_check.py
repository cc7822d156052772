"""``icl-select labels check``: the labels of a real file, as text and as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icl_select.cli import run
from icl_select.leave_one_out import LeaveOneOut

TEXTS = {
    "billing": [
        "my invoice is wrong",
        "the invoice shows a wrong sum",
        "wrong sum on the invoice",
        "this invoice is wrong",
    ],
    "account": ["I cannot log in", "log in fails since Monday", "why can I not log in", "the log in page fails"],
}


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight labelled rows, a copy of one of them with another label, and a row without a label."""
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    rows += [("I cannot log in", "billing"), ("where is my parcel", None)]
    path = tmp_path / "pool.jsonl"
    records = [{"id": f"t{i}", "text": text, "label": label} for i, (text, label) in enumerate(rows)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_the_wrong_copy_is_found(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["labels", "check", str(pool), "--encoder", "hash", "--ks", "1", "3"]) == 0
    summary, *tables = capsys.readouterr().out.rstrip("\n").split("\n\n")
    assert summary.startswith("Leave-one-out over 9 labelled rows with 2 labels: the 3 nearest other rows vote")
    assert "verdict: no evidence" in summary
    cells = [[line.split("\t") for line in table.splitlines()] for table in tables]
    assert [table[0][0] for table in cells] == ["k", "label", "label", "id"]
    assert [line[0] for line in cells[0][1:]] == ["1", "3"]
    assert ["billing", "5"] in [line[:2] for line in cells[1]]
    header, first, second = cells[3][:3]
    assert header == ["id", "label", "voted", "share", "nearest", "similarity", "copy", "text"]
    assert first[:3] == ["t8", "billing", "account"]
    assert first[6:] == ["t4", "I cannot log in"]
    assert second[0] == "t4"


def test_json_reads_back_and_names_the_vectors(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["labels", "check", str(pool), "--encoder", "hash", "--no-centre", "--keep", "1", "--seed", "3", "--json"]
    assert run(argv) == 0
    first = capsys.readouterr().out
    record = json.loads(first)
    assert record["schema"] == "icl-select/leave-one-out/1"
    assert record["embeddings"]["encoder"] == "hash"
    assert record["embeddings"]["centred"] is False
    report = LeaveOneOut.from_dict(record)
    assert (report.n, report.seed, report.report_k, len(report.suspects)) == (9, 3, 8, 1)
    assert report.n_suspects >= 2
    assert run(argv) == 0
    assert capsys.readouterr().out == first, "a second run gives the same bytes"


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--ks", "0"], 1, "k=0 is below 1"),
        (["--alpha", "2"], 1, "alpha=2.0 is no level"),
        (["--label", "missing"], 1, "missing"),
    ],
)
def test_wrong_options_are_one_clear_message(
    pool: Path, more: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["labels", "check", str(pool), "--encoder", "hash", *more]) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert words in streams.err


def test_a_pool_without_labels_is_refused_before_it_is_embedded(
    pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("embedded first")

    monkeypatch.setattr("icl_select.cli._options.EncoderOptions.embed", never)
    pool.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two", "label": "x"}\n', encoding="utf-8")
    assert run(["labels", "check", str(pool), "--encoder", "hash"]) == 1
    assert "1 of 2 rows are labelled, but at least two have to be" in capsys.readouterr().err
