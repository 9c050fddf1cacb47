"""Small networks of dense layers in numpy: the steps of `Model.fit` written out, for which no program is traced.

Tracing a program takes half a second, and each of its operations some microseconds longer than one of numpy. In that
time a network of a few narrow layers is trained. Here are the layers, losses, metrics and optimizers that such networks
mostly consist of, computed as Keras computes them, in the same precision and order of operations; the tests compare
each of them with `Model.fit`. `chain_of` and `steps_of` return None where anything else is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training._state import Array

if TYPE_CHECKING:
    import keras

# Rows that are multiplied with the weights at a time when a network predicts. A product of another shape adds up in
# another order, and the output for a row must not depend on the other rows.
_ROWS_AT_ONCE = 32

# Multiplications of a prediction up to which numpy is quicker than to call a program.
_MAX_TO_PREDICT = 10_000_000

# Units up to which a loop over them is quicker than a reduction by numpy.
_FEW_UNITS = 16

# Largest ratio of the square of a target's mean to its variance. Keras sums both in single precision for R2; above this
# ratio the order of summation shows.
_MAX_MEAN = 100.0

# Time of a step in seconds, and for each of its models, and for each multiplication forward; measured.
_A_STEP, _A_MODEL, _A_MULTIPLICATION = 100e-6, 3e-6, 2.2e-10


class _Layer(NamedTuple):
    """Places of its weights among all variables of the model, the trainable ones first; `bias` is None without one."""

    kernel: int
    bias: int | None
    activation: str


class Chain:
    """Dense layers, one after the other."""

    def __init__(self, layers: list[_Layer], shapes: list[tuple[int, ...]]) -> None:
        self.layers = layers
        self.n_inputs, self.n_outputs = shapes[layers[0].kernel][0], shapes[layers[-1].kernel][1]
        self.multiplications = sum(int(np.prod(shapes[layer.kernel])) for layer in layers)

    def takes(self, x: Any) -> bool:
        """Whether it can compute the output for these rows, so few that numpy is quicker than a program."""
        return (
            isinstance(x, np.ndarray)
            and x.dtype == "float32"
            and x.ndim == 2
            and x.shape[1] == self.n_inputs
            and len(x) % _ROWS_AT_ONCE == 0
            and len(x) * self.multiplications <= _MAX_TO_PREDICT
        )

    def output(self, weights: Sequence[Array], x: Array) -> Array:
        """Output for rows that it takes, shape `(n, units)`."""
        with np.errstate(all="ignore"):
            h = np.ascontiguousarray(x).reshape(-1, _ROWS_AT_ONCE, self.n_inputs)
            for layer in self.layers:
                h = h @ weights[layer.kernel]
                if layer.bias is not None:
                    h += weights[layer.bias]
                _ACTIVATIONS[layer.activation].forward(h)
        return h.reshape(-1, self.n_outputs)


def chain_of(model: keras.Model) -> Chain | None:
    """The dense layers of a model that has no others; None if it has, or if this Keras is not known."""
    import keras

    # JAX compiles a step in little time, and rounds otherwise.
    if keras.config.backend() not in ("tensorflow", "torch") or not _keras.is_tried() or not model.built:
        return None
    layers = _in_a_row(model)
    if not layers:
        return None
    places = {id(v): n for n, v in enumerate([*model.trainable_variables, *model.non_trainable_variables])}
    found: list[_Layer] = []
    for layer in layers:
        if type(layer) is not keras.layers.Activation and not _is_plain_dense(layer):
            return None
        known = (name for name in _ACTIVATIONS if getattr(keras.activations, name) is layer.activation)
        activation = next(known, None)
        if activation is None or layer.activity_regularizer is not None or layer.compute_dtype != "float32":
            return None
        if found and found[-1].activation == "softmax":
            return None
        if type(layer) is keras.layers.Activation:
            if not found or found[-1].activation != "linear":
                return None
            found[-1] = found[-1]._replace(activation=activation)
        else:
            bias = places[id(layer.bias)] if layer.use_bias else None
            found.append(_Layer(places[id(layer.kernel)], bias, activation))
    shapes = [tuple(v.shape) for v in [*model.trainable_variables, *model.non_trainable_variables]]
    whole = sum(1 + (layer.bias is not None) for layer in found) == len(shapes)
    in_order = all(layer.bias in (None, layer.kernel + 1) for layer in found)
    return Chain(found, shapes) if found and whole and in_order else None


def _in_a_row(model: keras.Model) -> list[Any] | None:
    """The layers of a model, each of which takes the output of the one before, without its input layer."""
    import keras

    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or inputs[0].dtype != "float32":  # others are cast by Keras before the first layer
        return None
    layers = [layer for layer in model.layers if type(layer) is not keras.layers.InputLayer]
    if type(model) is keras.Sequential:
        return layers
    if type(model).__name__ != "Functional" or not type(model).__module__.startswith("keras."):
        return None
    tensor = model.input
    for layer in layers:
        if not isinstance(tensor, keras.KerasTensor) or getattr(layer, "input", None) is not tensor:
            return None
        tensor = layer.output
    return layers if model.output is tensor else None


def _is_plain_dense(layer: keras.layers.Layer) -> bool:
    import keras

    return (
        type(layer) is keras.layers.Dense
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
        and all(str(variable.dtype) == "float32" for variable in layer.weights)
    )


# -- activations ----------------------------------------------------------------------------------------------------


class _Activation(NamedTuple):
    """An activation, in place, and how a gradient goes back through it, from its output, in place."""

    forward: Callable[[Array], object]
    backward: Callable[[Array, Array], object]


def _over_units(function: np.ufunc, values: Array) -> Any:
    """A reduction over the last axis, which stays; numpy's own takes many times as long where that is short."""
    if values.shape[-1] > _FEW_UNITS:
        return function.reduce(values, axis=-1, keepdims=True)
    parts = (values[..., place : place + 1] for place in range(values.shape[-1]))
    return functools.reduce(function, parts)


