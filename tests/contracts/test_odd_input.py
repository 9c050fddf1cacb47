"""What a user may hand in by mistake, or in a type that is rarely seen: it works, or is refused before training.

What is refused is refused by an error of ours that says what came. What works is held against the same data in a plain
type, against plain Keras, or against hand arithmetic.
"""

from __future__ import annotations

import datetime
import decimal
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

import kerastoolkit.search
from kerastoolkit import KerasClassifier, KerasRegressor, load
from kerastoolkit.data import learn_table
from kerastoolkit.exceptions import DataError, KerasToolkitError, ParameterError
from kerastoolkit.training import Fit, fit_many

IRIS, SPECIES = load_iris(return_X_y=True)
SOME = np.random.default_rng(0).permutation(150)[:40]
X = StandardScaler().fit_transform(IRIS)[SOME].astype("float32")
NUMBER = X @ np.arange(1.0, 5.0)
LABEL = (SPECIES[SOME] == 2).astype(int)
NAME = np.array(["no", "yes"])[LABEL]
DAY = np.array(["2024-03-31", "2024-10-27"], dtype="datetime64[D]")[LABEL]
TABLE = pd.DataFrame(X, columns=["a", "b", "c", "d"])


def classifier(model: Any = None, **parameters: Any) -> KerasClassifier:
    return KerasClassifier(model, **{"epochs": 1, "random_state": 0, **parameters})


def regressor(**parameters: Any) -> KerasRegressor:
    return KerasRegressor(**{"hidden": (4,), "epochs": 1, "random_state": 0, **parameters})


# -- targets ----------------------------------------------------------------------------------------------------------

SAME_LABELS: dict[str, Any] = {
    "longdouble": LABEL.astype("longdouble"),
    "float16": LABEL.astype("float16"),
    "objects": LABEL.astype(object),
    "truth values as objects": (LABEL == 1).astype(object),
    "Int64": pd.Series(LABEL, dtype="Int64"),
    "boolean": pd.Series(LABEL == 1, dtype="boolean"),
    "category": pd.Series(LABEL, dtype="category"),
    "Arrow": pd.Series(LABEL, dtype="int64[pyarrow]"),
    "Sparse": pd.Series(pd.arrays.SparseArray(LABEL)),
    "polars": pl.Series(LABEL),
    "text": NAME.astype(object),
    "category of text": pd.Series(NAME, dtype="category"),
    "string": pd.Series(NAME, dtype="string"),
    "days": DAY,
    "nanoseconds": pd.Series(DAY.astype("datetime64[ns]")),
    "durations": LABEL.astype("timedelta64[h]"),
}


@pytest.mark.parametrize("labels", SAME_LABELS.values(), ids=SAME_LABELS)
def test_labels_of_any_type_are_learned_as_numbers_are(labels: Any) -> None:
    plain = classifier(hidden=(4,)).fit(X, LABEL)
    fitted = classifier(hidden=(4,)).fit(X, labels)
    assert_allclose(fitted.predict_proba(X), plain.predict_proba(X))
    wanted = np.sort(np.unique(np.asarray(labels)))
    assert_array_equal(fitted.predict(X), wanted[plain.predict(X)])
    assert fitted.score(X, labels) == plain.score(X, LABEL)


@pytest.mark.parametrize(
    ("labels", "kind"), [("Int64", "int64"), ("boolean", "bool"), ("objects", "int64"), ("category", "int64")]
)
def test_labels_come_back_in_the_type_of_numpy_that_they_are(labels: str, kind: str) -> None:
    assert classifier(hidden=(4,)).fit(X, SAME_LABELS[labels]).predict(X).dtype == kind


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, sp.coo_array, sp.dok_matrix])
def test_a_sparse_target_is_what_it_is_when_it_is_dense(form: Any) -> None:
    several = np.column_stack([LABEL, 1 - LABEL, SPECIES[SOME] > 0]).astype(int)
    dense, sparse = classifier(hidden=(4,)).fit(X, several), classifier(hidden=(4,)).fit(X, form(several))
    assert_array_equal(dense.predict(X), sparse.predict(X))
    assert dense.score(X, several) == sparse.score(X, form(several))
    assert_allclose(regressor().fit(X, form(several)).predict(X), regressor().fit(X, several * 1.0).predict(X))


