"""The layers that are asked for train, at their rates, and BatchNormalization as it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit import transfer
from kerastoolkit.exceptions import ParameterError


@pytest.mark.parametrize(
    ("amount", "lowest"),
    [(3, "conv_pw_3"), (0.25, None), ("conv_dw_3", "conv_dw_3"), (1.0, "conv1"), (0, None)],
)
def test_the_upper_layers_train(amount: Any, lowest: str | None, small: Callable[..., Any]) -> None:
    model = small()
    trained = transfer.unfreeze(model.layers, amount, batch_norm="training")
    if lowest is not None:
        # 3 counts the pooling, the ReLU and the normalization; the layer below them stays frozen
        assert trained[0].name == ("conv_pw_3_bn" if amount == 3 else lowest)
    if amount == 0:
        assert trained == []
    if amount == 0.25:
        assert 0 < len(trained) < len([layer for layer in model.layers if layer.weights]) / 2
    names = {layer.name for layer in trained}
    assert {variable.path.split("/")[0] for variable in model.trainable_variables} == names


def test_batch_normalization_stays_as_it_is_unless_told(small: Callable[..., Any]) -> None:
    model = small()
    kinds = {type(layer) for layer in transfer.unfreeze(model.layers, 1.0)}
    assert keras.layers.BatchNormalization not in kinds
    assert not any(layer.trainable for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))


def test_statistics_are_the_means_over_batches_with_the_weights_as_they_are() -> None:
    inner = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="second", epsilon=1e-6)])
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)
    first = keras.layers.BatchNormalization(name="first", momentum=0.7, center=False, scale=False, epsilon=1e-6)
    model = keras.Sequential([keras.Input((3,)), first, inner, frozen])
    X = np.random.default_rng(0).normal(5.0, 3.0, size=(40, 3)).astype("float32")
    transfer.update_batch_norm(model, X, batch_size=8, max_samples=32)

    batches = X[np.random.default_rng(0).permutation(40)[:32]].reshape(4, 8, 3)
    expected = [batches.mean(axis=1).mean(axis=0), batches.var(axis=1).mean(axis=0)]
    np.testing.assert_allclose(first.get_weights(), expected, rtol=1e-5)
    # What comes out of the first, batch by batch, has mean 0 and variance 1.
    np.testing.assert_allclose(inner.layers[0].get_weights()[2:], [[0.0] * 3, [1.0] * 3], atol=1e-5)
    np.testing.assert_array_equal(frozen.get_weights()[2:], [[0.0] * 3, [1.0] * 3])
    assert [layer.momentum for layer in (first, inner.layers[0])] == [0.7, 0.99]


@pytest.mark.parametrize("amount", [-1, 1.5, True, None])
def test_an_amount_that_is_none_is_refused(amount: Any, small: Callable[..., Any]) -> None:
    with pytest.raises(ParameterError, match="`unfreeze` must be a whole number of layers, a fraction"):
        transfer.unfreeze(small().layers, amount)


def test_a_block_that_is_not_there_is_answered_with_the_near_miss(small: Callable[..., Any]) -> None:
    with pytest.raises(ParameterError, match=r"`unfreeze` is 'conv_pv_3'.*Did you mean 'conv_pw_3"):
        transfer.unfreeze(small().layers, "conv_pv_3")


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer")
def test_rates_fall_towards_the_bottom(tmp_path: Path) -> None:
    """One step of plain gradient descent moves each weight by its own rate times its gradient."""
    layers = [keras.layers.Dense(3, use_bias=False, name=f"body_{place}") for place in range(5)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, use_bias=False, name="head")])
    before = [weight.copy() for weight in model.get_weights()]
    X, y = np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 1))

    def moved(optimizer: Any) -> list[Any]:
        model.set_weights(before)
        model.compile(optimizer, "mse")
        model.fit(X, y, batch_size=8, verbose=0)
        return [new - old for new, old in zip(model.get_weights(), before, strict=True)]

    by_depth = transfer.optimizer_by_depth(keras.optimizers.SGD(), layers, 0.1, 0.01)
    ratios = [np.mean(ours / one) for ours, one in zip(moved(by_depth), moved(keras.optimizers.SGD(0.1)), strict=True)]
    np.testing.assert_allclose(ratios, [*np.geomspace(0.01, 1, 6)], rtol=1e-3)
    model.compile(by_depth, "mse")
    model.save(tmp_path / "model.keras")  # the rates are kept by names
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert [float(one.learning_rate) for one in again.optimizers] == pytest.approx(
        [float(one.learning_rate) for one in by_depth.optimizers]
    )


@pytest.mark.parametrize(("arguments", "name"), [((0.0, 0.1), "learning_rate"), ((0.1, 2.0), "bottom_rate")])
def test_a_rate_that_is_none_is_refused(arguments: Any, name: str, small: Callable[..., Any]) -> None:
    with pytest.raises(ParameterError, match=f"`{name}` must be"):
        transfer.optimizer_by_depth(keras.optimizers.Adam(), small().layers, *arguments)
