"""Checks of a model and its data before it trains, for mistakes with which Keras would silently train a poor network.

Inputs of another shape than the model takes, and callbacks that monitor a quantity that is never measured, are errors.
Inputs that are not scaled are a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse, spmatrix

from kerastoolkit import _keras
from kerastoolkit._types import InputArrays
from kerastoolkit._words import did_you_mean, quoted
from kerastoolkit.estimators._advice import PIXELS, may_be_tabular
from kerastoolkit.exceptions import KerasToolkitWarning, ModelMismatchError, ParameterError

if TYPE_CHECKING:
    import keras

    from kerastoolkit.estimators._base import KerasEstimator

# Number of rows, spread over all, from which the scale of the columns is estimated.
_MAX_ROWS = 500

# Warnings that were given, by family of clones: in a search, all clones would give the same one.
_WARNED: set[tuple[str, str]] = set()


def warn_once(family: str | None, about: str, message: str, *, stacklevel: int) -> None:
    """Warns, unless a clone of the same estimator has already given this warning.

    Args:
        family: What all clones of an estimator have in common; None for an estimator that is no clone and always warns.
        about: The subject, in one word.
        message: The text of the warning.
        stacklevel: As in `warnings.warn`, seen from the caller.
    """
    if family is not None and (family, about) in _WARNED:
        return
    if family is not None:
        _WARNED.add((family, about))
    warnings.warn(message, KerasToolkitWarning, stacklevel=stacklevel + 1)


# -- shapes ---------------------------------------------------------------------------------------------------------


def check_shapes(model: keras.Model, X: InputArrays) -> None:
    """Compares rows with the inputs of a model, if the model declares them.

    Args:
        model: A built model.
        X: Rows: an array, or a dict or list of arrays.

    Raises:
        ModelMismatchError: An input takes rows of another shape; the message names both shapes.
    """
    for name, tensor, part in _inputs_with_rows(model, X):
        shape, wanted = tuple(np.shape(part))[1:], tuple(tensor.shape)[1:]
        # Keras itself removes or adds a last axis of 1.
        if any(_agree(shape, other) for other in (wanted, (*wanted, 1))) or _agree((*shape, 1), wanted):
            continue
        whose = "rows" if name is None else f"rows of {quoted(name)}"
        raise ModelMismatchError(
            f"The model takes {whose} of the shape {_written(wanted)}, but those of X have the shape "
            f"{_written(shape)}. Begin the model with keras.Input({_written(shape)}). A function that builds the model "
            "gets the shape of the rows if it has an argument `input_shape` without a default."
        )


def _inputs_with_rows(model: keras.Model, X: InputArrays) -> Iterator[tuple[Any, Any, Any]]:
    """Each input of a model with its rows: the name (None for the only one), the tensor, the rows."""
    import keras

    try:
        inputs = keras.tree.flatten(model.inputs)
    except (AttributeError, ValueError):
        return
    if isinstance(X, Mapping):
        given = model.input if isinstance(getattr(model, "input", None), Mapping) else {one.name: one for one in inputs}
        yield from ((name, given[name], part) for name, part in X.items() if name in given)
    elif isinstance(X, (list, tuple)):
        yield from ((one.name, one, part) for one, part in zip(inputs, X, strict=False))
    elif len(inputs) == 1 and hasattr(X, "shape"):
        yield None, inputs[0], X


def _agree(shape: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(None in (a, b) or a == b for a, b in zip(shape, wanted, strict=True))


def _written(shape: Sequence[int | None]) -> str:
    return str(tuple(shape))


# -- callbacks ------------------------------------------------------------------------------------------------------


def check_monitors(
    callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, *, validates: bool, is_dataset: bool
) -> None:
    """Refuses Keras callbacks that monitor a quantity which this fit never measures: they would never do anything.

    Args:
        callbacks: The callbacks of the fit.
        model: A compiled model.
        validates: Whether there is validation data.
        is_dataset: Whether the rows come as a data set.

    Raises:
        ParameterError: There is such a callback; the message says what to monitor, or what to give.
    """
    if not all(type(callback).__module__.startswith("keras.") for callback in callbacks):
        names = None  # it is unknown what a callback of the user's own measures
    else:
        names = _measured(model)
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or not _waits(callback):
            continue
        kind, plain = type(callback).__name__, monitor.removeprefix("val_")
        if monitor.startswith("val_") and not validates:
            rows = "fit(dataset, validation_data=another_dataset)" if is_dataset else "`validation_split=0.1`"
            raise ParameterError(
                f"`callbacks` has {kind}, which monitors {monitor!r}, but no rows are held out on which that would be "
                f"measured: it would never do anything. Give {rows}, or monitor the training rows, "
                f"{kind}(monitor={plain!r})."
            )
        if names is not None and plain not in names | {"learning_rate"}:
            known = sorted(names | {f"val_{name}" for name in names} if validates else names)
            raise ParameterError(
                f"`callbacks` has {kind}, which monitors {monitor!r}, but the model does not measure that: it would "
                f"never do anything.{did_you_mean(monitor, known)} It measures: {', '.join(known)}. Name anything else "
                "that it should measure in `metrics`."
            )


def _waits(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback does nothing without what it monitors; a checkpoint may be written after each epoch anyway."""
    import keras

    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return bool(callback.save_best_only)
    return isinstance(callback, (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau))


