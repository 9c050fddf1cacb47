"""What the constructors of the searches take, declared once and shown by each in full.

The searches pass on most of what they take: to scikit-learn, and to what they have in common. Those parameters are the
keys of a `TypedDict`, which type checkers and editors read from the constructor:

    class GridSearchCV(_Together, model_selection.GridSearchCV):
        @takes(GridOptions, as_in=model_selection.GridSearchCV)
        def __init__(self, estimator, param_grid, **options: Unpack[GridOptions]):
            super().__init__(estimator, param_grid, **options)

By itself, `inspect.signature`, which scikit-learn asks for the names of the parameters, would show only `**options`; so
`takes` gives the constructor the full signature.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, cast

import numpy as np
from sklearn.model_selection import BaseCrossValidator

from kerastoolkit.search._progress import SearchProgress
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.rungs import Rungs

ParamGrid: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Scoring: TypeAlias = str | Callable[..., Any] | Sequence[str] | Mapping[str, Any] | None
Refit: TypeAlias = bool | str | Callable[[Mapping[str, Any]], int]
Folds: TypeAlias = int | BaseCrossValidator | Iterable[Any] | None
RandomState: TypeAlias = int | np.random.RandomState | None

_Init = TypeVar("_Init", bound=Callable[..., None])


class _ForAll(TypedDict, total=False):
    scoring: Scoring
    n_jobs: int | None
    cv: Folds
    verbose: int
    error_score: float | Literal["raise"]
    return_train_score: bool


class _AllAtOnce(_ForAll, total=False):
    refit: Refit
    pre_dispatch: int | str


class _Stopping(TypedDict, total=False):
    early_stopping: Rungs | Literal["rungs"] | None


class _Resuming(TypedDict, total=False):
    journal: str | Path | Journal | None
    timeout: float | None


class _Running(TypedDict, total=False):
    on_progress: Callable[[SearchProgress], object] | None
    max_memory: float | None


class GridOptions(_AllAtOnce, _Stopping, _Resuming, _Running, total=False):
    """What `GridSearchCV` takes beside the estimator and the grid."""


class RandomizedOptions(GridOptions, total=False):
    """What `RandomizedSearchCV` takes beside the estimator and the distributions."""

    n_iter: int
    random_state: RandomState


class HalvingOptions(_ForAll, _Resuming, _Running, total=False):
    """What `HalvingGridSearchCV` takes beside the estimator and the grid."""

    factor: float
    resource: str
    max_resources: int | Literal["auto"]
    min_resources: int | Literal["exhaust", "smallest"]
    aggressive_elimination: bool
    refit: bool
    random_state: RandomState


class HalvingRandomOptions(HalvingOptions, total=False):
    """What `HalvingRandomSearchCV` takes beside the estimator and the distributions."""

    n_candidates: int | Literal["exhaust"]


class OptunaOptions(_AllAtOnce, _Stopping, _Running, total=False):
    """What `OptunaSearchCV` takes beside what is Optuna's."""


def takes(options: type, *, as_in: type) -> Callable[[_Init], _Init]:
    """A decorator for a constructor with `**options`: it shows each of them, and takes no others.

    Args:
        options: A `TypedDict` with the names and types of the options.
        as_in: A class of scikit-learn's, in whose order they are shown, with its defaults. Those that it does not have
            come after them and default to `None`.

    Returns:
        The decorator. The constructor that it returns raises a `TypeError` for any other name.
    """

    def completed(init: _Init) -> _Init:
        theirs, annotations = inspect.signature(as_in).parameters, inspect.get_annotations(options)
        ours = [name for name in annotations if name not in theirs]
        names = [*(name for name in theirs if name in annotations), *ours]
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=theirs[name].default if name in theirs else None,
                annotation=annotations[name].__forward_arg__,  # as it is written above
            )
            for name in names
        ]
        signature = inspect.signature(init)
        written = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        signature = signature.replace(parameters=[*written, *shared])

        @functools.wraps(init)
        def checked(self: object, *args: Any, **kwargs: Any) -> None:
            for name in kwargs:
                if name not in signature.parameters:
                    raise TypeError(f"{init.__qualname__}() got an unexpected keyword argument {name!r}")
            init(self, *args, **kwargs)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        return cast("_Init", checked)

    return completed
