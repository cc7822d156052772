"""What the tests of long work share: a service without HTTP, an encoder to watch, and jobs done in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.embedding import Encoded, Encoder
from icl_select.service.settings import Settings
from icl_select.service.store import embeddings, jobs, pools
from icl_select.service.store.database import Database
from icl_select.service.store.embeddings import EmbeddingRecord
from icl_select.service.store.jobs import JobRecord
from icl_select.service.store.pools import PoolRecord
from icl_select.service.vectors import VectorFiles
from icl_select.service.work import Context, EncoderSlot, run

__all__ = ["CONFIG", "BatchyEncoder", "Here", "here"]

CONFIG: Mapping[str, Any] = {"encoder": "hash(dim=16)", "centre": True}


class BatchyEncoder:
    """As real models are: a vector depends a little on the texts it is batched with. Keeps the texts it was given."""

    name = "batchy"
    dim = 3
    max_tokens = 20
    batch_size = 8

    def __init__(self, fingerprint: str = "batchy-1") -> None:
        self.fingerprint = fingerprint
        self.seen: list[str] = []
        self.before_batch: Callable[[], None] = lambda: None

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        self.before_batch()
        self.seen.extend(texts)
        noise = 1e-6 * (int(hashlib.sha256("\n".join(texts).encode()).hexdigest()[:4], 16) % 97)
        vectors = [[1.0 + len(text), hash_of(text), noise] for text in texts]
        return Encoded(np.array(vectors, dtype=np.float32), np.array([len(text) > self.max_tokens for text in texts]))


def hash_of(text: str) -> float:
    """A number between 0 and 1 that goes with a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6


class _Slot(EncoderSlot):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self._given = encoder

    def get(self, name: str) -> Encoder:
        return self._given


@dataclass
class Here:
    """A database, a data directory, and this process in the place of a worker."""

    settings: Settings
    database: Database
    vectors: VectorFiles
    owner: str = "here"
    slot: EncoderSlot = field(default_factory=EncoderSlot)

    def use(self, encoder: Encoder) -> None:
        """Let every pool be embedded by this encoder."""
        self.slot = _Slot(encoder)

    def enqueue(self, kind: str, params: Mapping[str, Any] | None = None, pool: str = "p") -> JobRecord:
        """Add a job."""
        with self.database.write() as connection:
            return jobs.enqueue(connection, pools.find(connection, pool), kind, params or {})

    def begin(self, kind: str, params: Mapping[str, Any] | None = None, pool: str = "p") -> Context:
        """Add a job and claim it."""
        job = self.enqueue(kind, params, pool)
        context = self.claim()
        assert context is not None
        assert context.job.id == job.id
        return context

    def claim(self) -> Context | None:
        """Claim the next job."""
        with self.database.write() as connection:
            claimed = jobs.claim(connection, self.owner)
        if claimed is None:
            return None
        return Context(claimed, self.owner, self.settings, self.database, self.vectors, self.slot)

    def die(self) -> None:
        """Lose what is being done, as when the process ends."""
        with self.database.write() as connection:
            jobs.requeue_of(connection, self.owner)

    def do(self, kind: str, params: Mapping[str, Any] | None = None, pool: str = "p") -> JobRecord:
        """Do a job to its end; what goes wrong leaves as it is."""
        context = self.begin(kind, params, pool)
        run(context)
        return self.job(context.job.id)

    def job(self, job_id: str) -> JobRecord:
        """A job as it stands."""
        with self.database.read() as connection:
            return jobs.find(connection, job_id)

    def pool(self, name: str = "p") -> PoolRecord:
        """A pool as it stands."""
        with self.database.read() as connection:
            return pools.find(connection, name)

    def embedding(self, pool: str = "p") -> EmbeddingRecord:
        """The embedding that a pool uses."""
        with self.database.read() as connection:
            found = embeddings.current(connection, pools.find(connection, pool))
        assert found is not None
        return found

    def files(self) -> dict[str, Path]:
        """Vector files by name."""
        return {path.name: path for path in sorted((self.settings.data_dir / "pools").rglob("*.npy"))}


@pytest.fixture
def here(database: Database, database_url: str, tmp_path: Path) -> Here:
    """A service with an empty store."""
    settings = Settings(data_dir=tmp_path / "data", database=database_url, encoders=("hash",))
    return Here(settings, database, VectorFiles(settings.data_dir))
