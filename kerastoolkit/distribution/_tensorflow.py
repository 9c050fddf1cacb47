"""`tf.distribute`: its strategies, and what Keras gets wrong under them.

Keras divides the loss of a batch by the number of replicas even if the last batch leaves them unequal shares, so that
its rows count too much or too little; `weight_rows_equally` corrects that. What cannot be corrected is refused.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from kerastoolkit import _keras
from kerastoolkit.exceptions import DistributionError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["Resolver", "check_for_replicas", "mirrored", "one_device", "tpu", "weight_rows_equally"]

KERAS_ISSUES = "https://github.com/keras-team/keras/issues/"

Resolver: TypeAlias = Callable[[str | None], Any]  # from the address of a TPU to a cluster resolver of TensorFlow


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """TensorFlow's `MirroredStrategy` over devices, one for all calls with the same ones."""
    import tensorflow as tf

    # By default TensorFlow adds gradients up by collective operations of all devices. Those cannot be repeated by
    # `steps_per_execution`, and break every fit after one over another set of devices.
    add_up = tf.distribute.NcclAllReduce if devices[0].startswith("gpu") else tf.distribute.ReductionToOneDevice
    return tf.distribute.MirroredStrategy([device.upper() for device in devices], cross_device_ops=add_up())


@functools.cache
def one_device(device: str) -> tf.distribute.Strategy:
    """TensorFlow's `OneDeviceStrategy` on a device."""
    import tensorflow as tf

    return tf.distribute.OneDeviceStrategy(device.upper())


@functools.cache
def tpu(address: str | None, resolver: Resolver | None) -> tf.distribute.Strategy:
    """TensorFlow's `TPUStrategy` on the TPU at an address, which is initialized."""
    import tensorflow as tf

    found = (resolver or tf.distribute.cluster_resolver.TPUClusterResolver)(address)
    tf.config.experimental_connect_to_cluster(found)
    tf.tpu.experimental.initialize_tpu_system(found)
    return tf.distribute.TPUStrategy(found)


def check_for_replicas(model: keras.Model, name: str) -> None:
    """Refuses a model with anything that Keras computes wrongly, or not at all, on a share of a batch.

    Raises:
        DistributionError: The message says what it is, why, and what to use.
    """
    import keras

    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    under = f"under the strategy {name!r}"
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise DistributionError(
            f"`gradient_accumulation_steps` fails {under} ({KERAS_ISSUES}20582). Use a larger `batch_size`: the "
            "devices share it."
        )
    for clipping in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(optimizer, clipping, None):
            raise DistributionError(
                f"`{clipping}` is computed wrongly {under}: Keras clips the gradient of each replica's share before it "
                "adds them up. Leave it out, lower the learning rate, or use one device."
            )
    if model.jit_compile is True and name == "mirrored":
        raise DistributionError(
            f"`jit_compile=True` fails {under}: XLA cannot reach the copies of a variable on other devices. Leave it "
            "out."
        )
    for layer in _keras.layers_of(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable and not layer.synchronized:
            raise DistributionError(
                f"The layer {layer.name!r} would learn its statistics from each replica's share of a batch {under}, "
                "and NaN from an empty one. Make it BatchNormalization(synchronized=True), which gives those of the "
                "whole batch, or freeze it (trainable=False)."
            )
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean"):
            raise DistributionError(
                f"The loss {getattr(loss, 'name', loss)!r} is reduced by {reduction!r}, which Keras computes for each "
                f"replica's share {under}. Use the mean over the batch, reduction='sum_over_batch_size'."
            )


_UNEVEN = (
    "Under this strategy a model with a train_step of its own needs batches that divide by the number of devices. "
    "Choose such a `batch_size`, and leave out the last batch if it is smaller."
)


def weight_rows_equally(model: keras.Model) -> None:
    """Weights the loss of each replica by its share of the rows; changes the steps of the model.

    Keras divides the mean loss of each replica by their number. In a last batch of 33 rows, shared as 32 and 1, one row
    would count as much as all others together.
    """
    import keras
    import tensorflow as tf

    optimizer = model.optimizer
    step, scale = type(model).train_step.__get__(model), type(optimizer).scale_loss.__get__(optimizer)
    knows_loss = type(model).train_step is keras.Model.train_step
    # TensorFlow traces each replica in a thread of its own.
    replica = threading.local()

    def train_step(data: object) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        rows = tf.shape(next(part for part in keras.tree.flatten(x) if part is not None))[0]
        context = tf.distribute.get_replica_context()
        all_rows = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
        rows = rows * context.num_replicas_in_sync
        if knows_loss:
            replica.share = tf.cast(rows, "float32") / tf.cast(all_rows, "float32")
            return step(data)
        # A step of the user's may add up its gradients in any way.
        with tf.control_dependencies([tf.debugging.assert_equal(rows, all_rows, _UNEVEN)]):
            return step(data)

    def scale_loss(loss: tf.Tensor) -> tf.Tensor:
        loss = scale(loss)
        return loss * tf.cast(replica.share, loss.dtype) if knows_loss else loss

    def predict_on_batch(x: Any) -> NoReturn:
        raise DistributionError(
            f"`predict_on_batch` is computed wrongly under tf.distribute: each device predicts all {len(x)} rows, and "
            "all of them come back. Use `predict`."
        )

    model.train_step, model.predict_on_batch = train_step, predict_on_batch
    optimizer.scale_loss = scale_loss
    model.train_function = None  # the old one was made from the step before
