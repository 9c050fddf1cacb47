"""What every estimator promises of its file: it predicts the same anywhere, has no pickle, is refused when spoilt."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
import sklearn.metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.ensemble import RandomForestRegressor, VotingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, scale

from kerastoolkit import KerasClassifier, KerasRegressor, KerasTransformer, TextClassifier, estimators, load, save
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.search import GridSearchCV

ESTIMATORS = [kind for _, kind in inspect.getmembers(estimators, inspect.isclass)]
BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}  # by the module it needs


def _data(kind: type) -> tuple[Any, Any]:
    if kind in _OF_IMAGES:
        digits = load_digits()
        return (digits.images[:100] * 255 / 16).astype("uint8"), digits.target[:100]
    if issubclass(kind, TextClassifier):
        rooms = (sklearn.linear_model, sklearn.metrics)
        rows = [(getattr(room, name).__doc__, room.__name__) for room in rooms for name in room.__all__]
        return np.array([text[:200] for text, _ in rows]), np.array([label for _, label in rows])
    X, y = (load_breast_cancer if issubclass(kind, KerasClassifier) else load_diabetes)(return_X_y=True)
    return scale(X).astype("float32"), y


_OF_IMAGES = (estimators.ImageClassifier, estimators.ImageRegressor)
_SMALL_BACKBONE = {
    "backbone": "MobileNet", "weights": None, "input_size": 32, "layer": "conv_pw_2_relu", "cache": False,
}  # fmt: skip


def _fitted(kind: type) -> Any:
    X, y = _data(kind)
    # No dropout: Keras' file does not hold how far the generator of its masks has come.
    params = _SMALL_BACKBONE if kind in _OF_IMAGES else {}
    return kind(hidden=(8,), epochs=3, random_state=0, **params).fit(X, y), X, y


@pytest.fixture(params=ESTIMATORS, ids=lambda kind: kind.__name__)
def fitted(request: pytest.FixtureRequest) -> Any:
    return _fitted(request.param)


@pytest.fixture(scope="module")
def all_fitted() -> dict[str, Any]:
    built = {"Pipeline": _pipeline(), "GridSearchCV": _search()}
    return {**{kind.__name__: _fitted(kind) for kind in ESTIMATORS}, **built}


def _pipeline() -> Any:
    X, y = _data(KerasClassifier)
    network = CalibratedClassifierCV(KerasClassifier(hidden=(8,), epochs=2, random_state=0), cv=2)
    return make_pipeline(StandardScaler(), KerasTransformer(hidden=(4,), epochs=2), network).fit(X, y), X, y


def _search() -> Any:
    X, y = _data(KerasRegressor)
    members = [("net", KerasRegressor(hidden=(8,), epochs=2, random_state=0)), ("forest", RandomForestRegressor(5))]
    grid = {"net__optimizer__learning_rate": [0.01, 0.1]}
    return GridSearchCV(VotingRegressor(members), grid, cv=2).fit(X, y), X, y


def test_a_file_predicts_the_same_and_goes_on_training(fitted: Any, tmp_path: Path) -> None:
    estimator, X, y = fitted
    again = load(estimator.save(tmp_path / "one.zip"))
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    assert again.get_params() == estimator.get_params()
    assert again.history_ == estimator.history_
    assert again.partial_fit(X, y).n_iter_ == estimator.n_iter_ + 1
    # The optimizer's moments and the generator of seeds came over too, so that both see the same batches.
    losses = [one.history_["loss"][-1] for one in (again, estimator.partial_fit(X, y))]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_file_holds_no_pickle(fitted: Any, tmp_path: Path) -> None:
    path = fitted[0].save(tmp_path / "one.zip")
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == ["estimator.json", "model.keras"]
        assert json.loads(file.read("estimator.json"))["versions"]["keras"] == keras.__version__
        file.extract("model.keras", tmp_path)
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert b"keras.src.backend" not in file.read("config.json")  # would ask for this backend wherever it is read


@pytest.mark.parametrize("other", BACKENDS)
def test_files_predict_the_same_under_another_backend(all_fitted: Any, tmp_path: Path, other: str) -> None:
    if importlib.util.find_spec(BACKENDS[other]) is None:
        pytest.skip(f"needs {other}: pip install {other}")
    for name, (estimator, X, _) in all_fitted.items():
        save(estimator, tmp_path / f"{name}.zip")
        np.save(tmp_path / f"{name}-X.npy", X)
    program = (  # one for all files, since it takes longest to begin
        "import sys, numpy as np, keras, kerastoolkit\n"
        "for path in sys.argv[1:]:\n"
        "    estimator = kerastoolkit.load(path + '.zip')\n"
        "    X = np.load(path + '-X.npy')\n"
        "    raw = estimator.predict_proba(X) if hasattr(estimator, 'predict_proba') else estimator.predict(X)\n"
        "    np.save(path + '-raw.npy', raw)\n"
        "print(keras.config.backend())\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": other}
    command = [sys.executable, "-c", program, *(str(tmp_path / name) for name in all_fitted)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [other]
    for name, (estimator, X, _) in all_fitted.items():
        expected = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)
        # Rounding is of the size of the largest numbers that went in, also where the sum of them is near zero.
        scale_of_all = max(1.0, float(np.abs(expected).max()))
        raw = np.load(tmp_path / f"{name}-raw.npy")
        np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-5 * scale_of_all, err_msg=name)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (lambda y: np.array(["one", "two", "three"])[y], ["one", "three", "two"]),
        (lambda y: np.array(["one", "two", "three"], dtype=object)[y], ["one", "three", "two"]),
        (lambda y: y > 0, [False, True]),
        (lambda y: np.eye(3, dtype=int)[y], [0, 1, 2]),
    ],
    ids=["strings", "objects", "bools", "one-hot"],
)
def test_labels_of_any_kind_come_back(target: Any, names: list[Any], tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    estimator = KerasClassifier(hidden=(4,), epochs=1).fit(X, target(y))
    again = load(estimator.save(tmp_path / "one.zip"))
    assert again.classes_.tolist() == names
    assert again.predict(X).dtype == estimator.predict(X).dtype
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D", "25D"])
@pytest.mark.parametrize("kind", ["datetime64", "timedelta64"])
def test_labels_that_are_dates_or_durations_come_back(kind: str, unit: str, tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    labels = np.array([-5, 0, 20_000], dtype="int64").astype(f"{kind}[{unit}]")
    estimator = KerasClassifier(three_classes, since=labels[0], marks=(b"\x00\xff", labels), epochs=1).fit(X, labels[y])
    again = load(estimator.save(tmp_path / "one.zip"), custom_objects={"three_classes": three_classes})
    assert again.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    assert again.partial_fit(X, labels[y]).n_iter_ == 2
    assert again.since == labels[0] and again.since.dtype == labels.dtype
    assert again.marks[0] == b"\x00\xff"
    np.testing.assert_array_equal(again.marks[1], labels)


def test_what_could_not_be_read_again_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    days = pd.to_datetime(["2026-01-01", "2026-01-02"])
    table = pd.DataFrame([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0], [4.0, 2.0]], columns=days)
    estimator = KerasClassifier("tabular", hidden=(2,), epochs=1).fit(table, [0, 1, 0, 1])
    with pytest.raises(SavedFileError, match="`columns_` holds '2026-01-01 00:00:00', a Timestamp"):
        estimator.save(tmp_path / "one.zip")
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    estimator = KerasClassifier(on_top, below=base, beside=keras.models.clone_model(base), epochs=1)
    with pytest.raises(SavedFileError, match="Two parameters of the estimator are models"):
        estimator.fit(table.to_numpy(), [0, 1, 0, 1]).save(tmp_path / "one.zip")
    with pytest.raises(SavedFileError, match="`feature_encoder` of its own .FunctionTransformer. cannot be saved"):
        Reversing(hidden=(2,), epochs=1).fit(table.to_numpy(), [0, 1, 0, 1]).save(tmp_path / "one.zip")
    assert list(tmp_path.iterdir()) == []


def on_top(input_shape: Any, head: Any, below: Any, beside: Any) -> Any:
    return keras.Sequential([keras.Input(input_shape), head.output_layer()])


class Reversing(KerasClassifier):
    """A classifier that reads its columns from right to left."""

    @property
    def feature_encoder(self) -> Any:
        return FunctionTransformer(lambda X: X[:, ::-1])


def test_a_function_of_the_users_is_followed_if_it_is_handed_over_or_the_file_is_trusted(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    path = KerasClassifier(three_classes, epochs=1).fit(X, y).save(tmp_path / "one.zip")
    name = f"{__name__}:three_classes"
    again = load(path)
    assert again.predict(X).shape == (150,)
    with pytest.raises(ParameterError, match=f"was {name}, of which the file contains only the name. Pass it"):
        again.fit(X, y)
    assert again.set_params(model=three_classes).fit(X, y).n_iter_ == 1
    for names in ({name: three_classes}, {"three_classes": three_classes}):
        assert load(path, custom_objects=names).fit(X, y).model is three_classes
    assert load(path, safe_mode=False).fit(X, y).model is three_classes
    # What was not found can be saved again, and be found later.
    assert load(load(path).save(path), safe_mode=False).model is three_classes


def test_a_subclass_is_followed_likewise_and_else_read_as_what_it_is_a_subclass_of(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    estimator = Named(epochs=1, units=2).fit(X, y)
    path = estimator.save(tmp_path / "one.zip")
    with pytest.warns(KerasToolkitWarning, match=f"{__name__}:Named', which was not found: it is read as a KerasClas"):
        again = load(path)
    assert type(again) is KerasClassifier
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))
    with pytest.raises(ParameterError, match="Pass it to kerastoolkit.load"):  # and not another network in silence
        again.fit(X, y)
    for options in ({"custom_objects": {"Named": Named}}, {"safe_mode": False}):
        found = load(path, **options)
        assert type(found) is Named and found.units == 2
        np.testing.assert_array_equal(found.predict(X), ["a flower"] * 150)


class Named(KerasClassifier):
    """A classifier with a network and predictions of its own."""

    def __init__(self, units: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def _keras_build_fn(self, input_shape: Any, head: Any) -> Any:
        layers = [keras.Input(input_shape), keras.layers.Dense(self.units), head.output_layer()]
        return keras.Sequential(layers)

    def predict(self, X: Any, **options: Any) -> Any:
        return ["a flower"] * len(X)


def three_classes(input_shape: tuple[int, ...], head: Any, since: Any = None, marks: Any = ()) -> Any:
    return keras.Sequential([keras.Input(input_shape), head.output_layer()])


def _rewrite(path: Path, description: dict[str, Any]) -> None:
    with zipfile.ZipFile(path) as file:
        model = file.read("model.keras")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("estimator.json", json.dumps(description))
        file.writestr("model.keras", model)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _text(path: Path) -> None:
    path.write_text("nothing of ours")


def _other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "nothing of ours")


def _keras_file(path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(path.with_suffix(".keras"))
    path.write_bytes(path.with_suffix(".keras").read_bytes())


def _newer(path: Path) -> None:
    description = json.loads(zipfile.ZipFile(path).read("estimator.json"))
    _rewrite(path, description | {"format": 99, "versions": description["versions"] | {"kerastoolkit": "9.0"}})


def _no_json(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("estimator.json", "{")
        file.writestr("model.keras", "")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "is damaged or was not written by an estimator's `save`"),
        (_flip, "is damaged"),
        (_text, "is damaged or was not written by an estimator's `save`"),
        (_other_zip, "was not written by an estimator's `save`"),
        (_keras_file, "was not written by an estimator's `save`.*keras.saving.load_model"),
        (_newer, "written by kerastoolkit 9.0 in format 99.*Upgrade kerastoolkit"),
        (_no_json, "estimator.json of .* is damaged: it is not JSON"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoilt_file_is_refused_with_the_reason(spoil: Any, message: str, tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    path = KerasRegressor(hidden=(4,), epochs=1).fit(X, y).save(tmp_path / "one.zip")
    spoil(path)
    with pytest.raises(SavedFileError, match=message):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.zip"):
        load(tmp_path / "nothing.zip")
