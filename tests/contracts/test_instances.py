"""What every estimator promises of losses, metrics and optimizers given as instances: nothing of them is lost.

The reference is plain Keras, compiled with the same instance.
"""

from __future__ import annotations

import copy
import enum
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import scale

from kerastoolkit import KerasRegressor, load, search
from kerastoolkit._copies import copied, register
from kerastoolkit.exceptions import ParameterError

try:
    import cloudpickle
except ImportError:  # which joblib brought along up to 1.5
    from joblib.externals import cloudpickle

EPOCHS = 3


# -- what users write: the config, where there is one, does not name every argument --------------------------------


class OwnLoss(keras.losses.Loss):
    def __init__(self, power: float, name: str = "own_loss", **options: Any) -> None:
        super().__init__(name=name, **options)
        self._exponent = power

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.absolute(y_true - y_pred) ** self._exponent, axis=-1)


class OwnMetric(keras.metrics.Metric):
    def __init__(self, factor: float, name: str = "own_metric", **options: Any) -> None:
        super().__init__(name=name, **options)
        self._by = [factor]
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign(self.total + self._by[0] * ops.mean(ops.absolute(y_true - y_pred)))

    def result(self) -> Any:
        return ops.convert_to_tensor(self.total)


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, first: float) -> None:
        self.first = first

    def __call__(self, step: Any) -> Any:
        return self.first / (1.0 + ops.cast(step, "float32"))


class OwnOptimizer(keras.optimizers.SGD):
    def __init__(self, learning_rate: float = 0.01, times: float = 1.0, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._factor = times

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient * self._factor, variable, learning_rate)


@keras.saving.register_keras_serializable("test_instances")
class RegisteredSchedule(OwnSchedule):
    def get_config(self) -> dict[str, Any]:
        return {"first": 0.125}


def own_function(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.absolute(y_true - y_pred) ** 1.25, axis=-1)


def own_function_of(power: float) -> Callable[[Any, Any], Any]:
    return lambda y_true, y_pred: ops.mean(ops.absolute(y_true - y_pred) ** power, axis=-1)


def tenth() -> float:
    return 0.1


# -- a linear model of two targets, from the same weights ----------------------------------------------------------


def linear(input_shape: tuple[int, ...] = (10,)) -> Any:
    start = keras.initializers.RandomUniform(-1, 1, seed=1)
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(2, kernel_initializer=start)])


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    X, y = load_diabetes(return_X_y=True)
    y = np.stack([y / 10, np.sin(y)], axis=1)
    return scale(X)[:90].astype("float32"), y[:90].astype("float32")


def _estimator(**parameters: Any) -> KerasRegressor:
    # All rows in one batch: no order of rows to agree on.
    return KerasRegressor(linear, epochs=EPOCHS, batch_size=90, **parameters)


def _by_keras(data: tuple[Any, Any], compiled: dict[str, Any], epochs: int = EPOCHS) -> Any:
    model = linear()
    model.compile(**compiled)
    model.fit(*data, batch_size=90, epochs=epochs, verbose=0)
    return model


def _one_more_epoch(model: Any, data: tuple[Any, Any]) -> Any:
    model.fit(*data, batch_size=90, verbose=0)
    return model.get_weights()


def _assert_same_weights(one: Any, other: Any) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def _around(thing: Any) -> Any:
    """Through everything that copies an object in Python and in scikit-learn."""
    return pickle.loads(cloudpickle.dumps(copy.deepcopy(thing)))


