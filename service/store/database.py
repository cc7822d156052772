"""One database, two kinds: the SQLite file in the data directory, or PostgreSQL by URL.

A transaction that writes takes its lock at the start: SQLite's write lock (``BEGIN IMMEDIATE``), or in PostgreSQL the
row of the pool that it changes (:func:`icl_select.service.store.pools.lock`). So two writers come one after the other,
and versions of a pool have no gap and no twin. A transaction that reads sees one state of the database to its end.

Nobody waits for a lock, or for a connection, longer than a timeout; who would is told to come again (503). Errors do
not say which texts and labels were about to be written: the log has them, and it is not where those belong.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, StatementError

from icl_select.errors import ConfigError, StoreError

from ..errors import ServiceError, UnavailableError, disk_is_full

__all__ = ["Database", "dumps", "later", "loads", "now", "stamp"]


class Database:
    """Connections to the store.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of SQLite or PostgreSQL.
    pool_size : int
        Connections kept open; as many again may be opened for a while.
    timeout : float
        Seconds to wait for a lock or a connection.
    """

    def __init__(self, url: str, *, pool_size: int = 8, timeout: float = 30.0) -> None:
        try:
            self.url = make_url(url)
        except sa.exc.ArgumentError as exc:
            raise ConfigError("the database URL cannot be read. Write postgresql+psycopg://user@host/name.") from exc
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._timeout = timeout
        sizes = {"pool_size": pool_size, "max_overflow": pool_size}
        if self.is_sqlite:
            # Apart, so that a connection is set up once and not for every transaction.
            self._reading = _sqlite(self.url, timeout, sizes, write=False)
            self.engine = _sqlite(self.url, timeout, sizes, write=True)
        else:
            self._reading = self.engine = _postgresql(self.url, timeout, sizes)

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One state of the database; nothing can be written."""
        with self._transaction("REPEATABLE READ") as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """All of the block or nothing of it; when the block has ended, it is on disk.

        What is not `durable` does not wait for the disk: it outlives the process, and may be lost in a power cut.
        """
        with self._transaction("READ COMMITTED", write=True, durable=durable) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, isolation: str, *, write: bool = False, durable: bool = True) -> Iterator[Connection]:
        try:
            with (self.engine if write else self._reading).connect() as connection:
                if not self.is_sqlite:
                    connection = connection.execution_options(isolation_level=isolation, postgresql_readonly=not write)
                elif write:
                    _wait_for_disk(connection, durable)
                with connection.begin():
                    if not (self.is_sqlite or durable):
                        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                    yield connection
        except sa.exc.TimeoutError as exc:
            raise UnavailableError("all connections to the database are in use. Try again.", retry_after=1) from exc
        except StatementError as exc:
            if isinstance(exc.orig, ServiceError):  # a value that was refused on its way in
                raise exc.orig from None
            meaning = self._meaning(exc)
            if meaning is None:
                raise
            raise meaning from exc

    def _meaning(self, exc: StatementError) -> Exception | None:
        """What an error of the database means; None where it is to pass as it is."""
        if disk_is_full(exc):
            return None
        if isinstance(exc, OperationalError):
            return UnavailableError(self._why_not(exc), retry_after=1)
        if isinstance(exc, DBAPIError) and exc.connection_invalidated:
            return UnavailableError("the database closed the connection. Try again.", retry_after=1)
        if getattr(exc.orig, "sqlite_errorcode", 0) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreError(f"{self.url.database} is no SQLite database, or a damaged one. Restore it from a copy.")
        return None

    def _why_not(self, exc: OperationalError) -> str:
        text = str(exc.orig).lower()
        if "locked" in text or "lock timeout" in text:
            return f"another writer held the database for more than {self._timeout:g} s. Try again."
        if "readonly" in text or "read-only" in text:
            return "the database cannot be written to: the file or its disk is read-only."
        return "the database cannot be used now. Try again; the log has the cause."

    def close(self) -> None:
        """Give all connections back."""
        self._reading.dispose()
        self.engine.dispose()


def _sqlite(url: URL, timeout: float, sizes: Mapping[str, int], *, write: bool) -> Engine:
    path = Path(url.database or "")
    if not url.database or url.database == ":memory:":
        raise ConfigError("SQLite in memory loses everything with the process. Name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"cannot create the data directory {path.parent}: {exc.strerror}. Choose another.") from exc
    engine = sa.create_engine(
        url,
        **sizes,
        hide_parameters=True,
        pool_timeout=timeout,
        poolclass=sa.pool.QueuePool,
        connect_args={"timeout": timeout, "check_same_thread": False, "isolation_level": None},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        cursor = connection.cursor()
        _write_ahead(cursor, timeout)
        # 32 MiB: pages that change again and again, as those of the prompts' index, are copied to the file less often.
        cursor.execute("PRAGMA wal_autocheckpoint = 8192")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute("PRAGMA cache_size = -65536")
        if not write:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _write_ahead(cursor: sqlite3.Cursor, timeout: float) -> None:
    """Switch to the write-ahead log; SQLite itself does not wait for others that switch a new file at this moment."""
    end = time.monotonic() + timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _wait_for_disk(connection: Connection, durable: bool) -> None:
    """An acknowledged label is on disk, also after a power cut. With less than FULL the last writes may be missing."""
    mode = "FULL" if durable else "NORMAL"
    if connection.info.get("synchronous") != mode:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(f"PRAGMA synchronous = {mode}")  # not within a transaction: it would have no effect
        connection.info["synchronous"] = mode


def _postgresql(url: URL, timeout: float, sizes: Mapping[str, int]) -> Engine:
    if url.get_backend_name() != "postgresql":
        raise ConfigError(f"{url.get_backend_name()} is no database that is known here. Use PostgreSQL or SQLite.")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    from icl_select._optional import require

    require("psycopg", extra="postgres", purpose="the PostgreSQL database")
    engine = sa.create_engine(url, **sizes, hide_parameters=True, pool_timeout=timeout, pool_pre_ping=True)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {max(1, round(timeout * 1000))}")
        connection.commit()

    return engine


def now() -> str:
    """This moment, as the database keeps it."""
    return stamp(datetime.datetime.now(datetime.UTC))


def later(seconds: float) -> str:
    """So many seconds from this moment, or before it where negative."""
    return stamp(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds))


def stamp(moment: datetime.datetime) -> str:
    """A moment in UTC as text that sorts; one without a zone is taken for UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def dumps(value: Any) -> str:
    """JSON in ASCII, without blanks; NaN is refused."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Read what :func:`dumps` wrote."""
    return json.loads(text)
