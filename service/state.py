"""What all routes share: settings, database, files, the prompt engine and the workers."""

from __future__ import annotations

import contextlib
import gc
import secrets
import threading
from dataclasses import dataclass, field

import structlog

from icl_select._files import lock_folder, make_folder

from .access import Access, RateLimiter
from .engine import Engine
from .metrics import Metrics
from .passthrough.upstream import Upstream
from .settings import Settings
from .store.database import Database
from .store.migrate import migrate
from .supervisor import Supervisor
from .uploads import clear
from .vectors import VectorFiles

__all__ = ["AppState"]

_LOG = structlog.get_logger("icl_select.service")


@dataclass
class AppState:
    """One service. ``ready`` is set when everything that exists can be answered; ``stopping`` when it is being shut."""

    settings: Settings
    database: Database
    vectors: VectorFiles
    access: Access
    rates: RateLimiter
    metrics: Metrics
    engine: Engine
    supervisor: Supervisor
    upstream: Upstream
    ready: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    _held: contextlib.ExitStack | None = None

    @classmethod
    def build(cls, settings: Settings) -> AppState:
        """Connect everything; nothing is started, opened or written yet."""
        database = Database(settings.database_url)
        vectors = VectorFiles(settings.data_dir)
        metrics = Metrics()
        return cls(
            settings=settings,
            database=database,
            vectors=vectors,
            access=Access(database),
            rates=RateLimiter(settings.rate_per_minute),
            metrics=metrics,
            engine=Engine(settings, database, vectors, metrics),
            supervisor=Supervisor(settings, database, owner=f"server-{secrets.token_hex(6)}"),
            upstream=Upstream(settings),
        )

    def open(self) -> None:
        """Take the data directory and bring the database to this version's schema; does nothing the second time.

        Raises
        ------
        LockedError
            If another service works on the same SQLite.
        StoreError
            If folder or database cannot be used, or a newer version made the schema.
        """
        if self._held is not None:
            return
        make_folder(self.settings.data_dir)
        with contextlib.ExitStack() as held:
            if self.database.is_sqlite:
                held.enter_context(lock_folder(self.settings.data_dir, "icl-select serve"))
                clear(self.settings)
                _LOG.info("SQLite: this process is the only one that writes. For several, use PostgreSQL (--database).")
            migrate(self.database)
            self.access.refresh()
            self._held = held.pop_all()

    def start(self) -> None:
        """Begin to answer and to work; ready when the encoders are loaded."""
        self.supervisor.start()
        self.engine.start()
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        try:
            self.engine.warm_up()
        except Exception as exc:  # a pool that cannot be served must not keep the others from being ready
            _LOG.error("warm-up failed", exc_info=exc)
        # What is there now stays: looking through all of it for garbage again and again would stop every request.
        gc.collect()
        gc.freeze()
        self.ready.set()
        _LOG.info("ready")

    def stop(self) -> None:
        """Answer what is in hand, give jobs back, and let go of the data directory."""
        self.engine.stop()
        self.supervisor.stop()
        self.database.close()
        if self._held is not None:
            self._held.close()
            self._held = None
