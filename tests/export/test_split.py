"""A graph is cut where a target cannot follow, and the parts together answer as the whole."""

from __future__ import annotations

import numpy as np
import pytest

from kerastoolkit.export._graph import (
    ArgMax,
    CategoryIndex,
    Concatenate,
    FillMissing,
    Graph,
    IsMissing,
    Lookup,
    Network,
    Node,
    Reshape,
    Take,
)
from kerastoolkit.export._outside import by_column


def _graph() -> Graph:
    import keras

    keras.utils.set_random_seed(0)
    graph = Graph()
    contract, tenure = graph.input("contract", "string"), graph.input("tenure", "float32")
    index = graph.add(CategoryIndex(("month", "year"), first=1, unseen=0, missing=0), contract)
    vector = graph.add(Lookup(np.eye(3, dtype="float32")), index)
    filled = graph.add(FillMissing(np.array(7.0)), tenure)
    missing = graph.add(IsMissing(), tenure)
    parts = [graph.add(Reshape((1,)), value) for value in (filled, missing)]
    row = graph.add(Concatenate(), vector, *parts)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, activation="softmax")])
    (probabilities,) = graph.add_network(Network(model), row)
    place = graph.add(ArgMax(), probabilities)
    graph.outputs = {"label": graph.add(Lookup(np.array(["no", "yes"], dtype=object)), place)}
    graph.outputs["probabilities"] = probabilities
    return graph


ROWS = {
    "contract": np.array(["year", "month", "", "never"], dtype=object),
    "tenure": np.array([1.0, np.nan, 3.0, 4.0], "float32"),
}


def _no_text(node: Node) -> bool:
    return not any(value.dtype == "string" for value in (*node.inputs, *node.outputs))


@pytest.mark.parametrize("can", [_no_text, lambda node: True, lambda node: isinstance(node.operation, Network)])
def test_the_parts_answer_as_the_whole(can: object) -> None:
    graph = _graph()
    parts = graph.split(can)  # type: ignore[arg-type]
    whole, made = graph.compute(ROWS), parts.compute(ROWS)
    for name in graph.outputs:
        np.testing.assert_array_equal(made[name], whole[name])


def test_what_goes_from_part_to_part_has_the_name_of_what_it_is_made_of() -> None:
    before, inside, behind = _graph().split(_no_text)
    assert [value.name for value in before.inputs] == ["contract"]
    assert [(value.name, value.dtype) for value in inside.inputs] == [("contract", "int64"), ("tenure", "float32")]
    assert list(inside.outputs) == ["label_index", "probabilities"]
    assert [value.name for value in behind.inputs] == ["label_index"]
    assert list(behind.outputs) == ["label"]


def test_only_what_cannot_be_computed_is_outside() -> None:
    before, inside, behind = _graph().split(_no_text)
    assert [type(node.operation) for node in before.nodes] == [CategoryIndex]
    assert [type(node.operation) for node in behind.nodes] == [Lookup]
    assert len(inside.nodes) == len(_graph().nodes) - 2


def test_several_values_of_one_input_have_names_of_their_own() -> None:
    inside = _graph().split(lambda node: isinstance(node.operation, Network)).inside
    assert [value.name for value in inside.inputs] == ["features"]
    inside = _graph().split(lambda node: not isinstance(node.operation, (FillMissing, IsMissing))).inside
    assert [value.name for value in inside.inputs] == ["contract", "tenure", "tenure_2"]


def test_nothing_is_cut_where_everything_can_be_computed() -> None:
    before, inside, behind = _graph().split(lambda node: True)
    assert not before.nodes and not behind.nodes
    assert [value.name for value in inside.inputs] == ["contract", "tenure"]
    assert list(inside.outputs) == ["label", "probabilities"]


def test_texts_are_taken_from_the_columns_that_they_come_from() -> None:
    graph = Graph()
    town, kind = (graph.add(Reshape((1,)), graph.input(name, "string")) for name in ("town", "kind"))
    filled = graph.add(FillMissing(np.array(["Ulm", "b"], dtype=object)), graph.add(Concatenate(), town, kind))
    indices = CategoryIndex(("a", "b"), first=3, unseen=1, missing=0)
    graph.outputs = {
        "kind": graph.add(indices, graph.add(Take((1,)), filled)),
        "has gap": graph.add(CategoryIndex(("a",)), kind),
        "town": graph.add(Take((0,)), filled),
    }
    rows = {
        "town": np.array(["Bonn", "", "Ulm"], dtype=object),
        "kind": np.array(["a", "", "never"], dtype=object),
    }
    made = by_column(graph)
    wanted, found = graph.compute(rows), made.compute(rows)
    assert wanted["kind"].tolist() == [[3], [4], [1]]
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    # what became a number needs no table of texts
    sources = {value.name: node for node in made.nodes for value in node.outputs}
    (index,) = sources[made.outputs["kind"].name].inputs
    assert [value.name for value in sources[index.name].inputs] == ["kind"]
