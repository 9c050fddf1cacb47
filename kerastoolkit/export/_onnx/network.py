"""Writes a Keras model as nodes of ONNX: layer by layer, from weights as NumPy arrays, on every backend.

What has a node or two of its own in ONNX (recurrent layers, batch normalization, resizing, ...) has a function in
`layers`. Any other layer is followed: its own `call` is given symbolic tensors, on which the functions of `keras.ops`
leave a trace, and that trace is written operation by operation by the functions in `ops`. So a layer of the user's own
is written like one of Keras', as long as it computes by layers and `keras.ops`.

Masks go the way they go when Keras predicts, which is not always the way of its symbolic tensors: with the value that
they are for, from call to call in the same order, and they are computed only where a layer asks for one.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._keras import calls_after, calls_into, inputs_structure, is_layer, layers_of, nodes_in_order, set_mask
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._onnx.writer import Writer

if TYPE_CHECKING:
    import keras

Shape: TypeAlias = tuple[int | None, ...]


class Mask:
    """A mask, which is computed when it is asked for."""

    def __init__(self, shape: Shape, make: Callable[[], Tensor]) -> None:
        self.shape = shape
        self._make = make
        self._made: Tensor | None = None

    def tensor(self) -> Tensor:
        """The mask itself: truth values."""
        if self._made is None:
            self._made = self._make()
        return self._made


class Tensor:
    """A value of the network in the ONNX graph.

    Args:
        name: In the ONNX graph.
        dtype: Half precision is computed in float32.
        shape: Rows included; None for a size that differs between calls.
        mask: Defaults to `None`.
    """

    def __init__(self, name: str, dtype: str, shape: Shape, mask: Mask | None = None) -> None:
        self.name, self.dtype, self.shape, self.mask = name, dtype, shape, mask


def known_dtype(dtype: object) -> str:
    """The type in which a type of Keras is computed."""
    name = str(getattr(dtype, "name", dtype))
    return "float32" if name in ("float16", "bfloat16") else name


def array_of(value: Any, dtype: str | None = None) -> NDArray[Any]:
    """A weight or another constant as an array, in float32 where it is of half precision."""
    import keras

    plain = isinstance(value, (bool, int, float, list, tuple, np.ndarray, np.generic))
    array = np.asarray(value if plain else keras.ops.convert_to_numpy(value))
    return array.astype(dtype or known_dtype(array.dtype))


_WAYS_OUT = (
    "What computes by layers of Keras and `keras.ops` can be written, and on TensorFlow more where tf2onnx is "
    "installed; `saved_model` takes any layer."
)


class NotFollowedError(ExportError):
    """What a layer computes could not be followed, or not be written."""


class Call:
    """One call of a layer or of an operation, about to be written.

    Args:
        walk: Writes what is inside.
        of: The layer or operation.
        arguments: What it is called with, by name; a `Tensor` in the place of a tensor.
        outputs: Symbolic outputs, which say types and shapes.

    Attributes:
        writer: What the nodes are added to.
    """

    def __init__(self, walk: Walk, of: Any, arguments: Mapping[str, Any], outputs: Sequence[Any]) -> None:
        self.walk, self.writer, self.of, self.arguments, self.outputs = walk, walk.writer, of, arguments, outputs

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def first(self) -> Any:
        """The first argument."""
        return next(iter(self.arguments.values()))

    @property
    def dtype(self) -> str:
        """Type of the first output."""
        return known_dtype(self.outputs[0].dtype)

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    def name(self, value: Any, dtype: str | None = None) -> str:
        """The name of a tensor or constant, cast to a type where it is of another."""
        if not isinstance(value, Tensor):
            return self.writer.constant(array_of(value, dtype))
        wanted = dtype or value.dtype
        return value.name if value.dtype == wanted else self.writer.cast(value.name, wanted)

    def number(self, value: float, dtype: str | None = None) -> str:
        """A constant of the type of the first output, if no other is given."""
        return self.writer.constant(np.asarray(value, dtype or self.dtype))

    def ints(self, *values: int) -> str:
        """A constant: whole numbers in a row, such as axes or sizes."""
        return self.writer.constant(np.array(values, "int64"))

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output."""
        made: str = self.writer.node(op_type, inputs, **attributes)
        return made

    def mask(self) -> Mask | None:
        """The mask that a layer is called with."""
        import keras

        given = [one for one in keras.tree.flatten(self.arguments.get("mask")) if one is not None]
        return given[0] if given else None

    def refused(self, reason: str, final: bool = False) -> ExportError:
        """The error of what ONNX cannot hold; to be raised."""
        return self.walk.refused(self.of, reason, final)

    def tensor(self, name: str) -> Tensor:
        """What was written as the first output."""
        return Tensor(name, self.dtype, self.shape)


