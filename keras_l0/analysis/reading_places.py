"""Gates in front of what reads channels, where gates behind their makers wake up.

A network with pre-activation normalizes a stream each time that it reads it. Of a
channel that a gate has closed the normalization then makes a constant, which a
convolution with padding cannot take into its bias, so that one unit has to stay for it.
A gate behind that normalization and its activation makes the channel 0 where it is
read; and what nobody reads any more leaves the stream.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np

from keras_l0.analysis.facts import Atoms, Demand, Flow
from keras_l0.analysis.passes import Analysis, Step
from keras_l0.analysis.rules.base import Barrier


def wakes(analysis: Analysis, atom: int, places: set[int]) -> bool:
    """Whether a unit that is 0 at some places keeps somebody reading it further on.

    Args:
        analysis: The model.
        atom: The unit's decision.
        places: Where it is 0: tensors by their numbers in the analysis.
    """
    channels = dict(enumerate(analysis.channels))
    flows: dict[int, Flow] = {}
    for step in analysis.steps:
        if not flows.keys().isdisjoint(step.ins):
            if step.rule.whole:
                return True
            # The same rule, of what the closed channel is here.
            rule = copy.copy(step.rule)
            rule.calls = [rule if c is step.rule else c for c in step.rule.calls]
            rule.ins = [
                dataclasses.replace(old, rest=channels[i].rest)
                for i, old in zip(step.ins, step.rule.ins, strict=True)
            ]
            try:
                outs = rule.connect(Atoms())
            except Barrier:
                return True
            gate = analysis.of_units(step, analysis.ones())
            ins = [flows.get(i) or _open(analysis, i) for i in step.ins]
            made = rule.forward(ins, gate)
            asked = rule.backward(ins, made, [_wanted(f) for f in made])
            for slot, flow, demand in zip(step.ins, ins, asked, strict=True):
                held = np.maximum(demand.pin, demand.need * flow.alive)
                if slot in flows and held[analysis.atoms(slot) == atom].any():
                    return True
            own = analysis.own_units(step)
            for slot, flow, out in zip(step.outs, made, outs, strict=True):
                # A unit that is tied to this one is not what has become of it.
                mine = analysis.atoms(slot) == atom
                if slot not in own and mine.any():
                    if step.rule.shifts:
                        # Whatever it makes of 0 now, training may change.
                        rest = np.where(mine & (out.rest == 0), 1.0, out.rest)
                        out = dataclasses.replace(out, rest=rest)
                    flows[slot], channels[slot] = flow, out
        for slot in places.intersection(step.outs):
            mine = analysis.atoms(slot) == atom
            flows[slot] = Flow(1.0 * ~mine, 0.0 * mine)
            rest = np.where(mine, 0.0, channels[slot].rest)
            channels[slot] = dataclasses.replace(channels[slot], rest=rest)
    return False


def read_at(analysis: Analysis, atom: int) -> Iterator[tuple[Step, int]]:
    """The calls that read a unit, and do not only hand it on: with the tensor.

    Args:
        analysis: The model.
        atom: The unit's decision.

    Yields:
        The call, and which tensor it reads, by its number in the analysis.
    """
    for step in analysis.steps:
        if not any((analysis.atoms(slot) == atom).any() for slot in step.ins):
            continue
        if step.rule.whole:
            yield from ((step, slot) for slot in step.ins)
            continue
        ins = [_open(analysis, slot) for slot in step.ins]
        outs = [_open(analysis, slot) for slot in step.outs]
        unread = [
            Demand(1.0 * (analysis.atoms(slot) != atom), 0.0 * flow.alive)
            for slot, flow in zip(step.outs, outs, strict=True)
        ]
        asked = step.rule.backward(ins, outs, unread)
        for slot, demand in zip(step.ins, asked, strict=True):
            if (demand.need * (analysis.atoms(slot) == atom)).any():
                yield step, slot


def _open(analysis: Analysis, slot: int) -> Flow:
    ones = np.ones(analysis.channels[slot].size)
    return Flow(ones, 0.0 * ones)


def _wanted(flow: Flow) -> Demand:
    return Demand(np.ones_like(flow.alive), 0.0 * flow.alive)
