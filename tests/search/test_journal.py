"""A search with a journal that is interrupted and fitted again trains what is missing, and ends as if undisturbed."""

from __future__ import annotations

import collections
import contextlib
import copy
import enum
import functools
import importlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from kerastoolkit.exceptions import JournalError, ParameterError, SavedFileError
from kerastoolkit.search import _description
from kerastoolkit.search import journal as journal_module
from kerastoolkit.search._description import Describer
from kerastoolkit.search.backend import FusedBackend
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.searches import GridSearchCV as TogetherSearchCV

# How often the searches in the tests of SIGKILL are killed; 20 and more for a thorough run.
_KILLS = int(os.environ.get("KERASTOOLKIT_TEST_KILLS", "2"))

_WIDTH = 3  # what functions below use


class Counted(ClassifierMixin, BaseEstimator):
    """Predicts the sign of a column, and writes a line to a file for every fit."""

    def __init__(self, shift: float = 0.0, log: str = "", what: Any = None, draw: bool = False) -> None:
        self.shift, self.log, self.what, self.draw = shift, log, what, draw

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Counted:
        with open(self.log, "a") as file:
            file.write(f"{self.shift}\n")
        if self.what == "fail" and not Path(self.log).with_suffix(".fixed").exists():
            raise ValueError("not yet")
        self.classes_ = np.unique(y)
        self.drawn_ = np.random.random() if self.draw else 0.0
        return self

    def predict(self, X: Any) -> Any:
        return (np.asarray(X)[:, 0] > self.shift).astype(int)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        return float(np.mean(self.predict(X) == y)) + self.drawn_


X = np.random.RandomState(0).normal(size=(60, 2))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
GRID = {"shift": [-0.5, 0.0, 0.5]}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "fits.log"
    path.touch()
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "search.db") as opened:
        yield opened


def search(journal: Any, estimator: Any, grid: Any = None, x: Any = X, y: Any = Y, weight: Any = None, **options: Any):
    options = {"cv": KFold(3), "refit": False, **options}
    weights = {} if weight is None else {"sample_weight": weight}
    around = None if journal is None else journal.around
    with joblib.parallel_config(backend=FusedBackend(around=around)):
        return GridSearchCV(estimator, GRID if grid is None else grid, **options).fit(x, y, **weights)


def fits(log: Path) -> int:
    return len(log.read_text().splitlines())


def same(one: dict[str, Any], other: dict[str, Any], *, times: bool = True) -> bool:
    names = [name for name in one if times or "_time" not in name]
    assert [name for name in other if times or "_time" not in name] == names
    for name in names:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)
    return True


# -- what is recorded comes back ------------------------------------------------------------------------------------


def test_a_search_started_again_trains_nothing_and_ends_the_same(log: Path, journal: Journal):
    first = search(journal, Counted(log=str(log)), return_train_score=True)
    assert (fits(log), len(journal)) == (9, 9)
    journal.close()
    with Journal(journal.path) as again:
        second = search(again, Counted(log=str(log)), return_train_score=True)
    assert fits(log) == 9
    assert same(first.cv_results_, second.cv_results_)  # times and all
    assert same(
        first.cv_results_, search(None, Counted(log=str(log)), return_train_score=True).cv_results_, times=False
    )


def test_only_what_is_missing_trains(log: Path, journal: Journal):
    search(journal, Counted(log=str(log)))
    search(journal, Counted(log=str(log)), {"shift": [0.5, 0.75, -0.5]})
    assert log.read_text().splitlines()[9:] == ["0.75"] * 3


def test_results_say_what_is_recorded(log: Path, journal: Journal):
    scoring = {"own": "accuracy", "area": "roc_auc"}
    search(journal, LogisticRegression(), {"C": [np.float64(0.1)], "class_weight": [None, {0: 1.0}]}, scoring=scoring)
    found = journal.results()
    assert [row["split"] for row in found] == [0, 1, 2, 0, 1, 2]
    assert found[0]["parameters"] == "C=0.1, class_weight=None"
    assert found[3]["parameters"] == "C=0.1, class_weight={0: 1.0}"
    assert found[0]["scores"]["test"].keys() == {"own", "area"}
    assert found[0]["seconds"] > 0
    assert found[0]["recorded"].endswith("+00:00")


def test_numbers_come_back_to_the_bit():
    value = {"third": 1 / 3, "zero": -0.0, "nan": np.nan, "inf": -np.inf, "many": 2**70, "both": {"a": 5e-324, "b": 1}}
    back = journal_module._decoded_result(journal_module._encoded_result(value), "")
    assert repr(back) == repr(value)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int8, np.bool_], ids=lambda kind: kind.__name__)
def test_scores_of_any_kind_of_number_come_back(kind: Any, log: Path, journal: Journal):
    scoring = {"own": lambda estimator, x, y: kind(x.sum() > 0)}
    first, second = (search(journal, Counted(log=str(log)), scoring=scoring) for _ in range(2))
    assert same(first.cv_results_, second.cv_results_)
    assert same(first.cv_results_, search(None, Counted(log=str(log)), scoring=scoring).cv_results_, times=False)


def test_a_score_that_is_no_number_stops_the_search(journal: Journal, log: Path):
    from fractions import Fraction

    with pytest.raises(
        ParameterError, match="a Fraction, which a journal cannot record. Let the scorer return plain numbers"
    ):
        search(journal, Counted(log=str(log)), scoring=lambda estimator, x, y: Fraction(1, 3))


def test_an_estimator_without_a_seed_keeps_its_draw(log: Path, journal: Journal):
    first = search(journal, Counted(log=str(log), draw=True))
    second = search(journal, Counted(log=str(log), draw=True))
    assert same(first.cv_results_, second.cv_results_)
    assert fits(log) == 9


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_fit_that_failed_is_not_recorded(log: Path, journal: Journal):
    for _ in range(2):
        with pytest.warns(FitFailedWarning, match="3 fits failed"):
            search(journal, Counted(log=str(log)), {"what": ["fail", "work"]})
    assert (fits(log), len(journal)) == (9, 3)
    log.with_suffix(".fixed").touch()
    found = search(journal, Counted(log=str(log)), {"what": ["fail", "work"]})
    assert (fits(log), len(journal)) == (12, 6)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def _breaks_for_zero(estimator: Any, x: Any, y: Any) -> float:
    if estimator.shift == 0:
        raise ValueError("cannot score")
    return 0.5


