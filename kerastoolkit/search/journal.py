"""A file in which a search records every finished fit, so that an interrupted search resumes.

The file is an SQLite database with one row for each fit. The key of a row is a digest of everything that determines the
result (`_description`): a search that starts again after Ctrl-C, a crash or `kill -9` is given what is recorded, and
trains the rest. Each row is on the disk before the search continues; several processes may write at once.

Each row also has a digest of its own content, without which a byte that changed on the disk would read as another
score. The first format had no such digests. A file of that format is refused, not upgraded: digests computed afterwards
would vouch for rows that nobody has checked.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import inspect
import json
import os
import re
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator

from kerastoolkit._sqlite import application_of, connect, has_table, inspect_database, write_ahead
from kerastoolkit._version import __version__
from kerastoolkit.exceptions import JournalError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.search._description import Describer
from kerastoolkit.search._tasks import (
    NOT_RECORDED,
    Call,
    Result,
    ScoredFit,
    can_be_of_a_result,
    is_success,
    replace_functions,
    scores_of,
)

__all__ = ["Journal"]

_APPLICATION = int.from_bytes(b"ktkj", "big")
_FORMAT = 2
_BUSY_SECONDS = 30.0  # how long to wait for another process to write, which takes milliseconds

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

_MAX_TEXT = 2**20  # characters of a result; a thousand scores take a hundredth of that
_MAX_BYTES = 10**9  # of a model; the limit of SQLite


class Journal:
    """Records the finished fits of searches in a file, and returns what is recorded instead of training it again.

    Example:

    >>> with Journal("search.db") as journal:
    ...     GridSearchCV(KerasClassifier(), grid, journal=journal).fit(X, y)
    ...     len(journal), journal.results()[0]["scores"]
    (9, {'test': 0.95})

    A fit is identified by the class and all parameters of its estimator, the candidate's parameters, the rows of the
    split, the content of `X` and `y`, fit parameters such as `sample_weight`, the scorer, and the versions of packages
    that may change results. Functions and classes of your own are identified by what they do, including everything they
    use: changing the build function makes everything train again, changing a comment does not. Python compiles code
    differently in each minor version, so a new one makes fits that use such code train again as well.

    - For an estimator without `random_state`, the first random outcome is recorded and returned from then on. Two fits
      that are equal in all of the above are one fit. A built `keras.Model` as a parameter is identified by its weights,
      too: without a seed they differ in every process, and nothing is found again, so pass a function that builds the
      model. Layers and metrics are identified by their names as well, and Keras numbers those it chooses (`auc`,
      `auc_1`): give a name to a metric that is made twice in a process.
    - A fit that failed is not recorded, since it may succeed once the cause is gone; it trains again next time. The
      same holds for a score that equals `error_score` (NaN by default), which is how scikit-learn marks that scoring
      failed.
    - Side effects of a fit, such as files that a callback writes, are not repeated when the fit is in the journal.
    - A search that draws its candidates or its folds at random needs a `random_state` to find them again.
    - A list, dict or number outside a function that the function uses counts with its value when the search begins: if
      fits change it, the next search in the same process trains again.
    - What no parameter shows, such as environment variables and files that a function reads, is not considered.

    Every row has a digest, which is checked whenever the row is read, and before a search trains anything. It detects
    damage, not changes on purpose by somebody who can compute a digest, too. Models are loaded as by
    `kerastoolkit.load`, which executes nothing from a file.

    One `Journal` may serve many searches, on different data, too. It may be used from several threads, and its file by
    several processes on one machine. The file may be copied while no search is running; during one, two more files
    beside it (`-wal`, `-shm`) belong to it.

    Args:
        path: The file, which is created if it does not exist.
        keep_models: Whether to record the fitted estimators too, as `save` writes them. Only for estimators of
            kerastoolkit, not for pipelines around them. Defaults to `False`.

    Raises:
        ParameterError: `path` is not a path.
        JournalError: The file cannot be opened: it is locked, or its folder is missing or cannot be written to.
        SavedFileError: The file is damaged, of another kind, or of another format: written by a newer version, or by
            one before 0.1.0, without digests. It is left unchanged.
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
            self._file = connect(path, timeout=_BUSY_SECONDS, max_bytes=_MAX_BYTES)
            # Bytes that are no text come through, so that the digest detects them.
            self._file.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
        try:
            with self._errors("opened"):
                self._prepare(self._file)
        except BaseException:
            self._file.close()
            raise

    # -- what a search calls -------------------------------------------------------------------------------------

    def around(self, call: Call) -> Call:
        """Wraps a task of joblib so that its fits come from the journal or go into it.

        Args:
            call: A `joblib.parallel.BatchedCalls`, or anything callable with `items` of
                `(function, arguments, keywords)`.

        Returns:
            A callable that returns what `call()` would. Anything but a fit of a search runs unchanged. It raises
            ParameterError before the fit if the fit cannot be described, and JournalError if the file cannot be
            written to: before the fit, too, unless the disk is full.
        """
        replace_functions(
            call, lambda task: functools.partial(self._fit, task.function) if task.is_fit else task.function
        )
        return call

    def check(self, estimator: BaseEstimator, candidates: Iterable[Mapping[str, Any]] = ()) -> None:
        """Refuses fits that the journal could not find again, before anything trains.

        `around` refuses each fit before it trains, but others may have trained by then; a search that knows its
        candidates can check all of them first.

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

    def _fit(self, function: Callable[..., Any], *arguments: object, **keywords: object) -> Any:
        """Returns the recorded result of a fit, or runs the fit and records its result."""
        fit = ScoredFit(function, arguments, keywords)
        with self._lock:
            key = self._key(fit)
            if self._failed is not None:
                # joblib learns of an error after tasks that wait have begun. They would continue unrecorded.
                raise JournalError(str(self._failed)) from self._failed
            found = self._row(key)
            if found is None:
                self._check_writable()
        if found is None:
            result = function(*arguments, **keywords)
            if not is_success(result, fit.error_score):
                return result
            try:
                found = self._record(key, result, fit)
            except JournalError as error:
                self._failed = error
                raise
        result = _decoded_result(found[0], str(self.path))
        if not is_success(result, fit.error_score):
            raise SavedFileError(
                f"The journal {str(self.path)!r} is damaged: it holds a fit that failed, which is never recorded. Give "
                "another path."
            )
        if "parameters" in result:
            result["parameters"] = fit.parameters
        if "estimator" in result:
            result["estimator"] = self._restored(found[1], fit.estimator, fit.parameters)
        return result

    def _key(self, fit: ScoredFit) -> str:
        if fit.fit_params is None or fit.fit_params is not self._search:
            # scikit-learn makes one such dict for each search. In the next search the same array may hold other values.
            if fit.fit_params is not None:
                for _ in self._rows():  # before anything trains
                    pass
            self._search, self._describer, self._failed = fit.fit_params, Describer(), None
        self._check_model(fit.estimator, returned=fit.returns_estimator)
        # Classes and functions are described with the version of their package; folds and scores are scikit-learn's.
        parts: dict[str, Any] = {"format": _FORMAT, "scikit-learn": sklearn.__version__.partition(".")[0]}
        return self._describer.digest({**parts, **fit.determining()})

    # -- what a user asks ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of recorded fits."""
        with self._reading() as file:
            return int(file.execute("SELECT count(*) FROM fits").fetchone()[0])

    def results(self) -> list[dict[str, Any]]:
        """The recorded fits, in the order in which they were recorded.

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
            scores = {which: scores_of(result, which) for which in ("test", "train") if f"{which}_scores" in result}
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
        """Closes the file, which keeps what is recorded."""
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
        # Closed: where a saved search is loaded there may be no such file.
        self.__dict__.update(state, _lock=threading.RLock(), _describer=Describer())

    # -- the file ------------------------------------------------------------------------------------------------

    def _check_foreign(self) -> None:
        """Refuses a file of another kind before SQLite opens it, since opening may already write to it."""
        if not os.path.lexists(self.path):
            return
        if not os.path.isfile(self.path):
            raise JournalError(
                f"The journal {str(self.path)!r} cannot be opened: it is not a file. Check whether it is a folder, or "
                "a link to a file that does not exist."
            )
        with contextlib.suppress(OSError):  # SQLite will report it
            if os.path.getsize(self.path) == 0 or application_of(self.path) in (_APPLICATION, None):
                return
        with contextlib.suppress(sqlite3.OperationalError):  # locked: another process may be making it
            found = inspect_database(self.path, timeout=_BUSY_SECONDS)
            if found.application != _APPLICATION and not found.is_empty:
                raise self._foreign(len(found.columns))

    def _foreign(self, n_names: int) -> SavedFileError:
        return SavedFileError(
            f"{str(self.path)!r} is not a journal of kerastoolkit. It is an SQLite database of another program, with "
            f"{n_names} tables. Give another path."
        )

    def _prepare(self, file: sqlite3.Connection) -> None:
        """Sets up a new file, and refuses a file of another kind without writing to it."""
        with _transaction(file, "DEFERRED"):  # a consistent view of it, since another process may be creating it
            is_ours = self._is_ours(file)
        if not is_ours:
            # In one transaction: a process that is killed in between leaves an empty database, which counts as new.
            write_ahead(file, timeout=_BUSY_SECONDS)
            with _transaction(file, "IMMEDIATE"):
                if not self._is_ours(file):  # another process may have been faster
                    file.execute(_TABLE)
                    file.execute(f"PRAGMA application_id = {_APPLICATION}")
                    file.execute(f"PRAGMA user_version = {_FORMAT}")
        # FULL: in WAL mode anything less may lose the last results when the machine loses power.
        file.execute("PRAGMA synchronous = FULL")

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
                f"{name} has format {version}; this is kerastoolkit {__version__}, which reads formats up to "
                f"{_FORMAT}. Upgrade kerastoolkit, or give another path."
            )
        if version < _FORMAT:
            raise SavedFileError(
                f"{name} has format {version}, from before kerastoolkit 0.1.0: its rows have no digests, so damage "
                "could not be detected. It is left unchanged. Give another path; everything will be trained again."
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
        """Each row without its digest, in the order of recording; one at a time, since models take memory."""
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
                f"The journal {str(self.path)!r} is damaged: row {number} is not as it was written. Nothing was "
                f"deleted. Give another path; or remove the row, by sqlite3 FILE 'DELETE FROM fits WHERE rowid = "
                f"{number}', and its fit will be trained again."
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

    def _record(self, key: str, result: Result, fit: ScoredFit) -> tuple[str, bytes | None]:
        """Records a result and returns what the file holds: the first result, if two processes ran the fit."""
        row = [
            key,
            _parameters_text(fit.parameters or {}),
            fit.split,
            _encoded_result(result),
            datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            _model_bytes(fit.estimator) if self.keep_models else None,
        ]
        with self._lock, self._errors("written to"), _transaction(self._opened(), "IMMEDIATE") as file:
            file.execute(
                f"INSERT INTO fits ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (*row, _digest_of_row(row)),
            )
        found = self._row(key)
        if found is None:
            raise JournalError(
                f"The journal {str(self.path)!r} has lost what was written to it: another program is changing it."
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
        """Turns errors of SQLite into ours, which say what happened to the results and what to do."""
        try:
            yield
        except UnicodeDecodeError as error:  # in a message of SQLite's about something unreadable
            raise SavedFileError(f"The journal {str(self.path)!r} is damaged: {error}.{_DAMAGED}") from error
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the rest of it is detail
            name = f"The journal {str(self.path)!r}"
            if code == sqlite3.SQLITE_NOTADB:
                raise SavedFileError(
                    f"{str(self.path)!r} is not a journal of kerastoolkit: {error}. Give another path."
                ) from error
            # SQLITE_ERROR: there is no such table. SQLITE_TOOBIG when reading: we write nothing that long.
            is_too_long = code == sqlite3.SQLITE_TOOBIG and what == "read"
            if is_too_long or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
                raise SavedFileError(f"{name} is damaged: {error}.{_DAMAGED}") from error
            resumes = "" if code == sqlite3.SQLITE_CANTOPEN else _RESUMES
            raise JournalError(f"{name} cannot be {what}: {error}.{_ADVICE.get(code, '')}{resumes}") from error

    # -- models --------------------------------------------------------------------------------------------------

    def _check_model(self, estimator: BaseEstimator, *, returned: bool | None = False) -> None:
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

    def _restored(self, model: bytes | None, estimator: BaseEstimator, parameters: Mapping[str, Any] | None) -> Any:
        if model is None:
            raise JournalError(
                f"The journal {str(self.path)!r} holds the scores of this fit, but not its model, since it was "
                "recorded without `keep_models=True`. Leave `return_estimator` out, or give another path."
            )
        # A file refers to functions by name only; here the functions themselves are at hand.
        return _model_from(model, type(estimator)).set_params(**estimator.get_params(deep=False), **(parameters or {}))


_DAMAGED = (
    " It is left unchanged. Give another path; the command line program sqlite3 may recover some of it (`.recover`)."
)
_RESUMES = " Everything recorded so far is kept: fit the search again with the same journal, and it resumes."

_LOCKED = " Another program has locked it: close whatever has it open (a database viewer?)."
_NO_RIGHT = " Make sure that you may write to the file and its folder."
_ADVICE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: " Free some space on the disk.",
    sqlite3.SQLITE_IOERR: " Check whether the disk is full or gone.",
    sqlite3.SQLITE_READONLY: _NO_RIGHT,
    sqlite3.SQLITE_PERM: _NO_RIGHT,
    sqlite3.SQLITE_CANTOPEN: " Check whether it is a folder, and whether you may write there.",
}


@contextlib.contextmanager
def _transaction(file: sqlite3.Connection, kind: str) -> Iterator[sqlite3.Connection]:
    """A block whose changes are written as a whole, or not at all."""
    file.execute(f"BEGIN {kind}")
    try:
        yield file
        file.execute("COMMIT")
    finally:
        if file.in_transaction:
            file.execute("ROLLBACK")


# -- results and parameters as text ---------------------------------------------------------------------------------


def _encoded_result(result: Result) -> str:
    """A result as JSON, which restores every float to the bit.

    scikit-learn makes sure that scores are numbers, and turns those of NumPy into plain ones.
    """

    def refuse(value: object) -> Any:
        raise ParameterError(
            f"A result holds {value!r}, a {type(value).__name__}, which a journal cannot record. Let the scorer return "
            "plain numbers."
        )

    recorded = {name: None if name in NOT_RECORDED else value for name, value in result.items()}
    return json.dumps(recorded, default=refuse)


def _decoded_result(text: str, path: str) -> dict[str, Any]:
    """Reads what `_encoded_result` wrote, and refuses what it would not have written.

    Raises:
        SavedFileError: The text is something else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is given twice")
        return dict(pairs)

    try:
        if len(text) > _MAX_TEXT:
            raise ValueError(f"it has more than {_MAX_TEXT:,} characters")
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


