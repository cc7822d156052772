"""One thread that answers prompts, batch after batch (:mod:`.answering`), and others that encode (:mod:`.encoding`).

Answers go out when what they were made of is kept: a prompt that somebody has seen can be rebuilt.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from ..encoders import Encoders
from ..errors import InvalidError, UnavailableError
from ..loads import Loads, NotLoadedError
from ..metrics import Metrics
from ..schemas import PromptOptions
from ..settings import Settings
from ..store import pools as pools_store
from ..store.database import Database
from ..vectors import VectorFiles
from .answering import Answering
from .answers import Answer
from .batcher import Batcher, Query, Request, deliver, fail, give_up
from .encoding import Encoding
from .index import Indexes
from .options import Tokenizers

__all__ = ["Engine"]

_LOG = structlog.get_logger("icl_select.service")


class Engine:
    """Prompts for queries. :meth:`ask` may be called from any event loop; all work is in threads of its own.

    Parameters
    ----------
    encoders : Encoders, optional
        Where encoders come from.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: VectorFiles,
        metrics: Metrics,
        encoders: Encoders | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._encoders = Encoders() if encoders is None else encoders
        self._tokenizers = Tokenizers(settings)
        self._batcher = Batcher(settings.queue)
        self._indexes = Indexes(files)
        self._encoding = Encoding(settings.encode_threads, metrics, self._batcher.wake)
        self._answering = Answering(
            settings, database, self._indexes, metrics, self._encoders, self._tokenizers, self._encoding
        )
        self._forgotten: list[int] = []
        self._thread = threading.Thread(target=self._run, name="prompts", daemon=True)
        metrics.waiting.set_function(lambda: self._batcher.waiting)
        metrics.index_items.set_function(lambda: self._indexes.n_items)
        metrics.index_age.set_function(lambda: self._indexes.age)

    def start(self) -> None:
        """Begin to answer."""
        self._encoding.start()
        self._thread.start()

    def stop(self) -> None:
        """Answer what is in hand, refuse what waits, and end."""
        for request in self._batcher.close():
            fail(request, UnavailableError("the service is being stopped. Try again in a moment.", retry_after=2))
        if self._thread.is_alive():
            self._thread.join(self._settings.shutdown_seconds)

    def forget(self, uid: int) -> None:
        """Drop what is kept of a pool that was deleted."""
        self._forgotten.append(uid)

    def warm_up(self) -> None:
        """Load the encoders of all pools that are embedded, and the tokenizers that are offered.

        What cannot be loaded is told to the log, and to who asks for it.
        """
        with self._database.read() as connection:
            pools = pools_store.listing(connection, None, 10_000)
        encoders = sorted({str(pool.config["encoder"]) for pool in pools if pool.embedding_id is not None})
        loads: list[tuple[Loads[Any], str]] = [(self._encoders, name) for name in encoders]
        loads += [(self._tokenizers, name) for name in self._settings.tokenizers]
        for kind, name in loads:
            try:
                kind.load(name)
            except Exception as exc:
                _LOG.error("cannot be loaded", name=name, exc_info=exc)

    def ask(
        self, pool: str, queries: Sequence[str | Mapping[str, Any]], options: PromptOptions
    ) -> asyncio.Future[list[Answer]]:
        """Answer the queries of one request, in order.

        Cancelling the future leaves the queries alone that were not begun.

        Raises
        ------
        InvalidError
            If there are more queries than one request may hold.
        BusyError
            If too many queries wait.
        NotFoundError, ConflictError, StaleError
            If there is no such pool, or it cannot be asked yet.
        TooLargeError
            If the prompts are too much for one answer.
        IclSelectError
            If a query or an option cannot be served; in a request of several the message names the query.
        """
        if len(queries) > self._settings.limits.batch:
            raise InvalidError(
                f"{len(queries)} queries exceed the {self._settings.limits.batch} of one request. Send them in parts."
            )
        loop = asyncio.get_running_loop()
        request = Request(pool, queries, options, loop, loop.create_future())
        self._batcher.put(request)
        return request.future

    def _run(self) -> None:
        ended = 0.0
        while True:
            encoding = self._answering.on_their_way
            batch = self._batcher.take(self._settings.max_batch - encoding, expecting=encoding > 0)
            if batch is None:
                break
            begun = ended if encoding else time.perf_counter()
            wanting: list[tuple[Request, NotLoadedError]] = []
            answered: list[Query] = []
            try:
                while self._forgotten:
                    self._indexes.forget(self._forgotten.pop())
                answered = self._answering.answer(batch, wanting)
            except Exception as exc:  # no fault may end this thread: everybody would wait for ever
                _LOG.error("a batch failed", exc_info=exc)
                for query in batch:
                    give_up(query, exc)
            deliver(answered)
            self._park(wanting)
            ended = time.perf_counter()
            if answered:
                self._batcher.answered(len(answered), ended - begun)
        self._encoding.close()

    def _park(self, wanting: Sequence[tuple[Request, NotLoadedError]]) -> None:
        """Let requests wait for what they need to be loaded, so that nobody else does.

        Only now that their batch is over: a load may end at once, and none of their queries must be on its way then.
        """
        for request, wanted in wanting:
            if request.gone:
                continue
            try:
                self._batcher.park(request)
            except Exception as exc:
                fail(request, exc)
                continue
            wanted.loads.load_in_background(wanted.name, functools.partial(self._loaded, request))

    def _loaded(self, request: Request, problem: Exception | None) -> None:
        if problem is not None:
            self._batcher.drop(request)
            fail(request, problem)
            return
        self._batcher.unpark(request)
