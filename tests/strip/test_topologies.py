"""Networks as people build them: what must go goes, whatever the gates."""

import dataclasses

import keras
import models_topologies
import models_topologies_sequence
import numpy as np
import pytest
from adversary import check, locations, owner
from small_models import CASES, hardened, operations
from test_equal import assert_loads_alone, assert_trains

import keras_l0

MODES = ("keep", "gather", "narrow")


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known without strip.

    ``closed``: by gate, the units that close. ``shapes``: by layer, the shape that its
    first weight then has. ``barriers``: names of the calls that must be barriers.
    """

    closed: dict[str, list[int]]
    shapes: dict[str, tuple[int, ...]]
    barriers: tuple[str, ...] = ()


# The first weight is the query's; Keras 3.10 has no grouped attention.
GROUPED = hasattr(keras.layers, "GroupQueryAttention")
ATTENTION = (5, 4, 4) if GROUPED else (5, 2, 4)

KNOWN = {
    "unet_transposed": Known(
        {"down1_gate": [0], "down2_gate": [0, 5], "middle_gate": [1, 2, 3],
         "decode2_gate": [4], "decode1_gate": [0, 1]},
        {"down1": (3, 3, 2, 3), "down2": (3, 3, 3, 4), "down2_norm": (4,),
         "middle": (3, 3, 4, 5), "up2": (2, 2, 6, 5), "decode2": (3, 3, 10, 5),
         "up1": (2, 2, 4, 5), "decode1": (3, 3, 7, 2), "mask": (1, 1, 2, 2)},
    ),
    "unet_upsampled": Known(
        {"down1_gate": [0], "middle_gate": [1, 2, 3], "up2_gate": [0, 1, 2, 3],
         "up1_gate": [3]},
        {"down1": (3, 3, 2, 3), "down2": (3, 3, 3, 6), "middle": (3, 3, 6, 5),
         "up2": (2, 2, 5, 2), "decode2": (3, 3, 8, 6), "up1": (2, 2, 6, 3),
         "decode1": (3, 3, 6, 4)},
    ),
    # The lateral convolutions lose channels because nobody reads them.
    "feature_pyramid": Known(
        {"fine_gate": [1], "coarse_gate": [0, 5], "pyramid": [0, 3], "tower": [2]},
        {"fine": (3, 3, 3, 4), "coarse": (3, 3, 4, 4), "lateral1": (1, 1, 4, 4),
         "lateral2": (1, 1, 4, 4), "smooth1": (3, 3, 4, 4), "tower": (3, 3, 4, 4),
         "kind": (3, 3, 4, 3), "box": (3, 3, 4, 4)},
    ),
    "siamese_difference": Known(
        {"look": [0, 4], "code_gate": [0, 1]},
        {"look": (3, 3, 2, 3), "code": (3, 4), "same": (4, 1)},
    ),
    "siamese_dot": Known(
        {"look": [0, 4], "code_gate": [0, 1]},
        {"look": (3, 3, 2, 3), "code": (3, 4), "same": (1, 1)},
    ),
    # The residual stream is normalized over its channels: it stays.
    "convnext": Known(
        {"expand1": [0, 1, 2], "expand2": [0, 1, 2, 3, 4], "top": [0]},
        {"stem": (2, 2, 3, 6), "depthwise1": (7, 7, 6, 1), "expand1": (6, 9),
         "project1": (9, 6), "scale1": (1, 1, 6, 1), "expand2": (6, 7),
         "project2": (7, 6), "class": (6, 3)},
        ("norm", "norm1", "norm2"),
    ),
    # The shuffle reads all six channels, and makes three that lie in both groups.
    "channel_shuffle": Known(
        {"stem_gate": [0, 1, 2], "first_gate": [0], "second_gate": [3, 4, 5]},
        {"stem": (3, 3, 3, 6), "first": (1, 1, 3, 6), "depthwise": (3, 3, 6, 1),
         "second": (1, 1, 3, 6)},
        ("split",),
    ),
    "mobilenet_v3": Known(
        {"stream": [0, 1], "depthwise1_gate": [5], "squeeze1": [0],
         "depthwise2_gate": [0, 1, 2], "squeeze2": [0, 1]},
        {"stem": (3, 3, 3, 3), "expand1": (1, 1, 3, 7), "norm1": (7,),
         "depthwise1": (3, 3, 7, 1), "squeeze1": (1, 1, 7, 3),
         "excite1": (1, 1, 3, 7), "project1": (1, 1, 7, 3), "expand2": (1, 1, 3, 5),
         "depthwise2": (3, 3, 5, 1), "squeeze2": (1, 1, 5, 2),
         "excite2": (1, 1, 2, 5), "project2": (1, 1, 5, 3), "class": (3, 3)},
    ),
    # Constants behind the normalizations are folded into 1x1 convolutions.
    "densenet": Known(
        {"stem_gate": [0], "narrow1_gate": [1, 2], "grow1_gate": [0],
         "grow2_gate": [1, 2], "transition_gate": [3, 4]},
        {"stem": (3, 3, 3, 3), "norm1": (3,), "narrow1": (1, 1, 3, 3),
         "grow1": (3, 3, 3, 2), "narrow2": (1, 1, 5, 5), "grow2": (3, 3, 5, 1),
         "norm": (6,), "transition": (1, 1, 6, 3), "class": (3, 3)},
    ),
    # The code is an output: all of it stays. So does what a Reshape unfolds.
    "autoencoder_outputs": Known(
        {"encode1_gate": [0], "encode2_gate": [2, 3], "code": [0],
         "spread": [0, 1, 2], "decode2_gate": [3], "ask": [0, 5]},
        {"encode1": (3, 3, 1, 3), "encode2": (3, 3, 3, 4), "code": (16, 5),
         "spread": (5, 24), "decode2": (3, 3, 3, 6), "decode1": (2, 2, 1, 3),
         "ask": (5, 4), "kind": (4, 3)},
        ("unfold",),
    ),
    # A group goes with all its inputs, or all its outputs; half a group stays.
    "resnext": Known(
        {"stream": [0, 1, 2], "grouped1_gate": [0, 1, 2], "reduce2_gate": [4, 5]},
        {"stem": (3, 3, 3, 3), "reduce1": (1, 1, 3, 4), "grouped1": (3, 3, 2, 4),
         "expand1": (1, 1, 4, 3), "reduce2": (1, 1, 3, 4), "grouped2": (3, 3, 2, 4),
         "expand2": (1, 1, 4, 3), "class": (3, 3)},
    ),
    # Normalized streams stay; attention has no gates inside.
    "vit_mean": Known(
        {"widen1": [0, 1], "widen2": [2], "pool": [0, 5]},
        {"patches": (4, 4, 3, 8), "positions": (4, 8), "attention1": (8, 2, 4),
         "widen1": (8, 10), "narrow1": (10, 8), "widen2": (8, 11), "pool": (8, 4),
         "class": (4, 3)},
        ("norm1a", "norm1b", "norm2a", "norm2b", "norm"),
    ),
    "vit_first": Known(
        {"widen1": [0, 1], "pool": [0, 5]},
        {"widen1": (8, 10), "narrow1": (10, 8), "widen2": (8, 12), "pool": (8, 4)},
        ("norm1a", "norm1b", "norm2a", "norm2b", "norm"),
    ),
    # RMSNormalization lets the stream go, from the embedding to the logits.
    "decoder": Known(
        {"stream": [0, 1, 2], "inner1": [0], "inner2": [1, 2, 3]},
        {"words": (7, 5), "norm1a": (5,), "attention1": ATTENTION, "norm1b": (5,),
         "left1": (5, 9), "right1": (5, 9), "out1": (9, 5), "attention2": ATTENTION,
         "left2": (5, 7), "right2": (5, 7), "out2": (7, 5), "norm": (5,),
         "logits": (5, 7)},
    ),
    # A Dense on a permuted map reads positions: only its own units go.
    "mlp_mixer": Known(
        {"tokens1": [0, 1], "tokens2": [6], "channels1": [0, 1, 2], "channels2": [0]},
        {"patches": (4, 4, 3, 6), "tokens1": (4, 5), "mixed1": (5, 4),
         "channels1": (6, 6), "joined1": (6, 6), "tokens2": (4, 6), "mixed2": (6, 4),
         "channels2": (6, 8), "joined2": (8, 6), "class": (6, 3)},
        ("norm1a", "tokens1", "add1", "norm1b", "norm2a", "tokens2", "add2", "norm2b",
         "norm"),
    ),
    # Recurrent units stay, what they read goes.
    "text_classifier": Known(
        {"words_gate": [0, 3, 7], "mix": [1, 2], "top": [0, 1, 2]},
        {"words": (7, 5), "both": (5, 16), "mix": (8, 5), "last": (5, 15),
         "top": (5, 5), "class": (5, 3)},
        ("both", "last"),
    ),
    "text_cnn": Known(
        {"words_gate": [0, 7], "gate2": [0], "gate3": [1, 2], "gate4": [0, 1, 2, 3]},
        {"words": (7, 6), "grams2": (2, 6, 4), "grams3": (3, 6, 3),
         "grams4": (4, 6, 1), "class": (8, 3)},
    ),
    "temporal_convolutions": Known(
        {"stream": [0, 1], "gate0": [0], "gate1": [1, 2, 3], "gate2": [6]},
        {"stem": (1, 3, 4), "inner0": (2, 4, 6), "norm0": (6,), "outer0": (2, 6, 4),
         "inner1": (2, 4, 4), "outer1": (2, 4, 4), "inner2": (2, 4, 6),
         "outer2": (2, 6, 4), "next": (4, 2)},
    ),
    "translator": Known(
        {"words_gate": [0, 1], "spoken_gate": [5], "mix": [0, 1, 2]},
        {"words": (7, 4), "encoder": (4, 15), "spoken": (7, 5), "decoder": (5, 15),
         "mix": (10, 5), "word": (5, 7)},
        ("encoder", "decoder", "look"),
    ),
    "wide_and_deep": Known(
        {"place_gate": [0, 4], "deep1": [0, 1, 2], "deep2": [5]},
        {"place": (4, 3), "deep1": (6, 5), "deep2": (5, 5), "buys": (16, 1),
         "spends": (5, 1)},
        ("encode", "count", "bin"),
    ),
    "nested_tasks": Known(
        {"look_gate": [0], "think_gate": [1, 2], "hidden": [0, 1, 2], "where": [3]},
        {"look": (3, 3, 2, 3), "think": (3, 3, 3, 4), "hidden": (4, 2),
         "kind": (2, 3), "where": (1, 1, 3, 3), "place": (1, 1, 3, 1)},
    ),
}  # fmt: skip

TOPOLOGIES = [
    name
    for name, facts in CASES.items()
    if facts.build.__module__
    in (models_topologies.__name__, models_topologies_sequence.__name__)
]


def copied(name):
    """The model of a case, to be changed."""
    model = keras.models.clone_model(hardened(name))
    model.set_weights(hardened(name).get_weights())
    return model


def first_weight(model, name):
    return tuple(model.get_layer(name).weights[0].shape)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_what_must_go_goes(name):
    known = KNOWN[name]
    model = copied(name)
    found = {owner(gate): gate for gate in keras_l0.gates(model)}
    assert known.closed.keys() <= found.keys()
    for gate_name, gate in found.items():
        values = np.full(gate.count, 9.0)
        values[known.closed.get(gate_name, [])] = -9.0
        gate.assign_log_alpha(values)
    plan = keras_l0.plan(model)
    assert [barrier.name for barrier in plan.barriers] == list(known.barriers)
    stripped = keras_l0.strip(model)
    assert {n: first_weight(stripped, n) for n in known.shapes} == known.shapes


def shuffle_gates(model, rng):
    """Each gate some closed, all closed but one, or all open."""
    for gate in keras_l0.gates(model):
        values = locations(rng, gate.count)
        how = rng.choice(["some"] * 6 + ["one"] * 3 + ["all", "none"])
        if how == "one":
            values[:-1], values[-1] = -9, 0.7
        elif how != "some":
            values[:] = 9 if how == "none" else -9
        gate.assign_log_alpha(values)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_outputs_are_equal_whatever_the_gates(name, mode):
    rng = np.random.default_rng(len(name) + len(mode))
    model = copied(name)
    for _ in range(2):
        shuffle_gates(model, rng)
        check(model, mode)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_what_is_frozen_stays_frozen(name):
    model = copied(name)
    layers = {o.name: o for o in operations(model) if getattr(o, "weights", ())}
    for number, layer in enumerate(layers.values()):
        if not isinstance(layer, keras.Model):
            layer.trainable = number % 2 == 0
    stripped = keras_l0.strip(model, verify=False)
    # The multiplication behind a gated output takes the name of what makes it.
    found = {
        layer.name.removesuffix("_ungated"): layer.trainable
        for layer in stripped.layers
        if layer.weights
    }
    assert found == {n: layers[n].trainable for n in found}
    assert set(found.values()) == {True, False}


@pytest.mark.parametrize(
    "name",
    ["feature_pyramid", "nested_tasks", "decoder", "text_classifier", "wide_and_deep"],
)
def test_it_trains_further(name):
    assert_trains(keras_l0.strip(hardened(name)))


def test_saved_models_load_without_this_package(tmp_path):
    assert_loads_alone(TOPOLOGIES, tmp_path)
