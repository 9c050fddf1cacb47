"""Whatever scikit-learn does, the fits of its tasks are trained together, and end as they would have alone."""

from __future__ import annotations

import functools
import gc
import math
import random
import threading
import time
import tracemalloc
import weakref
from typing import Any

import joblib
import keras
import numpy as np
import pytest
import sklearn
from joblib.parallel import BatchedCalls
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SelectKBest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, matthews_corrcoef
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    _validation,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, fused
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.search import _rows, backend
from kerastoolkit.training import fused as engine
from kerastoolkit.training import isolated

SMALL: dict[str, Any] = {"hidden": (4,), "epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return StandardScaler().fit_transform(X)[order], y[order]


def classifier(**parameters: Any) -> KerasClassifier:
    return KerasClassifier(**{**SMALL, **parameters})


# -- every tool -----------------------------------------------------------------------------------------------------

RATES = {"optimizer__learning_rate": [0.001, 0.01, 0.1]}


def _halving(X: Any, y: Any) -> Any:
    grid = {"optimizer__learning_rate": [0.001, 0.003, 0.01, 0.03]}
    search = HalvingGridSearchCV(classifier(), grid, cv=3, resource="epochs", max_resources=4, min_resources=2)
    return search.set_params(factor=2, random_state=0).fit(X, y)


def _halving_at_random(X: Any, y: Any) -> Any:
    grid = {"optimizer__learning_rate": [0.001, 0.003, 0.01, 0.03]}
    search = HalvingRandomSearchCV(classifier(), grid, cv=3, resource="epochs", max_resources=4, min_resources=2)
    return search.set_params(factor=2, random_state=0).fit(X, y)


# name: (what is done, fits it takes)
TOOLS: dict[str, tuple[Any, int]] = {
    "GridSearchCV": (lambda X, y: GridSearchCV(classifier(), RATES, cv=3).fit(X, y), 10),
    "RandomizedSearchCV": (
        lambda X, y: RandomizedSearchCV(classifier(), RATES, n_iter=2, cv=3, random_state=0).fit(X, y),
        7,
    ),
    "HalvingGridSearchCV": (_halving, 4 * 3 + 2 * 3 + 1),
    "HalvingRandomSearchCV": (_halving_at_random, None),
    "cross_validate": (lambda X, y: cross_validate(classifier(), X, y, cv=4, scoring=["accuracy", "neg_log_loss"]), 4),
    "cross_val_score": (lambda X, y: cross_val_score(classifier(), X, y, cv=4), 4),
    "cross_val_predict": (lambda X, y: cross_val_predict(classifier(), X, y, cv=4, method="predict_proba"), 4),
    "learning_curve": (lambda X, y: learning_curve(classifier(), X, y, cv=3, train_sizes=[0.5, 1.0]), 6),
    "validation_curve": (
        lambda X, y: validation_curve(
            classifier(), X, y, param_name="optimizer__learning_rate", param_range=[0.001, 0.01], cv=3
        ),
        6,
    ),
    "permutation_test_score": (
        lambda X, y: permutation_test_score(classifier(), X, y, cv=2, n_permutations=3, random_state=0),
        2 + 3 * 2,
    ),
    "BaggingClassifier": (
        lambda X, y: BaggingClassifier(classifier(random_state=None), n_estimators=4, random_state=0).fit(X, y),
        4,
    ),
    "VotingClassifier": (
        lambda X, y: VotingClassifier(
            [("a", classifier()), ("b", classifier(random_state=1)), ("c", LogisticRegression())], voting="soft"
        ).fit(X, y),
        2,
    ),
    "StackingClassifier": (
        lambda X, y: StackingClassifier([("a", classifier()), ("b", LogisticRegression())], cv=3).fit(X, y),
        1 + 3,
    ),
    "OneVsRestClassifier": (lambda X, y: OneVsRestClassifier(classifier()).fit(X, y), 3),
    "MultiOutputClassifier": (
        lambda X, y: MultiOutputClassifier(classifier()).fit(X, np.column_stack([y == 0, y == 1])),
        2,
    ),
    "MultiOutputRegressor": (
        lambda X, y: MultiOutputRegressor(KerasRegressor(**SMALL)).fit(X, np.column_stack([y, 2.0 * y])),
        2,
    ),
    "CalibratedClassifierCV": (lambda X, y: CalibratedClassifierCV(classifier(), cv=3).fit(X, y), 3),
    "AdaBoostClassifier": (
        lambda X, y: AdaBoostClassifier(classifier(epochs=5), n_estimators=2, random_state=0).fit(X, y),
        None,
    ),
    "permutation_importance": (
        lambda X, y: permutation_importance(classifier().fit(X, y), X, y, n_repeats=2, random_state=0),
        None,
    ),
    "nested": (lambda X, y: cross_val_score(GridSearchCV(classifier(), RATES, cv=2), X, y, cv=2), 2 * (3 * 2 + 1)),
    "ensemble in a search": (
        lambda X, y: GridSearchCV(
            BaggingClassifier(classifier(random_state=None), n_estimators=2, random_state=0),
            {"estimator__optimizer__learning_rate": [0.001, 0.01]},
            cv=2,
        ).fit(X, y),
        2 * 2 * 2 + 2,
    ),
    "pipeline": (
        lambda X, y: GridSearchCV(
            make_pipeline(
                ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", MinMaxScaler(), [2, 3])]),
                SelectKBest(k=3),
                classifier(),
            ),
            {"selectkbest__k": [2, 3], "kerasclassifier__optimizer__learning_rate": [0.001, 0.01]},
            cv=3,
        ).fit(X, y),
        4 * 3 + 1,
    ),
    "beside others": (
        lambda X, y: GridSearchCV(
            Pipeline([("model", classifier())]),
            [{"model": [classifier()]}, {"model": [LogisticRegression(), RandomForestClassifier(3)]}],
            cv=3,
            refit=False,
        ).fit(X, y),
        3,
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_of_scikit_learn_hands_in_every_fit(name: str, iris: Any) -> None:
    work, n_fits = TOOLS[name]
    with fused() as report:
        work(*iris)
    alone = {"AdaBoostClassifier", "permutation_importance"}  # one fit after another, by their nature
    if n_fits is not None:
        # The last fit of a search and the first of an ensemble come outside of joblib's tasks.
        outside = {"permutation_test_score": 2, "pipeline": 1, "ensemble in a search": 2}
        inside = n_fits - outside.get(name, int(name.endswith("SearchCV")))
        assert inside <= len(report.trained) <= n_fits
    if name not in alone and len(report.trained) > 1:
        assert max(one.n_together for one in report.trained) > 1, report.explain()
    assert all(one.error is None for one in report.trained)


def test_the_backend_is_known_to_joblib_by_name(iris: Any) -> None:
    with joblib.parallel_config(backend="kerastoolkit"):
        scores = cross_val_score(classifier(epochs=30), *iris, cv=3)
    assert_allclose(scores, cross_val_score(classifier(epochs=30), *iris, cv=3), atol=0.02)


def test_an_option_that_the_backend_does_not_have_is_refused() -> None:
    with pytest.raises(ParameterError, match="no option 'speed'"), joblib.parallel_config("kerastoolkit", speed=2):
        pass


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1])
def test_the_number_of_jobs_makes_no_difference(iris: Any, n_jobs: int | None) -> None:
    with fused() as report:
        cross_val_score(classifier(), *iris, cv=3, n_jobs=n_jobs)
    assert [one.n_together for one in report.trained] == [3, 3, 3]


# -- equal to an ordinary search ------------------------------------------------------------------------------------


def cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return X[:300], y[:300]


def _weighted(search: Any) -> Any:
    X, y = cancer()
    return search.fit(X, y, kerasclassifier__sample_weight=np.where(y == 1, 1.0, 2.0))


SLOW = {"kerasclassifier__optimizer__learning_rate": [0.0003, 0.001, 0.003]}  # rates at which rounding stays rounding


def scaled(**parameters: Any) -> Any:
    return make_pipeline(StandardScaler(), classifier(epochs=4, **parameters))


def stopping() -> Any:
    import keras

    return keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.02, restore_best_weights=True)


