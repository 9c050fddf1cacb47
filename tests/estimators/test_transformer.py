"""`KerasTransformer`: rows through a few numbers and back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasTransformer
from kerastoolkit.exceptions import DataError, ModelMismatchError


@pytest.fixture(scope="module")
def digits() -> Any:
    return (load_digits().data / 16).astype("float32")


def test_without_hidden_layers_it_comes_near_to_pca(digits: Any) -> None:
    # A linear autoencoder cannot do better than principal components, and trained long does as well.
    estimator = KerasTransformer(
        n_components=4, hidden=(), epochs=60, optimizer__learning_rate=0.01, random_state=0
    ).fit(digits)
    pca = PCA(4).fit(digits)
    best = np.mean((pca.inverse_transform(pca.transform(digits)) - digits) ** 2)
    assert best <= -estimator.score(digits) < 1.05 * best


def test_both_halves_are_the_model(digits: Any) -> None:
    estimator = KerasTransformer(n_components=4, hidden=(16,), epochs=1, random_state=0).fit(digits)
    code = estimator.transform(digits)
    assert code.shape == (len(digits), 4)
    rows = estimator.predict(digits)
    assert_allclose(estimator.inverse_transform(code), rows, rtol=1e-5, atol=1e-6)
    assert_allclose(code[:5], estimator.encoder_.predict(digits[:5], verbose=0), rtol=1e-5, atol=1e-6)
    assert_allclose(rows[:5], estimator.decoder_.predict(code[:5], verbose=0), rtol=1e-4, atol=1e-6)
    assert -estimator.score(digits) == pytest.approx(np.mean((rows - digits) ** 2), rel=1e-5)


def test_images_keep_their_shape(digits: Any) -> None:
    images = digits.reshape(-1, 8, 8)
    estimator = KerasTransformer(n_components=3, epochs=2, random_state=0)
    estimator.fit(images, validation_data=images[:50])
    assert estimator.transform(images).shape == (len(images), 3)
    assert estimator.inverse_transform(estimator.transform(images)).shape == images.shape
    assert set(estimator.history_) == {"loss", "val_loss"}


def test_it_is_a_step_of_a_pipeline_and_is_searched(digits: Any) -> None:
    y = load_digits().target
    pipeline = make_pipeline(
        StandardScaler(), KerasTransformer(hidden=(32,), epochs=5, random_state=0), LogisticRegression(max_iter=500)
    )
    grid = {"kerastransformer__n_components": [1, 16]}
    found = GridSearchCV(pipeline, grid, cv=2).fit(digits, y)
    assert found.best_params_ == {"kerastransformer__n_components": 16}
    assert list(found.best_estimator_[:-1].get_feature_names_out())[:2] == ["kerastransformer0", "kerastransformer1"]


def test_it_is_searched_without_a_target(digits: Any) -> None:
    found = GridSearchCV(KerasTransformer(hidden=(16,), epochs=3, random_state=0), {"n_components": [1, 8]}, cv=2)
    assert found.fit(digits).best_params_ == {"n_components": 8}


def test_a_model_of_the_users_is_cut_where_they_say(digits: Any) -> None:
    def build(input_shape: Any) -> Any:
        return keras.Sequential(
            [keras.Input(input_shape), keras.layers.Dense(5, name="middle"), keras.layers.Dense(input_shape[0])]
        )

    estimator = KerasTransformer(build, code_layer="middle", epochs=1).fit(digits)
    assert estimator.transform(digits).shape == (len(digits), 5)


def test_a_row_of_no_weight_is_not_learned_from(digits: Any) -> None:
    weights = np.ones(len(digits))
    weights[1000:] = 0
    some = KerasTransformer(hidden=(8,), epochs=2, random_state=0)
    weighted = some.fit(digits, sample_weight=weights).transform(digits)
    assert_allclose(weighted, some.fit(digits[:1000]).transform(digits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "rows", "error", "message"),
    [
        (KerasTransformer(code_layer="cod"), np.ones((9, 3)), ModelMismatchError, "no layer 'cod'.*`code_layer`"),
        (KerasTransformer("mlp"), np.ones((9, 3)), ModelMismatchError, "no layer 'code'"),
        (KerasTransformer(), csr_matrix(np.ones((9, 3))), DataError, "Sparse input is not supported"),
        (KerasTransformer(), {"a": np.ones((9, 3))}, DataError, "one array of rows, not several inputs"),
        (KerasTransformer(), None, DataError, "X is None; KerasTransformer takes rows of shape"),
    ],
    ids=["layer", "builder", "sparse", "inputs", "nothing"],
)
def test_what_cannot_be_learned_is_refused(estimator: Any, rows: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        estimator.fit(rows)


def test_codes_of_another_width_are_refused(digits: Any) -> None:
    estimator = KerasTransformer(epochs=1).fit(digits)
    with pytest.raises(DataError, match="X has 3 columns, but `transform` returns 2"):
        estimator.inverse_transform(np.ones((2, 3)))
