"""A network as a "layers model" of TensorFlow.js, which knows the layers of Keras 2 and not all of them.

`Topology` walks through a Keras network and has every layer written by its rule (`layers.py`). Layers that only train,
such as dropout, are left out; inner models are written layer by layer.

Masks need care, since TensorFlow.js has its own idea of them: it hands a mask on from layer to layer, throws where a
layer does not expect one, and reads it in recurrent layers alone. So a layer that begins a mask begins it there only if
a recurrent layer reads it in Keras, and each of those must be reached by the very mask that Keras gives it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._keras import Call, calls_of
from kerastoolkit.exceptions import ExportError

if TYPE_CHECKING:
    import keras

Ref: TypeAlias = tuple[str, int, int]  # the name of a layer, which of its calls, which of its outputs
Config: TypeAlias = dict[str, Any]

OURS = "KerasToolkit"  # begins the names of the layers that `kerastoolkit.js` registers
RECURRENT = ("Bidirectional", "GRU", "LSTM", "SimpleRNN")
# Layers of TensorFlow.js that a mask may reach, and that hand it on.
_HANDS_MASK_ON = ("Activation", "BatchNormalization", "Dense", "LayerNormalization", "PReLU", "ReLU", f"{OURS}Function")


class Mask(NamedTuple):
    """Where a series is to be read: where a tensor is not a certain value, at any place of its last axis or as it is.

    Attributes:
        source: The tensor of the network, by its identity: token ids, or a series of vectors.
        value: What is masked.
        of_vectors: Whether a step is read where any place of its vector is not the value.
    """

    source: int
    value: float
    of_vectors: bool


class Weight(NamedTuple):
    """A weight.

    Attributes:
        name: In the file.
        read: Its value.
        variable: Of the network; None for a constant.
        exact: Whether it stays in float32: what is divided by, or may be too large for 16 bits.
    """

    name: str
    read: Callable[[], NDArray[Any]]
    variable: Any = None
    exact: bool = False


@dataclasses.dataclass
class _Entry:
    kind: str
    config: Config
    hands_mask_on: bool
    calls: list[list[Ref]] = dataclasses.field(default_factory=list)


class Step(NamedTuple):
    """What a rule writes.

    Attributes:
        topology: What it writes to.
        layer: The layer or operation.
        call: Its arguments.
        inputs: What goes in.
        mask: The mask that Keras gives it; None if it gets none.
    """

    topology: Topology
    layer: Any
    call: Call
    inputs: list[Ref]
    mask: Mask | None

    @property
    def what(self) -> str:
        """The layer, for messages."""
        return f"{self.layer.name!r}, a {type(self.layer).__name__}"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the first input, batch first."""
        return tuple(tensors_in(self.call.arguments)[0].shape)

    def add(
        self, kind: str, config: Config, weights: Sequence[Weight] = (), *, hands_mask_on: bool | None = None
    ) -> Ref:
        """Adds a layer of TensorFlow.js, or calls the one that was added when the layer was called before."""
        name = self.topology.names.get(id(self.layer))
        if name is None:
            name = self.topology.new(self.layer.name, kind, config, weights, hands_mask_on)
            self.topology.names[id(self.layer)] = name
        return self.topology.call(name, self.inputs)

    def extra(self, suffix: str, kind: str, config: Config, inputs: Sequence[Ref]) -> Ref:
        """Adds a layer without weights beside."""
        name = self.topology.new(f"{self.layer.name}_{suffix}", kind, config)
        return self.topology.call(name, inputs)

    def affine(self, x: Ref, scale: Any, offset: Any) -> Ref:
        """`x * scale + offset`, each of them one number, or one for each place of the last axis."""
        size = self.shape[-1]
        if np.ndim(scale) == 0 and np.ndim(offset) == 0:
            return self.extra("scale", "Rescaling", {"scale": float(scale), "offset": float(offset)}, [x])
        if size is None or {np.shape(scale), np.shape(offset)} - {(), (size,)}:
            refuse(f"{self.what}, scales by numbers of the shapes {np.shape(scale)} and {np.shape(offset)}")
        gamma, beta = (np.broadcast_to(np.asarray(one, "float32"), (size,)) for one in (scale, offset))
        config = {"axis": -1, "center": True, "scale": True, "epsilon": 0.0}
        values = {"gamma": gamma, "beta": beta, "moving_mean": np.zeros(size), "moving_variance": np.ones(size)}
        weights = [constant(name, value) for name, value in values.items()]
        return self.topology.call(
            self.topology.new(f"{self.layer.name}_scale", "BatchNormalization", config, weights), [x]
        )