SEARCHES: dict[str, Any] = {
    "rates": lambda: GridSearchCV(scaled(), SLOW, cv=3).fit(*cancer()),
    "sizes and batches": lambda: GridSearchCV(
        scaled(), {"kerasclassifier__hidden": [(4,), (6, 3)], "kerasclassifier__batch_size": [16, 50]}, cv=3
    ).fit(*cancer()),
    "unequal folds": lambda: GridSearchCV(scaled(), SLOW, cv=TimeSeriesSplit(3)).fit(*cancer()),
    "groups": lambda: GridSearchCV(scaled(), SLOW, cv=GroupKFold(3)).fit(
        *cancer(), groups=np.random.default_rng(0).integers(0, 5, 300)
    ),
    "weights of rows": lambda: _weighted(GridSearchCV(scaled(), SLOW, cv=3)),
    "early stopping": lambda: GridSearchCV(
        scaled(callbacks=stopping(), validation_split=0.2), {**SLOW, "kerasclassifier__epochs": [3, 8]}, cv=3
    ).fit(*cancer()),
    "several scores": lambda: GridSearchCV(
        scaled(),
        SLOW,
        cv=3,
        scoring={"auc": "roc_auc", "loss": "neg_log_loss", "mcc": make_scorer(matthews_corrcoef)},
        refit="loss",
        return_train_score=True,
    ).fit(*cancer()),
    "class weights": lambda: GridSearchCV(
        scaled(), {"kerasclassifier__class_weight": [None, "balanced", {0: 1, 1: 5}]}, cv=3
    ).fit(*cancer()),
    "regression": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), KerasRegressor(hidden=(8,), epochs=4, random_state=0)),
        {"kerasregressor__l2": [0.0, 0.01, 0.1], "kerasregressor__dropout": [0.0, 0.3]},
        cv=KFold(3, shuffle=True, random_state=0),
        scoring=["r2", "neg_mean_absolute_error"],
        refit="r2",
    ).fit(*load_diabetes(return_X_y=True)),
    "three classes at random": lambda: RandomizedSearchCV(
        scaled(), {**SLOW, "kerasclassifier__dropout": [0.1, 0.2, 0.3]}, n_iter=4, cv=ShuffleSplit(3, random_state=0),
        random_state=0,
    ).fit(*load_wine(return_X_y=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
def test_a_fused_search_ends_as_an_ordinary_one(name: str) -> None:
    ordinary = SEARCHES[name]()
    with fused() as report:
        together = SEARCHES[name]()
    assert report.trained
    assert together.cv_results_["params"] == ordinary.cv_results_["params"]
    for column, values in ordinary.cv_results_.items():
        if "score" in column and "time" not in column and "rank" not in column:
            assert_allclose(together.cv_results_[column], values, atol=1e-6, rtol=1e-6, err_msg=column)
    for column in (column for column in ordinary.cv_results_ if column.startswith("rank")):
        scores = ordinary.cv_results_[column.replace("rank_", "mean_")]
        ours, theirs = together.cv_results_[column], ordinary.cv_results_[column]
        for first in range(len(scores)):
            for second in range(len(scores)):
                if abs(scores[first] - scores[second]) > 1e-6:
                    assert (ours[first] < ours[second]) == (theirs[first] < theirs[second])


# -- what fails -----------------------------------------------------------------------------------------------------


class Fragile(KerasClassifier):
    """Raises, returns nonsense or is slow, where its parameters say so."""


def build(mood: str, n_features_in_: int = 4, meta: Any = None) -> Any:
    import keras

    if mood == "raises":
        raise ZeroDivisionError("of the user")
    if mood == "slow":
        time.sleep(0.3)
    features = meta["n_features_in_"]
    model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(3, activation="softmax")])
    rate = 1e30 if mood == "nan" else 0.01
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    return model