@pytest.mark.filterwarnings("ignore:Scoring failed", "ignore:One or more of the test scores are non-finite")
def test_a_score_that_failed_is_not_recorded(log: Path, journal: Journal):
    search(journal, Counted(log=str(log)), scoring=_breaks_for_zero)
    assert (fits(log), len(journal)) == (9, 6)
    search(journal, Counted(log=str(log)), scoring=_breaks_for_zero)
    assert (fits(log), len(journal)) == (12, 6)


def test_cross_validation_is_recorded_too(log: Path, journal: Journal):
    with joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        one = cross_validate(Counted(log=str(log)), X, Y, return_train_score=True)
        other = cross_validate(Counted(log=str(log)), X, Y, return_train_score=True)
    assert same(one, other)
    assert (fits(log), journal.results()[0]["split"]) == (5, None)


def test_other_tasks_run_untouched(journal: Journal):
    with joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        assert joblib.Parallel()(joblib.delayed(pow)(2, power) for power in range(4)) == [1, 2, 4, 8]
    assert len(journal) == 0
    call = functools.partial(pow, 2, 3)
    assert journal.around(call) is call


def test_searches_inside_tasks_are_not_recorded(log: Path, journal: Journal):
    inner = GridSearchCV(Counted(log=str(log)), GRID, cv=2)
    search(journal, inner, {"error_score": ["raise"]})
    assert len(journal) == 3
    assert fits(log) == 3 * (3 * 2 + 1)


def test_a_clone_of_a_search_shares_the_journal(journal: Journal):
    assert copy.deepcopy(journal) is journal
    assert clone({"journal": journal}, safe=False)["journal"] is journal


# -- what a fit is known by -----------------------------------------------------------------------------------------


def _weights(value: float) -> Any:
    return np.where(Y == 1, value, 1.0)


