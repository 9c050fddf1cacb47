"""What is fused, and how near it comes to `Model.fit`: everything in Keras, one thing at a time.

    python benchmarks/parity.py [--backend tensorflow,torch,jax] [--only layers,losses] [--row Dropout] [--missing]

A small network on the wine data is trained as it is, and again with one thing exchanged: each optimizer, each layer,
each loss, each metric, each callback and so on, as far as they are found in Keras' modules, so that a new one shows up
as a row. Two fits (other rates, rows and seeds) are trained by `fit_many`, and each by `Model.fit` of plain Keras
with a generator that yields the rows in the same order. The table says how `fit_many` trained them, and the largest
differences of predictions and of History, beside the largest number of their kind. Where they are larger than 1e-5,
plain Keras trains again from weights changed by a millionth; what that alone changes stands in brackets. What draws
random numbers outside of Keras' seeds depends on how often Keras asks for data and calls the model: there plain Keras
trains again on the same batches from a data set, after it has evaluated the model once and built its optimizer.

Each table of each backend runs in a process of its own. Written to `benchmarks/results/parity.json` after each row,
where rows that are not measured anew stay as they are, and from there to `docs/what_is_fused.md`. Minutes for torch,
half an hour each for TensorFlow and JAX.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_wine

from kerastoolkit.training import Fit, fit_many, fused

BACKENDS = {"tensorflow": "TensorFlow", "torch": "torch", "jax": "JAX"}
VARIANTS = 2
LARGE = 1e-5  # a difference that is held against that of changed weights

INTRODUCTION = """\
# What is fused

A model is trained together with others, as one program, if everything in its `fit` is Keras' own (nearly every layer,
loss, metric and optimizer, in any combination), its data are numpy arrays, and no callback looks at batches. Layers of
your own in a build function are no obstacle, as long as it can be proved from their code what they do. For any fits,
`training.explain(training.fit_many(fits))` says how each of them was trained, and why; so does `explain()` of a search:

- **fused**: together with others, as one program;
- **alone**: one by one, by a program that all models of the structure share, so that only the first is traced;
- **Model.fit**: one by one, by Keras.

On TensorFlow and torch, small networks of nothing but dense layers are computed in numpy; nothing is traced for them:
their layers are `Dense` and `Activation` with relu, sigmoid, tanh or linear units, with or without a softmax at the
end; mean squared and absolute errors and the crossentropies (binary, categorical, sparse); accuracies, these errors and
R2 as metrics; SGD, Adam, AdamW and RMSprop without clipping, averages, schedules or variants; L1 and L2 penalties;
sample weights. Everything else is done by programs, and so is whatever they do more than a second or two faster.

All of this is for Keras 3.12 to 3.15. Any other version of Keras is tested before its first training, which takes some
seconds: if it lacks something that is needed, or if a small model does not end up as it does by `Model.fit`, every
model is trained by `Model.fit`, one by one, and a warning says so.

The tables try the parts of Keras one at a time, with two fits of a small network that has the part. The numbers are the
largest differences from plain `Model.fit` with the rows in the same order, relative to the largest number: *predictions
/ History*. About 1e-7 is the last digit of single precision. A number above 1e-5 is followed by another in brackets:
the difference in plain Keras after its initial weights were changed by a millionth. Where random numbers do not come
from Keras' seeds, they depend on how often Keras calls the model and asks for data; there the number in brackets is the
difference in plain Keras with the same rows in another kind of data set, after it has evaluated the model once and
built its optimizer. The reasons are below each table. An empty cell has not been measured.

Made by `python benchmarks/parity.py`, with Keras {keras}.
"""

LIMITS = """\
## Known limits

- When a program fails in the middle of training, its fits start again in another way, from the weights they had before.
  Their callbacks then see `on_train_begin` and the first epochs twice: a callback may hold anything, so its state
  cannot be put back. Nearly all failures happen in the first step.
- A model with dropout that is pickled or saved and then trained further draws other masks than the same model that was
  not saved: Keras' files hold weights, but not the states of its random generators.
- A sparse matrix that would take more than 64 MiB as a dense one goes to `Model.fit` in batches, and Keras traces a
  program for each fit.
- A layer of your own is fused if it is made in a build function and if its class, the classes above it and what they
  use can be read: no files, clocks, modules other than numpy, Keras and the backends, lists or dicts that may change,
  or numbers that its constructor draws. Otherwise each fit has a program of its own. The same goes for a layer of your
  own in a finished `keras.Model`, since the code that made it is not known.
- When memory runs out, half as many models are tried together, down to one, and then `Model.fit`. This says nothing
  about the model, and is not remembered for later fits.
