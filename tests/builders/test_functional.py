"""Graphs: each builder against the arithmetic or the paper it stands for, and what cannot be built refused by name."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from kerastoolkit import builders
from kerastoolkit.builders import Head, head
from kerastoolkit.data import learn_table
from kerastoolkit.exceptions import ParameterError


def _out(model: Any, x: Any) -> Any:
    return keras.ops.convert_to_numpy(model(x))


def _kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


@pytest.fixture
def rows() -> Any:
    return np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def test_wide_and_deep_is_the_sum_of_a_linear_model_and_a_deep_one(rows: Any) -> None:
    model = builders.wide_and_deep((5,), Head.regression(), hidden=(4,))
    kernel, bias = model.layers[-1].get_weights()
    hidden = keras.Model(model.input, model.layers[-2].input[1])
    linear = rows @ kernel[:5]
    deep = _out(hidden, rows) @ kernel[5:]
    assert_allclose(_out(model, rows), linear + deep + bias, rtol=1e-4, atol=1e-6)


def test_the_wide_part_may_see_other_features_than_the_deep_one(rows: Any) -> None:
    model = builders.wide_and_deep({"wide": (2,), "deep": (5,)}, Head.regression(), hidden=(4,))
    assert model.layers[-1].kernel.shape == (2 + 4, 1)
    assert _out(model, {"wide": rows[:, :2], "deep": rows}).shape == (6, 1)


def test_a_residual_block_adds_to_what_went_into_it(rows: Any) -> None:
    model = builders.residual_mlp((5,), Head.regression(), hidden=(4, 4), normalization=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and layer.kernel.shape == (4, 4):
            layer.set_weights([np.zeros((4, 4)), np.zeros(4)])  # blocks that do nothing
    (first, first_bias), (last, last_bias) = model.layers[1].get_weights(), model.layers[-1].get_weights()
    straight = np.maximum(rows @ first + first_bias, 0) @ last + last_bias
    assert_allclose(_out(model, rows), straight, rtol=1e-4, atol=1e-6)


def test_blocks_of_other_widths_have_a_shortcut_of_their_own() -> None:
    model = builders.residual_mlp((5,), Head.binary(), hidden=(4, 8))
    without_bias = [layer.kernel.shape for layer in model.layers if getattr(layer, "use_bias", True) is False]
    assert without_bias == [(4, 8)]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"age": [20.0, 30.0, np.nan, 40.0], "town": ["Ulm", "Ulm", "Bonn", "Bonn"], "rooms": [1, 2, 3, 6]}
    )


def test_a_table_has_an_input_a_column_and_numbers_of_mean_zero(table: pd.DataFrame) -> None:
    columns = learn_table(table)
    model = builders.tabular(columns, Head.binary(), hidden=())
    assert {name: tuple(part.shape[1:]) for name, part in model.input.items()} == {
        "age": (1,), "age_missing": (1,), "town": (1,), "rooms": (1,)
    }  # fmt: skip
    standardized = _out(keras.Model(model.input, model.get_layer("standardize").output), columns.encode(table))
    assert_allclose(standardized.mean(axis=0), [0, 0], atol=1e-6)
    assert_allclose(standardized[:, 1], (table["rooms"] - 3) / np.std([1, 2, 3, 6]), rtol=1e-5)
    assert standardized[2, 0] == 0  # the mean stands for a missing number
    assert not model.get_layer("standardize").trainable


@pytest.mark.parametrize(("n_categories", "size"), [(1, 3), (8, round(1.6 * 10**0.56)), (998, 77), (60_000, 600)])
def test_an_embedding_has_the_size_of_the_rule(n_categories: int, size: int) -> None:
    values = [f"town {number}" for number in range(n_categories)]
    columns = learn_table(pd.DataFrame({"town": values * 2}), max_categories=100_000)
    model = builders.tabular(columns, Head.binary())
    assert model.get_layer("embedding_town").embeddings.shape == (n_categories + 2, size)


def test_several_inputs_go_through_layers_of_their_kind() -> None:
    model = builders.multi_input({"photo": (8, 8, 3), "sound": (20, 2), "facts": (5,)}, Head.multiclass(3))
    assert {"Conv2D", "Conv1D", "Dense", "Concatenate"} <= set(_kinds(model))
    x = {"photo": np.ones((2, 8, 8, 3)), "sound": np.ones((2, 20, 2)), "facts": np.ones((2, 5))}
    assert_allclose(_out(model, x).sum(axis=1), 1, rtol=1e-5)


def test_several_targets_share_a_trunk_and_have_layers_of_their_own() -> None:
    targets = head({"age": [31.5, 8.0], "gender": ["f", "m"], "mood": ["calm", "sad"]})
    model = builders.multi_output((8, 8, 1), targets, hidden=(16,), head_hidden=(7,))
    assert model.output_names == ["age", "gender", "mood"]
    widths = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(widths) == [1, 1, 1, 7, 7, 7, 16]


def test_a_transformer_knows_the_order_of_steps_and_does_not_read_padding() -> None:
    model = builders.transformer_encoder(
        (6,), Head.multiclass(3), hidden=(8,), embedding_dim=8, num_heads=2, vocabulary_size=20
    )
    words = np.array([[3, 4, 5, 0, 0, 0], [5, 4, 3, 0, 0, 0]])
    raw = _out(model, words)
    assert np.abs(raw[0] - raw[1]).max() > 1e-4  # other order, other answer
    # What stands at the places of padding does not matter, as long as it is padding.
    positions = model.get_layer("positions").embeddings
    positions.assign(np.concatenate([keras.ops.convert_to_numpy(positions)[:3], np.full((3, 8), 9.0)]))
    assert_allclose(_out(model, words), raw, rtol=1e-4, atol=1e-6)
    assert np.isfinite(_out(model, np.zeros((1, 6)))).all()  # a text without words


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: builders.tabular({"age": (1,)}, Head.binary()),
            "`columns` must be what kerastoolkit.data.learn_table",
        ),
        (lambda: builders.multi_input((5,), Head.binary()), "`multi_input` takes a dict of inputs.*there are `mlp`"),
        (lambda: builders.wide_and_deep({"a": (1,), "b": (2,)}, Head.binary()), "the inputs 'wide' and 'deep'; got"),
        (
            lambda: builders.residual_mlp((8, 8), Head.binary()),
            r"rows of features, but each row here has the shape \(8, 8\)",
        ),
        (lambda: builders.residual_mlp((8,), Head.binary(), hidden=()), "`hidden` must be a whole number of units"),
        (
            lambda: builders.transformer_encoder((8, 2), Head.binary(), embedding_dim=10),
            "`embedding_dim` must be a multiple of `num_heads`",
        ),
        (lambda: builders.transformer_encoder((None, 2), Head.binary()), "needs series of one length"),
        (lambda: builders.transformer_encoder((8, 2), Head.binary(), vocabulary_size=9), "Leave out `vocabulary_size`"),
        (lambda: builders.multi_output((8, 8, 8, 8), Head.binary()), "of one to three axes"),
        (lambda: builders.multi_output((8,), "age"), "`head` must be a Head"),
        (
            lambda: builders.multi_input({"a": (8,)}, Head.binary(), filters=0),
            "`filters` must be a whole number of channels",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(build: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        build()
