"""What the output of a network means, as operations: `Head.decode` and `Head.probabilities` in a graph.

Labels come from the output as it is, and not from probabilities made of it, so that they turn where the model's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kerastoolkit._values import shown
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.builders.targets import NUMERIC_KINDS
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._columns import eye
from kerastoolkit.export._graph import (
    Above,
    Add,
    Affine,
    ArgMax,
    Array,
    Cast,
    Clip,
    CumulativeMin,
    Function,
    Graph,
    Lookup,
    MatMul,
    Multiply,
    Normalize,
    Reshape,
    Softmax,
    Sum,
    Value,
)
from kerastoolkit.export._spec import OutputKind


class Answer(NamedTuple):
    """What a model answers of one target.

    Attributes:
        kind: As in `OutputSpec`, without `"probabilities"`.
        value: Labels or numbers.
        probabilities: Of the classes. Defaults to `None`: there are none.
        classes: Labels, in the order of the probabilities. Defaults to none.
        target: Name of the target, where targets have names. Defaults to `None`.
        number: The class number of each row, int64, where each has one class. Defaults to `None`.
        raw: Output of the network. Defaults to `None`: it is no network.
        head: Its head. Defaults to `None`.
    """

    kind: OutputKind
    value: Value
    probabilities: Value | None = None
    classes: tuple[Any, ...] = ()
    target: str | None = None
    number: Value | None = None
    raw: Value | None = None
    head: Head | None = None


def answers_of_head(graph: Graph, head: Any, outputs: Sequence[Value], *, is_softmax: Sequence[bool]) -> list[Answer]:
    """The answers of a network.

    Args:
        graph: The graph; the operations are added to it.
        head: The head of a fitted estimator.
        outputs: Outputs of the network.
        is_softmax: Whether each of them ends in a softmax.

    Raises:
        ExportError: The head is code of the user's, or its labels are of a type that no file holds.
    """
    if isinstance(head, HeadGroup):
        names = head.names or [None] * len(head.heads)
        return [
            _answer(graph, part, output, ends)._replace(target=name)
            for part, output, ends, name in zip(head.heads, outputs, is_softmax, names, strict=True)
        ]
    if not isinstance(head, Head):
        encoder = getattr(head, "encoder", head)
        raise ExportError(
            f"The estimator has a `target_encoder` of its own, a {type(encoder).__name__}: Python code, which no file "
            "holds. Encode the target before fitting, or leave it to the estimator."
        )
    return [_answer(graph, head, outputs[0], is_softmax[0])]


def _answer(graph: Graph, head: Head, raw: Value, is_softmax: bool) -> Answer:
    if raw.dtype not in ("float32", "float64"):
        raw = graph.add(Cast("float32"), raw)
    if raw.shape != (head.units,):
        raw = graph.add(Reshape((head.units,)), raw)
    return _decoded(graph, head, raw, is_softmax)._replace(raw=raw, head=head)


def _decoded(graph: Graph, head: Head, raw: Value, is_softmax: bool) -> Answer:
    if head.kind in NUMERIC_KINDS:
        return Answer("number", _numbers(graph, head, raw))
    probabilities = _probabilities(graph, head, raw, is_softmax) if head.output in ("probability", "logit") else None
    threshold = 0.5 if head.output in ("probability", "value") else 0.0
    classes = np.arange(head.units) if head.classes is None else np.asarray(head.classes)
    if head.kind == "multilabel":
        return Answer("labels", graph.add(Above(threshold), raw), probabilities, plain_labels(classes))
    if head.units == 1:
        number = graph.add(Reshape(()), graph.add(Above(threshold), raw))
    elif head.kind == "ordinal":
        number = graph.add(Sum(), graph.add(Above(threshold), graph.add(CumulativeMin(), raw)))
    else:
        number = graph.add(ArgMax(), raw)
    if head.one_hot:
        rows = graph.add(Lookup(eye(head.n_classes or 0, "int64")), number)
        return Answer("labels", rows, probabilities, plain_labels(classes))
    return label_of(graph, number, classes, probabilities)


def label_of(graph: Graph, number: Value, classes: Array, probabilities: Value | None) -> Answer:
    """Labels of class numbers."""
    labels = plain_labels(classes)
    label = graph.add(Lookup(label_table(labels)), number)
    return Answer("label", label, probabilities, labels, number=number)


def _numbers(graph: Graph, head: Head, values: Value) -> Value:
    if head.scale:
        values = graph.add(Cast("float64"), values)
        values = graph.add(Affine(np.asarray(head.scale), np.asarray(head.offset)), values)
    shape = () if head.flat else head.shape or (head.units,)
    if shape != values.shape:
        values = graph.add(Reshape(tuple(shape)), values)
    wanted = "float64" if head.dtype == "float64" else "float32"
    return values if values.dtype == wanted else graph.add(Cast(wanted), values)


def _probabilities(graph: Graph, head: Head, raw: Value, is_softmax: bool) -> Value:
    if head.units == 1 or head.kind in ("multilabel", "ordinal"):
        positive = graph.add(Function("sigmoid"), raw) if head.output == "logit" else raw
        if head.kind == "multilabel":
            return positive
        above = graph.add(CumulativeMin(), positive) if head.units > 1 else positive
        # the share of a class: above the one before it, and not above itself
        steps = np.eye(head.units, head.units + 1, k=1) - np.eye(head.units, head.units + 1)
        return graph.add(MatMul(steps, np.eye(1, head.units + 1)[0]), above)
    if head.output == "logit":
        return graph.add(Softmax(), raw)
    return graph.add(Normalize("l1"), raw) if is_softmax else shares(graph, raw)


def shares(graph: Graph, values: Value) -> Value:
    """Values divided by their total, and equal shares where that is 0 or less."""
    n = values.shape[0] or 1
    total = graph.add(MatMul(np.ones((n, 1)), np.zeros(1)), values)
    least = np.asarray(np.finfo(values.dtype).tiny)
    divisor = graph.add(Function("reciprocal"), graph.add(Clip(least, np.asarray(np.inf)), total))
    any_at_all = graph.add(Cast(values.dtype), graph.add(Above(0.0), total))
    known = graph.add(Multiply(), graph.add(Multiply(), values, divisor), any_at_all)
    equal = graph.add(Affine(np.asarray(-1.0 / n), np.asarray(1.0 / n)), any_at_all)
    return graph.add(Add(), known, graph.add(MatMul(np.ones((1, n)), np.zeros(n)), equal))


def scores(graph: Graph, answer: Answer) -> Value:
    """What `decision_function` answers, float64: shape `(1,)` for two classes, else `(n_classes,)`.

    Raises:
        ExportError: The answer is not that of a network with one target.
    """
    head, raw = answer.head, answer.raw
    if head is None or raw is None or answer.kind != "label" or head.kind == "ordinal":
        raise ExportError("It is made of scores, which only a network with one target of classes has.")
    raw = graph.add(Cast("float64"), raw)
    if head.output == "value" and head.units == 1:
        raw = graph.add(Affine(np.ones(()), np.asarray(-0.5)), raw)
    elif head.output == "probability":
        info = np.finfo("float32")
        limits = np.asarray(float(info.tiny)), np.asarray(1.0 - float(info.eps) / 4)
        p = graph.add(Clip(*limits), raw)
        raw = graph.add(Function("log"), p)
        if head.units == 1:
            rest = graph.add(Function("log1p"), graph.add(Function("negative"), p))
            raw = graph.add(Add(), raw, graph.add(Function("negative"), rest))
    if head.units == 2:
        return graph.add(MatMul(np.array([[-1.0], [1.0]]), np.zeros(1)), raw)
    return raw


def plain_labels(classes: Array) -> tuple[Any, ...]:
    """Labels as JSON holds them.

    Raises:
        ExportError: They are neither texts nor numbers nor truth values, or of several types.
    """
    values = [value.item() if isinstance(value, np.generic) else value for value in classes.tolist()]
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
        raise ExportError(
            f"The labels {shown(values[:5])} are of types {', '.join(sorted(kind.__name__ for kind in kinds))}, but "
            "a file holds texts, numbers or truth values, all of one type."
        )
    return tuple(values)


def label_table(labels: tuple[Any, ...]) -> Array:
    """Labels as the table of a `Lookup`."""
    dtypes: dict[type, str] = {str: "object", int: "int64", float: "float64", bool: "bool"}
    table: Array = np.empty(len(labels), dtypes[type(labels[0])])
    table[:] = labels
    return table
