"""What messages suggest in place of a name that nobody knows."""

from __future__ import annotations

from icl_select.errors import suggest


def test_the_nearest_name_or_all_of_them() -> None:
    assert suggest("votek", ["vote_k", "random"]) == " Did you mean 'vote_k'?"
    assert suggest("RANDOM", ["vote_k", "Random"]) == " Did you mean 'Random'?"
    assert suggest("nothing alike", ["b", "a"]) == " Known: a, b."
    assert suggest("x", []) == ""
    assert suggest("x", [f"name{number:03}" for number in range(40)]).endswith("name029 and 10 more.")


def test_names_from_strangers_are_not_compared_for_ever() -> None:
    many = [f"a{number:06}" for number in range(100_000)]
    assert suggest("zzzzzzz1", [*many, "zzzzzzz2"]).startswith(" Known: a000000, ")
    assert suggest("x" * 101, ["x" * 99]).startswith(" Known: ")
    assert suggest("x" * 100, ["x" * 10_000, "x" * 99]) == f" Did you mean {'x' * 99!r}?"
