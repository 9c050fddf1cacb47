"""The tools of scikit-learn, each run with our estimators inside, on real data.

Beside running, each test holds a claim that fails when the tool was handed the wrong thing: wrong folds, wrong
methods, the same model twice. Where the tool's arithmetic is simple, it is done again by hand.
"""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from kerastoolkit import KerasClassifier, KerasRegressor

STEEP = {"optimizer": "adam", "optimizer__learning_rate": 0.05, "batch_size": 64}


def classifier(epochs: int = 5, **parameters: Any) -> KerasClassifier:
    """A small quick classifier, the same each time."""
    return KerasClassifier(**{"hidden": (6,), "epochs": epochs, "random_state": 0, **STEEP, **parameters})


def regressor(epochs: int = 5, **parameters: Any) -> KerasRegressor:
    """A small quick regressor, the same each time."""
    return KerasRegressor(**{"hidden": (6,), "epochs": epochs, "random_state": 0, **STEEP, **parameters})


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Thirty scaled features of 240 patients, and whether the tumour was benign, as text."""
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X)[:240], np.where(y == 1, "benign", "malignant")[:240]


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Ten scaled features of 240 patients, and the progress of the disease."""
    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X)[:240], y[:240]


# -- pipelines and tables ---------------------------------------------------------------------------------------------


def test_scikit_learn_knows_what_the_estimators_are() -> None:
    assert is_classifier(KerasClassifier()) and not is_regressor(KerasClassifier())
    assert is_regressor(KerasRegressor()) and not is_classifier(KerasRegressor())
    assert is_classifier(make_pipeline(StandardScaler(), KerasClassifier()))


def test_a_pipeline_scales_trains_and_predicts(iris: Any) -> None:
    X, y = load_iris(return_X_y=True)
    pipeline = Pipeline([("scale", StandardScaler()), ("net", classifier())]).fit(X, y)
    direct = classifier().fit(*iris)
    assert_allclose(pipeline.predict_proba(X), direct.predict_proba(iris[0]), atol=1e-6)
    assert pipeline.score(X, y) == direct.score(*iris) > 0.8
    assert_array_equal(pipeline.classes_, [0, 1, 2])
    assert pipeline[:1].transform(X).shape == X.shape


def test_a_column_transformer_feeds_numbers_and_text_of_a_table() -> None:
    diabetes = load_diabetes(as_frame=True, scaled=False).frame[:240]
    frame = diabetes.drop(columns="target").assign(sex=np.where(diabetes["sex"] == 1, "f", "m"))
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=True), ["sex"]),
        (StandardScaler(), ["age", "bmi", "bp", "s5"]),
        sparse_threshold=1.0,
    )
    model = make_pipeline(columns, regressor(15))
    scores = cross_val_score(model, frame, diabetes["target"], cv=KFold(2))
    assert scores.min() > 0.2
    assert model.fit(frame, diabetes["target"])[-1].n_features_in_ == 6
    with pytest.raises(ValueError, match="not numeric: 'sex'.*OneHotEncoder"):
        regressor().fit(frame, diabetes["target"])


def test_set_output_hands_the_network_a_table_whose_names_it_keeps() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), classifier(1)).set_output(transform="pandas").fit(X, y)
    assert_array_equal(pipeline[-1].feature_names_in_, X.columns)
    assert pipeline.predict(X).shape == (150,)
    assert not hasattr(pipeline[-1], "set_output")  # it transforms nothing


# -- folds, scores and curves -----------------------------------------------------------------------------------------


def share_of_hits(estimator: Any, X: Any, y: Any) -> float:
    return float(np.mean(estimator.predict(X) == y))


