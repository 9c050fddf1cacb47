"""Keras models that scikit-learn treats as its own: build, search, evaluate and save them with the tools you know.

The package reads as one story, a room for each step, and a room knows only the rooms before it:

    data          tables, texts and images: how they are read and become arrays, and what of them is held out
    builders      functions that build a model for the data at hand
    distribution  which devices a model trains on, and why
    training      how models are trained: many of them as one program
    transfer      pretrained networks: the zoo of `keras.applications`, features, new networks from trained ones
    estimators    `KerasClassifier`, `KerasRegressor` and `KerasTransformer`, for every search and pipeline;
                  `ImageClassifier` and `ImageRegressor` for images, `TextClassifier` for texts
    search        scikit-learn's searches, trained as one program; `fused()` for everything else that fits many times
    saving        a pipeline, search or ensemble with its networks in one file: `save`, `load`
    evaluation    scores with their spread, beside those of simple baselines
    plotting      figures of the results
    experiment    the whole story in one call, from a table to a report: `run_experiment`
    export        a model in one file for other runtimes, compared with the model: ONNX, LiteRT, TensorFlow.js, ...
    serving       a model behind a URL, and a client that asks it

Rooms and names load when they are first used, so importing is quick and loads neither Keras nor TensorFlow.

Example:
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from kerastoolkit import KerasClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KerasClassifier(hidden=(32,), epochs=60, random_state=0)
    >>> bool(cross_val_score(model, X, y, cv=3).mean() > 0.9)
    True
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from kerastoolkit._quiet import quieten_tensorflow
from kerastoolkit._version import __version__

if TYPE_CHECKING:  # the names as type checkers and editors see them
    from kerastoolkit import (
        builders,
        data,
        distribution,
        estimators,
        evaluation,
        exceptions,
        experiment,
        export,
        plotting,
        saving,
        search,
        serving,
        training,
        transfer,
    )
    from kerastoolkit.estimators import (
        ImageClassifier,
        ImageRegressor,
        KerasClassifier,
        KerasRegressor,
        KerasTransformer,
        TextClassifier,
        from_scikeras,
    )
    from kerastoolkit.experiment import Experiment, load_experiment, run_experiment
    from kerastoolkit.saving import load, save
    from kerastoolkit.search import fused

__all__ = [
    "Experiment",
    "ImageClassifier",
    "ImageRegressor",
    "KerasClassifier",
    "KerasRegressor",
    "KerasTransformer",
    "TextClassifier",
    "__version__",
    "builders",
    "data",
    "distribution",
    "estimators",
    "evaluation",
    "exceptions",
    "experiment",
    "export",
    "from_scikeras",
    "fused",
    "load",
    "load_experiment",
    "plotting",
    "run_experiment",
    "save",
    "saving",
    "search",
    "serving",
    "training",
    "transfer",
]

_ROOM_OF = {
    "Experiment": "experiment",
    "ImageClassifier": "estimators",
    "ImageRegressor": "estimators",
    "KerasClassifier": "estimators",
    "KerasRegressor": "estimators",
    "KerasTransformer": "estimators",
    "TextClassifier": "estimators",
    "from_scikeras": "estimators",
    "fused": "search",
    "load": "saving",
    "load_experiment": "experiment",
    "run_experiment": "experiment",
    "save": "saving",
}

_ROOMS = set(__all__) - _ROOM_OF.keys() - {"__version__"}

quieten_tensorflow()  # here, since it has to be before anything imports TensorFlow


def __getattr__(name: str) -> object:
    """Loads a room, or the room of a name, when it is first asked for."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _ROOM_OF:
        if _ROOM_OF[name] == "estimators":  # so that joblib knows the backend "kerastoolkit" as soon as there are fits
            importlib.import_module(f"{__name__}.search")
        value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
        globals()[name] = value  # found without this function from now on
        return value
    # With `name` and `obj`, Python itself adds the near miss.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return list(__all__)
