"""The prompt engine without HTTP: pools that are embedded and labelled, and encoders to watch, stop and break."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from store_cases import add, make_pool, row, say
from work_cases import Here

from icl_select.embedding import Encoded, Encoder, HashEncoder
from icl_select.service.encoders import Encoders
from icl_select.service.engine import Answer, Engine
from icl_select.service.metrics import Metrics
from icl_select.service.schemas import PromptOptions
from icl_select.service.settings import Settings

__all__ = [
    "PATIENCE",
    "FakeEncoder",
    "Held",
    "Stage",
    "asked",
    "on_one_database",
    "outcomes",
    "queries_of",
    "stage",
    "until",
]

PATIENCE = 60.0

_NUMBERS = itertools.count()

# What the engine does is the same on both databases where the store's own tests hold.
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.002)


class Held:
    """Something that somebody waits for until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self._go = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        self.reached.set()
        assert self._go.wait(PATIENCE)

    def let_go(self) -> None:
        self._go.set()


class FakeEncoder:
    """Hashes, and keeps the texts of each call; `before` is called with them first, and may wait or raise.

    Texts in `fixed` have these vectors.
    """

    name = "fake"
    max_tokens = None
    batch_size = 512

    def __init__(self, dim: int = 64, fixed: Mapping[str, Sequence[float]] | None = None) -> None:
        self._hash = HashEncoder(dim)
        self._fixed = dict(fixed or {})
        self.dim = dim
        self.fingerprint = f"fake-{next(_NUMBERS)}"
        self.batches: list[list[str]] = []
        self.loads = 0
        self.before: Callable[[list[str]], None] = lambda texts: None
        self.before_load: Callable[[], None] = lambda: None

    def load(self) -> None:
        self.loads += 1
        self.before_load()

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        self.batches.append(list(texts))
        self.before(list(texts))
        found = self._hash.encode(texts)
        for place, text in enumerate(texts):
            if text in self._fixed:
                found.vectors[place] = self._fixed[text]
        return found


@dataclass
class Stage:
    """A store with pools, and an engine over it that is started when a test says so."""

    here: Here
    fakes: dict[str, Encoder] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    engine: Engine = field(init=False)
    started: bool = False
    cold: bool = False
    """Whether encoders are loaded by who asks first."""
    _engines: list[Engine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self, encoders: Encoders | None = None, **settings: Any) -> None:
        """Another engine on the same store, as after a restart, with nothing in memory."""
        changed = Settings.model_validate({**self.here.settings.model_dump(), **settings})
        self.metrics, self.started = Metrics(), False
        found = Encoders(lambda name: self.fakes[name]) if encoders is None else encoders
        self.engine = Engine(changed, self.here.database, self.here.vectors, self.metrics, found)
        self._engines.append(self.engine)

    def fake(self, name: str = "fake", **options: Any) -> FakeEncoder:
        """An encoder under a name."""
        made = FakeEncoder(**options)
        self.fakes[name] = made
        return made

    def pool(
        self,
        name: str = "p",
        texts: Sequence[str] | int = 6,
        *,
        labelled: int = 4,
        encoder: str = "fake",
        **config: Any,
    ) -> None:
        """A pool of items ``i0``, ``i1`` …, embedded; the first ones are labelled a, b, a …"""
        if encoder not in self.fakes:
            self.fake(encoder)
        shown = [f"text of i{number}" for number in range(texts)] if isinstance(texts, int) else list(texts)
        settings = {"encoder": encoder, "centre": False, "text": None, "prompt": {}, **config}
        make_pool(self.here.database, name=name, **settings)
        add(self.here.database, name, [row(f"i{number}", text=text) for number, text in enumerate(shown)])
        self.embed(name)
        for pos in range(labelled):
            self.label(pos, "ab"[pos % 2], name)

    def embed(self, pool: str = "p") -> None:
        """Embed what is not embedded yet, by the pool's encoder."""
        encoder = self.fakes[str(self.here.pool(pool).config["encoder"])]
        self.here.use(encoder)
        self.here.do("embed", pool=pool)
        if isinstance(encoder, FakeEncoder):
            encoder.batches.clear()
            encoder.loads = 0

    def label(self, pos: int, label: str | None, pool: str = "p") -> None:
        """Label an item; None takes its label back."""
        say(self.here.database, pos, label, status="label" if label is not None else "retract", pool=pool)

    def put(self, *queries: Any, pool: str = "p", **options: Any) -> asyncio.Future[list[Answer]]:
        """Send a request, from within a loop."""
        return self.engine.ask(pool, queries, PromptOptions(**options))

    def start(self) -> None:
        """Let the engine begin."""
        if not self.started:
            self.started = True
            if not self.cold:
                self.engine.warm_up()
            self.engine.start()

    def ask(self, *queries: Any, pool: str = "p", **options: Any) -> list[Answer]:
        """The answers to one request."""
        self.start()

        async def one() -> list[Answer]:
            return await self.put(*queries, pool=pool, **options)

        return asyncio.run(one())

    def one(self, query: Any, pool: str = "p", **options: Any) -> Answer:
        """The answer to one query."""
        return self.ask(query, pool=pool, **options)[0]

    def counted(self, metric: str, **labels: str) -> float:
        """The value of a metric, 0 where it has none."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0

    def stop(self) -> None:
        """Stop all engines."""
        for engine in self._engines:
            engine.stop()


Asked = Callable[[], "asyncio.Future[list[Answer]]"]


def asked(stage: Stage, *queries: Any, pool: str = "p", **options: Any) -> Asked:
    """A request to be sent."""
    return lambda: stage.put(*queries, pool=pool, **options)


def queries_of(answers: list[Answer]) -> list[str]:
    """The last message of each prompt."""
    return [answer.document["messages"][-1]["content"] for answer in answers]


def outcomes(stage: Stage, *requests: Asked) -> list[Any]:
    """Send requests before the engine begins, so that they wait together; their answers, or what they failed with."""

    async def together() -> list[Any]:
        sent = [request() for request in requests]
        stage.start()
        return await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), PATIENCE)

    return asyncio.run(together())


@pytest.fixture
def stage(here: Here) -> Iterator[Stage]:
    """A stage with an empty store."""
    made = Stage(here)
    yield made
    made.stop()