REFUSED_TARGETS: dict[str, tuple[Any, str, str]] = {
    "bytes": (NAME.astype("S"), r"bytes, such as b'(no|yes)'.*decode", "holds text, such as b"),
    "mixed": (np.array(["a", 1] * 20, dtype=object), r"mixes text and other values, such as 'a' and 1", "holds text"),
    "dates as objects": (np.array([datetime.date(2024, 1, 1), datetime.date(2024, 2, 1)] * 20), "str.label.", "a date"),
    "times with a zone": (pd.Series(pd.to_datetime(DAY, utc=True)), r"\[str\(label\) for label in y\]", "Timestamp"),
    "decimals": (np.array([decimal.Decimal(0), decimal.Decimal(1)] * 20), "Unknown label type.*Decimal", ""),
    "several labels": ([["art", "money"], ["art"]] * 20, "differ in length.*MultiLabelBinarizer", "differ in length"),
    "sets": ([{"art"}, {"money"}] * 20, "holds a set.*MultiLabelBinarizer", "holds a set"),
    "complex": (LABEL + 1j, "Complex data not supported", "Complex data not supported"),
    "records": (np.array([(1, 2)] * 40, dtype="i4,i4"), "array of records", "holds a tuple"),
    "missing": (pd.Series([1, None] * 20, dtype="Int64"), "missing values", "missing values"),
    "missing text": (pd.Series(["a", pd.NA] * 20, dtype="string"), "missing values", "missing values"),
    "masked": (np.ma.masked_array(LABEL, LABEL == 1), "missing values", "missing values"),
    "generator": (map(int, LABEL), r"a map.*list\(y\)", r"a map.*list\(y\)"),
    "one value": (5, "got the single value 5", "got the single value 5"),
    "no columns": (np.zeros((40, 0)), "without a single column", "without a single column"),
    "no dict": ({}, "an empty dict", "an empty dict"),
    "three axes": (np.zeros((40, 2, 2), int), r"shape \(40, 2, 2\), but labels", ""),
    "days": (DAY, "", r"holds dates .datetime64.*np.timedelta64\(1, 'D'\)"),
    "durations": (LABEL.astype("timedelta64[h]"), "", r"holds durations .*np.timedelta64\(1, 'D'\)"),
}


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("case", REFUSED_TARGETS)
def test_a_target_that_cannot_be_learned_is_refused_in_our_words(case: str, make: Any) -> None:
    target, as_labels, as_numbers = REFUSED_TARGETS[case]
    message = as_labels if make is classifier else as_numbers
    if not message:
        make().fit(X, target)
        return
    with pytest.raises(DataError, match=message):
        make().fit(X, target)


def test_the_advice_for_dates_makes_numbers() -> None:
    y = DAY
    with pytest.raises(DataError, match="np.timedelta64") as raised:
        regressor().fit(X, y)
    advice = re.search(r": (\(y - y.min.*)\.$", str(raised.value))
    assert advice is not None
    days = eval(advice[1], {"y": y, "np": np})
    assert_array_equal(np.unique(days), [0, 210])
    regressor().fit(X, days)


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        X.astype("longdouble"), X.astype(object), X.tolist(), TABLE.astype("Float64"), TABLE.astype("float32[pyarrow]"),
        TABLE.astype(object), sp.csr_matrix(X.astype("longdouble")), pl.DataFrame(X),
    ],
    ids=["longdouble", "objects", "lists", "Float64", "Arrow", "table of objects", "sparse longdouble", "polars"],
)  # fmt: skip
def test_rows_of_any_type_are_learned_as_float32_is(rows: Any) -> None:
    expected = classifier(hidden=(4,)).fit(X, LABEL).predict_proba(X)
    assert_allclose(classifier(hidden=(4,)).fit(rows, LABEL).predict_proba(rows), expected, atol=1e-6)


