"""Training: what happens around and under `Model.fit`."""

from __future__ import annotations

from kerastoolkit.training.fit import Fit, Trained, explain, fit_many
from kerastoolkit.training.seeds import isolated

__all__ = ["Fit", "Trained", "explain", "fit_many", "isolated"]
