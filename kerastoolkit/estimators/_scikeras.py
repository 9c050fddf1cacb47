"""The bridge from scikeras."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from kerastoolkit._copies import copied_model
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.estimators._readers import ArrayReader
from kerastoolkit.estimators.classifier import KerasClassifier
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.estimators.regressor import KerasRegressor
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training.network import Network

if TYPE_CHECKING:
    import keras

    from kerastoolkit.estimators._base import KerasEstimator

# What scikeras asks its users to override; the first is in none of its own classes.
_OVERRIDABLE = ("_keras_build_fn", "target_encoder", "feature_encoder", "scorer")

# What a method is stored as in its class.
_METHODS = (FunctionType, classmethod, property, staticmethod)


def is_of_scikeras(estimator: object) -> bool:
    """Whether an object is an estimator of scikeras; scikeras is not imported for that."""
    wrappers: Any = sys.modules.get("scikeras.wrappers")  # whoever made the estimator imported it
    return wrappers is not None and isinstance(estimator, wrappers.BaseWrapper)


def from_scikeras(estimator: object) -> KerasClassifier | KerasRegressor:
    """Turns a scikeras estimator into one of kerastoolkit, with its parameters and, if fitted, its trained model.

    Example:

    >>> ours = from_scikeras(theirs)  # doctest: +SKIP

    Args:
        estimator: A `scikeras.wrappers.KerasClassifier` or `KerasRegressor`, fitted or not.

    Returns:
        A `KerasClassifier` or `KerasRegressor`; of a fitted estimator it predicts the same and can go on training.
        The model is a copy. The default `optimizer="rmsprop"` of scikeras comes over as it is where the model is not
        compiled by its build function.

    Raises:
        ParameterError: It is no scikeras estimator, or of a class that overrides a method of it; the message says
            which.
    """
    wrappers: Any = sys.modules.get("scikeras.wrappers")
    if wrappers is None or not isinstance(estimator, (wrappers.KerasClassifier, wrappers.KerasRegressor)):
        raise ParameterError(
            f"`estimator` must be a scikeras KerasClassifier or KerasRegressor; got a {type(estimator).__name__}."
        )
    kind = KerasRegressor if isinstance(estimator, wrappers.KerasRegressor) else KerasClassifier
    _refuse_overrides(type(estimator), getattr(wrappers, kind.__name__), kind)
    parameters = dict(estimator.get_params(deep=False))
    # scikeras writes its defaults out for every estimator. Here these two are what "not set" means: an explicit
    # optimizer would replace the one that the build function compiled.
    if parameters["optimizer"] == "rmsprop" and _compiles_itself(estimator):
        parameters["optimizer"] = None
    if parameters["run_eagerly"] is False:
        del parameters["run_eagerly"]
    ours = kind(**parameters)
    if getattr(estimator, "model_", None) is not None:
        _take_over(ours, estimator)
    return ours


def _refuse_overrides(theirs: type, base: type, kind: type) -> None:
    """Refuses a subclass with methods of its own: it moves by changing its base class, not by this bridge."""
    for one in theirs.__mro__[: theirs.__mro__.index(base)]:
        for name, value in vars(one).items():
            overrides = name in _OVERRIDABLE or (isinstance(value, _METHODS) and hasattr(base, name))
            if overrides and not name.startswith("__"):
                raise ParameterError(
                    f"{theirs.__name__} overrides `{name}`, so its code and not its parameters say what it does. "
                    f"Derive it from kerastoolkit.{kind.__name__} instead of scikeras.wrappers.{kind.__name__}."
                )


def _compiles_itself(estimator: BaseEstimator) -> bool:
    """Whether scikeras leaves its default `optimizer` unused, because the model comes compiled."""
    if getattr(estimator, "model_", None) is not None and estimator.model_.compiled:
        return not _is_default_rmsprop(estimator.model_.optimizer)
    build = estimator.model if estimator.model is not None else estimator.build_fn
    if hasattr(build, "compiled"):
        return bool(build.compiled)
    function = getattr(build, "func", build)  # of a functools.partial
    names = getattr(getattr(function, "__code__", None), "co_varnames", ())
    if {"compile_kwargs", "params"} & set(names):  # it is handed the optimizer
        return False
    return any("compile" in code.co_names for code in _codes(function, set()))


def _is_default_rmsprop(optimizer: keras.optimizers.Optimizer) -> bool:
    import keras

    if type(optimizer) is not keras.optimizers.RMSprop:
        return False
    config, default = optimizer.get_config(), keras.optimizers.RMSprop().get_config()
    for counted in (config, default):
        del counted["name"]
    rate, default_rate = config.pop("learning_rate"), default.pop("learning_rate")
    # A rate is kept in float32; one that is no number is a schedule.
    return isinstance(rate, float) and bool(np.isclose(rate, default_rate, rtol=1e-6)) and config == default


def _codes(function: object, seen: set[CodeType]) -> Iterator[CodeType]:
    """The code of a function, of those inside it and of those it calls by a global name."""
    code = getattr(function, "__code__", function)
    if not isinstance(code, CodeType) or code in seen:
        return
    seen.add(code)
    yield code
    for constant in code.co_consts:
        yield from _codes(constant, seen)
    known = getattr(function, "__globals__", {})
    for name in code.co_names:
        # Only functions of the user's: all of Keras compiles somewhere.
        called = known.get(name)
        if getattr(called, "__module__", "").partition(".")[0] not in ("keras", "tensorflow"):
            yield from _codes(called, seen)
    for cell in getattr(function, "__closure__", None) or ():
        yield from _codes(cell.cell_contents, seen)


def _take_over(ours: KerasEstimator, theirs: BaseEstimator) -> None:
    model, history = copied_model(theirs.model_), theirs.history_
    history = {name: [float(np.asarray(value)) for value in values] for name, values in history.items()}
    fitted = Fitted(
        ArrayReader(tuple(theirs.X_shape_[1:]), int(theirs.n_features_in_)),
        _head(theirs).bind(model),
        Network(model),
        history,
        n_iter=len(history.get("loss", [])),
        generator=None if theirs.random_state is None else np.random.RandomState(_seed(theirs.random_state)),
    )
    ours._set_fitted(fitted)


def _head(theirs: BaseEstimator) -> Head | HeadGroup:
    # A table of one-hot rows is "multilabel-indicator" to scikit-learn; only the encoder of scikeras knows better.
    kind = getattr(theirs.target_encoder_, "_target_type", theirs.target_type_)
    if kind == "binary":
        return Head.binary(theirs.classes_)
    if kind == "multiclass":
        return Head.multiclass(theirs.classes_)
    if kind == "multiclass-onehot":
        return dataclasses.replace(Head.multiclass(int(theirs.n_classes_)), one_hot=True, flat=False)
    if kind == "multilabel-indicator":
        return Head.multilabel(int(theirs.n_classes_))
    if kind.startswith("continuous"):
        head = Head.regression(int(theirs.n_outputs_))
        return dataclasses.replace(head, flat=theirs.y_ndim_ == 1, dtype=np.dtype(theirs.y_dtype_).name)
    raise ParameterError(f"A fitted scikeras estimator with a target of kind {kind!r} cannot be taken over; fit anew.")


def _seed(random_state: object) -> int:
    return random_state if isinstance(random_state, int) else 0