# By name: arguments of `Model.compile`, made anew for each who trains; parameters of the estimator, where they are
# others; and whether a file can hold them.
CASES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], dict[str, Any]] | None, bool]] = {
    "Huber": (lambda: {"loss": keras.losses.Huber(20.0)}, None, True),
    "an option over an instance": (
        lambda: {"loss": keras.losses.Huber(20.0, reduction="sum")},
        lambda: {"loss": keras.losses.Huber(20.0), "loss__reduction": "sum"},
        True,
    ),
    "an option of a name": (
        lambda: {"loss": keras.losses.Huber(20.0)},
        lambda: {"loss": "huber", "loss__delta": 20.0},
        True,
    ),
    "axis": (lambda: {"loss": keras.losses.CosineSimilarity(axis=0)}, None, True),
    "losses of outputs": (lambda: {"loss": [keras.losses.Huber(20.0)]}, None, True),
    "own loss": (lambda: {"loss": OwnLoss(1.5)}, None, False),
    "own function": (lambda: {"loss": own_function}, None, False),
    "closure": (lambda: {"loss": own_function_of(1.5)}, None, False),
    "metrics": (
        lambda: {"loss": "mse", "metrics": [keras.metrics.CosineSimilarity(axis=0), OwnMetric(3.0)]},
        None,
        False,
    ),
    "weighted metrics": (
        lambda: {"loss": "mse", "weighted_metrics": [keras.metrics.CosineSimilarity(axis=0)]},
        None,
        True,
    ),
    "schedule": (
        lambda: {
            "loss": "mae",
            "optimizer": keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5), momentum=0.5),
        },
        None,
        True,
    ),
    "own schedule": (lambda: {"loss": "mae", "optimizer": keras.optimizers.SGD(OwnSchedule(0.5))}, None, False),
    "own schedule as an option": (
        lambda: {"loss": "mae", "optimizer": keras.optimizers.SGD(OwnSchedule(0.5))},
        lambda: {"loss": "mae", "optimizer": "sgd", "optimizer__learning_rate": OwnSchedule(0.5)},
        False,
    ),
    "registered schedule": (
        lambda: {"loss": "mae", "optimizer": keras.optimizers.SGD(RegisteredSchedule(0.5))},
        None,
        False,
    ),
    "function as a rate": (lambda: {"loss": "mae", "optimizer": keras.optimizers.SGD(tenth)}, None, False),
    "own optimizer": (lambda: {"loss": "mae", "optimizer": OwnOptimizer(0.01, 3.0, momentum=0.9)}, None, False),
    "Adam": (lambda: {"loss": keras.losses.LogCosh(), "optimizer": keras.optimizers.Adam(0.1)}, None, True),
}


@pytest.mark.parametrize("name", CASES)
def test_an_instance_trains_as_in_plain_keras_and_goes_on_after_it_was_copied_pickled_and_saved(
    name: str, data: tuple[Any, Any], tmp_path: Path
) -> None:
    compiled, others, has_file = CASES[name]

    def made() -> dict[str, Any]:
        return {"optimizer": keras.optimizers.SGD(0.01, momentum=0.9), **compiled()}

    parameters = {**made(), **(others() if others is not None else {})}
    estimator = _around(clone(_estimator(**parameters))).fit(*data)
    model = _by_keras(data, made())
    _assert_same_weights(estimator.model_.get_weights(), model.get_weights())
    for metric, values in model.history.history.items():
        np.testing.assert_allclose(estimator.history_[metric], values, rtol=1e-5, atol=1e-6)

    expected = _one_more_epoch(model, data)
    around, from_file = _around(estimator), load(estimator.save(tmp_path / "one.zip"))
    np.testing.assert_array_equal(from_file.predict(data[0]), estimator.predict(data[0]))
    if not has_file:
        from_file.set_params(**parameters)
    for one in (estimator, around, from_file):
        _assert_same_weights(one.partial_fit(*data).model_.get_weights(), expected)


