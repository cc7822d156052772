"""The command line as a person meets it: real files, the shipped encoder without a model, exit codes, streams."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icl_select.cli import run

TEXTS = [
    "my invoice is wrong",
    "the invoice shows the wrong sum",
    "I was charged twice on my invoice",
    "I cannot log in",
    "login fails since Monday",
    "password reset does not arrive",
    "where is my parcel",
    "the parcel arrived broken",
]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "pool.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)), encoding="utf-8"
    )
    return path


def labelled(pool: Path) -> Path:
    labels = {"t1": "billing", "t4": "account", "t7": "delivery"}
    rows = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["label"] = labels.get(row["id"])
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return pool


def test_select_writes_one_line_per_pick(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["select", str(pool), "--budget", "3", "--encoder", "hash"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["rank", "id", "gain", "text"]
    assert len(lines) == 4
    assert len({line.split("\t")[1] for line in lines[1:]}) == 3


def test_select_json_carries_what_made_it(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["select", str(pool), "-b", "2", "-m", "max_herding(bandwidth=0.8)", "--encoder", "hash", "--json"]
    assert run(argv) == 0
    first = capsys.readouterr().out
    record = json.loads(first)
    assert record["method"] == "max_herding(bandwidth=0.8)"
    assert len(record["ids"]) == len(record["gains"]) == 2
    assert record["pool"]["size"] == 8
    assert record["embeddings"]["centred"] is True
    assert run(argv) == 0
    assert capsys.readouterr().out == first, "a second run gives the same bytes"


def test_how_exact_a_selection_is_can_be_said_and_is_told(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["select", str(pool), "-b", "2", "--encoder", "hash", "--json"]
    for word, told in (("exact", "exact greedy: the picks cover 0."), ("near", "near-exact: the picks cover 0.")):
        assert run([*argv, "--exactness", word]) == 0
        found = capsys.readouterr()
        assert told in found.err
        record = json.loads(found.out)
        assert (record["method"], record["info"]["exactness"]) == (f"max_herding(exactness='{word}')", word)
    assert run([*argv, "--exactness", "near", "--method", "max_herding(exactness='exact')"]) == 2
    assert "Say it once" in capsys.readouterr().err
    assert run([*argv, "--exactness", "near", "--method", "random"]) == 1
    assert "exactness" in capsys.readouterr().err
    assert run([*argv, "--exactness", "nearly"]) == 2


def test_flags_of_the_published_scripts_are_understood(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["select", str(pool), "--annotation_size", "2", "--selective_annotation_method", "random"]
    for name in ("--embedding_model", "--embedder"):
        assert run([*argv, name, "hash"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_labelled_rows_are_not_picked_again(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(pool)
    assert run(["select", str(pool), "-b", "5", "--encoder", "hash", "--json"]) == 0
    streams = capsys.readouterr()
    record = json.loads(streams.out)
    assert set(record["given"]) == {"t1", "t4", "t7"}
    assert not set(record["ids"]) & set(record["given"])
    assert "3 of 8 rows are labelled already" in streams.err


def test_round_trip_through_a_spreadsheet(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    todo = tmp_path / "todo.csv"
    argv = ["select", str(pool), "-b", "3", "--encoder", "hash", "-o", str(todo), "-f", "csv"]
    assert run(argv) == 0
    with todo.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    for row in rows:
        row["label"] = "billing"
    with todo.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert run(["labels", "import", str(pool), str(todo), "-o", str(pool), "--json"]) == 0
    capsys.readouterr()
    assert run(["prompt", str(pool), "-q", "invoice wrong", "--encoder", "hash", "-k", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["examples"]) == 2
    assert {example["label"] for example in answer["examples"]} == {"billing"}
    assert answer["usage"]["prompt_tokens"] == len(answer["prompt"].encode())


def test_a_stored_selection_becomes_tasks_of_a_labelling_tool(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, tasks = tmp_path / "picked.json", tmp_path / "tasks.json"
    assert run(["select", str(pool), "-b", "3", "--encoder", "hash", "--json", "-o", str(stored)]) == 0
    argv = ["labels", "export", str(pool), "--selection", str(stored), "-f", "label-studio", "-o", str(tasks)]
    assert run([*argv, "--label-words", "billing", "account"]) == 0
    exported = json.loads(tasks.read_text(encoding="utf-8"))
    assert [task["data"]["pool_id"] for task in exported] == json.loads(stored.read_text(encoding="utf-8"))["ids"]
    assert '<Choice value="billing"' in tasks.with_suffix(".xml").read_text(encoding="utf-8")
    stored.write_text("[]", encoding="utf-8")
    assert run(argv) == 1
    assert "is no selection" in capsys.readouterr().err


def test_retrieve_and_prompt_agree(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(pool)
    common = [str(pool), "--query", "the login fails", "--encoder", "hash", "-k", "2", "--json"]
    assert run(["retrieve", *common]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert run(["prompt", *common]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert hits[0]["id"] == "t4"
    assert [e["id"] for e in answer["examples"]] == [h["id"] for h in reversed(hits)], "nearest last"


def test_density_of_two_pools(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["density", f"a={pool}", f"b={pool}", "-e", "hash"]
    assert run([*argv, "--json"]) == 0
    panels = json.loads(capsys.readouterr().out)["panels"]
    assert list(panels) == ["hash"]
    assert panels["hash"]["a"] == panels["hash"]["b"]
    assert panels["hash"]["a"]["share"] == 0.01
    assert run(argv) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header[-4:] == ["nearest", "neighbourhood", "closeness", "reading"]
    assert [float(row[-2]) for row in rows] == pytest.approx([panels["hash"]["a"]["closeness"]] * 2, rel=1e-4)
    for suffix, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!"), ("json", b"{")):
        out = tmp_path / f"density.{suffix}"
        assert run([*argv, "-o", str(out)]) == 0
        assert out.read_bytes().startswith(start)


def test_check_finds_a_leak_and_can_fail_on_it(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"text": "I cannot log in"}\n{"text": "something else entirely"}\n', encoding="utf-8")
    argv = ["check", str(pool), "--queries", str(queries), "--encoder", "hash"]
    assert run(argv) == 0
    assert run([*argv, "--fail-on-leak"]) == 100
    capsys.readouterr()


def test_methods_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["methods"]
    assert {"random", "vote_k", "ideal", "sub_sa", "max_herding"} <= {entry["name"] for entry in entries}
    assert all(entry["summary"] for entry in entries)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["select", "POOL", "-b", "0"], 1, "budget=0"),
        (["select", "POOL", "-b", "9"], 1, "exceeds the 8 rows"),
        (["select", "POOL", "-b", "2", "-m", "max_hedring"], 1, "'max_herding'"),
        (["select", "POOL", "-b", "2", "-m", "max_herding(bandwith=1)"], 1, "'bandwidth'"),
        (["select", "POOL", "-b", "2", "--text", "{subjct}"], 1, "subjct"),
        (["select", "POOL", "-b", "two"], 2, ""),
        (["select", "POOL"], 2, "--budget"),
        (["select", "missing.jsonl", "-b", "2"], 1, "missing.jsonl"),
        (["select", "POOL", "-b", "2", "--format", "csv"], 2, "--output"),
        (["prompt", "POOL"], 2, "--query"),
        (["prompt", "POOL", "-q", "hello"], 1, "labelled"),
        (["density"], 2, "no pool"),
        (["density", "a=POOL", "a=POOL", "-e", "hash"], 2, "NAME="),
        (["select", "POOL", "-b", "2", "--format", "xml", "-o", "tasks.xml"], 2, "label-studio"),
        (["labels", "import", "POOL", "done.csv", "-o", "pool.csv"], 2, ".jsonl"),
        (["selct"], 2, ""),
    ],
)
def test_wrong_input_is_one_clear_message(
    pool: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, words: str
) -> None:
    argv = [str(pool) if token == "POOL" else token for token in argv]
    encoder = ["--encoder", "hash"] if argv[0] in ("select", "prompt") else []
    assert run([*argv, *encoder]) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert words in streams.err
    assert "Traceback" not in streams.err


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom icl_select.cli import run\nassert run(['--help']) == 0\n"
        "heavy = {'torch', 'faiss', 'transformers', 'pandas', 'numba', 'matplotlib', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "select" in done.stdout


def test_help_names_every_command_and_shows_no_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    listed = re.findall(r"^│ (\w+) +(\S.*?) *│$", capsys.readouterr().out, re.MULTILINE)
    assert {name for name, _ in listed} >= {
        "select",
        "labels",
        "retrieve",
        "prompt",
        "density",
        "check",
        "eval",
        "demo",
    }
    for command in ("select", "labels import", "labels export", "prompt", "density", "check", "eval run", "demo"):
        assert run([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert not re.search(r"default:\s*(None|True|False|\()", text), text
    run(["select", "--help"])
    assert "count as labelled" in capsys.readouterr().out, "the whole text of a command, not only its first line"


def test_a_slip_in_the_method_or_budget_is_told_before_embedding(
    pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("embedded first")

    monkeypatch.setattr("icl_select.cli._options.EncoderOptions.embed", never)
    assert run(["select", str(pool), "-b", "2", "-m", "max_hedring", "--encoder", "hash"]) == 1
    assert run(["select", str(pool), "-b", "9", "--encoder", "hash"]) == 1
    assert "exceeds the 8 rows" in capsys.readouterr().err


def test_rows_with_an_empty_text_can_be_left_out(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pool.open("a", encoding="utf-8") as file:
        file.write('{"id": "blank", "text": " "}\n')
    argv = ["select", str(pool), "-b", "8", "--encoder", "hash", "--json"]
    assert run(argv) == 1
    assert "--skip-empty" in capsys.readouterr().err
    assert run([*argv, "--skip-empty"]) == 0
    assert json.loads(capsys.readouterr().out)["pool"]["size"] == 8


def test_import_never_hides_json_lines_under_the_name_of_a_table(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pool.csv"
    table.write_text("id,text,label\na,hello,\nb,world,x\n", encoding="utf-8")
    before = table.read_bytes()
    assert run(["labels", "import", str(table), str(table), "-o", str(table)]) == 2
    assert table.read_bytes() == before
    assert ".jsonl" in capsys.readouterr().err
    assert run(["labels", "import", str(table), str(table), "-o", str(tmp_path / "new.jsonl")]) == 0


def test_density_takes_a_path_with_an_equals_sign(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = pool.with_name("k=3.jsonl")
    odd.write_bytes(pool.read_bytes())
    assert run(["density", str(odd), f"b={odd}", "-e", "hash", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["panels"]["hash"]) == {"k=3", "b"}


@pytest.mark.parametrize("command", ["select {pool} -b 8 --encoder hash", "--help", "methods", "eval schema"])
def test_a_reader_that_stops_early_is_no_error(pool: Path, command: str) -> None:
    env = {**os.environ, "ICS_CACHE_DIR": str(pool.parent / "cache")}
    script = f"{sys.executable} -m icl_select {command.format(pool=pool)} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_behind_standard_output_is_an_error(pool: Path) -> None:
    env = {**os.environ, "ICS_CACHE_DIR": str(pool.parent / "cache")}
    script = f"{sys.executable} -m icl_select select {pool} -b 2 --encoder hash > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_says_what_is_kept(
    pool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("icl_select.cli.check.emit_json", stop)
    assert run(["check", str(pool), "--encoder", "hash", "--json"]) == 130
    assert "interrupted; what was finished is kept\n" in capsys.readouterr().err