"""


# -- a case ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """The network of all tables, with one thing exchanged. What is made new for each fit is a function."""

    hidden: Callable[[], list[Any]] | None = None  # from the input to what the output layer gets
    optimizer: Callable[[float], Any] | None = None  # from a learning rate
    loss: Callable[[], Any] | None = None
    metrics: Callable[[], list[Any]] = lambda: ["accuracy"]
    callbacks: Callable[[], list[Any]] = list
    target: str = "labels"
    activation: str = "softmax"
    inputs: str = "table"
    compiled: dict[str, Any] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the fit
    model: Any = None  # a class of models

    def data(self, number: int) -> tuple[Any, Any]:
        """Two thirds of the rows, others for each fit."""
        x, y = self.whole()
        kept = np.flatnonzero(np.arange(len(x)) % 3 != number)
        if keras.config.backend() == "jax" and "batch_size" not in self.options:
            kept = kept[len(kept) % 16 :]  # an incomplete batch is compiled by itself; "others" has some
        return x[kept], y[kept]

    def whole(self) -> tuple[Any, Any]:
        X, labels = load_wine(return_X_y=True)
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        x = (X[:, :6] * 3 % 7).astype("int32") if self.inputs == "words" else X.astype("float32")
        one_hot = np.eye(3, dtype="float32")[labels]
        signs = (2 * one_hot - 1).astype("float32")
        numbers = np.abs(X[:, :3] + one_hot).astype("float32") + 0.1
        sequences = np.stack([labels % 2 + 1, labels // 2 + 1], axis=1).astype("int32")
        targets = {
            "labels": labels.astype("int32"),
            "one hot": one_hot,
            "binary": one_hot[:, :1],
            "signs": signs,
            "numbers": numbers,
            "sequences": sequences,
        }
        return x, targets[self.target]

    def build(self, number: int) -> Any:
        """The compiled model of one fit."""
        random.seed(number)
        x = inputs = keras.Input(self.whole()[0].shape[1:], dtype=self.whole()[0].dtype.name)
        for step in [layers.Dense(8, activation="relu")] if self.hidden is None else self.hidden():
            x = step(x)
        if self.target == "sequences":
            x = layers.Dense(4)(layers.Reshape((4, 2))(x))
        else:
            x = layers.Flatten()(x) if len(x.shape) > 2 else x
            units = {"binary": 1}.get(self.target, 3)
            x = layers.Dense(units, activation=self.activation)(x)
        model = (self.model or keras.Model)(inputs, x)
        rate = 0.01 * (number + 1)
        model.compile(
            optimizer=keras.optimizers.Adam(rate) if self.optimizer is None else self.optimizer(rate),
            loss="sparse_categorical_crossentropy" if self.loss is None else self.loss(),
            metrics=self.metrics(),
            **self.compiled,
        )
        return model


def fitted(case: Case, number: int) -> Fit:
    """One fit of a case, for `fit_many`."""
    given = dict(case.options)
    x, y = case.data(number)
    if given.pop("tf.data", False):
        import tensorflow as tf

        return Fit(case.build(number), tf.data.Dataset.from_tensor_slices((x, y)).batch(16), epochs=2, seed=number)
    if given.pop("weights", False):
        given["sample_weight"] = np.linspace(0.5, 2, len(x)).astype("float32")
    if given.pop("validation", False):
        given["validation_data"] = (x[:20], y[:20])
    given = {"batch_size": 16, "epochs": 2, "callbacks": case.callbacks(), **given}
    return Fit(case.build(number), x, y, seed=number, **given)


def by_keras(fit: Fit, *, nudge: bool = False, from_data_set: bool = False) -> dict[str, Any]:
    """The same by plain Keras: its History."""
    if nudge:
        noise = np.random.default_rng(0)
        for variable in fit.model.trainable_variables:
            value = keras.ops.convert_to_numpy(variable.value)
            variable.assign((value * (1 + 1e-6 * noise.normal(size=value.shape))).astype(value.dtype))
    if from_data_set:
        fit.model.evaluate(fit.x[:1], fit.y[:1], verbose=0)  # builds what the first call of the model builds
        # TensorFlow traces the first step twice where the optimizer is not built, and AugMix draws while it is traced.
        fit.model.optimizer.build(fit.model.trainable_variables)
    keras.utils.set_random_seed(fit.seed)
    given = {
        "epochs": fit.epochs,
        "initial_epoch": fit.initial_epoch,
        "validation_data": fit.validation_data,
        "validation_batch_size": fit.validation_batch_size or fit.batch_size,
        "validation_freq": fit.validation_freq,
        "callbacks": list(fit.callbacks),
        "shuffle": False,
        "verbose": 0,
        **fit.options,
    }
    if fit.y is None:
        return dict(fit.model.fit(fit.x, **given).history)
    parts = [part for part in (fit.x, fit.y, fit.sample_weight) if part is not None]
    weights = given.pop("class_weight", None)
    if weights:
        parts.append(np.vectorize(weights.get)(fit.y).astype("float32"))

    orders = np.random.default_rng((fit.seed, fit.initial_epoch))
    steps = -(-len(fit.x) // fit.batch_size)

    def epoch() -> list[Any]:
        order = orders.permutation(len(fit.x)) if fit.shuffle else np.arange(len(fit.x))
        chosen = [order[fit.batch_size * step : fit.batch_size * (step + 1)] for step in range(steps)]
        return [tuple(part[rows] for part in parts) for rows in chosen]

    def batches() -> Iterator[Any]:
        while True:
            yield from epoch()

    class DataSet(keras.utils.PyDataset):  # type: ignore[misc]
        batches: list[Any] = []

        def __len__(self) -> int:
            return steps

        def __getitem__(self, step: int) -> Any:
            return self.batches[step]

    # Several steps at once would take one too many from batches without end.
    if not from_data_set and fit.model.steps_per_execution == 1:
        return dict(fit.model.fit(batches(), steps_per_epoch=steps, **given).history)

    def reorder(number: int, logs: Any) -> None:
        if number > fit.initial_epoch:  # Keras may ask for a batch before it begins
            DataSet.batches = epoch()

    DataSet.batches = epoch()
    given["callbacks"].append(keras.callbacks.LambdaCallback(on_epoch_begin=reorder))
    return dict(fit.model.fit(DataSet(), **given).history)


def gap(a: Any, b: Any) -> float:
    """The largest difference, beside the largest number."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = a[np.isfinite(b)], b[np.isfinite(b)]
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if len(b) else 0.0


