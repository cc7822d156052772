"""docs/statistics.md says what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icl_select.stats import MARKS, PILOT, design_notes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_pilot_and_marks(page: str) -> None:
    parts = (PILOT.draw, PILOT.item, PILOT.residual, PILOT.luck)
    assert f"| budget 18 (`PILOT`) | {' | '.join(f'{v:g}' for v in parts)} |" in page
    for verdict, mark in MARKS.items():
        assert f"| `{mark}` | {verdict} |" in page


def test_floors(page: str) -> None:
    for draws, floor, largest in re.findall(r"^\| (\d+) \| 1/(\d+)[^|]*\| (\w+)", page, flags=re.MULTILINE):
        check = design_notes(int(draws), 1)
        assert check.smallest_p == 1 / int(floor)
        assert check.largest_family == (0 if largest == "none" else int(largest))


@pytest.mark.parametrize(
    ("marker", "tables", "least"), [("calibration", 7, 70), ("calibration-real", 3, 50), ("calibration-labels", 1, 30)]
)
def test_calibration_tables_hold(page: str, marker: str, tables: int, least: int) -> None:
    """No row fails, and a row whose interval lies above what is claimed says so."""
    text = page.partition(f"<!-- {marker}: generated")[2].partition(f"<!-- /{marker} -->")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    verdicts = [line.rstrip(" |").rpartition("| ")[2] for line in rows]
    assert verdicts.count("holds") == tables
    assert len(verdicts) - tables > least
    claims = text.partition("**A true difference")[0]  # that table's rates are no rejections
    for row, verdict in zip(rows, verdicts, strict=True):
        assert verdict in ("holds", "yes", "yes, below") or verdict.startswith("within chance (p=0.0"), row
        rejected = re.search(r"\| [\d.]+% \(([\d.]+)–[\d.]+\)", row)
        if rejected and row in claims and verdict.startswith("yes"):
            assert float(rejected[1]) <= (7.0 if "at most 7%" in row else 5.0), row


def test_benchmark_runs() -> None:
    """A short run of one table: right shape, and every claim within its (then wide) error."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "calibration.py"),
        "--campaigns",
        "20",
        "--only",
        "family",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["family"]
    assert [row["condition"] for row in rows] == [{"draws": 5, "comparisons": 12}, {"draws": 10, "comparisons": 12}]
    assert all(row["holds"] for row in rows)