def test_several_scorers_judge_two_classes_at_once(cancer: Any) -> None:
    scoring = {
        "roc": "roc_auc",
        "loss": "neg_log_loss",
        "precision": make_scorer(
            sklearn.metrics.average_precision_score, response_method="predict_proba", pos_label="malignant"
        ),
        "f1": make_scorer(f1_score, pos_label="malignant"),
        "hits": share_of_hits,
        "accuracy": "accuracy",
    }
    folds = cross_validate(classifier(), *cancer, cv=2, scoring=scoring, return_estimator=True, return_indices=True)
    X, y = cancer
    for fold in range(2):
        scores = {name: folds[f"test_{name}"][fold] for name in scoring}
        assert min(scores["roc"], scores["precision"], scores["f1"]) > 0.8
        assert scores["hits"] == scores["accuracy"] > 0.8
        rows = folds["indices"]["test"][fold]
        probabilities = folds["estimator"][fold].predict_proba(X[rows])
        assert_allclose(scores["loss"], -log_loss(y[rows], probabilities))


def test_average_precision_by_name_scores_numbered_classes(cancer: Any) -> None:
    X, y = cancer
    scores = cross_validate(classifier(), X, y == "malignant", cv=2, scoring=["average_precision", "f1", "roc_auc"])
    assert min(scores["test_average_precision"].min(), scores["test_f1"].min(), scores["test_roc_auc"].min()) > 0.8


def test_several_scorers_judge_three_classes_at_once(iris: Any) -> None:
    scoring = ["roc_auc_ovr", "roc_auc_ovo_weighted", "neg_log_loss", "f1_macro", "top_k_accuracy", "average_precision"]
    scores = cross_validate(classifier(10), *iris, cv=2, scoring=scoring, error_score="raise")
    assert scores["test_roc_auc_ovr"].min() > 0.8
    assert scores["test_top_k_accuracy"].min() > 0.9
    assert scores["test_average_precision"].min() > 0.8
    assert scores["test_neg_log_loss"].max() < 0


def test_scorers_of_regression_judge_the_unit_of_the_target(diabetes: Any) -> None:
    scores = cross_validate(regressor(15), *diabetes, cv=2, scoring=["r2", "neg_root_mean_squared_error"])
    assert scores["test_r2"].min() > 0.2
    assert -80 < scores["test_neg_root_mean_squared_error"].min() < -20  # guessing the mean costs 77


@pytest.mark.parametrize("method", ["predict_proba", "predict", "decision_function"])
def test_cross_val_predict_puts_held_out_predictions_in_the_order_of_the_rows(cancer: Any, method: str) -> None:
    X, y = cancer
    folds = StratifiedKFold(2)
    predicted = cross_val_predict(classifier(2), X, y, cv=folds, method=method)
    assert predicted.shape == ((240, 2) if method == "predict_proba" else (240,))
    train, test = next(folds.split(X, y))
    expected = getattr(classifier(2).fit(X[train], y[train]), method)(X[test])
    if method == "predict":
        assert_array_equal(predicted[test], expected)
    else:
        assert_allclose(predicted[test], expected, rtol=1e-4, atol=1e-5)


def test_a_learning_curve_trains_on_more_and_more_rows(cancer: Any) -> None:
    sizes, train, test = learning_curve(
        classifier(), *cancer, cv=2, train_sizes=[0.25, 1.0], scoring="neg_log_loss", shuffle=True, random_state=0
    )
    assert_array_equal(sizes, [30, 120])
    assert train.shape == test.shape == (2, 2)
    assert test[1].mean() > test[0].mean()


def test_a_learning_curve_goes_on_training_where_incremental_learning_is_asked_for(cancer: Any) -> None:
    sizes, _, test = learning_curve(
        classifier(), *cancer, cv=2, train_sizes=[30, 60, 120], exploit_incremental_learning=True,
        scoring="neg_log_loss", shuffle=True, random_state=0,
    )  # fmt: skip
    assert_array_equal(sizes, [30, 60, 120])
    assert test[2].mean() > test[0].mean()


def test_a_validation_curve_varies_a_routed_parameter(cancer: Any) -> None:
    train, test = validation_curve(
        classifier(3), *cancer, param_name="optimizer__learning_rate", param_range=[1e-6, 0.05], cv=2
    )
    assert train.shape == test.shape == (2, 2)
    assert test[1].min() > test[0].max()


