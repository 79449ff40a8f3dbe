"""An optimizer for a narrower model that goes on where that of the wider one stands."""

from __future__ import annotations

from typing import Any

import keras

# What `exclude_from_weight_decay` sets, and no config holds.
_EXCLUDED = "_exclude_from_weight_decay"


def carried(
    optimizer: Any, old: list[Any], new: list[Any], origins: dict[int, tuple]
) -> Any:
    """A new optimizer, built, with the state of another one.

    Args:
        optimizer: The optimizer to go on from.
        old: The variables that it trains.
        new: Those that the new one is going to train.
        origins: By the id of a new variable the old one that it is cut from, and for
            each number in it the place of that number in the (flat) old one's.

    Raises:
        ValueError: If its state is not one number for each number that is trained.
    """
    result = _anew(optimizer, origins)
    if not optimizer.built:
        return result
    # One like the old one, to see which variable of its state is for which weight.
    of_old, of_new = _built(_anew(optimizer, {}), old), _built(result, new)
    twin = dict(zip(of_old, optimizer.variables, strict=True))
    states = {key: state for key, state in twin.items() if key[0] is not None}
    for key, variable in of_new.items():
        reference, name = key
        if reference is None:
            state = twin.get(key)
            value = None if state is None else keras.ops.convert_to_numpy(state)
        else:
            source, places = origins[reference]
            state = states[id(source), name]
            value = keras.ops.convert_to_numpy(state).ravel()[places]
        if value is None or value.shape != tuple(variable.shape):
            raise ValueError(
                f"`optimizer` must keep one number for each weight, as Adam and SGD do, "
                f"or one for all. Received: {type(optimizer).__name__} with a state "
                f"{variable.path!r} of shape {tuple(variable.shape)}"
            )
        variable.assign(value)
    return result


def _anew(optimizer: Any, origins: dict[int, tuple]) -> Any:
    """The same optimizer without any state."""
    new = type(optimizer).from_config(optimizer.get_config())
    ours, theirs = optimizer, new
    while hasattr(ours, "inner_optimizer"):
        ours, theirs = ours.inner_optimizer, theirs.inner_optimizer
    for name in (_EXCLUDED, f"{_EXCLUDED}_pattern"):
        if hasattr(ours, name):
            setattr(theirs, name, getattr(ours, name))
    if getattr(ours, _EXCLUDED, None):
        setattr(theirs, _EXCLUDED, {
            key for key, (source, _) in origins.items()
            if ours._var_key(source) in getattr(ours, _EXCLUDED)
        })  # fmt: skip
    return new


def _built(optimizer: Any, variables: list[Any]) -> dict[tuple, Any]:
    """Builds an optimizer; its state by the id of the weight it is for, and its name.

    What is for no single weight goes by None and its place among such.
    """
    keys: dict[int, tuple] = {}
    inner = optimizer
    while hasattr(inner, "inner_optimizer"):
        inner = inner.inner_optimizer
    add = inner.add_variable_from_reference

    def recorded(reference_variable: Any, name: Any = None, **kwargs: Any) -> Any:
        state = add(reference_variable, name=name, **kwargs)
        keys[id(state)] = id(reference_variable), name
        return state

    inner.add_variable_from_reference = recorded
    try:
        optimizer.build(variables)
    finally:
        del inner.add_variable_from_reference
    loose = iter(range(len(optimizer.variables)))
    return {
        keys.get(id(state)) or (None, next(loose)): state
        for state in optimizer.variables
    }


