"""`list_parameters` lists what an estimator takes, all of it and nothing else, each with the value that is in force."""

from __future__ import annotations

import inspect
import re
from typing import Any

import keras
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris

from kerastoolkit import (
    KerasClassifier,
    KerasRegressor,
    KerasTransformer,
    TextClassifier,
    estimators,
)
from kerastoolkit.estimators._docstrings import documented
from kerastoolkit.estimators._listing import NEEDED, UNKNOWN
from kerastoolkit.exceptions import ParameterError

X, Y = load_iris(return_X_y=True)
X = X.astype("float32")
FRAME = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(kind=["left", "right"] * 75)
TEXTS = ["a warm and sunny day", "rain and wind all day", "the sunny coast"] * 50
KINDS = [getattr(estimators, name) for name in estimators.__all__ if inspect.isclass(getattr(estimators, name))]
KINDS = [kind for kind in KINDS if hasattr(kind, "list_parameters")]


def build(width: int = 5, activation: str = "tanh") -> keras.Model:
    """A compiled model of iris.

    Args:
        width: Units of the hidden layer.
        activation: Name of its activation.
    """
    hidden = keras.layers.Dense(width, activation)
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.RMSprop(0.02, rho=0.8), "sparse_categorical_crossentropy")
    return model


def needs(width: int) -> keras.Model:
    return build(width)


STOP = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=0.5)
CASES: dict[str, tuple[Any, Any, Any]] = {
    "default": (KerasClassifier(epochs=2, random_state=0), X, Y),
    "set": (
        KerasClassifier(
            hidden=(4,), model__dropout=0.25, epochs=9, batch_size=50, random_state=0,
            optimizer=keras.optimizers.SGD(0.5), optimizer__momentum=0.5, callbacks=STOP, callbacks__patience=2,
            metrics=["accuracy", keras.metrics.AUC],
            metrics__auc__num_thresholds=50, head__label_smoothing=0.1, fit__steps_per_epoch=3, run_eagerly=False,
        ),
        X, Y,
    ),
    "function": (KerasClassifier(build, width=3, epochs=3, random_state=0), X, Y),
    "model": (KerasClassifier(build(), epochs=2, random_state=0, validation_split=0.2), X, Y),
    "numbers": (
        KerasRegressor(epochs=2, random_state=0, loss=keras.losses.Huber(0.5)), *load_diabetes(return_X_y=True)
    ),
    "table": (KerasClassifier("tabular", epochs=2, random_state=0, columns__min_count=3), FRAME, Y),
    "texts": (TextClassifier(epochs=2, random_state=0), TEXTS, Y),
    "rows again": (KerasTransformer(n_components=3, epochs=2, random_state=0), X, None),
}  # fmt: skip


TRAINED = {"default", "numbers"}


@pytest.mark.parametrize("case", CASES)
def test_to_set_every_parameter_to_the_value_in_force_changes_nothing(case: str) -> None:
    estimator, rows, y = CASES[case]
    table = estimator.list_parameters()
    assert len({one.name for one in table}) == len(table) > 30
    given = {one.name: one.value for one in table if one.value is not UNKNOWN}
    pair = clone(estimator), clone(estimator).set_params(**given)
    plain, listed = ((one.fit if case in TRAINED else one.initialize)(rows, y) for one in pair)
    for mine, theirs in zip(listed.model_.get_weights(), plain.model_.get_weights(), strict=True):
        assert_allclose(mine, theirs, atol=1e-6)
    configs = [{**one.model_.optimizer.get_config(), "name": ""} for one in (plain, listed)]
    assert configs[0] == configs[1]
    assert type(listed.model_.loss) is type(plain.model_.loss)
    again = {one.name: one.value for one in plain.list_parameters()}
    assert set(again) >= {one.name for one in table}


