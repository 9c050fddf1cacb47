"""Writes recurrent layers: each of Keras' is one node of ONNX, which reads as many steps as a sequence has.

ONNX has no masks but lengths of sequences. A mask may have holes, over which Keras carries state and output; so the
steps that count are moved to the front before the node, and its outputs back to their places after it. That is left
out where the mask is known to be true up to the end of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerastoolkit.export._onnx.network import Call, Made, Mask, Tensor, array_of, as_tensors, known_dtype, parameters
from kerastoolkit.export._onnx.ops import flip

_MOST_STEPS = 256  # of a layer that is written step by step


def recurrent(call: Call) -> Made:
    """Writes a call of `LSTM`, `GRU`, `SimpleRNN` or `RNN`."""
    x, given = call["sequences"], call.arguments.get("initial_state")
    states = None if given is None else given if isinstance(given, (list, tuple)) else [given]
    if isinstance(x, (list, tuple)):
        x, *states = x
    made = _layer(call, call.of, x, call.mask(), states)
    if call.of.go_backwards and call.of.return_sequences:
        made[0] = flip(call, made[0], [1])
    return made if call.of.return_state else made[0]


def bidirectional(call: Call) -> Made:
    """Writes a call of `Bidirectional`."""
    x, layer, given = call["sequences"], call.of, call.arguments.get("initial_state")
    states: list[Any] = [None, None]
    if isinstance(x, (list, tuple)):
        x, *given = x
    if given is not None:
        half = len(given) // 2
        states = [list(given[:half]), list(given[half:])]
    parts = []
    for one, state in zip((layer.forward_layer, layer.backward_layer), states, strict=True):
        if type(one).call.__qualname__ not in ("LSTM.call", "GRU.call", "SimpleRNN.call", "RNN.call"):
            raise call.refused(f"its inner layer is {type(one).__name__}; LSTM, GRU, SimpleRNN and RNN can be written.")
        parts.append(_layer(call, one, x, call.mask(), state))
    (y, *ends), (y_back, *ends_back) = parts
    if layer.return_sequences:
        y = flip(call, y, [1]) if layer.forward_layer.go_backwards else y
        y_back = y_back if layer.backward_layer.go_backwards else flip(call, y_back, [1])
    merged: list[str]
    if layer.merge_mode is None:
        merged = [y, y_back]
    elif layer.merge_mode == "concat":
        merged = [call.writer.node("Concat", [y, y_back], axis=-1)]
    else:
        merged = [call.node("Mul" if layer.merge_mode == "mul" else "Add", y, y_back)]
        if layer.merge_mode == "ave":
            merged = [call.node("Div", merged[0], call.number(2.0))]
    return [*merged, *ends, *ends_back] if layer.return_state else merged


# -- one layer ------------------------------------------------------------------------------------------------------


def _layer(call: Call, layer: Any, x: Tensor, given: Mask | None, states: Sequence[Any] | None) -> list[str]:
    """The output, in the order of time, and the states at the end."""
    import keras

    if layer.stateful:
        raise call.refused(
            "it is stateful: it keeps its state for the next call. Build it with `stateful=False`.", True
        )
    mask = None if given is None else given.tensor()
    if mask is not None and len(mask.shape) != 2:
        raise call.refused(f"its mask has the shape {mask.shape}; one truth value a step can be written.")
    if mask is not None and layer.zero_output_for_mask and not layer.return_sequences:
        raise call.refused("it has `zero_output_for_mask=True`, a mask, and no `return_sequences=True`.")
    if type(layer) not in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
        return _step_by_step(call, layer, x, mask, states)
    activations = _activations(layer)
    return (
        _step_by_step(call, layer, x, mask, states)
        if activations is None
        else _node(call, layer, x, mask, states, activations)
    )


def _node(
    call: Call, layer: Any, x: Tensor, mask: Tensor | None, states: Sequence[Any] | None, activations: dict[str, Any]
) -> list[str]:
    kind, dtype, backwards = type(layer).__name__, known_dtype(layer.compute_dtype), bool(layer.go_backwards)
    w, r, b = _weights(layer)
    name, lengths = call.name(x, dtype), ""
    if mask is not None:
        counted = call.writer.cast(mask.name, "int32")
        lengths = call.node("ReduceSum", counted, call.ints(1), keepdims=0)
        if mask.name not in call.walk.prefix_masks:
            name = _to_the_front(call, name, x.shape, mask.name)
    inputs = [
        call.node("Transpose", name, perm=[1, 0, 2]), *(call.name(one[None], dtype) for one in (w, r, b)), lengths,
        *(call.node("Unsqueeze", call.name(state, dtype), call.ints(0)) for state in states or ()),
    ]  # fmt: skip
    while not inputs[-1]:
        inputs.pop()
    outputs = call.writer.node(
        "RNN" if kind == "SimpleRNN" else kind, inputs, n_outputs=3 if kind == "LSTM" else 2, hidden_size=layer.units,
        direction="reverse" if backwards else "forward", **activations,
        linear_before_reset=int(layer.reset_after) if kind == "GRU" else None,
    )  # fmt: skip
    ends = [call.node("Squeeze", one, call.ints(0)) for one in outputs[1:]]
    if not layer.return_sequences:
        return [ends[0], *ends]
    y = call.node("Transpose", call.node("Squeeze", outputs[0], call.ints(1)), perm=[1, 0, 2])
    if mask is not None:
        y = _to_their_places(call, y, mask.name, backwards, bool(layer.zero_output_for_mask))
    return [y, *ends]


def _weights(layer: Any) -> tuple[Any, Any, Any]:
    """Weights in ONNX's layout: gates below each other, in its order."""
    cell, units, kind = layer.cell, layer.units, type(layer).__name__
    order = {"LSTM": [0, 3, 1, 2], "GRU": [0, 1, 2], "SimpleRNN": [0]}[kind]

    def ordered(array: Any) -> Any:
        return np.concatenate([array[..., gate * units : (gate + 1) * units] for gate in order], axis=-1)

    none = np.zeros(len(order) * units, "float32")
    bias = array_of(cell.bias) if layer.use_bias else none
    both = ordered(bias) if bias.ndim == 2 else np.stack([ordered(bias), none])
    return ordered(array_of(cell.kernel)).T, ordered(array_of(cell.recurrent_kernel)).T, both.reshape(-1)