Made: TypeAlias = "str | Tensor | Sequence[str | Tensor]"
Write: TypeAlias = Callable[[Call], Made]


class Walk:
    """Writes networks into an ONNX graph.

    Args:
        writer: What nodes and constants are added to.
        layers: What writes a layer, by class.
        operations: What writes an operation of `keras.ops`, by the last part of its module and its name.
        functions: What writes an activation, by function.
        otherwise: What writes a layer that could not be followed; returns None if it cannot, either.

    Attributes:
        prefix_masks: Names of masks that are true up to the end of a sequence, and false after it.
    """

    def __init__(
        self,
        writer: Writer,
        layers: Mapping[type, Write],
        operations: Mapping[str, Write],
        functions: Mapping[Any, Callable[[Call, str], str]],
        otherwise: Callable[[Call], list[Tensor] | None],
    ) -> None:
        self.writer = writer
        self._layers, self._ops, self._functions, self._otherwise = layers, operations, functions, otherwise
        self._only_training: list[str] = []
        self._followed: list[str] = []
        self._converted: list[str] = []
        self._half: set[str] = set()
        self._path: list[Any] = []
        self.prefix_masks: set[str] = set()

    @property
    def notes(self) -> list[str]:
        """What was left out, or written in another way."""
        said = []
        if self._only_training:
            said.append(f"left out, as they only train: {_listed(self._only_training)}")
        if self._half:
            said.append(f"computes in float32 what the model computes in {_listed(sorted(self._half))}")
        if self._followed:
            said.append(f"no layers of Keras, written from what they compute: {_listed(self._followed)}")
        if self._converted:
            said.append(f"converted by tf2onnx, since not written here: {_listed(self._converted)}")
        return said

    def refused(self, of: Any, reason: str, final: bool = False) -> ExportError:
        """The error of what ONNX cannot hold; to be raised.

        Args:
            of: The layer or operation.
            reason: A sentence.
            final: Whether no other way may be tried.
        """
        where = next((one for one in reversed([*self._path, of]) if hasattr(one, "weights")), of)
        kind, inside = type(where).__name__, "" if where is of else f", in {type(of).__name__}"
        name = getattr(where, "name", getattr(where, "__name__", kind))
        message = f"An ONNX file cannot hold the layer {name!r} ({kind}{inside}): {reason}"
        return ExportError(message) if final else NotFollowedError(message)

    def note_only_training(self, layer: keras.layers.Layer) -> None:
        """Says that a layer was left out."""
        self._only_training.append(str(layer.name))

    # -- models ---------------------------------------------------------------------------------------------------

    def model(self, model: keras.Model, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Writes a model.

        Args:
            model: The model.
            inputs: In the order of `model.inputs`.
        """
        if not is_plain_graph(model):
            return self.follow(model, {parameters(model)[0]: list(inputs) if len(inputs) > 1 else inputs[0]})
        scope = _Scope(self)
        for symbolic, tensor in zip(model.inputs, inputs, strict=True):
            scope.know(symbolic, tensor)
        scope.run(getattr(model, "_functional", None) or model)
        return [scope.value(one) for one in model.outputs]

    # -- layers ---------------------------------------------------------------------------------------------------

    def layer(self, layer: keras.layers.Layer, arguments: Mapping[str, Any], outputs: Sequence[Any]) -> list[Tensor]:
        """Writes a call of a layer.

        Args:
            layer: The layer.
            arguments: By name.
            outputs: Symbolic outputs.
        """
        import keras

        if getattr(layer, "quantization_mode", None) is not None:
            raise self.refused(layer, f"it is quantized ({layer.quantization_mode}). `saved_model` can.", final=True)
        policy = str(layer.compute_dtype)
        if policy in ("float16", "bfloat16"):
            self._half.add(policy)
        given = {name: self._autocast(layer, value) for name, value in arguments.items()}
        self._path.append(layer)
        try:
            self._add_masks(layer, given)
            call = Call(self, layer, given, outputs)
            write = self._inner_model if isinstance(layer, keras.Model) else self._writer_of(layer)
            made = self._in_some_way(call, write)
            self._masks_after(call, made)
            return made
        finally:
            self._path.pop()

    def _add_masks(self, layer: keras.layers.Layer, given: dict[str, Any]) -> None:
        """Adds the masks that Keras gives to a layer that is called without."""
        import keras

        names = parameters(layer)
        for name in names:
            is_mask = name == "mask" or (name.endswith("_mask") and name.removesuffix("_mask") in names)
            if is_mask and isinstance(value := given.get(name), Tensor):
                given[name] = Mask(value.shape, functools.partial(_same, value))
        tensors = {
            name: value
            for name, value in given.items()
            if any(isinstance(one, (Tensor, Mask)) for one in keras.tree.flatten(value))
        }
        mask_of = {name: keras.tree.map_structure(_mask_of, value) for name, value in tensors.items()}
        if len(tensors) == 1 and "mask" in names and given.get("mask") is None:
            given["mask"] = next(iter(mask_of.values()))
        elif len(tensors) > 1:
            for name, mask in mask_of.items():
                if f"{name}_mask" in names and given.get(f"{name}_mask") is None:
                    given[f"{name}_mask"] = mask

    def _masks_after(self, call: Call, made: Sequence[Tensor]) -> None:
        """Gives outputs the masks that Keras gives them."""
        import keras

        layer = call.of
        if _takes_masks_away(layer):  # Keras' attention does, with which whoever reads its input later has none
            query_mask = _mask_of(call["query"])
            for name in ("query", "value", "key"):
                if isinstance(call.arguments.get(name), Tensor):
                    call[name].mask = None
            made[0].mask = query_mask
        if not layer.supports_masking or all(one.mask is not None for one in made):
            return
        given = call.arguments.get("mask")
        previous = keras.tree.map_structure(_mask_of, call.first) if given is None else given
        if getattr(layer.compute_mask, "_is_default", False):
            masks = keras.tree.flatten(previous)
        else:
            masks = _Scope(self).masks(layer, call.first, previous)
        for one, mask in zip(made, masks, strict=False):
            if one.mask is None:
                one.mask = mask

    def _guarded(self, call: Call, write: Write) -> list[Tensor]:
        try:
            return as_tensors(call, write(call))
        except ExportError:
            raise
        except Exception as error:  # arguments of a kind that nobody thought of
            raise self.refused(call.of, f"it could not be written ({_first_line(error)}).") from error

    def _writer_of(self, layer: keras.layers.Layer) -> Write | None:
        own: Any = type(layer)
        for kind in own.__mro__:
            if kind in self._layers:
                return self._layers[kind] if own.call is kind.call else None
        return None

    def _autocast(self, layer: keras.layers.Layer, value: Any) -> Any:
        import keras

        def cast(one: Any) -> Any:
            if not isinstance(one, Tensor) or not one.dtype.startswith("float") or not layer.autocast:
                return one
            wanted = known_dtype(layer.input_dtype)
            if wanted == one.dtype or not wanted.startswith("float"):
                return one
            return Tensor(self.writer.cast(one.name, wanted), wanted, one.shape, one.mask)

        return keras.tree.map_structure(cast, value)

    def _inner_model(self, call: Call) -> Made:
        import keras

        model, first = call.of, call.first
        if not is_plain_graph(model):
            return self.follow(model, call.arguments)
        given = keras.tree.flatten(first)
        if isinstance(first, dict) and not isinstance(inputs_structure(model), dict):
            given = [first[one.name] for one in model.inputs]
        masks = keras.tree.flatten(call.arguments.get("mask") or [None] * len(given))
        tensors = []
        for one, mask, like in zip(given, masks, model.inputs, strict=True):
            made = self._fitting(one, like)
            made.mask = mask or made.mask
            tensors.append(made)
        return self.model(model, tensors)

    def _fitting(self, one: Tensor, like: Any) -> Tensor:
        dtype, name = known_dtype(like.dtype), one.name
        if one.dtype != dtype:
            name = self.writer.cast(name, dtype)
        if len(like.shape) == len(one.shape) + 1 and like.shape[-1] == 1:
            name = self.writer.node("Unsqueeze", [name, self.writer.constant(np.array([-1]))])
        elif len(like.shape) == len(one.shape) - 1 and one.shape[-1] == 1:
            name = self.writer.node("Squeeze", [name, self.writer.constant(np.array([-1]))])
        elif len(like.shape) == len(one.shape):
            return one if name == one.name else Tensor(name, dtype, one.shape, one.mask)
        return Tensor(name, dtype, tuple(like.shape))

    # -- what has no writer of its own ----------------------------------------------------------------------------

    def _in_some_way(self, call: Call, write: Write | None) -> list[Tensor]:
        layer = call.of
        try:
            made = self.follow(layer, call.arguments) if write is None else self._guarded(call, write)
        except NotFollowedError as error:
            converted = self._otherwise(call)
            if converted is None:
                raise ExportError(f"{error} {_WAYS_OUT}") from error
            self._converted.append(str(layer.name))
            return converted
        if write is None and not type(layer).__module__.startswith(("keras.", "kerastoolkit.")):
            self._followed.append(str(layer.name))
        return made

    def follow(self, of: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        """Writes a layer, model or function by what it calls.

        Args:
            of: A layer or model, whose `call` is followed as it predicts; or a function.
            arguments: By name.
        """
        import keras

        scope = _Scope(self)
        symbolic = {name: keras.tree.map_structure(scope.symbolic, value) for name, value in arguments.items()}
        function = getattr(of, "call", of)
        if hasattr(of, "call") and "training" in parameters(of):
            symbolic["training"] = False
        with _NodesRemoved(of), _variables_give_way(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said before, when the user called it
            try:
                with keras.StatelessScope() as state:
                    outputs = keras.tree.flatten(function(**symbolic))
            except ExportError:
                raise
            except Exception as error:  # whatever a layer raises that cannot be called with symbolic tensors
                raise self.refused(of, f"what it computes could not be followed ({_first_line(error)}).") from error
            if state.state_mapping:
                raise self.refused(of, "it changes its own state when it is called.", final=True)
            if not all(isinstance(one, keras.KerasTensor) for one in outputs):
                raise self.refused(of, "it returns something else than tensors of its input.")
            return [scope.with_own_mask(one) for one in outputs]

    def function(self, function: Any, x: Tensor) -> Tensor:
        """Writes a function of one value, such as an activation."""
        if isinstance(function, Hashable) and function in self._functions:
            made = self._functions[function](Call(self, function, {"x": x}, [x]), x.name)
            return Tensor(made, x.dtype, x.shape)
        if hasattr(function, "weights"):  # a layer
            return self.layer(function, {parameters(function)[0]: x}, [x])[0]
        return self.follow(function, {next(iter(inspect.signature(function).parameters)): x})[0]

    # -- operations -----------------------------------------------------------------------------------------------

    def operation(self, operation: Any, arguments: Mapping[str, Any], outputs: Sequence[Any]) -> list[Tensor]:
        """Writes an operation of `keras.ops`."""
        kind = type(operation)
        key = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
        if not kind.__module__.startswith("keras.src.") or key not in self._ops:
            raise self.refused(operation, f"the operation {kind.__name__} is not among those that can be written.")
        call = Call(self, operation, arguments, outputs)
        return self._guarded(call, self._ops[key])


def as_tensors(call: Call, made: Made) -> list[Tensor]:
    """What a writer of a layer or an operation returned, as tensors."""
    several = [made] if isinstance(made, (str, Tensor)) else list(made)
    return [
        one if isinstance(one, Tensor) else Tensor(one, known_dtype(like.dtype), tuple(like.shape))
        for one, like in zip(several, call.outputs, strict=True)
    ]


class _Scope:
    """The symbolic tensors of one graph of Keras, and what they are in the ONNX graph."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._known: dict[int, Tensor] = {}
        self._masks: dict[int, Mask] = {}
        self._alive: list[Any] = []  # an id is one object's for as long as it lives

    def know(self, symbolic: Any, tensor: Tensor) -> None:
        """Says what a symbolic tensor is."""
        self._alive.append(symbolic)
        self._known[id(symbolic)] = tensor

    def symbolic(self, value: Any) -> Any:
        """A new symbolic tensor for a tensor; anything else as it is."""
        import keras

        if isinstance(value, Mask):
            return self._symbolic_mask(value)
        if not isinstance(value, Tensor):
            return value
        made = keras.KerasTensor(value.shape, dtype=value.dtype)
        self.know(made, value)
        if value.mask is not None:
            set_mask(made, self._symbolic_mask(value.mask))
        return made

    def _symbolic_mask(self, mask: Mask) -> Any:
        import keras

        for place, known in self._masks.items():
            if known is mask:
                return next(one for one in self._alive if id(one) == place)
        made = keras.KerasTensor(mask.shape, dtype="bool")
        self._alive.append(made)
        self._masks[id(made)] = mask
        return made

    def masks(self, layer: Any, first: Any, previous: Any) -> list[Mask | None]:
        """The masks that a layer computes for its outputs."""
        import keras

        inputs, masks = (keras.tree.map_structure(self.symbolic, value) for value in (first, previous))
        try:
            made = keras.tree.flatten(layer.compute_mask(inputs, masks))
        except Exception as error:
            raise self._walk.refused(layer, f"its mask could not be followed ({_first_line(error)}).") from error
        return [None if one is None else self._mask(one) for one in made]

    def with_own_mask(self, symbolic: Any) -> Tensor:
        """Like `value`, with the mask that a layer itself has put on it."""
        tensor, mask = self.value(symbolic), getattr(symbolic, "_keras_mask", None)
        history = getattr(symbolic, "_keras_history", None)
        if mask is not None and tensor.mask is None and not hasattr(getattr(history, "operation", None), "weights"):
            tensor.mask = self._mask(mask)
        return tensor

    def run(self, model: keras.Model) -> None:
        """Writes a model in the order in which Keras computes it."""
        for node in nodes_in_order(model):
            known = all(id(one) in self._known for one in node.arguments.keras_tensors)
            if known and not node.is_input and node.operation is not None:
                self._write(node)

    def value(self, symbolic: Any) -> Tensor:
        """Writes what a symbolic tensor depends on, as far as that has not been done."""
        waiting = [symbolic]
        while waiting:
            one = waiting[-1]
            if id(one) in self._known:
                waiting.pop()
            elif id(one) in self._masks:
                self.know(one, self._masks[id(one)].tensor())
            else:
                node = self._node_of(one)
                missing = [other for other in node.arguments.keras_tensors if id(other) not in self._known]
                if missing:
                    waiting.extend(missing)
                else:
                    self._write(node)
        return self._known[id(symbolic)]

    def _node_of(self, symbolic: Any) -> Any:
        history: Any = getattr(symbolic, "_keras_history", None)
        nodes = [] if history is None or history.operation is None else calls_into(history.operation)
        if not nodes or nodes[history.node_index].is_input:
            raise ExportError(f"The model depends on {symbolic.name!r}, which is none of its inputs.")
        return nodes[history.node_index]

    def _write(self, node: Any) -> None:
        import keras

        def filled(value: Any) -> Any:
            return self._known[id(value)] if isinstance(value, keras.KerasTensor) else value

        arguments = {
            name: keras.tree.map_structure(filled, value)
            for name, value in _by_name(node.operation, node.arguments.args, node.arguments.kwargs).items()
        }
        write = self._walk.layer if isinstance(node.operation, keras.layers.Layer) else self._walk.operation
        made = write(node.operation, arguments, node.outputs)
        for symbolic, tensor in zip(node.outputs, made, strict=True):
            self.know(symbolic, tensor)

    def _mask(self, symbolic: Any) -> Mask:
        self._alive.append(symbolic)
        known = self._masks.get(id(symbolic))
        return Mask(tuple(symbolic.shape), lambda: self.value(symbolic)) if known is None else known


# -- what Keras knows of calls --------------------------------------------------------------------------------------


def is_plain_graph(model: keras.Model) -> bool:
    """Whether a model computes what the graph of its symbolic tensors says."""
    return type(model).call.__qualname__ in ("Functional.call", "Sequential.call") and bool(
        getattr(model, "outputs", None)
    )


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _mask_of(value: Any) -> Mask | None:
    return value.mask if isinstance(value, Tensor) else None


def _takes_masks_away(layer: Any) -> bool:
    return bool(type(layer).call.__qualname__ == "MultiHeadAttention.call")


def parameters(layer: Any) -> list[str]:
    """Names of what a layer is called with."""
    return list(inspect.signature(layer.call).parameters)


def _by_name(of: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(of.call)
    kwargs = {name: value for name, value in kwargs.items() if name != "training"}
    bound = signature.bind(*args, **kwargs)
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    named.pop("training", None)  # where it stands by its place
    return named


class _NodesRemoved:
    """A block after which the layers inside a layer have no more nodes than before."""

    def __init__(self, of: Any) -> None:
        layers = layers_of(of) if is_layer(of) else []
        lists = [nodes for layer in layers for nodes in (calls_into(layer), calls_after(layer))]
        self._lengths = [(nodes, len(nodes)) for nodes in lists]

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for nodes, length in self._lengths:
            del nodes[length:]


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne")


@contextlib.contextmanager
def _variables_give_way() -> Iterator[None]:
    """A block in which `variable * symbolic` is what `symbolic * variable` is; Keras gives the first to the backend."""
    import keras

    owner: Any = next(kind for kind in keras.Variable.__mro__ if "__mul__" in vars(kind))
    names = [f"__{name}__" for name in _ARITHMETIC if f"__{name}__" in vars(owner)]
    before = {name: vars(owner)[name] for name in names}

    def giving_way(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda one, other: NotImplemented if isinstance(other, keras.KerasTensor) else method(one, other)

    for name in names:
        setattr(owner, name, giving_way(before[name]))
    try:
        yield
    finally:
        for name in names:
            setattr(owner, name, before[name])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
