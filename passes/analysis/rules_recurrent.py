"""Rules for LSTM, GRU and RNN: hidden units are tied over the gates and the directions, input channels are contracted."""

from __future__ import annotations

import numpy as np

from deburr.ir.node import Node
from deburr.passes.analysis.box import varying
from deburr.passes.analysis.quantized import constant_behind
from deburr.passes.analysis.walk import DeclineError, Walk, constant_of, shape_of

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(node: Node, walk: Walk) -> None:
    """W [directions, gates·H, I], R [directions, gates·H, H], B [directions, 2·gates·H], P [directions, 3·H].

    The last axis of every output and initial state is H. Both directions lose the same units, as they share an output tensor.

    :raises DeclineError: if a weight is computed.
    """
    gates = _GATES[node.op]
    recurrence = constant_of(node, 2, "recurrence weight").static_shape
    inputs = constant_of(node, 1, "weight").static_shape
    if recurrence is None or inputs is None or len(recurrence) != 3 or len(inputs) != 3:
        raise DeclineError("the rank of its weight is unusual")
    hidden = walk.fresh(recurrence[2])
    walk.slice(node, 1, 2, walk.vector(node.input(0), 2, inputs[2]), "input")
    walk.slice(node, 1, 1, np.tile(hidden, gates), "output")
    walk.slice(node, 2, 1, np.tile(hidden, gates), "output")
    walk.slice(node, 2, 2, hidden, "input")
    for index, repeats in ((3, 2 * gates), (7, 3)):
        if node.optional_input(index) is not None:
            constant_of(node, index, "bias" if index == 3 else "peephole weight")
            walk.slice(node, index, 1, np.tile(hidden, repeats), "bias")
    for value in node.outputs:
        if value is not None:
            walk.put_axis(value, -1, hidden)
    for index in (5, 6):
        _initial_state(node, walk, index)
    walk.regenerate(node, "hidden_size")


def _initial_state(node: Node, walk: Walk, index: int) -> None:
    state = node.optional_input(index)
    if state is None:
        return
    out = next(value for value in node.outputs if value is not None)
    axis = len(shape_of(state)) - 1
    hidden = walk.ids[out].reshape(-1)
    if constant_behind(state) is not None:
        walk.slice(node, index, axis, hidden, "data")
    elif axis not in varying(walk.of(state)):
        walk.freeze(out, f"its initial state {state.name!r} keeps all its channels", node)
        walk.freeze(state, "it is the initial state of hidden units that stay", node)
    else:
        walk.classes.union(hidden, walk.vector(state, axis, len(hidden)))