def _activations(layer: Any) -> dict[str, Any] | None:
    """Activations as attributes of the node; None if ONNX has none like one of them."""
    import keras

    of = keras.activations
    known: dict[Any, tuple[str, float | None, float | None]] = {
        of.linear: ("Affine", 1.0, 0.0), of.relu: ("Relu", None, None), of.tanh: ("Tanh", None, None),
        of.sigmoid: ("Sigmoid", None, None), of.softplus: ("Softplus", None, None), of.elu: ("Elu", 1.0, None),
        of.softsign: ("Softsign", None, None), of.hard_sigmoid: ("HardSigmoid", 1 / 6, 0.5),
        of.leaky_relu: ("LeakyRelu", 0.2, None),
    }  # fmt: skip
    inner = known.get(layer.activation)
    if type(layer).__name__ == "SimpleRNN":
        chosen = [inner]
    else:
        gate = known.get(layer.recurrent_activation)
        chosen = [gate, inner, inner] if type(layer).__name__ == "LSTM" else [gate, inner]
    found = [one for one in chosen if one is not None]
    if len(found) < len(chosen):
        return None
    alpha, beta = ([one[place] for one in found if one[place] is not None] for place in (1, 2))
    return {
        "activations": [one[0] for one in found],
        "activation_alpha": alpha or None,
        "activation_beta": beta or None,
    }


# -- masks ----------------------------------------------------------------------------------------------------------


def _n_steps(call: Call, x: str) -> str:
    return call.node("Slice", call.node("Shape", x), call.ints(1), call.ints(2))


def _to_the_front(call: Call, x: str, shape: Sequence[int | None], mask: str) -> str:
    """The steps that count, in their order, and behind them the others."""
    if shape[1] is not None:
        n, places = call.ints(shape[1]), call.writer.constant(np.arange(shape[1]))
    else:
        n = _n_steps(call, x)
        scalar = call.node("Squeeze", n, call.ints(0))
        zero, one = (call.writer.constant(np.array(value, "int64")) for value in (0, 1))
        places = call.node("Range", zero, scalar, one)
    rank = call.node("Where", mask, places, call.node("Add", places, n))
    _, order = call.writer.node("TopK", [rank, n], n_outputs=2, axis=1, largest=0, sorted=1)
    return _at(call, x, order)


def _at(call: Call, x: str, places: str) -> str:
    """Steps of `x`, of shape `(rows, steps, features)`, at places of shape `(rows, steps)`."""
    return call.node("GatherND", x, call.node("Unsqueeze", places, call.ints(2)), batch_dims=1)


