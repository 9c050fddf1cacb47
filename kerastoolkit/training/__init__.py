"""Training: what happens around and under `Model.fit`.

`fit` is the door: a `Fit` says what to train, `fit_many` trains many of them, and a `Trained` says what became of each.
Behind it, `fused` trains fits of one structure together, and `by_keras` trains by `Model.fit` what no program can do.
`_program` makes one structure's programs, from the parts beside it: hyper-parameters as tensors, optimizers as pure
functions, a guard against side effects, and in `_backends` all that TensorFlow, JAX and torch do in their own way.

The files, each of which imports only those before it:

    _state                what a step reads and writes
    _structure            what two models must have in common to share a program
    _dense, _optimizer    small dense networks in numpy; an optimizer as a pure function
    _memory, _threads     how much memory is free; threads that train
    _backends             TensorFlow, JAX, torch and numpy
    _unsupported, seeds   what needs `Model.fit`, and why; random numbers of one's own
    _costs, _hyperparameters, _purity, _program, _drawing    one structure's programs, and how initial weights are drawn
    network               a compiled model as its structure and its state
    _data, _fits, _stack  rows; `Fit` and `Trained`; the states of models that train together
    _compatibility        whether this Keras trains as those that were tried
    _run                  a fit while it trains
    by_keras, fused, fit  the ordinary path; many fits as one program; the door
"""

from __future__ import annotations

from kerastoolkit.training.fit import Fit, Trained, explain, fit_many
from kerastoolkit.training.seeds import isolated

__all__ = ["Fit", "Trained", "explain", "fit_many", "isolated"]
