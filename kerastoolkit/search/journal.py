"""A file in which a search records every finished fit, so that one that was stopped goes on where it was.

The file is an SQLite database with one row a fit. A row is found again by the digest of everything that determines the
result (`_description`): a search that is started again, after Ctrl-C, a crash or `kill -9`, is given what is recorded
and trains the rest. Each row is on the disk before the search goes on; several processes may write at once.

Each row also has a digest of all that stands in it, without which a byte that changed on the disk would be another
score. The first format had none. A file of that format is refused, not brought up to date: digests that are computed
afterwards would vouch for rows that nobody has checked.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import inspect
import json
import math
import os
import re
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from kerastoolkit._sqlite import application_of, connect, has_table, look
from kerastoolkit._version import __version__
from kerastoolkit.exceptions import JournalError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.search._description import Describer
from kerastoolkit.search._tasks import is_fit

__all__ = ["Journal"]

_APPLICATION = int.from_bytes(b"ktkj", "big")
_FORMAT = 2
_BUSY_SECONDS = 30.0  # how long to wait for another process that writes: a write takes milliseconds

_TABLE = """CREATE TABLE fits (
    key TEXT PRIMARY KEY,
    parameters TEXT NOT NULL,
    split INTEGER,
    result TEXT NOT NULL,
    recorded TEXT NOT NULL,
    model BLOB,
    digest BLOB NOT NULL
)"""
_COLUMNS = "key, parameters, split, result, recorded, model, digest"

_MOST_TEXT = 2**20  # letters of a result; those of a thousand scores are a hundredth of it
_MOST_BYTES = 10**9  # of a model, as SQLite has it, too

# What scikit-learn hands to a fit that makes no difference to its result.
_MAKES_NO_DIFFERENCE = {"callback_ctx", "candidate_progress", "caller", "split_progress", "verbose"}

# Settings of scikit-learn that do.
_SETTINGS = ("array_api_dispatch", "enable_metadata_routing", "transform_output")

# What comes as a dict of many, each of which an error speaks of.
_SPOKEN_OF = {
    "fit_params": "the fit parameter", "parameters": "the parameter", "score_params": "the score parameter",
}  # fmt: skip

# What comes back from the task itself, not from the file.
_NOT_RECORDED = ("estimator", "parameters")


class Journal:
    """Records the finished fits of searches in a file, and gives back what is recorded.

    Example:

    >>> with Journal("search.db") as journal:
    ...     GridSearchCV(KerasClassifier(), grid, journal=journal).fit(X, y)
    ...     len(journal), journal.results()[0]["scores"]
    (9, {'test': 0.95})

    A fit is known by the class and all parameters of its estimator, the candidate's parameters, the rows of the split,
    the content of `X` and `y`, fit parameters such as `sample_weight`, the scorer, and the versions in which results
    may change. Functions and classes of your own count by what they do, with all they use: after a change of the build
    function everything trains anew, after a change of a comment nothing does. Python compiles to other bytecode in
    another minor version, in which fits that use such code train anew as well.

    - An estimator without `random_state` has one draw recorded, which stands from then on. Two fits that are equal in
      all of the above are one. A built `keras.Model` as a parameter counts with its weights: without a seed they are
      others in every process, and nothing is found again; pass a function that builds it. Layers and metrics count with
      their names: Keras counts up those it gives (`auc`, `auc_1`), so name a metric that is made twice in a process.
    - A fit that failed is not recorded, since it may succeed when its reason is gone, and trains again next time. So
      does one with a score that equals `error_score` (NaN by default): that is how scikit-learn says that scoring
      failed.
    - What a fit does besides being scored (files that a callback writes) is not done again for a recorded one.
    - A search that draws its candidates or its folds finds them again only if it has a `random_state`.
    - A list, dict or number outside a function that the function uses counts with what it holds when the search
      begins: one that is filled by the fits makes the next search in the same process train anew.
    - What no parameter shows (environment variables, files that a function reads) is not seen.

    Every row has a digest, which is checked whenever the row is read, and before a search trains anything. It finds
    damage; it does not find what somebody changed on purpose who can compute a digest, too. Models are loaded as
    `kerastoolkit.load` loads them, which executes nothing of a file.

    One `Journal` may serve many searches, also of different data. It may be used from several threads, and the file by
    several processes on one machine. The file may be copied when no search is running; while one is, two more files
    beside it (`-wal`, `-shm`) belong to it.

    Args:
        path: The file; made if it is not there.
        keep_models: Whether to record the fitted estimators too, as `save` writes them. Estimators of kerastoolkit
            only, not pipelines around them. Defaults to `False`.

    Raises:
        ParameterError: `path` is no path.
        JournalError: The file cannot be opened: it is locked, or its folder is missing or cannot be written.
        SavedFileError: The file is damaged, of another kind, or of another format: written by a newer version, or by
            one from before 0.1.0, without digests. It is left as it is.
    """

    _file: sqlite3.Connection | None = None
    _search: Any = None
    _failed: JournalError | None = None

    def __init__(self, path: str | Path, *, keep_models: bool = False) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ParameterError(f"A journal is given by the path of its file; got {path!r}.")
        self.path, self.keep_models = Path(path), keep_models
        self._lock, self._describer = threading.RLock(), Describer()
        if not self.path.parent.is_dir():
            raise JournalError(
                f"The journal {str(path)!r} cannot be opened: there is no folder {str(self.path.parent)!r}."
            )
        with self._errors("opened"):
            self._check_foreign()
            self._file = connect(path, seconds=_BUSY_SECONDS, most_bytes=_MOST_BYTES)
            # A letter that cannot be read comes through, so that it is the digest that tells of it.
            self._file.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
        try:
            with self._errors("opened"):
                self._prepare(self._file)
        except BaseException:
            self._file.close()
            raise

    # -- what a search calls -------------------------------------------------------------------------------------

    def around(self, call: Any) -> Any:
        """Wraps a task of joblib so that its fits come from the journal or go into it.

        Args:
            call: A `joblib.parallel.BatchedCalls`, or anything callable with `items` of
                `(function, arguments, keywords)`.

        Returns:
            A callable with the results of `call()`. What is no fit of a search runs untouched. It raises ParameterError
            before the fit if the fit cannot be described, and JournalError if the file cannot be written: before the
            fit too, unless it is full.
        """
        items = getattr(call, "items", None)
        if not isinstance(items, list):
            return call
        # In place: a BatchedCalls also sets up the backend of what its functions call, and has no public way to be
        # made anew.
        call.items = [
            (functools.partial(self._fit, function) if is_fit(function) else function, arguments, keywords)
            for function, arguments, keywords in items
        ]
        return call

    def check(self, estimator: Any, candidates: Any = ()) -> None:
        """Refuses what the journal could not find again, before anything trains.

        `around` refuses each fit before it trains, by which time others may have been trained; a search that knows
        its candidates can ask for all of them first.

        Args:
            estimator: The estimator that will be cloned and fitted.
            candidates: Dicts of parameters to be set on it. Defaults to none.

        Raises:
            ParameterError: Something cannot be described; the message names it and says what to do.
        """
        describer = Describer()
        self._check_model(estimator)
        describer.described(estimator, "the estimator")
        for candidate in candidates:
            for name, value in candidate.items():
                describer.described(value, f"the parameter `{name}`")

    def _fit(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Gives back what is recorded of a fit, or runs it and records its result."""
        given = inspect.signature(function).bind(*arguments, **keywords).arguments
        estimator, parameters = given["estimator"], given.get("parameters")
        with self._lock:
            key = self._key(given, function)
            if self._failed is not None:
                # joblib hears of an error when tasks that wait have begun already. They would go on unrecorded.
                raise JournalError(str(self._failed)) from self._failed
            found = self._row(key)
            if found is None:
                self._check_writable()
        if found is None:
            result = function(*arguments, **keywords)
            if not _is_success(result, given.get("error_score")):
                return result
            try:
                found = self._record(key, result, given)
            except JournalError as error:
                self._failed = error
                raise
        result = _decoded_result(found[0], str(self.path))
        if not _is_success(result, given.get("error_score")):
            raise SavedFileError(
                f"The journal {str(self.path)!r} is damaged: it holds a fit that failed, which is never recorded. Give "
                "another path."
            )
        if "parameters" in result:
            result["parameters"] = parameters
        if "estimator" in result:
            result["estimator"] = self._restored(found[1], estimator, parameters)
        return result

    def _key(self, given: Mapping[str, Any], function: Any) -> str:
        fit_params = given.get("fit_params")
        if fit_params is None or fit_params is not self._search:
            # scikit-learn makes one such dict a search. In the next one an array may hold other values in its place.
            if fit_params is not None:
                for _ in self._rows():  # before anything trains
                    pass
            self._search, self._describer, self._failed = fit_params, Describer(), None
        self._check_model(given["estimator"], returned=given.get("return_estimator"))
        settings = getattr(function, "config", None) or {}
        # Classes and functions carry the version of their own package; folds and scores are scikit-learn's.
        parts: dict[str, Any] = {"format": _FORMAT, "scikit-learn": sklearn.__version__.partition(".")[0]}
        parts["settings"] = json.dumps([settings.get(name) for name in _SETTINGS])
        for name in sorted(given.keys() - _MAKES_NO_DIFFERENCE):
            value, what = given[name], _SPOKEN_OF.get(name)
            if what is not None and isinstance(value, Mapping):
                parts |= {f"{what} `{key}`": value[key] for key in sorted(value)}
            else:
                parts["the estimator" if name == "estimator" else f"`{name}`"] = value
        return self._describer.digest(parts)

    # -- what a user asks ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Fits recorded."""
        with self._reading() as file:
            return int(file.execute("SELECT count(*) FROM fits").fetchone()[0])

    def results(self) -> list[dict[str, Any]]:
        """What is recorded, in the order in which it was.

        Returns:
            A dict for each fit: `"parameters"` of the candidate as text, `"split"` (its number from 0, `None` where
            the fit has none), `"scores"` (a number, or numbers by metric, under `"test"` and, if asked for,
            `"train"`), `"seconds"` of fitting, and `"recorded"`, the time in UTC as text (ISO 8601).

        Raises:
            JournalError: The file cannot be read.
            SavedFileError: It is damaged; the message names the row.
        """
        found = []
        for _, parameters, split, text, recorded, _ in self._rows():
            result = _decoded_result(text, str(self.path))
            scores = {name: result[f"{name}_scores"] for name in ("test", "train") if f"{name}_scores" in result}
            seconds = result.get("fit_time")
            row = {"parameters": parameters, "split": split, "scores": scores, "seconds": seconds, "recorded": recorded}
            found.append(row)
        return found

    def models(self) -> list[Any]:
        """The fitted estimators that were recorded with `keep_models=True`.

        Returns:
            One for each of `results()`, in their order; `None` where none was recorded. Each is loaded as by
            `kerastoolkit.load`.

        Raises:
            JournalError: The file cannot be read.
            SavedFileError: It is damaged; the message names the row.
        """
        return [None if model is None else _model_from(model) for *_, model in self._rows()]

    def close(self) -> None:
        """Closes the file. What is recorded stays."""
        with self._lock:
            file, self._file = self._file, None
            self._describer, self._search = Describer(), None
            if file is not None:
                file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Journal:
        # A clone of a search, and a search inside another, record in the same file.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "keep_models": self.keep_models}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Closed: that of a fitted search that was saved, where there may be no such file.
        self.__dict__.update(state, _lock=threading.RLock(), _describer=Describer())

    # -- the file ------------------------------------------------------------------------------------------------

    def _check_foreign(self) -> None:
        """Refuses what is not ours before SQLite opens it, which may already write to it."""
        if not os.path.lexists(self.path):
            return
        if not os.path.isfile(self.path):
            raise JournalError(
                f"The journal {str(self.path)!r} cannot be opened: it is no file. See whether it is a folder, or a "
                "link to a file that is not there."
            )
        with contextlib.suppress(OSError):  # SQLite will say it, too
            if os.path.getsize(self.path) == 0 or application_of(self.path) in (_APPLICATION, None):
                return
        with contextlib.suppress(sqlite3.OperationalError):  # locked: another process may be making it
            found = look(self.path, seconds=_BUSY_SECONDS)
            if found.application != _APPLICATION and not found.is_empty:
                raise self._foreign(len(found.columns))

    def _foreign(self, n_names: int) -> SavedFileError:
        return SavedFileError(
            f"{str(self.path)!r} is no journal of kerastoolkit. It is an SQLite database of another program, with "
            f"{n_names} tables. Give another path."
        )

    def _prepare(self, file: sqlite3.Connection) -> None:
        """Makes a new file ours, refuses what is not; nothing is written to a foreign one."""
        with _transaction(file, "DEFERRED"):  # all of it as it is at one moment: another process may be making it
            is_ours = self._is_ours(file)
        if not is_ours:
            # One transaction for all: a process killed in between leaves an empty database, which is a new one.
            self._write_ahead(file)
            with _transaction(file, "IMMEDIATE"):
                if not self._is_ours(file):  # another process may have been quicker
                    file.execute(_TABLE)
                    file.execute(f"PRAGMA application_id = {_APPLICATION}")
                    file.execute(f"PRAGMA user_version = {_FORMAT}")
        # FULL: in WAL mode anything less may lose the last results when the machine loses power.
        file.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def _write_ahead(file: sqlite3.Connection) -> None:
        """Sets the mode of the file. For this alone SQLite does not wait for another process that does the same."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                file.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _is_ours(self, file: sqlite3.Connection) -> bool:
        application = file.execute("PRAGMA application_id").fetchone()[0]
        version = file.execute("PRAGMA user_version").fetchone()[0]
        n_names = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application == 0 and version == 0 and not n_names:
            return False
        if application != _APPLICATION:
            raise self._foreign(n_names)
        name = f"The journal {str(self.path)!r}"
        if version > _FORMAT:
            raise SavedFileError(
                f"{name} is of format {version}; this is kerastoolkit {__version__}, which reads up to format "
                f"{_FORMAT}. Upgrade kerastoolkit, or give another path."
            )
        if version < _FORMAT:
            raise SavedFileError(
                f"{name} is of format {version}, from before kerastoolkit 0.1.0: its rows have no digests, by which "
                "damage could be told from a score. It is left as it is. Give another path, and all is trained anew."
            )
        try:
            has_table(file, "fits", _TABLE)
            found = file.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) not in (None, sqlite3.SQLITE_CORRUPT):
                raise
            found = error
        if found != "ok":
            raise SavedFileError(f"{name} is damaged: {found}.{_DAMAGED}")
        return True

    def _rows(self) -> Iterator[tuple[str, str, int | None, str, str, bytes | None]]:
        """All columns of each row but the digest, as they were recorded; one at a time, since models take memory."""
        with self._reading() as file:
            numbers = [number for (number,) in file.execute("SELECT rowid FROM fits ORDER BY rowid")]
        for number in numbers:
            with self._reading() as file:
                found = file.execute(f"SELECT rowid, {_COLUMNS} FROM fits WHERE rowid = ?", (number,)).fetchone()
            if found is not None:
                yield self._checked(found)

    def _checked(self, row: tuple[Any, ...]) -> Any:
        number, *values, digest = row
        key, parameters, split, result, recorded, model = values
        is_ours = (
            all(isinstance(text, str) for text in (key, parameters, result, recorded))
            and isinstance(split, (int, type(None)))
            and isinstance(model, (bytes, type(None)))
        )
        if not is_ours or _digest_of_row(values) != digest:
            raise SavedFileError(
                f"The journal {str(self.path)!r} is damaged: row {number} is not as it was written. Nothing is "
                f"deleted. Give another path; or take the row out, by sqlite3 FILE 'DELETE FROM fits WHERE rowid = "
                f"{number}', and its fit is trained anew."
            )
        return tuple(values)

    def _row(self, key: str) -> tuple[str, bytes | None] | None:
        with self._reading() as file:
            found = file.execute(f"SELECT rowid, {_COLUMNS} FROM fits WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        _, _, _, result, _, model = self._checked(found)
        return result, model

    def _check_writable(self) -> None:
        with self._errors("written to"):
            self._opened().execute("UPDATE fits SET split = split WHERE 0")

    def _record(self, key: str, result: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, bytes | None]:
        """Records a result and gives back what stands in the file: where two processes ran a fit, the first one's."""
        split = given.get("split_progress")
        row = [
            key,
            _parameters_text(given.get("parameters") or {}),
            None if split is None else int(split[0]),
            _encoded_result(result),
            datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            _model_bytes(given["estimator"]) if self.keep_models else None,
        ]
        with self._lock, self._errors("written to"), _transaction(self._opened(), "IMMEDIATE") as file:
            file.execute(
                f"INSERT INTO fits ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (*row, _digest_of_row(row)),
            )
        found = self._row(key)
        if found is None:
            raise JournalError(
                f"The journal {str(self.path)!r} has lost what was written to it: another program is at it."
            )
        return found

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            raise JournalError(f"The journal {str(self.path)!r} is closed. Open it again: Journal({str(self.path)!r}).")
        return self._file

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors("read"):
            yield self._opened()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns errors of SQLite into ours, which say what became of the results and what to do."""
        try:
            yield
        except UnicodeDecodeError as error:  # letters that are none, in a message of SQLite about what it cannot read
            raise SavedFileError(f"The journal {str(self.path)!r} is damaged: {error}.{_DAMAGED}") from error
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the rest of it is detail
            name = f"The journal {str(self.path)!r}"
            if code == sqlite3.SQLITE_NOTADB:
                raise SavedFileError(
                    f"{str(self.path)!r} is no journal of kerastoolkit: {error}. Give another path."
                ) from error
            # SQLITE_ERROR: there is no such table. SQLITE_TOOBIG, of what is read: we write nothing so long.
            is_too_long = code == sqlite3.SQLITE_TOOBIG and what == "read"
            if is_too_long or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
                raise SavedFileError(f"{name} is damaged: {error}.{_DAMAGED}") from error
            kept = "" if code == sqlite3.SQLITE_CANTOPEN else _KEPT
            raise JournalError(f"{name} cannot be {what}: {error}.{_ADVICE.get(code, '')}{kept}") from error

    # -- models --------------------------------------------------------------------------------------------------

    def _check_model(self, estimator: Any, *, returned: bool | None = False) -> None:
        if returned and not self.keep_models:
            raise ParameterError(
                "`return_estimator=True` asks for the fitted estimators, which this journal does not record. Open it "
                "with Journal(path, keep_models=True), or leave `return_estimator` out."
            )
        if self.keep_models and not _can_be_kept(estimator):
            raise ParameterError(
                f"`keep_models=True` records estimators of kerastoolkit, by their `save`; got "
                f"{type(estimator).__name__}. Leave `keep_models` out."
            )

    def _restored(self, model: bytes | None, estimator: Any, parameters: Mapping[str, Any] | None) -> Any:
        if model is None:
            raise JournalError(
                f"The journal {str(self.path)!r} holds the scores of this fit, but not its model, since it was "
                "recorded without `keep_models=True`. Leave `return_estimator` out, or give another path."
            )
        # A file keeps functions by name only; here they are at hand.
        return _model_from(model, type(estimator)).set_params(**estimator.get_params(deep=False), **(parameters or {}))


_DAMAGED = (
    " It is left as it is. Give another path; the command line program sqlite3 may save what can be read (`.recover`)."
)
_KEPT = " Everything recorded so far is kept: start the search again with the same journal, and it goes on."

_LOCKED = " Another program has it locked: close what has it open (a database viewer?)."
_NO_RIGHT = " Give yourself the right to write to the file and its folder."
_ADVICE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: " Make room on the disk.",
    sqlite3.SQLITE_IOERR: " See whether the disk is full or gone.",
    sqlite3.SQLITE_READONLY: _NO_RIGHT,
    sqlite3.SQLITE_PERM: _NO_RIGHT,
    sqlite3.SQLITE_CANTOPEN: " See whether it is a folder, and whether you may write there.",
}


@contextlib.contextmanager
def _transaction(file: sqlite3.Connection, kind: str) -> Iterator[sqlite3.Connection]:
    """A block that is written as a whole, or not at all."""
    file.execute(f"BEGIN {kind}")
    try:
        yield file
        file.execute("COMMIT")
    finally:
        if file.in_transaction:
            file.execute("ROLLBACK")


def _is_success(result: Any, error_score: Any) -> bool:
    """Whether a result is one to keep: the fit did not fail, and no score is what stands for a failure."""
    if not isinstance(result, Mapping) or result.get("fit_error") is not None:
        return False
    scores: list[Any] = []
    for name in ("test_scores", "train_scores"):
        value = result.get(name, [])
        scores += value.values() if isinstance(value, Mapping) else [value] if np.ndim(value) == 0 else []
    return not any(score == error_score or (_is_nan(score) and _is_nan(error_score)) for score in scores)


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)


# -- results and parameters as text ---------------------------------------------------------------------------------


def _encoded_result(result: Mapping[str, Any]) -> str:
    """A result as JSON, in which Python writes a float so that it reads back to the bit.

    scikit-learn sees to it that scores are numbers, and makes plain ones of NumPy's.
    """

    def refuse(value: Any) -> Any:
        raise ParameterError(
            f"A result holds {value!r}, a {type(value).__name__}, which a journal cannot keep. Let the scorer return "
            "plain numbers."
        )

    kept = {name: None if name in _NOT_RECORDED else value for name, value in result.items()}
    return json.dumps(kept, default=refuse)


def _decoded_result(text: str, path: str) -> dict[str, Any]:
    """What `_encoded_result` wrote, and nothing that it would not have written.

    Raises:
        SavedFileError: It is something else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is given twice")
        return dict(pairs)

    try:
        if len(text) > _MOST_TEXT:
            raise ValueError(f"it has more than {_MOST_TEXT:,} letters")
        result = json.loads(text, object_pairs_hook=once)
        if not isinstance(result, dict):
            raise TypeError("it has no names")
        for name, value in result.items():
            if not can_be_of_a_result(name, value):
                raise TypeError(f"`{name[:60]}` cannot be {str(value)[:60]}")
        return result
    except (ValueError, TypeError, RecursionError) as error:
        raise SavedFileError(
            f"The journal {path!r} is damaged: a result in it cannot be read ({error}).{_DAMAGED}"
        ) from error