def gaps(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[float, float]:
    """The largest differences of predictions and of History."""
    if set(one[1]) != set(other[1]):
        return gap(one[0], other[0]), float("inf")
    return gap(one[0], other[0]), max(gap(one[1][name], other[1][name]) for name in other[1])


def tried(case: Case) -> list[str]:
    """Three cells: how it was trained, the difference of predictions, and that of History."""
    x, _ = case.whole()

    def outcome(model: Any, history: Any) -> tuple[Any, Any]:
        return keras.ops.convert_to_numpy(model(x, training=False)), history

    def theirs(number: int, **changed: bool) -> tuple[Any, Any]:
        fit = fitted(case, number)
        return outcome(fit.model, by_keras(fit, **changed))

    numbers = range(VARIANTS)
    try:
        expected = [theirs(number) for number in numbers]
    except Exception as error:
        return [f"Keras itself raises {type(error).__name__}", "", ""]
    trained = fit_many([fitted(case, number) for number in numbers])
    for one in trained:
        if one.error is not None:
            return [f"fails: {said(one.error)}", "", ""]
    found = [gaps(outcome(one.model, one.history), other) for one, other in zip(trained, expected, strict=True)]
    worst = [max(column) for column in zip(*found, strict=True)]
    alone = [0.0, 0.0]
    if max(worst) > LARGE:
        changed = {"from_data_set" if any("random" in (one.reason or "") for one in trained) else "nudge": True}
        nudged = [gaps(theirs(number, **changed), expected[number]) for number in numbers]
        alone = [max(column) for column in zip(*nudged, strict=True)]
    ways = {one.how if one.reason is None else f"{one.how}: {one.reason}" for one in trained}
    ways = {re.sub(r"(?<=[a-z])_\d+\b", "", way) for way in ways}  # names that are counted up
    cells = [f"{a:.0e}" + (f" ({b:.0e})" if a > LARGE else "") for a, b in zip(worst, alone, strict=True)]
    return [" / ".join(sorted(ways)), *cells]


def said(error: BaseException) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


# -- everything in Keras --------------------------------------------------------------------------------------------


def classes(module: Any, base: type) -> dict[str, type]:
    """The classes of a module of Keras, each under its own name; not what they have in common."""
    found = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind) and issubclass(kind, base)}
    return {name: kind for name, kind in sorted(found.items()) if kind.__name__ == name and kind is not base}


def optimizer_cases() -> dict[str, Any]:
    scale = {"Adadelta": 100, "Ftrl": 10, "Lion": 0.1}
    cases: dict[str, Any] = {}
    for name, kind in classes(keras.optimizers, keras.optimizers.Optimizer).items():
        factor = scale.get(name, 1)
        cases[name] = Case(optimizer=lambda rate, kind=kind, factor=factor: kind(factor * rate))
    adam, sgd, schedules = keras.optimizers.Adam, keras.optimizers.SGD, keras.optimizers.schedules
    cases["LossScaleOptimizer"] = Case(optimizer=lambda rate: keras.optimizers.LossScaleOptimizer(adam(rate)))
    if "MultiOptimizer" in cases:
        cases["MultiOptimizer"] = "takes other optimizers, by layer"
    arguments: dict[str, Any] = {
        "SGD, momentum": lambda rate: sgd(rate, momentum=0.9),
        "SGD, momentum that differs": lambda rate: sgd(0.01, momentum=0.5 + 10 * rate),
        "SGD, nesterov": lambda rate: sgd(rate, momentum=0.9, nesterov=True),
        "RMSprop, centered": lambda rate: keras.optimizers.RMSprop(rate, centered=True, momentum=0.5),
        "Adam, betas that differ": lambda rate: adam(0.01, beta_1=0.9 - rate, beta_2=0.99 + rate / 10),
        "Adam, amsgrad": lambda rate: adam(rate, amsgrad=True),
        "clipnorm": lambda rate: adam(rate, clipnorm=rate),
        "clipvalue": lambda rate: adam(0.01, clipvalue=0.01),
        "clipvalue that differs": lambda rate: adam(0.01, clipvalue=rate),
        "global_clipnorm": lambda rate: adam(rate, global_clipnorm=rate),
        "weight_decay": lambda rate: adam(0.01, weight_decay=rate),
        "use_ema": lambda rate: adam(rate, use_ema=True, ema_momentum=0.9),
        "use_ema, ema_overwrite_frequency": lambda rate: adam(rate, use_ema=True, ema_overwrite_frequency=3),
        "gradient_accumulation_steps": lambda rate: adam(rate, gradient_accumulation_steps=2),
        "loss_scale_factor": lambda rate: adam(rate, loss_scale_factor=8.0),
    }
    of_schedules = {
        "CosineDecay": (0.02, 20),
        "CosineDecayRestarts": (0.02, 5),
        "ExponentialDecay": (0.02, 5, 0.8),
        "InverseTimeDecay": (0.02, 5, 0.5),
        "PiecewiseConstantDecay": ([4, 9], [0.03, 0.02, 0.01]),
        "PolynomialDecay": (0.02, 20),
    }
    for name, kind in classes(schedules, schedules.LearningRateSchedule).items():
        given = of_schedules.get(name, ())
        arguments[name] = lambda rate, kind=kind, given=given: adam(kind(*given))
    return cases | {name: Case(optimizer=make) for name, make in arguments.items()}


