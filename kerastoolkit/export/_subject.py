"""What is exported: a fitted estimator, pipeline, search, experiment or Keras model, as a graph with its reference.

The graph is derived from what the fitted object knows of itself (`Fitted`: reader, network, head; the attributes of
scikit-learn's transformers). The reference is the object's own `predict` and `predict_proba`, which every written file
is compared with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from kerastoolkit.export._graph import Graph
from kerastoolkit.export._spec import Spec


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is exported.

    Args:
        graph: From raw input to the answers.
        spec: What the graph takes and answers, in its user's words; inputs and outputs have the names of the graph's.
        predict: What the user's own object answers to rows as its user gives them, by the names of the outputs.
        rows: Makes rows, as the user's own object takes them, of arrays by input (`Spec.arrays` the other way round):
            a data frame, an array, a list of texts, ...
        notes: What was left out, and why, such as layers that only train. Defaults to none.
    """

    graph: Graph
    spec: Spec
    predict: Callable[[Any], dict[str, NDArray[Any]]]
    rows: Callable[[dict[str, NDArray[Any]]], Any]
    notes: tuple[str, ...] = ()


def subject_of(source: Any) -> Subject:
    """Finds out what is to be exported, and refuses what cannot be.

    Args:
        source: A fitted estimator of kerastoolkit; a scikit-learn pipeline or search around one; an experiment; the
            path of a folder of `kerastoolkit search` or of a file of `kerastoolkit.save`; or a built `keras.Model`.

    Raises:
        ExportError: A step, a reader or a layer has no counterpart in a graph; the message names it.
        sklearn.exceptions.NotFittedError: It was not fitted.
    """
    raise NotImplementedError
