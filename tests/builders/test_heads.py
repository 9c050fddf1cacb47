"""The head knows the end of a network: against hand arithmetic and plain Keras."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kerastoolkit.builders import Head, HeadGroup, head
from kerastoolkit.exceptions import DataError, DivergedError, ModelMismatchError, ParameterError


@pytest.mark.parametrize(
    ("y", "kind", "units", "activation", "loss"),
    [
        ([0, 1, 1], "binary", 1, "sigmoid", "binary_crossentropy"),
        (["ham", "spam", "ham"], "binary", 1, "sigmoid", "binary_crossentropy"),
        ([True, False], "binary", 1, "sigmoid", "binary_crossentropy"),
        ([3, 1, 2], "multiclass", 3, "softmax", "sparse_categorical_crossentropy"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "multiclass", 3, "softmax", "categorical_crossentropy"),
        ([[1, 1, 0], [0, 1, 0]], "multilabel", 3, "sigmoid", "binary_crossentropy"),
        ([0.5, 1.5, 2.0], "regression", 1, None, "mse"),
        ([[0.5, 1.5], [2.0, 0.1]], "regression", 2, None, "mse"),
    ],
)
def test_the_kind_of_a_target_gives_the_end_of_the_network(
    y: Any, kind: str, units: int, activation: str | None, loss: str
) -> None:
    made = head(np.array(y))
    assert (made.kind, made.units, made.activation, made.loss) == (kind, units, activation, loss)
    layer = made.output_layer()
    assert layer.units == units
    assert layer.activation.__name__ == (activation or "linear")


def test_integers_are_labels_unless_the_task_says_otherwise() -> None:
    assert head([1, 2, 3]).kind == "multiclass"
    assert head([1, 2, 3], task="regression").kind == "regression"


@pytest.mark.parametrize("y", [[0, 0, 0], ["a"]])
def test_one_class_is_refused(y: Any) -> None:
    with pytest.raises(DataError, match="holds only one class"):
        head(y)


def test_numbers_are_no_labels() -> None:
    with pytest.raises(DataError, match="Unknown label type: continuous.*KerasRegressor"):
        head([0.5, 1.5], task="classification")


def test_labels_go_in_as_numbers_and_come_back() -> None:
    y = np.array(["b", "a", "c", "a"])
    made = head(y)
    assert_array_equal(made.encode(y), [1, 0, 2, 0])
    raw = np.eye(3)[[1, 0, 2, 0]]
    assert_array_equal(made.decode(raw), y)
    with pytest.raises(DataError, match="holds 'd', which is not one of the 3 classes"):
        made.encode(["d"])


def test_a_standardized_target_is_learned_in_units_of_its_deviation_and_predicted_in_its_own() -> None:
    y = np.array([10.0, 20.0, 60.0])
    weights = np.array([1.0, 1.0, 2.0])
    made = head(y, task="regression", standardize=True, sample_weight=weights)
    mean = (10 + 20 + 2 * 60) / 4
    deviation = np.sqrt(((10 - mean) ** 2 + (20 - mean) ** 2 + 2 * (60 - mean) ** 2) / 4)
    assert_allclose(made.encode(y)[:, 0], (y - mean) / deviation, rtol=1e-6)
    assert_allclose(made.decode(made.encode(y)), y, rtol=1e-6)
    assert made.decode(made.encode(y)).dtype == "float64"


def _model(units: int, activation: str | None, loss: Any) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation=activation)])
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("model", "encoding", "output"),
    [
        ((2, "softmax", "sparse_categorical_crossentropy"), "numbers", "probability"),
        ((2, "softmax", "categorical_crossentropy"), "one_hot", "probability"),
        ((1, "sigmoid", "binary_crossentropy"), "columns", "probability"),
        ((1, None, keras.losses.BinaryCrossentropy(from_logits=True)), "columns", "logit"),
        ((1, "tanh", "hinge"), "columns", "margin"),
    ],
)
def test_a_head_takes_the_form_that_a_model_needs(model: Any, encoding: str, output: str) -> None:
    bound = Head.binary().bind(_model(*model))
    assert isinstance(bound, Head)
    assert (bound.encoding, bound.output) == (encoding, output)


def test_logits_become_probabilities_and_stay_scores() -> None:
    bound = Head.binary().bind(_model(1, None, keras.losses.BinaryCrossentropy(from_logits=True)))
    raw = np.array([[-2.0], [0.5]])
    positive = 1 / (1 + np.exp(-raw))
    assert_allclose(bound.probabilities(raw), np.hstack([1 - positive, positive]))
    assert_allclose(bound.scores(raw), raw[:, 0])
    assert_array_equal(bound.decode(raw), [0, 1])


@pytest.mark.parametrize(
    ("made", "model", "message"),
    [
        (Head.multiclass(3), (1, "sigmoid", "binary_crossentropy"), "ends in 1 unit, .* with 3 classes: it needs 3"),
        (Head.binary(), (1, "softmax", "binary_crossentropy"), "softmax, which is 1.0 for every row"),
        (Head.multiclass(3), (3, "softmax", "binary_crossentropy"), "as 3 separate questions"),
        (Head.binary(), (1, "sigmoid", "categorical_crossentropy"), "needs one softmax unit a class"),
        (Head.binary(), (1, None, "binary_crossentropy"), "no activation, but the loss"),
        (Head.regression(1), (3, None, "mse"), "ends in 3 units, but `y` has 1 target"),
    ],
)
def test_what_keras_would_train_in_silence_to_a_wrong_end_is_refused(made: Head, model: Any, message: str) -> None:
    with pytest.raises(ModelMismatchError, match=message):
        made.bind(_model(*model))


@pytest.mark.parametrize(
    "made",
    [
        head(np.array(["a", "b"])),
        head(np.array(["a", "b", "c"], dtype=object)),
        head(np.array([1.0, 5.0, 2.5]), standardize=True),
        head(np.array([[0, 2], [1, 1], [2, 0]])),
        head({"size": np.array([0, 1]), "colour": np.array(["r", "g"])}),
    ],
    ids=["binary", "objects", "regression", "columns", "dict"],
)
def test_a_head_comes_back_from_its_config(made: Head | HeadGroup) -> None:
    again = type(made).from_config(made.get_config())
    assert str(again.get_config()) == str(made.get_config())


def test_several_columns_of_classes_are_several_heads() -> None:
    y = np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    made = head(y)
    assert isinstance(made, HeadGroup)
    assert made.units == (3, 3)
    raw = [np.eye(3)[column] for column in y.T]
    assert_array_equal(made.decode(raw), y)
    assert [part.shape for part in made.probabilities(raw)] == [(4, 3), (4, 3)]


# -- counts, order, options -----------------------------------------------------------------------------------------


def test_an_ordinal_target_asks_above_which_classes_a_row_lies() -> None:
    made = head([1, 3, 2, 3], kind="ordinal")
    assert (made.units, made.activation, made.loss) == (2, "sigmoid", "binary_crossentropy")
    assert_array_equal(made.encode([1, 2, 3]), [[0, 0], [1, 0], [1, 1]])
    raw = np.array([[0.1, 0.0], [0.9, 0.2], [0.9, 0.8], [0.4, 0.6]])
    # The last row says that 3 is passed more surely than 2; the lower of the two counts.
    assert_allclose(made.probabilities(raw), [[0.9, 0.1, 0], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8], [0.6, 0, 0.4]])
    assert_array_equal(made.decode(raw), [1, 2, 3, 1])


def test_ordered_labels_without_data_keep_their_order() -> None:
    made = Head.ordinal(["bad", "fair", "good", "best"])
    assert_array_equal(made.encode(["best", "bad", "fair"]), [[1, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert made.decode(np.array([[0.9, 0.8, 0.1]])).tolist() == ["good"]


def test_counts_are_learned_as_parts_of_their_mean() -> None:
    made = head([0, 3, 9], kind="counts", standardize=True)
    assert (made.units, made.activation, made.loss) == (1, "exponential", "poisson")
    assert_allclose(made.encode([0, 3, 9])[:, 0], [0, 0.75, 2.25])
    assert_allclose(made.decode(np.array([[0.75]])), [3])


@pytest.mark.parametrize(
    ("y", "options", "loss"),
    [
        ([0, 1, 1], {"label_smoothing": 0.2}, keras.losses.BinaryCrossentropy(label_smoothing=0.2)),
        ([0, 1, 1], {"focal": 2.0}, keras.losses.BinaryFocalCrossentropy(gamma=2.0)),
        ([0, 1, 2], {"label_smoothing": 0.2}, keras.losses.CategoricalCrossentropy(label_smoothing=0.2)),
        ([0, 1, 2], {"focal": 2.0}, keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0)),
        ([0, 1, 2], {"from_logits": True}, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    ],
)
def test_an_option_gives_the_loss_of_keras_and_the_encoding_it_wants(y: Any, options: Any, loss: Any) -> None:
    made = head(y, **options)
    assert made.loss.get_config() == loss.get_config()
    model = keras.Sequential([keras.Input((2,)), made.output_layer()])
    model.compile(loss=made.loss)
    bound = made.bind(model)
    assert (bound.encoding, bound.output) == (made.encoding, made.output)
    raw = np.random.default_rng(0).uniform(0.1, 0.9, (3, made.units)).astype("float32")
    assert float(made.loss(made.encode(y), raw)) == pytest.approx(float(loss(made.encode(y), raw)))


def test_a_focal_loss_of_gamma_zero_is_the_crossentropy() -> None:
    made = head([0, 1, 2], focal=1e-9)
    raw = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], dtype="float32")
    assert float(made.loss(np.eye(3), raw)) == pytest.approx(-np.log([0.7, 0.8, 0.4]).mean(), rel=1e-5)


@pytest.mark.parametrize("y", [[0, 1, 1], [0, 1, 2], [[0, 1], [1, 1], [0, 0]]])
def test_logits_mean_the_same_probabilities(y: Any) -> None:
    plain, logits = head(np.array(y)), head(np.array(y), from_logits=True)
    assert logits.activation is None
    raw = np.random.default_rng(0).normal(size=(5, plain.units))
    activated = keras.ops.convert_to_numpy(keras.activations.get(plain.activation)(raw.astype("float32")))
    assert_allclose(logits.probabilities(raw), plain.probabilities(activated), rtol=1e-5)
    assert_array_equal(logits.decode(raw), plain.decode(activated))


@pytest.mark.parametrize("options", [{}, {"from_logits": True}])
@pytest.mark.parametrize("y", [[0, 1, 1], [[0, 1], [1, 1], [1, 0]]], ids=["binary", "multilabel"])
def test_the_accuracy_beside_the_loss_counts_what_decode_decides(y: Any, options: dict[str, Any]) -> None:
    y = np.array(y)
    made = head(y, **options)
    raw = np.array([[0.4, 0.6, 0.2], [0.3, -0.2 if options else 0.1, 0.9]]).T[:, : made.units]
    model = keras.Sequential([keras.Input((made.units,)), keras.layers.Identity()])
    model.compile(loss=made.loss, metrics=made.metrics)
    scores = model.evaluate(raw, made.encode(y), verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(np.mean(made.decode(raw) == y))


def test_weights_of_classes_become_weights_of_rows() -> None:
    y = np.array(["no", "no", "no", "yes"])
    assert_allclose(head(y, class_weight="balanced").sample_weight(y), [4 / 6, 4 / 6, 4 / 6, 2])
    assert_allclose(head(y, class_weight={"yes": 5}).sample_weight(y), [1, 1, 1, 5])
    assert head(y).sample_weight(y) is None


def test_each_target_of_a_dict_has_its_own_kind_loss_and_weight() -> None:
    y = {"age": [31.0, 8.0, 30.0], "mood": [0, 2, 1], "visits": [0, 3, 1], "new": ["y", "n", "n"]}
    made = head(y, kind={"age": "regression", "mood": "ordinal", "visits": "counts"}, weight={"age": 0.1})
    assert [part.kind for part in made.heads] == ["regression", "ordinal", "counts", "binary"]
    assert made.loss == {
        "age": "mse", "mood": "binary_crossentropy", "visits": "poisson", "new": "binary_crossentropy"
    }  # fmt: skip
    assert made.loss_weights == {"age": 0.1, "mood": 1.0, "visits": 1.0, "new": 1.0}
    assert head(y).loss_weights is None
    # An option for classes is one for those among the targets.
    smoothed = head(y, kind={"age": "regression"}, label_smoothing=0.1)
    assert [part.label_smoothing for part in smoothed.heads] == [0.0, 0.1, 0.1, 0.1]
    again = HeadGroup.from_config(made.get_config())
    assert str(again.get_config()) == str(made.get_config())


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        ([0, 1], {"kind": "binery"}, ParameterError, "`kind` is 'binery'. Did you mean 'binary'"),
        ([0, 1, 2], {"kind": "binary"}, DataError, "`kind` is 'binary', but `y` looks multiclass"),
        (["low", "high"], {"kind": "ordinal"}, DataError, "Number the classes in their order"),
        ([0.5, 1], {"kind": "counts"}, DataError, "'counts', which are 0, 1, 2, ..., but `y` holds 0.5"),
        ([0, -1], {"kind": "counts"}, DataError, "but `y` holds -1"),
        ([0, 1], {"kind": {"a": "binary"}}, ParameterError, "`kind` is a dict.*but `y` is one target"),
        ({"a": [0, 1]}, {"weight": {"b": 1.0}}, ParameterError, "`weight` names 'b', which is not a target"),
        ([0, 1], {"label_smoothing": 1.0}, ParameterError, "`label_smoothing` must be a fraction"),
        ([0, 1], {"focal": -1.0}, ParameterError, "`focal` must not be negative"),
        ([0.5, 1.5], {"from_logits": True}, ParameterError, "`from_logits` is an option for classes"),
        ([0, 1], {"class_weight": {2: 1.0}}, ParameterError, r"weights for \[2\]; the classes are \[0, 1\]"),
        ([[0, 1], [1, 1]], {"class_weight": "balanced"}, ParameterError, "a row of a multilabel target has several"),
        ({"age": [0.5, 1.5]}, {"task": "classification"}, DataError, "For numbers say kind={'age': 'regression'}"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(y: Any, options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        head(y, **options)


@pytest.mark.parametrize(
    ("made", "model", "message"),
    [
        (Head.ordinal(4), (4, "softmax", "categorical_crossentropy"), "an ordinal target with 4 classes: it needs 3"),
        (Head.counts(), (1, None, "poisson"), "'poisson' takes the logarithm.*activation='exponential'"),
        (Head.binary(), (1, "sigmoid", keras.losses.BinaryCrossentropy(from_logits=True)), "already applies a sigmoid"),
    ],
    ids=["ordinal", "counts", "logits"],
)
def test_an_end_that_cannot_learn_the_kind_is_refused(made: Head, model: Any, message: str) -> None:
    with pytest.raises(ModelMismatchError, match=message):
        made.bind(_model(*model))


def test_the_last_layer_of_a_mixed_network_is_float32() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert Head.binary().output_layer().compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("values", [[0, 1], [3], [0, 1, 2], [True, False], list(range(40))])
def test_kinds_of_labels_are_those_of_scikit_learn(values: list[Any]) -> None:
    from sklearn.utils.multiclass import type_of_target

    from kerastoolkit.builders import targets

    for labels in (np.array(values * 20), np.array(values), np.array(values * 20, "float64")):
        assert targets.type_of_target(labels) == type_of_target(labels)
    if len(values) == 2:
        assert head(np.array(values * 20), kind="binary").kind == "binary"
    elif len(values) > 2:
        with pytest.raises(DataError, match="looks multiclass"):
            head(np.array(values * 20), kind="binary")


# -- output that is no number ---------------------------------------------------------------------------------------

_LOGITS = dataclasses.replace(Head.multiclass(3), output="logit")
_HEADS = {
    "binary": Head.binary(),
    "multiclass": Head.multiclass(3),
    "logits": _LOGITS,
    "margins": dataclasses.replace(Head.multiclass(3), output="margin"),
    "multilabel": Head.multilabel(3),
    "ordinal": Head.ordinal(4),
}


@pytest.mark.parametrize("name", _HEADS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_of_output_that_is_no_number_nothing_is_made(name: str, value: float) -> None:
    made = _HEADS[name]
    raw = np.full((4, made.units), 0.25, "float32")
    raw[2, -1] = value
    for make in (made.decode, made.scores, *([] if made.output == "margin" else [made.probabilities])):
        with pytest.raises(DivergedError, match="NaN or infinite for 1 of 4 rows, the first of them row 2"):
            make(raw)
    assert len(made.decode(raw[:2])) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("made", [Head.regression(2), Head.counts(2)], ids=["regression", "counts"])
def test_a_number_is_neither_nan_nor_infinite(made: Head, value: float) -> None:
    with pytest.raises(DivergedError, match="2 of 3 rows, the first of them row 1"):
        made.decode(np.array([[1, 2], [3, value], [value, 4]], "float32"))
    # The sum of finite numbers may overflow.
    assert_array_equal(made.decode(np.full((9, 2), 3e38, "float32")), np.full((9, 2), 3e38, "float32"))


def test_minus_infinity_rules_out_a_class_as_long_as_one_is_left() -> None:
    raw = np.array([[-np.inf, 0.0, np.log(3)], [-np.inf, 1.0, -np.inf]])
    assert_array_equal(_LOGITS.decode(raw), [2, 1])
    assert_allclose(_LOGITS.probabilities(raw), [[0, 0.25, 0.75], [0, 1, 0]])
    with pytest.raises(DivergedError, match="1 of 1 rows"):
        _LOGITS.decode(np.full((1, 3), -np.inf))
    one = dataclasses.replace(Head.binary(), output="logit")  # there is no other that it would leave
    with pytest.raises(DivergedError, match="1 of 2 rows, the first of them row 1"):
        one.probabilities(np.array([[700.0], [-np.inf]]))


def test_a_group_names_the_target_whose_output_is_no_number() -> None:
    raw = [np.zeros((2, 1)), np.array([[0.5], [np.nan]])]
    group = HeadGroup((Head.regression(), Head.binary()), ("price", "sold"))
    for make in (group.decode, group.probabilities):
        with pytest.raises(DivergedError, match="Of the target 'sold': .* 1 of 2 rows, the first of them row 1"):
            make(raw)
    with pytest.raises(DivergedError, match="Of the target column 1: "):
        HeadGroup(group.heads).decode(raw)
