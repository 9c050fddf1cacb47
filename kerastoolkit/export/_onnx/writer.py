"""Collects the nodes and constants of an ONNX graph, and makes a model of them."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._optional import require
from kerastoolkit.export._graph import Shape

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 18, 9
_DOMAINS = {"ai.onnx.ml": 3, "com.microsoft": 1}


class Writer:
    """An ONNX graph in the making. Values are known by their names, which are unique.

    Example:

    >>> writer = Writer()  # doctest: +SKIP
    >>> x = writer.input("x", "float32", (3,))
    >>> writer.output("twice", writer.node("Mul", [x, writer.constant(np.float32(2))]), "float32", (3,))
    >>> model = writer.model("doubles")
    """

    def __init__(self) -> None:
        self._onnx = require("onnx")
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._texts: list[onnx.ValueInfoProto] = []
        self._taken: set[str] = set()
        self._n_names = 0
        # Names of whole numbers, rows by steps, that are 0 after the end of a sequence and nowhere else.
        self.padded_at_end: set[str] = set()

    # -- what a graph is made of ----------------------------------------------------------------------------------

    def constant(self, array: NDArray[Any] | np.generic) -> str:
        """Adds a constant, which is written once however often it is used.

        Args:
            array: Numbers, truth values, or texts (an array of `str` objects), in the type in which they are written.
        """
        array = np.asarray(array)
        is_text = array.dtype.kind in "OU"
        content = repr(array.tolist()).encode() if is_text else np.ascontiguousarray(array).tobytes()
        key = ("string" if is_text else array.dtype.name, array.shape, hashlib.sha256(content).digest())
        if key not in self._by_content:
            name = self._new_name("constant")
            if is_text:
                texts = [str(text).encode() for text in array.ravel()]
                made = self._onnx.helper.make_tensor(name, self._onnx.TensorProto.STRING, array.shape, texts)
            else:
                made = self._onnx.numpy_helper.from_array(array, name)
            self._constants[name] = made
            self._by_content[key] = name
        return self._by_content[key]

    @overload
    def node(
        self, op_type: str, inputs: Sequence[str], n_outputs: Literal[1] = 1, domain: str = "", **attributes: Any
    ) -> str: ...

    @overload
    def node(
        self, op_type: str, inputs: Sequence[str], n_outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]: ...

    def node(
        self, op_type: str, inputs: Sequence[str], n_outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str | list[str]:
        """Adds a node.

        Args:
            op_type: Name of the operator in ONNX.
            inputs: Names of values; `""` for an optional input that is left out.
            n_outputs: Defaults to `1`.
            domain: `"ai.onnx.ml"` or `"com.microsoft"`. Defaults to `""`, that of ONNX itself.
            **attributes: Of the operator. One that is None is left out.

        Returns:
            The name of the output; a list of names where there are several.
        """
        names = [self._new_name(op_type.lower()) for _ in range(n_outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        made = self._onnx.helper.make_node(op_type, list(inputs), names, name=names[0], domain=domain, **given)
        self._nodes.append(made)
        if op_type == "Tokenizer":  # not ONNX's own; where it is left open what comes out, onnx.checker crashes
            self._texts += [
                self._onnx.helper.make_tensor_value_info(one, self.type_of("string"), None) for one in names
            ]
        return names[0] if n_outputs == 1 else names

    def include(self, model: onnx.ModelProto, inputs: Sequence[str]) -> list[str]:
        """Adds another model as nodes.

        Args:
            model: A model of the same operator set.
            inputs: What its inputs are called in this graph, in their order.

        Returns:
            What its outputs are called in this graph.
        """
        graph = importlib.import_module("onnx.compose").add_prefix(model, self._new_name("part") + "_").graph
        fixed = {one.name for one in graph.initializer}
        free = [one.name for one in graph.input if one.name not in fixed]
        for name, value in zip(free, inputs, strict=True):
            self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._constants.update({one.name: one for one in graph.initializer})
        self._nodes.extend(graph.node)
        return [str(one.name) for one in graph.output]

    def cast(self, x: str, dtype: str) -> str:
        """Adds a cast to a type, such as `"float32"`, `"int64"`, `"bool"` or `"string"`."""
        return self.node("Cast", [x], to=self.type_of(dtype))

    def type_of(self, dtype: str) -> int:
        """ONNX's number for a type."""
        if dtype == "string":
            return int(self._onnx.TensorProto.STRING)
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    # -- inputs, outputs, the whole -------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: Shape = ()) -> str:
        """Adds an input; `shape` is that of a row, and None in it a size that differs between calls."""
        self._taken.add(name)
        self._inputs.append(self._value(name, dtype, shape, "input"))
        return name

    def output(self, name: str, value: str, dtype: str, shape: Shape = ()) -> None:
        """Makes a value an output of this name; `shape` is that of a row."""
        self._taken.add(name)
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=f"output {name}"))
        self._outputs.append(self._value(name, dtype, shape, "output"))

    def model(self, name: str) -> onnx.ModelProto:
        """The model, without nodes and constants that no output needs.

        Args:
            name: Of the graph.
        """
        helper = self._onnx.helper
        needed = {one.name for one in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(_names_in(node))
        nodes.reverse()
        constants = [made for name, made in self._constants.items() if name in needed]
        texts = [one for one in self._texts if one.name in needed]
        graph = helper.make_graph(nodes, name, self._inputs, self._outputs, initializer=constants, value_info=texts)
        domains = sorted({node.domain for node in nodes if node.domain})
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(one, _DOMAINS[one]) for one in domains)]
        made: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return made

    def _value(self, name: str, dtype: str, shape: Shape, side: str) -> onnx.ValueInfoProto:
        sizes = ["rows", *(f"{side}_{name}_{axis}" if size is None else size for axis, size in enumerate(shape, 1))]
        made: onnx.ValueInfoProto = self._onnx.helper.make_tensor_value_info(name, self.type_of(dtype), sizes)
        return made

    def _new_name(self, kind: str) -> str:
        while True:
            self._n_names += 1
            name = f"{kind}_{self._n_names}"
            if name not in self._taken:
                self._taken.add(name)
                return name


def _names_in(node: onnx.NodeProto) -> set[str]:
    """The values that a node needs, those in the graphs inside of it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _names_in(inner)
            names |= {one.name for one in graph.output}
    return names
