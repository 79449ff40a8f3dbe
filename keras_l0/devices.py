"""What a model that is trained on several devices needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def replicated() -> Iterator[None]:
    """Makes layers whole on each device, whatever the layout of weights in force.

    A layout that splits a width over devices need not fit the width that strip leaves.
    """
    current = keras.distribution.distribution()
    if not isinstance(current, keras.distribution.ModelParallel):
        yield
        return
    whole = keras.distribution.ModelParallel(
        layout_map=keras.distribution.LayoutMap(current.device_mesh),
        batch_dim_name=current.batch_dim_name,
    )
    with whole.scope():
        yield


def scope_of(model: keras.Model) -> Any:
    """Where weights lie on all devices that the model's lie on."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def processes() -> int:
    """How many processes the distribution spans that Keras has been given."""
    return getattr(keras.distribution.distribution(), "num_processes", 1)


def placed(variable: Any, values: Any) -> Any:
    """Values for a variable, lying where it lies.

    Over several processes JAX cannot read again what is assigned from elsewhere.
    """
    if processes() == 1:
        return values
    now = keras.ops.convert_to_tensor(variable)
    values = keras.ops.cast(values, now.dtype)
    return keras.ops.where(now == now, values, values)


def require_one_process(model: keras.Model) -> None:
    """Raises in a job of several processes, which would wait for each other."""
    count = processes()
    if count > 1:
        raise ValueError(
            "`model` must lose units in one process, and outside of a distribution. "
            f"Received: {model.name!r} in a distribution over {count} processes. Call "
            "`keras.distribution.set_distribution(None)` in all of them first"
        )