def _mean(values: Array) -> Any:
    return _over_units(np.add, values)[..., 0] / np.float32(values.shape[-1])


def _softmax(z: Array) -> None:
    z -= _over_units(np.maximum, z)
    np.exp(z, out=z)
    z /= _over_units(np.add, z)


def _sigmoid(z: Array) -> None:
    np.negative(z, out=z)
    np.exp(z, out=z)
    z += 1
    np.reciprocal(z, out=z)


def _back_sigmoid(gradient: Array, output: Array) -> None:
    gradient *= output
    gradient *= 1 - output


def _back_softmax(gradient: Array, output: Array) -> None:
    gradient -= _over_units(np.add, gradient * output)
    gradient *= output


def _back_tanh(gradient: Array, output: Array) -> None:
    gradient *= 1 - np.square(output)


_ACTIVATIONS = {
    "linear": _Activation(lambda z: None, lambda gradient, output: None),
    "relu": _Activation(
        lambda z: np.maximum(z, 0, out=z), lambda gradient, output: np.multiply(gradient, output > 0, out=gradient)
    ),
    "sigmoid": _Activation(_sigmoid, _back_sigmoid),
    "softmax": _Activation(_softmax, _back_softmax),  # of the last layer only
    "tanh": _Activation(lambda z: np.tanh(z, out=z), _back_tanh),
}
_Kind = Literal["train", "test"]


# -- losses ---------------------------------------------------------------------------------------------------------


class _Loss(NamedTuple):
    """A loss: what it takes and what it makes of it.

    Attributes:
        activations: Those that the last layer may have.
        through: Whether it is computed from what goes into the last activation, and its gradient is that of this.
        compute: From that, or else from the output, the targets and the smoothing of labels, one number or
            `(models, 1, 1)`, to the loss of each row, the gradient, and the output where it is computed from what goes
            into the activation.
    """

    activations: tuple[str, ...]
    through: bool
    compute: Callable[[Array, Array, Any], tuple[Array, Array, Array]]


def _smoothed(y: Array, smoothing: Array | float, n_classes: int) -> Any:
    return y * _single(1.0 - smoothing) + _single(smoothing / n_classes) if np.any(smoothing) else y


