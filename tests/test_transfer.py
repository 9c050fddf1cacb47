"""The table of pretrained networks is true, features are computed once, and a network is cut where it is told to."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import re
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from kerastoolkit import KerasClassifier, transfer
from kerastoolkit.builders import Head
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError

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
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def small(**arguments: Any) -> keras.Model:
    """The quickest extractor there is."""
    return transfer.feature_extractor(
        "MobileNet", **{"weights": None, "input_size": 32, "layer": "conv_pw_3_relu", "seed": 0, **arguments}
    )


@pytest.fixture
def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return (X * 255 / 16).round().astype("uint8").reshape(-1, 8, 8, 1), y


# -- the table ------------------------------------------------------------------------------------------------------


def test_every_constructor_of_keras_is_in_the_table() -> None:
    constructors = {name for name, value in vars(keras.applications).items() if name[0].isupper() and callable(value)}
    assert constructors == set(EVERY)
    assert len(EVERY) >= 38


@pytest.mark.parametrize("name", EVERY)
def test_preprocessing_inside_equals_that_of_the_module(name: str) -> None:
    known = transfer.get(name)
    module = importlib.import_module(f"keras.applications.{known.module}")
    pictures = np.random.default_rng(0).uniform(0, 255, (4, 9, 9, 3)).astype("float32")
    inside = keras.Input((None, None, 3))
    model = keras.Model(inside, known.preprocess_input(inside * 1.0))
    found = keras.ops.convert_to_numpy(model(pictures))
    assert np.abs(found - module.preprocess_input(pictures.copy())).max() == 0


@pytest.mark.parametrize("name", sorted(ONE_OF_A_FAMILY))
def test_what_the_table_says_of_a_network_is_true(name: str) -> None:
    known = transfer.get(name)
    size = known.smallest_size
    model = transfer.feature_extractor(name, None, input_size=size)
    assert model.output_shape == (None, known.features)
    assert model.count_params() == known.parameters
    assert len(model.get_layer(known.cut).output.shape) == 4
    with pytest.raises(ValueError, match=f"at least {size}"):
        known.constructor(weights=None, include_top=False, input_shape=(size - 1, size - 1, 3))
    with pytest.raises(
        ParameterError, match=rf"`input_size` must be a whole number of at least {size} pixels for {name}"
    ):
        transfer.feature_extractor(name, None, input_size=size - 1)


def test_the_preprocessing_of_the_table_is_in_the_extractor() -> None:
    model = small()
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    plain = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    for layer in plain.layers:
        if layer.weights and layer.name in {one.name for one in model.layers}:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    plain = keras.Model(plain.input, plain.get_layer("conv_pw_3_relu").output)
    expected = plain(keras.applications.mobilenet.preprocess_input(pictures.copy()))
    expected = keras.ops.convert_to_numpy(expected).mean(axis=(1, 2))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(pictures)), expected, rtol=1e-4, atol=1e-6)


def test_networks_are_listed_by_pattern() -> None:
    assert transfer.list_backbones("*mobile*") == [
        "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetMobile",
    ]  # fmt: skip
    assert transfer.list_backbones("nothing*") == []


def test_an_unknown_network_is_answered_with_the_near_miss() -> None:
    with pytest.raises(ParameterError, match=r"`backbone` is 'mobilenet_v2', .* Did you mean 'MobileNetV2'"):
        transfer.get("mobilenet_v2")


def test_an_unknown_layer_is_answered_with_the_near_miss() -> None:
    with pytest.raises(
        ParameterError, match=r"`layer` is 'conv_pw3_relu', which MobileNet has not\. Did you mean 'conv"
    ):
        small(layer="conv_pw3_relu")


# -- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_come_from_a_file_that_has_a_classifier_on_top(tmp_path: Path, suffix: str) -> None:
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


def test_a_file_of_older_keras_is_read(tmp_path: Path) -> None:
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


def test_a_file_that_does_not_fit_is_refused_layer_by_layer(tmp_path: Path) -> None:
    wide = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.5)
    wide.save_weights(tmp_path / "half.weights.h5")
    message = r"of which \d+ of the \d+ layers with weights of MobileNet did not match"
    with pytest.raises(ParameterError, match=message) as error:
        small(weights=tmp_path / "half.weights.h5")
    assert "conv1: the file holds (3, 3, 3, 16), the layer takes (3, 3, 3, 32)" in str(error.value)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="alone")]).save_weights(
        tmp_path / "other.weights.h5"
    )
    with pytest.raises(ParameterError, match=r"The file is of another network\.\n  conv1: not in the file"):
        small(weights=tmp_path / "other.weights.h5")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
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


def test_an_old_file_whose_names_are_one_array_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = ["alone"]
        file["alone/kernel"] = np.zeros(1000)
        file["alone"].attrs["weight_names"] = np.array([b"kernel"] * 4000)
    with pytest.raises(ParameterError, match="arrays under two names"):
        transfer.load_weights(small(), tmp_path / "old.h5")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(compression: int, tmp_path: Path) -> None:
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


def test_without_internet_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_downloaded_weights_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_converted_weights_know_pictures(tmp_path: Path) -> None:
    """Two parts of one photograph look more alike than parts of two."""
    spec = importlib.util.spec_from_file_location("imagenet_weights", BENCHMARKS / "imagenet_weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    if weights.find() is None:
        pytest.skip(f"to run it: {weights.INSTALL}")
    from sklearn.datasets import load_sample_images

    path = weights.write(tmp_path / "MobileNetV2.weights.h5")
    model = transfer.feature_extractor("MobileNetV2", path, input_size=129)
    assert model.count_params() == transfer.get("MobileNetV2").parameters
    china, flower = load_sample_images().images
    crops = [china[:300, :300], china[50:350, 250:550], flower[:300, :300], flower[50:350, 150:450]]
    features = keras.ops.convert_to_numpy(model(np.stack(crops)))
    alike = np.corrcoef(features)
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max()


# -- features, computed once ----------------------------------------------------------------------------------------


def test_each_picture_is_computed_once(tmp_path: Path, digits: Any) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    first = extractor.features(X[:40], tmp_path)
    assert extractor.n_run == 40
    again = extractor.features(X[:60][::-1], tmp_path)
    assert extractor.n_run == 60  # only the new ones
    np.testing.assert_array_equal(again[::-1][:40], first)
    transfer._RECENT.clear()
    other = transfer.Extractor(extractor.model)  # as another process would
    np.testing.assert_array_equal(other.features(X[:60], tmp_path), again[::-1])
    assert other.n_run == 0


def test_features_are_those_of_the_model(tmp_path: Path, digits: Any) -> None:
    X, _ = digits
    model = small(channels=1)
    found = transfer.Extractor(model).features(np.concatenate([X[:10], X[:10]]), tmp_path)
    expected = keras.ops.convert_to_numpy(model(X[:10].astype("float32")))
    np.testing.assert_allclose(found, np.concatenate([expected, expected]), rtol=1e-4, atol=1e-6)


def test_other_weights_and_other_layers_are_other_features(digits: Any) -> None:
    model = small(channels=1)
    keys = {
        transfer.Extractor(one).key
        for one in (model, small(channels=1), small(channels=1, seed=1), small(channels=1, layer="conv_pw_2_relu"))
    }
    assert len(keys) == 3  # the first two are the same network, whatever its layers are called
    assert transfer.Extractor(small(channels=1, input_size=33)).key not in keys


def test_without_a_cache_the_network_runs_each_time(digits: Any, tmp_path: Path) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    for _ in range(2):
        extractor.features(X[:5], cache=False)
    assert extractor.n_run == 10
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_share_a_folder(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from kerastoolkit.transfer import FeatureCache
cache, rng = FeatureCache(sys.argv[1]), np.random.default_rng(0)
for start in range(0, 600, 20):
    cache.write("key", {str(n).encode(): np.full(50, n, "float32") for n in range(start, start + 20)})
"""
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [one.wait(1500) for one in running] == [0, 0]
    found = transfer.FeatureCache(tmp_path).read("key", {str(n).encode() for n in range(700)})
    assert len(found) == 600
    assert all((row == int(picture)).all() for picture, row in found.items())


