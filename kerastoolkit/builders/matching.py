"""A model held against a target: what it puts out, what its loss and metrics compare, and whether the two fit.

A model that a user wrote may end in many ways (two softmax units for two classes, logits, categorical crossentropy on
one-hot rows, one output for each target). `outputs_of` looks at the outputs of a model, and `match` says what the
target and the output mean to each other, or refuses an end that Keras would train silently to a wrong result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.builders.losses import (
    Encoding,
    Loss,
    Metrics,
    accepts,
    flattened,
    form_of_metric,
    is_metric,
    is_of_keras,
    loss_name,
    metric_name,
    takes_logits,
)
from kerastoolkit.builders.targets import NUMERIC_KINDS, Array, Kind, Shape, with_article
from kerastoolkit.exceptions import ModelMismatchError

if TYPE_CHECKING:
    import keras

__all__ = [
    "Match",
    "ModelOutput",
    "Output",
    "Target",
    "check_reach",
    "is_limited",
    "match",
    "outputs_of",
]

Output: TypeAlias = Literal["probability", "logit", "margin", "value"]

# Activations that end between 0 and 1, and Keras' losses that take their output for probabilities.
_BOUNDED = ("sigmoid", "hard_sigmoid", "softmax", "sparsemax")
_OF_PROBABILITIES = ("crossentropy", "kl_divergence", "kldivergence", "dice", "tversky")

# Activations by the numbers between which they end, on one side or on both; all others reach any number.
_ENDS_BETWEEN: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "sparsemax": (0.0, 1.0),
    "sparse_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "sparse_plus": (0.0, math.inf),
    "exponential": (0.0, math.inf),
    "log_sigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
}
# What to do about a metric that compares labels.
_ACCURACY = "The string 'accuracy' finds the right one."

# A few targets may lie beyond by this fraction of their spread: measurements are noisy, and zero may be -0.01.
_BEYOND = 0.05


class Target(NamedTuple):
    """What a model is held against.

    Attributes:
        kind: Kind of the target.
        units: Number of output units that a model of ours would have.
        n_classes: Number of classes, of labels for `"multilabel"`; None for numbers.
        shape: Numbers: shape of a row of `y` where that has three axes or more, else `()`.
        encoding: The form in which `y` is given, or was trained on before.
        from_logits: What the user says about the output of a model with a loss of their own; None for nothing.
    """

    kind: Kind
    units: int
    n_classes: int | None
    shape: tuple[int, ...]
    encoding: Encoding
    from_logits: bool | None


class Match(NamedTuple):
    """What a model and a target mean to each other.

    Attributes:
        units: Number of output units.
        encoding: What Keras gets as `y`.
        output: What the raw output means.
        output_shape: Shape of the model's output for one row; `()` if it is not known.
    """

    units: int
    encoding: Encoding
    output: Output
    output_shape: tuple[int, ...]


class ModelOutput(NamedTuple):
    """An output of a model: its shape for one row, and the activation that made it; None for what is not known."""

    shape: Shape | None
    activation: str | None

    @property
    def units(self) -> int | None:
        """Numbers for one row, None where that is not known."""
        sizes = [None] if self.shape is None else list(self.shape)
        return None if None in sizes else math.prod(size for size in sizes if size is not None)


# -- a target and an output -----------------------------------------------------------------------------------------


def match(target: Target, output: ModelOutput, loss: Loss, metrics: Metrics) -> Match:
    """Holds an output of a compiled model against a target.

    Args:
        target: The target.
        output: The output, from `outputs_of`.
        loss: The loss of this output.
        metrics: The metrics of this output.

    Returns:
        The encoding and the meaning of the raw output that the model needs.

    Raises:
        ModelMismatchError: The units, shape, activation, loss or metrics of the model cannot learn this target. The
            message names what was found and what is wanted.
    """
    name = loss_name(loss)
    if target.kind in NUMERIC_KINDS:
        _check_numbers(target, output, name)
        wanted = target.shape or (target.units,)
        shape = () if output.shape is None else _matched_shape(output.shape, wanted)
        return Match(target.units, target.encoding, "value", shape)
    units = target.units if output.units is None else output.units
    separate = target.kind in ("multilabel", "ordinal")  # each unit answers a question of its own
    one_of_several = units > 1 and not separate
    _check_units(target, units)
    _check_loss(target, units, output.activation, name)
    meaning = _meaning(loss, name, target.from_logits, output.activation, one_of_several)
    encoding: Encoding
    if not one_of_several:
        encoding = "columns"
    elif is_of_keras(loss):
        # Keras' own losses take one-hot rows unless their name says sparse.
        encoding = "numbers" if name.startswith("sparse") else "one_hot"
    else:
        encoding = _encoding_for(loss, target.encoding, units)
    _check_metrics(metrics, target.kind, units, encoding, name)
    return Match(units, encoding, meaning, () if output.shape is None else _matched_shape(output.shape, (units,)))


def _check_units(target: Target, units: int) -> None:
    """Refuses a number of units that cannot tell the classes apart."""
    classes = target.n_classes or 0
    wanted = {"binary": (1, 2), "ordinal": (classes - 1,)}.get(target.kind, (classes,))
    if units in wanted:
        return
    softmax = wanted[-1] > 1 and target.kind not in ("multilabel", "ordinal")
    raise ModelMismatchError(
        f"The model ends in {units} unit{'s' * (units != 1)}, but `y` is {with_article(target.kind)} target with "
        f"{classes} {'labels' if target.kind == 'multilabel' else 'classes'}: it needs "
        f"{' or '.join(map(str, wanted))}. End the model with Dense({wanted[-1]}, activation="
        f"{'softmax' if softmax else 'sigmoid'!r})."
    )


def _check_loss(target: Target, units: int, activation: str | None, loss: str) -> None:
    """Refuses a softmax of one unit, and a loss that asks another question than the units answer."""
    separate = target.kind in ("multilabel", "ordinal")
    if units == 1 and activation == "softmax":
        raise ModelMismatchError(
            "The last layer has one unit with a softmax, which is 1.0 for every row. "
            "Use Dense(1, activation='sigmoid') with the loss 'binary_crossentropy'."
        )
    if not separate and units > 1 and loss.startswith("binary_") and loss.endswith("crossentropy"):
        raise ModelMismatchError(
            f"The loss {loss!r} treats the {units} units of the last layer as {units} separate "
            f"questions, but `y` holds one of {target.n_classes or 0} classes a row. "
            "Use loss='sparse_categorical_crossentropy' with a softmax."
        )
    if (units == 1 or separate) and "categorical_" in loss and loss.endswith("crossentropy"):
        raise ModelMismatchError(
            f"The loss {loss!r} needs one softmax unit a class, but the last layer has {units} "
            f"unit{'s' * (units != 1)} for {with_article(target.kind)} target. Use loss='binary_crossentropy' with a "
            "sigmoid."
        )


def _meaning(loss: Loss, name: str, said: bool | None, activation: str | None, one_of_several: bool) -> Output:
    """What the raw output of a model for classes means; refuses an end that does not fit its loss.

    Args:
        loss: The loss.
        name: Its name.
        said: What the user says about the output of a model with a loss of their own: whether it is logits.
        activation: The activation of the last layer; None where it is not known.
        one_of_several: Whether the units are those of several classes of which a row has one.
    """
    bounded = activation in _BOUNDED
    ending = "softmax" if one_of_several else "sigmoid"
    known = is_of_keras(loss)
    from_logits = takes_logits(loss)
    if not known and from_logits is None:
        from_logits = said
    if from_logits and bounded:
        raise ModelMismatchError(
            f"The loss {name!r} has from_logits=True, but the last layer already applies a {activation}. "
            "Remove one of the two."
        )
    if from_logits:
        _refuse_bounded_scores(activation, f"the loss {name!r} takes logits", one_of_several=False)
        return "logit"
    if bounded:
        return "value" if known and "hinge" in name else "probability"
    if known and "hinge" in name:
        _refuse_bounded_scores(activation, f"the loss {name!r} takes margins", one_of_several)
        return "margin"
    if known and name.endswith(_OF_PROBABILITIES) and activation is not None:
        has = "no activation" if activation == "linear" else f"the activation {activation!r}"
        raise ModelMismatchError(
            f"The last layer has {has}, but the loss {name!r} expects probabilities. "
            f"Give the layer activation={ending!r}, or the loss from_logits=True."
        )
    if activation is None or (not known and from_logits is False):
        return "probability"  # as far as can be seen; a prediction beyond 0 and 1 is refused later
    if known:
        return "value"
    if one_of_several:  # the largest is the largest, whatever the numbers mean
        return "logit" if activation == "log_softmax" else "margin"
    has = "no activation" if activation == "linear" else f"the activation {activation!r}"
    whose = "the model names no loss" if loss is None else f"the loss {name!r} is one of your own"
    raise ModelMismatchError(
        f"The last layer has {has}, and {whose}, so it is not known what the output means. Say "
        f"head__from_logits=True if it is logits (0 divides the classes), or end the model with "
        f"activation={ending!r} if it is to be probabilities."
    )


def _encoding_for(loss: Loss, encoding: Encoding, n_classes: int) -> Encoding:
    """The form of `y` for a loss of the user's: the one in which it is given, unless it takes only the other."""
    given: Encoding = "one_hot" if encoding == "one_hot" else "numbers"
    other: Encoding = "numbers" if given == "one_hot" else "one_hot"
    if accepts(loss, given, n_classes) or not accepts(loss, other, n_classes):
        return given
    return other


