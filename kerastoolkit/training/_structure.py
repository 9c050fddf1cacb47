"""When two values, functions or models are certain to be the same.

A program traced for one model is right for another only if both have the same structure, and a model need not be built
again only if the function that builds it would do the same. A wrong guess would silently give wrong results, so what
counts here is what can be proved: `fingerprint` gives equal keys to what is certainly equal, and refuses
(`UnknownError`) whatever may depend on something that it cannot see.
"""

from __future__ import annotations

import dis
import enum
import functools
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastoolkit import _keras

if TYPE_CHECKING:
    import keras

# Modules whose functions depend on nothing but their arguments and seeds, apart from the names below.
_KNOWN_MODULES = {"functools", "itertools", "jax", "keras", "kerastoolkit", "math", "numpy", "tensorflow", "torch"}

# Names of what reads files, clocks or the state of the process. `from_config`, `get_layer` and the like are harmless.
_READS_THE_WORLD = {
    "eval", "exec", "environ", "fromfile", "genfromtxt", "get_file", "getenv", "globals", "input", "load", "load_model",
    "get_custom_objects", "get_registered_object", "load_data", "load_weights", "loadtxt", "locals", "memmap", "now",
    "open", "perf_counter", "read", "read_file", "time", "today", "vars",
}  # fmt: skip

# Floats of an optimizer that Keras only compares and multiplies with. It subtracts the others from 1, which is exact to
# the last digit only where a tensor can have double precision; and `clipvalue` goes to a function of JAX that takes
# nothing but arrays.
_PLAIN_FACTORS = {"clipnorm", "epsilon", "global_clipnorm", "momentum", "weight_decay"}

_MAX_ELEMENTS = 100_000  # of an array that is a part of a key


class UnknownError(Exception):
    """It cannot be proved what something does; the message says why."""


class Structure(NamedTuple):
    """What two models must have in common to share a program, and where they may differ.

    Attributes:
        kind: How the structure is known: from Keras' `"config"`, from the `"origin"` of the model, or `"itself"` where
            it is known of no other model.
        key: Equal for models of one structure.
        slots: Hyper-parameters that may differ: `(object, attribute)`.
        values: Their values.
    """

    kind: str
    key: Any
    slots: list[tuple[Any, str]]
    values: list[float]


def surroundings() -> Any:
    """The settings of the process that Keras' code reads."""
    import keras

    config = keras.config
    return config.floatx(), config.image_data_format(), config.dtype_policy().name, config.epsilon()


# -- values and functions -------------------------------------------------------------------------------------------


def fingerprint(value: object) -> Any:
    """A hashable key, equal only for values that do the same.

    Args:
        value: Anything.

    Returns:
        The key; it keeps functions and classes alive, so that no other can take their identity.

    Raises:
        UnknownError: What the value does may depend on something that cannot be seen.
    """
    return _key_of(value, ())


# Functions and classes that a key is being made of, the outermost first.
_Seen = tuple[Any, ...]


def _key_of(value: object, seen: _Seen) -> Any:
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return type(value).__name__, value
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, np.generic):
        return _key_of(value.item(), seen)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(_key_of(item, seen) for item in value)
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(_key_of(item, seen) for item in value)
    if isinstance(value, Mapping):
        return "dict", tuple((_key_of(key, seen), _key_of(item, seen)) for key, item in value.items())
    if isinstance(value, np.dtype):
        return "dtype", str(value)
    if isinstance(value, np.ndarray):
        if value.size > _MAX_ELEMENTS:
            _refuse(value)
        if value.dtype == object:
            return "array", tuple(_key_of(item, seen) for item in value.tolist())
        return "array", value.dtype.str, value.shape, value.tobytes()
    if type(value).__name__ == "DynamicBackend" and _is_known(type(value).__module__):
        return "backend", _keras.backend_of(value)  # of preprocessing layers
    if isinstance(value, functools.partial):
        return "partial", _key_of(value.func, seen), _key_of(value.args, seen), _key_of(value.keywords, seen)
    if isinstance(value, types.FunctionType):
        return _of_function(value, seen)
    if inspect.isclass(value):
        return _of_class(value, seen)
    if isinstance(value, types.BuiltinFunctionType):
        return value if _is_known(getattr(value, "__module__", "") or "") else _refuse(value)
    if _is_known(type(value).__module__) and hasattr(value, "get_config"):
        return _of_configured(value)
    return _refuse(value)


