"""A thread for each core of the processor."""

from __future__ import annotations

import concurrent.futures
import functools
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any


def on_each_core(work: Sequence[Iterator[Any]]) -> Generator[Any]:
    """Goes through iterators, as many at a time as the processor has cores, and yields what they do as it comes.

    When one of them raises, or the caller goes no further, none begins another item, and those begun are waited for.
    """
    come: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ended = object()
    stopping = threading.Event()

    def go_through(items: Iterator[Any]) -> None:
        item = None
        try:
            while item is not ended and not stopping.is_set():
                item = next(items, ended)
                if item is not ended:
                    come.put(item)
        except BaseException:
            stopping.set()
            raise
        finally:
            come.put(ended)

    futures: list[concurrent.futures.Future[None]] = []
    try:
        for items in work:
            futures.append(workers().submit(go_through, items))
        left = len(futures)
        while left:
            item = come.get()
            if item is ended:
                left -= 1
            else:
                yield item
        for future in futures:
            future.result()
    finally:
        stopping.set()
        concurrent.futures.wait([future for future in futures if not future.cancel()])


@functools.cache
def workers() -> concurrent.futures.ThreadPoolExecutor:
    """A thread for each core, to call programs that use one core each."""
    import joblib

    return concurrent.futures.ThreadPoolExecutor(joblib.cpu_count(), "kerastoolkit-program")