def _check_metrics(metrics: Metrics, kind: Kind, units: int, encoding: Encoding, loss: str) -> None:
    """Refuses metrics that would compare two different things, which Keras does silently or breaks on."""
    for metric in flattened(metrics):
        name, form = metric_name(metric), form_of_metric(metric)
        if kind == "binary" and units == 1 and "categorical" in name:
            raise ModelMismatchError(
                f"`metrics` holds {name!r}, which takes the largest of several outputs, but the model has one: it "
                "would be the same whatever is predicted. Use 'accuracy'."
            )
        if form == "labels":
            raise ModelMismatchError(
                f"`metrics` holds {name!r}, which compares `y` with labels, but the model puts out a number for "
                f"each class. {'Give it sparse_y_pred=False.' if 'io_u' in name else _ACCURACY}"
            )
        if encoding == "columns" or form in (None, encoding):
            continue
        if form == "one_hot":
            wanted, given, fitting = "one-hot rows", "class numbers", "categorical_crossentropy"
            twin = f"sparse_{name}"
        else:
            wanted, given, fitting = "class numbers", "one-hot rows", "sparse_categorical_crossentropy"
            twin = name.removeprefix("sparse_")
        instead = f", or {twin!r} in place of {name!r}" if is_metric(twin) else ""
        raise ModelMismatchError(
            f"`metrics` holds {name!r}, which compares {wanted}, but the loss {loss!r} takes {given}. Give "
            f"loss={fitting!r}{instead}; `y` itself may stay as it is."
        )