class Topology:
    """A network in the words of TensorFlow.js.

    Args:
        model: Sequential or functional.
        rule_for: Finds what writes a layer or operation.

    Attributes:
        inputs: Input layers, in the order of `model.inputs`.
        outputs: What comes out, in the order of `model.outputs`.
        dtypes: Of the inputs, `"float32"` or `"int32"`.
        weights: In the order of the file.
        names: Of the layers that were written, by the identity of the layer.

    Raises:
        ExportError: A layer cannot be written; the message names it, and the format that can.
    """

    def __init__(self, model: keras.Model, rule_for: Callable[[Any], Callable[[Step], Ref]]) -> None:
        if not has_graph(model):
            refuse(f"{model.name!r} is a {type(model).__name__}, a model with code of its own")
        self.weights: list[Weight] = []
        self.names: dict[int, str] = {}
        self._rule_for = rule_for
        self._entries: dict[str, _Entry] = {}
        self._refs: dict[int, Ref] = {}  # of tensors, by identity
        self._masks: dict[int, Mask] = {}  # masks of Keras, by the identity of the tensor
        self._handed: dict[Ref, Mask | None] = {}  # masks as TensorFlow.js hands them on
        self._read_in_series: set[Mask] = set()  # masks that a recurrent layer reads
        calls = calls_of(model)
        self.inputs: list[Ref] = []
        self.dtypes: list[str] = []
        for one in model.inputs:
            self._add_input(one, calls)
        self.outputs = self._write_calls(calls, model.outputs)
        if any(self.mask_at(one) for one in self.outputs) and "Bidirectional" in self.kinds:
            refuse("a mask reaches the output through a Bidirectional layer")

    @property
    def kinds(self) -> set[str]:
        """Classes of the layers, and of those inside of others."""
        inner = [entry.config["layer"]["class_name"] for entry in self._entries.values() if "layer" in entry.config]
        return {*inner, *(entry.kind for entry in self._entries.values())}

    def has_function(self, name: str) -> bool:
        """Whether one of our own layers computes a function."""
        return any(entry.config.get("function") == name for entry in self._entries.values())

    def to_dict(self) -> Config:
        """As the value of `modelTopology`."""
        layers: list[Config] = [
            {
                "class_name": entry.kind,
                "name": name,
                "config": {"name": name, **entry.config},
                "inbound_nodes": [[[*ref, {}] for ref in refs] for refs in entry.calls if refs],
            }
            for name, entry in self._entries.items()
        ]
        config: Config = {
            "name": "network",
            "layers": layers,
            "input_layers": [list(ref) for ref in self.inputs],
            "output_layers": [list(ref) for ref in self.outputs],
        }
        versions: Config = {"keras_version": "2.15.0", "backend": "tensorflow"}
        return versions | {"model_config": {"class_name": "Model", "config": config} | versions}

    # -- layers of TensorFlow.js --------------------------------------------------------------------------------------

    def new(
        self,
        wanted: str,
        kind: str,
        config: Config,
        weights: Sequence[Weight] = (),
        hands_mask_on: bool | None = None,
    ) -> str:
        """Adds a layer that is not called yet, and returns its name.

        Args:
            wanted: Its name, to which a number is added where there is one of that name.
            kind: Name of its class.
            config: Its settings.
            weights: By their names inside of the layer. Defaults to none.
            hands_mask_on: Whether its output has the mask of its input. Defaults to `None`: as for its class.
        """
        plain = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in wanted)
        name, number = plain, 1
        while name in self._entries:
            number += 1
            name = f"{plain}_{number}"
        hands_mask_on = kind in _HANDS_MASK_ON if hands_mask_on is None else hands_mask_on
        self._entries[name] = _Entry(kind, config, hands_mask_on)
        self.weights += [weight._replace(name=f"{name}/{weight.name}") for weight in weights]
        return name

    def call(self, name: str, inputs: Sequence[Ref]) -> Ref:
        """Calls a layer that `new` added."""
        entry = self._entries[name]
        entry.calls.append(list(inputs))
        made = (name, len(entry.calls) - 1, 0)
        masks = {self.mask_at(one) for one in inputs} - {None}
        takes_mask = entry.kind in (*_HANDS_MASK_ON, *RECURRENT) or entry.kind.startswith(OURS)
        if masks and not takes_mask:
            refuse(f"a mask reaches {name!r}, a {entry.kind}, which TensorFlow.js lets no mask reach")
        self._handed[made] = next(iter(masks)) if masks and entry.hands_mask_on else None
        return made

    def begin_mask(self, ref: Ref, mask: Mask | None) -> None:
        """Notes that TensorFlow.js hands on a mask from here."""
        self._handed[ref] = mask

    def mask_at(self, ref: Ref) -> Mask | None:
        """The mask that TensorFlow.js gives to a layer with this input."""
        return self._handed.get(ref)

    def is_read(self, mask: Mask) -> bool:
        """Whether a recurrent layer reads a mask, which TensorFlow.js has to hand to it therefore."""
        return mask in self._read_in_series

    def source_of(self, mask: Mask) -> Ref:
        """What a mask comes from."""
        return self._refs[mask.source]

    # -- the walk -----------------------------------------------------------------------------------------------------

    def _add_input(self, one: keras.KerasTensor, calls: Sequence[Call]) -> None:
        readers = [call.operation for call in calls if id(one) in map(id, tensors_in(call.arguments))]
        is_whole = str(one.dtype).startswith(("int", "uint")) and any(is_layer(layer, "Embedding") for layer in readers)
        self.dtypes.append("int32" if is_whole else "float32")
        config = {"batch_input_shape": list(one.shape), "dtype": self.dtypes[-1], "sparse": False}
        self.inputs.append(self.call(self.new("input", "InputLayer", config), []))
        self._refs[id(one)] = self.inputs[-1]

    def _write_calls(self, calls: Sequence[Call], outputs: Sequence[keras.KerasTensor]) -> list[Ref]:
        self._note_masks(calls)
        for call in calls:
            made = [] if id(call.outputs[0]) in self._masks else self._write(call)
            self._refs.update({id(one): ref for one, ref in zip(call.outputs, made, strict=False)})
        return [self._refs[id(one)] for one in outputs]

    def _write(self, call: Call) -> list[Ref]:
        layer, masks = call.operation, tensors_in(call.keywords.get("mask"))
        given = tensors_in(call.arguments)
        if any(id(one) not in self._refs for one in given):
            refuse(f"{layer.name!r} computes with a mask")
        by_name = [name for name, value in call.keywords.items() if name != "mask" and tensors_in(value)]
        if by_name:
            refuse(f"{layer.name!r}, a {type(layer).__name__}, gets {by_name[0]!r} by keyword")
        if not given:
            refuse(f"{layer.name!r}, a {type(layer).__name__}, has no input")
        inputs = [self._refs[id(one)] for one in given]
        if has_graph(layer):
            return self._write_model(call, inputs)
        if call.keywords.get("training"):
            refuse(f"{layer.name!r} is called with training=True")
        if len(masks) > 1 or any(id(one) not in self._masks for one in masks):
            refuse(f"{layer.name!r} gets a mask that was computed in another way than by a layer")
        rule = self._rule_for(layer)
        return [rule(Step(self, layer, call, inputs, self._masks[id(masks[0])] if masks else None))]

    def _write_model(self, call: Call, inputs: Sequence[Ref]) -> list[Ref]:
        model = call.operation
        if tensors_in(call.keywords.get("mask")):
            refuse(f"the inner model {model.name!r} gets a mask")
        before = dict(self._refs)
        self._refs.update({id(one): ref for one, ref in zip(model.inputs, inputs, strict=True)})
        made = self._write_calls(calls_of(model), model.outputs)
        self._refs = before
        return made

    def _note_masks(self, calls: Sequence[Call]) -> None:
        """Finds the calls that compute the mask of `Embedding(mask_zero=True)` or `Masking`, and what reads them."""
        for call in calls:
            name, arguments, given = type(call.operation).__name__, call.arguments, tensors_in(call.arguments)
            made = id(call.outputs[0])
            if name == "NotEqual" and len(given) == 1 and given[0] is arguments[0] and np.ndim(arguments[1]) == 0:
                self._masks[made] = Mask(id(given[0]), float(arguments[1]), of_vectors=False)
            elif name == "Any" and len(given) == 1 and id(given[0]) in self._masks:
                self._masks[made] = self._masks[id(given[0])]._replace(of_vectors=True)
        for call in calls:
            mask = self._masks.get(id(call.keywords.get("mask")))
            if mask is not None and type(call.operation).__name__ in RECURRENT:
                self._read_in_series.add(mask)


