"""From checked rows to answers: the model is run, and what came and went is counted and kept."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from numpy.typing import NDArray

from kerastoolkit.exceptions import DataError, ModelMismatchError
from kerastoolkit.serving._answers import Answers
from kerastoolkit.serving._guard import Passage
from kerastoolkit.serving._log import RequestLog
from kerastoolkit.serving._metrics import Metrics
from kerastoolkit.serving._model import Arrays, ServedModel
from kerastoolkit.serving._rows import RequestError, Row, Rows

# What takes longer is computed in a thread, so that the server answers others meanwhile.
_MAX_SECONDS_INLINE = 0.005


class Service:
    """Answers rows.

    Args:
        model: What is served.
        max_rows: Rows of a request at most.
        log: Where requests are kept. Defaults to `None`: nowhere.

    Raises:
        ModelMismatchError: The model does not answer its own example.
    """

    def __init__(self, model: ServedModel, max_rows: int, log: RequestLog | None = None) -> None:
        self.model, self.log = model, log
        self.rows, self.answers, self.metrics = Rows(model.spec, max_rows), Answers(model.spec), Metrics(model)
        self.has_unknown_sizes = any(None in one.shape for one in model.spec.inputs)
        self._seconds_per_row = self._warm_up()

    def _warm_up(self) -> float:
        example = self.rows.of_values([self.rows.example()])
        arrays = self.rows.arrays(example)
        try:
            made = self.model.run(arrays)
            start = time.perf_counter()
            self.model.run(arrays)
            seconds = time.perf_counter() - start
            self.answers.rows(made)
        except Exception as error:
            raise ModelMismatchError(f"The model does not answer its own example {example}: {error}") from error
        return seconds

    async def answer(self, rows: list[Row], passage: Passage) -> dict[str, NDArray[Any]]:
        """Answers by output.

        Raises:
            RequestError: The model has no finite answer, or cannot take rows of this shape.
        """
        arrays = self.rows.arrays(rows)
        if self._seconds_per_row * len(rows) > _MAX_SECONDS_INLINE:
            made = await asyncio.to_thread(self._run, arrays)
        else:
            made = self._run(arrays)
        self.answers.check(made)
        passage.n_rows = len(rows)
        self.metrics.answered(len(rows), self.rows.unseen(rows), self.answers.labels(made))
        if self.log is not None:
            self.log.put(passage.id, rows, made)
        return made

    def _run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        try:
            return self.model.run(arrays)
        except Exception as error:
            if not (self.has_unknown_sizes or isinstance(error, DataError)):
                raise
            raise RequestError("The model cannot compute these rows: is their shape one that it takes?") from error