def optimizers_with(hidden: Callable[[], list[Any]], inputs: str) -> dict[str, Any]:
    """Every optimizer on another network: what it does to a weight may depend on what the gradient is."""
    names = classes(keras.optimizers, keras.optimizers.Optimizer)
    cases = {name: case for name, case in optimizer_cases().items() if name in names}
    return {
        name: case if isinstance(case, str) else dataclasses.replace(case, hidden=hidden, inputs=inputs)
        for name, case in cases.items()
    }


def layer_cases() -> dict[str, Any]:
    """Each layer in the middle of the network, on vectors, sequences, images or volumes as it takes them."""

    def shaped(*shape: int) -> list[Any]:
        return [layers.Dense(int(np.prod(shape)), activation="sigmoid"), layers.Reshape(shape)]

    vector, sequence, image, volume = (8,), (8, 2), (6, 6, 3), (4, 4, 4, 2)
    cell = partial(layers.GRUCell, 3)
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "Activation": (vector, {"activation": "tanh"}),
        "ActivityRegularization": (vector, {"l2": 0.01}),
        "AlphaDropout": (vector, {"rate": 0.2}),
        "BatchNormalization": (vector, {}),
        "Dense": (vector, {"units": 5}),
        "Dropout": (vector, {"rate": 0.2}),
        "EinsumDense": (vector, {"equation": "ab,bc->ac", "output_shape": 5}),
        "GaussianDropout": (vector, {"rate": 0.2}),
        "GaussianNoise": (vector, {"stddev": 0.2}),
        "GroupNormalization": (vector, {"groups": 4}),
        "Lambda": (vector, {"function": keras.ops.sin}),
        "Masking": (sequence, {}),
        "Normalization": (vector, {"mean": 0.5, "variance": 0.1}),
        "Permute": (sequence, {"dims": (2, 1)}),
        "RepeatVector": (vector, {"n": 2}),
        "Rescaling": (vector, {"scale": 0.5}),
        "Reshape": (vector, {"target_shape": (4, 2)}),
        "SpectralNormalization": (vector, {"layer": partial(layers.Dense, 5)}),
        "Bidirectional": (sequence, {"layer": partial(layers.GRU, 3)}),
        "RNN": (sequence, {"cell": cell}),
        "StackedRNNCells": (sequence, {}),
        "TimeDistributed": (sequence, {"layer": partial(layers.Dense, 3)}),
        "ConvLSTM1D": ((3, 4, 2), {"filters": 2, "kernel_size": 2}),
        "ConvLSTM2D": ((3, 4, 4, 2), {"filters": 2, "kernel_size": 2}),
        "ConvLSTM3D": ((2, 3, 3, 3, 2), {"filters": 2, "kernel_size": 2}),
        "MultiHeadAttention": (sequence, {"num_heads": 2, "key_dim": 2}),
        "GroupQueryAttention": (sequence, {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1}),
        "Resizing": (image, {"height": 4, "width": 4}),
        "CenterCrop": (image, {"height": 4, "width": 4}),
        "RandomCrop": (image, {"height": 4, "width": 4}),
        "Pipeline": (image, {"layers": lambda: [layers.RandomFlip(), layers.RandomRotation(0.1)]}),
        "RandomBrightness": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomColorDegeneration": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomColorJitter": (image, {"brightness_factor": 0.2, "contrast_factor": 0.2, "value_range": (0, 1)}),
        "RandomContrast": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomHue": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomPosterization": (image, {"factor": 4, "value_range": (0, 1)}),
        "RandomRotation": (image, {"factor": 0.2}),
        "RandomSaturation": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomSharpness": (image, {"factor": 0.2, "value_range": (0, 1)}),
        "RandomShear": (image, {"x_factor": 0.2, "y_factor": 0.2}),
        "RandomTranslation": (image, {"height_factor": 0.2, "width_factor": 0.2}),
        "RandomZoom": (image, {"height_factor": 0.2}),
        "MelSpectrogram": ((64,), {"fft_length": 16, "sequence_stride": 8, "num_mel_bins": 4, "sampling_rate": 64}),
        "STFTSpectrogram": ((64, 1), {"frame_length": 16}),
    }  # fmt: skip
    for rank, shape in enumerate([sequence, image, volume], start=1):
        filters = {"filters": 3, "kernel_size": 2}
        for name in (f"Conv{rank}D", f"Conv{rank}DTranspose", f"SeparableConv{rank}D"):
            given[name] = shape, filters
        given[f"DepthwiseConv{rank}D"] = shape, {"kernel_size": 2}
        given[f"SpatialDropout{rank}D"] = shape, {"rate": 0.2}
        for kind in ("Average", "Max"):
            given[f"Adaptive{kind}Pooling{rank}D"] = shape, {"output_size": 2}
            given[f"{kind}Pooling{rank}D"] = shape, {"pool_size": 2}
            given[f"Global{kind}Pooling{rank}D"] = shape, {}
        for name in (f"Cropping{rank}D", f"UpSampling{rank}D", f"ZeroPadding{rank}D"):
            given[name] = shape, {}
    for name in ("GRU", "LSTM", "SimpleRNN"):
        given[name] = sequence, {"units": 3}
    for name in ("AdditiveAttention", "Attention"):
        given[name] = sequence, {}

    def in_the_middle(kind: Any, shape: Any, arguments: dict[str, Any]) -> list[Any]:
        objects = {"cell", "layer", "layers"}
        made = {name: value() if name in objects else value for name, value in arguments.items()}
        layer = layers.RNN([cell(), cell()]) if kind is layers.StackedRNNCells else kind(**made)
        if kind in (layers.MultiHeadAttention, getattr(layers, "GroupQueryAttention", None)):
            return [*shaped(*shape), lambda x: layer(x, x)]
        return [*shaped(*shape), layer if "Attention" not in kind.__name__ else lambda x: layer([x, x])]

    def merged(kind: Any) -> list[Any]:
        layer = kind(axes=1) if kind is layers.Dot else kind()
        return [lambda x: layer([layers.Dense(4)(x), layers.Dense(4)(x)])]

    merging = {"Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"}
    in_front: dict[str, Any] = {
        "CategoryEncoding": lambda kind: [kind(num_tokens=8, output_mode="count")],
        "Discretization": lambda kind: [kind(bin_boundaries=[-1.0, 0.0, 1.0]), layers.Embedding(4, 2)],
        "Embedding": lambda kind: [kind(8, 3)],
        "Hashing": lambda kind: [kind(num_bins=5), layers.Embedding(5, 2)],
        "IntegerLookup": lambda kind: [kind(vocabulary=[0, 1, 2, 3]), layers.Embedding(5, 2)],
        "ReversibleEmbedding": lambda kind: [kind(8, 3)],
    }
    elsewhere = {
        "CutMix": "mixes rows with their targets, before the model",
        "FlaxLayer": "wraps a module of Flax",
        "GRUCell": "is the inside of `RNN`",
        "HashedCrossing": "takes two columns of strings or whole numbers, before the model",
        "InputLayer": "is in every model",
        "JaxLayer": "wraps a function of JAX",
        "LSTMCell": "is the inside of `RNN`",
        "MaxNumBoundingBoxes": "takes boxes, before the model",
        "MixUp": "mixes rows with their targets, before the model",
        "SimpleRNNCell": "is the inside of `RNN`",
        "StringLookup": "takes strings, which no program is given",
        "TFSMLayer": "wraps a saved model",
        "TextVectorization": "takes strings, which no program is given",
        "TorchModuleWrapper": "wraps a module of torch",
        "Wrapper": "is the base of other layers",
    }
    cases: dict[str, Any] = {}
    for name, kind in classes(layers, layers.Layer).items():
        if name in elsewhere:
            cases[name] = elsewhere[name]
        elif name in merging:
            cases[name] = Case(hidden=partial(merged, kind))
        elif name in in_front:
            whole = "table" if name == "Discretization" else "words"
            cases[name] = Case(hidden=partial(in_front[name], kind), inputs=whole)
        else:
            shape, arguments = given.get(name, (vector if not _is_for_images(kind) else image, {}))
            cases[name] = Case(hidden=partial(in_the_middle, kind, shape, arguments))
    masked = lambda: [layers.Embedding(8, 3, mask_zero=True), layers.GRU(3)]  # noqa: E731
    return cases | {"Embedding, mask_zero": Case(hidden=masked, inputs="words")}