def _digest_of_row(values: Sequence[Any]) -> bytes:
    # It detects damage, not forgery: whoever may write to the file can compute it, too.
    digest = hashlib.blake2b(digest_size=16)
    for value in (_FORMAT, *values):
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        digest.update(f"{type(value).__name__} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def _parameters_text(parameters: Mapping[str, Any]) -> str:
    """Parameters for people to read, without memory addresses."""
    texts = []
    for name, value in sorted(parameters.items()):
        value = value.item() if isinstance(value, np.generic) else value
        text = value.__qualname__ if inspect.isclass(value) or inspect.isroutine(value) else repr(value)
        texts.append(f"{name}={re.sub(' at 0x[0-9a-fA-F]+', '', text)[:200]}")
    return ", ".join(texts)


# -- models as bytes ------------------------------------------------------------------------------------------------


def _can_be_kept(estimator: object) -> bool:
    from kerastoolkit.estimators.saving import can_be_saved

    return can_be_saved(estimator)


def _model_bytes(estimator: BaseEstimator) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return bytes(estimator.save(Path(folder) / "model.zip").read_bytes())


def _model_from(content: bytes, kind: type | None = None) -> Any:
    """A recorded model, read as a file from a stranger would be; `kind` is its class, if known."""
    from kerastoolkit.estimators import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.zip")
        path.write_bytes(content)
        if kind is None:
            return load(path)
        with warnings.catch_warnings():  # about its cache folder, which is set again
            warnings.simplefilter("ignore", KerasToolkitWarning)
            return load(path, custom_objects={f"{kind.__module__}:{kind.__qualname__}": kind})
