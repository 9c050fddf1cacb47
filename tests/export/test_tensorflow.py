"""Each operation of a graph, as TensorFlow and as LiteRT compute it, held against NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph as g

pytestmark = pytest.mark.backend("tensorflow")

_RANDOM = np.random.default_rng(0)
_ROWS = _RANDOM.normal(size=(6, 3))
_ROWS[1, 1], _ROWS[2, 0] = np.nan, 0.0
_WHOLE = np.nan_to_num(_ROWS)
_POSITIVE = np.abs(_WHOLE) + 0.1
_PICTURES = _RANDOM.integers(0, 255, (6, 5, 4, 3)).astype("uint8")


def _texts(*texts: str) -> Any:
    return np.array(texts, dtype=object)


_PLACES = np.array([0, 1, 1, 0, 1, 0])
_CATEGORIES = _texts("a", "b", "", "never seen", "größe", "a")
_SENTENCES = _texts(
    "Hello world film_film 3D", "", "a b c", "\u0130STANBUL ÜBER Straße ΟΔΟΣ café naïve été don't", "the the the world"
)
_WORDS = ("the", "world", "über", "straße", "οδος", "the the", "hello world", "café", "été")
_MANY = (0.0, float(np.float32(_ROWS[0, 0])), *(float(one) for one in range(1, 400)))
_KNOTS = (np.array([-1.0, 0.0, 0.0, 1.0]), np.array([-0.9, 0.0, 0.1, 0.9]), np.array([0.0, 1.0]))
_VALUES = (np.array([0.0, 0.2, 0.5, 1.0]), np.array([3.0, 2.0, 1.0, 0.0]), np.array([5.0, 6.0]))
_EDGES = (np.array([0.0, 0.5]), np.array([-1.0, 0.0, 1.0]), np.array([0.0]))

# an operation and its inputs; numbers are tried in float32 and in float64
CASES: list[tuple[g.Operation, list[Any]]] = [
    (g.Above(0.2), [_ROWS]),
    (g.Add(), [_ROWS, _ROWS, _ROWS]),
    (g.Affine(np.array([1.0, 2.0, 3.0]), np.array(0.5)), [_ROWS]),
    (g.ArgMax(), [_WHOLE]),
    (g.Bin(_EDGES), [_ROWS]),
    (g.Bin(_EDGES, right=True), [_ROWS]),
    (g.Cast("int64"), [_WHOLE]),
    (g.Cast("float64"), [_ROWS]),
    (g.CategoryIndex((0.0, float(np.float32(_ROWS[0, 0])), 7.0), first=2, unseen=1, missing=0), [_ROWS]),
    (g.CategoryIndex(_MANY, first=2, unseen=1, missing=0), [_ROWS]),
    (g.CategoryIndex(("a", "größe", "b"), first=2, unseen=1, missing=0), [_CATEGORIES]),
    (g.Clip(np.array([-0.1, 0, 0]), np.array(0.4)), [_ROWS]),
    (g.Concatenate(), [_ROWS, _ROWS]),
    (g.CumulativeMin(), [_WHOLE]),
    (g.FillMissing(np.array([1.0, 2.0, 3.0])), [_ROWS]),
    (g.FillMissing(_texts("b")[0:1].reshape(())), [_CATEGORIES]),
    (g.Interpolate(_KNOTS, _VALUES), [_ROWS]),
    (g.IsMissing(), [_ROWS]),
    (g.IsMissing(), [_CATEGORIES]),
    (g.Lookup(np.array([0.5, 7.0])), [_PLACES]),
    (g.Lookup(np.array([True, False])), [_PLACES]),
    (g.Lookup(_texts("no", "yes, größer")), [_PLACES]),
    (g.Lookup(np.eye(2, dtype="float32")), [_PLACES]),
    (g.MatMul(_RANDOM.normal(size=(3, 4)), _RANDOM.normal(size=4)), [_WHOLE]),
    (g.Multiply(), [_ROWS, _ROWS[:, :1]]),
    (g.Normalize("l1"), [_ROWS]),
    (g.Normalize("l2"), [_WHOLE * _PLACES[:, None]]),
    (g.Normalize("max"), [_WHOLE]),
    (g.Polynomial(np.array([[0, 0, 0], [1, 0, 2], [0, 3, 1]])), [_ROWS]),
    (g.RepeatChannels(3), [_PICTURES[..., :1]]),
    (g.Reshape((3, 1)), [_ROWS]),
    (g.ResizeImages(3, 6), [_PICTURES]),
    (g.Softmax(), [_WHOLE]),
    (g.Standardize(np.array([1.0, 2.0, 3.0]), np.array([0.1, 2.0, 3.0])), [_ROWS]),
    (g.Sum(), [_ROWS]),
    (g.Take((2, 0)), [_ROWS]),
    (g.TokenIds(_WORDS, 7), [_SENTENCES]),
    (g.WordCounts(_WORDS, (1, 2)), [_SENTENCES]),
    (g.WordCounts(_WORDS, (2, 2), lowercase=False), [_SENTENCES]),
    (g.YeoJohnson(np.array([0.0, 2.0, 0.7])), [_ROWS]),
    *((g.Function(name), [_POSITIVE]) for name in g.FUNCTIONS),
]


def _cases() -> Iterator[Any]:
    for place, (operation, arrays) in enumerate(CASES):
        for dtype in ("float32", "float64") if arrays[0].dtype == np.float64 else (None,):
            given = arrays if dtype is None else [array.astype(dtype) for array in arrays]
            yield pytest.param(operation, given, id=f"{type(operation).__name__}-{place}-{dtype}")


def _graph(operation: g.Operation, arrays: list[Any]) -> g.Graph:
    graph = g.Graph()
    values = [
        graph.input(f"x {place}", "string" if array.dtype == object else array.dtype.name, array.shape[1:])
        for place, array in enumerate(arrays)
    ]
    graph.outputs = {"y": graph.add(operation, *values)}
    return graph


def _expected(operation: g.Operation, arrays: list[Any]) -> Any:
    with np.errstate(all="ignore"):
        return operation.compute(*arrays)


def _assert_same(made: Any, expected: Any, tolerance: float) -> None:
    if made.dtype == object:
        made = np.array([one.decode() for one in made.ravel()], dtype=object).reshape(made.shape)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(made, expected, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(("operation", "arrays"), list(_cases()))
def test_an_operation_computes_what_it_computes_with_numpy(operation: g.Operation, arrays: list[Any]) -> None:
    import tensorflow as tf

    from kerastoolkit.export._tensorflow import Function

    expected = _expected(operation, arrays)
    function = tf.function(Function(_graph(operation, arrays)), autograph=False)
    made = function([tf.constant(one.tolist() if one.dtype == object else one) for one in arrays])["y"].numpy()
    assert expected.dtype == object or made.dtype == expected.dtype
    _assert_same(made, expected, 1e-12 if expected.dtype == np.float64 else 1e-5)


def test_every_operation_is_tried() -> None:
    from kerastoolkit.export._tensorflow import _WRITERS

    tried = {type(operation) for operation, _ in CASES}
    assert set(_WRITERS) - tried == {g.Network}
    assert set(g.Operation.__subclasses__()) == set(_WRITERS)


def test_in_single_precision_float64_is_float32() -> None:
    import tensorflow as tf

    from kerastoolkit.export._tensorflow import Function

    for operation, arrays in ((g.Cast("float64"), [_ROWS]), (g.Lookup(np.array([0.5, 7.0])), [_PLACES])):
        function = Function(_graph(operation, arrays), single=True)
        assert function([tf.constant(one) for one in arrays])["y"].dtype == tf.float32


def test_litert_computes_what_numpy_computes(tmp_path: Path) -> None:
    # All operations in one file: a conversion takes its time.
    tf = pytest.importorskip("tensorflow")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install kerastoolkit[litert]")
    from kerastoolkit.export._litert import _can
    from kerastoolkit.export._tensorflow import SIGNATURE, Function, write_saved_model

    graph, rows, expected = g.Graph(), {}, {}
    for place, (operation, arrays) in enumerate(CASES):
        single = [array.astype("float32") if array.dtype == np.float64 else array for array in arrays]
        values = [
            graph.input(f"x_{place}_{number}", "string" if one.dtype == object else one.dtype.name, one.shape[1:])
            for number, one in enumerate(single)
        ]
        output = graph.add(operation, *values)
        if not _can(graph.nodes[-1]):
            graph.nodes.pop()
            del graph.inputs[-len(values) :]
            continue
        graph.outputs[f"y_{place}"] = output
        rows.update({value.name: array for value, array in zip(values, single, strict=True)})
        expected[f"y_{place}"] = _expected(operation, single)
    graph.outputs["y_of_any_size"] = graph.add(
        g.ResizeImages(7, 3), graph.input("x_of_any_size", "uint8", (None, None, 3))
    )
    rows["x_of_any_size"] = _PICTURES
    expected["y_of_any_size"] = _expected(g.ResizeImages(7, 3), [_PICTURES])
    write_saved_model(Function(graph, single=True), tmp_path)
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    made = interpreter.Interpreter(model_content=content).get_signature_runner(SIGNATURE)(**rows)
    for name, want in expected.items():
        if name[2:].isdigit() and isinstance(CASES[int(name[2:])][0], g.Normalize):
            continue  # of rows with gaps, which are no question to it
        _assert_same(made[name], want, 1e-5)


def test_images_of_any_size_are_resized() -> None:
    import tensorflow as tf

    from kerastoolkit.export._tensorflow import Function

    graph = g.Graph()
    graph.outputs = {"y": graph.add(g.ResizeImages(3, 6), graph.input("x", "uint8", (None, None, 3)))}
    made = tf.function(Function(graph), autograph=False)([tf.constant(_PICTURES)])["y"]
    np.testing.assert_allclose(made, g.ResizeImages(3, 6).compute(_PICTURES), atol=1e-3)


def test_an_operation_that_is_not_known_is_refused_by_its_name() -> None:
    from kerastoolkit.export._tensorflow import Function

    class Unheard(g.Cast):
        pass

    with pytest.raises(ExportError, match="Unheard"):
        Function(_graph(Unheard("float32"), [_ROWS]))


def test_categories_that_are_one_number_in_float32_are_refused() -> None:
    import tensorflow as tf

    from kerastoolkit.export._tensorflow import Function

    graph = _graph(g.CategoryIndex((16_777_216.0, 16_777_217.0)), [_ROWS])
    with pytest.raises(ExportError, match="float32"):
        Function(graph, single=True)([tf.constant(_ROWS.astype("float32"))])


def test_mixed_precision_is_computed_in_float32_and_put_back() -> None:
    import keras
    import tensorflow as tf

    from kerastoolkit.export._tensorflow import Function

    def model(policy: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8, "tanh", dtype=policy), keras.layers.Dense(2, dtype=policy)]
        return keras.Sequential([keras.Input((3,)), *layers])

    mixed, plain = model("mixed_float16"), model("float32")
    graph = g.Graph()
    (graph.outputs["y"],) = graph.add_network(g.Network(mixed), graph.input("x", "float32", (3,)))
    x = tf.constant(_WHOLE.astype("float32"))
    np.testing.assert_allclose(Function(graph, single=True)([x])["y"], plain(x), rtol=1e-6)
    assert [layer.compute_dtype for layer in mixed.layers] == ["float16", "float16"]
