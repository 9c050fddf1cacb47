"""Optuna chooses, scikit-learn scores: the study and `cv_results_` say the same, and an interrupted search resumes."""

from __future__ import annotations

import math
import pickle
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier
from kerastoolkit.exceptions import MissingPackageError, ParameterError, SavedFileError
from kerastoolkit.search import OptunaSearchCV, Rungs

optuna = pytest.importorskip("optuna", reason='pip install "kerastoolkit[optuna]"')

FloatDistribution = optuna.distributions.FloatDistribution
IntDistribution = optuna.distributions.IntDistribution
CategoricalDistribution = optuna.distributions.CategoricalDistribution

RATES = {"optimizer__learning_rate": stats.loguniform(1e-4, 0.1)}
SMOOTHING = {"var_smoothing": stats.loguniform(1e-3, 1e3)}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # where the file is that a search makes


@pytest.fixture(autouse=True)
def _files_are_closed(monkeypatch: Any) -> Iterator[None]:
    """Those of tests' own storages, and those that are open again because a test asked a study."""
    import sqlalchemy.engine

    make, engines = sqlalchemy.engine.create_engine, []

    def create_engine(*arguments: Any, **options: Any) -> Any:
        engines.append(make(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(sqlalchemy.engine, "create_engine", create_engine)
    yield
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X)[:150], y[:150]


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def classifier(**parameters: Any) -> KerasClassifier:
    return KerasClassifier(**{"hidden": (4,), "epochs": 5, "validation_split": 0.25, "random_state": 0, **parameters})


def search_of(estimator: Any, space: Any, **parameters: Any) -> OptunaSearchCV:
    given = {"cv": 3, "random_state": 0, **parameters}
    if "study_name" not in parameters:
        given.setdefault("storage", None)  # a file takes a second to make
    return OptunaSearchCV(estimator, space, **given)


def quick(**parameters: Any) -> OptunaSearchCV:
    """A quick search without networks."""
    return search_of(GaussianNB(), SMOOTHING, **{"n_trials": 4, "batch_size": 2, **parameters})


def states_of(search: Any) -> list[str]:
    return [trial.state.name for trial in search.study_.trials]


# -- the same as scikit-learn ---------------------------------------------------------------------------------------


def test_the_scores_are_those_of_a_grid_search_over_the_same_candidates(cancer: Any) -> None:
    scores = {"cv": KFold(3, shuffle=True, random_state=0), "scoring": "neg_log_loss", "return_train_score": True}
    search = search_of(classifier(), RATES, n_trials=5, batch_size=3, **scores).fit(*cancer)
    candidates = [{name: [value] for name, value in params.items()} for params in search.cv_results_["params"]]
    assert len(candidates) == 5
    theirs = GridSearchCV(classifier(), candidates, **scores).fit(*cancer)
    for column, values in theirs.cv_results_.items():
        if "score" in column and "time" not in column and "rank" not in column:
            assert_allclose(search.cv_results_[column], values, atol=1e-4, err_msg=column)
    assert search.best_params_ == theirs.best_params_
    assert_array_equal(search.predict(cancer[0]), theirs.predict(cancer[0]))
    # Three trials of three folds each were one program, then two.
    assert [one.together for one in search.report_.trained] == [9] * 9 + [6] * 6


def test_the_study_has_every_trial_with_its_score(iris: Any) -> None:
    search = quick().fit(*iris)
    results = search.cv_results_
    assert states_of(search) == ["COMPLETE"] * 4
    for trial in search.study_.trials:
        row = list(results["trial_number"]).index(trial.number)
        assert trial.params == results["params"][row]
        assert trial.value == results["mean_test_score"][row]
        alone = cross_val_score(GaussianNB(**trial.params), *iris, cv=3)
        assert_allclose(trial.value, alone.mean())
    assert search.best_score_ == search.study_.best_value
    assert "mean_n_epochs" not in results
    assert not results["stopped_early"].any()


def test_the_study_is_told_the_score_that_refit_names(iris: Any) -> None:
    several = {"loss": "neg_log_loss", "accuracy": "accuracy"}
    search = quick(scoring=several, refit="loss").fit(*iris)
    assert_array_equal([trial.value for trial in search.study_.trials], search.cv_results_["mean_test_loss"])


def test_a_seed_chooses_the_same_trials_again(iris: Any) -> None:
    chosen = [quick(random_state=seed, storage=None).fit(*iris).cv_results_["params"] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_batch_is_chosen_with_what_the_batches_before_were_told(iris: Any) -> None:
    class Sampler(optuna.samplers.RandomSampler):
        """Notes how many trials are complete when a trial is asked."""

        def __init__(self) -> None:
            super().__init__(seed=0)
            self.complete: list[int] = []

        def before_trial(self, study: Any, trial: Any) -> None:
            self.complete.append(sum(one.state.name == "COMPLETE" for one in study.trials))

    sampler = Sampler()
    quick(n_trials=5, batch_size=2, sampler=sampler, random_state=None).fit(*iris)
    assert sampler.complete == [0, 0, 2, 2, 4]


# -- the space ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(FloatDistribution(0.1, 1, step=0.1), FloatDistribution(0.1, 1, step=0.1), id="of Optuna"),
        pytest.param([1, 2.5, "a", None, True], CategoricalDistribution([1, 2.5, "a", None, True]), id="list"),
        pytest.param(np.array([0.5, 1.5]), CategoricalDistribution([0.5, 1.5]), id="array"),
        pytest.param(range(3), CategoricalDistribution([0, 1, 2]), id="range"),
        pytest.param([(32,), (64, 32)], CategoricalDistribution(["(32,)", "(64, 32)"]), id="tuples"),
        pytest.param(stats.uniform(1, 2), FloatDistribution(1, 3), id="uniform"),
        pytest.param(stats.uniform(loc=1, scale=2), FloatDistribution(1, 3), id="uniform by name"),
        pytest.param(stats.loguniform(1e-4, 1e-1), FloatDistribution(1e-4, 1e-1, log=True), id="loguniform"),
        pytest.param(
            stats.loguniform(1e-4, 1e-1, scale=10), FloatDistribution(1e-3, 1, log=True), id="scaled loguniform"
        ),
        pytest.param(stats.randint(2, 5), IntDistribution(2, 4), id="randint"),
        pytest.param(stats.randint(2, 5, loc=10), IntDistribution(12, 14), id="moved randint"),
    ],
)
def test_what_the_study_gets(given: Any, expected: Any) -> None:
    from kerastoolkit.search.optuna import _Space

    assert _Space({"a": given}).distributions["a"] == expected
    if hasattr(given, "rvs"):  # and what scipy draws is in there
        drawn = given.rvs(1000, random_state=0)
        assert expected.low <= drawn.min() and drawn.max() <= expected.high
        span = (expected.high - expected.low) if not expected.log else math.log(expected.high / expected.low)
        drawn_span = (drawn.max() - drawn.min()) if not expected.log else math.log(drawn.max() / drawn.min())
        assert drawn_span > 0.95 * span


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param(stats.norm(0, 1), "scipy.stats.norm", id="norm"),
        pytest.param(stats.loguniform(1, 10, 5), "scipy.stats.loguniform", id="moved loguniform"),
        pytest.param(stats.loguniform(1, 10, loc=5), "scipy.stats.loguniform", id="moved loguniform by name"),
        pytest.param(stats.poisson(3), "scipy.stats.poisson", id="poisson"),
        pytest.param(0.1, "0.1", id="number"),
        pytest.param("adam", "'adam'", id="text"),
    ],
)
def test_what_optuna_cannot_draw_is_refused_by_name(iris: Any, given: Any, name: str) -> None:
    message = (
        f"The parameter 'var_smoothing' of `param_distributions` is {name}, which has no exact counterpart in Optuna. "
        "Give an Optuna distribution (`FloatDistribution(low, high, log=True)`, `IntDistribution(low, high)`), a "
        "list of values, or a frozen `scipy.stats.uniform`, `loguniform` or `randint`."
    )
    with pytest.raises(ParameterError) as error:
        OptunaSearchCV(GaussianNB(), {"var_smoothing": given}).fit(*iris)
    assert str(error.value) == message


