"""Straight stacks: their layers are those asked for, and what cannot be built is refused by name."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit import KerasClassifier, builders
from kerastoolkit.builders import Head, autoencoder, cnn, conv1d, head, mlp, rnn
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError


def _kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def test_hidden_layers_are_dense_normalization_activation_dropout() -> None:
    model = mlp((5,), Head.binary(), hidden=(4, 3), activation="tanh", dropout=0.2, normalization="batch", l2=0.01)
    block = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    assert _kinds(model) == ["InputLayer", *block, *block, "Dense"]
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [4, 3, 1]
    assert model.layers[1].kernel_regularizer.l2 == pytest.approx(0.01)
    assert model.layers[4].rate == 0.2
    assert not model.compiled


@pytest.mark.parametrize(("hidden", "widths"), [(7, [7]), ((7,), [7]), ([4, 2], [4, 2]), ((), [])])
def test_hidden_is_a_number_or_a_sequence(hidden: Any, widths: list[int]) -> None:
    model = mlp((5,), Head.multiclass(3), hidden=hidden)
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [*widths, 3]


def test_several_targets_are_several_outputs_named_after_them() -> None:
    model = mlp((5,), head({"size": [0, 1, 1], "colour": ["r", "g", "b"]}))
    assert model.output_names == ["size", "colour"]
    assert [output.shape[1] for output in model.outputs] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (8, 8)}, r"rows of features, but each row here has the shape \(8, 8\). Flatten"),
        ({"hidden": 0}, "`hidden` must be a whole number"),
        ({"hidden": "64"}, "`hidden` must be a whole number"),
        ({"hidden": (8, 2.5)}, "`hidden` must be a whole number"),
        ({"dropout": 1.0}, "`dropout` must be a fraction"),
        ({"normalization": "group"}, "`normalization` must be 'batch', 'layer' or None; got 'group'"),
        ({"l2": -1.0}, "`l2` must not be negative"),
        ({"activation": "rellu"}, "`activation` is 'rellu', which Keras does not know. Did you mean 'relu'"),
        ({"head": "binary"}, "`head` must be a Head"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        mlp(**{"input_shape": (5,), "head": Head.binary(), **arguments})


def test_builders_are_found_by_name() -> None:
    assert {"cnn", "mlp", "tabular"} <= set(builders.list_builders())
    assert builders.get("mlp") is mlp
    with pytest.raises(ParameterError, match="'mpl', which is not the name of a builder. Did you mean 'mlp'"):
        builders.get("mpl")


def test_a_model_comes_back_from_its_file(tmp_path: Any) -> None:
    model = mlp((5,), Head.multiclass(3), hidden=(4,), normalization="layer")
    model.save(tmp_path / "model.keras")
    assert _kinds(keras.saving.load_model(tmp_path / "model.keras")) == _kinds(model)


def test_images_are_halved_by_each_convolution_while_there_is_a_half() -> None:
    model = cnn((6, 5, 3), Head.multiclass(4), filters=(2, 4, 8), kernel_size=3)
    sizes = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert sizes == [(3, 2, 2), (1, 1, 4)]
    assert model.output_shape == (None, 4)


def test_images_of_any_size_go_through_one_network() -> None:
    model = cnn((None, None, 1), Head.binary(), filters=(2,))
    assert [model(np.ones((1, size, size, 1))).shape for size in (4, 9)] == [(1, 1), (1, 1)]


def test_a_image_without_channels_has_one() -> None:
    assert cnn((8, 8), Head.binary()).count_params() == cnn((8, 8, 1), Head.binary()).count_params()


def test_a_series_of_words_goes_through_an_embedding() -> None:
    for builder in (conv1d, rnn):
        model = builder((7,), Head.binary(), vocabulary_size=30, embedding_dim=5)
        assert model.layers[1].embeddings.shape == (30, 5)
        assert model(np.ones((2, 7), dtype="int32")).shape == (2, 1)


def test_a_bag_of_words_is_the_mean_of_their_vectors_without_padding() -> None:
    model = mlp((4,), Head.regression(), hidden=(), vocabulary_size=10, embedding_dim=3)
    vectors, kernel, bias = model.get_weights()
    words = np.array([[5, 7, 7, 0], [2, 0, 0, 0]], dtype="int32")
    means = np.stack([vectors[[5, 7, 7]].mean(axis=0), vectors[2]])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(words)), means @ kernel + bias, atol=1e-6)


def test_a_recurrent_network_does_not_read_padding() -> None:
    model = rnn((5,), Head.regression(), hidden=(4,), vocabulary_size=9, embedding_dim=3)
    short, padded = np.array([[1, 2, 0, 0, 0]]), np.array([[1, 2]])
    layer = model.layers[-2]
    ends = [layer(model.layers[1](words), mask=words != 0) for words in (short, padded)]
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, ends), rtol=1e-5)


@pytest.mark.parametrize(("cell", "kind"), [("lstm", "LSTM"), ("gru", "GRU")])
def test_recurrent_layers_are_those_asked_for(cell: Any, kind: str) -> None:
    model = rnn((7, 2), Head.binary(), hidden=(4, 3), cell=cell)
    assert _kinds(model) == ["InputLayer", kind, kind, "Dense"]
    both = rnn((7, 2), Head.binary(), hidden=(4, 3), cell=cell, bidirectional=True)
    assert [layer.output.shape[1:] for layer in both.layers[1:3]] == [(7, 8), (6,)]


def test_an_autoencoder_goes_back_the_way_it_came() -> None:
    model = autoencoder((8, 8), n_components=3, hidden=(16, 8))
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [16, 8, 3, 8, 16, 64]
    assert model.output_shape == (None, 8, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cnn((64,), Head.binary()), "`cnn` takes images.*X.reshape"),
        (lambda: cnn((None, 8), Head.binary()), r"need a number of channels: \(None, 8, 1\)"),
        (lambda: cnn((8, 8), Head.binary(), filters=()), "`filters` must be a whole number of channels"),
        (lambda: cnn((8, 8), Head.binary(), kernel_size=0), "`kernel_size` must be a whole number of at least 1"),
        (lambda: cnn({"a": (8, 8)}, Head.binary()), "`cnn` takes one input, but there are 1"),
        (lambda: conv1d((8, 8, 3), Head.binary()), "`conv1d` takes series"),
        (lambda: rnn((8, 3), Head.binary(), cell="rnn"), "`cell` must be 'lstm' or 'gru'; got 'rnn'"),
        (lambda: rnn((8, 3), Head.binary(), vocabulary_size=9), "series of token ids"),
        (lambda: autoencoder((8,), n_components=0), "`n_components` must be a whole number of at least 1"),
        (lambda: autoencoder((None, 8)), "rows of one known shape"),
    ],
)
def test_what_no_stack_can_be_built_of_is_refused_by_name(build: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build()


def test_a_function_of_the_users_is_registered_as_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "_BUILDERS", dict(builders._BUILDERS))

    @builders.register_builder()
    def linear(input_shape: Any, head: Any) -> Any:
        return keras.Sequential([keras.Input(input_shape), head.output_layer()])

    assert builders.get("linear") is linear and "linear" in builders.list_builders()
    assert not builders.is_ours(linear) and builders.is_ours(mlp)
    assert KerasClassifier("linear", epochs=1).fit([[0.0], [1.0]], [0, 1]).n_iter_ == 1
    with pytest.warns(KerasToolkitWarning, match="The builder 'linear' was .*linear, and is now .*len"):
        builders.register_builder("linear")(len)
    with pytest.raises(ParameterError, match="'mlp' is kerastoolkit's own"):
        builders.register_builder("mlp")(linear)
    with pytest.raises(ParameterError, match="got 3"):
        builders.register_builder(3)  # type: ignore[arg-type]
