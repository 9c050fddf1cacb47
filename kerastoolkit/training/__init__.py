"""Training: what happens around and under `Model.fit`."""

from __future__ import annotations

from kerastoolkit.training.seeds import isolated, order_of_rows

__all__ = ["isolated", "order_of_rows"]
