"""Work on several threads: the same results, one failure, and products that stay on one thread meanwhile."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from reference.pools import clustered
from threadpoolctl import threadpool_info

from icl_select import select
from icl_select._threads import each, in_order, threads
from icl_select.errors import ParameterError
from icl_select.kernels import Kernel
from icl_select.methods._greedy import facility_location
from icl_select.neighbors import knn_graph

PATIENCE = 30


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads() == 3
    monkeypatch.delenv("ICS_THREADS")
    assert threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads() == 4
    for nothing in ("", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert threads() >= 1
    for bad in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("ICS_THREADS", bad)
        with pytest.raises(ParameterError, match=r"ICS_THREADS='.*'.*whole number from 1 up"):
            threads()


def test_items_are_worked_on_together_and_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "3")
    meet = threading.Barrier(3, timeout=PATIENCE)

    def work(item: int) -> tuple[int, int]:
        meet.wait()  # breaks unless three are here at once
        return item, threading.get_ident()

    found = each(work, range(6))
    assert [item for item, _ in found] == list(range(6))
    assert len({thread for _, thread in found}) == 3
    assert each(str, []) == []


def test_one_thread_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "1")
    assert set(each(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}
    monkeypatch.setenv("ICS_THREADS", "2")
    inner = each(lambda _: set(each(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}, range(2))
    assert inner == [True, True]


def test_a_failure_ends_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "2")
    begun: list[int] = []
    failed = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait(PATIENCE)
        time.sleep(0.01)  # all of them would take many times what it takes to notice the failure

    with pytest.raises(ValueError, match="the first"):
        each(work, range(2_000))
    assert len(begun) < 2_000


def test_few_results_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "2")
    begun: list[int] = []
    results = in_order(begun.append, range(100))
    next(results)
    assert len(begun) <= 5
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 5
    assert len(list(in_order(str, range(100)))) == 100


def test_products_stay_on_one_thread_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    before = blas_threads()
    assert before
    monkeypatch.setenv("ICS_THREADS", "2")
    assert [set(found) for found in each(lambda _: blas_threads(), range(4))] == [{1}] * 4
    assert blas_threads() == before


@pytest.mark.parametrize("stored_rows", [0, 10_000])
def test_picks_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, stored_rows: int) -> None:
    x = clustered(1_700, 12, seed=3)
    weights = np.random.default_rng(0).random(len(x))
    found = []
    for count in ("1", "2", "5"):
        monkeypatch.setenv("ICS_THREADS", count)
        for given_weights in (None, weights):
            picked = facility_location(
                x, 90, kernel=Kernel("gaussian"), given=np.array([7]), weights=given_weights, stored_rows=stored_rows
            )
            found.append((picked.indices.tolist(), picked.gains.tolist(), picked.total))
    assert found[:2] == found[2:4] == found[4:]


def test_neighbours_and_methods_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(1_500, 12, seed=4)
    found = []
    for count in ("1", "4"):
        monkeypatch.setenv("ICS_THREADS", count)
        indices, similarities = knn_graph(x, 9, block=100)
        picked = [select(method, x, 20).indices.tolist() for method in ("vote_k", "ideal")]
        found.append((indices.tolist(), similarities.tolist(), picked))
    assert found[0] == found[1]