def test_the_folder_is_kept_within_its_size(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path, size=200_000)
    rows = {str(n).encode(): np.zeros(1000, "float32") for n in range(30)}
    for key in ("first", "second", "third"):
        cache.write(key, rows)
    assert cache.n_bytes <= 200_000
    assert len(cache.read("third", set(rows))) == 30
    assert cache.read("first", set(rows)) == {}
    cache.clear()
    assert cache.n_bytes == 0


def test_a_damaged_file_is_told_and_computed_around(tmp_path: Path, digits: Any) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    expected = extractor.features(X[:3], tmp_path)
    for content in (b"no database" * 100, stored(tmp_path).read_bytes()[:5000], stored(tmp_path).read_bytes()[::-1]):
        stored(tmp_path).write_bytes(content)
        transfer._RECENT.clear()
        with pytest.warns(KerasToolkitWarning, match="cannot be (read|written).*Give another folder"):
            np.testing.assert_array_equal(extractor.features(X[:3], tmp_path), expected)
        assert stored(tmp_path).read_bytes() == content


def stored(folder: Path) -> Path:
    """The one file of features in a folder."""
    (path,) = (folder / "kerastoolkit-features").glob("*.sqlite")
    return path


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    database = sqlite3.connect(stored(tmp_path))
    database.execute("INSERT INTO features VALUES (?, ?, ?)", (b"two", b"", b""))
    database.close()  # killed before it was committed
    assert set(cache.read("key", {b"one", b"two"})) == {b"one"}


