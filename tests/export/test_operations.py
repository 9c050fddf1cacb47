"""Each operation of a graph as ONNX nodes, run by onnxruntime, against what it computes with NumPy."""

import numpy as np
import pytest

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph
from kerastoolkit.export._graph import Graph

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'kerastoolkit[onnx]'")
pytest.importorskip("onnx", reason="pip install 'kerastoolkit[onnx]'")


def run(operation, *arrays, shapes=None):
    """What ONNX makes of arrays, and what NumPy makes of them."""
    from kerastoolkit.export._onnx.operations import write_operation
    from kerastoolkit.export._onnx.writer import Writer

    graph, writer = Graph(), Writer()
    inputs = []
    for place, array in enumerate(arrays):
        dtype = "string" if array.dtype == object else array.dtype.name
        shape = array.shape[1:] if shapes is None else shapes[place]
        inputs.append(graph.input(f"x{place}", dtype, shape))
        writer.input(f"x{place}", dtype, shape)
    output = graph.add(operation, *inputs)
    name = write_operation(writer, graph.nodes[0], [value.name for value in inputs])
    writer.output("y", name, output.dtype, output.shape)
    session = onnxruntime.InferenceSession(writer.model("one").SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(["y"], {f"x{place}": array for place, array in enumerate(arrays)})
    with np.errstate(all="ignore"):
        wanted = operation.compute(*arrays)
    assert made.shape == wanted.shape
    assert output.dtype == ("string" if made.dtype == object else made.dtype.name)
    return made, wanted


NAN, RNG = np.nan, np.random.default_rng(0)
NUMBERS = RNG.normal(size=(7, 3)) * [1, 10, 1e-9]
GAPS = np.where(RNG.random((7, 3)) < 0.3, NAN, NUMBERS)
TEXTS = np.array([["b", ""], ["a", "a"], ["ü", "zz"]], dtype=object)
SHARES = np.array([[0.2, 0.3, 0.5], [0.0, 0.0, 0.0], [0.9, 0.9, 0.1]])

CASES = {
    "cast": (_graph.Cast("int64"), NUMBERS),
    "reshape to a column": (_graph.Reshape((1,)), NUMBERS[:, 0]),
    "reshape to none": (_graph.Reshape(()), NUMBERS[:, :1]),
    "concatenate": (_graph.Concatenate(), NUMBERS, GAPS),
    "concatenate texts": (_graph.Concatenate(), TEXTS, TEXTS),
    "take": (_graph.Take((2, 0, 0)), NUMBERS),
    "take texts": (_graph.Take((1,)), TEXTS),
    "is missing": (_graph.IsMissing(), GAPS),
    "is missing, of texts": (_graph.IsMissing(), TEXTS),
    "fill missing": (_graph.FillMissing(np.array([1.0, 2.0, 3.0])), GAPS),
    "fill missing by one": (_graph.FillMissing(np.array(7.0)), GAPS[:, 0]),
    "fill missing texts": (_graph.FillMissing(np.array(["p", "q"], object)), TEXTS),
    "categories of text": (_graph.CategoryIndex(("a", "ü"), 2, 1, 0), TEXTS),
    "categories of numbers": (_graph.CategoryIndex((0.1, 3.0, 2.0**40 + 1), 2, 1, 0),
                              np.array([[0.1, 3], [NAN, 2.0**40 + 1], [np.float32(0.1), 2.0**40]])),
    "no category": (_graph.CategoryIndex((), 2, 1, 0), TEXTS),
    "lookup of texts": (_graph.Lookup(np.array(["no", "yes"], object)), np.array([1, 0, 1])),
    "lookup of rows": (_graph.Lookup(np.eye(3)), np.array([[1, 0], [2, 2]])),
    "lookup of truth": (_graph.Lookup(np.array([False, True])), np.array([1, 0, 1])),
    "bin": (_graph.Bin((np.array([0.0, 1.0]), np.array([-1.0]), np.array([1e-9, 2e-9, 3e-9]))), NUMBERS),
    "bin at edges": (_graph.Bin((np.array([0.0, 1.0]),)), np.array([[0.0], [1.0], [0.5], [-1.0]])),
    "bin at edges, right": (_graph.Bin((np.array([0.0, 1.0]),), True), np.array([[0.0], [1.0], [0.5], [-1.0]])),
    "standardize": (_graph.Standardize(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])), GAPS),
    "affine": (_graph.Affine(np.array([1.0, 2.0, 3.0]), np.array(1.0)), GAPS),
    "affine of nothing": (_graph.Affine(np.array(1.0), np.array(0.0)), GAPS),
    "clip": (_graph.Clip(np.array(-1.0), np.array([0.5, np.inf, 0.0])), GAPS),
    **{f"function {name}": (_graph.Function(name), NUMBERS) for name in _graph.FUNCTIONS},
    "add": (_graph.Add(), NUMBERS, NUMBERS, GAPS),
    "multiply": (_graph.Multiply(), NUMBERS, GAPS[:, :1]),
    "matmul": (_graph.MatMul(RNG.normal(size=(3, 2)), np.array([0.0, 1.0])), NUMBERS),
    "polynomial": (_graph.Polynomial(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 1], [0, 3, 0]])), NUMBERS),
    "interpolate": (_graph.Interpolate((np.array([-1.0, 0.0, 0.0, 2.0]), np.array([0.0, 5.0]), np.array([1.0])),
                                       (np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, -1.0]), np.array([4.0]))),
                    np.vstack([NUMBERS, [[0, 5, 0], [2, 0, 1], [-1, 9, 2]]])),
    "yeo-johnson": (_graph.YeoJohnson(np.array([0.0, 2.0, 0.7])), NUMBERS),
    "normalize l1": (_graph.Normalize("l1"), SHARES),
    "normalize l2": (_graph.Normalize("l2"), SHARES),
    "normalize max": (_graph.Normalize("max"), SHARES),
    "repeat channels": (_graph.RepeatChannels(3), RNG.random((2, 4, 5, 1)).astype("float32")),
    "softmax": (_graph.Softmax(), NUMBERS),
    "cumulative minimum": (_graph.CumulativeMin(), RNG.random((4, 11)).astype("float32")),
    "above": (_graph.Above(0.5), SHARES),
    "sum": (_graph.Sum(), SHARES),
    "sum of whole numbers": (_graph.Sum(), np.array([[1, 0, 1]])),
    "largest": (_graph.ArgMax(), SHARES),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operation_answers_in_onnx_as_in_numpy(case):
    operation, *arrays = CASES[case]
    for rows in (slice(None), slice(0, 1), slice(0, 0)):
        made, wanted = run(operation, *(array[rows] for array in arrays))
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(made, wanted, rtol=1e-13 if wanted.dtype == "float64" else 1e-6, atol=0)
        else:
            assert made.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ["abs", "expm1", "log1p", "sigmoid"])
