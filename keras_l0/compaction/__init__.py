"""Units that are closed for good leave a model, once or while it trains.

`model` makes the smaller model, by `narrowing`, which runs the rewrite of `strip` with
gates left in, and by `slots`, which cuts what the optimizer remembers; `training` does
so in the course of a `fit`.
"""

from keras_l0.compaction.model import compact
from keras_l0.compaction.training import Compaction, fit_compacting

__all__ = ["Compaction", "compact", "fit_compacting"]
