"""Where adapters get examples from; whatever holds for both sources is tested on both."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from adapter_helpers import NEW, ROWS, FakeService, make_pool, make_source

import icl_select as icl
from icl_select.adapters import ExampleSource, PoolSource, ServiceSource
from icl_select.client import AsyncClient, NotFoundError
from icl_select.errors import DataError, EmbeddingError, LabelError, ParameterError

QUERY = {"input": "Is my invoice wrong?", "history": object()}


def inputs(found: list[Any]) -> list[str]:
    return [shown.fields["input"] for shown in found]


def test_nearest_come_first_with_fields_and_label(source: ExampleSource) -> None:
    found = source.nearest(QUERY)
    assert inputs(found) == ["My invoice is wrong", "The invoice shows the wrong sum"]
    assert found[0].label == "billing"
    assert found[0].fields == {"input": "My invoice is wrong", "topic": "money"}
    assert found[0].similarity > found[1].similarity > 0
    assert asyncio.run(source.anearest(QUERY)) == found


def test_what_is_added_is_found(source: ExampleSource) -> None:
    fields = {key: value for key, value in NEW.items() if key != "output"}
    name = source.add(fields, "shipping")
    found = source.nearest({"input": "Where is my parcel now?"})
    assert (found[0].id, found[0].label, dict(found[0].fields)) == (name, "shipping", fields)
    # The same again is the same example.
    assert source.add(fields, "shipping") == name
    other = asyncio.run(source.aadd({"input": "Where is my letter?", "topic": "post"}, "shipping"))
    assert {shown.id for shown in source.nearest({"input": "Where is my letter?"})} == {name, other}


def test_missing_input_is_named(source: ExampleSource) -> None:
    with pytest.raises(ParameterError, match=r"made of input, and 'input' is missing\. Did you mean 'inputs'"):
        source.nearest({"inputs": "x"})


def test_pool_source_sees_labels_that_are_given_later() -> None:
    pool = icl.Pool.from_records([{key: row[key] for key in ("input", "topic")} for row in ROWS], text="input")
    source = PoolSource(pool, icl.embed(pool, "hash", cache=False, progress=False), k=1, text="input")
    with pytest.raises(LabelError, match="none of the 5 pool rows is labelled"):
        source.nearest(QUERY)
    pool.label({pool.ids[2]: "account"})
    assert [shown.label for shown in source.nearest(QUERY)] == ["account"]


def test_pool_source_adds_in_the_space_of_the_pool() -> None:
    """An added example lies where it would lie had it been in the pool, the shift apart, which stays the pool's."""
    pool = make_pool()
    x = icl.embed(pool, "hash", cache=False, progress=False)
    source = PoolSource(pool, x, k=8, text="input")
    name = source.add({"input": NEW["input"], "topic": "post"}, "shipping")
    assert len(source.pool) == 6
    assert len(pool) == 5
    assert source.pool.example(name).label == "shipping"
    found = {shown.id: shown.similarity for shown in source.nearest({"input": "My invoice is wrong"})}
    vectors = np.vstack([np.asarray(x), x.queries([NEW["input"]])]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = dict(zip([*pool.ids, name], vectors @ vectors[0], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)


def test_pool_source_labels_what_the_pool_has() -> None:
    pool = icl.Pool.from_records([{"id": "a", "input": "x y"}, {"id": "b", "input": "z"}], text="input")
    source = PoolSource(pool, icl.embed(pool, "hash", centre=False, cache=False, progress=False), text="input")
    assert source.add({"id": "a", "input": "x y"}, "one") == "a"
    assert (len(source.pool), pool.example("a").label) == (2, "one")
    with pytest.raises(LabelError, match="is labelled 'one'"):
        source.add({"id": "a", "input": "x y"}, "two")
    with pytest.raises(DataError, match="same id"):
        source.add({"id": "a", "input": "other"}, "two")
    with pytest.raises(DataError, match="no field 'input'"):
        source.add({"text": "x"}, "one")


def test_pool_source_needs_what_embeds_queries() -> None:
    pool = make_pool()
    with pytest.raises(EmbeddingError, match=r"result of icl_select\.embed"):
        PoolSource(pool, np.eye(5))  # type: ignore[arg-type]
    with pytest.raises(EmbeddingError, match="x has 5 rows, but the pool has 4"):
        PoolSource(pool.subset(range(4)), icl.embed(pool, "hash", cache=False, progress=False))


def test_pool_source_retrieves_as_it_is_told() -> None:
    assert {shown.label for shown in make_source(k=2).nearest(QUERY)} == {"billing"}
    assert len({shown.label for shown in make_source(k=2, balance=True).nearest(QUERY)}) == 2
    assert inputs(make_source(k=5, min_similarity=0.99).nearest(QUERY)) == ["My invoice is wrong"]


def test_pool_source_can_be_copied_and_pickled() -> None:
    source = make_source()
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert twin.nearest(QUERY) == source.nearest(QUERY)


def test_pool_source_leaves_the_event_loop_free() -> None:
    """Encoding waits for what only a living loop does; were it to block the loop, nothing would ever come of it."""
    source = make_source()

    async def main() -> list[Any]:
        alive = asyncio.Event()
        loop = asyncio.get_running_loop()
        prompter, retrieve = source._prompter, source._prompter.retrieve

        def slow(*args: Any) -> Any:
            asyncio.run_coroutine_threadsafe(alive.wait(), loop).result(timeout=30)
            return retrieve(*args)

        prompter.retrieve = slow  # type: ignore[method-assign]
        task = asyncio.create_task(source.anearest(QUERY))
        await asyncio.sleep(0)
        alive.set()
        return await task

    assert len(asyncio.run(main())) == 2


def test_service_is_asked_once_for_what_does_not_change(service: FakeService) -> None:
    source = ServiceSource("tickets", service.client(), k=2, mmr=0.5)
    first = source.nearest(QUERY)
    assert service.lines == ["GET /v1/pools/tickets", "POST /v1/prompts"] + [
        f"GET /v1/pools/tickets/items/{shown.id}" for shown in first[::-1]
    ]
    service.lines.clear()
    assert source.nearest(QUERY) == first
    assert service.lines == ["POST /v1/prompts"]
    assert service.asked[0]["query"] == {"input": QUERY["input"]}
    assert (service.asked[0]["k"], service.asked[0]["mmr"]) == (2, 0.5)
    # Whatever template the pool has: one that fits every pool is enough to see which examples are shown.
    assert service.asked[0]["template"]["query"] == "{{ text }}"


def test_items_of_a_pool_that_was_made_anew_are_read_anew(service: FakeService) -> None:
    source = ServiceSource("tickets", service.client(), k=1)
    source.nearest(QUERY)
    service.embedding = "e2"
    service.lines.clear()
    source.nearest(QUERY)
    assert len(service.lines) == 2


def test_inputs_of_the_service_can_be_named(service: FakeService) -> None:
    source = ServiceSource("tickets", service.client(), input_keys=["input", "topic"], k=1)
    source.nearest({"input": "x", "topic": "y", "more": 1})
    assert service.asked[0]["query"] == {"input": "x", "topic": "y"}


def test_service_alone_with_either_client(service: FakeService) -> None:
    plain = ServiceSource("tickets", service.client(), k=2)
    assert asyncio.run(plain.anearest(QUERY)) == plain.nearest(QUERY)
    assert asyncio.run(plain.aadd({"input": NEW["input"], "topic": "post"}, "shipping"))

    other = ServiceSource("tickets", aclient=service.aclient(), k=2)
    assert asyncio.run(other.anearest(QUERY)) == plain.nearest(QUERY)
    with pytest.raises(ParameterError, match="asynchronous client only"):
        other.nearest(QUERY)
    with pytest.raises(ParameterError, match="no client was given"):
        ServiceSource("tickets")


def test_errors_of_the_service_come_through(service: FakeService) -> None:
    with pytest.raises(NotFoundError, match="no /v1/pools/none"):
        ServiceSource("none", service.client()).nearest(QUERY)


def test_async_client_of_the_service_runs_in_the_loop_itself(service: FakeService) -> None:
    """Many queries at once, all of them under way before the first is answered."""
    under_way = 0

    async def main() -> None:
        nonlocal under_way
        everybody = asyncio.Event()

        async def handler(request: httpx2.Request) -> httpx2.Response:
            nonlocal under_way
            if request.url.path == "/v1/prompts":
                under_way += 1
                if under_way == 20:
                    everybody.set()
                await asyncio.wait_for(everybody.wait(), 30)
            return service(request)

        client = AsyncClient("http://service.test", transport=httpx2.MockTransport(handler), retries=0)
        source = ServiceSource("tickets", aclient=client, k=1)
        await asyncio.gather(*[source.anearest(QUERY) for _ in range(20)])

    asyncio.run(main())
    assert under_way == 20


@pytest.mark.parametrize(("adapter", "host"), [("langchain", "langchain_core"), ("dspy", "dspy")])
def test_hosts_are_loaded_late_and_named_if_missing(adapter: str, host: str) -> None:
    code = (
        "import sys\n"
        "import icl_select, icl_select.adapters\n"
        "assert not {'langchain_core', 'dspy', 'httpx2', 'torch'} & set(sys.modules)\n"
        f"sys.modules[{host!r}] = None\n"
        f"try:\n    import icl_select.adapters.{adapter}\n"
        "except ImportError as exc:\n"
        f"    assert \"pip install 'icl-select[{adapter}]'\" in str(exc), exc\n"
        "else:\n    raise SystemExit('imported without its host')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
