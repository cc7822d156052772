"""Running the service in this process, until it is told to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn

from icl_select.errors import ConfigError, StoreError

from .app import create_app
from .logs import set_up
from .settings import Settings
from .state import AppState

__all__ = ["listen", "run"]

_LOG = structlog.get_logger("icl_select.service")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises
    ------
    ConfigError
        If the service would be open to other machines without a key.
    StoreError
        If the data directory, the database or the port cannot be used.
    """
    set_up(settings.log_format)
    app = create_app(settings)
    state: AppState = app.state.icl
    state.open()
    if not (settings.loopback or settings.allow_anonymous or state.access.closed):
        raise ConfigError(
            f"the service would listen on {settings.host} for everybody: there is no API key. Make one (icl-select "
            "keys create NAME --scope admin), listen on 127.0.0.1, or pass --allow-anonymous if you mean it."
        )
    listener = listen(settings)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    _LOG.info("listening", url=f"http://{shown}:{listener.getsockname()[1]}", data_dir=str(settings.data_dir))
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
            # A client that sends no header for so long is not waited for.
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 * 1024,
        ),
        state,
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """A server for which being told to stop is no failure: it ends with 0, not by the signal."""

    def __init__(self, config: uvicorn.Config, state: AppState) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Streams of events end now; the server waits for open answers before it says so to the application."""
        self._state.stopping.set()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the service in good order; a second SIGINT at once."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises
    ------
    StoreError
        If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, and passed on to every connection: headers and body of an answer leave in two writes, and without
    # this the second waits 40 ms for the client to acknowledge the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        listener.close()
        raise StoreError(
            f"cannot listen on {settings.host}:{settings.port}: {exc.strerror or exc}. Choose another with --host "
            "and --port."
        ) from exc
    listener.listen(2048)
    return listener
