"""What a file may name: classes and functions of scikit-learn and NumPy, and what takes part in a search of ours.

A name in a file is looked up in these lists, and no module is imported but those in them.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from kerastoolkit import exceptions

# Packages of scikit-learn whose public classes are estimators, splitters or kernels. Not among them are those that read
# files or talk to a network (`datasets`), and those that only draw (`inspection`).
_PACKAGES = (
    "calibration", "cluster", "compose", "covariance", "cross_decomposition", "decomposition", "discriminant_analysis",
    "dummy", "ensemble", "feature_extraction", "feature_extraction.image", "feature_extraction.text",
    "feature_selection", "frozen", "gaussian_process", "gaussian_process.kernels", "impute", "isotonic",
    "kernel_approximation", "kernel_ridge", "linear_model", "manifold", "mixture", "model_selection", "multiclass",
    "multioutput", "naive_bayes", "neighbors", "neural_network", "pipeline", "preprocessing", "random_projection",
    "semi_supervised", "svm", "tree",
)  # fmt: skip
# Those whose public functions take arrays and return arrays or numbers.
_OF_FUNCTIONS = ("feature_selection", "metrics", "metrics.pairwise", "preprocessing")
# What such an estimator holds and nobody makes by name.
_PARTS = {
    "sklearn.calibration": ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling"),
    "sklearn.compose._column_transformer": ("_RemainderColsList",),
    "sklearn.gaussian_process._gpc": ("_BinaryGaussianProcessClassifierLaplace",),
    "sklearn.impute._iterative": ("_ImputerTriplet",),
    "sklearn.metrics._scorer": ("_CurveScorer", "_MultimetricScorer", "_PassthroughScorer", "_Scorer"),
    "sklearn.model_selection._split": ("_CVIterableWrapper",),
    "sklearn.multiclass": ("_ConstantPredictor",),
    "sklearn.neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "sklearn.utils._metadata_requests": ("MetadataRequest", "MethodMetadataRequest"),
    "sklearn._loss.link": (
        "HalfLogitLink", "IdentityLink", "Interval", "LogLink", "LogitLink", "MultinomialLogit",
    ),
    "sklearn._loss.loss": (
        "AbsoluteError", "ExponentialLoss", "HalfBinomialLoss", "HalfGammaLoss", "HalfMultinomialLoss",
        "HalfPoissonLoss", "HalfSquaredError", "HalfTweedieLoss", "HalfTweedieLossIdentity", "HuberLoss", "PinballLoss",
    ),
    "sklearn.ensemble._hist_gradient_boosting.binning": ("_BinMapper",),
    "sklearn.ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "kerastoolkit.search.backend": ("TrainingReport",),
    "kerastoolkit.search.optuna": ("OptunaSearchCV",),
    "kerastoolkit.search.rungs": ("Rungs",),
    "kerastoolkit.search.searches": (
        "GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV",
    ),
    "kerastoolkit.training._fits": ("Trained",),
}  # fmt: skip
# Losses in compiled code, which are made by calling their class with a number or with nothing.
_MADE = {
    "sklearn._loss._loss": (
        "CyAbsoluteError", "CyExponentialLoss", "CyHalfBinomialLoss", "CyHalfGammaLoss", "CyHalfMultinomialLoss",
        "CyHalfPoissonLoss", "CyHalfSquaredError", "CyHalfTweedieLoss", "CyHalfTweedieLossIdentity", "CyHuberLoss",
        "CyPinballLoss",
    ),
    "sklearn.linear_model._sgd_fast": (
        "EpsilonInsensitive", "Hinge", "Huber", "Log", "ModifiedHuber", "SquaredEpsilonInsensitive", "SquaredHinge",
        "SquaredLoss",
    ),
}  # fmt: skip
# Compiled code follows the numbers in them from place to place, and does not check them.
UNCHECKED = {
    "GradientBoostingClassifier", "GradientBoostingRegressor", "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor", "IsolationForest", "NuSVC", "NuSVR", "OneClassSVM", "SVC", "SVR", "TreePredictor",
}  # fmt: skip
_OF_PYTHON = {kind.__name__: kind for kind in (bool, dict, float, int, list, object, set, str, tuple)}
# Functions of NumPy from an array to an array, beside its ufuncs.
_OF_NUMPY = (
    "abs", "around", "cumsum", "max", "mean", "median", "min", "nan_to_num", "nanmax", "nanmean", "nanmedian", "nanmin",
    "nanstd", "nansum", "nanvar", "prod", "ravel", "real", "round", "squeeze", "std", "sum", "var",
)  # fmt: skip


def reference_to(thing: Any) -> str:
    """The name of a function or class: `"module:qualname"`."""
    if isinstance(thing, np.ufunc):
        return f"{_module_of_ufunc(thing)}:{thing.__name__}"
    return f"{thing.__module__}:{thing.__qualname__}"


def _module_of_ufunc(thing: np.ufunc) -> str:
    return "numpy" if getattr(np, thing.__name__, None) is thing else "scipy.special"


def is_unchecked(reference: str) -> bool:
    """Whether a name is that of a class which is not read in safe mode."""
    return reference.startswith("sklearn.") and reference.partition(":")[2] in UNCHECKED


@functools.cache
def class_named(reference: str) -> Any:
    """A class of which objects are made without calling it, by its name; None for one that is not in the lists."""
    module, _, name = reference.partition(":")
    if name in _PARTS.get(module, ()):
        return getattr(importlib.import_module(module), name, None)
    found = _public(module, name, _PACKAGES)
    return found if inspect.isclass(found) and _is_kept(found) else None


@functools.cache
def class_to_call(reference: str) -> Any:
    """A class that is called with numbers, by its name; None for one that is not in the lists."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name, None) if name in _MADE.get(module, ()) else None


