"""From the kind of a target to the head of a network, and from its raw output back to predictions.

This is the one place that knows, for each kind of target, how many output units a model has and with which activation,
with which loss and metrics it trains, how `y` is encoded for Keras, and how the raw output becomes probabilities,
scores and labels:

kind          units                  activation   loss                             y for Keras
"binary"      1                      sigmoid      binary_crossentropy              (n, 1) of 0.0 and 1.0
"multiclass"  number of classes      softmax      sparse_categorical_crossentropy  (n,) of class numbers
"multilabel"  number of labels       sigmoid      binary_crossentropy              (n, labels) of 0.0 and 1.0
"ordinal"     number of classes - 1  sigmoid      binary_crossentropy              (n, classes - 1), see below
"regression"  number of targets      none         mse                              (n, targets)
"counts"      number of targets      exponential  poisson                          (n, targets), divided by the mean

An ordinal target has classes in an order (bad, fair, good). Each unit answers one question, whether the row lies above
a class, so that a row of the second of three classes is (1, 0): Cheng, Wang and Pollastri, "A Neural Network Approach
to Ordinal Regression", 2008. The prediction is the median of the classes, which keeps the mean distance small.

A model that a user wrote may end differently; `Head.bind` returns the head that fits it, see `matching`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from kerastoolkit import _files
from kerastoolkit.builders.losses import (
    Encoding,
    Loss,
    Metrics,
    check_loss_options,
    compiled_metrics,
    flattened,
    form_of_metric,
    loss_for,
    metrics_by_target,
    metrics_for,
    only_loss,
)
from kerastoolkit.builders.matching import ModelOutput, Output, Target, check_reach, is_limited, match, outputs_of
from kerastoolkit.builders.targets import (
    NUMERIC_KINDS,
    Array,
    Kind,
    Shape,
    check_finite,
    check_kind,
    floatx,
    is_numeric,
    offset_and_scale,
    refuse_label_lists,
    refuse_vanishing,
    shortened,
    to_floatx,
    type_of_target,
    weights_of_labels,
    with_article,
)
from kerastoolkit.exceptions import DataError, DivergedError, ModelMismatchError, ParameterError, SavedFileError

if TYPE_CHECKING:
    import keras

__all__ = ["Head", "HeadGroup", "head"]

Targets: TypeAlias = ArrayLike | Mapping[str, ArrayLike]  # several targets: a column for each, or a dict by name
Outputs: TypeAlias = Sequence[Array] | Mapping[str, Array]  # raw output, one array for each target

_ACTIVATIONS = {"multiclass": "softmax", "regression": None, "counts": "exponential"}  # the others: sigmoid

# What a float32 probability may be off by, also where the layers before it computed in 16 bits.
_ROUNDING = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The head of a network for one target: its last layer, loss and metrics, and what its output means.

    Make one with `head(y)`, or without data through `Head.binary()`, `Head.multiclass(n)`, `Head.multilabel(n)`,
    `Head.ordinal(n)`, `Head.regression(n)` and `Head.counts(n)`.

    Args:
        kind: `"binary"`, `"multiclass"`, `"multilabel"`, `"ordinal"`, `"regression"` or `"counts"`.
        units: Number of output units of the model.
        classes: Sorted labels, shape `(n_classes,)`; for `"multilabel"` the indices of the labels. `None` for
            numbers.
        one_hot: Whether `y` is given, and predictions are returned, as one-hot rows. Defaults to `False`.
        encoding: What Keras gets as `y`: `"numbers"` (class numbers), `"one_hot"` or `"columns"` (as many columns as
            units). Defaults to `"columns"`.
        output: What the raw output means: `"probability"`, `"logit"`, `"margin"` (its sign decides between two
            classes; not a probability) or `"value"` (a number; for classes it is fitted to 0 and 1, and is not a
            probability). Defaults to `"value"`.
        flat: Whether `y` and predictions have one axis. Defaults to `True`.
        shape: Numbers: shape of a row of `y` where that has three axes or more. Defaults to `()`: `y` has one axis or
            two.
        output_shape: Shape of the model's output for one row, once the head is bound to a model. Defaults to `()`:
            `(units,)`.
        offset: Numbers: subtracted from `y` before training and added to the output, one number for each target.
        scale: Numbers: `y` is divided by it, and the output multiplied by it, one number for each target.
        dtype: Numbers: dtype of the predictions. Defaults to `"float32"`.
        label_smoothing: Classes: see `head`. Defaults to `0.0`.
        from_logits: Classes: see `head`. Defaults to `None`.
        focal: Classes: see `head`. Defaults to `0.0`.
        class_weight: Classes: weight of each class, in the order of `classes`. Defaults to `()`: equal weights.
        weight: Weight of this target's loss, where a model has several. Defaults to `1.0`.
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
        """One of several classes (how many, or the sorted labels): a softmax unit for each."""
        labels = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
        return cls("multiclass", len(labels), labels, encoding="numbers", output="probability")

    @classmethod
    def multilabel(cls, labels: int) -> Head:
        """Any number of `labels` at once: a sigmoid unit for each."""
        return cls("multilabel", labels, np.arange(labels), encoding="columns", output="probability", flat=False)

    @classmethod
    def ordinal(cls, classes: int | ArrayLike) -> Head:
        """One of several classes that have an order (how many, or the labels from low to high)."""
        labels = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
        return cls("ordinal", len(labels) - 1, labels, encoding="columns", output="probability")

    @classmethod
    def regression(cls, targets: int = 1) -> Head:
        """Numbers: a linear unit for each target."""
        return cls("regression", targets, flat=targets == 1)

    @classmethod
    def counts(cls, targets: int = 1) -> Head:
        """How often something happens (0, 1, 2, ...): an exponential unit for each target, the expected number."""
        return cls("counts", targets, flat=targets == 1)

    # -- the last layer -------------------------------------------------------------------------------------------

    @property
    def activation(self) -> str | None:
        """Activation of the output layer, `None` for a linear one."""
        return None if self.from_logits else _ACTIVATIONS.get(self.kind, "sigmoid")

    @property
    def loss(self) -> Loss:
        """The Keras loss that fits the output layer: its name, or a loss where options ask for more than a name."""
        options = {"label_smoothing": self.label_smoothing, "focal": self.focal}
        return loss_for(self.kind, self.encoding, from_logits=bool(self.from_logits), **options)

    @property
    def metrics(self) -> list[Any]:
        """The Keras metrics that a user expects beside the loss: names, or metrics where a name would not do."""
        return metrics_for(self.kind, len(self.output_shape or self.shape), from_logits=bool(self.from_logits))

    @property
    def n_classes(self) -> int | None:
        """Number of classes (of labels, for `"multilabel"`), `None` for numbers."""
        return None if self.classes is None else len(self.classes)

    def output_layer(self, name: str | None = None) -> keras.layers.Layer:
        """Makes the last layer.

        Args:
            name: Name of the layer. Defaults to `None`: Keras chooses one.

        Returns:
            A `Dense` layer: input `(batch, features)`, output `(batch, units)`.
        """
        import keras

        # A network that computes in 16 bits still ends in 32, since 16 bits cannot hold a probability of 0.999.
        mixed = str(keras.config.dtype_policy().name).startswith("mixed_")
        dtype = {"dtype": keras.config.dtype_policy().variable_dtype} if mixed else {}
        return keras.layers.Dense(self.units, activation=self.activation, name=name, **dtype)

    def connect(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Adds the last layer to a graph: from `(batch, features)` to `(batch, units)`, a `KerasTensor` each."""
        return self.output_layer()(x)

    def for_metrics(self, metrics: Metrics) -> Head:
        """The head whose loss takes `y` in the form in which metrics compare it.

        Args:
            metrics: Metrics as `Model.compile` takes them. Most of Keras' (`AUC`, `Precision`, `F1Score`, ...) compare
                one-hot rows, those called sparse compare class numbers.

        Returns:
            This head, or one with the categorical loss in place of the sparse one, or the other way round.
        """
        forms = set(map(form_of_metric, flattened(metrics)))
        if self.kind != "multiclass" or forms >= {"numbers", "one_hot"} or self.label_smoothing or self.focal:
            return self
        if "one_hot" in forms:
            return dataclasses.replace(self, encoding="one_hot")
        return dataclasses.replace(self, encoding="numbers") if "numbers" in forms else self

    def for_model(self, model: keras.Model) -> Head:
        """The head whose metrics fit the shape of a model's numbers.

        Args:
            model: A built model, which need not be compiled.
        """
        shapes = [output.shape for output in outputs_of(model)]
        if self.kind not in NUMERIC_KINDS or len(shapes) != 1 or shapes[0] is None:
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
        found = outputs_of(model, outputs)
        if len(found) > 1:
            return HeadGroup.of_columns(self, len(found)).bind(model, outputs)
        return self._bind(found[0], only_loss(model.loss), compiled_metrics(model))

    def _bind(self, output: ModelOutput, loss: Loss, metrics: Metrics) -> Head:
        target = Target(self.kind, self.units, self.n_classes, self.shape, self.encoding, self.from_logits)
        return dataclasses.replace(self, **match(target, output, loss, metrics)._asdict())

    def check_reach(self, model: keras.Model, y: ArrayLike) -> None:
        """Refuses a model whose last layer cannot put out the numbers of a target, such as a sigmoid for ages.

        Args:
            model: A built model of one output.
            y: Target, as for `encode`.

        Raises:
            ModelMismatchError: The activation ends between numbers beyond which a good part of the target lies.
        """
        self._check_reach(outputs_of(model)[0].activation, y)

    def _check_reach(self, activation: str | None, y: ArrayLike) -> None:
        if self.kind in NUMERIC_KINDS and is_limited(activation) and np.size(y):
            check_reach(self.kind, self.units, activation, self._encoded_numbers(np.asarray(y)))

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
        if self.kind in NUMERIC_KINDS:
            return self._for_output(self._encoded_numbers(y))
        if self.kind == "multilabel":
            if not np.isin(y, (0, 1)).all():
                odd = y[~np.isin(y, (0, 1))][0].item()
                raise DataError(f"`y` holds {odd!r}, but must say for each label whether the row has it: 0 or 1.")
            return self._for_output(y.astype(floatx()))
        numbers = self.class_numbers(y)
        if self.kind == "ordinal":
            return self._for_output((numbers[:, None] > np.arange(self.units)).astype(floatx()))
        if self.encoding == "numbers":
            return numbers.astype("int32").reshape(len(y), *self.output_shape[:-1])
        if self.encoding == "one_hot":
            return self._for_output(np.eye(self.n_classes or 0, dtype=floatx())[numbers])
        return self._for_output(numbers.astype(floatx())[:, None])

    def check_encoded(self, y: ArrayLike) -> None:
        """Checks the targets of a data set, which go to the model as they are, against what the model takes.

        Args:
            y: Targets of a batch, shape `(n, ...)`.

        Raises:
            DataError: They have another shape; the message names both.
        """
        shape = tuple(np.shape(y))[1:]
        if self.encoding == "numbers" and self.kind not in NUMERIC_KINDS:
            wanted, what = self.output_shape[:-1] or (), "class numbers"
        else:
            wanted, what = self.output_shape or (self.units,), "one-hot rows" * (self.encoding == "one_hot") or "rows"
        # Keras itself removes a last axis of 1, or adds it.
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
        encoded: Array = to_floatx(values)
        if encoded.dtype != values.dtype and not self.scale:
            refuse_vanishing(values, encoded)
        return encoded

    def _for_output(self, rows: Array) -> Array:
        """Rows in the shape of the model's output; in another one Keras might compare every row with every other."""
        return rows.reshape(len(rows), *self.output_shape) if self.output_shape else rows

    def encode_weights(self, weights: Array) -> Array:
        """Weights of rows in the shape in which Keras computes losses.

        Where `y` has three axes, Keras has a loss for each step of a row, and would take the weights of rows for those
        of steps.

        Args:
            weights: Shape `(n,)`.

        Returns:
            Shape `(n,)`, or `(n, 1, ...)`.
        """
        return weights.reshape(len(weights), *(1,) * (len(self.output_shape) - 1))

    def _check_shape(self, y: Array) -> None:
        """Refuses a target whose shape is not the one that the head was made for."""
        if self.kind in NUMERIC_KINDS:
            columns = self.shape or (self.units,)
        elif self.kind == "multilabel" or self.one_hot:
            columns = (self.n_classes or 0,)
        else:
            columns = (1,)
        if y.shape[1:] != columns and not (columns == (1,) and y.ndim == 1):
            wanted = f" {', '.join(map(str, columns))}" if columns != (1,) else ""
            raise DataError(f"`y` has the shape {y.shape}, but (n,{wanted}) in the first fit.")

    def class_numbers(self, y: ArrayLike) -> Array:
        """The class number of each row of `y`, shape `(n,)`, integers.

        Raises:
            DataError: `y` holds a class that this head does not know.
        """
        y = np.asarray(y)
        self._check_shape(y)
        if self.one_hot:
            odd = np.flatnonzero(~(np.isin(y, (0, 1)).all(axis=1) & (np.sum(y, axis=1) == 1)))
            if len(odd):
                row = y[odd[0]].tolist()
                raise DataError(f"`y` holds one-hot rows, but row {odd[0]} is {row}: not a single 1 among 0s.")
            made: Array = np.argmax(y, axis=1)
            return made
        y = y.reshape(len(y))
        classes = self.classes if self.classes is not None else np.arange(0)
        unknown = sorted(set(np.unique(y).tolist()) - set(classes.tolist()), key=str)
        if unknown:
            raise DataError(
                f"`y` holds {unknown[0]!r}, which is not one of the {len(classes)} classes of the first fit: "
                f"{shortened(classes)}. With `partial_fit`, name them all in the first call: "
                "partial_fit(X, y, classes=[...])."
            )
        if self.kind == "ordinal":  # whose order need not be alphabetical
            order = np.argsort(classes)
            ranks: Array = order[np.searchsorted(classes, y, sorter=order)]
            return ranks
        return np.searchsorted(classes, y)

    def sample_weight(self, y: ArrayLike) -> Array | None:
        """Weights of rows, from the weights of their classes.

        Args:
            y: Target, as for `encode`.

        Returns:
            Shape `(n,)`; `None` if the classes have equal weights.
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
        if self.kind in NUMERIC_KINDS:
            values = raw.astype("float64")
            if self.scale:
                values = values * np.asarray(self.scale) + np.asarray(self.offset)
            values = values[:, 0] if self.flat else values.reshape(len(raw), *self.shape) if self.shape else values
            with np.errstate(over="ignore"):
                made = values.astype(self.dtype, copy=False)
            check_finite(made)  # a finite output may overflow in the unit and type of `y`
            return made
        self._check_probabilities(raw)
        if self.kind == "multilabel":
            return (raw > self._threshold).astype("int64")
        if self.units == 1:
            numbers = (raw[:, 0] > self._threshold).astype("int64")
        elif self.kind == "ordinal":  # the median: the row is above so many classes more likely than not
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
            ModelMismatchError: The output is not probabilities; the message says what to do.
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
            # Units that train apart may find the third step more probable than the second.
            above = np.minimum.accumulate(positive, axis=1)
            edges = np.hstack([np.ones((len(above), 1)), above, np.zeros((len(above), 1))])
            by_class: Array = edges[:, :-1] - edges[:, 1:]
            return by_class
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
            p = np.clip(raw, float(info.tiny), 1.0 - float(info.eps) / 4)
            independent = self.units == 1 or self.kind == "multilabel"
            raw = np.log(p) - np.log1p(-p) if independent else np.log(p)
        if self.n_classes == 2 and self.kind != "multilabel":
            return raw[:, 0] if self.units == 1 else raw[:, 1] - raw[:, 0]
        return raw

    @property
    def why_no_probabilities(self) -> str:
        """Why the output of the model is not a probability, and what would make it one."""
        what = "margins" if self.output == "margin" else "numbers, fitted to 0 and 1"
        ending = "softmax" if self.units > 1 and self.kind not in ("multilabel", "ordinal") else "sigmoid"
        return (
            f"The model puts out {what}, which are no probabilities: its last layer has no activation such as "
            f"{ending!r}, and its loss does not say that it takes logits. If it does, say head__from_logits=True; or "
            f"end the model with activation={ending!r}."
        )

    def _check_probabilities(self, raw: Array) -> None:
        """Refuses numbers below 0 or above 1 where the output was taken for probabilities."""
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
        check_finite(raw, ruling_out=self.units > 1 and self.output in ("logit", "margin"))
        return raw

    # -- to disk --------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this head again, as plain Python values."""
        config = dataclasses.asdict(self)
        if self.classes is not None:
            config["classes"] = {
                "values": _files.as_list(self.classes), "dtype": _files.name_of_dtype(self.classes)
            }  # fmt: skip
        return {"class": "Head", **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Head:
        """Makes a head from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        extra = [field.name for field in dataclasses.fields(cls) if field.name not in _CONFIG]
        fields = {**_CONFIG, **dict.fromkeys(extra, _files.is_text)}  # the fields of a subclass are names
        given = _files.checked_fields(config, fields, "A saved head")
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        given.pop("class")
        if given["classes"] is not None:
            given["classes"] = _files.array_from(given["classes"]["values"], given["classes"]["dtype"])
        made = cls(**given)
        made._check_sizes()
        return made

    def _check_sizes(self) -> None:
        """Refuses a head from a file whose numbers of classes and units do not fit each other."""
        number = self.n_classes
        if self.kind in NUMERIC_KINDS:
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
    """The heads of a network with several outputs, one `Head` for each.

    It has the same methods as a `Head`; where a head takes or returns an array, a group takes or returns one for each
    output.

    Args:
        heads: One head for each output, in the order of the model's outputs.
        names: Names of the targets, when `y` is a dict; predictions are then dicts too. Defaults to `None`: `y` has
            one column for each output.
    """

    heads: tuple[Head, ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def of_columns(cls, whole: Head, n_outputs: int) -> HeadGroup:
        """Splits a head of several columns into one head for each column.

        Raises:
            ModelMismatchError: The target does not have as many columns as the model has outputs.
        """
        columns = whole.units if whole.kind in (*NUMERIC_KINDS, "multilabel") else 1
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
        return "regression" if all(part.kind in NUMERIC_KINDS for part in self.heads) else "multioutput"

    @property
    def units(self) -> tuple[int, ...]:
        """Output units, one number for each output."""
        return tuple(part.units for part in self.heads)

    @property
    def classes(self) -> list[Array | None]:
        """Labels, one array for each output."""
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
        """A weight for the loss of each output; `None` for equal weights."""
        weights = [part.weight for part in self.heads]
        return None if set(weights) == {1.0} else self._by_output(weights)

    @property
    def n_classes(self) -> list[int | None]:
        """Number of classes of each output."""
        return [part.n_classes for part in self.heads]

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """The targets' names as layers can have them, `"net_weight"` for `"net weight"`; None where they have none."""
        return None if self.names is None else _names_of_layers(self.names)

    def output_layers(self) -> list[keras.layers.Layer]:
        """Makes the last layers, named after the targets; see `output_names`."""
        names = self.output_names or tuple(f"output_{number}" for number in range(len(self.heads)))
        return [part.output_layer(name) for part, name in zip(self.heads, names, strict=True)]

    def connect(self, x: keras.KerasTensor) -> list[keras.KerasTensor]:
        """Adds the last layers to a graph, side by side: from `(batch, features)` to a list of `(batch, units)`."""
        return [layer(x) for layer in self.output_layers()]

    def for_metrics(self, metrics: Metrics) -> HeadGroup:
        """The same for every head; see `Head.for_metrics`."""
        own = metrics_by_target(metrics, self.output_names, len(self.heads))
        return dataclasses.replace(
            self, heads=tuple(part.for_metrics(some) for part, some in zip(self.heads, own, strict=True))
        )

    def bind(self, model: keras.Model, outputs: Sequence[Shape] | None = None) -> HeadGroup:
        """Fits every head to its output of a compiled model; see `Head.bind`."""
        if self.names is not None:
            # `y` may name its targets in another order than the model, whose outputs come in its own.
            places = {name: place for place, name in enumerate(self.output_names or ())}
            ordered = list(getattr(model, "output_names", None) or [])
            if set(ordered) == set(places):
                heads = tuple(self.heads[places[name]] for name in ordered)
                names = tuple(self.names[places[name]] for name in ordered)
                self = dataclasses.replace(self, heads=heads, names=names)
        found = outputs_of(model, outputs)
        if len(found) != len(self.heads):
            raise ModelMismatchError(
                f"The model has {len(found)} output{'s' * (len(found) != 1)}, but `y` has "
                f"{len(self.heads)} targets. Give the model one output for each target."
            )
        outputs_by_name = self.output_names or list(getattr(model, "output_names", None) or [])
        losses, metrics = model.loss, metrics_by_target(compiled_metrics(model), outputs_by_name, len(self.heads))
        bound = []
        for number, (part, output) in enumerate(zip(self.heads, found, strict=True)):
            if isinstance(losses, Mapping):
                loss = losses.get(outputs_by_name[number]) if number < len(outputs_by_name) else None
            elif isinstance(losses, Sequence) and not isinstance(losses, str):
                loss = losses[number]
            else:
                loss = losses
            bound.append(part._bind(output, loss, metrics[number]))
        return dataclasses.replace(self, heads=tuple(bound))

    def check_reach(self, model: keras.Model, y: Targets) -> None:
        """Refuses a model with an output that cannot reach its target; see `Head.check_reach`."""
        for part, output, target in zip(self.heads, outputs_of(model), self.split(y), strict=True):
            part._check_reach(output.activation, target)

    def encode(self, y: Targets) -> list[Array] | dict[str, Array]:
        """Encodes every target; see `Head.encode`. Returns a list, or a dict where `y` is one."""
        parts = [part.encode(column) for part, column in zip(self.heads, self.split(y), strict=True)]
        encoded: list[Array] | dict[str, Array] = self._by_output(parts)
        return encoded

    def sample_weight(self, y: Targets) -> Array | None:
        """Weights of rows: the product of the weights of their classes in each target, or `None`."""
        found = [part.sample_weight(column) for part, column in zip(self.heads, self.split(y), strict=True)]
        weights = [one for one in found if one is not None]
        return np.prod(weights, axis=0) if weights else None

    def decode(self, raw: Outputs) -> Array | dict[str, Array]:
        """Decodes every output; columns are put side by side, shape `(n, outputs)`, dicts stay dicts."""
        decoded: Array | dict[str, Array] = self._join(self._each(Head.decode, raw))
        return decoded

    def probabilities(self, raw: Outputs) -> list[Array] | dict[str, Array]:
        """Probabilities of every output: a list, as in scikit-learn, or a dict without the targets of numbers."""
        made = self._by_target(
            self._each(lambda part, output: None if part.classes is None else part.probabilities(output), raw)
        )
        return {name: part for name, part in made.items() if part is not None} if isinstance(made, dict) else made

    def split(self, y: Targets) -> list[Array]:
        """One target for each output, from columns or a dict."""
        if self.names is not None:
            missing = [name for name in self.names if not isinstance(y, Mapping) or name not in y]
            if missing or not isinstance(y, Mapping):
                raise DataError(f"`y` must be a dict with the targets {list(self.names)}; missing: {missing}.")
            return [np.asarray(y[name]) for name in self.names]
        y = np.asarray(y)
        return [y[:, number] for number in range(len(self.heads))]

    def _each(self, make: Callable[[Head, Array], Any], raw: Outputs) -> list[Any]:
        made = []
        for number, (part, output) in enumerate(zip(self.heads, self._listed(raw), strict=True)):
            try:
                made.append(make(part, output))
            except DivergedError as error:
                which = f"column {number}" if self.names is None else repr(self.names[number])
                raise DivergedError(f"Of the target {which}: {error}") from None
        return made

    def _listed(self, raw: Outputs) -> list[Array]:
        if isinstance(raw, Mapping):
            return list(raw.values()) if self.output_names is None else [raw[name] for name in self.output_names]
        return list(raw)

    def _by_output(self, parts: list[Any]) -> Any:
        """As Keras takes them: by the names of the model's outputs."""
        return parts if self.output_names is None else dict(zip(self.output_names, parts, strict=True))

    def _by_target(self, parts: list[Any]) -> Any:
        return parts if self.names is None else dict(zip(self.names, parts, strict=True))

    def _join(self, parts: list[Array]) -> Any:
        return self._by_target(parts) if self.names is not None else np.column_stack(parts)

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
    y: Targets,
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
            order), `"regression"` or `"counts"`; for a dict of targets one kind for all, or a dict. Defaults to `None`:
            what it looks like, which is never ordinal or counts.
        task: `"classification"` or `"regression"`. Defaults to `None`: floats with a fraction are regression,
            anything else is classification.
        label_smoothing: Classes: the fraction of a label that is spread over all classes, so that the network is never
            taught to be certain. From 0 up to, not including, 1. Defaults to `0.0`.
        from_logits: Classes: whether the last layer has no activation and the loss applies it, which is exact where a
            probability rounds to 0 or 1. Probabilities are the same. For your own model with your own loss it says what
            the output means, which nothing else does. Defaults to `None`: no, where that can be seen.
        focal: Classes: gamma of the focal loss, by which rows that are right already count less: 2 for few rows of
            interest among many (Lin et al., "Focal Loss for Dense Object Detection", 2017). Defaults to `0.0`: the
            crossentropy.
        class_weight: Classes: weight by label, or `"balanced"`, scikit-learn's rule. `Head.sample_weight` turns it into
            weights of rows; an estimator does so by itself. Defaults to `None`.
        weight: Weight of the target's loss where there are several; for a dict of targets also a dict. Defaults to
            `1.0`.
        standardize: Numbers: train on `(y - mean) / standard deviation`, counts on `y / mean`, so that a network of
            default size and learning rate learns targets in any unit; predictions come back in the unit of `y`.
            Defaults to `False`.
        sample_weight: Weights for that mean and deviation, shape `(n,)`. Defaults to `None`: equal weights.

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