# What is done to a row of two that are stored.
_SPOILT = {
    "another number": "UPDATE features SET features = CAST('abcdefghijkl' AS BLOB) WHERE picture = x'6F6E65'",
    "another length": "UPDATE features SET features = zeroblob(8) WHERE picture = x'6F6E65'",
    "no bytes": "UPDATE features SET features = 3 WHERE picture = x'6F6E65'",
    "another digest": "UPDATE features SET digest = zeroblob(16) WHERE picture = x'6F6E65'",
    "that of another": "UPDATE features SET (features, digest) = "
    "(SELECT features, digest FROM features WHERE picture = x'74776F') WHERE picture = x'6F6E65'",
}


@pytest.mark.parametrize("what", _SPOILT)
def test_a_row_that_is_not_as_it_was_written_is_computed_anew(what: str, tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    rows = {b"one": np.ones(3, "float32"), b"two": np.full(3, 2, "float32")}
    cache.write("key", rows)
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        assert database.execute(_SPOILT[what]).rowcount == 1
    with pytest.warns(KerasToolkitWarning, match="1 of 2 rows of features in .* computed anew and replaced"):
        assert set(cache.read("key", set(rows), length=3)) == {b"two"}
    cache.write("key", {b"one": rows[b"one"]})
    assert set(cache.read("key", set(rows), length=3)) == set(rows)


def test_a_row_of_another_network_is_not_taken(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    with pytest.warns(KerasToolkitWarning, match="1 of 1 rows"):
        assert cache.read("key", {b"one"}, length=4) == {}
    stored(tmp_path).rename(cache._path("other"))
    with pytest.warns(KerasToolkitWarning, match="1 of 1 rows"):
        assert cache.read("other", {b"one"}) == {}


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.array([1.0, np.nan]), b"two": np.array([1.0, np.inf]), b"three": np.ones(2)})
    assert set(cache.read("key", {b"one", b"two", b"three"})) == {b"three"}


def test_a_picture_whose_row_is_damaged_goes_through_the_network_again(tmp_path: Path, digits: Any) -> None:
    X, _ = digits
    extractor = transfer.Extractor(small(channels=1))
    expected = extractor.features(X[:10], tmp_path)
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        database.execute("UPDATE features SET features = zeroblob(512) WHERE rowid = 3")
    transfer._RECENT.clear()
    with pytest.warns(KerasToolkitWarning, match="1 of 10 rows") as told:
        np.testing.assert_allclose(extractor.features(X[:10], tmp_path), expected, rtol=1e-4, atol=1e-6)
    assert extractor.n_run == 11
    assert sum(one.category is KerasToolkitWarning for one in told) == 1
    transfer._RECENT.clear()
    np.testing.assert_allclose(extractor.features(X[:10], tmp_path), expected, rtol=1e-4, atol=1e-6)  # no warning
    assert extractor.n_run == 11


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    """Neither in the folder that was given nor in the one of the cache, whatever they are called."""
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    own = stored(tmp_path)
    foreign = [tmp_path / "orders.sqlite", tmp_path / own.name, cache.folder / "orders.sqlite"]
    foreign += [cache.folder / f"{'0' * 32}.sqlite", cache._path("other")]
    for path in foreign:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE orders (amount)")
            database.execute("INSERT INTO orders VALUES (zeroblob(100000))")
    notes = [cache.folder / f"{own.name}-notes", cache.folder / f"{'1' * 32}.sqlite-journal", cache.folder / "a.txt"]
    for path in notes:
        path.write_text("mine")
    before = {path: path.read_bytes() for path in (*foreign, *notes)}
    with pytest.warns(KerasToolkitWarning, match="it is not a file of features"):
        assert cache.read("other", {b"one"}) == {}
    with pytest.warns(KerasToolkitWarning, match="it is not a file of features"):
        cache.write("other", {b"one": np.ones(3)})
    assert cache.n_bytes == own.stat().st_size
    cache.size = 1
    cache.write("third", {b"one": np.ones(3)})  # beyond the size: all that are ours go
    assert not own.exists()
    cache.clear()
    assert cache.n_bytes == 0
    assert {path: path.read_bytes() for path in (*foreign, *notes)} == before


