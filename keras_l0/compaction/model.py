"""`compact`: a gated model without the units that are closed for good, to train on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.analysis.graph import deep_recursion, require_finite, require_graph
from keras_l0.arguments import require_probability
from keras_l0.budget.making import put_under
from keras_l0.budget.model import BudgetedModel
from keras_l0.compaction.narrowing import Narrowed, narrow
from keras_l0.compaction.slots import carried
from keras_l0.devices import require_one_process, scope_of
from keras_l0.layers import find_gates
from keras_l0.layers.finding import require_gates
from keras_l0.verification import verify_equal

_INPUT_MODES = ("keep", "gather")
# Attributes that `fit` gives a model.
_SET_BY_FIT = ("history", "stop_evaluating", "_eval_epoch_iterator", "_jax_state")


def compact(
    model: keras.Model,
    max_open: float = 0.01,
    *,
    inputs: str = "keep",
    verify: bool = True,
    data: Any = None,
) -> keras.Model:
    """A smaller gated model, without the units that are closed for good.

    Training goes on where it stands: weights, statistics and gates are cut, and so is
    what the optimizer remembers of them; its steps, its learning rate and its schedule,
    the schedule of a strength, the multipliers, prices and the ramp of a budget are as
    they were. A gate is charged for what it was charged for, and shares of a budget are
    shares of the full size. `fit_compacting` calls this at the right moments.

    Weights that read closed units are no longer part of penalties on weights, ``l2``
    included.

    What `strip` would fold away stays here, since training changes it: only channels
    that are 0, in training as in inference, are cut. Layers whose gates cannot be taken
    apart (those on weights, on inputs inside of a layer, with ``"size_matched"`` test
    gates, several in one layer) stay whole, with a warning.

    Args:
        model: A built Sequential or functional gated model, compiled or not. It is left
            untouched.
        max_open: Closed for good is a gate that is 0 at test time and whose P(z != 0)
            is at most this, or that is 0 and frozen.
        inputs: ``"keep"`` or ``"gather"``, as in `keras_l0.strip`: under ``"gather"``
            features that no open unit reads are not even read.
        verify: Whether to run the old and the new model on a batch and compare.
        data: The batch to compare on, as `model.predict` takes it; random by default.

    Returns:
        A functional model with the source's names of layers, inputs and outputs,
        compiled as the source is. Nested models are laid out flat.

    Raises:
        TypeError: If ``model`` is not a Keras model.
        ValueError: If ``model`` has no readable graph, no gates or a NaN, or is trained
            by several processes, an argument is out of range, or the optimizer keeps
            what cannot be cut.
        RuntimeError: If the new model disagrees with the old one by more than
            rounding.

    Example:
        >>> import keras, keras_l0
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras_l0.layers.L0Dense(8, activation="relu"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> keras_l0.gates(model)[0].assign_log_alpha([9.0, -9.0, 9.0] + 5 * [-9.0])
        >>> small = keras_l0.compact(model)
        >>> small.layers[1].units, small.layers[1].gate.count
        (2, 2)
    """
    require_graph(model)
    require_probability("max_open", max_open)
    require_inputs(inputs)
    require_gates(model)
    return compacted(
        model, closed_for_good(model, max_open), inputs, verify=verify, data=data
    )


def require_inputs(inputs: str) -> None:
    """Raises unless a mode leaves the model's inputs as they are."""
    if inputs not in _INPUT_MODES:
        raise ValueError(
            f"`inputs` must be one of {', '.join(map(repr, _INPUT_MODES))}: data stays "
            f"as it is. Received: inputs={inputs!r}"
        )


def closed_for_good(model: keras.Model, max_open: float) -> list[np.ndarray]:
    """For each `L0Gate` of a model which of its gates are closed for good, flat."""
    found = []
    for gate in find_gates(model):
        z, p = map(keras.ops.convert_to_numpy, (gate.test_gates, gate.prob_open))
        seldom = (p <= max_open) | (not gate.trainable)
        found.append(((z == 0) & seldom).ravel())
    return found


def compacted(
    model: keras.Model,
    gone: list[np.ndarray],
    inputs: str = "keep",
    verify: bool = True,
    data: Any = None,
    also: Sequence[list[Any]] = (),
) -> keras.Model:
    """`compact` for gates that are known.

    Args:
        model: A gated model.
        gone: For each of its gates which units are closed for good.
        inputs: As in `compact`.
        verify: As in `compact`.
        data: As in `compact`.
        also: Lists of values of the model's weights, which are cut in place.
    """
    require_one_process(model)
    require_finite(model)
    with scope_of(model):
        return _compacted(model, gone, inputs, verify, data, also)


def _compacted(
    model: keras.Model,
    gone: list[np.ndarray],
    inputs: str,
    verify: bool,
    data: Any,
    also: Sequence[list[Any]],
) -> keras.Model:
    cut = narrow(model, gone, inputs)
    _warn_of_whole(cut, gone)
    new = _like(model, cut)
    origins = {**cut.origins, **_of_budget(model, new, cut)}
    for weight in new.weights:
        # What a class of one's own holds beside its graph, both models hold.
        whole = np.arange(math.prod(weight.shape)).reshape(weight.shape)
        old, places = origins.setdefault(id(weight), (weight, whole))
        weight.assign(keras.ops.convert_to_numpy(old).ravel()[places])
    for old, new_layer in cut.layers:
        _carry_draws(old, new_layer)
    if verify:
        verify_equal(cut.analysis, cut.evaluation, new, data, "the compacted model")
    if model.compiled:
        settings = dict(model._compile_config.config)
        if model.optimizer is not None:
            trained = model.trainable_variables, new.trainable_variables
            settings["optimizer"] = carried(model.optimizer, *trained, origins)
        new.compile(**settings)
    # Last: from here on nothing fails that would leave the source with cut values.
    number = {id(w): k for k, w in enumerate(model.weights)}
    for values in also:
        values[:] = [
            np.ravel(values[number[id(old)]])[places]
            for old, places in (origins[id(w)] for w in new.weights)
        ]
    return new


def _warn_of_whole(cut: Narrowed, gone: list[np.ndarray]) -> None:
    """Names the layers that could lose units, and do not."""
    closed = {
        id(gate)
        for gate, shut in zip(cut.analysis.gates, gone, strict=True)
        if shut.any()
    }
    for step in cut.analysis.steps:
        reason, operation = cut.whole.get(step.node.name), step.node.operation
        gates = step.rule.gates
        if isinstance(operation, keras.Layer):
            gates = [*gates, *find_gates(operation)]
        if reason and any(id(gate) in closed for gate in gates):
            warnings.warn(
                f"Layer {step.node.name!r} keeps its closed units: {reason}.",
                stacklevel=5,
            )


def _like(model: keras.Model, cut: Narrowed) -> keras.Model:
    """The narrower model as a model of the source's class."""
    new, kind = cut.model, type(model)
    for pair in cut.layers:
        for ours, theirs in zip(*map(find_gates, pair), strict=True):
            theirs.trainable = ours.trainable
    with deep_recursion(len(new.operations)):
        if isinstance(model, BudgetedModel) and model.budgets:
            new = put_under(model.budgets, new, model.wide)
        if kind not in (keras.Sequential, type(new)):
            new = _of_class(kind, model, new, cut)
    if isinstance(model, BudgetedModel):
        new._ended = model._ended
    return new


def _of_class(
    kind: Any, model: keras.Model, plain: keras.Model, cut: Narrowed
) -> keras.Model:
    """The narrower model, of a class of one's own, with what the source's object holds.

    Args:
        kind: The class.
        model: The source.
        plain: The narrower model, of the class of Keras or of this package.
        cut: What it was made by.
    """
    try:
        new = kind(plain.input, plain.output, name=model.name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`model` must be of a class that can be made of inputs, outputs and a "
            f"name. Received: {model.name!r} of type {kind.__name__}: {error}"
        ) from error
    plain.compile()
    known = {*_held(plain), *_SET_BY_FIT}
    counterparts = {id(old): layer for old, layer in cut.layers}
    parts = {id(x) for o in model.operations for x in (o, *getattr(o, "weights", ()))}
    for name, value in _held(model).items():
        if name in known:
            continue
        held = keras.tree.flatten(value)
        if any(id(x) in parts - counterparts.keys() for x in held):
            raise ValueError(
                f"`model` must not hold parts of its graph that have no counterpart in "
                f"a smaller one. Received: {model.name!r} of type {kind.__name__} with "
                f"{name!r}"
            )
        if any(id(x) in counterparts for x in held):
            value = keras.tree.map_structure(
                lambda x: counterparts.get(id(x), x), value
            )
        setattr(new, name, value)
    return new


def _held(model: keras.Model) -> dict[str, Any]:
    """A model's attributes; on Torch those that are layers lie apart."""
    return {**vars(model), **vars(model).get("_modules", {})}


def _of_budget(
    model: keras.Model, new: keras.Model, cut: Narrowed
) -> dict[int, tuple[Any, np.ndarray]]:
    """Where the state of a budget comes from, as in `Narrowed.origins`."""
    if not isinstance(model, BudgetedModel) or not model.budgets:
        return {}
    number_of = {
        id(theirs): number
        for pair in cut.layers
        for ours, theirs in zip(*map(find_gates, pair), strict=True)
        for number, gate in enumerate(cut.analysis.gates)
        if gate is ours
    }
    starts = np.cumsum([0, *(gate.count for gate in cut.analysis.gates)])
    numbers = [number_of[id(gate)] for gate in find_gates(new)]
    kept = [cut.kept[id(cut.analysis.gates[n])] + starts[n] for n in numbers]
    *whole, settled, prices = zip(model.state, new.state, strict=True)
    origins = {id(b): (a, np.arange(a.shape[0])) for a, b in whole}
    of_gates = np.concatenate(kept)
    return {**origins, **{id(b): (a, of_gates) for a, b in (settled, prices)}}


def _carry_draws(old: keras.Layer, new: keras.Layer) -> None:
    """Lets gates and dropout draw on, instead of the same once more."""
    for ours, theirs in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        for name, value in vars(ours).items():
            if isinstance(value, keras.random.SeedGenerator):
                # A copy: JAX would give the buffer of one model to the other.
                state = np.array(keras.ops.convert_to_numpy(value.state))
                getattr(theirs, name).state.assign(state)