def _is_for_images(kind: type) -> bool:
    return "preprocessing.image" in kind.__module__


PROBABILITIES = {"one hot": "softmax", "binary": "sigmoid", "numbers": "softplus", "labels": "softmax", "signs": "tanh"}
OF_TARGETS = {
    "binary": {"BinaryAccuracy", "BinaryCrossentropy", "BinaryFocalCrossentropy", "BinaryIoU", "FalseNegatives",
               "FalsePositives", "Precision", "PrecisionAtRecall", "Recall", "RecallAtPrecision",
               "SensitivityAtSpecificity", "SpecificityAtSensitivity", "TrueNegatives", "TruePositives", "AUC"},
    "labels": {"SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy", "MeanIoU",
               "IoU", "Circle", "CategoricalGeneralizedCrossEntropy"},
    "one hot": {"CategoricalAccuracy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge",
                "Dice", "F1Score", "FBetaScore", "KLDivergence", "OneHotIoU",
                "OneHotMeanIoU", "TopKCategoricalAccuracy", "Tversky"},
    "signs": {"Hinge", "SquaredHinge"},
    "sequences": {"CTC"},
}  # fmt: skip


def target_of(name: str) -> str:
    return next((target for target, names in OF_TARGETS.items() if name in names), "numbers")


def loss_cases() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for name, kind in classes(keras.losses, keras.losses.Loss).items():
        target = target_of(name)
        cases[name] = Case(loss=kind, target=target, activation=PROBABILITIES.get(target, "linear"), metrics=list)
    smoothed = partial(keras.losses.CategoricalCrossentropy, from_logits=True, label_smoothing=0.1)
    cases["label_smoothing, from_logits"] = Case(loss=smoothed, target="one hot", activation="linear", metrics=list)
    mean = partial(keras.losses.MeanSquaredError, reduction="sum")
    cases["reduction='sum'"] = Case(loss=mean, target="numbers", activation="softplus", metrics=list)
    cases["a function of the user's"] = Case(
        loss=lambda: lambda y, output: keras.ops.mean((y - output) ** 4, axis=-1),
        target="numbers", activation="softplus", metrics=list,
    )  # fmt: skip
    return cases


