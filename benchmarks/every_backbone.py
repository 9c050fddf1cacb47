"""Builds every network of keras.applications, and holds the table of `kerastoolkit.transfer` against it.

    python benchmarks/every_backbone.py

For each: it builds at its smallest size and takes images there, the size below is refused, and its parameters,
features, cut and default size are those of the table. Minutes and 3 GB; the exit status is 1 if something differs.
The tests do the same for one network of each family.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from kerastoolkit import transfer


def differences(name: str) -> list[str]:
    """What of the table is not true of a network."""
    known = transfer.get(name)
    size = known.min_size
    model = transfer.feature_extractor(name, None, input_size=size)
    found = []
    features = model.predict(np.zeros((1, size, size, 3)), verbose=0).shape[1]
    if features != known.n_features:
        found.append(f"{features} features")
    if model.count_params() != known.n_parameters:
        found.append(f"{model.count_params()} parameters")
    if known.cut_layer not in [layer.name for layer in model.layers]:
        found.append(f"no layer {known.cut_layer}")
    del model
    keras.utils.clear_session(free_memory=True)
    try:
        known.constructor(weights=None, include_top=False, input_shape=(size - 1, size - 1, 3))
        found.append(f"builds at {size - 1}")
    except ValueError:
        pass
    default = known.constructor(weights=None).input_shape[1]  # with a classifier on top, that of its size
    if default not in (None, known.default_size):  # MobileNetV3 has a classifier for any size
        found.append(f"trained at {default}")
    keras.utils.clear_session(free_memory=True)
    return found


def main() -> int:
    names, wrong = transfer.list_backbones(), 0
    for place, name in enumerate(names, start=1):
        start = time.perf_counter()
        found = differences(name)
        wrong += bool(found)
        seconds = time.perf_counter() - start
        print(
            f"{place:2} of {len(names)} {name:18} {', '.join(found) or 'as in the table'} ({seconds:.0f} s)", flush=True
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
