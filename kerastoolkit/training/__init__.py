"""Training: what happens around and under `Model.fit`."""

from __future__ import annotations

from kerastoolkit.training.seeds import isolated

__all__ = ["isolated"]
