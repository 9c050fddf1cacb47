"""A Keras that nobody tried: looked at once, and left to train by itself if it is built otherwise inside."""

from __future__ import annotations

import ast
import functools
import random
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score

import kerastoolkit
from kerastoolkit import KerasClassifier, _keras
from kerastoolkit._cache import Cache
from kerastoolkit.estimators import _fit_arguments, _parameters
from kerastoolkit.exceptions import KerasToolkitWarning
from kerastoolkit.search import GridSearchCV
from kerastoolkit.training import Fit, explain, fit_many, fused, isolated, network

X, Y = load_iris(return_X_y=True)
X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype("float32")


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Keras of a version to come, which has not been looked at."""
    monkeypatch.setattr(keras, "__version__", "3.99.1")
    monkeypatch.setattr(_keras, "_checked", set())
    monkeypatch.setattr(_keras, "_incompatibilities", {})
    for name in ("_PROGRAMS", "_BLUEPRINTS", "_EXAMPLES", "_READY"):  # of the Keras that is there
        monkeypatch.setattr(network, name, Cache(8))


@pytest.fixture
def other(newer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes each step twice."""
    step = keras.Model.train_step

    def twice(self: Any, *arguments: Any) -> Any:
        step(self, *arguments)
        return step(self, *arguments)

    monkeypatch.setattr(keras.Model, "train_step", twice)


def build(rate: float = 0.05) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def seeded(rate: float) -> keras.Model:
    keras.utils.set_random_seed(3)
    return build(rate)


def fits() -> list[Fit]:
    return [Fit(seeded(rate), X, Y, epochs=2, shuffle=False, seed=0) for rate in (0.05, 0.01)]


def by_keras() -> list[Any]:
    models = [seeded(rate) for rate in (0.05, 0.01)]
    for model in models:
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    return [model.get_weights() for model in models]


def assert_equal(all_ours: list[Any], all_theirs: list[Any]) -> None:
    for ours, theirs in zip(all_ours, all_theirs, strict=True):
        for one, another in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-5, atol=1e-5)


def told(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = action()
    return result, [str(one.message) for one in found if one.category is KerasToolkitWarning]


def test_a_keras_that_was_tried_is_not_looked_at() -> None:
    assert _keras.is_tried()
    _keras.check_compatibility(lambda: pytest.fail("it was"))
    assert _keras.is_trusted()
    assert _keras.incompatibility() is None


@pytest.mark.parametrize("version", ["3.11.3", "3.16.0", "3.16.0.dev2026", "4.0"])
def test_others_were_not_tried(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "__version__", version)
    assert not _keras.is_tried()


def test_a_newer_keras_that_trains_as_before_is_trusted_after_a_look(newer: None) -> None:
    assert not _keras.is_trusted()
    trained, said = told(lambda: fit_many(fits()))
    assert _keras.is_trusted()
    assert said == []
    assert [one.how for one in trained] == ["fused", "fused"]
    assert_equal([one.model.get_weights() for one in trained], by_keras())


def test_a_look_draws_nothing_and_is_not_looked_at_by_what_the_user_set(newer: None) -> None:
    before = random.getstate(), np.random.get_state()[1].tobytes()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit_many([])
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(policy)
    assert _keras.is_trusted()
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before


@pytest.mark.backend("tensorflow", "torch")  # JAX has no double precision
def test_a_look_waits_for_settings_in_which_it_would_see_nothing(newer: None) -> None:
    keras.config.set_floatx("float64")
    try:
        trained, said = told(lambda: fit_many(fits()))
    finally:
        keras.config.set_floatx("float32")
    assert said == []
    assert [one.how for one in trained] == ["Model.fit"] * 2
    assert "was not tried, and cannot be looked at now" in explain(trained)
    assert [one.how for one in fit_many(fits())] == ["fused", "fused"]


@pytest.mark.backend("tensorflow", "torch")
def test_a_look_waits_for_what_is_around_it(newer: None) -> None:
    if keras.config.backend() == "torch":
        import torch

        around: Any = torch.no_grad()
    else:
        import tensorflow as tf

        around = tf.distribute.OneDeviceStrategy("/cpu:0").scope()
    with around:
        fit_many([])
    assert not _keras.is_settled()


def test_whoever_wraps_fit_without_its_signature_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda self, **keywords: fit(self, **keywords))
    _fit_arguments._defaults_of_fit.cache_clear()
    try:
        with kerastoolkit.fused() as report:
            cross_val_score(KerasClassifier(build, epochs=1), X, Y, cv=2)
    finally:
        _fit_arguments._defaults_of_fit.cache_clear()
        _parameters.keras_arguments.cache_clear()
    assert [one.how for one in report.trained] == ["fused", "fused"]


@pytest.mark.filterwarnings("ignore:Limiting epochs")  # by Keras
def test_fits_that_keras_limits_are_left_to_it() -> None:
    keras.config.set_max_epochs(1)
    try:
        trained = fit_many(fits())
    finally:
        keras.config.set_max_epochs(None)
    assert [(one.how, len(one.history["loss"])) for one in trained] == [("Model.fit", 1)] * 2