def test_what_a_killed_process_left_goes_with_its_file(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    left = Path(f"{stored(tmp_path)}-journal")
    left.write_bytes(bytes(1000))
    assert cache.n_bytes == stored(tmp_path).stat().st_size + 1000
    cache.clear()
    assert list(cache.folder.iterdir()) == []


def test_a_file_that_does_more_than_keep_rows_is_not_used(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        database.execute("CREATE TRIGGER more AFTER INSERT ON features BEGIN DELETE FROM features; END")
    with pytest.warns(KerasToolkitWarning, match="it holds other tables, views or triggers than ours"):
        assert cache.read("key", {b"one"}) == {}


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="is about rights on POSIX")


@posix
def test_features_are_private_to_the_user(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path / "new")
    cache.write("key", {b"one": np.ones(3)})
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(tmp_path / "new").stat().st_mode) == 0o600
    cache.folder.chmod(0o777)
    stored(tmp_path / "new").chmod(0o666)
    assert set(cache.read("key", {b"one"})) == {b"one"}
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(tmp_path / "new").stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("what", ["the folder is a link", "the file is a link", "another user's", "a dangling link"])
def test_what_may_be_somebody_elses_is_not_used(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = transfer.FeatureCache(tmp_path / "theirs")
    theirs.write("key", {b"one": np.ones(3)})
    before = stored(tmp_path / "theirs").read_bytes()
    cache = transfer.FeatureCache(tmp_path / "ours")
    cache.folder.parent.mkdir()
    if what == "the folder is a link":
        cache.folder.symlink_to(theirs.folder)
    elif what == "another user's":
        theirs.folder.rename(cache.folder)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        cache.folder.mkdir()
        name = "nothing" if what == "a dangling link" else stored(tmp_path / "theirs").name
        cache._path("key").symlink_to(theirs.folder / name)
    with pytest.warns(KerasToolkitWarning, match="is a link|belongs to another user"):
        assert cache.read("key", {b"one"}) == {}
    with pytest.warns(KerasToolkitWarning, match="is a link|belongs to another user"):
        cache.write("key", {b"two": np.ones(3)})
    assert not (theirs.folder / "nothing").exists()
    monkeypatch.undo()
    assert stored(tmp_path / ("ours" if what == "another user's" else "theirs")).read_bytes() == before


# -- fine-tuning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "lowest"),
    [(3, "conv_pw_3"), (0.25, None), ("conv_dw_3", "conv_dw_3"), (1.0, "conv1"), (0, None)],
)
def test_the_upper_layers_train(amount: Any, lowest: str | None) -> None:
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


def test_batch_normalization_stays_as_it_is_unless_told() -> None:
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
    transfer.update_batch_norm(model, X, batch_size=8, most=32)

    batches = X[np.random.default_rng(0).permutation(40)[:32]].reshape(4, 8, 3)
    expected = [batches.mean(axis=1).mean(axis=0), batches.var(axis=1).mean(axis=0)]
    np.testing.assert_allclose(first.get_weights(), expected, rtol=1e-5)
    # What comes out of the first, batch by batch, has mean 0 and variance 1.
    np.testing.assert_allclose(inner.layers[0].get_weights()[2:], [[0.0] * 3, [1.0] * 3], atol=1e-5)
    np.testing.assert_array_equal(frozen.get_weights()[2:], [[0.0] * 3, [1.0] * 3])
    assert [layer.momentum for layer in (first, inner.layers[0])] == [0.7, 0.99]


