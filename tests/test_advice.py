"""What an error advises is done here as it stands there, and works.

Each test meets an error as a beginner does, takes the code or the name out of its message, and runs that. A message and
what it promises cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
from keras import layers
from numpy.testing import assert_array_equal
from sklearn import model_selection
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MultiLabelBinarizer, OneHotEncoder, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, KerasTransformer, load
from kerastoolkit.estimators import ImageClassifier, ImageRegressor, TextClassifier
from kerastoolkit.exceptions import (
    DataError,
    KerasToolkitWarning,
    ModelMismatchError,
    ParameterError,
    SavedFileError,
)
from kerastoolkit.search import GridSearchCV, HalvingGridSearchCV, OptunaSearchCV, RandomizedSearchCV

IRIS = load_iris(return_X_y=True)
KNOWN = {
    **{thing.__name__: thing for thing in (KerasClassifier, KerasRegressor, KerasTransformer, MaxAbsScaler)},
    **{thing.__name__: thing for thing in (MultiLabelBinarizer, OneHotEncoder, SimpleImputer, StandardScaler)},
    **{"keras": keras, "np": np, "pd": pd, "sklearn": sklearn, "make_column_selector": make_column_selector},
    **{"make_column_transformer": make_column_transformer, "make_pipeline": make_pipeline},
}


def code(message: Any, start: str) -> str:
    """The call in a message that begins so, up to the bracket that closes it."""
    text = str(message)
    first = text.index(start)
    place, depth = first + len(start), start.count("(") - start.count(")")
    while depth or re.match(r"\.\w+\(", text[place:]):
        place += 1
        depth += {"(": 1, ")": -1}.get(text[place - 1], 0) if depth else 0
        if not depth and text[place - 1] == ".":
            place, depth = text.index("(", place) + 1, 1
    return text[first:place]


def run(message: Any, start: str, **names: Any) -> Any:
    """What the call in a message makes."""
    return eval(code(message, start), {**KNOWN, **names})


def named(message: Any) -> str:
    """The name that a message says was meant."""
    found = re.search(r"Did you mean '([^']+)'", str(message))
    assert found is not None, message
    return found.group(1)


def error_of(call: Callable[[], Any], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def small(**parameters: Any) -> KerasClassifier:
    return KerasClassifier(**{"hidden": (3,), "epochs": 1, "random_state": 0, **parameters})


def own(model: Any, **parameters: Any) -> KerasClassifier:
    return KerasClassifier(model, **{"epochs": 1, "random_state": 0, **parameters})


def ending(*end: Any, shape: tuple[int, ...] = (4,)) -> Callable[[], keras.Model]:
    """A function that builds a model of these layers."""
    configs = [(type(layer), layer.get_config()) for layer in end]

    def build() -> keras.Model:
        return keras.Sequential([keras.Input(shape), *(kind.from_config(config) for kind, config in configs)])

    return build


# -- names ------------------------------------------------------------------------------------------------------------

NAMES: dict[str, Any] = {
    "lr": 0.01,
    "learning_rate": 0.01,
    "lerning_rate": 0.01,
    "Learning_Rate": 0.01,
    "learning_rate_init": 0.01,
    "optimizer_learning_rate": 0.01,
    "optimizer_lr": 0.01,
    "optimzer__lr": 0.01,
    "model__learning_rate": 0.01,
    "model__optimizer__learning_rate": 0.01,
    "fit__lr": 0.01,
    "clipnorm": 1.0,
    "weight_decay": 0.01,
    "hidden_layer_sizes": (4, 3),
    "units": 4,
    "hiden_units": 4,
    "max_iter": 2,
    "nb_epoch": 2,
    "max_epochs": 2,
    "solver": "sgd",
    "alpha": 1e-4,
    "criterion": "categorical_crossentropy",
    "dropout_rate": 0.1,
    "label_smoothing": 0.1,
    "validation_fraction": 0.2,
    "class_weights": "balanced",
    "seed": 1,
    "kerasclassifier__epochs": 2,
    "net__lr": 0.01,
    "estimator__hidden_layer_sizes": (4, 3),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_another_library_is_answered_with_the_name_that_works_here(name: str) -> None:
    message = error_of(lambda: KerasClassifier().set_params(**{name: NAMES[name]}), ParameterError)
    assert message.startswith(f"Invalid parameter {name!r} for estimator KerasClassifier")
    assert message == error_of(lambda: KerasClassifier(**{name: NAMES[name]}).fit(*IRIS), ParameterError)
    meant = small(**{named(message): NAMES[name]})
    fitted = meant.fit(*IRIS) if "epoch" in named(message) else meant.initialize(*IRIS)
    if "rate" in name or "lr" in name:
        drops = [layer.rate for layer in fitted.model_.layers if isinstance(layer, layers.Dropout)]
        assert [float(fitted.model_.optimizer.learning_rate), *drops][-1] == pytest.approx(NAMES[name])
    elif "hid" in name or name == "units":
        assert [layer.units for layer in fitted.model_.layers if isinstance(layer, layers.Dense)][:-1] == [
            *np.atleast_1d(NAMES[name])
        ]
    elif "epoch" in name or name == "max_iter":
        assert fitted.n_iter_ == 2


# Names that parameters of texts and images had once, or have elsewhere.
OF_TEXTS_AND_IMAGES: dict[str, tuple[Any, str]] = {
    "max_words": (TextClassifier, "max_features"),
    "num_words": (TextClassifier, "max_features"),
    "vocab_size": (TextClassifier, "max_features"),
    "min_count": (TextClassifier, "min_df"),
    "length": (TextClassifier, "max_length"),
    "maxlen": (TextClassifier, "max_length"),
    "ngrams": (TextClassifier, "ngram_range"),
    "embedding_size": (TextClassifier, "embedding_dim"),
    "model__embedding_size": (TextClassifier, "embedding_dim"),
    "d_model": (lambda **options: KerasClassifier("transformer_encoder", **options), "embedding_dim"),
    "width": (lambda **options: TextClassifier("transformer_encoder", **options), "embedding_dim"),
    "min_frequency": (lambda **options: KerasClassifier("tabular", **options), "columns__min_count"),
    "strategy": (ImageClassifier, "training"),
    "stratgy": (ImageRegressor, "training"),
    "base_model": (ImageClassifier, "backbone"),
    "image_size": (ImageRegressor, "input_size"),
    "data_augmentation": (ImageClassifier, "augment"),
    "learning_rte": (ImageClassifier, "learning_rate"),
}


@pytest.mark.parametrize("name", OF_TEXTS_AND_IMAGES)
def test_a_former_name_or_one_from_elsewhere_is_answered_with_the_name_of_today(name: str) -> None:
    kind, meant = OF_TEXTS_AND_IMAGES[name]
    message = error_of(lambda: kind().set_params(**{name: 3}), ParameterError)
    assert named(message).removeprefix("model__") == meant
    assert kind(**{named(message): 3}).get_params()[named(message)] == 3


@pytest.mark.parametrize("name", ["momentum", "nesterov", "rho"])
def test_an_option_that_the_default_optimizer_has_not_is_named_with_one_that_has_it(name: str) -> None:
    message = error_of(lambda: KerasClassifier(**{name: 0.5}).fit(*IRIS), ParameterError)
    optimizer = re.search(r"`optimizer='(\w+)'`", message)
    assert optimizer is not None
    fitted = small(**{"optimizer": optimizer.group(1), named(message): 0.5}).initialize(*IRIS)
    assert getattr(fitted.model_.optimizer, name) == 0.5


@pytest.mark.parametrize("name", ["early_stopping", "n_iter_no_change", "patience", "tol", "callbacks__patience"])
def test_who_wants_to_stop_early_is_told_of_the_callback(name: str) -> None:
    message = error_of(lambda: KerasClassifier(**{name: 3}).fit(*IRIS), ParameterError)
    given = dict(part.split("=", 1) for part in re.findall(r"`(\w+=[^`]+)`", message))
    (option,) = re.findall(r"'(callbacks__\w+)'", message)
    fitted = small(**{key: eval(value, KNOWN) for key, value in given.items()}, **{option: 2}).fit(*IRIS)
    assert (fitted.callbacks_[0].patience, fitted.validation_split) == (2, 0.1)


@pytest.mark.parametrize("name", ["batch_norm", "n_jobs"])
def test_what_has_no_name_here_is_told_otherwise(name: str) -> None:
    message = error_of(lambda: KerasClassifier(**{name: 2}).fit(*IRIS), ParameterError)
    if name == "n_jobs":
        assert "leave it out" in message
    else:
        given = re.search(r"`(\w+)='(\w+)'`", message)
        assert given is not None
        model = small(**dict([given.groups()])).fit(*IRIS).model_
        assert any(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


STEPS = make_pipeline(StandardScaler(), small())
NAMED_STEPS = Pipeline([("scale", StandardScaler()), ("net", make_pipeline(StandardScaler(), small()))])
IN_PIPELINES: dict[str, tuple[Any, str, Any]] = {
    "bare": (STEPS, "epochs", 2),
    "of another library": (STEPS, "lr", 0.1),
    "class": (STEPS, "KerasClassifier__epochs", 2),
    "class and other": (STEPS, "KerasClassifier__hidden_layer_sizes", (2,)),
    "another step": (STEPS, "clf__epochs", 2),
    "misspelt": (STEPS, "kerasclassifier__hiden", (2,)),
    "one underscore": (STEPS, "kerasclassifier__optimizer_learning_rate", 0.1),
    "of the scaler": (STEPS, "with_mean", False),
    "model": (STEPS, "kerasclassifier__model__lr", 0.1),
    "deep": (NAMED_STEPS, "epochs", 2),
    "deep class": (NAMED_STEPS, "net__max_iter", 2),
    "target": (TransformedTargetRegressor(KerasRegressor(epochs=1, hidden=(2,))), "lr", 0.1),
}


@pytest.mark.parametrize("case", IN_PIPELINES)
def test_a_grid_over_a_pipeline_is_answered_with_the_full_name(case: str) -> None:
    estimator, name, value = IN_PIPELINES[case]
    message = error_of(lambda: GridSearchCV(estimator, {name: [value]}, cv=2).fit(*IRIS), ParameterError)
    assert message.startswith(f"Invalid parameter {name!r} for estimator {type(estimator).__name__}")
    assert clone(estimator).set_params(**{named(message): value}).get_params()[named(message)] == value
    if case == "of another library":
        found = GridSearchCV(estimator, {named(message): [value]}, cv=2).fit(*IRIS)
        assert found.best_params_ == {named(message): value}


def test_every_search_looks_at_its_names_first_and_tells_all_at_once() -> None:
    bad = {"lr": [0.1], "net__epochs": [1]}
    optuna = pytest.importorskip("optuna")
    searches = (
        lambda: GridSearchCV(STEPS, [{"kerasclassifier__epochs": [1]}, bad]),
        lambda: HalvingGridSearchCV(STEPS, bad),
        lambda: RandomizedSearchCV(STEPS, bad),
        lambda: OptunaSearchCV(STEPS, bad, storage=optuna.storages.InMemoryStorage()),
    )
    for make in searches:
        message = error_of(lambda make=make: make().fit(*IRIS), ParameterError)  # type: ignore[misc]
        assert re.findall(r"Did you mean '(\w+)'", message) == [
            "kerasclassifier__optimizer__learning_rate",
            "kerasclassifier__epochs",
        ]


def test_names_are_not_judged_where_the_step_or_the_model_is_searched_too() -> None:
    grid = [
        {"kerasclassifier__model": [ending(layers.Dense(3, "softmax"))], "kerasclassifier__epochs": [1]},
        {"kerasclassifier": [small()], "kerasclassifier__hidden": [(2,)]},
    ]
    steps = make_pipeline(StandardScaler(), KerasClassifier())
    assert GridSearchCV(steps, grid[0], cv=2).fit(*IRIS).best_params_["kerasclassifier__epochs"] == 1
    assert GridSearchCV(steps, grid[1], cv=2).fit(*IRIS).best_params_["kerasclassifier__hidden"] == (2,)


@pytest.mark.parametrize(("estimator", "name"), [(small(), "hidden"), (STEPS, "kerasclassifier__model__hidden")])
def test_a_tuple_of_layers_is_not_taken_for_candidates(estimator: Any, name: str) -> None:
    message = error_of(lambda: GridSearchCV(estimator, {name: (4, 3)}).fit(*IRIS), ParameterError)
    one, several = (eval(found) for found in re.findall(r"write (\{.*?\}), for 2 networks (\{.*?\})\.", message)[0])
    if estimator is STEPS:
        return
    assert GridSearchCV(estimator, one, cv=2).fit(*IRIS).best_params_ == {name: (4, 3)}
    assert sorted(GridSearchCV(estimator, several, cv=2).fit(*IRIS).cv_results_[f"param_{name}"]) == [3, 4]


# -- the end of a model -----------------------------------------------------------------------------------------------

DIABETES = load_diabetes(return_X_y=True)
STANDARD = (DIABETES[1] - DIABETES[1].mean()) / DIABETES[1].std()
ENDS: dict[str, tuple[Any, Any]] = {
    "sigmoid for hundreds": (layers.Dense(1, "sigmoid"), DIABETES[1]),
    "softmax for hundreds": (layers.Dense(2, "softmax"), np.c_[DIABETES[1], DIABETES[1]]),
    "tanh for deviations": (layers.Dense(1, "tanh"), STANDARD),
    "relu for deviations": (layers.Dense(1, "relu"), STANDARD),
    "softplus for deviations": (layers.Dense(1, "softplus"), STANDARD),
    "relu6 for hundreds": (layers.Dense(1, "relu6"), DIABETES[1]),
}


@pytest.mark.parametrize("kind", ["in the layer", "as a layer", "before a Flatten"])
@pytest.mark.parametrize("case", ENDS)
def test_a_last_layer_that_cannot_reach_the_target_is_refused(case: str, kind: str) -> None:
    layer, y = ENDS[case]
    alone = {"relu": layers.ReLU(), "relu6": layers.ReLU(6), "softmax": layers.Softmax()}
    name = layer.activation.__name__
    ends = {
        "in the layer": (layer,),
        "as a layer": (layers.Dense(layer.units), alone.get(name, layers.Activation(name))),
        "before a Flatten": (layer, layers.Reshape((1, layer.units)), layers.Flatten()),
    }
    regressor = KerasRegressor(ending(*ends[kind], shape=(10,)), epochs=1)
    message = error_of(lambda: regressor.fit(DIABETES[0], y), ModelMismatchError)
    assert f"{y.min():.4g} to {y.max():.4g}" in message
    better = ending(run(message, "Dense(", Dense=layers.Dense), shape=(10,))
    assert regressor.set_params(model=better).initialize(DIABETES[0], y).predict(DIABETES[0]).shape == y.shape


@pytest.mark.parametrize(
    ("activation", "y"),
    [
        ("sigmoid", DIABETES[1] / 346),
        ("sigmoid", np.where(DIABETES[1] > 300, 1.02, DIABETES[1] / 346)),
        ("relu", DIABETES[1]),
        ("softplus", DIABETES[1] - 26),
        ("tanh", np.sin(DIABETES[1])),
        ("linear", STANDARD),
        ("leaky_relu", STANDARD),
    ],
)
def test_a_last_layer_that_reaches_the_target_is_left_alone(activation: str, y: Any) -> None:
    model = ending(layers.Dense(1, activation), shape=(10,))
    assert KerasRegressor(model).initialize(DIABETES[0], y).initialized_


def test_each_output_and_counts_and_autoencoders_are_held_against_what_they_are_to_learn() -> None:
    X, y = DIABETES

    def two() -> keras.Model:
        inputs = keras.Input((10,))
        ends = [layers.Dense(1, name="a")(inputs), layers.Dense(1, "sigmoid", name="b")(inputs)]
        return keras.Model(inputs, ends)

    for target in ({"a": y, "b": y}, np.c_[y, y]):
        with pytest.raises(ModelMismatchError, match="'sigmoid', whose output is always between 0 and 1"):
            KerasRegressor(two, epochs=1).fit(X, target)
    KerasRegressor(two).initialize(X, {"a": y, "b": y / 346})
    counts = KerasRegressor(ending(layers.Dense(1, "sigmoid"), shape=(10,)), head__kind="counts", epochs=1)
    message = error_of(lambda: counts.fit(X, y.astype(int)), ModelMismatchError)
    better = ending(run(message, "Dense(", Dense=layers.Dense), shape=(10,))
    counts.set_params(model=better).initialize(X, y.astype(int))
    squeeze = ending(layers.Dense(2, name="code"), layers.Dense(4, "sigmoid"))
    with pytest.raises(ModelMismatchError, match="numbers from"):
        KerasTransformer(squeeze, epochs=1).fit(StandardScaler().fit_transform(IRIS[0]))


@pytest.mark.parametrize(
    "end", [(layers.Dense(3, "relu"),), (layers.Dense(3), layers.ReLU()), (layers.Dense(3), layers.PReLU())]
)
def test_no_probabilities_at_the_end_are_refused_whichever_layer_makes_them(end: Any) -> None:
    message = error_of(lambda: own(ending(*end)).fit(*IRIS), ModelMismatchError)
    activation = re.search(r"activation='(\w+)'", message)
    assert activation is not None
    better = ending(layers.Dense(3, activation.group(1)))
    assert own(better).initialize(*IRIS).predict_proba(IRIS[0]).shape == (150, 3)
    logits = own(ending(layers.Dense(3)), loss="sparse_categorical_crossentropy", loss__from_logits=True)
    assert logits.initialize(*IRIS).predict_proba(IRIS[0]).shape == (150, 3)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [("relu", "binary_crossentropy"), ("tanh", "binary_crossentropy"), ("relu", "hinge"), ("softplus", "hinge")],
)
def test_logits_and_margins_that_end_on_one_side_are_refused(activation: str, loss: str) -> None:
    X, y = IRIS[0][:100], IRIS[1][:100]
    options = {"loss__from_logits": True} if "cross" in loss else {}
    model = own(ending(layers.Dense(1, activation)), loss=loss, **options)
    with pytest.raises(ModelMismatchError, match="Give the last layer no activation"):
        model.fit(X, y)
    model.set_params(model=ending(layers.Dense(1))).initialize(X, y)
    if loss == "hinge":
        model.set_params(model=ending(layers.Dense(1, "tanh"))).initialize(X, y)  # as textbooks have it


@pytest.mark.parametrize("built", [False, True])
def test_a_model_for_other_rows_is_refused_with_both_shapes(built: bool) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    build = ending(layers.Dense(1, "sigmoid"), shape=(29,))
    message = error_of(lambda: own(build() if built else build).fit(X, y), ModelMismatchError)
    assert "of the shape (29,), but those of X have the shape (30,)" in message
    begin = run(message, "keras.Input(")
    better = keras.Sequential([begin, layers.Dense(1, "sigmoid")])
    assert own(better).initialize(X, y).predict(X).shape == y.shape

    def knows_the_rows(input_shape: Any) -> keras.Model:
        return keras.Sequential([keras.Input(input_shape), layers.Dense(1, "sigmoid")])

    assert "`input_shape` without a default" in message
    assert own(knows_the_rows).fit(X, y).n_features_in_ == 30


def test_each_input_of_several_is_named_with_its_shapes_and_an_axis_of_one_is_no_difference() -> None:
    X, y = IRIS
    inputs = {name: keras.Input((2,), name=name) for name in ("sepal", "petal")}
    model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.Concatenate()(list(inputs.values()))))
    with pytest.raises(ModelMismatchError, match=r"rows of 'petal' of the shape \(2,\), but .* the shape \(3,\)"):
        own(model).fit({"sepal": X[:, :2], "petal": X[:, 1:]}, y)
    own(model).fit({"sepal": X[:, :2], "petal": X[:, 2:]}, y)
    series = ending(layers.Conv1D(2, 2), layers.Flatten(), layers.Dense(3, "softmax"), shape=(4, 1))
    assert own(series).initialize(X, y).n_features_in_ == 4


# -- callbacks --------------------------------------------------------------------------------------------------------

WAITING: dict[str, Any] = {
    "EarlyStopping": lambda **options: keras.callbacks.EarlyStopping(**options),
    "class": keras.callbacks.EarlyStopping,
    "ReduceLROnPlateau": lambda **options: keras.callbacks.ReduceLROnPlateau(**options),
    "ModelCheckpoint": lambda **options: keras.callbacks.ModelCheckpoint("m.keras", save_best_only=True, **options),
}


@pytest.mark.parametrize("kind", WAITING)
def test_a_callback_without_rows_to_watch_is_refused(kind: str, monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    callback = WAITING[kind] if kind == "class" else WAITING[kind]()
    message = error_of(lambda: small(callbacks=callback).fit(*IRIS), ParameterError)
    split = re.search(r"`validation_split=([\d.]+)`", message)
    assert split is not None
    assert small(callbacks=callback, validation_split=float(split.group(1))).fit(*IRIS).n_iter_ == 1
    watched = re.search(r"\(monitor='(\w+)'\)", message)
    assert watched is not None
    assert small(callbacks=WAITING[kind](monitor=watched.group(1))).fit(*IRIS).n_iter_ == 1


@pytest.mark.parametrize(
    ("monitor", "metrics", "meant"),
    [("val_acc", None, "val_accuracy"), ("auc", ["AUC"], "AUC"), ("val_los", None, "val_loss")],
)
def test_a_callback_that_watches_what_is_not_measured_is_told_what_is(monitor: str, metrics: Any, meant: str) -> None:
    model = small(callbacks=keras.callbacks.EarlyStopping(monitor, mode="max"), metrics=metrics, validation_split=0.2)
    message = error_of(lambda: model.fit(*IRIS), ParameterError)
    assert named(message) == meant
    assert meant in model.set_params(callbacks__monitor=named(message)).fit(*IRIS).history_


def test_what_may_be_measured_otherwise_is_left_to_keras(tmp_path: Any) -> None:
    class Measures(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["own"] = float(epoch)

    stop = keras.callbacks.EarlyStopping("own", mode="min", patience=1)
    assert small(callbacks=[Measures(), stop], epochs=5).fit(*IRIS).n_iter_ == 2
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "each.keras")  # whatever is measured
    assert small(callbacks=checkpoint).fit(*IRIS).n_iter_ == 1 and (tmp_path / "each.keras").exists()
    assert small(callbacks=keras.callbacks.EarlyStopping()).initialize(*IRIS).n_iter_ == 0
    stop = keras.callbacks.EarlyStopping()
    with pytest.warns(UserWarning, match="val_loss"):
        assert small(callbacks=stop).partial_fit(*IRIS).n_iter_ == 1
    watched = small(callbacks=stop).fit(*IRIS, validation_data=IRIS)
    assert "val_loss" in watched.history_


@pytest.mark.parametrize("missing", [None, {"early_stopping": None}, [None]])
def test_no_callback_on_purpose_leaves_their_options_waiting(missing: Any) -> None:
    patient = small(callbacks={"early_stopping": keras.callbacks.EarlyStopping("loss")}, callbacks__patience=4)
    grid = {"callbacks": [missing, keras.callbacks.EarlyStopping("loss", min_delta=100)], "epochs": [9]}
    grid["callbacks__early_stopping__patience"] = [2]
    search = GridSearchCV(patient, grid, cv=2, refit=False).fit(*IRIS)
    assert len(search.cv_results_["params"]) == 2
    fitted = [clone(patient).set_params(**one).fit(*IRIS) for one in search.cv_results_["params"]]
    assert [one.n_iter_ for one in fitted] == [9, 3]


# -- tables -----------------------------------------------------------------------------------------------------------


def passengers(n: int = 120) -> tuple[pd.DataFrame, Any]:
    """A table with gaps, words and a number."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(30, 9, n), "fare": rng.gamma(2, 20, n), "port": rng.choice(["S", "C"], n)})
    table["deck"] = rng.choice(["A", "B", None], n)
    table.loc[::7, "age"] = np.nan
    return table, (table["age"].fillna(30) + 20 * (table["port"] == "S") > 40).astype(int)