def _check_numbers(target: Target, output: ModelOutput, loss: str) -> None:
    """Refuses a model that cannot put out the numbers of a target."""
    if output.units not in (None, target.units):
        raise ModelMismatchError(
            f"The model ends in {output.units} unit{'s' * (output.units != 1)}, but `y` has {target.units} "
            f"target{'s' * (target.units != 1)}{f' a row, of the shape {target.shape}' * bool(target.shape)}. End the "
            f"model with Dense({target.units})"
            f"{f', and Reshape({target.shape}) if you like' * bool(target.shape)}."
        )
    if output.activation == "softmax" and target.units == 1:
        raise ModelMismatchError(
            "The last layer has one unit with a softmax, which is 1.0 for every row. Use Dense(1)."
        )
    if target.kind == "counts" and loss == "poisson" and output.activation in ("linear", "tanh"):
        raise ModelMismatchError(
            f"The loss 'poisson' takes the logarithm of the output, which {output.activation} lets fall below zero. "
            f"End the model with Dense({target.units}, activation='exponential')."
        )


def is_limited(activation: str | None) -> bool:
    """Whether an activation ends at some number, and does not reach any."""
    return activation in _ENDS_BETWEEN


def check_reach(kind: Kind, units: int, activation: str | None, values: Array) -> None:
    """Refuses an activation that cannot put out the numbers of a target, such as a sigmoid for ages.

    Args:
        kind: `"regression"` or `"counts"`.
        units: Number of output units.
        activation: The activation of the last layer; None where it is not known.
        values: The encoded target, one number or more.

    Raises:
        ModelMismatchError: The activation ends between numbers beyond which a good part of the target lies.
    """
    low, high = _ENDS_BETWEEN.get(activation or "", (-math.inf, math.inf))
    values = np.asarray(values, dtype="float64")
    lowest, highest = float(values.min()), float(values.max())
    slack = _BEYOND * ((highest - lowest) or abs(highest))
    if lowest >= low - slack and highest <= high + slack:
        return
    fitting = "exponential" if kind == "counts" else None
    raise ModelMismatchError(
        f"The last layer has the activation {activation!r}, whose output is {_range(low, high)}, but `y` holds "
        f"numbers from {lowest:.4g} to {highest:.4g}: the model cannot learn them. End it with Dense({units}"
        f"{f', activation={fitting!r}' if fitting else ''})"
        f"{'' if fitting else ', without an activation, which reaches any number'}."
    )


