"""What all builders share: arguments of the same names, their checks, and the layers made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from kerastoolkit._values import fraction_wanted, is_number, number_wanted, shown
from kerastoolkit._words import did_you_mean
from kerastoolkit.builders.heads import Head, HeadGroup
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

# The shape of a row, or of each of several inputs by name.
Shapes: TypeAlias = Sequence[int] | Mapping[str, Sequence[int]]
Inputs: TypeAlias = "keras.KerasTensor | Mapping[str, keras.KerasTensor]"


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Makes hidden layers, each with the normalization, activation, dropout and penalty that were asked for.

    Args:
        activation: Name of the activation of the hidden layers.
        dropout: Fraction of units dropped.
        normalization: `"batch"`, `"layer"` or None.
        l2: Factor of the L2 penalty.
        inputs: Names of the inputs, which no layer may have. Defaults to none.

    Raises:
        ParameterError: An argument is out of range, or Keras does not know the activation.
    """

    activation: str | None
    dropout: float
    normalization: str | None
    l2: float
    inputs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        import keras

        problem = fraction_wanted("dropout", self.dropout) or number_wanted("l2", self.l2)
        if problem is not None:
            raise ParameterError(problem)
        known = self.normalization is None or isinstance(self.normalization, str)
        if not known or self.normalization not in (None, "batch", "layer"):
            raise ParameterError(f"`normalization` must be 'batch', 'layer' or None; got {shown(self.normalization)}.")
        try:
            keras.activations.get(self.activation)
        except (ValueError, TypeError):
            meant = did_you_mean(self.activation, dir(keras.activations))
            raise ParameterError(f"`activation` is {self.activation!r}, which Keras does not know.{meant}") from None

    def dense(self, x: keras.KerasTensor, width: int) -> keras.KerasTensor:
        """Dense, normalization, activation, dropout: `(batch, features)` to `(batch, width)`."""
        import keras

        layer = apart(keras.layers.Dense(width, **self.penalty()), self.inputs)
        return self.drop(self.activate(self.normalize(layer(x))))

    def stack(self, x: keras.KerasTensor, widths: Iterable[int]) -> keras.KerasTensor:
        """One `dense` after the other."""
        for width in widths:
            x = self.dense(x, width)
        return x

    def convolutions(self, x: keras.KerasTensor, filters: Sequence[int], kernel_size: int) -> keras.KerasTensor:
        """Convolutions in one or two dimensions, depending on the rank of `x`; each halves its sides while it can."""
        import keras

        two = len(x.shape) == 4
        convolution = keras.layers.Conv2D if two else keras.layers.Conv1D
        pooling = keras.layers.MaxPooling2D if two else keras.layers.MaxPooling1D
        for number in filters:
            x = apart(convolution(number, kernel_size, padding="same", **self.penalty()), self.inputs)(x)
            x = self.activate(self.normalize(x))
            if all(size is None or size > 1 for size in x.shape[1:-1]):
                x = apart(pooling(2), self.inputs)(x)
            x = self.drop(x)
        return x

    def normalize(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Normalization, if there is one."""
        import keras

        if self.normalization is None:
            return x
        kind = {"batch": keras.layers.BatchNormalization, "layer": keras.layers.LayerNormalization}[self.normalization]
        return apart(kind(), self.inputs)(x)

    def activate(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Activation."""
        import keras

        return apart(keras.layers.Activation(self.activation), self.inputs)(x)

    def drop(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Dropout, if there is one."""
        import keras

        return apart(keras.layers.Dropout(float(self.dropout)), self.inputs)(x) if self.dropout else x

    def penalty(self) -> dict[str, Any]:
        """The argument of a layer that sets its penalty, with a new regularizer each time."""
        import keras

        return {"kernel_regularizer": keras.regularizers.L2(float(self.l2))} if self.l2 else {}


def finish(inputs: Inputs, x: keras.KerasTensor, head: Head | HeadGroup, name: str) -> keras.Model:
    """The model from `inputs` to what `head` makes of `x`, shape `(batch, features)`."""
    import keras

    head = check_head(head)
    if isinstance(head, Head) and isinstance(inputs, Mapping):
        return keras.Model(inputs, apart(head.output_layer(), inputs)(x), name=name)
    return keras.Model(inputs, head.connect(x), name=name)


def apart(layer: keras.layers.Layer, inputs: Collection[str]) -> keras.layers.Layer:
    """A layer under a name that no input has, as Keras requires: a column may be called `dropout`."""
    while layer.name in inputs:
        layer.name += "_"
    return layer


def side_by_side(parts: list[keras.KerasTensor], inputs: Collection[str]) -> keras.KerasTensor:
    """Several tensors as one, along their last axis."""
    import keras

    return parts[0] if len(parts) == 1 else apart(keras.layers.Concatenate(), inputs)(parts)


def check_head(head: object) -> Head | HeadGroup:
    """Refuses what is not a head."""
    if isinstance(head, (Head, HeadGroup)):
        return head
    raise ParameterError(
        f"`head` must be a Head, from head(y) or Head.binary(), Head.multiclass(n), ...; got {head!r}."
    )


def widths_of(value: int | Sequence[int], name: str = "hidden", what: str = "units", at_least: int = 0) -> list[int]:
    """Sizes of layers from one number or several.

    Raises:
        ParameterError: They are not positive whole numbers, or there are fewer of them than `at_least`.
    """
    several = isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping))
    several = several and getattr(value, "ndim", 1) > 0
    widths: list[Any] = list(value) if several else [value]  # type: ignore[arg-type]
    good = [is_number(width) and int(width) == width and width >= 1 for width in widths]
    if not all(good) or len(widths) < at_least:
        raise ParameterError(
            f"`{name}` must be a whole number of {what} or a sequence of them, such as (64, 32); got {shown(value)}."
        )
    return [int(width) for width in widths]


def whole_number(value: Any, name: str, at_least: int = 1) -> int:
    """The value as an int.

    Raises:
        ParameterError: It is not one, or is too small.
    """
    if not is_number(value) or int(value) != value or value < at_least:
        raise ParameterError(f"`{name}` must be a whole number of at least {at_least}; got {shown(value)}.")
    return int(value)


def one_shape(input_shape: Shapes, builder: str, takes: str, advice: str, ranks: tuple[int, ...]) -> tuple[Any, ...]:
    """The shape of a row, if it has one of the ranks that a builder takes.

    Args:
        input_shape: What the builder was given.
        builder: Its name, for messages.
        takes: What its rows are, for messages.
        advice: What to do about another rank, for messages.
        ranks: Numbers of axes that a row may have.

    Raises:
        ParameterError: There are several inputs, or the shape has another rank.
    """
    if isinstance(input_shape, Mapping) or any(isinstance(part, (Sequence, Mapping)) for part in input_shape):
        raise ParameterError(
            f"`{builder}` takes one input, but there are {len(input_shape)}: {input_shape}. For several inputs, use "
            "`multi_input`."
        )
    shape = tuple(input_shape)
    if len(shape) not in ranks:
        raise ParameterError(f"`{builder}` takes {takes}, but each row here has the shape {shape}. {advice}")
    return shape


def series(
    builder: str, input_shape: Shapes, vocabulary_size: int | None, embedding_dim: int, *, masked: bool
) -> tuple[Any, Any]:
    """The input of a builder for series, and the series itself, `(batch, steps, channels)`.

    Args:
        builder: Its name, for messages.
        input_shape: `(steps, channels)` or `(steps,)`.
        vocabulary_size: Number of tokens, None for measurements.
        embedding_dim: Size of the vector that each token becomes.
        masked: Whether the layers after skip token 0, which is padding.
    """
    import keras

    if vocabulary_size is None:
        advice = "There is `mlp` for rows of features and `cnn` for images."
        shape = one_shape(input_shape, builder, "series, (steps, channels)", advice, (1, 2))
        inputs = keras.Input(shape)
        return inputs, keras.layers.Reshape((-1, 1))(inputs) if len(shape) == 1 else inputs
    shape = one_shape(input_shape, builder, "series of token ids, (steps,)", "Leave out `vocabulary_size`.", (1,))
    size, width = whole_number(vocabulary_size, "vocabulary_size", 2), whole_number(embedding_dim, "embedding_dim")
    inputs = keras.Input(shape, dtype="int32")
    return inputs, keras.layers.Embedding(size, width, mask_zero=masked)(inputs)
