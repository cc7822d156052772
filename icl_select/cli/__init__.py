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

from cyclopts import App, CycloptsError, Parameter

from icl_select import __version__
from icl_select.cli._options import UsageError, shown_default
from icl_select.cli._output import remark
from icl_select.errors import IclSelectError

__all__ = ["app", "main"]

_HELP = """Which examples to label for in-context learning, prompts from the labelled ones, and whether it beat random.

A pool is a file (.jsonl, .jsonl.gz, .csv, .parquet), a folder saved by Hugging Face datasets, or a hub id.
"""


# (module:function, name): what the list of commands says is the first paragraph of the function's own text.
_COMMANDS = (
    ("select:select", "select"),
    ("labels:app", "labels"),
    ("retrieve:retrieve", "retrieve"),
    ("prompt:prompt", "prompt"),
    ("density:density", "density"),
    ("check:check", "check"),
    ("methods:methods", "methods"),
)


def _app() -> App:
    app = App(
        name="icl-select",
        help=_HELP,
        version=__version__,
        result_action="return_value",
        help_format="markdown",
        default_parameter=Parameter(show_default=shown_default),
        suppress_keyboard_interrupt=False,
    )
    for target, name in _COMMANDS:
        app.command(f"icl_select.cli.{target}", name=name)
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
    if not argv or argv[0] in ("--help", "-h"):
        _load_commands()
    try:
        result = app(list(argv), exit_on_error=False, print_error=True)
        sys.stdout.flush()
    except CycloptsError:
        return 2
    except SystemExit as exc:
        # The help printer gives up in this way when its reader (head, say) has seen enough.
        if not isinstance(exc.__context__, BrokenPipeError):
            raise
        _discard_stdout()
        return 0
    except UsageError as exc:
        remark(f"wrong usage: {exc}")
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


def _load_commands() -> None:
    """Load every command, so that the list of them says what each does; one that fails says so when it is called."""
    for _, name in _COMMANDS:
        app[name]
    for point in entry_points(group="icl_select.commands"):
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            app[point.name]


def _discard_stdout() -> None:
    """Point stdout elsewhere, so that the flush at exit does not fail again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