def _refuse_bounded_scores(activation: str | None, why: str, one_of_several: bool) -> None:
    """Refuses logits or margins that end at 0 or between two numbers, where they must reach any number.

    The largest of several margins is the largest, wherever they end.
    """
    low, high = _ENDS_BETWEEN.get(activation or "", (-math.inf, math.inf))
    bounded = low == 0 or high == 0 if "margins" in why else (low, high) != (-math.inf, math.inf)
    if not bounded or one_of_several or activation == "log_softmax":
        return
    raise ModelMismatchError(
        f"The last layer has the activation {activation!r}, whose output is {_range(low, high)}, but {why}, numbers of "
        "both signs and any size: some classes could never be told apart. Give the last layer no activation."
    )


def _range(low: float, high: float) -> str:
    """Between which numbers an output lies, in words."""
    if math.inf in (high, -low):
        return "never below 0" if high == math.inf else "never above 0"
    return f"always between {low:g} and {high:g}"


def _matched_shape(shape: Shape, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a model puts out a row, for a target of another shape but the same numbers.

    Keras lets an output meet a target of another shape wherever numpy would stretch one of them, and then compares
    every row with every other.

    Raises:
        ModelMismatchError: The numbers of the target have no place of their own in that shape.
    """
    if None in shape:
        known = tuple(size for size in shape if size != 1)
        fits = len(known) == len(wanted) and all(a in (None, b) for a, b in zip(known, wanted, strict=True))
        if fits:
            sizes = iter(wanted)
            return tuple(1 if size == 1 else next(sizes) for size in shape)
    else:
        whole = tuple(size for size in shape if size is not None)
        without_ones = tuple(size for size in whole if size != 1)
        if whole == (int(np.prod(wanted)),) or without_ones == tuple(size for size in wanted if size != 1):
            return whole
    raise ModelMismatchError(
        f"The model puts out rows of the shape {shape}, but those of `y` have the shape {wanted}, which Keras would "
        f"stretch to meet each other. Give both one shape: end the model with Reshape({wanted}), or reshape `y`."
    )


# -- outputs ----------------------------------------------------------------------------------------------------------


def outputs_of(model: keras.Model, shapes: Sequence[Shape] | None = None) -> list[ModelOutput]:
    """The outputs of a model.

    Args:
        model: A built model.
        shapes: Shape of each output for one row, for a model that does not know them itself. Defaults to `None`.

    Returns:
        At least one output, of which nothing need be known: a subclassed model may not say what it puts out.
    """
    import keras

    try:
        tensors = keras.tree.flatten(model.outputs)
    except (AttributeError, ValueError):
        return [ModelOutput(shape, None) for shape in shapes] if shapes else [ModelOutput(None, None)]
    outputs = [ModelOutput(tuple(tensor.shape)[1:], _activation(_keras.layer_of(tensor))) for tensor in tensors]
    if len(outputs) == 1 and outputs[0].activation is None and getattr(model, "layers", None):
        outputs = [outputs[0]._replace(activation=_activation(model.layers[-1]))]
    return outputs


def _activation(layer: keras.layers.Layer | None) -> str | None:
    """Name of the activation in which a layer ends, `"linear"` for none; None where that cannot be seen."""
    import keras

    while True:
        if isinstance(layer, keras.Model) and getattr(layer, "layers", None):
            layer = layer.layers[-1]
        elif isinstance(layer, (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Dropout)):
            before = _layer_before(layer)  # these change no number, or only while training
            if before is None:
                return None
            layer = before
        else:
            break
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if type(layer) in (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU):
        return _name_of_activation_layer(layer)
    if not isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Activation)):
        return None
    activation = layer.activation
    if activation is None:
        return "linear"
    if not str(getattr(activation, "__module__", "")).startswith("keras."):
        return None  # a function of the user's
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def _name_of_activation_layer(layer: keras.layers.Layer) -> str:
    """Name of the activation that a layer of Keras' is, such as `ReLU`."""
    name = str(type(layer).__name__).lower().replace("leakyrelu", "leaky_relu")
    if name != "relu" or (layer.max_value is None and not layer.negative_slope):
        return name
    return "leaky_relu" if layer.negative_slope else "relu6" if layer.max_value == 6 else "clipped_relu"


def _layer_before(layer: keras.layers.Layer) -> keras.layers.Layer | None:
    """The layer whose output is the only input of a layer; None if that is not known."""
    import keras

    try:
        tensors = keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):
        return None
    return _keras.layer_of(tensors[0]) if len(tensors) == 1 else None
