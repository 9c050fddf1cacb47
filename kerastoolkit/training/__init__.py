"""Training: what happens around and under `Model.fit`.

`fit` is the door: a `Fit` says what to train, `fit_many` trains many of them, and a `Trained` says what became of each.
Behind it, `fused` trains fits of one structure together, and `by_keras` trains by `Model.fit` what no program can do.
`_program` makes one structure's programs, from the parts beside it: hyper-parameters as tensors, optimizers as pure
functions, a guard against side effects, and in `_backends` all that TensorFlow, JAX and torch do in their own way.
"""

from __future__ import annotations

from kerastoolkit.training.fit import Fit, Trained, explain, fit_many
from kerastoolkit.training.seeds import isolated

__all__ = ["Fit", "Trained", "explain", "fit_many", "isolated"]
