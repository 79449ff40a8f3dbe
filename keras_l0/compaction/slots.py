"""An optimizer for a narrower model that goes on where that of the wider one stands."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_l0.optimizers import innermost

# Those that scale or turn the step of a weight by what all of it is.
_OF_WHOLE_WEIGHTS = ("Lamb", "Muon")


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
        ValueError: If its state is not one number for each number that is trained, or
            if what it does to one depends on all others of the same weight.
    """
    kind = type(innermost(optimizer)).__name__
    if kind in _OF_WHOLE_WEIGHTS:
        raise ValueError(
            "`optimizer` must treat each number of a weight by itself, as Adam does: "
            "else the rest of a weight would train differently once units are gone. "
            f"Received: {kind}"
        )
    sources = {id(v): origins[id(v)][0] for v in new}
    result = _anew(optimizer, [(v, sources[id(v)]) for v in new])
    if not optimizer.built:
        return result
    # One like the old one, to see which variable of its state is for which weight.
    of_old, of_new = _built(_anew(optimizer, []), old), _built(result, new)
    twin = dict(zip(of_old, optimizer.variables, strict=True))
    states = {key: state for key, state in twin.items() if key[0] is not None}
    for key, variable in of_new.items():
        reference, name = key
        if reference is None:
            state = twin.get(key)
            value = None if state is None else np.array(_array(state))
        else:
            source, places = origins[reference]
            state = states[id(source), name]
            value = _array(state).ravel()[places]
        if value is None or value.shape != tuple(variable.shape):
            raise ValueError(
                "`optimizer` must keep one number for each weight, as Adam does, "
                f"or one for all. Received: {type(optimizer).__name__} with a state "
                f"{variable.path!r} of shape {tuple(variable.shape)}"
            )
        variable.assign(value)
    return result


def _anew(optimizer: Any, pairs: list[tuple[Any, Any]]) -> Any:
    """The same optimizer without any state.

    Args:
        optimizer: The optimizer.
        pairs: New variables with those that they stand for.
    """
    new = type(optimizer).from_config(optimizer.get_config())
    ours, theirs = innermost(optimizer), innermost(new)
    # `exclude_from_weight_decay` sets them, and no config holds them.
    names = "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"
    if hasattr(ours, names[0]):
        excluded = getattr(ours, names[0])
        found = {
            theirs._var_key(v) for v, old in pairs if ours._var_key(old) in excluded
        }
        setattr(theirs, names[0], found)
        setattr(theirs, names[1], getattr(ours, names[1]))
    return new


def _built(optimizer: Any, variables: list[Any]) -> dict[tuple, Any]:
    """Builds an optimizer; its state by the id of the weight it is for, and its name.

    What is for no single weight goes by None and its place among such.
    """
    keys: dict[int, tuple] = {}
    inner = innermost(optimizer)
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


def _array(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)