def test_successive_halving_gives_more_epochs_to_fewer_candidates(iris: Any) -> None:
    grid = {"optimizer__learning_rate": [1e-6, 0.05]}
    search = HalvingGridSearchCV(
        classifier(), grid, resource="epochs", min_resources=4, max_resources=8, factor=2, cv=2, random_state=0
    ).fit(*iris)
    assert search.n_resources_ == [4, 8]
    assert search.n_candidates_ == [2, 1]
    assert search.best_params_ == {"optimizer__learning_rate": 0.05, "epochs": 8}
    assert search.best_estimator_.n_iter_ == 8


# -- ensembles --------------------------------------------------------------------------------------------------------


def test_a_soft_vote_is_the_mean_of_the_probabilities(cancer: Any) -> None:
    X, y = cancer
    vote = VotingClassifier([("net", classifier()), ("line", LogisticRegression())], voting="soft").fit(X, y)
    net, line = vote.estimators_
    assert_allclose(vote.predict_proba(X), (net.predict_proba(X) + line.predict_proba(X)) / 2)
    assert vote.score(X, y) > 0.9


def test_a_hard_vote_counts_labels(iris: Any) -> None:
    members = [("one", classifier()), ("two", classifier(random_state=1)), ("line", LogisticRegression())]
    vote = VotingClassifier(members, voting="hard").fit(*iris)
    assert vote.score(*iris) > 0.8


def test_a_vote_of_regressors_is_their_mean(diabetes: Any) -> None:
    X, y = diabetes
    vote = VotingRegressor([("net", regressor()), ("line", LinearRegression())]).fit(X, y)
    net, line = vote.estimators_
    assert_allclose(vote.predict(X), (net.predict(X) + line.predict(X)) / 2)


def test_stacking_learns_from_held_out_probabilities(iris: Any) -> None:
    stack = StackingClassifier([("net", classifier()), ("line", LogisticRegression())], cv=2).fit(*iris)
    assert stack.stack_method_ == ["predict_proba", "predict_proba"]
    assert stack.final_estimator_.n_features_in_ == 6
    assert stack.score(*iris) > 0.9


def test_stacking_a_network_on_top_of_others(diabetes: Any) -> None:
    members = [("net", regressor()), ("line", LinearRegression())]
    stack = StackingRegressor(members, final_estimator=make_pipeline(StandardScaler(), regressor(20)), cv=2)
    assert isinstance(stack.fit(*diabetes).final_estimator_[-1], KerasRegressor)
    assert stack.score(*diabetes) > 0.2


def test_bagging_trains_on_draws_of_rows_and_columns(cancer: Any) -> None:
    X, y = cancer
    bag = BaggingClassifier(
        classifier(), n_estimators=2, max_features=0.5, max_samples=0.8, random_state=0, oob_score=False
    ).fit(X, y)
    assert [member.n_features_in_ for member in bag.estimators_] == [15, 15]
    first, second = bag.estimators_
    assert first.random_state != second.random_state
    pairs = zip(bag.estimators_, bag.estimators_features_, strict=True)
    parts = [member.predict_proba(X[:, columns]) for member, columns in pairs]
    assert_allclose(bag.predict_proba(X), np.mean(parts, axis=0))
    assert bag.score(X, y) > 0.9


def test_boosting_weighs_rows(cancer: Any) -> None:
    boost = AdaBoostClassifier(classifier(1), n_estimators=2, random_state=0).fit(*cancer)
    assert len(boost.estimators_) == 2
    assert not np.allclose(*(member.model_.get_weights()[0] for member in boost.estimators_))
    assert boost.score(*cancer) > 0.8


def test_boosting_regressors(diabetes: Any) -> None:
    boost = AdaBoostRegressor(regressor(10), n_estimators=2, random_state=0).fit(*diabetes)
    assert boost.score(*diabetes) > 0.2


# -- around one classifier --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration_in_folds_and_of_a_trained_network(cancer: Any, method: str) -> None:
    X, y = cancer
    trained = classifier(3).fit(X[:160], y[:160])
    for model in (CalibratedClassifierCV(FrozenEstimator(trained), method=method),) + (
        (CalibratedClassifierCV(classifier(3), method=method, cv=2),) if method == "sigmoid" else ()
    ):
        probabilities = model.fit(X[80:], y[80:]).predict_proba(X)
        assert_allclose(probabilities.sum(axis=1), 1)
        assert model.score(X, y) > 0.8


