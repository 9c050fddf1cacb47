"""The request log: every row that was answered, with its answer, in an SQLite file that monitoring reads.

One table, one line for each row of a request:

    id      TEXT     of the request: 24 hexadecimal digits, also in the header `X-Request-Id` of its answer
    place   INTEGER  of the row in its request, from 0
    time    TEXT     when it was answered, UTC, as 2026-12-01T09:30:00.123456Z, so that it sorts
    model   TEXT     SHA-256 of the ONNX file that answered
    row     TEXT     JSON: the row as it was sent, less the columns that are left out
    answer  TEXT     JSON: the answer as `/predict` gives it

It is written by a thread, in transactions of what has come together, so that no request waits for the disk. Whatever
was written is whole; a process that is killed loses what it had not written yet, a twentieth of a second or so. Several
processes may write at once.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from kerastoolkit._sqlite import application_of, connect, has_table, inspect_database, write_ahead
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import JournalError, ParameterError, SavedFileError
from kerastoolkit.serving._answers import Answers
from kerastoolkit.serving._rows import Row

_APPLICATION, _FORMAT = 0x6B74726C, 1  # "ktrl"
_TABLE = (
    "CREATE TABLE requests (id TEXT NOT NULL, place INTEGER NOT NULL, time TEXT NOT NULL, model TEXT NOT NULL, "
    "row TEXT NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (id, place))"
)
_MAX_WAITING, _MAX_BATCH = 10_000, 500  # requests
_BUSY_SECONDS = 10.0
_GATHERING_SECONDS = 0.05  # a transaction costs as much as many rows
_MAX_BYTES = 2**28


class _Entry(NamedTuple):
    id: str
    time: float
    rows: list[Row]
    made: dict[str, NDArray[Any]]


class RequestLog:
    """Keeps requests in a file.

    Args:
        path: The file; a new one is readable for its owner alone.
        columns: Names of the columns of a row.
        sample: Fraction of the requests to keep. Defaults to `1.0`.
        exclude: Names of columns to leave out. Defaults to none.

    Raises:
        ParameterError: `sample` is no fraction, or there is no such column to leave out.
        SavedFileError: The file is something else.
        JournalError: The file cannot be written.
    """

    def __init__(
        self, path: str | Path, columns: Sequence[str], *, sample: float = 1.0, exclude: Sequence[str] = ()
    ) -> None:
        if isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0 < sample <= 1:
            raise ParameterError(f"`sample` must be a fraction, above 0 and up to 1; got {sample!r}.")
        unknown = [name for name in exclude if name not in columns]
        if unknown:
            raise ParameterError(
                f"`log_exclude` names {unknown[0]!r}, which is no column.{did_you_mean(unknown[0], columns)}"
            )
        self.path, self.sample, self._exclude = Path(path), sample, frozenset(exclude)
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._answers: Answers | None = None
        self._model = ""
        self._on_loss: Callable[[int, str], None] = lambda n_rows, why: None
        with self._open():
            pass

    def begin(self, model: str, answers: Answers, on_loss: Callable[[int, str], None]) -> None:
        """Says what is kept.

        Args:
            model: Digest of the model.
            answers: How answers are spelt.
            on_loss: Called with a number of rows and a reason, where they could not be written.
        """
        self._model, self._answers, self._on_loss = model, answers, on_loss

    def put(self, request: str, rows: list[Row], made: dict[str, NDArray[Any]]) -> None:
        """Hands a request over to be written; never waits."""
        if self.sample < 1 and random.random() >= self.sample:
            return
        if self._thread is None:
            self._start()
        try:
            self._waiting.put_nowait(_Entry(request, time.time(), rows, made))
        except queue.Full:
            self._on_loss(len(rows), "more requests come than can be written")

    def close(self) -> None:
        """Writes what is waiting, and ends the thread; the next request starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            self._waiting.put(None)
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._closing.clear()
                self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        goes_on = True
        while goes_on:
            entries, goes_on = self._next()
            if not entries:
                continue
            try:
                with self._open() as file:
                    while entries:
                        self._write(file, entries)
                        if not goes_on:
                            break
                        entries, goes_on = self._next()
            except (sqlite3.Error, OSError, SavedFileError) as error:
                self._on_loss(sum(len(one.rows) for one in entries), f"{type(error).__name__}: {error}")

    def _next(self) -> tuple[list[_Entry], bool]:
        """What is waiting, at least one; and whether there is more to come."""
        entries: list[_Entry] = []
        one = self._waiting.get()
        self._closing.wait(_GATHERING_SECONDS)
        while True:
            if one is None:
                return entries, False
            entries.append(one)
            if len(entries) == _MAX_BATCH:
                return entries, True
            try:
                one = self._waiting.get_nowait()
            except queue.Empty:
                return entries, True

    def _write(self, file: sqlite3.Connection, entries: list[_Entry]) -> None:
        lines = [line for entry in entries for line in self._lines(entry)]
        file.execute("BEGIN IMMEDIATE")
        try:
            file.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", lines)
            file.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                file.execute("ROLLBACK")
            raise

    def _lines(self, entry: _Entry) -> Iterator[tuple[str, int, str, str, str, str]]:
        if self._answers is None:
            return
        when = datetime.datetime.fromtimestamp(entry.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        answers = self._answers.rows(entry.made)
        for place, (row, answer) in enumerate(zip(entry.rows, answers, strict=True)):
            kept = {name: value for name, value in row.items() if name not in self._exclude}
            yield entry.id, place, when, self._model, _json(kept), _json(answer)

    # -- the file -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._check_foreign()
        try:
            if not os.path.lexists(self.path):
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            with contextlib.closing(connect(self.path, timeout=_BUSY_SECONDS, max_bytes=_MAX_BYTES)) as file:
                self._prepare(file)
                yield file
        except OSError as error:
            raise JournalError(f"The request log {str(self.path)!r} cannot be written: {error}") from error
        except sqlite3.OperationalError as error:
            raise JournalError(f"The request log {str(self.path)!r} cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._foreign(str(error)) from error

    def _check_foreign(self) -> None:
        """Refuses a file of another kind before SQLite opens it, since opening may already write to it."""
        if not os.path.lexists(self.path) or (os.path.isfile(self.path) and not os.path.getsize(self.path)):
            return
        if not os.path.isfile(self.path):
            raise self._foreign("it is no ordinary file")
        if application_of(self.path) is None:
            raise self._foreign("it is no SQLite database")
        with contextlib.suppress(sqlite3.OperationalError):  # locked: another process may be making it
            found = inspect_database(self.path, timeout=_BUSY_SECONDS)
            if found.application != _APPLICATION and not found.is_empty:
                raise self._foreign("it is a database of another program")

    def _foreign(self, why: str) -> SavedFileError:
        return SavedFileError(f"{str(self.path)!r} is no request log of kerastoolkit: {why}. Give another path.")

    def _prepare(self, file: sqlite3.Connection) -> None:
        write_ahead(file, timeout=_BUSY_SECONDS)
        # NORMAL: a crash of the machine may take the last rows, but damages nothing.
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("BEGIN IMMEDIATE")
        try:
            if not has_table(file, "requests", _TABLE):
                file.execute(_TABLE)
                file.execute(f"PRAGMA application_id = {_APPLICATION}")
                file.execute(f"PRAGMA user_version = {_FORMAT}")
            version = file.execute("PRAGMA user_version").fetchone()[0]
            if version != _FORMAT:
                raise self._foreign(f"it has format {version}, and this version writes format {_FORMAT}")
            file.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                file.execute("ROLLBACK")
            raise


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
