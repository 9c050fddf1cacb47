"""Why a model must be trained by `Model.fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kerastoolkit import _keras
from kerastoolkit.training import _backends

if TYPE_CHECKING:
    import keras


def unsupported(model: keras.Model) -> str | None:
    """Why `Model.fit` must train a model, in words; None if a shared program can."""
    import keras

    kind, backend = type(model), keras.config.backend()
    if not _backends.is_known(backend):
        return f"there is no shared program for the backend {backend}"
    incompatibility = _keras.incompatibility()
    if incompatibility is not None:
        return incompatibility
    if not model.compiled or model.optimizer is None:
        return "the model is not compiled with an optimizer"
    for name in ("train_step", "test_step", "fit", "evaluate", "make_train_function", "make_test_function"):
        if getattr(kind, name) is not getattr(keras.Model, name):
            return f"{kind.__name__} has a `{name}` of its own"
    if model.run_eagerly:
        return "the model runs eagerly"
    if _keras.fixed_batch(model) is not None:
        return "the model takes batches of one size"
    if model.jit_compile and backend == "tensorflow":
        return "the model is compiled with jit_compile"
    optimizer = model.optimizer
    if not type(optimizer).__module__.startswith("keras."):
        return f"{type(optimizer).__name__} is an optimizer of the user's"
    rate = _keras.rate_of(optimizer)
    if not _keras.is_variable(rate) and not type(rate).__module__.startswith("keras."):
        return "its learning rate is a function or a schedule of the user's"
    if _keras.leaves_weights_out(optimizer):
        return "the optimizer leaves some weights out of its weight decay"
    if type(optimizer).__name__ in ("LossScaleOptimizer", "MultiOptimizer", "ScheduleFreeAdamW"):
        return f"{type(optimizer).__name__} is more than a rule of update"
    if optimizer.gradient_accumulation_steps or optimizer.ema_overwrite_frequency:
        return "the optimizer does something else in some steps"
    if not model.trainable_variables:
        return "the model has nothing to train"
    if not _keras.is_built_for(optimizer, model.trainable_variables):
        return "layers were frozen or thawed since its optimizer was built"
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy() or _keras.is_under_strategy(model):
            return "the model is distributed over devices"
        # oneDNN, which Keras' own program uses, computes another gradient of it than TensorFlow: seen with 2.21.
        if any(type(layer).__name__ in ("MaxPooling3D", "AdaptiveMaxPooling3D") for layer in _keras.layers_of(model)):
            return "TensorFlow computes another gradient of MaxPooling3D in another program"
    elif keras.distribution.distribution() is not None:
        return "the model is distributed over devices"
    if backend == "torch":
        for layer in _keras.layers_of(model):
            if draws_while_training(layer):
                return f"{type(layer).__name__} draws random numbers, on torch from a generator of the process"
            if type(layer).__name__ == "TorchModuleWrapper":
                return "a torch.nn.Module in it keeps its own weights"
    return None


def draws_while_training(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers in training; Keras gives seeds to some that never do."""
    if not _keras.is_seeded(layer):
        return False
    rates = [getattr(layer, name, None) for name in ("rate", "stddev", "dropout", "recurrent_dropout")]
    known = [rate for rate in rates if isinstance(rate, (int, float))]
    return not (type(layer).__module__.startswith("keras.") and known) or any(known)
