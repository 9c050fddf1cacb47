"""How each layer of Keras is written for TensorFlow.js: a rule for every class.

A rule says which settings TensorFlow.js has, which must have a certain value, and what the weights are called there.
What no rule covers is refused; nothing is passed on in the hope that it is ignored. The rules follow the source of
TensorFlow.js 4.22, and a test runs each of them there.

Three layers are ours, and are registered by `kerastoolkit.js`: functions that TensorFlow.js lacks or computes
otherwise; the mean over the steps that a mask leaves, where it would take the mean over all of them; and the GRU as
Keras has it, with `reset_after=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.export._graph import ONLY_TRAIN
from kerastoolkit.export._tfjs.topology import (
    OURS,
    RECURRENT,
    Config,
    Mask,
    Ref,
    Step,
    Weight,
    constant,
    is_layer,
    refuse,
    tensors_in,
    variable,
)

Rule: TypeAlias = Callable[[Step], Ref]


def rule_for(operation: Any) -> Rule:
    """The rule for a layer or an operation.

    Raises:
        ExportError: There is none.
    """
    name = type(operation).__name__
    if is_layer(operation, name):
        if name in ONLY_TRAIN or name == "Identity":
            return _same
        if name in _RULES:
            return _RULES[name]
    elif type(operation).__module__.startswith("keras.src.ops.") and name in _OPERATIONS:
        return _OPERATIONS[name]
    refuse(f"{operation.name!r} is a {name}, which it does not have")


# -- settings -------------------------------------------------------------------------------------------------------


def _require(step: Step, config: Mapping[str, Any], **wanted: Any) -> None:
    """Refuses a setting that TensorFlow.js does not have, or computes otherwise."""
    for name, value in wanted.items():
        if name in config and config[name] != value:
            refuse(f"{step.what}, has `{name}={config[name]!r}`, and TensorFlow.js computes `{name}={value!r}` only")


def _no_mask(step: Step) -> None:
    """Refuses a mask where TensorFlow.js ignores it."""
    if step.mask is not None:
        refuse(f"{step.what}, reads a mask, which TensorFlow.js ignores there")


def _weights(step: Step, names: str) -> list[Weight]:
    """Those weights of a layer that it has, which are called the same in TensorFlow.js."""
    found = [(name, getattr(step.layer, name)) for name in names.split()]
    return [variable(name, value) for name, value in found if value is not None]


# -- activations ----------------------------------------------------------------------------------------------------

# By their names in Keras, those in TensorFlow.js.
_ACTIVATIONS = {
    **{name: name for name in ("elu", "gelu", "linear", "mish", "relu", "relu6", "selu", "sigmoid", "softmax")},
    **{name: name for name in ("softplus", "softsign", "tanh")},
    "celu": "elu",  # they differ in an argument that has its default here
    "silu": "swish",
}
# By our own layer: TensorFlow.js lacks them, or has them otherwise (its hard_sigmoid has the slope of Keras 2).
_OWN_FUNCTIONS = (
    "exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid", "log_softmax"
)  # fmt: skip


def _name_of(step: Step, activation: Any) -> str:
    import keras

    if activation is None:
        return "linear"
    for name in (*_ACTIVATIONS, *_OWN_FUNCTIONS):
        if activation is getattr(keras.activations, name, None):
            return name
    name = getattr(activation, "__name__", type(activation).__name__)
    refuse(f"{step.what}, has the activation {name!r}, which TensorFlow.js does not know")


def _fused(step: Step) -> tuple[str, Callable[[Ref], Ref]]:
    """The activation that a layer is written with, and what adds the layer that must follow for others."""
    name = _name_of(step, step.layer.activation)
    if name in _ACTIVATIONS:
        return _ACTIVATIONS[name], lambda ref: ref
    return "linear", lambda ref: step.extra(name, f"{OURS}Function", {"function": name}, [ref])


def _activation(step: Step) -> Ref:
    name = _name_of(step, step.layer.activation)
    if name in _ACTIVATIONS:
        return step.add("Activation", {"activation": _ACTIVATIONS[name]})
    return step.add(f"{OURS}Function", {"function": name})


def _relu(step: Step) -> Ref:
    config = step.layer.get_config()
    _require(step, config, threshold=0.0)
    if not config["negative_slope"]:
        return step.add("ReLU", {"max_value": config["max_value"]})
    _require(step, config, max_value=None)
    return step.add("LeakyReLU", {"alpha": config["negative_slope"]})


def _leaky_relu(step: Step) -> Ref:
    return step.add("LeakyReLU", {"alpha": step.layer.get_config()["negative_slope"]})


def _prelu(step: Step) -> Ref:
    return step.add("PReLU", {"shared_axes": step.layer.get_config()["shared_axes"]}, _weights(step, "alpha"))


def _elu(step: Step) -> Ref:
    _require(step, step.layer.get_config(), alpha=1.0)
    return step.add("ELU", {})


def _softmax(step: Step) -> Ref:
    _no_mask(step)
    _require(step, step.layer.get_config(), axis=-1)
    return step.add("Activation", {"activation": "softmax"})


# -- dense and convolutional ----------------------------------------------------------------------------------------


def _dense(step: Step) -> Ref:
    activation, follow = _fused(step)
    config = {"units": step.layer.units, "use_bias": step.layer.use_bias, "activation": activation}
    return follow(step.add("Dense", config, _weights(step, "kernel bias")))


def _convolution(kept: str, weights: str, **wanted: Any) -> Rule:
    """A rule for convolutions.

    Args:
        kept: Settings beside the size of the window.
        weights: Their names.
        **wanted: Settings that must have a value.
    """

    def rule(step: Step) -> Ref:
        config, (activation, follow) = step.layer.get_config(), _fused(step)
        _require(step, config, data_format="channels_last", groups=1, **wanted)
        if config["padding"] not in ("valid", "same"):
            refuse(f"{step.what}, has `padding={config['padding']!r}`, which TensorFlow.js does not have")
        if max(config["strides"]) > 1 and max(config["dilation_rate"]) > 1:
            refuse(f"{step.what}, has both strides and dilation")
        names = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", *kept.split())
        made = {name: config[name] for name in names} | {"data_format": "channels_last", "activation": activation}
        found = _weights(step, weights)
        if type(step.layer).__name__ == "DepthwiseConv2D":
            found[0] = found[0]._replace(name="depthwise_kernel")
        return follow(step.add(type(step.layer).__name__, made, found))

    return rule


def _pooling(step: Step) -> Ref:
    import keras

    config = step.layer.get_config()
    _require(step, config, data_format="channels_last")
    is_average, is_padded = "Average" in type(step.layer).__name__, config["padding"] == "same"
    if is_average and is_padded and max(config["strides"]) > 1 and keras.config.backend() == "torch":
        refuse(f"{step.what}, pads with `padding='same'`, and on torch Keras counts what it pads into the mean")
    kept = {name: config[name] for name in ("pool_size", "strides", "padding")}
    return step.add(type(step.layer).__name__, {**kept, "data_format": "channels_last"})


def _global_pooling(step: Step) -> Ref:
    _require(step, step.layer.get_config(), data_format="channels_last", keepdims=False)
    kind = type(step.layer).__name__
    if step.mask is not None:
        return _masked_mean(step, step.mask)
    return step.add(kind, {} if kind.endswith("1D") else {"data_format": "channels_last"})


def _masked_mean(step: Step, mask: Mask) -> Ref:
    config = {"value": mask.value, "of_vectors": mask.of_vectors}
    return step.extra("masked", f"{OURS}MaskedMean", config, [*step.inputs, step.topology.source_of(mask)])


def _spatial(kept: str, **wanted: Any) -> Rule:
    """A rule for what moves pixels."""

    def rule(step: Step) -> Ref:
        config = step.layer.get_config()
        _require(step, config, data_format="channels_last", **wanted)
        made = {name: config[name] for name in kept.split()}
        return step.add(type(step.layer).__name__, {**made, "data_format": "channels_last"})

    return rule


# -- shapes and merges ----------------------------------------------------------------------------------------------


def _settings(*names: str, **wanted: Any) -> Rule:
    """A rule for a layer without weights of which TensorFlow.js has these settings."""

    def rule(step: Step) -> Ref:
        config = step.layer.get_config()
        _require(step, config, **wanted)
        return step.add(type(step.layer).__name__, {name: config[name] for name in names})

    return rule


def _same(step: Step) -> Ref:
    return step.inputs[0]


def _flatten(step: Step) -> Ref:
    _require(step, step.layer.get_config(), data_format="channels_last")
    # There, a row that is one number already cannot be flattened.
    return step.inputs[0] if len(step.shape) == 2 else step.add("Flatten", {"data_format": "channels_last"})


def _merge(step: Step) -> Ref:
    shapes = {tuple(one.shape) for one in tensors_in(step.call.arguments)}
    if len(shapes) > 1:
        refuse(f"{step.what}, merges tensors of different shapes: {sorted(map(str, shapes))}")
    kind = type(step.layer).__name__
    if kind == "Subtract":
        first, second = step.inputs
        return step.extra("add", "Add", {}, [first, step.affine(second, -1.0, 0.0)])
    return step.extra("merge", kind, {}, step.inputs) if len(step.inputs) > 1 else step.inputs[0]


def _concatenate(step: Step) -> Ref:
    if len(step.inputs) == 1:
        return step.inputs[0]
    return step.add("Concatenate", {"axis": step.layer.get_config()["axis"]})


def _time_distributed(step: Step) -> Ref:
    inner = step.layer.layer
    if not is_layer(inner, "Dense"):
        refuse(f"{step.what} of a {type(inner).__name__}")
    return _dense(step._replace(layer=inner))


# -- normalization --------------------------------------------------------------------------------------------------


def _last_axis(step: Step, axis: Any) -> bool:
    axes = [axis] if np.ndim(axis) == 0 else list(axis)
    return [int(one) % len(step.shape) for one in axes] == [len(step.shape) - 1]


def _batch_normalization(step: Step) -> Ref:
    config = step.layer.get_config()
    if not _last_axis(step, config["axis"]):
        refuse(f"{step.what}, has `axis={config['axis']!r}`")
    _require(step, config, renorm=False)
    # `axis` as a list breaks it there.
    made = {"axis": -1, **{name: config[name] for name in ("epsilon", "center", "scale")}}
    moving = [variable(name, getattr(step.layer, name), exact=True) for name in ("moving_mean", "moving_variance")]
    return step.add("BatchNormalization", made, [*_weights(step, "gamma beta"), *moving])


def _layer_normalization(step: Step) -> Ref:
    config = step.layer.get_config()
    if not _last_axis(step, config["axis"]):
        refuse(f"{step.what}, has `axis={config['axis']!r}`")
    _require(step, config, rms_scaling=False)
    made = {"axis": -1, **{name: config[name] for name in ("epsilon", "center", "scale")}}
    return step.add("LayerNormalization", made, _weights(step, "gamma beta"))


def _normalization(step: Step) -> Ref:
    import keras

    layer, config = step.layer, step.layer.get_config()
    _require(step, config, invert=False)
    size = step.shape[-1]
    mean, variance = (
        np.ravel(keras.ops.convert_to_numpy(one)).astype("float32") for one in (layer.mean, layer.variance)
    )
    if size is None or {mean.size, variance.size} - {1, size}:
        refuse(f"{step.what}, has `axis={config['axis']!r}`")
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    values = {"moving_mean": mean, "moving_variance": np.square(deviation)}
    weights = [constant(name, np.broadcast_to(value, (size,))) for name, value in values.items()]
    made = {"axis": -1, "epsilon": 0.0, "center": False, "scale": False}
    return step.add("BatchNormalization", made, weights)


def _rescaling(step: Step) -> Ref:
    config = step.layer.get_config()
    return step.affine(step.inputs[0], config["scale"], config["offset"])


# -- series ---------------------------------------------------------------------------------------------------------


def _embedding(step: Step) -> Ref:
    config = step.layer.get_config()
    mask = Mask(id(tensors_in(step.call.arguments)[0]), 0.0, of_vectors=False)
    begins = mask if config["mask_zero"] and step.topology.is_read(mask) else None
    if getattr(step.layer, "lora_enabled", False):
        refuse(f"{step.what}, has LoRA weights")
    made = {"input_dim": config["input_dim"], "output_dim": config["output_dim"], "mask_zero": begins is not None}
    ref = step.add("Embedding", made, _weights(step, "embeddings"))
    step.topology.begin_mask(ref, begins)
    return ref


def _masking(step: Step) -> Ref:
    value = step.layer.get_config()["mask_value"]
    mask = Mask(id(tensors_in(step.call.arguments)[0]), float(value), of_vectors=True)
    if not step.topology.is_read(mask):
        refuse(f"the mask of {step.what}, is read by no recurrent layer")
    ref = step.add("Masking", {"mask_value": value})
    step.topology.begin_mask(ref, mask)
    return ref


_CELLS = tuple(name for name in RECURRENT if name != "Bidirectional")


def _kind_of_recurrent(layer: Any) -> str:
    """Its class in TensorFlow.js, whose GRU computes `reset_after=False` only."""
    kind = type(layer).__name__
    return f"{OURS}GRU" if kind == "GRU" and layer.get_config()["reset_after"] else kind


def _recurrent_settings(step: Step, layer: Any) -> Config:
    config = layer.get_config()
    inner = step._replace(layer=layer)
    _require(inner, config, stateful=False, return_state=False)
    made = {name: config[name] for name in ("units", "use_bias", "return_sequences", "go_backwards")}
    for name in ("activation", "recurrent_activation"):
        if hasattr(layer, name):
            known = _name_of(inner, getattr(layer, name))
            if known not in _ACTIVATIONS:
                refuse(f"{inner.what}, has `{name}={known!r}`")
            made[name] = _ACTIVATIONS[known]
    return made


def _recurrent(step: Step) -> Ref:
    """A rule for recurrent layers and for `Bidirectional` around one."""
    layer, kind = step.layer, type(step.layer).__name__
    both = kind == "Bidirectional"
    sides = [("forward", layer.forward_layer), ("backward", layer.backward_layer)] if both else [("", layer)]
    if len(step.inputs) != 1:
        refuse(f"{step.what}, gets an initial state")
    if step.mask != step.topology.mask_at(step.inputs[0]):
        refuse(f"{step.what}, is reached by another mask in TensorFlow.js than in Keras")
    weights: list[Weight] = []
    for side, one in sides:
        if type(one).__name__ not in _CELLS or not is_layer(one, type(one).__name__):
            refuse(f"{step.what} of a {type(one).__name__}")
        prefix = f"{side}_inner/" if both else ""
        weights += [
            variable(f"{prefix}{name}", getattr(one.cell, name))
            for name in ("kernel", "recurrent_kernel", "bias")
            if getattr(one.cell, name) is not None
        ]
    made = _recurrent_settings(step, sides[0][1])
    returns = made["return_sequences"]
    if both:
        other = _recurrent_settings(step, layer.backward_layer)
        if {**other, "go_backwards": False} != made or not other["go_backwards"]:
            refuse(f"{step.what}, has two layers that are not alike")
        inner = {"class_name": _kind_of_recurrent(layer.forward_layer), "config": {"name": "inner", **made}}
        made = {"layer": inner, "merge_mode": layer.get_config()["merge_mode"]}
        if made["merge_mode"] is None:
            refuse(f"{step.what}, has two outputs")
    elif returns and step.mask is not None and layer.zero_output_for_mask:
        refuse(f"{step.what}, has `zero_output_for_mask=True`")
    return step.add(kind if both else _kind_of_recurrent(layer), made, weights, hands_mask_on=returns)


# -- operations -----------------------------------------------------------------------------------------------------


def _constant_in(step: Step) -> tuple[Any, bool]:
    """The constant of an operation of a tensor and a constant, and whether it comes first."""
    import keras

    first, second, *_ = step.call.arguments
    tensor_first = isinstance(first, keras.KerasTensor)
    other = second if tensor_first else first
    value: NDArray[Any] = np.asarray(keras.ops.convert_to_numpy(other), "float32")
    return (value.reshape(-1) if value.ndim and value.size == value.shape[-1] else value), not tensor_first


def _arithmetic(step: Step) -> Ref:
    name = type(step.layer).__name__
    if len(step.inputs) == 2:
        if name in ("Divide", "TrueDivide"):
            refuse(f"{step.what}, of two tensors")
        return _merge(step)
    value, comes_first = _constant_in(step)
    x = step.inputs[0]
    if name == "Add":
        return step.affine(x, 1.0, value)
    if name == "Subtract":
        return step.affine(x, -1.0, value) if comes_first else step.affine(x, 1.0, -value)
    if name == "Multiply":
        return step.affine(x, value, 0.0)
    if comes_first:
        refuse(f"{step.what}, by a tensor")
    return step.affine(x, 1.0 / value, 0.0)


# -- the rules ------------------------------------------------------------------------------------------------------

_RULES: dict[str, Rule] = {
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv1D": _convolution("filters", "kernel bias"),
    "Conv2D": _convolution("filters", "kernel bias"),
    "Conv2DTranspose": _convolution("filters", "kernel bias", output_padding=None, dilation_rate=(1, 1)),
    "Cropping2D": _spatial("cropping"),
    "Dense": _dense,
    "DepthwiseConv2D": _convolution("depth_multiplier", "kernel bias", dilation_rate=(1, 1)),
    "ELU": _elu,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _leaky_relu,
    "Masking": _masking,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _settings("dims"),
    "ReLU": _relu,
    "RepeatVector": _settings("n"),
    "Rescaling": _rescaling,
    "Reshape": _settings("target_shape"),
    "SeparableConv2D": _convolution("filters depth_multiplier", "depthwise_kernel pointwise_kernel bias"),
    "Softmax": _softmax,
    "TimeDistributed": _time_distributed,
    "UpSampling2D": _spatial("size", interpolation="nearest"),
    "ZeroPadding2D": _spatial("padding"),
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), _merge),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D"), _pooling),
    **dict.fromkeys(
        (
            "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
        ),
        _global_pooling,
    ),
    **dict.fromkeys(RECURRENT, _recurrent),
}  # fmt: skip

_OPERATIONS: dict[str, Rule] = dict.fromkeys(("Add", "Divide", "Multiply", "Subtract", "TrueDivide"), _arithmetic)
