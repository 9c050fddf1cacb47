"""Threads, one for each core of the processor."""

from __future__ import annotations

import concurrent.futures
import functools
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any


def on_each_core(work: Sequence[Iterator[Any]]) -> Generator[Any]:
    """Consumes iterators in threads, as many at a time as the processor has cores, and yields their items as they come.

    When an iterator raises, or the caller stops, no further item is begun, and those that are begun are waited for.

    Args:
        work: The iterators.
    """
    items_done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ended = object()
    stopping = threading.Event()

    def go_through(items: Iterator[Any]) -> None:
        item = None
        try:
            while item is not ended and not stopping.is_set():
                item = next(items, ended)
                if item is not ended:
                    items_done.put(item)
        except BaseException:
            stopping.set()
            raise
        finally:
            items_done.put(ended)

    futures: list[concurrent.futures.Future[None]] = []
    try:
        for items in work:
            futures.append(workers().submit(go_through, items))
        left = len(futures)
        while left:
            item = items_done.get()
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
    """The threads; each calls programs that use one core."""
    import joblib

    return concurrent.futures.ThreadPoolExecutor(joblib.cpu_count(), "kerastoolkit-program")