# Of the names of layers, Keras refuses a slash, and TensorFlow whatever else is not here.
_OF_NO_LAYER = re.compile(r"[^A-Za-z0-9_.-]+")


def _names_of_layers(names: Sequence[str]) -> tuple[str, ...]:
    """A name for the layer of each target, which does not depend on their order; those that can be one stay."""
    made: dict[str, str] = {}
    for name in sorted(names, key=lambda one: (_OF_NO_LAYER.search(one) is not None, one == "", one)):
        plain = _OF_NO_LAYER.sub("_", name) or "output"
        found, number = plain, 1
        while found in made.values():
            number += 1
            found = f"{plain}_{number}"
        made[name] = found
    return tuple(made[name] for name in names)


def _head_of_dict(y: Mapping[str, Any], options: dict[str, Any]) -> HeadGroup:
    for name in ("kind", "weight"):
        unknown = [key for key in options[name] if key not in y] if isinstance(options[name], Mapping) else []
        if unknown:
            raise ParameterError(f"`{name}` names {unknown[0]!r}, which is not a target; the targets are {list(y)}.")
    heads = []
    for name, target in y.items():
        own = dict(options)
        for option, default in (("kind", None), ("weight", 1.0)):
            if isinstance(own[option], Mapping):
                own[option] = own[option].get(name, default)
        number = is_numeric(np.asarray(target), own["kind"], own["task"])
        for option in ("label_smoothing", "from_logits", "focal", "class_weight") if number else ():
            own.pop(option)  # meant for the targets that are classes
        try:
            heads.append(head(target, **own))
        except DataError as error:
            hint = f" For numbers say kind={{{name!r}: 'regression'}}." if "Unknown label type" in str(error) else ""
            raise DataError(f"`y[{name!r}]`: {error}{hint}") from None
    return HeadGroup(tuple(part for part in heads if isinstance(part, Head)), tuple(y))


