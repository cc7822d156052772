"""What takes long to load: once each, by name, and never more at a time than there is room for."""

from __future__ import annotations

from typing import Any

from engine_cases import PATIENCE, FakeEncoder, Held, until

from icl_select.embedding import Encoder
from icl_select.service.encoders import Encoders
from icl_select.service.loads import Loads


def test_things_are_loaded_once_and_let_go_when_others_are_used() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    loads = Loads(make, 2)
    assert loads.ready("a") is None
    assert [loads.load(name) for name in "aab"] == ["A", "A", "B"]
    assert loads.ready("a") == "A"
    loads.load("c")  # b was not used for longest
    assert [loads.ready(name) for name in "abc"] == ["A", None, "C"]
    assert made == ["a", "b", "c"]


def test_a_thing_is_loaded_once_however_many_ask() -> None:
    held, made, ended = Held(), list[str](), list[Any]()

    def make(name: str) -> str:
        made.append(name)
        held()
        return name

    loads = Loads(make, 2)
    for _ in range(5):
        loads.load_in_background("a", ended.append)
    assert held.reached.wait(PATIENCE)
    assert not ended
    held.let_go()
    until(lambda: len(ended) == 5, "the load")
    assert ended == [None] * 5
    assert made == ["a"]


def test_encoders_are_bounded_and_hashing_pushes_none_of_them_out() -> None:
    made: list[str] = []

    def make(name: str) -> Encoder:
        made.append(name)
        return FakeEncoder()

    encoders = Encoders(make)
    encoders.load("model")
    for number in range(50):
        assert encoders.ready(f"hash(dim={number + 1})") is not None
    assert encoders.ready("model") is not None
    for number in range(20):
        encoders.load(f"model(batch_size={number + 1})")
    assert encoders.ready("model") is None
    assert sum(encoders.ready(f"model(batch_size={number + 1})") is not None for number in range(20)) == 8