def _to_their_places(call: Call, y: str, mask: str, backwards: bool, with_zeros: bool) -> str:
    """Outputs of the steps that count at their places; between them the output before, or zeros."""
    known = mask in call.walk.prefix_masks
    if known and with_zeros:
        return y  # ONNX leaves zeros behind the end of a sequence
    counted = call.writer.cast(mask, "int64")
    so_far = call.node("CumSum", counted, call.writer.constant(np.array(1, "int64")))
    zero = call.writer.constant(np.array(0, "int64"))
    if backwards:
        place = call.node("Sub", so_far, counted)
        is_there = call.node("Less", place, call.node("ReduceSum", counted, call.ints(1), keepdims=1))
        last = call.node("Sub", _n_steps(call, y), call.ints(1))
        found = _at(call, y, call.node("Min", place, last))
    else:
        place = call.node("Sub", so_far, call.ints(1))
        is_there = call.node("GreaterOrEqual", place, zero)
        found = _at(call, y, call.node("Max", place, zero))
    is_there = mask if with_zeros else is_there
    return call.node("Where", call.node("Unsqueeze", is_there, call.ints(2)), found, call.number(0.0))


# -- step by step ---------------------------------------------------------------------------------------------------


def _step_by_step(call: Call, layer: Any, x: Tensor, mask: Tensor | None, states: Sequence[Any] | None) -> list[str]:
    """A cell of another kind, written once for each step."""
    import keras

    steps = x.shape[1]
    if steps is None or steps > _MOST_STEPS or not hasattr(layer, "cell"):
        raise call.refused(f"a cell of this kind needs sequences of known length, of {_MOST_STEPS} steps at most.")
    structure, names = layer.cell.state_size, parameters(layer.cell)
    now = [Tensor(call.name(one), one.dtype, one.shape) for one in states] if states else _zeros(call, layer, x)
    outputs: list[str] = [""] * steps
    before: Tensor | None = None
    for step in range(steps)[:: -1 if layer.go_backwards else 1]:
        at = call.node("Gather", x.name, call.writer.constant(np.array(step)), axis=1)
        packed = keras.tree.pack_sequence_as(structure, now) if keras.tree.is_nested(structure) else [now[0]]
        inner = {names[0]: Tensor(at, x.dtype, (x.shape[0], *x.shape[2:])), names[1]: packed}
        output, *new = call.walk.follow(layer.cell, inner)
        if mask is not None:
            counts = call.node("Slice", mask.name, call.ints(step), call.ints(step + 1), call.ints(1))
            zeros = call.node("Mul", output.name, call.number(0.0))
            kept = before.name if before is not None and not layer.zero_output_for_mask else zeros
            output = Tensor(call.node("Where", counts, output.name, kept), output.dtype, output.shape)
            new = [
                Tensor(call.node("Where", counts, one.name, old.name), one.dtype, one.shape)
                for one, old in zip(new, now, strict=True)
            ]
        outputs[step], now, before = output.name, new, output
    ends = [one.name for one in now]
    if not layer.return_sequences:
        return [before.name if before is not None else "", *ends]
    stacked = [call.node("Unsqueeze", one, call.ints(1)) for one in outputs]
    return [call.writer.node("Concat", stacked, axis=1), *ends]


def _zeros(call: Call, layer: Any, x: Tensor) -> list[Tensor]:
    import keras

    rows = call.node("Slice", call.node("Shape", x.name), call.ints(0), call.ints(1))
    made = []
    for size in keras.tree.flatten(layer.cell.state_size):
        shape = call.writer.node("Concat", [rows, call.ints(int(size))], axis=0)
        made.append(Tensor(call.node("Expand", call.number(0.0), shape), x.dtype, (None, int(size))))
    return made


# -- the same layer at each step ------------------------------------------------------------------------------------


def time_distributed(call: Call) -> Made:
    """Writes a call of `TimeDistributed`: all steps of all rows are rows of the layer inside."""
    import keras

    x, layer, given = call["inputs"], call.of.layer, call.mask()
    rest = x.shape[2:]
    if None in rest or (given is not None and None in given.shape[2:]):
        raise call.refused("the layer inside needs inputs of known size.")
    as_rows = Tensor(_in_rows(call, x.name, rest), x.dtype, (None, *rest))
    arguments: dict[str, Any] = {parameters(layer)[0]: as_rows}
    if given is not None and "mask" in parameters(layer) and len(given.shape) > 2:
        mask = given.tensor()
        arguments["mask"] = Tensor(_in_rows(call, mask.name, mask.shape[2:]), "bool", (None, *mask.shape[2:]))
    like = keras.KerasTensor((None, *call.shape[2:]), dtype=str(call.outputs[0].dtype))
    (made,) = call.walk.layer(layer, arguments, [like])
    front = call.node("Slice", call.node("Shape", x.name), call.ints(0), call.ints(2))
    sizes = call.writer.node("Concat", [front, call.ints(*(int(size or -1) for size in made.shape[1:]))], axis=0)
    if len(made.shape) == 1:
        sizes = front
    return as_tensors(call, call.node("Reshape", made.name, sizes))


def _in_rows(call: Call, x: str, rest: Sequence[int | None]) -> str:
    return call.node("Reshape", x, call.ints(-1, *(int(size or -1) for size in rest)))
