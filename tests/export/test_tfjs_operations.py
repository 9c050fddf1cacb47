"""What stands before and behind the networks: JavaScript computes each operation as NumPy does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph as g
from kerastoolkit.export._graph import Graph
from kerastoolkit.export._tfjs import node, operations

RNG = np.random.default_rng(0)
NAN = np.nan
NUMBERS = (RNG.normal(size=(6, 3)) * [1, 10, 1e-9]).astype("float32")
GAPS = np.where(RNG.random((6, 3)) < 0.3, NAN, NUMBERS).astype("float32")
DOUBLES = RNG.normal(size=(6, 2)) * [1e-3, 1e6]
POSITIVE = RNG.random((6, 3)).astype("float32") + 0.01
INDEX = np.array([0, 2, 1, 1, 0, 2])
COLUMN = np.array([-1.0, 0.0, 1.0, 2.0, NAN, 7.5], "float32")
TEXTS = np.array([["b", ""], ["a", "a"], ["ü", "zz"], ["", ""], ["NaN", "b"], ["a", "null"]], object)
SAID = np.array(
    ["A good film, a GOOD film", "", "x y", "İSTANBUL ÜBER Straße ΟΔΟΣ", "don't film_film 3D ½ ⅷ", "ab " * 40], object
)
WORDS = ("film", "good", "ab", "straße", "οδος", "über", "film_film", "3d", "don")
PAIRS = ("good film", "film", "ab ab", "film good")

CASES: dict[str, tuple[g.Operation, list[Any]]] = {
    "Cast to int64": (g.Cast("int64"), [NUMBERS]),
    "Cast to float32": (g.Cast("float32"), [DOUBLES]),
    "Cast of whole numbers": (g.Cast("float32"), [INDEX * 2**24 + 1]),
    "Reshape": (g.Reshape((1,)), [COLUMN]),
    "Reshape to a column": (g.Reshape(()), [NUMBERS[:, :1]]),
    "Concatenate": (g.Concatenate(), [NUMBERS, GAPS, NUMBERS[:, :1]]),
    "Concatenate texts": (g.Concatenate(), [TEXTS, TEXTS]),
    "Take": (g.Take((2, 0, 0)), [NUMBERS]),
    "IsMissing": (g.IsMissing(), [GAPS]),
    "IsMissing of texts": (g.IsMissing(), [TEXTS]),
    "FillMissing": (g.FillMissing(np.array([0.1, 2.0, 3.0])), [GAPS]),
    "FillMissing by one": (g.FillMissing(np.array(7.1)), [COLUMN]),
    "FillMissing of texts": (g.FillMissing(np.array(["p", "q"], object)), [TEXTS]),
    "CategoryIndex": (g.CategoryIndex(("a", "ü", "NaN"), 2, 1, 0), [TEXTS]),
    "CategoryIndex of numbers": (g.CategoryIndex((0.1, -1.0, 7.5, float(np.float32(0.1))), 2, 1, 0), [COLUMN]),
    "Lookup of texts": (g.Lookup(np.array(["no", "yes", "NaN"], object)), [INDEX]),
    "Lookup of vectors": (g.Lookup(RNG.normal(size=(3, 2)).astype("float32")), [np.c_[INDEX, INDEX[::-1]]]),
    "Lookup of gaps": (g.Lookup(np.array([NAN, np.inf, -np.inf])), [INDEX]),
    "Lookup of truth": (g.Lookup(np.array([False, True, True])), [INDEX]),
    "Lookup from the end": (g.Lookup(np.array([4, 5, 6])), [INDEX - 1]),
    "Bin": (g.Bin((np.array([0.0, 1.0, 2.0]),)), [COLUMN[:, None]]),
    "Bin, right": (g.Bin((np.array([0.0, 1.0, 2.0]),), right=True), [COLUMN[:, None]]),
    "Bin of columns": (g.Bin((np.array([0.0]), np.array([-1.0, 1.0, 2.0]), np.array([]))), [NUMBERS]),
    "Standardize": (g.Standardize(np.array([1.1, 2.2, 3.3]), np.array([0.3, 7.0, 1e-9])), [GAPS]),
    "Standardize doubles": (g.Standardize(np.array([1.1, 2.2]), np.array([0.3, 7.0])), [DOUBLES]),
    "Affine": (g.Affine(np.array([1.1, 2.2, 3.3]), np.array(0.7)), [GAPS]),
    "Clip": (g.Clip(np.array(-0.3), np.array([0.4, 2.0, np.inf])), [GAPS]),
    **{f"Function {name}": (g.Function(name), [POSITIVE if "log" in name or name == "sqrt" else GAPS])
       for name in g.FUNCTIONS},
    "Function log of doubles": (g.Function("log"), [DOUBLES]),
    "Add": (g.Add(), [NUMBERS, GAPS, NUMBERS]),
    "Multiply": (g.Multiply(), [NUMBERS, GAPS]),
    "Multiply by a column": (g.Multiply(), [NUMBERS, GAPS[:, :1]]),
    "MatMul": (g.MatMul(RNG.normal(size=(2, 4)), RNG.normal(size=4)), [DOUBLES]),
    "Polynomial": (g.Polynomial(np.array([[0, 0], [1, 0], [2, 1], [0, 3]])), [DOUBLES]),
    "Interpolate": (g.Interpolate((np.array([-1.0, 0.5, 2.0]),), (np.array([1.0, 0.1, 5.0]),)), [COLUMN[:, None]]),
    "YeoJohnson": (g.YeoJohnson(np.array([0.0, 2.0, 0.7])), [RNG.normal(size=(6, 3)) * [1, 10, 100]]),
    "Normalize l1": (g.Normalize("l1"), [NUMBERS]),
    "Normalize l2": (g.Normalize("l2"), [NUMBERS]),
    "Normalize max": (g.Normalize("max"), [POSITIVE * (INDEX[:, None] > 0)]),
    **{f"TokenIds {length} {ngrams}": (g.TokenIds(WORDS + PAIRS, length, ngrams), [SAID])
       for length in (3, 30) for ngrams in ((1, 1), (1, 2))},
    **{f"WordCounts {ngrams} {lower}": (g.WordCounts(WORDS + PAIRS[:1] + PAIRS[2:], ngrams, lower), [SAID])
       for ngrams in ((1, 1), (1, 2), (2, 3)) for lower in (True, False)},
    "ResizeImages, smaller": (g.ResizeImages(4, 3), [RNG.integers(0, 256, (6, 9, 13, 3)).astype("uint8")]),
    "ResizeImages, larger": (g.ResizeImages(11, 14), [RNG.random((6, 4, 5, 1)).astype("float32")]),
    "ResizeImages of a large image": (g.ResizeImages(7, 96), [RNG.random((6, 9, 1100, 1)).astype("float32")]),
    "RepeatChannels": (g.RepeatChannels(3), [RNG.random((6, 2, 2, 1)).astype("float32")]),
    "Softmax": (g.Softmax(), [NUMBERS * 30]),
    "CumulativeMin": (g.CumulativeMin(), [GAPS]),
    "Above": (g.Above(0.5), [GAPS]),
    "Sum": (g.Sum(), [NUMBERS]),
    "Sum of whole numbers": (g.Sum(), [np.c_[INDEX, INDEX]]),
    "ArgMax": (g.ArgMax(), [np.array([[1, 2, 2], [3, 1, 3], [0, 0, 0], [NAN, 1, 2], [1, NAN, 5], [-1, -2, -3]])]),
}  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> Graph:
    """All operations side by side."""
    graph = Graph()
    for number, (name, (operation, arrays)) in enumerate(CASES.items()):
        values = []
        for place, array in enumerate(arrays):
            dtype = "string" if array.dtype == object else array.dtype.name
            values.append(graph.input(f"input {number} {place}", dtype, array.shape[1:]))
        graph.outputs[name] = graph.add(operation, *values)
    return graph


def inputs() -> dict[str, Any]:
    return {
        f"input {number} {place}": array
        for number, (_, arrays) in enumerate(CASES.values())
        for place, array in enumerate(arrays)
    }


@pytest.fixture(scope="module")
def in_javascript(graph: Graph, tmp_path_factory: pytest.TempPathFactory, node_packages: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("operations")
    spec = {"name": "operations", "task": "unknown", "inputs": [], "outputs": [], "versions": {}, "report": {}}
    content = {"format": 1, "spec": spec, "graph": operations.to_json(graph, []), "check": {}}
    (folder / "kerastoolkit.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_PATH", str(node_packages))
        found = node.find_node()
        assert found is not None
        with node.running(found, folder) as model:
            made = model.run(inputs())
            assert {key: value.shape for key, value in model.run(empty()).items()} == {
                name: (0, *graph.outputs[name].shape) for name in CASES
            }
            return made


def empty() -> dict[str, Any]:
    return {name: array[:0] for name, array in inputs().items()}


def assert_same(made: Any, wanted: Any) -> None:
    assert made.shape == wanted.shape
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(made, wanted, rtol=1e-12 if wanted.dtype == "float64" else 6e-7, atol=1e-30)
    else:
        assert made.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", CASES)
def test_javascript_computes_an_operation_as_numpy_does(name: str, in_javascript: dict[str, Any]) -> None:
    operation, arrays = CASES[name]
    with np.errstate(all="ignore"):
        assert_same(in_javascript[name], operation.compute(*arrays))


@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_the_same_when_it_is_read_back(name: str, graph: Graph) -> None:
    content = json.loads(json.dumps(operations.to_json(graph, []), allow_nan=False))
    place = list(CASES).index(name)
    made = operations.from_json(content, {}).nodes[place].operation
    operation, arrays = CASES[name]
    assert type(made) is type(operation)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(made.compute(*arrays), operation.compute(*arrays))


def test_every_operation_is_known_and_tested() -> None:
    everything = {one.__name__ for one in g.Operation.__subclasses__()} - {"Network"}
    assert everything == set(operations.KNOWN)
    assert everything == {type(operation).__name__ for operation, _ in CASES.values()}
    page = Path(operations.__file__).with_name("page") / "kerastoolkit.js"
    for name in everything:
        assert f"    {name}: (" in page.read_text(encoding="utf-8")


def test_an_operation_that_is_unknown_is_refused_by_name() -> None:
    class Novel(g.Operation):
        def compute(self, *arrays: Any) -> Any:
            return arrays[0]

    graph = Graph()
    graph.outputs = {"y": graph.add(Novel(), graph.input("x", "float32"))}
    with pytest.raises(ExportError, match=r"'Novel'.*export\.onnx"):
        operations.check(graph)


@pytest.mark.parametrize(
    ("operation", "array", "message"),
    [
        (g.Lookup(np.array([2**53 + 1])), INDEX, "JavaScript cannot hold"),
        (g.Lookup(np.array(["a", 1], object)), INDEX, "several types"),
        (g.Above(float("inf")), COLUMN, "inf as a setting"),
    ],
)
def test_what_json_cannot_hold_is_refused(operation: g.Operation, array: Any, message: str) -> None:
    graph = Graph()
    value = graph.input("x", array.dtype.name)
    graph.outputs = {"y": graph.add(operation, value)}
    with pytest.raises(ExportError, match=message):
        operations.to_json(graph, [])


def test_javascript_finds_the_words_that_scikit_learn_finds(node_packages: Path) -> None:
    """All characters that both know: Node's Unicode may be newer than Python's."""
    import subprocess
    import unicodedata

    from sklearn.feature_extraction.text import CountVectorizer

    assigned = [c for c in range(1, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    texts = [f"a{chr(c)}b {chr(c)}{chr(c)}C" for c in assigned]
    analyze: Callable[[str], list[str]] = CountVectorizer().build_analyzer()
    page = Path(operations.__file__).with_name("page") / "kerastoolkit.js"
    program = (
        f"require({json.dumps(str(page))});"
        "const texts = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(texts.map((text) => kerastoolkit.terms(text, [1, 1], true))))"
    )
    finished = subprocess.run(
        ["node", "-e", program], input=json.dumps(texts), capture_output=True, encoding="utf-8", check=True, timeout=600
    )
    found = json.loads(finished.stdout)
    assert len(found) == len(texts) > 100_000
    assert [text for text, words in zip(texts, found, strict=True) if words != analyze(text)] == []
