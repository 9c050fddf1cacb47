"""Starting from a network that is already trained: the zoo of `keras.applications`, features, new networks from old.

zoo          one table of every network of `keras.applications`: its preprocessing, its sizes, a layer to cut at
weights      weights from a file into a network, layer by layer
features     a network that takes images as they are and returns their features; each image is computed once
cache        these features, kept on disk and in memory
fine_tuning  which layers train, and at which rates; the statistics of BatchNormalization
derive       cuts any trained network at a layer and puts a new end on it
"""

from __future__ import annotations

from kerastoolkit.transfer.cache import FeatureCache
from kerastoolkit.transfer.derive import _Derived as _Derived  # where pickles look for it
from kerastoolkit.transfer.derive import derive
from kerastoolkit.transfer.features import Extractor, feature_extractor
from kerastoolkit.transfer.fine_tuning import check_rates as check_rates  # this and its like are for the estimators
from kerastoolkit.transfer.fine_tuning import first_unfrozen as first_unfrozen
from kerastoolkit.transfer.fine_tuning import optimizer_by_depth, unfreeze, update_batch_norm
from kerastoolkit.transfer.weights import copy_weights as copy_weights
from kerastoolkit.transfer.weights import load_weights
from kerastoolkit.transfer.zoo import Backbone, get, list_backbones
from kerastoolkit.transfer.zoo import check_size as check_size

__all__ = [
    "Backbone",
    "Extractor",
    "FeatureCache",
    "derive",
    "feature_extractor",
    "get",
    "list_backbones",
    "load_weights",
    "optimizer_by_depth",
    "unfreeze",
    "update_batch_norm",
]