def test_tasks_that_keep_many_rows_of_their_own_go_one_by_one(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_MAX_BYTES", 1000)  # less than one fit keeps
    grid = {"kerasclassifier__optimizer__learning_rate": [0.001, 0.01, 0.1]}
    search = GridSearchCV(make_pipeline(StandardScaler(), classifier()), grid, cv=3, refit=False)
    with fused() as report:
        together = clone(search).fit(*iris)
    assert [one.n_together for one in report.trained] == [1] * 9
    scores = search.fit(*iris).cv_results_["mean_test_score"]
    assert_allclose(together.cv_results_["mean_test_score"], scores, atol=1e-6)


def test_of_large_tables_all_that_train_on_one_split_go_before_the_next(
    iris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_MAX_BYTES_OF_ROWS", 1000)  # less than a split has
    search = GridSearchCV(classifier(), {"optimizer__learning_rate": [0.001, 0.003, 0.01, 0.1]}, cv=3, refit=False)
    with fused() as report:
        together = clone(search).fit(*iris)
    assert [one.n_together for one in report.trained] == [4] * 12
    ordinary = search.fit(*iris).cv_results_
    for split in range(3):
        assert_allclose(together.cv_results_[f"split{split}_test_score"], ordinary[f"split{split}_test_score"])


def test_the_order_of_tasks_stays_where_they_draw_from_the_generators_of_the_process(
    iris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = GridSearchCV(classifier(random_state=None), {"optimizer__learning_rate": [0.001, 0.01]}, cv=3, refit=False)

    def scores() -> Any:
        random.seed(0)
        np.random.seed(0)
        with fused():
            return clone(search).fit(*iris).cv_results_["mean_test_score"]

    expected = scores()
    monkeypatch.setattr(backend, "_MAX_BYTES_OF_ROWS", 1000)
    assert_allclose(scores(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_tasks_of_a_split_share_its_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(4000, 500)).astype(kind)
    y = (X[:, 0] > 0).astype(int)
    search = GridSearchCV(
        classifier(epochs=1),
        {"optimizer__learning_rate": [0.001, 0.003, 0.01, 0.03]},
        cv=3,
        refit=False,
    )

    def peak(fit: Any) -> float:
        """Bytes at most beside the table, as a part of it."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            fit()
            return float(tracemalloc.get_traced_memory()[1] - before) / X.nbytes
        finally:
            tracemalloc.stop()

    with fused():
        clone(search).fit(X[:100], y[:100])  # what is made once
    monkeypatch.setattr(backend, "_MAX_BYTES_OF_ROWS", 0)
    one_by_one = peak(lambda: clone(search).fit(X, y))
    with fused() as report:
        together = peak(lambda: clone(search).fit(X, y))
    assert [one.n_together for one in report.trained] == [4] * 12
    assert together < 1.5 * one_by_one


class Meddling(KerasClassifier):
    """Writes into the rows that it is given."""

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Any:
        X *= self.batch_size
        return super().fit(X, y, **fit_params)


def test_rows_that_may_be_written_into_are_not_shared(iris: Any) -> None:
    def score(estimator: Any, X: Any, y: Any) -> float:
        found = float(estimator.score(X, y))
        X[...] = 0
        return found

    meddling = GridSearchCV(Meddling(**SMALL), {"batch_size": [10, 20, 40]}, cv=3, refit=False)
    scored = GridSearchCV(classifier(epochs=20), RATES, cv=3, scoring=score, return_train_score=True, refit=False)
    for search in (meddling, scored):
        ordinary = clone(search).fit(*iris).cv_results_
        with fused() as report:
            together = search.fit(*iris).cv_results_
        assert len(report.trained) == 9
        assert_allclose(together["mean_test_score"], ordinary["mean_test_score"], atol=1e-6)


def test_a_part_of_a_table_that_no_task_asks_for_is_a_plain_array(iris: Any) -> None:
    """What scikit-learn makes of the table besides, and whoever else gets it, finds an array as it was."""
    seen: list[Any] = []

    def predictions(estimator: Any, X: Any) -> Any:
        seen.append((type(X), X.flags.owndata))
        return cross_val_predict(estimator, X, iris[1], cv=KFold(3), method="predict_proba")

    with fused():
        together = predictions(classifier(), iris[0])
    assert_allclose(together, predictions(classifier(), iris[0]), atol=1e-6)
    index = np.arange(10)
    table = iris[0].view(_rows._Table)
    table.indices, table.cut = [index], lambda index: "cut"
    assert table[index, ...] == table[index] == "cut"
    for key in (np.arange(10), slice(2, 5), (slice(None), 1), 3, (3, 1)):
        assert_array_equal(table[key], iris[0][key])
        assert not isinstance(table[key], _rows._Table)


def test_shared_rows_go_with_the_last_task_that_has_them(iris: Any) -> None:
    rows = _rows.SharedRows()
    X, y = iris
    train, test = np.arange(100), np.arange(100, 150)
    given = dict(scorer=None, train=train, test=test, parameters=None, fit_params=None, verbose=0, score_params=None)
    got = []

    def task() -> Any:
        function = functools.partial(_validation._fit_and_score)
        functools.update_wrapper(function, _validation._fit_and_score)
        return BatchedCalls([(function, (classifier(), X, y), given)], (None, None))

    calls = [task(), task()]
    needs = [rows.prepare(call) for call in calls]
    assert needs[0] == needs[1]
    assert [size for _, size in needs[0].shared] == [100 * X.itemsize * 4, 50 * X.itemsize * 4]
    assert rows.missing(needs[0]) == 150 * X.itemsize * 4
    got = [rows._cut(X, train), rows._cut(X, train)]
    assert got[0] is got[1]
    assert rows.has(got[0])
    assert rows.n_bytes == got[0].nbytes
    assert rows.missing(needs[0]) == 50 * X.itemsize * 4
    got.clear()
    assert rows.n_bytes == 0
    assert rows.missing(needs[0]) == 150 * X.itemsize * 4


class Noted(KerasClassifier):
    """Notes when it is fitted and when it is scored."""

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Any:
        NOTES.append("fit")
        return super().fit(X, y, **fit_params)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        NOTES.append("score")
        return float(super().score(X, y, sample_weight))


NOTES: list[str] = []


@pytest.fixture
def in_sixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tasks are prepared while six are trained by XLA, which takes no part of Python."""
    monkeypatch.setattr(backend, "_MAX_TASKS", 6)
    monkeypatch.setattr(engine, "_SECONDS_IN_NUMPY", -math.inf)
    monkeypatch.setattr(engine, "_SECONDS_OF_XLA_FOR_EPOCHS", 1e-6)
    monkeypatch.setattr(engine, "_MODELS_PER_SHARD", 6)


@pytest.mark.backend("tensorflow")
@pytest.mark.usefixtures("in_sixes")
def test_tasks_are_prepared_while_those_before_them_are_trained(iris: Any) -> None:
    NOTES.clear()
    rates = {"optimizer__learning_rate": [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]}
    search = GridSearchCV(Noted(hidden=(4,), epochs=3), rates, cv=3, refit=False)

    def scores() -> Any:
        random.seed(0)
        np.random.seed(0)
        return clone(search).fit(*iris).cv_results_["mean_test_score"]

    with fused() as report:
        together = scores()
    assert [one.n_together for one in report.trained] == [6] * 18
    six = {kind: [kind] * 6 for kind in ("fit", "score")}
    assert NOTES == six["fit"] * 2 + six["score"] + six["fit"] + six["score"] * 2
    with fused():
        again = [scores(), scores()]
    assert_array_equal(*again)  # what is drawn does not hang on how long training takes
    search.set_params(estimator__random_state=0)
    with fused():
        together = scores()
    assert_allclose(together, scores(), atol=1e-6)


def test_tasks_that_are_trained_in_turns_have_all_scored_before_others_begin(
    iris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_MAX_TASKS", 6)
    NOTES.clear()
    with joblib.parallel_config(backend=backend.FusedBackend(max_together=3)):
        cross_val_score(Noted(hidden=(4,), epochs=1), *iris, cv=12)
    six = {kind: [kind] * 6 for kind in ("fit", "score")}
    assert NOTES == (six["fit"] + six["score"]) * 2


@pytest.mark.backend("tensorflow")
@pytest.mark.usefixtures("in_sixes")
def test_a_search_that_is_stopped_while_it_prepares_and_trains_ends(iris: Any) -> None:
    moods = {"mood": ["calm"] * 3 + ["raises"] + ["calm"] * 3}
    search = GridSearchCV(KerasClassifier(build, epochs=2), moods, cv=3, error_score="raise", refit=False)
    with fused() as report, pytest.raises(ZeroDivisionError, match="of the user"):
        search.fit(*iris)
    assert len(report.trained) <= 12
    with fused() as report:  # nothing of it is in the way
        cross_val_score(classifier(), *iris, cv=3)
    assert [one.n_together for one in report.trained] == [3, 3, 3]


def test_a_thread_that_the_system_refuses_ends_the_search(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def refused(thread: threading.Thread) -> None:
        if thread.name == "kerastoolkit-task":
            started.append(thread)
            if len(started) == 3:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with fused(), pytest.raises(RuntimeError, match="can't start new thread"):
        cross_val_score(classifier(), *iris, cv=5, error_score="raise")


def test_tasks_share_threads_and_nothing_else() -> None:
    def task(_: int) -> dict[str, Any]:
        found = {
            "thread": threading.current_thread(),
            "filtering": keras.config.is_traceback_filtering_enabled(),
            "errors": np.geterr()["divide"],
            "finite": sklearn.get_config()["assume_finite"],
        }
        sklearn.set_config(assume_finite=True)
        keras.config.disable_traceback_filtering()
        np.seterr(divide="raise")
        return found

    filters = keras.config.is_traceback_filtering_enabled()
    before = {"filtering": filters, "errors": np.geterr()["divide"], "finite": False}
    with fused():
        found = joblib.Parallel()(joblib.delayed(task)(number) for number in range(6))
    threads = {one.pop("thread") for one in found}
    assert len(threads) == 1
    assert all(before.items() <= one.items() for one in found)
    for thread in threads:  # ends with the search
        thread.join(1500)
        assert not thread.is_alive()


class Interrupted:
    """Seconds during which the user presses Ctrl-C."""

    def __radd__(self, other: float) -> float:
        raise KeyboardInterrupt


def test_a_search_whose_end_is_interrupted_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_SECONDS_TO_CANCEL", Interrupted())
    with fused(), pytest.raises(KeyboardInterrupt):
        joblib.Parallel()(joblib.delayed(abs)(number) for number in range(2))
    assert gc.get_freeze_count() == 0
    for thread in threading.enumerate():
        if thread.name.startswith("kerastoolkit-task"):
            thread.join(1500)
            assert not thread.is_alive()


def test_the_arguments_of_a_task_may_come_from_a_search(iris: Any) -> None:
    with fused() as report:
        scores = joblib.Parallel()(joblib.delayed(list)(cross_val_score(classifier(), *iris, cv=2)) for _ in range(2))
    assert [one.n_together for one in report.trained] == [2] * 4
    assert scores[0] == scores[1]


def test_a_task_may_train_between_the_results_of_a_generator(iris: Any) -> None:
    def score(epochs: int) -> float:
        return float(classifier(epochs=epochs).fit(*iris).score(*iris)) if epochs else 0.0

    def task() -> list[tuple[float, float]]:
        calls = (joblib.delayed(score)(epochs) for epochs in (0, 1, 2))  # the first has ended before others train
        return [(found, score(3)) for found in joblib.Parallel(return_as="generator")(calls)]

    alone = task()
    with fused() as report, pytest.warns(KerasToolkitWarning, match="one after another") as caught:
        together = joblib.Parallel()(joblib.delayed(task)() for _ in range(3))
    assert caught[0].filename == __file__
    assert_allclose(together, [alone] * 3, atol=1e-6)
    assert [one.n_together for one in report.trained] == [3] * 15


class CannotSay(joblib.Parallel):  # type: ignore[misc]
    """Raises in the thread of the first task, when that has ended."""

    has_raised = False

    def print_progress(self) -> None:
        if not self.has_raised:
            self.has_raised = True
            raise BrokenPipeError("nobody reads what is printed")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # as with joblib's own threads
def test_a_thread_that_ends_is_given_no_other_task() -> None:
    with fused():
        assert CannotSay()(joblib.delayed(abs)(number) for number in range(3)) == [0, 1, 2]


def test_a_candidate_that_fails_harms_no_other(iris: Any) -> None:
    moods = {"mood": ["calm", "raises", "nan", "slow"]}
    search = GridSearchCV(KerasClassifier(build, epochs=2, random_state=0), moods, cv=3, error_score=-1.0, refit=False)
    with pytest.warns(Warning, match="ZeroDivisionError"):
        ordinary = clone(search).fit(*iris).cv_results_
    with fused() as report, pytest.warns(Warning, match="ZeroDivisionError"):
        together = clone(search).fit(*iris).cv_results_
    assert len(report.trained) == 9
    assert_allclose(together["mean_test_score"], ordinary["mean_test_score"], atol=1e-6)
    assert together["mean_test_score"][1] == -1.0


ENDED: list[bool] = []


class EndsSlowly(KerasClassifier):
    """Says when it has ended, which takes a while."""

    def fit(self, X: Any, y: Any, **arguments: Any) -> Any:
        place = len(ENDED)
        ENDED.append(False)
        try:
            return super().fit(X, y, **arguments)
        finally:
            time.sleep(0.1)
            ENDED[place] = True


def test_what_a_failed_search_gives_up_ends_before_it(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_SECONDS_TO_CANCEL", 1500)  # on a busy machine, ending takes longer
    ENDED.clear()
    moods = {"mood": ["calm", "calm", "raises"]}
    search = GridSearchCV(EndsSlowly(build, epochs=1), moods, cv=3, error_score="raise", refit=False)
    with fused(), pytest.raises(ZeroDivisionError):
        search.fit(*iris)
    assert len(ENDED) > 1
    assert all(ENDED)


def test_pythons_collector_is_left_as_it_was(iris: Any) -> None:
    def frozen_while(act: Any) -> int:
        with fused():
            act()
        return gc.get_freeze_count()

    seen: list[int] = []
    watched = FunctionTransformer(lambda X: seen.append(gc.get_freeze_count()) or X)
    pipeline = Pipeline([("watched", watched), ("model", classifier(epochs=1))])
    assert frozen_while(lambda: cross_val_score(pipeline, *iris, cv=2)) == 0
    assert min(seen) > 0
    moody = KerasClassifier(build, epochs=1, mood="raises")
    with pytest.raises(ZeroDivisionError):
        frozen_while(lambda: cross_val_score(moody, *iris, cv=2, error_score="raise"))
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        assert frozen_while(lambda: cross_val_score(pipeline, *iris, cv=2)) > 0  # the user's own
    finally:
        gc.unfreeze()


def test_a_search_keeps_nothing_that_has_been_scored(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_MAX_TASKS", 3)
    estimators: weakref.WeakSet[Any] = weakref.WeakSet()
    networks: weakref.WeakSet[Any] = weakref.WeakSet()
    alive: list[int] = []
    trained: list[int] = []

    def score(estimator: Any, X: Any, y: Any) -> float:
        estimators.add(estimator)
        networks.add(estimator._fitted.network)
        alive.append(len(estimators))
        trained.append(len(networks))
        return float(estimator.score(X, y))

    gc.disable()  # nobody waits for it
    try:
        with fused():
            GridSearchCV(classifier(epochs=1), RATES, cv=5, scoring=score, refit=False).fit(*iris)
    finally:
        gc.enable()
    assert len(alive) == 15
    assert max(alive) <= 2  # the one that is scored, and perhaps the last one, whose thread is about to end
    assert max(trained) <= 4  # those that trained together, too


def test_tasks_wait_for_room_by_the_bytes_that_others_keep(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two thirds of iris as the engine gets them, with the order of rows of an epoch, and a third to be scored on.
    of_a_fit = 100 * (4 * 8 + 4 + 4) + 50 * 4 * 8
    monkeypatch.setattr(backend, "_MAX_BYTES", 6.5 * of_a_fit)
    with fused() as report:
        GridSearchCV(Noted(**SMALL), {"epochs": [1, 2, 3, 4]}, cv=KFold(3), refit=False).fit(*iris)
    assert max(one.n_together for one in report.trained) == 7  # the first keeps no more than it would alone


def test_many_fits_on_the_same_array_keep_it_once(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = iris
    monkeypatch.setattr(backend, "_MAX_BYTES", X.nbytes - 1)
    with fused() as report:
        OneVsRestClassifier(classifier()).fit(X, y)
    assert [one.n_together for one in report.trained] == [3] * 3


def test_an_error_in_one_task_ends_the_search_with_that_error(iris: Any) -> None:
    search = GridSearchCV(KerasClassifier(build, epochs=1), {"mood": ["calm", "raises"]}, cv=2, error_score="raise")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="of the user"), fused():
            search.fit(*iris)
    with fused():  # and the next one works
        assert cross_val_score(classifier(), *iris, cv=2).shape == (2,)


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator of another kind, which raises now and then."""

    def __init__(self, often: float = 0.0, seed: int = 0) -> None:
        self.often = often
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Moody:
        if random.random() < self.often:
            raise ArithmeticError("a bad mood")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        if random.random() < self.often:
            raise ArithmeticError("a bad mood")
        return np.full(len(X), self.classes_[0])


def one_random_search(number: int, X: Any, y: Any) -> None:
    """A search over estimators of several kinds, some of which raise."""
    drawn = random.Random(number)
    often = drawn.choice([0.0, 0.1, 0.5])
    members: list[Any] = [Moody(often, seed) for seed in range(drawn.randint(1, 4))]
    members += [classifier(epochs=1, random_state=seed) for seed in range(drawn.randint(0, 3))]
    if drawn.random() < 0.2:
        members.append(GridSearchCV(classifier(epochs=1), {"random_state": [0, 1]}, cv=2))
    if drawn.random() < 0.2:
        members.append(VotingClassifier([("a", Moody(often)), ("b", classifier(epochs=1))]))
    drawn.shuffle(members)
    error_score = drawn.choice(["raise", np.nan])
    search = GridSearchCV(
        Pipeline([("model", Moody())]), {"model": members}, cv=StratifiedKFold(2), error_score=error_score, refit=False
    )
    try:
        with fused():
            search.fit(X, y)
    except (ArithmeticError, ValueError):
        pass  # a search may fail; it must not hang


def test_a_search_inside_a_block_with_a_seed_can_be_repeated(iris: Any) -> None:
    def scores() -> Any:
        with isolated(0), fused() as report:
            found = cross_val_score(classifier(random_state=None), *iris, cv=3)
        assert [one.how for one in report.trained] == ["fused"] * 3
        return found

    first = scores()
    np.random.seed(5)
    random.seed(5)
    with isolated(1):  # a block in a block
        assert_array_equal(first, scores())

    def enter() -> None:
        with isolated(0):
            pass

    other = threading.Thread(target=enter, daemon=True)
    other.start()
    other.join(1500)
    assert not other.is_alive(), "somebody is still in the block"


def _chosen_by_a_search(meta: dict[str, Any]) -> keras.Model:
    """Chooses its width by a search of its own."""
    rows = np.random.default_rng(0).normal(size=(30, 4))
    inner = GridSearchCV(classifier(epochs=1), {"hidden": [(2,), (3,)]}, cv=2).fit(rows, np.arange(30) % 2)
    width = inner.best_params_["hidden"][0]
    shape, n_classes = meta["X_shape_"][1:], meta["n_classes_"]
    return keras.Sequential([keras.Input(shape), layers.Dense(width), layers.Dense(n_classes, "softmax")])


def test_a_build_function_may_search(iris: Any) -> None:
    model = KerasClassifier(_chosen_by_a_search, loss="sparse_categorical_crossentropy", epochs=2, random_state=0)
    alone = cross_val_score(model, *iris, cv=3)
    with fused():
        together = cross_val_score(model, *iris, cv=3)
    assert_allclose(together, alone, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_random_searches_that_fail_at_random_points_end(iris: Any) -> None:
    X, y = iris
    X, y = X[:30], y[:30]
    finished = threading.Event()

    def work() -> None:
        for number in range(12):
            one_random_search(number, X, y)
        finished.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert finished.wait(1500), "a search hangs"