def test_a_fixed_threshold_moves_the_decision(cancer: Any) -> None:
    X, y = cancer
    model = FixedThresholdClassifier(
        classifier(3), threshold=0.9, pos_label="malignant", response_method="predict_proba"
    ).fit(X, y)
    sure = model.estimator_.predict_proba(X)[:, list(model.classes_).index("malignant")] >= 0.9
    assert_array_equal(model.predict(X) == "malignant", sure)
    assert sure.sum() < (model.estimator_.predict(X) == "malignant").sum()


def test_a_threshold_is_tuned_for_a_score(cancer: Any) -> None:
    scorer = make_scorer(f1_score, pos_label="malignant")
    model = TunedThresholdClassifierCV(classifier(3), scoring=scorer, cv=2, thresholds=20, random_state=0).fit(*cancer)
    assert 0 < model.best_threshold_ < 1
    assert model.best_score_ > 0.8


def test_self_training_adds_labels_that_it_is_sure_of(iris: Any) -> None:
    X, y = iris
    known = np.where(np.arange(150) % 3 == 0, y, -1)
    model = SelfTrainingClassifier(classifier(15), threshold=0.8, max_iter=1).fit(X, known)
    assert (model.transduction_ != -1).sum() > 50
    assert accuracy_score(y, model.predict(X)) > 0.8


# -- several targets, several classes ---------------------------------------------------------------------------------


def test_one_network_for_each_of_several_targets() -> None:
    X, y = load_digits(return_X_y=True)
    X, targets = X[:200] / 16, np.column_stack([y > 4, y % 2])[:200].astype(int)
    model = MultiOutputClassifier(classifier(10)).fit(X, targets)
    assert model.predict(X).shape == (200, 2)
    assert [part.shape for part in model.predict_proba(X)] == [(200, 2), (200, 2)]
    assert np.mean(model.predict(X) == targets) > 0.8


def test_a_chain_of_classifiers_hands_on_its_labels() -> None:
    X, y = load_digits(return_X_y=True)
    X, targets = X[:200] / 16, np.column_stack([y > 4, y > 6])[:200].astype(int)
    chain = ClassifierChain(classifier(10), order=[1, 0], random_state=0).fit(X, targets)
    assert [member.n_features_in_ for member in chain.estimators_] == [64, 65]
    assert np.mean(chain.predict(X) == targets) > 0.8
    assert chain.predict_proba(X).shape == (200, 2)


def test_one_regressor_for_each_of_several_targets() -> None:
    X, y = load_linnerud(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = MultiOutputRegressor(regressor(20)).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert len({tuple(member.head_.offset) for member in model.estimators_}) == 3
    chain = RegressorChain(make_pipeline(StandardScaler(), regressor(1)))  # each gets the targets before as they are
    assert chain.fit(X, y).predict(X).shape == y.shape


def test_one_against_the_rest(iris: Any) -> None:
    X, y = iris
    model = OneVsRestClassifier(classifier(8)).fit(X, y)
    assert [member.head_.kind for member in model.estimators_] == ["binary"] * 3
    assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X, y) > 0.7


def test_one_against_one(iris: Any) -> None:
    model = OneVsOneClassifier(classifier(8)).fit(*iris)
    assert len(model.estimators_) == 3
    assert model.score(*iris) > 0.8


def test_a_target_is_transformed_and_predictions_are_put_back(diabetes: Any) -> None:
    X, y = diabetes
    model = TransformedTargetRegressor(regressor(15), func=np.log, inverse_func=np.exp).fit(X, y)
    assert_allclose(model.predict(X), np.exp(model.regressor_.predict(X)))
    assert model.score(X, y) > 0.2


# -- looking into a model ---------------------------------------------------------------------------------------------


def test_permutation_importance_finds_the_columns_that_matter(iris: Any) -> None:
    X, y = iris
    X = np.column_stack([X[:, 2:], np.zeros(150)])  # the petals, and a column that says nothing
    model = classifier(15).fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=3, random_state=0)
    assert importance.importances_mean[2] == 0
    assert importance.importances_mean[:2].max() > 0.2