REFUSED_ROWS: dict[str, tuple[Any, str]] = {
    "None": (None, "X is None"),
    "a file": ("data.csv", "X is 'data.csv', not rows.*read_csv"),
    "no rows": (X[:0], r"0 sample\(s\).*Look at how the rows"),
    "no columns": (X[:, :0], r"0 feature\(s\).*Look at how the columns"),
    "empty table": (TABLE[[]], r"0 feature\(s\)"),
    "empty list": ([], "X has no rows"),
    "ragged": ([[1, 2], [1]] * 20, r"row 0 is 2 values, row 1 is 1 values"),
    "empty rows": (np.zeros((40, 0, 3)), "whose rows hold no numbers"),
    "dates": (np.full((40, 2), "2024-01-01", dtype="datetime64[D]"), r"holds dates .*np.timedelta64"),
    "durations": (np.ones((40, 2), "timedelta64[D]"), r"holds durations .*np.timedelta64"),
    "text": (np.full((40, 2), "1"), "holds text, such as '1'"),
    "bytes": (np.full((40, 2), b"1"), "holds text, such as b'1'"),
    "text among numbers": (np.array([["a", 1.0]] * 40, dtype=object), "holds text, such as 'a'"),
    "complex": (X + 1j, r"Complex data not supported. Give the parts"),
    "records": (TABLE.to_records(index=False), "array of records"),
    "masked": (np.ma.masked_array(X, X > 1), "masked values"),
    "generator": (iter(X), r"list\(X\)"),
    "mixed names": (TABLE.set_axis(["a", pd.Timestamp("2024-01-01"), "c", "d"], axis=1), "Feature names.*Timestamp"),
    "too large": (np.full((40, 2), np.longdouble("1e4000")), "1e.4000"),
}


@pytest.mark.parametrize("case", REFUSED_ROWS)
def test_rows_that_cannot_be_learned_from_are_refused_in_our_words(case: str) -> None:
    rows, message = REFUSED_ROWS[case]
    if case == "too large" and np.isinf(rows).all():
        pytest.skip("a longdouble is a float64 here")
    with pytest.raises(DataError, match=message):
        classifier(hidden=(4,)).fit(rows, LABEL)


@pytest.mark.parametrize("rows", [X[:0], TABLE[:0], None, []], ids=["array", "table", "None", "list"])
@pytest.mark.parametrize("model", ["mlp", "tabular"])
def test_nothing_is_predicted_of_no_rows(model: str, rows: Any) -> None:
    with pytest.raises(DataError, match="no rows|0 sample|X is None"):
        classifier(model).fit(TABLE if model == "tabular" else X, LABEL).predict(rows)


@pytest.mark.parametrize(
    "names",
    [("age", "age_missing"), ("age_missing", "age"), ("dropout", "dense"), ("embedding_town", "town"),
     ("standardize", "concatenate"), ("activation", "flatten")],
    ids=" and ".join,
)  # fmt: skip
def test_columns_may_be_called_as_what_the_model_is_made_of(names: tuple[str, str], tmp_path: Any) -> None:
    gaps = np.where(np.arange(40) % 4 == 0, np.nan, X[:, 0])
    table = pd.DataFrame({names[0]: gaps, names[1]: NAME})
    columns = learn_table(table)
    assert len(columns.encode(table)) == 3  # the third says where the gaps are
    fitted = classifier("tabular", dropout=0.1, epochs=8, optimizer__learning_rate=0.02).fit(table, LABEL)
    assert fitted.score(table, LABEL) > 0.9  # the second column is the answer
    read = load(fitted.save(tmp_path / "saved.zip"))
    assert_array_equal(read.predict(table), fitted.predict(table))