@pytest.mark.parametrize("kind", ["pandas", "polars", "many"])
def test_a_table_with_gaps_and_words_is_taken_as_advised(kind: str) -> None:
    X, y = passengers()
    if kind == "many":
        X = X.assign(**{f"word {number}": X["port"] for number in range(5)})
    X = pl.from_pandas(X) if kind == "polars" else X
    message = error_of(lambda: KerasClassifier().fit(X, y), DataError)
    assert "'port', 'deck'" in message and "HistGradient" not in message
    tabular = run(message, "KerasClassifier('tabular')")
    assert tabular.initialize(X, y).predict(X).shape == (120,)
    pipeline = run(message, "make_pipeline(").set_params(kerasclassifier__epochs=40)
    assert pipeline.fit(X, y).score(X, y) > 0.7


@pytest.mark.parametrize("kind", ["pandas", "polars", "array", "images", "sparse"])
def test_gaps_are_taken_as_advised(kind: str) -> None:
    X, y = passengers()
    numbers: Any = X[["age", "fare"]]
    forms: dict[str, Callable[[Any], Any]] = {
        "polars": pl.from_pandas,
        "array": np.asarray,
        "images": lambda X: np.asarray(X).reshape(-1, 2, 1),
        "sparse": lambda X: scipy.sparse.csr_array(X.to_numpy()),
    }
    rows = forms.get(kind, lambda X: X)(numbers)
    message = error_of(lambda: KerasClassifier().fit(rows, y), DataError)
    assert message.startswith("Input X contains NaN") and "sklearn.ensemble" not in message
    assert ("18 of 120 rows" in message) == (kind not in ("images", "sparse"))
    if kind == "images":
        filled = run(message, "np.nan_to_num(", X=rows) / 100
        assert KerasClassifier("conv1d", filters=(2,)).initialize(filled, y).initialized_
        return
    steps = run(message, "make_pipeline(").set_params(kerasclassifier__epochs=1)
    assert steps.fit(rows, y).predict(rows).shape == (120,)
    if kind != "sparse":
        assert run(message, "KerasClassifier('tabular')").initialize(rows, y).predict(rows).shape == (120,)


