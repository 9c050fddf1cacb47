"""Images in, by way of a network that is trained already: as scikit-learn and Keras by hand would do it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from kerastoolkit import ImageClassifier, ImageRegressor, load, transfer
from kerastoolkit.estimators._image_readers import EXTRACTORS
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError
from kerastoolkit.search import GridSearchCV
from kerastoolkit.transfer.features import RECENT_FEATURES

SMALL = {"backbone": "MobileNet", "weights": None, "input_size": 32, "layer": "conv_pw_2_relu", "random_state": 0}
FINE = {**SMALL, "training": "fine_tune", "head_epochs": 5}
needs_rates = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of caches, for one test."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "caches"))
    RECENT_FEATURES.clear()
    EXTRACTORS._kept.clear()
    return tmp_path / "caches"


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return (X * 255 / 16).round().astype("uint8").reshape(-1, 8, 8), y


@pytest.fixture(scope="module")
def scratch(digits: Any) -> ImageClassifier:
    """All of a small network, trained from random weights on some digits."""
    X, y = digits
    model = ImageClassifier(**SMALL, training="fine_tune", learning_rate=0.003, epochs=8, batch_size=16, cache=False)
    return model.fit(X[:300], y[:300])


@pytest.fixture(scope="module")
def weights(scratch: ImageClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights, to start from."""
    path = tmp_path_factory.mktemp("weights") / "scratch.keras"
    scratch.model_.save(path)
    return path


def n_run() -> int:
    """Images that went through backbones since the test began."""
    return sum(extractor.n_computed for _, extractor in EXTRACTORS._kept.items())


# -- frozen features ------------------------------------------------------------------------------------------------


def test_the_head_learns_what_logistic_regression_learns_from_the_same_features(digits: Any) -> None:
    X, y = digits
    model = ImageClassifier(**SMALL, epochs=60).fit(X[:600], y[:600])
    features = model.feature_encoder_.extractor.features(X[..., None])
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(features[:600], y[:600])
    assert model.score(X[600:1200], y[600:1200]) == pytest.approx(
        reference.score(features[600:1200], y[600:1200]), abs=0.03
    )


def test_a_grid_over_heads_runs_the_backbone_once_a_image_and_trains_as_one_program(digits: Any) -> None:
    X, y = digits[0][:200], digits[1][:200]
    grid = {"optimizer__learning_rate": [0.001, 0.003, 0.01], "hidden": [(8,)], "dropout": [0.1, 0.3]}
    ours = GridSearchCV(ImageClassifier(**SMALL, epochs=3), grid, cv=5).fit(X, y)
    assert n_run() == 200
    assert "30 fits trained together, as one program" in ours.explain()
    ImageClassifier(**SMALL, hidden=(4,), epochs=1).fit(X[::-1], y[::-1])
    assert n_run() == 200
    one = ImageClassifier(**SMALL, **{name: values[0] for name, values in grid.items()}, epochs=3, cache=False)
    scores = model_selection.cross_val_score(one, X, y, cv=5)
    assert n_run() == 200 + 5 * 200  # without a cache, in each fold once to learn from or to be predicted
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"][0], scores.mean(), atol=0.005 + 1e-6)


def test_features_are_found_by_another_process(digits: Any, cache: Path) -> None:
    X, y = digits[0][:50], digits[1][:50]
    model = ImageClassifier(**SMALL, epochs=1).fit(X, y)
    assert list((cache / "kerastoolkit" / "features").glob("*.sqlite"))
    RECENT_FEATURES.clear()  # what a process knows of itself
    EXTRACTORS._kept.clear()
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), model.predict_proba(X))
    assert n_run() == 0


