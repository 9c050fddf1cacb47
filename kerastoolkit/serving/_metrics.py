"""What `/metrics` tells, in the format of Prometheus.

Where several workers share a port, each keeps its numbers in a folder that all of them read (the variable
`PROMETHEUS_MULTIPROC_DIR`), so that whichever worker is asked answers for all of them.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from kerastoolkit._optional import require
from kerastoolkit.serving._model import ServedModel

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts requests, rows, unseen categories and labels.

    Args:
        model: What is served.
    """

    def __init__(self, model: ServedModel) -> None:
        self._prometheus: Any = require("prometheus_client")
        self._registry = self._prometheus.CollectorRegistry()
        if FOLDER not in os.environ:
            self._prometheus.ProcessCollector(registry=self._registry)
        self._requests = self._counter("requests", "Requests by path and status.", "path", "status")
        self._seconds = self._prometheus.Histogram(
            "kerastoolkit_request_seconds",
            "Seconds from the headers of a request to the end of its answer.",
            ["path"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.rows = self._counter("rows", "Rows that were answered.")
        self._unseen = self._counter(
            "unseen_categories", "Values of a column that are none of the categories learned.", "column"
        )
        self._labels = self._counter(
            "labels", "Labels answered; the share of one is its rate by that of all.", "output", "label"
        )
        self._of_path: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._of_label: dict[tuple[str, str], Any] = {}
        self.lost = self._counter("log_lost", "Rows that could not be written to the request log.")
        info = self._prometheus.Gauge(
            "kerastoolkit_model_info",
            "The model that is served; always 1.",
            ["name", "digest", "runtime"],
            registry=self._registry,
            multiprocess_mode="max",
        )
        info.labels(model.spec.name, model.digest, model.runtime).set(1)

    def _counter(self, name: str, documentation: str, *labels: str) -> Any:
        return self._prometheus.Counter(f"kerastoolkit_{name}", documentation, labels, registry=self._registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        if (path, status) not in self._of_path:  # finding one by its labels takes longer than to count
            self._of_path[path, status] = (self._requests.labels(path, str(status)), self._seconds.labels(path))
        counter, histogram = self._of_path[path, status]
        counter.inc()
        histogram.observe(seconds)

    def answered(self, n_rows: int, unseen: dict[str, int], labels: dict[tuple[str, str], int]) -> None:
        """Counts rows that were answered."""
        self.rows.inc(n_rows)
        for column, n in unseen.items():
            self._unseen.labels(column).inc(n)
        for label, n in labels.items():
            if label not in self._of_label:
                self._of_label[label] = self._labels.labels(*label)
            self._of_label[label].inc(n)

    def text(self) -> bytes:
        """All of it, for all workers."""
        registry = self._registry
        if FOLDER in os.environ:
            multiprocess: Any = importlib.import_module("prometheus_client.multiprocess")
            registry = self._prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        text: bytes = self._prometheus.generate_latest(registry)
        return text

    @property
    def content_type(self) -> str:
        """Of the text."""
        return str(self._prometheus.CONTENT_TYPE_LATEST)
