"""The jobs of `search.py` and who does them: one process, one job, one line of JSON.

    python benchmarks/_contestants.py --case a --who ours [--scale 0.1]

`search.py` starts this; it is of use by itself to look at one job. A `Case` is data, a network, candidates, folds and
epochs. A contestant is a function that does the whole job of a case: it builds, trains and scores every candidate on
every fold, and returns the score of each candidate. Before the clock starts, everything is imported and loaded, in the
workers of `n_jobs=2` as well.

All of them get the same folds and the same rows in single precision, train the same layers with the same rule of
update, batch size and number of epochs, end in a softmax over the classes (scikit-learn's MLPClassifier: one logistic
unit for two classes), and are scored by the share of right labels.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Candidate = dict[str, Any]  # learning_rate, weight_decay, hidden, cell
Folds = list[tuple[Any, Any]]

# -- cases ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A job.

    Args:
        name: Its letter.
        title: What it is, in words.
        data: Returns rows and labels.
        network: `"mlp"`, `"cnn"` or `"rnn"`.
        candidates: What is searched; a case with one candidate and one fold is one fit.
        epochs: Epochs of each fit.
        batch_size: Rows of a step. Defaults to `32`.
        optimizer: Keras' name of it. Defaults to `"adam"`.
        folds: Folds; with `1`, the first of three. Defaults to `3`.
        rivals_every: Rivals train every so many-th candidate, after one that is not timed, and their times are
            multiplied. Defaults to `1`.
        warm: Whether the same job is done once before the clock starts. Defaults to `False`.
        who: Contestants that take part; None for all that can. Defaults to `None`.
        grows_with: For the points of a curve: what grows, and how far it has grown. Defaults to `None`.
    """

    name: str
    title: str
    data: Callable[[], tuple[Any, Any]]
    network: str
    candidates: list[Candidate]
    epochs: int
    batch_size: int = 32
    optimizer: str = "adam"
    folds: int = 3
    rivals_every: int = 1
    warm: bool = False
    who: tuple[str, ...] | None = None
    grows_with: tuple[str, int] | None = None

    @property
    def n_fits(self) -> int:
        """Fits of the whole job."""
        return len(self.candidates) * self.folds

    def shrunk(self, scale: float) -> Case:
        """The same with fewer candidates and epochs, for a trial; a point of a curve with fewer epochs."""
        if scale >= 1:
            return self
        candidates = self.candidates
        if len(candidates) > 1 and self.grows_with is None:
            n_left = max(2, round(len(candidates) * scale))
            candidates = [candidates[number * len(candidates) // n_left] for number in range(n_left)]
        return dataclasses.replace(self, candidates=candidates, epochs=max(1, round(self.epochs * scale)))


def cancer() -> tuple[Any, Any]:
    """569 rows of 30 measured features, two classes; ships with scikit-learn."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X).astype("float32"), y


def digits() -> tuple[Any, Any]:
    """1797 images of 8 x 8, ten digits; ships with scikit-learn."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype("float32").reshape(-1, 8, 8, 1), y


def wide() -> tuple[Any, Any]:
    """5000 drawn rows with the shape of MNIST: 784 features, ten classes of two clusters each in 40 dimensions."""
    from sklearn.datasets import make_classification
    from sklearn.preprocessing import StandardScaler

    X, y = make_classification(
        5000, 784, n_informative=40, n_redundant=100, n_classes=10, n_clusters_per_class=2, class_sep=2, random_state=0
    )
    return StandardScaler().fit_transform(X).astype("float32"), y


def waves() -> tuple[Any, Any]:
    """1000 drawn sequences of 20 steps of 4 values: noisy waves, three classes by their frequency."""
    import numpy as np

    drawn = np.random.default_rng(0)
    y = drawn.integers(0, 3, 1000)
    phases = drawn.uniform(0, 2 * np.pi, (1000, 1, 4))
    X = np.sin(phases + np.arange(20)[:, None] * (0.3 + 0.5 * y[:, None, None]))
    return (X + drawn.normal(0, 0.9, X.shape)).astype("float32"), y


def rows(n: int) -> tuple[Any, Any]:
    """So many drawn rows of 30 features and two classes, and half as many again to score on."""
    import numpy as np

    drawn = np.random.default_rng(0)
    X = drawn.normal(size=(n + n // 2, 30)).astype("float32")
    return X, (X[:, :10].sum(axis=1) + drawn.normal(size=len(X)) > 0).astype(int)


RATES = [10 ** (-4 + 3 * place / 23) for place in range(24)]
SHAPES = [(8,), (16,), (32,), (64,), (8, 8), (16, 16), (32, 32), (64, 64)]


def _rates(n: int, low: float, high: float) -> list[float]:
    return [10 ** (low + (high - low) * place / max(1, n - 1)) for place in range(n)]


def _grid(**values: Sequence[Any]) -> list[Candidate]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def cases() -> list[Case]:
    """All of them, in the order of the table; the points of the curves last."""
    small = (16, 16)
    one = _grid(hidden=[small], learning_rate=[1e-3])
    found = [
        Case(
            "a",
            "24 learning rates x 3 folds, MLP 16-16, breast cancer, 30 epochs",
            cancer,
            "mlp",
            _grid(hidden=[small], learning_rate=RATES),
            30,
        ),
        Case(
            "b",
            "8 architectures x 3 learning rates x 3 folds, MLP, breast cancer, 30 epochs",
            cancer,
            "mlp",
            _grid(hidden=SHAPES, learning_rate=[1e-3, 3e-3, 1e-2]),
            30,
        ),
        Case(
            "c",
            "12 learning rates x 3 folds, CNN (8 filters 3 x 3, pool, dense 32), digits 8 x 8, 5 epochs",
            digits,
            "cnn",
            _grid(learning_rate=_rates(12, -3.5, -1.5)),
            5,
        ),
        Case(
            "d",
            "6 learning rates x 3 folds, MLP 512-512, 5,000 drawn rows of 784 features and 10 classes, 5 epochs, "
            "batches of 128",
            wide,
            "mlp",
            _grid(hidden=[(512, 512)], learning_rate=_rates(6, -4, -2)),
            5,
            batch_size=128,
        ),
        Case(
            "e",
            "LSTM and GRU of 16 units, 6 learning rates each, x 3 folds, 1,000 drawn sequences of 20 x 4, 5 epochs",
            waves,
            "rnn",
            _grid(cell=["lstm", "gru"], learning_rate=_rates(6, -3, -1.5)),
            5,
        ),
        Case(
            "f1",
            "one fit, the first in its process: MLP 16-16, two thirds of breast cancer, 30 epochs",
            cancer,
            "mlp",
            one,
            30,
            folds=1,
        ),
        Case(
            "f2",
            "one fit, the second of its structure in the process: as f1",
            cancer,
            "mlp",
            one,
            30,
            folds=1,
            warm=True,
        ),
        Case(
            "g",
            "1,000 candidates (40 learning rates x 25 weight decays, AdamW) x 3 folds, MLP 16-16, breast cancer, "
            "30 epochs",
            cancer,
            "mlp",
            _grid(hidden=[small], learning_rate=_rates(40, -4, -1), weight_decay=_rates(25, -5, -1)),
            30,
            optimizer="adamw",
            rivals_every=10,
        ),
    ]
    for n_models in (1, 4, 16, 64, 256, 512):
        grid = _grid(hidden=[small], learning_rate=_rates(n_models, -4, -1))
        found.append(
            Case(
                f"h-models-{n_models}",
                f"{n_models} models of case a, one fold",
                cancer,
                "mlp",
                grid,
                30,
                folds=1,
                who=("ours",),
                grows_with=("models", n_models),
            )
        )
    for n_rows in (100, 1_000, 10_000, 100_000, 1_000_000):
        grid = _grid(hidden=[small], learning_rate=_rates(8, -4, -1))
        found.append(
            Case(
                f"h-rows-{n_rows}",
                f"8 models MLP 16-16, {n_rows:,} rows of 30 features, 2 epochs",
                functools.partial(rows, n_rows),
                "mlp",
                grid,
                2,
                folds=1,
                who=("ours",),
                grows_with=("rows", n_rows),
            )
        )
    return found


def folds_of(case: Case, X: Any, y: Any) -> Folds:
    """The same rows to train and to score on for everybody."""
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))[: case.folds]


def right(estimator: Any, X: Any, y: Any) -> float:
    """The share of right labels, for `scoring`: scikeras' estimators are no classifiers to this scikit-learn."""
    return float((estimator.predict(X).reshape(-1) == y).mean())


# -- networks -------------------------------------------------------------------------------------------------------


def mlp(shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> Any:
    """Dense layers, for Keras."""
    import keras

    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(classes, activation="softmax")])


def cnn(shape: tuple[int, ...], classes: int) -> Any:
    """A small convolutional network, for Keras."""
    import keras

    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def rnn(shape: tuple[int, ...], classes: int, cell: str) -> Any:
    """A recurrent layer of 16 units, for Keras."""
    import keras

    layer = keras.layers.LSTM(16) if cell == "lstm" else keras.layers.GRU(16)
    return keras.Sequential([keras.Input(shape), layer, keras.layers.Dense(classes, activation="softmax")])


NETWORKS: dict[str, Callable[..., Any]] = {"mlp": mlp, "cnn": cnn, "rnn": rnn}


def keras_model(case: Case, candidate: Candidate, shape: tuple[int, ...], classes: int, loss: str) -> Any:
    """A compiled model of a candidate."""
    import keras

    names = {name: candidate[name] for name in ("hidden", "cell") if name in candidate}
    model = NETWORKS[case.network](shape, classes, **names)
    rule = {name: candidate[name] for name in ("learning_rate", "weight_decay") if name in candidate}
    optimizer = keras.optimizers.AdamW(**rule) if case.optimizer == "adamw" else keras.optimizers.Adam(**rule)
    model.compile(optimizer, loss)
    return model


def torch_network(case: Case) -> Any:
    """The class of the same network for torch. It ends in logits, as torch's loss wants."""
    from torch import nn

    class Mlp(nn.Module):  # type: ignore[misc]
        def __init__(self, shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> None:
            super().__init__()
            widths = [shape[0], *hidden]
            parts: list[Any] = []
            for before, after in itertools.pairwise(widths):
                parts += [nn.Linear(before, after), nn.ReLU()]
            self.all = nn.Sequential(*parts, nn.Linear(widths[-1], classes))

        def forward(self, X: Any) -> Any:
            return self.all(X)

    class Cnn(nn.Module):  # type: ignore[misc]
        def __init__(self, shape: tuple[int, ...], classes: int) -> None:
            super().__init__()
            side = (shape[0] - 2) // 2
            self.all = nn.Sequential(
                nn.Conv2d(shape[-1], 8, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(8 * side * side, 32),
                nn.ReLU(),
                nn.Linear(32, classes),
            )

        def forward(self, X: Any) -> Any:
            return self.all(X.movedim(-1, 1))

    class Rnn(nn.Module):  # type: ignore[misc]
        def __init__(self, shape: tuple[int, ...], classes: int, cell: str) -> None:
            super().__init__()
            kind = nn.LSTM if cell == "lstm" else nn.GRU
            self.cell, self.last = kind(shape[-1], 16, batch_first=True), nn.Linear(16, classes)

        def forward(self, X: Any) -> Any:
            return self.last(self.cell(X)[0][:, -1])

    return {"mlp": Mlp, "cnn": Cnn, "rnn": Rnn}[case.network]


# -- contestants ----------------------------------------------------------------------------------------------------

Job = Callable[[Case, list[Candidate], Any, Any, Folds], list[float]]


def _searched(
    estimator: Any, names: Mapping[str, str], candidates: list[Candidate], X: Any, y: Any, folds: Folds, n_jobs: Any
) -> list[float]:
    """scikit-learn's grid search over an estimator, or one fit; `names` are its names of what is searched."""
    from sklearn.model_selection import GridSearchCV

    grids = [{names[name]: [value] for name, value in candidate.items()} for candidate in candidates]
    if len(grids) == len(folds) == 1:
        (train, test), parameters = folds[0], {name: value for name, (value,) in grids[0].items()}
        return [right(estimator.set_params(**parameters).fit(X[train], y[train]), X[test], y[test])]
    search = GridSearchCV(
        estimator, grids, scoring=right, cv=folds, n_jobs=n_jobs, refit=False, error_score="raise"
    ).fit(X, y)
    return [float(score) for score in search.cv_results_["mean_test_score"]]


_KERAS_NAMES = {
    "learning_rate": "optimizer__learning_rate",
    "weight_decay": "optimizer__weight_decay",
    "hidden": "model__hidden",
    "cell": "model__cell",
}


def _parameters(case: Case, candidate: Candidate, X: Any, y: Any) -> dict[str, Any]:
    """Arguments of our estimator and of scikeras', which are the same."""
    import numpy as np

    return {
        "model": NETWORKS[case.network],
        "model__shape": X.shape[1:],
        "model__classes": len(np.unique(y)),
        "optimizer": case.optimizer,
        "loss": "sparse_categorical_crossentropy",
        "epochs": case.epochs,
        "batch_size": case.batch_size,
        "verbose": 0,
        **{_KERAS_NAMES[name]: value for name, value in candidate.items()},
    }


FUSED = "kerastoolkit.search.backend"  # the one place that knows where `fused` is imported from


def fused() -> contextlib.AbstractContextManager[Any]:
    """Our block, inside which fits are trained together."""
    return importlib.import_module(FUSED).fused()  # type: ignore[no-any-return]


def ours(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds) -> list[float]:
    """scikit-learn's GridSearchCV over our KerasClassifier inside `fused()`; one fit outside of it."""
    from kerastoolkit import KerasClassifier

    estimator = KerasClassifier(**_parameters(case, candidates[0], X, y))
    with contextlib.nullcontext() if case.n_fits == 1 else fused():
        return _searched(estimator, _KERAS_NAMES, candidates, X, y, folds, None)


def scikeras(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds, n_jobs: int) -> list[float]:
    """scikit-learn's GridSearchCV over scikeras' KerasClassifier."""
    from scikeras.wrappers import KerasClassifier

    estimator = KerasClassifier(**_parameters(case, candidates[0], X, y))
    return _searched(estimator, _KERAS_NAMES, candidates, X, y, folds, n_jobs)


def keras_wrapper(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds) -> list[float]:
    """scikit-learn's GridSearchCV over Keras' SKLearnClassifier, which a subclass makes train its epochs.

    `clone` forgets its `fit_kwargs`, so that every fit of a search would train one epoch. It also refuses rows of more
    than one axis; they are handed over flat, and the first layer gives them their form again.
    """
    import keras

    shape = X.shape[1:]

    class Trained(keras.wrappers.SKLearnClassifier):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            return super().fit(X, y, epochs=case.epochs, batch_size=case.batch_size, verbose=0)

    def build(X: Any, y: Any, candidate: Candidate) -> Any:
        model = keras_model(case, candidate, shape, y.shape[1], "categorical_crossentropy")
        if len(shape) == 1:
            return model
        optimizer = model.optimizer
        model = keras.Sequential([keras.Input((X.shape[1],)), keras.layers.Reshape(shape), *model.layers])
        model.compile(optimizer, "categorical_crossentropy")
        return model

    flat = X.reshape(len(X), -1)
    whole = [{"model_kwargs": {"candidate": candidate}} for candidate in candidates]
    return _searched(Trained(build), {"model_kwargs": "model_kwargs"}, whole, flat, y, folds, 1)


def skorch(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds, n_jobs: int) -> list[float]:
    """scikit-learn's GridSearchCV over skorch's NeuralNetClassifier."""
    import numpy as np
    import torch
    from skorch import NeuralNetClassifier

    names = {
        "learning_rate": "lr",
        "weight_decay": "optimizer__weight_decay",
        "hidden": "module__hidden",
        "cell": "module__cell",
    }
    estimator = NeuralNetClassifier(
        torch_network(case),
        module__shape=X.shape[1:],
        module__classes=len(np.unique(y)),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW if case.optimizer == "adamw" else torch.optim.Adam,
        max_epochs=case.epochs,
        batch_size=case.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    return _searched(estimator, names, candidates, X, y.astype("int64"), folds, n_jobs)


def mlp_classifier(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds, n_jobs: int) -> list[float]:
    """scikit-learn's GridSearchCV over its own MLPClassifier. It has no AdamW: `alpha` stands for the weight decay."""
    from sklearn.neural_network import MLPClassifier

    names = {"learning_rate": "learning_rate_init", "weight_decay": "alpha", "hidden": "hidden_layer_sizes"}
    estimator = MLPClassifier(
        solver="adam",
        alpha=0.0,
        batch_size=case.batch_size,
        max_iter=case.epochs,
        tol=0.0,
        n_iter_no_change=case.epochs + 1,
    )
    return _searched(estimator, names, candidates, X, y, folds, n_jobs)


def keras_tuner(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds) -> list[float]:
    """KerasTuner's GridSearch over the numbers of the candidates, each trial a cross-validation of plain Keras fits.

    It writes its trials to a directory, as it does for everybody; nothing is saved of the models.
    """
    import keras_tuner
    import numpy as np

    classes = len(np.unique(y))
    loss = "sparse_categorical_crossentropy"

    class CrossValidated(keras_tuner.HyperModel):  # type: ignore[misc]
        def build(self, hp: Any) -> Any:
            number = hp.Choice("candidate", list(range(len(candidates))))
            return keras_model(case, candidates[number], X.shape[1:], classes, loss)

        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            scores = []
            for number, (train, test) in enumerate(folds):
                model = model if number == 0 else self.build(hp)
                model.fit(X[train], y[train], epochs=case.epochs, batch_size=case.batch_size, verbose=0)
                scores.append(float((model.predict(X[test], verbose=0).argmax(axis=1) == y[test]).mean()))
            return {"score": float(np.mean(scores))}

    with tempfile.TemporaryDirectory() as directory:
        objective = keras_tuner.Objective("score", "max")
        tuner = keras_tuner.GridSearch(CrossValidated(), objective=objective, directory=directory, overwrite=True)
        tuner.search(verbose=0)
        trials = tuner.oracle.trials.values()
        return [trial.score for trial in sorted(trials, key=lambda one: one.hyperparameters.get("candidate"))]


def plain_keras(case: Case, candidates: list[Candidate], X: Any, y: Any, folds: Folds) -> list[float]:
    """Keras without anything around it: build, compile, `Model.fit`, `Model.predict`."""
    import numpy as np

    (train, test), shape, classes = folds[0], X.shape[1:], len(np.unique(y))
    model = keras_model(case, candidates[0], shape, classes, "sparse_categorical_crossentropy")
    model.fit(X[train], y[train], epochs=case.epochs, batch_size=case.batch_size, verbose=0)
    return [float((model.predict(X[test], verbose=0).argmax(axis=1) == y[test]).mean())]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Who does jobs.

    Args:
        title: Its name in the table.
        job: Does a job.
        imports: Modules that are imported before the clock starts; without one of them it is skipped.
        n_jobs: Processes that work. Defaults to `1`.
        networks: Networks that it has; who lacks one has dense layers only. Defaults to all.
        single: Whether it also does, or only does, a single fit: `"also"`, `"only"` or `"never"`. Defaults to
            `"also"`.
    """

    title: str
    job: Job
    imports: tuple[str, ...]
    n_jobs: int = 1
    networks: tuple[str, ...] = ("mlp", "cnn", "rnn")
    single: str = "also"

    def reason_against(self, case: Case) -> str | None:
        """Why it does not do a job, in words; None if it does. An empty reason is not worth a line."""
        is_single = case.n_fits == 1
        if self.single == ("never" if is_single else "only"):
            return ""
        if case.network not in self.networks:
            return "has dense layers only"
        missing = [name for name in self.imports if importlib.util.find_spec(name.split(".")[0]) is None]
        return f"not installed: {', '.join(missing)} (see benchmarks/requirements.txt)" if missing else None


_SKLEARN = "sklearn.model_selection"
_KERAS = ("tensorflow", "keras")
_TORCH = ("torch", "torch._dynamo", "skorch", _SKLEARN)  # the first optimizer would import the second
CONTESTANTS = {
    "ours": Contestant("kerastoolkit", ours, (*_KERAS, _SKLEARN, "kerastoolkit.estimators", FUSED)),
    "keras": Contestant("Keras, `Model.fit`", plain_keras, _KERAS, single="only"),
    "scikeras": Contestant(
        "scikeras, n_jobs=1", functools.partial(scikeras, n_jobs=1), (*_KERAS, _SKLEARN, "scikeras.wrappers")
    ),
    "scikeras-2": Contestant(
        "scikeras, n_jobs=2",
        functools.partial(scikeras, n_jobs=2),
        (*_KERAS, _SKLEARN, "scikeras.wrappers"),
        n_jobs=2,
        single="never",
    ),
    "keras-wrapper": Contestant("Keras' SKLearnClassifier", keras_wrapper, (*_KERAS, _SKLEARN)),
    "keras-tuner": Contestant(
        "KerasTuner", keras_tuner, (*_KERAS, _SKLEARN, "keras_tuner", "tensorboard.plugins.hparams.api"), single="never"
    ),
    "skorch": Contestant("skorch, n_jobs=1", functools.partial(skorch, n_jobs=1), _TORCH),
    "skorch-2": Contestant(
        "skorch, n_jobs=2",
        functools.partial(skorch, n_jobs=2),
        _TORCH,
        n_jobs=2,
        single="never",
    ),
    "sklearn": Contestant(
        "MLPClassifier, n_jobs=1",
        functools.partial(mlp_classifier, n_jobs=1),
        (_SKLEARN, "sklearn.neural_network"),
        networks=("mlp",),
    ),
    "sklearn-2": Contestant(
        "MLPClassifier, n_jobs=2",
        functools.partial(mlp_classifier, n_jobs=2),
        (_SKLEARN, "sklearn.neural_network"),
        n_jobs=2,
        networks=("mlp",),
        single="never",
    ),
}

# -- measuring ------------------------------------------------------------------------------------------------------


def _children() -> list[Any]:
    import psutil

    return psutil.Process().children(recursive=True)


def cpu_seconds() -> float:
    """CPU time of this process, of its children that live and of those that have ended."""
    total = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(whose)
        total += used.ru_utime + used.ru_stime
    for child in _children():
        times = child.cpu_times()
        total += times.user + times.system
    return total


def peak_mb() -> float:
    """Peak resident memory of this process and of its children that live, MB, summed.

    Linux' own count for each process. `ru_maxrss` of children is that of the largest alone, and begins at the memory
    of the parent that started it; it serves where there is nothing else.
    """
    try:
        total = 0
        for pid in ("self", *(child.pid for child in _children())):
            with open(f"/proc/{pid}/status") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        return total / 1024
    except OSError:
        size = 2**20 if sys.platform == "darwin" else 2**10
        parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return float(sum(resource.getrusage(whose).ru_maxrss for whose in parts) / size)


def _import(names: Sequence[str], pause: float = 0.0) -> None:
    for name in names:
        importlib.import_module(name)
    time.sleep(pause)


def prepare(who: Contestant) -> None:
    """Imports what a job needs, in the workers as well, so that both of them are there."""
    import numpy as np

    warnings.simplefilter("ignore")
    _import([*who.imports, "psutil"])
    np.random.seed(0)
    if "keras" in who.imports:
        import keras

        keras.utils.set_random_seed(0)
        keras.config.disable_interactive_logging()
    if "torch" in who.imports:
        import torch

        torch.manual_seed(0)
    if who.n_jobs > 1:
        from joblib import Parallel, delayed

        tasks = (delayed(_import)(who.imports, 1.0) for _ in range(who.n_jobs))
        Parallel(n_jobs=who.n_jobs)(tasks)


def measured(case: Case, name: str) -> dict[str, Any]:
    """Does a job and says what it took."""
    who = CONTESTANTS[name]
    prepare(who)
    X, y = case.data()
    folds = folds_of(case, X, y)
    candidates = case.candidates
    if name != "ours" and case.rivals_every > 1:
        candidates = candidates[:: case.rivals_every]
        who.job(case, candidates[:1], X, y, folds)  # what is done once in a process must not be multiplied
    if case.warm:
        who.job(case, candidates, X, y, folds)
    before, cpu, begun = peak_mb(), cpu_seconds(), time.perf_counter()
    scores = who.job(case, candidates, X, y, folds)
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu": cpu_seconds() - cpu,
        "peak_mb": peak_mb(),
        "before_mb": before,
        "best": max(scores),
        "mean": sum(scores) / len(scores),
        "scores": scores,
        "times": len(case.candidates) / len(candidates),
    }


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Sends what anybody prints to nowhere; yields the file number of the true standard output."""
    sys.stdout.flush()
    true, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield true
    finally:
        sys.stdout.flush()
        os.dup2(true, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Does one job of search.py in this process.")
    parser.add_argument("--case", required=True, choices=[case.name for case in cases()])
    parser.add_argument("--who", required=True, choices=list(CONTESTANTS))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    case = next(case for case in cases() if case.name == options.case).shrunk(options.scale)
    with silent():
        result = measured(case, options.who)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