def test_functions_keep_their_limits(name):
    x = np.array([[np.inf], [-np.inf], [0.0], [-0.5], [0.5], [700.0], [1e-300], [NAN]])
    made, wanted = run(_graph.Function(name), x)
    np.testing.assert_allclose(made, wanted, rtol=1e-13)


WORDS = ("film", "good", "über", "don", "film_film", "3d", "and")
MANY = np.array(
    ["a good film and a good one", "", "x", "ÜBER good", "don't", "film_film 3D!", "unknown words", "good\nfilm\tand"],
    dtype=object,
)  # fmt: skip


@pytest.mark.parametrize("max_length", [1, 4, 9])
def test_words_get_their_numbers(max_length):
    for texts in (MANY, MANY[1:2], MANY[:1]):
        made, wanted = run(_graph.TokenIds(WORDS, max_length), texts)
        assert made.tolist() == wanted.tolist()


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("lowercase", [True, False])
def test_words_are_counted(ngrams, lowercase):
    words = ("good film", "film", "Über", "über", "film and good", "and good") if ngrams[1] > 1 else WORDS
    for texts in (MANY, MANY[1:2], MANY[:1]):
        made, wanted = run(_graph.WordCounts(words, ngrams, lowercase), texts)
        assert made.tolist() == wanted.tolist()


def test_every_letter_is_read_as_python_reads_it_but_for_those_that_are_told():
    import unicodedata

    from kerastoolkit.export._onnx.operations import notes_of

    letters = [chr(code) for code in range(1, 0x10000) if not 0xD800 <= code <= 0xDFFF]
    odd = {"\u0130"}  # whose small letter is two characters in Python
    letters = [one for one in letters if one not in odd and unicodedata.category(one) != "Cn"]
    texts = np.array([f"xx{one}yy" for one in letters], dtype=object)
    made, wanted = run(_graph.WordCounts(("xx", "yy", "xxayy", "xxéyy"), (1, 1)), texts)
    assert (made == wanted).all()
    (made,), (wanted,) = run(_graph.WordCounts(("οδος", "οδοσ"), (1, 1)), np.array(["ΟΔΟΣ οδος"], dtype=object))
    assert wanted.tolist() == [2, 0] and made.tolist() == [1, 1]
    for words, n_notes in ((("οδος",), 1), (("ışık",), 1), (("film",), 0)):
        graph = Graph()
        graph.add(_graph.WordCounts(words, (1, 1)), graph.input("text", "string"))
        assert len(notes_of(graph)) == n_notes


def test_numbers_of_ngrams_in_their_order_are_refused():
    with pytest.raises(ExportError, match="ngram_range"):
        run(_graph.TokenIds(("good film",), 3, (1, 2)), MANY)


@pytest.mark.parametrize("size", [(9, 13), (40, 21), (16, 16)])
@pytest.mark.parametrize("known", [True, False])
def test_images_of_any_size_are_resized(size, known):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype("uint8")
    made, wanted = run(_graph.ResizeImages(16, 16), images, shapes=None if known else [(None, None, 3)])
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.parametrize("size", [(9, 13), (80, 100), (300, 20)])
def test_images_are_resized_as_keras_resizes_them(size):
    import keras

    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype("float32")
    wanted = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (32, 24), antialias=True))
    np.testing.assert_allclose(_graph.ResizeImages(32, 24).compute(images), wanted, atol=5e-3)


def test_each_operation_but_a_network_has_its_nodes():
    from kerastoolkit.export._onnx.operations import _WRITERS

    assert set(_graph.Operation.__subclasses__()) - set(_WRITERS) == {_graph.Network}