def test_values_that_a_study_cannot_hold_are_set_as_they_are(cancer: Any) -> None:
    import keras

    class Nameless:
        def __call__(self, x: Any) -> Any:
            return keras.ops.tanh(x)

    space = {"hidden": [(3,), (3, 2)], "activation": ["relu", keras.ops.tanh, Nameless()]}
    search = search_of(classifier(), space, n_trials=4, cv=2).fit(*cancer)
    for params, trial in zip(search.cv_results_["params"], search.study_.trials, strict=True):
        assert params["hidden"] in space["hidden"]
        assert trial.params["hidden"] == repr(params["hidden"])
        assert any(params["activation"] is value for value in space["activation"])
        assert trial.params["activation"] in ("'relu'", "tanh", "Nameless 2")
    assert search.best_params_["hidden"] in space["hidden"]


# -- who stops early ------------------------------------------------------------------------------------------------


class Chosen(optuna.pruners.BasePruner):
    """Prunes certain trials after certain epochs."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.ends = ends

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.last_step >= self.ends.get(trial.number, math.inf)


@pytest.fixture(scope="module")
def pruned_and_plain(cancer: Any) -> tuple[Any, Any]:
    given = {"n_trials": 5, "batch_size": 3, "scoring": "neg_log_loss", "storage": None}
    sampler = optuna.samplers.RandomSampler
    pruned = search_of(classifier(), RATES, sampler=sampler(seed=0), random_state=None, **given)
    pruned.set_params(pruner=Chosen({1: 2, 4: 1})).fit(*cancer)
    plain = search_of(classifier(), RATES, sampler=sampler(seed=0), random_state=None, **given).fit(*cancer)
    return pruned, plain


def test_pruned_trials_stop_with_all_their_folds(pruned_and_plain: Any) -> None:
    pruned, plain = pruned_and_plain
    lengths = np.array([len(one.history["loss"]) for one in pruned.report_.trained]).reshape(5, 3)
    assert_array_equal(lengths, np.transpose([[5, 2, 5, 5, 1]] * 3))
    results = pruned.cv_results_
    assert_array_equal(np.transpose([results[f"split{split}_n_epochs"] for split in range(3)]), lengths)
    assert_array_equal(results["mean_n_epochs"], [5, 2, 5, 5, 1])
    assert_array_equal(results["stopped_early"], [False, True, False, False, True])
    assert states_of(pruned) == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "PRUNED"]
    assert {one.how for one in pruned.report_.trained} == {"fused"}


def test_trials_that_are_not_pruned_end_as_without_a_pruner(pruned_and_plain: Any) -> None:
    pruned, plain = pruned_and_plain
    going_on = [0, 2, 3]
    assert_allclose(
        pruned.cv_results_["mean_test_score"][going_on], plain.cv_results_["mean_test_score"][going_on], atol=1e-5
    )
    scores = [pruned.cv_results_["mean_test_score"][number] for number in going_on]
    assert pruned.best_index_ == going_on[int(np.argmax(scores))]
    assert pruned.best_estimator_.n_iter_ == 5


def test_what_is_reported_is_the_mean_over_the_folds(pruned_and_plain: Any) -> None:
    pruned, plain = pruned_and_plain
    losses = np.array([one.history["val_loss"] for one in plain.report_.trained]).reshape(5, 3, 5)
    for trial, of_folds in zip(pruned.study_.trials, losses, strict=True):
        steps = list(trial.intermediate_values)
        assert steps == list(range(1, {1: 2, 4: 1}.get(trial.number, 4) + 1))  # that after the last decides nothing
        expected = -of_folds.mean(axis=0)[: len(steps)]
        assert_allclose(list(trial.intermediate_values.values()), expected, atol=1e-5)


def test_accuracy_is_reported_as_it_is(cancer: Any) -> None:
    search = search_of(classifier(metrics=["accuracy"]), RATES, n_trials=2, pruner=Chosen({}), monitor="val_accuracy")
    search.fit(*cancer)
    for number, trial in enumerate(search.study_.trials):
        histories = [one.history["val_accuracy"] for one in search.report_.trained[3 * number : 3 * number + 3]]
        assert_allclose(list(trial.intermediate_values.values()), np.mean(histories, axis=0)[:4])


def test_validation_in_every_second_epoch_is_reported_there(cancer: Any) -> None:
    search = search_of(classifier(), RATES, n_trials=2, pruner=Chosen({0: 2})).fit(*cancer, validation_freq=2)
    assert [list(trial.intermediate_values) for trial in search.study_.trials] == [[2], [2, 4]]
    assert_array_equal(search.cv_results_["mean_n_epochs"], [2, 5])


def test_a_pruner_of_optuna(cancer: Any) -> None:
    pruner = optuna.pruners.PercentilePruner(50.0, n_startup_trials=2)
    search = search_of(classifier(), RATES, n_trials=8, batch_size=4, pruner=pruner, scoring="neg_log_loss")
    search.fit(*cancer)
    stopped = search.cv_results_["stopped_early"]
    assert 0 < stopped.sum() < 8
    assert not stopped[:4].any()  # when the first were trained there was nothing to compare them with
    assert search.best_score_ == search.study_.best_value
    assert search.best_score_ == search.cv_results_["mean_test_score"][~stopped].max()


def test_the_pruner_of_a_study_is_not_asked(cancer: Any) -> None:
    theirs = Chosen({0: 1, 1: 1, 2: 1})
    study = optuna.create_study(direction="maximize", pruner=theirs)
    search = search_of(classifier(validation_split=0.0), RATES, n_trials=2, random_state=None, study=study).fit(*cancer)
    assert states_of(search) == ["COMPLETE"] * 2
    assert study.pruner is theirs
    search = search_of(classifier(), RATES, n_trials=2, random_state=None, pruner=Chosen({}))
    search.set_params(study=optuna.create_study(direction="maximize", pruner=theirs)).fit(*cancer)
    assert states_of(search) == ["COMPLETE"] * 2
    assert search.study_.pruner is theirs


def test_rungs_prune_trials_too(cancer: Any) -> None:
    search = search_of(classifier(), RATES, n_trials=6, batch_size=6, early_stopping=Rungs(factor=3)).fit(*cancer)
    stopped = search.cv_results_["stopped_early"]
    assert 0 < stopped.sum() < 6
    assert [state == "PRUNED" for state in states_of(search)] == list(stopped)


# -- going on -------------------------------------------------------------------------------------------------------

KILLED = """
import os
import numpy as np
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB
from kerastoolkit.search import OptunaSearchCV

