"""What optimizers must be told about gates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_l0.layers.gate import VARIABLE


def exclude_from_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    var_names: str | Iterable[str] = (),
    var_list: Iterable[Any] = (),
) -> Any:
    """Tells an optimizer with weight decay (AdamW, for one) to leave gates alone.

    Decay pulls every variable towards 0. For a gate that is a probability of .83 of
    being open, whatever the data says: open gates close, and closed ones open again.

    Keras' `optimizer.exclude_from_weight_decay` forgets what an earlier call said. So
    pass what else must not decay here, as there. Nor does it save what was said: a
    model that is loaded to train on needs a new optimizer. A `BudgetedModel` tells its
    optimizer by itself.

    Args:
        optimizer: An optimizer that is not built yet.
        var_names: Parts of names of further variables to exclude, such as ``"bias"``;
            one, or several of them.
        var_list: Further variables to exclude.

    Returns:
        The optimizer.

    Raises:
        TypeError: If ``optimizer`` is not a Keras optimizer, or a name not a string.
        ValueError: If it is built already.

    Example:
        >>> import keras, keras_l0
        >>> optimizer = keras_l0.exclude_from_weight_decay(
        ...     keras.optimizers.AdamW(1e-3, weight_decay=1e-2), var_names=["bias"])
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a Keras optimizer. "
            f"Received: {optimizer!r} of type {type(optimizer).__name__}"
        )
    inner = innermost(optimizer)
    if inner.built:
        raise ValueError(
            "`optimizer` must not be built yet: exclude gates from its weight decay "
            f"before `fit`. Received: {optimizer!r}"
        )
    names: Any = [var_names] if isinstance(var_names, str) else var_names
    names = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            "`var_names` must be parts of names of variables, strings. "
            f"Received: var_names={var_names!r}"
        )
    inner.exclude_from_weight_decay(
        var_list=list(var_list), var_names=[VARIABLE, *names]
    )
    return optimizer


def innermost(optimizer: Any) -> Any:
    """The optimizer itself, without what scales its loss."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer
