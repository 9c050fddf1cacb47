"""What scikeras documents, one feature a test: the rows of docs/coming_from_scikeras.md.

scikeras itself is only imported in fresh processes: importing it changes classes of Keras for the whole process.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.callbacks import Callback, EarlyStopping, LearningRateScheduler, TerminateOnNaN
from keras.losses import BinaryCrossentropy, SparseCategoricalCrossentropy
from keras.metrics import AUC, BinaryAccuracy, R2Score
from keras.optimizers import SGD, Adam
from keras.optimizers.schedules import ExponentialDecay
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, from_scikeras
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training import isolated

X, y = make_classification(60, 6, n_informative=4, random_state=0)
X3, y3 = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
Y_NUMBER = X @ np.arange(1.0, 7.0) / 5


def get_clf(meta: dict[str, Any], hidden_layer_sizes: tuple[int, ...] = (4,), dropout: float = 0.0) -> keras.Model:
    """The build function of scikeras' notebooks: sized by `meta`, not compiled."""
    model = keras.Sequential([keras.Input((meta["n_features_in_"],))])
    for size in hidden_layer_sizes:
        model.add(keras.layers.Dense(size, activation="relu"))
        model.add(keras.layers.Dropout(dropout))
    binary = meta["target_type_"] == "binary"
    units, activation = (1, "sigmoid") if binary else (meta["n_classes_"], "softmax")
    model.add(keras.layers.Dense(units, activation=activation))
    return model


def get_reg(meta: dict[str, Any]) -> keras.Model:
    return keras.Sequential(
        [keras.Input((meta["n_features_in_"],)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)]
    )


def compiled(optimizer: str = "adam") -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def classifier(**parameters: Any) -> KerasClassifier:
    return KerasClassifier(**{"model": get_clf, "loss": "binary_crossentropy", "batch_size": 20, **parameters})


def metrics_of(model: keras.Model) -> list[Any]:
    """The metrics a model was compiled with, flat."""
    parts = [metric for metric in model.metrics if hasattr(metric, "metrics")]
    return [metric for part in parts for metric in part.metrics]


# -- building ---------------------------------------------------------------------------------------------------------


def test_arguments_are_stored_as_they_are_and_nothing_is_built() -> None:
    rate = np.float32(0.5)
    estimator = KerasClassifier(get_clf, dropout=rate, optimizer=SGD)
    assert estimator.model is get_clf and estimator.dropout is rate and estimator.optimizer is SGD
    assert not hasattr(estimator, "model_")
    assert clone(estimator).get_params() == estimator.get_params()


def test_the_build_function_is_given_meta_params_and_arguments() -> None:
    seen: dict[str, Any] = {}

    def build(hidden_layer_dim: int, meta: Any, params: Any) -> keras.Model:
        seen.update(hidden_layer_dim=hidden_layer_dim, meta=meta, params=params)
        return get_clf(meta)

    KerasClassifier(build, loss="sparse_categorical_crossentropy", hidden_layer_dim=7, epochs=1).fit(X3, y3)
    assert seen["hidden_layer_dim"] == 7
    assert seen["params"]["hidden_layer_dim"] == 7 and seen["params"]["model"] is build
    expected = {
        "X_shape_": (60, 6), "X_dtype_": X3.dtype, "y_dtype_": y3.dtype, "y_ndim_": 1, "n_features_in_": 6,
        "n_classes_": 3, "n_outputs_": 1, "n_outputs_expected_": 1, "target_type_": "multiclass",
    }  # fmt: skip
    assert {name: seen["meta"][name] for name in expected} == expected
    assert_array_equal(seen["meta"]["classes_"], [0, 1, 2])


@pytest.mark.parametrize(
    ("target", "kind", "outputs"),
    [
        (y, "binary", 1),
        (np.where(y == 1, "yes", "no"), "binary", 1),
        (y3, "multiclass", 1),
        (np.eye(3)[y3], "multiclass-onehot", 1),
        (np.column_stack([y, 1 - y, y3 > 0]).astype(int), "multilabel-indicator", 1),
    ],
    ids=["binary", "text", "multiclass", "one-hot", "multilabel"],
)
def test_every_kind_of_target_that_scikeras_lists_is_learned(target: Any, kind: str, outputs: int) -> None:
    def build(meta: dict[str, Any]) -> keras.Model:
        assert (meta["target_type_"], meta["n_outputs_expected_"]) == (kind, outputs)
        units = 1 if kind == "binary" else meta["n_classes_"]
        activation = "sigmoid" if kind in ("binary", "multilabel-indicator") else "softmax"
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(units, activation=activation)])

    loss = "categorical_crossentropy" if "multiclass" in kind else "binary_crossentropy"
    estimator = KerasClassifier(build, loss=loss, epochs=1).fit(X, target)
    assert estimator.predict(X).shape == target.shape
    assert estimator.predict_proba(X).shape == (60, 2 if kind == "binary" else 3)


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_are_learned_one_or_several(columns: int) -> None:
    target = Y_NUMBER if columns == 1 else np.column_stack([Y_NUMBER, -Y_NUMBER])

    def build(meta: dict[str, Any]) -> keras.Model:
        assert meta["target_type_"] == ("continuous" if columns == 1 else "continuous-multioutput")
        assert meta["n_outputs_"] == columns
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(meta["n_outputs_"])])

    estimator = KerasRegressor(build, loss="mse", epochs=1).fit(X, target)
    assert estimator.predict(X).shape == target.shape


def test_compile_kwargs_hold_made_objects_and_the_model_is_not_compiled_again() -> None:
    seen: dict[str, Any] = {}

    def build(meta: dict[str, Any], compile_kwargs: dict[str, Any]) -> keras.Model:
        seen.update(compile_kwargs)
        model = get_clf(meta)
        model.compile(loss="binary_crossentropy", optimizer=compile_kwargs["optimizer"])
        seen["model"], seen["compiled by"] = model, model.optimizer
        return model

    parameters = {"optimizer": "sgd", "optimizer__momentum": 0.5, "loss": BinaryCrossentropy, "metrics": "AUC"}
    estimator = KerasClassifier(build, **parameters, loss__label_smoothing=0.1).fit(X, y)
    assert isinstance(seen["optimizer"], SGD) and seen["optimizer"].momentum == 0.5
    assert isinstance(seen["loss"], BinaryCrossentropy)
    assert isinstance(seen["metrics"], list)
    assert estimator.model_ is seen["model"] and estimator.model_.optimizer is seen["compiled by"]


def test_a_function_that_takes_any_keywords_is_given_its_own() -> None:
    def build(meta: dict[str, Any], **options: Any) -> keras.Model:
        assert options["hidden"] == 3
        return get_clf(meta, hidden_layer_sizes=(options["hidden"],))

    estimator = classifier(model=build, hidden=3).fit(X, y)
    assert estimator.model_.layers[0].units == 3


def test_a_function_of_any_keywords_finds_those_of_scikeras_that_it_reads() -> None:
    def build(**options: Any) -> keras.Model:
        model = get_clf(options["meta"], hidden_layer_sizes=(options["params"]["hidden"],))
        model.compile(**{name: options["compile_kwargs"][name] for name in ("loss", "optimizer", "metrics")})
        return model

    def others(hidden: int, **options: Any) -> keras.Model:
        assert not options  # what a function does not read, it may not know what to do with
        return get_clf({"n_features_in_": 6, "target_type_": "binary"}, hidden_layer_sizes=(hidden,))

    for function in (build, others):
        assert classifier(model=function, hidden=3).fit(X, y).model_.layers[0].units == 3


