"""An object of scikit-learn as JSON, with its arrays and its Keras estimators beside.

Every value becomes itself, or a dict whose first key says what it is. An object is its class by name and what
`__getstate__` tells of it; what is not made that way is told apart here, one kind after the other, and anything else is
refused by its place in the object: `steps[1][1].func`. A value that is met again becomes a reference to the first, so
that what was one object is one object again.
"""

from __future__ import annotations

import collections
import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._keras import is_layer
from kerastoolkit.estimators import saving as estimator_files
from kerastoolkit.estimators._objects import NotLoaded
from kerastoolkit.exceptions import SavedFileError
from kerastoolkit.saving._known import (
    default_of,
    error_named,
    is_tried,
    is_unchecked,
    may_be_kept,
    reference_to,
    reference_to_called,
)

_CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_DICTS: dict[type, str] = {dict: "dict", collections.OrderedDict: "ordered"}


class Writer:
    """The writing of one object.

    Args:
        folder: Where files of estimators are put.

    Attributes:
        arrays: The bytes of all arrays, one after the other.
        n_estimators: Number of files in the folder, `0.zip`, `1.zip` and so on.
        not_kept: What the file does not hold, by its place in the object.
        unchecked: Kinds of scikit-learn that are not read in safe mode.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays = bytearray()
        self.n_estimators = 0
        self.not_kept: list[str] = []
        self.unchecked: set[str] = set()
        self._written: dict[int, tuple[Any, dict[str, Any]]] = {}  # with the value, so that no other gets its id
        self._open: set[int] = set()
        self._n_shared = 0

    def encode(self, value: Any, place: str, *, may_be_lost: bool = False) -> Any:
        """A value as JSON.

        Args:
            value: The value.
            place: Where it is in the object, as Python would reach it.
            may_be_lost: Whether what no file can hold is left out, and told in `not_kept`. Defaults to `False`.

        Raises:
            SavedFileError: It cannot be held by a file; the message says where it is.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if id(value) in self._written:
            return self._again(id(value))
        if id(value) in self._open:
            raise SavedFileError(f"`{place}` leads back to an object that it is in, which no file of ours can hold.")
        self._open.add(id(value))
        try:
            written = self._encode_new(value, place, may_be_lost)
        except SavedFileError:
            if not may_be_lost:
                raise
            self.not_kept.append(place)
            written = {"lost": repr(value)[:200]}
        finally:
            self._open.discard(id(value))
        if "reference" not in written:  # which may be lost in one place and not in another
            self._written[id(value)] = value, written
        return written

    def _again(self, identity: int) -> dict[str, Any]:
        first = self._written[identity][1]
        if "id" not in first:
            self._n_shared += 1
            first["id"] = self._n_shared
        return {"same": first["id"]}

    def _encode_new(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        for is_one, written_as in _KINDS:
            if is_one(value):
                return written_as(self, value, place, may_be_lost)
        if is_layer(value) and (hasattr(value, "summary") or value.weights):
            advice = "Weights are kept in an estimator of kerastoolkit: KerasClassifier(model), or from_scikeras(...)."
            raise self.refuse(value, place, advice)
        described = estimator_files.object_as_json(value)
        return self._object(value, place, may_be_lost) if described is None else described

    def refuse(self, value: Any, place: str, advice: str = "") -> SavedFileError:
        """The error for a value that no file can hold."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        sentence = f"`{place or 'obj'}` is {_files.shown(value)}, a {kind}, which no file of ours can hold."
        return SavedFileError(f"{sentence} {advice}".rstrip())

    # -- containers and values --------------------------------------------------------------------------------------

    def _container(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        items = value if isinstance(value, (list, tuple)) else sorted(value, key=repr)
        found = [self.encode(item, f"{place}[{at}]", may_be_lost=may_be_lost) for at, item in enumerate(items)]
        return {_CONTAINERS[type(value)]: found}

    def _named_tuple(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        items = [self.encode(item, f"{place}[{at}]", may_be_lost=may_be_lost) for at, item in enumerate(value)]
        return {"named_tuple": reference_to(type(value)), "items": items}

    def _error(self, value: Exception, place: str, may_be_lost: bool) -> dict[str, Any]:
        known = next(kind for kind in type(value).__mro__ if error_named(kind.__name__) is kind)
        return {"error": known.__name__, "text": str(value)}

    def _dict(self, value: Mapping[Any, Any], place: str, may_be_lost: bool) -> dict[str, Any]:
        pairs = [
            [
                self.encode(key, f"a key of {place}", may_be_lost=False),
                self.encode(item, f"{place}[{key!r}]", may_be_lost=may_be_lost),
            ]
            for key, item in value.items()
        ]
        if isinstance(value, collections.defaultdict):
            return {
                "default_dict": pairs, "default": self.encode(value.default_factory, f"{place}.default_factory")
            }  # fmt: skip
        return {"dict": pairs, "kind": _DICTS.get(type(value), "bunch")}

    def _slice(self, value: slice, place: str, may_be_lost: bool) -> dict[str, Any]:
        return {"slice": [self.encode(part, place) for part in (value.start, value.stop, value.step)]}

    # -- arrays -----------------------------------------------------------------------------------------------------

    def _array(self, value: NDArray[Any], place: str, may_be_lost: bool = False) -> dict[str, Any]:
        if value.dtype == object:
            items = [
                self.encode(item, f"{place}[{at}]", may_be_lost=may_be_lost) for at, item in enumerate(value.ravel())
            ]
            return {"objects": items, "shape": list(value.shape)}
        if value.dtype.kind not in _files.KINDS_OF_ARRAYS.replace("O", ""):
            raise self.refuse(value.dtype, f"{place}.dtype")
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        at = len(self.arrays)
        self.arrays += value.tobytes(order)  # type: ignore[arg-type]
        return {"array": at, "dtype": value.dtype.str, "shape": list(value.shape), "order": order}

    def _scalar(self, value: np.generic, place: str, may_be_lost: bool) -> dict[str, Any]:
        item = value.item() if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 else None
        if item is None or not math.isfinite(item):
            return {"scalar": self._array(np.asarray(value), place), "dtype": value.dtype.str}
        return {"scalar": item, "dtype": value.dtype.str}  # a vocabulary has hundreds of thousands

    def _masked(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        data, mask = np.asarray(value.data), np.ma.getmaskarray(value)
        return {"masked": self._array(data, place, may_be_lost), "mask": self._array(mask, place)}

    def _records(self, value: NDArray[Any], place: str, may_be_lost: bool = False) -> dict[str, Any]:
        """An array whose rows have fields, such as the nodes of a tree; each field is an array."""
        fields: Any = value.dtype.fields
        columns = [
            [name, fields[name][1], self._array(np.ascontiguousarray(value[name]), f"{place}[{name!r}]")]
            for name in value.dtype.names or ()
        ]
        return {"records": columns, "itemsize": value.dtype.itemsize}

    def _sparse(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        if value.format not in ("csr", "csc"):
            raise self.refuse(value, place, "Convert it by `.tocsr()`.")
        parts = {name: self._array(getattr(value, name), place) for name in ("data", "indices", "indptr")}
        return {"sparse": type(value).__name__, "shape": list(value.shape), **parts}

    def _dtype(self, value: np.dtype[Any], place: str, may_be_lost: bool) -> dict[str, Any]:
        if value.names is not None or value.kind not in _files.KINDS_OF_ARRAYS:
            raise self.refuse(value, place)
        return {"dtype": _files.name_of_dtype(np.empty(0, value))}

    def _generator(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        if isinstance(value, np.random.RandomState):
            return {"random_state": self.encode(value.get_state(legacy=False), place)}
        return {"generator": self.encode(value.bit_generator.state, place)}

    # -- what is called ---------------------------------------------------------------------------------------------

    def _named(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        name = reference_to(value)
        if "<lambda>" in name or inspect.ismethod(value):
            kind = "a method of an object" if inspect.ismethod(value) else "a lambda"
            raise self.refuse(value, place, f"It is {kind}, which no name leads to: give a function that is defined.")
        return {"reference": name}

    def _partial(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        parts = (value.func, list(value.args), dict(value.keywords))
        return {"partial": [self.encode(part, place, may_be_lost=may_be_lost) for part in parts]}

    def _distribution(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        arguments = [self.encode(part, place) for part in (list(value.args), dict(value.kwds))]
        return {"distribution": value.dist.name, "arguments": arguments}

    def _made(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        kind, arguments, *_ = value.__reduce__()
        if kind is not type(value):  # what Cython made: the class, a checksum, and what the class is called with
            arguments = arguments[2] or ()
        return {"made": reference_to_called(type(value)), "arguments": self.encode(list(arguments), place)}

    # -- objects ----------------------------------------------------------------------------------------------------

    def _estimator(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        number = self.n_estimators
        save = estimator_files.save if value.__sklearn_is_fitted__() else estimator_files.save_unfitted
        try:
            save(value, self.folder / f"{number}.zip")
        except SavedFileError as error:
            raise SavedFileError(f"`{place}` cannot be kept. {error}") from error
        self.n_estimators += 1
        return {"estimator": number}

    def _not_loaded(self, value: NotLoaded, place: str, may_be_lost: bool) -> dict[str, Any]:
        is_name = ":" in value.name and " " not in value.name
        return {"reference": value.name} if is_name else {"lost": value.name}

    def _tree(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        _, (n_features, n_classes, n_outputs), state = value.__reduce__()
        return {
            "tree": [int(n_features), int(n_outputs), int(state["max_depth"])],
            "n_classes": self._array(np.asarray(n_classes), place),
            "nodes": self._records(state["nodes"], place),
            "values": self._array(state["values"], place),
        }

    def _neighbors(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        if not place.endswith("._tree") and place != "_tree":
            raise self.refuse(value, place)
        return {"neighbors": type(value).__name__, "leaf_size": value.__getstate__()[4]}  # made again of the rows

    def _spline(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        parts = [value.t, value.c, value.k, value.extrapolate, value.axis]
        return {"spline": [self.encode(part, place) for part in parts]}

    def _object(self, value: Any, place: str, may_be_lost: bool) -> dict[str, Any]:
        kind = type(value)
        own_way = any(getattr(kind, name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
        if own_way or not hasattr(value, "__dict__") or isinstance(state := value.__getstate__(), tuple):
            raise self.refuse(value, place)
        if "<locals>" in kind.__qualname__:
            raise self.refuse(value, place, "Its class is made inside a function: define it in a module.")
        if not may_be_lost and hasattr(kind, "get_params") and is_unchecked(reference_to(kind)):
            self.unchecked.add(kind.__name__)
        return {"object": reference_to(kind), "state": self._state(kind, state or {}, place, may_be_lost)}

    def _state(self, kind: type, state: Mapping[str, Any], place: str, may_be_lost: bool) -> dict[str, Any]:
        """The attributes of an object; of a search those first that it predicts with, and what it tried after."""
        kept = {}
        for name in sorted(state, key=lambda name: is_tried(kind, name)):
            item = state[name]
            if not may_be_kept(kind, name, item):
                self.not_kept.append(_below(place, name))
                if name.endswith("_"):
                    continue
                item = default_of(kind, name)
            if name == "owner" and kind.__module__ == "sklearn.utils._metadata_requests" and not isinstance(item, str):
                item = type(item).__name__  # of whom they are is for messages alone, and leads back
            if name != "_sklearn_version":
                kept[name] = self.encode(item, _below(place, name), may_be_lost=may_be_lost or is_tried(kind, name))
        return kept


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _is_sparse(value: Any) -> bool:
    from scipy import sparse

    return bool(sparse.issparse(value))


def _is_bunch(value: Any) -> bool:
    from sklearn.utils import Bunch

    return type(value) is Bunch


def _is_called(*names: str) -> Callable[[Any], bool]:
    return lambda value: f"{type(value).__module__}.{type(value).__name__}" in names


def _is_distribution(value: Any) -> bool:
    return type(value).__name__ in ("rv_continuous_frozen", "rv_discrete_frozen")


def _is_named(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, np.ufunc) or _is_of_numpy(value)


def _is_of_numpy(value: Any) -> bool:
    return callable(value) and hasattr(value, "__qualname__") and getattr(value, "__module__", "") == "numpy"


_WrittenAs = Callable[[Writer, Any, str, bool], dict[str, Any]]
# Each kind of value, and how it is written; the first that it is decides.
_KINDS: tuple[tuple[Callable[[Any], bool], _WrittenAs], ...] = (
    (estimator_files.can_be_saved, Writer._estimator),
    (lambda value: isinstance(value, np.generic), Writer._scalar),
    (_is(np.ma.MaskedArray), Writer._masked),
    (lambda value: type(value) in (np.ndarray, np.memmap) and value.dtype.names is not None, Writer._records),
    (_is(np.ndarray, np.memmap), Writer._array),
    (_is(*_CONTAINERS), Writer._container),
    (lambda value: isinstance(value, tuple) and hasattr(value, "_fields"), Writer._named_tuple),
    (lambda value: type(value) in (*_DICTS, collections.defaultdict) or _is_bunch(value), Writer._dict),
    (_is(slice), Writer._slice),
    (lambda value: isinstance(value, Exception), Writer._error),
    (_is(bytes), lambda writer, value, place, _: {"bytes": value.decode("latin-1")}),
    (lambda value: isinstance(value, np.dtype), Writer._dtype),
    (_is(np.random.RandomState, np.random.Generator), Writer._generator),
    (_is_sparse, Writer._sparse),
    (_is_named, Writer._named),
    (_is(functools.partial), Writer._partial),
    (_is(NotLoaded), Writer._not_loaded),
    (_is_distribution, Writer._distribution),
    (_is_called("sklearn.tree._tree.Tree"), Writer._tree),
    (_is_called("sklearn.neighbors._kd_tree.KDTree", "sklearn.neighbors._ball_tree.BallTree"), Writer._neighbors),
    (_is_called("scipy.interpolate._bsplines.BSpline"), Writer._spline),
    (lambda value: reference_to_called(type(value)) is not None, Writer._made),
    (_is(types.ModuleType), lambda writer, value, place, _: _raise(writer.refuse(value, place))),
)


def _raise(error: Exception) -> Any:
    raise error
