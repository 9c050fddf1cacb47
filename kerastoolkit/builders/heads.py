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
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kerastoolkit import _keras
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import DataError, ModelMismatchError, ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["Head", "HeadGroup", "head"]

Kind: TypeAlias = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "counts"]
Array: TypeAlias = NDArray[Any]

_ACTIVATIONS = {"multiclass": "softmax", "regression": None, "counts": "exponential"}  # the others: sigmoid
_NUMBERS = ("regression", "counts")


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
        output: What the raw output means: `"probability"`, `"logit"`, `"margin"` (hinge losses) or `"value"`.
            Defaults to `"value"`.
        flat: Whether `y` and predictions have one axis. Defaults to `True`.
        offset: Numbers: subtracted from `y` before training and added to the output, one number a target.
        scale: Numbers: `y` is divided by it, and the output multiplied, one number a target.
        dtype: Numbers: dtype of the predictions. Defaults to `"float32"`.
        label_smoothing: Classes: see `head`. Defaults to `0.0`.
        from_logits: Classes: see `head`. Defaults to `False`.
        focal: Classes: see `head`. Defaults to `0.0`.
        class_weight: Classes: weight of each class, in the order of `classes`. Defaults to `()`: all alike.
        weight: Of this target's loss, where a model has several. Defaults to `1.0`.
    """

    kind: Kind
    units: int
    classes: Array | None = None
    one_hot: bool = False
    encoding: Literal["numbers", "one_hot", "columns"] = "columns"
    output: Literal["probability", "logit", "margin", "value"] = "value"
    flat: bool = True
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    dtype: str = "float32"
    label_smoothing: float = 0.0
    from_logits: bool = False
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
        if not options:
            return "sparse_categorical_crossentropy" if self.kind == "multiclass" else "binary_crossentropy"
        return self._loss_with(options)

    def _loss_with(self, options: dict[str, Any]) -> Any:
        import keras

        if self.kind != "multiclass":
            kind = keras.losses.BinaryFocalCrossentropy if self.focal else keras.losses.BinaryCrossentropy
        elif self.focal:
            # Keras' alpha is one factor for all classes: 1 leaves a focal loss of gamma 0 what the crossentropy is.
            kind, options["alpha"] = keras.losses.CategoricalFocalCrossentropy, 1.0
        elif self.label_smoothing:  # which Keras' sparse loss does not have
            kind = keras.losses.CategoricalCrossentropy
        else:
            kind = keras.losses.SparseCategoricalCrossentropy
        return kind(**options)

    @property
    def metrics(self) -> list[Any]:
        """The Keras metrics that a user expects beside the loss: names, or metrics where a name would not do."""
        if self.kind in _NUMBERS:
            return ["r2_score"]
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

    def bind(self, model: keras.Model) -> Head | HeadGroup:
        """Fits this head to a compiled model.

        Args:
            model: A compiled and built model.

        Returns:
            A head with the encoding and the meaning of raw output that `model` needs; a `HeadGroup` where the model
            has one output for each target.

        Raises:
            ModelMismatchError: The units, activation or loss of the model cannot learn this target. The message
                names the units found and wanted.
        """
        outputs = _outputs(model)
        if len(outputs) > 1:
            return HeadGroup.of_columns(self, len(outputs)).bind(model)
        return self._bind(outputs[0], model.loss, _last_layer(model))

    def _bind(self, units: int | None, loss: Any, last_layer: Any) -> Head:
        loss = _only(loss)
        if units is None:  # a subclassed model that was not built: Keras itself will speak
            units = self.units
        activation = getattr(getattr(last_layer, "activation", None), "__name__", None)
        name, from_logits = _loss_name(loss), _from_logits(loss)
        if self.kind in _NUMBERS:
            return self._bind_numbers(units, activation, name)
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
        if "hinge" in name and "categorical" not in name:
            output: Literal["probability", "logit", "margin"] = "margin"
        elif from_logits:
            output = "logit"
        else:
            output = "probability"
        if output == "probability" and activation == "linear" and name.endswith("crossentropy"):
            raise ModelMismatchError(
                f"The last layer has no activation, but the loss {name!r} expects probabilities. "
                f"Give the layer activation={'softmax' if units > 1 and not separate else 'sigmoid'!r}, "
                "or the loss from_logits=True."
            )
        if output == "logit" and activation in ("sigmoid", "softmax"):
            raise ModelMismatchError(
                f"The loss {name!r} has from_logits=True, but the last layer already applies a {activation}. "
                "Remove one of the two."
            )
        if units == 1 or separate:
            encoding: Literal["numbers", "one_hot", "columns"] = "columns"
        else:
            encoding = "one_hot" if _wants_one_hot(loss, name) else "numbers"
        return dataclasses.replace(self, units=units, encoding=encoding, output=output)

    def _bind_numbers(self, units: int, activation: str | None, loss: str) -> Head:
        if units != self.units:
            raise ModelMismatchError(
                f"The model ends in {units} unit{'s' * (units != 1)}, but `y` has {self.units} "
                f"target{'s' * (self.units != 1)}. End the model with Dense({self.units})."
            )
        if activation == "softmax" and units == 1:
            raise ModelMismatchError(
                "The last layer has one unit with a softmax, which is 1.0 for every row. Use Dense(1)."
            )
        if self.kind == "counts" and loss == "poisson" and activation in ("linear", "tanh"):
            raise ModelMismatchError(
                f"The loss 'poisson' takes the logarithm of the output, which {activation} lets fall below zero. "
                f"End the model with Dense({units}, activation='exponential')."
            )
        return self

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
        if self.kind in _NUMBERS:
            values = y.reshape(len(y), -1).astype("float64", copy=False)
            if self.kind == "counts" and len(values) and values.min() < 0:
                raise DataError(f"`y` holds {values.min()}, but counts are 0, 1, 2, ... and never negative.")
            if self.scale:
                values = (values - np.asarray(self.offset)) / np.asarray(self.scale)
            return values.astype(_floatx(), copy=False)
        if self.kind == "multilabel":
            return y.astype(_floatx())
        numbers = self.class_numbers(y)
        if self.kind == "ordinal":
            return (numbers[:, None] > np.arange(self.units)).astype(_floatx())
        if self.encoding == "numbers":
            return numbers.astype("int32")
        if self.encoding == "one_hot":
            return np.eye(self.n_classes or 0, dtype=_floatx())[numbers]
        return numbers.astype(_floatx())[:, None]

    def class_numbers(self, y: ArrayLike) -> Array:
        """Numbers of the classes in `y`, shape `(n,)`, integers.

        Raises:
            DataError: `y` holds a class unknown to this head.
        """
        y = np.asarray(y)
        if self.one_hot:
            made: Array = np.argmax(y, axis=1)
            return made
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
        """
        raw = self._columns(raw)
        if self.kind in _NUMBERS:
            values = raw.astype("float64")
            if self.scale:
                values = values * np.asarray(self.scale) + np.asarray(self.offset)
            return (values[:, 0] if self.flat else values).astype(self.dtype, copy=False)
        if self.kind == "multilabel":
            return (raw > self._threshold).astype("int64")
        if self.units == 1:
            numbers = (raw[:, 0] > self._threshold).astype("int64")
        elif self.kind == "ordinal":  # the median: above so many classes it is more likely than not
            numbers = np.sum(np.minimum.accumulate(raw, axis=1) > self._threshold, axis=1)
        else:
            numbers = np.argmax(raw, axis=1)
        if self.one_hot:
            made: Array = np.eye(self.n_classes or 0, dtype="int64")[numbers]
            return made
        classes: Array = self.classes if self.classes is not None else np.arange(self.units)
        labels: Array = classes[numbers]
        return labels

    def probabilities(self, raw: Array) -> Array:
        """Turns raw output into probabilities, float64.

        Args:
            raw: Output of the model, shape `(n, units)`.

        Returns:
            Shape `(n, n_classes)`, each row adding up to 1; for `"multilabel"` the probability of each label.
        """
        from scipy.special import expit, softmax

        raw = self._columns(raw).astype("float64")
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
        """
        if self.kind == "ordinal" and self.units > 1:
            return np.log(np.maximum(self.probabilities(raw), float(np.finfo("float32").tiny)))
        raw = self._columns(raw).astype("float64")
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
    def _threshold(self) -> float:
        return 0.5 if self.output == "probability" else 0.0

    def _columns(self, raw: Array) -> Array:
        raw = np.asarray(raw)
        return raw.reshape(len(raw), self.units)

    # -- to disk --------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this head again, as plain Python values."""
        config = dataclasses.asdict(self)
        if self.classes is not None:
            config["classes"] = {"values": self.classes.tolist(), "dtype": _dtype_name(self.classes)}
        return {"class": "Head", **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Head:
        """Makes a head from what `get_config` returned."""
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        config.pop("class")
        if config["classes"] is not None:
            config["classes"] = np.array(config["classes"]["values"], dtype=config["classes"]["dtype"])
        return cls(**config)


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

    def bind(self, model: keras.Model) -> HeadGroup:
        """Fits every head to its output of a compiled model; see `Head.bind`."""
        outputs = _outputs(model)
        if len(outputs) != len(self.heads):
            raise ModelMismatchError(
                f"The model has {len(outputs)} output{'s' * (len(outputs) != 1)}, but `y` has "
                f"{len(self.heads)} targets. Give the model one output for each target."
            )
        names = self.names or list(getattr(model, "output_names", None) or [])
        losses = model.loss
        bound = []
        for number, (part, units) in enumerate(zip(self.heads, outputs, strict=True)):
            if isinstance(losses, Mapping):
                loss = losses.get(names[number]) if number < len(names) else None
            elif isinstance(losses, Sequence) and not isinstance(losses, str):
                loss = losses[number]
            else:
                loss = losses
            bound.append(part._bind(units, loss, None))
        return dataclasses.replace(self, heads=tuple(bound))

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
        return self._join([part.decode(output) for part, output in zip(self.heads, self._listed(raw), strict=True)])

    def probabilities(self, raw: Any) -> Any:
        """Probabilities of every output: a list of arrays, as scikit-learn returns them, or a dict without numbers."""
        parts = zip(self.heads, self._listed(raw), strict=True)
        made = self._by_output([None if part.classes is None else part.probabilities(output) for part, output in parts])
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
        """Makes a group from what `get_config` returned."""
        names = config["names"]
        return cls(tuple(map(Head.from_config, config["heads"])), tuple(names) if names is not None else None)


def head(
    y: Any,
    *,
    kind: Kind | Mapping[str, Kind] | None = None,
    task: Literal["classification", "regression"] | None = None,
    label_smoothing: float = 0.0,
    from_logits: bool = False,
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
            probability rounds to 0 or 1. Probabilities are the same. Defaults to `False`.
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
            return dataclasses.replace(Head.multiclass(y.shape[1]), one_hot=True, flat=False)
        return Head.multilabel(y.shape[1])
    if found == "multiclass-multioutput":
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


def _type_of_target(y: Array) -> str:
    from sklearn.utils.multiclass import type_of_target

    if y.ndim == 1 and y.dtype.kind in "bi" and len(y):
        n_classes = len(np.unique(y))
        if n_classes <= len(y) / 4:  # of more, scikit-learn may have something to say
            return "binary" if n_classes <= 2 else "multiclass"
    return str(type_of_target(y, input_name="y"))


def _is_of_numbers(y: Array, kind: str | None, task: str | None) -> bool:
    if kind is not None or task is not None:
        return kind in _NUMBERS or (kind is None and task == "regression")
    return _type_of_target(y).startswith("continuous")


def _check_kind(kind: str, found: str, y: Array) -> None:
    """Refuses a kind that `y` cannot be."""
    kinds = get_args(Kind)
    if kind not in kinds:
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
    given: dict[str, Any] = {"label_smoothing": label_smoothing, "from_logits": from_logits, "focal": focal}
    given["class_weight"] = class_weight
    lost = [name for name, value in given.items() if value] if made.kind in _NUMBERS else []
    if lost:
        raise ParameterError(f"`{lost[0]}` is an option for classes, but `y` is {_article(made.kind)} target.")
    if not 0 <= label_smoothing < 1:
        raise ParameterError(
            f"`label_smoothing` must be a fraction from 0 up to, not including, 1; got {label_smoothing!r}."
        )
    for name, value in (("focal", focal), ("weight", weight)):
        if value < 0:
            raise ParameterError(f"`{name}` must not be negative; got {value!r}.")
    output: Literal["logit", "probability", "value"] = made.output  # type: ignore[assignment]
    return dataclasses.replace(
        made,
        label_smoothing=float(label_smoothing),
        from_logits=bool(from_logits),
        output="logit" if from_logits else output,
        # What Keras' losses want of several classes is one-hot rows, wherever they do more than the crossentropy.
        encoding="one_hot" if made.kind == "multiclass" and (label_smoothing or focal) else made.encoding,
        focal=float(focal),
        class_weight=() if class_weight is None else _weights_of_classes(made, y, class_weight),
        weight=float(weight),
    )


def _weights_of_classes(made: Head, y: Array, class_weight: Any) -> tuple[float, ...]:
    from sklearn.utils.class_weight import compute_class_weight

    if made.kind == "multilabel":
        raise ParameterError("`class_weight` weighs rows by their class, but a row of a multilabel target has several.")
    classes = np.asarray(made.classes)
    if isinstance(class_weight, Mapping):
        unknown = [label for label in class_weight if label not in classes.tolist()]
        if unknown:
            raise ParameterError(f"`class_weight` has weights for {unknown}; the classes are {classes.tolist()}.")
    elif class_weight != "balanced":
        raise ParameterError(
            f"`class_weight` must be a dict of weights by label, 'balanced' or None; got {class_weight!r}."
        )
    numbers = made.class_numbers(y)
    weight = class_weight
    if isinstance(class_weight, Mapping):
        weight = {number: class_weight.get(label, 1.0) for number, label in enumerate(classes.tolist())}
    found = compute_class_weight(weight, classes=np.arange(len(classes)), y=numbers)
    return tuple(float(value) for value in found)


def _numbers_head(y: Array, kind: Kind, standardize: bool, sample_weight: Array | None) -> Head:
    columns = y.reshape(len(y), -1).astype("float64", copy=False)
    dtype = y.dtype.name if y.dtype.name in ("float16", "float32") else "float64"
    result = Head(kind, columns.shape[1], flat=y.ndim == 1, dtype=dtype)
    if not standardize:
        return result
    mean = np.average(columns, axis=0, weights=sample_weight)
    if kind == "counts":
        return dataclasses.replace(
            result, offset=(0.0,) * len(mean), scale=tuple(np.where(mean > 0, mean, 1.0).tolist())
        )
    deviation = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=sample_weight))
    deviation = np.where(deviation > 0, deviation, 1.0)
    return dataclasses.replace(result, offset=tuple(mean.tolist()), scale=tuple(deviation.tolist()))