@pytest.mark.parametrize(
    "model",
    [functools.partial(get_clf, hidden_layer_sizes=(9,)), compiled, compiled()],
    ids=["partial", "compiled", "keras.Model"],
)
def test_partial_functions_compiled_and_ready_models_are_taken(model: Any) -> None:
    estimator = KerasClassifier(model, loss="binary_crossentropy")
    assert clone(estimator).fit(X, y).predict(X).shape == (60,)


@keras.saving.register_keras_serializable("parity")
class Subclassed(keras.Model):
    """A model by subclassing, its layer's size given to the constructor."""

    def __init__(self, units: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.last = keras.layers.Dense(1, activation="sigmoid")

    def build(self, input_shape: Any) -> None:
        self.hidden.build(input_shape)
        self.last.build((None, self.units))
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.last(self.hidden(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("model", [Subclassed, lambda units: Subclassed(units)], ids=["class", "function"])
def test_subclassed_models_are_taken(model: Any) -> None:
    estimator = KerasClassifier(model, loss="binary_crossentropy", units=5).fit(X, y)
    assert isinstance(estimator.model_, Subclassed) and estimator.model_.hidden.units == 5
    copied = pickle.loads(pickle.dumps(estimator.set_params(model=Subclassed)))
    assert_allclose(copied.predict_proba(X), estimator.predict_proba(X), atol=1e-6)


# -- subclassing the estimators ---------------------------------------------------------------------------------------


class MLPClassifier(KerasClassifier):
    """The class that scikeras' notebook ends with, its base changed."""

    def __init__(
        self, hidden_layer_sizes: tuple[int, ...] = (100,), optimizer: Any = "adam",
        optimizer__learning_rate: float = 0.001, epochs: int = 200, verbose: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.hidden_layer_sizes = hidden_layer_sizes
        self.optimizer = optimizer
        self.epochs = epochs
        self.verbose = verbose

    def _keras_build_fn(self, compile_kwargs: dict[str, Any]) -> keras.Model:
        model = keras.Sequential([keras.Input((self.n_features_in_,))])
        for size in self.hidden_layer_sizes:
            model.add(keras.layers.Dense(size, activation="relu"))
        binary = self.target_type_ == "binary"
        units, activation = (1, "sigmoid") if binary else (self.n_classes_, "softmax")
        model.add(keras.layers.Dense(units, activation=activation))
        loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
        model.compile(loss=loss, optimizer=compile_kwargs["optimizer"])
        return model


class MLPRegressor(KerasRegressor):
    """A subclass with nothing but its own parameters."""

    def __init__(self, hidden_layer_sizes: tuple[int, ...] = (100,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_layer_sizes = hidden_layer_sizes

    def _keras_build_fn(self, compile_kwargs: dict[str, Any]) -> keras.Model:
        model = keras.Sequential([keras.Input((self.n_features_in_,))])
        for size in self.hidden_layer_sizes:
            model.add(keras.layers.Dense(size, activation="relu"))
        model.add(keras.layers.Dense(1))
        model.compile(loss="mse", optimizer=compile_kwargs["optimizer"])
        return model


@pytest.mark.parametrize("target", [y, y3], ids=["binary", "multiclass"])
def test_a_subclass_builds_from_its_own_and_learned_attributes(target: Any) -> None:
    estimator = clone(MLPClassifier(hidden_layer_sizes=(5, 3), epochs=2)).fit(X, target)
    assert [layer.units for layer in estimator.model_.layers[:2]] == [5, 3]
    assert isinstance(estimator.model_.optimizer, Adam) and estimator.n_iter_ == 2
    assert estimator.score(X, target) > 0


def test_routed_parameters_that_a_subclass_declares_take_effect() -> None:
    # scikeras drops these in silence: its documented class trains at 0.001 whatever it is told.
    estimator = MLPClassifier(hidden_layer_sizes=(), epochs=1, optimizer__learning_rate=0.25)
    assert_allclose(float(clone(estimator).fit(X, y).model_.optimizer.learning_rate), 0.25)
    changed = clone(MLPClassifier(epochs=1).set_params(optimizer__learning_rate=0.5))
    assert_allclose(float(changed.fit(X, y).model_.optimizer.learning_rate), 0.5)
    assert_allclose(float(MLPClassifier(epochs=1).fit(X, y).model_.optimizer.learning_rate), 0.001)


def test_a_subclass_is_searched_over_declared_and_routed_parameters() -> None:
    grid = {"hidden_layer_sizes": [(3,)], "optimizer__learning_rate": [0.125]}
    search = GridSearchCV(MLPRegressor(epochs=1), grid, cv=2, error_score="raise").fit(X, Y_NUMBER)
    model = search.best_estimator_.model_
    assert model.layers[0].units == 3 and float(model.optimizer.learning_rate) == 0.125


class MultiOutputTransformer(TransformerMixin, BaseEstimator):
    """Splits a target of two columns for a model of two outputs, as in scikeras' notebook."""

    def fit(self, y: Any) -> MultiOutputTransformer:
        self.encoders_ = [LabelEncoder().fit(column) for column in y.T]
        self.n_classes_ = [len(encoder.classes_) for encoder in self.encoders_]
        return self

    def transform(self, y: Any) -> list[Any]:
        return [encoder.transform(column) for encoder, column in zip(self.encoders_, y.T, strict=True)]

    def inverse_transform(self, y: list[Any], return_proba: bool = False) -> Any:
        if return_proba:
            return np.column_stack(y)
        numbers = [(y[0] > 0.5).astype(int).ravel(), np.argmax(y[1], axis=1)]
        return np.column_stack([e.inverse_transform(n) for e, n in zip(self.encoders_, numbers, strict=True)])

    def get_metadata(self) -> dict[str, Any]:
        return {"n_classes_": self.n_classes_, "n_outputs_expected_": 2}


def two_outputs(meta: dict[str, Any]) -> keras.Model:
    inputs = keras.Input((meta["n_features_in_"],))
    binary = keras.layers.Dense(1, activation="sigmoid")(inputs)
    several = keras.layers.Dense(meta["n_classes_"][1], activation="softmax")(inputs)
    model = keras.Model(inputs, [binary, several])
    model.compile(optimizer="adam", loss=["binary_crossentropy", "sparse_categorical_crossentropy"])
    return model


def test_an_overridden_target_encoder_encodes_decodes_and_tells_its_metadata() -> None:
    class MultiOutputClassifier(KerasClassifier):
        @property
        def target_encoder(self) -> Any:
            return MultiOutputTransformer()

        @staticmethod
        def scorer(y_true: Any, y_pred: Any, **options: Any) -> float:
            return float(np.mean(y_true == y_pred))

    target = np.column_stack([y, y3])
    estimator = MultiOutputClassifier(model=two_outputs, random_state=0).fit(X, target)
    assert estimator.n_classes_ == [2, 3] and estimator.n_outputs_expected_ == 2
    assert_array_equal(estimator.target_encoder_.encoders_[1].classes_, [0, 1, 2])
    assert estimator.predict(X).shape == (60, 2) and estimator.predict_proba(X).shape == (60, 4)
    assert estimator.score(X, target) == np.mean(estimator.predict(X) == target)


class YesOrNo(TransformerMixin, BaseEstimator):
    """Text as numbers, for one output."""

    def fit(self, y: Any) -> YesOrNo:
        self.labels_ = LabelEncoder().fit(y)
        return self

    def transform(self, y: Any) -> Any:
        return self.labels_.transform(y)[:, None]

    def inverse_transform(self, y: Any, return_proba: bool = False) -> Any:
        return np.hstack([1 - y, y]) if return_proba else self.labels_.inverse_transform((y[:, 0] > 0.5).astype(int))

    def get_metadata(self) -> dict[str, Any]:
        return {"classes_": self.labels_.classes_, "n_classes_": 2, "n_outputs_expected_": 1}


NAMES = np.where(y == 1, "yes", "no")


def test_a_build_function_beside_an_encoder_reads_that_there_is_no_loss() -> None:
    class Encoded(KerasClassifier):
        @property
        def target_encoder(self) -> Any:
            return YesOrNo()

    def build(meta: dict[str, Any], compile_kwargs: dict[str, Any]) -> keras.Model:
        assert compile_kwargs["metrics"] is None and compile_kwargs["run_eagerly"] is False
        model = get_clf({**meta, "target_type_": "binary"})
        model.compile(loss=compile_kwargs["loss"] or "hinge", optimizer=compile_kwargs["optimizer"])
        return model

    assert Encoded(build).fit(X, NAMES).model_.loss == "hinge"
    given = Encoded(build, loss="binary_crossentropy", random_state=0).fit(X, NAMES)
    assert given.model_.loss == "binary_crossentropy"
    assert_allclose(given.predict_proba(X)[:, 1], given.model_.predict(X, verbose=0)[:, 0], atol=1e-6)


def test_a_subclass_chooses_its_encoder_by_what_is_known_of_the_target() -> None:
    class Chooses(KerasClassifier):
        @property
        def target_encoder(self) -> Any:
            assert self.classes_ is None and self.y_ndim_ == 1 and self.n_features_in_ == 6
            return YesOrNo() if self.y_dtype_.kind == "U" else super().target_encoder

    named, numbered = (Chooses(get_clf, loss="binary_crossentropy").fit(X, target) for target in (NAMES, y))
    assert isinstance(named.target_encoder_, YesOrNo) and set(named.predict(X)) <= {"yes", "no"}
    assert not isinstance(numbered.target_encoder_, YesOrNo) and numbered.predict(X).dtype == y.dtype

    class Mistyped(KerasClassifier):
        @property
        def target_encoder(self) -> Any:
            return self.encoder_that_is_not_there

    with pytest.raises(AttributeError, match="encoder_that_is_not_there"):  # and not trained without it
        Mistyped(get_clf, loss="binary_crossentropy").fit(X, NAMES)


def test_without_encoders_those_of_the_known_names_do_what_the_estimator_does() -> None:
    estimator = KerasClassifier(get_clf).fit(X3, y3 + 5)
    raw = estimator.model_.predict(X3, verbose=0)
    assert_array_equal(estimator.target_encoder_.inverse_transform(raw), estimator.predict(X3))
    shares = estimator.target_encoder_.inverse_transform(raw, return_proba=True)
    assert_allclose(shares, estimator.predict_proba(X3), atol=1e-6)
    assert_array_equal(estimator.target_encoder_.transform(y3 + 5), y3)
    assert estimator.feature_encoder_.transform(X3) is X3


def test_without_an_encoder_several_targets_need_nothing_but_two_outputs() -> None:
    target = np.column_stack([y, y3])
    estimator = KerasClassifier(two_outputs).fit(X, target)
    assert estimator.n_classes_ == [2, 3]
    assert estimator.predict(X).shape == (60, 2)
    assert [part.shape for part in estimator.predict_proba(X)] == [(60, 2), (60, 3)]


def two_inputs() -> keras.Model:
    inputs = [keras.Input((3,), name="left"), keras.Input((3,), name="right")]
    hidden = [keras.layers.Dense(4, activation="relu")(part) for part in inputs]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(hidden)))
    model.compile(loss="mse", optimizer="adam")
    return model


def test_an_overridden_feature_encoder_splits_one_array_into_several_inputs() -> None:
    class MultiInputRegressor(KerasRegressor):
        @property
        def feature_encoder(self) -> Any:
            return FunctionTransformer(func=lambda X: [X[:, :3], X[:, 3:]])

    estimator = MultiInputRegressor(model=two_inputs, random_state=0, validation_split=0.2).fit(X, Y_NUMBER)
    assert estimator.n_features_in_ == 6 and len(estimator.history_["val_loss"]) == 1
    expected = estimator.model_.predict([X[:, :3], X[:, 3:]], verbose=0)
    assert_allclose(estimator.predict(X), expected[:, 0], rtol=1e-5)


def test_an_overridden_feature_encoder_gives_flat_rows_the_shape_of_images() -> None:
    class MultiDimensionalClassifier(KerasClassifier):
        @property
        def feature_encoder(self) -> Any:
            return FunctionTransformer(func=lambda X: X.reshape(X.shape[0], 8, 8, 1))

    def build() -> keras.Model:
        layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential([*layers, keras.layers.Softmax()])
        model.compile(loss="sparse_categorical_crossentropy")
        return model

    pixels, digit = load_digits(return_X_y=True)
    estimator = MultiDimensionalClassifier(build, batch_size=64, random_state=0).fit(pixels[:200] / 16, digit[:200])
    assert estimator.predict(pixels[:5] / 16).shape == (5,)


def inputs_as(form: str) -> Any:
    return {"dict": {"left": X[:, :3], "right": X[:, 3:]}, "list": [X[:, :3], X[:, 3:]]}[form]


@pytest.mark.parametrize("form", ["dict", "list"])
def test_without_an_encoder_several_inputs_are_a_dict_or_list(form: str) -> None:
    estimator = KerasRegressor(two_inputs).fit(inputs_as(form), Y_NUMBER)
    assert estimator.predict(inputs_as(form)).shape == (60,)


def test_an_autoencoder_is_a_regressor_of_its_input() -> None:
    class AutoEncoder(TransformerMixin, KerasRegressor):  # type: ignore[misc]
        def _keras_build_fn(self, encoding_dim: int, meta: dict[str, Any]) -> keras.Model:
            inputs = keras.Input((meta["n_features_in_"],))
            code = keras.layers.Dense(encoding_dim, activation="relu")(inputs)
            self.encoder_model_ = keras.Model(inputs, code)
            return keras.Model(inputs, keras.layers.Dense(meta["n_features_in_"])(code))

        def fit(self, X: Any, y: Any = None, **options: Any) -> AutoEncoder:
            return super().fit(X, X, **options)

        def transform(self, X: Any) -> Any:
            return self.encoder_model_.predict(X, verbose=0)

    estimator = AutoEncoder(loss="mse", encoding_dim=2, epochs=3, optimizer="adam")
    assert estimator.fit_transform(X).shape == (60, 2)
    assert estimator.predict(X).shape == X.shape
    assert_allclose(estimator.encoder_model_.get_weights()[0], estimator.model_.get_weights()[0])


# -- routing: optimizer, loss, metrics --------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["sgd", "SGD", SGD], ids=["lower", "upper", "class"])
def test_options_reach_an_optimizer_given_by_name_or_class(spelling: Any) -> None:
    estimator = classifier(optimizer=spelling, optimizer__learning_rate=0.05, optimizer__nesterov=True).fit(X, y)
    assert isinstance(estimator.model_.optimizer, SGD) and estimator.model_.optimizer.nesterov
    assert_allclose(float(estimator.model_.optimizer.learning_rate), 0.05)


def test_an_optimizer_given_as_an_instance_is_used_and_stays_unused() -> None:
    given = SGD(learning_rate=0.5)
    estimator = classifier(optimizer=given).fit(X, y)
    assert_allclose(float(estimator.model_.optimizer.learning_rate), 0.5)
    assert int(estimator.model_.optimizer.iterations) == 3 and int(given.iterations) == 0


def test_options_nest_below_a_class_given_as_an_option() -> None:
    estimator = classifier(
        optimizer="sgd", optimizer__learning_rate=ExponentialDecay,
        optimizer__learning_rate__initial_learning_rate=0.5, optimizer__learning_rate__decay_steps=3,
        optimizer__learning_rate__decay_rate=0.5,
    ).fit(X, y)  # fmt: skip
    assert_allclose(float(estimator.model_.optimizer.learning_rate), 0.25)


@pytest.mark.parametrize("spelling", [BinaryCrossentropy, "binary_crossentropy"], ids=["class", "name"])
def test_options_reach_a_loss(spelling: Any) -> None:
    estimator = classifier(loss=spelling, loss__label_smoothing=0.25).fit(X, y)
    assert isinstance(estimator.model_.loss, BinaryCrossentropy)
    assert estimator.model_.loss.get_config()["label_smoothing"] == 0.25


def test_a_loss_is_taken_as_an_instance_or_a_function() -> None:
    given = BinaryCrossentropy(label_smoothing=0.5)
    assert classifier(loss=given).fit(X, y).model_.loss.get_config()["label_smoothing"] == 0.5
    assert classifier(loss=keras.losses.binary_crossentropy).fit(X, y).model_.loss is keras.losses.binary_crossentropy


def two_logits() -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, [keras.layers.Dense(1, name="out1")(inputs), keras.layers.Dense(3, name="out2")(inputs)])


LOSSES = [BinaryCrossentropy, SparseCategoricalCrossentropy]


@pytest.mark.parametrize(
    ("loss", "name"), [(LOSSES, "0"), (dict(zip(["out1", "out2"], LOSSES, strict=True)), "out1")], ids=["list", "dict"]
)
def test_options_reach_all_losses_or_one(loss: Any, name: str) -> None:
    options = {"loss__from_logits": True, f"loss__{name}__from_logits": True, f"loss__{name}__label_smoothing": 0.5}
    target = {"out1": y, "out2": y3} if isinstance(loss, dict) else np.column_stack([y, y3])
    estimator = KerasClassifier(two_logits, loss=loss, **options).fit(X, target)
    first, second = estimator.model_.loss.values() if isinstance(loss, dict) else estimator.model_.loss
    assert first.get_config()["from_logits"] and second.get_config()["from_logits"]
    assert first.get_config()["label_smoothing"] == 0.5
    assert {part.output for part in estimator.head_.heads} == {"logit"}


@pytest.mark.parametrize(
    ("metrics", "options"),
    [
        (BinaryAccuracy, {"metrics__threshold": 0.65}),
        ([BinaryAccuracy, AUC], {"metrics__0__threshold": 0.65}),
        (["binary_accuracy", "AUC"], {"metrics__0__threshold": 0.65}),
        ({"out": BinaryAccuracy}, {"metrics__out__threshold": 0.65}),
        ({"out": [BinaryAccuracy, AUC]}, {"metrics__out__0__threshold": 0.65}),
        ([[BinaryAccuracy, AUC]], {"metrics__0__0__threshold": 0.65}),
    ],
    ids=["class", "list", "names", "dict", "dict-of-lists", "nested-list"],
)
def test_options_reach_metrics(metrics: Any, options: dict[str, Any]) -> None:
    def build() -> keras.Model:
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="out")(inputs))

    estimator = classifier(model=build, metrics=metrics, **options).fit(X, y)
    found = [metric for metric in metrics_of(estimator.model_) if isinstance(metric, BinaryAccuracy)]
    assert [metric.get_config()["threshold"] for metric in found] == [0.65]


def test_metrics_of_a_regressor_are_taken_as_classes() -> None:
    estimator = KerasRegressor(get_reg, loss="mse", metrics=[R2Score]).fit(X, Y_NUMBER)
    assert "r2_score" in estimator.history_


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {"compile__run_eagerly": True},
        {"weighted_metrics": ["accuracy"], "compile__run_eagerly": True},
    ],
    ids=["bare", "routed", "weighted_metrics"],
)
def test_other_arguments_of_compile_arrive(options: dict[str, Any]) -> None:
    assert classifier(**options).fit(X, y).model_.run_eagerly