def test_every_model_of_a_look_is_compared(newer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = fused.Stack.__init__

    def alike(self: Any, program: Any, networks: Any, *, stacked: bool) -> None:
        stack(self, program, [networks[0]] * len(networks), stacked=stacked)

    monkeypatch.setattr(fused.Stack, "__init__", alike)
    _, said = told(lambda: fit_many([]))
    assert "a small model does not end as" in said[0]


def test_fits_do_not_wait_for_each_other_once_keras_is_trusted(newer: None) -> None:
    _keras.check_compatibility(lambda: None)
    others = fits()
    with isolated(None):
        thread = threading.Thread(target=fit_many, args=([],), daemon=True)
        thread.start()
        thread.join(1500)
        assert not thread.is_alive()
    assert [one.how for one in fit_many(others)] == ["fused", "fused"]


@pytest.mark.backend("tensorflow", "torch")  # on JAX, a step takes a state and returns one
def test_a_keras_that_trains_otherwise_does_so_itself_and_one_warning_says_so(other: None) -> None:
    trained, said = told(lambda: [*fit_many(fits()), *fit_many(fits())])
    assert len(said) == 1
    assert "Keras 3.99.1 is none of those" in said[0]
    assert "(3.12 to 3.15)" in said[0]
    assert "a small model does not end as" in said[0]
    assert [one.how for one in trained] == ["Model.fit"] * 4
    assert "Keras 3.99.1 is built otherwise inside" in explain(trained)
    assert_equal([one.model.get_weights() for one in trained], by_keras() * 2)


@pytest.mark.backend("tensorflow", "torch")  # Keras itself uses it on JAX
def test_a_keras_that_lacks_a_name_is_not_even_trained_with(newer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    monkeypatch.delattr(BaseOptimizer, "stateless_apply")
    trained, said = told(lambda: fit_many(fits()))
    assert len(said) == 1
    assert "BaseOptimizer has no `stateless_apply`" in said[0]
    assert [one.how for one in trained] == ["Model.fit"] * 2
    assert_equal([one.model.get_weights() for one in trained], by_keras())


@pytest.mark.backend("tensorflow", "torch")
def test_estimators_and_searches_do_without_programs(other: None, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, calls = keras.Model.fit, []

    @functools.wraps(fit)
    def noted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(self)
        return fit(self, *arguments, **keywords)

    monkeypatch.setattr(keras.Model, "fit", noted)

    def search() -> GridSearchCV:
        classifier = KerasClassifier(build, epochs=3, random_state=0)
        return GridSearchCV(classifier, {"rate": [0.05, 0.01]}, cv=3, verbose=0).fit(X, Y)

    found, said = told(search)
    assert len(said) == 1
    assert found.score(X, Y) == np.mean(found.predict(X) == Y) > 0.5
    assert len(calls) == 1 + 2 * 3 + 1  # to look, to search, to refit
    one = KerasClassifier(build, rate=0.05, epochs=3, random_state=0).fit(X, Y)
    probabilities = one.predict_proba(X)
    np.testing.assert_allclose(probabilities, one.model_.predict(X, verbose=0), atol=1e-6)


def test_what_a_look_raises_is_held_against_keras(newer: None) -> None:
    def fail() -> None:
        raise TypeError("fit() takes no data")

    _, said = told(lambda: _keras.check_compatibility(fail))
    assert "TypeError: fit() takes no data" in said[0]
    assert not _keras.is_trusted()


def test_a_look_that_the_user_ends_is_begun_again(newer: None) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _keras.check_compatibility(end)
    assert not _keras.is_trusted()
    _keras.check_compatibility(lambda: None)
    assert _keras.is_trusted()


def test_what_is_private_to_keras_is_used_in_one_module() -> None:
    root = Path(kerastoolkit.__file__).parent
    files = [path for path in root.rglob("*.py") if path.name != "_keras.py"]
    trees = {str(path.relative_to(root)): ast.walk(ast.parse(path.read_text())) for path in files}
    # Of Python; of TensorFlow and torch; of scikit-learn and scikeras.
    own = {"_SubParsersAction", "_actions", "_asdict", "_fields", "_replace"}
    own |= {"_add_conversion", "_buffers", "_pfor_converter_registry", "_rng", "_seed", "_tile_variant"}
    own |= {"_untile_variant", "_version"}
    own |= {"_fit_X", "_n_features_outs", "_scaler", "_training_dim", "_transformer_to_input_indices"}
    own |= {"_estimator", "_get_param_names", "_keras_build_fn", "_params", "_parent_callback_ctx", "_target_type"}
    own |= {"_weights_not_none"}
    used: dict[str, set[str]] = {}
    for file, nodes in trees.items():
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name):
                own.add(node.id)
            elif isinstance(node, ast.alias):
                own |= {part for part in node.name.split(".") if part.startswith("_")}
                if "keras.src" in node.name:
                    used.setdefault("keras.src", set()).add(file)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
                used.setdefault("keras.src", set()).add(file)
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self":
                    own.add(node.attr)
                elif node.attr.startswith("_") and not node.attr.startswith("__"):
                    used.setdefault(node.attr, set()).add(file)
    assert {name: files for name, files in used.items() if name not in own} == {}


def test_what_is_private_to_tensorflow_is_used_in_one_module() -> None:
    root = Path(kerastoolkit.__file__).parent
    names = {"_add_conversion", "_pfor_converter_registry", "_rng", "_seed", "_tile_variant", "_untile_variant"}
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            is_own = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
            private = isinstance(node, ast.Attribute) and node.attr in names and not is_own
            if private or any(module.startswith("tensorflow.python") for module in modules):
                found.add(str(path.relative_to(root)))
    assert found == {"training/_backends/tensorflow.py"}
