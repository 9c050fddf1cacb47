"""What the table says about every pretrained network is true."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from kerastoolkit import transfer
from kerastoolkit.exceptions import ParameterError

EVERY = transfer.list_backbones()


# One of each family, the quickest to build.
ONE_OF_A_FAMILY = {
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
}


def test_every_constructor_of_keras_is_in_the_table() -> None:
    constructors = {name for name, value in vars(keras.applications).items() if name[0].isupper() and callable(value)}
    assert constructors == set(EVERY)
    assert len(EVERY) >= 38


@pytest.mark.parametrize("name", EVERY)
def test_preprocessing_inside_equals_that_of_the_module(name: str) -> None:
    known = transfer.get(name)
    module = importlib.import_module(f"keras.applications.{known.module}")
    images = np.random.default_rng(0).uniform(0, 255, (4, 9, 9, 3)).astype("float32")
    inside = keras.Input((None, None, 3))
    model = keras.Model(inside, known.preprocess_input(inside * 1.0))
    found = keras.ops.convert_to_numpy(model(images))
    assert np.abs(found - module.preprocess_input(images.copy())).max() == 0


@pytest.mark.parametrize("name", sorted(ONE_OF_A_FAMILY))
def test_what_the_table_says_of_a_network_is_true(name: str) -> None:
    known = transfer.get(name)
    size = known.min_size
    model = transfer.feature_extractor(name, None, input_size=size)
    assert model.output_shape == (None, known.n_features)
    assert model.count_params() == known.n_parameters
    assert len(model.get_layer(known.cut_layer).output.shape) == 4
    with pytest.raises(ValueError, match=f"at least {size}"):
        known.constructor(weights=None, include_top=False, input_shape=(size - 1, size - 1, 3))
    with pytest.raises(
        ParameterError, match=rf"`input_size` must be a whole number of at least {size} pixels for {name}"
    ):
        transfer.feature_extractor(name, None, input_size=size - 1)


def test_networks_are_listed_by_pattern() -> None:
    assert transfer.list_backbones("*mobile*") == [
        "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetMobile",
    ]  # fmt: skip
    assert transfer.list_backbones("nothing*") == []


def test_an_unknown_network_is_answered_with_the_near_miss() -> None:
    with pytest.raises(ParameterError, match=r"`backbone` is 'mobilenet_v2', .* Did you mean 'MobileNetV2'"):
        transfer.get("mobilenet_v2")