def test_options_are_searched_through_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), classifier(optimizer="adam", model__dropout=0.5))
    grid = {
        "kerasclassifier__optimizer__learning_rate": [0.125],
        "kerasclassifier__model__hidden_layer_sizes": [(3, 2)],
        "kerasclassifier__model__dropout": [0.25],
        "kerasclassifier__loss": ["binary_crossentropy"],
    }
    search = GridSearchCV(pipeline, grid, cv=2, scoring="accuracy", error_score="raise").fit(X, y)
    model = search.best_estimator_[-1].model_
    assert [layer.units for layer in model.layers[::2]] == [3, 2, 1] and model.layers[1].rate == 0.25
    assert float(model.optimizer.learning_rate) == 0.125
    assert search.predict_proba(X).shape == (60, 2)


# -- routing: fit, predict, callbacks ---------------------------------------------------------------------------------


class Batches(Callback):
    """Notes how many batches and epochs it saw, per kind of run."""

    log: dict[str, list[int]] = {}

    def __init__(self, name: str = "log") -> None:
        super().__init__()
        self.name = name

    def _note(self, kind: str, number: int) -> None:
        Batches.log.setdefault(f"{self.name}.{kind}", []).append(number)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._note("epoch", epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._note("train", batch)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._note("predict", batch)


@pytest.fixture
def log() -> dict[str, list[int]]:
    Batches.log.clear()
    return Batches.log


def test_batch_sizes_are_routed_to_fit_and_predict_apart(log: dict[str, list[int]]) -> None:
    estimator = classifier(
        batch_size=None, fit__batch_size=30, predict__batch_size=15,
        fit__callbacks=Batches, predict__callbacks=Batches,
    )  # fmt: skip
    estimator.fit(X, y).predict(X)
    assert log["log.train"] == [0, 1] and log["log.predict"] == [0, 1, 2, 3]


def test_a_batch_size_of_minus_one_is_all_rows(log: dict[str, list[int]]) -> None:
    estimator = classifier(batch_size=-1, validation_batch_size=-1, validation_split=0.5, callbacks=Batches)
    assert estimator.fit(X, y).predict(X).shape == (60,)
    assert log["log.train"] == [0]


def test_arguments_in_the_call_come_before_those_of_the_estimator() -> None:
    estimator = classifier(epochs=1, fit__epochs=2)
    assert estimator.fit(X, y).n_iter_ == 2
    assert estimator.fit(X, y, epochs=3, batch_size=60).n_iter_ == 3
    assert estimator.predict(X, batch_size=7).shape == (60,)
    assert estimator.predict_proba(X, batch_size=7, verbose=0).shape == (60, 2)


@pytest.mark.parametrize("spelling", ["validation_split", "fit__validation_split"])
def test_a_validation_split_is_routed(spelling: str) -> None:
    estimator = classifier(metrics=["binary_accuracy"], **{spelling: 0.25}).fit(X, y)
    assert len(estimator.history_["val_binary_accuracy"]) == 1
    assert int(estimator.model_.optimizer.iterations) == 3  # 45 rows in batches of 20


@pytest.mark.parametrize(
    ("parameters", "seen"),
    [({"fit__initial_epoch": 1, "epochs": 3}, [1, 2]), ({"steps_per_epoch": 2, "epochs": 1}, [0])],
    ids=["initial_epoch", "steps_per_epoch"],
)
def test_other_arguments_of_fit_arrive(parameters: dict[str, Any], seen: list[int], log: dict[str, list[int]]) -> None:
    classifier(**parameters, callbacks=Batches).fit(X, y)
    assert log["log.epoch"] == seen


@pytest.mark.parametrize(
    ("callbacks", "options"),
    [
        (EarlyStopping, {"": {"monitor": "loss", "min_delta": 1e6}}),
        ([TerminateOnNaN, EarlyStopping], {"1__": {"monitor": "loss", "min_delta": 1e6}}),
        ({"nan": TerminateOnNaN, "es": EarlyStopping}, {"es__": {"monitor": "loss", "min_delta": 1e6}}),
        ({"all": [TerminateOnNaN(), EarlyStopping(monitor="loss", min_delta=1e6)]}, {}),
        ([EarlyStopping(monitor="loss", min_delta=1e6)], {}),
        (EarlyStopping(monitor="loss", min_delta=1e6), {}),
    ],
    ids=["class", "list", "dict", "dict-of-lists", "instances", "instance"],
)
def test_callbacks_are_given_in_every_form(callbacks: Any, options: dict[str, Any]) -> None:
    routed = {f"callbacks__{place}{name}": value for place, below in options.items() for name, value in below.items()}
    # No epoch is a million better than the first: the second is the last.
    assert classifier(callbacks=callbacks, **routed, epochs=5).fit(X, y).n_iter_ == 2


def test_callbacks_of_fit_and_predict_have_options_of_their_own(log: dict[str, list[int]]) -> None:
    estimator = classifier(
        callbacks=Batches, callbacks__name="training", fit__callbacks=Batches, fit__callbacks__name="fitting",
        predict__callbacks=Batches, predict__callbacks__name="predicting", predict__batch_size=30,
    )  # fmt: skip
    estimator.fit(X, y).predict(X)
    assert len(log["training.train"]) == len(log["fitting.train"]) == 3
    assert len(log["predicting.predict"]) == 2
    assert "fitting.predict" not in log and "predicting.train" not in log


class Schedule:
    """A rate for every epoch; its options are routed, too."""

    def __init__(self, wait_until_epoch: int = 1, coef: float = 0.1) -> None:
        self.wait_until_epoch, self.coef = wait_until_epoch, coef

    def __call__(self, epoch: int, rate: float) -> float:
        return rate if epoch < self.wait_until_epoch else rate * self.coef


def test_a_number_routes_to_a_positional_argument() -> None:
    estimator = classifier(
        optimizer="sgd", optimizer__learning_rate=0.5, callbacks=LearningRateScheduler, callbacks__0=Schedule,
        callbacks__0__coef=0.5, epochs=3,
    ).fit(X, y)  # fmt: skip
    assert_allclose(float(estimator.model_.optimizer.learning_rate), 0.125)


def test_a_custom_callback_may_skip_the_constructor_of_keras() -> None:
    class MaxValLoss(Callback):
        def __init__(self, monitor: str, threshold: float) -> None:
            self.monitor, self.threshold = monitor, threshold

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = logs[self.monitor] > self.threshold

    callback = MaxValLoss(monitor="val_loss", threshold=0.0)
    estimator = classifier(callbacks=[callback], epochs=4, fit__validation_split=0.2).fit(X, y)
    assert estimator.n_iter_ == 1


# -- training on, attributes, scores ----------------------------------------------------------------------------------


def test_partial_fit_trains_one_epoch_more_and_counts_on(log: dict[str, list[int]]) -> None:
    estimator = classifier(epochs=2, callbacks=Batches).fit(X, y)
    model = estimator.model_
    estimator.partial_fit(X, y).partial_fit(X, y)
    assert estimator.model_ is model and len(estimator.history_["loss"]) == estimator.current_epoch == 4
    assert log["log.epoch"] == [0, 1, 2, 3]  # schedules and checkpoints by epoch go on where they were
    assert estimator.fit(X, y).current_epoch == 2


def test_partial_fit_takes_all_classes_in_its_first_call() -> None:
    estimator = classifier(loss="sparse_categorical_crossentropy")
    estimator.partial_fit(X[:10], y3[:10].clip(0, 1), classes=[0, 1, 2])
    assert_array_equal(estimator.partial_fit(X, y3).classes_, [0, 1, 2])


def test_warm_start_goes_on_and_fit_without_it_starts_anew() -> None:
    estimator = classifier(warm_start=True).fit(X, y)
    model = estimator.model_
    assert estimator.fit(X, y).model_ is model
    assert int(model.optimizer.iterations) == 6
    assert estimator.set_params(warm_start=False).fit(X, y).model_ is not model


def test_what_fit_learned_is_in_attributes_of_the_known_names() -> None:
    estimator = classifier(loss="sparse_categorical_crossentropy")
    assert not estimator.initialized_ and estimator.current_epoch == 0
    estimator.fit(X3, y3)
    assert estimator.initialized_ and estimator.current_epoch == 1
    assert (estimator.X_shape_, estimator.X_dtype_, estimator.y_dtype_) == ((60, 6), X3.dtype, y3.dtype)
    assert (estimator.target_type_, estimator.n_outputs_, estimator.n_outputs_expected_) == ("multiclass", 1, 1)
    assert (estimator.n_features_in_, estimator.n_classes_) == (6, 3)
    assert isinstance(estimator.history_, dict) and isinstance(estimator.model_, keras.Model)


def test_initialize_makes_a_trained_model_ready_without_training(tmp_path: Path) -> None:
    trained = KerasRegressor(get_reg, loss="mse").fit(X, Y_NUMBER)
    trained.model_.save(tmp_path / "model.keras")
    estimator = KerasRegressor(keras.saving.load_model(tmp_path / "model.keras"))
    assert estimator.initialize(X, Y_NUMBER) is estimator and estimator.initialized_
    assert estimator.current_epoch == 0
    assert_allclose(estimator.predict(X), trained.predict(X), rtol=1e-6)
    assert estimator.partial_fit(X, Y_NUMBER).current_epoch == 1


def test_initialize_builds_a_classifier_that_knows_its_classes() -> None:
    estimator = classifier(random_state=0).initialize(X, np.where(y == 1, "yes", "no"))
    assert set(estimator.predict(X)) <= {"yes", "no"}
    assert int(estimator.model_.optimizer.iterations) == 0


def test_scores_are_accuracy_and_r2() -> None:
    labels = np.where(y == 1, "yes", "no")
    fitted = classifier().fit(X, labels)
    assert_allclose(fitted.score(X, labels), np.mean(fitted.predict(X) == labels))
    regressor = KerasRegressor(get_reg, loss="mse").fit(X, Y_NUMBER)
    residual = np.sum((Y_NUMBER - regressor.predict(X)) ** 2)
    assert_allclose(regressor.score(X, Y_NUMBER), 1 - residual / np.sum((Y_NUMBER - Y_NUMBER.mean()) ** 2), rtol=1e-6)


def test_an_overridden_scorer_scores_and_takes_routed_options() -> None:
    class Own(KerasClassifier):
        @staticmethod
        def scorer(y_true: Any, y_pred: Any, factor: float = 1.0, **options: Any) -> float:
            return factor * len(y_pred)

    assert Own(get_clf).fit(X, y).score(X, y) == 60
    assert Own(get_clf, score__factor=2.0).fit(X, y).score(X, y) == 120


def test_options_below_score_reach_the_scorer() -> None:
    assert classifier(score__normalize=False).fit(X, y).score(X, y) > 1


@pytest.mark.parametrize("class_weight", [{0: 0.0, 1: 1.0}, "balanced"], ids=["dict", "balanced"])
def test_class_weights_count(class_weight: Any) -> None:
    skewed = y.copy()
    skewed[:25] = 1
    estimator = classifier(
        class_weight=class_weight, epochs=20, optimizer="adam", optimizer__learning_rate=0.1, random_state=0
    ).fit(X, skewed)
    by_hand = np.where(skewed == 1, 1.0, 0.0) if class_weight != "balanced" else 30 / np.bincount(skewed)[skewed]
    same = estimator.get_params() | {"class_weight": None}
    weighted = KerasClassifier(**same).fit(X, skewed, sample_weight=by_hand)
    assert_allclose(estimator.predict_proba(X), weighted.predict_proba(X), atol=1e-6)


def test_sample_weights_count_and_zero_takes_a_row_out() -> None:
    weights = np.r_[np.ones(40), np.zeros(20)]
    weighted = classifier(random_state=0, epochs=3, shuffle=False).fit(X, y, sample_weight=weights)
    without = classifier(random_state=0, epochs=3, shuffle=False).fit(X[:40], y[:40])
    assert_allclose(weighted.predict_proba(X), without.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="zero"):
        classifier().fit(X, y, sample_weight=np.zeros(60))


@pytest.mark.parametrize("make", [lambda: 0, lambda: np.random.RandomState(0)], ids=["int", "RandomState"])
def test_a_random_state_repeats_a_fit_and_leaves_the_process_alone(make: Callable[[], Any]) -> None:
    first = classifier(random_state=make(), model__dropout=0.5).fit(X, y)
    before = np.random.get_state()[1].copy()
    second = classifier(random_state=make(), model__dropout=0.5).fit(X, y)
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert_array_equal(before, np.random.get_state()[1])
    classifier(model__dropout=0.5).fit(X, y)  # scikeras left the process unable to do this


def test_pickling_keeps_the_training_state() -> None:
    # Without shuffling: on torch, Keras draws one order of rows more for a model that was just loaded.
    estimator = classifier(optimizer="adam", shuffle=False).fit(X, y)
    copied = pickle.loads(pickle.dumps(estimator))
    assert_allclose(copied.predict_proba(X), estimator.predict_proba(X), atol=1e-7)
    assert int(copied.model_.optimizer.iterations) == 3
    assert_allclose(copied.partial_fit(X, y).predict_proba(X), estimator.partial_fit(X, y).predict_proba(X), atol=1e-6)


def test_ensembles_hold_networks_of_their_own() -> None:
    member = MLPClassifier(hidden_layer_sizes=(8,), epochs=8, optimizer__learning_rate=0.05, random_state=0)
    for ensemble in (AdaBoostClassifier(member, n_estimators=2), BaggingClassifier(member, n_estimators=2)):
        ensemble.set_params(random_state=0).fit(X, y)
        first, second = (part.model_.get_weights()[0] for part in ensemble.estimators_)
        assert not np.allclose(first, second)


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_sparse_features_come_out_of_an_encoder(dtype: Any) -> None:
    category = (np.arange(60) % 20)[:, None]
    pipeline = make_pipeline(OneHotEncoder(sparse_output=True, dtype=dtype), KerasRegressor(get_reg, loss="mse"))
    assert pipeline.fit(category, Y_NUMBER).predict(category).shape == (60,)
    assert pipeline[-1].n_features_in_ == 20


@pytest.mark.backend("tensorflow")
def test_tensorflow_data_sets_are_read_which_scikeras_cannot() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X.astype("float32"), y)).batch(20)
    estimator = classifier().fit(data)
    assert_allclose(estimator.predict(data), estimator.predict(X))


