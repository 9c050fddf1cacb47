"""Straight stacks of layers: for rows of features, images and series, and for rows that are to be compressed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kerastoolkit.builders._blocks import Blocks, finish, one_shape, series, whole_number, widths_of
from kerastoolkit.builders.heads import Head, HeadGroup
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["autoencoder", "cnn", "conv1d", "mlp", "rnn"]

Normalization = Literal["batch", "layer"] | None

_FLATTEN = "Flatten it first, X.reshape(len(X), -1), or use 'cnn' for images and 'conv1d' or 'rnn' for series."


def mlp(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (100,),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
    vocabulary_size: int | None = None,
    embedding_dim: int = 64,
) -> keras.Model:
    """Builds a multilayer perceptron.

    Each hidden layer is Dense, then normalization, activation and dropout, as far as they are asked for. For texts, the
    first layer gets the mean of the vectors of the tokens, whatever their order: "Bag of Tricks for Efficient Text
    Classification" (Joulin et al., 2016).

    Example:

    >>> mlp((30,), Head.binary(), hidden=(64, 32), dropout=0.2).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one row, `(features,)`.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of each hidden layer, or one number for one layer; `()` gives a linear model.
            Defaults to `(100,)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, between Dense and activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.
        vocabulary_size: Number of tokens, for rows `(steps,)` of token ids from 0; 0 is padding, which is skipped.
            Defaults to `None`: a row holds features.
        embedding_dim: Size of the vector that each token becomes. Defaults to `64`.

    Returns:
        An uncompiled model: input `(batch, features)`, output `(batch, head.units)`; for a `HeadGroup`, one output
        for each of its heads.

    Raises:
        ParameterError: An argument is out of range, or a row has more than one axis; the message says which.
    """
    import keras

    widths = widths_of(hidden)
    shape = one_shape(input_shape, "mlp", "rows of features", _FLATTEN, (1,))
    if vocabulary_size is None:
        inputs = x = keras.Input(shape)
    else:
        inputs, x = series("mlp", shape, vocabulary_size, embedding_dim, masked=True)
        x = keras.layers.GlobalAveragePooling1D()(x)
    return finish(inputs, Blocks(activation, dropout, normalization, l2).stack(x, widths), head, "mlp")


def cnn(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    filters: int | Sequence[int] = (32, 64),
    kernel_size: int = 3,
    hidden: int | Sequence[int] = (),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = "batch",
    l2: float = 0.0,
) -> keras.Model:
    """Builds a convolutional network for images of any size and number of channels.

    Each block is a convolution, normalization, activation and a pooling that halves both sides while they are longer
    than one pixel, then dropout. The mean over what is left of the image goes through the hidden layers to the head.
    With batch normalization it does not matter whether pixels go from 0 to 1 or to 255.

    Example:

    >>> cnn((28, 28, 1), Head.multiclass(10), filters=(16, 32)).output_shape
    (None, 10)

    Args:
        input_shape: Shape of one image, `(height, width, channels)`, or `(height, width)` for one channel; height
            and width may be `None`: any.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        filters: Channels of each convolution. Defaults to `(32, 64)`.
        kernel_size: Pixels of a convolution's window, in both directions. Defaults to `3`.
        hidden: Units of dense layers after the convolutions. Defaults to `()`: none.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction dropped after each block and hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, before each activation. Defaults to `"batch"`.
        l2: Factor of the L2 penalty on the weights of convolutions and hidden layers. Defaults to `0.0`.

    Returns:
        An uncompiled model: input `(batch, height, width[, channels])`, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or rows are not images; the message says which.
    """
    import keras

    shape = one_shape(
        input_shape, "cnn", "images, (height, width, channels)",
        "There is `mlp` for rows of features and `conv1d` for series; flattened images get their shape back by "
        "X.reshape(-1, height, width, channels).", (2, 3),
    )  # fmt: skip
    channels = widths_of(filters, "filters", "channels", at_least=1)
    blocks, inputs = Blocks(activation, dropout, normalization, l2), keras.Input(shape)
    if len(shape) == 2 and None in shape:
        raise ParameterError(f"Images of any size need a number of channels: {(*shape, 1)}, not {shape}.")
    x = keras.layers.Reshape((*shape, 1))(inputs) if len(shape) == 2 else inputs
    x = blocks.convolutions(x, channels, whole_number(kernel_size, "kernel_size"))
    x = blocks.stack(keras.layers.GlobalAveragePooling2D()(x), widths_of(hidden))
    return finish(inputs, x, head, "cnn")


def conv1d(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    filters: int | Sequence[int] = (32, 64),
    kernel_size: int = 5,
    hidden: int | Sequence[int] = (),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = "batch",
    l2: float = 0.0,
    vocabulary_size: int | None = None,
    embedding_dim: int = 64,
) -> keras.Model:
    """Builds a convolutional network for series: measurements over time, or token ids.

    Like `cnn`, in one dimension. The largest value of each channel goes to the head, wherever in the series it was
    found.

    Example:

    >>> conv1d((100, 3), Head.regression()).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one series, `(steps, channels)`, or `(steps,)` for one channel or for token ids.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        filters: Channels of each convolution. Defaults to `(32, 64)`.
        kernel_size: Steps of a convolution's window. Defaults to `5`.
        hidden: Units of dense layers after the convolutions. Defaults to `()`: none.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction dropped after each block and hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, before each activation. Defaults to `"batch"`.
        l2: Factor of the L2 penalty on the weights of convolutions and hidden layers. Defaults to `0.0`.
        vocabulary_size: Number of tokens, for series `(steps,)` of token ids from 0; 0 is padding. Defaults to `None`:
            a series holds measurements.
        embedding_dim: Size of the vector that each token becomes. Defaults to `64`.

    Returns:
        An uncompiled model: input `(batch, steps[, channels])`, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or rows are not series; the message says which.
    """
    import keras

    blocks = Blocks(activation, dropout, normalization, l2)
    channels = widths_of(filters, "filters", "channels", at_least=1)
    inputs, x = series("conv1d", input_shape, vocabulary_size, embedding_dim, masked=False)
    x = blocks.convolutions(x, channels, whole_number(kernel_size, "kernel_size"))
    x = blocks.stack(keras.layers.GlobalMaxPooling1D()(x), widths_of(hidden))
    return finish(inputs, x, head, "conv1d")


def rnn(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (64,),
    cell: Literal["lstm", "gru"] = "lstm",
    bidirectional: bool = False,
    activation: str = "tanh",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
    vocabulary_size: int | None = None,
    embedding_dim: int = 64,
) -> keras.Model:
    """Builds a recurrent network for series: measurements over time, or token ids.

    Each layer reads the series step by step and passes its own series on; only the end of the last one goes to the
    head.

    Example:

    >>> rnn((100, 3), Head.multiclass(5), hidden=(32, 16), cell="gru", bidirectional=True).output_shape
    (None, 5)

    Args:
        input_shape: Shape of one series, `(steps, channels)`, or `(steps,)` for one channel or for token ids.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of each recurrent layer, in each direction. Defaults to `(64,)`.
        cell: `"lstm"` or `"gru"`. Defaults to `"lstm"`.
        bidirectional: Whether each layer also reads the series from its end. Defaults to `False`.
        activation: Name of the recurrent layers' activation. Defaults to `"tanh"`.
        dropout: Fraction dropped after each layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, after each layer. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights from input to layer. Defaults to `0.0`.
        vocabulary_size: Number of tokens, for series `(steps,)` of token ids from 0; 0 is padding, which is skipped.
            Defaults to `None`: a series holds measurements.
        embedding_dim: Size of the vector that each token becomes. Defaults to `64`.

    Returns:
        An uncompiled model: input `(batch, steps[, channels])`, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or rows are not series; the message says which.
    """
    import keras

    if cell not in ("lstm", "gru"):
        raise ParameterError(f"`cell` must be 'lstm' or 'gru'; got {cell!r}.")
    if bidirectional not in (True, False):
        raise ParameterError(f"`bidirectional` must be True or False; got {bidirectional!r}.")
    blocks, widths = Blocks(activation, dropout, normalization, l2), widths_of(hidden, at_least=1)
    kind = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
    inputs, x = series("rnn", input_shape, vocabulary_size, embedding_dim, masked=True)
    for place, width in enumerate(widths):
        layer = kind(width, activation=activation, return_sequences=place < len(widths) - 1, **blocks.penalty())
        x = keras.layers.Bidirectional(layer)(x) if bidirectional else layer(x)
        x = blocks.drop(blocks.normalize(x))
    return finish(inputs, x, head, "rnn")


def autoencoder(
    input_shape: Sequence[int],
    n_components: int = 2,
    hidden: int | Sequence[int] = (64,),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
) -> keras.Model:
    """Builds a network that compresses rows into a few numbers, the layer `"code"`, and restores the rows from them.

    The decoder mirrors the encoder. `KerasTransformer` trains it, and gives you the two halves.

    Example:

    >>> autoencoder((64,), n_components=8, hidden=(32,)).get_layer("code").output.shape
    (None, 8)

    Args:
        input_shape: Shape of one row; images and series are flattened, and come out in their shape.
        n_components: Numbers that a row is compressed into. Defaults to `2`.
        hidden: Units of each layer before the code; the layers after it are the same in reverse. Defaults to `(64,)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, between Dense and activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.

    Returns:
        An uncompiled model: input and output `(batch, *input_shape)`.

    Raises:
        ParameterError: An argument is out of range; the message says which.
    """
    import keras

    widths, size = widths_of(hidden), whole_number(n_components, "n_components")
    shape = one_shape(input_shape, "autoencoder", "rows of one to three axes", "Flatten it.", (1, 2, 3))
    if None in shape:
        raise ParameterError(f"`autoencoder` needs rows of one known shape; got {shape}.")
    blocks, inputs = Blocks(activation, dropout, normalization, l2), keras.Input(shape)
    x = keras.layers.Flatten()(inputs) if len(shape) > 1 else inputs
    x = keras.layers.Dense(size, name="code")(blocks.stack(x, widths))
    x = keras.layers.Dense(math.prod(shape))(blocks.stack(x, reversed(widths)))
    return keras.Model(inputs, keras.layers.Reshape(shape)(x) if len(shape) > 1 else x, name="autoencoder")
