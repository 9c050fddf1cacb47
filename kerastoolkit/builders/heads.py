"""From the kind of a target to the end of a network, and from its raw output back to predictions.

This is the one place that knows, for each kind of target, how many output units a model has, with which activation,
which loss and metrics it trains, how `y` is encoded for Keras, and how the raw output becomes probabilities, scores
and labels:

kind          units                  activation   loss                             y for Keras
"binary"      1                      sigmoid      binary_crossentropy              (n, 1) of 0.0 and 1.0
"multiclass"  number of classes      softmax      sparse_categorical_crossentropy  (n,) of class numbers
"multilabel"  number of labels       sigmoid      binary_crossentropy              (n, labels) of 0.0 and 1.0
"ordinal"     number of classes - 1  sigmoid      binary_crossentropy              (n, classes - 1), see below
"regression"  number of targets      none         mse                              (n, targets)
"counts"      number of targets      exponential  poisson                          (n, targets), divided by the mean

An ordinal target has classes in an order (bad, fair, good). Each unit answers one question, whether the row lies above
a class, so that a row of the second of three classes is (1, 0): Cheng, Wang and Pollastri, "A Neural Network Approach
to Ordinal Regression", 2008. What is predicted is the median of the classes, which keeps the mean distance small.

A model that a user wrote may end otherwise (two softmax units for two classes, logits, categorical crossentropy on
one-hot rows, one output a target). `bind` looks at the model, returns the head that fits it, and refuses the ends
that Keras would train in silence to a wrong result.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kerastoolkit import _files, _keras
from kerastoolkit._values import flag_wanted, fraction_wanted, is_number, number_wanted, shown
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import DataError, DivergedError, ModelMismatchError, ParameterError, SavedFileError

if TYPE_CHECKING:
    import keras

__all__ = ["Head", "HeadGroup", "head"]

Kind: TypeAlias = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "counts"]
Encoding: TypeAlias = Literal["numbers", "one_hot", "columns"]
Output: TypeAlias = Literal["probability", "logit", "margin", "value"]
Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]

_ACTIVATIONS = {"multiclass": "softmax", "regression": None, "counts": "exponential"}  # the others: sigmoid
_NUMBERS = ("regression", "counts")

# Activations that end between 0 and 1, and Keras' losses that take their output for probabilities.
_BOUNDED = ("sigmoid", "hard_sigmoid", "softmax", "sparsemax")
_OF_PROBABILITIES = ("crossentropy", "kl_divergence", "kldivergence", "dice", "tversky")

# Activations by the numbers between which they end, those of one side or of both; all others reach any number.
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
# A few targets may lie beyond by this fraction of their spread: measurements are noisy, and zero may be -0.01.
_BEYOND = 0.05

# What a float32 probability may be off by, also where the layers before it computed in 16 bits.
_ROUNDING = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The end of a network for one target.

    Make one with `head(y)`, or without data through `Head.binary()`, `Head.multiclass(n)`, `Head.multilabel(n)`,
    `Head.ordinal(n)`, `Head.regression(n)` and `Head.counts(n)`.

    Args:
        kind: `"binary"`, `"multiclass"`, `"multilabel"`, `"ordinal"`, `"regression"` or `"counts"`.
        units: Number of output units of the model.
        classes: Sorted labels, shape `(n_classes,)`; for `"multilabel"` the numbers of the labels. `None` for
            numbers.
        one_hot: Whether `y` is given, and predictions are returned, as one-hot rows. Defaults to `False`.
        encoding: What Keras gets as `y`: `"numbers"` (class numbers), `"one_hot"` or `"columns"` (as many columns as
            units). Defaults to `"columns"`.
        output: What the raw output means: `"probability"`, `"logit"`, `"margin"` (zero divides two classes; no
            probability) or `"value"` (a number; for classes one fitted to 0 and 1, and no probability). Defaults to
            `"value"`.
        flat: Whether `y` and predictions have one axis. Defaults to `True`.
        shape: Numbers: shape of a row of `y` where that has three axes or more. Defaults to `()`: `y` has one axis or
            two.
        output_shape: Shape of the model's output for one row, once the head is bound to a model. Defaults to `()`:
            `(units,)`.
        offset: Numbers: subtracted from `y` before training and added to the output, one number a target.
        scale: Numbers: `y` is divided by it, and the output multiplied, one number a target.
        dtype: Numbers: dtype of the predictions. Defaults to `"float32"`.
        label_smoothing: Classes: see `head`. Defaults to `0.0`.
        from_logits: Classes: see `head`. Defaults to `None`.
        focal: Classes: see `head`. Defaults to `0.0`.
        class_weight: Classes: weight of each class, in the order of `classes`. Defaults to `()`: all alike.
        weight: Of this target's loss, where a model has several. Defaults to `1.0`.
    """

    kind: Kind
    units: int
    classes: Array | None = None
    one_hot: bool = False
    encoding: Encoding = "columns"
    output: Output = "value"
    flat: bool = True
    shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    dtype: str = "float32"
    label_smoothing: float = 0.0
    from_logits: bool | None = None
    focal: float = 0.0
    class_weight: tuple[float, ...] = ()
    weight: float = 1.0

    # -- without data ---------------------------------------------------------------------------------------------

    @classmethod
    def binary(cls, classes: ArrayLike = (0, 1)) -> Head:
        """Two classes: one sigmoid unit."""
        return cls("binary", 1, np.asarray(classes), encoding="columns", output="probability")

    @classmethod
    def multiclass(cls, classes: int | ArrayLike) -> Head:
        """One of several classes (a number, or the sorted labels): a softmax unit a class."""
        labels = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
        return cls("multiclass", len(labels), labels, encoding="numbers", output="probability")

    @classmethod
    def multilabel(cls, labels: int) -> Head:
        """Any number of `labels` at once: a sigmoid unit a label."""
        return cls("multilabel", labels, np.arange(labels), encoding="columns", output="probability", flat=False)

    @classmethod
    def ordinal(cls, classes: int | ArrayLike) -> Head:
        """One of several classes that have an order (a number, or the labels from low to high)."""
        labels = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
        return cls("ordinal", len(labels) - 1, labels, encoding="columns", output="probability")

    @classmethod
    def regression(cls, targets: int = 1) -> Head:
        """Numbers: a linear unit a target."""
        return cls("regression", targets, flat=targets == 1)

    @classmethod
    def counts(cls, targets: int = 1) -> Head:
        """How often something happens (0, 1, 2, ...): an exponential unit a target, the expected number."""
        return cls("counts", targets, flat=targets == 1)

    # -- the end of the model -------------------------------------------------------------------------------------

    @property
    def activation(self) -> str | None:
        """Activation of the output layer, `None` for a linear one."""
        return None if self.from_logits else _ACTIVATIONS.get(self.kind, "sigmoid")

    @property
    def loss(self) -> Any:
        """The Keras loss that fits the output layer: its name, or a loss where options ask for more than a name."""
        if self.kind in _NUMBERS:
            return "mse" if self.kind == "regression" else "poisson"
        options: dict[str, Any] = {"from_logits": True} if self.from_logits else {}
        options |= {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        options |= {"gamma": self.focal} if self.focal else {}
        if options:
            return self._loss_with(options)
        if self.kind != "multiclass":
            return "binary_crossentropy"
        return "categorical_crossentropy" if self.encoding == "one_hot" else "sparse_categorical_crossentropy"

    def _loss_with(self, options: dict[str, Any]) -> Any:
        import keras

        if self.kind != "multiclass":
            kind = keras.losses.BinaryFocalCrossentropy if self.focal else keras.losses.BinaryCrossentropy
        elif self.focal:
            # Keras' alpha is one factor for all classes: 1 leaves a focal loss of gamma 0 what the crossentropy is.
            kind, options["alpha"] = keras.losses.CategoricalFocalCrossentropy, 1.0
        elif self.label_smoothing or self.encoding == "one_hot":  # Keras' sparse loss does not smooth
            kind = keras.losses.CategoricalCrossentropy
        else:
            kind = keras.losses.SparseCategoricalCrossentropy
        return kind(**options)

    @property
    def metrics(self) -> list[Any]:
        """The Keras metrics that a user expects beside the loss: names, or metrics where a name would not do."""
        if self.kind in _NUMBERS:
            return ["mae" if len(self.output_shape or self.shape) > 1 else "r2_score"]  # Keras' R2 is for two axes
        if self.kind == "multiclass" or (self.kind == "binary" and not self.from_logits):
            return ["accuracy"]
        import keras

        # Keras' "accuracy" compares the largest of several units, and cuts one unit at 0.5: a logit, too.
        return [keras.metrics.BinaryAccuracy(threshold=0.0 if self.from_logits else 0.5, name="accuracy")]

    @property
    def n_classes(self) -> int | None:
        """Number of classes (of labels, for `"multilabel"`), `None` for numbers."""
        return None if self.classes is None else len(self.classes)

    def output_layer(self, name: str | None = None) -> keras.layers.Layer:
        """Makes the last layer.

        Args:
            name: Name of the layer. Defaults to one given by Keras.

        Returns:
            A `Dense` layer: input `(batch, features)`, output `(batch, units)`.
        """
        import keras

        # A network that computes in 16 bits still ends in 32: a probability of 0.999 has no place in 16.
        mixed = str(keras.config.dtype_policy().name).startswith("mixed_")
        dtype = {"dtype": keras.config.dtype_policy().variable_dtype} if mixed else {}
        return keras.layers.Dense(self.units, activation=self.activation, name=name, **dtype)

    def connect(self, x: Any) -> Any:
        """Adds the last layer to a graph: from `(batch, features)` to `(batch, units)`, a `KerasTensor` each."""
        return self.output_layer()(x)

    def for_metrics(self, metrics: Any) -> Head:
        """The head whose loss takes `y` in the form that some metrics compare it in.

        Args:
            metrics: Metrics as `Model.compile` takes them. Most of Keras' (`AUC`, `Precision`, `F1Score`, ...) compare
                one-hot rows, those called sparse class numbers.

        Returns:
            This head, or one with the categorical loss in place of the sparse one or the other way round.
        """
        forms = set(map(_form_of_metric, _flattened(metrics)))
        if self.kind != "multiclass" or forms >= {"numbers", "one_hot"} or self.label_smoothing or self.focal:
            return self
        if "one_hot" in forms:
            return dataclasses.replace(self, encoding="one_hot")
        return dataclasses.replace(self, encoding="numbers") if "numbers" in forms else self

    def for_model(self, model: keras.Model) -> Head:
        """The head whose metrics fit the shape in which a model puts out numbers.

        Args:
            model: A built model, which need not be compiled.
        """
        shapes = [end.shape for end in _ends(model, None)]
        if self.kind not in _NUMBERS or len(shapes) != 1 or shapes[0] is None:
            return self
        return dataclasses.replace(self, output_shape=tuple(size or 0 for size in shapes[0]))

    def bind(self, model: keras.Model, outputs: Sequence[Shape] | None = None) -> Head | HeadGroup:
        """Fits this head to a compiled model.

        Args:
            model: A compiled and built model.
            outputs: Shape of each output for one row, for a model that does not know them itself. Defaults to `None`.

        Returns:
            A head with the encoding and the meaning of raw output that `model` needs; a `HeadGroup` where the model
            has one output for each target.

        Raises:
            ModelMismatchError: The units, shape, activation, loss or metrics of the model cannot learn this target.
                The message names what was found and what is wanted.
        """
        ends = _ends(model, outputs)
        if len(ends) > 1:
            return HeadGroup.of_columns(self, len(ends)).bind(model, outputs)
        return self._bind(ends[0], _only(model.loss), _compiled_metrics(model))

    def _bind(self, end: _End, loss: Any, metrics: Any) -> Head:
        activation = end.activation
        name, from_logits = _loss_name(loss), _from_logits(loss)
        if self.kind in _NUMBERS:
            return self._bind_numbers(end, name)
        units = self.units if end.units is None else end.units
        binary = name.startswith("binary_") and name.endswith("crossentropy")
        categorical = "categorical_" in name and name.endswith("crossentropy")
        classes = self.n_classes or 0
        separate = self.kind in ("multilabel", "ordinal")  # one question a unit
        wanted = {"binary": (1, 2), "ordinal": (classes - 1,)}.get(self.kind, (classes,))
        if units not in wanted:
            raise ModelMismatchError(
                f"The model ends in {units} unit{'s' * (units != 1)}, but `y` is {_article(self.kind)} target with "
                f"{classes} {'labels' if self.kind == 'multilabel' else 'classes'}: it needs "
                f"{' or '.join(map(str, wanted))}. End the model with Dense({wanted[-1]}, activation="
                f"{'softmax' if wanted[-1] > 1 and not separate else 'sigmoid'!r})."
            )
        if units == 1 and activation == "softmax":
            raise ModelMismatchError(
                "The last layer has one unit with a softmax, which is 1.0 for every row. "
                "Use Dense(1, activation='sigmoid') with the loss 'binary_crossentropy'."
            )
        if not separate and units > 1 and binary:
            raise ModelMismatchError(
                f"The loss {name!r} treats the {units} units of the last layer as {units} separate "
                f"questions, but `y` holds one of {classes} classes a row. "
                "Use loss='sparse_categorical_crossentropy' with a softmax."
            )
        if (units == 1 or separate) and categorical:
            raise ModelMismatchError(
                f"The loss {name!r} needs one softmax unit a class, but the last layer has {units} "
                f"unit{'s' * (units != 1)} for {_article(self.kind)} target. Use loss='binary_crossentropy' with a "
                "sigmoid."
            )
        bound = dataclasses.replace(
            self, units=units, output=self._meaning(loss, name, from_logits, activation, units > 1 and not separate)
        )
        if units == 1 or separate:
            bound = dataclasses.replace(bound, encoding="columns")
        elif _is_of_keras(loss):
            # Keras' own losses take one-hot rows unless their name says sparse.
            bound = dataclasses.replace(bound, encoding="numbers" if name.startswith("sparse") else "one_hot")
        else:
            bound = dataclasses.replace(bound, encoding=self._encoding_for(loss, units))
        bound._check_metrics(metrics, name)
        return dataclasses.replace(bound, output_shape=() if end.shape is None else _matched(end.shape, (units,)))

    def _meaning(
        self, loss: Any, name: str, from_logits: bool | None, activation: str | None, one_of_several: bool
    ) -> Output:
        """What the raw output of a model for classes means; refuses an end that its loss does not fit."""
        bounded = activation in _BOUNDED
        ending = "softmax" if one_of_several else "sigmoid"
        known = _is_of_keras(loss)
        if not known and from_logits is None:
            from_logits = self.from_logits
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
            return "probability"  # as far as can be seen; numbers that are none are refused when they are predicted
        if known:
            return "value"
        if one_of_several:  # the largest is the largest, whatever the numbers mean
            return "logit" if activation == "log_softmax" else "margin"
        has = "no activation" if activation == "linear" else f"the activation {activation!r}"
        whose = "the model names no loss" if loss is None else f"the loss {name!r} is one of your own"
        raise ModelMismatchError(
            f"The last layer has {has}, and {whose}, so that it is not known what the output means. Say "
            f"head__from_logits=True if it is logits (0 divides the classes), or end the model with "
            f"activation={ending!r} if it is to be probabilities."
        )

    def _encoding_for(self, loss: Any, n_classes: int) -> Encoding:
        """The form of `y` for a loss of the user's: that in which it is given, unless it takes the other alone."""
        given: Encoding = "one_hot" if self.encoding == "one_hot" else "numbers"
        other: Encoding = "numbers" if given == "one_hot" else "one_hot"
        if _takes(loss, given, n_classes) or not _takes(loss, other, n_classes):
            return given
        return other

    def _check_metrics(self, metrics: Any, loss: str) -> None:
        """Refuses metrics that would compare two different things, which Keras does in silence or breaks on."""
        for metric in _flattened(metrics):
            name, form = _metric_name(metric), _form_of_metric(metric)
            if self.kind == "binary" and self.units == 1 and "categorical" in name:
                raise ModelMismatchError(
                    f"`metrics` holds {name!r}, which takes the largest of several outputs, but the model has one: it "
                    "would be the same whatever is predicted. Use 'accuracy'."
                )
            if form == "labels":
                raise ModelMismatchError(
                    f"`metrics` holds {name!r}, which compares `y` with labels, but the model puts out a number for "
                    f"each class. {'Give it sparse_y_pred=False.' if 'io_u' in name else _NAME_OF_ACCURACY}"
                )
            if self.encoding == "columns" or form in (None, self.encoding):
                continue
            if form == "one_hot":
                wanted, given, fitting = "one-hot rows", "class numbers", "categorical_crossentropy"
                twin = f"sparse_{name}"
            else:
                wanted, given, fitting = "class numbers", "one-hot rows", "sparse_categorical_crossentropy"
                twin = name.removeprefix("sparse_")
            instead = f", or {twin!r} in place of {name!r}" if _is_metric(twin) else ""
            raise ModelMismatchError(
                f"`metrics` holds {name!r}, which compares {wanted}, but the loss {loss!r} takes {given}. Give "
                f"loss={fitting!r}{instead}; `y` itself may stay as it is."
            )

    def _bind_numbers(self, end: _End, loss: str) -> Head:
        wanted = self.shape or (self.units,)
        if end.units not in (None, self.units):
            raise ModelMismatchError(
                f"The model ends in {end.units} unit{'s' * (end.units != 1)}, but `y` has {self.units} "
                f"target{'s' * (self.units != 1)}{f' a row, of the shape {self.shape}' * bool(self.shape)}. End the "
                f"model with Dense({self.units})"
                f"{f', and Reshape({self.shape}) if you like' * bool(self.shape)}."
            )
        if end.activation == "softmax" and self.units == 1:
            raise ModelMismatchError(
                "The last layer has one unit with a softmax, which is 1.0 for every row. Use Dense(1)."
            )
        if self.kind == "counts" and loss == "poisson" and end.activation in ("linear", "tanh"):
            raise ModelMismatchError(
                f"The loss 'poisson' takes the logarithm of the output, which {end.activation} lets fall below zero. "
                f"End the model with Dense({self.units}, activation='exponential')."
            )
        return dataclasses.replace(self, output_shape=() if end.shape is None else _matched(end.shape, wanted))

    def check_reach(self, model: keras.Model, y: ArrayLike) -> None:
        """Refuses a model whose last layer cannot put out the numbers of a target, such as a sigmoid for ages.

        Args:
            model: A built model of one output.
            y: Target, as for `encode`.

        Raises:
            ModelMismatchError: The activation ends between numbers beyond which a good part of the target lies.
        """
        self._check_reach(_ends(model, None)[0].activation, y)

    def _check_reach(self, activation: str | None, y: ArrayLike) -> None:
        low, high = _ENDS_BETWEEN.get(activation or "", (-math.inf, math.inf))
        if self.kind not in _NUMBERS or (low, high) == (-math.inf, math.inf) or not np.size(y):
            return
        values = np.asarray(self._encoded_numbers(np.asarray(y)), dtype="float64")
        lowest, highest = float(values.min()), float(values.max())
        slack = _BEYOND * ((highest - lowest) or abs(highest))
        if lowest >= low - slack and highest <= high + slack:
            return
        fitting = "exponential" if self.kind == "counts" else None
        raise ModelMismatchError(
            f"The last layer has the activation {activation!r}, whose output is {_reach(low, high)}, but `y` holds "
            f"numbers from {lowest:.4g} to {highest:.4g}: the model cannot learn them. End it with Dense({self.units}"
            f"{f', activation={fitting!r}' if fitting else ''})"
            f"{'' if fitting else ', without an activation, which reaches any number'}."
        )

    # -- y, in and out --------------------------------------------------------------------------------------------

    def encode(self, y: ArrayLike) -> Array:
        """Encodes a target for Keras.

        Args:
            y: Target, shape `(n,)`, or `(n, columns)` for several targets, labels or one-hot rows.

        Returns:
            What `Model.fit` takes; the shape is in the table at the top of this module.

        Raises:
            DataError: `y` holds a class that was not there when the head was made; the message names it.
        """
        y = np.asarray(y)
        self._check_shape(y)
        if self.kind in _NUMBERS:
            return self._for_output(self._encoded_numbers(y))
        if self.kind == "multilabel":
            if not np.isin(y, (0, 1)).all():
                odd = y[~np.isin(y, (0, 1))][0].item()
                raise DataError(f"`y` holds {odd!r}, but says of each label whether it is there: 0 or 1.")
            return self._for_output(y.astype(_floatx()))
        numbers = self.class_numbers(y)
        if self.kind == "ordinal":
            return self._for_output((numbers[:, None] > np.arange(self.units)).astype(_floatx()))
        if self.encoding == "numbers":
            return numbers.astype("int32").reshape(len(y), *self.output_shape[:-1])
        if self.encoding == "one_hot":
            return self._for_output(np.eye(self.n_classes or 0, dtype=_floatx())[numbers])
        return self._for_output(numbers.astype(_floatx())[:, None])

    def check_encoded(self, y: Any) -> None:
        """Holds targets that go to the model as they are, from a data set, against what the model takes.

        Args:
            y: Targets of a batch, shape `(n, ...)`.

        Raises:
            DataError: They have another shape; the message names both.
        """
        shape = tuple(np.shape(y))[1:]
        if self.encoding == "numbers" and self.kind not in _NUMBERS:
            wanted, what = self.output_shape[:-1] or (), "class numbers"
        else:
            wanted, what = self.output_shape or (self.units,), "one-hot rows" * (self.encoding == "one_hot") or "rows"
        # Keras itself takes a last axis of 1 away, or adds it.
        if shape in (wanted, (*wanted, 1)) or (*shape, 1) == wanted:
            return
        found, expected = (f"({', '.join(['n', *map(str, sizes)])}{',' * (not sizes)})" for sizes in (shape, wanted))
        hint = (
            " For one-hot rows the loss is 'categorical_crossentropy', for class numbers "
            "'sparse_categorical_crossentropy'."
        )
        raise DataError(
            f"The targets of the data set have the shape {found}, but the loss of the model takes {what} of the shape "
            f"{expected}; a data set goes to Keras as it is.{'' if self.encoding == 'columns' else hint}"
        )

    def _encoded_numbers(self, y: Array) -> Array:
        values = y.reshape(len(y), self.units).astype("float64", copy=False)
        if self.kind == "counts" and len(values) and values.min() < 0:
            raise DataError(f"`y` holds {values.min()}, but counts are 0, 1, 2, ... and never negative.")
        if self.scale:
            values = (values - np.asarray(self.offset)) / np.asarray(self.scale)
        encoded: Array = _without_overflow(values)
        if encoded.dtype != values.dtype and not self.scale:
            _refuse_vanishing(values, encoded)
        return encoded

    def _for_output(self, rows: Array) -> Array:
        """Rows in the shape in which the model puts them out: of another one Keras would compare all with all."""
        return rows.reshape(len(rows), *self.output_shape) if self.output_shape else rows

    def encode_weights(self, weights: Array) -> Array:
        """Weights of rows in the shape in which Keras computes losses.

        A row of a target of three axes has a loss for each of its steps. Keras would hold the weights of rows against
        the steps.

        Args:
            weights: Shape `(n,)`.

        Returns:
            Shape `(n,)`, or `(n, 1, ...)`.
        """
        return weights.reshape(len(weights), *(1,) * (len(self.output_shape) - 1))

    def _check_shape(self, y: Array) -> None:
        """Refuses a target of another shape than that which the head was made for."""
        if self.kind in _NUMBERS:
            columns = self.shape or (self.units,)
        elif self.kind == "multilabel" or self.one_hot:
            columns = (self.n_classes or 0,)
        else:
            columns = (1,)
        if y.shape[1:] != columns and not (columns == (1,) and y.ndim == 1):
            wanted = f" {', '.join(map(str, columns))}" if columns != (1,) else ""
            raise DataError(f"`y` has the shape {y.shape}, but (n,{wanted}) in the first fit.")

    def class_numbers(self, y: ArrayLike) -> Array:
        """Numbers of the classes in `y`, shape `(n,)`, integers.

        Raises:
            DataError: `y` holds a class unknown to this head.
        """
        y = np.asarray(y)
        self._check_shape(y)
        if self.one_hot:
            odd = np.flatnonzero(~(np.isin(y, (0, 1)).all(axis=1) & (np.sum(y, axis=1) == 1)))
            if len(odd):
                row = y[odd[0]].tolist()
                raise DataError(f"`y` is of one-hot rows, but row {odd[0]} is {row}: not one 1 among 0s.")
            made: Array = np.argmax(y, axis=1)
            return made
        y = y.reshape(len(y))
        classes = self.classes if self.classes is not None else np.arange(0)
        unknown = sorted(set(np.unique(y).tolist()) - set(classes.tolist()), key=str)
        if unknown:
            raise DataError(
                f"`y` holds {unknown[0]!r}, which is not one of the {len(classes)} classes of the first fit: "
                f"{_short(classes)}. With `partial_fit`, name them all in the first call: "
                "partial_fit(X, y, classes=[...])."
            )
        if self.kind == "ordinal":  # whose order need not be that of the alphabet
            order = np.argsort(classes)
            ranks: Array = order[np.searchsorted(classes, y, sorter=order)]
            return ranks
        return np.searchsorted(classes, y)

    def sample_weight(self, y: ArrayLike) -> Array | None:
        """Weights of rows from the weights of their classes.

        Args:
            y: Target, as for `encode`.

        Returns:
            Shape `(n,)`; `None` where all classes weigh alike.
        """
        return np.asarray(self.class_weight)[self.class_numbers(y)] if self.class_weight else None

    def decode(self, raw: Array) -> Array:
        """Turns raw output into predictions.

        Args:
            raw: Output of the model, shape `(n, units)`.

        Returns:
            Labels or numbers in the form of `y`: shape `(n,)`, or `(n, columns)`.

        Raises:
            DivergedError: The output for a row is NaN or infinite; the message names the row. A logit or margin of
                several may be minus infinity, by which a model rules out a class.
        """
        raw = self._columns(raw)
        if self.kind in _NUMBERS:
            values = raw.astype("float64")
            if self.scale:
                values = values * np.asarray(self.scale) + np.asarray(self.offset)
            values = values[:, 0] if self.flat else values.reshape(len(raw), *self.shape) if self.shape else values
            with np.errstate(over="ignore"):
                made = values.astype(self.dtype, copy=False)
            refuse_what_is_no_number(made)  # what overflows in the unit and type of `y`
            return made
        self._check_probabilities(raw)
        if self.kind == "multilabel":
            return (raw > self._threshold).astype("int64")
        if self.units == 1:
            numbers = (raw[:, 0] > self._threshold).astype("int64")
        elif self.kind == "ordinal":  # the median: above so many classes it is more likely than not
            numbers = np.sum(np.minimum.accumulate(raw, axis=1) > self._threshold, axis=1)
        else:
            numbers = np.argmax(raw, axis=1)
        if self.one_hot:
            rows: Array = np.eye(self.n_classes or 0, dtype="int64")[numbers]
            return rows
        classes: Array = self.classes if self.classes is not None else np.arange(self.units)
        labels: Array = classes[numbers]
        return labels

    def probabilities(self, raw: Array) -> Array:
        """Turns raw output into probabilities, float64.

        Args:
            raw: Output of the model, shape `(n, units)`.

        Returns:
            Shape `(n, n_classes)`, each row adding up to 1; for `"multilabel"` the probability of each label.

        Raises:
            DivergedError: As for `decode`.
            ModelMismatchError: The model puts out no probabilities; the message says what to do.
        """
        from scipy.special import expit, softmax

        if self.output not in ("probability", "logit"):
            raise ModelMismatchError(self.why_no_probabilities)
        raw = self._columns(raw).astype("float64")
        self._check_probabilities(raw)
        if self.units == 1 or self.kind in ("multilabel", "ordinal"):
            positive = expit(raw) if self.output == "logit" else raw
            if self.kind == "multilabel":
                return positive
            # Units trained apart may say that the third class is passed more surely than the second.
            above = np.minimum.accumulate(positive, axis=1)
            edges = np.hstack([np.ones((len(above), 1)), above, np.zeros((len(above), 1))])
            shares: Array = edges[:, :-1] - edges[:, 1:]
            return shares
        if self.output == "logit":
            result: Array = softmax(raw, axis=1)
            return result
        total = raw.sum(axis=1, keepdims=True)  # float32 rows add up to 1 only within 1e-7
        made: Array = np.divide(raw, total, out=np.full_like(raw, 1.0 / raw.shape[1]), where=total > 0)
        return made

    def scores(self, raw: Array) -> Array:
        """Turns raw output into the scores of `decision_function`: logits, margins or log-odds, float64.

        Args:
            raw: Output of the model, shape `(n, units)`.

        Returns:
            Shape `(n,)` for two classes (positive for the second), else `(n, n_classes)`.

        Raises:
            DivergedError: As for `decode`.
        """
        if self.kind == "ordinal" and self.units > 1:
            return np.log(np.maximum(self.probabilities(raw), float(np.finfo("float32").tiny)))
        raw = self._columns(raw).astype("float64")
        self._check_probabilities(raw)
        if self.output == "value" and (self.units == 1 or self.kind == "multilabel"):
            raw = raw - self._threshold
        if self.output == "probability":
            # A float32 probability saturates at 0 and 1; scikit-learn's ranking metrics refuse infinite scores.
            info = np.finfo("float32")
            share = np.clip(raw, float(info.tiny), 1.0 - float(info.eps) / 4)
            independent = self.units == 1 or self.kind == "multilabel"
            raw = np.log(share) - np.log1p(-share) if independent else np.log(share)
        if self.n_classes == 2 and self.kind != "multilabel":
            return raw[:, 0] if self.units == 1 else raw[:, 1] - raw[:, 0]
        return raw

    @property
    def why_no_probabilities(self) -> str:
        """Why the output of the model is no probability, and what would make it one, in words."""
        what = "margins" if self.output == "margin" else "numbers, fitted to 0 and 1"
        ending = "softmax" if self.units > 1 and self.kind not in ("multilabel", "ordinal") else "sigmoid"
        return (
            f"The model puts out {what}, which are no probabilities: its last layer has no activation such as "
            f"{ending!r}, and its loss does not say that it takes logits. If it does, say head__from_logits=True; or "
            f"end the model with activation={ending!r}."
        )

    def _check_probabilities(self, raw: Array) -> None:
        """Refuses numbers below 0 or above 1 where the model was taken to put out probabilities."""
        if self.output != "probability" or not raw.size or (raw.min() >= -_ROUNDING and raw.max() <= 1 + _ROUNDING):
            return
        raise ModelMismatchError(
            f"The model puts out numbers from {raw.min():.4g} to {raw.max():.4g}, which are no probabilities. If they "
            "are logits, say head__from_logits=True; if not, end the model with a sigmoid or softmax."
        )

    @property
    def _threshold(self) -> float:
        return 0.5 if self.output in ("probability", "value") else 0.0

    def _columns(self, raw: Array) -> Array:
        raw = np.asarray(raw)
        if raw.size != len(raw) * self.units:
            raise ModelMismatchError(
                f"The model puts out the shape {raw.shape}, where {self.units} number{'s' * (self.units != 1)} a row "
                "were expected."
            )
        raw = raw.reshape(len(raw), self.units)
        refuse_what_is_no_number(raw, ruling_out=self.units > 1 and self.output in ("logit", "margin"))
        return raw

    # -- to disk --------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this head again, as plain Python values."""
        config = dataclasses.asdict(self)
        if self.classes is not None:
            config["classes"] = {
                "values": _files.listed(self.classes), "dtype": _files.name_of_dtype(self.classes)
            }  # fmt: skip
        return {"class": "Head", **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Head:
        """Makes a head from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        extra = [field.name for field in dataclasses.fields(cls) if field.name not in _CONFIG]
        fields = {**_CONFIG, **dict.fromkeys(extra, _files.is_text)}  # of a subclass: names
        given = _files.checked_fields(config, fields, "A saved head")
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        given.pop("class")
        if given["classes"] is not None:
            given["classes"] = _files.array_from(given["classes"]["values"], given["classes"]["dtype"])
        made = cls(**given)
        made._check_sizes()
        return made

    def _check_sizes(self) -> None:
        """Holds the numbers of classes and units against each other, in a head that a file describes."""
        number = self.n_classes
        if self.kind in _NUMBERS:
            fits = number is None
        elif self.classes is None or number is None or self.classes.ndim != 1:
            fits = False
        else:
            units = {"binary": (1, 2), "ordinal": (number - 1,)}.get(self.kind, (number,))
            fits = self.units in units and (number == 2 or self.kind != "binary")
        sizes = {math.prod(shape) for shape in (self.shape, self.output_shape) if shape}
        fits = fits and sizes <= {self.units}
        lengths = {len(self.offset), len(self.scale)}
        if not (fits and lengths <= {0, self.units} and len(self.class_weight) in (0, number)):
            raise SavedFileError(f"A saved {self.kind} head of {self.units} units and {number} classes cannot be.")


_CONFIG: dict[str, Callable[[Any], object]] = {
    "class": _files.one_of("Head"),
    "kind": _files.one_of(*get_args(Kind)),
    "units": lambda value: _files.is_count(value) and value > 0,
    "classes": _files.optional(lambda value: isinstance(value, Mapping) and set(value) == {"values", "dtype"}),
    "one_hot": _files.is_flag,
    "encoding": _files.one_of("numbers", "one_hot", "columns"),
    "output": _files.one_of("probability", "logit", "margin", "value"),
    "flat": _files.is_flag,
    "shape": _files.list_of(_files.is_count),
    "output_shape": _files.list_of(_files.is_count),
    "offset": _files.list_of(_files.is_number),
    "scale": _files.list_of(_files.is_number),
    "dtype": _files.one_of("float16", "float32", "float64"),
    "label_smoothing": _files.is_number,
    "from_logits": _files.optional(_files.is_flag),
    "focal": _files.is_number,
    "class_weight": _files.list_of(_files.is_number),
    "weight": _files.is_number,
}


@dataclasses.dataclass(frozen=True, eq=False)
class HeadGroup:
    """The ends of a network with several outputs, one `Head` each.

    It answers to the same names as a `Head`; where a head takes or returns an array, a group takes or returns one
    for each output.

    Args:
        heads: One head an output, in the order of the model's outputs.
        names: Names of the targets, when `y` is a dict; predictions are then dicts too. Defaults to `None`: `y` has
            one column for each output.
    """

    heads: tuple[Head, ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def of_columns(cls, whole: Head, n_outputs: int) -> HeadGroup:
        """Splits a head of several columns into one head a column.

        Raises:
            ModelMismatchError: The target does not have as many columns as the model has outputs.
        """
        columns = whole.units if whole.kind in (*_NUMBERS, "multilabel") else 1
        if columns != n_outputs:
            raise ModelMismatchError(
                f"The model has {n_outputs} outputs, but `y` has {columns} column{'s' * (columns != 1)}. "
                "Give `y` one column for each output, or a dict of targets by output name."
            )
        if whole.kind == "multilabel":
            return cls(tuple(Head.binary() for _ in range(columns)))
        parts = zip(whole.offset or (0.0,) * columns, whole.scale or (1.0,) * columns, strict=True)
        return cls(tuple(Head(whole.kind, 1, offset=(o,), scale=(s,), dtype=whole.dtype) for o, s in parts))

    @property
    def kind(self) -> str:
        """`"regression"` if every output is a number, else `"multioutput"`."""
        return "regression" if all(part.kind in _NUMBERS for part in self.heads) else "multioutput"

    @property
    def units(self) -> tuple[int, ...]:
        """Output units, one number an output."""
        return tuple(part.units for part in self.heads)

    @property
    def classes(self) -> list[Array | None]:
        """Labels, one array an output."""
        return [part.classes for part in self.heads]

    @property
    def loss(self) -> Any:
        """A loss for each output."""
        return self._by_output([part.loss for part in self.heads])

    @property
    def metrics(self) -> Any:
        """A list of metrics for each output."""
        return self._by_output([part.metrics for part in self.heads])

    @property
    def loss_weights(self) -> Any:
        """A weight for the loss of each output; `None` where all weigh alike."""
        weights = [part.weight for part in self.heads]
        return None if set(weights) == {1.0} else self._by_output(weights)

    @property
    def n_classes(self) -> list[int | None]:
        """Number of classes, one an output."""
        return [part.n_classes for part in self.heads]

    def output_layers(self) -> list[keras.layers.Layer]:
        """Makes the last layers, named after the targets."""
        names = self.names or [f"output_{number}" for number in range(len(self.heads))]
        return [part.output_layer(name) for part, name in zip(self.heads, names, strict=True)]

    def connect(self, x: Any) -> list[Any]:
        """Adds the last layers to a graph, side by side: from `(batch, features)` to a list of `(batch, units)`."""
        return [layer(x) for layer in self.output_layers()]

    def for_metrics(self, metrics: Any) -> HeadGroup:
        """The same for every head; see `Head.for_metrics`."""
        own = _by_target(metrics, self.names, len(self.heads))
        return dataclasses.replace(
            self, heads=tuple(part.for_metrics(some) for part, some in zip(self.heads, own, strict=True))
        )

    def bind(self, model: keras.Model, outputs: Sequence[Shape] | None = None) -> HeadGroup:
        """Fits every head to its output of a compiled model; see `Head.bind`."""
        if self.names is not None:
            # `y` may name them in another order than the model, whose outputs come by place.
            by_name = dict(zip(self.names, self.heads, strict=True))
            ordered = list(getattr(model, "output_names", None) or [])
            if set(ordered) == set(by_name):
                self = dataclasses.replace(self, heads=tuple(map(by_name.__getitem__, ordered)), names=tuple(ordered))
        ends = _ends(model, outputs)
        if len(ends) != len(self.heads):
            raise ModelMismatchError(
                f"The model has {len(ends)} output{'s' * (len(ends) != 1)}, but `y` has "
                f"{len(self.heads)} targets. Give the model one output for each target."
            )
        names = self.names or list(getattr(model, "output_names", None) or [])
        losses, metrics = model.loss, _by_target(_compiled_metrics(model), names, len(self.heads))
        bound = []
        for number, (part, end) in enumerate(zip(self.heads, ends, strict=True)):
            if isinstance(losses, Mapping):
                loss = losses.get(names[number]) if number < len(names) else None
            elif isinstance(losses, Sequence) and not isinstance(losses, str):
                loss = losses[number]
            else:
                loss = losses
            bound.append(part._bind(end, loss, metrics[number]))
        return dataclasses.replace(self, heads=tuple(bound))

    def check_reach(self, model: keras.Model, y: Any) -> None:
        """Refuses a model with an output that cannot reach its target; see `Head.check_reach`."""
        for part, end, target in zip(self.heads, _ends(model, None), self.split(y), strict=True):
            part._check_reach(end.activation, target)

    def encode(self, y: Any) -> Any:
        """Encodes every target; see `Head.encode`. Returns a list, or a dict where `y` is one."""
        return self._by_output([part.encode(column) for part, column in zip(self.heads, self.split(y), strict=True)])

    def sample_weight(self, y: Any) -> Array | None:
        """Weights of rows: the product of those that their classes have in each target, or `None`."""
        found = [part.sample_weight(column) for part, column in zip(self.heads, self.split(y), strict=True)]
        weights = [one for one in found if one is not None]
        return np.prod(weights, axis=0) if weights else None

    def decode(self, raw: Any) -> Any:
        """Decodes every output; columns are put side by side, shape `(n, outputs)`, dicts stay dicts."""
        return self._join(self._each(Head.decode, raw))

    def probabilities(self, raw: Any) -> Any:
        """Probabilities of every output: a list of arrays, as scikit-learn returns them, or a dict without numbers."""
        made = self._by_output(
            self._each(lambda part, output: None if part.classes is None else part.probabilities(output), raw)
        )
        return {name: part for name, part in made.items() if part is not None} if isinstance(made, dict) else made

    def split(self, y: Any) -> list[Array]:
        """One target for each output, from columns or a dict."""
        if self.names is not None:
            missing = [name for name in self.names if name not in y] if isinstance(y, Mapping) else list(self.names)
            if missing:
                raise DataError(f"`y` must be a dict with the targets {list(self.names)}; missing: {missing}.")
            return [np.asarray(y[name]) for name in self.names]
        y = np.asarray(y)
        return [y[:, number] for number in range(len(self.heads))]

    def _each(self, make: Callable[[Head, Array], Any], raw: Any) -> list[Any]:
        made = []
        for number, (part, output) in enumerate(zip(self.heads, self._listed(raw), strict=True)):
            try:
                made.append(make(part, output))
            except DivergedError as error:
                which = f"column {number}" if self.names is None else repr(self.names[number])
                raise DivergedError(f"Of the target {which}: {error}") from None
        return made

    def _listed(self, raw: Any) -> list[Array]:
        if isinstance(raw, Mapping):
            return [raw[name] for name in self.names] if self.names is not None else list(raw.values())
        return list(raw)

    def _by_output(self, parts: list[Any]) -> Any:
        return parts if self.names is None else dict(zip(self.names, parts, strict=True))

    def _join(self, parts: list[Array]) -> Any:
        return self._by_output(parts) if self.names is not None else np.column_stack(parts)

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this group again, as plain Python values."""
        return {"class": "HeadGroup", "heads": [part.get_config() for part in self.heads], "names": self.names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeadGroup:
        """Makes a group from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        fields = {
            "class": _files.one_of("HeadGroup"),
            "heads": _files.list_of(lambda value: isinstance(value, Mapping)),
            "names": _files.optional(_files.list_of(_files.is_text)),
        }
        given = _files.checked_fields(config, fields, "A saved group of heads")
        heads, names = tuple(map(Head.from_config, given["heads"])), given["names"]
        if not heads or (names is not None and (len(names) != len(heads) or len(set(names)) != len(names))):
            raise SavedFileError(f"A saved group has {len(heads)} heads of the names {names}.")
        return cls(heads, None if names is None else tuple(names))


def head(
    y: Any,
    *,
    kind: Kind | Mapping[str, Kind] | None = None,
    task: Literal["classification", "regression"] | None = None,
    label_smoothing: float = 0.0,
    from_logits: bool | None = None,
    focal: float = 0.0,
    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
    weight: float | Mapping[str, float] = 1.0,
    standardize: bool = False,
    sample_weight: Array | None = None,
) -> Head | HeadGroup:
    """Makes the head for a target.

    Example:

    >>> head(["ham", "spam", "ham"]).kind
    'binary'
    >>> head([[0, 1], [1, 1]]).kind
    'multilabel'
    >>> head([0, 4, 2], kind="counts").loss
    'poisson'
    >>> head({"age": [31.5, 8.0], "smiles": [True, False]}, weight={"age": 0.1}).units
    (1, 1)

    Args:
        y: Target: shape `(n,)` or `(n, columns)`; a dict of targets by output name gives a `HeadGroup`.
        kind: What `y` is: `"binary"`, `"multiclass"`, `"multilabel"`, `"ordinal"` (classes numbered in their
            order), `"regression"` or `"counts"`; for a dict of targets one for all, or a dict. Defaults to `None`:
            what it looks like, which is never ordinal nor counts.
        task: `"classification"` or `"regression"`. Defaults to `None`: floats with a fraction are regression,
            anything else is classification.
        label_smoothing: Classes: this fraction of a label is spread over all classes, so that the network is never
            taught to be certain. From 0 up to, not including, 1. Defaults to `0.0`.
        from_logits: Classes: whether the last layer has no activation and the loss applies it, which is exact where a
            probability rounds to 0 or 1. Probabilities are the same. For a model of yours with a loss of yours it says
            what the output means, which nothing else does. Defaults to `None`: no, where that can be seen.
        focal: Classes: gamma of the focal loss, by which rows that are right already count less: 2 for few rows of
            interest among many (Lin et al., "Focal Loss for Dense Object Detection", 2017). Defaults to `0.0`: the
            crossentropy.
        class_weight: Classes: weight by label, or `"balanced"`, scikit-learn's rule. `sample_weight` of the head makes
            weights of rows of it; an estimator does so by itself. Defaults to `None`.
        weight: Weight of the target's loss where there are several; for a dict of targets also a dict. Defaults to
            `1.0`.
        standardize: Numbers: train on `(y - mean) / standard deviation`, counts on `y / mean`, so that a network of
            default size and learning rate learns targets of any unit; predictions come back in the unit of `y`.
            Defaults to `False`.
        sample_weight: Weights for that mean and deviation, shape `(n,)`. Defaults to equal weights.

    Returns:
        A `Head`, or a `HeadGroup` for dicts and for several columns of more than two classes.

    Raises:
        DataError: A classification target has one class, or is continuous, or does not look like `kind`; the message
            says what was found.
        ParameterError: An option is out of range, or not one of this kind of target.
    """
    options: dict[str, Any] = {
        "kind": kind,
        "task": task,
        "label_smoothing": label_smoothing,
        "from_logits": from_logits,
        "focal": focal,
        "class_weight": class_weight,
        "weight": weight,
        "standardize": standardize,
        "sample_weight": sample_weight,
    }
    if isinstance(y, Mapping):
        return _head_of_dict(y, options)
    for name, value in options.items():
        if name in ("kind", "weight") and isinstance(value, Mapping):
            raise ParameterError(f"`{name}` is a dict, {dict(value)!r}, but `y` is one target, not a dict of targets.")
    y = np.asarray(y)
    made = _plain_head(y, kind, task, standardize, sample_weight)  # type: ignore[arg-type]
    if isinstance(made, HeadGroup):
        parts = [head(column, **options) for column in y.T]
        return HeadGroup(tuple(part for part in parts if isinstance(part, Head)))
    return _with_options(made, y, label_smoothing, from_logits, focal, class_weight, weight)  # type: ignore[arg-type]


def _head_of_dict(y: Mapping[str, Any], options: dict[str, Any]) -> HeadGroup:
    for name in ("kind", "weight"):
        unknown = [key for key in options[name] if key not in y] if isinstance(options[name], Mapping) else []
        if unknown:
            raise ParameterError(f"`{name}` names {unknown[0]!r}, which is no target; the targets are {list(y)}.")
    heads = []
    for name, target in y.items():
        own = dict(options)
        for option, default in (("kind", None), ("weight", 1.0)):
            if isinstance(own[option], Mapping):
                own[option] = own[option].get(name, default)
        number = _is_of_numbers(np.asarray(target), own["kind"], own["task"])
        for option in ("label_smoothing", "from_logits", "focal", "class_weight") if number else ():
            own.pop(option)  # said for the classes among the targets
        try:
            heads.append(head(target, **own))
        except DataError as error:
            hint = f" For numbers say kind={{{name!r}: 'regression'}}." if "Unknown label type" in str(error) else ""
            raise DataError(f"`y[{name!r}]`: {error}{hint}") from None
    return HeadGroup(tuple(part for part in heads if isinstance(part, Head)), tuple(y))


def _plain_head(
    y: Array, kind: Kind | None, task: str | None, standardize: bool, sample_weight: Array | None
) -> Head | HeadGroup:
    found = _type_of_target(y)
    if kind is not None:
        _check_kind(kind, found, y)
    if _is_of_numbers(y, kind, task):
        return _numbers_head(y, kind or "regression", standardize, sample_weight)
    if found in ("continuous", "continuous-multioutput", "unknown"):
        raise DataError(
            f"Unknown label type: {found}. `y` has dtype {y.dtype} and begins {_short(y.ravel())}, but a classifier "
            "needs labels: integers, strings or booleans. For numbers use KerasRegressor."
        )
    if found == "multilabel-indicator":
        if kind != "multilabel" and y.shape[1] > 1 and np.all(y.sum(axis=1) == 1):
            # one-hot rows, as keras.utils.to_categorical makes them
            return dataclasses.replace(Head.multiclass(y.shape[1]), one_hot=True, flat=False, encoding="one_hot")
        return Head.multilabel(y.shape[1])
    if found == "multiclass-multioutput":
        _refuse_sets_of_labels(y)
        return HeadGroup(())
    classes = np.unique(y)
    if len(classes) < 2:
        raise DataError(
            f"`y` holds only one class, {classes.tolist()[0]!r}, in {len(y)} rows; a classifier needs at least two. "
            "Check how the rows were chosen, for example a fold or a filter."
        )
    if kind == "ordinal":
        return Head.ordinal(classes)
    return Head.binary(classes) if len(classes) == 2 and kind != "multiclass" else Head.multiclass(classes)


def _refuse_sets_of_labels(y: Array) -> None:
    """Refuses rows of labels in any order, `[["art", "money"], ["money", "sport"]]`, as two targets of their own.

    Two questions with the same answers, yes and no, are told from them by rows in which both have one answer.
    """
    if not all(isinstance(label, str) for label in y.ravel().tolist()):
        return
    columns = [set(column) for column in y.T.tolist()]
    shared = set.union(*(a & b for place, a in enumerate(columns) for b in columns[:place]))
    if shared and all(len(set(row)) == len(row) for row in y.tolist()):
        raise DataError(
            f"{sorted(map(str, shared))[0]!r} stands in several columns of `y`: its rows seem to have several labels "
            f"each. {A_COLUMN_A_LABEL} Several targets that share their labels come as a dict: y={{'first': ..., "
            "'second': ...}."
        )


# What to do about rows of several labels.
A_COLUMN_A_LABEL = (
    "Give a column of 0 and 1 for each label: y = sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)."
)


def _type_of_target(y: Array) -> str:
    from sklearn.utils.multiclass import type_of_target

    if y.ndim == 1 and y.dtype.kind in "bi" and len(y):
        n_classes = len(np.unique(y))
        if n_classes <= len(y) / 4:  # of more, scikit-learn may have something to say
            return "binary" if n_classes <= 2 else "multiclass"
    with np.errstate(invalid="ignore"):  # it asks whether numbers are whole, of those beyond any integer too
        return str(type_of_target(y, input_name="y"))


def _is_of_numbers(y: Array, kind: str | None, task: str | None) -> bool:
    if kind is not None or task is not None:
        return kind in _NUMBERS or (kind is None and task == "regression")
    return _type_of_target(y).startswith("continuous")


def _check_kind(kind: str, found: str, y: Array) -> None:
    """Refuses a kind that `y` cannot be."""
    kinds = get_args(Kind)
    if not isinstance(kind, str) or kind not in kinds:
        meant = did_you_mean(kind, kinds)
        raise ParameterError(f"`kind` is {kind!r}.{meant} It is one of {', '.join(map(repr, kinds))}.")
    columns = y.ndim > 1 and y.shape[1] > 1
    one_hot = found == "multilabel-indicator" and columns and bool(np.all(y.sum(axis=1) == 1))
    possible = {
        "binary": found == "binary",
        "multiclass": found in ("binary", "multiclass") or one_hot,
        "multilabel": found == "multilabel-indicator",
        "ordinal": found in ("binary", "multiclass") and y.dtype.kind in "fiub",  # names would be in alphabetical order
        "regression": y.dtype.kind in "fiub" or found.startswith("continuous"),
        "counts": y.dtype.kind in "fiub",
    }
    if not possible[kind]:
        raise DataError(
            f"`kind` is {kind!r}, but `y` looks {found}: shape {y.shape}, dtype {y.dtype}, beginning "
            f"{_short(y.ravel())}." + (" Number the classes in their order: 0, 1, 2, ..." if kind == "ordinal" else "")
        )
    if kind == "counts" and y.size and (y.min() < 0 or np.any(y != np.round(y))):
        odd = y.ravel()[(y.ravel() < 0) | (y.ravel() != np.round(y.ravel()))][0]
        raise DataError(f"`kind` is 'counts', which are 0, 1, 2, ..., but `y` holds {odd.item()!r}.")


def _with_options(
    made: Head, y: Array, label_smoothing: float, from_logits: bool, focal: float, class_weight: Any, weight: float
) -> Head:
    _check_options(label_smoothing, from_logits, focal, weight)
    given: dict[str, Any] = {"label_smoothing": label_smoothing, "from_logits": from_logits, "focal": focal}
    given["class_weight"] = class_weight is not None
    lost = [name for name, value in given.items() if value] if made.kind in _NUMBERS else []
    if lost:
        raise ParameterError(f"`{lost[0]}` is an option for classes, but `y` is {_article(made.kind)} target.")
    output: Output = made.output
    return dataclasses.replace(
        made,
        label_smoothing=float(label_smoothing),
        from_logits=None if from_logits is None else bool(from_logits),
        output="logit" if from_logits else output,
        # What Keras' losses want of several classes is one-hot rows, wherever they do more than the crossentropy.
        encoding="one_hot" if made.kind == "multiclass" and (label_smoothing or focal) else made.encoding,
        focal=float(focal),
        class_weight=() if class_weight is None else _weights_of_classes(made, y, class_weight),
        weight=float(weight),
    )


def _check_options(label_smoothing: Any, from_logits: Any, focal: Any, weight: Any) -> None:
    problems = [
        fraction_wanted("label_smoothing", label_smoothing),
        None if from_logits is None else flag_wanted("from_logits", from_logits),
        number_wanted("focal", focal),
        number_wanted("weight", weight),
    ]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise ParameterError("\n".join(found))


def _weights_of_classes(made: Head, y: Array, class_weight: Any) -> tuple[float, ...]:
    from sklearn.utils.class_weight import compute_class_weight

    if made.kind == "multilabel":
        raise ParameterError("`class_weight` weighs rows by their class, but a row of a multilabel target has several.")
    classes, numbers = np.asarray(made.classes), made.class_numbers(y)
    if isinstance(class_weight, str) and class_weight == "balanced":
        found = compute_class_weight("balanced", classes=np.arange(len(classes)), y=numbers)
    else:
        found = weights_of_labels(class_weight, classes)
    return tuple(float(value) for value in found)


def weights_of_labels(class_weight: Any, classes: Array) -> Array:
    """Weights by label as an array in the order of the classes.

    Args:
        class_weight: A dict of weights by label, or a pandas Series with the labels as its index. A class that it does
            not name weighs 1.
        classes: Labels, shape `(n_classes,)`.

    Returns:
        Shape `(n_classes,)`, float64.

    Raises:
        ParameterError: It is something else, names a label that is no class, or holds what cannot be a weight.
    """
    if hasattr(class_weight, "to_dict") and hasattr(class_weight, "index"):
        class_weight = class_weight.to_dict()
    if not isinstance(class_weight, Mapping):
        raise ParameterError(
            f"`class_weight` must be a dict of weights by label, 'balanced' or None; got {shown(class_weight)}."
            f"{_as_a_dict(class_weight, classes)}"
        )
    weights = np.ones(len(classes))
    places = {label: _place_of(label, classes) for label in class_weight}
    unknown = [label for label, place in places.items() if place is None]
    if unknown:
        raise ParameterError(f"`class_weight` has weights for {unknown}; the classes are {_labels_of(classes)}.")
    for label, weight in class_weight.items():
        if not is_number(weight) or weight < 0:
            raise ParameterError(
                f"`class_weight` has the weight {shown(weight)} for {label!r}; a weight is a finite number, 0 or more."
            )
        weights[places[label]] = float(weight)
    if not weights.any():
        raise ParameterError("`class_weight` is 0 for every class, which leaves nothing to learn from.")
    return weights


def _place_of(label: Any, classes: Array) -> int | None:
    """The place of a label among the classes; a date may be given as any type of date."""
    known: list[Any] = classes.tolist()
    if label in known:
        return known.index(label)
    if classes.dtype.kind not in "Mm" or isinstance(label, (bool, int, float)):
        return None
    try:
        found = np.flatnonzero(classes == np.asarray(label, dtype=classes.dtype))
    except (TypeError, ValueError):
        return None
    return int(found[0]) if len(found) else None


def _labels_of(classes: Array) -> list[Any]:
    """Labels as a user writes them: those of dates as text, since numpy makes numbers of nanoseconds."""
    return list(map(str, classes)) if classes.dtype.kind in "Mm" else classes.tolist()


def _as_a_dict(values: Any, classes: Array) -> str:
    """Weights that came without labels, with them."""
    if isinstance(values, str) or np.ndim(values) != 1 or len(values) != len(classes) or len(classes) > 10:
        return ""
    pairs = zip(_labels_of(classes), np.asarray(values).tolist(), strict=True)
    return f" In the order of the classes that would be {dict(pairs)!r}."


def _numbers_head(y: Array, kind: Kind, standardize: bool, sample_weight: Array | None) -> Head:
    columns = y.reshape(len(y), -1).astype("float64", copy=False)
    dtype = y.dtype.name if y.dtype.name in ("float16", "float32") else "float64"
    shape = y.shape[1:] if y.ndim > 2 else ()
    result = Head(kind, columns.shape[1], flat=y.ndim == 1, shape=shape, dtype=dtype)
    if not standardize:
        return result
    # In units of the largest number: squares of 1e160 and of 1e-170 are no numbers any more.
    unit = np.abs(columns).max(axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    mean = np.average(columns / unit, axis=0, weights=sample_weight)
    if kind == "counts":
        scale = np.where(mean > 0, mean * unit, 1.0)
        return dataclasses.replace(result, offset=(0.0,) * len(mean), scale=tuple(scale.tolist()))
    deviation = np.sqrt(np.average((columns / unit - mean) ** 2, axis=0, weights=sample_weight))
    deviation = np.where(deviation * unit > 0, deviation * unit, 1.0)
    return dataclasses.replace(result, offset=tuple((mean * unit).tolist()), scale=tuple(deviation.tolist()))


def _without_overflow(values: Array) -> Array:
    """Numbers in the type that Keras computes in, or an error: larger ones would be infinite there."""
    limit = float(np.finfo(_floatx()).max)
    if values.size and not (values.max() <= limit and values.min() >= -limit):
        largest = values.flat[int(np.argmax(np.abs(values)))]
        raise DataError(
            f"`y` holds {largest:.4g}, but a network computes in {_floatx()}, which ends at {limit:.2g}. "
            f"{_RESCALE_TARGET}"
        )
    return values.astype(_floatx(), copy=False)


def _refuse_vanishing(values: Array, encoded: Array) -> None:
    """Refuses numbers so small that all of a column would be 0 in the type that Keras computes in."""
    gone = ~encoded.any(axis=0) & values.any(axis=0)
    if gone.any():
        largest = np.abs(values[:, int(np.argmax(gone))]).max()
        raise DataError(
            f"`y` holds no number beyond {largest:.4g}, but a network computes in {_floatx()}, where that is 0. "
            f"{_RESCALE_TARGET}"
        )


_RESCALE_TARGET = (
    "Give it in another unit, or scale it by sklearn.compose.TransformedTargetRegressor(..., "
    "transformer=StandardScaler()); a builder of kerastoolkit does so by itself."
)


def refuse_what_is_no_number(raw: Array, *, ruling_out: bool = False) -> None:
    """Refuses output of a network that is NaN or infinite.

    Args:
        raw: The output, shape `(n, ...)`.
        ruling_out: Whether minus infinity rules out a column, as long as another of the row is left. Defaults to
            `False`.

    Raises:
        DivergedError: There is such a row; the message names the first, and says how many there are.
    """
    if raw.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore", over="ignore"):  # a sum that is not finite may come of finite numbers
        if np.isfinite(raw.sum()):
            return
    raw = raw.reshape(len(raw), -1)
    is_number = np.isfinite(raw)
    if ruling_out:
        is_number |= np.isneginf(raw) & is_number.any(axis=1, keepdims=True)
    rows = np.flatnonzero(~is_number.all(axis=1))
    if len(rows):
        raise DivergedError(
            f"The output of the network is NaN or infinite for {len(rows)} of {len(raw)} rows, the first of them row "
            f"{rows[0]}: {_short(raw[rows[0]])}. No prediction, probability or score can be made of that. If it is so "
            "for many rows, the network diverged: train it with smaller steps (`optimizer__learning_rate`), clipped "
            "gradients (`optimizer__clipnorm=1.0`) or scaled inputs. If it is so for a few, look at their values: they "
            "take the network beyond the range of floats."
        )


# -- looking at a model ---------------------------------------------------------------------------------------------


class _End(NamedTuple):
    """An output of a model: its shape for one row, and the activation that made it; None for what is not known."""

    shape: Shape | None
    activation: str | None

    @property
    def units(self) -> int | None:
        """Numbers for one row, None where that is not known."""
        sizes = [None] if self.shape is None else list(self.shape)
        return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _ends(model: keras.Model, shapes: Sequence[Shape] | None) -> list[_End]:
    """Every output of a model; one of which nothing is known for a subclassed model that tells nothing yet."""
    import keras

    try:
        outputs = keras.tree.flatten(model.outputs)
    except (AttributeError, ValueError):
        return [_End(shape, None) for shape in shapes] if shapes else [_End(None, None)]
    ends = [_End(tuple(output.shape)[1:], _activation(_keras.layer_of(output))) for output in outputs]
    if len(ends) == 1 and ends[0].activation is None and getattr(model, "layers", None):
        ends = [ends[0]._replace(activation=_activation(model.layers[-1]))]
    return ends


def _activation(layer: Any) -> str | None:
    """Name of the activation in which a layer ends, `"linear"` for none; None where it is not plain to see."""
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
        return _activation_of_its_own(layer)
    if not isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Activation)):
        return None
    activation = layer.activation
    if activation is None:
        return "linear"
    if not str(getattr(activation, "__module__", "")).startswith("keras."):
        return None  # of the user's
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def _activation_of_its_own(layer: Any) -> str:
    """Name of the activation that a layer of Keras' is."""
    name = str(type(layer).__name__).lower().replace("leakyrelu", "leaky_relu")
    if name != "relu" or (layer.max_value is None and not layer.negative_slope):
        return name
    return "leaky_relu" if layer.negative_slope else "relu6" if layer.max_value == 6 else "clipped_relu"


def _layer_before(layer: Any) -> Any:
    """The layer whose output a layer of one input takes; None if that is not known."""
    import keras

    try:
        tensors = keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):
        return None
    return _keras.layer_of(tensors[0]) if len(tensors) == 1 else None


def _refuse_bounded_scores(activation: str | None, why: str, one_of_several: bool) -> None:
    """Refuses logits or margins that end at 0 or between two numbers, where they stand for anything from minus to plus.

    The largest of several margins is the largest, wherever they end.
    """
    low, high = _ENDS_BETWEEN.get(activation or "", (-math.inf, math.inf))
    bounded = low == 0 or high == 0 if "margins" in why else (low, high) != (-math.inf, math.inf)
    if not bounded or one_of_several or activation == "log_softmax":
        return
    raise ModelMismatchError(
        f"The last layer has the activation {activation!r}, whose output is {_reach(low, high)}, but {why}, numbers of "
        "both signs and any size: some classes could never be told apart. Give the last layer no activation."
    )


def _reach(low: float, high: float) -> str:
    """In words, between which numbers an output lies."""
    if math.inf in (high, -low):
        return "never below 0" if high == math.inf else "never above 0"
    return f"always between {low:g} and {high:g}"


def _matched(shape: Shape, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a model puts out a row, given that of the target; () if it cannot be told.

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


def _only(loss: Any) -> Any:
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        return loss[0]
    return loss


def _keras_loss(loss: Any) -> Any:
    """What a loss is made of: the function of Keras' or of the user's behind a name or a wrapper, else itself."""
    import keras

    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return loss
    wrapped = getattr(loss, "fn", None)
    return wrapped if type(loss).__name__ == "LossFunctionWrapper" and wrapped is not None else loss


def _kind_of_loss(loss: Any) -> Any:
    """The function or class that says what a loss is; of a class of the user's, that of Keras' which it extends."""
    import keras

    loss = _keras_loss(loss)
    if not isinstance(loss, keras.losses.Loss):
        return loss
    kinds = [kind for kind in type(loss).__mro__ if kind.__module__.startswith("keras.")]
    special = [kind for kind in kinds if kind.__name__ not in ("Loss", "LossFunctionWrapper", "KerasSaveable")]
    return special[0] if special else type(loss)


def _loss_name(loss: Any) -> str:
    kind = _kind_of_loss(loss)
    name = str(getattr(kind, "__name__", type(kind).__name__))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _is_of_keras(loss: Any) -> bool:
    kind = _kind_of_loss(loss)
    return str(getattr(kind, "__module__", "") or type(kind).__module__).startswith("keras.")


def _from_logits(loss: Any) -> bool | None:
    """Whether a loss takes logits; None if it does not say."""
    said = _keras.keywords_of(loss).get("from_logits", getattr(loss, "from_logits", None))
    if said is None and _is_of_keras(loss):
        return False
    return None if said is None else bool(said)


def _takes(loss: Any, form: Encoding, n_classes: int) -> bool:
    """Whether a loss of the user's can be computed for `y` in a form.

    It is tried on as many rows as no axis of classes has, since Keras and numpy stretch axes that happen to fit.
    """
    import keras

    numbers = np.arange(n_classes + 2) % n_classes
    y_true = numbers.astype(_floatx()) if form == "numbers" else np.eye(n_classes, dtype=_floatx())[numbers]
    y_pred = np.full((len(numbers), n_classes), 1.0 / n_classes, dtype=_floatx())
    try:
        _keras_loss(loss)(keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred))
    except Exception:  # of whatever kind: it is the user's
        return False
    return True


# -- metrics --------------------------------------------------------------------------------------------------------


def _compiled_metrics(model: keras.Model) -> list[Any]:
    arguments = _keras.compile_arguments(model) or {}
    return [arguments[name] for name in ("metrics", "weighted_metrics") if arguments.get(name)]


def _flattened(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    if isinstance(metrics, Mapping):
        metrics = list(metrics.values())
    return [one for part in metrics for one in _flattened(part)] if isinstance(metrics, (list, tuple)) else [metrics]


def _by_target(metrics: Any, names: Sequence[str] | None, n_targets: int) -> list[list[Any]]:
    """The metrics of each target, from a dict by name or a list by place, or from several of those."""
    found: list[list[Any]] = [[] for _ in range(n_targets)]
    if isinstance(metrics, Mapping):
        for number, name in enumerate(list(names or [])[:n_targets]):
            found[number] = _flattened(metrics.get(name))
    elif isinstance(metrics, (list, tuple)) and any(isinstance(part, Mapping) for part in metrics):
        for part in metrics:
            found = [one + more for one, more in zip(found, _by_target(part, names, n_targets), strict=True)]
    elif isinstance(metrics, (list, tuple)) and len(metrics) == 1 and isinstance(metrics[0], (list, tuple)):
        return _by_target(metrics[0], names, n_targets)
    elif isinstance(metrics, (list, tuple)) and len(metrics) == n_targets:
        found = [_flattened(part) for part in metrics]
    return found


def _metric_name(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    kind = metric if isinstance(metric, type) or hasattr(metric, "__name__") else type(metric)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(kind.__name__)).lower()


def _is_metric(name: str) -> bool:
    import keras

    try:
        return keras.metrics.get(name) is not None
    except (ValueError, TypeError):
        return False


def _form_of_metric(metric: Any) -> Literal["numbers", "one_hot", "labels"] | None:
    """The form of `y` that a metric of Keras compares; None for one that takes any, or is of the user's."""
    import keras

    if isinstance(metric, str):
        if metric in ("accuracy", "acc", "crossentropy", "ce"):
            return None
        try:
            metric = keras.metrics.get(metric)
        except (ValueError, TypeError):
            return None  # Keras will say so
    kind = metric if isinstance(metric, type) or hasattr(metric, "__name__") else type(metric)
    name = _metric_name(metric)
    if not str(kind.__module__).startswith("keras.") or name in ("mean", "sum", "mean_metric_wrapper"):
        return None
    if name == "accuracy" or getattr(metric, "sparse_y_pred", False):
        return "labels"
    if hasattr(metric, "sparse_y_true"):
        return "numbers" if metric.sparse_y_true else "one_hot"
    return "numbers" if name.startswith("sparse") else "one_hot"


_NAME_OF_ACCURACY = "The string 'accuracy' finds the right one."


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _floatx() -> str:
    import keras

    return str(keras.config.floatx())


def _short(values: Array, most: int = 10) -> str:
    shown = ", ".join(repr(value) for value in values[:most].tolist())
    return f"[{shown}{', ...' if len(values) > most else ''}]"
