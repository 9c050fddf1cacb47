"""A cache with a bound, for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """What was used last, up to a bound; safe to use from several threads.

    Example:

    >>> cache = Cache(2)
    >>> for number in (1, 2, 3):
    ...     _ = cache.keep(number, str(number))
    >>> cache.find(1), cache.find(3)
    (None, '3')

    Args:
        max_size: What all values together may take: their number, or the sum of their sizes. A value that is larger is
            not kept.
        size_of: The size of a value, in the unit of `max_size`. Defaults to `None`: each counts as 1.
        on_evict: Called without arguments after each value that had to go, in the thread that kept another one, which
            holds no lock of the cache then. Defaults to `None`.
    """

    def __init__(
        self,
        max_size: int,
        *,
        size_of: Callable[[Value], int] | None = None,
        on_evict: Callable[[], None] | None = None,
    ) -> None:
        self.max_size = max_size
        self._size_of: Callable[[Value], int] = size_of or (lambda value: 1)
        self._on_evict = on_evict
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.RLock()

    def find(self, key: Key) -> Value | None:
        """The value of a key; None if there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def keep(self, key: Key, value: Value) -> Value:
        """Keeps a value, unless another thread was first.

        Returns:
            The value that is kept for the key, the first one; the given one if it is too large to be kept.
        """
        if self._size_of(value) > self.max_size:
            return value
        n_evicted = 0
        with self._lock:
            value = self._values.setdefault(key, value)
            self._values.move_to_end(key)
            while sum(map(self._size_of, self._values.values())) > self.max_size:
                self._values.popitem(last=False)
                n_evicted += 1
        if self._on_evict is not None:
            for _ in range(n_evicted):
                self._on_evict()
        return value

    def find_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made if there is none; other threads wait while one makes it."""
        with self._lock:
            found = self.find(key)
            return self.keep(key, make()) if found is None else found

    def drop(self, key: Key) -> None:
        """Forgets the value of a key, if there is one."""
        with self._lock:
            self._values.pop(key, None)

    def clear(self) -> None:
        """Forgets all values."""
        with self._lock:
            self._values.clear()

    def items(self) -> list[tuple[Key, Value]]:
        """The keys and their values, those used last at the end."""
        with self._lock:
            return list(self._values.items())

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._values

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)
