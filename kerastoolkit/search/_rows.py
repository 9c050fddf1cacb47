"""The rows that tasks of a search work on: one copy for all tasks of a split, and the bytes that a task holds.

scikit-learn takes the rows of a split, those to train on and those to score, out of the table in each of its tasks.
Tasks of a fused search wait for each other, so each would hold its own copy. Where nothing can write into the rows, all
tasks that take the same rows out of the same table get the same array, which is freed with the last of them.
"""

from __future__ import annotations

import contextlib
import functools
import numbers
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.search._tasks import Call, Split, replace_functions, tasks_of


class Needs(NamedTuple):
    """What is known of a task before it begins.

    Attributes:
        shared: The rows that it shares with other tasks of its split: the key of each part, and its bytes.
        own: Bytes of the rows that it takes out for itself, beside those that its fit hands in.
        in_any_order: Whether its result is the same whatever tasks run before it.
        given: Addresses of the arrays that it was given, which are in memory without it.
    """

    shared: tuple[tuple[Any, int], ...] = ()
    own: int = 0
    in_any_order: bool = False
    given: frozenset[int] = frozenset()


class SharedRows:
    """The rows that tasks in flight share.

    Attributes:
        n_bytes: Their bytes.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self._parts: dict[Any, _Part] = {}
        self._table: tuple[Callable[[], Any], float] = (lambda: None, 0.0)  # the last table, and the bytes of its rows

    def prepare(self, call: Call) -> Needs:
        """Lets a task share the rows of its split, where nothing that it calls could write into them.

        Args:
            call: A `joblib.parallel.BatchedCalls`, which is changed in place, or any other callable.

        Returns:
            What the task will need.
        """
        tasks = tasks_of(call)
        if len(tasks) != 1:
            return Needs()
        (task,) = tasks
        given = (*task.arguments, *task.keywords.values())
        arrays = frozenset(id(owner(part)) for part in given if isinstance(part, np.ndarray))
        split = task.split()
        if split is None:
            return Needs(given=arrays)
        X, indices = split.X, {"train": split.train, "test": split.test}
        if not isinstance(split.estimator, KerasEstimator):  # for example a pipeline, whose last step gets other rows
            return Needs(own=sum(self._n_bytes(X, index) for index in indices.values()), given=arrays)
        is_array = type(X) is np.ndarray and X.ndim > 1
        shared = [name for name in _shareable(split) if is_array and isinstance(indices[name], np.ndarray)]
        if shared:
            sharing = self._sharing(task.function, X, [indices[name] for name in shared])
            replace_functions(call, lambda task: sharing)
        # An array to train on is handed in by the fit, and counted there.
        own = [name for name in ("train", "test") if name not in shared and (name == "test" or not is_array)]
        seed = split.parameters.get("random_state", getattr(split.estimator, "random_state", None))
        return Needs(
            tuple(((id(X), id(indices[name])), self._n_bytes(X, indices[name])) for name in shared),
            sum(self._n_bytes(X, indices[name]) for name in own),
            len(shared) == 2 and isinstance(seed, numbers.Integral),
            arrays,
        )

    def missing(self, needs: Needs) -> int:
        """Bytes of the shared rows of a task that no other task holds."""
        return sum(size for key, size in needs.shared if key not in self._parts)

    def has(self, array: object) -> bool:
        """Whether an array is among the shared rows."""
        return any(part.rows() is array for part in list(self._parts.values()))

    def _n_bytes(self, X: object, index: object) -> int:
        """Bytes of some rows of a table."""
        known, of_a_row = self._table
        if X is None or known() is not X:
            of_a_row = _n_bytes(X) / max(1, _n_rows(X))
            with contextlib.suppress(TypeError):  # a list, which has no weak references
                self._table = weakref.ref(X), of_a_row
        return int(of_a_row * _n_rows(index))

    def _sharing(self, function: Callable[..., Any], table: Any, indices: Sequence[Any]) -> Callable[..., Any]:
        """The function of a task, called with a table that takes these rows out once for all tasks."""

        @functools.wraps(function)
        def sharing(*arguments: Any, **keywords: Any) -> Any:
            cutting = table.view(_Table)
            cutting.indices, cutting.cut = indices, functools.partial(self._cut, table)
            arguments = tuple(cutting if argument is table else argument for argument in arguments)
            keywords = {name: cutting if value is table else value for name, value in keywords.items()}
            return function(*arguments, **keywords)

        return sharing

    def _cut(self, table: Any, index: Any) -> Any:
        key = (id(table), id(index))
        part = self._parts.get(key)
        rows = None if part is None else part.rows()
        if rows is None:
            rows = table[index, ...]  # as scikit-learn does
            size = rows.nbytes

            def freed(reference: object) -> None:
                self.n_bytes -= size
                if key in self._parts and self._parts[key].rows is reference:
                    del self._parts[key]

            self._parts[key] = _Part(weakref.ref(rows, freed), table, index)
            self.n_bytes += size
        return rows


def owner(array: NDArray[Any]) -> Any:
    """The array that owns the memory of an array: the array itself, unless it is a view."""
    while isinstance(array, np.ndarray) and isinstance(array.base, np.ndarray):
        array = array.base
    return array


class _Part(NamedTuple):
    """Rows, for as long as a task has them; until then, no other object has the address of their table or index."""

    rows: Any
    table: Any
    index: Any


class _Table(np.ndarray):
    """A table from which tasks take the rows of a split, and otherwise an array like any other."""

    indices: Sequence[Any] = ()
    cut: Callable[[Any], Any]

    def __getitem__(self, key: Any) -> Any:
        index = key[0] if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis else key
        if any(index is one for one in self.indices):
            return self.cut(index)
        return self.view(np.ndarray)[key]


def _shareable(split: Split) -> Sequence[str]:
    """Which rows nothing could write into. No estimator of ours does; an encoder or scorer of the user's might."""
    estimator = split.estimator
    if type(estimator).__module__.partition(".")[0] != "kerastoolkit":
        return ()
    if "feature_encoder" in split.parameters or getattr(estimator, "feature_encoder", None) is not None:
        return ()
    if _is_of_scikit_learn(split.scorer):
        return "train", "test"
    return () if split.returns_train_score else ("train",)


def _is_of_scikit_learn(scorer: object) -> bool:
    """Whether all scorers are scikit-learn's, which pass only predictions to functions of the user's."""
    several = scorer if isinstance(scorer, Mapping) else getattr(scorer, "_scorers", {})
    if not all(map(_is_of_scikit_learn, several.values())):
        return False
    return scorer is None or isinstance(scorer, Mapping) or type(scorer).__module__.startswith("sklearn.metrics.")


def _n_bytes(table: object) -> float:
    if hasattr(table, "memory_usage"):  # of pandas
        return float(np.sum(table.memory_usage(index=False)))
    if hasattr(table, "estimated_size"):  # of polars
        return float(table.estimated_size())
    parts = [table, *(getattr(table, name, None) for name in ("data", "indices") if hasattr(table, "toarray"))]
    return float(sum(getattr(part, "nbytes", 0) for part in parts))


def _n_rows(index: object) -> int:
    if isinstance(index, np.ndarray) and index.dtype.kind == "b" and index.ndim == 1:
        return int(np.count_nonzero(index))
    return int(index.shape[0]) if hasattr(index, "shape") else len(index) if hasattr(index, "__len__") else 0