# -- looking at a model ---------------------------------------------------------------------------------------------


def _outputs(model: keras.Model) -> list[int | None]:
    """Units of every output; `[None]` for a subclassed model that tells nothing yet."""
    import keras

    try:
        shapes = [tuple(output.shape) for output in keras.tree.flatten(model.outputs)]
    except (AttributeError, ValueError):
        return [None]
    return [int(np.prod(shape[1:])) if None not in shape[1:] else None for shape in shapes]


def _last_layer(model: keras.Model) -> Any:
    """The last layer when it is plainly the one that makes the output, else None."""
    import keras

    layer = model.layers[-1] if getattr(model, "layers", None) else None
    return layer if isinstance(layer, (keras.layers.Dense, keras.layers.Activation, keras.layers.Softmax)) else None


def _only(loss: Any) -> Any:
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        return loss[0]
    return loss


def _keras_loss(loss: Any) -> Any:
    """The Keras loss that a name or function stands for; what is not Keras' own comes back as it is."""
    import keras

    if isinstance(loss, str):
        try:
            return keras.losses.get(loss)
        except ValueError:
            return loss
    return loss


def _loss_name(loss: Any) -> str:
    loss = _keras_loss(loss)
    name = str(getattr(loss, "__name__", type(loss).__name__))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _from_logits(loss: Any) -> bool:
    keywords = _keras.keywords_of(loss)
    return bool(keywords.get("from_logits", getattr(loss, "from_logits", False)))


def _wants_one_hot(loss: Any, name: str) -> bool:
    """Keras' own losses take one-hot rows unless their name says sparse; a user's own loss gets class numbers."""
    module = str(getattr(_keras_loss(loss), "__module__", "") or type(loss).__module__)
    return module.startswith("keras.") and not name.startswith("sparse")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _floatx() -> str:
    import keras

    return str(keras.config.floatx())


def _dtype_name(values: Array) -> str:
    return "object" if values.dtype == object else values.dtype.str


def _short(values: Array, most: int = 10) -> str:
    shown = ", ".join(repr(value) for value in values[:most].tolist())
    return f"[{shown}{', ...' if len(values) > most else ''}]"