CHANGES: dict[str, dict[str, Any]] = {
    "X": {"x": X + 1e-12},
    "X of another type": {"x": X.astype("f4")},
    "X as a table": {"x": pd.DataFrame(X, columns=["a", "b"])},
    "y": {"y": 1 - Y},
    "weights": {"weight": _weights(2.0)},
    "split": {"cv": KFold(3, shuffle=True, random_state=0)},
    "scorer": {"scoring": "balanced_accuracy"},
    "scorer's options": {"scoring": make_scorer(accuracy_score, normalize=False)},
    "train scores": {"return_train_score": True},
    "error score": {"error_score": "raise"},
    "candidates": {"grid": {"shift": [-0.25, 0.25, 1.0]}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_result_trains_again(change: str, log: Path, journal: Journal):
    base: dict[str, Any] = {"scoring": "accuracy", "weight": _weights(1.0)}
    search(journal, Counted(log=str(log)), **base)
    search(journal, Counted(log=str(log)), **{**base, **CHANGES[change]})
    assert (fits(log), len(journal)) == (18, 18)


def test_a_parameter_of_the_estimator_trains_again(log: Path, journal: Journal):
    pipeline = make_pipeline(StandardScaler(), Counted(log=str(log)))
    grid = {"counted__shift": [0.0]}
    search(journal, pipeline, grid)
    search(journal, clone(pipeline).set_params(standardscaler__with_mean=False), grid)
    search(journal, clone(pipeline).set_output(transform="pandas"), grid)
    search(journal, pipeline, grid)
    assert fits(log) == 9


@pytest.mark.parametrize("option", [{"verbose": 0}, {"n_jobs": 2}, {"pre_dispatch": 1}, {"refit": True}], ids=str)
def test_what_makes_no_difference_does_not(option: dict[str, Any], log: Path, journal: Journal):
    search(journal, Counted(log=str(log)))
    search(journal, Counted(log=str(log)), **option)
    assert len(journal) == 9


def test_an_array_that_was_changed_in_its_place_is_another(log: Path, journal: Journal):
    x = X.copy()
    search(journal, Counted(log=str(log)), x=x)
    x += 1.0
    search(journal, Counted(log=str(log)), x=x)
    assert len(journal) == 18


def _text(value: Any) -> str:
    return Describer().digest({"it": value})


def _factory(width: int, names: Any = frozenset("abcdef")) -> Callable[[Any], Any]:
    def transform(x: Any, *, power: int = 2) -> Any:
        kinds = [kind for kind in ("a", "b") if kind in {"a", "b", "c", "d"}]
        return x**power * width * _WIDTH + len(kinds) + len(names)

    return transform


def _calls(function: Any) -> Callable[[Any], Any]:
    return lambda x: function(x) + 1


def _even(number: int) -> bool:
    return number == 0 or _odd(number - 1)


def _odd(number: int) -> bool:
    return number != 0 and _even(number - 1)


def test_functions_count_by_what_they_do():
    assert _text(_factory(2)) == _text(_factory(2)) != _text(_factory(3))
    assert _text(lambda x: x + 1) == _text(lambda x: x + 1) != _text(lambda x: x + 2)
    assert _text(_calls(_factory(2))) == _text(_calls(_factory(2))) != _text(_calls(_factory(3)))
    assert _text(functools.partial(_factory(2), power=3)) != _text(functools.partial(_factory(2), power=2))
    assert _text(functools.cache(_factory(2))) != _text(functools.cache(_factory(3)))
    assert _text(_even) == _text(_even) != _text(_odd)
    assert _text(np.mean) != _text(np.median) != _text(np.log)


def test_functions_count_with_what_they_use(monkeypatch: pytest.MonkeyPatch):
    before = _text(_factory(2))
    monkeypatch.setitem(globals(), "_WIDTH", 4)
    assert _text(_factory(2)) != before


def test_functions_count_with_their_attributes():
    def function(x: Any) -> Any:
        return x * function.factor  # type: ignore[attr-defined]

    texts = []
    for function.factor in (1, 2):  # type: ignore[attr-defined]
        texts.append(_text(function))
    assert texts[0] != texts[1]


def test_enumerations_and_classes_of_classes_count_by_what_they_do():
    def made(step: int) -> Any:
        class Kind(enum.Enum):
            ONE = 1

            def apply(self, x: Any) -> Any:
                return x + step

        class Meta(type):
            def make(cls) -> Any:
                return step

        return Kind.ONE, Meta("Own", (), {})

    for one, same_again, other in zip(made(1), made(1), made(2), strict=True):
        assert _text(one) == _text(same_again) != _text(other)


def test_classes_count_by_what_they_do():
    def made(step: int) -> Any:
        class Own(BaseEstimator):
            def fit(self, x: Any, y: Any = None) -> Any:
                return step

        return Own()

    assert _text(made(1)) == _text(made(1)) != _text(made(2))


def test_own_modules_count_by_what_is_used_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = []
    program = "def build():\n    import own_helpers as helpers\n    return helpers.make(1)"
    for number, other in ((1, 1), (1, 2), (2, 2)):
        source = f"def make(x):\n    return x + {number}\ndef unused():\n    return {other}\n"
        (tmp_path / "own_helpers.py").write_text(source)
        monkeypatch.delitem(sys.modules, "own_helpers", raising=False)
        sys.dont_write_bytecode = True
        namespace: dict[str, Any] = {"__name__": "own_program"}
        exec(program, namespace)
        texts.append(_text(namespace["build"]))
    monkeypatch.delitem(sys.modules, "own_helpers")
    assert texts[0] == texts[1] != texts[2]


OWN_PACKAGE = """
import own_package

def relative(x):
    from . import helpers
    return helpers.make(x)

def absolute(x):
    from own_package import helpers
    return helpers.make(x)

def dotted(x):
    import own_package.helpers
    return own_package.helpers.make(x)

def by_name(x):
    import own_package.helpers as helpers
    return getattr(helpers, "make")(x)
"""


@pytest.mark.parametrize("name", ["relative", "absolute", "dotted", "by_name"])
def test_own_modules_count_however_they_are_imported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "own_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "program.py").write_text(OWN_PACKAGE)
    texts = []
    for number in (1, 1, 2):
        (folder / "helpers.py").write_text(f"def make(x):\n    return x + {number}\n")
        for module in [module for module in sys.modules if module.partition(".")[0] == "own_package"]:
            monkeypatch.delitem(sys.modules, module)
        texts.append(_text(getattr(importlib.import_module("own_package.program"), name)))
        assert texts[-1] == _text(getattr(sys.modules["own_package.program"], name))  # now that it is imported
    assert texts[0] == texts[1] != texts[2]


def test_own_modules_that_use_each_other_count_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_second.py").write_text("def second(x):\n    import own_first\n    return own_first.third(x)\n")
    first = "import own_second\ndef first(x):\n    return own_second.second(x)\ndef third(x):\n    return x + {}\n"
    texts = []
    for number in (1, 1, 2):
        (tmp_path / "own_first.py").write_text(first.format(number))
        for module in ("own_first", "own_second"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        namespace: dict[str, Any] = {"__name__": "own_program"}
        exec("import own_first\ndef build(x):\n    return own_first.first(x)", namespace)
        texts.append(_text(namespace["build"]))
    assert texts[0] == texts[1] != texts[2]


def test_what_was_copied_among_installed_packages_counts_by_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    texts = []
    for number in (1, 2):
        (folder / "own_copied.py").write_text(f"def make(x):\n    return x + {number}\n")
        monkeypatch.delitem(sys.modules, "own_copied", raising=False)
        texts.append(_text(importlib.import_module("own_copied").make))
    assert texts[0] != texts[1]


def test_values_count_by_content():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None], "c": pd.Categorical(["u", "v"])})
    assert _text(table) == _text(table.copy())
    for other in (
        table.rename(columns={"a": "z"}),
        table.assign(a=[1.0, 3.0]),
        table.assign(b=["x", "y"]),
        table[::-1],
    ):
        assert _text(other) != _text(table)
    days = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", None])})
    assert _text(days) == _text(days.copy()) != _text(days.shift(1))
    assert _text(re.compile("a")) == _text(re.compile("a")) != _text(re.compile("b"))
    assert _text(np.zeros(0)) != _text(np.zeros((0, 2))) != _text(np.zeros((0, 2), dtype="U"))
    matrix = sparse.csr_matrix(np.eye(3))
    assert _text(matrix) == _text(matrix.copy()) != _text(matrix * 2)
    assert _text(np.arange(6)) != _text(np.arange(6).reshape(2, 3)) != _text(np.arange(6).reshape(3, 2))
    assert _text(np.asfortranarray(X)) == _text(X)
    assert _text(np.array(["a", 1], dtype=object)) != _text(np.array(["a", 2], dtype=object))
    assert _text(np.random.RandomState(0)) == _text(np.random.RandomState(0)) != _text(np.random.RandomState(1))
    assert _text(np.random.default_rng(0)) == _text(np.random.default_rng(0)) != _text(np.random.default_rng(1))
    assert len({_text(value) for value in (1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, None, 1j)}) == 11
    kinds = (0.5, np.float64(0.5), np.float32(0.5), np.longdouble(0.5), np.array(0.5))
    assert len({_text(value) for value in kinds}) == len(kinds)  # each makes another type of what it is added to
    loop: list[Any] = []
    loop.append(loop)
    assert _text(loop) == _text(loop)


def test_polars_tables_count_by_content():
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert _text(table) == _text(table.clone()) != _text(table.with_columns(a=polars.Series([1, 3])))


def test_a_frozen_estimator_counts_with_what_it_has_learned():
    one, other = LogisticRegression().fit(X, Y), LogisticRegression().fit(X, 1 - Y)
    assert _text(FrozenEstimator(one)) != _text(FrozenEstimator(other))


PROGRAM = textwrap.dedent(
    """
    import sys
    import joblib
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from kerastoolkit.search.backend import FusedBackend
    from kerastoolkit.search.journal import Journal

    class Names(set):
        pass

    NAMES = Names({"alpha", "beta", "gamma", "delta"})

    class Own(LogisticRegression):
        kinds = {"first", "second", "third"}

        def fit(self, X, y, sample_weight=None):
            print("fit")
            return super().fit(X, y)

    def loss(y, z):
        return float(np.mean(y == z)) + len(NAMES) * ("x" in {"x", "y", "z"})

    X = np.random.RandomState(0).normal(size=(40, 2))
    y = np.where(X[:, 0] > 0, "yes", "no").astype(object)
    model = make_pipeline(FunctionTransformer(lambda X: X * len(NAMES)), Own())
    with Journal(PATH) as journal, joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        found = GridSearchCV(model, {"own__C": [0.1, 1.0]}, scoring=make_scorer(loss), cv=2, refit=False).fit(X, y)
    """
)


