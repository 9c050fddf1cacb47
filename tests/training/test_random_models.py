"""Random whole models, trained together and by plain Keras: what comes out must be the same.

A case is drawn in words (dicts and lists, so that a failure can be copied from the report): layers, optimizer, loss,
metrics, callbacks, data, and in what its variants differ. `fit_many` trains the variants; `by_keras` builds the same
models again and trains each by `keras.Model.fit`, with a generator that yields the rows in the promised order.

How equal is equal? Two programs that do the same sums in another order differ in the last digits, about 1e-7, and
training may let that grow: a ReLU that opens, a maximum that moves, a gradient of nothing but rounding, which Adam
divides by its own size. So a difference above `TOLERANCE` is held against Keras itself: `by_keras` trains again from
weights and inputs that are changed by a millionth (`NUDGE`), and what that alone changes in the results, ten times
over, is what rounding may change. A real defect is not excused in this way: it is there whether the arithmetic is
stable or not, and in most cases it is.

Eight models are drawn, always the same, and a few small dense networks, which numpy trains on TensorFlow and torch.
`KERASTOOLKIT_TEST_RANDOM_MODELS=300` asks for more of both, for recurrent layers among them, and for a failure to be
made smaller before it is reported. `KERASTOOLKIT_TEST_RANDOM_MODELS_FROM=1000` asks for others: a model's number is its
seed.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, reject, seed, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from kerastoolkit.training import Fit, _dense, explain, fit_many, fused

ASKED = "KERASTOOLKIT_TEST_RANDOM_MODELS" in os.environ
N_MODELS = int(os.environ.get("KERASTOOLKIT_TEST_RANDOM_MODELS", "8"))
FIRST = int(os.environ.get("KERASTOOLKIT_TEST_RANDOM_MODELS_FROM", "0"))
VARIANTS = 3
TOLERANCE = 1e-5  # of the largest number of its kind
NUDGE = 1e-6  # of each weight and input, normally distributed; a tenth of it whatever they are
N_NUDGES = 2
FACTOR = 10

# -- data -----------------------------------------------------------------------------------------------------------


@functools.cache
def digits() -> tuple[Any, Any]:
    images, labels = load_digits(return_X_y=True)
    return images[:120], labels[:120]


def inputs_of(kind: str) -> Any:
    """Digits as a table, a sequence of rows, an image, or five words out of seventeen."""
    images, _ = digits()
    if kind == "words":
        return images[:, 26:31].astype("int32")
    values = ((images - images.mean()) / images.std()).astype("float32")
    return {"table": values[:, 18:31], "sequence": values.reshape(-1, 8, 8), "image": values.reshape(-1, 8, 8, 1)}[kind]


def targets_of(kind: str) -> Any:
    images, labels = digits()
    if kind == "labels":
        return labels.astype("int32")
    if kind == "one hot":
        return np.eye(10, dtype="float32")[labels]
    if kind == "binary":
        return (labels % 2).astype("float32")[:, None]
    return np.stack([images.mean(axis=1) / 5, labels / 5 + 0.1], axis=1).astype("float32")


# -- from words to objects ------------------------------------------------------------------------------------------


def at(words: Any, number: int) -> Any:
    """The words for one of the variants."""
    if isinstance(words, dict):
        if "differs" in words:
            return words["differs"][number]
        return {name: at(value, number) for name, value in words.items()}
    return [at(value, number) for value in words] if isinstance(words, list) else words


def made(words: Any) -> Any:
    """The object of Keras of these words."""
    if isinstance(words, list):
        return [made(value) for value in words]
    if not isinstance(words, dict):
        return words
    arguments = {name: made(value) for name, value in words.items() if name != "class"}
    if "class" not in words:
        return arguments
    kind = keras
    for name in words["class"].split("."):
        kind = getattr(kind, name)
    return kind(**arguments)


def connected(stack: list[Any], x: Any) -> Any:
    """The output of a stack of layers, some of which are parallel stacks that are joined."""
    for words in stack:
        if "join" in words:
            x = made({"class": f"layers.{words['join']}"})([connected(part, x) for part in words["parts"]])
        elif words["class"] == "layers.MultiHeadAttention":
            x = made(words)(x, x)
        else:
            x = made(words)(x)
    return x


def built(case: Any) -> Any:
    """The compiled model of a case without differences."""
    inputs = [
        keras.Input(shape, dtype=dtype, name=f"in_{place}")
        for place, (shape, dtype) in enumerate(zip(case["shapes"], case["dtypes"], strict=True))
    ]
    if case["sequential"]:
        model = keras.Sequential([inputs[0], *map(made, [*case["branches"][0], *case["trunk"], *case["heads"][0]])])
    else:
        ends = [connected(stack, x) for stack, x in zip(case["branches"], inputs, strict=True)]
        x = ends[0] if len(ends) == 1 else made({"class": f"layers.{case['merge']}"})(ends)
        x = connected(case["trunk"], x)
        outputs = [connected(head, x) for head in case["heads"]]
        model = keras.Model(whole(inputs), whole(outputs))
    model.compile(**made(case["compile"]))
    return model


def callbacks_of(case: Any) -> list[Any]:
    def one(words: Any) -> Any:
        if words["class"] == "callbacks.LearningRateScheduler":
            return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * words["factor"])
        return made(words)

    return [one(words) for words in case["callbacks"]]


def whole(parts: list[Any]) -> Any:
    """Several parts as a list, one as itself."""
    return parts if len(parts) > 1 else parts[0]


class Data(NamedTuple):
    x: Any
    y: Any
    weights: Any


def data_of(case: Any, rows: Any, weighted: Any) -> Data:
    """Rows of the digits as the model takes them, with weights by `"row"`, by `"output"`, or None."""

    x = whole([inputs_of(kind)[rows] for kind in case["inputs"]])
    y = whole([targets_of(kind)[rows] for kind in case["targets"]])
    weights = [np.random.default_rng(n).uniform(0.2, 2, len(rows)).astype("float32") for n in range(len(case["heads"]))]
    return Data(x, y, {None: None, "row": weights[0], "output": whole(weights)}[weighted])


def training_data(case: Any) -> Data:
    return data_of(case, np.random.default_rng(case["rows"]).permutation(100)[: case["n_rows"]], case["weights"])


def held_out(case: Any) -> Any:
    data = data_of(case, np.arange(100, 120), case["validation_weights"])
    return tuple(part for part in data if part is not None) if case["validated"] else None


def fit_of(case: Any) -> Fit:
    random.seed(case["seed"])
    model = functools.partial(built, {**case, "callbacks": []}) if case["from_function"] else built(case)
    return Fit(
        model,
        *training_data(case),
        batch_size=case["batch_size"],
        epochs=case["epochs"],
        initial_epoch=case["initial_epoch"],
        validation_data=held_out(case),
        validation_batch_size=case["validation_batch_size"],
        validation_freq=case["validation_freq"],
        callbacks=callbacks_of(case),
        shuffle=case["shuffle"],
        seed=case["seed"],
    )


# -- the reference: plain Keras -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a training left behind."""

    history: dict[str, list[float]]
    predictions: list[Any]
    counters: list[Any]  # of seeds and steps