def test_wide_arrays_of_images_and_sequences_are_taken() -> None:
    def build(meta: dict[str, Any]) -> keras.Model:
        shape = meta["X_shape_"][1:]
        return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])

    for shape in ((3, 2), (3, 2, 1)):
        assert classifier(model=build).fit(X.reshape(60, *shape), y).model_.input_shape == (None, *shape)


# -- differences on purpose -------------------------------------------------------------------------------------------


def test_difference_an_unset_optimizer_and_loss_leave_the_compiled_ones() -> None:
    estimator = KerasClassifier(compiled, model__optimizer="sgd").fit(X, y)
    assert estimator.optimizer is None and isinstance(estimator.model_.optimizer, SGD)


def test_difference_an_explicit_optimizer_or_loss_replaces_the_compiled_one() -> None:
    def build() -> keras.Model:
        return compiled()

    estimator = KerasClassifier(build, optimizer="sgd", loss="hinge").fit(X, y)
    assert isinstance(estimator.model_.optimizer, SGD) and estimator.model_.loss == "hinge"


def test_difference_a_loss_need_not_be_named() -> None:
    assert KerasClassifier(get_clf).fit(X3, y3).model_.loss == "sparse_categorical_crossentropy"


def test_difference_training_is_silent_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    classifier().fit(X, y).predict(X)
    assert capsys.readouterr().out == ""
    classifier(verbose=2).fit(X, y)
    assert "loss" in capsys.readouterr().out


