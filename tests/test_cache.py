"""What was used last stays, up to a bound, whichever threads ask."""

from __future__ import annotations

import threading
import time

from kerastoolkit._cache import Cache


def test_what_was_used_last_stays() -> None:
    cache: Cache[int, str] = Cache(2)
    cache.keep(1, "one")
    cache.keep(2, "two")
    assert cache.find(1) == "one"
    cache.keep(3, "three")
    assert (cache.find(1), cache.find(2), cache.find(3)) == ("one", None, "three")
    assert len(cache) == 2
    assert 1 in cache and 2 not in cache


def test_the_first_value_of_a_key_stays() -> None:
    cache: Cache[str, list[int]] = Cache(2)
    first: list[int] = []
    assert cache.keep("key", first) is first
    assert cache.keep("key", [1]) is first


def test_values_may_have_sizes() -> None:
    cache: Cache[str, bytes] = Cache(10, size_of=len)
    cache.keep("a", b"1234")
    cache.keep("b", b"1234")
    cache.keep("c", b"1234")
    assert [key for key, _ in cache.items()] == ["b", "c"]
    assert cache.keep("too large", b"12345678901") == b"12345678901"
    assert [key for key, _ in cache.items()] == ["b", "c"]  # which it did not drive out


def test_each_value_that_goes_is_reported_without_the_lock() -> None:
    calls: list[int] = []

    def evicted() -> None:
        found = []
        thread = threading.Thread(target=lambda: found.append(len(cache)))
        thread.start()
        thread.join(10)
        calls.extend(found)

    cache: Cache[int, int] = Cache(1, on_evict=evicted)
    for number in range(3):
        cache.keep(number, number)
    assert calls == [1, 1]


def test_what_is_dropped_is_not_found() -> None:
    cache: Cache[int, int] = Cache(3)
    for number in range(3):
        cache.keep(number, number)
    cache.drop(1)
    cache.drop(7)  # was never there
    assert [key for key, _ in cache.items()] == [0, 2]
    cache.clear()
    assert len(cache) == 0


def test_a_value_is_made_once_for_two_threads() -> None:
    cache: Cache[str, object] = Cache(4)
    made: list[object] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.find_or_make("key", make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert found == [made[0]] * 2


def test_many_threads_keep_to_the_bound() -> None:
    cache: Cache[int, int] = Cache(8)

    def use(first: int) -> None:
        for number in range(first, first + 500):
            cache.keep(number % 40, number % 40)
            found = cache.find((number * 7) % 40)
            assert found in (None, (number * 7) % 40)

    threads = [threading.Thread(target=use, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(cache) == 8
