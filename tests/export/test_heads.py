"""What the output of a network means, in a graph and by the head itself, for outputs of every kind."""

import dataclasses
import itertools

import numpy as np
import pytest

from kerastoolkit.builders import Head, HeadGroup, head
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import Graph
from kerastoolkit.export._heads import answers_of_head, scores

WORDS = np.array(["bad", "fair", "good"])


def probabilities(units):
    raw = np.random.default_rng(0).random((9, units)).astype("float32")
    raw[:3] = [[0.5] * units, [1.0] * units, [0.25] * units]
    return raw


def softmax(units):
    raw = np.exp(4 * np.random.default_rng(1).normal(size=(9, units)))
    return (raw / raw.sum(axis=1, keepdims=True)).astype("float32")


def logits(units):
    raw = 4 * np.random.default_rng(2).normal(size=(9, units))
    raw[:2] = [[0.0] * units, [60.0] * units]
    return raw.astype("float32")


def replaced(made, **options):
    return dataclasses.replace(made, **options)


CASES = {
    "binary": (Head.binary(["no", "yes"]), probabilities(1)),
    "binary, of truth": (Head.binary([False, True]), probabilities(1)),
    "binary, logits": (replaced(Head.binary(), output="logit"), logits(1)),
    "binary, margins": (replaced(Head.binary(), output="margin"), logits(1)),
    "binary, fitted to 0 and 1": (replaced(Head.binary(), output="value"), logits(1)),
    "binary, two units": (replaced(Head.binary(["a", "b"]), units=2, encoding="numbers"), softmax(2)),
    "binary, two logits": (replaced(Head.binary(["a", "b"]), units=2, output="logit"), logits(2)),
    "multiclass": (Head.multiclass(WORDS), softmax(3)),
    "multiclass, not adding up": (Head.multiclass(WORDS), np.vstack([probabilities(3), np.zeros((1, 3), "float32")])),
    "multiclass, logits": (replaced(Head.multiclass(WORDS), output="logit"), logits(3)),
    "multiclass, margins": (replaced(Head.multiclass(3), output="margin"), logits(3)),
    "one-hot": (replaced(Head.multiclass(3), one_hot=True, flat=False), softmax(3)),
    "multiclass, of decimals": (Head.multiclass(np.array([0.5, 1.5, 7.0])), softmax(3)),
    "multilabel": (Head.multilabel(3), probabilities(3)),
    "multilabel, logits": (replaced(Head.multilabel(3), output="logit"), logits(3)),
    "multilabel, one label": (Head.multilabel(1), probabilities(1)),
    "ordinal": (Head.ordinal(WORDS), probabilities(2)),
    "ordinal, logits": (replaced(Head.ordinal(WORDS), output="logit"), logits(2)),
    "ordinal, five": (Head.ordinal(5), probabilities(4)),
    "regression": (Head.regression(), logits(1)),
    "regression, float64 in another unit": (
        head(np.array([1e9, 1e9 + 1, 1e9 + 5]), kind="regression", standardize=True), logits(1)
    ),
    "regression, of three": (head(np.arange(9.0).reshape(3, 3) * 1e3, kind="regression", standardize=True), logits(3)),
    "regression, of matrices": (head(np.arange(12.0).reshape(3, 2, 2), kind="regression"), logits(4)),
    "counts": (head(np.array([0.0, 2.0, 9.0]), kind="counts", standardize=True), np.exp(logits(1) / 30)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_output_is_decoded_as_the_head_decodes_it(case):
    one, raw = CASES[case]
    graph = Graph()
    value = graph.input("raw", "float32", raw.shape[1:])
    (answer,) = answers_of_head(graph, one, [value], is_softmax=[case == "multiclass"])
    graph.outputs["value"] = answer.value
    if answer.probabilities is not None:
        graph.outputs["probabilities"] = answer.probabilities
    made = graph.compute({"raw": raw})
    wanted = one.decode(raw)
    assert made["value"].shape == wanted.shape and answer.value.shape == wanted.shape[1:]
    if one.classes is None:
        np.testing.assert_allclose(made["value"], wanted, rtol=1e-6 if wanted.dtype == "float32" else 1e-15)
    else:
        assert made["value"].tolist() == wanted.tolist()
        assert list(answer.classes) == one.classes.tolist()
    if one.classes is not None and one.output in ("probability", "logit"):
        np.testing.assert_allclose(made["probabilities"], one.probabilities(raw), atol=2e-7)
    else:
        assert answer.probabilities is None


@pytest.mark.parametrize("case", [case for case, (one, _) in CASES.items() if one.kind in ("binary", "multiclass")])
def test_scores_are_those_of_the_head(case):
    one, raw = CASES[case]
    if one.one_hot:
        return
    graph = Graph()
    (answer,) = answers_of_head(graph, one, [graph.input("raw", "float32", raw.shape[1:])], is_softmax=[False])
    graph.outputs["scores"] = scores(graph, answer)
    made = graph.compute({"raw": raw})["scores"]
    wanted = one.scores(raw)
    np.testing.assert_allclose(made if wanted.ndim > 1 else made[:, 0], wanted, rtol=1e-12)


def test_a_group_answers_for_each_target():
    y = {"kind": WORDS[[0, 1, 2, 0]], "size": np.array([1.5, 2.0, 5.0, 9.0])}
    group = head(y)
    graph = Graph()
    raw = [softmax(3), logits(1)]
    values = [graph.input(f"raw{place}", "float32", one.shape[1:]) for place, one in enumerate(raw)]
    answers = answers_of_head(graph, group, values, is_softmax=[True, False])
    assert [(answer.target, answer.kind) for answer in answers] == [("kind", "label"), ("size", "number")]
    graph.outputs = {answer.target: answer.value for answer in answers}
    made, wanted = graph.compute({"raw0": raw[0], "raw1": raw[1]}), group.decode(dict(zip(y, raw, strict=True)))
    assert made["kind"].tolist() == wanted["kind"].tolist()
    np.testing.assert_allclose(made["size"], wanted["size"], rtol=1e-6)
    columns = HeadGroup((Head.binary(), Head.multiclass(3)))
    assert [one.target for one in answers_of_head(graph, columns, values[::-1], is_softmax=[False, True])] == [None] * 2


def test_labels_that_no_file_can_hold_are_refused():
    for classes in (np.array([1, "a"], object), np.array([b"a", b"b"])):
        graph = Graph()
        with pytest.raises(ExportError, match="labels"):
            answers_of_head(graph, Head.binary(classes), [graph.input("raw", "float32", (1,))], is_softmax=[False])


def test_no_class_is_left_out_of_these_tests():
    kinds = {(one.kind, one.output) for one, _ in CASES.values()}
    wanted = set(itertools.product(("binary", "multiclass", "multilabel", "ordinal"), ("probability", "logit")))
    assert wanted | {("regression", "value"), ("counts", "value"), ("binary", "margin")} <= kinds


def test_no_input_has_the_name_of_what_is_computed():
    graph = Graph()
    raw = graph.input("computed_1", "float32", (1,))
    (answer,) = answers_of_head(graph, Head.regression(), [raw], is_softmax=[False])
    assert answer.value.name not in ("computed_1", "")
    with pytest.raises(ExportError, match="cannot be called"):
        graph.input(answer.value.name, "float32")
    with pytest.raises(ExportError, match="Two inputs are called 'computed_1'"):
        graph.input("computed_1", "float32")
