"""Data: what a table holds, and what is held out of it."""

from __future__ import annotations

from kerastoolkit.data.splits import Holdout, holdout, holdout_indices

__all__ = ["Holdout", "holdout", "holdout_indices"]
