"""`mlp`: its layers are those asked for, and what cannot be built is refused by name."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from kerastoolkit import builders
from kerastoolkit.builders import Head, head, mlp
from kerastoolkit.exceptions import ParameterError


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
    assert builders.list_builders() == ["mlp"]
    assert builders.get("mlp") is mlp
    with pytest.raises(ParameterError, match="'mpl', which is not the name of a builder. Builders: mlp"):
        builders.get("mpl")


def test_a_model_comes_back_from_its_file(tmp_path: Any) -> None:
    model = mlp((5,), Head.multiclass(3), hidden=(4,), normalization="layer")
    model.save(tmp_path / "model.keras")
    assert _kinds(keras.saving.load_model(tmp_path / "model.keras")) == _kinds(model)
