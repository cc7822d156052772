"""Counters and times for Prometheus, in a registry of our own: vLLM in the same process keeps its own too."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Everything that is counted. No label holds a query, a pool or a key: their number has no bound."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Histogram(
            "ics_http_request_duration_seconds",
            "Time to answer, by method, route and status.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=own,
        )
        self.prompts = Counter("ics_prompts", "Prompts asked for, by what became of them.", ("outcome",), registry=own)
        self.encoding = Histogram(
            "ics_embed_duration_seconds", "Time to encode one batch of queries.", buckets=_SECONDS, registry=own
        )
        self.batch = Histogram(
            "ics_embed_batch_queries", "Queries encoded together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=own
        )
        self.waiting = Gauge("ics_prompt_queue_length", "Queries that wait for their turn.", registry=own)
        self.index_items = Gauge("ics_index_items", "Labelled items in all indexes in memory.", registry=own)
        self.index_age = Gauge("ics_index_age_seconds", "Age of the index that was rebuilt last.", registry=own)
        self.dropped = Counter(
            "ics_demos_dropped", "Demonstrations left out of prompts, by reason.", ("reason",), registry=own
        )
        self.cache_hits = Counter(
            "ics_cache_hits", "Answers out of memory, by what was kept.", ("cache",), registry=own
        )
        self.labels = Counter("ics_labels_written", "Words of annotators that were kept.", registry=own)
        self.jobs = Gauge("ics_jobs", "Jobs that wait or run.", ("state",), registry=own)

    def text(self) -> bytes:
        """The exposition in the text format."""
        return generate_latest(self.registry)