DAYS = pd.date_range("2020-01-30", periods=60)
TIMES: dict[str, Any] = {
    "days": DAYS,
    "with a zone": DAYS.tz_localize("Europe/Berlin"),
    "dates": DAYS.date,
    "text": DAYS.strftime("%Y-%m-%d"),
    "German text": DAYS.strftime("%d.%m.%Y"),
    "British text": DAYS.strftime("%d/%m/%Y"),
    "durations": DAYS - DAYS[0],
    "polars": DAYS,
    "polars text": DAYS.strftime("%Y-%m-%d"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_dates_become_numbers_as_advised_and_not_a_column_for_each(kind: str) -> None:
    X: Any = pd.DataFrame({"bought on": TIMES[kind], "number": range(60)})
    X = pl.from_pandas(X) if "polars" in kind else X
    message = error_of(lambda: KerasClassifier().fit(X, [0, 1] * 30), DataError)
    assert "'bought on'" in message and "OneHot" not in message
    made = run(message, "X.assign(" if "polars" not in kind else "X.with_columns(", X=X)
    if kind != "durations":
        part = "bought on year"
        assert_array_equal(np.asarray(made[part]), DAYS.year)
        assert_array_equal(np.asarray(made["bought on month"]), DAYS.month)
    assert "bought on" not in made.columns
    assert KerasClassifier("tabular").initialize(made, [0, 1] * 30).initialized_


SEVERAL: dict[str, list[Any]] = {
    "as many each": [["art", "money"], ["money", "sport"], ["sport", "art"]],
    "more or less": [["art", "money"], ["money"], []],
    "sets": [{"art", "money"}, {"money"}, {"sport"}],
    "tuples": [("art", "money"), ("money",), ("sport",)],
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_labels_a_row_are_learned_as_advised(case: str) -> None:
    texts = ["a painting sold high", "shares fall", "the match was lost"] * 10
    y = SEVERAL[case] * 10
    message = error_of(lambda: TextClassifier(epochs=1).fit(texts, y), DataError)
    binary = run(message, "sklearn.preprocessing.MultiLabelBinarizer()", y=y)
    assert TextClassifier(epochs=1).fit(texts, binary).predict(texts).shape == binary.shape
    in_a_column = error_of(lambda: TextClassifier().fit(texts, pd.Series(y)), DataError)
    assert code(in_a_column, "sklearn.pre") == code(message, "sklearn.pre")


def test_two_questions_with_the_same_answers_are_two_targets() -> None:
    y = [["yes", "no"], ["no", "no"], ["yes", "yes"]] * 50
    assert small().initialize(IRIS[0], y).predict(IRIS[0]).shape == (150, 2)
    shared = [["art", "money"], ["money", "sport"], ["sport", "art"]] * 50
    message = error_of(lambda: small().fit(IRIS[0], shared), DataError)
    assert "y={'first': ..., 'second': ...}" in message
    first, second = zip(*shared, strict=True)
    assert set(own("multi_output").initialize(IRIS[0], {"first": first, "second": second}).predict(IRIS[0][:2])) == {
        "first",
        "second",
    }


# -- scale ------------------------------------------------------------------------------------------------------------

CANCER = load_breast_cancer(return_X_y=True, as_frame=True)


def told(call: Callable[[], Any]) -> list[str]:
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", KerasToolkitWarning)
        call()
    return [str(one.message) for one in caught if issubclass(one.category, KerasToolkitWarning)]


def test_rows_that_are_not_scaled_are_told_of_and_learned_better_as_advised() -> None:
    X, y = CANCER
    model = KerasClassifier(epochs=20, random_state=0)
    (message,) = told(lambda: model.fit(X, y))
    assert "'worst area'" in message
    pipeline = run(message, "make_pipeline(").set_params(kerasclassifier__epochs=20, kerasclassifier__random_state=0)
    tabular = run(message, "KerasClassifier('tabular')").set_params(epochs=1, random_state=0)
    assert told(lambda: pipeline.fit(X, y)) == told(lambda: tabular.fit(X, y)) == []
    assert pipeline.score(X, y) > 0.97 > model.score(X, y) + 0.01


IMAGES = load_digits().images
UNSCALED: dict[str, tuple[Any, Any, Any]] = {
    "a year": (KerasClassifier, np.c_[StandardScaler().fit_transform(IRIS[0]), 2000 + np.arange(150) % 9], IRIS[1]),
    "a distance from 0": (KerasClassifier, StandardScaler().fit_transform(IRIS[0]) + 100, IRIS[1]),
    "small": (KerasClassifier, IRIS[0] / 100, IRIS[1]),
    "rows again": (KerasTransformer, CANCER[0].to_numpy(), None),
    "numbers": (KerasRegressor, load_diabetes(scaled=False).data, DIABETES[1]),
    "sparse": (KerasClassifier, scipy.sparse.csr_array(CANCER[0].to_numpy()), CANCER[1]),
    "flat images": (KerasClassifier, IMAGES.reshape(-1, 64) * 15, load_digits().target),
}


@pytest.mark.parametrize("case", UNSCALED)
def test_other_rows_that_are_not_scaled(case: str) -> None:
    kind, X, y = UNSCALED[case]
    (message,) = told(lambda: kind(epochs=1, hidden=(3,), batch_size=-1).fit(X, y))
    assert "KerasTransformer('tabular')" not in message
    pipeline, step = run(message, "make_pipeline("), kind.__name__.lower()
    assert told(lambda: pipeline.set_params(**{f"{step}__epochs": 1, f"{step}__batch_size": -1}).fit(X, y)) == []


@pytest.mark.parametrize("own", [False, True])
def test_images_and_series_that_are_not_scaled(own: bool) -> None:
    X, y = IMAGES[:99] * 15, load_digits().target[:99]
    build = ending(layers.Flatten(), layers.Dense(10, "softmax"), shape=(8, 8))
    (message,) = told(lambda: KerasClassifier(build if own else "rnn", epochs=1).fit(X, y))
    divided = run(message, "X / 240", X=X)
    assert divided.max() == 1 and ("Rescaling" in message) == own
    if own:
        assert told(lambda: KerasClassifier(build, epochs=1).fit(divided, y)) == []
        first = run(message, "keras.layers.Rescaling(")
        better = ending(first, layers.Flatten(), layers.Dense(10, "softmax"), shape=(8, 8))
        assert told(lambda: KerasClassifier(better, epochs=1).fit(X, y)) == []


def test_a_data_set_is_looked_at_as_well() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            rows = slice(index, None, 2)
            return CANCER[0].to_numpy()[rows], CANCER[1].to_numpy()[rows]

    (message,) = told(lambda: small().fit(Batches()))
    assert message.startswith("X is not scaled: column 23")
    with pytest.raises(ModelMismatchError, match=r"shape \(29,\), but those of X have the shape \(30,\)"):
        own(ending(layers.Dense(1, "sigmoid"), shape=(29,))).fit(Batches())
    stopped = error_of(lambda: small(callbacks=keras.callbacks.EarlyStopping()).fit(Batches()), ParameterError)
    assert "fit(dataset, validation_data=another_dataset)" in stopped


def rescaled_in_the_graph() -> keras.Model:
    inputs = keras.Input((8, 8))
    return keras.Model(inputs, layers.Dense(10, "softmax")(layers.Flatten()(inputs / 240.0)))


NO_ALARM: dict[str, tuple[Any, Any, Any]] = {
    "iris": (KerasClassifier(), *IRIS),
    "iris in mm": (KerasClassifier(), StandardScaler().fit_transform(IRIS[0]) * 10, IRIS[1]),
    "digits": (KerasClassifier(), *load_digits(return_X_y=True)),
    "scaled": (KerasClassifier(), StandardScaler().fit_transform(CANCER[0]), CANCER[1]),
    "scaled numbers": (KerasRegressor(), *DIABETES),
    "tabular": (KerasClassifier("tabular", hidden=(2,)), *CANCER),
    "one-hot": (KerasClassifier(), OneHotEncoder().fit_transform(IRIS[0].round()), IRIS[1]),
    "cnn": (KerasClassifier("cnn", filters=(2,)), IMAGES[:99] * 15, load_digits().target[:99]),
    "in the graph": (KerasClassifier(rescaled_in_the_graph), IMAGES * 15, load_digits().target),
    "normalized": (
        KerasClassifier(ending(layers.BatchNormalization(), layers.Dense(1, "sigmoid"), shape=(30,))),
        *CANCER,
    ),
    "words": (
        KerasClassifier(ending(layers.Embedding(300, 2), layers.Flatten(), layers.Dense(10, "softmax"), shape=(64,))),
        IMAGES.reshape(-1, 64) * 15,
        load_digits().target,
    ),
}


@pytest.mark.parametrize("case", NO_ALARM)
def test_no_alarm_where_rows_are_scaled_or_the_model_scales_them(case: str) -> None:
    model, X, y = NO_ALARM[case]
    assert told(lambda: clone(model).set_params(epochs=1, batch_size=-1).fit(X, y)) == []


@pytest.mark.parametrize("search", [GridSearchCV, model_selection.GridSearchCV])
def test_a_search_tells_once_and_a_fit_of_its_own_tells_again(search: Any) -> None:
    X, y = CANCER
    model = small(epochs=1)
    assert len(told(lambda: search(model, {"hidden": [(2,), (3,)]}, cv=3).fit(X, y))) == 1
    assert len(told(lambda: model.fit(X, y))) == len(told(lambda: model.fit(X, y))) == 1


def test_images_of_another_range_than_in_fit_are_told_of(tmp_path: Any) -> None:
    y = load_digits().target
    whole, divided = np.rint(IMAGES * 15), IMAGES / 16
    ends = (layers.Flatten(), layers.BatchNormalization(), layers.Dense(10, "softmax"))
    model = KerasClassifier(ending(*ends, shape=(8, 8)), epochs=1, random_state=0)
    for learned, other in ((whole, divided), (divided, whole)):
        fitted = clone(model).initialize(learned, y)
        read = load(fitted.save(tmp_path / "cnn.zip"))
        for one in (fitted, read):
            (message,) = told(lambda one=one, other=other: one.predict(other))  # type: ignore[misc]
            mended = run(message, re.findall(r"X [*/] \d+", message)[0], X=other)
            assert_array_equal(one.predict(mended), one.predict(learned))
            assert told(lambda one=one, learned=learned: one.predict(learned[:1])) == []  # type: ignore[misc]
    dark = np.zeros((1, 8, 8))
    dark[0, 0, 0] = 1
    assert told(lambda: clone(model).initialize(whole, y).predict(dark)) == []


@pytest.mark.parametrize("forged", [None, [0.0, 255.0], (0, 255), (1.0, 0.0), (-1.0, 1.0), (0.0, float("inf"))])
def test_a_range_that_a_file_makes_up_is_refused(forged: Any, tmp_path: Any) -> None:
    ends = (layers.Flatten(), layers.BatchNormalization(), layers.Dense(10, "softmax"))
    fitted = own(ending(*ends, shape=(8, 8))).initialize(IMAGES / 16, load_digits().target)
    fitted._update_fitted(reader=dataclasses.replace(fitted.reader_, value_range=forged))
    if forged is None:  # as estimators without images have it
        assert load(fitted.save(tmp_path / "one.zip")).reader_.value_range is None
        return
    with pytest.raises(SavedFileError, match="value_range"):
        fitted.save(tmp_path / "one.zip")  # what could not be read again is refused as it is written


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "name", "value"),
    [
        (small(), "verbose", "yes"),
        (small(), "verbose", 3),
        (small(), "shuffle", "no"),
        (small(), "warm_start", "false"),
        (TextClassifier(), "train_embedding", "no"),
    ],
)
def test_a_text_is_not_taken_for_true(estimator: Any, name: str, value: Any) -> None:
    message = error_of(lambda: clone(estimator).set_params(**{name: value}).fit(*IRIS), ParameterError)
    first = re.search(r"must be ([^\s,]+)", message)
    assert first is not None and repr(value) in message
    if isinstance(estimator, KerasClassifier) and not isinstance(estimator, TextClassifier):
        assert clone(estimator).set_params(**{name: eval(first.group(1))}).fit(*IRIS).n_iter_ == 1


@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric")  # by Keras
def test_an_epoch_of_partial_fit_is_nothing_to_watch() -> None:
    estimator = small(callbacks=keras.callbacks.EarlyStopping())
    assert estimator.partial_fit(*IRIS).partial_fit(*IRIS).n_iter_ == 2
    with pytest.raises(ParameterError, match="no rows are held out"):
        estimator.fit(*IRIS)


def test_arguments_of_a_single_fit_are_looked_at_as_well() -> None:
    for call in (lambda: small().fit(*IRIS, verbose="yes"), lambda: small(fit__shuffle="yes").fit(*IRIS)):
        with pytest.raises(ParameterError, match="must be"):
            call()