def test_rows_of_any_values_are_a_table_each_column_of_its_kind() -> None:
    rows = [[number, name] for number, name in zip(X[:, 0].tolist(), NAME, strict=True)]
    named = pd.DataFrame({"number": X[:, 0].astype("float64"), "name": NAME})
    expected = classifier("tabular").fit(named, LABEL).predict_proba(named)
    assert_allclose(classifier("tabular").fit(rows, LABEL).predict_proba(rows), expected, atol=1e-6)
    with pytest.raises(DataError, match="row 0 is .*row 3 is"):
        learn_table([*rows[:3], [1.0]])
    twice = pd.concat([named, named], axis=1)
    with pytest.raises(DataError, match="two columns called 'number'"):
        learn_table(twice)


# -- parameters -------------------------------------------------------------------------------------------------------

WRONG = [
    ("epochs", "5", "write 5"), ("epochs", 5.0, "write 5"), ("epochs", True, "got True"), ("epochs", 0, "got 0"),
    ("batch_size", 16.0, "write 16"), ("batch_size", True, "got True"), ("batch_size", float("nan"), "got nan"),
    ("validation_batch_size", "4", "write 4"), ("validation_split", "0.2", "write 0.2"),
    ("validation_split", float("nan"), "got nan"), ("shuffle", "no", "True or False"),
    ("warm_start", "no", "True or False"), ("random_state", -1, "from 0 to 4294967295"),
    ("random_state", np.random.default_rng(0), "generator.integers"), ("optimizer", 5, "which Keras does not know"),
    ("optimizer", {"a": 1}, "which Keras does not know"), ("loss", 5, "which Keras does not know"),
    ("loss", (), "which is empty"), ("metrics", [5], "which Keras does not know"),
    ("callbacks", 5, "not a Keras callback"), ("steps_per_epoch", 1.5, "whole number"),
    ("initial_epoch", -1, "at least 0"), ("fit__epochs", "5", "`fit__epochs`"),
    ("validation_freq", "often", "or a list of epochs"), ("predict__batch_size", "7", "`predict__batch_size`"),
    ("run_eagerly", "no", "True or False"), ("loss_weights", "1", "a number"), ("weighted_metrics", 5, "does not know"),
    ("hidden", None, "whole number of units"), ("dropout", "0.5", "write 0.5"), ("l2", None, "must be a number"),
    ("head__label_smoothing", "0.1", "`head__label_smoothing`"), ("head__from_logits", "yes", "True or False"),
    ("optimizer__clipnorm", "1", "`optimizer__clipnorm` must be a number"),
    ("optimizer__learning_rate", "0.1", "must be a number"),
    ("optimizer__learning_rate", 1, r"Adam\(learning_rate=1\)"),
    ("fit__sample_weight", [1], "Give it to fit"), ("fit__validation_data", (X, LABEL), "Give it to fit"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=lambda value: str(value)[:20])
def test_a_value_of_a_wrong_type_or_size_is_refused_before_training(name: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        classifier(**{"hidden": (4,), name: value}).fit(X, LABEL)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", "5"), ("batch_size", 16.0), ("validation_split", "0.2"), ("shuffle", None), ("callbacks", 5)],
)
def test_so_is_one_in_the_call_of_fit(name: str, value: Any) -> None:
    for fit in (classifier().fit, classifier().partial_fit):
        with pytest.raises(ParameterError, match=f"`{name}`"):
            fit(X, LABEL, **{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"epochs": np.int64(1), "batch_size": np.int32(8), "validation_split": np.float32(0.25)}
    given |= {"shuffle": np.True_, "random_state": np.int64(0)}
    plain = {name: value.item() for name, value in given.items()}
    expected = KerasClassifier(**plain).fit(X, LABEL).predict_proba(X)
    assert_array_equal(KerasClassifier(**given).fit(X, LABEL).predict_proba(X), expected)


@pytest.mark.parametrize("grid", [{"batch_size": [16.0]}, {"epochs": ["1"]}, {"class_weight": [[1.0, 2.0]]}], ids=str)
def test_both_kinds_of_search_refuse_the_same_value_by_the_same_words(grid: dict[str, Any]) -> None:
    said = []
    for kind in (GridSearchCV, kerastoolkit.search.GridSearchCV):
        with pytest.raises(ParameterError) as raised:
            kind(classifier(hidden=(4,)), grid, cv=2, error_score="raise").fit(X, LABEL)
        said.append(str(raised.value))
    assert said[0] == said[1] and next(iter(grid)) in said[0]


@pytest.mark.parametrize("wrong", [{"batch_size": 8.0}, {"epochs": "5"}, {"initial_epoch": -1}], ids=str)
def test_a_fit_of_the_engine_is_refused_alike_and_others_go_on(wrong: dict[str, Any]) -> None:
    def build() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy")
        return model

    refused, trained = fit_many([Fit(build, X, LABEL, **wrong), Fit(build, X, LABEL)])
    assert isinstance(refused.error, ParameterError) and next(iter(wrong)) in str(refused.error)
    assert trained.error is None and len(trained.history["loss"]) == 1


# -- weights of classes -----------------------------------------------------------------------------------------------

BY_HAND = np.where(LABEL == 1, 3.0, 1.0)


@pytest.mark.parametrize(
    ("labels", "class_weight"),
    [
        (NAME, {"no": 1, "yes": 3}),
        (NAME, {"yes": np.float32(3)}),
        (NAME, pd.Series({"yes": 3.0, "no": 1.0})),
        (DAY, {datetime.date(2024, 10, 27): 3}),
        (DAY.astype("datetime64[ns]"), {pd.Timestamp("2024-10-27"): 3}),
        (DAY.astype("datetime64[ns]"), {np.datetime64("2024-10-27"): 3}),
        (LABEL.astype("timedelta64[h]"), {pd.Timedelta("1h"): 3}),
    ],
    ids=["dict", "one label", "Series", "date", "Timestamp", "datetime64", "Timedelta"],
)
@pytest.mark.parametrize("place", ["class_weight", "fit__class_weight", "head__class_weight"])
def test_a_weight_by_label_is_that_weight_of_each_of_its_rows(labels: Any, class_weight: Any, place: str) -> None:
    expected = classifier(hidden=(4,)).fit(X, LABEL, sample_weight=BY_HAND).predict_proba(X)
    ours = classifier(hidden=(4,), **{place: class_weight}).fit(X, labels)
    assert_allclose(ours.predict_proba(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        (np.array([1.0, 3.0]), r"In the order of the classes that would be \{'no': 1.0, 'yes': 3.0\}"),
        ([1, 3], r"\{'no': 1, 'yes': 3\}"),
        ({"no": -1}, "the weight -1 for 'no'"),
        ({"no": np.nan}, "the weight nan for 'no'"),
        ({"no": "2"}, "the weight '2' for 'no'"),
        ({"no": 0, "yes": 0}, "0 for every class"),
        (pd.Series([1, 3]), r"weights for \[0, 1\]; the classes are \['no', 'yes'\]"),
        ("auto", "'balanced' or None; got 'auto'"),
    ],
    ids=["array", "list", "negative", "NaN", "text", "zeros", "Series", "word"],
)
def test_what_says_no_weight_of_a_label_is_refused(class_weight: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        classifier(class_weight=class_weight).fit(X, NAME)
    with pytest.raises(ParameterError, match=message):
        classifier().fit(X, NAME, class_weight=class_weight)


def test_numbers_have_no_classes_to_weigh() -> None:
    with pytest.raises(ParameterError, match="`class_weight` is for classifiers.*sample_weight"):
        regressor().fit(X, NUMBER, class_weight={0: 2.0})
    with pytest.raises(ParameterError, match="no classes to weigh"):
        regressor(fit__class_weight={0: 2.0}).fit(X, NUMBER)


# -- several targets --------------------------------------------------------------------------------------------------

TWO = {"virginica": LABEL, "setosa": (SPECIES[SOME] == 0).astype(int)}


def two_ends(in_a_dict: bool = False) -> keras.Model:
    inputs = keras.Input((4,))
    ends = [layers.Dense(1, "sigmoid", kernel_initializer="zeros", name=name)(inputs) for name in TWO]
    model = keras.Model(inputs, dict(zip(TWO, ends, strict=True)) if in_a_dict else ends)
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy")
    return model


@pytest.mark.parametrize("in_a_dict", [False, True], ids=["list", "dict"])
def test_targets_go_by_their_names_and_not_by_their_order(in_a_dict: bool) -> None:
    natural = classifier(two_ends, in_a_dict=in_a_dict, epochs=40, shuffle=False).fit(X, TWO).predict(X)
    swapped = classifier(two_ends, in_a_dict=in_a_dict, epochs=40, shuffle=False)
    predicted = swapped.fit(X, dict(reversed(TWO.items()))).predict(X)
    for name, target in TWO.items():
        assert_array_equal(predicted[name], natural[name])
        assert np.mean(predicted[name] == target) > 0.9


def test_rows_of_several_targets_are_weighed() -> None:
    weights = 1.0 + np.arange(40) % 3
    weighted = classifier(two_ends, epochs=3, batch_size=-1).fit(X, TWO, sample_weight=weights)
    often = np.repeat(np.arange(40), weights.astype(int))
    repeated = classifier(two_ends, epochs=3, batch_size=-1).fit(X[often], {k: v[often] for k, v in TWO.items()})
    for name, share in repeated.predict_proba(X).items():
        assert_allclose(weighted.predict_proba(X)[name], share, atol=1e-5)
    by_class = classifier(two_ends, epochs=3, batch_size=-1, class_weight=[{1: 3.0}, None]).fit(X, TWO)
    by_hand = classifier(two_ends, epochs=3, batch_size=-1).fit(X, TWO, sample_weight=BY_HAND)
    assert_allclose(by_class.predict_proba(X)["setosa"], by_hand.predict_proba(X)["setosa"], atol=1e-5)


def test_the_hint_for_numbers_among_labels_names_the_parameter_and_its_advice_works() -> None:
    targets = {"virginica": NAME, "width": NUMBER}
    with pytest.raises(DataError, match=r"head__kind=\{'width': 'regression'\}"):
        classifier("multi_output").fit(X, targets)
    predicted = classifier("multi_output", head__kind={"width": "regression"}).fit(X, targets).predict(X)
    assert predicted["width"].dtype == float
    with pytest.raises(ParameterError, match="`head__kind` names 'height'"):
        classifier("multi_output", head__kind={"height": "regression"}).fit(X, targets)


@pytest.mark.parametrize("names", [("größe", "net weight"), ("a/b", "<b>"), ("net weight", "net_weight"), ("", " ")])
def test_targets_may_have_names_that_no_layer_can_have(names: tuple[str, str], tmp_path: Path) -> None:
    kind = {names[1]: "regression"}
    plain = classifier("multi_output", head__kind={"b": "regression"}).fit(X, {"a": NAME, "b": NUMBER})
    first = classifier("multi_output", head__kind=kind).fit(X, dict(zip(names, (NAME, NUMBER), strict=True)))
    for one in (first, load(first.save(tmp_path / "one.zip"))):
        predicted = one.predict(X)
        assert tuple(predicted) == names and tuple(one.predict_proba(X)) == names[:1]
        assert_allclose(predicted[names[1]], plain.predict(X)["b"], rtol=1e-5)
        assert list(predicted[names[0]]) == list(plain.predict(X)["a"])
    again = first.partial_fit(X, dict(zip(names[::-1], (NUMBER, NAME), strict=True))).predict(X)
    assert set(again) == set(names) and again[names[1]].dtype == float and set(again[names[0]]) <= set(NAME)


# -- models of a kind of their own ------------------------------------------------------------------------------------


def remembering() -> keras.Model:
    recurrent = layers.SimpleRNN(3, stateful=True, kernel_initializer="ones", recurrent_initializer="ones")
    model = keras.Sequential([keras.Input(batch_shape=(10, 4, 1)), recurrent])
    model.add(layers.Dense(1, kernel_initializer="ones"))
    model.compile("sgd", "mse")
    return model


def test_a_network_that_remembers_the_last_batch_trains_as_by_keras_and_predicts_of_the_rows_alone() -> None:
    series = X[..., None]
    plain = remembering()
    plain.fit(series, NUMBER, batch_size=10, shuffle=False, epochs=2, verbose=0)
    for layer in plain.layers:
        if hasattr(layer, "reset_state"):
            layer.reset_state()
    expected = plain.predict(series, batch_size=10, verbose=0)[:, 0]
    ours = KerasRegressor(remembering, epochs=2, shuffle=False).fit(series, NUMBER)
    assert_allclose(ours.predict(series), expected, rtol=1e-5)
    assert_allclose(ours.predict(series), expected, rtol=1e-5)  # a second time
    assert_allclose(ours.predict(series[:7]), expected[:7], rtol=1e-5)
    with pytest.raises(DataError, match="25 rows to train on, but the model takes batches of exactly 10.*first 20"):
        KerasRegressor(remembering).fit(series[:25], NUMBER[:25])
    with pytest.raises(ParameterError, match="`batch_size` is 32, but the model takes batches of 10"):
        KerasRegressor(remembering, batch_size=32).fit(series, NUMBER)


@pytest.mark.backend("tensorflow")  # Keras looks words up on TensorFlow alone
@pytest.mark.parametrize("form", ["tensor", "array", "objects", "table", "list", "dict"])
def test_a_model_that_looks_words_up_takes_text(form: str) -> None:
    import tensorflow as tf

    def build() -> keras.Model:
        inputs = keras.Input((1,), dtype="string", name="word")
        numbers = layers.StringLookup(vocabulary=["no", "yes"], output_mode="one_hot")(inputs)
        ends = layers.Dense(1, "sigmoid", kernel_initializer="zeros")(numbers)
        model = keras.Model({"word": inputs} if form == "dict" else inputs, ends)
        model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy")
        return model

    column = NAME[:, None]
    words = {
        "tensor": tf.constant(column), "array": column, "objects": column.astype(object), "list": NAME.tolist(),
        "table": pd.DataFrame({"word": NAME}), "dict": {"word": column},
    }[form]  # fmt: skip
    fitted = classifier(build, epochs=5).fit(words, LABEL)
    assert fitted.score(words, LABEL) == 1.0
    others = {"dict": {"word": X[:, :1]}, "table": pd.DataFrame({"word": X[:, 0]})}.get(form, X[:, :1])
    with pytest.raises(DataError, match="holds float32, but the model takes text"):
        fitted.predict(others)


def test_text_for_a_model_that_takes_numbers_is_refused() -> None:
    def build(input_shape: Any) -> keras.Model:
        return keras.Sequential([keras.Input(input_shape), layers.Dense(1, "sigmoid")])

    with pytest.raises(DataError, match="holds text, such as '(no|yes)', but the model takes numbers.*StringLookup"):
        classifier(build, loss="binary_crossentropy").fit(NAME[:, None], LABEL)


def test_every_error_here_is_also_one_that_scikit_learn_users_catch() -> None:
    assert issubclass(KerasToolkitError, Exception) and issubclass(DataError, ValueError)
    with pytest.raises(TypeError, match="Feature names"):  # as scikit-learn raises it
        classifier().fit(TABLE.set_axis(["a", 1, "c", "d"], axis=1), LABEL)


@pytest.mark.backend("jax", "torch")
def test_no_tensorflow_is_loaded_to_train_without_it(run_python: Any) -> None:
    run_python(
        """
import sys
from kerastoolkit import KerasClassifier
fitted = KerasClassifier(hidden=(2,), epochs=1).fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
fitted.predict([[0.0]]), fitted.model_
assert "tensorflow" not in sys.modules
"""
    )