def test_a_fit_is_known_again_in_another_process(tmp_path: Path, run_python: Any):
    program = f"PATH = {str(tmp_path / 'search.db')!r}\n{PROGRAM}"
    printed = [run_python(program, PYTHONHASHSEED=seed).stdout.count("fit") for seed in ("1", "2", "3")]
    assert printed == [4, 0, 0]


# -- what is refused before it trains -------------------------------------------------------------------------------


def test_what_cannot_be_known_again_is_refused_before_training(tmp_path: Path, log: Path, journal: Journal):
    with open(tmp_path / "notes.txt", "w") as file:
        pipeline = make_pipeline(StandardScaler(), Counted(log=str(log), what={"deep": [file]}))
        with pytest.raises(ParameterError, match="`counted` -> `what` -> `deep`: it is an open file.*Pass a path"):
            search_without_copies(journal, pipeline)
        with pytest.raises(ParameterError, match="the parameter `what`: it is an open file"):
            search_without_copies(journal, Counted(log=str(log)), [{"what": file}])
        with pytest.raises(ParameterError, match="the parameter `what`: it is an open file"):
            journal.check(Counted(log=str(log)), [{"what": 1}, {"what": file}])
        function = lambda x: file.write(x)  # noqa: E731
        with pytest.raises(ParameterError, match="the function `<lambda>` -> its `file`: it is an open file"):
            search(journal, make_pipeline(FunctionTransformer(function), Counted(log=str(log))), {"memory": [None]})
    with pytest.raises(ParameterError, match="read only once .generator."):
        journal.check(Counted(what=(number for number in range(3))))
    with pytest.raises(ParameterError, match="the estimator -> `what`: it is a _thread.lock"):
        journal.check(Counted(what=threading.Lock()))
    assert fits(log) == len(journal) == 0
    journal.check(Counted(), [{"shift": 1.0}])


def search_without_copies(journal: Journal, estimator: Any, candidates: Any = ({},)) -> None:
    """The tasks of a search, without the clone that fails earlier for some of what is refused."""
    from sklearn.metrics import check_scoring

    task = _fit_task()
    for candidate in candidates:
        keywords = {"parameters": candidate, "scorer": check_scoring(Counted()), "train": [0], "test": [1]}
        _Call([(task, (estimator, X, Y), keywords)], journal)()


def _fit_task(run: Callable[[], dict[str, Any]] = dict) -> Any:
    """Stands for the function of scikit-learn that fits and scores."""

    def task(estimator: Any, X: Any, y: Any, *, parameters: Any, scorer: Any, train: Any, test: Any) -> Any:
        return run()

    task.__name__, task.__module__ = "_fit_and_score", "sklearn.model_selection._validation"
    return task


class _Call:
    """A BatchedCalls of joblib, as far as a journal uses it."""

    def __init__(self, items: list[Any], journal: Journal) -> None:
        self.items, self.journal = items, journal

    def __call__(self) -> list[Any]:
        self.journal.around(self)
        return [function(*arguments, **keywords) for function, arguments, keywords in self.items]


def test_returned_estimators_have_to_be_recorded(log: Path, journal: Journal, tmp_path: Path):
    with (
        joblib.parallel_config(backend=FusedBackend(around=journal.around)),
        pytest.raises(ParameterError, match="`return_estimator=True` asks for the fitted estimators.*keep_models=True"),
    ):
        cross_validate(Counted(log=str(log)), X, Y, return_estimator=True)
    with (
        Journal(tmp_path / "models.db", keep_models=True) as keeping,
        pytest.raises(ParameterError, match="`keep_models=True` records estimators of kerastoolkit.*got Counted"),
    ):
        search(keeping, Counted(log=str(log)))
    assert fits(log) == 0


# -- the file -------------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_search_and_loses_nothing(log: Path, journal: Journal):
    grid = {"shift": np.linspace(-1, 1, 40).tolist()}
    pages = journal._file.execute("PRAGMA page_count").fetchone()[0]
    journal._file.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(
        JournalError, match="is full.*Free some space on the disk. Everything recorded so far is kept"
    ) as error:
        search(journal, Counted(log=str(log)), grid)
    assert isinstance(error.value, OSError)
    recorded = len(journal)
    assert 0 < recorded < 120
    assert fits(log) == recorded + 1  # the one that could not be written was the last
    journal.close()
    with Journal(journal.path) as again:
        found = search(again, Counted(log=str(log)), grid)
    assert fits(log) == 121
    assert same(found.cv_results_, search(None, Counted(log=str(log)), grid).cv_results_, times=False)


def test_a_locked_file_is_an_error_that_says_so(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "search.db"
    with Journal(path) as journal:
        search(journal, Counted(log=str(log)), {"shift": [0.0]})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            JournalError, match="'.*search.db' cannot be written to: database is locked. Another program"
        ):
            search(journal, Counted(log=str(log)))
        assert (len(journal), fits(log)) == (3, 3)  # nothing was trained that could not be recorded
        other.execute("ROLLBACK")
        assert search(journal, Counted(log=str(log))).best_score_ > 0.5
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("COMMIT")
    with pytest.raises(JournalError, match="cannot be opened: database is locked.*Everything recorded so far is kept"):
        Journal(path)
    other.close()
    with Journal(path) as journal:
        assert len(journal) == 9


def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path):
    text, foreign, newer = tmp_path / "notes.txt", tmp_path / "other.db", tmp_path / "newer.db"
    text.write_text("a,b\n1,2\n")
    with sqlite3.connect(foreign) as file:
        file.execute("CREATE TABLE things (name)")
    file.close()
    Journal(newer).close()
    with sqlite3.connect(newer) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    for path, message in (
        (text, "not a journal of kerastoolkit: file is not a database. Give another path"),
        (foreign, "SQLite database of another program, with 1 tables. Give another path"),
        (newer, "has format 99; this is kerastoolkit .* reads formats up to 2. Upgrade"),
    ):
        before = path.read_bytes()
        with pytest.raises(SavedFileError, match=message):
            Journal(path)
        assert path.read_bytes() == before


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        yield file


