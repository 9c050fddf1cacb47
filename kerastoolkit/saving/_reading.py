"""What `_writing` wrote becomes an object again; nothing that the file says is trusted.

Objects are made of classes in a list, or handed over by the caller, without calling them. Their attributes are set as
`pickle` would set them, but may hide no method. An array is no larger than the bytes that the file has for it, and the
nodes of a tree lead to nodes of that tree.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit.estimators._objects import NotLoaded
from kerastoolkit.estimators.saving import Reading
from kerastoolkit.exceptions import SavedFileError
from kerastoolkit.saving._known import (
    class_named,
    class_to_call,
    distribution_named,
    error_named,
    function_named,
    is_tried,
    is_unchecked,
    may_be_kept,
)

_is_dtype = _files.matching(r"[<>|=]([biufc]\d{1,2}|[SU]\d{1,9}|[mM]8\[\d{0,6}\w{1,2}\])|[mM]8|object")
_is_shape = _files.list_of(lambda length: _files.is_whole(length) and 0 <= length < 2**62)
_SPARSE = ("csc_array", "csc_matrix", "csr_array", "csr_matrix")
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_MOST_SHOWN = 10


class Reader:
    """The reading of one object.

    Args:
        reading: What names are looked up in, and how messages call the file.
        arrays: The bytes of all arrays.
        estimator: Reads the estimator of a number.
    """

    def __init__(self, reading: Reading, arrays: bytes, estimator: Callable[[int], Any]) -> None:
        self.reading, self.arrays, self.estimator = reading, arrays, estimator
        self._shared: dict[int, Any] = {}
        self._used: set[int] = set()
        self._is_of_a_tree = False  # while the attribute is read that holds the nodes of a decision tree
        self._may_be_lost = False  # while something is read without which an object predicts

    # -- names ------------------------------------------------------------------------------------------------------

    def check_names(self, written: Any) -> None:
        """Refuses a file that needs classes or functions which are not to be had; the message has all of them.

        Args:
            written: What the file says of the object.
        """
        missing, unchecked = [], []
        for part in _needed(written, may_be_lost=False):
            kind = next(one for one in _NAMING if one in part)
            name = part[kind]
            if not isinstance(name, str):
                raise SavedFileError(f"{self.reading.path} names {_files.shown(name)}, which is no name.")
            found = self._function(name) if kind == "reference" else self._class(name)
            if found is None:
                missing.append(name)
            elif self._is_unchecked(name):
                unchecked.append(name)
        if unchecked:
            raise SavedFileError(
                f"{self.reading.path} holds {_listed(unchecked)}. scikit-learn's compiled code does not check the "
                "numbers inside, so that a forged file could make it read other memory. If you trust the file, load it "
                "with safe_mode=False."
            )
        if missing:
            handed = ", ".join(f"{name[:100]!r}: ..." for name in sorted(set(missing))[:_MOST_SHOWN])
            raise SavedFileError(
                f"{self.reading.path} needs {_listed(missing)}, which it holds by name only. Hand over what you trust: "
                f"kerastoolkit.load(..., custom_objects={{{handed}}}). What your own imported modules define is also "
                "found with safe_mode=False."
            )

    def _is_unchecked(self, name: str) -> bool:
        return self.reading.safe_mode and is_unchecked(name)

    def _class(self, name: str) -> Any:
        found = class_named(name)
        if found is None:
            found = self.reading.find(name)
        return found if inspect.isclass(found) else None

    def _function(self, name: str) -> Any:
        found = self.reading.find(name)
        return function_named(name) if found is None else found

    # -- values -----------------------------------------------------------------------------------------------------

    def decode(self, written: Any) -> Any:
        """A value from what `Writer.encode` made of it.

        Raises:
            SavedFileError: It is nothing that `Writer.encode` makes.
        """
        if not isinstance(written, (dict, list)):
            return written
        if isinstance(written, dict) and (kind := next(iter(written), None)) in _KINDS:
            others, read = _KINDS[kind]
            if written.keys() - {"id"} == {kind, *others}:
                value = read(self, written)
                if "id" in written:
                    self._shared[written["id"]] = value
                return value
        raise SavedFileError(f"{self.reading.path} holds {_files.shown(written)}, which cannot stand there.")

    def _list(self, written: Any) -> list[Any]:
        if not isinstance(written, list):
            raise SavedFileError(f"{self.reading.path} holds {_files.shown(written)}, which is no list.")
        return [self.decode(item) for item in written]

    def _float(self, written: dict[str, Any]) -> float:
        if written["float"] not in ("nan", "inf", "-inf"):
            raise SavedFileError(f"{self.reading.path} holds {_files.shown(written)}, which is no number.")
        return float(written["float"])

    def _named_tuple(self, written: dict[str, Any]) -> Any:
        name, items = written["named_tuple"], self._list(written["items"])
        kind = self._class(name) if isinstance(name, str) else None
        if kind is None and self._may_be_lost:
            return NotLoaded(str(name)[:200])
        if kind is None or not issubclass(kind, tuple) or not hasattr(kind, "_make"):
            raise SavedFileError(f"{self.reading.path} has {_files.shown(name)}, which is no named tuple.")
        return kind._make(items)

    def _same(self, written: dict[str, Any]) -> Any:
        if written["same"] not in self._shared:
            raise SavedFileError(f"{self.reading.path} refers to what it has not: {_files.shown(written)}.")
        found = self._shared[written["same"]]
        self._check_place_of_tree(type(found).__name__ == "Tree")
        if isinstance(found, NotLoaded) and not self._may_be_lost:
            raise SavedFileError(f"{self.reading.path} needs {found.name}, which was not handed over.")
        return found

    def _dict(self, written: dict[str, Any]) -> Any:
        from sklearn.utils import Bunch

        pairs = [self._list(pair) for pair in written["dict"]]
        kinds = {"dict": dict, "ordered": collections.OrderedDict, "bunch": Bunch}
        made = kinds[written["kind"]]()
        for key, value in pairs:
            made[key] = value
        return made

    def _default_dict(self, written: dict[str, Any]) -> Any:
        default = self.decode(written["default"])
        if default not in (None, bool, dict, float, int, list, set, str):
            raise SavedFileError(f"{self.reading.path} has {_files.shown(default)} make the values of a dict.")
        return collections.defaultdict(default, self._dict({"dict": written["default_dict"], "kind": "dict"}))

    def _error(self, written: dict[str, Any]) -> Exception:
        kind = error_named(written["error"]) if isinstance(written["error"], str) else None
        if kind is None or not isinstance(written["text"], str):
            raise SavedFileError(f"{self.reading.path} has {_files.shown(written)}, which is no error.")
        made: Exception = kind(written["text"])
        return made

    def _lost(self, written: dict[str, Any]) -> NotLoaded:
        return NotLoaded(str(written["lost"])[:200])

    def _keras(self, written: dict[str, Any]) -> Any:
        return self.reading.decode({"keras": written["keras"]}, objects=True, lost=True)

    # -- arrays -----------------------------------------------------------------------------------------------------

    def _array(self, written: Any) -> NDArray[Any]:
        fields = {"array": _files.is_count, "dtype": _is_dtype, "shape": _is_shape, "order": _files.one_of("C", "F")}
        checked = _files.checked_fields(
            {name: value for name, value in written.items() if name != "id"}, fields, "An array"
        )
        dtype, at = np.dtype(checked["dtype"]), checked["array"]
        end = at + math.prod(checked["shape"]) * dtype.itemsize
        if end > len(self.arrays):
            raise SavedFileError(f"{self.reading.path} has {len(self.arrays)} bytes of arrays, and speaks of {end}.")
        count = (end - at) // dtype.itemsize if end > at else 0
        flat = np.frombuffer(self.arrays, dtype, count, at) if count else np.empty(0, dtype)
        if math.prod(checked["shape"]) != flat.size:  # of values that take no bytes
            raise SavedFileError(f"{self.reading.path} has an array of {_files.shown(checked['shape'])} empty values.")
        return flat.reshape(checked["shape"], order=checked["order"]).copy(order=checked["order"])

    def _objects(self, written: dict[str, Any]) -> NDArray[Any]:
        items = self._list(written["objects"])
        if not _is_shape(written["shape"]) or math.prod(written["shape"]) != len(items):
            raise SavedFileError(f"{self.reading.path} has {len(items)} objects in {_files.shown(written['shape'])}.")
        made = np.empty(len(items), dtype=object)
        for at, item in enumerate(items):
            made[at] = item
        return made.reshape(written["shape"])

    def _scalar(self, written: dict[str, Any]) -> Any:
        item, dtype = written["scalar"], written["dtype"]
        if isinstance(item, dict):
            return self._array(item).reshape(())[()]
        if not isinstance(item, (bool, int, float)) or not _is_dtype(dtype) or dtype[1] not in "biuf":
            raise SavedFileError(f"{self.reading.path} has a number {_files.shown(item)} of {_files.shown(dtype)}.")
        return np.array([item], dtype)[0]

    def _masked(self, written: dict[str, Any]) -> Any:
        return np.ma.MaskedArray(self.decode(written["masked"]), self._array(written["mask"]))

    def _records(self, written: dict[str, Any]) -> NDArray[Any]:
        names = [name for name, _, _ in written["records"]]
        columns = [self._array(column) for _, _, column in written["records"]]
        offsets = [offset for _, offset, _ in written["records"]]
        if (
            not _files.is_count(written["itemsize"])
            or written["itemsize"] > 32 * len(names)
            or not all(map(_files.is_count, offsets))
        ):
            raise SavedFileError(f"{self.reading.path} has records of {_files.shown(written['itemsize'])} bytes.")
        formats = [column.dtype for column in columns]
        kind = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": written["itemsize"]})
        made = np.zeros(columns[0].shape, kind)
        for name, column in zip(names, columns, strict=True):
            if column.shape != made.shape:
                raise SavedFileError(f"{self.reading.path} has records of different lengths.")
            made[name] = column
        return made

    def _sparse(self, written: dict[str, Any]) -> Any:
        from scipy import sparse

        if written["sparse"] not in _SPARSE or not _is_shape(written["shape"]) or len(written["shape"]) != 2:
            raise SavedFileError(f"{self.reading.path} has a matrix of the kind {_files.shown(written['sparse'])}.")
        parts = tuple(self._array(written[name]) for name in ("data", "indices", "indptr"))
        made = getattr(sparse, written["sparse"])(parts, shape=tuple(written["shape"]))
        made.check_format(full_check=True)
        return made

    def _dtype(self, written: dict[str, Any]) -> Any:
        if not _is_dtype(written["dtype"]):
            raise SavedFileError(f"{self.reading.path} has a type {_files.shown(written['dtype'])}.")
        return np.dtype(written["dtype"])

    def _random_state(self, written: dict[str, Any]) -> np.random.RandomState:
        made = np.random.RandomState()
        made.set_state(self.decode(written["random_state"]))
        return made

    def _generator(self, written: dict[str, Any]) -> np.random.Generator:
        state = self.decode(written["generator"])
        if state["bit_generator"] not in _BIT_GENERATORS:
            raise SavedFileError(f"{self.reading.path} has a generator {_files.shown(state['bit_generator'])}.")
        made = getattr(np.random, state["bit_generator"])()
        made.state = state
        return np.random.Generator(made)

    # -- what is called ---------------------------------------------------------------------------------------------

    def _reference(self, written: dict[str, Any]) -> Any:
        name = written["reference"]
        found = self._function(name) if isinstance(name, str) else None
        if found is None and not self._may_be_lost:
            raise SavedFileError(f"{self.reading.path} needs {_files.shown(name)}, which was not handed over.")
        return NotLoaded(str(name)[:200]) if found is None else found

    def _partial(self, written: dict[str, Any]) -> Any:
        function, arguments, keywords = self._list(written["partial"])
        if not callable(function):
            raise SavedFileError(f"{self.reading.path} would call {_files.shown(function)}.")
        return functools.partial(function, *arguments, **keywords)

    def _numbers(self, values: list[Any]) -> list[Any]:
        if not all(isinstance(one, (bool, int, float, np.number)) or one is None for one in values):
            raise SavedFileError(f"{self.reading.path} has {_files.shown(values)} where numbers stand.")
        return values

    def _distribution(self, written: dict[str, Any]) -> Any:
        name = written["distribution"]
        kind = distribution_named(name) if isinstance(name, str) else None
        arguments, keywords = self._list(written["arguments"])
        self._numbers([*arguments, *keywords.values()])
        if kind is None:
            raise SavedFileError(f"{self.reading.path} names {_files.shown(name)}, no distribution of SciPy.")
        return kind(*arguments, **keywords)

    def _made(self, written: dict[str, Any]) -> Any:
        name = written["made"]
        kind = class_to_call(name) if isinstance(name, str) else None
        if kind is None:
            raise SavedFileError(f"{self.reading.path} would call {_files.shown(name)}.")
        return kind(*self._numbers(self.decode(written["arguments"])))

    # -- objects ----------------------------------------------------------------------------------------------------

    def _estimator(self, written: dict[str, Any]) -> Any:
        number = written["estimator"]
        if not _files.is_count(number) or number in self._used:
            raise SavedFileError(f"{self.reading.path} has no estimator {_files.shown(number)}, or has it twice.")
        self._used.add(number)
        return self.estimator(number)

    def _object(self, written: dict[str, Any]) -> Any:
        import sklearn

        name, state = written["object"], written["state"]
        kind = self._class(name) if isinstance(name, str) else None
        if kind is None and not self._may_be_lost:
            raise SavedFileError(f"{self.reading.path} needs {_files.shown(name)}, which was not handed over.")
        if not isinstance(state, dict):
            raise SavedFileError(f"{self.reading.path} has no attributes of {_files.shown(name)}.")
        found = {key: self._attribute(kind, key, value) for key, value in state.items()}
        if kind is None or (self._may_be_lost and self._is_unchecked(name)):
            return NotLoaded(str(name)[:200])
        made = kind.__new__(kind)
        if hasattr(kind, "__setstate__"):
            # Of one file there is one warning about its version, which was given.
            made.__setstate__({**found, "_sklearn_version": sklearn.__version__} if _is_of_sklearn(kind) else found)
        else:
            vars(made).update(found)
        if isinstance(vars(made).get("_tree"), _Neighbors):
            made._tree = made._tree.of(made)
        _check_trees(made, self.reading.path)
        return made

    def _attribute(self, kind: Any, name: str, written: Any) -> Any:
        hidden = None if kind is None else inspect.getattr_static(kind, name, None)
        is_method = callable(hidden) or isinstance(hidden, (classmethod, staticmethod))
        if not name.isidentifier() or name.startswith("__") or is_method:
            raise SavedFileError(f"{self.reading.path} has an attribute {name[:100]!r}, which no object can have.")
        if kind is not None and not may_be_kept(kind, name, written):
            raise SavedFileError(f"{self.reading.path} has a {name!r} of its own, which no file of ours has.")
        reads_files = name == "input" and kind is not None and kind.__module__ == "sklearn.feature_extraction.text"
        if reads_files and written != "content" and self.reading.safe_mode:
            raise SavedFileError(
                f"{self.reading.path} holds a {kind.__name__} that opens the files which rows of text name. If you "
                "trust the file, load it with safe_mode=False."
            )
        before, of_a_tree = self._may_be_lost, self._is_of_a_tree
        self._is_of_a_tree = name == "tree_" and kind is not None and kind.__module__ == "sklearn.tree._classes"
        self._may_be_lost = before or (kind is not None and is_tried(kind, name))
        try:
            return self.decode(written)
        finally:
            self._may_be_lost, self._is_of_a_tree = before, of_a_tree

    def _neighbors(self, written: dict[str, Any]) -> _Neighbors:
        kind, leaf_size = written["neighbors"], written["leaf_size"]
        if kind not in ("BallTree", "KDTree") or not _files.is_count(leaf_size):
            raise SavedFileError(f"{self.reading.path} finds neighbors by {_files.shown(kind)}.")
        return _Neighbors(kind, leaf_size)

    def _spline(self, written: dict[str, Any]) -> Any:
        from scipy.interpolate import BSpline

        return BSpline(*self._list(written["spline"]))

    def _tree(self, written: dict[str, Any]) -> Any:
        from sklearn.tree._tree import Tree

        self._check_place_of_tree(True)
        n_features, n_outputs, max_depth = written["tree"]
        nodes, values = self._records(written["nodes"]), self._array(written["values"])
        n_classes = self._array(written["n_classes"])
        counts = (n_features, n_outputs, max_depth)
        if not all(map(_files.is_count, counts)) or n_classes.shape != (n_outputs,) or n_classes.min(initial=1) < 1:
            raise SavedFileError(f"{self.reading.path} has a tree of {_files.shown(counts)}.")
        if len(nodes) == 0 or not _nodes_lead_down(nodes, n_features):
            raise SavedFileError(f"{self.reading.path} has a tree whose nodes do not lead to each other.")
        made = Tree(n_features, n_classes.astype(np.intp), n_outputs)
        made.__setstate__({"max_depth": max_depth, "node_count": len(nodes), "nodes": nodes, "values": values})
        return made

    def _check_place_of_tree(self, is_tree: bool) -> None:
        """Refuses nodes outside of a `DecisionTreeClassifier` or the like, which looks at rows before they do."""
        if is_tree and not self._is_of_a_tree:
            raise SavedFileError(f"{self.reading.path} has the nodes of a tree where no decision tree is.")


@dataclasses.dataclass
class _Neighbors:
    """The tree that finds the neighbors of a row; it is made again of the rows, since compiled code follows it."""

    kind: str
    leaf_size: int

    def of(self, estimator: Any) -> Any:
        """The tree of a `NearestNeighbors` or the like, as its `fit` makes it."""
        from sklearn import neighbors

        options = estimator.effective_metric_params_
        return getattr(neighbors, self.kind)(
            estimator._fit_X, self.leaf_size, metric=estimator.effective_metric_, **options
        )


def _is_of_sklearn(kind: type) -> bool:
    from sklearn.base import BaseEstimator

    return kind.__module__.startswith("sklearn.") and issubclass(kind, BaseEstimator)


def _nodes_lead_down(nodes: NDArray[Any], n_features: int) -> bool:
    """Whether every node is a leaf, or splits by a feature that there is and leads to two nodes after it."""
    left, right, feature = (nodes[name] for name in ("left_child", "right_child", "feature"))
    places = np.arange(len(nodes))
    is_leaf = left == -1
    down = (left > places) & (right > places) & (left < len(nodes)) & (right < len(nodes))
    return bool(np.all(is_leaf | (down & (feature >= 0) & (feature < n_features))))


def _check_trees(made: Any, path: str) -> None:
    """Refuses trees that would look for features which the rows of their estimator do not have."""
    held = [made] if hasattr(made, "tree_") else []
    if any(kind.__module__ == "sklearn.ensemble._forest" for kind in type(made).__mro__):
        held = list(np.ravel(np.asarray(vars(made).get("estimators_", []), dtype=object)))
    for one in held:
        tree = vars(one).get("tree_")
        if vars(made).get("n_features_in_") != getattr(tree, "n_features", None):
            raise SavedFileError(f"{path} has a tree for other features than the {type(made).__name__} around it.")


_NAMING = ("named_tuple", "object", "reference")  # the kinds that name a class or a function


def _needed(written: Any, *, may_be_lost: bool) -> Iterator[dict[str, Any]]:
    """The parts of a file that name a class or a function, without which it does not predict."""
    left = [(written, may_be_lost)]
    while left:
        part, lost = left.pop()
        if isinstance(part, list):
            left += [(item, lost) for item in part]
        if not isinstance(part, dict):
            continue
        if not lost and any(set(part) - {"id"} == {kind, *_KINDS[kind][0]} for kind in _NAMING):
            yield part
        state, name = part.get("state"), part.get("object")
        if isinstance(state, dict) and isinstance(name, str):
            kind = class_named(name)
            left += [(item, lost or (kind is not None and is_tried(kind, key))) for key, item in state.items()]
        else:
            left += [(item, lost) for key, item in part.items() if key != "keras"]


def _listed(names: list[str]) -> str:
    several = sorted(set(names))
    more = f" and {len(several) - _MOST_SHOWN} more" if len(several) > _MOST_SHOWN else ""
    return ", ".join(re.sub(r"\s", " ", name)[:100] for name in several[:_MOST_SHOWN]) + more


_ReadAs = Callable[[Reader, dict[str, Any]], Any]
# What a dict is by its first key, the other keys that it then has, and how it is read.
_KINDS: dict[str, tuple[tuple[str, ...], _ReadAs]] = {
    "array": (("dtype", "shape", "order"), Reader._array),
    "bytes": ((), lambda reader, written: written["bytes"].encode("latin-1")),
    "default_dict": (("default",), Reader._default_dict),
    "dict": (("kind",), Reader._dict),
    "distribution": (("arguments",), Reader._distribution),
    "dtype": ((), Reader._dtype),
    "error": (("text",), Reader._error),
    "estimator": ((), Reader._estimator),
    "float": ((), Reader._float),
    "frozenset": ((), lambda reader, written: frozenset(reader._list(written["frozenset"]))),
    "generator": ((), Reader._generator),
    "keras": ((), Reader._keras),
    "list": ((), lambda reader, written: reader._list(written["list"])),
    "lost": ((), Reader._lost),
    "made": (("arguments",), Reader._made),
    "masked": (("mask",), Reader._masked),
    "named_tuple": (("items",), Reader._named_tuple),
    "neighbors": (("leaf_size",), Reader._neighbors),
    "object": (("state",), Reader._object),
    "objects": (("shape",), Reader._objects),
    "partial": ((), Reader._partial),
    "random_state": ((), Reader._random_state),
    "records": (("itemsize",), Reader._records),
    "reference": ((), Reader._reference),
    "same": ((), Reader._same),
    "scalar": (("dtype",), Reader._scalar),
    "set": ((), lambda reader, written: set(reader._list(written["set"]))),
    "slice": ((), lambda reader, written: slice(*reader._list(written["slice"]))),
    "sparse": (("shape", "data", "indices", "indptr"), Reader._sparse),
    "spline": ((), Reader._spline),
    "tree": (("n_classes", "nodes", "values"), Reader._tree),
    "tuple": ((), lambda reader, written: tuple(reader._list(written["tuple"]))),
}