def _measured(model: keras.Model) -> set[str] | None:
    """Names of what a fit measures on the training rows; None for a model that may measure more by itself."""
    import keras

    arguments = _keras.compile_arguments(model)
    is_plain = isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"
    if arguments is None or not is_plain or any(map(_keras.own_metrics, _keras.layers_of(model))):
        return None
    given = [arguments.get(name) for name in ("metrics", "weighted_metrics") if arguments.get(name)]
    names = {_name_of_metric(metric) for metric in keras.tree.flatten(given) if metric is not None}
    outputs = [str(name) for name in getattr(model, "output_names", None) or ()]
    if len(outputs) > 1:
        names |= {f"{output}_{name}" for output in outputs for name in names | {"loss"}}
    return names | {"loss"}


def _name_of_metric(metric: str | keras.Metric | Callable[..., Any]) -> str:
    return metric if isinstance(metric, str) else str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))


# -- scale ----------------------------------------------------------------------------------------------------------


def on_unscaled_rows(model: keras.Model, X: InputArrays, estimator: KerasEstimator, *, ours: bool) -> str | None:
    """The warning for inputs that are not scaled, if a network learns badly from them.

    Args:
        model: A built model.
        X: Rows, as the model takes them: an array, or a dict or list of arrays.
        estimator: The estimator that is fitted.
        ours: Whether a builder of kerastoolkit made the model.

    Returns:
        The text; None if the rows are scaled, or the model scales them itself.
    """
    names, of_numbers = getattr(estimator, "feature_names_in_", None), estimator._task != "classification"
    taken = _taken_as_they_are(model)
    for name, tensor, part in _inputs_with_rows(model, X):
        if id(tensor) not in taken or (part := _as_array(part)) is None:
            continue
        found = _far_from_one(part, names if name is None else None, of_numbers=of_numbers)
        if found is not None:
            whose = "X" if name is None else f"X[{name!r}]"
            return (
                f"{whose} is not scaled: {found}. A network learns slowly from such rows, and often "
                f"badly. {_how_to_scale(part, estimator, ours=ours, is_alone=name is None)}"
            )
    return None


def _how_to_scale(part: NDArray[Any] | spmatrix, estimator: KerasEstimator, *, ours: bool, is_alone: bool) -> str:
    """Code that scales the rows."""
    if len(part.shape) == 2 and is_alone:
        owner, scaler = type(estimator).__name__, "MaxAbsScaler" if issparse(part) else "StandardScaler"
        tabular = f", or {owner}('tabular'), which scales them itself" if ours and may_be_tabular(estimator) else ""
        return f"Put a scaler before it, make_pipeline({scaler}(), {owner}()){tabular}."
    highest = float(np.max(part))
    if np.min(part) >= 0 and len(part.shape) > 2:
        inside = "" if ours else f" Or begin the model with keras.layers.Rescaling(1 / {highest:g})."
        return f"Give X / {highest:g}, to `predict` as well.{inside}"
    return "Subtract the mean of the training rows and divide by their standard deviation, before `predict` as well."


