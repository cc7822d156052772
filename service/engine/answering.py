"""From a batch of queries to answers: one look at the database, one search of each index, and one transaction that
keeps what is answered. Queries whose vectors are not known are encoded elsewhere meanwhile, and come back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from icl_select.embedding import Encoder, HashEncoder
from icl_select.prompt import PromptTemplate, Tokenizer
from icl_select.types import Example

from ..encoders import Encoders
from ..loads import NotLoadedError
from ..metrics import Metrics
from ..recent import Recent
from ..settings import Settings
from ..store import pools as pools_store
from ..store import prompts as prompts_store
from ..store.database import Database, dumps
from .answers import Answer, Made, make
from .batcher import Query, Request, blame, blaming, give_up
from .encoding import Encoding, Result, Wanted
from .index import Indexes, LabelledIndex
from .options import Options, OptionsOf, Tokenizers
from .queries import example_of
from .rendering import Written, remembering

__all__ = ["Answering"]

# Vectors of queries kept, to answer a text again under other labels or options without encoding it.
_VECTORS = 20_000
_VECTOR_BYTES = 64 * 1024 * 1024
# Answers are few (a setting says how many) and small, unless somebody sees to it that they are large.
_ANSWER_BYTES = 256 * 1024 * 1024
# What an entry takes beside its value, about.
_ENTRY_BYTES = 400
_SETTINGS = 10_000
_TEMPLATES = 1_024

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Asked:
    """A pool that a batch asks of: one index for all queries of the batch."""

    index: LabelledIndex
    encoder: Encoder
    defaults: str


@dataclass(eq=False)
class _Task:
    """One query with all that its answer needs; ``text`` names its encoder and what is encoded."""

    query: Query
    index: LabelledIndex
    encoder: Encoder
    tokenizer: Tokenizer
    options: Options
    example: Example
    key: _Key
    text: tuple[str, bytes]
    vector: npt.NDArray[np.float32] | None = None
    made: Made | None = None


class Answering:
    """Answers batches, and keeps in memory what later ones may need. One thread uses it.

    Parameters
    ----------
    encoding : Encoding
        Where texts are encoded that no vector is kept of.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        indexes: Indexes,
        metrics: Metrics,
        encoders: Encoders,
        tokenizers: Tokenizers,
        encoding: Encoding,
    ) -> None:
        self._settings = settings
        self._database = database
        self._indexes = indexes
        self._metrics = metrics
        self._encoders = encoders
        self._tokenizers = tokenizers
        self._encoding = encoding
        # Texts that are being encoded, and who waits for them.
        self._encoded_for: dict[tuple[str, bytes], list[_Task]] = {}
        self._on_their_way = 0
        self._options = OptionsOf(settings)
        self._answers: Recent[_Key, Answer] = Recent(settings.cache_prompts, _ANSWER_BYTES)
        self._vectors: Recent[tuple[str, bytes], npt.NDArray[np.float32]] = Recent(_VECTORS, _VECTOR_BYTES)
        self._templates: Recent[tuple[int, str], PromptTemplate] = Recent(_TEMPLATES)
        self._written = Written()
        self._kept_settings: Recent[str, bool] = Recent(_SETTINGS)

    @property
    def on_their_way(self) -> int:
        """Queries whose texts are being encoded."""
        return self._on_their_way

    def answer(self, batch: list[Query], wanting: list[tuple[Request, NotLoadedError]]) -> list[Query]:
        """Answer the queries of a batch and those that were encoded since, or end their requests with what is wrong.

        Requests that need something to be loaded are marked as parked and added to `wanting`. Returned are the queries
        that have an answer now; some of the batch may get theirs later.
        """
        tasks = self._encoded(self._encoding.results())
        answered: list[Query] = []
        try:
            tasks += self._with_vectors(self._prepare(batch, wanting))
            answered = [query for query in batch if query.answer is not None]
        except Exception as exc:
            for query in batch:
                if query.answer is None and not query.request.parked:
                    give_up(query, exc)
        return answered + self._finish(tasks)

    def _finish(self, tasks: list[_Task]) -> list[Query]:
        """Search, pack and keep; the queries that have an answer then."""
        try:
            made = [one for group in _alike(tasks) for one in self._search(group)]
            self._keep(made)
        except Exception as exc:
            for task in tasks:
                give_up(task.query, exc)
            return []
        done = [task for task in tasks if task.made is not None]
        for task in done:
            assert task.made is not None
            task.query.answer = task.made.answer
            self._answers.put(task.key, task.made.answer, _ENTRY_BYTES + len(task.made.answer.body))
        return [task.query for task in done]

    def _prepare(self, batch: list[Query], wanting: list[tuple[Request, NotLoadedError]]) -> list[_Task]:
        """What the queries need that no answer is kept of, all from one state of the database."""
        if not batch:
            return []
        tasks: list[_Task] = []
        asked: dict[str, _Asked | Exception] = {}
        with self._database.read() as connection:
            for query in batch:
                request = query.request
                if request.gone or request.parked:
                    continue
                if request.pool not in asked:
                    asked[request.pool] = self._ask(connection, request.pool)
                try:
                    task = self._task(query, asked[request.pool])
                except NotLoadedError as exc:
                    request.parked = True
                    wanting.append((request, exc))
                except Exception as exc:
                    blame(query, exc)
                else:
                    tasks.extend([] if task is None else [task])
        return tasks

    def _ask(self, connection: Connection, name: str) -> _Asked | Exception:
        """The pool of a name, or why it cannot be asked: found out once for all queries of the batch."""
        try:
            pool = pools_store.find(connection, name)
            encoder = self._encoders.at_once(str(pool.config["encoder"]))
            index = self._indexes.get(connection, pool, encoder.fingerprint)
            return _Asked(index, encoder, dumps(pool.config["prompt"]))
        except SQLAlchemyError:  # the transaction is broken, for all pools
            raise
        except Exception as exc:
            return exc

    def _task(self, query: Query, pool: _Asked | Exception) -> _Task | None:
        """What is to be done for a query; None if its answer is kept."""
        if isinstance(pool, Exception):
            raise pool
        request = query.request
        options = self._options(request.options, pool.defaults)
        example, said = example_of(request.queries[query.place], pool.index.pool, self._settings)
        # Hashes: a text may be large, and is not needed again.
        key = (pool.index.key, options.name, _digest(said))
        kept = self._answers.get(key)
        if kept is not None:
            self._metrics.cache_hits.labels("prompt").inc()
            query.answer = kept
            return None
        tokenizer = self._tokenizers.at_once(options.tokenizer)
        text = (pool.index.embedding.encoder_fingerprint, _digest(example.text))
        return _Task(query, pool.index, pool.encoder, tokenizer, options, example, key, text)

    def _with_vectors(self, tasks: list[_Task]) -> list[_Task]:
        """The tasks whose vectors are known; the texts of the others are encoded, each once."""
        known, missing = [], []
        for task in tasks:
            task.vector = self._vectors.get(task.text)
            if task.vector is not None:
                self._metrics.cache_hits.labels("vector").inc()
                known.append(task)
                continue
            self._on_their_way += 1
            if task.text in self._encoded_for:
                self._encoded_for[task.text].append(task)
            else:
                self._encoded_for[task.text] = [task]
                missing.append(Wanted(task.encoder, task.text, task.example.text))
        # Hashing a text takes less than passing it on.
        at_once = [wanted for wanted in missing if isinstance(wanted.encoder, HashEncoder)]
        self._encoding.put([wanted for wanted in missing if not isinstance(wanted.encoder, HashEncoder)])
        return known + self._encoded(self._encoding.at_once(at_once))

    def _encoded(self, results: Iterable[Result]) -> list[_Task]:
        """Tasks whose texts were encoded."""
        found: list[_Task] = []
        for result in results:
            waiting = self._encoded_for.pop(result.key)
            self._on_their_way -= len(waiting)
            if result.vector is not None:
                self._vectors.put(result.key, result.vector, _ENTRY_BYTES + result.vector.nbytes)
            for task in waiting:
                task.vector = result.vector
                if result.problem is not None:
                    blame(task.query, result.problem)
            found.extend(waiting)
        return found

    def _search(self, tasks: list[_Task]) -> Iterable[Made]:
        """Search one index for queries that ask alike, and pack their prompts."""
        index, options = tasks[0].index, tasks[0].options
        try:
            vectors = np.stack([task.vector for task in tasks if task.vector is not None])
            if index.embedding.shift is not None:
                vectors = (vectors - index.embedding.shift).astype(np.float32)
            found = index.retriever.retrieve(
                vectors,
                options.k,
                query_ids=[task.example.id for task in tasks],
                mmr=options.mmr,
                balance=options.balance,
                min_similarity=options.min_similarity,
            )
        except Exception as exc:
            if len(tasks) == 1:
                blame(tasks[0].query, exc)
                return
            for task in tasks:  # one of them is to blame; the others get their answers
                yield from self._search([task])
            return
        for task, hits in zip(tasks, found, strict=True):
            with blaming(task.query):
                template = self._template(index, task.options)
                task.made = make(index, task.example, task.options, template, task.tokenizer, hits)
                for dropped in task.made.prompt.dropped:
                    self._metrics.dropped.labels(dropped.reason.partition(":")[0].partition(" of ")[0]).inc()
                yield task.made

    def _template(self, index: LabelledIndex, options: Options) -> PromptTemplate:
        key = (index.pool.uid, options.template_name)
        template = self._templates.get(key)
        if template is None:
            template = remembering(options.template, index.pool.uid, self._written)
            self._templates.put(key, template)
        return template

    def _keep(self, made: list[Made]) -> None:
        """Keep what is about to be answered, each template and its options once."""
        if not made:
            return
        new = {one.record.settings: one.options for one in made if not self._kept_settings.get(one.record.settings)}
        with self._database.write(durable=False) as connection:
            for name, options in new.items():
                prompts_store.keep_settings(connection, name, options.content)
            prompts_store.keep(connection, [one.record for one in made])
        for name in new:
            self._kept_settings.put(name, True)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _alike(tasks: list[_Task]) -> Iterator[list[_Task]]:
    """Tasks that have a vector, by index and by what decides the search."""
    groups: dict[_Key, list[_Task]] = {}
    for task in tasks:
        if task.vector is not None and not task.query.gone:
            groups.setdefault((id(task.index), task.options.search), []).append(task)
    yield from groups.values()