@pytest.mark.parametrize("make", [classifier, regressor])
def test_partial_dependence_is_the_mean_over_rows_with_one_column_set(make: Any, cancer: Any, diabetes: Any) -> None:
    X, y = cancer if make is classifier else diabetes
    model = make(3).fit(X, y)
    result = partial_dependence(model, X, [2], grid_resolution=4, method="auto", kind="both")
    (grid,) = result["grid_values"]
    for place, value in enumerate(grid):
        changed = X.copy()
        changed[:, 2] = value
        expected = model.predict_proba(changed)[:, 1] if make is classifier else model.predict(changed)
        assert_allclose(result["individual"][0, :, place], expected, rtol=1e-4)
        assert_allclose(result["average"][0, place], expected.mean(), rtol=1e-4)


# -- processes --------------------------------------------------------------------------------------------------------


def test_two_processes_give_the_scores_of_one(
    iris: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The build function lives in a module, as that of a user would.
    module = tmp_path / "models_for_two_processes.py"
    module.write_text(
        "import keras\n\n"
        "def build(width):\n"
        "    layers = [keras.Input((4,)), keras.layers.Dense(width, 'relu'), keras.layers.Dense(3, 'softmax')]\n"
        "    model = keras.Sequential(layers)\n"
        "    model.compile('adam', 'sparse_categorical_crossentropy')\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # The first import of Keras in a process may warn of things that are not ours.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    import models_for_two_processes
    from joblib.externals.loky import get_reusable_executor

    model = KerasClassifier(models_for_two_processes.build, width=4, epochs=2, random_state=0)
    try:
        apart = cross_val_score(model, *iris, cv=2, n_jobs=2, error_score="raise")
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert_allclose(apart, cross_val_score(model, *iris, cv=2), atol=1 / 75)


def test_two_threads_give_the_scores_of_one(iris: Any) -> None:
    import joblib

    with joblib.parallel_backend("threading", n_jobs=2):
        apart = cross_val_score(classifier(2), *iris, cv=2, error_score="raise")
    assert_array_equal(apart, cross_val_score(classifier(2), *iris, cv=2))


# -- metadata routing -------------------------------------------------------------------------------------------------


@pytest.fixture
def weights() -> np.ndarray:
    """One class of iris counts ten times as much as the others."""
    return np.where(np.arange(150) < 100, 1.0, 10.0)


def test_weights_are_routed_through_a_pipeline(iris: Any, weights: Any) -> None:
    X, y = iris
    expected = classifier(2).fit(X, y, sample_weight=weights).predict_proba(X)
    with sklearn.config_context(enable_metadata_routing=True):
        scale = StandardScaler(with_mean=False, with_std=False).set_fit_request(sample_weight=False)
        asking = make_pipeline(scale, classifier(2).set_fit_request(sample_weight=True))
        deaf = make_pipeline(scale, classifier(2).set_fit_request(sample_weight=False))
        assert_allclose(asking.fit(X, y, sample_weight=weights).predict_proba(X), expected, atol=1e-6)
        assert np.abs(deaf.fit(X, y).predict_proba(X) - expected).max() > 1e-3
        undecided = make_pipeline(scale, classifier(2))
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            undecided.fit(X, y, sample_weight=weights)


def test_weights_are_routed_through_a_search_to_fit_and_score(iris: Any, weights: Any) -> None:
    X, y = iris
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier(2).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"hidden": [(6,)]}, cv=2, error_score="raise").fit(X, y, sample_weight=weights)
        expected = classifier(2).fit(X, y, sample_weight=weights)
        assert_allclose(search.predict_proba(X), expected.predict_proba(X), atol=1e-6)
        assert search.score(X, y, sample_weight=weights) == expected.score(X, y, sample_weight=weights)
        scores = [search.cv_results_[f"split{fold}_test_score"][0] for fold in range(2)]
    for score, (train, test) in zip(scores, StratifiedKFold(2).split(X, y), strict=True):
        again = classifier(2).fit(X[train], y[train], sample_weight=weights[train])
        assert_allclose(score, accuracy_score(y[test], again.predict(X[test]), sample_weight=weights[test]))