def _binary_crossentropy(z: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    y = _smoothed(y, smoothing, 2)
    output = z.copy()
    _sigmoid(output)
    loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
    return _mean(loss), (output - y) / np.float32(z.shape[-1]), output


def _crossentropy(z: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    y = _smoothed(y, smoothing, z.shape[-1])
    z = z - _over_units(np.maximum, z)
    output = np.exp(z)
    total = _over_units(np.add, output)
    output /= total
    z -= np.log(total)
    z *= y
    return -_over_units(np.add, z)[..., 0], output - y, output


def _bounded(probability: Array) -> tuple[Array, Array]:
    """Probabilities as Keras bounds them before it takes their logarithm, and which of them keep their gradient."""
    import keras

    epsilon = keras.config.epsilon()
    low, high = np.float32(epsilon), np.float32(1.0 - epsilon)
    return np.clip(probability, low, high), (probability >= low) & (probability <= high)


def _crossentropy_of_output(output: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    y = _smoothed(y, smoothing, output.shape[-1])
    total = _over_units(np.add, output)
    share = output / total
    bounded, inside = _bounded(share)
    gradient = np.where(inside, -y / bounded, np.float32(0))
    gradient -= _over_units(np.add, gradient * share)
    gradient /= total
    return -_over_units(np.add, y * np.log(bounded))[..., 0], gradient, output


def _binary_crossentropy_of_output(output: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    y = _smoothed(y, smoothing, 2)
    bounded, inside = _bounded(output)
    loss = -y * np.log(bounded) - (1 - y) * np.log1p(-bounded)
    gradient = np.where(inside, (bounded - y) / (bounded * (1 - bounded)), np.float32(0))
    return _mean(loss), gradient / np.float32(output.shape[-1]), output


def _squared_error(output: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    difference = output - y
    return _mean(np.square(difference)), difference * np.float32(2 / y.shape[-1]), output


def _absolute_error(output: Array, y: Array, smoothing: Array | float) -> tuple[Array, Array, Array]:
    difference = output - y
    return _mean(np.abs(difference)), np.sign(difference) / np.float32(y.shape[-1]), output


_OF_NUMBERS = ("linear", "relu", "sigmoid", "tanh")
_LOSSES = {
    "BinaryCrossentropy": _Loss(("sigmoid",), True, _binary_crossentropy),
    "CategoricalCrossentropy": _Loss(("softmax",), True, _crossentropy),
    "SparseCategoricalCrossentropy": _Loss(("softmax",), True, _crossentropy),  # of numbers turned into rows
    "MeanSquaredError": _Loss(_OF_NUMBERS, False, _squared_error),
    "MeanAbsoluteError": _Loss(_OF_NUMBERS, False, _absolute_error),
}
# TensorFlow computes losses of probabilities from what went into sigmoid and softmax, torch from what came out.
_LOSSES_OF_OUTPUT = {
    "BinaryCrossentropy": _Loss(("sigmoid",), False, _binary_crossentropy_of_output),
    "CategoricalCrossentropy": _Loss(("softmax",), False, _crossentropy_of_output),
    "SparseCategoricalCrossentropy": _Loss(("softmax",), False, _crossentropy_of_output),
}
_NAMES_OF_LOSSES = {
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "mean_squared_error": "MeanSquaredError",
    "mse": "MeanSquaredError",
    "mean_absolute_error": "MeanAbsoluteError",
    "mae": "MeanAbsoluteError",
}
_OPTIONS = {"axis": -1, "from_logits": False, "ignore_class": None, "label_smoothing": 0.0}


def _loss_of(model: keras.Model, last: str) -> tuple[str, _Loss, float] | None:
    """The name of a model's loss, the loss, and its smoothing of labels; None if it is not written out."""
    import keras

    given = model.loss
    if isinstance(given, str):
        name, options = _NAMES_OF_LOSSES.get(given, ""), {}
    else:
        name = type(given).__name__
        if name not in _LOSSES or type(given) is not getattr(keras.losses, name) or given.dtype != "float32":
            return None
        options = {**given.get_config(), **_keras.keywords_of(given)}  # the config leaves `axis` out
        if options.pop("reduction") != "sum_over_batch_size":
            return None
    if name not in _LOSSES:
        return None
    options = {key: options.get(key, value) for key, value in _OPTIONS.items()}
    logits = options.pop("from_logits")
    smoothing = options.pop("label_smoothing")
    if options != {"axis": -1, "ignore_class": None} or not isinstance(smoothing, float):
        return None
    loss = _LOSSES[name]
    if not logits and keras.config.backend() == "torch":
        loss = _LOSSES_OF_OUTPUT.get(name, loss)
    activations = ("linear",) if logits else loss.activations
    return (name, loss, smoothing) if last in activations else None


# -- metrics --------------------------------------------------------------------------------------------------------


class _Metric(NamedTuple):
    """A metric: the number of its variables, how a batch is counted in them, in place, and what they say."""

    n_variables: int
    add: Callable[[Sequence[Array], Array, Array], None]
    result: Callable[[Sequence[Array]], Array]


def _ratio(variables: Sequence[Array]) -> Any:
    total, count = variables
    return np.divide(total, count, out=np.zeros_like(total), where=count != 0)


def _mean_of(function: Callable[[Array, Array], Array]) -> _Metric:
    def count(variables: Sequence[Array], y: Array, output: Array) -> None:
        values = function(y, output)
        total, rows = variables
        total += values.sum(axis=-1, dtype="float32")
        rows += values.shape[-1]

    return _Metric(2, count, _ratio)


def _largest(output: Array) -> Any:
    # Of two, `argmax` takes the first where they are equal, and many times as long as to compare them.
    return output[..., 1] > output[..., 0] if output.shape[-1] == 2 else output.argmax(axis=-1)


def _count_r2(variables: Sequence[Array], y: Array, output: Array) -> None:
    n_samples, squares, total, residual, count = variables
    total += y.sum(axis=1)
    squares += (y * y).sum(axis=1)
    residual += np.square(y - output).sum(axis=1)
    count += y.shape[1]
    n_samples += y.shape[1] * y.shape[2]


def _r2(variables: Sequence[Array]) -> Any:
    _, squares, total, residual, count = variables
    scores = 1 - residual / (squares - total * (total / count))
    return np.where(np.isinf(scores), np.float32(0), scores).mean(axis=-1)


def _metric_of(metric: keras.metrics.Metric) -> _Metric | None:
    """A metric of Keras, written out; None if it is not."""
    import keras

    kinds = keras.metrics
    if str(metric.dtype) != "float32":
        return None
    if type(metric) is kinds.BinaryAccuracy:
        threshold = metric.get_config()["threshold"]
        return _mean_of(lambda y, output: _mean(((output > threshold) == y).astype("float32")))
    if type(metric) in (kinds.CategoricalAccuracy, kinds.SparseCategoricalAccuracy):
        return _mean_of(lambda y, output: _largest(y) == _largest(output))
    if type(metric) is kinds.MeanSquaredError:
        return _mean_of(lambda y, output: _mean(np.square(output - y)))
    if type(metric) is kinds.MeanAbsoluteError:
        return _mean_of(lambda y, output: _mean(np.abs(output - y)))
    if type(metric) is kinds.R2Score and metric.class_aggregation == "uniform_average" and not metric.num_regressors:
        return _Metric(5, _count_r2, _r2)
    return None


# -- rules of update ------------------------------------------------------------------------------------------------

_Number = Callable[[str], Any]  # of an optimizer, in double precision: one, or one for each model, `(models, 1)`


def _decay(w: Array, rate: Array, number: _Number, spare: Array) -> None:
    np.multiply(w, _single(number("weight_decay")), out=spare)
    spare *= rate
    w -= spare


def _sgd(
    w: Array, g: Array, state: Mapping[str, Array], rate: Array, number: _Number, spare: Array, nesterov: bool
) -> None:
    g *= rate
    if "_momentum" not in state:
        w -= g
        return
    velocity, momentum = state["_momentum"], _single(number("momentum"))
    velocity *= momentum
    velocity -= g
    if nesterov:
        np.multiply(velocity, momentum, out=spare)
        spare -= g
        w += spare
    else:
        w += velocity


def _adam(
    w: Array, g: Array, state: Mapping[str, Array], rate: Array, number: _Number, spare: Array, step: Array | np.float64
) -> None:
    m, v = state["_momentum"], state["_velocity"]
    beta_1, beta_2 = number("beta_1"), number("beta_2")
    # A power as plain Keras has it, which is that in double precision, rounded: `1 - power` is small at first.
    powers = [_single(np.power(np.float64(_single(beta)), step)) for beta in (beta_1, beta_2)]
    alpha = rate * np.sqrt(1 - powers[1]) / (1 - powers[0])
    np.subtract(g, m, out=spare)
    spare *= _single(1 - beta_1)
    m += spare
    np.square(g, out=g)
    g -= v
    g *= _single(1 - beta_2)
    v += g
    np.sqrt(v, out=g)
    g += _single(number("epsilon"))
    np.multiply(m, alpha, out=spare)
    spare /= g
    w -= spare


def _rmsprop(w: Array, g: Array, state: Mapping[str, Array], rate: Array, number: _Number, spare: Array) -> None:
    velocity, rho = state["_velocity"], number("rho")
    np.square(g, out=spare)
    spare *= _single(1 - rho)
    velocity *= _single(rho)
    velocity += spare
    np.add(velocity, _single(number("epsilon")), out=spare)
    np.sqrt(spare, out=spare)
    g *= rate
    g /= spare
    if "_momentum" in state:
        momentum = state["_momentum"]
        momentum *= _single(number("momentum"))
        momentum += g
        g = momentum
    w -= g


def _single(number: object) -> Any:
    return np.asarray(number, "float32")


class _Rule(NamedTuple):
    """The rule of an optimizer.

    Attributes:
        update: Takes a step.
        variables: Names of what it keeps for each weight; with momentum, `_momentum` is among them in any case.
        required: Values that settings of the optimizer must have.
    """

    update: Callable[..., None]
    variables: tuple[str, ...] = ()
    required: Mapping[str, object] = {}


# Another optimizer needs a function above and a line here.
_RULES: dict[str, _Rule] = {
    "SGD": _Rule(_sgd),
    "Adam": _Rule(_adam, ("_momentum", "_velocity"), {"amsgrad": False}),
    "AdamW": _Rule(_adam, ("_momentum", "_velocity"), {"amsgrad": False}),
    "RMSprop": _Rule(_rmsprop, ("_velocity",), {"centered": False}),
}


# -- steps ----------------------------------------------------------------------------------------------------------


class NumPySteps:
    """Steps of training and testing of models of one structure.

    Args:
        model: A built and compiled model of the structure.
        chain: Its layers.
        slots: Where the numbers stand that may differ between models: `(object, attribute)`.
        names: Names of the optimizer's variables, without that of the vector of weights that they are for.
    """

    def __init__(
        self, model: keras.Model, chain: Chain, slots: Sequence[tuple[Any, str]], names: Sequence[str]
    ) -> None:
        loss = _loss_of(model, chain.layers[-1].activation)
        rule = _rule_of(model.optimizer)
        metrics = _metrics_of(model)
        kinds = [type(metric).__name__ for group in model.metrics[1:] for metric in group.metrics]
        if loss is None or rule is None or metrics is None or sorted(names) != rule:
            raise ValueError("it is not written out")
        self._loss, self._smoothing = loss[1:]
        self._given_loss = model.loss
        self._takes_numbers = loss[0] == "SparseCategoricalCrossentropy"
        of_numbers = [kind == "SparseCategoricalAccuracy" for kind in kinds]
        if not all(of_numbers) if self._takes_numbers else any(of_numbers):
            raise ValueError("its metrics are for targets of another form")
        self._of_columns, self._of_r2 = "CategoricalAccuracy" in kinds, "R2Score" in kinds
        self._counted = metrics
        # `get_metrics_result` sorts them before Keras 3.14.
        others = (name for group in model.metrics[1:] for name in group.result())
        self._names_of_results = [model.metrics[0].name, *others]
        if len(self._names_of_results) != 1 + len(metrics):
            raise ValueError("its metrics share a name")
        self._optimizer, self._chain, self._slots = model.optimizer, chain, list(slots)
        self._names = list(names)
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes]).tolist()
        penalties = [(place, variable.regularizer) for place, variable in enumerate(model.trainable_variables)]
        self._penalties = [(place, penalty) for place, penalty in penalties if penalty is not None]

    def takes(self, x: Any, y: Array, weights: Any) -> bool:
        """Whether these data can be trained on, without a word that Keras would say to them."""
        units = self._chain.n_outputs
        if not all(isinstance(part, np.ndarray) for part in (x, y)) or x.ndim != 2 or x.dtype != "float32":
            return False
        if x.shape[1] != self._chain.n_inputs or not (weights is None or getattr(weights, "ndim", 0) == 1):
            return False
        if self._takes_numbers:
            one = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
            whole = y.dtype.kind != "f" or bool((y == np.floor(y)).all())
            return bool(one and len(y) and whole and y.min() >= 0 and y.max() < units)
        if y.ndim == 1 and self._of_columns:
            return False
        if self._of_r2 and len(y) and np.mean(y) ** 2 > _MAX_MEAN * np.var(y):
            return False
        return y.shape[1:] == (units,) or (y.ndim == 1 and units == 1)

    def seconds(self, n_models: int, batch_size: int) -> float:
        """Approximate time of a step for so many models, in seconds."""
        return _A_STEP + n_models * (_A_MODEL + _A_MULTIPLICATION * batch_size * self._chain.multiplications)

    def run(
        self,
        kind: _Kind,
        trainable: Sequence[Array],
        optimizer: Sequence[Array],
        metrics: Sequence[Array],
        traced: Mapping[int, Array],
        data: tuple[Any, Any, Any],
        indices: Array,
        offsets: tuple[Array | None, Array | None, Array | None],
    ) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
        """Takes models through batches.

        Args:
            kind: `"train"` or `"test"`.
            trainable: Weights, each of shape `(models, ...)`; none of the arrays is changed.
            optimizer: Variables of the optimizer, the same.
            metrics: Variables of the metrics, the same.
            traced: For slots whose number differs between models, the numbers `(models,)` in double precision.
            data: Rows, targets and weights of rows, or None, shared by all models.
            indices: Row indices of each batch, shape `(models, steps, rows)`.
            offsets: Number added to the row indices for each part of the data, `(models,)`.

        Returns:
            The weights and variables afterwards, and the results of the metrics by name, `(models,)` each.
        """
        n_models, n_steps, size = indices.shape
        w = np.concatenate([value.reshape(n_models, -1) for value in trainable], axis=1)
        state = {name: np.array(value) for name, value in zip(self._names, optimizer, strict=True)}
        metrics = [np.array(value) for value in metrics]
        run = _NumPyRun(self, w, state, traced, n_models, size)
        x, y, weights = data
        y = y.reshape(len(y), -1)
        if self._takes_numbers:
            y = y.astype("int64") == np.arange(self._chain.n_outputs)
        y = y.astype("float32", copy=False)
        indices = indices.astype("intp")
        rows, targets, of_weights = (indices + (0 if offset is None else offset[:, None, None]) for offset in offsets)
        with np.errstate(all="ignore"):
            for step in range(n_steps):
                batch_weights = None if weights is None else weights[of_weights[:, step]].astype("float32", copy=False)
                run.forward(x, rows[:, step])
                run.count(y[targets[:, step]], batch_weights, metrics)
                if kind == "train":
                    run.backward()
            results = self._results(metrics)
        return run.weights, [state[name] for name in self._names], metrics, results

    def _results(self, variables: list[Array]) -> dict[str, Any]:
        values, first = [_ratio(variables[:2])], 2
        for metric in self._counted:
            values.append(metric.result(variables[first : first + metric.n_variables]))
            first += metric.n_variables
        return dict(zip(self._names_of_results, values, strict=True))


class _NumPyRun:
    """The arrays of some models on their way through batches of one size."""

    def __init__(
        self, steps: NumPySteps, w: Any, state: dict[str, Any], traced: Mapping[int, Any], n_models: int, size: int
    ) -> None:
        self._steps, self._w, self._state, self._size = steps, w, state, size
        numbers = ((steps._slots[slot], values[:, None]) for slot, values in traced.items())
        self._traced = {(id(owner), name): values for (owner, name), values in numbers}
        self._g, self._spare = np.empty_like(w), np.empty_like(w)
        self.weights, self._gradients = self._views(w), self._views(self._g)
        self._rate = state["learning_rate"][:, None]
        self._rule = _RULES[type(steps._optimizer).__name__].update
        # A bias stands behind its kernel, and is a row more of it for one input more, which is always 1.
        layers = steps._chain.layers
        self._kernels, self._of_kernels = self._with_biases(w), self._with_biases(self._g)
        self._gathered = np.empty((n_models, size, steps._chain.n_inputs), "float32")
        self._inputs = [np.ones((n_models, size, kernel.shape[1]), "float32") for kernel in self._kernels]
        self._backward = [np.empty_like(inputs) for inputs in self._inputs]
        have_bias = [layer.bias is not None for layer in layers]
        self._ones = [part[..., -1] if has else None for part, has in zip(self._inputs, have_bias, strict=True)]
        self._output = np.empty((n_models, size, steps._chain.n_outputs), "float32")

    def _views(self, vectors: Array) -> list[Array]:
        """The parts of `(models, weights)` vectors that belong to each variable."""
        steps = self._steps
        begins = [0, *steps._ends]
        return [
            vectors[:, begin:end].reshape(len(vectors), *shape)
            for begin, end, shape in zip(begins, steps._ends, steps._shapes, strict=False)
        ]

    def _with_biases(self, vectors: Array) -> list[Array]:
        """Those that belong to each layer."""
        steps = self._steps
        begins, kernels = [0, *steps._ends], []
        for layer in steps._chain.layers:
            end = steps._ends[layer.kernel if layer.bias is None else layer.bias]
            part = vectors[:, begins[layer.kernel] : end]
            kernels.append(part.reshape(len(vectors), -1, steps._shapes[layer.kernel][1]))
        return kernels

    def number(self, owner: object, name: str) -> Array | float:
        """A number of the optimizer or of a penalty, in double precision."""
        given = self._traced.get((id(owner), name))
        return float(getattr(owner, name)) if given is None else given

    def forward(self, x: Array, rows: Array) -> None:
        np.take(x, rows, axis=0, out=self._gathered, mode="clip")
        self._inputs[0][..., : self._gathered.shape[-1]] = self._gathered
        steps = self._steps
        layers = steps._chain.layers
        for place, (layer, kernel) in enumerate(zip(layers, self._kernels, strict=True)):
            if place + 1 == len(layers):
                np.matmul(self._inputs[place], kernel, out=self._output)
                if not steps._loss.through:
                    _ACTIVATIONS[layer.activation].forward(self._output)
                return
            # The ones of the next layer go through the activation as well: a row of memory is quicker than its parts.
            output, ones = self._inputs[place + 1], self._ones[place + 1]
            np.matmul(self._inputs[place], kernel, out=output[..., : kernel.shape[2]])
            _ACTIVATIONS[layer.activation].forward(output)
            if ones is not None and layer.activation not in ("linear", "relu"):
                ones[...] = 1

    def count(self, y: Array, weights: Array | None, variables: list[Array]) -> None:
        """Computes the loss and its gradient, and counts loss and metrics."""
        steps, last, output = self._steps, self._steps._chain.layers[-1].activation, self._output
        smoothing = self._traced.get((id(steps._given_loss), "label_smoothing"))
        smoothing = steps._smoothing if smoothing is None else smoothing[..., None]
        loss, gradient, probability = steps._loss.compute(output, y, smoothing)
        if weights is not None:
            loss *= weights
            gradient *= weights[..., None]
        gradient /= np.float32(self._size)
        if not steps._loss.through:
            _ACTIVATIONS[last].backward(gradient, output)
        elif last != "linear":  # whose output is what went into the loss
            output = probability
        self._gradient = gradient
        total = loss.sum(axis=1) / np.float32(self._size) + self._penalty()
        variables[0] += total * np.float32(self._size)
        variables[1] += np.float32(self._size)
        first = 2
        for metric in steps._counted:
            metric.add(variables[first : first + metric.n_variables], y, output)
            first += metric.n_variables

    def _penalty(self) -> Any:
        total: Any = np.float32(0)
        for place, penalty in self._steps._penalties:
            w = self.weights[place].reshape(len(self._w), -1)
            for name, measure in (("l1", np.abs), ("l2", np.square)):
                if getattr(penalty, name, 0.0):
                    total = total + _single(self.number(penalty, name)).reshape(-1) * measure(w).sum(axis=1)
        return total

    def backward(self) -> None:
        """Takes a step against the gradient."""
        layers, back = self._steps._chain.layers, self._gradient
        for place in range(len(layers) - 1, -1, -1):
            inputs = self._inputs[place]
            np.matmul(inputs.transpose(0, 2, 1), back, out=self._of_kernels[place])
            if place:
                into = self._backward[place]
                np.matmul(back, self._kernels[place].transpose(0, 2, 1), out=into)
                _ACTIVATIONS[layers[place - 1].activation].backward(into, inputs)
                back = into[..., : self._kernels[place - 1].shape[2]]
        for place, penalty in self._steps._penalties:
            w, g = (views[place].reshape(len(self._w), -1) for views in (self.weights, self._gradients))
            if getattr(penalty, "l1", 0.0):
                g += _single(self.number(penalty, "l1")) * np.sign(w)
            if getattr(penalty, "l2", 0.0):
                g += _single(self.number(penalty, "l2")) * (2 * w)
        self._update()

    def _update(self) -> None:
        optimizer, state = self._steps._optimizer, self._state
        number = functools.partial(self.number, optimizer)
        if optimizer.weight_decay is not None:
            _decay(self._w, self._rate, number, self._spare)
        more: tuple[Any, ...] = ()
        if self._rule is _adam:
            more = ((state["iteration"] + 1.0)[:, None],)
        elif self._rule is _sgd:
            more = (optimizer.nesterov,)
        self._rule(self._w, self._g, state, self._rate, number, self._spare, *more)
        state["iteration"] += 1


def steps_of(
    model: keras.Model, chain: Chain | None, slots: Sequence[tuple[Any, str]], names: Sequence[str] | None
) -> NumPySteps | None:
    """The steps of models of one structure; None where something of them is not written out.

    Args:
        model: A built and compiled model of the structure.
        chain: Its layers, or None.
        slots: Where the numbers stand that may differ between models: `(object, attribute)`.
        names: Names of the optimizer's variables, without that of the vector of weights that they are for; None if
            they are not for such a vector.
    """
    if chain is None or names is None or len(model.trainable_variables) != len(model.variables):
        return None
    try:
        return NumPySteps(model, chain, slots, names)
    except Exception:  # ours, and whatever an object of the user's raises where it is looked at
        return None


_OPTIONS_OF_OPTIMIZERS = (
    "clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps", "loss_scale_factor",
)  # fmt: skip


def _rule_of(optimizer: keras.optimizers.Optimizer) -> list[str] | None:
    """Names of the variables that the rule of an optimizer works with, sorted; None if it is not written out."""
    import keras

    rule, config = _RULES.get(type(optimizer).__name__), optimizer.get_config()
    if (
        rule is None
        or not type(optimizer).__module__.startswith("keras.")
        or any(config.get(name) is not value for name, value in rule.required.items())
        or any(config.get(name) is not None for name in _OPTIONS_OF_OPTIMIZERS)
        or config.get("use_ema")
        or isinstance(config["learning_rate"], keras.optimizers.schedules.LearningRateSchedule | dict)
    ):
        return None
    momentum = ["_momentum"] if config.get("momentum") else []
    return sorted(["iteration", "learning_rate", *rule.variables, *momentum])


def _metrics_of(model: keras.Model) -> list[_Metric] | None:
    """The metrics beside the loss, written out; None if one is not."""
    import keras

    config = _keras.compile_arguments(model)
    if config is None:
        return None
    penalties = {type(variable.regularizer) for variable in model.trainable_variables} - {type(None)}
    known = {keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2}
    if config.get("loss_weights") is not None or config.get("weighted_metrics") not in (None, []):
        return None
    if not penalties <= known:
        return None
    if len(model.metrics) > 2 or type(model.metrics[0]) is not keras.metrics.Mean:
        return None
    metrics = [_metric_of(metric) for group in model.metrics[1:] for metric in group.metrics]
    if any(metric is None for metric in metrics):
        return None
    known_variables = 2 + sum(metric.n_variables for metric in metrics if metric is not None)
    return metrics if known_variables == len(model.metrics_variables) else None  # type: ignore[return-value]
