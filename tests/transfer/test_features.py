"""The network takes images as they are, and each image goes through it once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit import transfer
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.transfer.features import RECENT_FEATURES


def test_the_preprocessing_of_the_table_is_in_the_extractor(small: Callable[..., Any]) -> None:
    model = small()
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    plain = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    for layer in plain.layers:
        if layer.weights and layer.name in {one.name for one in model.layers}:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    plain = keras.Model(plain.input, plain.get_layer("conv_pw_3_relu").output)
    expected = plain(keras.applications.mobilenet.preprocess_input(images.copy()))
    expected = keras.ops.convert_to_numpy(expected).mean(axis=(1, 2))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(images)), expected, rtol=1e-4, atol=1e-6)


def test_an_unknown_layer_is_answered_with_the_near_miss(small: Callable[..., Any]) -> None:
    with pytest.raises(
        ParameterError, match=r"`layer` is 'conv_pw3_relu', which is not a layer of MobileNet\. Did you mean 'conv"
    ):
        small(layer="conv_pw3_relu")


def test_each_image_is_computed_once(tmp_path: Path, digits: Any, small: Callable[..., Any]) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    first = extractor.features(X[:40], tmp_path)
    assert extractor.n_computed == 40
    again = extractor.features(X[:60][::-1], tmp_path)
    assert extractor.n_computed == 60  # only the new ones
    np.testing.assert_array_equal(again[::-1][:40], first)
    RECENT_FEATURES.clear()
    other = transfer.Extractor(extractor.model)  # as another process would
    np.testing.assert_array_equal(other.features(X[:60], tmp_path), again[::-1])
    assert other.n_computed == 0


def test_features_are_those_of_the_model(tmp_path: Path, digits: Any, small: Callable[..., Any]) -> None:
    X, _ = digits
    model = small(channels=1)
    found = transfer.Extractor(model).features(np.concatenate([X[:10], X[:10]]), tmp_path)
    expected = keras.ops.convert_to_numpy(model(X[:10].astype("float32")))
    np.testing.assert_allclose(found, np.concatenate([expected, expected]), rtol=1e-4, atol=1e-6)


def test_other_weights_and_other_layers_are_other_features(digits: Any, small: Callable[..., Any]) -> None:
    model = small(channels=1)
    keys = {
        transfer.Extractor(one).key
        for one in (
            model,
            small(channels=1),
            small(channels=1, random_state=1),
            small(channels=1, layer="conv_pw_2_relu"),
        )
    }
    assert len(keys) == 3  # the first two are the same network, whatever its layers are called
    assert transfer.Extractor(small(channels=1, input_size=33)).key not in keys


def test_without_a_cache_the_network_runs_each_time(digits: Any, tmp_path: Path, small: Callable[..., Any]) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    for _ in range(2):
        extractor.features(X[:5], cache=False)
    assert extractor.n_computed == 10
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_told_and_computed_around(tmp_path: Path, digits: Any, small: Callable[..., Any]) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    expected = extractor.features(X[:3], tmp_path)
    for content in (b"no database" * 100, stored(tmp_path).read_bytes()[:5000], stored(tmp_path).read_bytes()[::-1]):
        stored(tmp_path).write_bytes(content)
        RECENT_FEATURES.clear()
        with pytest.warns(KerasToolkitWarning, match="cannot be (read|written).*Give another folder"):
            np.testing.assert_array_equal(extractor.features(X[:3], tmp_path), expected)
        assert stored(tmp_path).read_bytes() == content


def stored(folder: Path) -> Path:
    """The one file of features in a folder."""
    (path,) = (folder / "kerastoolkit-features").glob("*.sqlite")
    return path


def test_an_image_whose_row_is_damaged_goes_through_the_network_again(
    tmp_path: Path, digits: Any, small: Callable[..., Any]
) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    expected = extractor.features(X[:10], tmp_path)
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        database.execute("UPDATE features SET features = zeroblob(512) WHERE rowid = 3")
    RECENT_FEATURES.clear()
    with pytest.warns(KerasToolkitWarning, match="1 of 10 rows") as told:
        np.testing.assert_allclose(extractor.features(X[:10], tmp_path), expected, rtol=1e-4, atol=1e-6)
    assert extractor.n_computed == 11
    assert sum(one.category is KerasToolkitWarning for one in told) == 1
    RECENT_FEATURES.clear()
    np.testing.assert_allclose(extractor.features(X[:10], tmp_path), expected, rtol=1e-4, atol=1e-6)  # no warning
    assert extractor.n_computed == 11