def metric_cases() -> dict[str, Any]:
    given: dict[str, dict[str, Any]] = {
        "IoU": {"num_classes": 3, "target_class_ids": [0, 1], "sparse_y_pred": False},
        "MeanIoU": {"num_classes": 3, "sparse_y_pred": False},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 1]},
        "OneHotMeanIoU": {"num_classes": 3},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
        "SparseTopKCategoricalAccuracy": {"k": 2},
        "TopKCategoricalAccuracy": {"k": 2},
    }
    losses = {"binary": "binary_crossentropy", "labels": "sparse_categorical_crossentropy", "numbers": "mse",
              "one hot": "categorical_crossentropy", "signs": "hinge"}  # fmt: skip
    cases: dict[str, Any] = {}
    for name, kind in classes(keras.metrics, keras.metrics.Metric).items():
        if name in ("Mean", "Sum", "MeanMetricWrapper"):
            cases[name] = "is a part of other metrics"
            continue
        target = target_of(name)
        # Keras counts automatic names for the whole process.
        made = partial(lambda kind, arguments: [kind(name="found", **arguments)], kind, given.get(name, {}))
        loss = partial(str, losses[target])
        cases[name] = Case(metrics=made, target=target, loss=loss, activation=PROBABILITIES[target])
    multi = {"metrics": lambda: [keras.metrics.AUC(name="found", multi_label=True, num_labels=3)], "target": "one hot"}
    cases["AUC, multi_label"] = Case(**multi, loss=lambda: "categorical_crossentropy")
    weighted = Case(compiled={"weighted_metrics": ["accuracy"]}, metrics=list, options={"weights": True})
    cases["a weighted metric"] = weighted
    return cases