def test_difference_a_ready_model_is_copied_for_every_fit() -> None:
    given = compiled()
    before = given.get_weights()[0].copy()
    estimator = KerasClassifier(given, epochs=2).fit(X, y)
    assert estimator.model_ is not given
    assert_array_equal(given.get_weights()[0], before)


def test_difference_arguments_of_the_build_function_need_no_declaration() -> None:
    estimator = classifier().set_params(dropout=0.5)
    assert estimator.fit(X, y).model_.layers[1].rate == 0.5


def test_difference_a_build_function_that_names_optimizer_is_given_it() -> None:
    assert isinstance(KerasClassifier(compiled, optimizer="sgd").fit(X, y).model_.optimizer, SGD)


def test_difference_unknown_names_are_refused_with_the_near_miss() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'dropout'"):
        classifier(dropuot=0.5).fit(X, y)
    with pytest.raises(ParameterError, match="Did you mean 'learning_rate'"):
        classifier(optimizer="sgd", optimizer__learn_rate=0.5).fit(X, y)


def test_difference_options_reach_callbacks_given_as_instances_by_their_class() -> None:
    estimator = classifier(
        callbacks=[EarlyStopping(monitor="loss", min_delta=1e6)], callbacks__early_stopping__patience=2, epochs=9
    ).fit(X, y)
    assert estimator.n_iter_ == 3