@pytest.mark.parametrize("kind", [GridSearchCV, search.GridSearchCV])
@pytest.mark.parametrize(
    "candidates",
    [
        {
            "loss": [
                keras.losses.Huber(1.0),
                keras.losses.Huber(20.0),
                OwnLoss(1.0),
                OwnLoss(1.5),
                own_function_of(1.25),
            ]
        },
        {
            "optimizer": [
                *(keras.optimizers.SGD(schedule) for schedule in (OwnSchedule(0.1), OwnSchedule(0.5))),
                *(keras.optimizers.SGD(schedule) for schedule in (RegisteredSchedule(0.2), RegisteredSchedule(0.4))),
                keras.optimizers.SGD(tenth),
                *(OwnOptimizer(0.01, times) for times in (1.0, 3.0)),
            ]
        },
    ],
    ids=["losses", "optimizers"],
)
def test_candidates_of_a_grid_that_differ_in_what_a_config_leaves_out_score_each_as_itself(
    kind: Any, candidates: dict[str, list[Any]], data: tuple[Any, Any]
) -> None:
    start = {"optimizer": keras.optimizers.SGD(0.01), "loss": "mae"}
    found = kind(_estimator(**start), candidates, cv=2, error_score="raise", refit=False).fit(*data).cv_results_
    ((name, values),) = candidates.items()
    alone = [cross_val_score(_estimator(**{**start, name: value}), *data, cv=2).mean() for value in values]
    np.testing.assert_allclose(found["mean_test_score"], alone, rtol=1e-5)
    assert len({round(score, 6) for score in alone}) == len({id(value) for value in values})


def test_a_model_that_is_compiled_and_trained_already_keeps_what_it_was_compiled_with(
    data: tuple[Any, Any], tmp_path: Path
) -> None:
    compiled = {
        "optimizer": OwnOptimizer(0.01, 3.0, momentum=0.9),
        "loss": keras.losses.Huber(20.0),
        "metrics": [keras.metrics.CosineSimilarity(axis=0), OwnMetric(3.0)],
    }
    model = _by_keras(data, compiled)
    before = model.get_weights()
    estimator = KerasRegressor(model, epochs=1, batch_size=90)
    trained = [one.fit(*data) for one in (estimator, clone(estimator), _around(estimator))]
    _assert_same_weights(model.get_weights(), before)
    expected = _one_more_epoch(model, data)
    for one in trained:
        _assert_same_weights(one.model_.get_weights(), expected)
        np.testing.assert_allclose(one.history_["own_metric"], model.history.history["own_metric"], rtol=1e-5)
    again = load(trained[0].save(tmp_path / "one.zip"))
    with pytest.raises(ParameterError, match="OwnOptimizer.*, of which the file contains only the name"):
        again.partial_fit(*data)


def test_models_that_are_compiled_already_are_candidates_of_a_grid(data: tuple[Any, Any]) -> None:
    models = [
        _by_keras(data, {"optimizer": "sgd", "loss": keras.losses.Huber(delta)}, epochs=1) for delta in (1.0, 20.0)
    ]
    estimator = KerasRegressor(epochs=5, batch_size=90)
    found = GridSearchCV(estimator, {"model": models}, cv=2, error_score="raise", refit=False).fit(*data).cv_results_
    alone = [cross_val_score(clone(estimator).set_params(model=model), *data, cv=2).mean() for model in models]
    np.testing.assert_allclose(found["mean_test_score"], alone, rtol=1e-5)
    assert abs(alone[0] - alone[1]) > 0.01


def test_a_pickle_of_a_model_that_keras_can_tell_needs_no_kerastoolkit(data: tuple[Any, Any]) -> None:
    register()
    kept = pickle.dumps(_by_keras(data, {"optimizer": keras.optimizers.Adam(0.1), "loss": "mse", "metrics": ["mae"]}))
    assert b"kerastoolkit" not in kept