def _refuse(value: object) -> Any:
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    raise UnknownError(f"it is not known what {name} depends on")


def _is_known(module: str) -> bool:
    return module.partition(".")[0] in _KNOWN_MODULES or module == "builtins"


def _of_configured(thing: object) -> Any:
    import keras

    kind = type(thing)
    if isinstance(thing, (keras.layers.Layer, keras.random.SeedGenerator)):
        raise UnknownError(f"a {kind.__name__} has a state, which changes")
    return "configured", kind, _of_attributes(thing)


def _of_attributes(thing: object, left_out: frozenset[str] = frozenset()) -> Any:
    """The attributes of an object of Keras', whose config may leave something out."""
    import keras

    parts = []
    for name, value in sorted(vars(thing).items()):
        several = value if isinstance(value, (list, tuple)) else [value]
        if name in left_out or all(isinstance(one, keras.Variable) for one in several) or name == "_tracker":
            continue
        if isinstance(value, enum.Enum):
            value = value.name
        elif isinstance(value, keras.dtype_policies.DTypePolicy):  # "int" is what a copy calls "int64"
            value = value.name if "_" in value.name else keras.backend.standardize_dtype(value.name)
        parts.append((name, fingerprint(_as_array(value))))
    return tuple(parts)


def _as_array(value: object) -> Any:
    """A tensor as an array; anything else as it is."""
    import keras

    is_tensor = hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, (np.ndarray, np.generic))
    return keras.ops.convert_to_numpy(value) if is_tensor else value


def _of_config(config: object) -> Any:
    """Key of a Keras config, in which anything that is not Keras' own is given by its name only."""
    if isinstance(config, Mapping):
        module = config.get("module")
        # A class that the user registered has no module in a config.
        if "class_name" in config and "module" in config and not _is_known(str(module)):
            raise UnknownError(f"it holds {config['class_name']}, which is not Keras' own")
        if config.get("class_name") == "function" and module not in (None, "keras.activations"):
            raise UnknownError(f"it holds the function {config.get('config')!r}")
        if config.get("class_name") == "Lambda":
            raise UnknownError("it holds a Lambda layer, whose function may depend on anything")
        return "dict", tuple((key, _of_config(item)) for key, item in config.items())
    if isinstance(config, (list, tuple)):
        return type(config).__name__, tuple(map(_of_config, config))
    return fingerprint(config)


def _of_function(function: types.FunctionType, seen: _Seen) -> Any:
    """A function, and the values of everything outside that its code names."""
    # Not `__module__`, which `functools.wraps` takes from another function.
    if str(function.__globals__.get("__name__")).partition(".")[0] in _KNOWN_MODULES:
        return function
    if any(one is function for one in seen):
        return "itself", _place_in(seen, function)
    if set(vars(function)) - {"__wrapped__"}:
        raise UnknownError(f"`{function.__name__}` has attributes, which may change")
    seen = (*seen, function)
    names = _names_in(function.__code__)
    if names & _READS_THE_WORLD:
        raise UnknownError(f"`{function.__name__}` reads {sorted(names & _READS_THE_WORLD)[0]!r}")
    outside = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        outside[name] = cell.cell_contents
    return (
        "function",
        function.__code__,
        tuple((name, _of_outside(function, name, value, seen)) for name, value in sorted(outside.items())),
        _key_of(function.__defaults__, seen),
        _key_of(function.__kwdefaults__, seen),
    )


def _of_outside(function: types.FunctionType, name: str, value: object, seen: _Seen) -> Any:
    if isinstance(value, types.ModuleType):
        if not _is_known(value.__name__):
            raise UnknownError(f"`{function.__name__}` uses the module {value.__name__!r}")
        return "module", value.__name__
    if isinstance(value, types.FunctionType):
        return _of_function(value, seen)
    return _of_constant(value, seen, f"`{function.__name__}` uses {name!r}")