def test_values_set_and_defaults_are_told_apart() -> None:
    values = {one.name: (one.value, one.default, one.goes_to) for one in CASES["set"][0].list_parameters()}
    assert values["hidden"] == ((4,), (100,), "model")
    assert values["dropout"] == (0.25, 0.0, "model")
    assert values["optimizer__momentum"][0] == 0.5
    assert values["optimizer__learning_rate"][0] == pytest.approx(0.5)
    assert values["callbacks__early_stopping__patience"] == (2, 0, "callbacks")
    assert values["callbacks__early_stopping__min_delta"][0] == 0.5
    assert values["metrics__auc__num_thresholds"] == (50, 200, "metrics")
    assert values["head__label_smoothing"] == (0.1, 0.0, "head")
    assert values["fit__steps_per_epoch"] == (3, None, "fit")
    assert values["compile__run_eagerly"][0] is False
    fresh = {one.name: one.value for one in KerasClassifier().list_parameters()}
    assert (fresh["model"], fresh["optimizer"], fresh["batch_size"]) == ("mlp", "adam", 32)
    assert fresh["optimizer__learning_rate"] == 0.001
    assert not any(name.startswith(("columns__", "distribution__")) for name in fresh)


def test_what_a_function_needs_and_what_only_it_knows() -> None:
    (width,) = [one for one in KerasClassifier(needs).list_parameters() if one.goes_to == "model"]
    assert (width.name, width.value) == ("width", NEEDED)
    estimator = KerasClassifier(build, epochs=1)
    before = {one.name: one for one in estimator.list_parameters()}
    assert before["width"].meaning == "Units of the hidden layer."
    assert [name for name in before if name.startswith("optimizer__")] == ["optimizer__learning_rate"]
    after = {one.name: one for one in estimator.fit(X, Y).list_parameters()}
    assert after["optimizer__rho"].value == pytest.approx(0.8)
    open_ended = KerasClassifier(lambda **options: build(**options), width=7)
    assert {one.name: one.value for one in open_ended.list_parameters()}["width"] == 7
    with pytest.raises(ParameterError, match="not the name of a builder"):
        KerasClassifier("mpl").list_parameters()


def test_it_reads_as_text_and_as_a_table_in_a_notebook() -> None:
    table = KerasClassifier(hidden=(4,), loss="mse", epochs=3, activation="<b>").list_parameters()
    text = repr(table)
    assert max(map(len, text.splitlines())) <= 118
    assert re.search(r"^ \* hidden +\(4,\) +Units of each hidden layer", text, re.MULTILINE)
    assert re.search(r"^   dropout +0.0 +Fraction of units dropped", text, re.MULTILINE)
    assert "The optimizer, Adam" in text and "kerasclassifier__" in text
    assert "an epoch" not in text.split("fit__")[0].split("epochs")[0]
    page = table._repr_html_()
    assert "<b>hidden</b>" in page and "&lt;b&gt;" in page and page.count("<tr>") == page.count("</tr>") > len(table)
    shown = KerasClassifier(hidden=(4,))._repr_mimebundle_()
    assert shown["text/plain"] == "KerasClassifier(hidden=(4,))"
    assert "<b>hidden</b>" in shown["text/html"].split("<details><summary>All parameters</summary>")[1]
    assert "All parameters" not in KerasClassifier("mpl")._repr_mimebundle_()["text/html"]  # which only `fit` refuses
    frame = pd.DataFrame(table)
    assert list(frame) == ["name", "value", "default", "goes_to", "meaning"] and len(frame) == len(table)
    assert all(one.meaning for one in table if one.goes_to in ("estimator", "model", "optimizer", "head"))


# -- signatures and documentation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_signature_names_what_get_params_does_and_nothing_else_is_printed(kind: Any) -> None:
    signature = set(inspect.signature(kind).parameters) - {"params"}
    assert signature == set(kind().get_params())
    assert repr(kind()) == f"{kind.__name__}()"
    assert set(documented(kind)) - {"params"} == signature


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_that_help_offers_is_taken(kind: Any) -> None:
    offered = set(re.findall(r"`(\w+?__\w+)`", kind.__doc__))
    offered |= {f"head__{name}" for name in re.findall(r"`head__(\w+)`", kind.__doc__)}
    estimator = kind("tabular") if kind in (KerasClassifier, KerasRegressor) else kind()
    assert estimator.set_params(**dict.fromkeys(offered)).get_params().keys() >= offered
