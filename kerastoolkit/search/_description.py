"""What determines the result of a fit, as text that is the same in every process.

Another process recognises a fit by the text of everything that goes into it: values by type and content, arrays by
digest, functions and classes of the user's by bytecode and by everything that the code names, installed code by name
and version, other objects by what a copy would be made from. No address, no `hash()` and no order of a set gets into
the text. What cannot be described that way is refused: two fits that seem equal and are not would silently give a wrong
result.

`training._structure` asks a narrower question (may two models share a program in this process?) and may refuse far
more, since a refusal only costs it some time.
"""

from __future__ import annotations

import collections.abc
import contextlib
import copyreg
import dis
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import math
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import spmatrix
from sklearn.base import BaseEstimator

from kerastoolkit import _keras
from kerastoolkit.estimators._constructors import as_written
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras
    import polars as pl

# Attributes of a class that do not affect what it does, or have no fixed order.
_SAYS_NOTHING = {
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__classcell__", "__dataclass_fields__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__orig_bases__",
    "__parameters__", "__qualname__", "__static_attributes__", "__weakref__", "_abc_impl",
}  # fmt: skip

# Attributes of an estimator that are not part of it: its observers, and what `get_params` returns already.
_NOT_ITS_OWN = {"_clones", "_family", "_params", "_parent_callback_ctx", "_skl_callbacks", "callbacks_"}