class Killed(GaussianNB):
    def fit(self, X, y):
        global fits
        fits += 1
        if fits > 8:  # two trials of three folds, and then in the midst of the next
            os._exit(0)
        return super().fit(X, y)

fits = 0
X, y = load_iris(return_X_y=True)
order = np.random.default_rng(0).permutation(len(X))
space = {"var_smoothing": stats.loguniform(1e-3, 1e3)}
OptunaSearchCV(
    Killed(), space, n_trials=4, batch_size=2, cv=3, random_state=0, study_name="killed"
).fit(X[order], y[order])
"""


class Counting(GaussianNB):  # type: ignore[misc]
    fits = 0

    def fit(self, X: Any, y: Any) -> Any:
        Counting.fits += 1
        return super().fit(X, y)


def test_a_search_that_was_killed_resumes(iris: Any, run_python: Any) -> None:
    run_python(KILLED)
    Counting.fits = 0
    search = quick(n_trials=5, study_name="killed").set_params(estimator=Counting()).fit(*iris)
    # The batch in training was lost; what was done counts.
    assert states_of(search) == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert Counting.fits == 3 * 3 + 1
    results = search.cv_results_
    assert list(results["trial_number"]) == [0, 1, 4, 5, 6]
    for params, split0, mean in zip(
        results["params"], results["split0_test_score"], results["mean_test_score"], strict=True
    ):
        alone = cross_val_score(GaussianNB(**params), *iris, cv=3)
        assert_allclose((split0, mean), (alone[0], alone.mean()))
    assert search.best_index_ == np.argmax(results["mean_test_score"])
    assert len({params["var_smoothing"] for params in results["params"]}) == 5  # the seed does not draw the same again
    assert "3 trials asked from the study 'killed'. 2 more had been trained before." in search.explain()


def test_a_search_that_is_done_only_fits_the_best(iris: Any) -> None:
    several = {"scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy", "return_train_score": True}
    first = quick(study_name="done", **several).fit(*iris)
    Counting.fits = 0
    again = clone(first).set_params(estimator=Counting()).fit(*iris)
    assert Counting.fits == 1
    assert again.best_params_ == first.best_params_
    assert set(again.cv_results_) == set(first.cv_results_)
    for column, values in first.cv_results_.items():
        if column != "params":
            assert_array_equal(again.cv_results_[column], values, err_msg=column)
    assert_array_equal(again.predict(iris[0]), first.predict(iris[0]))


@pytest.mark.parametrize(
    "stops", [{"pruner": Chosen({0: 1, 3: 2})}, {"early_stopping": "rungs"}], ids=["by a pruner", "at rungs"]
)
def test_trials_that_were_stopped_stay_stopped(cancer: Any, stops: Any) -> None:
    given = {"study_name": "stopped", "batch_size": 4, "scoring": "neg_log_loss", **stops}
    first = search_of(classifier(), RATES, n_trials=4, **given).fit(*cancer)
    assert first.cv_results_["stopped_early"].any()
    again = search_of(classifier(), RATES, n_trials=6, **given).fit(*cancer)
    assert len(again.report_.trained) == 2 * 3
    for column in ("stopped_early", "mean_n_epochs", "split2_n_epochs", "mean_test_score", "trial_number"):
        assert_array_equal(again.cv_results_[column][:4], first.cv_results_[column], err_msg=column)
    assert not again.cv_results_["stopped_early"][again.best_index_]


def test_later_trials_are_compared_with_those_before_at_the_rungs(cancer: Any) -> None:
    # The first trial is good; alone, the second would go on.
    study = optuna.create_study(direction="maximize")
    for rate in (0.03, 1e-5):
        study.enqueue_trial({"optimizer__learning_rate": rate})
        space = {"optimizer__learning_rate": FloatDistribution(1e-6, 1.0, log=True)}
        search = search_of(classifier(), space, n_trials=1, random_state=None, study=study, early_stopping="rungs")
        search.set_params(n_trials=len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) + 1).fit(*cancer)
    assert list(search.cv_results_["stopped_early"]) == [False, True]


def test_epochs_that_nobody_counted_are_not_known(cancer: Any) -> None:
    given = {"study_name": "watched later", "cv": 2}
    search_of(classifier(), RATES, n_trials=1, **given).fit(*cancer)
    again = search_of(classifier(), RATES, n_trials=2, pruner=Chosen({}), **given).fit(*cancer)
    assert_array_equal(again.cv_results_["mean_n_epochs"], [np.nan, 5])


def test_without_a_name_each_search_has_a_study_of_its_own(iris: Any, tmp_path: Path) -> None:
    first, second = (OptunaSearchCV(GaussianNB(), SMOOTHING, n_trials=1).fit(*iris) for _ in range(2))
    assert first.study_.study_name != second.study_.study_name
    assert [path.name for path in tmp_path.iterdir()] == ["kerastoolkit_optuna.db"]
    names = optuna.get_all_study_names("sqlite:///kerastoolkit_optuna.db")
    assert sorted(names) == sorted([first.study_.study_name, second.study_.study_name])
    assert f"study_name={first.study_.study_name!r}" in first.explain()


@pytest.mark.parametrize("kind", ["path", "text", "address", "object"])
def test_where_a_study_is_stored(iris: Any, tmp_path: Path, kind: str) -> None:
    address = f"sqlite:///{tmp_path.as_posix()}/own.db"
    storages = {
        "path": lambda: tmp_path / "own.db",
        "text": lambda: "own.db",
        "address": lambda: address,
        "object": lambda: optuna.storages.RDBStorage(address),
    }
    quick(storage=storages[kind](), study_name="a").fit(*iris)
    assert [path.name for path in tmp_path.iterdir()] == ["own.db"]
    assert len(optuna.load_study(study_name="a", storage=address).trials) == 4


@pytest.mark.parametrize("name", ["a?b.db", "a%3Fb.db", "a%b.db", "a#b.db", "{a} ä.db", "a?mode=memory", "file:a.db"])
def test_a_study_is_stored_in_the_file_that_is_named(iris: Any, tmp_path: Path, name: str) -> None:
    """Whatever its name would mean in a URL."""
    quick(storage="a", study_name="a").fit(*iris)
    search = quick(storage=name, study_name="a").fit(*iris)
    assert f"{search._summary}".count("had been trained before") == 0  # not those of the other file
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a", name])
    with closing(sqlite3.connect(tmp_path / name)) as file:
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (4,)
    assert "4 more had been trained before" in quick(storage=tmp_path / name, study_name="a").fit(*iris).explain()


@pytest.mark.parametrize("kind", ["tables", "application", "names", "text", "view", "URL", "default"])
def test_the_file_of_another_program_is_left_as_it_is(iris: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("kerastoolkit_optuna.db" if kind == "default" else "theirs.db")
    statement = {
        "application": "PRAGMA application_id = 7",
        "names": "CREATE TABLE trials (patient, drug)",
        "view": "CREATE VIEW trials AS SELECT 1 AS trial_id, 2 AS study_id, 3 AS state",
    }
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement.get(kind, "CREATE TABLE orders (amount)"))
    if kind == "text":
        path.write_text("date,amount\n")
    before = path.read_bytes()
    given = {"URL": {"storage": f"sqlite:///{path.as_posix()}"}, "default": {}}.get(kind, {"storage": path})
    with pytest.raises(SavedFileError, match=f"'.*{path.name}', (a database of another program|which cannot be read)"):
        OptunaSearchCV(GaussianNB(), SMOOTHING, n_trials=1, **given).fit(*iris)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_storage_that_leads_to_no_file_is_refused(iris: Any, tmp_path: Path) -> None:
    (tmp_path / "dangling.db").symlink_to(tmp_path / "somewhere.db")
    for path in (tmp_path, tmp_path / "dangling.db"):
        with pytest.raises(ParameterError, match="which is a folder, or a link to a missing file"):
            quick(storage=path).fit(*iris)
    assert not (tmp_path / "somewhere.db").exists()


def test_an_empty_file_becomes_that_of_a_study(iris: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert len(quick(storage="empty.db").fit(*iris).study_.trials) == 4


# What is done to the file of a study, and what the message says of it.
DAMAGES = {
    "a score": (
        "UPDATE trial_user_attributes SET value_json = "
        "replace(value_json, '\"test_scores\": 0.', '\"test_scores\": 0.1') WHERE rowid = 2",
        "Trial 1 of the study 'a' is damaged: it is not as it was written",
    ),
    "a parameter": ("UPDATE trial_params SET param_value = 1 WHERE rowid = 2", "Trial 1 .* is not as it was written"),
    "no record": ("UPDATE trial_user_attributes SET value_json = '[]' WHERE rowid = 2", "Trial 1 of .* is damaged"),
    "no JSON": ("UPDATE trial_user_attributes SET value_json = '{'", "which Optuna cannot read"),
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "is damaged: it has views, triggers or computed columns",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_study_that_is_not_as_it_was_written_is_refused(iris: Any, tmp_path: Path, what: str) -> None:
    quick(storage="own.db", study_name="a").fit(*iris)
    statement, message = DAMAGES[what]
    with closing(sqlite3.connect(tmp_path / "own.db")) as file, file:
        file.execute(statement)
    with pytest.raises(SavedFileError, match=message):
        quick(storage="own.db", study_name="a").fit(*iris)


def test_in_memory_there_is_no_file(iris: Any, tmp_path: Path) -> None:
    search = quick(storage=None).fit(*iris)
    assert len(search.study_.trials) == 4
    assert list(tmp_path.iterdir()) == []


def test_trials_of_another_origin_are_left_out(iris: Any) -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("var_smoothing", 1e-3, 1e3, log=True), n_trials=3)
    search = quick(study=study, random_state=None).fit(*iris)
    assert list(search.cv_results_["trial_number"]) == [3, 4, 5, 6]


def test_trials_of_another_space_are_left_out(iris: Any) -> None:
    quick(study_name="spaces").fit(*iris)
    search = quick(study_name="spaces", n_trials=2).set_params(param_distributions={"priors": [None]})
    search.fit(*iris)
    assert list(search.cv_results_["trial_number"]) == [4, 5]


@pytest.mark.parametrize(
    ("parameters", "rows", "different"),
    [
        ({"cv": 4}, 150, "folds (3, not 4)"),
        ({"scoring": "neg_log_loss"}, 150, "scoring (None, not 'neg_log_loss')"),
        ({"return_train_score": True}, 150, "train scores (False, not True)"),
        ({}, 140, "data"),
    ],
    ids=["folds", "scoring", "train scores", "data"],
)
def test_a_study_of_another_search_is_refused(iris: Any, parameters: Any, rows: int, different: str) -> None:
    quick(study_name="first").fit(*iris)
    X, y = iris
    with pytest.raises(ParameterError) as error:
        quick(study_name="first", **parameters).fit(X[:rows], y[:rows])
    assert str(error.value) == (
        f"The study 'first' is of another search, with other {different}: their scores cannot be compared. Give "
        "another `study_name`."
    )


def test_no_batch_begins_after_the_timeout(iris: Any) -> None:
    assert len(quick(n_trials=None, timeout=1e-9).fit(*iris).study_.trials) == 2  # one batch
    assert len(quick(n_trials=6, timeout=1000).fit(*iris).study_.trials) == 6


# -- what fails -----------------------------------------------------------------------------------------------------


class Fragile(GaussianNB):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> Any:
        if self.var_smoothing < 1:
            raise ArithmeticError("too small")
        return super().fit(X, y)


def fragile(values: list[float], **parameters: Any) -> OptunaSearchCV:
    """A search that tries values in their order."""
    study = optuna.create_study(direction="maximize")
    for value in values:
        study.enqueue_trial({"var_smoothing": value})
    given = {"n_trials": len(values), "batch_size": 2, "study": study, "random_state": None, **parameters}
    return search_of(Fragile(), {"var_smoothing": FloatDistribution(1e-3, 1e3, log=True)}, **given)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
@pytest.mark.parametrize("error_score", [np.nan, 0.0])
def test_a_trial_that_fails_is_told_to_the_study(iris: Any, error_score: float) -> None:
    search = fragile([0.1, 10.0, 20.0], error_score=error_score)
    with pytest.warns(Warning, match="too small"):
        search.fit(*iris)
    assert states_of(search) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert_array_equal(search.cv_results_["mean_test_score"][0], error_score)
    assert "3 trials asked from the study" in search.explain() and "1 failed" in search.explain()


def test_a_batch_that_fails_does_not_end_the_search(iris: Any) -> None:
    search = fragile([0.1, 0.2, 10.0, 20.0])
    with pytest.warns(Warning, match="A batch of trials failed: \nAll the 6 fits failed"):
        search.fit(*iris)
    assert states_of(search) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert list(search.cv_results_["trial_number"]) == [2, 3]


def test_if_all_fail_the_search_says_so(iris: Any) -> None:
    search = fragile([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="All the 3 fits failed"), pytest.warns(Warning, match="too small"):
        search.fit(*iris)
    assert [trial.state.name for trial in search.study.trials] == ["FAIL"] * 3


def test_no_trial_is_left_running_by_an_error(iris: Any) -> None:
    search = fragile([10.0, 20.0, 30.0, 0.1], error_score="raise")
    with pytest.raises(ArithmeticError, match="too small"):
        search.fit(*iris)
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    assert not hasattr(search, "study_")


def test_a_misspelt_parameter_ends_the_search(iris: Any) -> None:
    search = quick().set_params(param_distributions={"CC": [1.0, 2.0]})
    with pytest.raises(ValueError, match="Invalid parameter 'CC'"):
        search.fit(*iris)


# -- refusals -------------------------------------------------------------------------------------------------------


def _minimizing() -> Any:
    return optuna.create_study(study_name="down", direction="minimize")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_trials": 0}, "`n_trials` must be a whole number of at least 1, or None with a `timeout`; got 0."),
        ({"n_trials": 2.5}, "`n_trials` must be a whole number of at least 1, or None with a `timeout`; got 2.5."),
        ({"batch_size": None}, "`batch_size` must be a whole number of at least 1; got None."),
        ({"batch_size": True}, "`batch_size` must be a whole number of at least 1; got True."),
        ({"timeout": 0}, "`timeout` must be seconds, greater than 0, or None; got 0."),
        ({"n_trials": None}, "Without `n_trials` and `timeout` a search never ends. Give one of them."),
        ({"study": "first"}, "`study` must be an `optuna.Study`, or None; got 'first'."),
        (
            {"study": _minimizing, "study_name": "first"},
            "`study` brings its sampler, its name and its storage: give no `sampler`, `study_name` or `storage` "
            "beside it.",
        ),
        (
            {"study": _minimizing, "random_state": None},
            "The study 'down' must have one direction, \"maximize\", since higher scores are better; it has minimize.",
        ),
        ({"sampler": "tpe"}, "`sampler` must be one of `optuna.samplers`, or None; got 'tpe'."),
        ({"pruner": "median"}, "`pruner` must be one of `optuna.pruners`, or None; got 'median'."),
        (
            {"pruner": optuna.pruners.MedianPruner, "early_stopping": "rungs"},
            "`pruner` and `early_stopping` both decide which trials stop early. Give one of them.",
        ),
        (
            {"pruner": optuna.pruners.MedianPruner, "monitor": "val_purity"},
            "`monitor` of OptunaSearchCV is 'val_purity', a name that does not tell whether lower or higher "
            "values are better. Give mode='min' or mode='max'.",
        ),
        (
            {"sampler": optuna.samplers.RandomSampler},
            "`random_state` seeds the default sampler, which is not used here. Seed the sampler itself: "
            "`TPESampler(seed=0)`.",
        ),
        (
            {"scoring": ["accuracy", "neg_log_loss"], "refit": False},
            "`refit` must name the score that the trials are told, since `scoring` has several: 'accuracy', "
            "'neg_log_loss'; got False.",
        ),
        (
            {"param_distributions": [SMOOTHING]},
            "`param_distributions` must be a dict of distributions by name of parameter; got [{'var_smoothing': ",
        ),
        (
            {"param_distributions": {"var_smoothing": []}},
            "The parameter 'var_smoothing' of `param_distributions` is an empty list.",
        ),
        (
            {"storage": 3},
            "`storage` must be a path, the URL of a database, an Optuna storage, or None for memory; got 3.",
        ),
        ({"storage": "no/such/file.db"}, "`storage` is 'no/such/file.db', but there is no folder "),
        ({"early_stopping": "rung"}, "`early_stopping` must be 'rungs', a `Rungs` or None; got 'rung'."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(iris: Any, tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    given = {name: value() if callable(value) else value for name, value in parameters.items()}
    with pytest.raises(ParameterError) as error:
        quick().set_params(**given).fit(*iris)
    assert str(error.value).startswith(message)


def test_a_pruner_needs_what_it_compares(cancer: Any) -> None:
    study = optuna.create_study(direction="maximize")
    search = search_of(classifier(validation_split=0.0), RATES, n_trials=2, pruner=Chosen({}))
    search.set_params(study=study, random_state=None)
    with pytest.raises(ParameterError) as error:
        search.fit(*cancer)
    assert str(error.value) == (
        "The pruner compares 'val_loss', and a fit of this search has no validation data. Give the estimator "
        "`validation_split=0.2`, or compare another value with `monitor='loss'`."
    )
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


def test_an_error_of_the_pruner_is_raised_as_it_is(cancer: Any) -> None:
    class Broken(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            raise ArithmeticError("of the pruner")

    with pytest.raises(ArithmeticError, match="of the pruner"):
        search_of(classifier(), RATES, n_trials=2, pruner=Broken()).fit(*cancer)


def test_without_optuna_the_error_names_the_extra(iris: Any, monkeypatch: Any) -> None:
    search = OptunaSearchCV(GaussianNB(), {"var_smoothing": [1.0, 2.0]})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError) as error:
        search.fit(*iris)
    assert str(error.value) == (
        "OptunaSearchCV needs the package optuna, which is not installed. To install it: "
        'pip install "kerastoolkit[optuna]"'
    )


def test_a_search_inside_the_search_is_left_alone(iris: Any) -> None:
    inner = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 0.1, 1000.0]}, cv=2)
    space = {"estimator__priors": [None, [0.2, 0.3, 0.5]]}
    search = search_of(inner, space, n_trials=2, study_name="outer").fit(*iris)
    again = clone(search).fit(*iris)  # whose trials are recorded
    alone = clone(inner).set_params(**search.best_params_).fit(*iris)
    for one in (search, again):
        assert one.best_estimator_.best_params_ == alone.best_params_
        assert_array_equal(one.best_estimator_.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


# -- as an estimator ------------------------------------------------------------------------------------------------


def test_a_fitted_search_can_be_pickled_and_cloned(iris: Any) -> None:
    search = quick().fit(*iris)
    file = search.set_params(storage="own.db").fit(*iris)
    assert len(pickle.loads(pickle.dumps(file)).study_.trials) == 4
    again = pickle.loads(pickle.dumps(search))
    assert_array_equal(again.predict(iris[0]), search.predict(iris[0]))
    assert len(again.study_.trials) == 4
    assert not hasattr(clone(search), "study_")


def test_optuna_logs_only_if_asked(iris: Any) -> None:
    before = optuna.logging.get_verbosity()
    assert before == optuna.logging.INFO
    messages = []

    class Handler(optuna.logging.logging.Handler):  # type: ignore[misc,name-defined]
        def emit(self, record: Any) -> None:
            messages.append(record.getMessage())

    logger, handler = optuna.logging.get_logger("optuna"), Handler()
    logger.addHandler(handler)
    try:
        quick().fit(*iris)
        assert messages == []
        quick(verbose=1).fit(*iris)
        assert any("A new study created" in message for message in messages)
    finally:
        logger.removeHandler(handler)
    assert optuna.logging.get_verbosity() == before