def test_validation_data_and_classes_may_be_routed(iris: Any) -> None:
    X, y = iris
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(classifier(1).set_fit_request(validation_data=True))
        model.fit(X, y, validation_data=(X[::5], y[::5]))
    assert "val_loss" in model[-1].history_


def test_weights_reach_the_last_step_of_a_pipeline_without_routing(iris: Any, weights: Any) -> None:
    X, y = iris
    model = make_pipeline(StandardScaler(), classifier(2)).fit(X, y, kerasclassifier__sample_weight=weights)
    expected = classifier(2).fit(StandardScaler().fit_transform(X), y, sample_weight=weights)
    assert_allclose(model.predict_proba(X), expected.predict_proba(StandardScaler().fit_transform(X)), atol=1e-6)


# -- the estimator as an object ---------------------------------------------------------------------------------------


def test_parameters_are_reached_through_any_depth_and_kept_by_clone() -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("net", KerasClassifier(hidden=(3,), optimizer__clipnorm=1.0))])
    search = GridSearchCV(VotingClassifier([("deep", pipeline)]), {"deep__net__hidden": [(4,)]})
    copy = clone(search)
    copy.set_params(estimator__deep__net__optimizer__learning_rate=0.5, estimator__deep__net__dropout=0.25)
    parameters = copy.get_params()
    assert parameters["estimator__deep__net__optimizer__learning_rate"] == 0.5
    assert parameters["estimator__deep__net__optimizer__clipnorm"] == 1.0
    assert parameters["estimator__deep__net__hidden"] == (3,)
    assert clone(copy).get_params()["estimator__deep__net__dropout"] == 0.25
    assert "estimator__deep__net__dropout" not in search.get_params()
    with pytest.raises(ValueError, match="Did you mean 'dropout'"):
        copy.set_params(estimator__deep__net__dropuot=0.5)


def test_the_search_of_a_deep_parameter_trains_with_it(iris: Any) -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("net", classifier(1))])
    grid = {"estimator__net__hidden": [(2,)], "estimator__net__optimizer__learning_rate": [0.25]}
    bag = BaggingClassifier(pipeline, n_estimators=1, random_state=0)
    best = GridSearchCV(bag, grid, cv=2, error_score="raise").fit(*iris).best_estimator_.estimators_[0][-1]
    assert float(best.model_.optimizer.learning_rate) == 0.25
    assert best.model_.layers[1].units == 2


@pytest.mark.parametrize("fitted", [False, True])
def test_a_page_and_a_line_show_what_was_set_also_undeclared(iris: Any, fitted: bool) -> None:
    model = KerasClassifier(hidden=(3,), epochs=1, optimizer__learning_rate=0.5)
    if fitted:
        model.fit(*iris)
    page = model._repr_html_()
    for name in ("hidden", "epochs", "optimizer__learning_rate"):
        assert name in page
        assert name in repr(model)
    assert "verbose" not in repr(model)
    assert "KerasClassifier" in make_pipeline(StandardScaler(), model)._repr_html_()
    assert ("Not fitted" in page) is not fitted


def test_a_table_of_pandas_goes_through_folds_with_its_names(cancer: Any) -> None:
    X = pd.DataFrame(cancer[0], columns=[f"feature {number}" for number in range(30)])
    y = pd.Series(cancer[1], name="kind")
    folds = cross_validate(classifier(1), X, y, cv=2, return_estimator=True)
    for estimator in folds["estimator"]:
        assert_array_equal(estimator.feature_names_in_, X.columns)
        assert_array_equal(estimator.classes_, ["benign", "malignant"])


def test_a_keras_model_may_be_the_parameter_in_every_fold(iris: Any) -> None:
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    network.compile("sgd", "sparse_categorical_crossentropy")
    before = network.get_weights()
    folds = cross_validate(KerasClassifier(network, epochs=2), *iris, cv=2, return_estimator=True, error_score="raise")
    for estimator in folds["estimator"]:
        assert int(estimator.model_.optimizer.iterations) == 2 * 3  # 75 rows in batches of 32, not going on
    for weights, untouched in zip(network.get_weights(), before, strict=True):
        assert_array_equal(weights, untouched)