def test_difference_history_has_the_names_of_keras() -> None:
    estimator = KerasRegressor(get_reg, loss="mse", metrics=["mae"]).fit(X, Y_NUMBER)
    assert set(estimator.history_) == {"loss", "mae"}


def test_difference_callbacks_watch_training_and_not_predicting(log: dict[str, list[int]]) -> None:
    classifier(callbacks=Batches).fit(X, y).predict(X)
    assert "log.train" in log and "log.predict" not in log


def test_difference_probabilities_keep_two_axes_for_one_row() -> None:
    assert classifier().fit(X, y).predict_proba(X[:1]).shape == (1, 2)


def test_difference_other_number_types_are_cast_and_other_columns_refused() -> None:
    estimator = classifier().fit(X.astype("float32"), y)
    assert estimator.predict(X.astype("float64")).shape == (60,)
    with pytest.raises(ValueError, match="5 features"):
        estimator.predict(X[:, :5])


def test_difference_a_validation_split_is_drawn_and_holds_every_class() -> None:
    order = np.argsort(y)
    seen: list[np.ndarray] = []

    class Watch(KerasClassifier):
        def _fit_arguments(self, *arguments: Any) -> dict[str, Any]:
            made = super()._fit_arguments(*arguments)
            seen.append(np.asarray(made["validation_data"][1]).ravel())
            return made

    Watch(get_clf, validation_split=0.2).fit(X[order], y[order])
    assert set(seen[0]) == {0.0, 1.0}


