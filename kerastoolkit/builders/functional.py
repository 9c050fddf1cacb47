"""Graphs of layers: shortcuts, several inputs, several outputs, columns of a table, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit.builders._blocks import (
    Blocks,
    Shapes,
    apart,
    check_head,
    finish,
    one_shape,
    series,
    side_by_side,
    whole_number,
    widths_of,
)
from kerastoolkit.builders.heads import Head, HeadGroup
from kerastoolkit.builders.sequential import Normalization
from kerastoolkit.data.columns import CategoryColumn, TableEncoder
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = [
    "multi_input",
    "multi_output",
    "residual_mlp",
    "tabular",
    "transformer_encoder",
    "wide_and_deep",
]

_FLATTEN = "Flatten it first, X.reshape(len(X), -1), or use 'cnn' for images and 'conv1d' or 'rnn' for series."


def residual_mlp(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (128, 128),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = "batch",
    l2: float = 0.0,
) -> keras.Model:
    """Builds a residual network for rows of features.

    Each block is normalization, Dense, activation, dropout, Dense, and its output is added to its input, so that deep
    networks train as easily as shallow ones. After "Revisiting Deep Learning Models for Tabular Data" (Gorishniy et
    al., 2021), where it is called ResNet.

    Example:

    >>> residual_mlp((30,), Head.binary(), hidden=(64, 64, 64)).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one row, `(features,)`.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of each block; where the number changes, the shortcut gets a layer of its own. Defaults to
            `(128, 128)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped in each block while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, at the start of each block and before the head. Defaults to
            `"batch"`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.

    Returns:
        An uncompiled model: input `(batch, features)`, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or a row has more than one axis; the message says which.
    """
    import keras

    widths = widths_of(hidden, at_least=1)
    blocks = Blocks(activation, dropout, normalization, l2)
    inputs = keras.Input(one_shape(input_shape, "residual_mlp", "rows of features", _FLATTEN, (1,)))
    x = keras.layers.Dense(widths[0], **blocks.penalty())(inputs)
    for width in widths:
        inner = keras.layers.Dense(width, **blocks.penalty())(blocks.normalize(x))
        inner = keras.layers.Dense(width, **blocks.penalty())(blocks.drop(blocks.activate(inner)))
        shortcut = x if x.shape[-1] == width else keras.layers.Dense(width, use_bias=False, **blocks.penalty())(x)
        x = keras.layers.Add()([shortcut, inner])
    return finish(inputs, blocks.activate(blocks.normalize(x)), head, "residual_mlp")


def wide_and_deep(
    input_shape: Shapes,
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (100, 50),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
) -> keras.Model:
    """Builds a linear and a deep model whose outputs are added.

    The wide part memorizes (this feature means that), the deep part generalizes. The head gets the features and the
    last hidden layer side by side, so that it is the sum of a linear model of each. After "Wide & Deep Learning for
    Recommender Systems" (Cheng et al., 2016).

    Example:

    >>> wide_and_deep((30,), Head.regression(), hidden=(32,)).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one row, `(features,)`; or a dict with the shapes of `"wide"` and `"deep"`, where the
            two parts get different features: X is then a dict of these two arrays.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of each layer of the deep part. Defaults to `(100, 50)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, between Dense and activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.

    Returns:
        An uncompiled model: input `(batch, features)` or a dict of two such, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or the inputs have other names or shapes; the message says which.
    """
    import keras

    blocks, widths = Blocks(activation, dropout, normalization, l2), widths_of(hidden, at_least=1)
    if isinstance(input_shape, Mapping):
        if set(input_shape) != {"wide", "deep"}:
            raise ParameterError(
                f"`wide_and_deep` takes one array, or a dict of the inputs 'wide' and 'deep'; got {list(input_shape)}."
            )
        shapes = {
            name: one_shape(shape, "wide_and_deep", "rows of features", _FLATTEN, (1,))
            for name, shape in input_shape.items()
        }
        inputs: Any = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
        wide, deep = inputs["wide"], inputs["deep"]
    else:
        shape = one_shape(input_shape, "wide_and_deep", "rows of features", _FLATTEN, (1,))
        inputs = wide = deep = keras.Input(shape)
    x = keras.layers.Concatenate()([wide, blocks.stack(deep, widths)])
    return finish(inputs, x, head, "wide_and_deep")


def tabular(
    columns: TableEncoder,
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (128, 64),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
    embedding_dropout: float = 0.0,
) -> keras.Model:
    """Builds a network for a table of numbers and categories, with one input for each column.

    Each category becomes a vector of `min(600, round(1.6 n**0.56))` numbers for `n` categories, which is learned with
    the rest (Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016; the size is fastai's). Numbers are
    standardized to mean 0 and deviation 1 inside the model. Missing and unseen categories have vectors of their own.

    `KerasClassifier("tabular")` takes tables as they are: it learns the columns from the training rows.

    Example:

    >>> import pandas as pd
    >>> from kerastoolkit.data import learn_table
    >>> table = pd.DataFrame({"age": [30.0, 41.0, 22.0], "town": ["Ulm", "Ulm", "Bonn"]})
    >>> columns = learn_table(table)
    >>> tabular(columns, Head.binary()).predict(columns.encode(table), verbose=0).shape
    (3, 1)

    Args:
        columns: What the columns are, from `data.learn_table`.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of each hidden layer. Defaults to `(128, 64)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, between Dense and activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.
        embedding_dropout: Fraction of the numbers in the vectors of categories dropped while training. Defaults to
            `0.0`.

    Returns:
        An uncompiled model: inputs by name as `columns.encode` makes them, `(batch, 1)` each, output
        `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range; the message says which.
    """
    import keras

    if not isinstance(columns, TableEncoder) or not columns:
        raise ParameterError(
            f"`columns` must be what kerastoolkit.data.learn_table(table) returns; got {columns!r}. "
            "KerasClassifier('tabular') learns them from the table that it is fitted on."
        )
    keys = frozenset(columns) | {f"{key}_missing" for key in columns}
    blocks, widths = Blocks(activation, dropout, normalization, l2, keys), widths_of(hidden)
    inputs: dict[str, Any] = {}
    embedded, numbers, flags, means, variances = [], [], [], [], []
    for key, column in columns.items():
        if isinstance(column, CategoryColumn):
            inputs[key] = keras.Input((1,), name=key, dtype="int32")
            size = min(600, round(1.6 * column.n_places**0.56))
            layer = apart(keras.layers.Embedding(column.n_places, size, name=f"embedding_{key}"), keys)
            embedded.append(apart(keras.layers.Flatten(), keys)(layer(inputs[key])))
            continue
        inputs[key] = keras.Input((1,), name=key)
        numbers.append(inputs[key])
        means.append(column.mean)
        variances.append(column.deviation**2)
        if column.missing:
            inputs[f"{key}_missing"] = keras.Input((1,), name=f"{key}_missing")
            flags.append(inputs[f"{key}_missing"])
    parts = []
    if embedded:
        parts.append(Blocks(activation, embedding_dropout, None, 0.0, keys).drop(side_by_side(embedded, keys)))
    if numbers:
        # The mean and variance of the training rows are weights that do not train: Keras' Normalization has them as
        # constants, with which each fold of a search would be another program.
        standardize = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-7, trainable=False, name="standardize"
        )
        parts.append(apart(standardize, keys)(side_by_side(numbers, keys)))
        standardize.set_weights([np.array(means, "float32"), np.array(variances, "float32")])
    return finish(inputs, blocks.stack(side_by_side([*parts, *flags], keys), widths), head, "tabular")


def multi_input(
    input_shape: Mapping[str, Sequence[int]],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (64,),
    input_hidden: int | Sequence[int] = (32,),
    filters: int | Sequence[int] = (32, 64),
    kernel_size: int = 3,
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
) -> keras.Model:
    """Builds a network of several inputs, such as an image and what is known about it.

    Each input has layers of its own, depending on what a row of it is: rows of features go through dense layers, series
    and images through convolutions. Their outputs go side by side through the hidden layers to the head.

    Example:

    >>> multi_input({"photo": (32, 32, 3), "facts": (5,)}, Head.binary()).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one row of each input, by name: `(features,)`, `(steps, channels)` or
            `(height, width, channels)`. X is a dict of arrays by these names.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of the layers after the inputs are joined. Defaults to `(64,)`.
        input_hidden: Units of the layers of each input of features. Defaults to `(32,)`.
        filters: Channels of the convolutions of each series and image. Defaults to `(32, 64)`.
        kernel_size: Steps or pixels of a convolution's window. Defaults to `3`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction dropped after each layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, before each activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of hidden layers and convolutions. Defaults to `0.0`.

    Returns:
        An uncompiled model: inputs by name, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or there is only one input; the message says which.
    """
    names = frozenset(map(str, input_shape)) if isinstance(input_shape, Mapping) else frozenset()
    blocks, widths = Blocks(activation, dropout, normalization, l2, names), widths_of(hidden)
    if not isinstance(input_shape, Mapping):
        raise ParameterError(
            f"`multi_input` takes a dict of inputs, X={{'photo': ..., 'facts': ...}}; got rows of the shape "
            f"{tuple(input_shape)}. For one input there are `mlp`, `cnn` and `conv1d`."
        )
    inputs, x = _trunk(blocks, "multi_input", input_shape, input_hidden, filters, kernel_size)
    return finish(inputs, blocks.stack(x, widths), head, "multi_input")


def multi_output(
    input_shape: Shapes,
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (64,),
    head_hidden: int | Sequence[int] = (32,),
    filters: int | Sequence[int] = (32, 64),
    kernel_size: int = 3,
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = None,
    l2: float = 0.0,
) -> keras.Model:
    """Builds one trunk with several outputs, such as age, gender and mood from one face, each with layers of its own.

    The trunk is dense for rows of features, convolutional for series and images. Each target has its own loss and
    weight: `head(y, kind={"age": "regression"}, weight={"age": 0.1})`, or `head__kind` and `head__weight` of an
    estimator.

    Example:

    >>> targets = head({"age": [31.5, 8.0], "gender": ["f", "m"], "mood": ["calm", "sad"]})
    >>> multi_output((64, 64, 1), targets).output_names
    ['age', 'gender', 'mood']

    Args:
        input_shape: Shape of one row, `(features,)`, `(steps, channels)` or `(height, width, channels)`; or a dict of
            shapes by name for several inputs.
        head: The heads of the network, from `head` with a dict of targets.
        hidden: Units of the layers that all targets share. Defaults to `(64,)`.
        head_hidden: Units of the layers that each target has for itself. Defaults to `(32,)`.
        filters: Channels of the convolutions of series and images. Defaults to `(32, 64)`.
        kernel_size: Steps or pixels of a convolution's window. Defaults to `3`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction dropped after each layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, before each activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of hidden layers and convolutions. Defaults to `0.0`.

    Returns:
        An uncompiled model: input `(batch, *input_shape)`, outputs by name, `(batch, units)` each.

    Raises:
        ParameterError: An argument is out of range; the message says which.
    """
    import keras

    names = frozenset(map(str, input_shape)) if isinstance(input_shape, Mapping) else frozenset()
    blocks, widths = Blocks(activation, dropout, normalization, l2, names), widths_of(hidden)
    own = widths_of(head_hidden)
    # The inputs share the hidden layers, so a dense input needs none of its own unless there are several.
    input_hidden = own if isinstance(input_shape, Mapping) else ()
    inputs, x = _trunk(blocks, "multi_output", input_shape, input_hidden, filters, kernel_size)
    x = blocks.stack(x, widths)
    if isinstance(check_head(head), Head):
        return finish(inputs, blocks.stack(x, own), head, "multi_output")
    return keras.Model(inputs, [layer(blocks.stack(x, own)) for layer in head.output_layers()], name="multi_output")  # type: ignore[union-attr]


def transformer_encoder(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (128, 128),
    embedding_dim: int = 64,
    num_heads: int = 4,
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Normalization = "layer",
    l2: float = 0.0,
    vocabulary_size: int | None = None,
) -> keras.Model:
    """Builds a transformer encoder for short series: measurements over time, or token ids.

    Each block is attention of all steps to all steps, then two dense layers at each step; both are normalized first and
    added to what went into them. The mean over the steps goes to the head. After "Attention Is All You Need" (Vaswani
    et al., 2017), with learned positions, and with normalization first (Xiong et al., "On Layer Normalization in the
    Transformer Architecture", 2020). Time and memory grow with the square of the number of steps: a few hundred are
    short.

    Example:

    >>> transformer_encoder((50,), Head.multiclass(4), vocabulary_size=1000).output_shape
    (None, 4)

    Args:
        input_shape: Shape of one series, `(steps, channels)`, or `(steps,)` for one channel or for token ids.
        head: The head of the network, from `head(y)`, `Head.binary()` and the like.
        hidden: Units of the first of the two dense layers of each block; there are as many blocks as numbers. Defaults
            to `(128, 128)`.
        embedding_dim: Size of the vector of each step between the blocks. Defaults to `64`.
        num_heads: Number of attention heads, each of size `embedding_dim // num_heads`. Defaults to `4`.
        activation: Name of the dense layers' activation. Defaults to `"relu"`.
        dropout: Fraction dropped after attention and dense layers while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, before attention and dense layers. Defaults to `"layer"`.
        l2: Factor of the L2 penalty on the weights of the dense layers. Defaults to `0.0`.
        vocabulary_size: Number of tokens, for series `(steps,)` of token ids from 0; 0 is padding, which is skipped.
            Defaults to `None`: a series holds measurements.

    Returns:
        An uncompiled model: input `(batch, steps[, channels])`, output `(batch, head.units)`.

    Raises:
        ParameterError: An argument is out of range, or rows are not series of a known length; the message says which.
    """
    import keras

    blocks, sizes = Blocks(activation, dropout, normalization, l2), widths_of(hidden, at_least=1)
    embedding_dim, num_heads = whole_number(embedding_dim, "embedding_dim"), whole_number(num_heads, "num_heads")
    if embedding_dim % num_heads:
        raise ParameterError(f"`embedding_dim` must be a multiple of `num_heads`; got {embedding_dim} and {num_heads}.")
    if not isinstance(input_shape, Mapping) and input_shape[0] is None:
        raise ParameterError("`transformer_encoder` needs series of one length, since it learns each position.")
    inputs, x = series("transformer_encoder", input_shape, vocabulary_size, embedding_dim, masked=False)
    # The number of each step, made by layers and operations that any Keras reads from a file.
    positions = keras.ops.cumsum(keras.ops.ones_like(x[..., 0], dtype="int32"), axis=1) - 1
    masks, mask = {}, {}
    if vocabulary_size is None:
        x = keras.layers.Dense(embedding_dim)(x)
    else:  # the first step of an empty text is not masked, so that there is something to take the mean of
        read = keras.ops.logical_or(keras.ops.not_equal(inputs, 0), keras.ops.equal(positions, 0))
        masks, mask = {"query_mask": read, "value_mask": read}, {"mask": read}
    x = keras.layers.Add()([x, keras.layers.Embedding(int(x.shape[1]), embedding_dim, name="positions")(positions)])
    for size in sizes:
        seen = blocks.normalize(x)
        attention = keras.layers.MultiHeadAttention(num_heads, embedding_dim // num_heads)(seen, seen, **masks)
        x = keras.layers.Add()([x, blocks.drop(attention)])
        inner = keras.layers.Dense(size, **blocks.penalty())(blocks.normalize(x))
        inner = keras.layers.Dense(embedding_dim, **blocks.penalty())(blocks.activate(inner))
        x = keras.layers.Add()([x, blocks.drop(inner)])
    x = keras.layers.GlobalAveragePooling1D()(blocks.normalize(x), **mask)
    return finish(inputs, x, head, "transformer_encoder")


def _trunk(
    blocks: Blocks, builder: str, shapes: Any, input_hidden: Any, filters: Any, kernel_size: Any
) -> tuple[Any, Any]:
    """The inputs, and the outputs of their own layers side by side, `(batch, features)`."""
    import keras

    widths, channels = widths_of(input_hidden, "input_hidden"), widths_of(filters, "filters", "channels", at_least=1)
    window = whole_number(kernel_size, "kernel_size")

    def own_layers(x: keras.KerasTensor) -> keras.KerasTensor:
        if len(x.shape) == 2:
            return blocks.stack(x, widths)
        pooling = keras.layers.GlobalAveragePooling2D if len(x.shape) == 4 else keras.layers.GlobalMaxPooling1D
        return pooling()(blocks.convolutions(x, channels, window))

    takes = "rows of features, series or images, of one to three axes"
    if not isinstance(shapes, Mapping):
        inputs: Any = keras.Input(one_shape(shapes, builder, takes, "", (1, 2, 3)))
        return inputs, own_layers(inputs)
    inputs = {
        name: keras.Input(one_shape(shape, builder, takes, "", (1, 2, 3)), name=name) for name, shape in shapes.items()
    }
    return inputs, side_by_side([own_layers(x) for x in inputs.values()], blocks.inputs)
