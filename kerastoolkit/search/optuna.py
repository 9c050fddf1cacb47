"""Optuna chooses the candidates, scikit-learn scores them, and those of a batch are trained together.

Trials are asked from the study a batch at a time, so that there is something to train together: what the sampler has
learned from one batch it uses for the next. The study stores each finished trial with the scores of its folds, so that
an interrupted search resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import time
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state

from kerastoolkit._optional import require
from kerastoolkit._sqlite import inspect_database
from kerastoolkit._types import Rows, Target
from kerastoolkit._values import is_whole
from kerastoolkit.exceptions import KerasToolkitError, ParameterError, SavedFileError
from kerastoolkit.search._description import Describer
from kerastoolkit.search._options import OptunaOptions, RandomState, Scoring, takes
from kerastoolkit.search._tasks import (
    RESULT_OF_A_SPLIT,
    Call,
    Position,
    Replay,
    Result,
    can_be_of_a_result,
    error_of,
    scores_of,
)
from kerastoolkit.search.rungs import Ladder, Rungs, more_is_better
from kerastoolkit.search.searches import (
    _ADDED,
    _RUNGS,
    _WORKERS,
    _Together,
    check_timeout,
)
from kerastoolkit.training.fit import Fit

if TYPE_CHECKING:
    import optuna

__all__ = ["OptunaSearchCV"]

_RECORD = "kerastoolkit"  # the user attribute of a trial with the scores of its folds

_OWN_FILE = "kerastoolkit_optuna.db"


class _Asked(BaseSearchCV):
    """A search whose candidates come from a study. Not to be used directly."""

    def __init__(self, estimator: BaseEstimator, *, return_train_score: bool = False, **options: Any) -> None:
        super().__init__(estimator, return_train_score=return_train_score, **options)

    def _run_search(self, evaluate_candidates: Callable[..., Any], callback_ctx: object = None) -> None:
        self._asking.run(evaluate_candidates)


class OptunaSearchCV(_Together, _Asked):
    __doc__ = f"""A search whose candidates an Optuna study chooses, and whose Keras fits are trained together.

    Trials are asked from the study in batches; the candidates and folds of a batch are trained as one program, and the
    study is told the mean test score of each. Everything else is scikit-learn's: the folds, the scores, `cv_results_`,
    the final fit. It needs Optuna: `pip install "kerastoolkit[optuna]"`.

    Example:

    >>> search = OptunaSearchCV(
    ...     KerasClassifier(),
    ...     {{
    ...         "optimizer__learning_rate": scipy.stats.loguniform(1e-4, 1e-1),
    ...         "hidden": [(32,), (64, 32)],
    ...         "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    ...     }},
    ...     n_trials=40,
    ...     study_name="first",
    ... )
    >>> search.fit(X, y).best_params_

    A study outlives the search. Fitted again with the same `study_name` and `storage`, an interrupted search resumes:
    trials that are complete or pruned are not trained again. They count towards `n_trials`, are in `cv_results_`, and
    compete for `best_params_` like all others. Trials that were in training when a process was killed stay "running" in
    the study, as always with Optuna, and do not count; nor do trials that failed. The study must be of the same data,
    folds and `scoring`; keeping the estimator the same is up to you. Trials from elsewhere inform the sampler, and are
    otherwise ignored.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_distributions: By name of parameter an Optuna distribution, a list of values, or a frozen
            `scipy.stats.uniform`, `loguniform` or `randint`. Values of a list that Optuna cannot store, such as tuples,
            stand in the study as text.
        n_trials: Trials to make, including those that the study has already. None for as many as `timeout` allows.
            Defaults to `10`.
        batch_size: Trials to train together. In larger batches each trial trains faster, but is chosen with less
            information. Defaults to `8`.
        timeout: Seconds after which no further batch begins. Defaults to `None`: no limit.
        study: The study, with `direction="maximize"`; its sampler chooses. Defaults to `None`: the one of the given
            `storage` and `study_name`.
        study_name: Name of the study, which is created if it does not exist. Defaults to `None`: a new study, whose
            name is in `study_.study_name` and in `explain()`.
        storage: Where the study is stored: the path of an SQLite file, the URL of a database, or an Optuna storage;
            None for memory only, from which no search can resume. An existing file must be one of Optuna's: that of
            another program is refused before anything is written. Defaults to `"{_OWN_FILE}"`, a file in
            the working directory, since a search takes long enough to be worth a file.
        sampler: Chooses the values. Defaults to `None`: `TPESampler`, seeded by `random_state`, which considers that
            the trials of a batch run together.
        pruner: Stops trials early: after each epoch but the last, each trial reports the mean of `monitor` over its
            folds, and the pruner decides. Since higher is better in the study, a loss of 0.3 is reported as -0.3. All
            folds of a trial stop together; folds that are trained one after the other follow the first. Pruned trials
            are `stopped_early` in `cv_results_`, which then also has the epochs of each fit, and none of them is the
            best candidate. Every report is a write to `storage`: Optuna cannot write several at once, and its pruners
            read the reports of all trials from there before they decide. Where epochs are so short that this counts,
            `storage=None` avoids it. Not together with `early_stopping`. Defaults to `None`: no trial is pruned,
            whatever pruner a given study has.
        monitor: What is reported: a name in the history. Defaults to `"val_loss"`, for which the fits need validation
            data.
        mode: Whether lower or higher values are better, `"min"`, `"max"` or `"auto"`, as for `Rungs`. Defaults to
            `"auto"`.
        random_state: Seed of the default sampler, with which the same trials are chosen again on the same machine.
            Defaults to `None`.
        scoring, refit, cv, verbose, error_score, return_train_score: As in scikit-learn; the study is told the score
            that `refit` names. With `verbose=0` Optuna does not log that it made a study.
        {_WORKERS.format("n_jobs, pre_dispatch").strip()}
        {_RUNGS.strip()}
        {_ADDED[_ADDED.index("on_progress:") :]}
    Attributes:
        study_: The study with all its trials. `cv_results_["trial_number"]` has the numbers of the candidates in it.
    """

    @takes(OptunaOptions, as_in=GridSearchCV)
    def __init__(
        self,
        estimator: BaseEstimator,
        param_distributions: Mapping[str, Any],
        *,
        n_trials: int | None = 10,
        batch_size: int = 8,
        timeout: float | None = None,
        study: optuna.Study | None = None,
        study_name: str | None = None,
        storage: str | Path | optuna.storages.BaseStorage | None = _OWN_FILE,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        monitor: str = "val_loss",
        mode: Literal["auto", "min", "max"] = "auto",
        random_state: RandomState = None,
        **options: Unpack[OptunaOptions],
    ) -> None:
        super().__init__(estimator, timeout=timeout, **options)
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.batch_size = batch_size
        self.study = study
        self.study_name = study_name
        self.storage = storage
        self.sampler = sampler
        self.pruner = pruner
        self.monitor = monitor
        self.mode = mode
        self.random_state = random_state

    @contextlib.contextmanager
    def _prepared(self, X: Rows, y: Target) -> Iterator[None]:
        require("optuna")
        self._check_parameters()
        space = _Space(self.param_distributions)
        with _optuna_is_quiet(not self.verbose), self._opened_study() as study:
            self._asking = _Asking(self, study, space, _digest_of(X, y))
            try:
                yield
                self._summary = self._asking.words()
            finally:
                del self._asking
        self.study_ = study

    def explain(self) -> str:
        """Says in words what was trained together, what the study holds, and how to resume it."""
        return f"{super().explain()}\n{self._summary}"

    # -- parameters ----------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        import optuna

        for name in ("n_trials", "batch_size"):
            value = getattr(self, name)
            if not (is_whole(value) and value >= 1) and not (name == "n_trials" and value is None):
                or_none = ", or None with a `timeout`" if name == "n_trials" else ""
                raise ParameterError(f"`{name}` must be a whole number of at least 1{or_none}; got {value!r}.")
        check_timeout(self.timeout)
        if self.n_trials is None and self.timeout is None:
            raise ParameterError("Without `n_trials` and `timeout` a search never ends. Give one of them.")
        self._check_study()
        for name, kind in (("sampler", optuna.samplers.BaseSampler), ("pruner", optuna.pruners.BasePruner)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ParameterError(f"`{name}` must be one of `optuna.{name}s`, or None; got {value!r}.")
        if self.pruner is not None and self.early_stopping is not None:
            raise ParameterError("`pruner` and `early_stopping` both decide which trials stop early. Give one of them.")
        if self.pruner is not None:
            more_is_better(self.monitor, self.mode, "of OptunaSearchCV")
        if self.random_state is not None and (self.sampler is not None or self.study is not None):
            raise ParameterError(
                "`random_state` seeds the default sampler, which is not used here. Seed the sampler itself: "
                "`TPESampler(seed=0)`."
            )
        several = isinstance(self.scoring, (list, tuple, set, dict))
        if several and not isinstance(self.refit, str):
            raise ParameterError(
                f"`refit` must name the score that the trials are told, since `scoring` has several: "
                f"{', '.join(map(repr, self.scoring))}; got {self.refit!r}."
            )

    def _check_study(self) -> None:
        import optuna

        if self.study is None:
            return
        if not isinstance(self.study, optuna.Study):
            raise ParameterError(f"`study` must be an `optuna.Study`, or None; got {self.study!r}.")
        if self.sampler is not None or self.study_name is not None or self.storage not in (None, _OWN_FILE):
            raise ParameterError(
                "`study` brings its sampler, its name and its storage: give no `sampler`, `study_name` or `storage` "
                "beside it."
            )

    @contextlib.contextmanager
    def _opened_study(self) -> Iterator[optuna.Study]:
        """The study, with the pruner of this search."""
        import optuna

        pruner = self.pruner or optuna.pruners.NopPruner()
        storage = None
        if self.study is not None:
            study = self.study
        else:
            storage = _storage(self.storage)
            with _errors_of_file(self.storage):
                study = optuna.create_study(
                    storage=storage,
                    study_name=self.study_name,
                    sampler=self.sampler,
                    pruner=pruner,
                    direction="maximize",
                    load_if_exists=self.study_name is not None,
                )
                study.get_trials(deepcopy=False)  # so that errors come up before anything is trained
        if [direction.name for direction in study.directions] != ["MAXIMIZE"]:
            directions = ", ".join(direction.name.lower() for direction in study.directions)
            raise ParameterError(
                f'The study {study.study_name!r} must have one direction, "maximize", since higher scores are better; '
                f"it has {directions}."
            )
        if self.study is None and self.sampler is None:
            study.sampler = _default_sampler(self.random_state, len(study.get_trials(deepcopy=False)))
        theirs, study.pruner = study.pruner, pruner
        try:
            yield study
        finally:
            study.pruner = theirs
            if storage is not self.storage and isinstance(storage, optuna.storages.RDBStorage):
                storage.remove_session()
                storage.engine.dispose()  # no file stays open; using the study opens it again

    def _new_ladder(self) -> Ladder | None:
        if self.pruner is None:
            return super()._new_ladder()
        return _Pruning(Rungs(monitor=self.monitor, mode=self.mode), self._asking)

    def _timeout_of_batches(self) -> None:
        """None: the time is kept by the batches of trials."""

    def _around(self, call: Call) -> Callable[[], Any]:
        return super()._around(self._asking.around(call))


@contextlib.contextmanager
def _optuna_is_quiet(wanted: bool) -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    if wanted:
        optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _storage(given: object) -> Any:
    """A storage as `optuna.create_study` takes it."""
    import optuna

    if given is None or isinstance(given, optuna.storages.BaseStorage):
        return given
    if not isinstance(given, (str, Path)):
        raise ParameterError(
            f"`storage` must be a path, the URL of a database, an Optuna storage, or None for memory; got {given!r}."
        )
    path, url = _path_of(given), str(given)
    if path is None:
        return optuna.storages.RDBStorage(url)
    if not path.parent.is_dir():
        raise ParameterError(f"`storage` is {str(given)!r}, but there is no folder {str(path.parent)!r}.")
    _check_file(path)
    with _errors_of_file(given):
        return optuna.storages.RDBStorage(url if isinstance(given, str) and "://" in given else _url(path))


def _path_of(given: object) -> Path | None:
    """The file of a `storage`; None for a database on a server or in memory, and for an object of Optuna's."""
    import sqlalchemy

    if isinstance(given, Path) or (isinstance(given, str) and "://" not in given):
        return Path(given).absolute()
    if not isinstance(given, str):
        return None
    try:
        url = sqlalchemy.engine.make_url(given)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise ParameterError(f"`storage` is {given!r}, which is not the URL of a database: {error}") from error
    name = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or name == ":memory:" or url.query.get("mode") == "memory":
        return None
    if url.query.get("uri") == "true":  # then the name is itself a URL, which SQLite reads
        name = urllib.request.url2pathname(urllib.parse.urlsplit(name).path)
    return Path(name).absolute()


def _url(path: Path) -> str:
    """The URL of a file, whatever characters are in its path."""
    import sqlalchemy

    url: str = sqlalchemy.engine.URL.create("sqlite", database=path.as_posix()).render_as_string(hide_password=False)
    read = sqlalchemy.engine.make_url(url)
    if read.database != path.as_posix() or read.query:
        # SQLAlchemy before 2.1 does not read what it would have to write for `?`. SQLite itself does.
        url = f"sqlite:///{path.as_uri()}?uri=true"
    return url.replace("{", "{{").replace("}", "}}")  # Optuna fills in what is between braces


# What distinguishes a database of Optuna's: some of its tables, with some of their columns. The first may exist alone,
# while another process creates the others.
_TABLES = {
    "studies": {"study_id", "study_name"},
    "trials": {"trial_id", "study_id", "state"},
    "version_info": {"schema_version", "library_version"},
}


def _check_file(path: Path) -> None:
    """Refuses a file that is not one of Optuna's, before anything is written to it.

    Raises:
        ParameterError: It is a folder, or a link to a file that does not exist.
        SavedFileError: It is damaged, or another program's.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise ParameterError(f"`storage` is {str(path)!r}, which is a folder, or a link to a missing file.")
    if path.stat().st_size == 0:
        return
    another = "Give another path; the file is left unchanged."
    try:
        found = inspect_database(path, check_integrity=True)
    except sqlite3.OperationalError:  # locked, for which Optuna waits
        return
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        raise SavedFileError(f"`storage` is {str(path)!r}, which cannot be read: {error}. {another}") from error
    if found.is_empty:
        return
    there = _TABLES.keys() & found.columns.keys()
    if found.application or not there or not all(_TABLES[name] <= found.columns[name] for name in there):
        raise SavedFileError(f"`storage` is {str(path)!r}, a database of another program, not of Optuna. {another}")
    if found.computes or found.damage != "ok":
        what = "it has views, triggers or computed columns" if found.computes else found.damage
        raise SavedFileError(f"`storage` is {str(path)!r}, a database of Optuna that is damaged: {what}. {another}")


@contextlib.contextmanager
def _errors_of_file(storage: object) -> Iterator[None]:
    """Turns what Optuna raises for a file that it cannot read into an error of ours."""
    path = _path_of(storage)
    try:
        yield
    except KerasToolkitError:
        raise
    except Exception as error:  # for a damaged file it raises nearly anything, even AttributeError and KeyError
        if path is None:
            raise
        raise SavedFileError(
            f"`storage` is {str(path)!r}, which Optuna cannot read: {error}. Give another path; the file is unchanged."
        ) from error


def _default_sampler(random_state: RandomState, n_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler of a search whose study has so many trials when it begins."""
    import optuna

    seed = None
    if random_state is not None:
        # A search that resumes must not draw the same numbers as the first trials of its study.
        drawn = check_random_state(random_state).randint(2**31 - 1)
        seed = int(np.random.SeedSequence((drawn, n_trials)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _digest_of(X: object, y: object) -> str | None:
    """A digest that identifies the data; None for data that cannot be described."""
    try:
        return Describer().digest({"X": X, "y": y})
    except ParameterError:
        return None


# -- what is searched -----------------------------------------------------------------------------------------------


class _Space:
    """Distributions by name of parameter, and the values that a study stores as text."""

    def __init__(self, given: object) -> None:
        if not isinstance(given, Mapping) or not given:
            raise ParameterError(
                f"`param_distributions` must be a dict of distributions by name of parameter; got {given!r}."
            )
        self.distributions: dict[str, Any] = {}
        self._values: dict[str, dict[str, Any]] = {}
        for name, distribution in given.items():
            self.distributions[name] = self._distribution(name, distribution)

    def parameters(self, trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> dict[str, Any]:
        """The parameters of a trial, as they are set."""
        return {name: self._value(name, trial.params[name]) for name in self.distributions}

    def has(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial is a point of this space."""
        return all(trial.distributions.get(name) == one for name, one in self.distributions.items())

    def _value(self, name: str, value: Any) -> Any:
        return self._values[name][value] if name in self._values else value

    def _distribution(self, name: str, given: object) -> optuna.distributions.BaseDistribution:
        import optuna

        if isinstance(given, optuna.distributions.BaseDistribution):
            return given
        if isinstance(given, (list, tuple, range)) or (isinstance(given, np.ndarray) and given.ndim == 1):
            return self._categorical(name, list(given))
        found = _of_scipy(given)
        if found is None:
            kind = f"scipy.stats.{given.dist.name}" if hasattr(given, "dist") else repr(given)
            raise ParameterError(
                f"The parameter {name!r} of `param_distributions` is {kind}, which has no exact counterpart in Optuna. "
                "Give an Optuna distribution (`FloatDistribution(low, high, log=True)`, `IntDistribution(low, high)`), "
                "a list of values, or a frozen `scipy.stats.uniform`, `loguniform` or `randint`."
            )
        return found

    def _categorical(self, name: str, values: Sequence[Any]) -> optuna.distributions.BaseDistribution:
        import optuna

        if not values:
            raise ParameterError(f"The parameter {name!r} of `param_distributions` is an empty list.")
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        if not all(value is None or isinstance(value, (bool, int, float, str)) for value in values):
            texts = [_text(value, number) for number, value in enumerate(values)]
            if len(set(texts)) < len(texts):
                texts = [f"{number}: {text}" for number, text in enumerate(texts)]
            self._values[name] = dict(zip(texts, values, strict=True))
            values = texts
        return optuna.distributions.CategoricalDistribution(values)


def _text(value: object, number: int) -> str:
    """A value as a study stores it: the same in every process."""
    name = getattr(value, "__qualname__", None)
    text = name or repr(value)
    return f"{type(value).__name__} {number}" if " at 0x" in text else text


def _of_scipy(given: Any) -> optuna.distributions.BaseDistribution | None:
    """The Optuna distribution that equals a frozen one of scipy; None if there is none."""
    import optuna

    kind = type(getattr(given, "dist", None))
    if kind is type(stats.uniform):
        low, high = given.support()
        return optuna.distributions.FloatDistribution(float(low), float(high))
    if kind is type(stats.randint):
        low, high = given.support()  # both included
        return optuna.distributions.IntDistribution(int(low), int(high))
    is_moved = kind is type(stats.loguniform) and (given.kwds.get("loc", 0) or any(given.args[2:3]))
    if kind is type(stats.loguniform) and not is_moved:
        low, high = given.support()
        return optuna.distributions.FloatDistribution(float(low), float(high), log=True)
    return None


# -- asking and telling ---------------------------------------------------------------------------------------------


class _Asking:
    """One search through a study: asks for batches of trials, has them evaluated, and tells the study."""

    def __init__(self, search: OptunaSearchCV, study: optuna.Study, space: _Space, data: str | None) -> None:
        self._search, self._study, self._space, self._data = search, study, space, data
        self._begun = time.monotonic()
        # of the batch in training: its trials, what is recorded about each, and results by candidate and split
        self.trials: list[Any] = []
        self._recorded: list[Any] = []
        self._results: dict[Position, Result] = {}
        self._known: dict[Position, Result] = {}
        self._expects = 0
        self._n_recalled = self._n_asked = self._n_pruned = self._n_failed = 0

    @property
    def _n_splits(self) -> int:
        n_splits: int = self._search._search_run.n_splits
        return n_splits

    @property
    def _ladder(self) -> Ladder | None:
        ladder: Ladder | None = self._search._search_run.ladder
        return ladder

    def run(self, evaluate_candidates: Callable[..., Any]) -> None:
        """The whole search."""
        self._is_like = {
            "folds": self._n_splits,
            "scoring": _scoring_name(self._search.scoring),
            "train scores": self._search.return_train_score,
            "data": self._data,
        }
        n_done, error = self._recall(evaluate_candidates), None
        while n_done < (self._search.n_trials or math.inf) and (n_done == 0 or self._has_time()):
            size = min(self._search.batch_size, (self._search.n_trials or math.inf) - n_done)
            error = self._evaluate_new(evaluate_candidates, int(size))
            n_done += int(size)
        if error is not None and self._n_failed == self._n_asked and not self._n_recalled:
            raise error

    def around(self, call: Call) -> Call:
        """A task whose result is noted, and which does not run if its result is recorded."""
        if not self._expects:  # a task of the final fit
            return call
        if self._expects == len(self.trials) * self._n_splits and self._ladder is not None:
            for number, recorded in enumerate(self._recorded):
                if recorded is not None:
                    self._ladder.recall(number, recorded["ladder"] or self._not_watched())
        self._expects -= 1
        return Replay(call, self._known, self._results)

    def words(self) -> str:
        """Says in words what became of the trials."""
        study = self._study
        lines = [f"{self._n_asked} trial{'s' * (self._n_asked != 1)} asked from the study {study.study_name!r}"]
        lines += [f"{n} {what}" for n, what in ((self._n_pruned, "pruned"), (self._n_failed, "failed")) if n]
        text = ", ".join(lines) + "."
        if self._n_recalled:
            text += f" {self._n_recalled} more had been trained before."
        if self._search.study is None and self._search.storage is not None:
            text += f" To resume it, give study_name={study.study_name!r} and more `n_trials`."
        return text

    # -- trials that are there -----------------------------------------------------------------------------------

    def _recall(self, evaluate_candidates: Callable[..., Any]) -> int:
        """Takes over the trials that an earlier search of the same kind finished."""
        states = {"COMPLETE", "PRUNED"}
        trials = [
            trial
            for trial in self._study.get_trials()
            if trial.state.name in states and _RECORD in trial.user_attrs and self._space.has(trial)
        ][: self._search.n_trials]
        for trial in trials:
            self._check_is_like(trial)
        if not trials:
            return 0
        self._begin(trials, [self._recorded_of(trial) for trial in trials])
        evaluate_candidates(
            [self._space.parameters(trial) for trial in trials],
            more_results=self._columns([trial.state.name == "PRUNED" for trial in trials]),
        )
        self._n_recalled = len(trials)
        return len(trials)

    def _recorded_of(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """Reads what `_record` wrote, and refuses what it would not have written."""
        try:
            record = trial.user_attrs[_RECORD]
            of, splits, ladder = record["of"], record["splits"], record["ladder"]
            is_whole = record["digest"] == _digest_of_record(record, trial.params) and len(splits) == of["folds"]
            for split in splits:
                is_whole = (
                    is_whole and scores_of(split) is not None and all(map(can_be_of_a_result, split, split.values()))
                )
            if ladder is not None:
                ladder = {name: ladder[name] for name in ("n_epochs", "stopped_after", "rungs")}
            if is_whole:
                return {"of": {name: of[name] for name in self._is_like}, "splits": splits, "ladder": ladder}
            what = "it is not as it was written"
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = repr(error)
        raise SavedFileError(
            f"Trial {trial.number} of the study {self._study.study_name!r} is damaged: {what}. Its scores cannot be "
            "used. Give another `study_name`."
        )

    def _check_is_like(self, trial: optuna.trial.FrozenTrial) -> None:
        then = self._recorded_of(trial)["of"]
        others = [
            name if name == "data" else f"{name} ({then[name]!r}, not {now!r})"
            for name, now in self._is_like.items()
            if then[name] != now
        ]
        if others:
            raise ParameterError(
                f"The study {self._study.study_name!r} is of another search, with other {', '.join(others)}: their "
                "scores cannot be compared. Give another `study_name`."
            )

    # -- new trials ----------------------------------------------------------------------------------------------

    def _evaluate_new(self, evaluate_candidates: Callable[..., Any], n_trials: int) -> Exception | None:
        """Evaluates a batch of new trials; returns the error if all of its fits failed."""
        trials = [self._study.ask(self._space.distributions) for _ in range(n_trials)]
        self._n_asked += n_trials
        self._begin(trials, [None] * n_trials)
        try:
            candidates = [self._space.parameters(trial) for trial in trials]
            results = evaluate_candidates(candidates, more_results=self._columns([False] * n_trials))
            self._tell(results)
        except ValueError as error:
            n_failed = sum(error_of(result) is not None for result in self._results.values())
            self._fail()
            if isinstance(error, ParameterError) or n_failed < n_trials * self._n_splits:
                raise
            warnings.warn(f"A batch of trials failed: {error}", FitFailedWarning, stacklevel=2)
            return error
        except BaseException:
            self._fail()
            raise
        return None

    def _tell(self, results: Mapping[str, Any]) -> None:
        import optuna

        metric = self._search.refit if isinstance(self._search.refit, str) else "score"
        metric = metric if f"mean_test_{metric}" in results else "score"
        if f"mean_test_{metric}" not in results:
            raise ParameterError(
                f"`refit` must name the score that the trials are told, since `scoring` gives several; "
                f"got {self._search.refit!r}."
            )
        states = optuna.trial.TrialState
        first = len(results["params"]) - len(self.trials)
        for number, trial in enumerate(list(self.trials)):
            value = float(results[f"mean_test_{metric}"][first + number])
            of_splits = [self._results[Position(number, split)] for split in range(self._n_splits)]
            if any(error_of(result) is not None for result in of_splits) or not math.isfinite(value):
                self._n_failed += 1
                self._study.tell(trial, state=states.FAIL)
                continue
            trial.set_user_attr(_RECORD, self._record(number, of_splits, trial.params))
            if results["stopped_early"][first + number]:
                self._n_pruned += 1
                self._study.tell(trial, state=states.PRUNED)
            else:
                self._study.tell(trial, value)

    def _fail(self) -> None:
        """Tells the study that all unfinished trials failed."""
        import optuna

        for trial in self.trials:
            self._n_failed += 1
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _begin(self, trials: list[Any], recorded: list[Any]) -> None:
        self.trials, self._recorded, self._results = trials, recorded, {}
        self._known = {
            Position(candidate, split): result
            for candidate, one in enumerate(recorded)
            if one is not None
            for split, result in enumerate(one["splits"])
        }
        self._expects = len(trials) * self._n_splits

    def _columns(self, stopped: list[bool]) -> dict[str, Any]:
        return {"trial_number": [trial.number for trial in self.trials], "stopped_early": stopped}

    def _record(self, number: int, of_splits: list[Any], params: Mapping[str, Any]) -> dict[str, Any]:
        """What `_recall` needs to know about a trial."""
        splits = [{name: _plain(result[name]) for name in RESULT_OF_A_SPLIT if name in result} for result in of_splits]
        ladder = self._ladder
        record = {"of": self._is_like, "splits": splits, "ladder": None if ladder is None else ladder.record(number)}
        return {**record, "digest": _digest_of_record(record, params)}

    def _not_watched(self) -> dict[str, Any]:
        """What a ladder would have recorded about a trial that was evaluated without one."""
        n_epochs = {str(split): math.nan for split in range(self._n_splits)}
        return {"n_epochs": n_epochs, "stopped_after": None, "rungs": {}}

    def _has_time(self) -> bool:
        timeout = self._search.timeout
        return timeout is None or time.monotonic() - self._begun < timeout


class _Pruning(Ladder):
    """Trials report to their study after each epoch, and its pruner decides which continue.

    Each report is a write to the storage. They cannot be gathered: no storage of Optuna's takes several at once, and
    `should_prune` reads the reports of all trials back from it.

    Args:
        compared: What is reported.
        asking: The search, which knows the trials.
    """

    _compares, _another = "The pruner compares", "monitor={!r}"

    def __init__(self, compared: Rungs, asking: _Asking) -> None:
        super().__init__(compared)
        self._asking = asking

    def record(self, candidate: int) -> dict[str, Any]:
        # The study stores what was reported.
        return {**super().record(candidate), "rungs": {}}

    def _epochs_to_compare(self, fit: Fit) -> list[int]:
        every = fit.validation_freq if self._rungs.monitor.startswith("val_") else 1
        epochs = range(1, fit.epochs)
        return [epoch for epoch in epochs if (epoch % every == 0 if isinstance(every, int) else epoch in every)]

    def _must_stop(self, rung: int, candidate: int) -> bool:
        trial = self._asking.trials[candidate - self._first]
        mean = float(np.mean(list(self._values[rung][candidate].values())))
        # Higher is better in the study, for scores and for what is reported.
        trial.report(-mean if math.isfinite(mean) else math.nan, rung)
        return not math.isfinite(mean) or bool(trial.should_prune())


def _digest_of_record(record: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    # It detects damage, and scores of other parameters; not changes by somebody who can compute it, too.
    content = json.loads(json.dumps([record["of"], record["splits"], record["ladder"], params]))
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _plain(value: object) -> Any:
    """Numbers as plain ones, as JSON needs them."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _scoring_name(scoring: Scoring) -> str | list[str] | None:
    """What distinguishes one `scoring` from another, as plain JSON values."""
    if scoring is None or isinstance(scoring, str):
        return scoring
    if isinstance(scoring, (list, tuple, set, dict)):
        return sorted(scoring)
    return getattr(scoring, "__name__", None) or repr(scoring)