def test_the_model_takes_images_as_they_are(digits: Any, tmp_path: Path) -> None:
    X, y = digits
    model = ImageClassifier(**SMALL, epochs=3).fit(X[:100], y[:100])
    expected = model.predict_proba(X[:40])
    whole = model.model_
    assert whole is model.model_
    np.testing.assert_allclose(whole.predict(X[:40, ..., None], verbose=0), expected, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X[:40], batch_size=7), expected, atol=1e-4)
    whole.save(tmp_path / "whole.keras")  # nothing in it is ours: any Keras reads it
    again = keras.saving.load_model(tmp_path / "whole.keras")
    np.testing.assert_allclose(again.predict(X[:40, ..., None], verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize("training", ["features", pytest.param("fine_tune", marks=needs_rates)])
def test_copies_predict_the_same(digits: Any, training: str, tmp_path: Path, request: Any) -> None:
    X, y = digits[0][:60], np.array(list("abcdefghij"))[digits[1][:60]]
    if training == "fine_tune":
        model = request.getfixturevalue("scratch")
    else:
        model = ImageClassifier(**SMALL, hidden=(8,), epochs=1).fit(X, y)
    again = load(model.save(tmp_path / "one.zip"))
    for other in (pickle.loads(pickle.dumps(model)), again):
        # TensorFlow may put the operations of a model that was read in another order.
        np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), rtol=1e-6)
        assert other.predict(X).tolist() == model.predict(X).tolist()
        assert other.get_params() == model.get_params()
    assert clone(model).get_params() == model.get_params()
    assert again.history_ == model.history_
    assert again.head_history_ == model.head_history_


def test_parameters_are_those_of_the_head_and_no_others(digits: Any) -> None:
    model = ImageClassifier(**SMALL, l2=0.01, optimizer__learning_rate=0.01)
    assert "model" not in model.get_params()
    assert model.set_params(normalization="batch", hidden=(5,)).get_params()["normalization"] == "batch"
    with pytest.raises(ParameterError, match="Did you mean 'training'"):
        model.set_params(strategi="fine_tune")
    kinds = [type(layer).__name__ for layer in model.fit(*digits).model_.layers[-1].layers]
    assert "BatchNormalization" in kinds


def test_a_regressor_predicts_in_the_units_of_the_target(digits: Any) -> None:
    X, y = digits[0][:300], digits[0][:300].mean(axis=(1, 2)) * 1000.0
    model = ImageRegressor(**SMALL, epochs=60).fit(X, y)
    assert model.score(X, y) > 0.8
    assert model.predict(X[:5]).shape == (5,)
    assert 0.5 < model.predict(X).std() / y.std() < 1.5