def callback_cases() -> dict[str, Any]:
    kinds = keras.callbacks
    folder = Path(tempfile.mkdtemp())
    files = iter(range(10**6))

    class ByEpoch(kinds.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[1].set_weights([0.9 * weight for weight in self.model.layers[1].get_weights()])

    class ByBatch(kinds.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen = logs

    made: dict[str, Callable[[], Any]] = {
        "BackupAndRestore": lambda: kinds.BackupAndRestore(folder / f"{next(files)}"),
        "CSVLogger": lambda: kinds.CSVLogger(folder / f"{next(files)}.csv"),
        "EarlyStopping": lambda: kinds.EarlyStopping("val_loss", patience=0, restore_best_weights=True),
        "History": kinds.History,
        "LambdaCallback": lambda: kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        "LearningRateScheduler": lambda: kinds.LearningRateScheduler(lambda epoch, rate: 0.5 * rate),
        "ModelCheckpoint": lambda: kinds.ModelCheckpoint(folder / f"{next(files)}.keras"),
        "ProgbarLogger": kinds.ProgbarLogger,
        "ReduceLROnPlateau": lambda: kinds.ReduceLROnPlateau("loss", patience=0, min_delta=10.0),
        "SwapEMAWeights": kinds.SwapEMAWeights,
        "TensorBoard": lambda: kinds.TensorBoard(folder / f"{next(files)}"),
        "TerminateOnNaN": kinds.TerminateOnNaN,
        "one of the user's, by epoch": ByEpoch,
        "one of the user's, by batch": ByBatch,
    }
    elsewhere = {
        "CallbackList": "holds other callbacks",
        "OrbaxCheckpoint": "needs another package",
        "RemoteMonitor": "needs a server",
    }
    names = sorted({*classes(kinds, kinds.Callback), *made}, key=lambda name: (name[0].islower(), name))
    cases: dict[str, Any] = {}
    for name in names:
        if name in elsewhere:
            cases[name] = elsewhere[name]
            continue
        one = made.get(name, getattr(kinds, name, None))
        averaged = (lambda rate: keras.optimizers.Adam(rate, use_ema=True)) if name == "SwapEMAWeights" else None
        options = {"epochs": 4, "validation": True}
        cases[name] = Case(callbacks=partial(lambda one: [one()], one), optimizer=averaged, options=options)
    return cases


def regularizer_cases() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for name, kind in classes(keras.regularizers, keras.regularizers.Regularizer).items():
        given = {"l1": 0.01, "l2": 0.02} if name == "L1L2" else {}  # which is nothing without
        penalized = partial(lambda kind, given: [layers.Dense(8, kernel_regularizer=kind(**given))], kind, given)
        cases[name] = Case(hidden=penalized)
    for name, kind in classes(keras.constraints, keras.constraints.Constraint).items():
        cases[name] = Case(hidden=lambda kind=kind: [layers.Dense(8, kernel_constraint=kind(), activation="relu")])
    penalty = lambda: [layers.Dense(8, activity_regularizer="l2")]  # noqa: E731
    return cases | {"activity_regularizer": Case(hidden=penalty)}


def other_cases() -> dict[str, Any]:
    class WithStep(keras.Model):  # type: ignore[misc]
        def train_step(self, *arguments: Any) -> Any:
            return super().train_step(*arguments)

    class WithCall(keras.Model):  # type: ignore[misc]
        def call(self, *arguments: Any, **options: Any) -> Any:
            return super().call(*arguments, **options)

    return {
        "batches that are not whole": Case(options={"batch_size": 50}),
        "batches larger than the data": Case(options={"batch_size": 1000}),
        "`shuffle=False`": Case(options={"shuffle": False}),
        "`initial_epoch`": Case(options={"initial_epoch": 1, "epochs": 3}),
        "`validation_data`": Case(options={"validation": True}),
        "`validation_freq`": Case(options={"validation": True, "validation_freq": 2, "epochs": 4}),
        "`sample_weight`": Case(options={"weights": True}),
        "`class_weight`": Case(options={"options": {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}}),
        "a `tf.data.Dataset`": Case(options={"tf.data": True}),
        "`run_eagerly`": Case(compiled={"run_eagerly": True}),
        "`jit_compile`": Case(compiled={"jit_compile": True}),
        "`steps_per_execution`": Case(compiled={"steps_per_execution": 2}),
        "a model with a `train_step` of the user's": Case(model=WithStep),
        "a functional model with a `call` of the user's": Case(model=WithCall),
    }


TABLES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "optimizers": ("Optimizers and schedules", optimizer_cases),
    "embedding": (
        "Optimizers, on words through an embedding",
        lambda: optimizers_with(lambda: [layers.Embedding(8, 3)], "words"),
    ),
    "convolution": (
        "Optimizers, through a convolution and a normalisation by batches",
        lambda: optimizers_with(
            lambda: [
                layers.Dense(16),
                layers.Reshape((4, 4, 1)),
                layers.Conv2D(3, 2, activation="relu"),
                layers.BatchNormalization(),
            ],
            "table",
        ),
    ),
    "layers": ("Layers", layer_cases),
    "losses": ("Losses", loss_cases),
    "metrics": ("Metrics", metric_cases),
    "callbacks": ("Callbacks", callback_cases),
    "regularizers": ("Regularizers and constraints", regularizer_cases),
    "others": ("Arguments of fit and compile, models", other_cases),
}


# -- the document ---------------------------------------------------------------------------------------------------

Rows = dict[str, dict[str, dict[str, list[str]]]]  # table -> thing -> backend -> how, predictions, History
WAYS = ("fused", "alone", "Model.fit")
NOT_TRIED = "not tried: it "
COMPILED_FOR_MINUTES = {"jax": ("AugMix", "RandAugment")}


def write(path: Path, rows: Rows) -> None:
    """The document of what was measured."""
    parts = [INTRODUCTION.format(keras=keras.__version__), summary(rows)]
    for key, (title, _) in TABLES.items():
        if key not in rows:
            continue
        backends = [backend for backend in BACKENDS if any(backend in cells for cells in rows[key].values())]
        lines = [
            f"## {title}\n",
            f"| | {' | '.join(BACKENDS[backend] for backend in backends)} |",
            "| --- |" + " --- |" * len(backends),
        ]
        reasons: list[str] = []
        left_out = []
        for name, cells in rows[key].items():
            if all(how.startswith(NOT_TRIED) for how, *_ in cells.values()):
                left_out.append(f"`{name}` {next(iter(cells.values()))[0].removeprefix(NOT_TRIED)}")
                continue
            texts = [cell(name, cells[backend], reasons) if backend in cells else "" for backend in backends]
            lines.append(f"| {name} | {' | '.join(texts)} |")
        parts.append("\n".join(lines) + "\n")
        if reasons:
            parts.append("\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)) + "\n")
        if left_out:
            parts.append(textwrap.fill(f"Not tried: {'; '.join(left_out)}.", 120) + "\n")
    parts.append(LIMITS)
    path.write_text("\n".join(parts), encoding="utf-8")


def cell(name: str, found: list[str], reasons: list[str]) -> str:
    """What was found of a row, with the number of the reason, which is added to those of the table."""
    how, predictions, history = (part.replace("0e+00", "0") for part in found)
    words = []
    for way in how.split(" / "):
        short, _, reason = way.partition(": ")
        reason = textwrap.shorten(re.sub(rf"^{re.escape(name)} ", "it ", reason), 160, placeholder=" ...")
        if reason and reason not in reasons:
            reasons.append(reason)
        words.append(f"{short} ({reasons.index(reason) + 1})" if reason else short)
    return " / ".join(words) + (f" {predictions} / {history}" if predictions else "")


def summary(rows: Rows) -> str:
    """How many rows were trained in each way, and how far from Keras."""
    found = {backend: [cells[backend] for table in rows.values() for cells in table.values() if backend in cells]
             for backend in BACKENDS}  # fmt: skip
    lines = ["| Rows | " + " | ".join(BACKENDS.values()) + " |", "| --- |" + " --: |" * len(BACKENDS)]
    for way in WAYS:
        counts = [sum(how.startswith(way) for how, *_ in found[backend]) for backend in BACKENDS]
        lines.append(f"| {way} | {' | '.join(map(str, counts))} |")
    for place, what in enumerate(("predictions", "History"), start=1):
        numbers = [[cells[place] for cells in found[backend]] for backend in BACKENDS]
        worst = [max((float(one) for one in some if one and "(" not in one), default=0.0) for some in numbers]
        lines.append(f"| largest difference of {what} without brackets | {' | '.join(f'{a:.0e}' for a in worst)} |")
    return "\n".join(lines) + "\n"


def run(backend: str, key: str, arguments: argparse.Namespace) -> None:
    """Measures a backend in one table."""
    cases = TABLES[key][1]()
    for name, case in cases.items():
        rows = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.exists() else {}
        known = backend in rows.get(key, {}).get(name, {})
        if (arguments.row and name not in arguments.row) or (arguments.missing and known):
            continue
        if name in COMPILED_FOR_MINUTES.get(backend, ()):
            case = "is compiled for minutes, by plain Keras, too"
        cells = [NOT_TRIED + case, "", ""] if isinstance(case, str) else tried(case)
        cells = [cell.replace("|", "/").replace("\n", " ") for cell in cells]
        print(f"{name}: {' '.join(cells)}", flush=True)
        rows.setdefault(key, {}).setdefault(name, {})[backend] = cells
        rows[key] = {name: rows[key][name] for name in cases if name in rows[key]}  # in their order
        arguments.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="What is fused, and how near it comes to Model.fit.")
    parser.add_argument("--backend", default=",".join(BACKENDS), help="backends (default: %(default)s)")
    parser.add_argument("--only", default=",".join(TABLES), help="tables (default: %(default)s)")
    parser.add_argument("--row", action="append", help="a row; may be given again (default: all rows)")
    parser.add_argument("--missing", action="store_true", help="only rows that were not measured before")
    here = Path(__file__).parent
    results, out = here / "results" / "parity.json", here.parent / "docs" / "what_is_fused.md"
    parser.add_argument("--results", type=Path, default=results, help="what was measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=out, help="the document (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.backend == os.environ.get("KERAS_BACKEND") and arguments.only in TABLES:
        warnings.simplefilter("ignore")
        fused._STEPS_WORTH_STACKING = 0  # so few would be trained alone
        run(arguments.backend, arguments.only, arguments)
        return
    with tempfile.TemporaryDirectory() as cache:
        # JAX compiles the program of each model. That of the second is the same as that of the first.
        of_jax = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        options = ["--missing"] * arguments.missing + [f"--row={name}" for name in arguments.row or ()]
        # Keras keeps the backend that it was imported with, and memory for every model that was ever built.
        for backend in filter(None, arguments.backend.split(",")):
            environment = {**os.environ, **of_jax, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            for table in arguments.only.split(","):
                print(f"-- {BACKENDS[backend]}: {table}", flush=True)
                command = [sys.executable, __file__, "--backend", backend, "--only", table, *options]
                subprocess.run([*command, "--results", arguments.results], env=environment, check=True)
    write(arguments.out, json.loads(arguments.results.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
