"""Which devices a model trains on, by which strategy, and why.

`strategy("auto")` chooses, `strategy("mirrored")` asks by name, and `explain()` says what was chosen and why. What is
asked for by name is provided or refused with the reason; nothing is replaced silently.

Keras 3 distributes in two ways, and says neither where it does nothing nor where it is wrong:

- on TensorFlow, `tf.distribute`. Keras divides the loss of a batch by the number of replicas even if the last batch
  leaves them unequal shares, so that its rows count too much or too little; `Strategy.prepare` gives every row the same
  weight again. `keras.distribution` is accepted there and ignored;
- on JAX, `keras.distribution`. A batch that does not divide by the number of devices raises an error; a prepared model
  takes such a batch whole on every device, and each computes its share of it.

So a prepared model ends up as on one device, up to rounding, whatever the batch size, except for what it draws at
random. What cannot be made equal is refused by `prepare`.

Example:

>>> chosen = strategy("auto")
>>> with chosen.scope():  # doctest: +SKIP
...     model = build()
...     model.compile(optimizer="adam", loss="mse")
...     chosen.prepare(model).fit(X, y, batch_size=256)
>>> print(chosen.explain())  # doctest: +SKIP
"""

from __future__ import annotations

from kerastoolkit.distribution.choose import strategy
from kerastoolkit.distribution.devices import Device, Devices, detect
from kerastoolkit.distribution.processes import initialize
from kerastoolkit.distribution.strategies import Strategy

__all__ = ["Device", "Devices", "Strategy", "detect", "initialize", "strategy"]