def refuse(why: str) -> NoReturn:
    """Says that TensorFlow.js cannot hold a network, and what can."""
    raise ExportError(
        f"TensorFlow.js cannot hold this network: {why}. Use `export.onnx`: ONNX files run in browsers as well, by "
        "onnxruntime-web. Nothing was written."
    )


def has_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or functional model, and no class with a `call` of its own."""
    import keras

    own = type(layer).call not in (keras.Sequential.call, type(keras.Model(one := keras.Input((1,)), one)).call)
    return isinstance(layer, keras.Model) and not own and hasattr(layer, "inputs")


def is_layer(operation: Any, name: str) -> bool:
    """Whether it is a layer of Keras of that very class."""
    return type(operation).__name__ == name and type(operation).__module__.startswith("keras.src.layers.")


def tensors_in(value: Any) -> list[Any]:
    """Symbolic tensors in nested arguments, in order."""
    import keras

    return [one for one in keras.tree.flatten(value) if isinstance(one, keras.KerasTensor)]


def constant(name: str, value: NDArray[Any]) -> Weight:
    """A weight that is no variable of the network."""
    return Weight(name, lambda: np.asarray(value, "float32"), exact=True)


def variable(name: str, value: Any, *, exact: bool = False) -> Weight:
    """A weight that is a variable of the network."""
    import keras

    return Weight(name, lambda: np.asarray(keras.ops.convert_to_numpy(value), "float32"), value, exact)