def _place_in(seen: _Seen, thing: object) -> int:
    return next(place for place, one in enumerate(seen) if one is thing)


# Attributes of a class that mean nothing here.
_OF_EVERY_CLASS = {
    "__annotations__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__",
    "__weakref__",
}  # fmt: skip


def _of_class(kind: type, seen: _Seen) -> Any:
    """A class: itself if it is known, else its bases and everything in its body, such as a layer of the user's."""
    if _is_known(getattr(kind, "__module__", "") or ""):
        return kind
    if any(one is kind for one in seen):
        return "itself", _place_in(seen, kind)
    if type(kind) is not type and not _is_known(type(kind).__module__):
        raise UnknownError(f"`{kind.__name__}` has a metaclass, {type(kind).__name__}")
    seen = (*seen, kind)
    members = sorted((name, member) for name, member in vars(kind).items() if name not in _OF_EVERY_CLASS)
    return (
        "class",
        kind.__name__,
        tuple(_of_class(base, seen) for base in kind.__bases__),
        tuple((name, _of_member(kind, name, member, seen)) for name, member in members),
    )


def _of_member(kind: type, name: str, member: object, seen: _Seen) -> Any:
    if isinstance(member, types.FunctionType):
        return _of_function(member, seen)
    if isinstance(member, (staticmethod, classmethod)):
        return type(member), _of_member(kind, name, member.__func__, seen)
    if isinstance(member, property):
        parts = (member.fget, member.fset, member.fdel)
        return property, tuple(None if part is None else _of_member(kind, name, part, seen) for part in parts)
    return _of_constant(member, seen, f"`{kind.__name__}` has {name!r}")


def _of_constant(value: Any, seen: _Seen, whose: str) -> Any:
    """Something that code uses and does not change, with the words for an error that say whose it is."""
    if inspect.isclass(value):
        return _of_class(value, seen)
    if isinstance(value, (list, dict, set, bytearray, np.ndarray)):
        raise UnknownError(f"{whose}, which it may change")
    try:
        return _key_of(value, seen)
    except UnknownError:
        raise UnknownError(f"{whose}, and it is not known what that depends on") from None


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> frozenset[str]:
    """Every global, attribute and module named in code and in the code inside it."""
    names = set(code.co_names)
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and not _is_known(str(instruction.argval)):
            raise UnknownError(f"`{code.co_name}` imports {instruction.argval!r}")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return frozenset(names)


# -- models ---------------------------------------------------------------------------------------------------------


def structure_of(model: keras.Model, origin: object = None) -> Structure:
    """What a compiled and built model must have in common with another to share a program with it.

    Args:
        model: The model.
        origin: Key of the function call that built the model (not of how it was compiled), where that is known: models
            of one origin have one structure even where Keras' configs do not say everything. Defaults to `None`.

    Returns:
        The structure. A model of which too little is known has a structure of its own.
    """
    with _keras.without_tensorflow():
        return _structure_of(model, origin)


def _structure_of(model: keras.Model, origin: Any) -> Structure:
    import keras

    try:
        optimizer = _optimizer_key(model.optimizer)
        slots = _slots(model)
        compiled = _compile_key_of(model, slots)
        weights = tuple(_weight_key(variable, slots) for variable in model.variables)
    except Exception:  # `get_config` of Keras and of the user's classes may raise anything
        return Structure("itself", _ById(model), [], [])
    try:
        kind, known = "config", (type(model), _model_key(model, slots))
    except Exception:
        if origin is None:
            return Structure("itself", _ById(model), [], [])
        try:
            kind, known = "origin", (origin, attributes_of_users_layers(model, slots))
        except Exception:
            return Structure("itself", _ById(model), [], [])
    pattern = tuple((type(owner).__name__, name) for owner, name in slots)
    frozen = tuple(layer.trainable for layer in _keras.layers_of(model))
    key = (kind, known, compiled, optimizer, weights, pattern, frozen, surroundings(), keras.config.backend())
    return Structure(kind, key, slots, [float(getattr(owner, name)) for owner, name in slots])


