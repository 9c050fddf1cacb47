"""What `keras.Model.fit` and `predict` are called with: the parameters, what the call says, and the rows.

What the call says counts before what is routed (`fit__epochs`), and that before the parameters of the constructor.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _keras
from kerastoolkit._types import ClassWeight, Dataset, TargetArrays, Validation
from kerastoolkit.builders import Head
from kerastoolkit.data.splits import holdout_indices
from kerastoolkit.estimators import _inputs, _objects, _parameters, _spellings
from kerastoolkit.estimators._readers import Data
from kerastoolkit.estimators._recipe import Parameters
from kerastoolkit.estimators.fitted import AnyHead, Fitted
from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.training import Fit

if TYPE_CHECKING:
    import keras

_OF_CONSTRUCTOR = ("epochs", "batch_size", "validation_batch_size", "shuffle", "verbose")


# -- from parameters ------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What a call of `fit`, `partial_fit` or `initialize` says beside its rows.

    Args:
        fit_params: Arguments of `keras.Model.fit`; before `told_apart`, all keywords of the call.
        continuing: Whether the network that there is trains further.
        validation_data: Rows to watch. Defaults to `None`.
        train: Whether it trains at all. Defaults to `True`.
        classes: All labels there will be. Defaults to `None`: those in `y`.
        class_weight: Weights by label. Defaults to `None`: equal ones.
        belonging: `groups` and `time` of the rows, where they are given. Defaults to nothing.
    """

    fit_params: Mapping[str, Any]
    continuing: bool
    validation_data: Validation = None
    train: bool = True
    classes: Any = None
    class_weight: Any = None
    belonging: Mapping[str, Any] = types.MappingProxyType({})

    def told_apart(self, class_weight: ClassWeight) -> Call:
        """The same with the keywords told apart that are not for Keras.

        Args:
            class_weight: What counts where the call names none.

        Raises:
            ParameterError: There is a keyword that nobody takes; the message names the near miss.
        """
        left = dict(self.fit_params)
        classes = left.pop("classes", None)
        class_weight = left.pop("class_weight", class_weight)
        belonging = {name: left.pop(name, None) for name in ("groups", "time")}
        accepted = _parameters.keras_arguments("fit")
        for name in left:
            if name not in accepted:
                raise ParameterError(
                    f"fit() got an unexpected argument {name!r}.{_spellings.near_miss(name, accepted)} It takes: X, "
                    f"y, sample_weight, validation_data, groups, time, {', '.join(sorted(accepted))}. "
                    "Parameters of the estimator are set in the constructor or by set_params."
                )
        given = {name: values for name, values in belonging.items() if values is not None}
        return self._replace(fit_params=left, classes=classes, class_weight=class_weight, belonging=given)


def by_rows(belonging: Mapping[str, Any], n_rows: int) -> dict[str, np.ndarray]:
    """What rows belong to, as arrays of shape `(n_rows, ...)`.

    Raises:
        DataError: There is not an entry for each row.
    """
    found = {name: np.asarray(values) for name, values in belonging.items()}
    for name, values in found.items():
        if values.shape[:1] != (n_rows,):
            raise DataError(f"`{name}` must have an entry for each of the {n_rows} rows of X. Got {values.shape}.")
    return found