def test_what_a_file_cannot_hold_is_asked_for_by_name_and_never_replaced(data: tuple[Any, Any], tmp_path: Path) -> None:
    estimator = _estimator(loss=OwnLoss(1.5), optimizer=keras.optimizers.SGD(0.01, momentum=0.9)).fit(*data)
    again = load(estimator.save(tmp_path / "one.zip"), custom_objects={"linear": linear})
    for _ in range(2):
        with pytest.raises(ParameterError, match=r"OwnLoss.*, of which the file contains only the name.*set_params"):
            again.partial_fit(*data)
        with pytest.raises(ParameterError, match=r"OwnLoss.*, of which the file contains only the name.*set_params"):
            again.fit(*data)
        np.testing.assert_array_equal(again.predict(data[0]), estimator.predict(data[0]))
        # The state of the optimizer goes on to the next file.
        again = load(_around(again).save(tmp_path / "two.zip"), custom_objects={"linear": linear})
    again.set_params(loss=OwnLoss(1.5)).partial_fit(*data)
    _assert_same_weights(again.model_.get_weights(), estimator.partial_fit(*data).model_.get_weights())


def test_a_loss_that_is_registered_comes_back_from_a_file(data: tuple[Any, Any], tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test_instances")
    class RegisteredLoss(OwnLoss):  # the config leaves `power` out, but an attribute is called like it
        def __init__(self, power: float, **options: Any) -> None:
            super().__init__(power, **options)
            self.power = power

    estimator = _estimator(loss=RegisteredLoss(1.5), optimizer="sgd").fit(*data)
    again = load(estimator.save(tmp_path / "one.zip"))
    assert again.loss.power == again.loss._exponent == 1.5
    for one in (estimator, again):
        one.partial_fit(*data)
    _assert_same_weights(again.model_.get_weights(), estimator.model_.get_weights())


def test_an_option_that_would_lose_another_argument_of_an_instance_is_refused_by_name(data: tuple[Any, Any]) -> None:
    with pytest.raises(ParameterError, match=r"`loss__reduction`.*OwnLoss.*`_exponent`.*loss__name=\.\.\."):
        _estimator(loss=OwnLoss(1.5), loss__reduction="sum").fit(*data)


def test_a_function_that_reads_its_own_instance_is_refused_by_name() -> None:
    class Looped(keras.losses.Loss):
        def __init__(self, power: float) -> None:
            super().__init__()
            self._exponent = power
            self.apply = lambda error: error**self._exponent

    with pytest.raises(ParameterError, match="Looped cannot be copied .*'apply'"):
        copied(Looped(1.5))


def prelu(input_shape: tuple[int, ...], layer: Any) -> Any:
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(2), layer])