def _as_array(part: Any) -> NDArray[Any] | spmatrix | None:
    """Rows as an array or sparse matrix of numbers; None if they are none, as the ragged rows of a data set."""
    import keras

    if not issparse(part) and not isinstance(part, np.ndarray):
        part = keras.ops.convert_to_numpy(part) if hasattr(part, "__array__") else None
    return part if part is not None and part.dtype.kind in "buif" else None


def _taken_as_they_are(model: keras.Model) -> set[int]:
    """The inputs that reach weights as they are, without a layer before that scales, embeds or looks them up."""
    import keras

    weighing = (
        keras.layers.Bidirectional,
        keras.layers.Dense,
        keras.layers.EinsumDense,
        keras.layers.GRU,
        keras.layers.LSTM,
        keras.layers.SimpleRNN,
    )
    passing = (keras.layers.Dropout, keras.layers.Flatten, keras.layers.Masking, keras.layers.Reshape)
    found: set[int] = set()
    for layer in getattr(model, "layers", ()):
        tensor = _input_of(layer) if isinstance(layer, weighing) else None
        while isinstance(before := _keras.layer_of(tensor), passing):
            tensor = _input_of(before)
        if isinstance(before, keras.layers.InputLayer):
            found.add(id(tensor))
    return found


def _input_of(layer: keras.Layer) -> keras.KerasTensor | None:
    """The input of a layer; None for a layer that is in no graph, in several places of it, or has several inputs."""
    import keras

    try:
        tensors = keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):
        return None
    return tensors[0] if len(tensors) == 1 else None


def _far_from_one(part: NDArray[Any] | spmatrix, names: Sequence[Any] | None, *, of_numbers: bool) -> str | None:
    """What is wrong with the scale of rows, as a clause; None if nothing is.

    The bounds were found on 26 tables, and on iris with a factor or a constant added, each of which `KerasClassifier()`
    and `KerasRegressor()` learned both as it is and standardized. A common factor of all columns matters little: iris
    is learned in tenths of a millimetre as well as in centimetres. What hurts is a column so far from 0 that it drowns
    the differences within the others. Columns that are mostly 0 (one-hot columns, word counts, the edges of images)
    need no scaling, and are left out.
    """
    some = part[:: max(1, int(part.shape[0]) // _MAX_ROWS)]
    values = np.asarray(some.toarray() if hasattr(some, "toarray") else some, dtype="float64")
    is_table = values.ndim < 3
    values = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]
    size, deviation = np.sqrt(np.mean(values**2, axis=0)), values.std(axis=0)
    if 0 < np.sqrt(np.sum(size**2)) < _TINY:
        return f"all its numbers are small, {np.abs(values).max():.2g} at most"
    counts = (np.mean(values != 0, axis=0) > 0.5) & (deviation > 1e-7 * size)
    if not counts.any():
        return None
    largest, typical = int(np.argmax(np.where(counts, size, 0.0))), float(np.median(deviation[counts]))
    if is_table and size[largest] > max(_LARGE, _DROWNS[of_numbers] * typical):
        column = f"column {largest if names is None else quoted(names[largest])}"
        about, by = f"{size[largest]:,.4g}", f"{typical:.2g}"
        return f"{column} has numbers of about {about}, while most columns vary by about {by}"
    is_image = not is_table or (values.shape[1] >= PIXELS and bool(np.all(values == np.round(values))))
    if is_image and float(np.median(size[counts])) > _BRIGHT:
        return f"its numbers go up to {np.abs(values).max():,.4g}"
    return None


_TINY, _LARGE, _BRIGHT = 0.1, 10.0, 30.0
_DROWNS = {False: 8.0, True: 5.0}  # for classes, and for numbers