def test_difference_partial_fit_takes_epochs() -> None:
    assert classifier().partial_fit(X, y, epochs=2).current_epoch == 2


def test_difference_importing_and_fitting_leaves_the_classes_of_keras_alone(run_python: Any) -> None:
    run_python(
        """
import keras
before = {kind: dict(vars(kind)) for kind in (keras.Model, keras.optimizers.Optimizer, keras.losses.Loss)}
from kerastoolkit import KerasClassifier
KerasClassifier(hidden=(2,), epochs=1).fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
for kind, members in before.items():
    assert dict(vars(kind)) == members, kind
import sys
assert "scikeras" not in sys.modules
"""
    )


# -- the bridge -------------------------------------------------------------------------------------------------------

BRIDGE = """
import warnings; warnings.simplefilter("ignore")
import numpy as np
import keras
import scikeras.wrappers as theirs_
from sklearn.datasets import make_classification
from kerastoolkit import KerasClassifier, KerasRegressor, from_scikeras

X, y = make_classification(60, 6, n_informative=4, random_state=0)
X3, y3 = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
number = X @ np.arange(1.0, 7.0)

def dense(units, activation=None):
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(units, activation=activation)])

def refused(estimator, message):
    try:
        from_scikeras(estimator)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError("was not refused")
"""


@pytest.fixture
def bridge(run_python: Any) -> Callable[[str], None]:
    """Runs a program that has scikeras, in a process of its own."""
    return lambda program: run_python(BRIDGE + program)


@pytest.mark.backend("tensorflow")
def test_a_fitted_scikeras_estimator_predicts_the_same_afterwards(bridge: Any) -> None:
    bridge(
        """
cases = {
    "binary": (y, 1, "sigmoid", "binary_crossentropy"),
    "text": (np.where(y == 1, "yes", "no"), 1, "sigmoid", "binary_crossentropy"),
    "two units": (y, 2, "softmax", "sparse_categorical_crossentropy"),
    "multiclass": (y3 + 5, 3, "softmax", "sparse_categorical_crossentropy"),
    "categorical": (y3, 3, "softmax", "categorical_crossentropy"),
    "one-hot": (np.eye(3)[y3], 3, "softmax", "categorical_crossentropy"),
    "multilabel": (np.column_stack([y, 1 - y, y3 > 0]).astype(int), 3, "sigmoid", "binary_crossentropy"),
}
for name, (target, units, activation, loss) in cases.items():
    theirs = theirs_.KerasClassifier(dense, units=units, activation=activation, loss=loss, verbose=0, epochs=2)
    theirs.fit(X, target)
    ours = from_scikeras(theirs)
    assert type(ours) is KerasClassifier, name
    assert ours.model_ is not theirs.model_
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X), err_msg=name)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6, err_msg=name)
    assert ours.history_.keys() == dict(theirs.history_).keys() and ours.n_iter_ == 2
    assert ours.score(X, target) == theirs.score(X, target), name
    assert ours.partial_fit(X, target).n_iter_ == 3
    ours.fit(X, target)
    assert type(ours.model_.optimizer).__name__ == "RMSprop", name  # the default of scikeras, not ours

for target, units in ((number, 1), (np.column_stack([number, -number]), 2)):
    theirs = theirs_.KerasRegressor(dense, units=units, loss="mse", verbose=0).fit(X, target)
    ours = from_scikeras(theirs)
    assert type(ours) is KerasRegressor
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)
    assert ours.predict(X).shape == target.shape
    assert ours.partial_fit(X, target).n_iter_ == 2
"""
    )


@pytest.mark.backend("tensorflow")
def test_everything_that_scikeras_hands_to_a_build_function_is_handed_over(bridge: Any) -> None:
    bridge(
        """
handed = {}

def build(meta, compile_kwargs, params):
    handed[current] = set(meta), set(compile_kwargs), set(params)
    numbers = meta["target_type_"].startswith("continuous")
    units = meta["n_outputs_"] if numbers else 1 if meta["target_type_"] == "binary" else meta["n_classes_"]
    activation = None if numbers else "softmax" if meta["target_type_"].startswith("multiclass") else "sigmoid"
    model = dense(units, activation)
    model.compile(optimizer=compile_kwargs["optimizer"], loss=compile_kwargs["loss"], metrics=compile_kwargs["metrics"])
    return model

cases = {
    "binary": ("KerasClassifier", y, "binary_crossentropy", {}),
    "text": ("KerasClassifier", np.where(y == 1, "yes", "no"), "binary_crossentropy", {"metrics": "accuracy"}),
    "multiclass": ("KerasClassifier", y3, "sparse_categorical_crossentropy", {"compile__loss_weights": [1.0]}),
    "one-hot": ("KerasClassifier", np.eye(3)[y3], "categorical_crossentropy", {"run_eagerly": True}),
    "multilabel": ("KerasClassifier", np.column_stack([y, 1 - y, y]), "binary_crossentropy", {}),
    "number": ("KerasRegressor", number, "mse", {"optimizer": "sgd", "optimizer__momentum": 0.5}),
    "numbers": ("KerasRegressor", np.column_stack([number, -number]), "mse", {"compile__weighted_metrics": ["mae"]}),
}
for name, (kind, target, loss, more) in cases.items():
    for ours, module in enumerate((theirs_, __import__("kerastoolkit"))):
        current = name, ours
        getattr(module, kind)(build, loss=loss, verbose=0, epochs=1, **more).fit(X, target)
    for theirs, of_ours in zip(handed[name, 0], handed[name, 1]):
        assert theirs <= of_ours, (name, theirs - of_ours)
"""
    )


@pytest.mark.backend("tensorflow")
def test_an_unfitted_scikeras_estimator_keeps_its_parameters_and_trains_the_same_optimizer(bridge: Any) -> None:
    bridge(
        """
import functools

def compiled(units=1):
    model = dense(units, "sigmoid")
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="binary_crossentropy")
    return model

def delegated():
    return compiled()

def own(meta, compile_kwargs):
    model = dense(1, "sigmoid")
    model.compile(loss="binary_crossentropy", optimizer=compile_kwargs["optimizer"])
    return model

plain = functools.partial(dense, 1, "sigmoid")
loss = "binary_crossentropy"
cases = [
    (theirs_.KerasClassifier(compiled), "SGD"),
    (theirs_.KerasClassifier(delegated), "SGD"),
    (theirs_.KerasClassifier(functools.partial(compiled, units=1)), "SGD"),
    (theirs_.KerasClassifier(compiled()), "SGD"),
    (theirs_.KerasClassifier(own), "RMSprop"),
    (theirs_.KerasClassifier(plain, loss=loss), "RMSprop"),
    (theirs_.KerasClassifier(plain, loss=loss, optimizer="adam"), "Adam"),
    (theirs_.KerasClassifier(own, optimizer="nadam"), "Nadam"),
    (theirs_.KerasClassifier(build_fn=plain, loss=loss), "RMSprop"),
]
for number_, (theirs, optimizer) in enumerate(cases):
    ours = from_scikeras(theirs).set_params(verbose=0)
    assert not hasattr(ours, "model_")
    assert type(ours.fit(X, y).model_.optimizer).__name__ == optimizer, number_
    theirs.set_params(verbose=0).fit(X, y)
    assert type(theirs.model_.optimizer).__name__ == optimizer, number_  # as scikeras itself

theirs = theirs_.KerasClassifier(
    dense, units=1, activation="sigmoid", loss=keras.losses.BinaryCrossentropy, loss__label_smoothing=0.25,
    optimizer="sgd", optimizer__learning_rate=0.125, epochs=2, batch_size=30, class_weight="balanced",
    callbacks=keras.callbacks.EarlyStopping, callbacks__monitor="loss", random_state=0, verbose=0,
)
ours = from_scikeras(theirs)
given = theirs.get_params()
kept = ours.get_params()
assert {name: kept[name] for name in given if name != "run_eagerly"} == {
    name: value for name, value in given.items() if name != "run_eagerly"
}
ours.fit(X, y)
assert float(ours.model_.optimizer.learning_rate) == 0.125 and ours.n_iter_ == 2
"""
    )


