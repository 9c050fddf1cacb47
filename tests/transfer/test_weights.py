"""Weights are loaded layer by layer, all or none, and nothing of a file is trusted."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit import transfer
from kerastoolkit.exceptions import ParameterError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_come_from_a_file_that_has_a_classifier_on_top(
    tmp_path: Path, suffix: str, small: Callable[..., Any]
) -> None:
    whole = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=10)
    path = tmp_path / f"whole{suffix}"
    whole.save_weights(path) if suffix == ".weights.h5" else whole.save(path)
    model = small(weights=path)
    for layer in model.layers:
        if layer.weights:
            for ours, theirs in zip(layer.get_weights(), whole.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_layers_that_keras_numbered_are_found_by_their_place(tmp_path: Path) -> None:
    def network() -> keras.Model:
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3, activation="relu")(inputs)))

    first, second = network(), network()  # dense, dense_1 and dense_2, dense_3
    first.save_weights(tmp_path / "first.weights.h5")
    transfer.load_weights(second, tmp_path / "first.weights.h5")
    for ours, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_older_keras_is_read(tmp_path: Path, small: Callable[..., Any]) -> None:
    import h5py

    model = small(layer=None)
    with h5py.File(tmp_path / "old.h5", "w") as file:  # the form of the files that Keras downloads
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/weight_{place}:0" for place in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value + 1
    other = small(weights=tmp_path / "old.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=False):
        np.testing.assert_array_equal(ours, theirs + 1)


def test_a_file_that_does_not_fit_is_refused_layer_by_layer(tmp_path: Path, small: Callable[..., Any]) -> None:
    wide = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.5)
    wide.save_weights(tmp_path / "half.weights.h5")
    message = r"of which \d+ of the \d+ layers with weights of MobileNet did not match"
    with pytest.raises(ParameterError, match=message) as error:
        small(weights=tmp_path / "half.weights.h5")
    assert "conv1: the file holds (3, 3, 3, 16), the layer takes (3, 3, 3, 32)" in str(error.value)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="alone")]).save_weights(
        tmp_path / "other.weights.h5"
    )
    with pytest.raises(ParameterError, match=r"The file belongs to another network\.\n  conv1: not in the file"):
        small(weights=tmp_path / "other.weights.h5")


def test_a_file_that_is_none_is_refused(tmp_path: Path, small: Callable[..., Any]) -> None:
    with pytest.raises(ParameterError, match="there is no such file"):
        small(weights=tmp_path / "missing.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    with pytest.raises(ParameterError, match=r"is not a \.weights\.h5 or \.keras file"):
        small(weights=tmp_path / "text.weights.h5")


@pytest.mark.parametrize("kind", ["alone.weights.h5", "alone.keras"])
def test_a_file_of_bfloat16_is_read(kind: str, tmp_path: Path) -> None:
    def network(kind: str) -> keras.Model:
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="alone", dtype=kind)])

    first, second = network("bfloat16"), network("float32")
    first.save(tmp_path / kind) if kind.endswith(".keras") else first.save_weights(tmp_path / kind)
    transfer.load_weights(second, tmp_path / kind)
    expected = keras.ops.convert_to_numpy(keras.ops.cast(first.weights[0], "float32"))
    np.testing.assert_array_equal(second.get_weights()[0], expected)


def _forged(path: Path, change: Callable[[Any], Any]) -> Path:
    """A file of weights of one layer, `alone`, in which something is changed."""
    import h5py

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="alone")])
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _replaced(file: Any, name: str = "layers/dense/vars/1", **kind: Any) -> None:
    del file[name]
    file.create_dataset(name, **kind)


# What is changed, and what the message says of it.
_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "numbers of another file": (
        lambda file: _replaced(file, shape=(3,), dtype="f4", external=[("secret", 0, 12)]),
        "kept in another file",
    ),
    "gigabytes": (lambda file: _replaced(file, shape=(10**9,), dtype="f4"), "bytes that are not in the file"),
    "not finite": (lambda file: _replaced(file, data=[1.0, np.nan, 1.0]), "alone: the file holds NaN or infinite"),
    "bytes of another kind": (lambda file: _replaced(file, data=np.zeros(3, "V2")), "numbers of the type"),
    "not a number": (lambda file: file["layers/dense/vars"].create_group("x"), "invalid literal for int"),
    "a group": (lambda file: file["layers/dense/vars"].create_group("2"), "can be read"),
}


@pytest.mark.parametrize("what", _CHANGES)
def test_a_file_of_more_than_plain_arrays_is_refused(what: str, tmp_path: Path) -> None:
    change, message = _CHANGES[what]
    path = _forged(tmp_path / "forged.weights.h5", change)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="alone")])
    before = model.get_weights()
    with pytest.raises(ParameterError, match=message):
        transfer.load_weights(model, path)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_old_file_whose_names_are_one_array_is_refused(tmp_path: Path, small: Callable[..., Any]) -> None:
    import h5py

    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = ["alone"]
        file["alone/kernel"] = np.zeros(1000)
        file["alone"].attrs["weight_names"] = np.array([b"kernel"] * 4000)
    with pytest.raises(ParameterError, match="arrays under two names"):
        transfer.load_weights(small(), tmp_path / "old.h5")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(compression: int, tmp_path: Path, small: Callable[..., Any]) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", compression) as archive:
        archive.writestr("model.weights.h5", bytes(10**6))
    with pytest.raises(ParameterError, match="is compressed in it, which Keras does not do"):
        transfer.load_weights(small(), tmp_path / "bomb.keras")


def test_of_a_keras_file_no_layer_is_made(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="alone")])
    model.save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "forged.keras", "w") as forged:
        forged.writestr("model.weights.h5", whole.read("model.weights.h5"))
        forged.writestr("config.json", '{"module": "os", "class_name": "system", "config": {"command": "false"}}')
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="alone")])
    transfer.load_weights(other, tmp_path / "forged.keras")
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_without_internet_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, small: Callable[..., Any]) -> None:
    def no_internet(*args: Any, weights: Any, **kwargs: Any) -> Any:
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://storage.googleapis.com")
        return build(*args, weights=weights, **kwargs)

    build = keras.applications.MobileNet
    monkeypatch.setattr(keras.applications, "MobileNet", no_internet)
    with pytest.raises(ParameterError) as error:
        small(weights="imagenet")
    assert "could not be downloaded: URL fetch failure" in str(error.value)
    assert "give weights='MobileNet.weights.h5'" in str(error.value)
    assert "give weights=None" in str(error.value)


def test_downloaded_weights_are_put_in(monkeypatch: pytest.MonkeyPatch, small: Callable[..., Any]) -> None:
    build = keras.applications.MobileNet
    downloaded = build(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    monkeypatch.setattr(
        keras.applications,
        "MobileNet",
        lambda *args, weights, **kwargs: downloaded if weights == "imagenet" else build(*args, weights=None, **kwargs),
    )
    model = small(weights="imagenet", layer=None)
    for ours, theirs in zip(model.get_weights(), downloaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_converted_weights_know_images(tmp_path: Path) -> None:
    """Two parts of one photograph look more alike than parts of two."""
    spec = importlib.util.spec_from_file_location("imagenet_weights", BENCHMARKS / "imagenet_weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    if weights.find() is None:
        pytest.skip(f"to run it: {weights.INSTALL}")
    from sklearn.datasets import load_sample_images

    path = weights.write(tmp_path / "MobileNetV2.weights.h5")
    model = transfer.feature_extractor("MobileNetV2", path, input_size=129)
    assert model.count_params() == transfer.get("MobileNetV2").n_parameters
    china, flower = load_sample_images().images
    crops = [china[:300, :300], china[50:350, 250:550], flower[:300, :300], flower[50:350, 150:450]]
    features = keras.ops.convert_to_numpy(model(np.stack(crops)))
    alike = np.corrcoef(features)
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max()
