"""Rules of preprocessing layers, which stand in front of a network as a rule."""

from __future__ import annotations

import keras
import numpy as np

from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.rules.base import Barrier
from keras_l0.analysis.rules.elementwise import ElementwiseRule
from keras_l0.analysis.rules.registry import (
    present,
    register_barrier,
    register_strip_rule,
)
from keras_l0.analysis.rules.spatial import SpatialRule, WarpingRule


@register_strip_rule(
    *present(
        "AugMix CenterCrop CutMix MaxNumBoundingBoxes MixUp "
        "RandomBrightness RandomContrast RandomCrop RandomElasticTransform "
        "RandomErasing RandomFlip RandomGaussianBlur RandomInvert RandomPerspective "
        "RandomPosterization RandomRotation RandomSharpness RandomShear "
        "RandomTranslation RandomZoom Solarization"
    )
)
class AugmentationRule(SpatialRule):
    """A change of images of any number of channels, in training or a crop."""

    ignores_training = True


@register_strip_rule(
    *present("AutoContrast ContrastLimitedAdaptiveHistogramEqualization")
)
class ContrastRule(WarpingRule):
    """New values of each channel from its own values; 0 stays 0."""

    ignores_training = True


@register_strip_rule(keras.layers.Discretization)
class DiscretizationRule(ElementwiseRule):
    """The number of the bin that a value lies in."""

    def connect(self, atoms: Atoms) -> list[Channels]:
        if self.layer.output_mode != "int" or self.layer.sparse:
            raise Barrier("it encodes all features at once")
        return super().connect(atoms)

    def function(self, values: np.ndarray) -> np.ndarray:
        numbers = keras.ops.convert_to_numpy(self.layer(np.nan_to_num(values)))
        return np.where(np.isnan(values), np.nan, numbers)


for _reason, _names in {
    "it encodes all features at once": (
        "CategoryEncoding HashedCrossing Hashing IntegerLookup"
    ),
    "it reads text": "StringLookup TextVectorization",
    "in training it takes images of three colours": (
        "RandAugment RandomColorDegeneration RandomColorJitter RandomGrayscale "
        "RandomHue RandomSaturation"
    ),
    "it takes sounds as a whole": "MelSpectrogram STFTSpectrogram",
    "it runs layers of its own": "Pipeline",
    "it runs a model of another framework": (
        "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper"
    ),
    "it is one step of a recurrence, whose units feed the next": (
        "GRUCell LSTMCell SimpleRNNCell StackedRNNCells"
    ),
}.items():
    register_barrier(_reason, *present(_names))
