"""``scripts/postgres.sh``: a cluster for the time of one command, which leaves nothing behind however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from databases import SERVER, server_connection
from sqlalchemy import make_url

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "postgres.sh"
DEADLINE = 120.0

# Says where its cluster is, then waits; what it makes of Ctrl-C is told by how it ends.
WAITING = f"""
import os, sys, time
try:
    print(os.environ["{SERVER}"], flush=True)
    time.sleep({DEADLINE})
except KeyboardInterrupt:
    sys.exit(9)
"""


@pytest.fixture(scope="module", autouse=True)
def _postgresql_is_installed() -> None:
    if subprocess.run([SCRIPT, "where"], capture_output=True, timeout=DEADLINE, check=False).returncode:
        pytest.skip("needs PostgreSQL: scripts/postgres.sh install")


def script(action: str, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if name != SERVER}
    return subprocess.Popen(
        [SCRIPT, action, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, **variables},
        # The tests themselves may have been started where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def assert_gone(url: str) -> None:
    folder = Path(str(make_url(url).query["host"]))
    assert folder.is_absolute()
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        server_connection(url)


def test_ends_as_its_command_does() -> None:
    with script("run", ["sh", "-c", f'echo "${SERVER}"; exit 7']) as running:
        out, _ = running.communicate(timeout=DEADLINE)
    assert running.returncode == 7
    assert_gone(out.strip())


def test_settings_of_another_server_are_not_handed_on() -> None:
    with script("run", ["sh", "-c", 'echo "${PGPORT-}${PGHOST-}"'], PGPORT="1", PGHOST="nowhere.invalid") as running:
        out, _ = running.communicate(timeout=DEADLINE)
    assert (running.returncode, out) == (0, "\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 9), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_passes_signals_on_and_cleans_up(number: signal.Signals, status: int) -> None:
    with script("run", [sys.executable, "-c", WAITING]) as running:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        with closing(server_connection(url)) as connection:
            settings = [connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "full_page_writes")]
            running.send_signal(number)
            assert running.wait(DEADLINE) == status
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    assert settings == [("off",), ("on",)]
    assert_gone(url)


def test_a_server_that_is_named_is_taken() -> None:
    with script("run-if-there", ["sh", "-c", f'echo "${SERVER}"'], **{SERVER: "postgresql://named"}) as running:
        out, _ = running.communicate(timeout=DEADLINE)
    assert (running.returncode, out) == (0, "postgresql://named\n")


def test_without_a_command_it_says_what_is_missing() -> None:
    done = subprocess.run([SCRIPT, "run"], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "which command?" in done.stderr
