"""Rules for normalizations whose statistics run over channels: exact where whole groups of statistics go, else lossy."""

from __future__ import annotations

from deburr.ir.node import Node
from deburr.passes.analysis.box import varying
from deburr.passes.analysis.walk import DeclineError, Walk, constant_of, shape_of

_OVER_CHANNELS = "its statistics run over the channels"
_LOSSY = "its statistics run over the channels that are left"


def layer_normalization(node: Node, walk: Walk) -> None:
    """LayerNormalization, RMSNormalization: statistics over the axes from `axis` on, which keep all they have unless lossy.

    Other axes (heads, where positions in a head are normalized) are followed. Scale and bias are broadcast to the input.
    """
    ids = walk.of(node.input(0))
    axes = range(int(node.get("axis", -1)) % ids.ndim, ids.ndim)
    if set(varying(ids)) <= set(axes) and walk.options.lossy:
        if ids.any():
            walk.lossy[node] = _LOSSY
    else:
        ids = walk.whole(ids, axes, _OVER_CHANNELS)
    for index in range(1, len(node.inputs)):
        if node.optional_input(index) is not None:
            operand = constant_of(node, index, "scale" if index == 1 else "bias")
            for axis, dim in enumerate(shape_of(operand)):
                place = axis + ids.ndim - len(shape_of(operand))
                if dim != 1 and ids.shape[place] > 1:
                    walk.slice(node, index, axis, ids, "scale" if index == 1 else "bias", ids_axis=place)
    walk.put(node.output(), ids)


def group_normalization(node: Node, walk: Walk) -> None:
    """Whole statistics groups go. If lossy, every group loses the same positions instead (BALANCED)."""
    groups, channels = int(node.get("num_groups")), shape_of(node.input(0))[1]
    if not isinstance(channels, int):
        raise DeclineError("the number of its channels is unknown")
    ids = walk.vector(node.input(0), 1, channels)
    if ids.any():
        rows = ids.reshape(groups, -1)
        walk.classes.union(rows, rows[:1] if walk.options.lossy else rows[:, :1])
        if walk.options.lossy:
            walk.lossy[node] = _LOSSY
        else:
            walk.regenerate(node, "num_groups")
    for index, role in ((1, "scale"), (2, "bias")):  # since opset 21; the form of 18, one for each group, is deprecated
        if constant_of(node, index, role).static_shape != (channels,):
            raise DeclineError(f"its {role} is not one for each channel")
        walk.slice(node, index, 0, ids, role)
    walk.put(node.output(), walk.of(node.input(0)))