def outcome_of(model: Any, history: dict[str, list[Any]], case: Any) -> Outcome:
    predictions = model(data_of(case, np.arange(120), None).x, training=False)
    variables = [*model.non_trainable_variables, *model.optimizer.variables]
    counters = [value for value in map(value_of, variables) if value.dtype.kind in "iu"]
    return Outcome(history, list(map(keras.ops.convert_to_numpy, keras.tree.flatten(predictions))), counters)


def value_of(variable: Any) -> Any:
    return keras.ops.convert_to_numpy(variable.value)


def by_keras(case: Any, nudge: int | None = None) -> Outcome:
    """Trains by plain Keras; with a nudge, from weights and inputs of which the last digits are others."""
    random.seed(case["seed"])
    model, data = built(case), training_data(case)
    if nudge is not None:
        rng = np.random.default_rng(nudge)
        for variable in model.trainable_variables:
            variable.assign(nudged(value_of(variable), rng))
        data = data._replace(x=keras.tree.map_structure(lambda part: nudged(part, rng), data.x))
    size = case["batch_size"] or 32
    history = model.fit(
        batches(case, data, size),
        steps_per_epoch=-(-case["n_rows"] // size),
        epochs=case["epochs"],
        initial_epoch=case["initial_epoch"],
        validation_data=held_out(case),
        validation_batch_size=case["validation_batch_size"] or size,
        validation_freq=case["validation_freq"],
        callbacks=callbacks_of(case),
        shuffle=False,
        verbose=0,
    )
    return outcome_of(model, history.history, case)


def nudged(value: Any, rng: Any) -> Any:
    if value.dtype.kind != "f":
        return value
    # A weight of 0, too: where all of a layer are, the order of its outputs hangs on the last digits of the first step.
    noise = value * NUDGE * rng.normal(size=value.shape) + NUDGE / 10 * rng.normal(size=value.shape)
    return (value + noise).astype(value.dtype)


def batches(case: Any, data: Data, size: int) -> Iterator[Any]:
    """Batches without end, the rows of each epoch in the order that is promised for the seed."""
    if case["weights"] == "row" and len(case["heads"]) > 1:
        data = data._replace(weights=[data.weights] * len(case["heads"]))
    # Keras' adapter of generators takes nested tuples, not lists.
    parts = [tuple(part) if isinstance(part, list) else part for part in data if part is not None]
    orders = np.random.default_rng((case["seed"], case["initial_epoch"]))
    while True:
        order = orders.permutation(case["n_rows"]) if case["shuffle"] else np.arange(case["n_rows"])
        for first in range(0, case["n_rows"], size):
            chosen = order[first : first + size]
            yield tuple(keras.tree.map_structure(lambda part: part[chosen], parts))  # noqa: B023


def gap(a: Any, b: Any) -> float:
    """The largest difference, beside the largest number; infinite where only one is finite."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return np.inf
    finite = np.isfinite(b)
    if not finite.any() or not (difference := np.abs(a - b)[finite].max()):
        return 0.0
    return float(difference / max(np.abs(b[finite]).max(), np.finfo("float32").tiny))


def gaps(ours: Outcome, theirs: Outcome) -> dict[str, float]:
    found = {name: gap(ours.history.get(name, []), values) for name, values in theirs.history.items()}
    for place, values in enumerate(theirs.predictions):
        found[f"predictions {place}"] = gap(ours.predictions[place], values)
    found["counters"] = 0.0 if all(map(np.array_equal, ours.counters, theirs.counters)) else np.inf
    return found


def differences(ours: Outcome, case: Any) -> dict[str, tuple[float, float]]:
    """What differs by more than rounding: by how much, and by how much it may."""
    try:
        theirs = by_keras(case)
    except TypeError as error:
        # Keras' Muon fails where TensorFlow does not tell the shape of a gradient, as behind a Dense on images.
        if "Muon" not in case["compile"]["optimizer"]["class"] or "symbolic `tf.Tensor`" not in str(error):
            raise
        event("Keras itself raises")
        reject()
    assert set(ours.history) == set(theirs.history)
    large = {name: found for name, found in gaps(ours, theirs).items() if not found <= TOLERANCE}
    if not large:
        event("equal to 1e-5")
        return {}
    nudged: list[dict[str, float]] = []
    # Before anything is called a difference, many more nudges: a count changes by one in few of them.
    for n_nudges in (N_NUDGES, 10 * N_NUDGES):
        nudged += [gaps(by_keras(case, nudge), theirs) for nudge in range(len(nudged), n_nudges)]
        allowed = {name: TOLERANCE + FACTOR * max(one[name] for one in nudged) for name in large}
        found = {name: (large[name], allowed[name]) for name in large if not large[name] <= allowed[name]}
        if not found:
            event(f"rounding grows to {max(allowed.values()):.0e}")
            break
    return found


def raised(action: Callable[[], Any]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None


def assert_ends_as_model_fit(case: Any) -> None:
    variants = [at(case, number) for number in range(case["variants"])]
    # A build function is learnt from the first models that it makes; the third's weights are drawn without it.
    for _ in range(3 if case["from_function"] else 1):
        trained = fit_many(list(map(fit_of, variants)))
        if trained[0].how == "Model.fit":
            break
    event(explain(trained).split("\n")[0].partition(" fit")[2])
    for number, (variant, one) in enumerate(zip(variants, trained, strict=True)):
        if one.error is not None:
            if one.how == "Model.fit" and type(one.error) is type(raised(lambda: by_keras(variant))):  # noqa: B023
                event("Keras itself raises")
                reject()
            raise one.error
        assert one.how == "fused" or one.reason
        assert not differences(outcome_of(one.model, one.history, variant), variant), f"variant {number}"


# -- random cases ---------------------------------------------------------------------------------------------------


def either(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def differing(*values: Any) -> st.SearchStrategy[Any]:
    """A value for each variant."""
    return st.permutations(values).map(lambda drawn: {"differs": drawn[:VARIANTS]})


def rarely(strategy: st.SearchStrategy[Any], otherwise: Any = None, one_in: int = 5) -> st.SearchStrategy[Any]:
    return st.integers(1, one_in).flatmap(lambda number: strategy if number == one_in else st.just(otherwise))


def words(kind: str, **arguments: Any) -> st.SearchStrategy[Any]:
    """Words for an object of a class; arguments that come out as None are left out."""
    strategies = {
        name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in arguments.items()
    }
    return st.fixed_dictionaries(strategies).map(
        lambda found: {"class": kind, **{name: value for name, value in found.items() if value is not None}}
    )


BACKEND = keras.config.backend()
ACTIVATIONS = either(
    "relu", "tanh", "elu", "gelu", "selu", "silu", "softplus", "sigmoid", "leaky_relu", "hard_sigmoid", "mish",
    "softsign", "log_sigmoid", "celu", "hard_tanh", "linear",
)  # fmt: skip
# On torch, Keras draws from a generator of the process, and tests/training/test_fused.py says what becomes of that.
FIXED_RATES = st.just(0.0) if BACKEND == "torch" else either(0.0, 0.2, 0.4)
RATES = st.one_of(FIXED_RATES, FIXED_RATES if BACKEND == "torch" else differing(0.1, 0.2, 0.3, 0.5))
FACTORS = st.one_of(st.just(0.01), differing(0.001, 0.003, 0.01, 0.03))
PENALTIES = st.one_of(
    words("regularizers.L2", l2=FACTORS),
    words("regularizers.L1", l1=0.01),
    words("regularizers.L1L2", l1=FACTORS, l2=FACTORS),
)
CONSTRAINTS = st.one_of(
    words("constraints.MaxNorm", max_value=0.8),
    words("constraints.NonNeg"),
    words("constraints.UnitNorm"),
    words("constraints.MinMaxNorm", min_value=0.3, max_value=0.9, rate=0.7),
)
FOR_A_KERNEL = {
    "use_bias": rarely(st.just(False)),
    "kernel_regularizer": rarely(PENALTIES),
    "kernel_constraint": rarely(CONSTRAINTS, one_in=8),
    "bias_regularizer": rarely(PENALTIES, one_in=8),
    "activity_regularizer": rarely(PENALTIES, one_in=8),
    "kernel_initializer": rarely(either("he_normal", "orthogonal", "lecun_uniform"), one_in=8),
}


def of_any_rank(channels: int, positions: int = 1) -> list[st.SearchStrategy[Any]]:
    """Layers for the last axis, whatever is before it."""
    return [
        words("layers.Dense", units=either(3, 8), activation=ACTIVATIONS, **FOR_A_KERNEL),
        words("layers.Dense", units=5, activation=rarely(differing("relu", "relu", "tanh"), "relu", one_in=8)),
        words("layers.Dropout", rate=RATES),
        st.one_of(
            words("layers.GaussianDropout", rate=FIXED_RATES),
            words("layers.AlphaDropout", rate=FIXED_RATES),
            words("layers.GaussianNoise", stddev=FIXED_RATES),
        ),
        words(
            "layers.BatchNormalization",
            momentum=either(0.5, 0.9),
            scale=rarely(st.just(False)),
            center=rarely(st.just(False)),
            gamma_regularizer=rarely(PENALTIES),
        ),
        st.one_of(
            words("layers.LayerNormalization", center=rarely(st.just(False))),
            words("layers.GroupNormalization", groups=1 if positions == 1 else either(1, channels)),
            words("layers.RMSNormalization"),
            words("layers.UnitNormalization"),
        )
        if channels > 1  # of a number by itself, nothing is left but rounding
        else words("layers.PReLU"),
        st.one_of(
            words("layers.Activation", activation=ACTIVATIONS),
            words("layers.LeakyReLU", negative_slope=0.2),
            words("layers.PReLU"),
            words("layers.ReLU", max_value=2.0, negative_slope=0.1, threshold=0.2),
            words("layers.ELU"),
            words("layers.ActivityRegularization", l2=0.01),
            *([words("layers.Softmax")] if channels > 1 else []),  # of one number, torch warns
        ),
    ]


# They take half a minute to trace.
def recurrent(**arguments: Any) -> st.SearchStrategy[Any]:
    kinds = [f"layers.{kind}" for kind in ("GRU", "LSTM", "SimpleRNN")]
    one = st.one_of([words(kind, units=3, kernel_regularizer=rarely(PENALTIES), **arguments) for kind in kinds])
    return st.one_of(one, one.flatmap(lambda layer: words("layers.Bidirectional", layer=st.just(layer))))


def of_windows(rank: int) -> list[st.SearchStrategy[Any]]:
    """Layers that go over sequences (rank 1) or images (rank 2) by windows."""
    of_any_size = {"strides": either(1, 2), "padding": either("same", "valid")}
    return [
        words(f"layers.Conv{rank}D", filters=3, kernel_size=2, activation=ACTIVATIONS, **of_any_size),
        words(f"layers.SeparableConv{rank}D", filters=4, kernel_size=2, padding="same"),
        words(f"layers.DepthwiseConv{rank}D", kernel_size=2, padding="same"),
        words(f"layers.Conv{rank}DTranspose", filters=3, kernel_size=2, padding="same"),
        words(f"layers.MaxPooling{rank}D", pool_size=2, padding="same"),
        words(f"layers.AveragePooling{rank}D", pool_size=2, padding="same"),
        words(f"layers.SpatialDropout{rank}D", rate=FIXED_RATES),
    ]


def of_sequences(channels: int) -> list[st.SearchStrategy[Any]]:
    return [
        *of_any_rank(channels, positions=2),
        words("layers.Conv1D", filters=4, kernel_size=2, padding=either("same", "causal"), **FOR_A_KERNEL),
        *of_windows(1),
        words("layers.MultiHeadAttention", num_heads=2, key_dim=2, dropout=rarely(FIXED_RATES)),
        words("layers.TimeDistributed", layer=words("layers.Dense", units=4)),
        words("layers.ZeroPadding1D"),
        *([rarely(recurrent(return_sequences=True), {"class": "layers.PReLU"})] if ASKED else []),
    ]


def of_images(channels: int) -> list[st.SearchStrategy[Any]]:
    return [
        *of_any_rank(channels, positions=2),
        words("layers.Conv2D", filters=4, kernel_size=2, padding="same", **FOR_A_KERNEL),
        *of_windows(2),
        words("layers.UpSampling2D", size=1),
    ]


BY_RANK: dict[int, Callable[[int], list[st.SearchStrategy[Any]]]] = {1: of_any_rank, 2: of_sequences, 3: of_images}


def shape_after(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if "join" in layer:
        last = [shape_of(part, shape)[-1] for part in layer["parts"]]
        return (*shape[:-1], sum(last) if layer["join"] == "Concatenate" else last[0])
    if layer["class"] == "layers.MultiHeadAttention":
        return shape
    state = random.getstate()
    try:
        return tuple(made(at(layer, 0)).compute_output_shape((None, *shape))[1:])
    finally:
        random.setstate(state)  # Keras draws the seed of a layer, which hypothesis would complain of


def shape_of(stack: list[Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    return functools.reduce(lambda shape, layer: shape_after(layer, shape), stack, shape)


@st.composite
def joins(draw: Any, shape: tuple[int, ...]) -> Any:
    """Parallel stacks over one input, which end in the same shape."""
    end = {"class": "layers.Dense", "units": shape[-1]}
    parts = [[*draw(stacks(shape, most=2, nested=True)), end] for _ in range(draw(either(1, 2)))]
    skip = draw(st.booleans())
    kind = draw(either("Add", "Concatenate", "Multiply", "Average", "Maximum", "Minimum"))
    return {"join": kind, "parts": [[{"class": "layers.Identity"}], *parts] if skip or len(parts) < 2 else parts}


@st.composite
def stacks(draw: Any, shape: tuple[int, ...], most: int = 3, nested: bool = False) -> Any:
    """Layers one after the other; nested ones keep all axes but the last."""
    stack: list[Any] = []
    for _ in range(draw(st.integers(0, most))):
        layer = draw(st.one_of(BY_RANK[len(shape)](shape[-1])) if nested else rarely(joins(shape), one_in=6))
        layer = layer or draw(st.one_of(BY_RANK[len(shape)](shape[-1])))
        after = shape_after(layer, shape)
        if not nested or after[:-1] == shape[:-1]:
            stack.append(layer)
            shape = after
    return stack


@st.composite
def branches(draw: Any, kind: str) -> Any:
    """Layers from an input to a vector."""
    shape: tuple[int, ...] = inputs_of(kind).shape[1:]
    stack = []
    if kind == "words":
        masked = ASKED and draw(rarely(st.just(True), False, one_in=4))
        stack = [draw(words("layers.Embedding", input_dim=17, output_dim=either(3, 4), mask_zero=masked or None))]
        if masked:
            return [*stack, draw(recurrent())]
        shape = shape_of(stack, shape)
    stack += draw(stacks(shape))
    rank = len(shape)
    if rank > 1:
        kinds = ["Flatten", f"GlobalMaxPooling{rank - 1}D", f"GlobalAveragePooling{rank - 1}D"]
        end = draw(st.sampled_from([{"class": f"layers.{kind}"} for kind in kinds]))
        stack.append(draw(rarely(recurrent(), end, one_in=8)) if rank == 2 and ASKED else end)
    return stack


def metric(name: str, **arguments: Any) -> dict[str, Any]:
    # Keras counts its automatic names for the whole process.
    return {"class": f"metrics.{name}", "name": name.lower(), **arguments}


LOSSES: dict[tuple[str, str], list[Any]] = {
    ("labels", "softmax"): [
        {"class": "losses.SparseCategoricalCrossentropy"},
        {"class": "losses.CategoricalGeneralizedCrossEntropy"},
    ],
    ("labels", "linear"): [{"class": "losses.SparseCategoricalCrossentropy", "from_logits": True}],
    ("one hot", "softmax"): [
        {"class": "losses.CategoricalCrossentropy"},
        {"class": "losses.CategoricalCrossentropy", "label_smoothing": 0.1},
        {"class": "losses.CategoricalFocalCrossentropy"},
        {"class": "losses.CategoricalHinge"},
        {"class": "losses.KLDivergence"},
        {"class": "losses.Dice"},
        {"class": "losses.Tversky", "alpha": 0.3, "beta": 0.7},
    ],
    ("one hot", "linear"): [
        {"class": "losses.CategoricalCrossentropy", "from_logits": True, "label_smoothing": 0.2},
        {"class": "losses.CosineSimilarity"},
    ],
    ("binary", "sigmoid"): [
        {"class": "losses.BinaryCrossentropy"},
        {"class": "losses.BinaryCrossentropy", "label_smoothing": 0.1},
        {"class": "losses.BinaryFocalCrossentropy", "apply_class_balancing": True},
    ],
    ("binary", "linear"): [
        {"class": "losses.BinaryCrossentropy", "from_logits": True},
        {"class": "losses.Hinge"},
        {"class": "losses.SquaredHinge"},
    ],
    ("numbers", "linear"): [
        {"class": f"losses.{name}"}
        for name in ("MeanSquaredError", "MeanAbsoluteError", "Huber", "LogCosh", "CosineSimilarity")
    ],
    ("numbers", "softplus"): [
        {"class": f"losses.{name}"}
        for name in ("Poisson", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError", "MeanSquaredError")
    ],
}  # fmt: skip
UNITS = {"labels": 10, "one hot": 10, "binary": 1, "numbers": 2}
METRICS: dict[tuple[str, str], list[Any]] = {
    ("labels", "softmax"): [
        "accuracy",
        metric("SparseTopKCategoricalAccuracy", k=3),
        metric("SparseCategoricalCrossentropy"),
        metric("MeanIoU", num_classes=10, sparse_y_pred=False),
    ],
    ("labels", "linear"): ["accuracy", metric("SparseTopKCategoricalAccuracy", k=2)],
    ("one hot", "softmax"): [
        "accuracy",
        metric("AUC", num_thresholds=20, multi_label=True),
        metric("F1Score", average="macro"),
        metric("TopKCategoricalAccuracy", k=2),
        metric("OneHotMeanIoU", num_classes=10),
        metric("Precision", top_k=2),
    ],
    ("one hot", "linear"): ["accuracy", metric("CosineSimilarity"), metric("AUC", from_logits=True)],
    ("binary", "sigmoid"): [
        "accuracy",
        metric("AUC"),
        metric("AUC", curve="PR", num_thresholds=30),
        metric("Precision"),
        metric("Recall", thresholds=0.4),
        metric("F1Score", threshold=0.5),
        metric("BinaryIoU"),
        # On torch, Keras' History has the counts of the validation in the place of those of the training.
        *([metric("FalseNegatives")] if BACKEND != "torch" else []),
        metric("SensitivityAtSpecificity", specificity=0.5),
        metric("PrecisionAtRecall", recall=0.5),
    ],
    ("binary", "linear"): ["accuracy", metric("Hinge"), metric("BinaryAccuracy", threshold=0.0)],
    ("numbers", "linear"): [
        metric(name)
        for name in ("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError", "R2Score", "CosineSimilarity",
                     "PearsonCorrelation", "ConcordanceCorrelation", "LogCoshError")
    ],
}  # fmt: skip
METRICS["numbers", "softplus"] = METRICS["numbers", "linear"]

RATES_OF_LEARNING = differing(0.001, 0.003, 0.01, 0.03)
SCHEDULES = st.one_of(
    words("ExponentialDecay", initial_learning_rate=0.02, decay_steps=5, decay_rate=0.8, staircase=st.booleans()),
    words("CosineDecay", initial_learning_rate=0.001, decay_steps=12, warmup_target=0.02, warmup_steps=4),
    words("CosineDecayRestarts", initial_learning_rate=0.02, first_decay_steps=4),
    words("PiecewiseConstantDecay", boundaries=st.just([3, 7]), values=st.just([0.02, 0.01, 0.003])),
    words("PolynomialDecay", initial_learning_rate=0.02, decay_steps=8, power=2.0, cycle=st.booleans()),
    words(
        "InverseTimeDecay",
        initial_learning_rate=rarely(differing(0.01, 0.02, 0.03), 0.02),
        decay_steps=5,
        decay_rate=0.5,
    ),
).map(lambda found: {**found, "class": f"optimizers.schedules.{found['class']}"})
RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": differing(0.5, 0.8, 0.9), "nesterov": st.booleans()}),
    ("RMSprop", {"rho": differing(0.8, 0.85, 0.9), "momentum": either(0.0, 0.5), "centered": st.booleans()}),
    ("Adam", {}),
    ("Adam", {"beta_1": differing(0.8, 0.85, 0.9), "amsgrad": st.booleans()}),
    ("Adam", {"epsilon": differing(1e-3, 1e-2, 1e-1), "beta_2": st.just(0.99)}),
    ("AdamW", {"weight_decay": differing(0.01, 0.03, 0.1)}),
    ("Nadam", {}),
    ("Adamax", {}),
    ("Adagrad", {"initial_accumulator_value": either(0.1, 0.01)}),
    ("Adadelta", {}),
    ("Adafactor", {}),
    ("Ftrl", {"l1_regularization_strength": either(0.0, 0.01), "beta": either(0.0, 0.1)}),
    ("Lion", {}),
    ("Lamb", {}),
    ("Muon", {}),
    ("ScheduleFreeAdamW", {}),
]  # fmt: skip
CLIPS = [{"clipnorm": differing(0.1, 0.5, 1.0)}, {"clipvalue": differing(0.01, 0.1, 1.0)}, {"clipvalue": st.just(0.05)},
         {"global_clipnorm": differing(0.1, 0.5, 1.0)}]  # fmt: skip


@st.composite
def optimizers(draw: Any, scheduled: bool) -> Any:
    kind, options = draw(st.sampled_from(RULES))
    options = {"learning_rate": SCHEDULES if scheduled else RATES_OF_LEARNING, **options}
    options |= draw(rarely(st.sampled_from(CLIPS), {}, one_in=4))
    if draw(st.integers(1, 8)) == 8:
        options |= {"use_ema": True, "ema_momentum": differing(0.8, 0.9, 0.95)}
        options |= {"ema_overwrite_frequency": rarely(st.just(3))}
    options["gradient_accumulation_steps"] = rarely(st.just(2), one_in=12)
    if "weight_decay" not in options:
        options["weight_decay"] = rarely(differing(0.001, 0.01, 0.03), one_in=8)
    return draw(words(f"optimizers.{kind}", **options))


@st.composite
def callback_lists(draw: Any, monitor: str, scheduled: bool) -> Any:
    found = []
    if draw(st.integers(1, 4)) == 4:
        stop = {"patience": differing(0, 1, 2), "restore_best_weights": st.booleans(), "monitor": monitor}
        found.append(draw(words("callbacks.EarlyStopping", **stop, start_from_epoch=either(0, 1))))
    if not scheduled and draw(st.integers(1, 5)) == 5:
        plateau = {"patience": 0, "min_delta": either(0.0, 0.1, 5.0), "monitor": monitor, "cooldown": either(0, 1)}
        found.append(draw(words("callbacks.ReduceLROnPlateau", factor=differing(0.1, 0.3, 0.5), **plateau)))
    elif not scheduled and draw(st.integers(1, 5)) == 5:
        found.append(draw(words("callbacks.LearningRateScheduler", factor=differing(0.5, 0.8, 1.5))))
    if draw(st.integers(1, 10)) == 10:
        found.append({"class": "callbacks.TerminateOnNaN"})
    return found


@st.composite
def heads(draw: Any, place: int, units: int) -> Any:
    """An output: its layers, the kind of its target, its loss and its metrics."""
    target, activation = draw(st.sampled_from(list(LOSSES)))
    hidden = draw(rarely(stacks((units,), most=1), []))
    last = {"class": "layers.Dense", "units": UNITS[target], "activation": activation, "name": f"out_{place}"}
    metrics = st.lists(st.sampled_from(METRICS[target, activation]), max_size=2, unique_by=str)
    both = draw(metrics), draw(metrics)
    # A name that is given twice is an error.
    # Counts of whole numbers are no place for weights.
    given = {*map(name_of, both[0]), "meaniou", "onehotmeaniou", "binaryiou"}
    weighted = [one for one in both[1] if name_of(one) not in given]
    loss = draw(st.sampled_from(LOSSES[target, activation]))
    return {"stack": [*hidden, last], "target": target, "loss": loss, "metrics": [both[0], weighted]}


def name_of(metric: Any) -> str:
    return metric if isinstance(metric, str) else metric["name"]


@st.composite
def cases(draw: Any) -> Any:
    assume(draw(st.integers(0, 10**6)))  # hypothesis begins with the least of everything, each time
    inputs = draw(
        st.lists(either("table", "sequence", "image", "words"), min_size=1, max_size=1)
        | rarely(st.lists(either("table", "table", "sequence", "words"), min_size=2, max_size=2), ["table"])
    )
    n_heads = draw(either(1, 1, 1, 2))
    stems = [draw(branches(kind)) for kind in inputs]
    merge = "Concatenate"
    sizes = [shape_of(stem, inputs_of(kind).shape[1:])[0] for stem, kind in zip(stems, inputs, strict=True)]
    if len(inputs) > 1 and draw(st.booleans()):
        merge = draw(either("Add", "Multiply", "Average"))
        stems = [[*stem, {"class": "layers.Dense", "units": 6}] for stem in stems]
        sizes = [6]
    trunk = draw(stacks((sum(sizes),)))
    units = shape_of(trunk, (sum(sizes),))[0]
    ends = [draw(heads(place, units)) for place in range(n_heads)]

    def each(name: str) -> Any:
        return [end[name] for end in ends] if n_heads > 1 else ends[0][name]

    scheduled = draw(rarely(st.just(True), False))
    compiled = {
        "optimizer": draw(optimizers(scheduled)),
        "loss": each("loss"),
        "metrics": [end["metrics"][0] for end in ends] if n_heads > 1 else ends[0]["metrics"][0],
        "weighted_metrics": [end["metrics"][1] for end in ends] if n_heads > 1 else ends[0]["metrics"][1],
    }
    if n_heads > 1 and draw(st.booleans()):
        compiled["loss_weights"] = [1.0, 0.5]
    nested = any(
        "join" in layer or layer["class"] == "layers.MultiHeadAttention"
        for layer in [*stems[0], *trunk, *ends[0]["stack"]]
    )
    validated = draw(st.booleans())
    freq = draw(rarely(st.just(2), 1)) if validated else 1
    return {
        "variants": draw(either(2, 3)) if ASKED else 2,
        "inputs": inputs,
        "shapes": [list(inputs_of(kind).shape[1:]) for kind in inputs],
        "dtypes": [str(inputs_of(kind).dtype) for kind in inputs],
        "sequential": len(inputs) == n_heads == 1 and not nested and draw(st.booleans()),
        "branches": stems,
        "merge": merge,
        "trunk": trunk,
        "heads": [end["stack"] for end in ends],
        "targets": [end["target"] for end in ends],
        "compile": compiled,
        "from_function": draw(rarely(st.just(True), False, one_in=4)),
        "rows": draw(differing(0, 1, 2)),
        "n_rows": draw(either(64, 100) | differing(40, 70, 71)),
        "batch_size": draw(either(8, 16, 33, 1000, None)),
        "epochs": draw(either(2, 3) | differing(2, 3, 4)),
        "initial_epoch": draw(rarely(st.just(1), 0, one_in=8)),
        "shuffle": draw(either(True, True, False)),
        "seed": draw(differing(1, 2, 3)),
        "weights": draw(rarely(either("row", "output"), one_in=3)),
        "validated": validated,
        "validation_weights": draw(rarely(either("output"), one_in=4)),
        "validation_batch_size": draw(rarely(st.just(7))),
        "validation_freq": freq,
        "callbacks": draw(callback_lists("val_loss" if validated and freq == 1 else "loss", scheduled)),
    }  # fmt: skip


# -- small dense networks, which numpy trains on TensorFlow and torch -----------------------------------------------

SIMPLE = either("relu", "tanh", "sigmoid", "linear")
SIMPLE_LAYERS = st.one_of(
    words(
        "layers.Dense",
        units=st.integers(1, 9),
        activation=SIMPLE,
        use_bias=rarely(st.just(False)),
        kernel_regularizer=rarely(PENALTIES),
        bias_regularizer=rarely(PENALTIES, one_in=8),
    ),
    st.integers(1, 6).map(lambda units: {"class": "layers.Dense", "units": units, "activation": "relu"}),
)
SIMPLE_RULES = st.one_of(
    words("optimizers.SGD", learning_rate=RATES_OF_LEARNING),
    words(
        "optimizers.SGD",
        learning_rate=RATES_OF_LEARNING,
        momentum=differing(0.5, 0.8, 0.9),
        nesterov=st.booleans(),
        weight_decay=rarely(differing(0.001, 0.01, 0.03)),
    ),
    words(
        "optimizers.RMSprop",
        learning_rate=RATES_OF_LEARNING,
        rho=differing(0.8, 0.85, 0.9),
        momentum=either(0.0, 0.5),
        epsilon=either(None, 1e-3),
    ),
    words("optimizers.Adam", learning_rate=RATES_OF_LEARNING, beta_1=rarely(differing(0.8, 0.85, 0.9))),
    words("optimizers.AdamW", learning_rate=RATES_OF_LEARNING, weight_decay=differing(0.01, 0.03, 0.1)),
)
CROSSENTROPIES = st.one_of(
    words("losses.SparseCategoricalCrossentropy", from_logits=st.booleans()),
    words("losses.CategoricalCrossentropy", from_logits=st.booleans()),
    words("losses.CategoricalCrossentropy", from_logits=st.booleans(), label_smoothing=differing(0.1, 0.2, 0.3)),
    words("losses.BinaryCrossentropy", from_logits=st.booleans(), label_smoothing=either(0.0, 0.2)),
)
ERRORS = either("mse", "mae", {"class": "losses.MeanSquaredError"}, {"class": "losses.MeanAbsoluteError"})


@st.composite
def dense_cases(draw: Any) -> Any:
    case = draw(cases())
    loss = draw(st.one_of(CROSSENTROPIES, ERRORS))
    if isinstance(loss, dict) and "from_logits" in loss:
        kind = loss["class"].removeprefix("losses.").removesuffix("Crossentropy")
        target = {"SparseCategorical": "labels", "Categorical": "one hot", "Binary": "binary"}[kind]
        activation = "linear" if loss["from_logits"] else "sigmoid" if kind == "Binary" else "softmax"
        metrics = draw(either([], ["accuracy"]))
    else:
        target, activation = "numbers", draw(SIMPLE)
        metrics = draw(either([], ["mae"], [metric("R2Score"), metric("MeanSquaredError")]))
    output = {"class": "layers.Dense", "units": UNITS[target], "activation": activation, "name": "out_0"}
    return {
        **case,
        "inputs": ["table"], "shapes": [[13]], "dtypes": ["float32"], "merge": "Concatenate", "trunk": [],
        "sequential": draw(st.booleans()),
        "branches": [draw(st.lists(SIMPLE_LAYERS, max_size=3))],
        "heads": [[output]], "targets": [target],
        "compile": {"optimizer": draw(SIMPLE_RULES), "loss": loss, "metrics": metrics},
        "weights": case["weights"] and "row", "validation_weights": None,
        "callbacks": [one for one in case["callbacks"] if one["class"] != "callbacks.LearningRateScheduler"],
    }  # fmt: skip


# -- tests ----------------------------------------------------------------------------------------------------------


def run_of(strategy: st.SearchStrategy[Any], number: int) -> None:
    """Compares one case."""

    # One example a run: of the examples of one run, hypothesis makes five out of six by little changes to the sixth.
    @seed(number)
    @settings(
        max_examples=1,
        phases=[Phase.generate, Phase.shrink] if ASKED else [Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(case: Any) -> None:
        assert_ends_as_model_fit(case)

    run()


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # by Keras itself, of JAX that has none
@pytest.mark.parametrize("number", range(FIRST, FIRST + N_MODELS))
def test_random_models_end_as_model_fit(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_STEPS_WORTH_STACKING", 0)
    run_of(cases(), number)


@pytest.mark.backend("tensorflow", "torch")
@pytest.mark.parametrize("number", range(FIRST, FIRST + (N_MODELS if ASKED else N_MODELS // 2)))
def test_random_dense_networks_end_as_model_fit(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, run = [], _dense.NumPySteps.run

    def noted(self: Any, *arguments: Any) -> Any:
        calls.append(self)
        return run(self, *arguments)

    monkeypatch.setattr(_dense.NumPySteps, "run", noted)
    run_of(dense_cases(), number)
    assert calls
