"""The command line: data to stdout, progress and remarks to stderr, exit codes that scripts can read.

Exit codes: 0 done, 1 error, 2 wrong usage, 100 a gate asked for (such as ``--fail-on-worse``) did not pass,
130 interrupted. Commands load on first use, so that ``--help`` needs no heavy library.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from cyclopts import App, CycloptsError

from icl_select import __version__
from icl_select.cli._output import remark
from icl_select.errors import IclSelectError

__all__ = ["app", "main"]

_HELP = """Which examples to label for in-context learning, prompts from the labelled ones, and whether it beat random.

A pool is a file (.jsonl, .jsonl.gz, .csv, .parquet), a folder saved by Hugging Face datasets, or a hub id.
"""


def _app() -> App:
    app = App(name="icl-select", help=_HELP, version=__version__, result_action="return_value", help_format="plaintext")
    here = "icl_select.cli"
    app.command(f"{here}.select:select", name="select", help="Say which examples to label.")
    app.command(f"{here}.labels:app", name="labels", help="Exchange labels with people and labelling tools.")
    app.command(f"{here}.retrieve:retrieve", name="retrieve", help="Find the labelled examples nearest to a query.")
    app.command(f"{here}.prompt:prompt", name="prompt", help="Build few-shot prompts from the labelled examples.")
    app.command(f"{here}.density:density", name="density", help="Report how similar the texts of pools are.")
    app.command(f"{here}.check:check", name="check", help="Find duplicates in a pool and queries that stand in it.")
    app.command(f"{here}.methods:methods", name="methods", help="List the selection methods and their parameters.")
    for point in sorted(entry_points(group="icl_select.commands"), key=lambda point: point.name):
        app.command(point.value, name=point.name)
    return app


app = _app()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with the codes named above."""
    logging.basicConfig(format="icl-select: %(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; expected errors become one message on stderr."""
    try:
        result = app(list(argv), exit_on_error=False, print_error=True)
        sys.stdout.flush()
    except CycloptsError:
        return 2
    except IclSelectError as exc:
        remark(f"{type(exc).__name__}: {exc}")
        return 1
    except KeyboardInterrupt:
        remark("interrupted; what was finished is kept")
        return 130
    except BrokenPipeError:
        # The reader (head, say) has seen enough.
        _discard_stdout()
        return 0
    except OSError as exc:
        # What our own code writes raises StoreError; this is the terminal, a redirection, or a file gone meanwhile.
        where = f" {exc.filename}" if exc.filename else ""
        remark(f"cannot read or write{where}: {exc.strerror or exc}")
        _discard_stdout()
        return 1
    return result if isinstance(result, int) else 0


def _discard_stdout() -> None:
    """Point stdout elsewhere, so that the flush at exit does not fail again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