def from_parameters(
    parameters: Parameters, build: Callable[..., Any] | None, fit_params: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of `Model.fit` that need no rows to be known.

    Args:
        parameters: Those of the estimator.
        build: The function that builds the model, whose arguments are its own.
        fit_params: What the call says.
    """
    taken_by_build = _parameters.build_arguments(build) or set()
    accepted = _parameters.keras_arguments("fit")
    arguments = {name: _parameters.plain(parameters.values[name]) for name in _OF_CONSTRUCTOR}
    arguments |= {
        name: _parameters.plain(value)
        for name, value in parameters.others.items()
        if name in accepted and name not in taken_by_build
    }
    routed = parameters.below("fit")
    routed.pop("class_weight", None)  # which has become weights of rows
    callbacks = _objects.make_callbacks(parameters.values["callbacks"], parameters.below("callbacks"))
    callbacks += routed_callbacks(routed)
    callbacks += _objects.given_callbacks(fit_params.get("callbacks"))
    arguments |= routed
    arguments |= {name: value for name, value in fit_params.items() if name != "callbacks"}
    return arguments | {"callbacks": callbacks, "validation_split": 0.0}


def routed_callbacks(routed: dict[str, Any]) -> list[Any]:
    """Makes the callbacks of `fit__callbacks` or `predict__callbacks`, and takes them out of `routed`."""
    made = _objects.make_callbacks(routed.pop("callbacks", ()), _parameters.below(routed, "callbacks"))
    for name in [name for name in routed if name.startswith("callbacks__")]:
        del routed[name]
    return made


def predict_arguments(parameters: Parameters, predict_params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Model.predict`.

    Raises:
        ParameterError: `predict` got what nobody takes; the message names the near miss.
    """
    routed = parameters.below("predict")
    callbacks = routed_callbacks(routed)
    arguments = {**({"callbacks": callbacks} if callbacks else {}), **routed, **predict_params}
    accepted = _parameters.keras_arguments("predict")
    for name in arguments:
        if name not in accepted:
            raise ParameterError(
                f"predict() got an unexpected argument {name!r}.{_spellings.near_miss(name, accepted)}"
            )
    _parameters.check_values(predict_params)
    return arguments


# -- with rows ------------------------------------------------------------------------------------------------------


def with_dataset(
    arguments: dict[str, Any], data: Data, validation_data: Dataset | None, class_weight: ClassWeight
) -> None:
    """Adds a data set, which brings its own batches, and most their own order.

    Args:
        arguments: Of `Model.fit`, which are changed.
        data: The data set.
        validation_data: As `Model.fit` takes it.
        class_weight: Weights by the numbers of the classes.
    """
    arguments |= {"x": data.X, "validation_data": validation_data, "class_weight": class_weight}
    arguments.pop("batch_size")
    arguments["shuffle"] = _inputs.in_numbered_batches(data.X) and arguments["shuffle"]
    arguments.pop("validation_batch_size")


def split_off(
    data: Data, weights: NDArray[Any] | None, fraction: float, head: AnyHead, seed: int | None
) -> tuple[Data, Data | None]:
    """Rows to train on, and rows held out to watch.

    Args:
        data: All rows.
        weights: Their weights; None for equal ones.
        fraction: What to hold out, fraction of 1; 0 for none.
        head: Knows the classes, of which both parts get their share.
        seed: For the draw.
    """
    X, y, belonging = data.X, data.y, data.belonging
    if weights is not None and np.any(weights == 0):  # a row of weight 0 is a row that is not there
        kept = np.flatnonzero(weights)
        X, y, weights = _inputs.rows(X, kept), _target_rows(y, kept), weights[kept]
        belonging = {name: values[kept] for name, values in belonging.items()}
    if not fraction:
        return Data(X, y, weights), None
    stratify = None
    if isinstance(head, Head) and head.kind in ("binary", "multiclass", "ordinal"):
        stratify = head.class_numbers(y)
    # Where no seed was given, this draws from numpy's generator, as scikit-learn does.
    n_rows = _inputs.n_rows(X)
    places = holdout_indices(n_rows, fraction, stratify=stratify, random_state=seed, **belonging)
    train, held_out = (
        Data(_inputs.rows(X, part), _target_rows(y, part), None if weights is None else weights[part])
        for part in places
    )
    return train, held_out


def as_validation(data: Data, head: AnyHead, model: keras.Model) -> tuple[Any, ...]:
    """Rows to watch, as `Model.fit` takes them: `(x, y)` or `(x, y, weights)`."""
    weights = () if data.weights is None else (_encoded_weights(data.weights, head),)
    return (data.X, for_keras(data.y, head, model), *weights)


def with_arrays(
    arguments: dict[str, Any], data: Data, validation_data: tuple[Any, ...] | Dataset | None, fitted: Fitted
) -> int:
    """Adds rows, in batches of the size that the model and the strategy take.

    Args:
        arguments: Of `Model.fit`, which are changed.
        data: Rows to train on.
        validation_data: As `as_validation` returns it; or a data set, or None.
        fitted: What was learned.

    Returns:
        Number of the rows.
    """
    X, n_rows, model = data.X, _inputs.n_rows(data.X), fitted.network.example
    if isinstance(validation_data, tuple):  # and no data set
        X, held_out_X = _inputs.dense_if_small(X, validation_data[0])
        validation_data = (held_out_X, *validation_data[1:])
    else:
        (X,) = _inputs.dense_if_small(X)
    if fitted.strategy is not None:
        arguments["batch_size"] = fitted.strategy.global_batch_size(arguments["batch_size"])
    for name in ("batch_size", "validation_batch_size"):
        if arguments[name] == -1:  # scikeras' spelling of "all rows at once"
            arguments[name] = n_rows
    fixed = _keras.fixed_batch(model)
    if fixed is not None:
        _in_batches_of(fixed, arguments, n_rows, validation_data)
    y = for_keras(data.y, fitted.head, model)
    weights = None if data.weights is None else _encoded_weights(data.weights, fitted.head)
    if hasattr(X, "toarray"):
        batch_size = arguments.pop("batch_size") or 32
        arguments["x"] = _inputs.sparse_batches(X, y, weights, batch_size, shuffle=arguments["shuffle"])
        arguments["shuffle"] = False
    else:
        arguments |= {"x": _inputs.for_keras(X), "y": y, "sample_weight": weights}
    if isinstance(validation_data, tuple) and hasattr(validation_data[0], "toarray"):
        batch_size = arguments.pop("validation_batch_size") or 32
        validation_data = _inputs.sparse_batches(*_three(validation_data), batch_size, shuffle=False)
    elif isinstance(validation_data, tuple):
        validation_data = (_inputs.for_keras(validation_data[0]), *validation_data[1:])
    arguments["validation_data"] = validation_data
    return n_rows


def as_fit(arguments: Mapping[str, Any], fitted: Fitted, seed: int | None) -> Fit:
    """The fit that arguments of `Model.fit` ask for.

    Args:
        arguments: Of `Model.fit`; what is None, or Keras' default, is left out.
        fitted: What was learned so far: the network, and its strategy.
        seed: Seed of this fit; None to draw one.
    """
    own = {name: value for name, value in arguments.items() if name in _FIT_FIELDS and value is not None}
    others = {name: value for name, value in arguments.items() if name not in _FIT_FIELDS}
    options = {name: value for name, value in others.items() if not _is_default_of_fit(name, value)}
    return Fit(fitted.network, **own, seed=seed, strategy=fitted.strategy, options=options)


# Arguments of `Model.fit` that a `Fit` names; the others go to Keras.
_FIT_FIELDS = tuple(
    field.name for field in dataclasses.fields(Fit) if field.name not in ("model", "seed", "strategy", "options")
)


def _is_default_of_fit(name: str, value: object) -> bool:
    # Another Keras, or whoever wraps `Model.fit`, may not name it; our own default is that of Keras.
    default = _defaults_of_fit().get(name, 0.0 if name == "validation_split" else None)
    return value is default or value == default or value is None


@functools.cache
def _defaults_of_fit() -> dict[str, Any]:
    import keras

    return {name: parameter.default for name, parameter in inspect.signature(keras.Model.fit).parameters.items()}


def for_keras(y: Any, head: AnyHead, model: keras.Model) -> Any:
    """A target as `Model.fit` takes it; of several outputs in a list, a list.

    Keras knows a dict of targets by the names of outputs in a list, but not weights of its rows.
    """
    encoded = head.encode(y)
    if not isinstance(encoded, dict) or not isinstance(getattr(model, "output", None), (list, tuple)):
        return encoded
    names = model.output_names if set(model.output_names) == set(encoded) else list(encoded)
    return [encoded[name] for name in names]


def _encoded_weights(weights: NDArray[Any], head: AnyHead) -> Any:
    weights = _with_mean_one(weights)
    return head.encode_weights(weights) if isinstance(head, Head) else weights


def _with_mean_one(weights: NDArray[Any]) -> Any:
    """Weights as Keras gets them.

    Keras divides a weighted loss by the number of rows: with a mean of 1, a weight of 2 means what the same row twice
    means, and neither the size of a step nor `val_loss` depends on the unit of the weights.
    """
    import keras

    weights = _inputs.of_ordinary_size(weights)
    return (weights / weights.mean()).astype(keras.config.floatx())


def _in_batches_of(
    size: int, arguments: dict[str, Any], n_rows: int, validation_data: tuple[Any, ...] | Dataset | None
) -> None:
    """Sets the batches for a model that takes so many rows at once.

    Raises:
        ParameterError: Another size was asked for.
        DataError: The rows do not fill all batches.
    """
    for name in ("batch_size", "validation_batch_size"):
        if arguments[name] not in (None, size):
            raise ParameterError(
                f"`{name}` is {arguments[name]}, but the model takes batches of {size} rows: its input has a "
                f"batch_shape that begins with {size}. Leave `{name}` out, or build it with keras.Input(shape)."
            )
        arguments[name] = size
    held_out = _inputs.n_rows(validation_data[0]) if isinstance(validation_data, tuple) else 0
    for rows, what in ((n_rows, "to train on"), (held_out, "to validate on")):
        if rows % size:
            raise DataError(
                f"There are {rows} rows {what}, but the model takes batches of exactly {size}: its input has a "
                f"batch_shape that begins with {size}. Give a multiple of {size} rows, for example the first "
                f"{rows // size * size}, or build the model with keras.Input(shape)."
            )


def _target_rows(y: TargetArrays, index: NDArray[Any]) -> Any:
    return {name: column[index] for name, column in y.items()} if isinstance(y, Mapping) else y[index]


def _three(data: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    X, y, *weight = data
    return X, y, weight[0] if weight else None