def test_a_foreign_database_is_not_even_recovered(tmp_path: Path):
    """SQLite takes back what a killed process left half done as soon as it reads; that is up to its own program."""
    path = tmp_path / "orders.db"
    program = """
import os, sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("CREATE TABLE orders (amount)")
file.execute("PRAGMA cache_size = 1")
file.execute("BEGIN")
file.executemany("INSERT INTO orders VALUES (zeroblob(3000))", [()] * 50)
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert len(before["orders.db-journal"]) > 0
    with pytest.raises(SavedFileError, match="of another program, with 1 tables"):
        Journal(path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_journal_without_digests_is_refused_and_left_as_it_is(tmp_path: Path):
    with opened(tmp_path / "search.db") as file:
        file.execute("CREATE TABLE fits (key TEXT PRIMARY KEY, result TEXT)")
        file.execute(f"PRAGMA application_id = {journal_module._APPLICATION}")
        file.execute("PRAGMA user_version = 1")
    before = (tmp_path / "search.db").read_bytes()
    with pytest.raises(SavedFileError, match="has format 1, from before kerastoolkit 0.1.0.*Give another path"):
        Journal(tmp_path / "search.db")
    assert (tmp_path / "search.db").read_bytes() == before


@pytest.mark.parametrize(
    "what",
    [
        "CREATE TRIGGER more AFTER INSERT ON fits BEGIN UPDATE fits SET split = 7; END",
        "CREATE VIEW more AS SELECT * FROM fits",
        "CREATE TABLE more (x)",
        "CREATE INDEX more ON fits (split)",
        "ALTER TABLE fits ADD COLUMN more TEXT GENERATED ALWAYS AS (hex(zeroblob(1000000)))",
        "DROP TABLE fits; CREATE VIEW fits AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT 'k' AS key, '' AS parameters, i AS split, '' AS result, '' AS recorded, NULL AS model, x'00' AS digest "
        "FROM n",
    ],
    ids=["trigger", "view", "table", "index", "generated column", "endless view"],
)
def test_a_journal_that_does_more_than_keep_rows_is_refused(what: str, tmp_path: Path):
    Journal(tmp_path / "search.db").close()
    with opened(tmp_path / "search.db") as file:
        file.executescript(what)
    with pytest.raises(SavedFileError, match="is damaged: it holds other tables, views or triggers than ours"):
        Journal(tmp_path / "search.db")


@pytest.mark.parametrize("name", ["folder", "dangling", "circle"])
def test_a_path_that_leads_to_no_file_is_refused(name: str, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "somewhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(JournalError, match="it is not a file. Check whether it is a folder, or a link"):
        Journal(tmp_path / name)
    assert not (tmp_path / "somewhere").exists()


# A value in a row, and what it is changed to.
DAMAGES = {
    "a score": "result = replace(result, '\"test_scores\": 0.', '\"test_scores\": 0.1')",
    "a parameter": "parameters = 'shift=9'",
    "the split": "split = split + 1",
    "the time": "recorded = '2000-01-01T00:00:00+00:00'",
    "the model": "model = x'00'",
    "the digest": "digest = zeroblob(16)",
    "another row": "(parameters, split, result, recorded, digest) = "
    "(SELECT parameters, split, result, recorded, digest FROM fits WHERE rowid = 1)",
    "letters": "parameters = CAST(x'FF' AS TEXT)",
    "a type": "result = x'7B7D'",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_row_that_is_not_as_it_was_written_is_never_a_score(what: str, log: Path, tmp_path: Path):
    path = tmp_path / "search.db"
    with Journal(path) as journal:
        search(journal, Counted(log=str(log)))
    with opened(path) as file:
        assert file.execute(f"UPDATE fits SET {DAMAGES[what]} WHERE rowid = 5").rowcount == 1
    message = r"search.db' is damaged: row 5 is not as it was written. .*DELETE FROM fits WHERE rowid = 5"
    with Journal(path) as journal:
        for read in (journal.results, journal.models):
            with pytest.raises(SavedFileError, match=message):
                read()
        with pytest.raises(SavedFileError, match=message):  # before anything trains, and though it is not asked for
            search(journal, Counted(log=str(log)), {"shift": [0.75]})
        assert fits(log) == 9
        with opened(path) as file:
            file.execute("DELETE FROM fits WHERE rowid = 5")
        search(journal, Counted(log=str(log)))
    assert fits(log) == 10


def test_a_damaged_file_is_refused(tmp_path: Path, log: Path):
    path = tmp_path / "search.db"
    with Journal(path) as journal:
        search(journal, Counted(log=str(log)))
    content = bytearray(path.read_bytes())
    content[100:] = b"\x7f" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(SavedFileError, match="is damaged"):
        Journal(path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "[" * 100_000,
        '{"test_scores": "0.5"}',
        '{"test_scores": {"own": [0.5]}}',
        '{"test_scores": null}',
        '{"test_scores": 0.5, "test_scores": 0.6}',
        '{"fit_time": NaN}',
        '{"fit_time": -1}',
        '{"fit_error": "it failed"}',
        '{"estimator": {"class": "os:system"}}',
        '{"more": [1]}',
        '{"more": ' + "9" * 5000 + "}",
        '{"more": "' + "x" * 2**20 + '"}',
    ],
    ids=lambda text: text[:30],
)
def test_a_result_that_no_search_has_is_refused(text: str):
    with pytest.raises(SavedFileError, match="'search.db' is damaged: a result in it cannot be read"):
        journal_module._decoded_result(text, "search.db")


def test_a_failure_that_somebody_recorded_is_refused(log: Path, journal: Journal):
    search(journal, Counted(log=str(log)))
    with opened(journal.path) as file:  # as a forger would, with the digest
        row = list(file.execute("SELECT * FROM fits WHERE rowid = 1").fetchone())[:-1]
        row[3] = re.sub('"test_scores": [0-9.]+', '"test_scores": NaN', row[3])
        file.execute(
            "UPDATE fits SET (result, digest) = (?, ?) WHERE rowid = 1", (row[3], journal_module._digest_of_row(row))
        )
    with pytest.raises(SavedFileError, match="it holds a fit that failed, which is never recorded"):
        search(journal, Counted(log=str(log)))


def test_a_file_without_its_table_is_refused(tmp_path: Path):
    path = tmp_path / "search.db"
    Journal(path).close()
    with sqlite3.connect(path) as file:
        file.execute("DROP TABLE fits")
    file.close()
    with Journal(path) as journal, pytest.raises(SavedFileError, match="is damaged: no such table: fits"):
        len(journal)


def test_a_file_that_may_only_be_read_stops_a_search_before_it_trains(log: Path, journal: Journal):
    recorded = search(journal, Counted(log=str(log)))
    assert journal._file is not None
    journal._file.close()
    address = f"file:{journal.path}?mode=ro"
    journal._file = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    with pytest.raises(JournalError, match="cannot be written to: attempt to write a readonly database. Make sure"):
        search(journal, Counted(log=str(log)), {"shift": [0.75]})
    assert same(search(journal, Counted(log=str(log))).cv_results_, recorded.cv_results_)  # nothing to write
    assert fits(log) == 9


@pytest.mark.parametrize("name", [":memory:", "file:search.db?mode=memory"])
def test_a_journal_is_a_file_whatever_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Journal(name).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("path", [True, 5, None, b"search.db"], ids=repr)
def test_what_is_no_path_is_refused(path: Any):
    with pytest.raises(ParameterError, match=f"given by the path of its file; got {path!r}"):
        Journal(path)


def test_a_place_that_cannot_hold_a_file_is_an_error(tmp_path: Path):
    with pytest.raises(JournalError, match="there is no folder '.*nowhere'"):
        Journal(tmp_path / "nowhere" / "search.db")
    with pytest.raises(JournalError, match="cannot be opened.*Check whether it is a folder"):
        Journal(tmp_path)


def test_a_closed_journal_says_so(tmp_path: Path):
    journal = Journal(tmp_path / "search.db")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed. Open it again"):
        len(journal)


def test_a_closed_journal_stops_a_search_before_it_trains(log: Path, journal: Journal):
    journal.close()
    with pytest.raises(JournalError, match="is closed. Open it again"):
        search(journal, Counted(log=str(log)))
    assert fits(log) == 0


def test_a_saved_search_comes_back_with_its_journal_closed(journal: Journal, tmp_path: Path):
    found = TogetherSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, journal=journal).fit(X, Y)
    joblib.dump(found, tmp_path / "search.joblib")
    back = joblib.load(tmp_path / "search.joblib")
    np.testing.assert_array_equal(back.predict(X), found.predict(X))
    assert back.journal.path == journal.path
    with pytest.raises(JournalError, match="is closed"):
        back.fit(X, Y)


def test_an_empty_file_becomes_a_journal(tmp_path: Path):
    path = tmp_path / "search.db"
    path.touch()
    with Journal(path) as journal:
        assert (len(journal), journal.results()) == (0, [])


# -- several at once ------------------------------------------------------------------------------------------------


def test_many_may_make_the_same_file(tmp_path: Path):
    errors: list[BaseException] = []

    def make(path: Path) -> None:
        try:
            Journal(path).close()
        except Exception as error:
            errors.append(error)

    for number in range(20):
        threads = [threading.Thread(target=make, args=(tmp_path / f"{number}.db",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path):
    path = tmp_path / "search.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # reading goes on, a change of mode does not
    has_let_go = threading.Event()

    def let_go() -> None:
        has_let_go.set()
        other.execute("ROLLBACK")

    timer = threading.Timer(0.3, let_go)
    timer.start()
    Journal(path).close()
    assert has_let_go.is_set()
    timer.join()
    other.close()


def test_threads_may_share_a_journal(log: Path, journal: Journal):
    found: list[Any] = []

    def run(shift: float) -> None:
        task = _fit_task(lambda: {"test_scores": shift, "fit_error": None})
        keywords = {"parameters": {"shift": shift}, "scorer": None, "train": [0], "test": [1]}
        found.extend(_Call([(task, (Counted(), X, Y), keywords)] * 5, journal)())

    threads = [threading.Thread(target=run, args=(float(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal) == 8
    assert sorted(result["test_scores"] for result in found) == sorted(list(map(float, range(8))) * 5)


def test_of_two_that_train_the_same_fit_the_first_recorded_wins(tmp_path: Path):
    keywords: dict[str, Any] = {"parameters": {"shift": 1.0}, "scorer": None, "train": [0], "test": [1]}
    path, quicker = tmp_path / "search.db", []

    class Fits(DummyClassifier):
        pass

    def call(journal: Journal, run: Callable[[], dict[str, Any]]) -> Any:
        return _Call([(_fit_task(run), (Fits(), X, Y), dict(keywords))], journal)()[0]

    with Journal(path) as one, Journal(path) as other:

        def slow() -> dict[str, Any]:
            quicker.append(call(other, lambda: {"test_scores": 1.0, "fit_error": None}))
            return {"test_scores": 2.0, "fit_error": None}

        assert call(one, slow) == quicker[0] == {"test_scores": 1.0, "fit_error": None}
        assert len(one) == 1


TOGETHER = textwrap.dedent(
    """
    import json
    import os
    import sys
    import time
    from pathlib import Path
    import joblib
    import numpy as np
    from sklearn.base import BaseEstimator
    from sklearn.model_selection import GridSearchCV
    from kerastoolkit.search.backend import FusedBackend
    from kerastoolkit.search.journal import Journal

    class Slow(BaseEstimator):
        def __init__(self, log=None, shift=0, seconds=0.0, draw=False):
            self.log, self.shift, self.seconds, self.draw = log, shift, seconds, draw

        def fit(self, X, y=None):
            with open(self.log, "a") as file:
                file.write(f"{self.shift} {int(X.sum())}\\n")
            # In the environment, since other arguments would be another search.
            is_slow = "SLOW_AFTER_TEN" in os.environ and Path(self.log).read_text().count("\\n") > 10
            time.sleep(1.0 if is_slow else self.seconds)
            self.score_ = float(np.random.random()) if self.draw else float(np.sin(X.sum() * (self.shift + 1)))
            return self

        def score(self, X, y=None):
            return self.score_

    path, log, fits, draw = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "draw"
    X = np.arange(8.0).reshape(8, 1)
    print("begins", flush=True)
    with Journal(path) as journal, joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        grid = {"shift": list(range(fits // 4))}
        found = GridSearchCV(Slow(log, seconds=0.02, draw=draw), grid, cv=4, refit=False).fit(X)
    scores = {name: np.asarray(value).tolist() for name, value in found.cv_results_.items() if "test_score" in name}
    print(json.dumps(scores))
    """
)


def _start(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TOGETHER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen[str]) -> Any:
    printed, errors = process.communicate(timeout=1500)
    assert process.returncode == 0, errors
    return json.loads(printed.splitlines()[-1])


def test_two_processes_share_a_journal_and_end_with_the_same_scores(tmp_path: Path):
    path, log = tmp_path / "search.db", tmp_path / "fits.log"
    one, other = (_start(path, log, 40, "draw") for _ in range(2))
    assert _finished(one) == _finished(other)
    with Journal(path) as journal:
        assert len(journal) == 40
    assert fits(log) <= 80


def test_a_search_that_is_killed_resumes(tmp_path: Path):
    path, log, n_fits = tmp_path / "search.db", tmp_path / "fits.log", 20 * max(_KILLS, 3)
    undisturbed = _finished(_start(tmp_path / "other.db", tmp_path / "other.log", n_fits, "-"))
    rows = np.arange(8)
    split_of = {int(np.delete(rows, [2 * split, 2 * split + 1]).sum()): split for split in range(4)}
    moments = random.Random(0)
    log.touch()
    for run in range(_KILLS + 1):
        with Journal(path) as journal:
            recorded = {(row["parameters"], row["split"]) for row in journal.results()}
        before = fits(log)
        process = _start(path, log, n_fits, "-")
        if run < _KILLS:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0.0, 0.35))
            process.kill()
            process.communicate(timeout=1500)
        else:
            assert _finished(process) == undisturbed
        for line in log.read_text().splitlines()[before:]:
            shift, total = line.split()
            assert (f"shift={shift}", split_of[int(total)]) not in recorded
    # A kill costs at most the one fit that was under way.
    assert n_fits <= fits(log) <= n_fits + _KILLS


def test_a_search_that_is_interrupted_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, log = tmp_path / "search.db", tmp_path / "fits.log"
    log.touch()
    with monkeypatch.context() as patch:
        patch.setenv("SLOW_AFTER_TEN", "so that it is interrupted in time, however busy the machine is")
        process = _start(path, log, 40, "-")
    while fits(log) < 10:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=1500)[1]
    with Journal(path) as journal:
        recorded = len(journal)
    assert 9 <= recorded < 40
    _finished(_start(path, log, 40, "-"))
    assert 40 <= fits(log) <= 41


# -- Keras ----------------------------------------------------------------------------------------------------------


def _build(input_shape: Any, units: int = 2) -> Any:
    import keras

    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
    )


def _keras_search(journal: Any, model: Any, **options: Any) -> tuple[Any, int]:
    backend = FusedBackend(around=None if journal is None else journal.around)
    with joblib.parallel_config(backend=backend):
        grid = options.pop("grid", {"optimizer__learning_rate": [0.1, 0.01]})
        found = GridSearchCV(model, grid, cv=2, refit=False, **options).fit(X, Y)
    return found, len(backend.report.trained)


def test_keras_fits_are_recorded(journal: Journal):
    import keras

    from kerastoolkit import KerasClassifier

    model = KerasClassifier(
        _build,
        loss=lambda y, z: keras.losses.binary_crossentropy(y, z),
        optimizer=keras.optimizers.Adam(),
        callbacks=[keras.callbacks.EarlyStopping(patience=3, monitor="loss")],
        epochs=2,
        random_state=0,
    )
    first, trained = _keras_search(journal, model)
    assert (trained, len(journal)) == (4, 4)
    second, trained = _keras_search(journal, clone(model))
    assert trained == 0
    assert same(first.cv_results_, second.cv_results_)
    assert same(first.cv_results_, _keras_search(None, model)[0].cv_results_, times=False)
    longer = {"optimizer__learning_rate": [0.1, 0.03]}
    assert _keras_search(journal, model, grid=longer)[1] == 2
    assert _keras_search(journal, clone(model).set_params(callbacks__patience=4))[1] == 4


def test_keras_objects_count_by_content():
    import keras

    assert _text(keras.optimizers.Adam(0.1)) == _text(keras.optimizers.Adam(0.1)) != _text(keras.optimizers.Adam(0.2))
    one, other = (keras.metrics.MeanMetricWrapper(lambda y, z, n=number: z + n, name="own") for number in (1, 2))
    assert _text(one) != _text(other)
    schedules = [keras.callbacks.LearningRateScheduler(lambda epoch, n=number: 0.1 / n) for number in (1, 2)]
    assert _text(schedules[0]) != _text(schedules[1])

    def built(units: int, seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        keras.backend.clear_session()
        model = _build((2,), units)
        model.compile("sgd", loss="binary_crossentropy")
        return model

    assert _text(built(2, 0)) == _text(built(2, 0)) != _text(built(2, 1))
    assert _text(built(2, 0)) != _text(built(3, 0))


class _Unsaid:
    """What the class below adds to one of Keras': a number that no config tells."""

    def __init__(self, factor: float, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._factors = [factor]

    def get_config(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    "name",
    [
        "constraints.Constraint", "initializers.Initializer", "layers.Layer", "losses.Loss", "metrics.Mean",
        "optimizers.SGD", "optimizers.schedules.LearningRateSchedule", "regularizers.Regularizer", "Model",
    ],
)  # fmt: skip
def test_own_classes_of_keras_count_with_what_their_configs_leave_out(name: str):
    import keras

    base = functools.reduce(getattr, name.split("."), keras)
    options = {"name": "own"} if name in ("layers.Layer", "metrics.Mean", "Model") else {}
    own = type("Own", (_Unsaid, base), {"__doc__": None})
    texts = [_text(own(factor, **options)) for factor in (1.0, 1.0, 2.0)]
    assert texts[0] == texts[1] != texts[2]


def test_a_model_of_its_own_class_counts_with_its_layers():
    import keras

    class Own(keras.Model):
        def __init__(self, rate: float) -> None:
            super().__init__(name="own")
            self.drop = keras.layers.Dropout(rate, seed=0, name="drop")

        def call(self, x: Any) -> Any:
            return self.drop(x)

        def get_config(self) -> dict[str, Any]:
            return {}

    assert _text(Own(0.1)) == _text(Own(0.1)) != _text(Own(0.5))


def test_a_compiled_model_counts_with_the_state_of_its_optimizer():
    import keras

    texts = []
    for steps in (0, 0, 3):
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        model = _build((2,))
        model.compile("sgd", loss="binary_crossentropy")
        model.optimizer.iterations.assign(steps)
        texts.append(_text(model))
    assert texts[0] == texts[1] != texts[2]


def test_an_argument_that_the_config_of_a_loss_or_a_metric_leaves_out_counts():
    import keras

    for kind, name in ((keras.losses.Huber, "delta"), (keras.metrics.CosineSimilarity, "axis")):
        texts = [_text(kind(**{name: value})) for value in (2, 2, 3)]
        assert texts[0] == texts[1] != texts[2]


def test_keras_settings_count():
    import keras

    before = keras.config.epsilon()
    texts = [_text(keras.losses.BinaryCrossentropy())]
    try:
        keras.config.set_epsilon(1e-3)
        texts.append(_text(keras.losses.BinaryCrossentropy()))
    finally:
        keras.config.set_epsilon(before)
    assert texts[0] != texts[1]
    policies = [
        keras.dtype_policies.DTypePolicyMap("float32", {"a": keras.DTypePolicy(name)})
        for name in ("float16", "bfloat16")
    ]
    assert _text(policies[0]) != _text(policies[1])


@pytest.mark.parametrize("package", ["tensorflow", "jax", "torch"])
def test_the_version_of_the_backend_counts(package: str, backend: str, monkeypatch: pytest.MonkeyPatch):
    import keras

    texts = []
    for version in ("7.1", "8.1"):
        monkeypatch.setattr(_description, "_package_version", lambda top: version if top == package else "1")  # noqa: B023
        texts.append(_text(keras.losses.Loss))
    assert (texts[0] != texts[1]) == (package == backend)


def test_models_are_recorded_if_asked_for(tmp_path: Path):
    from kerastoolkit import KerasClassifier

    model = KerasClassifier(_build, epochs=1, random_state=0)
    path = tmp_path / "search.db"
    results = []
    for _ in range(2):
        backend = None
        with Journal(path, keep_models=True) as journal:
            backend = FusedBackend(around=journal.around)
            with joblib.parallel_config(backend=backend):
                results.append(cross_validate(model, X, Y, cv=2, return_estimator=True))
            results.append(len(backend.report.trained))
            models = journal.models()
    first, trained, second, trained_again = results
    assert (trained, trained_again) == (2, 0)
    for one, other, kept in zip(first["estimator"], second["estimator"], models, strict=True):
        assert other.model is _build
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
        np.testing.assert_array_equal(one.predict_proba(X), kept.predict_proba(X))


KERAS_PROGRAM = textwrap.dedent(
    """
    import json
    import sys
    import time
    import keras
    import numpy as np
    from sklearn.datasets import load_iris
    from kerastoolkit import KerasClassifier
    from kerastoolkit.search import GridSearchCV

    path, log = sys.argv[1:]

    def build(input_shape, head, width):
        layers = [keras.layers.Dense(width, activation="relu"), keras.layers.Dense(3, activation="softmax")]
        return keras.Sequential([keras.Input(input_shape), *layers])

    class Logged(KerasClassifier):
        def fit(self, X, y, **options):
            write("fit", self, X)
            return super().fit(X, y, **options)

    def write(what, model, X):
        rate = model.get_params()["optimizer__learning_rate"]
        split = [round(float(np.sum(X[:, 0])), 3) == round(total, 3) for total in totals].index(True)
        with open(log, "a") as file:
            file.write(f"{what} {model.width} {rate} {split}\\n")

    X, y = load_iris(return_X_y=True)
    parts = np.random.RandomState(0).permutation(len(X)).reshape(3, 50)
    folds = [(np.setdiff1d(np.arange(len(X)), part), part) for part in parts]
    totals = [float(X[train, 0].sum()) for train, test in folds]
    model = Logged(build, epochs=30, batch_size=20, random_state=0, optimizer="adam")
    grid = {"width": [4, 6, 8], "optimizer__learning_rate": [0.1, 0.01]}
    scoring = ["accuracy", "neg_log_loss"]
    line = open(log + ".line", "w")
    print("begins", flush=True)
    begun = time.monotonic()
    tell = lambda progress: print(progress, file=line, flush=True)
    search = GridSearchCV(model, grid, cv=folds, scoring=scoring, refit=False, journal=path, on_progress=tell)
    found = search.fit(X, y).cv_results_
    plain = {name: [str(item) for item in found[name]] if name == "params" else np.asarray(found[name]).tolist()
             for name in found if "_time" not in name and not name.startswith("param_")}
    print(json.dumps({"seconds": time.monotonic() - begun, "found": plain}))
    """
)


def _start_keras(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KERAS_PROGRAM, str(folder / "search.db"), str(folder / "fits.log")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.timeout(7200)
def test_searches_of_keras_models_that_are_killed_resume(tmp_path: Path):
    (quiet := tmp_path / "undisturbed").mkdir()
    undisturbed = _finished(_start_keras(quiet))
    moments, kills, counts = random.Random(0), 0, collections.Counter[str]()
    n_fits = fits(quiet / "fits.log")
    assert n_fits == 18
    while kills < _KILLS:  # a search that ended before its time to be killed is followed by another
        (folder := tmp_path / f"search {counts['searches']}").mkdir()
        log, path = folder / "fits.log", folder / "search.db"
        log.touch()
        ended, killed = False, 0
        while not ended:
            with Journal(path) as journal:
                recorded = {(row["parameters"], row["split"]) for row in journal.results()}
            before = fits(log)
            process = _start_keras(folder)
            assert process.stdout is not None
            process.stdout.readline()
            if kills < _KILLS:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=moments.uniform(0.0, 0.9 * undisturbed["seconds"]))
            ended = kills == _KILLS or process.poll() is not None
            if ended:
                found = _finished(process)["found"]
            else:
                process.kill()
                process.communicate(timeout=1500)
                kills, killed = kills + 1, killed + 1
                with Journal(path) as journal:
                    counts["kills between the first and the last record"] += 0 < len(journal) < n_fits
                said = (folder / "fits.log.line").read_text().splitlines()
                counts["kills in training"] += "training, " in "".join(said[-1:])
            trained = [line.split()[1:] for line in log.read_text().splitlines()[before:]]
            named = {(f"optimizer__learning_rate={rate}, width={width}", int(split)) for width, rate, split in trained}
            assert not named & recorded  # nothing that was recorded is trained again
            assert len(named) == len(trained)
        with Journal(path) as journal:
            assert len(journal) == n_fits
        counts.update({"searches": 1, "kills": killed, "recorded": n_fits, "begun again": fits(log) - n_fits})
        for name, values in undisturbed["found"].items():
            if "log_loss" in name and not name.startswith("rank"):  # the same up to rounding: groups were smaller
                np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                assert found[name] == values, name
    print(dict(counts), f"{undisturbed['seconds']:.1f} seconds undisturbed")
    assert counts["kills"] == _KILLS


def test_scores_without_a_search_are_recorded(journal: Journal):
    with joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        one = cross_val_score(LogisticRegression(), X, Y)
        assert len(journal) == 5
        assert (cross_val_score(LogisticRegression(), X, Y) == one).all()
