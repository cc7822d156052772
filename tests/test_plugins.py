"""A method of another package joins by its entry point: a real distribution on the path of a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

METHOD = '''
import numpy as np
from icl_select.types import Selection


def lowest(x, budget, *, given, rng, step=1):
    """Pick rows in order."""
    free = np.setdiff1d(np.arange(len(x)), given)[::step][:budget]
    return Selection(indices=free, gains=np.zeros(len(free)))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "strangers.py").write_text(METHOD, encoding="utf-8")
    info = tmp_path / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n", encoding="utf-8")
    points = "[icl_select.methods]\nlowest = strangers:lowest\nrandom = strangers:lowest\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return tmp_path


def call(plugin: Path, code: str) -> Any:
    env = {**os.environ, "PYTHONPATH": str(plugin)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_listed_and_selects(plugin: Path) -> None:
    code = (
        "import json, numpy as np, icl_select\nfrom icl_select.registry import method_names\n"
        "picked = icl_select.select('lowest(step=2)', np.eye(6), 2, given=[0])\n"
        "print(json.dumps([method_names(), picked.indices.tolist(), picked.method]))"
    )
    names, indices, method = call(plugin, code)
    assert "lowest" in names
    assert (indices, method) == ([1, 3], "lowest(step=2)")


def test_it_cannot_take_the_name_of_ours(plugin: Path) -> None:
    code = "import json\nfrom icl_select.registry import resolve\nprint(json.dumps(resolve('random')[1].__module__))"
    assert call(plugin, code) == "icl_select.methods.random"


def test_a_wrong_selection_is_refused(plugin: Path) -> None:
    code = (
        "import json, numpy as np, icl_select\n"
        "try:\n    icl_select.select('lowest(step=3)', np.eye(6), 4)\n"
        "except icl_select.IclSelectError as exc:\n    print(json.dumps(str(exc)))"
    )
    assert "exactly budget unique rows" in call(plugin, code)


def test_a_plugin_that_cannot_be_imported_says_which(plugin: Path) -> None:
    (plugin / "strangers.py").write_text("import no_such_module\n", encoding="utf-8")
    code = (
        "import json, numpy as np, icl_select\n"
        "try:\n    icl_select.select('lowest', np.eye(6), 4)\n"
        "except icl_select.IclSelectError as exc:\n    print(json.dumps(str(exc)))"
    )
    message = call(plugin, code)
    assert "lowest" in message
    assert "no_such_module" in message
    listing = "from icl_select.cli import run\nimport sys\nsys.exit(run(['methods', '--json']))"
    entries = {entry["name"]: entry["summary"] for entry in call(plugin, listing)["methods"]}
    assert entries["lowest"].startswith("cannot be used")
    assert entries["vote_k"].startswith("Pick")