def reference_to_called(kind: type) -> str | None:
    """The name of a class that `class_to_call` finds; None for any other."""
    for module, names in _MADE.items():
        # scikit-learn 1.6 calls the module of these classes otherwise.
        if kind.__name__ in names and class_to_call(f"{module}:{kind.__name__}") is kind:
            return f"{module}:{kind.__name__}"
    return None


@functools.cache
def error_named(name: str) -> Any:
    """A class of errors of Python's or of kerastoolkit that is called with a text; None for any other name."""
    found = getattr(exceptions, name, getattr(builtins, name, None))
    if not inspect.isclass(found) or not issubclass(found, Exception) or issubclass(found, Warning):
        return None
    try:
        found("text")
    except TypeError:
        return None
    return found


@functools.cache
def function_named(reference: str) -> Any:
    """A function, or a class that is itself a value (`float`), by its name; None for one that is not in the lists."""
    import scipy.special

    module, _, name = reference.partition(":")
    if module == "numpy":
        found = getattr(np, name, None)
        is_kind = inspect.isclass(found) and issubclass(found, np.generic)
        return found if is_kind or isinstance(found, np.ufunc) or name in _OF_NUMPY else None
    if module == "scipy.special":
        found = getattr(scipy.special, name, None)
        return found if isinstance(found, np.ufunc) else None
    if module == "builtins":
        return _OF_PYTHON.get(name)
    found = _public(module, name, _OF_FUNCTIONS)
    return found if inspect.isfunction(found) else class_named(reference)


def _public(module: str, name: str, packages: tuple[str, ...]) -> Any:
    """What a package of scikit-learn shows under a name, wherever inside of it that is defined."""
    first, *rest = module.split(".")
    for place in (".".join(rest[:2]), ".".join(rest[:1])):
        if first == "sklearn" and place in packages:
            package = importlib.import_module(f"sklearn.{place}")
            if name == "IterativeImputer":
                importlib.import_module("sklearn.experimental.enable_iterative_imputer")
            found = vars(package).get(name)
            if getattr(found, "__module__", "").startswith(f"sklearn.{rest[0]}") and not name.startswith("_"):
                return found
    return None


def _is_kept(kind: type) -> bool:
    from sklearn.base import BaseEstimator
    from sklearn.gaussian_process.kernels import Kernel
    from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit

    others = (BaseCrossValidator, BaseShuffleSplit, Kernel)
    return issubclass(kind, (BaseEstimator, *others)) or kind.__name__ in ("PredefinedSplit", "make_column_selector")


@functools.cache
def distribution_named(name: str) -> Callable[..., Any] | None:
    """A distribution of SciPy by its name."""
    from scipy import stats

    found = getattr(stats, name, None) if name.isidentifier() else None
    return found if isinstance(found, (stats.rv_continuous, stats.rv_discrete)) else None


# What belongs to this machine and this process; a file has the default in its place.
_NOT_KEPT = ("journal", "memory", "on_progress", "pruner", "sampler", "storage", "study", "study_")
_OF_LIBRARIES = ("sklearn.", "kerastoolkit.")


def may_be_kept(kind: type, name: str, value: object) -> bool:
    """Whether a file may hold an attribute of a class: it belongs to this machine only where it was set."""
    if name not in _NOT_KEPT or not kind.__module__.startswith(_OF_LIBRARIES):
        return True
    return value is None or (isinstance(value, str) and value == default_of(kind, name))


def default_of(kind: type, name: str) -> Any:
    """The default of a parameter of a class; None where it has none."""
    parameter = inspect.signature(kind).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def is_tried(kind: type, name: str) -> bool:
    """Whether an attribute of a class tells what a search tried, which may be lost, and not what it found."""
    return hasattr(kind, "_run_search") and name not in ("best_estimator_", "estimator")
