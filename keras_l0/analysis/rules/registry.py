"""Which rule a call follows: its type's, or a barrier with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_l0.analysis.facts import Atoms, Channels
from keras_l0.analysis.graph import Node
from keras_l0.analysis.rules.barriers import BarrierRule, GatedBarrierRule, blaming
from keras_l0.analysis.rules.base import Barrier, Rule

RULES: dict[type, type[Rule]] = {}


def present(names: str, module: Any = keras.layers) -> list[type]:
    """The classes of these names that a module has: Keras' releases differ."""
    return [getattr(module, n) for n in names.split() if hasattr(module, n)]


def register_strip_rule(
    *layer_types: type,
) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator: the rule that `strip` follows for exactly these layer types.

    A subclass of a ruled layer is not ruled by it: it may compute anything.

    Args:
        layer_types: Layer (or operation) classes.

    Raises:
        TypeError: If something other than classes, or a class that is not a `Rule`, is
            registered.

    Example:
        >>> import keras, keras_l0
        >>> class Doubled(keras.layers.Layer):
        ...     def call(self, x):
        ...         return 2 * x
        >>> @keras_l0.register_strip_rule(Doubled)
        ... class DoubledRule(keras_l0.Rule):
        ...     passes_scale = True
        ...     def constants(self, site):
        ...         return [2 * site.ins[0].value]
    """
    for layer_type in layer_types:
        is_class = isinstance(layer_type, type)
        if not (is_class and issubclass(layer_type, keras.Operation)):
            raise TypeError(
                "`layer_types` must be layer or operation classes, as in "
                "`@register_strip_rule(MyLayer)`. "
                f"Received: {layer_type!r} of type {type(layer_type).__name__}"
            )

    def decorate(rule: type[Rule]) -> type[Rule]:
        if not (isinstance(rule, type) and issubclass(rule, Rule)):
            raise TypeError(
                f"`rule` must be a subclass of `keras_l0.Rule`. Received: {rule!r}"
            )
        RULES.update(dict.fromkeys(layer_types, rule))
        return rule

    return decorate


def register_barrier(reason: str, *layer_types: type) -> None:
    """Makes barriers of layer types, for a reason that a user understands."""

    class NamedBarrierRule(Rule):
        def connect(self, atoms: Atoms) -> list[Channels]:
            raise Barrier(reason)

    NamedBarrierRule.reason = reason
    NamedBarrierRule.ignores_training = True
    register_strip_rule(*layer_types)(NamedBarrierRule)


def rule_for(
    node: Node, ins: list[Channels], atoms: Atoms, first: Rule | None = None
) -> Rule:
    """The rule of one call: its type's, or a barrier with the reason.

    Args:
        node: The call.
        ins: The channels of its inputs.
        atoms: Where to get decisions from.
        first: The rule of the first call of the same operation, if there is one.
    """
    rule_type = RULES.get(type(node.operation))
    if node.option("training") and not getattr(rule_type, "ignores_training", False):
        return BarrierRule(node, ins, atoms, "it is called with training=True")
    if rule_type is None:
        reason = f"no rule for {type(node.operation).__name__}"
        return BarrierRule(node, ins, atoms, reason)
    if held := held_weights(node.operation):
        return BarrierRule(node, ins, atoms, held)
    try:
        with blaming(node, rule_type, "reading"):
            rule = rule_type.of(node, ins, atoms)
        if not all(channels.size for channels in rule.outs):
            raise Barrier("it makes a tensor without channels")
    except Barrier as barrier:
        # What other calls use as well could not be told to hold no gate any more.
        gated = getattr(node.operation, "gates_outputs", False) and not node.shared
        kind = GatedBarrierRule if gated else BarrierRule
        rule = kind(node, ins, atoms, str(barrier))
    if first is not None and rule.shares_weights:
        _share(rule, first, atoms)
    return rule


def held_weights(operation: Any) -> str | None:
    """Why the weights of a layer, or of one inside it, are not what they seem."""
    for layer in getattr(operation, "_flatten_layers", list)():
        if mode := getattr(layer, "quantization_mode", None):
            return f"its weights are quantized ({mode}): strip first, then quantize"
        if getattr(layer, "lora_enabled", False):
            return "LoRA is enabled: its kernel is not one array"
    return None


def _share(rule: Rule, first: Rule, atoms: Atoms) -> None:
    """Makes two calls that use the same weights keep the same channels."""
    first.calls.append(rule)
    rule.calls = first.calls
    own, others = rule.coupled, first.coupled
    alike = [(c.axis, c.size) for c in own] == [(c.axis, c.size) for c in others]
    if rule.whole or first.whole or not alike:
        rule.whole = first.whole = True
        reason = "its calls hold their channels on different axes"
        rule.reason = rule.reason or first.reason or reason
        first.reason = first.reason or rule.reason
        return
    for a, b in zip(own, others, strict=True):
        atoms.tie(a.atoms, b.atoms)