def can_be_of_a_result(name: str, value: Any) -> bool:
    """Whether the result of a fit that did not fail may have such a value of that name."""
    if name in (*_NOT_RECORDED, "fit_error"):
        return value is None
    if name in ("fit_time", "score_time"):
        return _is_number(value) and 0 <= value < math.inf
    if name in ("test_scores", "train_scores") or isinstance(value, dict):
        # One score, or several by name. NaN is a score where the search does not take it for a failure.
        return all(map(_is_number, value.values() if isinstance(value, dict) else [value]))
    return value is None or isinstance(value, (int, float, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _digest_of_row(values: Sequence[Any]) -> bytes:
    # It finds damage, not a forgery: who may write to the file can compute it, too.
    digest = hashlib.blake2b(digest_size=16)
    for value in (_FORMAT, *values):
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        digest.update(f"{type(value).__name__} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def _parameters_text(parameters: Mapping[str, Any]) -> str:
    """Parameters for people to read, without addresses."""
    texts = []
    for name, value in sorted(parameters.items()):
        value = value.item() if isinstance(value, np.generic) else value
        text = value.__qualname__ if inspect.isclass(value) or inspect.isroutine(value) else repr(value)
        texts.append(f"{name}={re.sub(' at 0x[0-9a-fA-F]+', '', text)[:200]}")
    return ", ".join(texts)


# -- models as bytes ------------------------------------------------------------------------------------------------


def _can_be_kept(estimator: Any) -> bool:
    from kerastoolkit.estimators.saving import can_be_saved

    return can_be_saved(estimator)


def _model_bytes(estimator: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return bytes(estimator.save(Path(folder) / "model.zip").read_bytes())


def _model_from(content: bytes, kind: type | None = None) -> Any:
    """A recorded model, read as a file from a stranger; `kind` is the class that it was recorded of, if known."""
    from kerastoolkit.estimators import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.zip")
        path.write_bytes(content)
        if kind is None:
            return load(path)
        with warnings.catch_warnings():  # of a folder for its cache, which is set again
            warnings.simplefilter("ignore", KerasToolkitWarning)
            return load(path, custom_objects={f"{kind.__module__}:{kind.__qualname__}": kind})