@pytest.mark.parametrize("amount", [-1, 1.5, True, None])
def test_an_amount_that_is_none_is_refused(amount: Any) -> None:
    with pytest.raises(ParameterError, match="`unfreeze` must be a whole number of layers, a fraction"):
        transfer.unfreeze(small().layers, amount)


def test_a_block_that_is_not_there_is_answered_with_the_near_miss() -> None:
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
def test_a_rate_that_is_none_is_refused(arguments: Any, name: str) -> None:
    with pytest.raises(ParameterError, match=f"`{name}` must be"):
        transfer.optimizer_by_depth(keras.optimizers.Adam(), small().layers, *arguments)


# -- nets from nets -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> KerasClassifier:
    X, y = load_digits(return_X_y=True)
    return KerasClassifier(hidden=(32, 16), epochs=15, random_state=0).fit(X[y < 5], y[y < 5])


def test_the_layers_below_the_cut_are_copied(trained: KerasClassifier) -> None:
    X, _ = load_digits(return_X_y=True)
    model = transfer.derive(trained, Head.multiclass(3))
    assert model.output_shape == (None, 3)
    below = keras.Model(trained.model_.input, trained.model_.layers[-2].output)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.Model(model.input, model.layers[-2].output)(X)),
        keras.ops.convert_to_numpy(below(X)),
    )
    before = trained.model_.get_weights()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X[:100], np.zeros(100), verbose=0)
    for ours, theirs in zip(trained.model_.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # the source is not changed
    np.testing.assert_array_equal(model.layers[1].get_weights()[0], before[0])  # and what was kept is frozen
    assert len(model.trainable_variables) == 2


def test_what_is_not_frozen_trains(trained: KerasClassifier) -> None:
    model = transfer.derive(trained, Head.binary(), frozen=False)
    assert len(model.trainable_variables) == 6


def test_a_derived_network_is_the_model_of_an_estimator_and_of_a_grid(trained: KerasClassifier) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[y >= 5][:300], y[y >= 5][:300]
    names = [layer.name for layer in trained.model_.layers]
    model = KerasClassifier(transfer.derive(trained), optimizer__learning_rate=0.01, epochs=20, random_state=0)
    below = keras.Model(trained.model_.input, trained.model_.layers[-2].output)
    features = keras.ops.convert_to_numpy(below(X))
    assert model.fit(X, y).score(X, y) > LogisticRegression(max_iter=500).fit(features, y).score(features, y) - 0.1
    assert set(model.classes_) == {5, 6, 7, 8, 9}
    search = GridSearchCV(model, {"frozen": [True, False], "layer": [names[2], names[4]]}, cv=2).fit(X, y)
    assert search.best_params_["frozen"] is False  # more that can be learned, from the same start
    with pytest.raises(ParameterError, match="Did you mean 'frozen'"):
        model.set_params(frozn=True)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert copy.deepcopy(model.model) is model.model


def test_a_layer_inside_a_model_inside_is_found() -> None:
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="inner_1"), keras.layers.Conv2D(2, 3, name="inner_2")],
        name="inner",
    )
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inner(inputs / 255.0))
    outer = keras.Model(inputs, keras.layers.Activation("softmax")(keras.layers.Dense(3, name="last")(x)))
    X = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype("float32")
    model = transfer.derive(outer, Head.binary(), layer="inner_1")  # a map of features, averaged
    kernel, bias = inner.get_layer("inner_1").get_weights()
    expected = keras.ops.convert_to_numpy(keras.ops.conv(X / 255.0, kernel)) + bias
    found = keras.Model(model.input, model.layers[-2].output)(X)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    whole = transfer.derive(outer, Head.binary())  # before the activation and the layer that it belongs to
    assert whole.layers[-1].input.shape == (None, 32)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (KerasClassifier(), "that is not fitted; fit it first"),
        ("MobileNet", "must be a fitted estimator of kerastoolkit or a keras.Model; got str"),
    ],
)
def test_a_source_that_cannot_be_cut_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        transfer.derive(source)


def test_a_model_without_a_graph_is_refused() -> None:
    class Mine(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ParameterError, match="a Mine whose layers are not a graph"):
        transfer.derive(Mine())


def test_a_wrong_layer_is_answered_with_the_near_miss(trained: KerasClassifier) -> None:
    name = trained.model_.layers[1].name
    with pytest.raises(ParameterError, match=re.escape(f"`layer` is '{name}0'") + ".*" + re.escape(f"'{name}'")):
        transfer.derive(trained, layer=name + "0")