@pytest.mark.backend("tensorflow")
def test_what_the_bridge_cannot_take_over_is_refused(bridge: Any) -> None:
    bridge(
        """
from sklearn.preprocessing import FunctionTransformer

class Encoded(theirs_.KerasRegressor):
    @property
    def feature_encoder(self):
        return FunctionTransformer()

class Subclass(theirs_.KerasClassifier):
    def _keras_build_fn(self):
        return dense(1, "sigmoid")

class Scored(theirs_.KerasClassifier):
    @staticmethod
    def scorer(y_true, y_pred, **options):
        return 1.0

refused(Encoded(dense), "feature_encoder")
refused(Subclass(loss="binary_crossentropy"), "_keras_build_fn")
refused(Scored(dense), "scorer")
refused(theirs_.BaseWrapper(dense), "BaseWrapper")
"""
    )


SEARCHED = """
import sys
import warnings
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from kerastoolkit import search
from kerastoolkit.exceptions import KerasToolkitWarning

X, y = load_iris(return_X_y=True)
folds = list(model_selection.StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))

def build(meta, hidden=8):
    # Drawn from seeds of their own, since the two draw from the seed of a fit in another order.
    first, last = (keras.initializers.GlorotUniform(seed=seed) for seed in (1, 2))
    return keras.Sequential([
        keras.Input((meta["n_features_in_"],)),
        keras.layers.Dense(hidden, activation="relu", kernel_initializer=first),
        keras.layers.Dense(meta["n_classes_"], activation="softmax", kernel_initializer=last),
    ])

def estimator(kind=theirs_.KerasClassifier, **parameters):
    # `fit__shuffle=False` for the same reason. With `verbose=1`, as by default, scikeras prints a bar for each fit.
    return kind(build, model__hidden=8, loss="sparse_categorical_crossentropy", optimizer="adam",
                optimizer__learning_rate=0.01, epochs=5, fit__shuffle=False, **parameters)

def fitted(one):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        one.fit(X, y)
    return [str(note.message) for note in told if note.category is KerasToolkitWarning]
"""


@pytest.mark.backend("tensorflow")
def test_a_search_takes_over_a_scikeras_estimator_and_finds_the_same(bridge: Any) -> None:
    bridge(
        SEARCHED
        + """
for holder, start, place in (
    (estimator(), "", ""),
    (make_pipeline(StandardScaler(), Pipeline([("net", estimator())])), "pipeline__net__", "pipeline__net"),
):
    grid = {f"{start}model__hidden": [4, 16], f"{start}optimizer__learning_rate": [0.01, 0.1]}
    ours = search.GridSearchCV(holder, grid, cv=folds, scoring="accuracy")
    (note,) = fitted(ours)
    assert "KerasClassifier of scikeras. The search takes it over" in note and (not place or repr(place) in note), note
    assert "12 fits trained together" in ours.explain(), ours.explain()
    quiet = clone(holder).set_params(**{f"{start}verbose": 0})
    theirs = model_selection.GridSearchCV(quiet, grid, cv=folds, scoring="accuracy").fit(X, y)
    for split in range(3):
        name = f"split{split}_test_score"
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], atol=1e-6)
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    best = ours.best_estimator_.get_params()[place] if place else ours.best_estimator_
    assert type(best) is KerasClassifier and best.verbose == 0
    # The search itself is as it was given, and can be cloned and fitted again.
    assert ours.estimator is holder and type(clone(ours).estimator) is type(holder)
"""
    )


@pytest.mark.backend("tensorflow")
def test_every_search_takes_over_a_scikeras_estimator(bridge: Any) -> None:
    bridge(
        SEARCHED
        + """
rates = {"optimizer__learning_rate": [0.01, 0.1]}
searches = [
    search.RandomizedSearchCV(estimator(), rates, n_iter=2, cv=folds),
    search.HalvingGridSearchCV(estimator(), rates, cv=3, min_resources=50),
    search.HalvingRandomSearchCV(estimator(), rates, cv=3, min_resources=50, random_state=0),
]
try:
    import optuna
except ImportError:
    pass
else:
    searches.append(search.OptunaSearchCV(estimator(), rates, n_trials=2, cv=folds, storage=None, random_state=0))
for one in searches:
    (note,) = fitted(one)
    assert "The search takes it over" in note
    assert any(trained.how == "fused" for trained in one.report_.trained), one.explain()
    assert type(one.best_estimator_) is KerasClassifier
"""
    )


@pytest.mark.backend("tensorflow")
def test_what_a_search_cannot_take_over_trains_as_it_is(bridge: Any) -> None:
    bridge(
        SEARCHED
        + """
class Predicts(theirs_.KerasClassifier):
    def predict(self, X, **kwargs):
        return super().predict(X, **kwargs)

refused(estimator(Predicts), "overrides `predict`")
rates = {"optimizer__learning_rate": [0.01, 0.1]}
ours = search.GridSearchCV(estimator(Predicts, verbose=0), rates, cv=folds, scoring="accuracy")
(note,) = fitted(ours)
assert "that the search cannot take over" in note and "Predicts overrides `predict`" in note, note
assert type(ours.best_estimator_) is Predicts and ours.report_.trained == []
theirs = model_selection.GridSearchCV(estimator(Predicts, verbose=0), rates, cv=folds, scoring="accuracy").fit(X, y)
np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-6)
assert ours.best_params_ == theirs.best_params_
"""
    )


def test_what_is_not_of_scikeras_is_refused() -> None:
    with pytest.raises(ParameterError, match="must be a scikeras KerasClassifier or KerasRegressor; got a KerasReg"):
        from_scikeras(KerasRegressor())


# -- what is not there ------------------------------------------------------------------------------------------------


def test_absent_names_of_losses_and_metrics_are_found_by_keras_itself() -> None:
    assert keras.losses.get("MeanSquaredError").name == keras.losses.get("mse").__name__ == "mean_squared_error"
    assert isinstance(keras.metrics.get("AUC"), AUC)


def test_absent_seeding_of_the_process_is_a_block_that_puts_everything_back() -> None:
    before = np.random.get_state()[1].copy()
    drawn = []
    for _ in range(2):
        with isolated(7):
            drawn.append((float(np.random.rand()), float(keras.random.uniform(()))))
    assert drawn[0] == drawn[1]
    assert_array_equal(before, np.random.get_state()[1])


def test_absent_arguments_of_fit_that_are_no_settings_say_where_they_go() -> None:
    for name, value in {"sample_weight": np.ones(60), "validation_data": (X, y)}.items():
        with pytest.raises(ParameterError, match=rf"Give it to fit: fit\(X, y, {name}=...\)"):
            classifier(**{f"fit__{name}": value}).fit(X, y)
        classifier().fit(X, y, **{name: value})


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "coming_from_scikeras.md"


def test_the_page_names_every_test_here_and_no_other() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    here = {name for name in globals() if name.startswith("test_")}
    about_the_page = {test_the_page_names_every_test_here_and_no_other.__name__}
    assert named == here - about_the_page