# Wrappers, and the attributes under which they hold what they wrap.
_HOLDS: dict[type, tuple[str, ...]] = {
    functools.partial: ("func", "args", "keywords"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    types.MethodType: ("__func__", "__self__"),
    type(functools.cache(len)): ("__wrapped__",),
}
_METHODS = (types.FunctionType, staticmethod, classmethod, property)

_LOADS_GLOBAL = {"LOAD_FROM_DICT_OR_GLOBALS", "LOAD_GLOBAL", "LOAD_NAME"}

# Packages whose results do not change for a search until the major version does.
_KEEPS_RESULTS = {
    "jax", "keras", "kerastoolkit", "numpy", "pandas", "polars", "scipy", "sklearn", "tensorflow", "torch",
}  # fmt: skip

_LONG = 200  # characters beyond which a text is replaced by its digest inside another


class _UndescribedError(Exception):
    """Something cannot be described; the message says what it is, and `advice` what to pass instead."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


class Describer:
    """Describes values, each function, class and array once.

    It keeps a reference to what it has described, so that no other object gets the same address, and assumes that it
    does not change: one describer serves one search.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}
        self._open: list[Any] = []  # what is being described: functions call themselves, objects hold themselves
        self._open_modules: dict[str, set[str]] = {}  # the attributes of own modules that are being described
        self._reach = math.inf  # the outermost of those that was met again
        self._where: list[str] = []

    def digest(self, parts: Mapping[str, Any]) -> str:
        """Digest of named values.

        Args:
            parts: Values by the names that errors use for them.

        Returns:
            40 hexadecimal digits.

        Raises:
            ParameterError: A value cannot be described; the message names it and says what to do.
        """
        return _digest_of([[name, self.described(value, name)] for name, value in parts.items()])

    def described(self, value: object, where: str) -> Any:
        """A value as lists of plain text.

        Raises:
            ParameterError: As for `digest`.
        """
        self._open, self._open_modules, self._reach, self._where = [], {}, math.inf, [where]
        try:
            return self._of(value, keep=not hasattr(value, "get_params"))  # an estimator is cloned for every fit
        except _UndescribedError as error:
            raise ParameterError(
                f"A journal cannot recognise {' -> '.join(self._where)}: it is {error}. A recorded fit is found by "
                f"the content of everything that determines its result. {error.advice}, or search without `journal`."
            ) from error
        except RecursionError:
            raise ParameterError(
                f"A journal cannot recognise {self._where[0]}: it is nested too deeply. Pass something simpler, or "
                "search without `journal`."
            ) from None

    # -- bookkeeping ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _at(self, place: str) -> Iterator[None]:
        self._where.append(place)
        yield  # not in a `finally`: an error is reported with the place where it was raised
        self._where.pop()

    def _once(self, thing: object, describe: Callable[[], Any], *, keep: bool = True) -> Any:
        """Describes a thing that may contain itself, with a digest in place of a long text."""
        for depth, other in enumerate(self._open):
            if other is thing:
                self._reach = min(self._reach, depth)
                return ["itself", len(self._open) - depth]
        if id(thing) in self._known:
            return self._known[id(thing)][1]
        depth, before, self._reach = len(self._open), self._reach, math.inf
        self._open.append(thing)
        text = _shortened(describe())
        self._open.pop()
        # A text with references outward only has a meaning in its place.
        if keep and self._reach >= depth:
            self._known[id(thing)] = thing, text
        self._reach = min(before, self._reach if self._reach < depth else math.inf)
        return text

    # -- values --------------------------------------------------------------------------------------------------

    def _of(self, value: Any, *, keep: bool = False) -> Any:
        if value is None or isinstance(value, (bool, str)) and type(value) in (bool, str):
            return value
        if type(value) in (int, float, complex) or value is Ellipsis or value is NotImplemented:
            return [type(value).__name__, repr(value)]
        if type(value) in (bytes, bytearray):
            return [type(value).__name__, _blake(bytes(value))]
        if isinstance(value, np.generic):
            # Not as a plain number: a float64 widens an array of float32 that it meets, a float does not.
            return ["scalar", self._of_array(np.asarray(value))]
        if isinstance(value, enum.Enum):
            return ["enum", self._of_class(type(value)), value.name]
        if isinstance(value, np.dtype):
            return ["dtype", value.str, repr(value.descr) if value.names else ""]
        if isinstance(value, np.ndarray):
            return self._once(value, lambda: self._of_array(value), keep=keep)
        if inspect.isclass(value):
            return self._of_class(value)
        if isinstance(value, types.ModuleType):
            return self._of_module(value, ())
        if callable(value) or isinstance(value, tuple(_HOLDS)):
            known = self._of_callable(value)
            if known is not None:
                return known
        if isinstance(value, (io.IOBase, collections.abc.Iterator)):
            kind = "an open file" if isinstance(value, io.IOBase) else "something that can be read only once"
            raise _UndescribedError(f"{kind} ({type(value).__name__})", "Pass a path, a list or an array instead")
        return self._once(value, lambda: self._of_object(value), keep=keep)

    def _of_object(self, value: Any) -> Any:
        kind = _kind_of(value)
        if kind in (list, tuple):
            return [kind.__name__, [self._named(_step_name(item), item) for item in value]]
        if kind in (set, frozenset):
            own = kind is not type(value) and not _is_installed(type(value).__module__)
            extra = [self._of_class(type(value)), self._of(getattr(value, "__dict__", None))] if own else []
            return [kind.__name__, sorted(map(self._of, value), key=json.dumps), *extra]
        if kind is dict:
            return ["dict", [[self._of(key), self._named(key, item)] for key, item in value.items()]]
        if isinstance(value, np.random.RandomState):
            return ["RandomState", self._of(value.get_state(legacy=False))]
        if isinstance(value, os.PathLike):
            return ["path", os.fspath(value)]
        package = type(value).__module__.partition(".")[0]
        if package == "pandas" and (table := self._of_pandas(value)) is not None:
            return table
        if package == "polars" and hasattr(value, "to_numpy"):
            return self._of_polars(value)
        if package == "scipy" and hasattr(value, "tocoo"):
            return self._of_sparse(value)
        if "keras" in sys.modules and (configured := self._of_keras(value)) is not None:
            return configured
        if hasattr(value, "get_params"):
            return self._of_estimator(value)
        if type(value).__name__ == "_PassthroughScorer" and package == "sklearn":
            # It asks the fitted estimator for its own score; the one it holds is there for its class.
            return ["its own score", self._of_class(type(value._estimator))]
        if hasattr(type(value), "__array__") and not isinstance(value, np.ndarray):
            try:
                return ["array of", self._of_class(type(value)), self._of_array(np.asarray(value))]
            except Exception as error:  # each library has its own
                raise _UndescribedError(
                    f"{_a(value)} that is no array ({error})", "Pass a numpy array instead"
                ) from error
        return self._of_parts(value)

    def _named(self, name: object, item: object) -> Any:
        """An item that errors call by its name."""
        if not isinstance(name, str):
            return self._of(item)
        with self._at(f"`{name}`"):
            return self._of(item)

    def _of_parts(self, value: object) -> Any:
        """Any object, by what Python would make a copy from."""
        registered = copyreg.dispatch_table.get(type(value))
        try:
            parts = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception as error:
            raise _UndescribedError(
                f"{_a(value)}, whose content cannot be read ({error})",
                "Pass plain values, arrays, functions or objects made of them instead",
            ) from error
        if isinstance(parts, str):
            module = str(getattr(value, "__module__", None) or type(value).__module__)
            module = "numpy" if isinstance(value, np.ufunc) else module
            if not _is_installed(module) or getattr(sys.modules.get(module), parts, None) is not value:
                raise _UndescribedError(f"{_a(value)}, known only by the name {parts!r}", "Pass a function instead")
            return ["named", module, parts, _version_of(module)]
        make, arguments, state, items, entries = (*parts, None, None, None, None)[:5]
        return [
            "object",
            self._of(make),
            [self._of(argument) for argument in arguments],
            self._of(state),
            None if items is None else [self._of(item) for item in items],
            None if entries is None else [[self._of(key), self._of(item)] for key, item in entries],
        ]

    def _of_estimator(self, estimator: BaseEstimator) -> Any:
        params = estimator.get_params(deep=False)
        own = {name: item for name, item in getattr(estimator, "__dict__", {}).items() if name not in params}
        own = {name: item for name, item in own.items() if name not in _NOT_ITS_OWN}
        if "_fitted" in own:  # a fitted estimator of ours, frozen inside another
            model = estimator.model_ if estimator.__sklearn_is_fitted__() else None
            own["_fitted"] = {**vars(own["_fitted"].portable()), "network": None, "model": model}
        if "_metadata_request" in own:  # what is asked for, which its text says in full
            own["_metadata_request"] = repr(own["_metadata_request"])
        described = [[name, self._named(name, item)] for part in (params, own) for name, item in sorted(part.items())]
        return ["estimator", self._of_class(type(estimator)), described]

    # -- arrays and tables ---------------------------------------------------------------------------------------

    def _of_array(self, array: np.ndarray[Any, Any]) -> Any:
        shape = list(array.shape)
        extra = [] if type(array) in (np.ndarray, np.memmap) else [self._of_class(type(array))]
        if isinstance(array, np.ma.MaskedArray):
            extra.append(self._of_array(np.ma.getmaskarray(array)))
            array = array.filled()
        array = np.asarray(array)
        if array.dtype.hasobject:
            return ["array", "object", shape, _digest_of([self._of(item) for item in array.ravel().tolist()]), extra]
        names = repr(array.dtype.descr) if array.dtype.names else ""
        # As bytes without a copy; times have no buffer of their own.
        content: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.dtype.itemsize else b""
        return ["array", array.dtype.str + names, shape, _blake(content), extra]

    def _of_pandas(self, value: object) -> Any:
        import pandas as pd

        parts: list[Any]
        if isinstance(value, pd.DataFrame):
            parts = [value.columns, value.index, *(value.iloc[:, place].array for place in range(value.shape[1]))]
        elif isinstance(value, pd.Series):
            parts = [value.name, value.index, value.array]
        elif isinstance(value, pd.MultiIndex):
            parts = [list(value.names), list(value)]
        elif isinstance(value, pd.Index):
            parts = [value.name, value.array]
        elif isinstance(value, pd.Categorical):
            parts = [value.categories, np.asarray(value.codes), bool(value.ordered)]
        elif isinstance(value, pd.api.extensions.ExtensionArray):
            plain = isinstance(value.dtype, np.dtype) or type(value).__name__ == "NumpyExtensionArray"
            parts = [str(value.dtype), np.asarray(value, dtype=None if plain else object)]
        elif value is pd.NA or value is pd.NaT:
            parts = [str(value)]
        else:
            return None
        return ["pandas", type(value).__name__, [self._of(part) for part in parts]]

    def _of_polars(self, value: pl.DataFrame | pl.Series) -> Any:
        described = []
        for column in value.get_columns() if hasattr(value, "get_columns") else [value]:
            # Numbers with gaps would become floats.
            content = [self._of_array(part.to_numpy()) for part in (column.drop_nulls(), column.is_null())]
            described.append([column.name, str(column.dtype), content])
        return ["polars", type(value).__name__, described]

    def _of_sparse(self, value: spmatrix) -> Any:
        matrix = value.tocoo()
        arrays = [self._of_array(array) for array in (*matrix.coords, matrix.data)]
        return ["sparse", type(value).__name__, list(value.shape), arrays]

    # -- Keras ---------------------------------------------------------------------------------------------------

    def _of_keras(self, value: object) -> Any:
        """An object of Keras': its config, what it holds that the config may leave out, and its weights."""
        import keras

        if isinstance(value, keras.Model):
            layers = [
                [self._of_configured(layer), bool(layer.trainable)] for layer in _keras.layers_of(value, itself=False)
            ]
            compiled = self._of(_keras.compile_arguments(value))
            optimizer = value.optimizer if value.compiled else None
            state = self._of_weights([*value.variables, *(optimizer.variables if optimizer is not None else ())])
            return ["model", self._of_configured(value), layers, state, compiled]
        if isinstance(value, _configured()):
            weights = value.variables if isinstance(value, keras.layers.Layer) else ()
            return ["configured", self._of_configured(value), self._of_weights(weights)]
        if isinstance(value, keras.callbacks.Callback):
            # A callback that has trained already points at its model; the next fit sets that anew.
            own = {name: item for name, item in vars(value).items() if name not in ("_model", "model", "params")}
            own = {name: item for name, item in own.items() if not isinstance(item, keras.Model)}
            return ["callback", self._of_class(type(value)), self._of(own)]
        return None

    def _of_configured(self, value: keras.Layer) -> Any:
        """An object that has a config, without its weights."""
        import keras

        try:
            with warnings.catch_warnings():
                # It is about files that are loaded elsewhere.
                warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`", UserWarning)
                config = value.get_config()
        except Exception as error:
            raise _UndescribedError(
                f"{_a(value)} without a `get_config` that says what it is made of ({error})",
                "Give its class a `get_config`, or pass a function that builds it instead",
            ) from error
        if isinstance(value, (keras.losses.Loss, keras.optimizers.Optimizer)):
            config = {name: item for name, item in config.items() if name != "name"}  # Keras counts it up: adam_1
        # A config only names functions, and need not tell what the user's class added.
        own, is_model = _set_by_users(value), isinstance(value, keras.Model)
        if isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):  # not even Keras' own configs name all
            own = vars(value).keys() - _keras.tracking_attributes(value) - {"name"}
        held = {
            name: item
            for name, item in sorted(vars(value).items())
            if (name in own or (isinstance(item, _held()) and not is_model))
            and not isinstance(item, (keras.Model, keras.Variable, keras.random.SeedGenerator))
            and not (is_model and isinstance(item, keras.layers.Layer))
        }
        return [self._of_class(type(value)), self._of(_without_code(config)), self._of(held)]

    def _of_weights(self, weights: Iterable[keras.Variable]) -> Any:
        return [self._of_array(np.asarray(weight)) for weight in weights]

    # -- functions, classes, modules -----------------------------------------------------------------------------

    def _of_callable(self, value: object) -> Any:
        for kind, names in _HOLDS.items():
            if isinstance(value, kind):
                return [kind.__name__, [self._of(getattr(value, name)) for name in names]]
        if (name := _installed_name(value)) is not None:
            return ["installed", name, _version_of(name)]
        if isinstance(value, types.FunctionType):
            return self._once(value, lambda: self._of_function(value))
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            owner = None if isinstance(owner, types.ModuleType) else owner
            return ["builtin", str(value.__module__), value.__qualname__, self._of(owner)]
        return None

    def _of_function(self, function: types.FunctionType) -> Any:
        outside: list[Any] = []
        with self._at(f"the function `{function.__name__}`"):
            attributes, loaded, imports = _names_in(function.__code__)
            for name in sorted(loaded & function.__globals__.keys()):
                outside.append([name, self._of_outside(name, function.__globals__[name], attributes)])
            for imported in sorted(imports, key=str):
                module = _imported(imported, function.__globals__)
                outside.append([str(imported), None if module is None else self._of_module(module, attributes)])
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                try:
                    content = cell.cell_contents
                except ValueError:  # not assigned yet
                    outside.append([name, ["empty"]])
                else:
                    outside.append([name, self._of_outside(name, content, attributes)])
            held = [self._of(part) for part in (function.__defaults__, function.__kwdefaults__, vars(function))]
        return ["function", self._of_code(function.__code__), outside, held]

    def _of_outside(self, name: str, value: object, attributes: frozenset[str]) -> Any:
        with self._at(f"its `{name}`"):
            return self._of_module(value, attributes) if isinstance(value, types.ModuleType) else self._of(value)

    def _of_code(self, code: types.CodeType) -> Any:
        constants = [
            self._of_code(item) if isinstance(item, types.CodeType) else self._of(item) for item in code.co_consts
        ]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        # No file and no line: a function that was moved does the same.
        bytecode = [code.co_code.hex(), code.co_exceptiontable.hex(), sys.version_info[:2]]
        return ["code", code.co_name, bytecode, constants, names, counts]

    def _of_class(self, kind: type) -> Any:
        name = _installed_name(kind)
        if name is not None:
            return ["installed", name, _version_of(name)]
        return self._once(kind, lambda: self._of_own_class(kind))

    def _of_own_class(self, kind: type) -> Any:
        with self._at(f"the class `{kind.__qualname__}`"):
            members = list(kind) if (is_enum := issubclass(kind, enum.Enum)) else []
            described = [[one.name, self._of(one.value)] for one in members]
            bases = [self._of_class(base) for base in (type(kind), *kind.__bases__)]
            for name, value in sorted(vars(kind).items()):
                slot = isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
                # Of an enumeration, what Python makes of its members would lead back to them.
                if name in _SAYS_NOTHING or slot or (is_enum and not isinstance(value, _METHODS)):
                    continue
                if name == "__init__" and (value := as_written(value)) is None:
                    continue  # one that was added when the class was made
                with self._at(f"its `{name}`"):
                    described.append([name, self._of(value)])
        return ["class", kind.__qualname__, bases, described]

    def _of_module(self, module: types.ModuleType, attributes: Iterable[str]) -> Any:
        """A module: by name if it is installed, else by those of its attributes that the code uses."""
        name = module.__name__
        if _is_installed(name):
            return ["module", name, _version_of(name)]
        wanted = (set(attributes) & vars(module).keys()) - (open_before := self._open_modules.get(name, set()))
        if open_before:
            self._reach = 0  # this text leaves out what is described around it
        self._open_modules[name] = open_before | wanted
        content = [[one, self._of_outside(one, vars(module)[one], frozenset(attributes))] for one in sorted(wanted)]
        self._open_modules[name] = open_before
        return ["own module", name, content]


# -- names ----------------------------------------------------------------------------------------------------------


def _a(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


@functools.cache
def _configured() -> tuple[type, ...]:
    """Kinds of Keras objects that are described by their config."""
    import keras

    return (
        keras.DTypePolicy,
        keras.constraints.Constraint,
        keras.initializers.Initializer,
        keras.layers.Layer,
        keras.losses.Loss,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
        keras.regularizers.Regularizer,
    )


@functools.cache
def _held() -> tuple[type, ...]:
    """Kinds of values that a config refers to only by name."""
    return (types.FunctionType, functools.partial, *_configured())


def _set_by_users(value: object) -> set[str]:
    """Names of the attributes that a user's class has added to an object of Keras."""
    kind: Any = type(value)
    return set() if _installed_name(kind) else vars(value).keys() - _set_by_installed(kind)


@functools.cache
def _set_by_installed(kind: type) -> frozenset[str]:
    """Names of the attributes that the installed base classes of a class set."""
    names: set[str] = set()
    for base in kind.__mro__:
        if _installed_name(base) is None:
            continue
        for value in vars(base).values():
            function = inspect.unwrap(getattr(value, "fset", None) or getattr(value, "__func__", value))
            if isinstance(function, types.FunctionType):
                code = function.__code__
                names.update(one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")
                if "__setattr__" in code.co_names:  # torch sets some by name
                    names.update(item for item in code.co_consts if isinstance(item, str))
    return frozenset(names)


def _step_name(item: object) -> Any:
    """The name of a step of a pipeline; None for anything else."""
    return item[0] if isinstance(item, tuple) and len(item) > 1 and hasattr(item[1], "get_params") else None


def _kind_of(value: object) -> type:
    """The kind of a container: Keras wraps the containers of a layer, and sets of any class have no order."""
    for kind in (list, dict, set, frozenset):
        if isinstance(value, kind) and (kind in (set, frozenset) or type(value).__module__.startswith("keras.")):
            return kind
    return dict if isinstance(value, types.MappingProxyType) else type(value)


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module came with Python or by an installer, so that its name and version identify what it does."""
    top = module.partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == "kerastoolkit":
        return True
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if file is None or not _package_version(top):
        return False
    return bool({"site-packages", "dist-packages"} & set(os.path.realpath(file).split(os.sep)))


def _installed_name(thing: object) -> str | None:
    """`module:qualname` of a function or class that an installed module has under that name."""
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or not _is_installed(module):
        return None
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return f"{module}:{qualname}" if found is thing else None


def _version_of(name: str) -> str:
    """The part of a package's version that may change results; for Keras also the backend and its settings."""
    top = name.partition(":")[0].partition(".")[0]
    version = _package_version(top)
    if top == "kerastoolkit":
        return f"{version} with {_version_of('keras')}"
    if top != "keras":
        return version
    import keras

    config = keras.config
    settings = (config.floatx(), config.image_data_format(), config.dtype_policy().name, str(config.epsilon()))
    backend = config.backend()
    return " ".join((_package_version("keras"), backend, _package_version(backend), *settings))


@functools.cache
def _package_version(top: str) -> str:
    if top in sys.stdlib_module_names:
        return ""
    version = str(getattr(sys.modules.get(top), "__version__", ""))
    if not version:
        # A package may be installed under another name than it is imported under.
        names = importlib.metadata.packages_distributions().get(top, ())
        version = " ".join(importlib.metadata.version(name) for name in sorted(set(names)))
    parts = version.split(".")
    # Any other package may be the user's own, and change results in any version.
    return ".".join(parts[: 2 if parts[0] == "0" else 1]) if top in _KEEPS_RESULTS else version


def _imported(what: tuple[int, str, tuple[str, ...]], namespace: dict[str, Any]) -> types.ModuleType | None:
    """The module that an import in a function returns; None if it cannot be imported."""
    level, name, wanted = what
    try:
        found: types.ModuleType = __import__(name, namespace, None, wanted, level)
    except ImportError:
        return None
    return found


@functools.cache
def _names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[Any]]:
    """All names in code and in the code inside it, the globals among them, and its imports.

    Texts count as names, since they may be names: `getattr(module, "build")`. An import is `(level, name, names from
    it)`.
    """
    names, loaded, imports = set(code.co_names), set(), set()
    instructions = [one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG"]
    for place, instruction in enumerate(instructions):
        if instruction.opname in _LOADS_GLOBAL:
            loaded.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_NAME":
            level, wanted = instructions[place - 2].argval, instructions[place - 1].argval
            imports.add((level, instruction.argval, wanted or ()))
    for constant in code.co_consts:
        if isinstance(constant, str):
            names.add(constant)
        elif isinstance(constant, types.CodeType):
            inner = _names_in(constant)
            names |= inner[0]
            loaded |= inner[1]
            imports |= inner[2]
    return frozenset(names), frozenset(loaded), frozenset(imports)


# -- texts ----------------------------------------------------------------------------------------------------------


def _without_code(config: object) -> Any:
    """A config of Keras without marshalled functions, whose bytes differ between processes."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "__lambda__":
            return "a lambda"
        return {name: _without_code(item) for name, item in config.items()}
    if isinstance(config, (list, tuple)):
        return [_without_code(item) for item in config]
    return config


def _blake(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def _digest_of(described: object) -> str:
    return _blake(json.dumps(described, separators=(",", ":")).encode())


def _shortened(described: object) -> Any:
    text = json.dumps(described, separators=(",", ":"))
    return described if len(text) <= _LONG else ["digest", _blake(text.encode())]