def test_files_folders_and_arrays_are_the_same_images(digits: Any, tmp_path: Path) -> None:
    X, y = digits[0][:40], digits[1][:40] % 2
    folder = tmp_path / "images"
    for place, (image, label) in enumerate(zip(X, y, strict=True)):
        (folder / f"class_{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"class_{label}" / f"{place:02}.png")
    model = ImageClassifier(**SMALL, epochs=3).fit(str(folder))
    assert model.classes_.tolist() == ["class_0", "class_1"]
    order = np.argsort(y, kind="stable")  # as the folder is sorted
    of_arrays = ImageClassifier(**SMALL, epochs=3).fit(X[order].repeat(3).reshape(-1, 8, 8, 3), y[order])
    np.testing.assert_allclose(model.predict_proba(folder), of_arrays.predict_proba(X[order]), atol=1e-6)
    files = sorted(map(str, folder.rglob("*.png")))
    assert model.score(folder) == of_arrays.score(X[order], y[order])
    assert model.predict(files[0]).shape == (1,)
    labels = [Path(file).parent.name for file in files]
    scores = model_selection.cross_val_score(ImageClassifier(**SMALL, epochs=3), files, labels, cv=2)
    assert np.isfinite(scores).all()


def test_it_ends_a_pipeline_and_holds_out_rows(digits: Any) -> None:
    X, y = digits
    flipped = FunctionTransformer(lambda X: 255 - X)
    model = make_pipeline(flipped, ImageClassifier(**SMALL, epochs=3, validation_split=0.2)).fit(X[:200], y[:200])
    assert len(model[-1].history_["val_loss"]) == 3
    assert model.predict(X[:3]).shape == (3,)
    other = ImageClassifier(**SMALL, epochs=2).fit(X[:100], y[:100], validation_data=(X[100:150], y[100:150]))
    assert len(other.history_["val_loss"]) == 2


def test_a_local_file_of_weights_is_what_the_features_come_from(digits: Any, tmp_path: Path) -> None:
    X, y = digits[0][:60], digits[1][:60]
    first = ImageClassifier(**SMALL, epochs=1).fit(X, y)
    first.model_.save_weights(tmp_path / "own.weights.h5")
    arguments = {**SMALL, "weights": tmp_path / "own.weights.h5", "random_state": 7}
    second = ImageClassifier(**arguments, epochs=1).fit(X, y)
    extractors = [one.feature_encoder_.extractor.model for one in (first, second)]
    for ours, theirs in zip(*(one.get_weights() for one in extractors), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = load(second.save(tmp_path / "one.zip"))
    assert again.weights == tmp_path / "own.weights.h5"


# -- fine-tuning ----------------------------------------------------------------------------------------------------


@needs_rates
def test_fine_tuning_begins_where_the_head_ended(digits: Any, weights: Path) -> None:
    X, y = digits[0][:120], digits[1][:120]
    head = ImageClassifier(**{**SMALL, "weights": weights}, epochs=5).fit(X, y)
    whole = ImageClassifier(**{**FINE, "weights": weights}, learning_rate=1e-12, epochs=1).fit(X, y)
    np.testing.assert_allclose(whole.predict_proba(X), head.predict_proba(X), atol=1e-4)
    assert whole.head_history_ == head.history_
    assert len(whole.history_["loss"]) == 1
    optimizer = whole.model_.optimizer
    rates = [float(one.learning_rate) for one in optimizer.optimizers]
    np.testing.assert_allclose(sorted(rates), np.geomspace(1e-13, 1e-12, len(rates)), rtol=1e-4)


@needs_rates
@pytest.mark.parametrize("batch_norm", [None, "training"])
def test_only_what_is_unfrozen_changes(digits: Any, batch_norm: Any, weights: Path) -> None:
    X, y = digits[0][:64], digits[1][:64]
    arguments = {**FINE, "weights": weights, "batch_norm": batch_norm, "unfreeze": "conv_dw_2"}
    model = ImageClassifier(**arguments, epochs=1, learning_rate=0.01).fit(X, y)
    start = keras.saving.load_model(weights)
    changed = set()
    for layer in [layer for layer in start.layers[:-2] if layer.weights]:
        after = model.model_.get_layer(layer.name).get_weights()
        if not all(map(np.array_equal, layer.get_weights(), after)):
            changed.add(layer.name)
    kernels = {"conv_dw_2", "conv_pw_2"}
    assert changed == kernels | ({"conv_dw_2_bn", "conv_pw_2_bn"} if batch_norm == "training" else set())


def test_random_weights_are_trained_at_once_and_learn_more_than_a_head_on_them(
    digits: Any, scratch: ImageClassifier
) -> None:
    X, y = digits
    head = ImageClassifier(**SMALL, epochs=8).fit(X[:300], y[:300])
    assert scratch.score(X[:300], y[:300]) > head.score(X[:300], y[:300])
    assert scratch.score(X[300:800], y[300:800]) > 0.5
    assert scratch.head_history_ == {}  # random weights have nothing to keep while a head is trained
    assert clone(scratch).get_params() == scratch.get_params()


def statistics(model: keras.Model) -> Any:
    """Means and variances of all BatchNormalization, one after the other."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return np.concatenate([np.concatenate(layer.get_weights()[2:]) for layer in layers])


def test_statistics_are_those_of_the_final_weights_and_of_the_rows_trained_on(
    digits: Any, scratch: ImageClassifier
) -> None:
    X, y = digits
    ended = statistics(scratch.model_)
    copy = keras.models.clone_model(scratch.model_)
    copy.set_weights(scratch.model_.get_weights())
    transfer.update_batch_norm(copy, X[:300, ..., None], batch_size=16)
    np.testing.assert_allclose(statistics(copy), ended, rtol=1e-3, atol=1e-4)

    few = X[300:316], y[300:316]  # one batch, which moves the running averages by a tenth
    transfer.update_batch_norm(copy, few[0][..., None], batch_size=16)
    further = pickle.loads(pickle.dumps(scratch)).partial_fit(*few)
    np.testing.assert_allclose(statistics(further.model_), 0.9 * ended + 0.1 * statistics(copy), rtol=1e-3, atol=1e-4)


@needs_rates
def test_augmentation_is_for_training_alone(digits: Any, weights: Path) -> None:
    X, y = digits[0][:64], digits[1][:64]
    changes = [keras.layers.RandomFlip("vertical", name="mine"), keras.layers.RandomBrightness(0.1, (0, 255))]
    own = ImageClassifier(**{**FINE, "weights": weights}, augment=changes, epochs=1)
    model = clone(own).fit(X, y)
    names = [layer.name for layer in model.model_.layers]
    assert names.index("mine") < names.index("conv1")
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert [layer.name for layer in clone(own).set_params(augment=True)._changes()] == ["augment_flip", "augment_shift"]


@needs_rates
def test_a_number_is_fine_tuned_in_its_own_units(digits: Any, weights: Path) -> None:
    X, y = digits[0][:100], 1000.0 * digits[1][:100]
    model = ImageRegressor(**{**FINE, "weights": weights}, epochs=2).fit(X, y)
    assert max(model.history_["loss"]) < 10  # of the standardized target
    assert model.history_["loss"][1] < model.history_["loss"][0]
    assert model.partial_fit(X, y).n_iter_ == 3


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "MobileNetV"}, "Did you mean"),
        ({"training": "finetune"}, "`training` must be 'features' or 'fine_tune'"),
        ({"input_size": 31}, "`input_size` must be a whole number of at least 32 pixels for MobileNet; got 31"),
        ({"weights": "missing.weights.h5"}, "there is no such file"),
        ({"layer": "conv_pw_2_rel"}, "Did you mean 'conv_pw_2_relu'"),
        ({"augment": True}, "computes the features of each image only once"),
        ({"augment": "flip", "training": "fine_tune"}, "`augment` must be True, a Keras layer"),
        ({"batch_norm": "frozen"}, "`batch_norm` must be"),
        ({"cache": 3}, "`cache` must be True, False or a folder"),
        ({"unfreeze": 2.0, "training": "fine_tune"}, "`unfreeze` must be"),
        ({"learning_rate": -1.0, "training": "fine_tune"}, "`learning_rate` must be"),
        ({"unfreeze": "conv_pw_9", "training": "fine_tune"}, "no layer or block has that name. Did you mean 'conv_pw_"),
        ({"epochs": 0}, "`epochs` must be"),
        ({"hiden": (3,)}, "Did you mean 'hidden'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_parameter_is_refused_before_any_work(params: Any, message: str, digits: Any) -> None:
    X, y = digits[0][:20], digits[1][:20]
    with pytest.raises(ParameterError, match=message):
        ImageClassifier(**{**SMALL, **params}).fit(X, y)
    assert n_run() == 0


def test_wrong_images_are_refused(digits: Any, tmp_path: Path) -> None:
    X, y = digits[0][:20], digits[1][:20]
    model = ImageClassifier(**SMALL, epochs=1)
    with pytest.raises(DataError, match="0 to 1"):
        model.fit(X / 255.0, y)
    with pytest.raises(DataError, match="holds only one class"):
        model.fit(X, np.zeros(20))
    with pytest.raises(DataError, match="requires y to be passed"):
        model.fit(X)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="has no sub-folders"):
        model.fit(tmp_path / "folder")
    with pytest.raises(DataError, match="A folder has classes, not numbers"):
        ImageRegressor(**SMALL).fit(tmp_path / "folder")
    assert not hasattr(model, "model_")
    model.fit(X, y)
    with pytest.raises(DataError, match="was fitted with grey"):
        model.predict(np.stack([X, X, X], axis=-1))
    with pytest.warns(KerasToolkitWarning, match="these look black"):
        model.predict(X / 255.0)
    assert model.predict(digits[0][:3].repeat(2, axis=1)).shape == (3,)  # images of another size


def test_a_data_set_is_refused_with_what_to_give(digits: Any) -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return digits

    with pytest.raises(DataError, match="got a data set of batches. Give the folder"):
        ImageClassifier(**SMALL).fit(Batches())