def _plain_head(
    y: Array, kind: Kind | None, task: str | None, standardize: bool, sample_weight: Array | None
) -> Head | HeadGroup:
    found = type_of_target(y)
    if kind is not None:
        check_kind(kind, found, y)
    if is_numeric(y, kind, task):
        return _numeric_head(y, kind or "regression", standardize, sample_weight)
    if found in ("continuous", "continuous-multioutput", "unknown"):
        raise DataError(
            f"Unknown label type: {found}. `y` has dtype {y.dtype} and begins {shortened(y.ravel())}, but a classifier "
            "needs labels: integers, strings or booleans. For numbers use KerasRegressor."
        )
    if found == "multilabel-indicator":
        if kind != "multilabel" and y.shape[1] > 1 and np.all(y.sum(axis=1) == 1):
            # one-hot rows, as keras.utils.to_categorical makes them
            return dataclasses.replace(Head.multiclass(y.shape[1]), one_hot=True, flat=False, encoding="one_hot")
        return Head.multilabel(y.shape[1])
    if found == "multiclass-multioutput":
        refuse_label_lists(y)
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


def _with_options(
    made: Head, y: Array, label_smoothing: float, from_logits: bool, focal: float, class_weight: Any, weight: float
) -> Head:
    check_loss_options(label_smoothing, from_logits, focal, weight)
    given: dict[str, Any] = {"label_smoothing": label_smoothing, "from_logits": from_logits, "focal": focal}
    given["class_weight"] = class_weight is not None
    lost = [name for name, value in given.items() if value] if made.kind in NUMERIC_KINDS else []
    if lost:
        raise ParameterError(f"`{lost[0]}` is an option for classes, but `y` is {with_article(made.kind)} target.")
    output: Output = made.output
    return dataclasses.replace(
        made,
        label_smoothing=float(label_smoothing),
        from_logits=None if from_logits is None else bool(from_logits),
        output="logit" if from_logits else output,
        # Keras' losses for several classes take one-hot rows wherever they do more than the crossentropy.
        encoding="one_hot" if made.kind == "multiclass" and (label_smoothing or focal) else made.encoding,
        focal=float(focal),
        class_weight=() if class_weight is None else _weights_of_classes(made, y, class_weight),
        weight=float(weight),
    )


def _weights_of_classes(
    made: Head, y: Array, class_weight: Mapping[Any, float] | Literal["balanced"]
) -> tuple[float, ...]:
    from sklearn.utils.class_weight import compute_class_weight

    if made.kind == "multilabel":
        raise ParameterError(
            "`class_weight` weighs rows by their class, but a row of a multilabel target has several labels."
        )
    classes, numbers = np.asarray(made.classes), made.class_numbers(y)
    if isinstance(class_weight, str) and class_weight == "balanced":
        found = compute_class_weight("balanced", classes=np.arange(len(classes)), y=numbers)
    else:
        found = weights_of_labels(class_weight, classes)
    return tuple(float(value) for value in found)


def _numeric_head(y: Array, kind: Kind, standardize: bool, sample_weight: Array | None) -> Head:
    columns = y.reshape(len(y), -1).astype("float64", copy=False)
    dtype = y.dtype.name if y.dtype.name in ("float16", "float32") else "float64"
    offset, scale = offset_and_scale(columns, kind, sample_weight) if standardize else ((), ())
    shape = y.shape[1:] if y.ndim > 2 else ()
    return Head(kind, columns.shape[1], flat=y.ndim == 1, shape=shape, offset=offset, scale=scale, dtype=dtype)