def _slots(model: keras.Model) -> list[tuple[Any, str]]:
    """The hyper-parameters that may differ, each once."""
    slots: list[tuple[Any, str]] = []
    for owner, name in [*_optimizer_slots(model.optimizer), *_layer_slots(model), *_loss_slots(model)]:
        if not any(other is owner and known == name for other, known in slots):
            slots.append((owner, name))
    return slots


def _weight_key(variable: keras.Variable, slots: list[tuple[Any, str]]) -> Any:
    penalty, constraint = variable.regularizer, variable.constraint
    return (
        tuple(variable.shape),
        str(variable.dtype),
        variable.trainable,
        None if penalty is None else _penalty_key(penalty, slots),
        None if constraint is None else fingerprint(constraint),
    )


def _penalty_key(penalty: keras.Regularizer, slots: list[tuple[Any, str]]) -> Any:
    """A regularizer, without those of its numbers that are slots: they are not part of the key."""
    places = [(name, place) for place, (owner, name) in enumerate(slots) if owner is penalty]
    traced = frozenset(name for name, _ in places)
    if not _is_known(type(penalty).__module__):
        return fingerprint(penalty)
    return type(penalty), tuple(places), _of_attributes(penalty, traced)


class _ById:
    """A key that equals itself alone, and keeps its object alive."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _model_key(model: keras.Model, slots: list[tuple[Any, str]]) -> Any:
    import keras

    layers = _keras.layers_of(model)
    for part in layers:
        if isinstance(part, keras.Sequential) and len(set(map(id, part.layers))) < len(part.layers):
            raise UnknownError("a layer comes twice in it, which its config does not say")
    parts = tuple(_layer_key(layer, slots) for layer in layers)
    names: dict[str, int] = {}
    # What makes a mask is an operation and no layer.
    operations = [operation for layer in layers for operation in getattr(layer, "operations", ())]
    for layer in [*_keras.layers_of(model, itself=False), *operations]:
        # Automatic names mean nothing, but those of inputs and of several outputs refer to the data.
        automatic = re.fullmatch(rf"((for|back)ward_)?{_snake(type(layer).__name__)}(_\d+)?", layer.name)
        if automatic and not (len(model.outputs) > 1 and layer.name in model.output_names):
            names.setdefault(layer.name, len(names))
    config = {name: value for name, value in model.get_config().items() if name != "name"}
    return _of_config(_without_state(config, names)), parts


def _layer_key(layer: keras.Layer, slots: list[tuple[Any, str]]) -> Any:
    """The attributes of a layer; refuses those that a layer made from its config would not have."""
    import keras

    kind = type(layer)
    if not _is_known(kind.__module__) or kind.__name__ == "Lambda":
        raise UnknownError(f"it is not known what {kind.__name__} depends on")
    if _keras.own_metrics(layer):
        raise UnknownError("it has a metric as an attribute")
    if isinstance(layer, keras.Model):  # its layers are in its config
        return kind, ()
    parts = []
    for name, value in sorted(vars(layer).items()):
        if name.startswith("_") or name.endswith("_initializer") or name in _OF_EVERY_LAYER:
            continue
        if any(owner is layer and slot == name for owner, slot in slots):
            continue
        if isinstance(value, keras.regularizers.Regularizer):
            parts.append((name, _penalty_key(value, slots)))
        elif isinstance(value, _parts_of_layers()):
            continue
        elif isinstance(value, (list, tuple, dict)) and value and not _is_plain(value):
            continue  # layers, tensors or specifications, which are in the config
        elif isinstance(value, types.FunctionType) and not _is_known(str(value.__globals__.get("__name__"))):
            raise UnknownError(f"{layer.name} uses the function {value.__name__}")
        else:
            parts.append((name, fingerprint(_as_array(value))))
    return kind, tuple(parts)


def attributes_of_users_layers(model: keras.Model, slots: Sequence[tuple[Any, str]] = ()) -> Any:
    """Key of what layers of the user's hold beside variables and layers.

    A function that does the same twice may yet give its layers other numbers, which it draws.

    Args:
        model: A model.
        slots: Hyper-parameters that are not part of the key. Defaults to none.

    Raises:
        UnknownError: It cannot be proved what an attribute does.
    """
    own = [layer for layer in _keras.layers_of(model) if not _is_known(type(layer).__module__)]
    return tuple((type(layer).__name__, _of_users_layer(layer, slots)) for layer in own)


def _of_users_layer(layer: keras.layers.Layer, slots: Sequence[tuple[Any, str]]) -> Any:
    import keras

    state = keras.layers.Layer, keras.Variable, keras.KerasTensor, keras.InputSpec, keras.random.SeedGenerator
    without_effect = *state, keras.initializers.Initializer, keras.dtype_policies.DTypePolicy
    parts = []
    for name, value in sorted(vars(layer).items()):
        if name in _keras.names_of_any_layer() or name in _OF_EVERY_LAYER or name.startswith("_self_"):
            continue  # the last are TensorFlow's
        if any(owner is layer and slot == name for owner, slot in slots):
            continue
        if isinstance(value, keras.regularizers.Regularizer):
            parts.append((name, _penalty_key(value, list(slots))))
        elif value is not None and all(isinstance(one, without_effect) for one in keras.tree.flatten(value)):
            parts.append((name, "state"))
        else:
            parts.append((name, fingerprint(_as_array(value))))
    return tuple(parts)


# Attributes of every layer that mean nothing here: names, seeds, methods that Keras wraps for the object.
_OF_EVERY_LAYER = {"build", "built", "call", "name", "quantize", "seed"}


def _is_plain(value: object) -> bool:
    try:
        fingerprint(value)
    except UnknownError:
        return False
    return True


@functools.cache
def _parts_of_layers() -> tuple[type, ...]:
    import keras

    return (
        keras.layers.Layer,
        keras.Variable,
        keras.KerasTensor,
        keras.InputSpec,
        keras.random.SeedGenerator,
        keras.dtype_policies.DTypePolicy,
        keras.initializers.Initializer,
        keras.losses.Loss,
        keras.optimizers.Optimizer,
    )


def _snake(name: str) -> str:
    """A class name in the form in which Keras uses it for names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _without_state(config: object, names: Mapping[str, int], structural: bool = False) -> Any:
    """A config without state (initial weights, seeds), without what is in `_layer_key`, and without automatic names."""
    if isinstance(config, Mapping):
        dropout = config.get("class_name") == "Dropout"
        result = {}
        for name, value in config.items():
            if name.endswith(("_initializer", "_regularizer")) or name == "seed":
                continue
            if dropout and name == "config":
                value = {key: item for key, item in value.items() if key != "rate"}
            result[name] = _without_state(value, names, structural or name in _NAMES_LAYERS)
        return result
    if isinstance(config, (list, tuple)):
        return [_without_state(item, names, structural) for item in config]
    if structural and isinstance(config, str) and config in names:
        return f"layer {names[config]}"
    return config


