"""Starting a new network from one that is trained: cut at a layer, with a new end on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, overload

from kerastoolkit._words import did_you_mean
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.transfer._graphs import has_graph, pooled

if TYPE_CHECKING:
    import keras

__all__ = ["derive"]


class FittedEstimator(Protocol):
    """What `derive` asks of an estimator."""

    @property
    def model_(self) -> keras.Model:
        """The trained model."""


Source: TypeAlias = "keras.Model | FittedEstimator"
Tensors: TypeAlias = Any  # a `KerasTensor`, or a list, tuple or dict of them


@overload
def derive(source: Source, head: None = None, layer: str | None = None, *, frozen: bool = True) -> _Derived: ...
@overload
def derive(source: Source, head: Head | HeadGroup, layer: str | None = None, *, frozen: bool = True) -> keras.Model: ...
def derive(
    source: Source, head: Head | HeadGroup | None = None, layer: str | None = None, *, frozen: bool = True
) -> keras.Model | _Derived:
    """Starts a new network from one that is trained: cuts it at a layer and puts a new end on it.

    Example:

    >>> cats = KerasClassifier(hidden=(64, 32)).fit(X, y)
    >>> dogs = KerasClassifier(derive(cats), epochs=20).fit(other_X, other_y)  # the head follows from other_y
    >>> model = derive(cats, Head.multiclass(5), layer="dense_1")  # a keras.Model, not compiled

    Args:
        source: A fitted estimator of kerastoolkit, or a built Sequential or functional `keras.Model`. It is not
            changed: the new network has copies of its layers.
        head: The new end, from `builders.head(y)`, `Head.binary()` and the like. Defaults to `None`: the result is a
            function that builds the network for the target at hand, for the `model` argument of an estimator, where
            `layer` and `frozen` are parameters that a search can set.
        layer: Name of the last layer to keep, which may be inside a model inside the model. Feature maps are averaged.
            Defaults to `None`: all but the output layers are kept.
        frozen: Whether the layers that are kept are frozen, so that only the head trains. Defaults to `True`.

    Returns:
        An uncompiled `keras.Model` with the inputs of `source`, or a function that builds it.

    Raises:
        ParameterError: There is no such layer (the message suggests the nearest name), the estimator is not fitted, or
            the model has no graph that could be cut.
    """
    derived = _Derived(_model_of(source), layer, frozen)
    return derived if head is None else derived(head)


class _Derived:
    """A function that builds networks from a trained one; `derive` returns it.

    Args:
        source: The trained model.
        layer: As for `derive`.
        frozen: As for `derive`.
    """

    __module__ = "kerastoolkit.transfer"  # where pickles and the journals of searches look for it
    __name__ = "derive"  # for messages

    def __init__(self, source: keras.Model, layer: str | None, frozen: bool) -> None:
        self._source, self._layer, self._frozen = source, layer, frozen
        _cut(source, layer)  # so that a wrong name is an error now

    def __call__(self, head: Head | HeadGroup, layer: str | None = None, frozen: bool | None = None) -> keras.Model:
        """Builds the network.

        Args:
            head: The new end.
            layer: Name of the last layer to keep. Defaults to `None`: what was given to `derive`.
            frozen: Whether the layers that are kept are frozen. Defaults to `None`: what was given to `derive`.

        Returns:
            An uncompiled model.

        Raises:
            ParameterError: As for `derive`.
        """
        import keras

        inputs, x = _cut(self._source, self._layer if layer is None else layer)
        trunk = keras.Model(inputs, x)
        if self._frozen if frozen is None else frozen:
            trunk.trainable = False
        x = pooled(x)
        if isinstance(head, HeadGroup):
            return keras.Model(inputs, [output(x) for output in head.output_layers()])
        taken = {operation.name for operation in trunk.operations}
        name = next(name for name in ("head", *(f"head_{n}" for n in range(1, 1000))) if name not in taken)
        return keras.Model(inputs, head.output_layer(name)(x))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Derived:
        return self  # nothing changes it, and a search makes many copies


def _model_of(source: Source) -> keras.Model:
    import keras

    if isinstance(source, keras.Model):
        model = source
    elif hasattr(type(source), "model_"):
        if getattr(source, "model_", None) is None:
            raise ParameterError(f"`source` is a {type(source).__name__} that is not fitted; fit it first.")
        model = source.model_
    else:
        raise ParameterError(
            f"`source` must be a fitted estimator of kerastoolkit or a keras.Model; got {type(source).__name__}."
        )
    if not has_graph(model) or not model.built:
        raise ParameterError(
            f"`source` is a {type(model).__name__} whose layers are not a graph that could be cut. Give a built "
            "Sequential or functional model."
        )
    return model


class _Call(NamedTuple):
    """A layer at its place in a graph: what goes in, what comes out."""

    layer: keras.layers.Layer
    argument: Tensors
    output: Tensors


def _cut(model: keras.Model, layer: str | None) -> tuple[Tensors, keras.KerasTensor]:
    """Inputs of a copy of a model, and the tensor at which it is cut; `None` cuts before the output layer."""
    inputs, calls, output = _copied(model)
    if layer is None:
        call = _call_of(output, calls)
        if has_graph(call.layer):
            return inputs, _part(call.layer, None)(call.argument)
        if isinstance(call.argument, (list, tuple, dict)):
            raise ParameterError(
                f"The output layer of {model.name}, {call.layer.name!r}, has several inputs. Give `layer`, the name "
                "of the layer to cut at."
            )
        return inputs, call.argument
    for call in calls:
        if call.layer.name == layer:
            return inputs, call.output
    for call in calls:
        if has_graph(call.layer) and layer in _names(call.layer):
            return inputs, _part(call.layer, layer)(call.argument)
    names = _names(model)
    raise ParameterError(
        f"`layer` is {layer!r}, which is not a layer of {model.name}.{did_you_mean(layer, names)} Its last layers are "
        f"{', '.join(names[-6:])}."
    )


def _call_of(output: Tensors, calls: Sequence[_Call]) -> _Call:
    """The call that computed an output; where an activation is a layer of its own, the call before it."""
    import keras

    call = next(call for call in calls if any(one is output for one in keras.tree.flatten(call.output)))
    activation = isinstance(call.layer, (keras.layers.Activation, keras.layers.Softmax))
    return _call_of(call.argument, calls) if activation else call


def _part(model: keras.Model, layer: str | None) -> keras.Model:
    import keras

    return keras.Model(*_cut(model, layer), name=model.name)


def _names(model: keras.Model) -> list[str]:
    """Names of the layers, including those of models inside it."""
    return [name for layer in model.layers for name in [*(_names(layer) if has_graph(layer) else []), layer.name]]


def _copied(model: keras.Model) -> tuple[Tensors, list[_Call], Tensors]:
    """Inputs, calls and first output of a copy of a model, with its weights."""
    import keras

    pairs: list[tuple[Any, Any]] = []
    calls: list[_Call] = []

    def copy_of(layer: keras.Layer) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation without a state
        copied = keras.models.clone_model(layer) if has_graph(layer) else type(layer).from_config(layer.get_config())
        copied.trainable = layer.trainable
        pairs.append((layer, copied))
        return copied

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        calls.append(_Call(layer, args[0] if args else kwargs, output))
        return output

    if isinstance(model, keras.Sequential):
        inputs: Any = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype)
        output = inputs
        for layer in model.layers:
            output = call(copy_of(layer), output)
    else:
        copied = keras.models.clone_model(model, clone_function=copy_of, call_function=call)
        inputs, output = copied.input, copied.outputs[0]
    for layer, twin in pairs:
        twin.set_weights(layer.get_weights())
    return inputs, calls, output
