"""What Sony's Model Compression Toolkit could prune, by its rule, on our graph.

It prunes the units of a Conv2D, Conv2DTranspose (ungrouped) or Dense whose output goes
through layers of one input and one reader each to another such layer with as many input
channels (`Graph._is_node_topology_prunable`, `is_node_intermediate_pruning_section`).
"""

from __future__ import annotations

import math
from typing import Any

from keras import layers

from keras_l0.analysis.graph import Graph, Node

EDGES = (layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
# It passes through SeparableConv2D as if it were elementwise, which cannot be right.
STOPS = (*EDGES, layers.DepthwiseConv2D, layers.SeparableConv2D)


def reachable_share(graph: Graph) -> float:
    """The share of kernels and biases that goes if every unit but one is pruned.

    Counted as `keras_l0.plan(model).reachable` is: outside the output layers.
    """
    readers = {t.index: node for node in graph.nodes for t in node.inputs}
    sections = [(n, e) for n in graph.nodes if (e := _exit(graph, readers, n))]
    cut_outputs = {id(entry) for entry, _ in sections}
    cut_inputs = {id(exit_) for _, exit_ in sections}
    before = after = 0
    for node in graph.nodes:
        kernels = [w for w in getattr(node.operation, "weights", ()) if _kernel(w)]
        if not kernels or any(t in graph.outputs for t in node.outputs):
            continue
        params = node.operation.count_params()
        before += params
        if isinstance(node.operation, EDGES):
            *taps, n_in, n_out = kernels[0].shape
            bias = node.operation.use_bias
            n_in = 1 if id(node) in cut_inputs else n_in
            n_out = 1 if id(node) in cut_outputs else n_out
            params = (math.prod(taps) * n_in + bias) * n_out
        after += params
    return 1 - after / before


def _kernel(weight: Any) -> bool:
    return "kernel" in weight.name


def _edge(node: Node) -> bool:
    return type(node.operation) in EDGES and getattr(node.operation, "groups", 1) == 1


def _exit(graph: Graph, readers: dict[int, Node], entry: Node) -> Node | None:
    """The layer that reads the units of ``entry``, if these can be pruned."""
    if not _edge(entry):
        return None
    node = entry
    while len(node.outputs) == 1 and node.outputs[0].consumers == 1:
        if node.outputs[0].index not in readers:  # an output
            return None
        node = readers[node.outputs[0].index]
        if len(node.inputs) != 1:
            return None
        if _edge(node):
            read = node.operation.kernel.shape[-2]
            return node if read == entry.operation.kernel.shape[-1] else None
        if isinstance(node.operation, STOPS):
            return None
    return None