# Keys of a config under which layers are named.
_NAMES_LAYERS = {"input_layers", "keras_history", "name", "output_layers"}


def compile_key(arguments: Mapping[str, Any]) -> Any:
    """Key of arguments of `Model.compile`, without the hyper-parameters of the optimizer that may differ.

    Raises:
        UnknownError: It cannot be proved what they do.
    """
    others = tuple((name, _of_compiled(value, [])) for name, value in arguments.items() if name != "optimizer")
    return others, _optimizer_key(arguments["optimizer"]) if arguments.get("optimizer") is not None else None


def _compile_key_of(model: keras.Model, slots: list[tuple[Any, str]]) -> Any:
    arguments = _keras.compile_arguments(model)
    if arguments is None:
        raise UnknownError("it was compiled in a way of its own")
    return tuple((name, _of_compiled(value, slots)) for name, value in arguments.items() if name != "optimizer")


def _of_compiled(value: object, slots: list[tuple[Any, str]]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(_of_compiled(item, slots) for item in value)
    if isinstance(value, Mapping) and "class_name" not in value:
        return "dict", tuple((name, _of_compiled(item, slots)) for name, item in value.items())
    place = [place for place, (owner, _) in enumerate(slots) if owner is value]
    if place:
        keywords = _keras.keywords_of(value)
        told = {name for name, item in vars(value).items() if name == _SMOOTHING or item is keywords}
        rest = {name: item for name, item in keywords.items() if name != _SMOOTHING}
        return type(value), place[0], _of_attributes(value, frozenset(told)), fingerprint(rest)
    return _of_config(value) if isinstance(value, Mapping) else fingerprint(value)


# Keras uses these numbers as they are.
NUMBERS_AS_GIVEN = ("learning_rate", "weight_decay")


class OptimizerLike:
    """What an optimizer would be with other `NUMBERS_AS_GIVEN`; it can be read, and cannot train.

    Keras takes some milliseconds to make an optimizer, and a search asks what the optimizer of each candidate would be.

    Args:
        known: An optimizer of Keras' own that nobody changes.
        numbers: The numbers that differ; `weight_decay` is not 0, nor is that of `known`.
    """

    def __init__(self, known: Any, numbers: Mapping[str, float]) -> None:
        self.known, self._numbers = known, numbers

    def __getattr__(self, name: str) -> Any:
        return self._numbers[name] if name in self._numbers else getattr(self.known, name)


@functools.lru_cache(maxsize=64)
def _key_of_known(optimizer: keras.optimizers.Optimizer) -> Any:
    return _optimizer_key(optimizer)


def _optimizer_key(optimizer: keras.optimizers.Optimizer) -> Any:
    if isinstance(optimizer, OptimizerLike):
        return _key_of_known(optimizer.known)
    kind = type(optimizer)
    if not _is_known(kind.__module__):
        return "one of its kind", _ById(optimizer)
    traced = {name for owner, name in _optimizer_slots(optimizer) if owner is optimizer}
    config = {name: value for name, value in _keras.config_of(optimizer).items() if name not in traced | {"name"}}
    config.pop("learning_rate", None)
    rate = _keras.rate_of(optimizer)
    if not _keras.is_variable(rate) and not _is_known(type(rate).__module__):
        raise UnknownError(f"{type(rate).__name__} is a learning rate of the user's")
    return kind, _of_config(config), None if _keras.is_variable(rate) else fingerprint(rate)


def _optimizer_slots(optimizer: keras.optimizers.Optimizer) -> list[tuple[Any, str]]:
    import keras

    if not _is_known(type(optimizer).__module__):
        return []
    single = keras.config.backend() == "jax"
    return [
        (optimizer, name)
        for name, value in _keras.config_of(optimizer).items()
        if name != "learning_rate"
        and isinstance(value, float)
        and value
        and isinstance(getattr(optimizer, name, None), float)
        and (not single or name in _PLAIN_FACTORS)
    ]


def _layer_slots(model: keras.Model) -> list[tuple[Any, str]]:
    import keras

    slots: list[tuple[Any, str]] = []
    if keras.config.backend() != "torch":  # there, no program trains a model that draws random numbers
        for layer in _keras.layers_of(model):
            if type(layer) is keras.layers.Dropout and layer.noise_shape is None and _is_nonzero(layer.rate):
                slots.append((layer, "rate"))
    for variable in model.variables:
        if type(variable.regularizer) in (keras.regularizers.L2, keras.regularizers.L1L2):
            names = [name for name in ("l1", "l2") if _is_nonzero(getattr(variable.regularizer, name, 0))]
            slots += [(variable.regularizer, name) for name in names]
    return slots


# The argument of a loss, and its attribute.
_SMOOTHING = "label_smoothing"


def _loss_slots(model: keras.Model) -> list[tuple[Any, str]]:
    import keras

    given = keras.tree.flatten((_keras.compile_arguments(model) or {}).get("loss"))
    return [(loss, _SMOOTHING) for loss in given if _smooths(loss)]


def _smooths(loss: keras.Loss) -> bool:
    """Whether a loss of Keras' own smooths labels, and its attribute says how much."""
    smoothing = getattr(loss, _SMOOTHING, None)
    is_known = _is_known(type(loss).__module__) and _is_nonzero(smoothing)
    return is_known and _keras.keywords_of(loss).get(_SMOOTHING) == smoothing


def _is_nonzero(value: object) -> bool:
    return isinstance(value, float) and bool(value)
