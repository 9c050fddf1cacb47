"""A candidate whose network diverged has failed: by `error_score`, at rungs, in journals and in studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier
from kerastoolkit.exceptions import DivergedError
from kerastoolkit.search import GridSearchCV, Journal, OptunaSearchCV, Rungs, fused

Data = tuple[Any, Any]
RATES = {"optimizer__learning_rate": [1e30, 1e-4, 0.01]}

pytestmark = pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")


@pytest.fixture(scope="module")
def iris() -> Data:
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def _classifier(**params: Any) -> KerasClassifier:
    return KerasClassifier(**{"hidden": (16,), "epochs": 2, "random_state": 0, **params})


def test_it_gets_the_error_score(iris: Data) -> None:
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 6.*\n.*set to -1.0"):
        search = GridSearchCV(_classifier(), RATES, cv=2, error_score=-1.0).fit(*iris)
    assert search.cv_results_["mean_test_score"][0] == -1.0
    with pytest.raises(DivergedError, match="its loss has been nan since epoch 1"):
        GridSearchCV(_classifier(), RATES, cv=2, error_score="raise").fit(*iris)


def test_it_fails_by_every_score(iris: Data) -> None:
    scoring = ["accuracy", "neg_log_loss"]
    with pytest.warns(FitFailedWarning, match="2 fits failed"):
        search = GridSearchCV(_classifier(), RATES, cv=2, scoring=scoring, refit="neg_log_loss").fit(*iris)
    assert search.best_params_ == {"optimizer__learning_rate": 0.01}
    for name in scoring:
        assert_array_equal(np.isnan(search.cv_results_[f"mean_test_{name}"]), [True, False, False])


def test_it_fails_though_its_score_asks_for_no_prediction(iris: Data) -> None:
    def score(estimator: Any, X: Any, y: Any) -> float:
        return float(estimator.n_iter_)

    with pytest.warns(FitFailedWarning, match="2 fits failed"):
        search = GridSearchCV(_classifier(), RATES, cv=2, scoring=score).fit(*iris)
    assert_array_equal(search.cv_results_["mean_test_score"], [np.nan, 2, 2])


def test_one_that_diverges_on_one_fold_is_behind_all_others(iris: Data) -> None:
    class OnThe50(keras.callbacks.Callback):
        """Takes too large a step where the first class is missing."""

        def on_train_begin(self, logs: Any = None) -> None:
            if self.params["steps"] == 2:
                self.model.optimizer.learning_rate = 1e30

    X, y = iris
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2)), (np.arange(0, 150, 3), np.arange(1, 150, 3))]
    grid = {"callbacks": [[OnThe50()], None], "optimizer__learning_rate": [0.01, 1e-5]}
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 8"):
        search = GridSearchCV(_classifier(), grid, cv=folds).fit(X, y)
    results = search.cv_results_
    assert np.isfinite(results["split0_test_score"]).all()
    assert_array_equal(np.isnan(results["split1_test_score"]), [True, True, False, False])
    assert set(results["rank_test_score"][:2]) == {3}
    assert search.best_params_ == {"callbacks": None, "optimizer__learning_rate": 0.01}


def test_if_all_diverge_scikit_learn_says_so(iris: Data) -> None:
    with pytest.raises(ValueError, match="All the 4 fits failed(.|\n)*DivergedError: The network diverged"):
        GridSearchCV(_classifier(), {"optimizer__learning_rate": [1e30, 1e25]}, cv=2).fit(*iris)


def test_a_hundred_of_them_are_one_warning(iris: Data) -> None:
    grid = {"optimizer__learning_rate": [*np.geomspace(1e20, 1e30, 50), 0.01]}
    with pytest.warns() as warned:
        GridSearchCV(_classifier(), grid, cv=2).fit(*iris)
    kinds = [warning.category.__name__ for warning in warned if warning.category is not DeprecationWarning]
    messages = [str(warning.message) for warning in warned]
    assert sorted(kinds) == ["FitFailedWarning", "UserWarning"]  # the other is of scores that are no numbers
    assert sum("100 fits failed out of a total of 102" in message for message in messages) == 1


def test_an_ensemble_with_a_member_that_diverged_has_failed(iris: Data) -> None:
    ensemble = BaggingClassifier(_classifier(), n_estimators=2, random_state=0)
    grid = {f"estimator__{name}": rates for name, rates in RATES.items()}
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 6"):
        search = GridSearchCV(ensemble, grid, cv=2).fit(*iris)
    assert_array_equal(np.isnan(search.cv_results_["mean_test_score"]), [True, False, False])


def test_cross_validation_of_fused_fits_fails_as_a_search_does(iris: Data) -> None:
    with fused(), pytest.raises(ValueError, match="All the 2 fits failed"):
        cross_val_score(_classifier(optimizer__learning_rate=1e30), *iris, cv=2)


# -- rungs ----------------------------------------------------------------------------------------------------------


def test_an_accuracy_that_looks_good_takes_nobody_over_a_rung(iris: Data) -> None:
    X, y = iris
    rows = np.r_[:60, 100:110]  # most are of the first class, which is what NaN is taken for
    X, y = X[rows], y[rows]
    grid = {"optimizer__learning_rate": [1e30, 1e-5]}
    rungs = Rungs(monitor="accuracy", factor=2)
    with pytest.warns(FitFailedWarning):
        search = GridSearchCV(_classifier(epochs=8), grid, cv=2, early_stopping=rungs).fit(X, y)
    assert_array_equal(search.cv_results_["stopped_early"], [True, False])
    assert search.best_params_ == {"optimizer__learning_rate": 1e-5}


def test_one_that_was_stopped_is_better_than_one_that_diverged_after_the_rungs(iris: Data) -> None:
    late = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 if epoch < 6 else 1e30)
    grid = [{"optimizer__learning_rate": [1e-5]}, {"callbacks": [[late]]}]
    with pytest.warns(FitFailedWarning):
        search = GridSearchCV(_classifier(epochs=9), grid, cv=2, early_stopping=Rungs(monitor="loss")).fit(*iris)
    assert_array_equal(search.cv_results_["stopped_early"], [True, False])
    assert search.best_params_ == {"optimizer__learning_rate": 1e-5}


# -- journals and studies -------------------------------------------------------------------------------------------


def test_a_journal_does_not_record_it(iris: Data, tmp_path: Path) -> None:
    with Journal(tmp_path / "search.db") as journal, pytest.warns(FitFailedWarning):
        GridSearchCV(_classifier(), RATES, cv=2, journal=journal).fit(*iris)
        assert len(journal) == 4
        assert not any("1e+30" in row["parameters"] for row in journal.results())


def test_in_a_study_its_trial_has_failed(iris: Data) -> None:
    optuna = pytest.importorskip("optuna", reason="pip install optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), direction="maximize")
    with pytest.warns(FitFailedWarning):
        search = OptunaSearchCV(_classifier(), RATES, n_trials=9, study=study, cv=2).fit(*iris)
    states = {(trial.params["optimizer__learning_rate"], trial.state.name) for trial in study.get_trials()}
    assert states == {(1e30, "FAIL"), (1e-4, "COMPLETE"), (0.01, "COMPLETE")}
    assert search.best_params_ == {"optimizer__learning_rate": 0.01}