class OwnLayer(keras.layers.Layer):
    def __init__(self, factor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def call(self, x: Any) -> Any:
        return x * self.factor


def test_a_layer_as_an_argument_of_the_build_function_is_new_for_each_fit(data: tuple[Any, Any]) -> None:
    layer = keras.layers.PReLU()
    estimator = KerasRegressor(prelu, layer=layer, loss="mse", optimizer="sgd", epochs=3, batch_size=90, random_state=0)
    first, second = (estimator.fit(*data).predict(data[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not layer.built
    trained = keras.layers.PReLU(alpha_initializer="ones")
    trained.build((None, 2))
    estimator.set_params(layer=trained).fit(*data)
    np.testing.assert_array_equal(np.asarray(trained.alpha), np.ones(2))
    assert (
        np.asarray(estimator.model_.layers[-1].alpha) == pytest.approx(1, abs=0.5)
        and estimator.model_.layers[-1] is not trained
    )
    with pytest.raises(ParameterError, match="`layer` is an instance of OwnLayer, .* leaves out 'factor'"):
        estimator.set_params(layer=OwnLayer(3.0)).fit(*data)


# -- every class of Keras, every argument ---------------------------------------------------------------------------

KINDS = [
    kind
    for room, base in (
        (keras.losses, keras.losses.Loss),
        (keras.metrics, keras.metrics.Metric),
        (keras.optimizers, keras.optimizers.Optimizer),
    )
    for _, kind in sorted(vars(room).items())
    if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
]
NEEDED: dict[str, dict[str, Any]] = {
    "IoU": {"num_classes": 3, "target_class_ids": [0]},
    "LossScaleOptimizer": {"inner_optimizer": keras.optimizers.SGD(0.2)},
    "MeanIoU": {"num_classes": 3},
    "MeanMetricWrapper": {"fn": keras.losses.mean_squared_error},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0]},
    "OneHotMeanIoU": {"num_classes": 3},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}  # fmt: skip
# What is no number or truth, or must be within bounds.
VALUES: dict[str, Any] = {
    "average": "micro", "axis": 0, "class_aggregation": "variance_weighted_average", "class_id": 1, "clipnorm": 1.5,
    "clipvalue": 0.4, "curve": "PR", "dtype": "float16", "ema_overwrite_frequency": 7, "exclude_layers": ["dense"],
    "fn": keras.losses.Huber(20.0), "global_clipnorm": 0.7, "gradient_accumulation_steps": 4, "ignore_class": 1,
    "inner_optimizer": keras.optimizers.Adam(0.3, beta_1=0.4), "label_weights": [1.0, 2.0], "loss_scale_factor": 3.0,
    "beta_1": 0.3, "initial_accumulator_value": 0.3, "learning_rate_power": -0.3, "name": "another", "num_classes": 4,
    "num_labels": 2, "precision": 0.3, "q": 0.2, "recall": 0.3, "reduction": "sum", "sensitivity": 0.3,
    "specificity": 0.3, "summation_method": "minoring", "target_class_ids": [1],
    "threshold": 0.3, "thresholds": [0.2, 0.7], "top_k": 2, "weight_decay": 0.01,
}  # fmt: skip
if hasattr(keras.optimizers, "OptimizerMap"):  # which older ones have not
    of_layer = {"a": keras.optimizers.SGD(0.1)}
    VALUES["optimizer_map"] = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.3), of_layer)
    NEEDED["MultiOptimizer"] = {"optimizer_map": keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.2), {})}
TOGETHER = {
    "ema_overwrite_frequency": {"use_ema": True},
    "label_weights": {"multi_label": True},
    "num_labels": {"multi_label": True},
}


def _another(name: str, default: Any) -> Any:
    if name in VALUES:
        return VALUES[name]
    return not default if isinstance(default, bool) else type(default)(default * 0.5 + 1)


def _held(thing: Any) -> dict[str, Any]:
    """All that an object holds, as text; of what it keeps a state in, the shapes."""
    passed_over = {"_tracker", "_metrics", "_distribution_strategy", "_dtype_policy", "_trainable_variables_indices"}
    return {
        name: _text(value)
        for name, value in vars(thing).items()
        if name not in passed_over and not name.startswith("_self_")
    }


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _text(item) for name, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, keras.Variable):
        return "learning_rate", float(value) if value.name == "learning_rate" else tuple(value.shape)
    if inspect.isroutine(value) or not hasattr(value, "__dict__"):
        return value if callable(value) else repr(value)
    return type(value).__name__, _held(value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.split('.')[2]}-{kind.__name__}")
def test_every_argument_of_every_class_of_keras_is_copied(kind: Any) -> None:
    register()
    needed = NEEDED.get(kind.__name__, {})
    named = {name: p for name, p in inspect.signature(kind.__init__).parameters.items() if p.kind is not p.VAR_KEYWORD}
    of_nobody = _held(kind(**needed, **({"name": "another"} if "name" in named else {})))
    for name, parameter in named.items():
        if name == "self":
            continue
        arguments = {**needed, name: _another(name, parameter.default), **TOGETHER.get(name, {})}
        original = kind(**{"name": "one", **arguments})
        assert name == "name" or _held(original) != of_nobody
        for copy_of in (copied, copy.deepcopy, _around, clone_as_parameter):
            assert _held(copy_of(original)) == _held(original), (name, copy_of)


def clone_as_parameter(thing: Any) -> Any:
    return clone([thing], safe=False)[0]
