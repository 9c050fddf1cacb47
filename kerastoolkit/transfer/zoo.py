"""The zoo of `keras.applications`: one table of what a user would have to look up of each network.

The preprocessing that a network was trained with is its module's own `preprocess_input`; the table knows the module.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerastoolkit._values import is_whole
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["Backbone", "check_size", "get", "list_backbones"]


@dataclass(frozen=True)
class Backbone:
    """What is known about a network of `keras.applications`.

    Attributes:
        name: Name of its constructor.
        module: Name of its module in `keras.applications`, which holds its preprocessing.
        default_size: Height and width of the images that it was trained on, in pixels.
        min_size: Smallest height and width that it takes, in pixels.
        n_parameters: Number of its weights, without the classifier on top.
        n_features: Number of its features after average pooling.
        cut_layer: Name of a good layer to cut at: its last feature map with a name of its own.
    """

    name: str
    module: str
    default_size: int
    min_size: int
    n_parameters: int
    n_features: int
    cut_layer: str

    @property
    def constructor(self) -> Callable[..., keras.Model]:
        """The function of `keras.applications` that builds it."""
        import keras

        try:
            constructor: Callable[..., Any] = getattr(keras.applications, self.name)
            return constructor
        except AttributeError:
            raise ParameterError(
                f"`backbone` is {self.name!r}, which Keras {keras.__version__} does not have."
            ) from None

    @property
    def preprocess_input(self) -> Callable[..., Any]:
        """The preprocessing of its module, for images from 0 to 255; it changes nothing where a network has its own."""
        module: Any = importlib.import_module(f"keras.applications.{self.module}")
        preprocess: Callable[..., Any] = module.preprocess_input
        return preprocess


_TABLE = """
ConvNeXtBase       convnext            224 32  87566464 1024 convnext_base_stage_3_block_2_identity
ConvNeXtLarge      convnext            224 32 196230336 1536 convnext_large_stage_3_block_2_identity
ConvNeXtSmall      convnext            224 32  49454688  768 convnext_small_stage_3_block_2_identity
ConvNeXtTiny       convnext            224 32  27820128  768 convnext_tiny_stage_3_block_2_identity
ConvNeXtXLarge     convnext            224 32 348147968 2048 convnext_xlarge_stage_3_block_2_identity
DenseNet121        densenet            224 32   7037504 1024 relu
DenseNet169        densenet            224 32  12642880 1664 relu
DenseNet201        densenet            224 32  18321984 1920 relu
EfficientNetB0     efficientnet        224 32   4049571 1280 top_activation
EfficientNetB1     efficientnet        240 32   6575239 1280 top_activation
EfficientNetB2     efficientnet        260 32   7768569 1408 top_activation
EfficientNetB3     efficientnet        300 32  10783535 1536 top_activation
EfficientNetB4     efficientnet        380 32  17673823 1792 top_activation
EfficientNetB5     efficientnet        456 32  28513527 2048 top_activation
EfficientNetB6     efficientnet        528 32  40960143 2304 top_activation
EfficientNetB7     efficientnet        600 32  64097687 2560 top_activation
EfficientNetV2B0   efficientnet_v2     224 32   5919312 1280 top_activation
EfficientNetV2B1   efficientnet_v2     240 32   6931124 1280 top_activation
EfficientNetV2B2   efficientnet_v2     260 32   8769374 1408 top_activation
EfficientNetV2B3   efficientnet_v2     300 32  12930622 1536 top_activation
EfficientNetV2L    efficientnet_v2     480 32 117746848 1280 top_activation
EfficientNetV2M    efficientnet_v2     480 32  53150388 1280 top_activation
EfficientNetV2S    efficientnet_v2     384 32  20331360 1280 top_activation
InceptionResNetV2  inception_resnet_v2 299 75  54336736 1536 conv_7b_ac
InceptionV3        inception_v3        299 75  21802784 2048 mixed10
MobileNet          mobilenet           224 32   3228864 1024 conv_pw_13_relu
MobileNetV2        mobilenet_v2        224 32   2257984 1280 block_13_expand_relu
MobileNetV3Large   mobilenet_v3        224 32   2996352  960 conv_1_bn
MobileNetV3Small   mobilenet_v3        224 32    939120  576 conv_1_bn
NASNetLarge        nasnet              331 32  84916818 4032 normal_concat_18
NASNetMobile       nasnet              224 32   4269716 1056 normal_concat_12
ResNet101          resnet              224 32  42658176 2048 conv5_block3_out
ResNet101V2        resnet_v2           224 32  42626560 2048 post_relu
ResNet152          resnet              224 32  58370944 2048 conv5_block3_out
ResNet152V2        resnet_v2           224 32  58331648 2048 post_relu
ResNet50           resnet              224 32  23587712 2048 conv5_block3_out
ResNet50V2         resnet_v2           224 32  23564800 2048 post_relu
VGG16              vgg16               224 32  14714688  512 block5_pool
VGG19              vgg19               224 32  20024384  512 block5_pool
Xception           xception            299 71  20861480 2048 block14_sepconv2_act
"""


def _from_line(line: str) -> Backbone:
    name, module, default_size, min_size, n_parameters, n_features, cut_layer = line.split()
    return Backbone(name, module, int(default_size), int(min_size), int(n_parameters), int(n_features), cut_layer)


_BACKBONES = {backbone.name: backbone for backbone in map(_from_line, _TABLE.strip().splitlines())}


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of the pretrained networks, sorted.

    Example:

    >>> list_backbones("*Mobile*")[:2]
    ['MobileNet', 'MobileNetV2']

    Args:
        pattern: What the names look like, with `*` for anything; case makes no difference. Defaults to `"*"`.

    Returns:
        Names for `get` and for the `backbone` argument of the estimators.
    """
    return sorted(name for name in _BACKBONES if fnmatch.fnmatchcase(name.lower(), pattern.lower()))


def get(backbone: str | Backbone) -> Backbone:
    """Finds a pretrained network by name.

    Args:
        backbone: The name; a `Backbone` comes back as it is.

    Raises:
        ParameterError: No network has that name; the message suggests the nearest one.
    """
    if isinstance(backbone, Backbone):
        return backbone
    found = _BACKBONES.get(backbone) if isinstance(backbone, str) else None
    if found is None:
        close = did_you_mean(backbone, _BACKBONES)
        raise ParameterError(
            f"`backbone` is {backbone!r}, which is not a network of keras.applications.{close} "
            'kerastoolkit.transfer.list_backbones("*Mobile*") lists those of a kind.'
        )
    return found


def check_size(backbone: Backbone, input_size: int | None) -> int:
    """The size to which images are resized, in pixels.

    Args:
        backbone: The network.
        input_size: What the user asked for; `None` for the size that the network was trained on.

    Raises:
        ParameterError: It is not a whole number, or is smaller than the network takes.
    """
    size = backbone.default_size if input_size is None else input_size
    if not is_whole(size) or size < backbone.min_size:
        raise ParameterError(
            f"`input_size` must be a whole number of at least {backbone.min_size} pixels for {backbone.name}; got "
            f"{size!r}. Smaller images are enlarged to it."
        )
    return int(size)
